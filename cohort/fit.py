"""Fit: what training patients decide (imputation, scaling, dose bins), and the finished rows it makes of frames."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Float64, Int

from cohort import actions, concepts, features, frames, scaler, trajectories
from cohort.dictionary import Dictionary
from cohort.errors import InputError
from cohort.features import FEATURES
from cohort.split import SPLITS

NO_EVIDENCE_IS_NO = ("mechanical_ventilation",)
"""Charted mostly where it is true, so that a median of what was charted would say true of everybody: imputed as 0."""


def fit(
    decisions: pa.Table, stays: pd.DataFrame, names: tuple[str, ...], step_hours: int, bins: int
) -> tuple[Dictionary, list[str]]:
    """The dictionary, from training patients alone; and the features that none of them had a value of.

    Args:
        decisions: frames of every split, NaN where a value is missing.
        stays: the selected stays in the order of their ids, with their `split`.
        names: the state's columns.
        step_hours: hours of a whole window.
        bins: dose bins of each drug, the zero bin included.

    Raises:
        InputError: no patient is in the training split.
    """
    order = _order(decisions)
    trains = (stays["split"] == "train").to_numpy()[_stay_row(decisions, stays)]
    train = order[trains[order]]  # in one order whatever the shards were, since sums of floats depend on it
    if not len(train):
        raise InputError(f"none of {stays['subject_id'].nunique()} patients is in the training split")
    fills, untrained = _imputation(decisions, names, train)
    logged = concepts.load().log
    scalers = [
        scaler.fit(features.impute(decisions[name].to_numpy()[train][:, None], fills[[column]]), [name in logged])
        for column, name in enumerate(names)
    ]
    duration = decisions["duration_h"].to_numpy()[train]
    fluid = actions.fit_bins(decisions["fluid_ml"].to_numpy()[train] / duration, bins)
    vasopressor = actions.fit_bins(decisions["vasopressor_ug_kg_min"].to_numpy()[train], bins)
    joined = scaler.Scaler(
        np.concatenate([one.mean for one in scalers]),
        np.concatenate([one.std for one in scalers]),
        np.concatenate([one.log for one in scalers]),
    )
    return Dictionary(names, fills, joined, float(step_hours), *fluid, *vasopressor), untrained


def _imputation(
    decisions: pa.Table, names: tuple[str, ...], train: Int[np.ndarray, "m"]
) -> tuple[Float64[np.ndarray, "d"], list[str]]:
    """Each feature's training median; a typical value for the features without any, which are returned by name."""
    fills, untrained = features.typical(names), []
    for column, name in enumerate(names):
        value = decisions[name].to_numpy()[train]
        known = value[~np.isnan(value)].astype(np.float64)
        if name in NO_EVIDENCE_IS_NO:
            fills[column] = 0.0
        elif len(known):
            fills[column] = np.median(known)
        else:
            untrained.append(name)
    return fills, untrained


def _order(decisions: pa.Table) -> Int[np.ndarray, "n"]:
    return np.lexsort((decisions["step"].to_numpy(), decisions["stay_id"].to_numpy()))


def _stay_row(decisions: pa.Table, stays: pd.DataFrame) -> Int[np.ndarray, "n"]:
    """The row of `stays` (ordered by id) that each decision is of."""
    return np.asarray(np.searchsorted(stays["stay_id"].to_numpy(), decisions["stay_id"].to_numpy()))


def finished(decisions: pa.Table, stays: pd.DataFrame, fitted: Dictionary) -> Iterator[pa.Table]:
    """The finished rows, ordered by stay and step, a row group at a time."""
    step, order = decisions["step"].to_numpy(), _order(decisions)
    fluid_ml_h = decisions["fluid_ml"].to_numpy() / decisions["duration_h"].to_numpy()
    action = actions.to_action(fluid_ml_h, decisions["vasopressor_ug_kg_min"].to_numpy(), fitted)[order]
    previous = np.where(step[order] > 0, np.r_[-1, action[:-1]], -1)
    row = _stay_row(decisions, stays)[order]
    for start in range(0, len(order), trajectories.ROWS_PER_GROUP):
        part = slice(start, start + trajectories.ROWS_PER_GROUP)
        block = decisions.take(pa.array(order[part]))
        yield _finish(block, stays.iloc[row[part]], action[part], previous[part], fitted)


def _finish(
    block: pa.Table,
    stays: pd.DataFrame,
    action: Int[np.ndarray, "n"],
    previous: Int[np.ndarray, "n"],
    fitted: Dictionary,
) -> pa.Table:
    value = frames.matrix(block, fitted.features)
    imputed = np.isnan(value[:, : len(FEATURES)])
    outcome = stays["died"].map({True: "died", False: "survived"})
    columns: dict[str, Any] = {name: block[name] for name in block.column_names}
    columns |= frames.named(fitted.features, features.impute(value, fitted.imputation))
    columns |= frames.named([f"{name}_imputed" for name in FEATURES], imputed)
    columns |= {"subject_id": stays["subject_id"].to_numpy(), "action": action, "previous_action": previous}
    columns |= {"end_reason": _coded(stays["end_reason"], trajectories.END_REASONS)}
    columns |= {"outcome": _coded(outcome, trajectories.OUTCOMES), "split": _coded(stays["split"], SPLITS)}
    schema = trajectories.schema(fitted.features)
    return pa.table([_cast(columns[field.name], field) for field in schema], schema)


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


def final_states(final: pa.Table, fitted: Dictionary) -> pa.Table:
    """The imputed final states of episodes that are cut off, ordered by stay."""
    final = final.sort_by("stay_id")
    value = features.impute(frames.matrix(final, fitted.features), fitted.imputation)
    return pa.table(
        {"stay_id": final["stay_id"].to_numpy(), **frames.named(fitted.features, value)},
        trajectories.final_schema(fitted.features),
    )
