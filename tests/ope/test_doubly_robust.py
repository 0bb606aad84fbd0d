"""Doubly robust: exact values on enumerated problems, what a wrong model does, and MAGIC's blend."""

import numpy as np
import pytest

import ope
from ope import self_test, tabular
from ope.doubly_robust import simplex_minimiser
from ope.tabular import Log, Problem

BEHAVIOUR = np.array([[0.75, 0.25], [0.5, 0.5]])
TARGET = np.array([[0.25, 0.75], [0.5, 0.5]])
GAMMA = 0.5


def found(log: Log, q: np.ndarray, names: list[str], behaviour: np.ndarray = BEHAVIOUR) -> dict[str, float]:
    estimates = ope.evaluate(
        log.episodes,
        TARGET[log.place],
        behaviour[log.place],
        GAMMA,
        q[log.step, log.place],
        names,
        n_bootstrap=2,
        gates=False,
    )
    return {one.estimator: one.value for one in estimates}


@pytest.fixture(scope="module")
def problem() -> Problem:
    return self_test.early_end()


@pytest.fixture(scope="module")
def every_path(problem: Problem) -> Log:
    return tabular.enumerate_all(problem, BEHAVIOUR)


def test_the_value_of_a_two_step_problem_is_the_one_worked_by_hand() -> None:
    """Start in 0; action 1 pays 1 and ends; action 0 pays 0 and leads to 1, where both pay 2. pi = (1/4, 3/4):
    Q_0(0, 0) = gamma 2, Q_0(0, 1) = 1, value = 1/4 * 1 + 3/4 * 1 = 1 at gamma 1/2."""
    transition = np.zeros((2, 2, 2))
    transition[0, 0, 1] = 1
    tiny = Problem(np.array([1.0, 0.0]), transition, np.array([[0.0, 1.0], [2.0, 2.0]]), horizon=2)
    assert tabular.q_values(tiny, TARGET, 0.5)[0, 0].tolist() == [1.0, 1.0]
    assert tabular.value(tiny, TARGET, 0.5) == 1.0
    assert tabular.value(tiny, TARGET, 1.0) == 0.25 * 2 + 0.75 * 1


def test_the_true_q_makes_every_model_based_estimator_exact(problem: Problem, every_path: Log) -> None:
    exact = tabular.value(problem, TARGET, GAMMA)
    q = tabular.q_values(problem, TARGET, GAMMA)
    for name, value in found(every_path, q, ["dm", "dr", "wdr", "magic"]).items():
        assert value == pytest.approx(exact, abs=1e-6), name


@pytest.mark.parametrize("seed", range(5))
def test_dr_and_wdr_are_right_with_a_wrong_q_and_dm_is_not(problem: Problem, every_path: Log, seed: int) -> None:
    exact = tabular.value(problem, TARGET, GAMMA)
    wrong = np.random.default_rng(seed).normal(size=(3, 2, 2))
    values = found(every_path, wrong, ["dm", "dr", "wdr"])
    assert values["dr"] == pytest.approx(exact, abs=1e-9)
    assert values["wdr"] == pytest.approx(exact, abs=1e-9)
    assert abs(values["dm"] - exact) > 1e-3


def test_dr_is_right_with_wrong_probabilities_and_the_true_q_of_a_deterministic_problem() -> None:
    """Where rewards and transitions have no chance in them, r + gamma V(s') - Q is 0 in every row."""
    transition = np.zeros((2, 2, 2))
    transition[0, 0, 1] = 1
    tiny = Problem(np.array([1.0, 0.0]), transition, np.array([[0.0, 1.0], [2.0, 2.0]]), horizon=2)
    log = tabular.enumerate_all(tiny, BEHAVIOUR)
    q = tabular.q_values(tiny, TARGET, GAMMA)
    values = found(log, q, ["is", "dr"], behaviour=np.full((2, 2), 0.5))
    assert values["dr"] == pytest.approx(tabular.value(tiny, TARGET, GAMMA), abs=1e-9)
    assert abs(values["is"] - values["dr"]) > 0.05


def test_a_zero_model_makes_dr_pdis_and_wdr_cwpdis(problem: Problem) -> None:
    log = tabular.draw(problem, BEHAVIOUR, 200, np.random.default_rng(0))
    values = found(log, np.zeros((3, 2, 2)), ["pdis", "cwpdis", "dr", "wdr"])
    assert values["dr"] == pytest.approx(values["pdis"], abs=1e-12)
    assert values["wdr"] == pytest.approx(values["cwpdis"], abs=1e-12)


def test_with_target_as_behaviour_dr_and_wdr_are_not_the_mean_return(problem: Problem) -> None:
    log = tabular.draw(problem, BEHAVIOUR, 200, np.random.default_rng(0))
    probs = BEHAVIOUR[log.place]
    q = np.random.default_rng(1).normal(size=(3, 2, 2))[log.step, log.place]
    mean = log.episodes.returns_to_go(GAMMA)[log.episodes.start].mean()
    for one in ope.evaluate(log.episodes, probs, probs, GAMMA, q, ["dr", "wdr"], n_bootstrap=2, gates=False):
        assert abs(one.value - mean) > 1e-4, one.estimator


def test_magic_lies_between_its_ends_and_follows_the_model_where_it_is_right(problem: Problem) -> None:
    """Few episodes and the true Q: magic's error over repeats is far below wdr's with a zero model."""
    q, exact = tabular.q_values(problem, TARGET, GAMMA), tabular.value(problem, TARGET, GAMMA)
    errors = []
    for seed in range(40):
        log = tabular.draw(problem, BEHAVIOUR, 60, np.random.default_rng(seed))
        with_model = found(log, q, ["magic"])["magic"]
        errors.append((with_model - exact, found(log, np.zeros_like(q), ["wdr"])["wdr"] - exact))
    magic, weighted = np.sqrt(np.mean(np.square(errors), axis=0))
    assert magic < 0.7 * weighted


def test_magic_with_no_horizon_left_to_choose_is_the_model_or_wdr() -> None:
    """One step: returns of length -1 (dm) and 0 (wdr); both true Q, so any blend is exact."""
    bandit = Problem(np.array([1.0]), np.zeros((1, 2, 1)), np.array([[1.0, 0.0]]), horizon=1)
    log = tabular.enumerate_all(bandit, BEHAVIOUR[:1])
    values = found(log, tabular.q_values(bandit, TARGET[:1], 1.0), ["magic", "dm"])
    assert values["magic"] == pytest.approx(0.25, abs=1e-9)
    assert values["dm"] == pytest.approx(0.25, abs=1e-9)


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        (np.diag([1.0, 3.0]), [0.75, 0.25]),
        (np.array([[1.0, 2.0], [2.0, 9.0]]), [1.0, 0.0]),
        (np.diag([2.0, 2.0, 2.0]), [1 / 3, 1 / 3, 1 / 3]),
        (np.zeros((2, 2)), [0.0, 1.0]),
    ],
)
def test_the_simplex_minimiser_gives_the_hand_worked_blend(matrix: np.ndarray, expected: list[float]) -> None:
    """Independent parts weigh inversely to their variance; a part that another dominates weighs nothing."""
    assert simplex_minimiser(matrix) == pytest.approx(np.array(expected), abs=1e-6)


def test_the_simplex_minimiser_is_no_worse_than_any_other_blend() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        root = rng.normal(size=(6, 4))
        matrix = root @ root.T
        best = simplex_minimiser(matrix)
        others = rng.dirichlet(np.ones(6), 500)
        assert best.min() >= 0
        assert best.sum() == pytest.approx(1)
        assert best @ matrix @ best <= np.einsum("ij,jk,ik->i", others, matrix, others).min() + 1e-9 * np.trace(matrix)


def test_magic_turns_from_a_model_that_is_wrong(problem: Problem) -> None:
    """A model that is off by 1 everywhere has next to no variance: only the bias term can see through it."""
    q, exact = tabular.q_values(problem, TARGET, GAMMA), tabular.value(problem, TARGET, GAMMA)
    log = tabular.draw(problem, BEHAVIOUR, 2000, np.random.default_rng(0))
    values = found(log, q + 1.0, ["dm", "magic"])
    assert abs(values["dm"] - exact) > 0.9
    assert abs(values["magic"] - exact) < 0.2
