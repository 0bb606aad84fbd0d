"""Hazards: how often a policy would do what harms (policy.hazards), and how often clinicians did, with intervals.

A state counts only where its values were measured, never where they were imputed; a decision only where the dose of its
window could be read whole.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from ope import interval
from ope.divergence import Grid
from ope.importance import divide
from ope.interval import Interval
from ope.trajectories import by_patient
from policy.hazards import HAZARDS as HAZARDS
from policy.hazards import exposure as exposed_states
from policy.hazards import harmful


@dataclass(frozen=True)
class Decisions:
    """What was known and done at each decision, in clinical units; NaN where not measured."""

    map: Float[np.ndarray, "n"]
    cvp: Float[np.ndarray, "n"]
    lactate: Float[np.ndarray, "n"]
    balance_ml: Float[np.ndarray, "n"]
    fluid_ml_h: Float[np.ndarray, "n"]
    """Given by the clinicians in the window, as a rate."""
    vasopressor_ug_kg_min: Float[np.ndarray, "n"]
    action: Int[np.ndarray, "n"]
    previous_action: Int[np.ndarray, "n"]
    """-1 at an episode's first decision."""
    unread: Bool[np.ndarray, "n"]
    """More ran in the window than could be read: fluid, vasopressor and action are a part of the dose."""
    unread_before: Bool[np.ndarray, "n"]
    """The same of the window before."""


@dataclass(frozen=True)
class Hazard:
    """One hazard's rate per 100 decisions whose dose was read; where it was possible does not depend on the policy."""

    name: str
    exposed: int
    """Decisions in whose state the hazard was possible."""
    clinicians: Interval
    clinicians_binned: float
    """With the typical dose of the bin in place of the dose given: what binning alone does to the count."""
    policy: Interval
    difference: Interval
    """Policy minus clinicians (both binned), paired over patients."""


def exposure(d: Decisions) -> Bool[np.ndarray, "n h"]:
    """Whether each decision's state allows each hazard; comparisons with NaN or with a dose partly read are False."""
    before = np.where(d.unread_before, -1, d.previous_action)
    exposed: np.ndarray = exposed_states(d.map, d.cvp, d.lactate, d.balance_ml, before) & ~d.unread[:, None]
    return exposed


def clinicians(d: Decisions, doses: Grid) -> Bool[np.ndarray, "n h"]:
    """Hazards that happened, by the doses given."""
    change = _bin(d.action, doses) - _bin(d.previous_action, doses)
    happened: np.ndarray = exposure(d) & harmful(d.fluid_ml_h, d.vasopressor_ug_kg_min, change)
    return happened


def policy(d: Decisions, probs: Float[np.ndarray, "n a"], doses: Grid, step_hours: float) -> Float32[np.ndarray, "n h"]:
    """The probability of each hazard at each decision, were the policy to choose; a bin counts as its typical dose."""
    bins = doses.shape[1]
    n_actions = len(doses.fluid_ml) * bins
    fluid, vasopressor = np.divmod(np.arange(n_actions), bins)
    rate, level = doses.fluid_ml[fluid] / step_hours, doses.vasopressor_ug_kg_min[vasopressor]
    exposed, previous = exposure(d), _bin(d.previous_action, doses)
    out: np.ndarray = np.empty(exposed.shape, np.float32)
    for before in np.unique(previous):  # the state matters through the last bin alone
        rows = previous == before
        out[rows] = probs[rows] @ harmful(rate, level, vasopressor - before).astype(np.float32)
    out *= exposed
    return out


def rates(
    d: Decisions,
    of_policy: Float32[np.ndarray, "n h"],
    doses: Grid,
    step_hours: float,
    episode: Int[np.ndarray, "n"],
    patient: Int[np.ndarray, "e"],
    level: float = 0.95,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> list[Hazard]:
    """Rates per 100 decisions of the policy and the clinicians, resampled over patients together.

    Decisions whose own dose is unread are in neither count nor denominator.
    """
    n_actions = len(doses.fluid_ml) * doses.shape[1]
    logged = clinicians(d, doses)
    binned = policy(d, np.eye(n_actions, dtype=np.float32)[d.action], doses, step_hours)
    width = len(HAZARDS)
    columns = np.column_stack([logged, binned, of_policy, ~d.unread]).astype(np.float64)
    first = np.searchsorted(episode, np.arange(len(patient)))
    sums = by_patient(np.add.reduceat(columns, first, axis=0), patient)
    resampled = interval.replicate_sums(sums, n_bootstrap, seed)
    total = 100 * divide(sums.sum(axis=0)[:-1], sums[:, -1:].sum(axis=0))
    draws = 100 * divide(resampled[:, :-1], resampled[:, -1:])
    exposed = exposure(d).sum(axis=0)

    def found(value: float, replicates: Float[np.ndarray, "b"]) -> Interval:
        return interval.percentile(float(value), replicates, level, (-100.0, 100.0))

    return [
        Hazard(
            name,
            int(exposed[k]),
            found(total[k], draws[:, k]),
            float(total[width + k]),
            found(total[2 * width + k], draws[:, 2 * width + k]),
            found(total[2 * width + k] - total[width + k], draws[:, 2 * width + k] - draws[:, width + k]),
        )
        for k, name in enumerate(HAZARDS)
    ]


def of_table(columns: Mapping[str, np.ndarray]) -> Decisions:
    """Decisions from columns of the trajectories, in their order; imputed values become NaN, a volume a rate."""

    def measured(name: str) -> Float[np.ndarray, "n"]:
        return np.where(columns[f"{name}_imputed"], np.nan, columns[name]).astype(np.float64)

    previous, unread = columns["previous_action"].astype(np.int64), columns["dose_unknown"].astype(bool)
    return Decisions(
        map=measured("map"),
        cvp=columns["cvp"].astype(np.float64),
        lactate=measured("lactate"),
        balance_ml=columns["fluid_balance_total"].astype(np.float64),
        fluid_ml_h=columns["fluid_ml"] / columns["duration_h"],
        vasopressor_ug_kg_min=columns["vasopressor_ug_kg_min"].astype(np.float64),
        action=columns["action"].astype(np.int64),
        previous_action=previous,
        unread=unread,
        unread_before=np.r_[False, unread[:-1]] & (previous >= 0),
    )


COLUMNS = (
    "map",
    "map_imputed",
    "lactate",
    "lactate_imputed",
    "cvp",
    "fluid_balance_total",
    "fluid_ml",
    "duration_h",
    "vasopressor_ug_kg_min",
    "action",
    "previous_action",
    "dose_unknown",
)
"""Columns of the trajectories that `of_table` needs."""


def _bin(action: Int[np.ndarray, "n"], doses: Grid) -> Int[np.ndarray, "n"]:
    """The vasopressor bin; 0 where there is no action yet (the first decision is not exposed to a change)."""
    bins: np.ndarray = np.where(action >= 0, action % doses.shape[1], 0)
    return bins
