"""Frames: one shard's decisions in clinical units, before anything is fitted; kept on disk between the two passes."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Bool, Float32, Float64, Int

from cohort import actions, features, record, reward, tables
from cohort.actions import ActionConfig, Doses
from cohort.features import FEATURES, MEASURED, States
from cohort.grid import GridConfig
from cohort.reward import RewardConfig
from cohort.tables import Tables

EXTREME_URINE_ML = 12_000
EXTREME_INTAKE_ML = 10_000


def make(
    folder: Path, mine: pd.DataFrame, grid: GridConfig, given: ActionConfig, paid: RewardConfig, frames: Path
) -> None:
    """Write one shard's decisions, the final states of its stays that are cut off, and its record, in `frames`.

    Args:
        folder: the shard's canonical tables.
        mine: its selected stays, with anchor, end, end_reason, died and hours_after.
        grid, given, paid: how states, actions and rewards are made.
        frames: the folder to write in; `mapped` reads it.
    """
    shard = only(tables.read(folder), mine)
    anchor, end = mine["anchor"].to_numpy(), mine["end"].to_numpy()
    hours = np.append(grid.hours, grid.horizon_hours)
    state = features.states(shard, anchor, hours, grid, given)
    dose = actions.doses(shard, anchor, hours[:-1], grid.step_hours, end, given)
    inside = dose.duration_h > 0
    steps = inside.sum(axis=1)
    cut_off = (mine["end_reason"] == "horizon").to_numpy() & (paid.horizon_end == "truncate")
    rewards = _rewards(state, dose, steps, cut_off, mine, paid)
    names = features.names(given)
    decisions = _decisions(state, names, dose, inside, mine, grid.step_hours)
    ended = (decisions["step"].to_numpy() == np.repeat(steps, steps) - 1) & np.repeat(~cut_off, steps)
    decisions = decisions.append_column("reward", pa.array(rewards[inside])).append_column(
        "terminated", pa.array(ended)
    )
    _save(decisions, frames / f"{folder.name}.decisions.arrow")
    final = state.value[cut_off, steps[cut_off]].astype(np.float32)
    columns = {"stay_id": mine["stay_id"].to_numpy()[cut_off], **named(names, final)}
    _save(pa.table(columns), frames / f"{folder.name}.final.arrow")
    (frames / f"{folder.name}.record.json").write_text(json.dumps(record.of(shard)), encoding="utf-8")


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
    names: tuple[str, ...],
    dose: Doses,
    inside: Bool[np.ndarray, "s k"],
    mine: pd.DataFrame,
    step_hours: int,
) -> pa.Table:
    """One row for each decision inside its episode, in the order of stay and step; NaN is missing."""
    stay, step = np.nonzero(inside)
    urine = state.value[:, 1:, FEATURES.index("urine_output_step")]
    time = mine["anchor"].to_numpy()[stay] + step * np.timedelta64(step_hours, "h")
    return pa.table(
        {
            "stay_id": mine["stay_id"].to_numpy()[stay],
            "step": step.astype(np.int32),
            "time": time.astype("datetime64[us]"),
            "duration_h": dose.duration_h[inside],
            **named(names, state.value[:, :-1][inside].astype(np.float32)),
            **named([f"{name}_age_h" for name in MEASURED], state.age_h[:, :-1][inside].astype(np.float32)),
            "fio2_estimated": state.fio2_estimated[:, :-1][inside],
            "sofa_missing": state.sofa_missing[:, :-1][inside].astype(np.int8),
            "sirs_missing": state.sirs_missing[:, :-1][inside].astype(np.int8),
            "cvp": state.cvp[:, :-1][inside].astype(np.float32),
            "fluid_balance_total": state.fluid_balance_total[:, :-1][inside],
            "fluid_ml": dose.fluid_ml[inside],
            "vasopressor_ug_kg_min": dose.vasopressor_ug_kg_min[inside],
            "vasopressor_capped": dose.capped[inside] > 0,
            "dose_unknown": dose.unknown[inside],
            "previous_fluid_ml": _before(dose.fluid_ml)[inside],
            "previous_vasopressor_ug_kg_min": _before(dose.vasopressor_ug_kg_min)[inside],
            "extreme_urine": (urine > EXTREME_URINE_ML)[inside],
            "extreme_intake": (dose.fluid_ml > EXTREME_INTAKE_ML)[inside],
        }
    )


def _before(dose: Float64[np.ndarray, "s k"]) -> Float64[np.ndarray, "s k"]:
    return np.pad(dose[:, :-1], ((0, 0), (1, 0)), constant_values=np.nan)


def named(names: Sequence[str], matrix: np.ndarray) -> dict[str, np.ndarray]:
    """The columns of a matrix by name, each contiguous."""
    columns = np.ascontiguousarray(matrix.T)
    return dict(zip(names, columns, strict=True))


def only(shard: Tables, mine: pd.DataFrame) -> Tables:
    """The shard's rows of the stays in `mine`, its stays in their order."""
    stays = shard.stays.set_index("stay_id").loc[mine["stay_id"]].reset_index()
    if len(stays) == len(shard.stays):
        return Tables(stays, shard.observations, shard.infusions, shard.outputs)
    events = (shard.observations, shard.infusions, shard.outputs)
    return Tables(stays, *(table[table["stay_id"].isin(mine["stay_id"])] for table in events))


def _save(table: pa.Table, path: Path) -> None:
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)


def mapped(frames: Path, kind: str) -> pa.Table:
    """Every shard's frame of one kind as one table, left on disk and mapped."""
    files = sorted(frames.rglob(f"*.{kind}.arrow"))
    return pa.concat_tables([pa.ipc.open_file(pa.memory_map(str(file))).read_all() for file in files])


def matrix(table: pa.Table, names: Sequence[str]) -> Float32[np.ndarray, "n d"]:
    """Some columns of a table side by side."""
    matrix = np.empty((table.num_rows, len(names)), np.float32)
    for column, name in enumerate(names):
        matrix[:, column] = table[name].to_numpy()
    return matrix
