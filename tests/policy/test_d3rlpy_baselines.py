"""d3rlpy's learners under our loop: the laws that tie them to each other, and probes with known answers."""

import numpy as np
import pytest
import torch

import policy
from cohort.errors import ConfigError
from policy import batches, d3rlpy_baselines
from policy.d3rlpy_baselines import BaselineConfig, DoubleDQNConfig
from tests import probes

TINY = {"hidden": (16,), "batch": 32, "updates": 60, "holdout": 0.0, "target_update_interval": 10}


@pytest.fixture(scope="module")
def ward():  # type: ignore[no-untyped-def]
    return probes.clinic()


def test_cql_without_its_penalty_is_double_dqn_bit_for_bit(ward) -> None:  # type: ignore[no-untyped-def]
    cql = policy.fit("cql", ward, TINY | {"alpha": 0.0})
    assert np.array_equal(cql.q(ward.state), policy.fit("dqn", ward, TINY).q(ward.state))


def test_cql_penalty_lowers_values_of_actions_that_were_not_taken(ward) -> None:  # type: ignore[no-untyped-def]
    rows = np.arange(ward.n)
    gap = {
        alpha: policy.fit("cql", ward, TINY | {"alpha": alpha, "updates": 200, "learning_rate": 1e-2}).q(ward.state)
        for alpha in (0.0, 5.0)
    }
    above = {alpha: (q.mean(1) - q[rows, ward.action]).mean() for alpha, q in gap.items()}
    assert above[5.0] < above[0.0] - 0.1


def test_bcq_that_masks_nothing_is_double_dqn(ward) -> None:  # type: ignore[no-untyped-def]
    bcq = policy.fit("bcq", ward, TINY | {"threshold": 1e-30, "beta": 0.0})
    assert np.array_equal(bcq.q(ward.state), policy.fit("dqn", ward, TINY).q(ward.state))


def test_bcq_that_masks_all_but_the_likeliest_is_its_imitator(ward) -> None:  # type: ignore[no-untyped-def]
    bcq = policy.fit("bcq", ward, TINY | {"threshold": 1 - 1e-6, "beta": 0.0})
    assert bcq.actor is not None
    likeliest = bcq.actor(bcq.scaler.transform(ward.state))[0].argmax(1)
    assert np.array_equal(bcq.probs(ward.state).argmax(1), likeliest)


def test_bcq_with_a_threshold_of_one_is_refused(ward) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match="threshold"):
        policy.fit("bcq", ward, TINY | {"threshold": 1.0})


def test_networks_taken_out_give_d3rlpys_own_values(ward) -> None:  # type: ignore[no-untyped-def]
    config = BaselineConfig(hidden=(16, 8))
    driven = d3rlpy_baselines.create(DoubleDQNConfig(**d3rlpy_baselines.common(config)), 6, 4, 0, "cpu")
    state = ward.state[:50].copy()
    own = driven.impl._q_func_forwarder.compute_expected_q(torch.from_numpy(state), reduction="none")
    ours = d3rlpy_baselines.network(list(driven.impl.q_function))(state)
    assert ours == pytest.approx(own.detach().numpy(), abs=1e-6)


def test_minibatch_is_in_d3rlpys_form(ward) -> None:  # type: ignore[no-untyped-def]
    prepared = batches.prepare(ward, 0.0, 0.99, 0)
    config = BaselineConfig(hidden=(8,))
    driven = d3rlpy_baselines.create(DoubleDQNConfig(**d3rlpy_baselines.common(config)), 6, 4, 0, "cpu")
    mini = driven.minibatch(batches.everything(prepared.fit))
    ended = torch.from_numpy(ward.terminal)
    assert mini.terminals.shape == mini.rewards.shape == mini.actions.shape == (ward.n, 1)
    assert torch.equal(mini.terminals[:, 0].bool(), ended)
    assert not mini.next_observations[ended].any()
    assert torch.equal(mini.next_observations[:-1][~ended[:-1]], mini.observations[1:][~ended[:-1]])
    assert (mini.intervals == 1).all()


def test_the_global_generator_is_left_as_it_was() -> None:
    before = torch.random.get_rng_state()
    config = BaselineConfig(hidden=(8,))
    d3rlpy_baselines.create(DoubleDQNConfig(**d3rlpy_baselines.common(config)), 6, 4, 0, "cpu")
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cql", "bcq", "dqn", "sac"])
def test_better_action_is_chosen(name: str) -> None:
    episodes, state = probes.action_choice()
    fitted = policy.fit(name, episodes, probes.small(name))
    assert fitted.probs(state["s"][None])[0, 1] > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bcq", "dqn"])
@pytest.mark.parametrize(("terminated", "value"), [(True, 1.0), (False, 2.0)])
def test_truncation_bootstraps_and_termination_does_not(name: str, terminated: bool, value: float) -> None:
    episodes, state = probes.cut_off(terminated)
    fitted = policy.fit(name, episodes, probes.small(name) | {"gamma": 0.5})
    assert fitted.q(state) == pytest.approx(np.full((1, 2), value), abs=0.1)
