"""IQL: probes with known values, and the laws that tie it to behaviour cloning."""

import numpy as np
import pytest

import policy
from cohort.errors import ConfigError
from tests import probes

SMALL = probes.SMALL | {"target_rate": 0.05}


def test_constant_reward_gives_its_value() -> None:
    episodes, state = probes.constant_value()
    fitted = policy.fit("iql", episodes, SMALL)
    assert fitted.q(state["s"][None]) == pytest.approx(np.ones((1, 2)), abs=0.05)


def test_values_depend_on_the_state() -> None:
    episodes, state = probes.state_dependent_value()
    fitted = policy.fit("iql", episodes, SMALL)
    assert fitted.q(state["good"][None]) == pytest.approx(np.ones((1, 2)), abs=0.05)
    assert fitted.q(state["bad"][None]) == pytest.approx(-np.ones((1, 2)), abs=0.05)


def test_reward_travels_back_discounted() -> None:
    episodes, state = probes.delayed_reward()
    fitted = policy.fit("iql", episodes, SMALL | {"gamma": 0.5})
    assert fitted.q(state["first"][None]) == pytest.approx(np.full((1, 2), 0.5), abs=0.05)


def test_better_action_is_chosen() -> None:
    episodes, state = probes.action_choice()
    fitted = policy.fit("iql", episodes, SMALL)
    assert fitted.probs(state["s"][None])[0, 1] > 0.9


@pytest.mark.parametrize(("terminated", "value"), [(True, 1.0), (False, 2.0)])
def test_truncation_bootstraps_and_termination_does_not(terminated: bool, value: float) -> None:
    episodes, state = probes.cut_off(terminated)
    fitted = policy.fit("iql", episodes, SMALL | {"gamma": 0.5, "tau": 0.5})
    assert fitted.q(state) == pytest.approx(np.full((1, 2), value), abs=0.1)


def test_huge_alpha_is_behaviour_cloning_bit_for_bit() -> None:
    episodes = probes.clinic()
    options = {"hidden": (16,), "batch": 50, "updates": 60, "holdout": 0.0}
    cloned = policy.fit("bc", episodes, options)
    iql = policy.fit("iql", episodes, options | {"alpha": 1e9})
    assert np.array_equal(iql.probs(episodes.state), cloned.probs(episodes.state))


def test_scaling_reward_and_alpha_by_a_power_of_two_changes_nothing() -> None:
    episodes = probes.clinic()
    doubled = probes.with_reward(episodes, episodes.reward * 4)
    options = {"hidden": (16,), "updates": 60, "holdout": 0.0}
    once = policy.fit("iql", episodes, options | {"alpha": 0.25})
    other = policy.fit("iql", doubled, options | {"alpha": 1.0})
    assert np.array_equal(once.probs(episodes.state), other.probs(episodes.state))
    assert np.array_equal(once.q(episodes.state) * 4, other.q(episodes.state))


def test_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    episodes, options = probes.clinic(), {"hidden": (16,), "updates": 40, "evaluate_every": 20, "min_updates": 0}
    first, second = (policy.fit("iql", episodes, options, seed=3).q(episodes.state) for _ in range(2))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, policy.fit("iql", episodes, options, seed=4).q(episodes.state))


def test_an_expectile_of_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="tau"):
        policy.fit("iql", probes.clinic(), {"tau": 1.0})
