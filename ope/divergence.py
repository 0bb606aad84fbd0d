"""Divergence: how a policy's doses differ from the clinicians', overall, by stratum, and dose by dose."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

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
    "transport",
    "unsupported",
    "fluid_shift_ml",
    "vasopressor_shift_ug_kg_min",
)
"""Columns of `per_step`. Shifts: policy minus clinicians, positive = the policy gives more."""

_MAX_SIDE = 6
"""Bins of the drug with fewer, up to which the distance on the grid is computed: 3^5 shapes of a column."""

_STATES = 2048  # whose distance is computed at once

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
    ordinal (Wasserstein-1) distance in bins between the two policies' distributions, of each drug (sum over bins of
    |difference of cumulative shares|) and on the grid of both (`transport`, exact; the drugs' sum is a lower bound).
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
        transport(by_drug),
        (np.maximum(gap, 0) * (behaviour < support_floor)).sum(axis=1),
        fluid @ doses.fluid_ml,
        vasopressor @ doses.vasopressor_ug_kg_min,
    )
    return np.stack(columns, axis=1).astype(np.float32)


def transport(gap: Float[np.ndarray, "n f v"]) -> Float[np.ndarray, "n"]:
    """The least mass times distance that turns one distribution on a grid into the other; NaN on too large a grid.

    The city-block distance is that of walks on the grid, so that the dual (Kantorovich and Rubinstein) is the greatest
    sum of gap times potential over potentials that differ by at most 1 between neighbours, and a best one is integral:
    a column of it is one of 3^(rows - 1) shapes at some level. They are tried column by column, all states at once.

    Args:
        gap: one distribution less the other; sums to 0 over the grid.
    """
    if min(gap.shape[1:]) > _MAX_SIDE:
        return np.full(len(gap), np.nan)
    grid = np.asarray(gap if gap.shape[1] <= gap.shape[2] else gap.swapaxes(1, 2), np.float32)
    parts = [_transport(grid[first : first + _STATES]) for first in range(0, len(grid), _STATES)]
    return np.concatenate(parts).astype(np.float64)


def _transport(grid: Float32[np.ndarray, "n f v"]) -> Float32[np.ndarray, "n"]:
    ahead = grid[:, :, ::-1].cumsum(axis=2)[:, :, ::-1].transpose(2, 1, 0)  # what a column and those after it hold
    shapes = np.array([np.cumsum((0, *steps)) for steps in product((-1, 0, 1), repeat=grid.shape[1] - 1)], np.float32)
    rise = shapes[:, None] - shapes[None]  # to a shape (first axis) from a shape (second), before the level moves
    lowest, highest = np.maximum(-1, -1 - rise.min(axis=2)), np.minimum(1, 1 - rise.max(axis=2))
    best = shapes @ ahead[0]
    for column in ahead[1:]:
        moved = {level: level * column.sum(axis=0) for level in (-1.0, 0.0, 1.0)}
        score = shapes @ column
        before = best - score
        at_level = {level: before + mass for level, mass in moved.items()}
        for shape in range(len(shapes)):
            best[shape] = score[shape] + np.maximum.reduce(
                [at_level[level][(lowest[shape] <= level) & (highest[shape] >= level)].max(axis=0) for level in moved]
            )
    distance: np.ndarray = best.max(axis=0)
    return distance


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
    return [_stratum(group, measures, patient, smallest) for group in by_edges(features)]


@dataclass(frozen=True)
class Group:
    """Some of the decisions: those with a feature in [low, high), or with a name."""

    feature: str
    low: float
    high: float
    rows: Bool[np.ndarray, "n"]
    label: str | None = None


def by_edges(features: Mapping[str, Float[np.ndarray, "n"]]) -> Iterator[Group]:
    """The groups of STRATA."""
    for name, edges in STRATA.items():
        for low, high in pairwise((-np.inf, *edges, np.inf)):
            yield Group(name, low, high, (features[name] >= low) & (features[name] < high))


def by_name(feature: str, names: np.ndarray) -> Iterator[Group]:
    """One group for each name, in the order of the alphabet."""
    for name in np.unique(names):
        yield Group(feature, np.nan, np.nan, names == name, str(name))


def _stratum(
    group: Group, measures: Float32[np.ndarray, "n k"], patient: Int[np.ndarray, "n"], smallest: int
) -> Stratum:
    patients, means = len(np.unique(patient[group.rows])), None
    if patients >= smallest:
        means = dict(zip(MEASURES, measures[group.rows].mean(axis=0, dtype=np.float64).tolist(), strict=True))
    return Stratum(group.feature, group.low, group.high, patients, int(group.rows.sum()), means)
