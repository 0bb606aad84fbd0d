"""Overlap: how much of the evidence about a target policy the clinicians' data hold."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from cohort.errors import InputError
from ope.divergence import Group
from ope.importance import divide
from ope.trajectories import Trajectories

_ROWS = 1 << 16  # rows of a (step, action) matrix worked on at once


@dataclass(frozen=True)
class Overlap:
    """The weights' behaviour; of a policy equal to the clinicians': ESS n, mean weight 1, unsupported 0."""

    n_episodes: int
    n_patients: int
    ess: float
    """Kish's effective sample size of the whole-episode weights: (sum w)^2 / sum w^2."""
    ess_per_step: tuple[float, ...]
    largest_share: float
    """The greatest share of the total weight that one patient has at any step."""
    mean_weight: float
    """Mean whole-episode weight; 1 in expectation where the behaviour model is right and overlap holds."""
    mean_weight_per_step: tuple[float, ...]
    unsupported: float | None
    """Share of the target's probability on actions that clinicians rarely choose there; None: unknown."""


def measure(
    t: Trajectories,
    patient: Int[np.ndarray, "e"],
    unsupported: float | None = None,
) -> Overlap:
    """Summarise cumulative weights.

    Raises:
        InputError: a weight overflows.
    """
    overflow = int((~np.isfinite(t.weight)).any(axis=1).sum())
    if overflow:
        raise InputError(f"importance weights overflow in {overflow} of {len(t.weight)} episodes: behaviour_probs tiny")
    names, place = np.unique(patient, return_inverse=True)
    relative = t.weight / np.maximum(t.weight.max(axis=0), np.finfo(float).tiny)  # squares of huge weights stay finite
    total = relative.sum(axis=0)
    ess = np.nan_to_num(divide(total**2, (relative**2).sum(axis=0)))
    largest = max(_largest(relative[:, step], place, len(names), total[step]) for step in range(relative.shape[1]))
    return Overlap(
        n_episodes=len(t.weight),
        n_patients=len(names),
        ess=float(ess[-1]),
        ess_per_step=tuple(ess.tolist()),
        largest_share=largest,
        mean_weight=float(t.weight[:, -1].mean()),
        mean_weight_per_step=tuple(t.weight.mean(axis=0).tolist()),
        unsupported=unsupported,
    )


def unsupported_share(target: Float[np.ndarray, "n a"], behaviour: Float[np.ndarray, "n a"], floor: float) -> float:
    """Mean over states of the target's probability, beyond the clinicians', on actions with b(a|s) < floor."""
    total = 0.0
    for first in range(0, len(target), _ROWS):
        rows = slice(first, first + _ROWS)
        excess = np.maximum(target[rows] - behaviour[rows], 0) * (behaviour[rows] < floor)
        total += float(excess.sum(dtype=np.float64))
    return total / len(target)


def calibration_error(
    behaviour: Float[np.ndarray, "n a"], action: Int[np.ndarray, "n"], n_bins: int = 10
) -> Float[np.ndarray, "a"]:
    """Expected calibration error of each action's probability, as a probability (0.05 = 5 points).

    States are grouped by the predicted probability (`n_bins` groups of equal width); the error is the mean
    over states of their group's |mean prediction - observed share|. One group asks only that each action be
    chosen as often as predicted.
    """
    n, n_actions = behaviour.shape
    if n_bins == 1:
        error: np.ndarray = np.abs(behaviour.mean(axis=0) - np.bincount(action, minlength=n_actions) / n)
        return error
    gap = np.zeros((n_actions, n_bins))
    for a in range(n_actions):
        group = np.minimum((behaviour[:, a] * n_bins).astype(np.int64), n_bins - 1)
        gap[a] = np.bincount(group, behaviour[:, a] - (action == a), n_bins)
    errors: np.ndarray = np.abs(gap).sum(axis=1) / n
    return errors


def by_drug(
    behaviour: Float[np.ndarray, "n a"], action: Int[np.ndarray, "n"], shape: tuple[int, int], n_bins: int = 10
) -> dict[str, list[dict[str, float]]]:
    """Each drug's dose bins: how often they were chosen, how often predicted, and their calibration error.

    `shape`: fluid bins, vasopressor bins; action = fluid bin times the vasopressor's bins plus the vasopressor bin.
    """
    joint = behaviour.reshape(len(behaviour), *shape)
    out = {}
    for name, marginal, chosen in (
        ("fluid", joint.sum(axis=2), action // shape[1]),
        ("vasopressor", joint.sum(axis=1), action % shape[1]),
    ):
        errors, count = calibration_error(marginal, chosen, n_bins), np.bincount(chosen, minlength=marginal.shape[1])
        predicted = marginal.mean(axis=0, dtype=np.float64)
        out[name] = [
            {"bin": b, "count": int(count[b]), "predicted": float(predicted[b]),
             "observed": float(count[b] / len(action)), "error": float(errors[b])}
            for b in range(marginal.shape[1])
        ]  # fmt: skip
    return out


@dataclass(frozen=True)
class Subgroup:
    """How well the behaviour model is calibrated among some decisions."""

    feature: str
    low: float | None
    high: float | None
    """Values in [low, high); None where the feature has names instead."""
    label: str | None
    patients: int
    decisions: int
    by_drug: Mapping[str, list[dict[str, float | None]]] | None
    """As `by_drug`; None where too few patients are in it, and nulls for bins that too few decisions have."""


def by_subgroup(
    behaviour: Float[np.ndarray, "n a"],
    action: Int[np.ndarray, "n"],
    patient: Int[np.ndarray, "n"],
    shape: tuple[int, int],
    groups: Iterable[Group],
    smallest: int,
) -> list[Subgroup]:
    """Calibration within each group of decisions; cells of fewer than `smallest` are empty."""
    found = []
    for group in groups:
        rows = group.rows
        patients, bins = len(np.unique(patient[rows])), None
        if patients >= smallest:
            told = by_drug(behaviour[rows], action[rows], shape)
            bins = {drug: [_large(one, smallest) for one in each] for drug, each in told.items()}
        low, high = (group.low, group.high) if group.label is None else (None, None)
        found.append(Subgroup(group.feature, low, high, group.label, patients, int(rows.sum()), bins))
    return found


def _large(one: Mapping[str, float], smallest: int) -> dict[str, float | None]:
    return {key: value if key == "bin" or one["count"] >= smallest else None for key, value in one.items()}


def _largest(weight: np.ndarray, place: np.ndarray, n_patients: int, total: float) -> float:
    if total == 0:
        return 1.0
    return float(np.bincount(place, weight, n_patients).max() / total)
