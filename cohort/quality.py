"""Quality: what the source lost, what was measured and how old it was, and which windows are implausible."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from cohort.features import FEATURES, MEASURED
from cohort.tables import Counts

QUARTILES = (0.25, 0.5, 0.75)


def report(decisions: pa.Table, counts: Counts, untrained: Iterable[str]) -> dict[str, Any]:
    """The quality report as data.

    Args:
        decisions: every decision's row before imputation; NaN is missing.
        counts: (table, reason) -> rows the source dropped, changed or flagged.
        untrained: features without any value in training, imputed by the dictionary's typical value.
    """
    step = decisions["step"].to_numpy()
    return {
        "source": [{"table": table, "reason": reason, "rows": n} for (table, reason), n in sorted(counts.items())],
        "features": {name: _feature(decisions, name, step) for name in FEATURES},
        "imputed_by_typical_value": sorted(untrained),
        "windows": _windows(decisions),
        "sofa_missing_systems": np.bincount(decisions["sofa_missing"].to_numpy(), minlength=7).tolist(),
    }


def _feature(decisions: pa.Table, name: str, step: np.ndarray) -> dict[str, Any]:
    value = decisions[name].to_numpy()
    known = ~np.isnan(value)
    age = decisions[f"{name}_age_h"].to_numpy() if name in MEASURED else np.zeros(0)
    return {
        "coverage": float(known.mean()),
        "coverage_by_step": _rounded(np.bincount(step, weights=known) / np.bincount(step)),
        "quartiles": _quartiles(value[known]),
        "age_h_quartiles": _quartiles(age[~np.isnan(age)]),
    }


def _windows(decisions: pa.Table) -> dict[str, int]:
    flags = ("extreme_urine", "extreme_intake", "vasopressor_capped", "fio2_estimated")
    counted = {flag: int(decisions[flag].to_numpy().sum()) for flag in flags}
    full = float(np.max(decisions["duration_h"].to_numpy()))
    partial = int((decisions["duration_h"].to_numpy() < full).sum())
    return {"decisions": decisions.num_rows, "partial": partial, **counted}


def _quartiles(value: Float[np.ndarray, "n"]) -> list[float] | None:
    """None where there is no value."""
    return _rounded(np.quantile(value.astype(np.float64), QUARTILES)) if len(value) else None


def _rounded(value: Float[np.ndarray, "n"]) -> list[float]:
    return [round(float(one), 4) for one in value]
