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
from policy.train import TrainConfig

ROOT = Path(__file__).parents[2]
COST = {"seconds": 100.0, "cpu_seconds": 100.0}


def test_work_that_spreads_takes_its_share_of_the_processes() -> None:
    low, high = Forecast([{"tables": Work(60, 60)}, {"report": Work(10, 10, 10)}], processes=2).left()
    assert (low, high) == pytest.approx((0.7 * 40, 2.5 * 40))


def test_what_is_done_is_not_left() -> None:
    ahead = Forecast([{"tables": Work(60, 60)}, {"cohort": Work(60, 60)}], processes=1)
    for done, total in ((0, 0), (1, 4), (1, 2)):
        ahead.told("tables", done, total)
    assert ahead.left()[1] == pytest.approx(2.5 * 90)
    ahead.kept("cohort")
    assert ahead.left()[1] == pytest.approx(2.5 * 30)
    ahead.ended("tables", {"seconds": 60, "cpu_seconds": 60})
    assert ahead.left() == (0, 0)


def test_a_machine_that_others_use_is_expected_to_stay_slow() -> None:
    ahead = Forecast([{"tables": Work(100, 100)}, {"cohort": Work(100, 100)}], processes=1)
    ahead.ended("tables", {"seconds": 400, "cpu_seconds": 200})
    assert ahead.left() == pytest.approx((0.8 * 400, 1.5 * 400))  # twice the work a second, and half of the seconds


def test_a_stage_of_less_than_a_second_says_nothing_of_the_machine() -> None:
    ahead = Forecast([{"tables": Work(100, 100)}, {"cohort": Work(100, 100)}], processes=1)
    ahead.ended("tables", {"seconds": 9, "cpu_seconds": 0.9})
    assert ahead.left() == pytest.approx((0.7 * 100, 2.5 * 100))


def test_a_stage_that_all_processes_made_is_not_taken_for_a_busy_machine() -> None:
    ahead = Forecast([{"tables": Work(100, 100)}, {"cohort": Work(100, 100)}], processes=2)
    ahead.ended("tables", {"seconds": 60, "cpu_seconds": 100})
    assert ahead.left() == pytest.approx((0.8 * 60, 1.5 * 60))
    ahead = Forecast([{"tables": Work(100, 100)}, {"cohort": Work(100, 100)}], processes=1)
    ahead.ended("tables", {"seconds": 100, "cpu_seconds": 200})  # more processors than it was told of: no faster yet
    assert ahead.left() == pytest.approx((0.8 * 200, 1.5 * 200))


def test_the_load_is_the_mean_of_the_last_and_what_was_before() -> None:
    ahead = Forecast([{name: Work(100, 100)} for name in ("tables", "cohort", "ope")], processes=1)
    ahead.ended("tables", {"seconds": 200, "cpu_seconds": 100})
    ahead.ended("cohort", {"seconds": 100, "cpu_seconds": 100})
    assert ahead.left() == pytest.approx((0.8 * 150, 1.5 * 150))


def test_training_tells_of_the_load_but_not_of_the_pace_for_it_may_stop_early() -> None:
    ahead = Forecast([{"policy/iql": Work(20, 100, 250)}, {"ope": Work(100, 100)}], processes=2)
    ahead.ended("policy/iql", {"seconds": 150, "cpu_seconds": 100})
    assert ahead.left() == pytest.approx((0.8 * 75, 1.5 * 75))


def test_ranges_of_several_stages_are_added_as_independent_ones() -> None:
    ahead = Forecast([{"tables": Work(70, 130)}, {"cohort": Work(60, 140)}], processes=2)
    assert ahead.left() == pytest.approx((0.7 * 75, 2.5 * 125))


def test_what_is_left_of_a_training_that_may_stop_early_by_hand() -> None:
    training = Work(20, 100, 250)
    assert training.after(0.04) == Work(10, 90, 250)
    assert training.after(0.2) == Work(0, 50, 250)
    assert training.after(0.9) == Work(0, 10, 250)  # past where it used to stop: a little is left until it is done
    assert training.after(1.0) == Work(0, 0, 250)


def test_training_may_stop_early_and_says_so_by_a_range() -> None:
    ahead = Forecast([{"policy/iql": Work(20, 100, 250)}], processes=1)
    assert ahead.left() == pytest.approx((0.7 * 20, 2.5 * 100))
    ahead.told("policy/iql", 1, 5)
    assert ahead.left() == pytest.approx((0, 2.5 * 50))
    ahead.told("policy/iql", 9, 10)
    assert ahead.left()[1] > 0


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "at most 1 min"),
        (20, "at most 1 min"),
        (300, "3 to 15 min"),
        (600, "7 to 25 min"),
        (40_000, "7 to 28 hours"),
    ],
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
    for limit, share in ((10, 0.25), (100, 1.0)):
        limited = config.model_copy(update={"source": config.source.model_copy(update={"limit_stays": limit})})
        stays, (less, all_read) = forecast._size(Request(limited, tmp_path / "run", tmp_path))
        assert stays == 40 * share
        assert (less, all_read) == pytest.approx((least * share, most))  # patients in no order: all is read


def test_stays_among_all_other_rows_are_guessed_by_the_size_of_a_file_that_counts_once(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "0.parquet").write_bytes(b"x" * 385_000)  # 22,000 rows of 17.5 bytes
    config = load_config(ROOT / "configs" / "meds.yaml")
    stays, (least, most) = forecast._size(Request(config, tmp_path / "run", tmp_path))
    assert stays == 20
    assert (least, most) == pytest.approx((385_000 / 30 / 1.3e6, 385_000 / 5 / 1.3e6))


def test_each_stage_is_forecast_by_hand_from_stays_patients_treated_and_policies() -> None:
    request = Request(load_config(ROOT / "configs" / "hospital.yaml"), Path("nowhere"))
    assert forecast._size(request) == (50_000, (0.0, 0.0))
    assert len(request.config.learners) == 12
    known = forecast._costs(request, 10_000, (10.0, 30.0))
    a_third = {"tables": 33, "rollouts": 4 + 0.009 * 1000 * (12 + 1 + 3) + 8, "ope": 6 + 84 + 48}
    for name, seconds in a_third.items():
        assert (known[name].low, known[name].high) == pytest.approx((seconds / 1.33, seconds * 1.33))
        assert known[name].planned is None
    assert (known["cohort"].low, known["cohort"].high) == pytest.approx((19 / 1.33 + 10, 19 * 1.33 + 30))
    assert known["report"].planned == 20  # one process makes it


def test_training_is_forecast_by_hand_from_updates_and_the_networks_size() -> None:
    usual = TrainConfig(hidden=(256, 256), batch=256, updates=50_000)
    half = usual.model_copy(update={"batch": 128})
    small = TrainConfig(hidden=(16,), batch=64, updates=1_000)  # an update is never less than three tenths
    for config, low, high, planned in (
        (usual, 15.45, 82.4, 515),
        (half, 7.725, 41.2, 257.5),
        (small, 3.09, 3.09, 3.09),
    ):
        found = forecast._training("iql", config)
        assert (found.low * 1.33, found.high / 1.33, found.planned) == pytest.approx((low, high, planned))
    assert forecast._training("new", None) == Work(1, 600, 600)


def test_no_more_processes_are_expected_than_the_configuration_asks_for() -> None:
    config = load_config(ROOT / "configs" / "hospital.yaml")
    alone = config.model_copy(update={"source": config.source.model_copy(update={"workers": 1})})
    left = forecast.of(Request(alone, Path("nowhere")), [["tables"]]).left()
    assert left == pytest.approx((0.7 * 153 / 1.33, 2.5 * 153 * 1.33))


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
