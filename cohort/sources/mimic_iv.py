"""MIMIC-IV: its raw tables, and one shard of them brought to the canonical tables."""

from collections import Counter
from collections.abc import Mapping

import numpy as np
import pandas as pd
from jaxtyping import Float

from cohort import tables
from cohort.sources import doses, infection, items, measurements, normalise, stays
from cohort.sources.doses import Orders
from cohort.sources.measurements import Accepted, Observations
from cohort.sources.normalise import Columns, integers, numbers
from cohort.sources.raw import Keep, Kind, RawTable
from cohort.sources.stays import History, Windows
from cohort.tables import Counts, Tables

_ITEMS = items.load("mimic_iv")
_CHART = measurements.section(_ITEMS.chart)
_LAB = measurements.section(_ITEMS.lab)
_DRUGS = items.ids(_ITEMS.drugs) | items.ids(_ITEMS.fluids)
_URINE = frozenset((*_ITEMS.urine.ids, *_ITEMS.urine.irrigant))
_PROCEDURES = frozenset((*_ITEMS.procedures.invasive, *_ITEMS.procedures.noninvasive, *_ITEMS.procedures.extubation))
_HIDDEN_AGE = 91
"""What anchor_age says of everybody above 89."""

_I, _N, _T, _W = Kind.INTEGER, Kind.NUMBER, Kind.TIME, Kind.TEXT
TABLES = (
    RawTable("icustays", {"subject_id": _I, "hadm_id": _I, "stay_id": _I, "first_careunit": _W, "intime": _T,
                          "outtime": _T}, key="stays", required=True, open_end="outtime"),
    RawTable("patients", {"subject_id": _I, "gender": _W, "anchor_age": _N, "anchor_year": _I, "dod": _T},
             key="patient", required=True),
    RawTable("admissions", {"subject_id": _I, "hadm_id": _I, "admittime": _T, "dischtime": _T, "deathtime": _T,
                            "race": _W, "hospital_expire_flag": _I},
             key="patient", required=True, alternatives={"race": ("ethnicity",)}),
    RawTable("chartevents", {"stay_id": _I, "itemid": _I, "charttime": _T, "storetime": _T, "value": _W,
                             "valuenum": _N, "valueuom": _W},
             key="stay", required=True, ids=measurements.ids(_CHART), text_ids=measurements.text_ids(_CHART)),
    RawTable("inputevents", {"stay_id": _I, "itemid": _I, "starttime": _T, "endtime": _T, "amount": _N,
                             "amountuom": _W, "rate": _N, "rateuom": _W, "orderid": _I, "linkorderid": _I,
                             "patientweight": _N, "statusdescription": _W}, key="stay", required=True, ids=_DRUGS,
             open_end="endtime"),
    RawTable("labevents", {"subject_id": _I, "specimen_id": _I, "itemid": _I, "charttime": _T, "storetime": _T,
                           "value": _W, "valuenum": _N, "valueuom": _W},
             key="patient", ids=measurements.ids(_LAB) | frozenset(_ITEMS.specimen.ids),
             text_ids=frozenset(_ITEMS.specimen.ids)),
    RawTable("outputevents", {"stay_id": _I, "itemid": _I, "charttime": _T, "storetime": _T, "value": _N,
                              "valueuom": _W}, key="stay", ids=_URINE),
    RawTable("procedureevents", {"stay_id": _I, "itemid": _I, "starttime": _T, "endtime": _T}, key="stay",
             ids=_PROCEDURES),
    RawTable("microbiologyevents", {"subject_id": _I, "chartdate": _T, "charttime": _T, "spec_type_desc": _W},
             key="patient"),
    RawTable("prescriptions", {"subject_id": _I, "starttime": _T, "drug": _W, "route": _W}, key="patient",
             keep=Keep("drug", infection.antibiotic_pattern())),
    RawTable("diagnoses_icd", {"subject_id": _I, "hadm_id": _I, "icd_code": _W, "icd_version": _I}, key="patient"),
)  # fmt: skip
"""What is read of the layout."""
SECTIONS = {"chartevents": _CHART, "labevents": _LAB}
"""The tables of measurements and the items they hold."""

DOSES = {"inputevents": (_ITEMS.drugs, _ITEMS.fluids)}
"""The tables of infusions and the items they hold."""
OUTPUTS = {"outputevents": _ITEMS.urine}
"""The tables of urine and the items they hold."""


def measured(raw: Mapping[str, pd.DataFrame]) -> Mapping[str, pd.DataFrame]:
    """The raw tables of measurements, by the names in SECTIONS."""
    return raw


def canonical(raw: Mapping[str, pd.DataFrame], accepted: Accepted = ()) -> tuple[Tables, Counts]:
    """Bring the raw tables of some patients to the canonical tables.

    Args:
        raw: MIMIC-IV tables by name with MIMIC-IV columns (those in TABLES), all rows of the patients; optional tables
            may be missing. Text columns may be categorical, which is faster. The order of rows changes nothing.
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
    observed = [*_chart(raw["chartevents"], where, counts, accepted)]
    if "labevents" in raw:
        observed += _lab(raw["labevents"], where, counts, accepted)
    if "procedureevents" in raw:
        rows, stay = normalise.by_stay(raw["procedureevents"], "procedureevents", "stay_id", "starttime", where, counts)
        procedures, mask = normalise.procedures(rows, "procedureevents", stay, _ITEMS.procedures, counts)
        observed = [normalise.without_mask(part, mask, counts) for part in observed] + procedures
    orders = _orders(raw["inputevents"], where, counts)
    observed = normalise.without_pounds([*observed, normalise.row_weights(orders)], counts)
    given = doses.give(orders, _ITEMS.drugs, _ITEMS.fluids, normalise.weights(observed), counts, accepted)
    urine = []
    if "outputevents" in raw:
        rows = normalise.of_items(raw["outputevents"], "outputevents", _URINE)
        rows, stay = normalise.by_stay(rows, "outputevents", "stay_id", "charttime", where, counts)
        delay = _ITEMS.assumed_delay_minutes.output
        urine.append(normalise.outputs(rows, "outputevents", stay, _ITEMS.urine, delay, counts, accepted))
    return normalise.assemble(table, where, observed, [given], urine, counts), counts


def _stays(raw: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            **{name: integers(raw, "icustays", name) for name in ("stay_id", "subject_id", "hadm_id")},
            **{name: normalise.moments(raw, "icustays", name) for name in ("intime", "outtime")},
            "care_unit": normalise.column(raw, "icustays", "first_careunit").astype(object).to_numpy(),
            "charting": "metavision",
        }
    )


def _history(raw: Mapping[str, pd.DataFrame]) -> History:
    admissions, patients = raw["admissions"], raw["patients"]
    return History(
        admissions=normalise.admissions(admissions, "race" if "race" in admissions else "ethnicity"),
        patients=pd.DataFrame(
            {
                "subject_id": integers(patients, "patients", "subject_id"),
                "sex_male": normalise.sex_male(normalise.column(patients, "patients", "gender")),
                "dod": normalise.moments(patients, "patients", "dod"),
            }
        ),
        diagnoses=normalise.diagnoses(raw, "icd_code", "icd_version"),
        cultures=normalise.cultures(raw),
        antibiotics=normalise.antibiotics(raw, "starttime"),
    )


def _age(kept: pd.DataFrame, patients: pd.DataFrame) -> Float[np.ndarray, "s"]:
    """Age at ICU admission: the anchor's, and the years since."""
    order = pd.Index(integers(patients, "patients", "subject_id")).get_indexer(kept["subject_id"])
    anchor = numbers(patients, "patients", "anchor_age")[order]
    years = kept["intime"].dt.year.to_numpy() - numbers(patients, "patients", "anchor_year")[order]
    return np.where(anchor >= _HIDDEN_AGE, stays.HIDDEN_AGE, anchor + years)


def _chart(raw: pd.DataFrame, where: Windows, counts: Counts, accepted: Accepted) -> list[Observations]:
    rows = normalise.known_items(raw, "chartevents", _CHART)
    rows, stay = normalise.by_stay(rows, "chartevents", "stay_id", "charttime", where, counts)
    events = normalise.events(rows, "chartevents", stay, Columns(), _CHART)
    return measurements.observe(events, _CHART, _ITEMS.assumed_delay_minutes, counts, accepted)


def _lab(raw: pd.DataFrame, where: Windows, counts: Counts, accepted: Accepted) -> list[Observations]:
    drawn = normalise.of_items(raw, "labevents", frozenset(_ITEMS.specimen.ids))
    rows = normalise.known_items(raw, "labevents", _LAB)
    rows, stay = normalise.by_patient(rows, "labevents", "charttime", where, counts)
    specimen = integers(rows, "labevents", "specimen_id")
    arterial = normalise.arterial(
        normalise.column(drawn, "labevents", "value"), integers(drawn, "labevents", "specimen_id"),
        _ITEMS.specimen, specimen,
    )  # fmt: skip
    events = normalise.events(rows, "labevents", stay, Columns(text=None), _LAB, specimen, arterial)
    return measurements.observe(events, _LAB, _ITEMS.assumed_delay_minutes, counts, accepted)


def _orders(raw: pd.DataFrame, where: Windows, counts: Counts) -> Orders:
    rows = normalise.of_items(raw, "inputevents", _DRUGS)
    rows = normalise.without_rewritten(rows, "inputevents", counts)
    rows, stay = normalise.by_stay(rows, "inputevents", "stay_id", "starttime", where, counts)
    return normalise.orders(rows, "inputevents", stay)
