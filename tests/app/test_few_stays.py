"""A handful of stays, as somebody tries Suture first: a report that withholds all, or one line before any training."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from app import card, study
from app.study import Study
from cohort import artifact
from cohort.episodes import Episodes
from policy import iql
from policy.conservative_iql import Config as ConservativeConfig
from policy.train import PASSES_OF_FEW, for_few
from tests import probes

Suture = Callable[..., Any]


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory, tiny_run: Path) -> Path:
    """Ten stays of the simulated hospital as plain CSV files, as a user would cut them from an export."""
    out = tmp_path_factory.mktemp("mine")
    stays = pd.read_parquet(tiny_run / "tables" / "icu" / "icustays.parquet").head(10)
    for file in sorted((tiny_run / "tables").rglob("*.parquet")):
        table = pd.read_parquet(file)
        if "subject_id" in table:
            table = table[table["subject_id"].isin(stays["subject_id"])]
        table.to_csv(out / f"{file.stem}.csv", index=False)
    return out


@pytest.fixture(scope="module")
def own_config(tmp_path_factory: pytest.TempPathFactory, tiny_config: Path) -> Path:
    """The tiny configuration without its hospital, and with updates that a handful of stays would pay for dearly."""
    path = tmp_path_factory.mktemp("own") / "own.yaml"
    text = re.sub(r"hospital:.*\n", "", tiny_config.read_text()).replace("folds: 2", "folds: 50")
    path.write_text(text.replace("updates: 60,", "updates: 100000,"))
    return path


@pytest.fixture(scope="module")
def few_run(tables: Path, own_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of ten stays."""
    from app import run as pipeline

    out = tmp_path_factory.mktemp("few") / "run"
    pipeline.run(pipeline.Request(pipeline.load_config(own_config), out, source=tables))
    return out


def test_ten_stays_end_in_a_report_that_withholds_every_value_with_its_reason(few_run: Path) -> None:
    document = artifact.read_json(few_run / "ope" / "evaluation.json")
    assert document["verdict"]["verdict"] == "insufficient evidence"
    assert document["verdict"]["binding"]["code"] == "too_few_patients"
    rows = [row for entry in document["policies"].values() for row in entry["estimates"]]
    assert all(row["value"] is None and row["withheld"] for row in rows)
    page = (few_run / "report" / "report.html").read_text()
    assert "at least 200 needed" in page


def test_at_the_bedside_the_policy_of_ten_stays_is_silent_everywhere(few_run: Path) -> None:
    served = artifact.read_json(few_run / "ope" / "evaluation.json")["served"]
    assert served["silent"].get("state density", 0) + served["silent"].get("data freshness", 0) == served["decisions"]
    opened = study.open_study(few_run)
    assert isinstance(opened, Study)
    stay = int(opened.stays["stay_id"].iloc[0])
    shown = card.make(opened, stay, float(study.course(opened, stay)[study.HOUR].iloc[-1])).output
    assert shown["recommendation"] is None
    density = next(gate for gate in shown["gates"] if gate["gate"] == "state density")
    assert "too few to tell a familiar state" in density["reason"]


def test_training_that_nobody_can_stop_is_cut_to_some_passes_over_its_decisions(few_run: Path) -> None:
    manifest = artifact.read_manifest(few_run / "policy" / "iql")
    assert manifest["config"]["updates"] == 100_000
    assert manifest["notes"]["ended"] == "too few patients"
    assert manifest["notes"]["updates"] == max(1, PASSES_OF_FEW * manifest["rows"]["decisions"] // 256)


def test_only_too_few_patients_shorten_training_and_the_behaviour_model_inside_goes_along() -> None:
    asked = ConservativeConfig()
    assert for_few(asked, probes.clinic(patients=20)) is asked
    few = probes.clinic(patients=19)
    cut = for_few(asked, few)
    assert cut.updates == PASSES_OF_FEW * few.n // asked.batch < asked.updates
    assert cut.behaviour.updates == PASSES_OF_FEW * few.n // asked.behaviour.batch < asked.behaviour.updates
    assert for_few(iql.Config(updates=1), few).updates == 1
    assert for_few(iql.Config(batch=65536), one_decision()).updates == 1


def one_decision() -> Episodes:
    """One episode of one decision."""
    state, zero = np.zeros((1, 2), np.float32), np.zeros(1, np.int64)
    return Episodes.from_arrays(state, zero, np.ones(1, np.float32), zero, np.ones(1, bool), n_actions=2)


def test_what_few_stays_cannot_carry_is_said_before_anything_is_trained(
    tables: Path, own_config: Path, tmp_path: Path, suture: Suture
) -> None:
    done = suture("run", own_config, "--source", tables, "--out", tmp_path / "run")
    assert done.code == 0, done.err
    said = done.err.index("patients to evaluate on, fewer than 200: every value is withheld")
    assert "fewer than 20: training is short, and no dose is recommended" in done.err
    assert said < done.err.index("behaviour  ")
    assert "verdict on iql: insufficient evidence" in done.out


def test_one_stay_is_refused_in_one_line_before_anything_is_trained(
    tables: Path, own_config: Path, tmp_path: Path, suture: Suture
) -> None:
    one = tmp_path / "one"
    one.mkdir()
    stay = pd.read_csv(tables / "icustays.csv").iloc[0]
    for file in tables.glob("*.csv"):
        table = pd.read_csv(file, dtype=str)
        if "subject_id" in table:
            table = table[table["subject_id"] == str(stay["subject_id"])]
        table.to_csv(one / file.name, index=False)
    done = suture("run", own_config, "--source", one, "--out", tmp_path / "run")
    assert done.code == 3
    assert "split" in done.err.splitlines()[-1]
    assert not (tmp_path / "run" / "behaviour").exists()
