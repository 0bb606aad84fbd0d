"""Interval: what the joint bootstrap shares, and how often it holds the truth."""

import numpy as np
import pytest

import ope
from cohort.episodes import Episodes
from ope import interval
from ope.trajectories import by_patient
from tests.ope.worlds import random_log


def test_replicates_equal_plain_resampling() -> None:
    columns = np.random.default_rng(0).normal(size=(37, 3)) * [1, 1e30, 1e-30]
    counts = np.concatenate(list(interval.resample_counts(37, 50, seed=1)))
    assert (counts.sum(axis=1) == 37).all()
    assert interval.replicate_sums(columns, 50, seed=1) == pytest.approx(counts @ columns, rel=1e-4, abs=1e-36)


def test_chunks_do_not_change_the_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = np.concatenate(list(interval.resample_counts(40, 30, seed=1)))
    monkeypatch.setattr(interval, "_CHUNK", 120)
    assert np.array_equal(np.concatenate(list(interval.resample_counts(40, 30, seed=1))), whole)


def test_resampling_is_by_patient_and_not_by_episode() -> None:
    """Ten copies of each episode under one patient carry no more information than one."""
    log = random_log(n_episodes=100, unequal=False)
    rows = np.tile(np.arange(log.episodes.n), 10)
    many = Episodes.from_arrays(
        log.episodes.state[rows], log.episodes.action[rows], log.episodes.reward[rows],
        np.repeat(np.arange(1000), log.episodes.length[0]), np.ones(1000, bool), n_actions=3,
        patient=np.tile(np.arange(100), 10),
    )  # fmt: skip
    one = ope.evaluate(log.episodes, log.target, log.behaviour, 1, gates=False)
    ten = ope.evaluate(many, log.target[rows], log.behaviour[rows], 1, gates=False)
    for a, b in zip(one, ten, strict=True):
        assert (b.low, b.high) == pytest.approx((a.low, a.high), rel=1e-4)


def test_sums_by_patient_add_up_whatever_the_order() -> None:
    patient = np.array([7, 3, 7, 5])
    assert by_patient(np.arange(8.0).reshape(4, 2), patient).tolist() == [[2, 3], [6, 7], [4, 6]]
    assert by_patient(np.arange(3.0)[:, None], np.array([9, 1, 4])).ravel().tolist() == [1, 2, 0]


def test_a_replicate_without_weight_widens_the_interval_to_what_rewards_allow() -> None:
    found = interval.percentile(0.5, np.r_[np.full(50, 0.5), np.full(50, np.nan)], 0.9, (-1.0, 1.0))
    assert (found.low, found.high) == (-1.0, 1.0)


def test_minimum_detectable_benefit_shrinks_with_the_root_of_ess() -> None:
    assert interval.minimum_detectable(1.0, 400.0, 0.95) == pytest.approx((1.959964 + 0.841621) / 20, abs=1e-6)


@pytest.mark.parametrize("name", ["wis", "cwpdis"])
def test_intervals_hold_the_truth_about_as_often_as_they_say(name: str) -> None:
    """One-step world: truth = sum_a pi(a) r(a); 200 repeats of 300 patients; 95% intervals hold it in 91% to 99%."""
    behaviour, target, mean = np.array([0.6, 0.3, 0.1]), np.array([0.3, 0.4, 0.3]), np.array([0.2, 0.5, 0.9])
    truth, held = float(target @ mean), 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        action = rng.choice(3, 300, p=behaviour)
        episodes = Episodes.from_arrays(
            np.zeros((300, 1)), action, rng.random(300) < mean[action], np.arange(300), np.ones(300, bool), n_actions=3
        )
        found = ope.evaluate(
            episodes,
            np.tile(target, (300, 1)),
            np.tile(behaviour, (300, 1)),
            1,
            estimators=[name],
            n_bootstrap=300,
            gates=False,
            seed=seed,
        )[0]
        held += found.low <= truth <= found.high
    assert 182 <= held <= 198


def test_the_percentile_interval_leaves_equal_tails() -> None:
    found = interval.percentile(0.5, np.linspace(0, 1, 1001), 0.9, (-9.0, 9.0))
    assert (found.low, found.high) == pytest.approx((0.05, 0.95))


def test_the_symmetric_interval_is_the_hand_worked_one() -> None:
    found = interval.symmetric(1.0, np.array([0.0, 1.0, 3.0]), 0.9, (-9.0, 9.0))
    half = 1.644854 * np.sqrt(5 / 3)
    assert (found.value, found.low, found.high) == pytest.approx((1.0, 1 - half, 1 + half), abs=1e-5)
    unknown = interval.symmetric(0.5, np.array([0.5, np.nan]), 0.9, (-1.0, 2.0))
    assert (unknown.low, unknown.high) == pytest.approx(
        (0.5 - 1.644854 * np.sqrt(1.5**2 / 2), 0.5 + 1.644854 * np.sqrt(1.5**2 / 2)), abs=1e-5
    )


def test_rank_probabilities_count_places() -> None:
    replicates = np.array([[3.0, 2, 1], [3, 1, 2], [1, 2, 3], [3, 2, 1]])
    assert interval.rank_probabilities(replicates).tolist() == [[0.75, 0, 0.25], [0, 0.75, 0.25], [0.25, 0.25, 0.5]]


def test_simultaneous_intervals_hold_all_values_at_once_and_single_ones_do_not() -> None:
    rng, m, hit, single = np.random.default_rng(0), 8, 0, 0
    for _ in range(200):
        value = rng.normal(size=m)
        replicates = value + rng.normal(size=(400, m))
        hit += all(one.low <= 0 <= one.high for one in interval.simultaneous(value, replicates, 0.95))
        single += bool((np.abs(value) < 1.96).all())
    assert 181 <= hit <= 199
    assert single < 160


def test_the_lower_bound_is_the_hand_worked_one_and_below_the_mean() -> None:
    x = np.r_[np.zeros(50), np.ones(50)]
    log = np.log(2 / 0.05)
    expected = 0.5 - np.sqrt(2 * 0.25 * (100 / 99) * log / 100) - 7 * log / (3 * 99)
    assert interval.lower_bound(x, 1.0, 0.95) == pytest.approx(expected, abs=1e-12)
    with pytest.raises(ValueError, match=r"within 0\.\.largest"):
        interval.lower_bound(x, 0.5, 0.95)


def test_the_high_confidence_bound_holds_in_every_repeat_of_a_heavy_tailed_world() -> None:
    """Rare action with ratio 50, clipped at 10: the truth is 0.5; the bound is below it each time and falls no lower
    than the clipped mean's own loss explains."""
    bounds = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        rare = rng.random(5000) < 0.01
        weight, returns = np.where(rare, 50.0, 0.5 / 0.99), np.where(rare, 0.8, 0.2)
        bounds.append(interval.high_confidence(weight, returns, np.arange(5000), (-1.0, 1.0), 10.0, 0.95))
    assert max(bounds) < 0.5
    assert min(bounds) > -1.0
