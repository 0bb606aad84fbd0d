"""Frontier: a setting's lower bound is the evaluation's own, and the evaluation's gates withhold it."""

import numpy as np
import pytest

from ope import frontier, interval
from ope.gates import GateConfig
from ope.setting import EvaluationConfig
from ope.trajectories import attainable, pad
from tests.ope import worlds
from tests.small_run import LENIENT

CONFIG = EvaluationConfig(gamma=0.9, gates=LENIENT)


def test_the_bound_is_the_high_confidence_one_of_clipped_importance_sampling() -> None:
    log = worlds.random_log(n_episodes=400)
    found = frontier.bound(log.episodes, log.target, log.behaviour, CONFIG)
    rows = np.arange(log.episodes.n)
    ratio = log.target[rows, log.episodes.action] / log.behaviour[rows, log.episodes.action]
    t, allowed = pad(log.episodes, ratio, 0.9), attainable(log.episodes, 0.9)
    expected = interval.high_confidence(t.weight[:, -1], t.returns, log.episodes.patient, allowed, 10.0, 0.95)
    assert found == frontier.Bound(expected, None)
    assert expected < np.mean(t.weight[:, -1] * t.returns)


def test_clinicians_are_worth_their_mean_and_their_bound_lies_below() -> None:
    log = worlds.random_log(n_episodes=400)
    mean = float(log.episodes.returns_to_go(0.9)[log.episodes.start].mean())
    assert frontier.clinicians(log.episodes, CONFIG).value == pytest.approx(mean)
    own = frontier.bound(log.episodes, log.behaviour, log.behaviour, CONFIG)
    assert own.value is not None
    assert own.value < mean


@pytest.mark.parametrize(
    ("threshold", "code"),
    [
        ({"min_patients": 401}, "too_few_patients"),
        ({"min_ess": 399}, "low_ess"),
        ({"min_mean_weight": 0.999, "max_mean_weight": 1.0001}, "mean_weight"),
        ({"support_floor": 0.4, "max_unsupported": 0.01}, "unsupported"),
        ({"max_calibration_error": 1e-6}, "behaviour_calibration"),
    ],
)
def test_a_failed_gate_withholds_the_bound_by_its_name(threshold: dict[str, float], code: str) -> None:
    log = worlds.random_log(n_episodes=400)
    strict = CONFIG.model_copy(update={"gates": GateConfig(**{**LENIENT.model_dump(), **threshold})})
    found = frontier.bound(log.episodes, log.target, log.behaviour, strict)
    assert found.value is None
    assert found.withheld is not None
    assert found.withheld.startswith(f"{code}: ")


def test_episodes_that_are_cut_off_have_no_bound_and_too_few_patients_are_said_first() -> None:
    log = worlds.random_log(n_episodes=400)
    cut = log.episodes.terminated.copy()
    cut[:3] = False
    episodes = type(log.episodes).from_arrays(
        log.episodes.state, log.episodes.action, log.episodes.reward, log.episodes.episode, cut,
        np.zeros((400, 2), np.float32), log.episodes.n_actions,
    )  # fmt: skip
    for found in (frontier.bound(episodes, log.target, log.behaviour, CONFIG), frontier.clinicians(episodes, CONFIG)):
        assert found.withheld == "truncated: 3 episodes are cut off and have no final_value"
    few = CONFIG.model_copy(update={"gates": GateConfig(min_patients=500)})
    assert str(frontier.bound(episodes, log.target, log.behaviour, few).withheld).startswith("too_few_patients")
