"""Build: canonical shards to trajectories, in two passes: states and doses per shard, then what is fitted on train."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Bool, Float64, Int

from cohort import (
    actions,
    artifact,
    concepts,
    dictionary,
    features,
    quality,
    reward,
    scaler,
    selection,
    split,
    tables,
    trajectories,
)
from cohort.actions import ActionConfig, Doses
from cohort.config import Config
from cohort.dictionary import Dictionary
from cohort.episodes import Episodes
from cohort.errors import InputError, SutureError
from cohort.features import FEATURES, MEASURED, States
from cohort.grid import GridConfig
from cohort.reward import RewardConfig
from cohort.selection import Flow, SelectionConfig
from cohort.split import SPLITS, SplitConfig
from cohort.tables import Counts, Tables

NO_EVIDENCE_IS_NO = ("mechanical_ventilation",)
"""Charted mostly where it is true, so that a median of what was charted would say true of everybody: imputed as 0."""
EXTREME_URINE_ML = 12_000
EXTREME_INTAKE_ML = 10_000
Progress = Callable[[int, int], None]


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
) -> dict[str, int]:
    """Write trajectories.parquet, final_states.parquet, stays.parquet, dictionary.json, flow.json and quality.json.

    The number of shards, their size and the order of stays and rows in them change nothing, not a bit.

    Args:
        shards: the folder of shard-*/ directories that a source's `ingest` wrote.
        out: an existing directory (a draft's) to write in.
        config: the cohort's definition.
        seed: decides the split of patients.
        workers: processes; 1 runs in this one.
        counts: what the source dropped, changed or flagged, for the quality report.
        progress: called with (shards done, shards).

    Returns:
        counts of stays, patients, decisions and deaths, and of patients per split.

    Raises:
        InputError: a shard breaks the schema, no stay is left after selection, or none of them trains.
        ArtifactError: a shard's file is missing or damaged.
    """
    stays = _read_stays(shards)
    kept, flow = _select(stays, config, workers)
    if kept.empty:
        emptied = next(step["reason"] for step in flow.steps if not step["stays_kept"])
        raise InputError(f"{shards}: no stay of {len(stays)} is left after selection; the last were lost to: {emptied}")
    kept = _outcomes(kept, config, seed)
    frames = out / ".frames"
    frames.mkdir()
    try:
        _each(partial(_shard, config=config, frames=frames), kept, workers, progress)
        decisions, final = _mapped(frames, "decisions"), _mapped(frames, "final")
        fitted, untrained = _fit(decisions, kept, config)
        rows = trajectories.write(out / trajectories.FILE, _blocks(decisions, kept, fitted))
        artifact.write_parquet(_final_states(final, fitted), out / trajectories.FINAL_STATES)
        artifact.write_json(out / "quality.json", quality.report(decisions, counts or Counts(), untrained))
    finally:
        shutil.rmtree(frames, ignore_errors=True)
    artifact.write_json(out / "dictionary.json", fitted.to_dict())
    artifact.write_json(out / "flow.json", {"steps": list(flow.steps), "splits": _splits(kept)})
    artifact.write_parquet(_stay_table(kept), out / "stays.parquet")
    return {"stays": len(kept), "patients": int(kept["subject_id"].nunique()), "decisions": rows}


def episodes(cohort: Path, split: str) -> Episodes:
    """The trajectories of one split of a finished cohort directory, hashes verified, with their fitted scaler.

    Raises:
        ArtifactError: a file is missing, damaged or changed.
        InputError: the split is unknown, or no patient is in it.
    """
    columns = ["stay_id", "subject_id", *FEATURES, "action", "reward", "terminated"]
    table = trajectories.read(cohort, columns, split)
    if not table.num_rows:
        raise InputError(f"{cohort}: no patient is in the split {split!r}")
    stay = table["stay_id"].to_numpy()
    first = np.flatnonzero(np.r_[True, stay[1:] != stay[:-1]])
    last = np.r_[first[1:], len(stay)] - 1
    terminated = table["terminated"].to_numpy()[last]
    fitted = dictionary.load(artifact.verified(cohort, "dictionary.json"))
    return Episodes.from_arrays(
        _matrix(table, FEATURES),
        table["action"].to_numpy(),
        table["reward"].to_numpy(),
        stay,
        terminated,
        _read_final_states(cohort, stay[first], terminated),
        fitted.n_actions,
        patient=table["subject_id"].to_numpy()[first],
        features=FEATURES,
        scaler=fitted.scaler,
    )


def _read_stays(shards: Path) -> pd.DataFrame:
    """The stays of every shard, with the `shard` each is in."""
    folders = sorted(shards.glob("shard-*"))
    if not folders:
        raise InputError(f"{shards}: holds no shard-* folder")
    names = tables.SCHEMAS["stays"].names
    parts = [artifact.read_parquet(folder / "stays.parquet", names).to_pandas() for folder in folders]
    stays = pd.concat([part.assign(shard=str(folder)) for part, folder in zip(parts, folders, strict=True)])
    twice = int(stays["stay_id"].duplicated().sum())
    if twice:
        raise InputError(f"{shards}: stays: stay_id: given twice ({twice} of {len(stays)} rows)")
    numbered: pd.DataFrame = stays.reset_index(drop=True)
    return numbered


def _select(stays: pd.DataFrame, config: CohortConfig, workers: int) -> tuple[pd.DataFrame, Flow]:
    kept, flow = selection.candidates(stays, config.selection, config.grid)
    if config.selection.sepsis3:
        around = _each(partial(_sofa_around_suspicion, config=config), kept, workers, None)
        sofa = pd.concat(around) if around else pd.Series(dtype=np.int64)
        kept, flow = selection.septic(kept, sofa, flow)
    return selection.windows(kept, config.grid, flow)


def _sofa_around_suspicion(folder: Path, mine: pd.DataFrame, config: CohortConfig) -> "pd.Series[int]":
    shard = _only(tables.read(folder), mine)
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
    report = progress or (lambda _done, _of: None)
    if min(workers, len(tasks)) <= 1:
        results = []
        for folder, mine in tasks:
            results.append(work(folder, mine))
            report(len(results), len(tasks))
        return results
    try:
        with ProcessPoolExecutor(workers, get_context("spawn"), initializer=_one_thread) as pool:
            futures = [pool.submit(work, folder, mine) for folder, mine in tasks]
            results = []
            for future in futures:
                results.append(future.result())
                report(len(results), len(tasks))
            return results
    except BrokenProcessPool:
        raise SutureError(
            "a worker process was killed (too little memory?); try fewer workers or smaller shards"
        ) from None


def _one_thread() -> None:
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)


def _only(shard: Tables, mine: pd.DataFrame) -> Tables:
    """The shard's rows of the stays in `mine`, its stays in their order."""
    stays = shard.stays.set_index("stay_id").loc[mine["stay_id"]].reset_index()
    if len(stays) == len(shard.stays):
        return Tables(stays, shard.observations, shard.infusions, shard.outputs)
    events = (shard.observations, shard.infusions, shard.outputs)
    return Tables(stays, *(table[table["stay_id"].isin(mine["stay_id"])] for table in events))


def _shard(folder: Path, mine: pd.DataFrame, config: CohortConfig, frames: Path) -> None:
    """States, doses and rewards of one shard's stays, not yet imputed, to two files in `frames`."""
    shard = _only(tables.read(folder), mine)
    anchor, end = mine["anchor"].to_numpy(), mine["end"].to_numpy()
    hours = np.append(config.grid.hours, config.grid.horizon_hours)
    state = features.states(shard, anchor, hours, config.grid)
    dose = actions.doses(shard, anchor, hours[:-1], config.grid.step_hours, end, config.actions)
    inside = dose.duration_h > 0
    steps = inside.sum(axis=1)
    cut_off = (mine["end_reason"] == "horizon").to_numpy() & (config.reward.horizon_end == "truncate")
    paid = _rewards(state, dose, steps, cut_off, mine, config.reward)
    _save(_decisions(state, dose, inside, paid, cut_off, mine, config), frames / f"{folder.name}.decisions.arrow")
    final = state.value[cut_off, steps[cut_off]].astype(np.float32)
    columns = {"stay_id": mine["stay_id"].to_numpy()[cut_off], **_named(FEATURES, final)}
    _save(pa.table(columns), frames / f"{folder.name}.final.arrow")


def _rewards(
    state: States,
    dose: Doses,
    steps: Int[np.ndarray, "s"],
    cut_off: Bool[np.ndarray, "s"],
    mine: pd.DataFrame,
    config: RewardConfig,
) -> np.ndarray:
    """The reward of every window, stays by steps; those past the episode's end mean nothing."""
    position = np.arange(dose.duration_h.shape[1])
    last = position == steps[:, None] - 1
    has_next = (position < steps[:, None] - 1) | (last & cut_off[:, None])

    def change(name: str) -> np.ndarray:
        gained = np.diff(state.value[..., FEATURES.index(name)], axis=1)
        return np.where(has_next & ~np.isnan(gained), gained, 0.0)

    shape = last.shape
    flat = reward.rewards(
        dose.duration_h.ravel(),
        (last & ~cut_off[:, None]).ravel(),
        np.broadcast_to(mine["died"].to_numpy()[:, None], shape).ravel(),
        np.broadcast_to(mine["hours_after"].to_numpy()[:, None], shape).ravel(),
        config,
        change("sofa").ravel(),
        change("lactate").ravel(),
    )
    return flat.reshape(shape)


def _decisions(
    state: States,
    dose: Doses,
    inside: Bool[np.ndarray, "s k"],
    paid: np.ndarray,
    cut_off: Bool[np.ndarray, "s"],
    mine: pd.DataFrame,
    config: CohortConfig,
) -> pa.Table:
    """One row for each decision inside its episode, in the order of stay and step; NaN is missing."""
    stay, step = np.nonzero(inside)
    steps = inside.sum(axis=1)
    urine = state.value[:, 1:, FEATURES.index("urine_output_step")]
    time = mine["anchor"].to_numpy()[stay] + step * np.timedelta64(config.grid.step_hours, "h")
    return pa.table(
        {
            "stay_id": mine["stay_id"].to_numpy()[stay],
            "step": step.astype(np.int32),
            "time": time.astype("datetime64[us]"),
            "duration_h": dose.duration_h[inside],
            **_named(FEATURES, state.value[:, :-1][inside].astype(np.float32)),
            **_named([f"{name}_age_h" for name in MEASURED], state.age_h[:, :-1][inside].astype(np.float32)),
            "fio2_estimated": state.fio2_estimated[:, :-1][inside],
            "sofa_missing": state.sofa_missing[:, :-1][inside].astype(np.int8),
            "sirs_missing": state.sirs_missing[:, :-1][inside].astype(np.int8),
            "cvp": state.cvp[:, :-1][inside].astype(np.float32),
            "fluid_balance_total": state.fluid_balance_total[:, :-1][inside],
            "fluid_ml": dose.fluid_ml[inside],
            "vasopressor_ug_kg_min": dose.vasopressor_ug_kg_min[inside],
            "vasopressor_capped": dose.capped[inside] > 0,
            "previous_fluid_ml": _before(dose.fluid_ml)[inside],
            "previous_vasopressor_ug_kg_min": _before(dose.vasopressor_ug_kg_min)[inside],
            "reward": paid[inside],
            "terminated": (step == steps[stay] - 1) & ~cut_off[stay],
            "extreme_urine": (urine > EXTREME_URINE_ML)[inside],
            "extreme_intake": (dose.fluid_ml > EXTREME_INTAKE_ML)[inside],
        }
    )


def _before(dose: Float64[np.ndarray, "s k"]) -> Float64[np.ndarray, "s k"]:
    return np.pad(dose[:, :-1], ((0, 0), (1, 0)), constant_values=np.nan)


def _named(names: Sequence[str], matrix: np.ndarray) -> dict[str, np.ndarray]:
    columns = np.ascontiguousarray(matrix.T)
    return dict(zip(names, columns, strict=True))


def _save(table: pa.Table, path: Path) -> None:
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)


def _mapped(frames: Path, kind: str) -> pa.Table:
    """Every shard's frame of one kind as one table, left on disk and mapped."""
    files = sorted(frames.glob(f"*.{kind}.arrow"))
    return pa.concat_tables([pa.ipc.open_file(pa.memory_map(str(file))).read_all() for file in files])


def _fit(decisions: pa.Table, stays: pd.DataFrame, config: CohortConfig) -> tuple[Dictionary, list[str]]:
    """All that is fitted, on training patients only; and the features no training patient had a value of."""
    train = (stays["split"] == "train").to_numpy()[_stay_row(decisions, stays)]
    if not train.any():
        raise InputError(f"no patient of {stays['subject_id'].nunique()} is in the training split")
    typical = dict(zip(FEATURES, features.typical(), strict=True))
    imputation, scalers, untrained = [], [], []
    for name, log in zip(FEATURES, concepts.load().log_mask, strict=True):
        value = decisions[name].to_numpy()[train]
        measured = value[~np.isnan(value)]
        if name in NO_EVIDENCE_IS_NO:
            fill = 0.0
        elif len(measured):
            fill = float(np.median(measured.astype(np.float64)))
        else:
            fill = float(typical[name])
            untrained.append(name)
        imputation.append(fill)
        scalers.append(scaler.fit(features.impute(value[:, None], np.array([fill])), [log]))
    duration = decisions["duration_h"].to_numpy()[train]
    fluid = actions.fit_bins(decisions["fluid_ml"].to_numpy()[train] / duration, config.actions.bins)
    vasopressor = actions.fit_bins(decisions["vasopressor_ug_kg_min"].to_numpy()[train], config.actions.bins)
    joined = scaler.Scaler(
        np.concatenate([one.mean for one in scalers]),
        np.concatenate([one.std for one in scalers]),
        np.concatenate([one.log for one in scalers]),
    )
    fitted = Dictionary(FEATURES, np.array(imputation), joined, float(config.grid.step_hours), *fluid, *vasopressor)
    return fitted, untrained


def _stay_row(decisions: pa.Table, stays: pd.DataFrame) -> Int[np.ndarray, "n"]:
    """The row of `stays` (ordered by id) that each decision is of."""
    return np.asarray(np.searchsorted(stays["stay_id"].to_numpy(), decisions["stay_id"].to_numpy()))


def _blocks(decisions: pa.Table, stays: pd.DataFrame, fitted: Dictionary) -> Iterator[pa.Table]:
    """The finished rows, ordered by stay and step, a row group at a time."""
    stay_id, step = decisions["stay_id"].to_numpy(), decisions["step"].to_numpy()
    order = np.lexsort((step, stay_id))
    fluid_ml_h = decisions["fluid_ml"].to_numpy() / decisions["duration_h"].to_numpy()
    action = actions.to_action(fluid_ml_h, decisions["vasopressor_ug_kg_min"].to_numpy(), fitted)[order]
    previous = np.where(step[order] > 0, np.r_[-1, action[:-1]], -1)
    row = _stay_row(decisions, stays)[order]
    for start in range(0, len(order), trajectories.ROWS_PER_GROUP):
        part = slice(start, start + trajectories.ROWS_PER_GROUP)
        block = decisions.take(pa.array(order[part]))
        yield _finished(block, stays.iloc[row[part]], action[part], previous[part], fitted)


def _finished(
    block: pa.Table,
    stays: pd.DataFrame,
    action: Int[np.ndarray, "n"],
    previous: Int[np.ndarray, "n"],
    fitted: Dictionary,
) -> pa.Table:
    value = _matrix(block, FEATURES)
    imputed = np.isnan(value)
    outcome = stays["died"].map({True: "died", False: "survived"})
    columns: dict[str, Any] = {name: block[name] for name in block.column_names}
    columns |= _named(FEATURES, features.impute(value, fitted.imputation))
    columns |= _named([f"{name}_imputed" for name in FEATURES], imputed)
    columns |= {"subject_id": stays["subject_id"].to_numpy(), "action": action, "previous_action": previous}
    columns |= {"end_reason": _coded(stays["end_reason"], trajectories.END_REASONS)}
    columns |= {"outcome": _coded(outcome, trajectories.OUTCOMES), "split": _coded(stays["split"], SPLITS)}
    return pa.table([_cast(columns[field.name], field) for field in trajectories.schema()], trajectories.schema())


def _cast(column: Any, field: pa.Field) -> pa.Array:
    """An array of the field's type; NaN becomes null where the field may be null."""
    values = column.to_numpy() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(values, np.ndarray):
        missing = np.isnan(values) if field.nullable else None
        return pa.array(values, field.type, mask=missing)
    return values


def _coded(values: "pd.Series[str]", names: tuple[str, ...]) -> pa.DictionaryArray:
    codes = pd.Categorical(values, categories=list(names)).codes.astype(np.int8)
    return pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(names))


def _matrix(table: pa.Table, names: Sequence[str]) -> np.ndarray:
    matrix = np.empty((table.num_rows, len(names)), np.float32)
    for column, name in enumerate(names):
        matrix[:, column] = table[name].to_numpy()
    return matrix


def _final_states(final: pa.Table, fitted: Dictionary) -> pa.Table:
    final = final.sort_by("stay_id")
    value = features.impute(_matrix(final, FEATURES), fitted.imputation)
    return pa.table({"stay_id": final["stay_id"].to_numpy(), **_named(FEATURES, value)}, trajectories.final_schema())


def _read_final_states(cohort: Path, stay_id: np.ndarray, terminated: np.ndarray) -> np.ndarray:
    """The final state of each of the given stays, zeros where it terminated."""
    table = artifact.read_parquet(artifact.verified(cohort, trajectories.FINAL_STATES))
    value, known = _matrix(table, FEATURES), table["stay_id"].to_numpy()
    final = np.zeros((len(stay_id), len(FEATURES)), np.float32)
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


def _splits(stays: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Patients, stays and deaths of each split."""
    parts = {name: stays[stays["split"] == name] for name in SPLITS}
    return {
        name: {"patients": int(part["subject_id"].nunique()), "stays": len(part), "died": int(part["died"].sum())}
        for name, part in parts.items()
    }
