"""The probe ladder over every learner with values: constant, state-dependent and delayed values, and where they end."""

import numpy as np
import pytest

import policy
from tests import probes

VALUED = ["awac", "iql", "conservative_iql", "bear", "bcq", "dqn", "sac"]
"""CQL is left out: it lowers values on purpose."""

pytestmark = pytest.mark.slow


def options(name: str, gamma: float = 1.0) -> dict[str, object]:
    """Some more updates than a test of choices needs; divergences that such small problems allow."""
    own: dict[str, object] = {"target_kl": 1e-4, "eps": 0.01} if name == "conservative_iql" else {}
    return probes.small(name) | {"updates": 1000, "learning_rate": 3e-3, "gamma": gamma} | own


def skewed(episodes):  # type: ignore[no-untyped-def]
    """Rewards with a trace of a difference between actions, without which nothing can be extracted."""
    return probes.with_reward(episodes, episodes.reward + np.where(episodes.last, 1e-3 * episodes.action, 0.0))


@pytest.mark.parametrize("name", VALUED)
def test_constant_reward_gives_its_value(name: str) -> None:
    episodes, state = probes.constant_value()
    fitted = policy.fit(name, skewed(episodes), options(name))
    assert fitted.q(state["s"][None]) == pytest.approx(np.ones((1, 2)), abs=0.05)


@pytest.mark.parametrize("name", VALUED)
def test_values_depend_on_the_state(name: str) -> None:
    episodes, state = probes.state_dependent_value()
    fitted = policy.fit(name, skewed(episodes), options(name))
    assert fitted.q(state["good"][None]) == pytest.approx(np.ones((1, 2)), abs=0.05)
    assert fitted.q(state["bad"][None]) == pytest.approx(-np.ones((1, 2)), abs=0.05)


@pytest.mark.parametrize("name", VALUED)
def test_reward_travels_back_discounted(name: str) -> None:
    episodes, state = probes.delayed_reward()
    fitted = policy.fit(name, skewed(episodes), options(name, gamma=0.5))
    assert fitted.q(state["first"][None]) == pytest.approx(np.full((1, 2), 0.5), abs=0.05)


@pytest.mark.parametrize("name", VALUED)
def test_better_action_is_likelier(name: str) -> None:
    episodes, state = probes.action_choice()
    fitted = policy.fit(name, episodes, options(name) | ({"target_kl": 0.3} if name == "conservative_iql" else {}))
    assert fitted.probs(state["s"][None])[0, 1] > 0.8


@pytest.mark.parametrize("name", [name for name in VALUED if name != "conservative_iql"])
@pytest.mark.parametrize(("terminated", "value"), [(True, 1.0), (False, 2.0)])
def test_truncation_bootstraps_and_termination_does_not(name: str, terminated: bool, value: float) -> None:
    episodes, state = probes.cut_off(terminated)
    fitted = policy.fit(name, episodes, options(name, gamma=0.5))
    assert fitted.q(state) == pytest.approx(np.full((1, 2), value), abs=0.15)
