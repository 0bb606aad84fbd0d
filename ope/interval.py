"""Interval: one bootstrap over patients, shared by estimators and policies, so that differences are paired."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Int
from scipy.special import ndtri

_CHUNK = 1 << 19  # draws held at once


@dataclass(frozen=True)
class Interval:
    """A value with its bootstrap interval."""

    value: float
    low: float
    high: float


def replicate_sums(columns: Float[np.ndarray, "p k"], n_bootstrap: int, seed: int) -> Float[np.ndarray, "b k"]:
    """Column sums in each resample of the patients, with replacement.

    The resamples depend on the seed, the number of patients and `n_bootstrap` alone: two policies evaluated
    on the same patients with the same seed share them row by row. Columns are brought to a largest magnitude
    of 1 for the product, so that weights of any size neither overflow nor vanish in float32.
    """
    scale = np.abs(columns).max(axis=0)
    scale[scale == 0] = 1.0
    unit = (columns / scale).astype(np.float32)
    out: np.ndarray = np.empty((n_bootstrap, columns.shape[1]))
    row = 0
    for counts in resample_counts(len(columns), n_bootstrap, seed):
        out[row : row + len(counts)] = counts @ unit
        row += len(counts)
    out *= scale
    return out


def resample_counts(n_patients: int, n_bootstrap: int, seed: int) -> Iterator[Float32[np.ndarray, "b p"]]:
    """How often each patient is drawn in each resample, some resamples at a time."""
    rng = np.random.default_rng([seed, n_patients])
    chunk = max(1, _CHUNK // n_patients)
    for first in range(0, n_bootstrap, chunk):
        rows = min(chunk, n_bootstrap - first)
        counts = np.empty((rows, n_patients), np.float32)
        for row, drawn in enumerate(rng.integers(0, n_patients, size=(rows, n_patients))):
            counts[row] = np.bincount(drawn, minlength=n_patients)
        yield counts


def percentile(
    value: float, replicates: Float[np.ndarray, "b"], level: float, attainable: tuple[float, float]
) -> Interval:
    """The percentile interval.

    A replicate in which no weight is left (NaN) counts as the lowest attainable value for the lower end and
    as the highest for the upper end: what is not known widens the interval.
    """
    tail = (1 - level) / 2
    undefined = np.isnan(replicates)
    low = np.quantile(np.where(undefined, attainable[0], replicates), tail)
    high = np.quantile(np.where(undefined, attainable[1], replicates), 1 - tail)
    return Interval(value, float(low), float(high))


def symmetric(
    value: float, replicates: Float[np.ndarray, "b"], level: float, attainable: tuple[float, float]
) -> Interval:
    """value less and plus z times the root mean square distance of its replicates, z that of the normal distribution.

    A replicate in which no weight is left (NaN) counts as in `percentile`.
    """
    undefined, z = np.isnan(replicates), ndtri(0.5 + level / 2)
    low, high = (
        float(z * np.sqrt(np.square(np.where(undefined, end, replicates) - value).mean())) for end in attainable
    )
    return Interval(value, value - low, value + high)


def minimum_detectable(spread: float, ess: float, level: float, power: float = 0.8) -> float:
    """The smallest true benefit that a two-sided test would find with this power: (z_level + z_power) sd / sqrt(ESS).

    `spread` is the standard deviation of the episodes' returns.
    """
    return float((ndtri(0.5 + level / 2) + ndtri(power)) * spread / np.sqrt(ess))


def rank_probabilities(replicates: Float[np.ndarray, "b m"]) -> Float[np.ndarray, "m m"]:
    """How often each of m policies (rows) comes first, second, ... (columns) over the shared resamples."""
    place = (-replicates).argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")
    n, m = replicates.shape
    return np.stack([np.bincount(place[:, policy], minlength=m) / n for policy in range(m)])


def simultaneous(value: Float[np.ndarray, "m"], replicates: Float[np.ndarray, "b m"], level: float) -> list[Interval]:
    """Intervals that hold all m values at once (max-T): value +- c se, c the quantile of a resample's largest |t|."""
    error = replicates.std(axis=0, ddof=1)
    deviation = _standardised(np.abs(replicates - value), error).max(axis=1)
    width = np.quantile(deviation, level) * error
    return [Interval(float(v), float(v - w), float(v + w)) for v, w in zip(value, width, strict=True)]


def _standardised(top: Float[np.ndarray, "b m"], bottom: Float[np.ndarray, "m"]) -> Float[np.ndarray, "b m"]:
    """top / bottom; 0 where bottom is 0 (a value that no resample moves)."""
    quotient: np.ndarray = np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0)
    return quotient


def lower_bound(x: Float[np.ndarray, "p"], largest: float, level: float) -> float:
    """Empirical Bernstein lower bound of a mean of independent values in [0, largest] (Maurer and Pontil 2009, th. 4).

    mean - sqrt(2 var ln(2/d) / n) - 7 largest ln(2/d) / (3 (n - 1)), d = 1 - level; it holds for any distribution.

    Raises:
        ValueError: fewer than two values, or one outside the range.
    """
    n = len(x)
    if n < 2 or x.min() < 0 or x.max() > largest * (1 + 1e-9):
        raise ValueError("an empirical Bernstein bound needs two or more values within 0..largest")
    log = np.log(2 / (1 - level))
    return float(x.mean() - np.sqrt(2 * x.var(ddof=1) * log / n) - 7 * largest * log / (3 * (n - 1)))


def high_confidence(
    weight: Float[np.ndarray, "e"],
    returns: Float[np.ndarray, "e"],
    patient: Int[np.ndarray, "e"],
    attainable: tuple[float, float],
    clip: float,
    level: float,
) -> float:
    """A lower bound of the policy's value that holds with probability `level` whatever the tails.

    Of importance sampling with weights clipped at `clip`, returns shifted to be non-negative (a clipped mean is then
    below the true one) and averaged per patient. It takes the behaviour probabilities as known. At clinical sizes it
    lies below the clinicians' mean even for better policies: it is printed, never a gate.
    """
    low, high = attainable
    shifted = np.minimum(weight, clip) * (returns - low)
    names, place = np.unique(patient, return_inverse=True)
    per_patient = np.bincount(place, shifted, len(names)) / np.bincount(place, minlength=len(names))
    return low + lower_bound(per_patient, clip * (high - low), level)
