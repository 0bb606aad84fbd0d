"""Filtered behaviour cloning: the best trajectories and their ties, complete ones only."""

import numpy as np
import pytest

import policy
from cohort.episodes import Episodes
from cohort.errors import InputError
from policy.filtered_bc import best
from tests import probes


def test_top_tenth_of_a_hundred_are_the_ten_highest() -> None:
    returns = np.random.default_rng(0).permutation(np.arange(100.0))
    assert sorted(returns[best(returns, 10.0)]) == list(range(90, 100))


def test_ties_with_the_last_are_kept() -> None:
    returns = np.tile([2.0, 5, 1, 8, 3, 7, 9, 4, 6, 10], 10)
    assert best(returns, 10.0).sum() == 10
    assert best(returns, 25.0).sum() == 30
    assert (returns[best(returns, 30.0)] >= 8).all()


def test_at_least_one_trajectory_is_kept() -> None:
    assert best(np.array([1.0, 3.0, 2.0]), 1.0).tolist() == [False, True, False]


@pytest.mark.parametrize("name", ["filtered_bc", "awr"])
def test_cut_off_episodes_are_refused_or_dropped_with_a_count(name: str) -> None:
    whole = probes.clinic()
    ended = np.arange(whole.n_episodes) % 4 > 0
    episodes = Episodes.from_arrays(
        whole.state, whole.action, whole.reward, whole.episode, ended,
        np.zeros((whole.n_episodes, 6)), n_actions=whole.n_actions,
    )  # fmt: skip
    options = {"hidden": (8,), "updates": 2}
    with pytest.raises(InputError, match="30 of 120 were cut off"):
        policy.fit(name, episodes, options)
    assert policy.fit(name, episodes, options | {"truncated": "drop"}).notes["cut_off_dropped"] == 30
