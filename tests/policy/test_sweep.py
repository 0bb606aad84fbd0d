"""Sweep: stacked critics are the single ones, and the rule selects without a value estimate."""

from dataclasses import replace

import numpy as np
import pytest

import policy
from cohort.errors import ConfigError, InputError
from policy import sweep
from policy.behaviour import BehaviourConfig
from policy.iql import CriticConfig
from policy.sweep import Setting, SweepConfig
from tests import probes

CRITIC = CriticConfig(hidden=(16,), batch=40, updates=40, evaluate_every=20, min_updates=0)
ROW = Setting(0.7, 0.1, 0.1, 0, 0.5, 0.1, 1.0, 0.1, 5.0, 300.0, None)


def test_stacked_critics_equal_single_ones() -> None:
    ward = probes.clinic()
    stacked = sweep.critics(ward, CRITIC, (0.5, 0.8), seed=3)
    options = CRITIC.model_dump() | {"behaviour": probes.CLINICIANS, "eps": 0.01, "target_kl": 0.01}
    for tau, critic in stacked.items():
        single = policy.fit("conservative_iql", ward, options | {"tau": tau}, seed=3)
        assert critic.q(ward.state) == pytest.approx(single.q(ward.state), abs=1e-4)
    assert not np.allclose(stacked[0.5].q(ward.state), stacked[0.8].q(ward.state), atol=1e-3)


def test_every_setting_has_a_row_and_infeasible_ones_say_why() -> None:
    ward = probes.clinic()
    config = SweepConfig(
        taus=(0.6, 0.8), target_kls=(0.02, 50.0), critic=CRITIC, behaviour=BehaviourConfig(**probes.CLINICIANS)
    )
    rows = sweep.run(ward, probes.clinic(seed=1), config)
    assert [(row.tau, row.target_kl) for row in rows] == [(0.6, 0.02), (0.6, 50.0), (0.8, 0.02), (0.8, 50.0)]
    assert all(row.infeasible is None and 1 <= row.ess <= 120 for row in rows[::2])
    assert all("infeasible" in str(row.infeasible) and row.ess == 0 for row in rows[1::2])


def test_effective_episodes_by_hand() -> None:
    episodes = probes.action_choice(1)[0]
    same = np.full((2, 2), 0.5)
    assert sweep.effective_episodes(episodes, same, same) == pytest.approx(2.0)
    assert sweep.effective_episodes(episodes, np.array([[0.9, 0.1]] * 2), same) == pytest.approx(1.0 / 0.82)


def test_rule_takes_the_largest_divergence_that_leaves_enough_episodes_in_every_seed() -> None:
    rows = [
        ROW,
        replace(ROW, target_kl=0.2, ess=250.0),
        replace(ROW, target_kl=0.5, ess=400.0),
        replace(ROW, target_kl=0.5, ess=100.0, seed=1),
        replace(ROW, target_kl=0.9, infeasible="no"),
    ]
    assert sweep.selected(rows, 200.0).target_kl == 0.2


def test_rule_takes_the_smaller_expectile_where_losses_hardly_differ() -> None:
    rows = [ROW, replace(ROW, tau=0.9, held_td=0.48), replace(ROW, tau=0.5, held_td=0.9)]
    assert sweep.selected(rows, 200.0).tau == 0.7


def test_no_setting_with_enough_episodes_is_refused_with_the_most_there_is() -> None:
    with pytest.raises(InputError, match="the most is 300"):
        sweep.selected([ROW], 500.0)


def test_expectiles_given_twice_are_refused() -> None:
    with pytest.raises(ConfigError, match="taus"):
        sweep.critics(probes.clinic(), CRITIC, (0.7, 0.7))
