"""A tiny finished run, made once through the command line, and the command line as a function."""

import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from app import cli

SCRIPT = Path(sys.executable).with_name("suture")
TINY = """
name: tiny
seed: 3
hospital: {n_stays: 60, shard_stays: 60, charting: {other_rows: false}}
source: {kind: mimic_iv, shard_stays: 40}
cohort: {}
learners:
  bc: &quick {hidden: [16], updates: 60, evaluate_every: 20, min_updates: 20}
  iql: *quick
behaviour: &fast {hidden: [16], updates: 60, evaluate_every: 20, min_updates: 20, folds: 2}
evaluation:
  n_bootstrap: 100
  estimators: [wis, cwpdis]
  primary: wis
  behaviour: *fast
  fqe: {hidden: [8], updates: 20, members: 2}
  twin: {groups: 4, repeats: 2, n_bootstrap: 20}
"""


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


Suture = Callable[..., Done]


@pytest.fixture
def suture(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Suture]:
    """`suture("run", config, "--out", out)` in this process, as the console script runs it."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)

    def call(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["suture", *(str(argument) for argument in arguments)])
        capfd.readouterr()
        with warnings.catch_warnings():
            try:
                cli.main()
                code = 0
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else int(end.code is not None)
        captured = capfd.readouterr()
        return Done(code, captured.out, captured.err)

    yield call
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def tiny_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The configuration of the tiny run."""
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory, tiny_config: Path) -> Path:
    """A finished run of 60 simulated stays, made by the installed script. Tests that change it copy it first."""
    out = tmp_path_factory.mktemp("tiny") / "run"
    subprocess.run([SCRIPT, "run", tiny_config, "--out", out], check=True)
    return out
