"""Small readable hospital tables in MIMIC-IV's layout: one patient, one stay of two days."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pandas as pd
import pytest

from cohort import hospital as simulator

Rows = Sequence[tuple[object, ...]]

COLUMNS = {
    "icustays": "subject_id hadm_id stay_id first_careunit intime outtime",
    "patients": "subject_id gender anchor_age anchor_year dod",
    "admissions": "subject_id hadm_id admittime dischtime deathtime race hospital_expire_flag",
    "chartevents": "stay_id itemid charttime storetime value valuenum valueuom",
    "labevents": "subject_id specimen_id itemid charttime storetime value valuenum valueuom",
    "inputevents": "stay_id itemid starttime endtime amount amountuom rate rateuom orderid linkorderid patientweight"
    " statusdescription",
    "outputevents": "stay_id itemid charttime storetime value valueuom",
    "procedureevents": "stay_id itemid starttime endtime",
    "microbiologyevents": "subject_id chartdate charttime spec_type_desc",
    "prescriptions": "subject_id starttime drug route",
    "diagnoses_icd": "subject_id hadm_id icd_code icd_version",
}
TIMES = {"intime", "outtime", "dod", "admittime", "dischtime", "deathtime", "charttime", "storetime", "starttime",
         "endtime", "chartdate"}  # fmt: skip
NUMBERS = {"valuenum", "amount", "rate", "patientweight"}
TEXTS = {"first_careunit", "gender", "race", "valueuom", "amountuom", "rateuom", "statusdescription", "spec_type_desc",
         "drug", "route", "icd_code"}  # fmt: skip
USUAL: Mapping[str, Rows] = {
    "icustays": [(1, 10, 100, "MICU", "2150-01-01 12:00", "2150-01-03 12:00")],
    "patients": [(1, "M", 60, 2148, None)],
    "admissions": [(1, 10, "2150-01-01 08:00", "2150-01-05 08:00", None, "WHITE", 0)],
    "chartevents": [],
    "inputevents": [],
}


def table(name: str, rows: Rows) -> pd.DataFrame:
    frame = pd.DataFrame(list(rows), columns=COLUMNS[name].split())
    for column in frame:
        if column in TIMES:
            frame[column] = pd.to_datetime(frame[column], format="ISO8601").astype("datetime64[us]")
        elif column in NUMBERS or (name, column) == ("outputevents", "value"):
            frame[column] = frame[column].astype("float64")
        elif column in TEXTS or column == "value":
            frame[column] = frame[column].astype("str")
        else:
            frame[column] = frame[column].astype("int64")
    return frame


@pytest.fixture
def hospital() -> Callable[..., dict[str, pd.DataFrame]]:
    """hospital(chartevents=[...], ...) -> raw tables; those not given are the usual patient's."""

    def build(**tables: Rows) -> dict[str, pd.DataFrame]:
        return {name: table(name, rows) for name, rows in {**USUAL, **tables}.items()}

    return build


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve simulated stays as parquet."""
    folder = tmp_path_factory.mktemp("hospital")
    simulator.simulate(folder / "tables", folder / "truth", simulator.HospitalConfig(n_stays=12), seed=3)
    return folder / "tables"
