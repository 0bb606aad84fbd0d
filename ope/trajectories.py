"""Trajectories: logged episodes under the padding contract, with what estimators need of a target policy."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from cohort.episodes import Episodes


@dataclass(frozen=True)
class Trajectories:
    """Episodes padded to the longest: a finished one keeps its weight; its reward, Q and V are then 0.

    It so stays in every denominator. Where a cut-off episode has a `final_value`, that value is the reward
    (and Q, and V) of one more step with ratio 1, so that every estimator bootstraps from it in the same way.
    """

    weight: Float[np.ndarray, "e t"]
    """Cumulative importance ratio, steps 0..t included."""
    reward: Float[np.ndarray, "e t"]
    q: Float[np.ndarray, "e t"] | None
    """Q of the logged action under the target policy."""
    v: Float[np.ndarray, "e t"] | None
    """Expected Q under the target policy's probabilities."""
    gamma: float

    @property
    def discount(self) -> Float[np.ndarray, "t"]:
        """gamma to the power of the step."""
        power: np.ndarray = self.gamma ** np.arange(self.reward.shape[1])
        return power

    @property
    def weight_before(self) -> Float[np.ndarray, "e t"]:
        """Cumulative ratio of the steps before each step; 1 at the first."""
        return np.concatenate([np.ones((len(self.weight), 1)), self.weight[:, :-1]], axis=1)

    @property
    def returns(self) -> Float[np.ndarray, "e"]:
        """Discounted return of each episode as it was logged."""
        total: np.ndarray = self.reward @ self.discount
        return total


@dataclass(frozen=True)
class Sums:
    """An estimator as a function of sums over episodes: resampling and leaving out are exact and cheap."""

    columns: Float[np.ndarray, "e k"]
    combine: Callable[[Float[np.ndarray, "b k"]], Float[np.ndarray, "b"]]
    """From (b, k) sums to b values; NaN where a replicate has no weight left."""

    @property
    def value(self) -> float:
        """The estimate over all episodes."""
        return float(self.combine(self.columns.sum(axis=0)[None])[0])


def pad(
    episodes: Episodes,
    ratio: Float[np.ndarray, "n"],
    gamma: float,
    q: Float[np.ndarray, "n"] | None = None,
    v: Float[np.ndarray, "n"] | None = None,
    final_value: Float[np.ndarray, "e"] | None = None,
) -> Trajectories:
    """Lay steps out as (episode, step); `ratio`: target over behaviour probability of the logged action."""
    bootstraps = final_value is not None and not episodes.terminated.all()
    horizon = int(episodes.length.max()) + bootstraps
    inside = np.arange(horizon) < episodes.length[:, None]
    cut = np.flatnonzero(~episodes.terminated)

    def layout(column: np.ndarray, after: float, tail: np.ndarray | None) -> np.ndarray:
        out = np.full(inside.shape, after)
        out[inside] = column
        if bootstraps and tail is not None:
            out[cut, episodes.length[cut]] = tail[cut]
        return out

    with np.errstate(over="ignore", invalid="ignore"):  # an overflowing weight is found by `overlap.measure` and named
        weight = np.cumprod(layout(ratio, 1.0, None), axis=1)
    return Trajectories(
        weight,
        layout(episodes.reward, 0.0, final_value),
        None if q is None else layout(q, 0.0, final_value),
        None if v is None else layout(v, 0.0, final_value),
        float(gamma),
    )


def by_patient(columns: Float[np.ndarray, "e k"], patient: Int[np.ndarray, "e"]) -> Float[np.ndarray, "p k"]:
    """Sum an estimator's columns over the episodes of each patient (in ascending order of patient)."""
    names, place = np.unique(patient, return_inverse=True)
    if len(names) == len(patient):
        out = np.empty_like(columns)
        out[place] = columns
        return out
    order = np.argsort(place, kind="stable")
    first = np.searchsorted(place[order], np.arange(len(names)))
    return np.add.reduceat(columns[order], first, axis=0)


def attainable(episodes: Episodes, gamma: float) -> tuple[float, float]:
    """The lowest and highest discounted return that the logged rewards allow from any step on.

    An episode is up to T-1 inner rewards and one last reward, each between the least and the greatest logged of its
    kind; T is the longest episode's length, or without end where some episodes were cut off.
    """
    last = episodes.terminal
    inner, end = (episodes.reward[rows].astype(np.float64) if rows.any() else np.zeros(1) for rows in (~last, last))
    power = gamma ** np.arange(int(episodes.length.max()))
    before = np.r_[0.0, np.cumsum(power)[:-1]]  # sum of the discounts of the inner rewards before the last
    low, high = (before * inner.min() + power * end.min()).min(), (before * inner.max() + power * end.max()).max()
    if not episodes.terminated.all():
        with np.errstate(divide="ignore", invalid="ignore"):
            forever = np.nan_to_num(
                np.array([inner.min(), inner.max()]) / (1 - gamma), nan=0.0, posinf=np.inf, neginf=-np.inf
            )
        low, high = min(low, forever[0]), max(high, forever[1])
    return float(low), float(high)
