"""MIMIC-III: its raw tables, MetaVision's and CareVue's, and one shard of them brought to the canonical tables."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from cohort import tables
from cohort.errors import InputError
from cohort.sources import doses, infection, items, measurements, normalise, stays
from cohort.sources.doses import Orders
from cohort.sources.measurements import HOUR, MINUTE, NAT, Accepted, Observations
from cohort.sources.normalise import Columns, integers, numbers, times, words
from cohort.sources.raw import Keep, Kind, RawTable
from cohort.sources.stays import History, Windows
from cohort.tables import Counts, Tables

_ITEMS = items.load("mimic_iii")
if _ITEMS.carevue is None:
    raise InputError("configs/concepts/mimic_iii.yaml: has no section carevue")
_CAREVUE = _ITEMS.carevue
_CHART = measurements.section(_ITEMS.chart)
_LAB = measurements.section(_ITEMS.lab)
_DRUGS = items.ids(_ITEMS.drugs) | items.ids(_ITEMS.fluids)
_CAREVUE_FLUIDS, _CAREVUE_DRUGS = items.ids(_CAREVUE.fluids), items.ids(_CAREVUE.drugs)
_URINE = frozenset((*_ITEMS.urine.ids, *_ITEMS.urine.irrigant))
_PROCEDURES = frozenset((*_ITEMS.procedures.invasive, *_ITEMS.procedures.noninvasive, *_ITEMS.procedures.extubation))
_HIDDEN_AGE = 200
"""Ages above this stand for some age above 89."""
_DAYS_PER_YEAR = 365.2425

_I, _N, _T, _W = Kind.INTEGER, Kind.NUMBER, Kind.TIME, Kind.TEXT
TABLES = (
    RawTable("icustays", {"subject_id": _I, "hadm_id": _I, "icustay_id": _I, "dbsource": _W, "first_careunit": _W,
                          "intime": _T, "outtime": _T}, key="stays", required=True, open_end="outtime"),
    RawTable("patients", {"subject_id": _I, "gender": _W, "dob": _T, "dod": _T}, key="patient", required=True),
    RawTable("admissions", {"subject_id": _I, "hadm_id": _I, "admittime": _T, "dischtime": _T, "deathtime": _T,
                            "ethnicity": _W, "hospital_expire_flag": _I}, key="patient", required=True),
    RawTable("chartevents", {"icustay_id": _I, "itemid": _I, "charttime": _T, "storetime": _T, "value": _W,
                             "valuenum": _N, "valueuom": _W, "error": _I},
             key="stay", required=True, ids=measurements.ids(_CHART), text_ids=measurements.text_ids(_CHART)),
    RawTable("inputevents_mv", {"icustay_id": _I, "itemid": _I, "starttime": _T, "endtime": _T, "amount": _N,
                                "amountuom": _W, "rate": _N, "rateuom": _W, "orderid": _I, "linkorderid": _I,
                                "patientweight": _N, "statusdescription": _W}, key="stay", required=True, ids=_DRUGS,
             open_end="endtime"),
    RawTable("inputevents_cv", {"icustay_id": _I, "itemid": _I, "charttime": _T, "amount": _N, "amountuom": _W,
                                "rate": _N, "rateuom": _W, "orderid": _I, "stopped": _W},
             key="stay", required=True, ids=_CAREVUE_FLUIDS | _CAREVUE_DRUGS),
    RawTable("labevents", {"subject_id": _I, "itemid": _I, "charttime": _T, "value": _W, "valuenum": _N,
                           "valueuom": _W}, key="patient",
             ids=measurements.ids(_LAB) | frozenset(_ITEMS.specimen.ids), text_ids=frozenset(_ITEMS.specimen.ids)),
    RawTable("outputevents", {"icustay_id": _I, "itemid": _I, "charttime": _T, "storetime": _T, "value": _N,
                              "valueuom": _W, "iserror": _I}, key="stay", ids=_URINE),
    RawTable("procedureevents_mv", {"icustay_id": _I, "itemid": _I, "starttime": _T, "endtime": _T}, key="stay",
             ids=_PROCEDURES),
    RawTable("microbiologyevents", {"subject_id": _I, "chartdate": _T, "charttime": _T, "spec_type_desc": _W},
             key="patient"),
    RawTable("prescriptions", {"subject_id": _I, "startdate": _T, "drug": _W, "route": _W}, key="patient",
             keep=Keep("drug", infection.antibiotic_pattern())),
    RawTable("diagnoses_icd", {"subject_id": _I, "hadm_id": _I, "icd9_code": _W}, key="patient"),
)  # fmt: skip
"""What is read of the layout."""
SECTIONS = {"chartevents": _CHART, "labevents": _LAB}
"""The tables of measurements and the items they hold."""

DOSES = {"inputevents_mv": (_ITEMS.drugs, _ITEMS.fluids), "inputevents_cv": (_CAREVUE.drugs, _CAREVUE.fluids)}
"""The tables of infusions and the items they hold."""
OUTPUTS = {"outputevents": _ITEMS.urine}
"""The tables of urine and the items they hold."""


def measured(raw: Mapping[str, pd.DataFrame]) -> Mapping[str, pd.DataFrame]:
    """The raw tables of measurements, by the names in SECTIONS."""
    return raw


def canonical(raw: Mapping[str, pd.DataFrame], accepted: Accepted = ()) -> tuple[Tables, Counts]:
    """Bring the raw tables of some patients to the canonical tables.

    Laboratory results have no storing time here: 5 minutes are assumed for the blood gas machine's, 70 for the others.
    Prescriptions are dates: an antibiotic counts from the start of its day.

    Args:
        raw: MIMIC-III tables by lower-case name with their columns (those in TABLES), all rows of the patients;
            optional tables may be missing. The order of rows changes nothing.
        accepted: units beside the dictionary's that a reviewer accepted.

    Returns:
        The tables, observations in order of stay, concept and time; and what was dropped, changed or flagged.

    Raises:
        InputError: a required table or a column is missing or of a wrong type, a stay id is given twice, or most stays
            end before they start.
    """
    counts: Counts = Counter()
    normalise.required(raw, TABLES)
    history = _history(raw)
    kept = stays.sound(_stays(raw["icustays"]), history, counts)
    if kept.empty:
        return Tables(**{name: tables.empty(name) for name in tables.SCHEMAS}), counts
    where = stays.windows(kept)
    table = stays.build(kept, _age(kept, raw["patients"]), history, where)
    observed = _chart(raw["chartevents"], where, counts, accepted)
    if "labevents" in raw:
        observed += _lab(raw["labevents"], where, counts, accepted)
    if "procedureevents_mv" in raw:
        name = "procedureevents_mv"
        rows, stay = normalise.by_stay(raw[name], name, "icustay_id", "starttime", where, counts)
        procedures, mask = normalise.procedures(rows, name, stay, _ITEMS.procedures, counts)
        observed = [normalise.without_mask(part, mask, counts) for part in observed] + procedures
    orders = _metavision(raw["inputevents_mv"], where, counts)
    observed = normalise.without_pounds([*observed, normalise.row_weights(orders)], counts)
    weights = normalise.weights(observed)
    given = [doses.give(orders, _ITEMS.drugs, _ITEMS.fluids, weights, counts, accepted)]
    for part in _carevue(raw["inputevents_cv"], where, counts):
        given.append(doses.give(part, _CAREVUE.drugs, _CAREVUE.fluids, weights, counts, accepted))
    urine = _urine(raw["outputevents"], where, counts, accepted) if "outputevents" in raw else []
    return normalise.assemble(table, where, observed, given, urine, counts), counts


def _stays(raw: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "stay_id": integers(raw, "icustays", "icustay_id"),
            **{name: integers(raw, "icustays", name) for name in ("subject_id", "hadm_id")},
            **{name: normalise.moments(raw, "icustays", name) for name in ("intime", "outtime")},
            "care_unit": normalise.column(raw, "icustays", "first_careunit").astype(object).to_numpy(),
            "charting": normalise.column(raw, "icustays", "dbsource").astype(object).to_numpy(),
        }
    )


def _history(raw: Mapping[str, pd.DataFrame]) -> History:
    patients = raw["patients"]
    return History(
        admissions=normalise.admissions(raw["admissions"], "ethnicity"),
        patients=pd.DataFrame(
            {
                "subject_id": integers(patients, "patients", "subject_id"),
                "sex_male": normalise.sex_male(normalise.column(patients, "patients", "gender")),
                "dod": normalise.moments(patients, "patients", "dod"),
            }
        ),
        diagnoses=normalise.diagnoses(raw, "icd9_code", None),
        cultures=normalise.cultures(raw),
        antibiotics=normalise.antibiotics(raw, "startdate"),
    )


def _age(kept: pd.DataFrame, patients: pd.DataFrame) -> Float[np.ndarray, "s"]:
    """Age at ICU admission from the date of birth; those hidden behind 300 years have their known mean."""
    order = pd.Index(integers(patients, "patients", "subject_id")).get_indexer(kept["subject_id"])
    born = times(patients, "patients", "dob")[order]
    years = (stays.micros(kept["intime"]) - born) / (24 * HOUR * _DAYS_PER_YEAR)
    years = np.where(born == NAT, np.nan, years)
    return np.where(years > _HIDDEN_AGE, stays.HIDDEN_AGE, years)


def _chart(raw: pd.DataFrame, where: Windows, counts: Counts, accepted: Accepted) -> list[Observations]:
    rows = normalise.known_items(raw, "chartevents", _CHART)
    rows = _without_errors(rows, "chartevents", "error", counts)
    rows, stay = normalise.by_stay(rows, "chartevents", "icustay_id", "charttime", where, counts)
    events = normalise.events(rows, "chartevents", stay, Columns(), _CHART)
    return measurements.observe(events, _CHART, _ITEMS.assumed_delay_minutes, counts, accepted)


def _lab(raw: pd.DataFrame, where: Windows, counts: Counts, accepted: Accepted) -> list[Observations]:
    """Laboratory values; the specimen of a blood gas is what was drawn from the patient at the same moment."""
    rows = normalise.known_items(raw, "labevents", _LAB)
    rows, stay = normalise.by_patient(rows, "labevents", "charttime", where, counts)
    drawn = normalise.of_items(raw, "labevents", frozenset(_ITEMS.specimen.ids))
    said, labelled = normalise.by_patient(drawn, "labevents", "charttime", where, Counter())
    moment = np.r_[times(said, "labevents", "charttime"), times(rows, "labevents", "charttime")]
    order = np.lexsort((moment, np.r_[labelled, stay]))
    both = np.c_[np.r_[labelled, stay], moment][order]
    number = np.empty(len(order), dtype=np.int64)
    number[order] = np.cumsum(np.r_[False, (both[1:] != both[:-1]).any(axis=1)])[: len(order)]
    gas = _LAB.gas[measurements.codes(_LAB.group_of, integers(rows, "labevents", "itemid"))]
    specimen = np.where(gas, number[len(said) :], -1)
    texts = normalise.column(said, "labevents", "value")
    arterial = normalise.arterial(texts, number[: len(said)], _ITEMS.specimen, specimen)
    events = normalise.events(rows, "labevents", stay, Columns(stored=None, text=None), _LAB, specimen, arterial)
    return measurements.observe(events, _LAB, _ITEMS.assumed_delay_minutes, counts, accepted)


def _metavision(raw: pd.DataFrame, where: Windows, counts: Counts) -> Orders:
    table = "inputevents_mv"
    rows = normalise.without_rewritten(normalise.of_items(raw, table, _DRUGS), table, counts)
    rows, stay = normalise.by_stay(rows, table, "icustay_id", "starttime", where, counts)
    return normalise.orders(rows, table, stay)


def _carevue(raw: pd.DataFrame, where: Windows, counts: Counts) -> list[Orders]:
    """CareVue's fluids as given within the minute they are charted at, and its drug rates as intervals."""
    table = "inputevents_cv"
    rows, stay = normalise.by_stay(
        normalise.of_items(raw, table, _CAREVUE_FLUIDS | _CAREVUE_DRUGS),
        table,
        "icustay_id",
        "charttime",
        where,
        counts,
    )
    amount_unit, amount_units = words(normalise.column(rows, table, "amountuom"))
    rate_unit, rate_units = words(normalise.column(rows, table, "rateuom"))
    charted = times(rows, table, "charttime")
    every = Orders(
        table=table,
        stay=stay,
        item=integers(rows, table, "itemid"),
        start=charted,
        end=np.where(charted == NAT, NAT, charted + MINUTE),
        amount=numbers(rows, table, "amount"),
        amount_unit=amount_unit,
        amount_units=amount_units,
        rate=numbers(rows, table, "rate"),
        rate_unit=rate_unit,
        rate_units=rate_units,
        weight=np.full(len(stay), np.nan),
        order=integers(rows, table, "orderid"),
        link=np.full(len(stay), -1),
    )
    status, vocabulary = words(normalise.column(rows, table, "stopped"))
    stops = [word.strip().casefold() in _CAREVUE.stops for word in vocabulary]
    stop = np.array([*stops, False], dtype=bool)[status]
    fluid = np.isin(every.item, np.array(sorted(_CAREVUE_FLUIDS)))
    return [_once(every[fluid], counts), _held(every[~fluid], stop[~fluid], counts)]


def _once(orders: Orders, counts: Counts) -> Orders:
    """Amounts, a row that is there twice counted once."""
    columns = {name: getattr(orders, name) for name in ("stay", "item", "start", "amount", "order")}
    repeated = pd.DataFrame(columns).duplicated().to_numpy()
    normalise.add(counts, orders.table, "fluid: repeated row", int(repeated.sum()))
    return orders[~repeated]


def _held(orders: Orders, stop: np.ndarray, counts: Counts) -> Orders:
    """Charted rates as intervals: each holds until the next rate of its drug or a stop, at most the dictionary's hours.

    A stop at the moment of a rate gives way to it. A row without a rate stops nothing. Of several rates of a drug at
    one moment the last by item and rate holds.
    """
    drug = _drug_codes(orders.item)
    rated = ~np.isnan(orders.rate) & ~stop
    null = ~rated & ~stop
    normalise.add(counts, orders.table, "drug: row without a rate, stops nothing", int(null.sum()))
    told = np.flatnonzero((rated | stop) & (orders.start != NAT))
    order = told[np.lexsort(
        (orders.rate[told], orders.item[told], rated[told], orders.start[told], drug[told], orders.stay[told])
    )]  # fmt: skip
    now, later = order[:-1], order[1:]
    hold = int(_CAREVUE.rate_holds_hours * HOUR)
    end = np.full(len(orders.stay), NAT)
    end[order] = orders.start[order] + hold
    same = (orders.stay[now] == orders.stay[later]) & (drug[now] == drug[later])
    end[now[same]] = np.minimum(end[now[same]], orders.start[later[same]])
    normalise.add(
        counts, orders.table, "drug: rate cut after 2 h without a row",
        int((rated & (end - orders.start == hold) & (orders.rate > 0)).sum()),
    )  # fmt: skip
    kept = order[rated[order]]
    replaced = end[kept] <= orders.start[kept]
    normalise.add(counts, orders.table, "drug: replaced by a rate at the same moment", int(replaced.sum()))
    kept = kept[~replaced]
    return replace(orders[kept], end=end[kept], amount=np.full(len(kept), np.nan))


def _drug_codes(item: Int[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
    table = measurements.id_table({i: code for code, drug in enumerate(_CAREVUE.drugs) for i in drug.ids})
    return measurements.codes(table, item)


def _urine(
    raw: pd.DataFrame, where: Windows, counts: Counts, accepted: Accepted
) -> list[tuple[Int[np.ndarray, "n"], pd.DataFrame]]:
    table = "outputevents"
    rows = _without_errors(normalise.of_items(raw, table, _URINE), table, "iserror", counts)
    rows, stay = normalise.by_stay(rows, table, "icustay_id", "charttime", where, counts)
    delay = _ITEMS.assumed_delay_minutes.output
    return [normalise.outputs(rows, table, stay, _ITEMS.urine, delay, counts, accepted)]


def _without_errors(raw: pd.DataFrame, table: str, flag: str, counts: Counts) -> pd.DataFrame:
    wrong = numbers(raw, table, flag) == 1
    normalise.add(counts, table, "marked as an error", int(wrong.sum()))
    return raw[~wrong] if wrong.any() else raw
