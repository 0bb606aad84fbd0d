"""Estimates: hand-worked values, the laws of each estimator, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest

import ope
from cohort.episodes import Episodes
from cohort.errors import ConfigError, InputError
from ope.gates import GateConfig
from tests.ope.worlds import Log, hand, random_log

IS_TYPE = ["is", "wis", "pdis", "cwpdis"]
EVERY = [*IS_TYPE, "dm", "dr", "wdr", "magic"]
OPEN = GateConfig(
    min_patients=2, min_ess=1, min_ess_share=1e-6, min_mean_weight=1e-6, max_mean_weight=1e99, max_weight_share=1,
    max_unsupported=1, max_calibration_error=1, min_coverage=0, value_in_range=False, agreement=False,
)  # fmt: skip


def values(
    log: Log, names: list[str], gamma: float = 1.0, q: np.ndarray | None = None, **more: object
) -> dict[str, float]:
    found = ope.evaluate(
        log.episodes, log.target, log.behaviour, gamma, q=q, estimators=names, n_bootstrap=20, gates=False, **more
    )
    return {one.estimator: one.value for one in found}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("is", (1 * 1.5 + 0.5 * 2) / 2),
        ("wis", (1 * 1.5 + 0.5 * 2) / 1.5),
        ("pdis", ((2 * 1 + 0.5 * 1 * 1) + 0.5 * 2) / 2),
        ("cwpdis", (2 * 1 + 0.5 * 2) / 2.5 + 0.5 * (1 * 1) / (1 + 0.5)),
    ],
)
def test_importance_sampling_gives_the_hand_worked_value(name: str, expected: float) -> None:
    assert values(hand(), [name], gamma=0.5)[name] == pytest.approx(expected, abs=1e-12)


def test_model_based_estimates_give_the_hand_worked_values() -> None:
    # Logged Q 1, 0.5 | 1; V 1.5, 1 | 3 by the choice of the other action's Q.
    q = np.array([[1.0, 3.5], [0.5, 4 / 3], [4 + 1 / 3, 1.0]])
    found = values(hand(), ["dm", "dr", "wdr"], gamma=0.5, q=q)
    assert found["dm"] == pytest.approx((1.5 + 3) / 2, abs=1e-12)
    first = 2 * (1 - 1) + 1.5 + 0.5 * (1 * (1 - 0.5) + 2 * 1)
    assert found["dr"] == pytest.approx((first + 0.5 * (2 - 1) + 3) / 2, abs=1e-12)
    step_0 = (2 * 0 + 0.5 * 1) / 2.5 + (1.5 + 3) / 2
    step_1 = 0.5 * ((1 * 0.5 + 0.5 * 0) / 1.5 + (2 * 1 + 0.5 * 0) / 2.5)
    assert found["wdr"] == pytest.approx(step_0 + step_1, abs=1e-12)


@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_same_policy_gives_mean_return_and_full_ess(gamma: float) -> None:
    log = random_log()
    log = replace(log, target=log.behaviour)
    mean = log.episodes.returns_to_go(gamma)[log.episodes.start].mean()
    for found in ope.evaluate(log.episodes, log.target, log.behaviour, gamma, n_bootstrap=20, gates=False):
        assert found.value == pytest.approx(mean, abs=1e-12), found.estimator
        assert found.ess == pytest.approx(log.episodes.n_episodes)


def test_terminal_only_reward_makes_pdis_equal_is() -> None:
    found = values(random_log(terminal_only=True), ["is", "pdis"], gamma=0.9)
    assert found["pdis"] == pytest.approx(found["is"], abs=1e-12)


def test_terminal_only_reward_makes_cwpdis_equal_wis_only_at_equal_lengths() -> None:
    equal = values(random_log(terminal_only=True, unequal=False), ["wis", "cwpdis"])
    assert equal["cwpdis"] == pytest.approx(equal["wis"], abs=1e-12)
    unequal = values(random_log(terminal_only=True, unequal=True), ["wis", "cwpdis"])
    assert abs(unequal["cwpdis"] - unequal["wis"]) > 1e-3


def test_order_of_episodes_changes_nothing() -> None:
    log, rng = random_log(), np.random.default_rng(1)
    q = rng.normal(size=log.target.shape)
    order = rng.permutation(log.episodes.n_episodes)
    rows = np.concatenate(
        [np.arange(s, s + n) for s, n in zip(log.episodes.start[order], log.episodes.length[order], strict=True)]
    )
    shuffled = Log(log.episodes.select(order), log.target[rows], log.behaviour[rows])
    before, after = (values(one, EVERY, q=one_q) for one, one_q in ((log, q), (shuffled, q[rows])))
    for name in EVERY:
        assert after[name] == pytest.approx(before[name], abs=1e-10), name


def test_explicit_padding_changes_nothing() -> None:
    """A step after the end with reward 0, Q 0 and both policies equal is what the padding contract adds by itself."""
    log, q = random_log(n_episodes=60), np.random.default_rng(1).normal(size=(10_000, 3))
    episodes, length = log.episodes, int(log.episodes.length.max())
    kept = np.concatenate(
        [
            np.r_[np.arange(s, s + n), np.full(length - n, -1)]
            for s, n in zip(episodes.start, episodes.length, strict=True)
        ]
    )
    real = (kept >= 0)[:, None]
    uniform = np.full(3, 1 / 3)
    padded = Log(
        Episodes.from_arrays(
            np.zeros((len(kept), 1)), np.where(kept >= 0, episodes.action[kept], 0),
            np.where(kept >= 0, episodes.reward[kept], 0), np.repeat(np.arange(60), length), np.ones(60, bool),
            n_actions=3,
        ),
        np.where(real, log.target[kept], uniform), np.where(real, log.behaviour[kept], uniform),
    )  # fmt: skip
    q = q[: episodes.n]
    before, after = values(log, EVERY, 0.9, q), values(padded, EVERY, 0.9, np.where(real, q[kept], 0))
    for name in EVERY:
        assert after[name] == pytest.approx(before[name], abs=1e-10), name


def test_a_finished_episode_stays_in_the_denominator() -> None:
    """Everybody's return is at most 1; dropping the finished from later steps gives 1.6."""
    episodes = Episodes.from_arrays(
        np.zeros((4, 1)),
        np.array([0, 0, 0, 0]),
        np.array([1.0, 0.0, 0.0, 1.0]),
        np.array([0, 1, 1, 1]),
        np.ones(2, bool),
        n_actions=2,
    )
    probs = np.full((4, 2), 0.5)
    assert values(Log(episodes, probs, probs), ["cwpdis"])["cwpdis"] == 1.0


def test_an_action_the_policy_never_takes_leaves_no_weight_and_is_withheld_even_without_gates() -> None:
    log = hand()
    log = replace(log, target=np.eye(2)[[1, 1, 0]])
    found = {one.estimator: one for one in ope.evaluate(log.episodes, log.target, log.behaviour, 1, gates=False)}
    assert found["wis"].value is None
    assert found["wis"].withheld.startswith("undefined")
    assert found["is"].value == 0


def test_logged_probabilities_alone_give_the_same_numbers() -> None:
    log = random_log()
    rows = np.arange(log.episodes.n)
    thin = Log(log.episodes, log.target[rows, log.episodes.action], log.behaviour[rows, log.episodes.action])
    assert values(thin, IS_TYPE) == values(log, IS_TYPE)


def test_float32_probabilities_agree_to_six_digits() -> None:
    log = random_log(horizon=20)
    thin = replace(log, target=log.target.astype(np.float32), behaviour=log.behaviour.astype(np.float32))
    thick = values(log, IS_TYPE)
    for name, value in values(thin, IS_TYPE).items():
        assert value == pytest.approx(thick[name], rel=2e-5), name


def cut_off(log: Log) -> Log:
    episodes = log.episodes
    kept = Episodes.from_arrays(
        episodes.state, episodes.action, episodes.reward, episodes.episode, np.arange(episodes.n_episodes) % 3 > 0,
        np.ones((episodes.n_episodes, 2)), episodes.n_actions,
    )  # fmt: skip
    return replace(log, episodes=kept)


def test_cut_off_episodes_without_final_value_are_withheld() -> None:
    log = cut_off(random_log())
    q = np.zeros_like(log.target)
    strict = ope.evaluate(log.episodes, log.target, log.behaviour, 0.9, q=q, gates=OPEN)
    assert all(one.value is None and one.withheld.startswith("truncated: 100 ") for one in strict)
    loose = {
        one.estimator: one.withheld
        for one in ope.evaluate(log.episodes, log.target, log.behaviour, 0.9, q=q, gates=False)
    }
    assert [name for name in EVERY if loose[name]] == ["dm", "dr", "wdr", "magic"]


def test_a_final_value_is_the_reward_of_one_more_step() -> None:
    log = cut_off(random_log())
    final = np.random.default_rng(2).normal(size=log.episodes.n_episodes)
    same = replace(log, target=log.behaviour)
    end = np.where(log.episodes.terminated, 0, final * 0.9**log.episodes.length)
    mean = (log.episodes.returns_to_go(0.9)[log.episodes.start] + end).mean()
    for name, value in values(same, IS_TYPE, 0.9, final_value=final).items():
        assert value == pytest.approx(mean, abs=1e-12), name


def test_the_same_seed_gives_the_same_intervals_and_another_does_not() -> None:
    log = random_log()
    one, two, other = (
        ope.evaluate(log.episodes, log.target, log.behaviour, 1, n_bootstrap=50, gates=False, seed=seed)
        for seed in (3, 3, 4)
    )
    assert one == two
    assert one != other


def wrong(log: Log, **changed: object) -> str:
    given = {"target_probs": log.target, "behaviour_probs": log.behaviour, "gamma": 0.9} | changed
    with pytest.raises((InputError, ConfigError)) as caught:
        ope.evaluate(log.episodes, **given)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_probabilities_that_do_not_sum_to_one_are_refused() -> None:
    log = random_log()
    assert (
        wrong(log, target_probs=log.target * 0.99)
        == f"target_probs: do not sum to 1 (tolerance 0.0001) in {len(log.target)} of {len(log.target)} rows"
    )
    assert "behaviour_probs: do not sum" in wrong(log, behaviour_probs=log.behaviour * 0.99)


def test_zero_behaviour_probability_on_a_logged_action_is_refused() -> None:
    log = hand()
    zero = log.behaviour.copy()
    zero[1] = [0, 1]
    assert "1 of 3 logged actions have probability 0" in wrong(log, behaviour_probs=zero)


@pytest.mark.parametrize("which", ["target_probs", "behaviour_probs"])
def test_bad_probabilities_are_refused_by_name_and_count(which: str) -> None:
    log = hand()
    good = log.target if which == "target_probs" else log.behaviour
    assert f"{which}: has shape (2, 2)" in wrong(log, **{which: good[:2]})
    assert f"{which}: NaN or infinite in 1 of 3" in wrong(
        log, **{which: np.where(np.eye(3, 2) > 0, np.nan, good)[[0, 2, 2]]}
    )
    assert f"{which}: outside 0..1 in 1 of 3" in wrong(log, **{which: np.array([[1.5, -0.5], *good[1:]])})


def test_bad_q_final_value_and_options_are_refused() -> None:
    log = hand()
    assert "estimator dr needs q" in wrong(log, estimators=["dr"])
    assert "'ips' is unknown" in wrong(log, estimators=["ips"])
    assert "q: has shape" in wrong(log, q=np.zeros((3, 3)))
    assert "q: NaN or infinite in 1 of 3" in wrong(log, q=np.array([[np.nan, 0], [0, 0], [0, 0]]))
    assert "need all actions' probabilities" in wrong(log, q=np.zeros((3, 2)), target_probs=log.target[:, 0])
    assert "final_value: has shape (3,)" in wrong(log, final_value=np.zeros(3))
    assert "gamma: 1.5" in wrong(log, gamma=1.5)
    assert "level: 95" in wrong(log, level=95)


def test_too_few_patients_withhold_every_number() -> None:
    log = hand()
    for found in ope.evaluate(log.episodes, log.target, log.behaviour, 1):
        assert (found.value, found.low, found.high) == (None, None, None)
        assert found.withheld == "too_few_patients: 2 patients, at least 200 needed"


def test_a_policy_like_the_clinicians_is_printed_by_the_default_gates() -> None:
    log = random_log(n_episodes=1000)
    near = 0.9 * log.behaviour + 0.1 * log.target
    assert [one.withheld for one in ope.evaluate(log.episodes, near, log.behaviour, 1)] == [None] * 4


def test_a_value_outside_what_the_rewards_allow_is_withheld() -> None:
    log = random_log(n_episodes=1000)
    dm = ope.evaluate(log.episodes, log.behaviour, log.behaviour, 1, q=np.full_like(log.target, 99), estimators=["dm"])[
        0
    ]
    assert dm.withheld.startswith("value_range: ")


def test_model_and_importance_sampling_that_disagree_withhold_each_other() -> None:
    log = random_log(n_episodes=1000)
    q = np.full_like(log.target, 0.9)
    found = ope.evaluate(log.episodes, log.behaviour, log.behaviour, 1, q=q, estimators=["wis", "dm"])
    assert [one.withheld.split(":")[0] for one in found] == ["disagreement", "disagreement"]
