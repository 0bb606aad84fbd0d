"""Sweep: the settings of a run's learners tried side by side: a table beside the run, and what the rule selects."""

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from app import log, tracking
from app.run import CHECKPOINT_FILE, COHORT, TRAINING_SPLIT, Request, engine
from app.run_directory import opened
from app.stage import Advance, Stage, perform
from app.summary import wide
from cohort import artifact, build
from cohort.config import Config
from cohort.episodes import Episodes
from ope import frontier
from ope.frontier import Bound
from policy import sweep
from policy.sweep import Setting
from policy.train import Session, require_device

SWEEP = tracking.SWEEP
TABLE_FILE, SELECTED_FILE = "sweep.parquet", "selected.json"
SELECT_SPLIT = "select"


def run(request: Request) -> Path:
    """Make RUN/sweep from RUN/cohort and copy it to MLflow; returns its directory.

    Raises:
        ArtifactError: it is there already (and REFUSE), or the cohort is missing or damaged.
    """
    require_device(request.device)
    out = request.out / SWEEP
    with opened(request.out) as directory:  # no stage of a run reads it: a finished run stays finished
        if perform(stage(request), directory, request.existing):
            with log.console.status("copying to MLflow"):
                tracking.record_sweep(request.out, request.config.name, _rows(out))
    return out


def stage(request: Request) -> Stage:
    """The table of every setting and the rule's choice for each learner."""
    config, learners, source = request.config.sweep, request.config.learners, request.out / COHORT
    own: dict[str, Config | Mapping[str, Any]] = {
        name: learners[name] for name in config.learners if name in learners and name != sweep.MAIN
    }
    judged = request.config.evaluation
    settings = config.model_dump(mode="json") | {
        "options": {name: learners[name].model_dump(mode="json") for name in own},
        "bound": {
            "estimator": frontier.ESTIMATOR, "gamma": judged.gamma, "level": judged.level,
            "clip": judged.comparison.clip, "gates": judged.gates.model_dump(mode="json"),
        },
    }  # fmt: skip

    def make(draft: artifact.Draft, advance: Advance) -> None:
        train, select = _episodes(source)
        session = Session(None, None if draft.work is None else draft.work / CHECKPOINT_FILE, request.device)
        bounds: dict[Setting, Bound] = {}

        def seen(row: Setting, probs: np.ndarray, usual: np.ndarray) -> None:
            bounds[row] = frontier.bound(select, probs, usual, judged)

        with engine(request.config):
            rows = sweep.run(
                train, select, config, own, session, advance, seen, request.config.source.workers,
                partial(_episodes, source),
            )  # fmt: skip
        artifact.write_parquet(_table(rows, bounds), draft.path / TABLE_FILE)
        document = _document(rows, config.min_ess)
        document["bound"] = {**settings["bound"], "clinicians": asdict(frontier.clinicians(select, judged))}
        artifact.write_json(draft.path / SELECTED_FILE, document)
        draft.rows["settings"] = len(rows)

    return Stage(SWEEP, SWEEP, settings, {COHORT: source}, request.config.seed, make)


def show(directory: Path, console: Console | None = None) -> None:
    """Print a line a setting and what was selected, or why nothing was."""
    out = console or wide(Console(highlight=False))
    table = Table(box=None, pad_edge=False)
    for column in tracking.SETTING:
        table.add_column(column.replace("_", " "))
    for column in ("held out", "KL", "actions", "ESS", "worth at least"):
        table.add_column(column, justify="right")
    table.add_column("")
    for row in _rows(directory):
        named = ["" if row[key] is None else f"{row[key]}" for key in tracking.SETTING]
        held = None if row["held_td"] is None else row["held_td"] + (row["held_expectile"] or 0.0)
        measured = (held, *(row[key] for key in ("kl_behaviour", "supported_actions", "ess", "lower_bound")))
        shown = ("–" if value is None else f"{value:.4g}" for value in measured)
        table.add_row(*named, *shown, (row["infeasible"] or "").partition(":")[0])
    out.print(table)
    for learner, found in artifact.read_json(directory / SELECTED_FILE)["selected"].items():
        chosen = ", ".join(f"{key} {value:g}" for key, value in found["options"].items()) if found["options"] else None
        out.print(f"{learner}: {chosen or found['reason']}")


def _episodes(cohort: Path) -> tuple[Episodes, Episodes]:
    return build.episodes(cohort, TRAINING_SPLIT), build.episodes(cohort, SELECT_SPLIT)


def _table(rows: list[Setting], bounds: Mapping[Setting, Bound]) -> pa.Table:
    """The sweep's own columns, and each setting's lower bound or why there is none."""
    found = [bounds.get(row, Bound(None, row.infeasible)) for row in rows]
    frame = sweep.table(rows).assign(
        lower_bound=pd.array([one.value for one in found], "Float64"),
        lower_bound_withheld=pd.array([one.withheld for one in found], "string"),
    )
    return pa.Table.from_pandas(frame, preserve_index=False)


def _document(rows: list[Setting], min_ess: float) -> dict[str, Any]:
    """The rule, and for each learner the options it selects (as a configuration takes them), or the reason."""
    selected: dict[str, dict[str, Any]] = {}
    for learner, found in sweep.selections(rows, min_ess).items():
        if isinstance(found, str):
            selected[learner] = {"options": None, "setting": None, "reason": found}
            continue
        setting = asdict(found)
        keys = ("tau", "target_kl", "temperature", "eps")
        options = {key: setting[key] for key in keys if setting[key] is not None}
        selected[learner] = {"options": options, "setting": setting, "reason": None}
    return {"rule": sweep.RULE, "min_ess": min_ess, "selected": selected}


def _rows(directory: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = artifact.read_parquet(directory / TABLE_FILE).to_pylist()
    return rows
