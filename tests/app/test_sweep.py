"""`suture sweep`, `suture train` and `suture export-onnx`: what they write, what MLflow gets, and what they refuse."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import pytest

import policy.store
from app import tracking, view_training
from app.study import Problem
from cohort import artifact
from tests import small_run

Suture = Callable[..., Any]
SCRIPT = Path(sys.executable).with_name("suture")
SWEEP = """
sweep:
  learners: [conservative_iql, iql]
  taus: [0.6, 0.8]
  target_kls: [0.01]
  temperatures: [5.0]
  min_ess: 1
  critic: {hidden: [16], updates: 60, evaluate_every: 20, min_updates: 20}
  behaviour: {hidden: [16], updates: 60, evaluate_every: 20, min_updates: 20}
"""


@pytest.fixture(scope="module")
def swept_config(tiny_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sweep") / "config.yaml"
    gates = small_run.LENIENT.model_copy(update={"max_mean_weight": 1e12})
    lenient = f"primary: wis\n  gates: {gates.model_dump_json()}"
    path.write_text(tiny_config.read_text().replace("primary: wis", lenient) + SWEEP)
    return path


@pytest.fixture(scope="module")
def swept(swept_config: Path, tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the tiny run's tables and cohort, and a sweep on it."""
    run = tmp_path_factory.mktemp("swept") / "run"
    shutil.copytree(tiny_run, run)
    subprocess.run([SCRIPT, "sweep", swept_config, "--out", run], check=True)
    return run


def runs(run: Path) -> list[Any]:
    with warnings.catch_warnings(action="ignore"):  # MLflow's libraries deprecate each other
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=f"sqlite:///{run / tracking.STORE}")
        return list(client.search_runs([client.get_experiment_by_name("suture").experiment_id]))


def test_a_sweep_writes_a_row_for_each_setting_and_what_the_rule_selects(swept: Path) -> None:
    table = pd.read_parquet(swept / "sweep" / "sweep.parquet")
    assert len(table) == 2 * 2 + 2
    assert {"held_td", "held_expectile", "kl_behaviour", "supported_actions", "ess"} <= set(table.columns)
    selected = artifact.read_json(swept / "sweep" / "selected.json")
    assert set(selected["selected"]) == {"conservative_iql", "iql"}
    assert "No value estimate enters" in selected["rule"]
    manifest = artifact.verify(swept / "sweep")
    assert manifest["rows"] == {"settings": 6}
    assert manifest["config"]["options"]["iql"]["updates"] == 60
    assert json.loads((swept / "run.json").read_text())["finished"] is True


def test_mlflow_holds_the_sweep_as_one_run_with_a_run_for_each_setting_below(swept: Path) -> None:
    found = runs(swept)
    (parent,) = (one for one in found if one.info.run_name == "tiny sweep")
    children = [one for one in found if one.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    table = pd.read_parquet(swept / "sweep" / "sweep.parquet")
    assert sorted(one.data.metrics["ess"] for one in children) == sorted(table.ess.dropna())
    assert {one.data.params["learner"] for one in children} == {"conservative_iql", "iql"}


def test_each_setting_has_a_lower_bound_or_the_reason_and_the_frontier_shows_both(swept: Path) -> None:
    table = pd.read_parquet(swept / "sweep" / "sweep.parquet")
    assert (table["lower_bound"].notna() ^ table["lower_bound_withheld"].notna()).all()
    assert table["lower_bound"].notna().any()
    assert (
        max(table["lower_bound"].dropna())
        < artifact.read_json(swept / "sweep" / "selected.json")["bound"]["clinicians"]["value"]
    )
    metrics = [one.data.metrics for one in runs(swept)]
    assert sum("lower_bound" in one for one in metrics) == table["lower_bound"].notna().sum()
    found = view_training.frontier(swept)
    assert not isinstance(found, Problem)
    pictures, settings, told = found
    assert len(pictures) == 3
    assert "worth at least against KL to the clinicians" in pictures[0]
    assert "the clinicians&#39; mean" in pictures[0]
    column = settings.head.index("Worth at least")
    shown = {row[column] for row in settings.rows}
    assert {f"{value:+.3f}" for value in table["lower_bound"].dropna()} <= shown
    assert "selected" in "".join(row[-1] for row in settings.rows)
    assert "The rule does not read it" in told


def test_gates_withhold_every_bound_and_the_frontier_says_why(
    suture: Suture, swept: Path, swept_config: Path, tmp_path: Path
) -> None:
    run, strict = Path(shutil.copytree(swept, tmp_path / "run")), tmp_path / "strict.yaml"
    strict.write_text(swept_config.read_text().replace('"min_patients":2', '"min_patients":200'))
    assert suture("sweep", strict, "--out", run, "--resume").code == 0
    found = view_training.frontier(run)
    assert not isinstance(found, Problem)
    pictures, settings, told = found
    assert len(pictures) == 2
    assert "patients, at least 200 needed" in told
    assert {"withheld"} == {row[settings.head.index("Worth at least")] for row in settings.rows} - {"–"}
    before, after = (artifact.read_json(one / "sweep" / "selected.json")["selected"] for one in (swept, run))
    assert before == after


def test_a_sweep_of_an_older_version_says_how_to_make_it_again(swept: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    table, chosen = (swept / "sweep" / "sweep.parquet", artifact.read_json(swept / "sweep" / "selected.json"))
    with artifact.writing(run / "sweep", "sweep", {}, seed=0) as draft:
        shutil.copy(table, draft.path)
        artifact.write_json(draft.path / "selected.json", {key: chosen[key] for key in chosen if key != "bound"})
    found = view_training.frontier(run)
    assert isinstance(found, Problem)
    assert (found.title, found.remedy) == (
        "The sweep is of an older version", f"suture sweep CONFIG --out {run} --overwrite",
    )  # fmt: skip


def test_a_second_sweep_is_refused_kept_or_made_again(suture: Suture, swept: Path, swept_config: Path) -> None:
    before = artifact.digest(swept / "sweep")
    assert suture("sweep", swept_config, "--out", swept).code == 4
    assert suture("sweep", swept_config, "--out", swept, "--resume").code == 0
    assert artifact.digest(swept / "sweep") == before


@pytest.mark.parametrize(("line", "named"), [("taus: [1.0]", "sweep.taus"), ("learners: [bc]", "sweep.learners")])
def test_a_wrong_grid_names_its_key(suture: Suture, tiny_config: Path, tmp_path: Path, line: str, named: str) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(tiny_config.read_text() + f"sweep: {{{line}}}\n")
    done = suture("sweep", path, "--out", tmp_path / "run")
    assert (done.code, len(done.err.splitlines())) == (2, 1)
    assert named in done.err


def test_training_alone_is_copied_to_mlflow_with_its_models(
    suture: Suture, tiny_config: Path, tiny_run: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    assert suture("train", tiny_config, "--out", run, "--learner", "iql", "--overwrite").code == 0
    newest = max(runs(run), key=lambda one: one.info.start_time)
    assert "policy/iql/held_td" in newest.data.metrics
    assert newest.data.params["policy/iql.updates"] == "60"
    assert not [name for name in newest.data.params if name.startswith("policy/bc")]


@pytest.mark.parametrize(("name", "why"), [("cuda", "there is none here"), ("tpu", "unknown; known: cpu, cuda")])
def test_a_device_that_is_not_there_is_refused_before_anything_is_written(
    suture: Suture, tiny_config: Path, tmp_path: Path, name: str, why: str
) -> None:
    if name == "cuda":
        import torch

        if torch.cuda.is_available():
            pytest.skip("there is one here")
    done = suture("train", tiny_config, "--out", tmp_path / "run", "--device", name)
    assert done.code == 2
    assert why in done.err
    assert not (tmp_path / "run").exists()


def test_the_exported_graph_answers_as_the_runs_policy(suture: Suture, tiny_run: Path, tmp_path: Path) -> None:
    file = tmp_path / "iql.onnx"
    done = suture("export-onnx", tiny_run, "--policy", "iql", "--out", file)
    assert (done.code, "not for clinical use" in done.out) == (0, True)
    fitted = policy.store.load(tiny_run / "policy" / "iql")
    state = np.tile(np.asarray(fitted.dictionary.imputation, np.float32), (3, 1))  # type: ignore[union-attr]
    probs, q = onnxruntime.InferenceSession(file).run(None, {"state": state})
    assert np.abs(probs - fitted.probs(state)).max() < 1e-5
    assert np.abs(q - fitted.q(state)).max() < 1e-5
    assert suture("export-onnx", tiny_run, "--policy", "iql", "--out", file).code == 4


@pytest.mark.slow
def test_training_killed_in_the_middle_goes_on_to_the_very_weights_of_an_uninterrupted_one(
    tiny_config: Path, tiny_run: Path, tmp_path: Path
) -> None:
    config = tmp_path / "long.yaml"
    config.write_text(
        tiny_config.read_text().replace("iql: *quick", "iql: {hidden: [64], updates: 3000, evaluate_every: 20}")
    )
    for name in ("whole", "killed"):
        shutil.copytree(tiny_run, tmp_path / name)
        shutil.rmtree(tmp_path / name / "policy" / "iql")
    options = ["--learner", "iql", "--resume"]
    subprocess.run([SCRIPT, "train", config, "--out", tmp_path / "whole", *options], check=True)
    child = subprocess.Popen([SCRIPT, "train", config, "--out", tmp_path / "killed", *options], start_new_session=True)
    checkpoint = tmp_path / "killed" / "policy" / ".iql.work" / "checkpoint.safetensors"
    for _ in range(600):
        if checkpoint.exists():
            break
        time.sleep(0.1)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    assert checkpoint.exists()
    assert not (tmp_path / "killed" / "policy" / "iql").exists()
    done = subprocess.run(
        [SCRIPT, "train", config, "--out", tmp_path / "killed", *options], check=True, capture_output=True, text=True
    )
    assert "goes on" in done.stderr
    for file in ("weights.safetensors", "policy.json", "curves.json"):
        assert (tmp_path / "killed/policy/iql" / file).read_bytes() == (
            tmp_path / "whole/policy/iql" / file
        ).read_bytes()
    assert not checkpoint.exists()
