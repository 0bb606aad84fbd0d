"""Textbook: the guide's small problems, whose answers are exact: what its sliders and drawings show."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float
from scipy.optimize import brentq

from cohort.errors import ConfigError
from policy import filtered_bc, monitor


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

GUIDE = STITCHING[:2]
"""The guide's graph itself."""
MOVES = ("up", "right", "down", "left")
STEPS = ((-1, 0), (0, 1), (1, 0), (0, -1))
"""Of the gridworld, in rows and columns."""


@dataclass(frozen=True)
class Stitched:
    """What Monte Carlo and temporal differences make of a graph's trajectories."""

    edges: tuple[tuple[str, int, str], ...]
    """(state, action, next state); the last state of trajectory k is called `end k`."""
    monte_carlo: dict[str, float]
    """V(s): the mean return of the trajectories through s, from there on."""
    temporal_difference: dict[str, float]
    """V(s) where every state bootstraps from the next and takes the tau-expectile over its logged actions."""
    q: dict[tuple[str, int], float]
    """Q(s, a) beside it, of logged actions."""
    best: dict[str, float]
    """V(s) of the best way that pieces of the trajectories can be joined to."""
    cloned: tuple[str, ...]
    """The states from the start on when in each the action of the best single trajectory from there is repeated."""
    stitched: tuple[str, ...]
    """The same by the greatest Q."""


@dataclass(frozen=True)
class Weighted:
    """AWR at one temperature."""

    advantage: Float[np.ndarray, "n"]
    raw: Float[np.ndarray, "n"]
    """exp(A / alpha)."""
    weight: Float[np.ndarray, "n"]
    """Normalised: they sum to 1."""
    effective: float
    """1 / sum of squared weights: n where all count alike, 1 where one decides."""


@dataclass(frozen=True)
class Exploited:
    """The guide's first steps of the feedback loop, for one action that no record has."""

    estimate: float
    """What the network believes of it: truth plus error."""
    chosen: bool
    """Whether a greedy policy picks it over the logged actions."""
    target: float
    """gamma times what the next state is believed to be worth: what a backup adds to the reward."""
    right_target: float
    limit: float
    """Largest error after endlessly many backups: error / (1 - gamma)."""


@dataclass(frozen=True)
class Rounds:
    """A gridworld learned by some who go on collecting, and by others who have a fixed log; means over all of them."""

    online: tuple[float, ...]
    """Exact return of the greedy policy from the first corner after each round; new episodes are its own."""
    online_seen: tuple[float, ...]
    """Moves (a square and a direction) known after each round."""
    offline: float
    """The same return with the log alone, however often it is gone over."""
    offline_seen: float
    best: float


def gridworld(
    size: int, gamma: float, step_reward: float = 0.0
) -> tuple[Float[np.ndarray, "r c"], Float[np.ndarray, "r c 4"]]:
    """Optimal V and Q of a square grid whose last corner ends the episode with reward 1; moves as `MOVES`.

    Raises:
        ConfigError: fewer than 2 squares a side, or gamma outside 0..1.
    """
    if size < 2 or not 0 <= gamma < 1:
        raise ConfigError(f"gridworld: size {size} must be at least 2 and gamma {gamma:g} in 0..1 (1 left out)")
    value, q = np.zeros((size, size)), np.zeros((size, size, 4))
    row, column = np.indices((size, size))
    goal = (size - 1, size - 1)
    for _ in range(10_000):
        for k, (down, right) in enumerate(STEPS):
            r, c = np.clip(row + down, 0, size - 1), np.clip(column + right, 0, size - 1)
            arrived = (r == goal[0]) & (c == goal[1])
            q[..., k] = np.where(arrived, 1.0, step_reward + gamma * value[r, c])
        q[goal] = 0.0
        best = q.max(axis=2)
        if np.abs(best - value).max() < 1e-12:
            break
        value = best
    return value, q


def rounds(logged: int, count: int = 10, size: int = 5, gamma: float = 0.9, repeats: int = 20, seed: int = 0) -> Rounds:
    """Learn `gridworld` in rounds of 3 episodes with new data, and from `logged` episodes without.

    The log is a random walk's; so is the first online round, later ones follow the best known way seven times in ten.
    Both learn the exact values of what they saw, and take no move that they never saw.

    Raises:
        ConfigError: no logged episode, no round, or no repetition.
    """
    if min(logged, count, repeats) < 1:
        raise ConfigError(f"rounds: logged {logged}, count {count} and repeats {repeats} must be at least 1")
    online, online_seen = _collecting(count, size, gamma, repeats, seed)
    alone, seen = [], []
    for repeat in range(repeats):
        rng = np.random.default_rng([seed, repeat, 1])
        known = _seen(rng, size, np.zeros((size * size, 4)), 1.0, logged)
        alone.append(_return(_known_values(known, size, gamma), size, gamma))
        seen.append(int(known.sum()))
    best = _return(gridworld(size, gamma)[1].reshape(-1, 4), size, gamma)
    return Rounds(online, online_seen, float(np.mean(alone)), float(np.mean(seen)), best)


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


def weighted(returns: Float[np.ndarray, "n"], alpha: float) -> Weighted:
    """AWR's weights exp((R - mean R) / alpha), unclipped.

    Raises:
        ConfigError: alpha is not above 0.
    """
    if alpha <= 0:
        raise ConfigError(f"alpha {alpha:g} must be above 0")
    advantage = returns - returns.mean()
    relative = np.exp((advantage - advantage.max()) / alpha)
    weight = relative / relative.sum()
    with np.errstate(over="ignore"):
        return Weighted(advantage, np.exp(advantage / alpha), weight, float(1.0 / (weight**2).sum()))


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


def stitch(
    paths: Sequence[Trajectory] = STITCHING, tau: float = 0.9, gamma: float = 1.0, start: str = "s1"
) -> Stitched:
    """Value the states of an acyclic graph both ways, exactly, and walk it from `start`.

    Raises:
        ConfigError: tau or gamma out of range, or `start` in no trajectory.
    """
    if not 0 < tau < 1 or not 0 <= gamma <= 1:
        raise ConfigError(f"stitch: tau {tau:g} must lie strictly between 0 and 1, and gamma {gamma:g} in 0..1")
    steps = [step for k, path in enumerate(paths) for step in _steps(path, k, gamma)]
    states = sorted({step.state for step in steps})
    if start not in states:
        raise ConfigError(f"stitch: {start!r} is in no trajectory; known: {', '.join(states)}")
    value, best = dict.fromkeys(states, 0.0), dict.fromkeys(states, 0.0)
    q: dict[tuple[str, int], float] = {}
    for _ in states:  # acyclic: as many rounds as states carry every reward to the front
        q = {(step.state, step.action): step.reward + gamma * value.get(step.following, 0.0) for step in steps}
        for state in states:
            mine = [step for step in steps if step.state == state]
            value[state] = expectile(np.array([q[state, step.action] for step in mine]), tau)
            best[state] = max(step.reward + gamma * best.get(step.following, 0.0) for step in mine)
    returns = {state: [step.to_go for step in steps if step.state == state] for state in states}
    greedy = {state: max((key for key in q if key[0] == state), key=lambda key: q[key])[1] for state in states}
    copied = {state: max((s for s in steps if s.state == state), key=lambda s: s.to_go).action for state in states}
    whole = max((path for path in paths if path.states[0] == start), key=lambda path: path.reward, default=None)
    return Stitched(
        tuple(dict.fromkeys((step.state, step.action, step.following) for step in steps)),
        {state: float(np.mean(found)) for state, found in returns.items()},
        value,
        q,
        best,
        _walk(start, copied if whole is None else dict(zip(whole.states, whole.actions, strict=True)), steps),
        _walk(start, greedy, steps),
    )


def exploited(logged: Sequence[float], truth: float, error: float, gamma: float) -> Exploited:
    """The loop's first round: `logged` values of recorded actions, and one action of value `truth` misjudged."""
    estimate = truth + error
    return Exploited(
        estimate,
        estimate > max(logged),
        gamma * max(estimate, *logged),
        gamma * max(truth, *logged),
        monitor.compounded_error(error, gamma),
    )


@dataclass(frozen=True)
class _Step:
    state: str
    action: int
    following: str
    reward: float
    to_go: float


def _steps(path: Trajectory, k: int, gamma: float) -> list[_Step]:
    count = len(path.states)
    following = (*path.states[1:], f"end {k}")
    return [
        _Step(
            path.states[i],
            path.actions[i],
            following[i],
            path.reward if i == count - 1 else 0.0,
            gamma ** (count - 1 - i) * path.reward,
        )
        for i in range(count)
    ]


def _walk(start: str, action: dict[str, int], steps: Sequence[_Step]) -> tuple[str, ...]:
    way = [start]
    while way[-1] in action:
        way.append(next(s.following for s in steps if s.state == way[-1] and s.action == action[way[-1]]))
    return tuple(way)


@lru_cache(maxsize=4)
def _collecting(
    count: int, size: int, gamma: float, repeats: int, seed: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean return, and mean number of known moves, after each round of those who go on collecting."""
    found, seen = np.zeros((repeats, count)), np.zeros((repeats, count))
    for repeat in range(repeats):
        rng = np.random.default_rng([seed, repeat, 0])
        known, q = np.zeros((size * size, 4), bool), np.zeros((size * size, 4))
        for k in range(count):
            known |= _seen(rng, size, np.maximum(q, 0.0), 1.0 if k == 0 else 0.3, 3)
            q = _known_values(known, size, gamma)
            found[repeat, k], seen[repeat, k] = _return(q, size, gamma), known.sum()
    return tuple(found.mean(axis=0).tolist()), tuple(seen.mean(axis=0).tolist())


def _move(square: int, action: int, size: int) -> int:
    row, column = divmod(square, size)
    down, right = STEPS[action]
    return min(max(row + down, 0), size - 1) * size + min(max(column + right, 0), size - 1)


def _seen(
    rng: np.random.Generator, size: int, q: Float[np.ndarray, "s 4"], chance: float, episodes: int, longest: int = 25
) -> Bool[np.ndarray, "s 4"]:
    """The moves that episodes from the first corner try: the best by `q`, or by this chance any."""
    seen = np.zeros((size * size, 4), bool)
    for _ in range(episodes):
        square = 0
        for _ in range(longest):
            best = np.flatnonzero(q[square] == q[square].max())
            action = int(rng.integers(4) if rng.random() < chance else rng.choice(best))
            seen[square, action] = True
            square = _move(square, action, size)
            if square == size * size - 1:
                break
    return seen


def _known_values(known: Bool[np.ndarray, "s 4"], size: int, gamma: float) -> Float[np.ndarray, "s 4"]:
    """Exact Q where only known moves may be taken; -1 of the others, so that no known one is ever worse."""
    goal = size * size - 1
    following = np.array([[_move(square, action, size) for action in range(4)] for square in range(size * size)])
    q = np.where(known, 0.0, -1.0)
    for _ in range(size * size):
        value = np.maximum(q.max(axis=1), 0.0)
        value[goal] = 0.0
        q = np.where(known, np.where(following == goal, 1.0, gamma * value[following]), -1.0)
    return q


def _return(q: Float[np.ndarray, "s 4"], size: int, gamma: float) -> float:
    """Return from the first corner of always taking the best move; 0 where that never arrives."""
    square = 0
    for step in range(size * size):
        square = _move(square, int(q[square].argmax()), size)
        if square == size * size - 1:
            return float(gamma**step)
    return 0.0
