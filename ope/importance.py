"""Importance sampling: estimators that need only the two policies' probabilities of the logged actions.

w_t = product over k <= t of pi(a_k|s_k) / b(a_k|s_k), G = sum_t gamma^t r_t, n episodes; sources: Precup,
Sutton and Singh 2000; Thomas 2015 (consistent weighted per-decision). A finished episode keeps its last
weight (see `trajectories`).
"""

import numpy as np
from jaxtyping import Float

from ope.trajectories import Sums, Trajectories


def is_(t: Trajectories) -> Sums:
    """Importance sampling: (1/n) sum_i w_T G. Unbiased, of high variance, not bounded by the returns seen."""
    return mean_of(t.weight[:, -1] * t.returns)


def wis(t: Trajectories) -> Sums:
    """Weighted importance sampling: sum_i w_T G / sum_i w_T. Biased towards the clinicians at small ESS."""
    last = t.weight[:, -1]
    return Sums(np.stack([last * t.returns, last], axis=1), _ratio)


def pdis(t: Trajectories) -> Sums:
    """Per-decision importance sampling: (1/n) sum_i sum_t gamma^t w_t r_t. Unbiased."""
    return mean_of((t.weight * t.reward) @ t.discount)


def cwpdis(t: Trajectories) -> Sums:
    """Consistent weighted per-decision: sum_t gamma^t (sum_i w_t r_t) / (sum_i w_t), i over all episodes."""
    horizon = t.reward.shape[1]

    def combine(sums: Float[np.ndarray, "b k"]) -> Float[np.ndarray, "b"]:
        value: np.ndarray = divide(sums[:, :horizon], sums[:, horizon:]).sum(axis=1)
        return value

    return Sums(np.concatenate([t.weight * t.reward * t.discount, t.weight], axis=1), combine)


def logged(t: Trajectories) -> Sums:
    """The clinicians' own mean return."""
    return mean_of(t.returns)


def mean_of(contribution: Float[np.ndarray, "e"]) -> Sums:
    """The mean over episodes of one number each."""
    return Sums(np.stack([contribution, np.ones_like(contribution)], axis=1), _ratio)


def divide(top: Float[np.ndarray, "..."], bottom: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Elementwise quotient; NaN, not an error, where no weight is left (0/0)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        quotient: np.ndarray = np.where(bottom != 0, top / bottom, np.nan)
    return quotient


def _ratio(sums: Float[np.ndarray, "b k"]) -> Float[np.ndarray, "b"]:
    return divide(sums[:, 0], sums[:, 1])
