"""Divergence: how a policy's doses differ from the clinicians', overall, by stratum, and dose by dose."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Float32, Int

from cohort.dictionary import Dictionary
from ope import interval
from ope.interval import Interval
from ope.trajectories import by_patient

MEASURES = (
    "kl",
    "total_variation",
    "agreement",
    "fluid_transport",
    "vasopressor_transport",
    "unsupported",
    "fluid_shift_ml",
    "vasopressor_shift_ug_kg_min",
)
"""Columns of `per_step`. Shifts: policy minus clinicians, positive = the policy gives more."""

STRATA: Mapping[str, tuple[float, ...]] = {
    "sofa": (5, 10, 15),
    "lactate": (2, 4),
    "map": (65, 75, 95),
    "age_years": (50, 65, 80),
    "sex_male": (0.5,),
}
"""Feature -> edges; a stratum holds [edge, next edge)."""


@dataclass(frozen=True)
class Grid:
    """The dose grid: action = fluid bin times the vasopressor's bins plus the vasopressor bin."""

    fluid_ml: Float[np.ndarray, "f"]
    """Typical dose of each fluid bin in a full window."""
    vasopressor_ug_kg_min: Float[np.ndarray, "v"]

    @property
    def shape(self) -> tuple[int, int]:
        """Fluid bins, vasopressor bins."""
        return len(self.fluid_ml), len(self.vasopressor_ug_kg_min)


@dataclass(frozen=True)
class Stratum:
    """One group of decisions."""

    feature: str
    low: float
    high: float
    """Values in [low, high)."""
    patients: int
    decisions: int
    means: Mapping[str, float] | None
    """None where fewer than the smallest allowed number of patients are in it."""


def grid(dictionary: Dictionary) -> Grid:
    """The dose grid of a cohort."""
    fluid = np.asarray(dictionary.fluid_medians_ml_h, float) * dictionary.step_hours
    return Grid(fluid, np.asarray(dictionary.vasopressor_medians_ug_kg_min, float))


def per_step(
    target: Float[np.ndarray, "n a"],
    behaviour: Float[np.ndarray, "n a"],
    action: Int[np.ndarray, "n"],
    doses: Grid,
    support_floor: float,
) -> Float32[np.ndarray, "n k"]:
    """Each decision's divergence, the columns of MEASURES.

    kl: sum pi log(pi / b), nats. total_variation: sum |pi - b| / 2. agreement: pi of the logged dose. Transport: the
    ordinal (Wasserstein-1) distance in bins between the two policies' distributions of each drug, sum over bins of
    |difference of cumulative shares|; the two drugs' sum is a lower bound of the city-block distance on the grid.
    unsupported: probability beyond the clinicians' on doses with b < support_floor.
    """
    shape, n = doses.shape, len(target)
    with np.errstate(divide="ignore", invalid="ignore"):
        kl = np.where(target > 0, target * np.log(target / behaviour), 0.0).sum(axis=1)
    gap = target - behaviour
    by_drug = gap.reshape(n, *shape)
    fluid, vasopressor = by_drug.sum(axis=2), by_drug.sum(axis=1)
    columns = (
        kl,
        np.abs(gap).sum(axis=1) / 2,
        target[np.arange(n), action],
        np.abs(fluid.cumsum(axis=1)).sum(axis=1),
        np.abs(vasopressor.cumsum(axis=1)).sum(axis=1),
        (np.maximum(gap, 0) * (behaviour < support_floor)).sum(axis=1),
        fluid @ doses.fluid_ml,
        vasopressor @ doses.vasopressor_ug_kg_min,
    )
    return np.stack(columns, axis=1).astype(np.float32)


def shift_matrix(
    target: Float[np.ndarray, "n a"], action: Int[np.ndarray, "n"], n_actions: int
) -> Float[np.ndarray, "a a"]:
    """Share of decisions in which clinicians gave dose i (row) and the policy would give dose j (column); sums to n.

    Divide by the number of decisions. Rows add up to what clinicians gave, columns to what the policy would give.
    """
    matrix = np.zeros((n_actions, n_actions))
    order = np.argsort(action, kind="stable")
    given, first = np.unique(action[order], return_index=True)
    matrix[given] = np.add.reduceat(target[order], first, axis=0, dtype=np.float64)
    return matrix


def overall(
    measures: Float32[np.ndarray, "n k"],
    episode: Int[np.ndarray, "n"],
    patient: Int[np.ndarray, "e"],
    level: float,
    n_bootstrap: int,
    seed: int,
) -> dict[str, Interval]:
    """The mean over decisions of each measure, with its interval over patients."""
    first = np.searchsorted(episode, np.arange(len(patient)))
    columns = np.column_stack([measures, np.ones(len(measures))]).astype(np.float64)
    sums = by_patient(np.add.reduceat(columns, first, axis=0), patient)
    replicated = interval.replicate_sums(sums, n_bootstrap, seed)
    total, out = sums.sum(axis=0), {}
    for k, name in enumerate(MEASURES):
        value, replicates = float(total[k] / total[-1]), replicated[:, k] / replicated[:, -1]
        out[name] = interval.percentile(value, replicates, level, (-np.inf, np.inf))
    return out


def strata(
    measures: Float32[np.ndarray, "n k"],
    features: Mapping[str, Float[np.ndarray, "n"]],
    patient: Int[np.ndarray, "n"],
    smallest: int,
) -> list[Stratum]:
    """The means within each stratum of STRATA; NaN features are in none, cells below `smallest` patients are empty.

    Args:
        measures: from `per_step`.
        features: clinical values of each decision, NaN where not measured.
        patient: of each decision.
        smallest: patients a cell must have to be shown.
    """
    found = []
    for name, edges in STRATA.items():
        bounds = (-np.inf, *edges, np.inf)
        for low, high in pairwise(bounds):
            found.append(_stratum(name, low, high, measures, features[name], patient, smallest))
    return found


def _stratum(
    name: str,
    low: float,
    high: float,
    measures: Float32[np.ndarray, "n k"],
    value: Float[np.ndarray, "n"],
    patient: Int[np.ndarray, "n"],
    smallest: int,
) -> Stratum:
    inside = (value >= low) & (value < high)
    patients = len(np.unique(patient[inside]))
    means = None
    if patients >= smallest:
        means = dict(zip(MEASURES, measures[inside].mean(axis=0, dtype=np.float64).tolist(), strict=True))
    return Stratum(name, low, high, patients, int(inside.sum()), means)
