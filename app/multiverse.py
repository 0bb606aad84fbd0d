"""Multiverse: the variants of a run's cohort under other definitions, beside it in the run, and their short table."""

from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from app import run as pipeline
from app.run import COHORT, Request
from app.run_directory import opened
from app.stage import Advance, Existing, Stage, perform
from app.summary import wide
from cohort import artifact, multiverse
from cohort.config import load
from cohort.multiverse import MultiverseConfig

MULTIVERSE = "multiverse"
TABLE_FILE = "multiverse.csv"


def build(request: Request, definitions: Path) -> list[dict[str, Any]]:
    """Make RUN/multiverse from the run's canonical shards and return its rows, one a variant.

    A cohort that is there is used as it is, as by `suture train`, unless a source, resuming or replacing asks for more;
    one that is missing is made first.

    Raises:
        ConfigError: the file of definitions is none.
        InputError: a variant leaves no stay.
        ArtifactError: the multiverse is there already (and REFUSE), or the cohort is damaged.
    """
    planned = stage(request, load(definitions, MultiverseConfig))
    artifact.refuse_existing(request.out / MULTIVERSE, request.existing is not Existing.REFUSE)
    there = (request.out / COHORT).exists()
    if request.source or request.existing is not Existing.REFUSE or not there:
        pipeline.alone(request, [pipeline.cohort_stage(request)])
    with opened(request.out) as directory:  # no stage of a run reads it: a finished run stays finished
        perform(planned, directory, request.existing)
    rows: list[dict[str, Any]] = artifact.read_json(request.out / MULTIVERSE / multiverse.FILE)
    return rows


def stage(request: Request, config: MultiverseConfig) -> Stage:
    """The base and every variant in a directory each, and the table of both as JSON and CSV."""
    source, seed, workers = request.out / COHORT, request.config.seed, request.config.source.workers

    def make(draft: artifact.Draft, advance: Advance) -> None:
        rows = multiverse.run(source / "canonical", draft.path, config, seed, workers, advance)
        flat = [{**row, "most_moved": _most_moved(row, len(row["most_moved"]))} for row in rows]
        pd.DataFrame(flat).to_csv(draft.path / TABLE_FILE, index=False)
        draft.rows["variants"] = len(config.variants)

    return Stage(MULTIVERSE, MULTIVERSE, config.model_dump(mode="json"), {COHORT: source}, seed, make)


def show(rows: list[dict[str, Any]], console: Console | None = None) -> None:
    """Print a line a variant: its size, and how far it moves states, SOFA, actions and returns from the base."""
    out = console or wide(Console(highlight=False))
    table = Table(box=None, pad_edge=False)
    table.add_column("definition")
    for heading in ("stays", "decisions", "states moved", "SOFA moved", "actions moved", "return"):
        table.add_column(heading, justify="right")
    table.add_column("most moved")
    for row in rows:
        shares = [_share(row[key]) for key in ("state_moved", "sofa_moved", "action_moved")]
        change = "" if row["return_change"] is None else f"{row['return_change']:+.3f}"
        table.add_row(row["name"], f"{row['stays']:,}", f"{row['decisions']:,}", *shares, change, _most_moved(row, 1))
    out.print(table)


def _share(value: float | None) -> str:
    return "not comparable" if value is None else f"{value:.1%}"


def _most_moved(row: dict[str, Any], count: int) -> str:
    largest = sorted(row["most_moved"].items(), key=lambda item: -item[1])[:count]
    return "; ".join(f"{name} {change:g}" for name, change in largest)
