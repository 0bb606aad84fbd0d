"""Trajectories: what the rewards allow, by hand."""

import numpy as np
import pytest

from cohort.episodes import Episodes
from ope.trajectories import attainable


def episodes(reward: list[float], length: list[int], terminated: list[bool]) -> Episodes:
    n, count = len(reward), len(length)
    return Episodes.from_arrays(
        np.zeros((n, 1)), np.zeros(n, int), np.array(reward), np.repeat(np.arange(count), length), np.array(terminated),
        np.zeros((count, 1)), 2,
    )  # fmt: skip


def test_the_bounds_are_inner_rewards_then_one_last_reward() -> None:
    """Inner rewards -0.25 or none, last 1 or -1, two steps: best 1 at once, worst -0.25 - gamma."""
    assert attainable(episodes([-0.25, 1.0, -1.0], [2, 1], [True, True]), 1.0) == (-1.25, 1.0)
    assert attainable(episodes([-0.25, 1.0, -1.0], [2, 1], [True, True]), 0.5) == (-1.0, 1.0)
    assert attainable(episodes([2.0, 2.0, 2.0], [2, 1], [True, True]), 0.5) == (2.0, 3.0)


def test_cut_off_episodes_may_go_on_for_ever() -> None:
    assert attainable(episodes([1.0, 1.0], [2], [False]), 0.75) == pytest.approx((0.0, 4.0))
    assert attainable(episodes([1.0, 1.0], [2], [False]), 1.0) == (0.0, np.inf)
