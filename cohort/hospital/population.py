"""Population: who is admitted to the simulated hospital, and how each of their stays ended."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

CARE_UNITS = (
    "Medical Intensive Care Unit (MICU)",
    "Medical/Surgical Intensive Care Unit (MICU/SICU)",
    "Surgical Intensive Care Unit (SICU)",
    "Trauma SICU (TSICU)",
    "Cardiac Vascular Intensive Care Unit (CVICU)",
    "Coronary Care Unit (CCU)",
    "Neuro Surgical Intensive Care Unit (Neuro SICU)",
)
_UNIT_SHARES = (0.30, 0.17, 0.16, 0.12, 0.13, 0.09, 0.03)
_SEPTIC_IN_UNIT = (0.80, 0.75, 0.60, 0.40, 0.25, 0.35, 0.30)
ETHNICITIES = ("WHITE", "BLACK/AFRICAN AMERICAN", "HISPANIC OR LATINO", "ASIAN", "OTHER", "UNKNOWN")
_ETHNICITY_SHARES = (0.66, 0.11, 0.04, 0.03, 0.05, 0.11)
ADMISSION_TYPES = ("EW EMER.", "URGENT", "OBSERVATION ADMIT", "SURGICAL SAME DAY ADMISSION", "ELECTIVE")
_ADMISSION_SHARES = (0.56, 0.17, 0.14, 0.09, 0.04)
INSURANCES = ("Medicare", "Medicaid", "Other")
_INSURANCE_SHARES = (0.46, 0.09, 0.45)

COMORBIDITIES: tuple[tuple[str, str, str, float], ...] = (
    # condition, ICD-10, ICD-9, share of ICU patients
    ("congestive_heart_failure", "I509", "4280", 0.27),
    ("arrhythmia", "I4891", "42731", 0.33),
    ("valvular", "I350", "4241", 0.10),
    ("pulmonary_circulation", "I2720", "4168", 0.07),
    ("peripheral_vascular", "I739", "4439", 0.10),
    ("hypertension", "I10", "4019", 0.56),
    ("paralysis", "G8190", "34290", 0.04),
    ("neurological", "G20", "3320", 0.10),
    ("chronic_pulmonary", "J449", "496", 0.23),
    ("diabetes", "E119", "25000", 0.20),
    ("diabetes_complicated", "E1122", "25040", 0.12),
    ("hypothyroidism", "E039", "2449", 0.12),
    ("renal_failure", "N189", "5859", 0.20),
    ("liver_disease", "K7460", "5715", 0.10),
    ("lymphoma", "C8590", "20280", 0.02),
    ("metastatic_cancer", "C799", "1991", 0.05),
    ("solid_tumour", "C3490", "1629", 0.06),
    ("rheumatoid", "M069", "7140", 0.04),
    ("coagulopathy", "D689", "2869", 0.13),
    ("obesity", "E669", "27800", 0.12),
    ("weight_loss", "E43", "262", 0.07),
    ("anaemia", "D509", "2809", 0.06),
    ("alcohol", "F1020", "30390", 0.08),
    ("drug_abuse", "F1120", "30400", 0.05),
    ("depression", "F329", "311", 0.13),
)

_HOUR_US = 3_600_000_000
_DAY_US = 24 * _HOUR_US
_RETURN_SHARE = 0.09  # of stays that are an earlier stay's patient coming back, if that patient lived
_INFLUENCE_ON_AGE = 0.25  # conditions are commoner in the old: shift of their log-odds per SD of age


@dataclass(frozen=True)
class Codes:
    """Diagnoses, a row each; `admission` counts rows of `Earlier`, or is -1 for the stay's own admission."""

    stay: Int[np.ndarray, "m"]
    admission: Int[np.ndarray, "m"]
    icd_code: np.ndarray
    icd_version: Int[np.ndarray, "m"]
    seq_num: Int[np.ndarray, "m"]


@dataclass(frozen=True)
class Earlier:
    """Admissions before the simulated one, without an ICU stay; a row each."""

    stay: Int[np.ndarray, "p"]
    """Position of the stay whose patient it was."""
    hadm_id: Int[np.ndarray, "p"]
    admittime: np.ndarray
    dischtime: np.ndarray


@dataclass(frozen=True)
class Population:
    """The stays of one shard as they are at ICU admission: nothing here depends on any dose."""

    stay_id: Int[np.ndarray, "n"]
    subject_id: Int[np.ndarray, "n"]
    hadm_id: Int[np.ndarray, "n"]
    admittime: np.ndarray
    """datetime64[us], before `intime`."""
    intime: np.ndarray
    """datetime64[us]: hour 0."""
    birth_year: Int[np.ndarray, "n"]
    age_years: Float[np.ndarray, "n"]
    """Year of `intime` minus year of birth."""
    sex_male: Bool[np.ndarray, "n"]
    weight_kg: Float[np.ndarray, "n"]
    height_cm: Float[np.ndarray, "n"]
    ethnicity: np.ndarray
    care_unit: np.ndarray
    admission_type: np.ndarray
    insurance: np.ndarray
    infected: Bool[np.ndarray, "n"]
    """True: admitted with an infection; cultures and antibiotics follow."""
    suspicion_hour: Float[np.ndarray, "n"]
    """Hours since intime at which infection is suspected (culture or antibiotic); NaN: never."""
    condition: Bool[np.ndarray, "n c"]
    """Which of COMORBIDITIES the patient has."""
    returns_from: Int[np.ndarray, "n"]
    """Position of the stay this patient comes back from, provided they left it alive; -1: none."""
    earlier: Earlier
    codes: Codes

    @property
    def n(self) -> int:
        """Number of stays."""
        return len(self.stay_id)


@dataclass(frozen=True)
class Outcomes:
    """How the stays of a shard ended."""

    out_hour: Float[np.ndarray, "n"]
    """Hours since intime at which the ICU stay ends, by discharge or death."""
    dischtime: np.ndarray
    """datetime64[us]: end of the hospital admission (the time of death where the patient died in it)."""
    deathtime: np.ndarray
    """datetime64[us], NaT: left hospital alive."""
    dod: np.ndarray
    """datetime64[us] at midnight of the day of death within a year, in or out of hospital; NaT: none known."""
    died_in_hospital: Bool[np.ndarray, "n"]
    died_in_icu: Bool[np.ndarray, "n"]


def sample(n: int, first_stay: int, rng: np.random.Generator) -> Population:
    """Draw `n` stays; `first_stay` is the number of stays before them in the hospital, so that ids never repeat."""
    returns_from = _returns(n, rng)
    person = np.where(returns_from >= 0, returns_from, np.arange(n))
    number = first_stay + np.arange(n)
    intime = _intimes(returns_from, rng)
    age = np.clip(np.round(rng.normal(64.5, 16.5, n)), 18, 97)[person]
    years = intime.astype("datetime64[Y]").astype(np.int64) + 1970
    birth_year = years[person] - age.astype(np.int64)
    male = (rng.random(n) < 0.56)[person]
    height = (np.where(male, 175.0, 162.0) + rng.normal(0, 7.5, n)[person]).round()
    bmi = 28.5 * np.exp(rng.normal(0, 0.21, n))[person]
    unit = rng.choice(len(CARE_UNITS), n, p=_UNIT_SHARES)
    infected = rng.random(n) < np.array(_SEPTIC_IN_UNIT)[unit]
    suspicion = np.where(infected, rng.normal(1.0, 8.0, n), rng.uniform(4.0, 120.0, n))
    suspected = infected | (rng.random(n) < 0.25)
    condition = _conditions(age, rng)[person]
    earlier = _earlier(returns_from, intime, number, rng)
    return Population(
        stay_id=30_000_000 + number,
        subject_id=10_000_000 + number,
        hadm_id=20_000_000 + number,
        admittime=intime - (rng.exponential(14.0, n) * _HOUR_US).astype("timedelta64[us]"),
        intime=intime,
        birth_year=birth_year,
        age_years=(years - birth_year).astype(np.float64),
        sex_male=male,
        weight_kg=np.clip((bmi * (height / 100) ** 2), 35.0, 220.0).round(1),
        height_cm=height,
        ethnicity=_choice(ETHNICITIES, _ETHNICITY_SHARES, n, rng)[person],
        care_unit=np.array(CARE_UNITS, object)[unit],
        admission_type=_choice(ADMISSION_TYPES, _ADMISSION_SHARES, n, rng),
        insurance=_choice(INSURANCES, _INSURANCE_SHARES, n, rng)[person],
        infected=infected,
        suspicion_hour=np.where(suspected, suspicion, np.nan),
        condition=condition,
        returns_from=returns_from,
        earlier=earlier,
        codes=_codes(condition, infected, earlier, rng),
    )


def link(population: Population, left_alive: Bool[np.ndarray, "n"]) -> Population:
    """Give a returning patient's stays one subject id where the earlier one was left alive; others are new patients."""
    back = population.returns_from
    same = (back >= 0) & left_alive[np.maximum(back, 0)]
    subject = population.subject_id.copy()
    subject[same] = subject[back[same]]
    return replace(population, subject_id=subject)


def die_once(population: Population, outcomes: Outcomes) -> Outcomes:
    """Give all stays of a patient the date of death of the last one."""
    last = np.arange(population.n)
    back = np.flatnonzero(population.returns_from >= 0)
    first = population.returns_from[back]
    same = population.subject_id[back] == population.subject_id[first]
    last[first[same]] = back[same]
    return replace(outcomes, dod=outcomes.dod[last])


def _returns(n: int, rng: np.random.Generator) -> Int[np.ndarray, "n"]:
    """Every returning stay follows its patient's first one directly; nobody comes back twice."""
    wanted = rng.random(n) < _RETURN_SHARE / (1 - _RETURN_SHARE)
    wanted[0] = False
    for position in range(1, n):
        wanted[position] &= not wanted[position - 1]
    return np.where(wanted, np.arange(n) - 1, -1)


def _intimes(returns_from: Int[np.ndarray, "n"], rng: np.random.Generator) -> np.ndarray:
    n = len(returns_from)
    start = np.datetime64("2110-01-01", "us")
    minutes = rng.integers(0, 80 * 365 * 24 * 60, n)
    seconds = minutes * 60 + rng.integers(0, 60, n)
    gap_days = 120 + rng.exponential(
        200.0, n
    )  # past the longest possible stay, so no stay of a patient overlaps another
    own = start + (seconds * 1_000_000).astype("timedelta64[us]")
    later = own[np.maximum(returns_from, 0)] + (gap_days * _DAY_US).astype("timedelta64[us]")
    return np.where(returns_from >= 0, later, own).astype("datetime64[s]").astype("datetime64[us]")


def _conditions(age: Float[np.ndarray, "n"], rng: np.random.Generator) -> Bool[np.ndarray, "n c"]:
    share = np.array([row[3] for row in COMORBIDITIES])
    log_odds = np.log(share / (1 - share))[None, :] + _INFLUENCE_ON_AGE * ((age - 64.5) / 16.5)[:, None]
    present: np.ndarray = rng.random((len(age), len(share))) < 1 / (1 + np.exp(-log_odds))
    return present


def _earlier(returns_from: np.ndarray, intime: np.ndarray, number: np.ndarray, rng: np.random.Generator) -> Earlier:
    n = len(number)
    count = np.minimum(rng.geometric(0.52, n) - 1, 6)
    count = np.where(returns_from >= 0, 0, count)  # a returning patient's history is with the first stay
    stay = np.repeat(np.arange(n), count)
    rank = np.arange(len(stay)) - np.repeat(np.cumsum(count) - count, count)
    back_days = 40.0 + 150.0 * (rank + 1) + rng.uniform(0, 100, len(stay))
    admittime = intime[stay] - (back_days * _DAY_US).astype("timedelta64[us]")
    length = ((0.5 + rng.exponential(4.0, len(stay)).clip(0, 30)) * _DAY_US).astype("timedelta64[us]")
    hadm_id = 25_000_000 + number[stay] * 7 + rank
    return Earlier(stay, hadm_id, admittime, admittime + length)


def _codes(condition: np.ndarray, infected: np.ndarray, earlier: Earlier, rng: np.random.Generator) -> Codes:
    """Own admissions carry every condition; earlier ones each recorded three quarters of them."""
    c = condition.shape[1]
    stay, which = np.nonzero(condition)
    past = condition[earlier.stay] & (rng.random((len(earlier.stay), c)) < 0.75)
    past_row, past_which = np.nonzero(past)
    septic = np.flatnonzero(infected)
    tens = np.array([row[1] for row in COMORBIDITIES], object)
    nines = np.array([row[2] for row in COMORBIDITIES], object)
    nine = (rng.random(len(earlier.stay)) < 0.4)[past_row]
    position = np.r_[septic, stay, earlier.stay[past_row]]
    admission = np.r_[np.full(len(septic) + len(stay), -1), past_row]
    code = np.r_[np.full(len(septic), "A419", object), tens[which], np.where(nine, nines[past_which], tens[past_which])]
    version = np.r_[np.full(len(septic) + len(stay), 10), np.where(nine, 9, 10)]
    order = np.lexsort((np.arange(len(position)), admission, position))
    position, admission, code, version = position[order], admission[order], code[order], version[order]
    fresh = np.r_[True, (position[1:] != position[:-1]) | (admission[1:] != admission[:-1])][: len(position)]
    first = np.maximum.accumulate(np.where(fresh, np.arange(len(position)), 0))
    return Codes(position, admission, code, version, np.arange(len(position)) - first + 1)


def _choice(names: tuple[str, ...], shares: tuple[float, ...], n: int, rng: np.random.Generator) -> np.ndarray:
    return np.array(names, object)[rng.choice(len(names), n, p=shares)]
