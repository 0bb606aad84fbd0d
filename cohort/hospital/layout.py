"""Layout: a shard's rows as tables in MIMIC-IV's layout."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int

from cohort.hospital import events, faults, items, orders, registry
from cohort.hospital.bedside import Procedures
from cohort.hospital.events import Events
from cohort.hospital.items import ITEM_ID, ITEM_TABLE, ITEMS, TABLES, TEXTS, UNITS
from cohort.hospital.orders import CATEGORIES, STATUSES, Infusions
from cohort.hospital.population import Outcomes, Population
from cohort.hospital.schema import TEXT, TIME, Columns, real, table, whole, words

_ORDERS_A_SHARD = 1 << 30  # room for the numbers of a shard of 5,000 stays
_SPECIMENS_A_SHARD = 1 << 26
_LOW = np.array([np.nan if item.normal is None else item.normal[0] for item in ITEMS])
_HIGH = np.array([np.nan if item.normal is None else item.normal[1] for item in ITEMS])


@dataclass(frozen=True)
class Rows:
    """All that was charted of a shard."""

    events: Events
    infusions: Infusions
    procedures: Procedures


def trim(rows: Rows, out_hour: Float[np.ndarray, "n"]) -> Rows:
    """Leave out what would be charted after its stay has ended, and bring each stay's rows together."""
    out = np.round(out_hour * 3600).astype(np.int64)
    kept = np.flatnonzero(rows.events.charted < out[rows.events.stay])
    by_stay = kept[np.argsort(rows.events.stay[kept].astype(np.int16), kind="stable")]
    given = np.argsort(rows.infusions.stay, kind="stable")
    return Rows(events.take(rows.events, by_stay), orders.take(rows.infusions, given), rows.procedures)


def tables(rows: Rows, population: Population, outcomes: Outcomes, shard: int) -> dict[str, pa.Table]:
    """MIMIC-IV tables by path without extension ("hosp/labevents", "icu/chartevents" ...): all of SCHEMAS but d_*.

    Args:
        rows: what was charted, after `trim`.
        shard: its number; row ids (labevent_id, specimen_id, orderid) are unique across shards.
    """
    split = {
        table: events.take(rows.events, ITEM_TABLE[rows.events.item] == TABLES.index(table)) for table in TABLES[:3]
    }
    stay = _Stay(population, shard)
    made = {
        **registry.tables(population, outcomes, shard),
        "hosp/labevents": _labevents(split["labevents"], stay),
        "icu/chartevents": _chartevents(split["chartevents"], stay),
        "icu/outputevents": _outputevents(split["outputevents"], stay),
        "icu/inputevents": _inputevents(rows.infusions, stay),
        "icu/procedureevents": _procedureevents(rows.procedures, stay),
    }
    return {name: table(name, columns) for name, columns in made.items()}


def fault_table(rows: Rows, population: Population) -> pa.Table:
    """Every fault in the rows: table, kind, stay_id, itemid, charttime (starttime of infusions) and the value written
    (amount of infusions). For the truth only."""
    event, given = rows.events, rows.infusions
    which = np.flatnonzero(event.fault >= 0), np.flatnonzero(given.fault >= 0)
    stay = np.r_[event.stay[which[0]], given.stay[which[1]]]
    seconds = np.r_[event.charted[which[0]], given.start[which[1]]]
    item = np.r_[event.item[which[0]], given.item[which[1]]]
    kind = np.r_[event.fault[which[0]], given.fault[which[1]]]
    return pa.table(
        {
            "table": words(TABLES, ITEM_TABLE[item]),
            "kind": words(faults.KINDS, kind),
            "stay_id": population.stay_id[stay],
            "itemid": ITEM_ID[item],
            "charttime": pa.array(population.intime[stay] + seconds.astype("timedelta64[s]"), TIME),
            "value": real(np.r_[event.value[which[0]], given.amount[which[1]]]),
        }
    )


def count_faults(table: pa.Table) -> dict[str, int]:
    """How many rows have each kind of fault; kinds that were not planted count 0."""
    found = table["kind"].combine_chunks().dictionary_decode().to_pylist() if table.num_rows else []
    counts = dict.fromkeys(faults.KINDS, 0)
    for kind in found:
        counts[kind] += 1
    return counts


@dataclass(frozen=True)
class _Stay:
    """Whose rows they are."""

    population: Population
    shard: int

    def ids(self, stay: Int[np.ndarray, "r"], seconds: Int[np.ndarray, "r"]) -> dict[str, np.ndarray]:
        """The columns every ICU table begins with; caregivers change with the shift."""
        people = self.population
        shift = seconds.astype(np.int64) // 43_200
        return {
            "subject_id": people.subject_id[stay],
            "hadm_id": people.hadm_id[stay],
            "stay_id": people.stay_id[stay],
            "caregiver_id": 10_000 + (stay.astype(np.int64) * 37 + shift * 7919 + self.shard * 101) % 85_000,
        }

    def time(self, stay: Int[np.ndarray, "r"], seconds: Int[np.ndarray, "r"]) -> np.ndarray:
        """Seconds since each stay's intime as points in time."""
        since = (seconds.astype(np.int64) * 1_000_000).astype("timedelta64[us]")
        time: np.ndarray = self.population.intime.astype("datetime64[us]")[stay] + since
        return time


def _written(value: Float[np.ndarray, "r"], text: Int[np.ndarray, "r"]) -> pa.DictionaryArray:
    """The `value` column: the text, else the number's digits."""
    digits = pa.array(value).dictionary_encode()
    words = [*TEXTS, *(f"{number:.10g}" for number in digits.dictionary.to_numpy())]
    codes = np.where(text >= 0, text, len(TEXTS) + digits.indices.to_numpy())
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), pa.array(words, TEXT))


def _chartevents(rows: Events, stay: _Stay) -> Columns:
    return {
        **stay.ids(rows.stay, rows.charted),
        "charttime": stay.time(rows.stay, rows.charted),
        "storetime": stay.time(rows.stay, rows.stored),
        "itemid": ITEM_ID[rows.item],
        "value": _written(rows.value, rows.text),
        "valuenum": real(rows.value),
        "valueuom": words(UNITS, rows.unit),
        "warning": np.zeros(rows.n, np.int64),
    }


def _outputevents(rows: Events, stay: _Stay) -> Columns:
    return {
        **stay.ids(rows.stay, rows.charted),
        "charttime": stay.time(rows.stay, rows.charted),
        "storetime": stay.time(rows.stay, rows.stored),
        "itemid": ITEM_ID[rows.item],
        "value": rows.value,
        "valueuom": words(UNITS, rows.unit),
    }


def _labevents(rows: Events, stay: _Stay) -> Columns:
    """Duplicates repeat every column, labevent_id included."""
    orphan = rows.specimen % 2 == 1
    low, high = _LOW[rows.item], _HIGH[rows.item]
    odd = (rows.value < low) | (rows.value > high)
    specimen = stay.shard * _SPECIMENS_A_SHARD + rows.specimen.astype(np.int64) // 2
    unparsed = rows.text == items.TEXT[items.UNPARSED]
    return {
        "labevent_id": specimen * 256 + rows.item,
        "subject_id": stay.population.subject_id[rows.stay],
        "hadm_id": whole(stay.population.hadm_id[rows.stay], orphan),
        "specimen_id": specimen,
        "itemid": ITEM_ID[rows.item],
        "charttime": stay.time(rows.stay, rows.charted),
        "storetime": stay.time(rows.stay, rows.stored),
        "value": _written(rows.value, rows.text),
        "valuenum": real(rows.value),
        "valueuom": words(UNITS, rows.unit),
        "ref_range_lower": real(low),
        "ref_range_upper": real(high),
        "flag": words(("abnormal",), np.where(odd, 0, -1)),
        "priority": words(("STAT", "ROUTINE"), (rows.specimen // 8 % 3 == 0).astype(np.int64)),
        "comments": words((items.UNPARSED,), np.where(unparsed, 0, -1)),
    }


def _inputevents(rows: Infusions, stay: _Stay) -> Columns:
    order = stay.shard * _ORDERS_A_SHARD
    described = {
        name: words([category[position] for category in CATEGORIES], rows.category)
        for position, name in enumerate(
            (
                "ordercategoryname",
                "secondaryordercategoryname",
                "ordercomponenttypedescription",
                "ordercategorydescription",
            )
        )
    }
    return {
        **stay.ids(rows.stay, rows.start),
        "starttime": stay.time(rows.stay, rows.start),
        "endtime": stay.time(rows.stay, rows.end),
        "storetime": stay.time(rows.stay, rows.stored),
        "itemid": ITEM_ID[rows.item],
        "amount": real(rows.amount),
        "amountuom": words(UNITS, rows.amount_unit),
        "rate": real(rows.rate),
        "rateuom": words(UNITS, rows.rate_unit),
        "orderid": order + rows.order,
        "linkorderid": order + rows.link,
        **described,
        "patientweight": real(rows.weight_kg),
        "isopenbag": np.zeros(rows.n, np.int64),
        "continueinnextdept": np.zeros(rows.n, np.int64),
        "statusdescription": words(STATUSES, rows.status),
        "originalamount": real(rows.amount),
        "originalrate": real(rows.rate),
    }


def _procedureevents(rows: Procedures, stay: _Stay) -> Columns:
    minutes = (rows.end - rows.start) / 60.0
    order = (
        stay.shard * _ORDERS_A_SHARD + rows.stay.astype(np.int64) * (1 << 17) + rows.start // 60 % 60_000 + (1 << 16)
    )
    zeros = np.zeros(len(rows.stay), np.int64)
    return {
        **stay.ids(rows.stay, rows.start),
        "starttime": stay.time(rows.stay, rows.start),
        "endtime": stay.time(rows.stay, rows.end),
        "storetime": stay.time(rows.stay, rows.stored),
        "itemid": ITEM_ID[rows.item],
        "value": minutes,
        "valueuom": words(("min",), zeros),
        "orderid": order,
        "linkorderid": order,
        "ordercategoryname": words(("Ventilation",), zeros),
        "ordercategorydescription": words(("Task",), zeros),
        "patientweight": stay.population.weight_kg[rows.stay],
        "isopenbag": zeros + 1,
        "continueinnextdept": zeros,
        "statusdescription": words(("FinishedRunning",), zeros),
        "originalamount": minutes,
        "originalrate": zeros + 1.0,
    }
