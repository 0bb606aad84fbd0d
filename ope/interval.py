"""Interval: one bootstrap over patients, shared by estimators and policies, so that differences are paired."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32
from scipy.special import ndtri

_CHUNK = 1 << 20  # draws held at once


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
        drawn = rng.integers(0, n_patients, size=(rows, n_patients))
        drawn += np.arange(rows)[:, None] * n_patients
        yield (np.bincount(drawn.ravel(), minlength=rows * n_patients).reshape(rows, n_patients).astype(np.float32))


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


def minimum_detectable(spread: float, ess: float, level: float, power: float = 0.8) -> float:
    """The smallest true benefit that a two-sided test would find with this power: (z_level + z_power) sd / sqrt(ESS).

    `spread` is the standard deviation of the episodes' returns.
    """
    return float((ndtri(0.5 + level / 2) + ndtri(power)) * spread / np.sqrt(ess))
