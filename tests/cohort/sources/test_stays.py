"""Stays: windows, links by time, history, ages and what is refused."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from cohort import tables
from cohort.errors import InputError
from cohort.sources import comorbidity, infection, mimic_iv

Hospital = Callable[..., dict[str, pd.DataFrame]]
FIRST = (1, 10, 100, "MICU", "2150-01-01 12:00", "2150-01-03 12:00")
SECOND = (1, 11, 101, "SICU", "2150-01-03 20:00", "2150-01-05 12:00")
ADMISSIONS = [
    (1, 10, "2150-01-01 08:00", "2150-01-03 14:00", None, "WHITE", 0),
    (1, 11, "2150-01-03 18:00", "2150-01-06 08:00", "2150-01-06 08:00", "WHITE", 1),
]


def stays(raw: dict[str, pd.DataFrame]) -> pd.DataFrame:
    canonical, _ = mimic_iv.canonical(raw)
    return tables.check(canonical).stays


def test_a_laboratory_value_without_an_admission_belongs_to_the_stay_whose_window_holds_it(hospital: Hospital) -> None:
    times = ["2149-12-31 11:59", "2149-12-31 12:00", "2150-01-03 11:59", "2150-01-03 12:00", "2150-01-05 11:59",
             "2150-01-05 12:00"]  # fmt: skip
    rows = [(1, k, 50912, time, time, None, 1.0 + k, "mg/dL") for k, time in enumerate(times)]
    rows.append((2, 9, 50912, times[1], times[1], None, 9.0, "mg/dL"))
    canonical, counts = mimic_iv.canonical(hospital(icustays=[FIRST, SECOND], admissions=ADMISSIONS, labevents=rows))
    found = canonical.observations
    assert found.groupby("stay_id")["value"].apply(list).to_dict() == {100: [2.0, 3.0], 101: [4.0, 5.0]}
    assert counts == {("labevents", "outside every stay"): 3}


def test_many_stays_of_one_patient_each_get_their_own(hospital: Hospital) -> None:
    icu = [(1, 10, 100 + k, "MICU", f"2150-01-{k + 1:02d} 12:00", f"2150-01-{k + 2:02d} 10:00") for k in range(20)]
    rows = [(1, k, 50912, f"2150-01-{k + 1:02d} 13:00", None, None, 1.0, "mg/dL") for k in range(20)]
    canonical, _ = mimic_iv.canonical(hospital(icustays=icu, labevents=rows))
    assert canonical.observations["stay_id"].tolist() == [100 + k for k in range(20)]


def test_a_readmission_knows_the_earlier_stay_and_its_codes_only(hospital: Hospital) -> None:
    codes = [(1, 10, "4280", 9), (1, 10, "I50.1", 10), (1, 10, "25000", 9), (1, 11, "I10", 10)]
    found = stays(hospital(icustays=[SECOND, FIRST], admissions=ADMISSIONS, diagnoses_icd=codes))
    assert found["stay_id"].tolist() == [100, 101]
    assert found["readmission"].tolist() == [0, 1]
    assert found["elixhauser"].isna().tolist() == [True, False]
    assert found["elixhauser"].iloc[1] == 2  # heart failure, coded twice, and diabetes
    assert found["elixhauser_current"].tolist() == [2, 1]
    assert found["died_in_hospital"].tolist() == [False, True]


def test_without_diagnoses_the_comorbidity_is_missing_and_not_zero(hospital: Hospital) -> None:
    found = stays(hospital())
    assert found[["elixhauser", "elixhauser_current"]].isna().all(axis=None)


@pytest.mark.parametrize(
    ("code", "version", "name"),
    [
        ("42833", 9, "congestive_heart_failure"),
        ("I48.0", 10, "cardiac_arrhythmia"),
        ("I4891", 10, "cardiac_arrhythmia"),
        ("40190", 9, "hypertension"),
        ("5712", 9, "liver_disease"),
        ("K7030", 10, "alcohol"),
        ("C7931", 10, "metastatic_cancer"),
        ("2765", 9, "fluid_electrolyte"),
    ],
)
def test_a_code_falls_in_its_category(code: str, version: int, name: str) -> None:
    bit = list(comorbidity.load().comorbidities).index(name)
    assert comorbidity.categories(code, version) >> bit & 1


def test_a_code_of_no_category_counts_nothing() -> None:
    assert comorbidity.categories("99591", 9) == 0
    assert comorbidity.categories("A419", 10) == 0


@pytest.mark.parametrize(
    ("culture", "antibiotic", "suspicion"),
    [
        ("2150-01-01 14:00", "2150-01-02 14:00", "2150-01-01 14:00"),
        ("2150-01-01 14:00", "2150-01-04 14:00", "2150-01-01 14:00"),  # 72 h later: still
        ("2150-01-01 14:00", "2150-01-04 14:01", None),
        ("2150-01-02 14:00", "2150-01-01 14:00", "2150-01-01 14:00"),  # 24 h before: still
        ("2150-01-02 14:01", "2150-01-01 14:00", None),
        ("2149-12-30 12:00", "2149-12-31 12:00", "2149-12-30 12:00"),
        ("2149-12-30 11:59", "2149-12-31 12:00", None),  # more than 48 h before the stay
    ],
)
def test_infection_is_suspected_from_a_culture_and_an_antibiotic(
    hospital: Hospital, culture: str, antibiotic: str, suspicion: str | None
) -> None:
    raw = hospital(
        microbiologyevents=[(1, culture[:10], culture, "BLOOD CULTURE"), (1, culture[:10], culture, "MRSA SCREEN")],
        prescriptions=[
            (1, antibiotic, "Piperacillin-Tazobactam", "IV"),
            (1, "2150-01-01 14:00", "Vancomycin Oral Liquid", "LEFT EYE"),
            (1, "2150-01-01 14:00", "Furosemide", "IV"),
        ],
    )
    assert stays(raw)["suspicion_time"].tolist() == [pd.NaT if suspicion is None else pd.Timestamp(suspicion)]


def test_a_culture_without_a_time_counts_from_the_start_of_its_day(hospital: Hospital) -> None:
    raw = hospital(
        microbiologyevents=[(1, "2150-01-02", None, "URINE")],
        prescriptions=[(1, "2150-01-02 14:00", "Zosyn", "IV")],
    )
    assert stays(raw)["suspicion_time"].tolist() == [pd.Timestamp("2150-01-02")]


def test_a_screen_alone_is_no_culture(hospital: Hospital) -> None:
    raw = hospital(
        microbiologyevents=[(1, "2150-01-02", "2150-01-02 13:00", "MRSA SCREEN")],
        prescriptions=[(1, "2150-01-02 14:00", "Zosyn", "IV")],
    )
    assert stays(raw)["suspicion_time"].isna().all()


def test_names_of_antibiotics_begin_a_word() -> None:
    names = pd.Series(["NEO*IV*Gentamicin", "sulfameth/trimethoprim ds", "spice", "Aspirin", "Heparin"])
    assert infection.is_antibiotic(names, pd.Series(["IV"] * 5)).tolist() == [True, True, False, False, False]


def test_the_age_is_that_at_the_stay_and_hidden_ages_have_their_mean(hospital: Hospital) -> None:
    assert stays(hospital())["age_years"].tolist() == [62.0]
    assert stays(hospital(patients=[(1, "F", 91, 2148, None)]))["age_years"].tolist() == [91.4]


@pytest.mark.parametrize(("gender", "male"), [("M", 1.0), ("F", 0.0), (None, np.nan)])
def test_sex_is_one_zero_or_missing(hospital: Hospital, gender: str | None, male: float) -> None:
    found = stays(hospital(patients=[(1, gender, 60, 2148, None)]))["sex_male"].tolist()
    assert found == pytest.approx([male], nan_ok=True)


def test_a_stay_id_given_twice_is_an_error_without_the_id(hospital: Hospital) -> None:
    with pytest.raises(InputError, match=r"^icustays: stay id: given more than once \(1 of 2 rows\)$"):
        mimic_iv.canonical(hospital(icustays=[FIRST, FIRST]))


def test_a_stay_without_an_id_is_an_error(hospital: Hospital) -> None:
    raw = hospital(icustays=[FIRST])
    raw["icustays"] = raw["icustays"].assign(stay_id=float("nan"))
    with pytest.raises(InputError, match=r"^icustays: stay id: missing in 1 of 1 rows$"):
        mimic_iv.canonical(raw)


def test_few_stays_that_end_before_they_start_are_dropped_and_counted(hospital: Hospital) -> None:
    backwards = (1, 11, 101, "MICU", "2150-01-04 12:00", "2150-01-04 12:00")
    canonical, counts = mimic_iv.canonical(hospital(icustays=[FIRST, backwards], admissions=ADMISSIONS))
    assert canonical.stays["stay_id"].tolist() == [100]
    assert counts == {("icustays", "outtime not after intime"): 1}


def test_stays_that_mostly_end_before_they_start_are_an_error(hospital: Hospital) -> None:
    backwards = [(1, 10, k, "MICU", "2150-01-04 12:00", "2150-01-04 11:00") for k in range(2)]
    with pytest.raises(InputError, match="outtime: not after intime in 2 of 3 rows"):
        mimic_iv.canonical(hospital(icustays=[FIRST, *backwards]))


def test_stays_without_their_patient_admission_or_times_are_counted(hospital: Hospital) -> None:
    icu = [FIRST, (2, 10, 101, "MICU", *FIRST[4:]), (1, 99, 102, "MICU", *FIRST[4:]),
           (1, 10, 103, "MICU", "2150-01-09", None)]  # fmt: skip
    canonical, counts = mimic_iv.canonical(hospital(icustays=icu))
    assert canonical.stays["stay_id"].tolist() == [100]
    assert set(counts) == {
        ("icustays", "patient not in patients"),
        ("icustays", "admission not in admissions"),
        ("icustays", "intime or outtime missing"),
    }


def test_a_stay_that_overlaps_another_of_its_patient_takes_no_laboratory_value_twice(hospital: Hospital) -> None:
    other = (1, 11, 101, "SICU", "2150-01-02 12:00", "2150-01-05 12:00")
    rows = [(1, 1, 50912, "2150-01-02 13:00", None, None, 1.0, "mg/dL")]
    canonical, counts = mimic_iv.canonical(hospital(icustays=[FIRST, other], admissions=ADMISSIONS, labevents=rows))
    assert canonical.observations["stay_id"].tolist() == [100]
    assert counts["icustays", "overlaps an earlier stay of its patient"] == 1


def test_patients_of_whom_no_stay_is_left_give_empty_tables(hospital: Hospital) -> None:
    canonical, counts = mimic_iv.canonical(hospital(icustays=[(1, 99, 102, "MICU", *FIRST[4:])]))
    checked = tables.check(canonical)
    assert all(getattr(checked, name).empty for name in tables.SCHEMAS)
    assert counts == {("icustays", "admission not in admissions"): 1}
