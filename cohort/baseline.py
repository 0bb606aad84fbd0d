"""Baseline: who the cohort's stays are, by outcome (a paper's Table 1), as data."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Bool, Float64, Int

from cohort.features import FEATURES

FIRST_HOURS = 24
"""Features are described by what was known of each stay within this time of the anchor."""
HIGHEST = ("sofa", "sirs", "mechanical_ventilation")
"""Described by the highest value of that time: at admission hardly anything is measured, and these would be 0."""
LAST = ("urine_output_total",)
"""Described by the last value of that time: the day's total. Every other feature by its first."""
LEFT_OUT = ("hours_since_start", "urine_output_step")
"""The clock, and a part of the total."""
BINARY = ("sex_male", "readmission", "mechanical_ventilation", "vasopressor_ever", "fluid_ever")


def table(decisions: pa.Table, stays: pd.DataFrame) -> dict[str, Any]:
    """One row a characteristic: its summary overall and by outcome, and how far the outcomes differ.

    Args:
        decisions: every decision's row before imputation; NaN is missing.
        stays: the selected stays, ordered by id, with `died`.

    Returns:
        `groups` (stays in each) and `rows`, each with name, rule (first, highest, last), missing (stays without a
        value), known (stays with one, by group: what tells a small cell), per group either count and share (binary) or
        quartiles, and smd: the mean of the dead less that of the survivors over their pooled standard deviation, None
        where either has fewer than two values or does not vary.
    """
    died = stays["died"].to_numpy(bool)
    row = np.searchsorted(stays["stay_id"].to_numpy(), decisions["stay_id"].to_numpy())
    values = _values(decisions, row, len(stays))
    values["icu_hours"] = ((stays["outtime"] - stays["anchor"]).dt.total_seconds() / 3600).to_numpy(np.float64)
    members = {"overall": np.ones(len(stays), bool), "survived": ~died, "died": died}
    return {
        "groups": {name: int(mask.sum()) for name, mask in members.items()},
        "rows": [_row(name, value, members) for name, value in values.items()],
    }


def _values(decisions: pa.Table, row: Int[np.ndarray, "n"], n_stays: int) -> dict[str, Float64[np.ndarray, "s"]]:
    """A value a stay of each characteristic; NaN where there is none."""
    early = decisions["hours_since_start"].to_numpy() <= FIRST_HOURS
    order = np.lexsort((decisions["step"].to_numpy(), row))
    values = {}
    for name in FEATURES:
        if name in LEFT_OUT:
            continue
        value = decisions[name].to_numpy()
        kept = order[(early & ~np.isnan(value))[order]]
        if name in HIGHEST:
            kept = kept[np.argsort(-value[kept], kind="stable")]
        elif name in LAST:
            kept = kept[::-1]
        found, first = np.unique(row[kept], return_index=True)
        values[name] = np.full(n_stays, np.nan)
        values[name][found] = value[kept[first]]
    for name, column in (("fluid", "fluid_ml"), ("vasopressor", "vasopressor_ug_kg_min")):
        dose = decisions[column].to_numpy()
        ever = np.zeros(n_stays)
        np.maximum.at(ever, row, dose > 0)
        values[f"{name}_ever"] = ever
    values["fluid_ml_first_24_h"] = np.bincount(
        row,
        weights=np.where(
            decisions["hours_since_start"].to_numpy() < FIRST_HOURS, decisions["fluid_ml"].to_numpy(), 0.0
        ),
    )
    return values


def _row(name: str, value: Float64[np.ndarray, "s"], members: Mapping[str, Bool[np.ndarray, "s"]]) -> dict[str, Any]:
    known = ~np.isnan(value)
    rule = "highest" if name in HIGHEST else "last" if name in LAST else "first"
    row: dict[str, Any] = {"name": name, "rule": rule, "missing": int((~known).sum()), "smd": None}
    row["known"] = {group: int((mask & known).sum()) for group, mask in members.items()}
    for group, mask in members.items():
        inside = value[mask & known]
        if name in BINARY:
            share = float(inside.mean()) if len(inside) else None
            row[group] = {"count": int(inside.sum()), "share": share}
        else:
            row[group] = [float(q) for q in np.quantile(inside, [0.25, 0.5, 0.75])] if len(inside) else None
    survived, died = (value[members[group] & known] for group in ("survived", "died"))
    if min(len(survived), len(died)) > 1:
        spread = np.sqrt((survived.var(ddof=1) + died.var(ddof=1)) / 2)
        row["smd"] = float((died.mean() - survived.mean()) / spread) if spread > 0 else None
    return row
