"""Quality: what the source lost, what was measured and how old it was, and which windows are implausible."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Float, Int

from cohort import record
from cohort.features import FEATURES, MEASURED
from cohort.tables import Counts

QUARTILES = (0.25, 0.5, 0.75)


def report(
    decisions: pa.Table,
    stays: pd.DataFrame,
    records: list[dict[str, Any]],
    counts: Counts,
    untrained: Iterable[str],
) -> dict[str, Any]:
    """The quality report as data.

    Args:
        decisions: every decision's row before imputation; NaN is missing.
        stays: the selected stays, ordered by id.
        records: of `record.of`, one a shard.
        counts: (table, reason) -> rows the source dropped, changed or flagged.
        untrained: features without any value in training, imputed by the dictionary's typical value.
    """
    step = decisions["step"].to_numpy()
    third = _thirds(decisions, stays)
    return {
        "record": record.merge(records),
        "source": [{"table": table, "reason": reason, "rows": n} for (table, reason), n in sorted(counts.items())],
        "features": {name: _feature(decisions, name, step, third) for name in FEATURES},
        "imputed_by_typical_value": sorted(untrained),
        "windows": _windows(decisions),
        "sofa_missing_systems": np.bincount(decisions["sofa_missing"].to_numpy(), minlength=7).tolist(),
    }


def _feature(decisions: pa.Table, name: str, step: np.ndarray, third: np.ndarray) -> dict[str, Any]:
    value = decisions[name].to_numpy()
    known = ~np.isnan(value)
    age = decisions[f"{name}_age_h"].to_numpy() if name in MEASURED else np.zeros(0)
    return {
        "coverage": float(known.mean()),
        "coverage_by_step": _rounded(np.bincount(step, weights=known) / np.bincount(step)),
        "quartiles": _quartiles(value[known]),
        "age_h_quartiles": _quartiles(age[~np.isnan(age)]),
        "drift": _drift(value[known].astype(np.float64), third[known]),
    }


def _thirds(decisions: pa.Table, stays: pd.DataFrame) -> np.ndarray:
    """Which third of the stays, in calendar order of their anchors, each decision is of."""
    rank = np.argsort(np.argsort(stays["anchor"].to_numpy(), kind="stable"))
    row = np.searchsorted(stays["stay_id"].to_numpy(), decisions["stay_id"].to_numpy())
    return np.asarray((3 * rank // len(stays))[row])


def _drift(value: Float[np.ndarray, "n"], third: Int[np.ndarray, "n"]) -> float | None:
    """The widest difference between the thirds' means over the overall deviation; None where a third has no value."""
    rows = np.bincount(third, minlength=3)
    if not rows.all() or value.std() == 0:
        return None
    mean = np.bincount(third, weights=value, minlength=3) / rows
    return round(float(np.ptp(mean) / value.std()), 4)


def _windows(decisions: pa.Table) -> dict[str, int]:
    flags = ("extreme_urine", "extreme_intake", "vasopressor_capped", "dose_unknown", "fio2_estimated")
    counted = {flag: int(decisions[flag].to_numpy().sum()) for flag in flags}
    full = float(np.max(decisions["duration_h"].to_numpy()))
    partial = int((decisions["duration_h"].to_numpy() < full).sum())
    return {"decisions": decisions.num_rows, "partial": partial, **counted}


def _quartiles(value: Float[np.ndarray, "n"]) -> list[float] | None:
    """None where there is no value."""
    return _rounded(np.quantile(value.astype(np.float64), QUARTILES)) if len(value) else None


def _rounded(value: Float[np.ndarray, "n"]) -> list[float]:
    return [round(float(one), 4) for one in value]
