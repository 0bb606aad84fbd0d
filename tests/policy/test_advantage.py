"""Advantages by hand, as a network, and where a state's own value hides what an action adds."""

import numpy as np
import pytest

from cohort.episodes import Episodes
from policy import advantage, batches
from policy.advantage import AdvantageConfig
from policy.networks import Network


def values_of(weight: list[float], level: float) -> Network:
    """V = weight . x + level of states whose entries are above -8."""
    d = len(weight)
    first = np.eye(d, dtype=np.float32)[None], np.full((1, 1, d), 8.0, np.float32)
    last = np.float32(weight)[None, :, None], np.full((1, 1, 1), level - 8.0 * sum(weight), np.float32)
    return Network(*zip(first, last, strict=True))


def prepared(state: np.ndarray, action: list[int], reward: list[float], steps: int, **more: object) -> batches.Prepared:
    """Episodes of `steps` decisions each, in their own units: no scaling, rewards as they are."""
    episode = np.repeat(np.arange(len(state) // steps), steps)
    ended = more.pop("terminated", np.ones(episode[-1] + 1, bool))
    episodes = Episodes.from_arrays(state, np.array(action), np.array(reward), episode, ended, **more)
    made = batches.prepare(episodes, 0.0, 1.0, 0)
    scaler = type(made.scaler)(np.zeros(state.shape[1]), np.ones(state.shape[1]), np.zeros(state.shape[1], bool))
    return batches.Prepared(episodes, None, scaler, 1.0, batches.data(episodes, scaler), None, "cpu")


def test_errors_by_hand() -> None:
    state = np.array([[1.0], [2.0], [3.0]])
    ward = prepared(state, [0, 1, 0], [0.0, 1.0, 5.0], 3, n_actions=2)
    value = values_of([1.0], 0.0)  # V = 1, 2, 3
    # one step: 0 + 2 - 1, 1 + 3 - 2, 5 - 3
    for trace, expected in ((0.0, [1.0, 2.0, 2.0]), (1.0, [5.0, 4.0, 2.0]), (0.5, [2.5, 3.0, 2.0])):
        found = advantage.errors(value, ward, AdvantageConfig(gamma=1.0, trace=trace))
        assert found == pytest.approx(expected)
    found = advantage.errors(value, ward, AdvantageConfig(gamma=0.5, trace=0.5))
    assert found == pytest.approx([0.0 + 0.25 * (0.5 + 0.25 * 2.0), 0.5 + 0.25 * 2.0, 2.0])


def test_a_cut_off_episode_ends_with_the_value_of_its_final_state() -> None:
    ward = prepared(
        np.array([[1.0], [2.0]]), [0, 1], [0.0, 0.0], 2, n_actions=2, terminated=np.array([False]),
        final_state=np.array([[7.0]]),
    )  # fmt: skip
    found = advantage.errors(values_of([1.0], 0.0), ward, AdvantageConfig(gamma=1.0, trace=1.0))
    assert found == pytest.approx([6.0, 5.0])


def test_the_network_is_the_value_and_beside_it_a_clipped_linear_function() -> None:
    rng = np.random.default_rng(0)
    effect, x = rng.normal(size=(4, 5)), (3.0 * rng.normal(size=(200, 3))).astype(np.float32)
    sizes = [(3, 8), (8, 6), (6, 1)]
    value = Network(
        tuple(rng.normal(size=(1, *shape)).astype(np.float32) for shape in sizes),
        tuple(rng.normal(size=(1, 1, shape[1])).astype(np.float32) for shape in sizes),
    )
    expected = value(x)[0] + np.hstack([np.clip(x, -4, 4), np.ones((200, 1))]) @ effect
    assert (np.abs(x) > 4).sum() > 20
    np.testing.assert_allclose(advantage._beside(value, effect)(x)[0], expected, atol=1e-4)


def ward_with_a_small_effect(n: int = 12_000) -> tuple[batches.Prepared, np.ndarray]:
    """A state's value varies a hundred times more than what the right one of three actions adds; V misses a part.

    The first action is taken seven times as often as the last: what all have in common must not be shrunk unequally.
    """
    rng = np.random.default_rng(1)
    state, action = rng.normal(size=(n, 4)), rng.choice(3, n, p=[0.7, 0.2, 0.1])
    right = np.where(state[:, 0] > 0, 2, 0)
    reward = 10.0 * state[:, 1] + 0.5 * state[:, 2] + 0.2 + 0.1 * (action == right) + 0.1 * rng.normal(size=n)
    return prepared(state, action.tolist(), reward.tolist(), 1, n_actions=3), right


def test_a_small_effect_is_found_under_a_large_value() -> None:
    ward, right = ward_with_a_small_effect()
    q = advantage.read(values_of([0.0, 10.0, 0.0, 0.0], 0.0), ward, AdvantageConfig(gamma=1.0))
    chosen = q(ward.fit.states[: ward.fit.n].numpy())[0].argmax(axis=1)
    clear = np.abs(ward.episodes.state[:, 0]) > 0.3
    assert (chosen == right)[clear].mean() > 0.95


def test_without_evidence_no_action_is_preferred() -> None:
    ward, _ = ward_with_a_small_effect()
    q = advantage.read(values_of([0.0, 10.0, 0.0, 0.0], 0.0), ward, AdvantageConfig(gamma=1.0, shrinkage=1e9))
    shown = q(ward.fit.states[: ward.fit.n].numpy())[0]
    assert np.ptp(shown, axis=1).max() < 1e-4
