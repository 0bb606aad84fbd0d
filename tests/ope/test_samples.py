"""Samples: what an interval adds to its resamples, and that it then holds the truth where weighty patients are rare."""

import numpy as np
import pytest

import ope
from cohort.episodes import Episodes
from ope import estimates, interval, samples
from ope.samples import Sample
from ope.trajectories import pad
from tests.ope.worlds import Log, hand, random_log


def drawn(log: Log, names: list[str], gamma: float = 1.0, seed: int = 0) -> dict[str, Sample]:
    episodes = log.episodes
    at = (np.arange(episodes.n), episodes.action)
    t = pad(episodes, log.target[at] / log.behaviour[at], gamma)
    return samples.sample(t, episodes, {name: estimates.ESTIMATORS[name] for name in names}, 200, seed)


def test_weight_that_is_missing_is_of_patients_whose_return_is_unknown() -> None:
    """Weights 1 and 1/2: a quarter of what should be there is not; returns 1.5 and 2, wis (1.5 + 1) / 1.5."""
    wis = drawn(hand(), ["wis"], 0.5)["wis"]
    assert wis.unseen == pytest.approx((0.25 * (5 / 3 - 1.5), 0.25 * (2 - 5 / 3)))
    plain, told = (
        interval.symmetric(wis.value, wis.replicates, 0.9, (0, 9)),
        Sample(wis.value, wis.replicates, wis.unseen),
    )
    found = samples.interval_of(told, 0.9, (0, 9))
    assert (plain.low - found.low, found.high - plain.high) == pytest.approx(wis.unseen)


def test_weights_above_one_miss_nothing() -> None:
    log = hand()
    heavy = Log(log.episodes, np.array([[0.8, 0.2], [0.8, 0.2], [0.2, 0.8]]), log.behaviour)
    assert drawn(heavy, ["wis"], 0.5)["wis"].unseen == (0.0, 0.0)


def test_what_misses_weight_moves_a_difference_both_ways() -> None:
    gap = samples.less(Sample(1.0, np.ones(2), (0.1, 0.2)), Sample(0.5, np.ones(2), (0.3, 0.4)))
    assert gap.unseen == pytest.approx((0.1 + 0.4, 0.2 + 0.3))


def test_a_biased_estimate_spans_what_corrects_it() -> None:
    log = random_log(n_episodes=200)
    q = np.random.default_rng(1).normal(size=log.target.shape)
    found = {one.estimator: one for one in ope.evaluate(log.episodes, log.target, log.behaviour, 1, q=q, gates=False)}
    chains = [("wis", "is"), ("cwpdis", "pdis"), ("magic", "wdr"), ("wdr", "dr"), ("dm", "dr")]
    for name, other in chains:
        assert found[name].low <= found[other].low < found[other].high <= found[name].high, name


@pytest.mark.parametrize("name", ["wis", "cwpdis", "wdr", "magic"])
def test_an_estimate_alone_has_the_interval_that_it_has_among_others(name: str) -> None:
    log = random_log(n_episodes=200)
    q = np.random.default_rng(1).normal(size=log.target.shape)
    every, alone = (
        ope.evaluate(log.episodes, log.target, log.behaviour, 1, q=q, estimators=names, gates=False)
        for names in (None, [name])
    )
    mine = next(one for one in every if one.estimator == name)
    assert (alone[0].low, alone[0].high) == pytest.approx((mine.low, mine.high), rel=1e-6)


def test_estimates_that_lean_on_the_model_have_an_interval_no_narrower_than_their_correction() -> None:
    """Q is wrong by 5 everywhere: dm is sure of it; the interval must reach to what the weights say."""
    log = random_log(n_episodes=1000)
    q = np.full_like(log.target, 5.0)
    options = {"q": q, "gates": False, "n_bootstrap": 200}
    dm, wdr, magic = ope.evaluate(
        log.episodes, log.target, log.behaviour, 1, estimators=["dm", "wdr", "magic"], **options
    )
    assert dm.value == pytest.approx(5)
    for leaning in (dm, magic):
        assert leaning.low <= wdr.low < wdr.high <= leaning.high
    alone = ope.evaluate(log.episodes, log.target, log.behaviour, 1, estimators=["dm"], **options)[0]
    assert (alone.low, alone.high) == (dm.low, dm.high)


def test_a_difference_of_leaning_estimates_spans_that_of_their_corrections() -> None:
    right = Sample(1.0, np.array([0.0, 1.0, 2.0]))
    model = Sample(9.0, np.full(3, 9.0), correction=right)
    clinicians = Sample(0.5, np.array([0.5, 0.5, 0.5]))
    found = samples.interval_of(samples.less(model, clinicians), 0.95, (-9.0, 9.0))
    half = 1.959964 * np.sqrt(2 / 3)
    assert (found.value, found.low, found.high) == pytest.approx((8.5, 0.5 - half, 8.5), abs=1e-5)
    both = samples.less(model, model)
    assert both.correction is not None
    assert both.correction.value == 0


def test_simultaneous_intervals_are_widened_by_the_same_rules() -> None:
    rng = np.random.default_rng(0)
    right = [Sample(0.0, rng.normal(size=500)) for _ in range(3)]
    leaning = [Sample(0.5, 0.5 + 0.1 * rng.normal(size=500), (0.2, 0.3), one) for one in right]
    plain, spanned = samples.simultaneous(right, 0.95), samples.simultaneous(leaning, 0.95)
    for one, other in zip(plain, spanned, strict=True):
        assert (other.value, other.low, other.high) == (0.5, one.low, max(one.high, other.high))
    alone = samples.simultaneous([Sample(0.5, one.replicates, one.unseen) for one in leaning], 0.95)
    bare = samples.simultaneous([Sample(0.5, one.replicates) for one in leaning], 0.95)
    assert [b.low - a.low for a, b in zip(alone, bare, strict=True)] == pytest.approx([0.2] * 3)
    assert [a.high - b.high for a, b in zip(alone, bare, strict=True)] == pytest.approx([0.3] * 3)


def test_intervals_hold_the_truth_where_weighty_deaths_are_rare_and_percentiles_do_not() -> None:
    """One decision: one patient in 150 gets a dose that the policy gives 15 times as often, and dies; 200 repeats of
    300 patients, 2 such patients expected."""
    behaviour, target = np.array([1 - 1 / 150, 1 / 150]), np.array([0.9, 0.1])
    truth, held, percentile = float(target @ [0.7, -1.0]), 0, 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        action = (rng.random(300) < behaviour[1]).astype(int)
        reward = np.where(action == 1, -1.0, np.where(rng.random(300) < 0.85, 1.0, -1.0))
        episodes = Episodes.from_arrays(
            np.zeros((300, 1)), action, reward, np.arange(300), np.ones(300, bool), n_actions=2
        )
        log = Log(episodes, np.tile(target, (300, 1)), np.tile(behaviour, (300, 1)))
        one = drawn(log, ["wis"], seed=seed)["wis"]
        found, plain = (
            samples.interval_of(one, 0.95, (-1, 1)),
            interval.percentile(one.value, one.replicates, 0.95, (-1, 1)),
        )
        held += found.low <= truth <= found.high
        percentile += plain.low <= truth <= plain.high
    assert held >= 186
    assert percentile <= 180
