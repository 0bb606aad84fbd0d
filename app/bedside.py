"""Bedside: a hospital's tables to the states of its patients, with what the run that serves them was built with."""

import tempfile
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float32, Float64

from app.run import COHORT, DICTIONARY_FILE
from cohort import artifact, bedside, build, dictionary, selection, sources
from cohort.build import CohortConfig
from cohort.config import parse
from cohort.dictionary import Dictionary
from cohort.errors import InputError
from cohort.sources import SOURCES, SourceConfig, files, review
from cohort.tables import Counts
from policy import recommend

SHARDS = "shard-*"
"""What canonical tables that lie there already are told by."""


@dataclass(frozen=True)
class Asked:
    """States at a hospital's bedsides, in order of stay and time."""

    features: tuple[str, ...]
    rows: pd.DataFrame
    """stay_id, time, hours_since_start."""
    state: Float32[np.ndarray, "m d"]
    """The columns of `features`, complete."""
    age_h: Float64[np.ndarray, "m d"]
    """Hours since each was measured; NaN where it is imputed, 0 for what is derived or never ages."""
    beside: recommend.Bedside
    """What the hazard rules need beside the state."""
    left_out: dict[str, int]
    """Why stays have no state -> how many."""
    unknown_units: int
    """Rows of the tables that were not used for their unit."""


def ask(run: Path, source: Path, scratch: Path, at: datetime | None = None, stay: int | None = None) -> Asked:
    """The states of the patients in a hospital's tables, by the function that made the run's own.

    Args:
        run: the run whose cohort says how tables are read and states made.
        source: raw tables in the layout that the run read, or canonical ones (shard-*/).
        scratch: a folder to keep canonical tables in meanwhile: they are about patients, so not the system's.
        at: the whole hour of each stay before this time; what is later in the tables is not used, and a stay or an
            infusion without an end still runs. None: every decision time of the tables.
        stay: only this one.

    Raises:
        InputError: the tables are wrong, the stay is not in them, or nobody has a decision time.
        ArtifactError: the run has no finished cohort.
    """
    config = build.config_of(run / COHORT)
    with tempfile.TemporaryDirectory(dir=scratch, prefix=".bedside-") as folder:
        shards, counts = _canonical(run, source, Path(folder), at)
        stays = build.read_stays(shards)
        if stay is not None:
            stays = stays[stays["stay_id"] == stay]
            if stays.empty:
                raise InputError(f"{source}: the stay that --stay names is not among its stays")
        wanted, left_out = _decision_times(stays, config, at)
        if wanted.empty:
            reasons = "; ".join(f"{reason}: {n}" for reason, n in left_out.items())
            raise InputError(f"{source}: none of {len(stays)} stays has a decision time ({reasons})")
        fitted = dictionary.load(artifact.verified(run / COHORT, DICTIONARY_FILE))
        state, age, beside = _states(shards, wanted, config, fitted)
    unknown = sum(n for (_, reason), n in counts.items() if reason.endswith("unit not known"))
    rows = wanted[["stay_id", "time", "hours_since_start"]].reset_index(drop=True)
    return Asked(fitted.features, rows, state, age, beside, left_out, unknown)


def _canonical(run: Path, source: Path, folder: Path, at: datetime | None) -> tuple[Path, Counts]:
    """Where the canonical tables lie, and what was lost on the way to them."""
    if not source.is_dir():
        raise InputError(f"{source}: not a directory; --source names the folder with the hospital's tables")
    if any(source.glob(SHARDS)):
        return source, Counter()
    settings = artifact.read_manifest(run / COHORT)["config"]["source"]
    config = parse(settings, SourceConfig, name=f"{run / COHORT}: config.source")
    if config.review is not None:  # what was accepted when the run's tables were read holds at the bedside too
        found = files.read(source, import_module(SOURCES[config.kind]).TABLES)
        renamed = config.review.model_copy(update={"dataset": review.fingerprint(found)})
        config = config.model_copy(update={"review": renamed})
    until = None if at is None else np.datetime64(at + timedelta(hours=1), "us")  # what has no end yet outlasts `at`
    return folder, sources.ingest(source, folder, config, until=until)


def _decision_times(
    stays: pd.DataFrame, config: CohortConfig, at: datetime | None
) -> tuple[pd.DataFrame, dict[str, int]]:
    """A row a stay and decision time, with the stay's anchor; and why stays have none."""
    kept, flow = selection.candidates(stays, config.selection, config.grid)
    left_out = {step["reason"]: step["stays_lost"] for step in flow.steps if step["stays_lost"]}
    timed = selection.timed_stays(kept, config.grid)
    hour = pd.Timedelta(hours=1)
    if at is None:
        grid = pd.DataFrame({"hours_since_start": config.grid.hours})
        times = timed.merge(grid, how="cross")
        times = times[times["anchor"] + times["hours_since_start"] * hour < times["end"]]
        reason = "ended before the first decision"
    else:
        times = timed[(timed["anchor"] <= at) & (timed["end"] > at)]
        times = times.assign(hours_since_start=(pd.Timestamp(at) - times["anchor"]).dt.floor("h") / hour)
        reason = f"not in intensive care then, or past the horizon of {config.grid.horizon_hours} h"
    without = len(timed) - times["stay_id"].nunique()
    if without:
        left_out[reason] = without
    whole = times["hours_since_start"].astype(np.int64)
    return times.assign(hours_since_start=whole, time=times["anchor"] + whole * hour), left_out


def _states(
    shards: Path, wanted: pd.DataFrame, config: CohortConfig, fitted: Dictionary
) -> tuple[Float32[np.ndarray, "m d"], Float64[np.ndarray, "m d"], recommend.Bedside]:
    """The state, the ages and what is beside them of each row of `wanted`, whose rows are in order of stay."""
    state = np.empty((len(wanted), len(fitted.features)), np.float32)
    age = np.empty(state.shape)
    cvp, balance, before = np.empty(len(wanted)), np.empty(len(wanted)), np.empty(len(wanted), np.int64)
    for shard, stays in bedside.shards(shards, wanted.drop_duplicates("stay_id")):
        rows = np.flatnonzero(wanted["stay_id"].isin(stays["stay_id"]))
        hours, column = np.unique(wanted["hours_since_start"].to_numpy()[rows], return_inverse=True)
        row = np.searchsorted(stays["stay_id"].to_numpy(), wanted["stay_id"].to_numpy()[rows])
        made = bedside.states(shard, stays["anchor"].to_numpy(), hours, config.grid, fitted, config.actions)[
            row, column
        ]
        state[rows], age[rows] = made.value, made.freshness_h
        cvp[rows], balance[rows], before[rows] = made.cvp, made.fluid_balance_total, made.previous_action
    return state, age, recommend.Bedside(cvp, balance, before)
