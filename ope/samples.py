"""Samples: an estimate with its joint bootstrap replicates, and the interval and the differences that follow from them.

An interval is the value less and plus z times the distance of its replicates, and what two rules add to that, because
a sample from which rare, weighty patients are missing shows neither that it is wrong nor how much:

- the mean weight should be 1, so where it is below 1 the rest is the weight of patients who were not seen; their
  return may have been the least or the greatest of those seen;
- an estimate that is biased (by dividing by the weights found, or by leaning on a model) also spans the interval of
  the estimate that corrects it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from cohort.episodes import Episodes
from ope import doubly_robust, importance, interval
from ope.interval import Interval
from ope.trajectories import Sums, Trajectories, by_patient

Estimator = Callable[[Trajectories], Sums]
CORRECTION: Mapping[str, tuple[str, Estimator]] = {
    "wis": ("is", importance.is_),
    "cwpdis": ("pdis", importance.pdis),
    "wdr": ("dr", doubly_robust.dr),
    "dm": ("wdr", doubly_robust.wdr),
    "magic": ("wdr", doubly_robust.wdr),
}
"""Of the biased estimators: the one whose interval theirs spans."""
WEIGHTED = ("is", "wis", "pdis", "cwpdis", "dr", "wdr")
"""Means over weights, which miss something where weight is missing; dm has none, magic has what wdr misses."""


@dataclass(frozen=True)
class Sample:
    """An estimator's value and its bootstrap replicates, in the order all estimators and policies share."""

    value: float
    replicates: Float[np.ndarray, "b"]
    unseen: tuple[float, float] = (0.0, 0.0)
    """How far down and up the patients whose weight is missing might have moved the value."""
    correction: "Sample | None" = None
    """The estimate that would correct this one."""


def sample(
    t: Trajectories, episodes: Episodes, estimators: Mapping[str, Estimator], n_bootstrap: int, seed: int
) -> dict[str, Sample]:
    """Values and joint bootstrap replicates of several estimators, one pass over the resamples."""
    needed = dict(estimators)
    for name in estimators:
        while name in CORRECTION and CORRECTION[name][0] not in needed:
            name, estimator = CORRECTION[name]
            needed[name] = estimator
    sums = {name: estimator(t) for name, estimator in needed.items()}
    columns = np.concatenate([one.columns for one in sums.values()], axis=1)
    kept, place = _distinct(columns)
    replicated = interval.replicate_sums(by_patient(columns[:, kept], episodes.patient), n_bootstrap, seed)
    out, first = {}, 0
    for name, one in sums.items():
        own = place[first : first + one.columns.shape[1]]
        room = _unseen(one.value, t) if name in WEIGHTED else (0.0, 0.0)
        out[name] = Sample(one.value, one.combine(replicated[:, own]), room)
        first += len(own)
    return {name: _with_correction(name, out) for name in estimators}


def interval_of(one: Sample, level: float, allowed: tuple[float, float]) -> Interval:
    """The interval of one value; `allowed`: what stands in for a replicate in which no weight is left."""
    found = _reaching(interval.symmetric(one.value, one.replicates, level, allowed), one.unseen)
    return found if one.correction is None else _spanning(found, interval_of(one.correction, level, allowed))


def simultaneous(several: Sequence[Sample], level: float) -> list[Interval]:
    """Intervals that hold all values at once (max-T), wider for the same reasons as that of a single one."""
    value = np.array([one.value for one in several])
    found = interval.simultaneous(value, np.stack([one.replicates for one in several], axis=1), level)
    found = [_reaching(own, one.unseen) for own, one in zip(found, several, strict=True)]
    corrections = [one.correction for one in several if one.correction is not None]
    if len(corrections) < len(several):
        return found
    return [_spanning(own, other) for own, other in zip(found, simultaneous(corrections, level), strict=True)]


def less(one: Sample, other: Sample) -> Sample:
    """`one` minus `other`, resample by resample, their corrections likewise."""
    correction = None
    if one.correction is not None:
        correction = less(one.correction, other.correction or other)
    unseen = (one.unseen[0] + other.unseen[1], one.unseen[1] + other.unseen[0])
    return Sample(one.value - other.value, one.replicates - other.replicates, unseen, correction)


def with_model_error(sample: Sample, members: Float[np.ndarray, "m"]) -> Sample:
    """Add the members' deviations to the direct method's replicates: resampling patients leaves the model fixed."""
    if len(members) < 2:
        return sample
    deviation = (members - members.mean()) * np.sqrt(len(members) / (len(members) - 1))
    return replace(sample, replicates=sample.replicates + np.resize(deviation, len(sample.replicates)))


def _with_correction(name: str, samples: Mapping[str, Sample]) -> Sample:
    if name not in CORRECTION:
        return samples[name]
    return replace(samples[name], correction=_with_correction(CORRECTION[name][0], samples))


def _unseen(value: float, t: Trajectories) -> tuple[float, float]:
    """Where the mean weight is 1 - m, a share m of the value is of patients of unknown return."""
    missing, returns = max(0.0, 1 - float(t.weight[:, -1].mean())), t.returns
    return missing * max(0.0, value - float(returns.min())), missing * max(0.0, float(returns.max()) - value)


def _reaching(found: Interval, unseen: tuple[float, float]) -> Interval:
    return Interval(found.value, found.low - unseen[0], found.high + unseen[1])


def _spanning(found: Interval, other: Interval) -> Interval:
    return Interval(found.value, min(found.low, other.low), max(found.high, other.high))


def _distinct(columns: Float[np.ndarray, "e k"]) -> tuple[list[int], Int[np.ndarray, "k"]]:
    """Columns that differ, and where among them each column is: estimators share weights and counts."""
    kept: list[int] = []
    seen: dict[float, list[int]] = {}
    place = np.empty(columns.shape[1], np.int64)
    for k, total in enumerate(columns.sum(axis=0).tolist()):
        twins = seen.setdefault(total, [])
        found = next((at for at in twins if np.array_equal(columns[:, kept[at]], columns[:, k])), None)
        if found is None:
            found = len(kept)
            twins.append(found)
            kept.append(k)
        place[k] = found
    return kept, place
