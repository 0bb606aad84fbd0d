"""FQE: exact values on a small problem, d3rlpy's numbers on a greedy policy, and what the ensemble's spread says."""

import contextlib
import io

import numpy as np
import pytest
import torch

from cohort.episodes import Episodes
from cohort.errors import ConfigError, InputError
from cohort.scaler import Scaler
from ope import fqe, self_test, tabular
from ope.fqe import FqeConfig

BEHAVIOUR = np.array([[0.75, 0.25], [0.5, 0.5]])
TARGET = np.array([[0.25, 0.75], [0.5, 0.5]])
GAMMA = 0.9
SMALL = FqeConfig(hidden=(16,), updates=500, members=2, target_rate=0.1, learning_rate=1e-2)


def one_hot(log: tabular.Log) -> Episodes:
    """Which (step, state) a row is in, as six indicators."""
    kept = log.episodes
    state = np.eye(6)[log.step * 2 + log.place]
    terminated = np.ones(kept.n_episodes, bool)
    return Episodes.from_arrays(
        state, kept.action, kept.reward, kept.episode, terminated, n_actions=2,
        scaler=Scaler(np.zeros(6), np.ones(6), np.zeros(6, bool)),
    )  # fmt: skip


def target(state: np.ndarray) -> np.ndarray:
    return TARGET[state.argmax(axis=1) % 2].astype(np.float32)


def greedy(state: np.ndarray) -> np.ndarray:
    return np.eye(2, dtype=np.float32)[state.argmax(axis=1) % 2]


@pytest.fixture(scope="module")
def log() -> tabular.Log:
    return tabular.draw(self_test.early_end(), BEHAVIOUR, 3000, np.random.default_rng(0))


def test_q_and_v_are_near_the_exact_ones(log: tabular.Log) -> None:
    problem = self_test.early_end()
    exact = tabular.q_values(problem, TARGET, GAMMA)
    found = fqe.evaluate(one_hot(log), target, GAMMA, SMALL)
    q = exact[log.step, log.place, log.episodes.action]
    assert np.abs(found.q - q).mean() < 0.05
    assert found.v[log.episodes.start].mean() == pytest.approx(tabular.value(problem, TARGET, GAMMA), abs=0.04)
    assert found.member_values.mean() == pytest.approx(found.v[log.episodes.start].mean(), abs=1e-5)


def test_values_are_expectations_over_the_policy_and_not_of_its_greedy_action(log: tabular.Log) -> None:
    problem, states = self_test.early_end(), one_hot(log)
    exact = [tabular.value(problem, policy, GAMMA) for policy in (TARGET, np.eye(2))]
    assert abs(exact[0] - exact[1]) > 0.2
    found = [fqe.evaluate(states, policy, GAMMA, SMALL).member_values.mean() for policy in (target, greedy)]
    assert found == pytest.approx(exact, abs=0.05)


def test_the_end_of_an_episode_has_no_value_beyond_its_reward() -> None:
    """All rewards 1 at the end of episodes of one step: Q is 1 and not 1 + gamma Q."""
    n = 400
    episodes = Episodes.from_arrays(
        np.random.default_rng(0).normal(size=(n, 2)),
        np.arange(n) % 2,
        np.arange(n) % 2,
        np.arange(n),
        np.ones(n, bool),
        n_actions=2,
    )
    found = fqe.evaluate(episodes, lambda state: np.full((len(state), 2), 0.5, np.float32), 0.99, SMALL)
    assert found.v.mean() == pytest.approx(0.5, abs=0.03)


def test_a_cut_off_episode_bootstraps_from_its_final_state() -> None:
    """A constant reward of 1 per step, never terminated: V = 1/(1 - gamma), and the final values say the same."""
    n, gamma = 300, 0.5
    episodes = Episodes.from_arrays(
        np.ones((2 * n, 1)),
        np.arange(2 * n) % 2,
        np.ones(2 * n),
        np.repeat(np.arange(n), 2),
        np.zeros(n, bool),
        np.ones((n, 1)),
        2,
    )
    found = fqe.evaluate(episodes, lambda state: np.full((len(state), 2), 0.5, np.float32), gamma, SMALL)
    assert found.v.mean() == pytest.approx(2.0, abs=0.1)
    assert found.final_value.mean() == pytest.approx(2.0, abs=0.1)


def test_targets_stay_within_what_the_rewards_allow(log: tabular.Log) -> None:
    """A target network gone wild (values of some 10^6) moves Q no further than the bounds."""
    episodes = one_hot(log)
    assert episodes.scaler is not None
    data = fqe.batches.data(episodes, episodes.scaler)
    net = fqe.Learned(fqe.Mlp((6, 8, 2), 1, np.random.default_rng(0)), 1e-3, True)
    net.target_net.flat.fill_(1e3)
    batch = fqe.Sampler(data, 64, 0).at(0)
    ahead = torch.full((64, 2), 0.5)
    fqe.update(net, batch, ahead, torch.ones(1, 64), GAMMA, (-1.0, 1.0), 0.0)
    assert float(net.net.bias_grads[-1].abs().sum()) < 10


def test_more_patients_bring_the_members_together() -> None:
    problem = self_test.early_end()
    spread = []
    for n in (100, 3000):
        log = tabular.draw(problem, BEHAVIOUR, n, np.random.default_rng(1))
        quick = SMALL.model_copy(update={"updates": 200, "members": 4})
        spread.append(fqe.evaluate(one_hot(log), target, GAMMA, quick).member_values.std())
    assert spread[1] < 0.7 * spread[0]


def test_values_of_a_patient_come_from_networks_without_them() -> None:
    """Rewards known only by heart (one state per patient) cannot be predicted for a patient left out."""
    rng, n = np.random.default_rng(0), 60
    reward = rng.choice([-1.0, 1.0], n)
    episodes = Episodes.from_arrays(
        np.eye(n), rng.integers(0, 2, n), reward, np.arange(n), np.ones(n, bool), n_actions=2,
        scaler=Scaler(np.zeros(n), np.ones(n), np.zeros(n, bool)),
    )  # fmt: skip
    found = fqe.evaluate(episodes, lambda state: np.full((len(state), 2), 0.5, np.float32), 1.0, SMALL)
    assert abs(np.corrcoef(found.q, reward)[0, 1]) < 0.5


def test_the_claimed_gain_is_split_by_how_well_its_actions_are_supported(log: tabular.Log) -> None:
    states, behaviour = one_hot(log), BEHAVIOUR[log.place]
    same = fqe.evaluate(states, lambda state: BEHAVIOUR[state.argmax(axis=1) % 2], GAMMA, SMALL, 0, behaviour)
    assert np.abs(same.gain).max() < 1e-6
    found = fqe.evaluate(states, target, GAMMA, SMALL, 0, behaviour, poor=0.3)
    in_first = log.place == 0  # there pi moves from action 0 (b 3/4) to action 1 (b 1/4, poor); elsewhere it is b
    assert (found.gain[in_first] > 0.05).all()
    assert found.gain[~in_first] == pytest.approx(0, abs=1e-6)
    share = found.poor_gain[in_first].sum() / found.gain[in_first].sum()
    assert share == pytest.approx(0.75, abs=1e-3)  # b-weighted advantages balance: A(1) b(1) = -A(0) b(0)


def test_same_seed_same_values(log: tabular.Log) -> None:
    quick = FqeConfig(hidden=(8,), updates=20, members=2)
    a, b, c = (fqe.evaluate(one_hot(log), target, GAMMA, quick, seed) for seed in (1, 1, 2))
    assert np.array_equal(a.v, b.v)
    assert not np.array_equal(a.v, c.v)


def test_wrong_input_is_refused(log: tabular.Log) -> None:
    states = one_hot(log)
    with pytest.raises(ConfigError, match="2 folds, but only 1 patients"):
        fqe.evaluate(states.select(np.array([0])), target, GAMMA, SMALL)
    with pytest.raises(InputError, match="policy answers with shape"):
        fqe.evaluate(states, lambda state: np.ones((len(state), 3)) / 3, GAMMA, SMALL)


def test_a_greedy_policy_has_the_value_that_d3rlpy_finds(log: tabular.Log) -> None:
    """Their evaluation of an untrained DQN's greedy actions, ours of the same actions, and the exact value."""
    with contextlib.redirect_stderr(io.StringIO()):
        import d3rlpy
        from d3rlpy.algos import DQNConfig
        from d3rlpy.constants import ActionSpace
        from d3rlpy.dataset import MDPDataset
        from d3rlpy.logging import NoopAdapterFactory
        from d3rlpy.models import VectorEncoderFactory
        from d3rlpy.ope import DiscreteFQE, FQEConfig
    d3rlpy.seed(0)  # it draws from the global generators
    states = one_hot(log)
    dataset = MDPDataset(
        states.state, states.action[:, None], states.reward[:, None], states.terminal.astype(np.float32),
        action_space=ActionSpace.DISCRETE, action_size=2,
    )  # fmt: skip
    encoder = VectorEncoderFactory([16])
    algo = DQNConfig(gamma=GAMMA, encoder_factory=encoder).create()
    algo.build_with_dataset(dataset)
    config = FQEConfig(
        gamma=GAMMA, learning_rate=3e-3, batch_size=256, target_update_interval=25, encoder_factory=encoder
    )
    theirs = DiscreteFQE(algo, config)
    theirs.fit(dataset, n_steps=1200, n_steps_per_epoch=1200, logger_adapter=NoopAdapterFactory(), show_progress=False)

    def chosen(state: np.ndarray) -> np.ndarray:
        return np.eye(2, dtype=np.float32)[algo.predict(state)]

    first = states.state[states.start]
    their_value = float(theirs.predict_value(first, algo.predict(first)).mean())
    our_value = float(fqe.evaluate(states, chosen, GAMMA, SMALL).member_values.mean())
    table = chosen(np.eye(6, dtype=np.float32)).reshape(3, 2, 2)
    q = np.zeros((4, 2, 2))
    problem = self_test.early_end()
    for t in (2, 1, 0):
        q[t] = problem.reward + GAMMA * problem.transition @ (table[min(t + 1, 2)] * q[t + 1]).sum(axis=1)
    exact = float(problem.start @ (table[0] * q[0]).sum(axis=1))
    assert our_value == pytest.approx(exact, abs=0.05)
    assert our_value == pytest.approx(their_value, abs=0.07)


def test_a_terminal_row_takes_nothing_from_what_follows(log: tabular.Log) -> None:
    episodes = one_hot(log)
    assert episodes.scaler is not None
    data = fqe.batches.data(episodes, episodes.scaler)
    rows = torch.from_numpy(np.flatnonzero(episodes.terminal)[:64])
    net = fqe.Learned(fqe.Mlp((6, 8, 2), 1, np.random.default_rng(0)), 1e-3, True)
    net.target_net.flat.fill_(1e3)
    following, wide = torch.full((64, 2), 0.5), (-1e9, 1e9)
    fqe.update(net, fqe.batches.take(data, rows), following, torch.ones(1, 64), GAMMA, wide, 0.0)
    assert float(net.net.bias_grads[-1].abs().sum()) < 10


def test_members_see_patients_in_different_proportions(log: tabular.Log) -> None:
    episodes = one_hot(log)
    weight = fqe._weights(episodes, 3, 0).numpy()
    first = weight[:, episodes.start]
    assert np.array_equal(weight, np.repeat(first, episodes.length, axis=1))
    assert first.mean(axis=1) == pytest.approx(np.ones(3), abs=1e-3)
    assert first.std(axis=1) == pytest.approx(np.ones(3), abs=0.1)
    assert abs(np.corrcoef(first)[0, 1]) < 0.1
    assert (fqe._weights(episodes, 1, 0) == 1).all()


def test_nothing_is_fitted_to_decisions_whose_action_is_not_known() -> None:
    """Action 1 seems to pay 5 where its dose was partly read; where it was read it pays nothing."""
    rng = np.random.default_rng(0)
    action, unread = rng.integers(0, 2, 400), rng.random(400) < 0.5
    reward = np.where(unread & (action == 1), 5.0, 0.0)
    episodes = Episodes.from_arrays(np.zeros((400, 1)), action, reward, np.arange(400), np.ones(400, bool), n_actions=2)
    target = fqe.ask(episodes, lambda state: np.tile([0.0, 1.0], (len(state), 1)))
    config = FqeConfig(hidden=(8,), updates=300, learning_rate=1e-2, members=2)
    assert abs(fqe.evaluate_target(episodes, target, 1.0, config, read=~unread).v.mean()) < 0.3
    assert fqe.evaluate_target(episodes, target, 1.0, config).v.mean() > 1.5
