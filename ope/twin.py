"""Twin: a tabular problem fitted to the cohort, whose exact values grade every estimator, and the grades.

States are grouped by k-means; transitions, rewards (mean and spread) and the clinicians' choices are counted per group.
In that twin a policy's true value is known, so that logs of the cohort's size can be drawn from it again and again,
and every estimator run on each: bias, error, how often its interval holds the truth, and how well it orders policies.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float, Int
from pydantic import Field
from sklearn.cluster import KMeans

from cohort.config import Config
from cohort.episodes import Episodes
from cohort.errors import InputError
from cohort.scaler import fit as fit_scaler
from cohort.workers import each
from ope import samples, tabular, treated
from ope.estimates import ESTIMATORS, NEED_Q
from ope.importance import divide
from ope.overlap import measure
from ope.tabular import Log, Problem
from ope.trajectories import attainable, pad


class TwinConfig(Config):
    """How fine the twin is and how often it is replayed."""

    groups: int = Field(default=40, ge=2, le=2000)
    repeats: int = Field(default=40, ge=2, le=10_000)
    episodes: int | None = Field(default=None, ge=2)
    """Episodes of each replay; None: as many as are evaluated, at most 2,000."""
    n_bootstrap: int = Field(default=200, ge=20)
    members: int = Field(default=4, ge=2, le=64)
    """Refits of the problem on resampled patients, for the model's own error."""
    floor: float = Field(default=1e-3, ge=0, lt=0.01)
    """Least propensity, as the clinicians' model has one."""
    pseudo_count: float = Field(default=0.1, gt=0)
    """Added to each action's count in a group, in shares of the group's mean reward and transition."""


@dataclass(frozen=True)
class Twin:
    """The fitted problem and the clinicians in it."""

    problem: Problem
    behaviour: Float[np.ndarray, "s a"]
    group: Int[np.ndarray, "n"]
    """Of each decision it was fitted to."""


@dataclass(frozen=True)
class Grade:
    """One estimator of one policy over the repeats."""

    policy: str
    estimator: str
    truth: float
    bias: float
    rmse: float
    coverage: float
    """Share of the repeats whose interval holds the truth; undefined estimates count as misses."""
    ess: float
    """Mean effective sample size."""


@dataclass(frozen=True)
class Ordering:
    """How well one estimator orders the policies, mean over the repeats."""

    estimator: str
    rank_correlation: float
    """Spearman's, between estimates and exact values."""
    regret: tuple[float, ...]
    """Exact value of the best policy less that of the best among the first 1, 2 and 3 by this estimator."""


@dataclass(frozen=True)
class Certificate:
    """The grades of all estimators on a twin of this cohort."""

    repeats: int
    episodes: int
    groups: int
    grades: tuple[Grade, ...]
    orderings: tuple[Ordering, ...]


def fit(episodes: Episodes, config: TwinConfig, seed: int) -> Twin:
    """Group the states and count.

    Raises:
        InputError: fewer decisions than groups.
    """
    if episodes.n < config.groups:
        raise InputError(f"twin groups: {config.groups} groups, but only {episodes.n} decisions")
    scaler = episodes.scaler if episodes.scaler is not None else fit_scaler(episodes.state)
    found = KMeans(config.groups, n_init=1, max_iter=20, random_state=seed).fit_predict(
        scaler.transform(episodes.state)
    )
    _, group = np.unique(found, return_inverse=True)
    return _count(episodes, group, config.pseudo_count)


def averaged(twin: Twin, probs: Float[np.ndarray, "n a"]) -> Float[np.ndarray, "s a"]:
    """A policy in the twin: its mean probabilities in each group."""
    total = np.zeros_like(twin.behaviour)
    np.add.at(total, twin.group, probs)
    table: np.ndarray = total / total.sum(axis=1, keepdims=True)
    return table


def certify(
    twin: Twin,
    policies: Mapping[str, Float[np.ndarray, "s a"]],
    estimators: Sequence[str],
    gamma: float,
    n_episodes: int,
    n_behaviour: int,
    config: TwinConfig,
    level: float,
    seed: int,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Certificate:
    """Draw logs of the clinicians in the twin, run every estimator on them for every policy, and grade.

    As in a real evaluation neither the propensities nor Q are known, nor fitted to the patients they are used on: both
    are counted on other episodes, `n_behaviour` for each `n_episodes` for the propensities (what the clinicians' model
    is fitted to) and as many as are evaluated for Q.
    """
    n = config.episodes or min(n_episodes, 2000)
    truth = {name: tabular.value(twin.problem, policy, gamma) for name, policy in policies.items()}
    value = np.full((config.repeats, len(policies), len(estimators)), np.nan)
    held, ess = np.zeros(value.shape, bool), np.zeros(value.shape[:2])
    sizes = n, max(n, round(n * n_behaviour / n_episodes))
    once = partial(_repeated, twin, policies, estimators, gamma, sizes, config, level, seed)
    for repeat, found in enumerate(each(once, range(config.repeats), workers)):
        for k, (name, (point, low, high, size)) in enumerate(zip(policies, found, strict=True)):
            value[repeat, k], ess[repeat, k] = point, size
            held[repeat, k] = (low <= truth[name]) & (truth[name] <= high)
        if progress is not None:
            progress(repeat + 1, config.repeats)
    exact = np.array(list(truth.values()))
    grades = [
        Grade(name, estimator, truth[name], *_error(value[:, k, e] - truth[name]), float(held[:, k, e].mean()),
              float(ess[:, k].mean()))
        for k, name in enumerate(policies) for e, estimator in enumerate(estimators)
    ]  # fmt: skip
    orderings = [_ordering(estimator, value[:, :, e], exact) for e, estimator in enumerate(estimators)]
    return Certificate(config.repeats, n, len(twin.behaviour), tuple(grades), tuple(orderings))


def _repeated(
    twin: Twin,
    policies: Mapping[str, Float[np.ndarray, "s a"]],
    estimators: Sequence[str],
    gamma: float,
    sizes: tuple[int, int],
    config: TwinConfig,
    level: float,
    seed: int,
    repeat: int,
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray, float]]:
    """One replay of every policy: values, lower and upper ends of the estimators, and the ESS."""
    log = tabular.draw(twin.problem, twin.behaviour, sizes[0], np.random.default_rng([seed, repeat]))
    refitted = _refitted(twin, *sizes, config, seed + 1, repeat)
    return [
        _replay(log, refitted, policy, estimators, gamma, config.n_bootstrap, level, repeat)
        for policy in policies.values()
    ]


@dataclass(frozen=True)
class _Refit:
    """What one replay believes: the clinicians, the problem, and the problem as resampled patients would have it."""

    behaviour: Float[np.ndarray, "s a"]
    problem: Problem
    members: tuple[Problem, ...]


def _refitted(twin: Twin, n: int, n_behaviour: int, config: TwinConfig, seed: int, repeat: int) -> _Refit:
    rng = np.random.default_rng([seed, repeat, 1])
    other = tabular.draw(twin.problem, twin.behaviour, n_behaviour, rng)
    s, a = twin.behaviour.shape
    counts = np.bincount(other.place * a + other.episodes.action, minlength=s * a).reshape(s, a)

    def problem(chosen: Int[np.ndarray, "n"]) -> Problem:
        part = other.episodes.select(chosen)
        group = part.state[:, 0].astype(np.int64)  # a drawn log's states are (group, step)
        return _count(part, group, config.pseudo_count, s, twin.problem.horizon).problem

    members = tuple(problem(rng.integers(0, n, n)) for _ in range(config.members))
    share = _shares(counts, config.pseudo_count)
    return _Refit((1 - a * config.floor) * share + config.floor, problem(np.arange(n)), members)


def _shares(counts: Float[np.ndarray, "s a"] | Int[np.ndarray, "s a"], pseudo: float) -> Float[np.ndarray, "s a"]:
    smoothed: np.ndarray = counts + pseudo / counts.shape[1]
    shares: np.ndarray = smoothed / smoothed.sum(axis=1, keepdims=True)
    return shares


def _replay(
    log: Log,
    refitted: _Refit,
    policy: Float[np.ndarray, "s a"],
    estimators: Sequence[str],
    gamma: float,
    n_bootstrap: int,
    level: float,
    seed: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Values, lower and upper ends of all estimators of one policy on one log, and the ESS."""
    at = (log.place, log.episodes.action)
    ratio = policy[at] / refitted.behaviour[at]
    q_logged = v = None
    if set(estimators) & set(NEED_Q):
        q = tabular.q_values(refitted.problem, policy, gamma)
        q_logged, v = q[log.step, *at], (policy * q).sum(axis=2)[log.step, log.place]
    t = pad(log.episodes, ratio, gamma, q_logged, v)
    chosen = {name: ESTIMATORS[name] for name in estimators}
    drawn = samples.sample(t, log.episodes, chosen, n_bootstrap, seed)
    if "dm" in drawn:
        first = log.place[log.episodes.start]
        values = [(policy * tabular.q_values(one, policy, gamma)[0]).sum(axis=1) for one in refitted.members]
        drawn["dm"] = samples.with_model_error(drawn["dm"], np.array([v0[first].mean() for v0 in values]))
    allowed = attainable(log.episodes, gamma)
    found = [samples.interval_of(one, level, allowed) for one in drawn.values()]
    value, low, high = (np.array([getattr(one, part) for one in found]) for part in ("value", "low", "high"))
    return value, np.where(np.isnan(value), np.inf, low), high, measure(t, log.episodes.patient).ess


def _count(
    episodes: Episodes,
    group: Int[np.ndarray, "n"],
    pseudo: float,
    groups: int | None = None,
    horizon: int | None = None,
) -> Twin:
    """Counts per group and action, drawn towards the group's mean where an action is rare."""
    s, a, limit = groups or int(group.max()) + 1, episodes.n_actions, horizon or int(episodes.length.max())
    counts, paid, squared = np.zeros((s, a)), np.zeros((s, a)), np.zeros((s, a))
    moved = np.zeros((s, a, s + 1))
    following = np.where(episodes.last, s, np.r_[group[1:], s])
    np.add.at(counts, (group, episodes.action), 1)
    np.add.at(paid, (group, episodes.action), episodes.reward)
    np.add.at(squared, (group, episodes.action), episodes.reward.astype(np.float64) ** 2)
    told = (episodes.step < limit - 1) | ~episodes.last  # at the horizon it is not seen what would have followed
    np.add.at(moved, (group[told], episodes.action[told], following[told]), 1)
    total = np.maximum(counts.sum(axis=1), 1)
    mean_paid = paid.sum(axis=1) / total
    mean_moved = divide(moved.sum(axis=1), moved.sum(axis=(1, 2))[:, None])
    mean_moved[np.isnan(mean_moved).any(axis=1)] = np.eye(s + 1)[s]
    weight = counts + pseudo
    reward = (paid + pseudo * mean_paid[:, None]) / weight
    transition = (moved + pseudo * mean_moved[:, None, :]) / (moved.sum(axis=2) + pseudo)[:, :, None]
    spread = np.sqrt(np.maximum(squared / np.maximum(counts, 1) - (paid / np.maximum(counts, 1)) ** 2, 0))
    start = np.bincount(group[episodes.start], minlength=s) / episodes.n_episodes
    behaviour = _shares(counts, pseudo)
    problem = Problem(start, transition[:, :, :s], reward, limit, spread)
    return Twin(problem, behaviour, group)


def _error(deviation: Float[np.ndarray, "r"]) -> tuple[float, float]:
    defined = deviation[~np.isnan(deviation)]
    if not len(defined):
        return float("nan"), float("nan")
    return float(defined.mean()), float(np.sqrt((defined**2).mean()))


def _ordering(estimator: str, value: Float[np.ndarray, "r m"], exact: Float[np.ndarray, "m"]) -> Ordering:
    usable = value[~np.isnan(value).any(axis=1)]
    found = [correlation for row in usable if not np.isnan(correlation := treated.rank_correlation(row, exact))]
    regrets = [[treated.regret(row, exact, k) for row in usable] for k in treated.PLACES]
    mean = [float(np.mean(each)) if each else float("nan") for each in (found, *regrets)]
    return Ordering(estimator, mean[0], tuple(mean[1:]))
