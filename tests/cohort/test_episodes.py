"""Episodes: what they refuse, and the views every learner and estimator relies on, on three tiny trajectories."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohort.episodes import Episodes
from cohort.errors import InputError

STATE = np.arange(12, dtype=np.float64).reshape(6, 2)
ACTION = np.array([0, 1, 2, 3, 4, 0])
REWARD = np.array([0.0, 0.0, 1.0, 0.5, -1.0, 2.0])
EPISODE = np.array([7, 7, 7, 3, 3, 9])
ENDED = np.array([True, False, True])
FINAL = np.array([[90.0, 91.0], [92.0, 93.0], [94.0, 95.0]])


def made(**changed) -> Episodes:
    """Three episodes of 3, 2 and 1 rows, the second cut off."""
    arrays = {"state": STATE, "action": ACTION, "reward": REWARD, "episode": EPISODE, "terminated": ENDED,
              "final_state": FINAL, "n_actions": 5}  # fmt: skip
    return Episodes.from_arrays(**{**arrays, **changed})


def test_rows_know_their_episode_step_and_end() -> None:
    e = made()
    assert (e.n, e.n_episodes) == (6, 3)
    assert e.episode.tolist() == [0, 0, 0, 1, 1, 2]
    assert e.step.tolist() == [0, 1, 2, 0, 1, 0]
    assert e.last.tolist() == [False, False, True, False, True, True]
    assert e.terminal.tolist() == [False, False, True, False, False, True]


def test_the_next_state_never_crosses_into_another_episode() -> None:
    assert made().next_state.tolist() == [[2, 3], [4, 5], [0, 0], [8, 9], [92, 93], [0, 0]]


def test_the_previous_action_is_minus_one_at_the_start() -> None:
    assert made().previous_action.tolist() == [-1, 0, 1, -1, 3, -1]


def test_returns_to_go_by_hand() -> None:
    np.testing.assert_allclose(made().returns_to_go(0.5), [0.25, 0.5, 1.0, 0.0, -1.0, 2.0])


def test_selecting_keeps_rows_together_in_the_order_asked_for() -> None:
    e = made().select(np.array([2, 0]))
    assert e.state[:, 0].tolist() == [10, 0, 2, 4]
    assert e.start.tolist() == [0, 1]
    assert e.patient.tolist() == [2, 0]
    assert made().select(np.array([False, True, False])).final_state.tolist() == [[92, 93]]


def test_selecting_nothing_is_an_error() -> None:
    with pytest.raises(InputError, match="none selected"):
        made().select(np.zeros(3, bool))


def test_an_episode_set_cannot_be_written_to() -> None:
    with pytest.raises(ValueError, match="read-only"):
        made().state[0, 0] = 5.0


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"state": STATE[:, 0]}, "state has shape"),
        ({"state": STATE[:0]}, "n > 0"),
        ({"action": ACTION[:5]}, r"action has shape \(5,\)"),
        ({"action": ACTION + 0.5}, "expected integers"),
        ({"action": ACTION + 1}, "action: 1 of 6 rows outside 0..4"),
        ({"action": ACTION - 1}, "action: 2 of 6 rows outside 0..4"),
        ({"reward": np.where(REWARD > 1, np.nan, REWARD)}, "reward: 1 values are NaN"),
        ({"state": np.where(STATE > 10, np.inf, STATE)}, "state: 1 values are NaN or infinite"),
        ({"episode": np.array([7, 7, 3, 3, 7, 9])}, "not contiguous"),
        ({"terminated": ENDED[:2]}, "terminated has shape"),
        ({"final_state": None}, "1 episodes are cut off"),
        ({"final_state": FINAL[:2]}, r"final_state has shape \(2, 2\), expected \(3, 2\)"),
        ({"patient": np.array([1, 2])}, "patient has shape"),
        ({"features": ["a"]}, "1 feature names for 2 columns"),
    ],
)
def test_wrong_arrays_are_refused_by_name_and_count(changed, message) -> None:
    with pytest.raises(InputError, match=message):
        made(**changed)


def test_final_states_are_not_needed_where_every_episode_terminated() -> None:
    assert not made(terminated=np.ones(3, bool), final_state=None).final_state.any()


@given(st.lists(st.integers(1, 5), min_size=1, max_size=8), st.floats(0, 1))
def test_returns_agree_with_adding_up_row_by_row(lengths, gamma) -> None:
    n = sum(lengths)
    reward = np.random.default_rng(n).normal(size=n).astype(np.float32)
    episode = np.repeat(np.arange(len(lengths)), lengths)
    e = Episodes.from_arrays(np.zeros((n, 1)), np.zeros(n, int), reward, episode, np.ones(len(lengths), bool))
    expected = np.zeros(n)
    for row in reversed(range(n)):
        later = expected[row + 1] if row + 1 < n and episode[row + 1] == episode[row] else 0.0
        expected[row] = reward[row] + gamma * later
    np.testing.assert_allclose(e.returns_to_go(gamma), expected, atol=1e-9)
