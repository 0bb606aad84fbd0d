"""Subgroups: how a policy's doses differ between groups of patients, with intervals that hold for all groups at once.

Computed here and not by Fairlearn's MetricFrame: that one resamples rows, though a patient's decisions are not
independent, and it has no interval that holds for all groups together.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int

from ope import interval
from ope.divergence import MEASURES
from ope.trajectories import by_patient

TOLD = ("agreement", "unsupported", "fluid_shift_ml", "vasopressor_shift_ug_kg_min")
"""Measures of divergence that are compared between groups."""
AGES, SOFAS = (50.0, 65.0, 80.0), (5.0, 10.0, 15.0)
"""Lower edges of all bands but the first."""


@dataclass(frozen=True)
class Cell:
    """One group of patients; `measures` is None where it is too small to be shown."""

    feature: str
    group: str
    patients: int | None
    measures: Mapping[str, Mapping[str, float]] | None
    """Measure -> mean over its decisions; difference to everybody else; low and high of that."""


def groups_of(
    age_years: Float[np.ndarray, "n"],
    sex_male: Float[np.ndarray, "n"],
    ethnicity: np.ndarray,
    care_unit: np.ndarray,
    highest_sofa: Float[np.ndarray, "n"],
) -> dict[str, np.ndarray]:
    """Each decision's group by each feature, as text; all decisions of a stay are in one group.

    Args:
        highest_sofa: of the decision's stay, so that the sickest are told apart: at admission little is measured.
    """
    return {
        "age": _bands(age_years, AGES),
        "sex": np.where(sex_male > 0.5, "male", "female"),
        "ethnicity": np.char.lower(ethnicity.astype(str)),
        "care_unit": care_unit.astype(str),
        "severity": _bands(highest_sofa, SOFAS),
    }


def measure(
    measures: Float32[np.ndarray, "n k"],
    groups: Mapping[str, np.ndarray],
    episode: Int[np.ndarray, "n"],
    patient: Int[np.ndarray, "e"],
    smallest: int,
    level: float,
    n_bootstrap: int,
    seed: int,
) -> dict[str, Any]:
    """Every group beside all other patients.

    Args:
        measures: from `divergence.per_step`.
        groups: from `groups_of`.
        episode: of each decision; patient: of each episode.
        smallest: patients that a group, and everybody else, must have for the group to be shown.
        level: of the intervals of the differences, which hold for all shown groups of one measure together (max-T).

    Returns:
        level, and groups: `Cell`s as plain values.
    """
    cells = [(feature, str(name)) for feature, names in groups.items() for name in sorted(np.unique(names), key=_place)]
    inside = np.stack([groups[feature] == name for feature, name in cells], axis=1)
    first = np.searchsorted(episode, np.arange(len(patient)))
    counts = by_patient(np.add.reduceat(inside.astype(np.float64), first, axis=0), patient)
    patients = (counts > 0).sum(axis=0)
    shown = np.flatnonzero((patients >= smallest) & (len(counts) - patients >= smallest))
    told: dict[int, dict[str, dict[str, float]]] = {int(cell): {} for cell in shown}
    for name in TOLD if len(shown) else ():
        values = measures[:, MEASURES.index(name)].astype(np.float64)[:, None]
        columns = np.hstack([inside[:, shown] * values, inside[:, shown], values, np.ones_like(values)])
        sums = by_patient(np.add.reduceat(columns, first, axis=0), patient)
        replicated = interval.replicate_sums(sums, n_bootstrap, seed)
        mean, gap = _gaps(sums.sum(axis=0)[None], len(shown))
        _, replicates = _gaps(replicated, len(shown))
        known = np.where(np.isfinite(replicates), replicates, gap)  # a resample without a group says nothing of it
        together = interval.simultaneous(gap[0], known, level)
        for place, cell in enumerate(shown):
            one = together[place]
            told[int(cell)][name] = {
                "mean": float(mean[0, place]), "difference": one.value, "low": one.low, "high": one.high,
            }  # fmt: skip
    found = [
        Cell(feature, name, int(patients[index]) if index in told else None, told.get(index))
        for index, (feature, name) in enumerate(cells)
    ]
    return {"level": level, "groups": [vars(cell) for cell in found]}


def _gaps(sums: Float[np.ndarray, "b c"], n: int) -> tuple[Float[np.ndarray, "b g"], Float[np.ndarray, "b g"]]:
    """Each group's mean, and it less the mean of everybody else, from sums of values and counts."""
    within, count, total, everybody = sums[:, :n], sums[:, n : 2 * n], sums[:, -2:-1], sums[:, -1:]
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = within / count
        rest = (total - within) / (everybody - count)
    return mean, mean - rest


def _bands(value: Float[np.ndarray, "n"], edges: tuple[float, ...]) -> np.ndarray:
    low, high = edges[0], edges[-1]
    middle = [f"{one:g} to below {other:g}" for one, other in pairwise(edges)]
    names = np.array([f"below {low:g}", *middle, f"{high:g} or more"])
    named: np.ndarray = names[np.searchsorted(edges, value, side="right")]
    return named


def _place(name: str) -> tuple[float, str]:
    """Bands from the lowest to the highest, names by the alphabet."""
    first = str(name).partition(" ")[0]
    return (0.0 if first == "below" else float(first) if first.isdecimal() else np.inf, str(name))
