"""Forecast: a range that holds what a run took, and follows the machine."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from app import forecast, log
from app.forecast import Forecast, Work
from app.run import Request, load_config

ROOT = Path(__file__).parents[2]
COST = {"seconds": 100.0, "cpu_seconds": 100.0}


def test_work_that_spreads_takes_its_share_of_the_processes() -> None:
    low, high = Forecast([{"tables": Work(60, 60)}, {"report": Work(10, 10, 10)}], processes=2).left()
    assert (low, high) == pytest.approx((0.7 * 40, 2.5 * 40))


def test_what_is_done_is_not_left() -> None:
    ahead = Forecast([{"tables": Work(60, 60)}, {"cohort": Work(60, 60)}], processes=1)
    ahead.told("tables", 1, 2)
    assert ahead.left()[1] == pytest.approx(2.5 * 90)
    ahead.kept("cohort")
    assert ahead.left()[1] == pytest.approx(2.5 * 30)
    ahead.ended("tables", {"seconds": 60, "cpu_seconds": 60})
    assert ahead.left() == (0, 0)


def test_a_machine_that_others_use_is_expected_to_stay_slow() -> None:
    ahead = Forecast([{"tables": Work(100, 100)}, {"cohort": Work(100, 100)}], processes=1)
    ahead.ended("tables", {"seconds": 400, "cpu_seconds": 200})
    assert ahead.left() == pytest.approx((0.8 * 400, 1.5 * 400))  # twice the work a second, and half of the seconds


def test_training_may_stop_early_and_says_so_by_a_range() -> None:
    ahead = Forecast([{"policy/iql": Work(20, 100, 250)}], processes=1)
    assert ahead.left() == pytest.approx((0.7 * 20, 2.5 * 100))
    ahead.told("policy/iql", 1, 5)
    assert ahead.left() == pytest.approx((0, 2.5 * 50))
    ahead.told("policy/iql", 9, 10)
    assert ahead.left()[1] > 0


@pytest.mark.parametrize(
    ("seconds", "said"), [(20, "at most 1 min"), (300, "3 to 15 min"), (600, "7 to 25 min"), (40_000, "7 to 28 hours")]
)
def test_minutes_are_said_without_false_precision(seconds: float, said: str) -> None:
    assert Forecast([{"ope": Work(seconds, seconds)}], processes=1).words() == said


def test_the_forecast_of_the_full_hospital_holds_what_it_took() -> None:
    """41 minutes on two cores that four others shared, 14 by its processor time (2026-11-22)."""
    request = Request(load_config(ROOT / "configs" / "hospital.yaml"), Path("nowhere"))
    learners = [f"policy/{name}" for name in request.config.learners]
    groups = [["tables"], ["cohort"], ["behaviour", *learners], ["rollouts"], ["ope"], ["report"]]
    low, high = forecast.of(request, groups).left()
    assert low < 1352 / 2 < high
    assert high < 45 * 60


def test_what_a_cluster_does_says_nothing_of_this_machine() -> None:
    config = load_config(ROOT / "configs" / "hospital.yaml").model_copy(update={"engine": "spark"})
    ahead = forecast.of(Request(config, Path("nowhere")), [["tables"], ["report"]])
    ahead.told("tables", 1, 1)
    before = ahead.left()
    ahead.ended("tables", {"seconds": 900, "cpu_seconds": 5})
    assert ahead.left() == before


def test_a_hospitals_own_tables_are_measured_by_their_files(tmp_path: Path) -> None:
    (tmp_path / "icu").mkdir()
    (tmp_path / "hosp").mkdir()
    for name in ("hosp/patients", "hosp/admissions", "icu/inputevents"):
        (tmp_path / f"{name}.csv").write_text("subject_id\n")
    columns = "subject_id,hadm_id,stay_id,first_careunit,last_careunit,intime,outtime,los"
    rows = "".join(f"{n},{n},{n},MICU,MICU,2150-01-01 00:00:00,2150-01-02 00:00:00,1\n" for n in range(40))
    (tmp_path / "icu" / "icustays.csv").write_text(f"{columns}\n{rows}")
    (tmp_path / "icu" / "chartevents.csv").write_bytes(b"x" * 78_000_000)
    config = load_config(ROOT / "configs" / "mimic_iv.yaml")
    stays, (least, most) = forecast._size(Request(config, tmp_path / "run", tmp_path))
    assert stays == 40
    assert (least, most) == pytest.approx((0.4, 1.0), rel=0.01)


def test_json_says_what_is_left_of_the_run_with_every_progress(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(log.FORMAT, "json")
    ahead = Forecast([{"tables": Work(100, 100)}, {"cohort": Work(100, 100)}], processes=1)
    with log.progress(ahead) as told:
        told(("tables", 2, 2))
    said = json.loads(capsys.readouterr().err)
    assert (said["event"], said["stage"], said["run_seconds_left"]) == ("progress", "tables", [70.0, 250.0])


def test_a_run_says_before_each_stage_what_is_left(
    suture: Any, tiny_run: Path, tiny_config: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_run, tmp_path / "run")
    done = suture("run", tiny_config, "--out", tmp_path / "run", "--resume")
    assert done.code == 0, done.err
    said = re.findall(r"^ +at most (\d+) min left$", done.err, flags=re.M)
    assert len(said) == 5  # tables, cohort, training, evaluation, report
    assert int(said[0]) > int(said[-1]) == 1
