"""Influence: leaving a patient out in closed form is evaluating again without them."""

import numpy as np
import pytest

import ope
from cohort.episodes import Episodes
from ope import estimates, importance, influence
from ope.trajectories import pad
from tests.ope.worlds import random_log

PATIENT = np.arange(40) // 2


@pytest.mark.parametrize("name", ["is", "wis", "pdis", "cwpdis", "dr", "wdr"])
def test_closed_form_equals_evaluating_without_the_patient(name: str) -> None:
    log = random_log(n_episodes=40)
    base = log.episodes
    rows = np.arange(base.n)
    q = np.random.default_rng(0).normal(size=log.target.shape)
    ratio = (log.target / log.behaviour)[rows, base.action]
    t = pad(base, ratio, 0.9, q[rows, base.action], (log.target * q).sum(axis=1))
    without = influence.leave_one_out(estimates.ESTIMATORS[name](t), PATIENT)
    kept_episodes = PATIENT != 3
    kept = np.isin(base.episode, np.flatnonzero(kept_episodes))
    again = ope.evaluate(
        base.select(kept_episodes),
        log.target[kept],
        log.behaviour[kept],
        0.9,
        q[kept],
        [name],
        n_bootstrap=2,
        gates=False,
    )[0].value
    assert without[3] == pytest.approx(again, abs=1e-12)


def one_step(reward: list[float]) -> Episodes:
    n = len(reward)
    return Episodes.from_arrays(
        np.zeros((n, 1)), np.zeros(n, int), np.array(reward), np.arange(n), np.ones(n, bool), n_actions=2
    )


def test_the_number_of_patients_that_flip_a_difference_is_counted() -> None:
    """Weights 1 but for two heavy survivors: with both the policy is better, without them it is worse."""
    episodes = one_step([1, 1, -1, -1, -1, 1])
    t = pad(episodes, np.array([3.0, 3.0, 1.0, 1.0, 1.0, 0.1]), 1.0)
    found = influence.of_difference(importance.wis(t), importance.logged(t), np.arange(6))
    assert found.change[0] > 0 > found.change[5]
    assert found.flips_after == 2


def test_a_difference_that_nobody_carries_does_not_flip() -> None:
    t = pad(one_step([1, 1, 1, 1]), np.array([1.0, 2.0, 3.0, 4.0]), 1.0)
    assert influence.of_difference(importance.wis(t), importance.logged(t), np.arange(4)).flips_after is None
