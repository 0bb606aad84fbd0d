"""Bedside: the state of one patient at one time, by the very function that made the batch."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64

from cohort import features
from cohort.dictionary import Dictionary
from cohort.errors import InputError
from cohort.grid import GridConfig
from cohort.tables import Tables


@dataclass(frozen=True)
class Bedside:
    """One state, complete, and what in it was measured."""

    value: Float32[np.ndarray, "d"]
    imputed: Bool[np.ndarray, "d"]
    age_h: Float64[np.ndarray, "m"]
    """Hours since each of features.MEASURED was charted; NaN where it is imputed."""
    fio2_estimated: bool
    sofa_missing: int
    cvp: float
    """NaN where it is not charted."""
    fluid_balance_total: float


def state(tables: Tables, anchor: np.datetime64, hour: int, config: GridConfig, fitted: Dictionary) -> Bedside:
    """The state of the one stay in `tables`, `hour` whole hours after `anchor`.

    It is bit for bit the row of trajectories.parquet at that time. Rows available later may be in the tables or not.

    Raises:
        InputError: the tables hold no stay or several.
    """
    if len(tables.stays) != 1:
        raise InputError(f"stays: {len(tables.stays)} rows, expected one stay at the bedside")
    made = features.states(tables, np.array([anchor], "datetime64[us]"), np.array([hour]), config)
    return Bedside(
        value=features.impute(made.value[0], fitted.imputation)[0],
        imputed=np.isnan(made.value[0, 0]),
        age_h=made.age_h[0, 0],
        fio2_estimated=bool(made.fio2_estimated[0, 0]),
        sofa_missing=int(made.sofa_missing[0, 0]),
        cvp=float(made.cvp[0, 0]),
        fluid_balance_total=float(made.fluid_balance_total[0, 0]),
    )
