"""Registry: who was admitted, with what, and how it ended, as tables of the hospital and of its ICUs."""

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int

from cohort.hospital.population import Outcomes, Population
from cohort.hospital.schema import TEXT, Columns, whole, words

_MINUTE = np.timedelta64(60, "s")
_EMPTY_TIME = np.datetime64("NaT", "us")
_OLDEST_SHOWN, _HIDDEN_AGE = 89, 91  # MIMIC-IV shows nobody's age above 89
_YEAR_GROUPS = ("2008 - 2010", "2011 - 2013", "2014 - 2016", "2017 - 2019", "2020 - 2022")
_MARITAL = ("MARRIED", "SINGLE", "WIDOWED", "DIVORCED")
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


def tables(people: Population, outcomes: Outcomes, shard: int) -> dict[str, Columns]:
    """The tables that hold no charted row, by path; cultures and prescriptions are drawn from the shard's number."""
    return {
        "hosp/patients": _patients(people, outcomes),
        "hosp/admissions": _admissions(people, outcomes),
        "hosp/diagnoses_icd": _diagnoses(people),
        "icu/icustays": _icustays(people, outcomes),
        **_suspicion(people, outcomes, shard),
    }


def _patients(people: Population, outcomes: Outcomes) -> Columns:
    subject, first = np.unique(people.subject_id, return_index=True)
    year = people.intime[first].astype("datetime64[Y]").astype(np.int64) + 1970
    age = year - people.birth_year[first]
    return {
        "subject_id": subject,
        "gender": words(("F", "M"), people.sex_male[first].astype(np.int64)),
        "anchor_age": np.where(age > _OLDEST_SHOWN, _HIDDEN_AGE, age),
        "anchor_year": year,
        "anchor_year_group": words(_YEAR_GROUPS, subject % len(_YEAR_GROUPS)),
        "dod": pa.array(outcomes.dod[first].astype("datetime64[D]")),
    }


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
        "admission_type": pa.array(people.admission_type[stay], TEXT),
        "admit_provider_id": pa.array([f"P{number:05d}" for number in people.hadm_id[stay] % 997], TEXT),
        "admission_location": words(("PHYSICIAN REFERRAL", "EMERGENCY ROOM"), emergency.astype(np.int64)),
        "discharge_location": words(("HOME", "DIED"), dead.astype(np.int64)),
        "insurance": pa.array(people.insurance[stay], TEXT),
        "language": words(("ENGLISH",), np.zeros(len(stay), np.int64)),
        "marital_status": words(_MARITAL, people.subject_id[stay] % len(_MARITAL)),
        "race": pa.array(people.ethnicity[stay], TEXT),
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
        "icd_code": pa.array(codes.icd_code, TEXT),
        "icd_version": codes.icd_version,
    }


def _icustays(people: Population, outcomes: Outcomes) -> Columns:
    stayed = np.round(outcomes.out_hour * 3600).astype("timedelta64[s]")
    unit = pa.array(people.care_unit, TEXT)
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
        "spec_type_desc": words([row[1] for row in _CULTURES], kind),
        "test_seq": np.ones(len(stay), np.int64),
        "storedate": (time + 4320 * _MINUTE).astype("datetime64[D]").astype("datetime64[us]"),
        "storetime": time + 4320 * _MINUTE,
        "test_itemid": np.array([row[2] for row in _CULTURES])[kind],
        "test_name": words([row[3] for row in _CULTURES], kind),
        "org_itemid": whole(np.array([row[0] for row in _ORGANISMS])[organism], ~grows),
        "org_name": words([row[1] for row in _ORGANISMS], organism),
        "isolate_num": whole(np.ones(len(stay)), ~grows),
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
        "drug_type": words(("MAIN",), np.zeros(len(which), np.int64)),
        "drug": words([row[0] for row in _DRUGS], drug),
        "dose_val_rx": words([row[1] for row in _DRUGS], drug),
        "dose_unit_rx": words([row[2] for row in _DRUGS], drug),
        "doses_per_24_hrs": 24.0 / np.array([row[4] for row in _DRUGS])[drug],
        "route": words([row[3] for row in _DRUGS], drug),
    }
