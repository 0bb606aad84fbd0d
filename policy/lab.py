"""Lab: offline RL broken on purpose, on problems small enough that the right answer is known; curves for the pages."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float
from scipy.optimize import brentq

from cohort.episodes import Episodes
from cohort.errors import ConfigError
from policy import base, filtered_bc, monitor
from policy.base import Policy

Removed = Literal["conservatism", "stitching", "advantage weighting"]

OPTIONS: Mapping[str, Any] = {
    "hidden": (32,),
    "batch": 48,
    "learning_rate": 1e-2,
    "holdout": 0.0,
    "gamma": 1.0,
}
CLINICIANS: Mapping[str, Any] = {
    "hidden": (16,),
    "batch": 64,
    "learning_rate": 1e-2,
    "updates": 400,
    "min_updates": 0,
    "holdout": 0.0,
}
"""Options of the behaviour models on these problems."""
OWN_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "awac": {"target_rate": 0.05},
    "iql": {"target_rate": 0.05},
    "conservative_iql": {"target_rate": 0.05, "behaviour": CLINICIANS},
    "bear": {"target_rate": 0.05, "behaviour": CLINICIANS, "eps": 1.0},
    "dpo": {"behaviour": CLINICIANS},
    "filtered_bc": {"top_percent": 60.0},
    **{name: {"target_update_interval": 20} for name in ("cql", "bcq", "dqn", "sac")},
}

UNGUARDED: Mapping[str, Any] = {"n_critics": 1, "target_update_interval": 1, "learning_rate": 0.1, "batch": 16}
"""Double DQN without the twin critics and slow target that hide how its errors feed on themselves."""


@dataclass(frozen=True)
class Trajectory:
    """One way through a graph: named states, the action taken in each, and the reward on the last step."""

    states: tuple[str, ...]
    actions: tuple[int, ...]
    reward: float


STITCHING = (
    Trajectory(("s1", "s3", "s5"), (0, 0, 0), 3.0),  # s1 -> s3 -> s5 -> s7
    Trajectory(("s4", "s3", "s6"), (0, 1, 0), 10.0),  # s4 -> s3 -> s6 -> s9
    Trajectory(("s1", "s2"), (1, 0), 5.0),  # s1 -> s2 -> s8, which the guide's own graph lacks
)
"""The guide's stitching graph and a third way: the best from s1 (0, then 1 at s3: 10) is in no trajectory."""


@dataclass(frozen=True)
class Curve:
    """What one learner reaches as it trains."""

    label: str
    update: tuple[int, ...]
    value: tuple[float, ...]
    """The policy's exact return on the problem."""
    q_max: tuple[float, ...]
    """The largest value it believes in; empty for learners without values."""


@dataclass(frozen=True)
class Break:
    """One ablation: the whole method and the broken one, against the known answer."""

    removed: Removed
    whole: Curve
    broken: Curve
    best: float
    """The best return that the data allow."""
    logged: float
    """The mean return of the logged episodes."""


@dataclass(frozen=True)
class Compared:
    """A row of the method comparison, measured."""

    learner: str
    stitching: float
    """Return from s1 on the stitching graph, as a share of the best, 10."""
    unseen: float
    """Mean probability of actions that no record of that state has."""
    excess: float
    """How far the largest value lies above what the rewards allow, in attainable ranges; 0 without values."""


def graph(paths: Sequence[Trajectory], copies: int, n_actions: int = 2) -> tuple[Episodes, dict[str, np.ndarray]]:
    """Episodes of ways through a graph, each repeated, and the one-hot state of every name."""
    names = sorted({name for path in paths for name in path.states})
    one_hot = {name: row for name, row in zip(names, np.eye(len(names), dtype=np.float32), strict=True)}
    every = [path for path in paths for _ in range(copies)]
    episodes = Episodes.from_arrays(
        state=np.stack([one_hot[name] for path in every for name in path.states]),
        action=np.array([action for path in every for action in path.actions]),
        reward=np.concatenate([np.r_[np.zeros(len(path.states) - 1), path.reward] for path in every]),
        episode=np.repeat(np.arange(len(every)), [len(path.states) for path in every]),
        terminated=np.ones(len(every), bool),
        n_actions=n_actions,
    )
    return episodes, one_hot


def options(name: str, updates: int) -> dict[str, Any]:
    """A learner's options on these problems."""
    return {**OPTIONS, **OWN_OPTIONS.get(name, {}), "updates": updates}


def gridworld(
    size: int, gamma: float, step_reward: float = 0.0
) -> tuple[Float[np.ndarray, "r c"], Float[np.ndarray, "r c 4"]]:
    """Optimal V and Q of a square grid whose last corner ends the episode with reward 1; moves: up, right, down, left.

    Raises:
        ConfigError: fewer than 2 squares a side, or gamma outside 0..1.
    """
    if size < 2 or not 0 <= gamma < 1:
        raise ConfigError(f"gridworld: size {size} must be at least 2 and gamma {gamma:g} in 0..1 (1 left out)")
    value, q = np.zeros((size, size)), np.zeros((size, size, 4))
    row, column = np.indices((size, size))
    moves = ((-1, 0), (0, 1), (1, 0), (0, -1))
    goal = (size - 1, size - 1)
    for _ in range(10_000):
        for k, (down, right) in enumerate(moves):
            r, c = np.clip(row + down, 0, size - 1), np.clip(column + right, 0, size - 1)
            arrived = (r == goal[0]) & (c == goal[1])
            q[..., k] = np.where(arrived, 1.0, step_reward + gamma * value[r, c])
        q[goal] = 0.0
        best = q.max(axis=2)
        if np.abs(best - value).max() < 1e-12:
            break
        value = best
    return value, q


def overestimation(epsilon: float, gamma: float, backups: int, states: int = 6) -> tuple[Float[np.ndarray, "k"], float]:
    """The largest value error after each backup, on a ring of states where an error of `epsilon` joins every backup.

    Every state has a logged action of true value 0 and an action never logged, whose value is extrapolated from the
    next state's best plus `epsilon`; nothing in the data corrects it.

    Returns:
        the error before the first backup and after each, and its limit epsilon / (1 - gamma).
    """
    q = np.zeros((states, 2))
    q[:, 1] = epsilon
    errors = [float(np.abs(q).max())]
    for _ in range(backups):
        following = np.roll(q.max(axis=1), -1)
        q = np.stack([gamma * following, epsilon + gamma * following], axis=1)
        errors.append(float(np.abs(q).max()))
    return np.array(errors), monitor.compounded_error(epsilon, gamma)


def filtered(returns: Float[np.ndarray, "e"], top_percent: float) -> tuple[Bool[np.ndarray, "e"], float, float]:
    """Which trajectories filtered cloning keeps, the least return kept, and the kept ones' mean (what it can reach)."""
    kept = filtered_bc.best(returns, top_percent)
    return kept, float(returns[kept].min()), float(returns[kept].mean())


def advantage_weights(returns: Float[np.ndarray, "n"], alpha: float) -> Float[np.ndarray, "n"]:
    """AWR's normalised weights exp((R - mean R) / alpha), unclipped; alpha must be above 0."""
    if alpha <= 0:
        raise ConfigError(f"alpha {alpha:g} must be above 0")
    scaled = (returns - returns.max()) / alpha
    weight: np.ndarray = np.exp(scaled) / np.exp(scaled).sum()
    return weight


def expectile(values: Float[np.ndarray, "n"], tau: float) -> float:
    """The tau-expectile: tau E(X - m)+ = (1 - tau) E(m - X)+ (first moments); tau 0.5 is the mean."""
    if not 0 < tau < 1:
        raise ConfigError(f"tau {tau:g} must lie strictly between 0 and 1")
    low, high = float(values.min()), float(values.max())
    if low == high:
        return low

    def balance(m: float) -> float:
        return float(tau * np.maximum(values - m, 0).sum() - (1 - tau) * np.maximum(m - values, 0).sum())

    return float(brentq(balance, low, high, xtol=1e-12))


def broken(removed: Removed, updates: Sequence[int] = (25, 50, 100, 200, 400), seed: int = 0) -> Break:
    """Train a whole method and the same without one component, on a problem with a known answer.

    conservatism: conservative IQL against double DQN where most actions were never tried and all of those are harmful.
    stitching: IQL (temporal differences) against AWR (Monte Carlo returns) on the stitching graph.
    advantage weighting: AWR against behaviour cloning where half of the logged decisions were bad.

    Raises:
        ConfigError: an unknown component, or no updates.
    """
    if not updates or min(updates) < 1:
        raise ConfigError("lab: updates must name at least one positive number")
    if removed == "conservatism":
        problem, names, best = _untried(), ("conservative_iql", "dqn"), 1.0
    elif removed == "stitching":
        problem, names, best = graph(STITCHING, 30)[0], ("iql", "awr"), 10.0
    elif removed == "advantage weighting":
        problem, names, best = _half_bad(), ("awr", "bc"), 1.0
    else:
        raise ConfigError(f"lab: cannot remove {removed!r}")
    score = {"conservatism": _untried_return, "stitching": expected_return, "advantage weighting": _half_bad_return}
    extra = UNGUARDED if removed == "conservatism" else {}
    curves = [_curve(name, problem, score[removed], updates, seed, extra if name == "dqn" else {}) for name in names]
    logged = float(problem.returns_to_go(1.0)[problem.start].mean())
    return Break(removed, curves[0], curves[1], best, logged)


def compare(learners: Sequence[str] | None = None, updates: int = 400, seed: int = 0) -> list[Compared]:
    """The guide's method comparison, measured: on the stitching graph, and where most actions are untried."""
    rows = []
    for name in base.LEARNERS if learners is None else learners:
        stitched = base.fit(name, graph(STITCHING, 30)[0], options(name, updates), seed)
        problem = _untried()
        policy = base.fit(name, problem, options(name, updates), seed)
        probs = policy.probs(problem.state)
        excess = 0.0
        if policy.critic is not None:
            bound = monitor.bound(problem, 1.0)
            excess = max(0.0, float(policy.q(problem.state).max()) - bound.high) / (bound.high - bound.low)
        rows.append(Compared(name, greedy_return(stitched) / 10.0, float(probs[:, TRIED:].sum(1).mean()), excess))
    return rows


def expected_return(policy: Policy) -> float:
    """Mean return on the stitching graph from s1, by the policy's own probabilities."""
    first, second = _at_forks(policy)
    return float(first[1] * 5.0 + first[0] * (second[0] * 3.0 + second[1] * 10.0))


def greedy_return(policy: Policy) -> float:
    """Return on the stitching graph from s1 by the likeliest action; all actions there are in the data."""
    first, second = _at_forks(policy)
    if first[1] > first[0]:
        return 5.0
    return 10.0 if second[1] > second[0] else 3.0


TRIED = 2
"""Of the actions in `_untried`, the first two are in the records."""


def _at_forks(policy: Policy) -> Float[np.ndarray, "2 a"]:
    _, state = graph(STITCHING, 1)
    return policy.probs(np.stack([state["s1"], state["s3"]])).astype(np.float64)


def _untried(patients: int = 15, steps: int = 12, n_actions: int = 25) -> Episodes:
    """Of 25 actions only 0 and 1 were ever used, at random; the return says how often the right one was (-1 to 1)."""
    rng = np.random.default_rng(1)
    state = rng.normal(size=(patients, steps, 2))
    action = rng.integers(0, TRIED, (patients, steps))
    reward = np.zeros((patients, steps))
    reward[:, -1] = 2.0 * (action == (state[..., 0] > 0)).mean(1) - 1.0
    return Episodes.from_arrays(
        state.reshape(-1, 2), action.reshape(-1), reward.reshape(-1), np.repeat(np.arange(patients), steps),
        np.ones(patients, bool), n_actions=n_actions,
    )  # fmt: skip


def _untried_return(policy: Policy) -> float:
    """Its mean return on fresh states; an action that was never tried is as bad as the wrong one."""
    state = np.random.default_rng(2).normal(size=(500, 2))
    right = policy.probs(state)[np.arange(len(state)), (state[:, 0] > 0).astype(int)]
    return float(2.0 * right.mean() - 1.0)


def _half_bad() -> Episodes:
    return graph([Trajectory(("s",), (0,), -1.0), Trajectory(("s",), (1,), 1.0)], 60)[0]


def _half_bad_return(policy: Policy) -> float:
    return float(2.0 * policy.probs(np.ones((1, 1)))[0, 1] - 1.0)


def _curve(
    name: str,
    problem: Episodes,
    score: Callable[[Policy], float],
    updates: Sequence[int],
    seed: int,
    extra: Mapping[str, Any],
) -> Curve:
    """Runs of the same seed share their beginning, so each length is a point on one training curve."""
    values, largest = [], []
    for count in updates:
        policy = base.fit(name, problem, {**options(name, count), **extra}, seed)
        values.append(score(policy))
        if policy.critic is not None:
            largest.append(float(policy.q(problem.state).max()))
    return Curve(name, tuple(updates), tuple(values), tuple(largest))
