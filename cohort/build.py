"""Build: canonical shards to trajectories, in two passes: states and doses per shard, then what is fitted on train."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from cohort import (
    artifact,
    baseline,
    dictionary,
    features,
    fit,
    frames,
    pieces,
    quality,
    selection,
    split,
    tables,
    trajectories,
)
from cohort.actions import ActionConfig
from cohort.config import Config, parse
from cohort.episodes import Episodes
from cohort.errors import InputError
from cohort.features import FEATURES
from cohort.grid import GridConfig
from cohort.pieces import Pieces
from cohort.reward import RewardConfig
from cohort.selection import Flow, SelectionConfig
from cohort.split import SPLITS, SplitConfig
from cohort.tables import Counts
from cohort.workers import each

Progress = Callable[[int, int], None]
STAYS = "stays.parquet"


class CohortConfig(Config):
    """Everything that turns canonical tables into trajectories."""

    grid: GridConfig = GridConfig()
    actions: ActionConfig = ActionConfig()
    reward: RewardConfig = RewardConfig()
    selection: SelectionConfig = SelectionConfig()
    split: SplitConfig = SplitConfig()


def build(
    shards: Path,
    out: Path,
    config: CohortConfig,
    seed: int,
    workers: int = 1,
    counts: Counts | None = None,
    progress: Progress | None = None,
    work: Path | None = None,
) -> dict[str, int]:
    """Write trajectories, final_states and stays (parquet), dictionary, flow, quality and baseline (JSON).

    The number of shards, their size and the order of stays and rows in them change nothing, not a bit.

    Args:
        shards: the folder of shard-*/ directories that a source's `ingest` wrote.
        out: an existing directory (a draft's) to write in.
        config: the cohort's definition.
        seed: decides the split of patients.
        workers: processes; 1 runs in this one.
        counts: what the source dropped, changed or flagged, for the quality report.
        progress: called with (shards done, shards).
        work: where finished shards outlive this process if it is killed, and are found by the next.

    Returns:
        counts of stays, patients, decisions and deaths, and of patients per split.

    Raises:
        InputError: a shard breaks the schema, no stay is left after selection, or none of them trains.
        ArtifactError: a shard's file is missing or damaged.
    """
    stays = read_stays(shards)
    kept, flow = _select(stays, config, workers)
    if kept.empty:
        emptied = next(step["reason"] for step in flow.steps if not step["stays_kept"])
        raise InputError(f"no stay of {len(stays)} is left after selection; the last were lost to: {emptied}")
    kept = _outcomes(kept, config, seed)
    make = partial(frames.make, grid=config.grid, given=config.actions, paid=config.reward)
    with pieces.kept_in(work, out) as made:
        drafts = made.folder
        _each(partial(_frame, made, make), kept, workers, progress)
        decisions, final = frames.mapped(drafts, "decisions"), frames.mapped(drafts, "final")
        names = features.names(config.actions)
        fitted, untrained = fit.fit(decisions, kept, names, config.grid.step_hours, config.actions.bins)
        rows = trajectories.write(out / trajectories.FILE, fit.finished(decisions, kept, fitted), names)
        artifact.write_parquet(fit.final_states(final, fitted), out / trajectories.FINAL_STATES)
        records = [artifact.read_json(path) for path in sorted(drafts.rglob("*.record.json"))]
        artifact.write_json(
            out / "quality.json", quality.report(decisions, kept, records, counts or Counts(), untrained)
        )
        artifact.write_json(out / "baseline.json", baseline.table(decisions, kept))
    artifact.write_json(out / "dictionary.json", fitted.to_dict())
    artifact.write_json(out / "flow.json", _flow_document(flow, kept, config))
    artifact.write_parquet(_stay_table(kept), out / STAYS)
    return {"stays": len(kept), "patients": int(kept["subject_id"].nunique()), "decisions": rows}


def episodes(cohort: Path, split: str) -> Episodes:
    """The trajectories of one split of a finished cohort directory, hashes verified, with their fitted scaler.

    Raises:
        ArtifactError: a file is missing, damaged or changed.
        InputError: the split is unknown, or no patient is in it.
    """
    fitted = dictionary.load(artifact.verified(cohort, "dictionary.json"))
    columns = ["stay_id", "subject_id", *fitted.features, "action", "reward", "terminated"]
    table = trajectories.read(cohort, columns, split)
    if not table.num_rows:
        raise InputError(f"{cohort}: no patient is in the split {split!r}")
    stay = table["stay_id"].to_numpy()
    first = np.flatnonzero(np.r_[True, stay[1:] != stay[:-1]])
    last = np.r_[first[1:], len(stay)] - 1
    terminated = table["terminated"].to_numpy()[last]
    return Episodes.from_arrays(
        frames.matrix(table, fitted.features),
        table["action"].to_numpy(),
        table["reward"].to_numpy(),
        stay,
        terminated,
        _read_final_states(cohort, fitted.features, stay[first], terminated),
        fitted.n_actions,
        patient=table["subject_id"].to_numpy()[first],
        features=fitted.features,
        scaler=fitted.scaler,
    )


def config_of(cohort: Path) -> CohortConfig:
    """What a finished cohort directory was built with.

    Raises:
        ArtifactError: it has no manifest.
        ConfigError: the manifest is of a version of Suture with other keys.
    """
    return parse(artifact.read_manifest(cohort)["config"]["cohort"], CohortConfig, name=f"{cohort}: config.cohort")


def stays_of(cohort: Path, split: str) -> pd.DataFrame:
    """The stays of one split of a finished cohort directory, in the order of their ids, its hash verified.

    Raises:
        ArtifactError: the file is missing, damaged or changed.
    """
    table = artifact.read_parquet(artifact.verified(cohort, STAYS)).to_pandas()
    mine: pd.DataFrame = table[table["split"] == split].sort_values("stay_id", ignore_index=True)
    return mine


def read_stays(shards: Path) -> pd.DataFrame:
    """The stays of every shard, with the `shard` each is in."""
    folders = sorted(shards.glob("shard-*"))
    if not folders:
        raise InputError(f"{shards}: holds no shard-* folder")
    names = tables.SCHEMAS["stays"].names
    parts = [artifact.read_parquet(folder / "stays.parquet", names).to_pandas() for folder in folders]
    stays = pd.concat([part.assign(shard=str(folder)) for part, folder in zip(parts, folders, strict=True)])
    twice = int(stays["stay_id"].duplicated().sum())
    if twice:
        raise InputError(f"stays: stay_id: given twice ({twice} of {len(stays)} rows)")
    numbered: pd.DataFrame = stays.reset_index(drop=True)
    return numbered


def _select(stays: pd.DataFrame, config: CohortConfig, workers: int) -> tuple[pd.DataFrame, Flow]:
    selection.require_known(stays, config.selection.exclusions)
    kept, flow = selection.candidates(stays, config.selection, config.grid)
    if config.selection.sepsis3:
        around = _each(partial(_sofa_around_suspicion, config=config), kept, workers, None)
        sofa = pd.concat(around) if around else pd.Series(dtype=np.int64)
        kept, flow = selection.septic(kept, sofa, flow)
    return selection.windows(kept, config.grid, flow)


def _sofa_around_suspicion(folder: Path, mine: pd.DataFrame, config: CohortConfig) -> "pd.Series[int]":
    shard = frames.only(tables.read(folder), mine)
    anchor = mine["suspicion_time"].to_numpy()
    hours = np.array(selection.SOFA_HOURS)
    sofa = features.states(shard, anchor, hours, config.grid).value[..., FEATURES.index("sofa")]
    return pd.Series(sofa.max(axis=1).astype(np.int64), index=mine["stay_id"].to_numpy())


def _outcomes(stays: pd.DataFrame, config: CohortConfig, seed: int) -> pd.DataFrame:
    """Add `split`, `died` (by the configured outcome) and `hours_after` (ICU hours past the episode's end)."""
    died = stays["died_in_hospital"]
    if config.reward.outcome == "90_days":
        last_day = stays["anchor"] + pd.Timedelta(days=90)
        death = stays["deathtime"].fillna(stays["dod"])
        died = (death <= last_day) | (died & death.isna())
    after = (stays["outtime"] - stays["end"]).dt.total_seconds() / 3600
    return stays.assign(
        split=split.assign(stays["subject_id"].to_numpy(), seed, config.split),
        died=died.astype(bool),
        hours_after=after.where(stays["end_reason"] == "horizon", 0.0),
    )


def _each(
    work: Callable[[Path, pd.DataFrame], Any], stays: pd.DataFrame, workers: int, progress: Progress | None
) -> list[Any]:
    """Run `work(shard, its stays)` over shards, in spawned processes where there is more than one of both."""
    tasks = [(Path(str(shard)), mine.reset_index(drop=True)) for shard, mine in stays.groupby("shard", sort=True)]
    results = []
    for result in each(partial(_apply, work), tasks, workers):
        results.append(result)
        if progress is not None:
            progress(len(results), len(tasks))
    return results


def _frame(made: Pieces, make: Callable[..., None], folder: Path, mine: pd.DataFrame) -> None:
    """Make a shard's frames, a piece, where an earlier attempt has not."""
    name = f"frames-{folder.name}"
    if not made.has(name):
        with made.making(name) as piece:
            make(folder, mine, frames=piece.path)


def _apply(work: Callable[[Path, pd.DataFrame], Any], task: tuple[Path, pd.DataFrame]) -> Any:
    return work(*task)


def _read_final_states(cohort: Path, names: tuple[str, ...], stay_id: np.ndarray, terminated: np.ndarray) -> np.ndarray:
    """The final state of each of the given stays, zeros where it terminated."""
    table = artifact.read_parquet(artifact.verified(cohort, trajectories.FINAL_STATES))
    value, known = frames.matrix(table, names), table["stay_id"].to_numpy()
    final = np.zeros((len(stay_id), len(names)), np.float32)
    absent = int((~np.isin(stay_id[~terminated], known)).sum())
    if absent:
        raise InputError(f"{cohort / trajectories.FINAL_STATES}: lacks {absent} stays that are cut off")
    final[~terminated] = value[np.searchsorted(known, stay_id[~terminated])]
    return final


def _stay_table(stays: pd.DataFrame) -> pa.Table:
    time, text = pa.timestamp("us"), pa.string()
    added = {
        "anchor": time,
        "end": time,
        "end_reason": text,
        "hours_after": pa.float64(),
        "died": pa.bool_(),
        "split": text,
    }
    schema = pa.schema([*tables.SCHEMAS["stays"], *(pa.field(name, kind) for name, kind in added.items())])
    return pa.Table.from_pandas(stays[schema.names], schema, preserve_index=False)


def _flow_document(flow: Flow, stays: pd.DataFrame, config: CohortConfig) -> dict[str, Any]:
    """The flow, how episodes end, the splits, and every definition in use that knows the future."""
    ends = stays["end_reason"].value_counts()
    notes = []
    if config.selection.sepsis3 and config.grid.anchor == "admission":
        notes.append(
            "Stays are chosen by sepsis up to 24 h after suspected infection: at admission that is the future."
        )
    if config.grid.comorbidity == "current":
        notes.append("Comorbidity is read from codes assigned at discharge: every state knows the future.")
    return {
        "steps": list(flow.steps),
        "ends": {reason: int(ends.get(reason, 0)) for reason in trajectories.END_REASONS},
        "splits": _splits(stays),
        "notes": notes,
    }


def _splits(stays: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Patients, stays and deaths of each split."""
    parts = {name: stays[stays["split"] == name] for name in SPLITS}
    return {
        name: {"patients": int(part["subject_id"].nunique()), "stays": len(part), "died": int(part["died"].sum())}
        for name, part in parts.items()
    }
