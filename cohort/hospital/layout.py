"""Layout: a shard's rows as tables in MIMIC-IV's layout, and the files they are written to."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from jaxtyping import Bool, Float, Int

from cohort.hospital import events, faults, infusions, items
from cohort.hospital.charting import Events, Procedures
from cohort.hospital.infusions import CATEGORIES, STATUSES, Infusions
from cohort.hospital.items import ITEM_ID, ITEM_TABLE, ITEMS, TABLES, TEXTS, UNITS
from cohort.hospital.population import Outcomes, Population

_TIME, _DAY = pa.timestamp("us"), pa.date32()
_I, _F, _S = pa.int64(), pa.float64(), pa.string()
_EVENT = [("subject_id", _I), ("hadm_id", _I), ("stay_id", _I), ("caregiver_id", _I)]

SCHEMAS: dict[str, pa.Schema] = {
    "hosp/patients": pa.schema(
        [
            ("subject_id", _I), ("gender", _S), ("anchor_age", _I), ("anchor_year", _I), ("anchor_year_group", _S),
            ("dod", _DAY),
        ]
    ),
    "hosp/admissions": pa.schema(
        [
            ("subject_id", _I), ("hadm_id", _I), ("admittime", _TIME), ("dischtime", _TIME), ("deathtime", _TIME),
            ("admission_type", _S), ("admit_provider_id", _S), ("admission_location", _S), ("discharge_location", _S),
            ("insurance", _S), ("language", _S), ("marital_status", _S), ("race", _S), ("edregtime", _TIME),
            ("edouttime", _TIME), ("hospital_expire_flag", _I),
        ]
    ),
    "hosp/labevents": pa.schema(
        [
            ("labevent_id", _I), ("subject_id", _I), ("hadm_id", _I), ("specimen_id", _I), ("itemid", _I),
            ("order_provider_id", _S), ("charttime", _TIME), ("storetime", _TIME), ("value", _S), ("valuenum", _F),
            ("valueuom", _S), ("ref_range_lower", _F), ("ref_range_upper", _F), ("flag", _S), ("priority", _S),
            ("comments", _S),
        ]
    ),
    "hosp/microbiologyevents": pa.schema(
        [
            ("microevent_id", _I), ("subject_id", _I), ("hadm_id", _I), ("micro_specimen_id", _I),
            ("order_provider_id", _S), ("chartdate", _TIME), ("charttime", _TIME), ("spec_itemid", _I),
            ("spec_type_desc", _S), ("test_seq", _I), ("storedate", _TIME), ("storetime", _TIME), ("test_itemid", _I),
            ("test_name", _S), ("org_itemid", _I), ("org_name", _S), ("isolate_num", _I), ("quantity", _S),
            ("ab_itemid", _I), ("ab_name", _S), ("dilution_text", _S), ("dilution_comparison", _S),
            ("dilution_value", _F), ("interpretation", _S), ("comments", _S),
        ]
    ),
    "hosp/prescriptions": pa.schema(
        [
            ("subject_id", _I), ("hadm_id", _I), ("pharmacy_id", _I), ("poe_id", _S), ("poe_seq", _I),
            ("order_provider_id", _S), ("starttime", _TIME), ("stoptime", _TIME), ("drug_type", _S), ("drug", _S),
            ("formulary_drug_cd", _S), ("gsn", _S), ("ndc", _S), ("prod_strength", _S), ("form_rx", _S),
            ("dose_val_rx", _S), ("dose_unit_rx", _S), ("form_val_disp", _S), ("form_unit_disp", _S),
            ("doses_per_24_hrs", _F), ("route", _S),
        ]
    ),
    "hosp/diagnoses_icd": pa.schema(
        [("subject_id", _I), ("hadm_id", _I), ("seq_num", _I), ("icd_code", _S), ("icd_version", _I)]
    ),
    "hosp/d_labitems": pa.schema([("itemid", _I), ("label", _S), ("fluid", _S), ("category", _S)]),
    "icu/icustays": pa.schema(
        [
            ("subject_id", _I), ("hadm_id", _I), ("stay_id", _I), ("first_careunit", _S), ("last_careunit", _S),
            ("intime", _TIME), ("outtime", _TIME), ("los", _F),
        ]
    ),
    "icu/chartevents": pa.schema(
        [
            *_EVENT, ("charttime", _TIME), ("storetime", _TIME), ("itemid", _I), ("value", _S), ("valuenum", _F),
            ("valueuom", _S), ("warning", _I),
        ]
    ),
    "icu/outputevents": pa.schema(
        [*_EVENT, ("charttime", _TIME), ("storetime", _TIME), ("itemid", _I), ("value", _F), ("valueuom", _S)]
    ),
    "icu/inputevents": pa.schema(
        [
            *_EVENT, ("starttime", _TIME), ("endtime", _TIME), ("storetime", _TIME), ("itemid", _I), ("amount", _F),
            ("amountuom", _S), ("rate", _F), ("rateuom", _S), ("orderid", _I), ("linkorderid", _I),
            ("ordercategoryname", _S), ("secondaryordercategoryname", _S), ("ordercomponenttypedescription", _S),
            ("ordercategorydescription", _S), ("patientweight", _F), ("totalamount", _F), ("totalamountuom", _S),
            ("isopenbag", _I), ("continueinnextdept", _I), ("statusdescription", _S), ("originalamount", _F),
            ("originalrate", _F),
        ]
    ),
    "icu/procedureevents": pa.schema(
        [
            *_EVENT, ("starttime", _TIME), ("endtime", _TIME), ("storetime", _TIME), ("itemid", _I), ("value", _F),
            ("valueuom", _S), ("location", _S), ("locationcategory", _S), ("orderid", _I), ("linkorderid", _I),
            ("ordercategoryname", _S), ("ordercategorydescription", _S), ("patientweight", _F), ("isopenbag", _I),
            ("continueinnextdept", _I), ("statusdescription", _S), ("originalamount", _F), ("originalrate", _F),
        ]
    ),
    "icu/d_items": pa.schema(
        [
            ("itemid", _I), ("label", _S), ("abbreviation", _S), ("linksto", _S), ("category", _S), ("unitname", _S),
            ("param_type", _S), ("lownormalvalue", _F), ("highnormalvalue", _F),
        ]
    ),
}  # fmt: skip
"""Every table that is written, by path without extension, with MIMIC-IV's column names and types."""

_ORDERS_A_SHARD = 1 << 30  # room for the numbers of a shard of 5,000 stays
_SPECIMENS_A_SHARD = 1 << 26
_MINUTE = np.timedelta64(60, "s")
_EMPTY_TIME = np.datetime64("NaT", "us")


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
    return Rows(events.take(rows.events, by_stay), infusions.take(rows.infusions, given), rows.procedures)


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
        "hosp/patients": _patients(population, outcomes),
        "hosp/admissions": _admissions(population, outcomes),
        "hosp/diagnoses_icd": _diagnoses(population),
        "icu/icustays": _icustays(population, outcomes),
        "hosp/labevents": _labevents(split["labevents"], stay),
        "icu/chartevents": _chartevents(split["chartevents"], stay),
        "icu/outputevents": _outputevents(split["outputevents"], stay),
        "icu/inputevents": _inputevents(rows.infusions, stay),
        "icu/procedureevents": _procedureevents(rows.procedures, stay),
        **_suspicion(population, outcomes, shard),
    }
    return {name: _table(name, columns) for name, columns in made.items()}


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
            "table": _words(TABLES, ITEM_TABLE[item]),
            "kind": _words(faults.KINDS, kind),
            "stay_id": population.stay_id[stay],
            "itemid": ITEM_ID[item],
            "charttime": pa.array(population.intime[stay] + seconds.astype("timedelta64[s]"), _TIME),
            "value": _real(np.r_[event.value[which[0]], given.amount[which[1]]]),
        }
    )


def count_faults(table: pa.Table) -> dict[str, int]:
    """How many rows have each kind of fault; kinds that were not planted count 0."""
    found = table["kind"].combine_chunks().dictionary_decode().to_pylist() if table.num_rows else []
    counts = dict.fromkeys(faults.KINDS, 0)
    for kind in found:
        counts[kind] += 1
    return counts


class Writer:
    """Writes shards one after another into `hosp/` and `icu/` below a directory: one file a table, closed on exit."""

    def __init__(self, directory: Path, file_format: Literal["parquet", "csv.gz"]) -> None:
        self._directory = directory
        self._format = file_format
        self._open: dict[str, pq.ParquetWriter | pacsv.CSVWriter] = {}
        self._stack = ExitStack()

    def __enter__(self) -> "Writer":
        for folder in ("hosp", "icu"):
            (self._directory / folder).mkdir(parents=True, exist_ok=True)
        for name in SCHEMAS:
            self._open[name] = self._stack.enter_context(self._file(name))
        return self

    def __exit__(self, *error: object) -> None:
        try:
            if error[0] is None:
                self._append("icu/d_items", _d_items())
                self._append("hosp/d_labitems", _d_labitems())
        finally:
            self._stack.close()

    def write(self, shard: Mapping[str, pa.Table]) -> None:
        """Append a shard's tables; d_items and d_labitems are written once, at the end."""
        for name, table in shard.items():
            self._append(name, table)

    def _file(self, name: str) -> pq.ParquetWriter | pacsv.CSVWriter:
        path = self._directory / f"{name}.{self._format}"
        if self._format == "parquet":
            return pq.ParquetWriter(
                path, _coded(name), store_schema=False, compression="zstd", compression_level=1,
                write_page_checksum=True, use_dictionary=_repeated(name), column_encoding=_encodings(name),
            )  # fmt: skip
        sink = self._stack.enter_context(pa.CompressedOutputStream(str(path), "gzip"))
        return pacsv.CSVWriter(sink, _csv_schema(name), write_options=pacsv.WriteOptions(quoting_style="needed"))

    def _append(self, name: str, table: pa.Table) -> None:
        if self._format == "csv.gz":
            table = table.cast(_csv_schema(name))
        self._open[name].write_table(table)


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


Columns = dict[str, Any]


def _table(name: str, columns: Columns) -> pa.Table:
    """Columns in the schema's order; those not given are null."""
    schema = _coded(name)
    n = len(next(iter(columns.values())))
    arrays = []
    for field in schema:
        column = columns.get(field.name)
        if column is None:
            arrays.append(pa.nulls(n, field.type))
            continue
        array = column if isinstance(column, pa.Array) else pa.array(column)
        arrays.append(array if array.type == field.type else array.cast(field.type))
    return pa.Table.from_arrays(arrays, schema=schema)


def _coded(name: str) -> pa.Schema:
    """The schema with its texts as codes, which are quicker to make and to write; readers see plain texts."""
    coded = pa.dictionary(pa.int32(), _S)
    return pa.schema([pa.field(field.name, coded if field.type == _S else field.type) for field in SCHEMAS[name]])


def _words(words: Sequence[str | None], codes: Int[np.ndarray, "r"]) -> pa.DictionaryArray:
    """Codes as texts; -1 is null, and so is a code whose word is None. Words may be given twice."""
    known = {word: position for position, word in enumerate(dict.fromkeys(word for word in words if word is not None))}
    position = np.array([-1 if word is None else known[word] for word in words], np.int32)[codes]
    index = pa.array(position, mask=(codes < 0) | (position < 0))
    return pa.DictionaryArray.from_arrays(index, pa.array(list(known), _S))


def _whole(values: np.ndarray, missing: Bool[np.ndarray, "r"]) -> pa.Array:
    return pa.array(values.astype(np.int64), _I, mask=missing)


def _real(values: Float[np.ndarray, "r"]) -> pa.Array:
    return pa.array(values, _F, from_pandas=True)


def _written(value: Float[np.ndarray, "r"], text: Int[np.ndarray, "r"]) -> pa.DictionaryArray:
    """The `value` column: the text, else the number's digits."""
    digits = pa.array(value).dictionary_encode()
    words = [*TEXTS, *(f"{number:.10g}" for number in digits.dictionary.to_numpy())]
    codes = np.where(text >= 0, text, len(TEXTS) + digits.indices.to_numpy())
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), pa.array(words, _S))


def _chartevents(rows: Events, stay: _Stay) -> Columns:
    return {
        **stay.ids(rows.stay, rows.charted),
        "charttime": stay.time(rows.stay, rows.charted),
        "storetime": stay.time(rows.stay, rows.stored),
        "itemid": ITEM_ID[rows.item],
        "value": _written(rows.value, rows.text),
        "valuenum": _real(rows.value),
        "valueuom": _words(UNITS, rows.unit),
        "warning": np.zeros(rows.n, np.int64),
    }


def _outputevents(rows: Events, stay: _Stay) -> Columns:
    return {
        **stay.ids(rows.stay, rows.charted),
        "charttime": stay.time(rows.stay, rows.charted),
        "storetime": stay.time(rows.stay, rows.stored),
        "itemid": ITEM_ID[rows.item],
        "value": rows.value,
        "valueuom": _words(UNITS, rows.unit),
    }


_LOW = np.array([np.nan if item.normal is None else item.normal[0] for item in ITEMS])
_HIGH = np.array([np.nan if item.normal is None else item.normal[1] for item in ITEMS])


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
        "hadm_id": _whole(stay.population.hadm_id[rows.stay], orphan),
        "specimen_id": specimen,
        "itemid": ITEM_ID[rows.item],
        "charttime": stay.time(rows.stay, rows.charted),
        "storetime": stay.time(rows.stay, rows.stored),
        "value": _written(rows.value, rows.text),
        "valuenum": _real(rows.value),
        "valueuom": _words(UNITS, rows.unit),
        "ref_range_lower": _real(low),
        "ref_range_upper": _real(high),
        "flag": _words(("abnormal",), np.where(odd, 0, -1)),
        "priority": _words(("STAT", "ROUTINE"), (rows.specimen // 8 % 3 == 0).astype(np.int64)),
        "comments": _words((items.UNPARSED,), np.where(unparsed, 0, -1)),
    }


def _inputevents(rows: Infusions, stay: _Stay) -> Columns:
    order = stay.shard * _ORDERS_A_SHARD
    words = {
        name: _words([category[position] for category in CATEGORIES], rows.category)
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
        "amount": _real(rows.amount),
        "amountuom": _words(UNITS, rows.amount_unit),
        "rate": _real(rows.rate),
        "rateuom": _words(UNITS, rows.rate_unit),
        "orderid": order + rows.order,
        "linkorderid": order + rows.link,
        **words,
        "patientweight": _real(rows.weight_kg),
        "isopenbag": np.zeros(rows.n, np.int64),
        "continueinnextdept": np.zeros(rows.n, np.int64),
        "statusdescription": _words(STATUSES, rows.status),
        "originalamount": _real(rows.amount),
        "originalrate": _real(rows.rate),
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
        "valueuom": _words(("min",), zeros),
        "orderid": order,
        "linkorderid": order,
        "ordercategoryname": _words(("Ventilation",), zeros),
        "ordercategorydescription": _words(("Task",), zeros),
        "patientweight": stay.population.weight_kg[rows.stay],
        "isopenbag": zeros + 1,
        "continueinnextdept": zeros,
        "statusdescription": _words(("FinishedRunning",), zeros),
        "originalamount": minutes,
        "originalrate": zeros + 1.0,
    }


def _patients(people: Population, outcomes: Outcomes) -> Columns:
    subject, first = np.unique(people.subject_id, return_index=True)
    year = people.intime[first].astype("datetime64[Y]").astype(np.int64) + 1970
    age = year - people.birth_year[first]
    return {
        "subject_id": subject,
        "gender": _words(("F", "M"), people.sex_male[first].astype(np.int64)),
        "anchor_age": np.where(age > _OLDEST_SHOWN, _HIDDEN_AGE, age),
        "anchor_year": year,
        "anchor_year_group": _words(_YEAR_GROUPS, subject % len(_YEAR_GROUPS)),
        "dod": pa.array(outcomes.dod[first].astype("datetime64[D]")),
    }


_OLDEST_SHOWN, _HIDDEN_AGE = 89, 91  # MIMIC-IV shows nobody's age above 89
_YEAR_GROUPS = ("2008 - 2010", "2011 - 2013", "2014 - 2016", "2017 - 2019", "2020 - 2022")
_MARITAL = ("MARRIED", "SINGLE", "WIDOWED", "DIVORCED")


def _admissions(people: Population, outcomes: Outcomes) -> Columns:
    """The simulated admissions, then the earlier ones."""
    past = people.earlier
    stay = np.r_[np.arange(people.n), past.stay]
    dead = np.r_[outcomes.died_in_hospital, np.zeros(len(past.stay), bool)]
    death = np.r_[outcomes.deathtime, np.full(len(past.stay), _EMPTY_TIME)].astype("datetime64[us]")
    emergency = np.isin(people.admission_type[stay], ("EW EMER.", "URGENT"))
    arrival = np.r_[people.admittime, past.admittime].astype("datetime64[s]").astype("datetime64[us]")
    discharge = np.r_[outcomes.dischtime, past.dischtime].astype("datetime64[s]").astype("datetime64[us]")
    return {
        "subject_id": people.subject_id[stay],
        "hadm_id": np.r_[people.hadm_id, past.hadm_id],
        "admittime": arrival,
        "dischtime": discharge,
        "deathtime": death,
        "admission_type": pa.array(people.admission_type[stay], _S),
        "admit_provider_id": pa.array([f"P{number:05d}" for number in people.hadm_id[stay] % 997], _S),
        "admission_location": _words(("PHYSICIAN REFERRAL", "EMERGENCY ROOM"), emergency.astype(np.int64)),
        "discharge_location": _words(("HOME", "DIED"), dead.astype(np.int64)),
        "insurance": pa.array(people.insurance[stay], _S),
        "language": _words(("ENGLISH",), np.zeros(len(stay), np.int64)),
        "marital_status": _words(_MARITAL, people.subject_id[stay] % len(_MARITAL)),
        "race": pa.array(people.ethnicity[stay], _S),
        "edregtime": np.where(emergency, arrival - 240 * _MINUTE, _EMPTY_TIME),
        "edouttime": np.where(emergency, arrival + 60 * _MINUTE, _EMPTY_TIME),
        "hospital_expire_flag": dead.astype(np.int64),
    }


def _diagnoses(people: Population) -> Columns:
    codes = people.codes
    past = np.maximum(codes.admission, 0)
    earlier = people.earlier.hadm_id[past] if len(people.earlier.hadm_id) else np.zeros(len(past), np.int64)
    return {
        "subject_id": people.subject_id[codes.stay],
        "hadm_id": np.where(codes.admission >= 0, earlier, people.hadm_id[codes.stay]),
        "seq_num": codes.seq_num,
        "icd_code": pa.array(codes.icd_code, _S),
        "icd_version": codes.icd_version,
    }


def _icustays(people: Population, outcomes: Outcomes) -> Columns:
    stayed = np.round(outcomes.out_hour * 3600).astype("timedelta64[s]")
    unit = pa.array(people.care_unit, _S)
    return {
        "subject_id": people.subject_id,
        "hadm_id": people.hadm_id,
        "stay_id": people.stay_id,
        "first_careunit": unit,
        "last_careunit": unit,
        "intime": people.intime,
        "outtime": people.intime + stayed,
        "los": outcomes.out_hour / 24.0,
    }


_ANTIBIOTICS = (
    # drug, dose, unit, route, hours between doses
    ("Vancomycin", "1000", "mg", "IV", 12.0), ("Piperacillin-Tazobactam", "4.5", "g", "IV", 8.0),
    ("CefTRIAXone", "1", "gm", "IV", 24.0), ("CefePIME", "2", "g", "IV", 8.0), ("Meropenem", "500", "mg", "IV", 6.0),
)  # fmt: skip
_OTHER_DRUGS = (
    ("Heparin", "5000", "UNIT", "SC", 8.0), ("Pantoprazole", "40", "mg", "IV", 24.0),
    ("Acetaminophen", "650", "mg", "PO", 6.0),
)  # fmt: skip
_DRUGS = (*_ANTIBIOTICS, *_OTHER_DRUGS)
_CULTURES = (
    # spec_itemid, spec_type_desc, test_itemid, test_name
    (70012, "BLOOD CULTURE", 90201, "Blood Culture, Routine"), (70079, "URINE", 90039, "URINE CULTURE"),
    (70062, "SPUTUM", 90045, "RESPIRATORY CULTURE"),
)  # fmt: skip
_ORGANISMS = ((80002, "ESCHERICHIA COLI"), (80023, "STAPH AUREUS COAG +"), (80004, "KLEBSIELLA PNEUMONIAE"))
_CULTURE_FIRST = 0.7
_FIRST_TO_SECOND_H = 8.0  # longest time between culture and antibiotic


def _suspicion(people: Population, outcomes: Outcomes, shard: int) -> dict[str, Columns]:
    """Cultures and antibiotics: the earlier of a stay's first ones is its suspicion hour; other drugs beside them."""
    rng = np.random.default_rng([shard, people.n, 71])
    draw = rng.random((8, people.n))
    suspected = np.flatnonzero(np.isfinite(people.suspicion_hour))
    hours = people.suspicion_hour[suspected]
    gap = draw[0, suspected] * _FIRST_TO_SECOND_H
    culture_first = draw[1, suspected] < _CULTURE_FIRST
    culture = _minutes(people.intime[suspected], hours + np.where(culture_first, 0.0, gap))
    antibiotic = _minutes(people.intime[suspected], hours + np.where(culture_first, gap, 0.0))
    gone = ~np.isnat(outcomes.dischtime[suspected]) & (np.maximum(culture, antibiotic) >= outcomes.dischtime[suspected])
    there = ~gone
    return {
        "hosp/microbiologyevents": _microbiology(people, suspected[there], culture[there], draw),
        "hosp/prescriptions": _prescriptions(people, suspected[there], antibiotic[there], draw),
    }


def _minutes(intime: np.ndarray, hours: Float[np.ndarray, "k"]) -> np.ndarray:
    """A time of day on a whole minute."""
    exact: np.ndarray = intime + (hours * 3_600_000_000).astype("timedelta64[us]")
    return exact.astype("datetime64[m]").astype("datetime64[us]")


def _microbiology(
    people: Population, stay: Int[np.ndarray, "k"], time: np.ndarray, draw: Float[np.ndarray, "u n"]
) -> Columns:
    kind = (draw[2, stay] * len(_CULTURES)).astype(np.int64)
    grows = draw[3, stay] < np.where(people.infected[stay], 0.3, 0.03)
    organism = np.where(grows, (draw[4, stay] * len(_ORGANISMS)).astype(np.int64), -1)
    number = people.stay_id[stay]
    return {
        "microevent_id": number,
        "subject_id": people.subject_id[stay],
        "hadm_id": people.hadm_id[stay],
        "micro_specimen_id": number + 1,
        "chartdate": time.astype("datetime64[D]").astype("datetime64[us]"),
        "charttime": time,
        "spec_itemid": np.array([row[0] for row in _CULTURES])[kind],
        "spec_type_desc": _words([row[1] for row in _CULTURES], kind),
        "test_seq": np.ones(len(stay), np.int64),
        "storedate": (time + 4320 * _MINUTE).astype("datetime64[D]").astype("datetime64[us]"),
        "storetime": time + 4320 * _MINUTE,
        "test_itemid": np.array([row[2] for row in _CULTURES])[kind],
        "test_name": _words([row[3] for row in _CULTURES], kind),
        "org_itemid": _whole(np.array([row[0] for row in _ORGANISMS])[organism], ~grows),
        "org_name": _words([row[1] for row in _ORGANISMS], organism),
        "isolate_num": _whole(np.ones(len(stay)), ~grows),
    }


def _prescriptions(
    people: Population, stay: Int[np.ndarray, "k"], time: np.ndarray, draw: Float[np.ndarray, "u n"]
) -> Columns:
    """The antibiotic of each suspected infection, and a drug that is none for everybody."""
    everyone = np.arange(people.n)
    which = np.r_[stay, everyone]
    drug = np.r_[
        (draw[5, stay] * len(_ANTIBIOTICS)).astype(np.int64),
        len(_ANTIBIOTICS) + (draw[6] * len(_OTHER_DRUGS)).astype(np.int64),
    ]
    start = np.r_[time, _minutes(people.intime, 2.0 + 10.0 * draw[7])]
    return {
        "subject_id": people.subject_id[which],
        "hadm_id": people.hadm_id[which],
        "pharmacy_id": people.stay_id[which] * 10 + drug,
        "starttime": start,
        "stoptime": start + 7200 * _MINUTE,
        "drug_type": _words(("MAIN",), np.zeros(len(which), np.int64)),
        "drug": _words([row[0] for row in _DRUGS], drug),
        "dose_val_rx": _words([row[1] for row in _DRUGS], drug),
        "dose_unit_rx": _words([row[2] for row in _DRUGS], drug),
        "doses_per_24_hrs": 24.0 / np.array([row[4] for row in _DRUGS])[drug],
        "route": _words([row[3] for row in _DRUGS], drug),
    }


def _d_items() -> pa.Table:
    chosen = [item for item in ITEMS if item.table != "labevents"]
    kinds = {
        "chartevents": "Numeric",
        "outputevents": "Numeric",
        "inputevents": "Solution",
        "procedureevents": "Process",
    }
    return _table(
        "icu/d_items",
        {
            "itemid": pa.array([item.itemid for item in chosen], _I),
            "label": pa.array([item.label for item in chosen], _S),
            "abbreviation": pa.array([item.label for item in chosen], _S),
            "linksto": pa.array([item.table for item in chosen], _S),
            "category": pa.array([item.category for item in chosen], _S),
            "unitname": pa.array([item.unit for item in chosen], _S),
            "param_type": pa.array(["Text" if item.text else kinds[item.table] for item in chosen], _S),
        },
    )


def _d_labitems() -> pa.Table:
    chosen = [item for item in ITEMS if item.table == "labevents"]
    return _table(
        "hosp/d_labitems",
        {
            "itemid": pa.array([item.itemid for item in chosen], _I),
            "label": pa.array([item.label for item in chosen], _S),
            "fluid": pa.array(["Blood"] * len(chosen), _S),
            "category": pa.array([item.category for item in chosen], _S),
        },
    )


_REPEATED_NUMBERS = {
    "subject_id", "hadm_id", "stay_id", "caregiver_id", "itemid", "warning", "valuenum", "specimen_id", "isopenbag",
    "ref_range_lower", "ref_range_upper", "continueinnextdept", "patientweight",
}  # fmt: skip


def _repeated(name: str) -> list[str]:
    """Columns with few distinct values, worth a dictionary."""
    return [field.name for field in SCHEMAS[name] if field.type == _S or field.name in _REPEATED_NUMBERS]


def _encodings(name: str) -> dict[str, str]:
    """Times and row numbers go up in small steps: deltas."""
    repeated = _repeated(name)
    return {
        field.name: "DELTA_BINARY_PACKED"
        for field in SCHEMAS[name]
        if field.name not in repeated and field.type in (_TIME, _I)
    }


def _csv_schema(name: str) -> pa.Schema:
    """As MIMIC-IV's files: times to the second, no dictionaries."""
    return pa.schema([pa.field(f.name, pa.timestamp("s") if f.type == _TIME else f.type) for f in SCHEMAS[name]])
