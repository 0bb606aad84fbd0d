"""Tabular: finite-horizon decision problems small enough for exact values, and logs drawn or enumerated from them."""

from dataclasses import dataclass
from fractions import Fraction
from math import lcm

import numpy as np
from jaxtyping import Float, Int

from cohort.episodes import Episodes


@dataclass(frozen=True)
class Problem:
    """A finite-horizon Markov decision process; probability missing from a row of `transition` ends the episode."""

    start: Float[np.ndarray, "s"]
    transition: Float[np.ndarray, "s a s"]
    reward: Float[np.ndarray, "s a"]
    """Mean reward of an action, its ending included."""
    horizon: int
    spread: Float[np.ndarray, "s a"] | None = None
    """Standard deviation of the reward; None: rewards are their means. Drawn as mean plus or minus it, evenly."""

    @property
    def n_states(self) -> int:
        """States, the end not counted."""
        return len(self.start)

    @property
    def n_actions(self) -> int:
        """Actions."""
        return int(self.reward.shape[1])


@dataclass(frozen=True)
class Log:
    """Logged episodes and the (state, step) of each row, by which tables of probabilities and values are looked up."""

    episodes: Episodes
    place: Int[np.ndarray, "n"]
    step: Int[np.ndarray, "n"]


def q_values(problem: Problem, policy: Float[np.ndarray, "s a"], gamma: float) -> Float[np.ndarray, "t s a"]:
    """Q of a policy at each step, by backward induction: Q_t = r + gamma P (pi . Q_{t+1}), 0 at the horizon."""
    q = np.zeros((problem.horizon + 1, *problem.reward.shape))
    for t in range(problem.horizon - 1, -1, -1):
        q[t] = problem.reward + gamma * problem.transition @ (policy * q[t + 1]).sum(axis=1)
    return q[:-1]


def value(problem: Problem, policy: Float[np.ndarray, "s a"], gamma: float) -> float:
    """The exact expected discounted return of a policy."""
    return float(problem.start @ (policy * q_values(problem, policy, gamma)[0]).sum(axis=1))


def draw(problem: Problem, policy: Float[np.ndarray, "s a"], n: int, rng: np.random.Generator) -> Log:
    """Sample n episodes of a policy; all at once, step by step."""
    ends = np.concatenate([problem.transition, 1 - problem.transition.sum(axis=2, keepdims=True)], axis=2)
    place = _choose(np.broadcast_to(problem.start, (n, problem.n_states)), rng)
    alive, rows = np.arange(n), []
    for t in range(problem.horizon):
        action = _choose(policy[place], rng)
        rows.append(np.stack([alive, np.full(len(alive), t), place, action]))
        following = _choose(ends[place, action], rng)
        keep = following < problem.n_states
        alive, place = alive[keep], following[keep]
        if not len(alive):
            break
    episode, step, places, actions = np.concatenate(rows, axis=1)
    order = np.lexsort((step, episode))
    log = _log(problem, episode[order], step[order], places[order], actions[order])
    return log if problem.spread is None else _noisy(problem, problem.spread, log, rng)


def enumerate_all(problem: Problem, policy: Float[np.ndarray, "s a"]) -> Log:
    """Every possible episode of a policy, as many times as makes its share exactly its probability.

    Over such a log means are expectations, so that an unbiased or consistent estimator gives the exact value.
    Probabilities must be fractions of small denominators.
    """
    paths = _paths(problem, policy)
    common = lcm(*(probability.denominator for _, probability in paths))
    copies = [int(probability * common) for _, probability in paths]
    flat = [path for (path, _), count in zip(paths, copies, strict=True) for _ in range(count)]
    length = np.array([len(path) for path in flat])
    places, actions = np.array([pair for path in flat for pair in path]).T
    step = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
    return _log(problem, np.repeat(np.arange(len(flat)), length), step, places, actions)


Path = tuple[tuple[int, int], ...]


def _paths(problem: Problem, policy: Float[np.ndarray, "s a"]) -> list[tuple[Path, Fraction]]:
    finished: list[tuple[Path, Fraction]] = []
    open_: list[tuple[Path, int, Fraction]] = [
        ((), s, _fraction(p)) for s, p in enumerate(problem.start.tolist()) if p > 0
    ]
    for t in range(problem.horizon):
        longer: list[tuple[Path, int, Fraction]] = []
        for path, s, probability in open_:
            for a in np.flatnonzero(policy[s]).tolist():
                taken, share = (*path, (s, a)), probability * _fraction(policy[s, a])
                following = problem.transition[s, a]
                ends = share * (1 - sum((_fraction(p) for p in following.tolist()), Fraction()))
                if t == problem.horizon - 1:
                    finished.append((taken, share))
                    continue
                if ends:
                    finished.append((taken, ends))
                longer += [(taken, s2, share * _fraction(following[s2])) for s2 in np.flatnonzero(following).tolist()]
        open_ = longer
    return finished


def _fraction(probability: float) -> Fraction:
    return Fraction(float(probability)).limit_denominator(1000)


def _log(problem: Problem, episode: np.ndarray, step: np.ndarray, place: np.ndarray, action: np.ndarray) -> Log:
    state = np.stack([place, step], axis=1).astype(np.float32)
    reward = problem.reward[place, action]
    count = len(np.unique(episode))
    episodes = Episodes.from_arrays(
        state, action, reward, episode, np.ones(count, bool), n_actions=problem.n_actions, features=("place", "step")
    )
    return Log(episodes, place, step)


def _noisy(problem: Problem, spread: Float[np.ndarray, "s a"], log: Log, rng: np.random.Generator) -> Log:
    kept, at = log.episodes, (log.place, log.episodes.action)
    reward = problem.reward[at] + spread[at] * rng.choice([-1.0, 1.0], kept.n)
    noisy = Episodes.from_arrays(
        kept.state, kept.action, reward, kept.episode, kept.terminated, n_actions=kept.n_actions, features=kept.features
    )
    return Log(noisy, log.place, log.step)


def _choose(probability: Float[np.ndarray, "n k"], rng: np.random.Generator) -> Int[np.ndarray, "n"]:
    below = probability.cumsum(axis=1) <= rng.random((len(probability), 1))
    index: np.ndarray = np.minimum(below.sum(axis=1), probability.shape[1] - 1)
    return index
