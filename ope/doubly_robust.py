"""Doubly robust: estimators that correct a model's Q with importance weights.

q, v: Q of the logged action and sum_a pi(a|s) Q(s, a), both 0 after an episode's end; w_{-1} = 1. Sources:
Jiang and Li 2016 (dr); Thomas and Brunskill 2016 (wdr, magic).
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from scipy.linalg import solve_triangular
from scipy.optimize import nnls

from ope.importance import divide, mean_of
from ope.interval import replicate_sums
from ope.trajectories import Sums, Trajectories

_MAGIC_RESAMPLES = 200


def dm(t: Trajectories) -> Sums:
    """Direct method: (1/n) sum_i V(s_0). As good as the model; ignores the logged actions."""
    _, v = _model(t)
    return mean_of(v[:, 0])


def dr(t: Trajectories) -> Sums:
    """Doubly robust: (1/n) sum_i sum_t gamma^t [w_t (r_t - q_t) + w_{t-1} v_t].

    Unbiased with any Q where the behaviour probabilities are true.
    """
    q, v = _model(t)
    return mean_of((t.weight * (t.reward - q) + t.weight_before * v) @ t.discount)


def wdr(t: Trajectories) -> Sums:
    """Weighted doubly robust: dr with each step's weights divided by their sum, 1/n before the first step."""
    q, v = _model(t)
    horizon = t.reward.shape[1]
    columns = np.concatenate(
        [t.weight * (t.reward - q) * t.discount, t.weight_before * v * t.discount, _with_ones(t.weight)],
        axis=1,
    )

    def combine(sums: Float[np.ndarray, "b k"]) -> Float[np.ndarray, "b"]:
        correction, model, total = np.split(sums, [horizon, 2 * horizon], axis=1)
        value: np.ndarray = (divide(correction, total[:, 1:]) + divide(model, total[:, :-1])).sum(axis=1)
        return value

    return Sums(columns, combine)


def magic(t: Trajectories) -> Sums:
    """Model and guided importance sampling combined: the blend of j-step returns of least estimated error.

    The return of length j corrects the model over steps 0..j and trusts it from there on: j = -1 is dm, the
    last is wdr. The blend x on the simplex minimises x'(Omega + b b')x: Omega the covariance of the returns
    over episodes (scaled by n, as they are sums of n parts), b each return's distance from wdr's 90%
    bootstrap interval. Resamples keep x.
    """
    q, v = _model(t)
    horizon = t.reward.shape[1]
    corrections, values, weights = (
        t.weight * (t.reward - q) * t.discount,
        t.weight_before * v * t.discount,
        _with_ones(t.weight),
    )
    columns = np.concatenate([corrections, values, weights], axis=1)

    def returns(sums: Float[np.ndarray, "b k"]) -> Float[np.ndarray, "b j"]:
        correction, model, total = np.split(sums, [horizon, 2 * horizon], axis=1)
        return _j_step(divide(correction, total[:, 1:]), divide(model, total[:, :-1]))

    total = weights.sum(axis=0)
    parts = _j_step(divide(corrections, total[1:]), divide(values, total[:-1]))
    ranked = columns[np.argsort(parts[:, -1], kind="stable")]  # so that the order of episodes changes nothing
    blend = _blend(parts, replicate_sums(ranked, _MAGIC_RESAMPLES, seed=0), returns)
    return Sums(columns, lambda sums: returns(sums) @ blend)


def simplex_minimiser(matrix: Float[np.ndarray, "j j"]) -> Float[np.ndarray, "j"]:
    """The x >= 0 with sum 1 that minimises x' matrix x, for a positive semi-definite matrix.

    Up to its scale x solves min y' matrix y / 2 - sum(y) over y >= 0, which non-negative least squares does
    exactly.
    """
    scale = np.trace(matrix)
    if scale <= 0:  # every return has no error: the plain wdr, the last
        last: np.ndarray = np.eye(len(matrix))[-1]
        return last
    upper = np.linalg.cholesky(matrix / scale + 1e-12 * np.eye(len(matrix))).T
    solution, _ = nnls(upper, solve_triangular(upper, np.ones(len(matrix)), trans="T"), maxiter=100 * len(matrix))
    minimiser: np.ndarray = solution / solution.sum()
    return minimiser


def _blend(
    parts: Float[np.ndarray, "e j"],
    resampled: Float[np.ndarray, "b k"],
    returns: Callable[[Float[np.ndarray, "b k"]], Float[np.ndarray, "b j"]],
) -> Float[np.ndarray, "j"]:
    """MAGIC's weights; all NaN where a step has no weight left."""
    value = parts.sum(axis=0)
    spread = returns(resampled)[:, -1]
    if np.isnan(value).any() or np.isnan(spread).all():
        return np.full(len(value), np.nan)
    low, high = np.nanquantile(spread, [0.05, 0.95])
    bias = value - np.clip(value, low, high)
    centred = parts - parts.mean(axis=0)
    covariance = centred.T @ centred * len(parts) / max(len(parts) - 1, 1)
    return simplex_minimiser(covariance + np.outer(bias, bias))


def _j_step(correction: Float[np.ndarray, "b t"], model: Float[np.ndarray, "b t"]) -> Float[np.ndarray, "b j"]:
    """Returns of length -1..T-1: corrections of steps 0..j plus the model's steps 0..j+1."""
    corrected = np.concatenate([np.zeros((len(correction), 1)), np.cumsum(correction, axis=1)], axis=1)
    modelled = np.cumsum(model, axis=1)
    total: np.ndarray = corrected + np.concatenate([modelled, modelled[:, -1:]], axis=1)
    return total


def _with_ones(weight: Float[np.ndarray, "e t"]) -> Float[np.ndarray, "e t1"]:
    return np.concatenate([np.ones((len(weight), 1)), weight], axis=1)


def _model(t: Trajectories) -> tuple[Float[np.ndarray, "e t"], Float[np.ndarray, "e t"]]:
    if t.q is None or t.v is None:
        raise TypeError("these trajectories carry no Q")
    return t.q, t.v
