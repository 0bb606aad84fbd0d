"""Sensitivity: the worst case by hand and by brute force, and a confounded world in which the tipping Gamma warns."""

import numpy as np
import pytest
from scipy.optimize import linprog

from cohort.episodes import Episodes
from ope import importance, sensitivity
from ope.sensitivity import LARGEST
from ope.trajectories import pad


def test_the_lowest_mean_is_that_of_linear_programming() -> None:
    """Charnes-Cooper: min sum y v, sum y = 1, a s <= y <= b s."""
    rng = np.random.default_rng(0)
    for _ in range(10):
        value, a = rng.normal(size=8), rng.random(8)
        b = a + rng.random(8)
        bounds = np.block([[-np.eye(8), a[:, None]], [np.eye(8), -b[:, None]]])
        exact = linprog(np.r_[value, 0], bounds, np.zeros(16), np.r_[np.ones(8), 0][None], [1.0]).fun
        assert sensitivity.lowest_mean(value, a, b) == pytest.approx(exact, abs=1e-9)


def episodes(length: int, n: int, reward: np.ndarray, action: np.ndarray) -> Episodes:
    last = np.zeros((n, length))
    last[:, -1] = reward
    return Episodes.from_arrays(
        np.zeros((n * length, 1)),
        action.ravel(),
        last.ravel(),
        np.repeat(np.arange(n), length),
        np.ones(n, bool),
        n_actions=2,
    )


def test_gamma_one_changes_nothing_and_the_worst_case_falls_with_gamma() -> None:
    rng = np.random.default_rng(0)
    logged = episodes(3, 50, rng.normal(size=50), rng.integers(0, 2, (50, 3)))
    behaviour = rng.uniform(0.2, 0.8, 150)
    t = pad(logged, rng.uniform(0.5, 2, 150), 1.0)
    for scope in ("one_decision", "every_step"):
        found = [sensitivity.worst_case(t, behaviour, logged, gamma, scope) for gamma in (1.0, 1.5, 3.0)]
        assert found[0] == pytest.approx(importance.wis(t).value)
        assert found[0] > found[1] > found[2]
    one, every = (sensitivity.worst_case(t, behaviour, logged, 2.0, scope) for scope in ("one_decision", "every_step"))
    assert every < one


def test_the_tipping_gamma_of_two_patients_is_the_one_worked_by_hand() -> None:
    """One step, b = 1/2, returns 1 and 0, equal weights: at Gamma the worst weights are (1+1/G)/2 and (1+G)/2, so that
    the mean is (1+1/G) / (2+G+1/G) = 1/(1+G); it meets 1/4 at G = 3."""
    logged = episodes(1, 2, np.array([1.0, 0.0]), np.zeros((2, 1), int))
    t, half = pad(logged, np.ones(2), 1.0), np.full(2, 0.5)
    for scope in ("one_decision", "every_step"):
        assert sensitivity.tipping_gamma(t, half, logged, 0.25, scope) == pytest.approx(3, abs=1e-6)


def test_no_benefit_tips_at_once_and_an_unshakeable_one_never() -> None:
    logged = episodes(1, 2, np.array([1.0, 0.0]), np.zeros((2, 1), int))
    t, half = pad(logged, np.ones(2), 1.0), np.full(2, 0.5)
    assert sensitivity.tipping_gamma(t, half, logged, 0.6, "one_decision") == 1.0
    assert sensitivity.tipping_gamma(t, half, logged, -0.1, "one_decision") == LARGEST


def test_a_hidden_confounder_makes_a_false_benefit_whose_tipping_gamma_is_below_its_strength() -> None:
    """Doctors treat who looks well (hidden), with odds 4 times as high; treatment does nothing. The policy that
    always treats seems better, and a confounder weaker than the real one would undo it."""
    rng = np.random.default_rng(0)
    n, strength = 20_000, 4.0
    well = rng.random(n) < 0.5
    p = np.where(well, strength / (1 + strength), 1 / (1 + strength))
    action = (rng.random(n) < p).astype(int)
    reward = (rng.random(n) < np.where(well, 0.8, 0.4)).astype(float)
    logged = episodes(1, n, reward, action[:, None])
    behaviour = np.where(action == 1, action.mean(), 1 - action.mean())
    t = pad(logged, np.where(action == 1, 1 / behaviour, 0.0), 1.0)
    apparent = importance.wis(t).value - reward.mean()
    assert apparent > 0.1
    assert 1.2 < sensitivity.tipping_gamma(t, behaviour, logged, float(reward.mean()), "one_decision") < strength


def test_one_decision_takes_the_decision_that_hurts_most() -> None:
    """Two steps, b 1/2 and 9/10, Gamma 2: factors 3/4 to 3/2 at the first (19/20 to 11/10 at the second); returns
    1 and 0 with equal weights then average 0.75 / (0.75 + 1.5)."""
    logged = episodes(2, 2, np.array([1.0, 0.0]), np.zeros((2, 2), int))
    t, behaviour = pad(logged, np.ones(4), 1.0), np.array([0.5, 0.9, 0.5, 0.9])
    assert sensitivity.worst_case(t, behaviour, logged, 2.0, "one_decision") == pytest.approx(1 / 3)
    both = (0.75 * 0.95) / (0.75 * 0.95 + 1.5 * 1.1)
    assert sensitivity.worst_case(t, behaviour, logged, 2.0, "every_step") == pytest.approx(both)


@pytest.mark.slow
def test_with_the_hospitals_hidden_confounder_on_the_estimate_is_biased_and_its_tipping_gamma_warns() -> None:
    """Less of both drugs: with the confounder, doctors give more to those who look worse, so that less seems better."""
    from benchmarks import confounding

    rows = {strength: confounding.at(strength, 2_000, 2_000)[0] for strength in (0.0, 1.0)}
    bias = {strength: row.estimated - row.true for strength, row in rows.items()}
    assert bias[1.0] > bias[0.0] + 0.02
    confounded = rows[1.0]
    assert confounded.true < 0 < confounded.estimated
    assert confounded.tipping_every_step < confounded.tipping_one_decision < confounded.confounder_gamma
