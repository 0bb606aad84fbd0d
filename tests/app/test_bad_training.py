"""What `suture train` and `suture sweep` refuse: one line, the right code, and every earlier policy as it was."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cohort import artifact

Suture = Callable[..., Any]
MAIN = "{hidden: [16], updates: 40, evaluate_every: 20, min_updates: 0, behaviour: *quick, TARGET}"


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    """The tiny run, to write in."""
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


def last_line(done: Any, code: int) -> str:
    assert done.code == code, done
    assert done.err.count("error: ") == 1
    return str(done.err.strip().splitlines()[-1])


def config_with(tiny_config: Path, path: Path, old: str, new: str) -> Path:
    text = tiny_config.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    return path


def test_a_divergence_that_nothing_reaches_leaves_no_policy(
    suture: Suture, tiny_config: Path, run: Path, tmp_path: Path
) -> None:
    learner = f"  iql: *quick\n  conservative_iql: {MAIN.replace('TARGET', 'target_kl: 50')}"
    config = config_with(tiny_config, tmp_path / "c.yaml", "  iql: *quick", learner)
    before = artifact.digest(run / "policy" / "iql")
    said = last_line(suture("train", config, "--out", run, "--learner", "conservative_iql"), 3)
    assert "target_kl 50 is infeasible" in said
    assert not (run / "policy" / "conservative_iql").exists()
    assert artifact.digest(run / "policy" / "iql") == before


def test_a_cohort_whose_returns_are_all_equal_trains_no_main_policy_and_no_sweep(
    suture: Suture, tiny_config: Path, run: Path, tmp_path: Path
) -> None:
    flat = config_with(
        tiny_config,
        tmp_path / "a.yaml",
        "cohort: {}",
        "cohort: {reward: {survival: 0, death: 0, cost_per_icu_hour: 0}}",
    )
    learner = f"  iql: *quick\n  conservative_iql: {MAIN.replace('TARGET', 'target_kl: 0.1')}"
    config = config_with(flat, tmp_path / "b.yaml", "  iql: *quick", learner)
    assert suture("cohort", config, "--out", run, "--overwrite").code == 0
    train = ("train", config, "--out", run, "--learner", "conservative_iql")
    for command in (train, ("sweep", config, "--out", run)):
        assert "episodes return 0; nothing in them says which dose is better" in last_line(suture(*command), 3)
    assert not (run / "sweep").exists()
