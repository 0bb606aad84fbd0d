"""Infusions: the drips and boluses through which a window's doses are given, as rows of inputevents."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from cohort.hospital.charting import Bedside, ChartingConfig

DRUGS = ("norepinephrine", "vasopressin", "phenylephrine", "dopamine", "epinephrine")
"""Columns of `drug_rates`: ug/kg/min, vasopressin U/min; dobutamine is not given."""


@dataclass(frozen=True)
class Infusions:
    """Rows of inputevents."""

    stay: Int[np.ndarray, "r"]


def infuse(
    bedside: Bedside,
    start_hour: int,
    minutes: Int[np.ndarray, "n"],
    fluid_ml: Float[np.ndarray, "n"],
    drug_rates: Float[np.ndarray, "n v"],
    config: ChartingConfig,
    rng: np.random.Generator,
) -> tuple[Bedside, Infusions]:
    """Give a decision window's doses: call it at the window's END, when it is known how long each patient was there.

    No row reaches out of [start, start + minutes). Without the rows that have a fault, the integral over the rows is the
    dose asked for: tonicity-adjusted mL, and ug/kg/min (U/min) over the window, up to the digits stored.

    Args:
        start_hour: the window's start, hours since `intime`.
        minutes: how long each patient was there in this window; 0: nothing is given.
        fluid_ml: tonicity-adjusted mL over those minutes (5% dextrose not counted); 0: none.
        drug_rates: (n, len(DRUGS)) mean rates over those minutes; 0: not given.
    """
    raise NotImplementedError
