"""Rewards: a table worked by hand."""

import numpy as np
import pytest
from pydantic import ValidationError

from cohort.reward import RewardConfig, rewards


def paid(config=None, **columns):
    """Rewards of three windows: two of 4 h and a last one of 1.5 h that ends the episode."""
    given = {
        "duration_h": np.array([4.0, 4.0, 1.5]),
        "terminal": np.array([False, False, True]),
        "died": np.array([False, False, False]),
        "hours_after": np.zeros(3),
    }
    return rewards(**{**given, **columns}, config=config or RewardConfig())


def test_survival_pays_one_and_every_icu_hour_costs() -> None:
    np.testing.assert_allclose(paid(), [-0.004, -0.004, 1 - 0.0015], rtol=1e-6)


def test_death_costs_one_and_its_outcome_is_read_only_where_the_episode_ends() -> None:
    np.testing.assert_allclose(paid(died=np.ones(3, bool)), [-0.004, -0.004, -1 - 0.0015], rtol=1e-6)


def test_an_episode_that_is_cut_off_is_paid_no_outcome() -> None:
    np.testing.assert_allclose(paid(terminal=np.zeros(3, bool)), [-0.004, -0.004, -0.0015], rtol=1e-6)


@pytest.mark.parametrize(("after", "cost"), [(100.0, 0.1), (240.0, 0.24), (5000.0, 0.24)])
def test_the_stay_past_the_horizon_enters_the_terminal_reward_up_to_a_cap(after, cost) -> None:
    np.testing.assert_allclose(paid(hours_after=np.full(3, after)), [-0.004, -0.004, 1 - 0.0015 - cost], rtol=1e-6)


def test_the_worst_survival_is_better_than_any_death() -> None:
    config = RewardConfig()
    longest = config.cost_per_icu_hour * (72 + config.tail_cap_hours)
    assert config.survival - longest > config.death


def test_shaping_is_off_by_default_and_punishes_what_gets_worse() -> None:
    change = {"sofa_change": np.array([2.0, -1.0, 0.0]), "lactate_change": np.array([0.0, 1.0, 0.0])}
    np.testing.assert_array_equal(paid(**change), paid())
    shaped = paid(RewardConfig(sofa_shaping=0.1, lactate_shaping=0.2), **change)
    np.testing.assert_allclose(shaped - paid(), [-0.2, 0.1 - 0.2 * np.tanh(1.0), 0.0], atol=1e-6)


@pytest.mark.parametrize(
    "wrong", [{"cost_per_icu_hour": -1}, {"horizon_end": "stop"}, {"outcome": "icu"}, {"dead": -1}]
)
def test_a_configuration_that_is_not_allowed_is_refused(wrong) -> None:
    with pytest.raises(ValidationError):
        RewardConfig(**wrong)
