"""Influence: what an estimate would be without each patient, exactly, and how few patients it hangs on."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from ope.trajectories import Sums, by_patient


@dataclass(frozen=True)
class Influence:
    """How a difference between two estimates depends on single patients."""

    change: Float[np.ndarray, "p"]
    """Difference with all patients less the difference without each: positive = the patient speaks for the policy."""
    flips_after: int | None
    """Least number of patients whose removal, most influential first, changes the difference's sign; None: no number
    of the patients who speak for it does."""


def leave_one_out(sums: Sums, patient: Int[np.ndarray, "e"]) -> Float[np.ndarray, "p"]:
    """The estimate without each patient (in ascending order of patient): the total less the patient's own sums.

    Exact for every estimator that is a function of sums (is, wis, pdis, cwpdis, dr, wdr); MAGIC keeps its blend.
    """
    own = by_patient(sums.columns, patient)
    return sums.combine(own.sum(axis=0) - own)


def of_difference(policy: Sums, clinicians: Sums, patient: Int[np.ndarray, "e"]) -> Influence:
    """Influence of each patient on policy minus clinicians, and how many carry its sign."""
    value = policy.value - clinicians.value
    change = value - (leave_one_out(policy, patient) - leave_one_out(clinicians, patient))
    order = np.argsort(-change * np.sign(value), kind="stable")
    order = order[(change * np.sign(value))[order] > 0]
    without = _without_first(policy, patient, order) - _without_first(clinicians, patient, order)
    flipped = np.flatnonzero(without * np.sign(value) <= 0)
    return Influence(change, int(flipped[0]) + 1 if len(flipped) else None)


def _without_first(sums: Sums, patient: Int[np.ndarray, "e"], order: Int[np.ndarray, "k"]) -> Float[np.ndarray, "k"]:
    """The estimate without the first 1, 2, ... of the ordered patients."""
    own = by_patient(sums.columns, patient)
    return sums.combine(own.sum(axis=0) - np.cumsum(own[order], axis=0))
