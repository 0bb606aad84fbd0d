"""An opened run: what is read of it, that it is the bedside's own, and what is refused."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from app import study
from app.settings import AppConfig
from app.study import HOUR, Problem, Study
from cohort import features, trajectories
from ope import gates
from tests import small_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_run.shared(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def opened(run: Path) -> Study:
    found = study.open_study(run)
    assert isinstance(found, Study), found
    return found


def test_a_run_opens_with_its_evaluation_patients_only(run: Path, opened: Study) -> None:
    split = trajectories.read(run / "cohort", ["stay_id", "split"]).to_pandas()
    expected = set(split.loc[split["split"] == "evaluate", "stay_id"])
    assert set(opened.decisions["stay_id"]) == set(opened.stays["stay_id"]) == expected
    assert opened.policy_name == "iql"
    assert opened.verdict == gates.INSUFFICIENT


def test_an_imputed_value_is_missing_and_what_the_policy_sees_is_unchanged(run: Path, opened: Study) -> None:
    stored = trajectories.read(run / "cohort", split="evaluate").to_pandas()
    names = list(features.FEATURES)
    imputed = stored[[f"{name}_imputed" for name in names]].to_numpy()
    assert imputed.any()
    assert np.array_equal(np.isnan(opened.decisions[names].to_numpy()), imputed)
    state, ages, _ = study.asked(opened, opened.decisions)
    assert np.array_equal(state.astype(np.float32), stored[names].to_numpy(np.float32))
    assert np.array_equal(np.isnan(ages), imputed)


def test_a_patients_course_made_at_the_bedside_is_bit_for_bit_what_was_trained_on(opened: Study) -> None:
    for stay_id in opened.stays["stay_id"].iloc[:5]:
        made = study.course(opened, int(stay_id))
        stored = opened.decisions[opened.decisions["stay_id"] == stay_id].sort_values("step").reset_index(drop=True)
        assert made["step"].tolist() == list(range(len(made)))
        pd.testing.assert_frame_equal(made, stored, check_dtype=False, rtol=1e-6)
        for one, other in zip(study.asked(opened, made)[:2], study.asked(opened, stored)[:2], strict=True):
            assert np.array_equal(one.astype(np.float32), other.astype(np.float32), equal_nan=True)


def test_every_training_decision_knows_whether_its_patient_died(run: Path, opened: Study) -> None:
    stored = trajectories.read(run / "cohort", ["outcome"], split="train").to_pandas()
    assert np.array_equal(opened.died, stored["outcome"].astype(str) == "died")
    assert 0 < opened.died.mean() < 1


def test_no_run_is_a_plain_page_that_says_how_to_make_one(tmp_path: Path) -> None:
    for nothing in (None, tmp_path / "none", tmp_path):
        problem = study.open_study(nothing)
        assert isinstance(problem, Problem)
        assert problem.title == "There is no run to show"
        assert "suture run" in problem.remedy


@pytest.mark.parametrize("part", ["cohort", "behaviour", "policy", "ope"])
def test_a_half_finished_run_names_what_is_missing(run: Path, tmp_path: Path, part: str) -> None:
    out = small_run.with_evaluation(run, tmp_path / "run", {})
    shutil.rmtree(out / part) if part == "ope" else (out / part).unlink()
    problem = study.open_study(out)
    assert isinstance(problem, Problem)
    assert problem.title == "This run is not finished"
    assert f"{part}/" in problem.detail
    assert "--resume" in problem.remedy


@pytest.mark.parametrize("name", ["ope/evaluation.json", "policy/iql/policy.json", "cohort/trajectories.parquet"])
def test_a_file_that_differs_from_its_manifest_shows_nothing_and_is_named(run: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "run"
    shutil.copytree(run, out)
    file = out / name
    assert file.is_file(), [path.name for path in file.parent.iterdir()]
    file.write_bytes(file.read_bytes() + b" ")
    problem = study.open_study(out)
    assert isinstance(problem, Problem)
    assert problem.title == "This run fails verification"
    assert file.name in problem.detail
    assert "suture verify" in problem.remedy


def test_a_patients_table_that_was_changed_is_not_shown(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(run, out)
    found = study.open_study(out)
    assert isinstance(found, Study)
    file = out / "cohort" / "canonical" / "shard-00000" / "observations.parquet"
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(study.ArtifactError, match=r"observations\.parquet"):
        study.course(found, int(found.stays["stay_id"].iloc[0]))


def test_a_policy_of_another_cohort_is_refused(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(run, out)
    shutil.rmtree(out / "cohort")
    small_run.cohort(out / "cohort", 60, seed=9)
    problem = study.open_study(out, AppConfig())
    assert isinstance(problem, Problem)
    assert "made from another cohort" in problem.detail


def test_the_stamp_changes_when_a_stage_is_made_again(run: Path, tmp_path: Path) -> None:
    out = small_run.with_evaluation(run, tmp_path / "run", {})
    before = study.stamp(out)
    shutil.rmtree(out / "ope")
    assert study.stamp(out) != before
    assert study.stamp(None) == ()


def test_hours_are_those_of_the_decisions(opened: Study) -> None:
    assert opened.horizon_h == opened.decisions[HOUR].max() + 4


def test_thresholds_edited_after_the_evaluation_show_nothing(run: Path, tmp_path: Path) -> None:
    """Whole manifests and all: the page reads an evaluation by the thresholds that were written before it."""
    edited = small_run.with_evaluation(run, tmp_path / "run", {"gates/config/min_ess": 1})
    found = study.open_study(edited)
    assert isinstance(found, Problem)
    assert found.title == "This run fails verification"
    assert "gates: edited after the evaluation" in found.detail
