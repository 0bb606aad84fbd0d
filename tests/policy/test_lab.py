"""Lab: the guide's figures exactly, and what breaks when a component is removed, measured."""

import numpy as np
import pytest

from cohort.errors import ConfigError
from policy import lab


def test_gridworld_values_are_gamma_to_the_distance() -> None:
    value, q = lab.gridworld(4, 0.9)
    row, column = np.indices((4, 4))
    distance = (3 - row) + (3 - column)
    expected = np.where(distance > 0, 0.9 ** (distance - 1.0), 0.0)
    assert value == pytest.approx(expected)
    assert q[0, 0] == pytest.approx([0.9**6, 0.9**5, 0.9**5, 0.9**6])  # up and left stay in the corner


def test_overestimation_grows_to_epsilon_over_one_minus_gamma() -> None:
    errors, limit = lab.overestimation(3.0, 0.99, 2000)
    assert errors[:2] == pytest.approx([3.0, 3.0 + 0.99 * 3.0])
    assert (np.diff(errors) > 0).all()
    assert (errors[-1], limit) == (pytest.approx(300.0, rel=1e-6), pytest.approx(300.0))


@pytest.mark.parametrize(("tau", "expected"), [(0.5, 16 / 3), (0.7, 80 / 13), (0.9, 80 / 11), (0.999, 8 / 1.001)])
def test_expectiles_of_the_guide(tau: float, expected: float) -> None:
    assert lab.expectile(np.array([3.0, 5.0, 8.0]), tau) == pytest.approx(expected)


def test_expectile_of_equal_values_is_that_value_and_tau_one_is_refused() -> None:
    assert lab.expectile(np.array([2.0, 2.0]), 0.9) == 2.0
    with pytest.raises(ConfigError, match="strictly"):
        lab.expectile(np.array([1.0, 2.0]), 1.0)


@pytest.mark.parametrize(("alpha", "expected"), [(1.0, [0.018, 0.979, 0.002]), (5.0, [0.257, 0.571, 0.172])])
def test_awr_weights_of_the_guide(alpha: float, expected: list[float]) -> None:
    assert lab.advantage_weights(np.array([3.0, 7.0, 1.0]), alpha) == pytest.approx(expected, abs=1e-3)


def test_filter_keeps_the_top_and_reaches_their_mean() -> None:
    kept, least, mean = lab.filtered(np.arange(1.0, 101.0), 10.0)
    assert (kept.sum(), least, mean) == (10, 91.0, 95.5)


def test_without_conservatism_values_explode() -> None:
    found = lab.broken("conservatism", (100, 400))
    assert min(found.broken.q_max) > 20 * found.best
    assert max(found.whole.q_max) < 2 * found.best
    assert min(found.whole.value) > max(0.1, found.logged)


def test_without_stitching_the_best_episode_is_the_limit() -> None:
    found = lab.broken("stitching", (400,))
    assert found.whole.value[-1] == pytest.approx(10.0, abs=0.5)
    assert found.broken.value[-1] < 6.5


def test_without_advantage_weights_bad_decisions_are_imitated_too() -> None:
    found = lab.broken("advantage weighting", (400,))
    assert found.whole.value[-1] > 0.5
    assert found.broken.value[-1] == pytest.approx(found.logged, abs=0.2)


def test_an_unknown_component_is_refused() -> None:
    with pytest.raises(ConfigError, match="updates"):
        lab.broken("stitching", ())


@pytest.mark.slow
def test_comparison_measures_stitching_and_risk() -> None:
    rows = {row.learner: row for row in lab.compare(["filtered_bc", "iql", "dqn"], updates=300)}
    assert rows["filtered_bc"].stitching == 0.5
    assert rows["iql"].stitching == rows["dqn"].stitching == 1.0
    assert rows["iql"].unseen < 0.02
    assert rows["dqn"].unseen > 0.05
