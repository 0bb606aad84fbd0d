"""What is served at the bedside: the states that the policy was trained on, bit for bit, through the app's own ways."""

import shutil
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from app import bedside, study
from cohort import tables, trajectories
from cohort.errors import InputError
from cohort.features import FEATURES, MEASURED
from cohort.tables import Tables
from tests import small_run
from tests.app.conftest import Suture
from tests.cohort import tiny


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_run.shared(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def batch(run: Path) -> pd.DataFrame:
    return trajectories.read(run / "cohort").to_pandas()


def of_batch(batch: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """The batch's rows of the stays and times that were asked for."""
    joined = rows[["stay_id", "time"]].merge(batch, on=["stay_id", "time"], how="left", validate="one_to_one")
    assert joined["step"].notna().all()
    return joined


def test_the_page_shows_the_very_states_of_the_batch(run: Path, batch: pd.DataFrame) -> None:
    opened = study.open_study(run)
    assert isinstance(opened, study.Study)
    stored = of_batch(batch, opened.decisions)
    imputed = stored[[f"{name}_imputed" for name in FEATURES]].to_numpy()
    shown = opened.decisions[list(FEATURES)].to_numpy()
    assert np.array_equal(np.isnan(shown), imputed)
    assert shown[~imputed].astype(np.float32).tobytes() == stored[list(FEATURES)].to_numpy()[~imputed].tobytes()
    ages = [f"{name}_age_h" for name in MEASURED]
    np.testing.assert_array_equal(opened.decisions[ages].to_numpy(np.float32), stored[ages].to_numpy(np.float32))
    assert (opened.decisions["sofa_missing"] == stored["sofa_missing"]).all()


def test_every_decision_time_of_canonical_tables_gets_the_state_of_the_batch(
    run: Path, batch: pd.DataFrame, tmp_path: Path
) -> None:
    asked = bedside.ask(run, run / "cohort" / "canonical", tmp_path)
    assert len(asked.rows) == len(batch)
    stored = of_batch(batch, asked.rows)
    assert asked.state.tobytes() == stored[list(FEATURES)].to_numpy(np.float32).tobytes()
    imputed = stored[[f"{name}_imputed" for name in FEATURES]].to_numpy()
    assert np.array_equal(np.isnan(asked.age_h), imputed)
    assert list(tmp_path.iterdir()) == []


def test_a_time_between_two_hours_is_answered_by_the_last_whole_hour_whatever_comes_later(
    run: Path, batch: pd.DataFrame, tmp_path: Path
) -> None:
    row = batch[batch["step"] == 2].iloc[0]
    shard = tables.read(run / "cohort" / "canonical" / "shard-00000")
    future = shard.observations["available"] > row["time"]
    scrambled = shard.observations.assign(value=shard.observations["value"].where(~future, 1.0))
    folder = tmp_path / "tables"
    tables.write(Tables(shard.stays, scrambled, shard.infusions, shard.outputs), folder / "shard-00000")
    at = (row["time"] + pd.Timedelta(minutes=25)).to_pydatetime()
    asked = bedside.ask(run, folder, tmp_path, at, stay=int(row["stay_id"]))
    assert asked.rows["time"].tolist() == [row["time"]]
    assert asked.state.tobytes() == row[list(FEATURES)].to_numpy(np.float32).tobytes()


def test_only_those_in_intensive_care_then_are_answered_and_the_others_counted(run: Path, tmp_path: Path) -> None:
    stays = tables.read(run / "cohort" / "canonical" / "shard-00000").stays
    at = stays["intime"].iloc[10] + pd.Timedelta(hours=5)
    inside = stays[(stays["intime"] <= at) & (stays["outtime"] > at)]
    asked = bedside.ask(run, run / "cohort" / "canonical", tmp_path, at.to_pydatetime())
    assert 0 < len(asked.rows) <= len(inside)
    assert set(asked.rows["stay_id"]) <= set(inside["stay_id"])
    assert len(asked.rows) + sum(asked.left_out.values()) == len(stays)


def test_a_child_is_left_out_as_it_was_from_training(run: Path, tmp_path: Path) -> None:
    shard = tiny.make([tiny.stay(1), tiny.stay(2, age_years=9.0)])
    tables.write(shard, tmp_path / "tables" / "shard-00000")
    asked = bedside.ask(run, tmp_path / "tables", tmp_path)
    assert set(asked.rows["stay_id"]) == {1}
    assert asked.left_out == {"younger than 18 years": 1}


def test_nobody_in_intensive_care_then_is_an_error_that_counts_stays(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"canonical: none of 150 stays has a decision time \(not in intensive care"):
        bedside.ask(run, run / "cohort" / "canonical", tmp_path, datetime(1999, 1, 1, 12))


def test_a_stay_that_is_not_there_is_not_named(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the stay that --stay names is not among its stays") as error:
        bedside.ask(run, run / "cohort" / "canonical", tmp_path, stay=77777)
    assert "77777" not in str(error.value)


def raw_copy(run: Path, to: Path) -> Path:
    """A copy of a run's raw tables, to be changed."""
    shutil.copytree(run / "tables", to)
    return to


def rewrite(path: Path, column: str, blank: "pd.Series[bool] | slice") -> pd.DataFrame:
    """Empty a column of a raw table in the chosen rows; returns the table as it was."""
    was: pd.DataFrame = pd.read_parquet(path)
    schema = pq.read_schema(path)
    now = was.copy()
    now.loc[blank, column] = pd.NaT
    now.to_parquet(path, index=False, schema=schema)
    return was


def test_raw_tables_give_the_answers_that_the_batch_s_own_states_give(
    suture: Suture, tiny_run: Path, tmp_path: Path
) -> None:
    done = suture("recommend", tiny_run, "--source", tiny_run / "tables", "--out", tmp_path / "raw.parquet")
    assert done.code == 0, done.err
    states = tiny_run / "cohort" / "trajectories.parquet"
    assert suture("recommend", tiny_run, "--states", states, "--out", tmp_path / "batch.parquet").code == 0
    raw, batch = (pd.read_parquet(tmp_path / name) for name in ("raw.parquet", "batch.parquet"))
    assert list(raw.columns)[:3] == ["stay_id", "time", "hours_since_start"]
    rows = pd.read_parquet(states, columns=["stay_id", "time"]).merge(
        raw.reset_index(names="place"), on=["stay_id", "time"]
    )
    assert len(rows) == len(batch)
    there = rows[list(batch.columns)].drop(columns="row")
    pd.testing.assert_frame_equal(there, batch.drop(columns="row"), check_exact=True)


def test_stays_and_infusions_that_still_run_have_no_end_in_the_tables_and_are_answered(
    suture: Suture, tiny_run: Path, tmp_path: Path
) -> None:
    folder = raw_copy(tiny_run, tmp_path / "tables")
    stays_file = next(folder.rglob("icustays.*"))
    was = pd.read_parquet(stays_file) if stays_file.suffix == ".parquet" else pd.read_csv(stays_file)
    assert stays_file.suffix == ".parquet", stays_file
    chosen = was.assign(hours=was["outtime"] - was["intime"]).nlargest(1, "hours").iloc[0]
    at = chosen["intime"].floor("h") + pd.Timedelta(hours=30)
    rewrite(stays_file, "outtime", slice(None))
    for file in folder.rglob("inputevents*.parquet"):
        given = pd.read_parquet(file, columns=["endtime"])
        rewrite(file, "endtime", given["endtime"] > at)
    ended = tmp_path / "ended.csv"
    command = ("recommend", tiny_run, "--at", at.isoformat(), "--stay", chosen["stay_id"])
    assert suture(*command, "--source", tiny_run / "tables", "--out", ended).code == 0
    running = tmp_path / "running.csv"
    done = suture(*command, "--source", folder, "--out", running)
    assert done.code == 0, done.err
    assert running.read_text() == ended.read_text()
    later = suture("recommend", tiny_run, "--source", folder, "--out", tmp_path / "later.csv")
    assert later.code == 3
    assert "icustays: no stay can be used (intime or outtime missing: 60)" in later.err
    assert str(chosen["stay_id"]) not in later.err


def test_either_states_or_tables_are_named(suture: Suture, tiny_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "doses.csv"
    for wrong in ((), ("--states", "a.csv", "--source", tmp_path), ("--states", "a.csv", "--stay", 1)):
        done = suture("recommend", tiny_run, *wrong, "--out", out)
        assert done.code == 2
        assert done.err.startswith("error: ")
    assert suture("recommend", tiny_run, "--source", tmp_path / "none", "--out", out).code == 3
    assert not out.exists()
