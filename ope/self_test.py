"""Self-test: exact small problems that every evaluation replays before it says anything about patients."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from cohort.episodes import Episodes
from ope import tabular
from ope.estimates import ESTIMATORS, evaluate
from ope.tabular import Problem

TOLERANCE = 1e-6
WITHOUT_MODEL = ("is", "wis", "pdis", "cwpdis")
ANY_MODEL = ("dr", "wdr")


@dataclass(frozen=True)
class Check:
    """One oracle."""

    name: str
    passed: bool
    worst_error: float
    """Largest |estimate - exact value| over the estimators it tests."""
    estimators: tuple[str, ...]


def run() -> list[Check]:
    """Replay every oracle; fast (tens of milliseconds) and without randomness."""
    return [_check(name, oracle) for name, oracle in ORACLES.items()]


def model_win() -> Problem:
    """Thomas and Brunskill 2016: the first state's actions lead to +1 with 0.4 or 0.6, else to -1; shortened to 4."""
    transition = np.zeros((3, 2, 3))
    transition[0, 0, 1:], transition[0, 1, 1:] = (0.4, 0.6), (0.6, 0.4)
    transition[1:, :, 0] = 1
    return Problem(np.eye(3)[0], transition, np.array([[0.0, 0], [1, 1], [-1, -1]]), horizon=4)


def model_fail() -> Problem:
    """Thomas and Brunskill 2016: one action leads to +1, the other to -1, and an observer cannot tell the states."""
    transition = np.zeros((3, 2, 3))
    transition[0, 0, 1] = transition[0, 1, 2] = 1
    return Problem(np.eye(3)[0], transition, np.array([[0.0, 0], [1, 1], [-1, -1]]), horizon=2)


def early_end() -> Problem:
    """Half of the episodes end at each step, more often and better after one action: lengths differ."""
    transition = np.array([[[0.25, 0.5], [0.25, 0.25]], [[0.5, 0.25], [0.0, 0.5]]])
    return Problem(np.array([0.5, 0.5]), transition, np.array([[0.25, 1.0], [-0.5, 0.75]]), horizon=3)


BEHAVIOUR = np.array([0.75, 0.25])
TARGET = np.array([0.25, 0.75])
Errors = Iterator[tuple[str, float]]


def _win() -> Errors:
    """True Q: every estimator exact. Value by hand: two decisions worth 0.4 p(second) - ... = 0.2 (1 - 2/4) each."""
    problem, gamma = model_win(), 0.5
    exact = 0.1 * (gamma + gamma**3)
    policy = _everywhere(problem, TARGET)
    if abs(tabular.value(problem, policy, gamma) - exact) > TOLERANCE:
        yield "exact value", abs(tabular.value(problem, policy, gamma) - exact)
    yield from _errors(problem, gamma, exact, tuple(ESTIMATORS), tabular.q_values(problem, policy, gamma))


def _fail() -> Errors:
    """A model that cannot see the state is wrong (0 instead of -1/2); what corrects it is not misled."""
    problem = model_fail()
    blind = np.zeros((2, 3, 2))
    yield from _errors(problem, 1.0, -0.5, (*WITHOUT_MODEL, *ANY_MODEL), blind)
    yield from _errors(problem, 1.0, 0.0, ("dm",), blind)


def _lengths() -> Errors:
    """Episodes of different lengths, and a wrong Q: only the padding contract makes cwpdis and wdr exact."""
    problem, gamma = early_end(), 0.5
    exact = tabular.value(problem, _everywhere(problem, TARGET), gamma)
    wrong = np.arange(12.0).reshape(3, 2, 2)
    yield from _errors(problem, gamma, exact, (*WITHOUT_MODEL, *ANY_MODEL), wrong)


def _same() -> Errors:
    """Target = behaviour: the mean return."""
    log = tabular.enumerate_all(early_end(), _everywhere(early_end(), BEHAVIOUR))
    probs = np.tile(BEHAVIOUR, (log.episodes.n, 1))
    mean = float(log.episodes.returns_to_go(0.5)[log.episodes.start].mean())
    for one in evaluate(log.episodes, probs, probs, 0.5, n_bootstrap=2, gates=False):
        yield one.estimator, _distance(one.value, mean)
        yield one.estimator, abs(one.ess - log.episodes.n_episodes)


def _terminal_only() -> Errors:
    """Reward at the end only: pdis is is."""
    problem = model_win()
    log = tabular.enumerate_all(problem, _everywhere(problem, BEHAVIOUR))
    episodes = log.episodes
    last = np.where(episodes.last, episodes.reward, 0)
    kept = Episodes.from_arrays(
        episodes.state, episodes.action, last, episodes.episode, episodes.terminated, n_actions=2
    )
    target, behaviour = (np.tile(probs, (kept.n, 1)) for probs in (TARGET, BEHAVIOUR))
    found = evaluate(kept, target, behaviour, 0.5, estimators=("is", "pdis"), n_bootstrap=2, gates=False)
    yield "pdis", _distance(found[0].value, found[1].value)


def _padding() -> Errors:
    """Returns of 1 and 1 in episodes of length 1 and 3: dropping the finished one would give 1.5 and more."""
    reward, episode = np.array([1.0, 0.0, 0.0, 1.0]), np.array([0, 1, 1, 1])
    episodes = Episodes.from_arrays(np.zeros((4, 1)), np.zeros(4, int), reward, episode, np.ones(2, bool), n_actions=2)
    probs, q = np.full((4, 2), 0.5), np.zeros((4, 2))
    for one in evaluate(episodes, probs, probs, 1.0, q, (*WITHOUT_MODEL, *ANY_MODEL), n_bootstrap=2, gates=False):
        yield one.estimator, _distance(one.value, 1.0)


ORACLES: dict[str, Callable[[], Errors]] = {
    "model_win": _win,
    "model_fail": _fail,
    "unequal_lengths": _lengths,
    "target_is_behaviour": _same,
    "terminal_only_reward": _terminal_only,
    "padding_trap": _padding,
}


def _check(name: str, oracle: Callable[[], Errors]) -> Check:
    errors = list(oracle())
    worst = max(error for _, error in errors)
    return Check(name, worst <= TOLERANCE, worst, tuple(dict.fromkeys(estimator for estimator, _ in errors)))


def _errors(
    problem: Problem, gamma: float, exact: float, estimators: tuple[str, ...], q: Float[np.ndarray, "t s a"]
) -> Errors:
    log = tabular.enumerate_all(problem, _everywhere(problem, BEHAVIOUR))
    target, behaviour = (np.tile(probs, (log.episodes.n, 1)) for probs in (TARGET, BEHAVIOUR))
    table = q[log.step, log.place]
    for one in evaluate(log.episodes, target, behaviour, gamma, table, estimators, n_bootstrap=2, gates=False):
        yield one.estimator, _distance(one.value, exact)


def _distance(found: float | None, exact: float | None) -> float:
    return float("inf") if found is None or exact is None else abs(found - exact)


def _everywhere(problem: Problem, probs: Float[np.ndarray, "a"]) -> Float[np.ndarray, "s a"]:
    table: np.ndarray = np.tile(probs, (problem.n_states, 1))
    return table
