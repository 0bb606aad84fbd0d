"""Lab: what breaks when a component is removed, measured; the guide's method comparison, measured."""

import numpy as np
import pytest

from cohort.errors import ConfigError
from policy import LEARNERS, lab


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


def test_every_learner_has_its_row_of_what_is_said_of_it() -> None:
    assert set(lab.CLAIMS) == set(LEARNERS)


@pytest.mark.slow
def test_what_is_said_of_stitching_and_of_unseen_actions_is_what_is_measured() -> None:
    rows = {row.learner: row for row in lab.compare()}
    for name, row in rows.items():
        assert row.stitching == (1.0 if row.said.stitches else 0.5), name
        assert (row.queried > 0.02) == row.said.risk.startswith("high"), name
        assert row.excess < 0.01 or row.said.risk.startswith("high"), name
    assert rows["conservative_iql"].achieved > rows["iql"].achieved > rows["sac"].achieved


def test_dpo_and_awr_with_the_comparisons_rewards_are_one_policy() -> None:
    wins = np.array([[0.0, 3.0, 0.0], [7.0, 0.0, 8.0], [0.0, 2.0, 0.0]])
    found = lab.preferred(wins, np.array([0.6, 0.3, 0.1]), 1.0)
    np.testing.assert_allclose(found.dpo, found.awr, atol=1e-5)
    np.testing.assert_allclose(found.reward - found.reward[1], [np.log(3 / 7), 0.0, np.log(2 / 8)], atol=1e-9)
    weight = np.array([0.6 * 3 / 7, 0.3, 0.1 * 2 / 8])
    np.testing.assert_allclose(found.awr, weight / weight.sum(), atol=1e-9)


@pytest.mark.parametrize(("wins", "beta"), [(np.array([[0.0, 3.0], [0.0, 0.0]]), 1.0), (np.ones((2, 2)), 0.0)])
def test_comparisons_that_one_side_won_alone_have_no_finite_policy(wins: np.ndarray, beta: float) -> None:
    with pytest.raises(ConfigError, match="both sides"):
        lab.preferred(wins, np.array([0.5, 0.5]), beta)
