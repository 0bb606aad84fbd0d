"""The command line: help, versions, exit codes, one line for every error, and the commands on a finished run."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from app import cli
from app.recommendation import rows
from cohort import artifact
from policy.recommend import Recommendation

COMMANDS = [
    "run", "simulate", "cohort", "copy", "units", "export-meds", "train", "sweep", "lab",
    "export-onnx", "evaluate", "report", "recommend", "verify", "app", "bench",
]  # fmt: skip
Suture = Callable[..., Any]
SCRIPT = Path(sys.executable).with_name("suture")


def test_help_lists_every_command_and_the_exit_codes(suture: Suture) -> None:
    done = suture("--help")
    assert done.code == 0
    assert all(command in done.out for command in COMMANDS)
    assert "Exit codes: 0 done" in " ".join(done.out.split())
    assert "not for clinical use" in " ".join(done.out.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself(suture: Suture, command: str) -> None:
    done = suture(command, "--help")
    assert done.code == 0
    assert command in done.out


def test_the_version_is_the_distributions(suture: Suture) -> None:
    from importlib.metadata import version

    assert suture("--version").out == f"suture {version('suture')}\n"


def test_the_console_script_is_installed_and_writes_errors_to_the_error_stream(tmp_path: Path) -> None:
    done = subprocess.run(
        [SCRIPT, "run", tmp_path / "none.yaml", "--out", tmp_path / "out"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: {tmp_path / 'none.yaml'}: cannot be read (FileNotFoundError)\n"


def test_a_wrong_option_ends_with_code_2(suture: Suture, tmp_path: Path) -> None:
    assert suture("run", "x.yaml", "--nonsense").code == 2
    assert suture("run").code == 2
    done = suture("run", "x.yaml", "--out", tmp_path / "out", "--resume", "--overwrite")
    assert (done.code, done.err) == (2, "error: --resume and --overwrite exclude each other\n")


def test_a_defect_is_reported_without_its_message_which_may_hold_patient_data(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SUTURE_DEBUG", raising=False)
    try:
        {}[30000123]
    except KeyError as error:
        cli._defect(KeyError, error, error.__traceback__)
    said = capsys.readouterr().err
    assert said.startswith("error: a defect in Suture (KeyError at test_cli.py:")
    assert said.count("\n") == 1
    assert "30000123" not in said


def test_defects_are_caught_by_our_own_hook_whatever_the_library_installs(suture: Suture) -> None:
    suture("--version")
    assert sys.excepthook is cli._defect


def test_verify_lists_every_stage_of_a_sound_run(suture: Suture, tiny_run: Path) -> None:
    done = suture("verify", tiny_run)
    assert done.code == 0, done.err
    for stage in ("tables", "truth", "cohort", "behaviour", "policy/bc", "policy/iql", "ope", "report"):
        assert f"\n{stage} " in "\n" + done.out


def test_verify_names_the_file_that_was_changed(suture: Suture, tiny_run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(tiny_run, copy)
    curves = copy / "policy" / "bc" / "curves.json"
    curves.write_text(curves.read_text() + " ")
    done = suture("verify", copy)
    assert (done.code, done.err.count("\n")) == (4, 1)
    assert "policy/bc/curves.json: its hash differs" in done.err


def test_verify_names_a_stage_that_was_made_from_another_cohort(suture: Suture, tiny_run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(tiny_run, copy)
    manifest = artifact.read_sealed(copy / "cohort" / "manifest.json")
    artifact.write_sealed(copy / "cohort" / "manifest.json", {**manifest, "seed": 99})
    done = suture("verify", copy)
    assert done.code == 4
    assert "made from another cohort than the one beside it" in done.err


@pytest.mark.parametrize("command", [["verify"], ["app"]])
def test_a_directory_that_is_no_run_is_one_line(suture: Suture, tmp_path: Path, command: list[str]) -> None:
    done = suture(*command, tmp_path)
    assert (done.code, done.err) == (4, f"error: {tmp_path}: has no run.json, so it is not a run's directory\n")


@pytest.fixture
def states(tiny_run: Path, tmp_path: Path) -> Path:
    """Twenty decisions of the evaluation patients, as a CSV file."""
    rows = pq.read_table(tiny_run / "cohort" / "trajectories.parquet").to_pandas()
    path = tmp_path / "states.csv"
    rows[rows["split"] == "evaluate"].head(20).to_csv(path, index=False)
    return path


def test_recommend_answers_every_row_in_order(suture: Suture, tiny_run: Path, states: Path, tmp_path: Path) -> None:
    out = tmp_path / "doses.csv"
    done = suture("recommend", tiny_run, "--states", states, "--out", out)
    assert done.code == 0, done.err
    assert "not for clinical use" in done.out
    answers = pd.read_csv(out)
    assert list(answers["row"]) == list(range(20))
    abstains = answers["gate"].notna()
    assert (answers["action"].isna() == abstains).all()
    assert (answers["fluid_ml"].isna() == abstains).all()
    assert answers.loc[abstains, "reason"].notna().all()
    assert answers.loc[abstains, "lifts"].notna().all()


def test_recommend_abstains_where_the_pressure_was_not_measured(
    suture: Suture, tiny_run: Path, states: Path, tmp_path: Path
) -> None:
    table = pd.read_csv(states)
    table["map"] = None
    table["map_age_h"] = None
    table.to_csv(states, index=False)
    suture("recommend", tiny_run, "--states", states, "--out", tmp_path / "doses.parquet")
    answers = pd.read_parquet(tmp_path / "doses.parquet")
    assert (answers["gate"] == "data freshness").all()
    assert answers["action"].isna().all()


def test_an_empty_value_is_not_measured_whatever_its_age_says(
    suture: Suture, tiny_run: Path, states: Path, tmp_path: Path
) -> None:
    table = pd.read_csv(states)
    table[["map", "map_age_h"]] = [None, 0.5]
    table.to_csv(states, index=False)
    suture("recommend", tiny_run, "--states", states, "--out", tmp_path / "doses.parquet")
    assert (pd.read_parquet(tmp_path / "doses.parquet")["gate"] == "data freshness").all()


@pytest.mark.parametrize(
    ("feature", "value"), [("map", 0.0), ("heart_rate", -5.0), ("weight_kg", 0.0), ("sofa", -4.0), ("map", 1e300)]
)
def test_an_impossible_value_abstains_and_is_named(
    suture: Suture, tiny_run: Path, states: Path, tmp_path: Path, feature: str, value: float
) -> None:
    pd.read_csv(states).assign(**{feature: value}).to_csv(states, index=False)
    done = suture("recommend", tiny_run, "--states", states, "--out", tmp_path / "doses.parquet")
    assert done.code == 0, done.err
    answers = pd.read_parquet(tmp_path / "doses.parquet")
    assert (answers["gate"] == "data freshness").all()
    assert answers["action"].isna().all()
    assert (answers["reason"].str.contains(feature) | answers["reason"].str.contains("infinite")).all()


@pytest.mark.parametrize(
    ("column", "value", "says"), [("map_age_h", -1.0, "below 0 h"), ("map_imputed", "no", "true or false")]
)
def test_recommend_refuses_ages_below_0_and_flags_that_are_none(
    suture: Suture, tiny_run: Path, states: Path, tmp_path: Path, column: str, value: object, says: str
) -> None:
    table = pd.read_csv(states).assign(**{column: value})
    table = table.drop(columns="map_age_h") if column == "map_imputed" else table
    table.to_csv(states, index=False)
    done = suture("recommend", tiny_run, "--states", states, "--out", tmp_path / "doses.csv")
    assert (done.code, done.err.count("\n")) == (3, 1)
    assert says in done.err


def test_recommend_refuses_a_run_whose_cohort_is_not_the_policy_s(
    suture: Suture, tiny_run: Path, states: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(tiny_run, copy)
    manifest = artifact.read_sealed(copy / "cohort" / "manifest.json")
    artifact.write_sealed(copy / "cohort" / "manifest.json", {**manifest, "seed": 99})
    done = suture("recommend", copy, "--states", states, "--out", tmp_path / "doses.csv")
    assert done.code == 4
    assert "another cohort" in done.err


@pytest.mark.parametrize("stage", ["tables", "cohort", "behaviour", "policy/iql", "ope", "report"])
def test_verify_misses_a_stage_that_is_gone(suture: Suture, tiny_run: Path, tmp_path: Path, stage: str) -> None:
    copy = tmp_path / "run"
    shutil.copytree(tiny_run, copy)
    shutil.rmtree(copy / stage)
    done = suture("verify", copy)
    assert (done.code, done.err.count("\n")) == (4, 1)
    assert stage in done.err


@pytest.mark.parametrize("inputs", [None, []])
def test_verify_names_a_manifest_that_is_damaged(
    suture: Suture, tiny_run: Path, tmp_path: Path, inputs: object
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(tiny_run, copy)
    manifest = artifact.read_sealed(copy / "ope" / "manifest.json")
    artifact.write_sealed(copy / "ope" / "manifest.json", {**manifest, "inputs": inputs})
    done = suture("verify", copy)
    assert done.code == 4
    assert "ope/manifest.json: inputs" in done.err


def test_verify_names_a_folder_that_no_stage_wrote(suture: Suture, tiny_run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(tiny_run, copy)
    (copy / "policy" / "other").mkdir()
    (copy / "policy" / "other" / "weights.safetensors").write_bytes(b"0")
    assert "policy/other" in suture("verify", copy).err


def test_recommend_refuses_a_table_without_a_feature_and_a_file_that_exists(
    suture: Suture, tiny_run: Path, states: Path, tmp_path: Path
) -> None:
    out = tmp_path / "doses.csv"
    pd.read_csv(states).drop(columns="lactate").to_csv(tmp_path / "less.csv", index=False)
    done = suture("recommend", tiny_run, "--states", tmp_path / "less.csv", "--out", out)
    assert (done.code, done.err.count("\n")) == (3, 1)
    assert "column 'lactate' is missing (1 of 48 features)" in done.err
    assert not out.exists()
    out.write_text("kept")
    assert suture("recommend", tiny_run, "--states", states, "--out", out).code == 4
    assert out.read_text() == "kept"


def test_a_policy_that_the_evaluation_refused_recommends_no_dose() -> None:
    found = Recommendation(7, 100.0, 0.1, 0.4, 0.3, 50, 200, None, None, None, ((7, 0.4, 50),))
    (shown,) = rows([found], refused=False)
    assert (shown["action"], shown["fluid_ml"], shown["gate"]) == (7, 100.0, None)
    (silent,) = rows([found], refused=True)
    assert silent["gate"] == "evaluation"
    for key in ("action", "fluid_ml", "vasopressor_ug_kg_min", "probability", "alternatives"):
        assert silent[key] is None


def test_recommend_wants_the_evaluation_of_the_policy_that_is_there(
    suture: Suture, tiny_config: Path, tiny_run: Path, states: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(tiny_run, copy)
    other = tmp_path / "other.yaml"
    other.write_text(tiny_config.read_text().replace("seed: 3", "seed: 5"))
    shutil.rmtree(copy / "policy" / "iql")
    assert suture("train", other, "--out", copy, "--learner", "iql").code == 0
    done = suture("recommend", copy, "--states", states, "--out", tmp_path / "doses.csv")
    assert (done.code, done.err.count("\n")) == (4, 1)
    assert "evaluate again" in done.err
    assert not (tmp_path / "doses.csv").exists()


def test_recommend_names_the_policies_that_there_are(
    suture: Suture, tiny_run: Path, states: Path, tmp_path: Path
) -> None:
    done = suture("recommend", tiny_run, "--states", states, "--out", tmp_path / "d.csv", "--policy", "dqn")
    assert (done.code, done.err.count("\n")) == (4, 1)
    assert "no policy 'dqn'; it has: bc, iql" in done.err


def test_bench_names_the_benchmarks_that_there_are(suture: Suture) -> None:
    done = suture("bench", "nonsense")
    assert done.code in (1, 2)
    assert done.err.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_an_interrupted_run_leaves_nothing_half_written(tmp_path: Path, number: signal.Signals) -> None:
    """Interrupted in the middle of the simulation; the stage before it (none) and the directory are as before."""
    config = tmp_path / "big.yaml"
    config.write_text(
        "name: big\nseed: 1\nhospital: {n_stays: 20000}\nsource: {kind: mimic_iv}\ncohort: {}\n"
        "learners: {bc: {}}\nevaluation: {}\n"
    )
    out = tmp_path / "run"
    with subprocess.Popen(
        [SCRIPT, "simulate", config, "--out", out], stderr=subprocess.PIPE, text=True, env={**os.environ}
    ) as process:
        deadline = time.monotonic() + 60
        while not list(out.glob(".tables.tmp-*")) and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.3)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert err == "interrupted: finished stages stay; --resume goes on with the others\n"
    assert not out.exists()


def test_a_stage_alone_needs_the_earlier_ones(suture: Suture, tiny_config: Path, tmp_path: Path) -> None:
    done = suture("train", tiny_config, "--out", tmp_path / "run")
    assert (done.code, done.err.count("\n")) == (4, 1)
    assert "cohort: no manifest.json" in done.err
    assert not (tmp_path / "run").exists()


def test_training_one_learner_again_leaves_the_others(
    suture: Suture, tiny_config: Path, tiny_run: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(tiny_run, copy)
    before = artifact.digest(copy / "policy" / "iql")
    shutil.rmtree(copy / "policy" / "bc")
    done = suture("train", tiny_config, "--out", copy, "--learner", "bc")
    assert done.code == 0, done.err
    assert artifact.verify(copy / "policy" / "bc")
    assert artifact.digest(copy / "policy" / "iql") == before
    unknown = suture("train", tiny_config, "--out", copy, "--learner", "dqn")
    assert (unknown.code, unknown.err.count("\n")) == (2, 1)
