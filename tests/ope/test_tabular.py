"""Tabular: exact values agree with what is drawn, and an enumerated log is a perfect sample."""

import numpy as np
import pytest

from ope import self_test, tabular

BEHAVIOUR = np.array([[0.75, 0.25], [0.5, 0.5]])


def test_the_mean_return_of_an_enumerated_log_is_the_exact_value() -> None:
    problem = self_test.early_end()
    episodes = tabular.enumerate_all(problem, BEHAVIOUR).episodes
    assert sorted(set(episodes.length.tolist())) == [1, 2, 3]
    mean = episodes.returns_to_go(0.9)[episodes.start].mean()
    assert mean == pytest.approx(tabular.value(problem, BEHAVIOUR, 0.9), abs=1e-9)


def test_the_mean_return_of_drawn_episodes_is_within_four_standard_errors() -> None:
    problem = self_test.early_end()
    episodes = tabular.draw(problem, BEHAVIOUR, 20_000, np.random.default_rng(0)).episodes
    returns = episodes.returns_to_go(0.9)[episodes.start]
    error = returns.std() / np.sqrt(len(returns))
    assert abs(returns.mean() - tabular.value(problem, BEHAVIOUR, 0.9)) < 4 * error
    assert np.bincount(episodes.action).tolist() == pytest.approx([episodes.n * 0.62, episodes.n * 0.38], rel=0.05)


def test_rewards_are_drawn_with_their_spread() -> None:
    plain = self_test.early_end()
    problem = tabular.Problem(plain.start, plain.transition, plain.reward, plain.horizon, np.full((2, 2), 0.5))
    log = tabular.draw(problem, BEHAVIOUR, 5000, np.random.default_rng(0))
    noise = log.episodes.reward - plain.reward[log.place, log.episodes.action]
    assert np.unique(noise.round(6)).tolist() == [-0.5, 0.5]
    assert abs(noise.mean()) < 0.02


def test_a_drawn_log_says_where_each_row_was() -> None:
    log = tabular.draw(self_test.model_win(), np.tile(BEHAVIOUR[0], (3, 1)), 50, np.random.default_rng(0))
    assert (log.episodes.length == 4).all()
    assert np.array_equal(log.step, log.episodes.step)
    assert (log.place[log.step % 2 == 0] == 0).all()
    assert (log.place[log.step % 2 == 1] > 0).all()
