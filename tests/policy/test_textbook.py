"""Textbook: the guide's figures exactly."""

import numpy as np
import pytest

from cohort.errors import ConfigError
from policy import textbook


def test_gridworld_values_are_gamma_to_the_distance() -> None:
    value, q = textbook.gridworld(4, 0.9)
    row, column = np.indices((4, 4))
    distance = (3 - row) + (3 - column)
    expected = np.where(distance > 0, 0.9 ** (distance - 1.0), 0.0)
    assert value == pytest.approx(expected)
    assert q[0, 0] == pytest.approx([0.9**6, 0.9**5, 0.9**5, 0.9**6])  # up and left stay in the corner


def test_overestimation_grows_to_epsilon_over_one_minus_gamma() -> None:
    errors, limit = textbook.overestimation(3.0, 0.99, 2000)
    assert errors[:2] == pytest.approx([3.0, 3.0 + 0.99 * 3.0])
    assert (np.diff(errors) > 0).all()
    assert (errors[-1], limit) == (pytest.approx(300.0, rel=1e-6), pytest.approx(300.0))


@pytest.mark.parametrize(("tau", "expected"), [(0.5, 16 / 3), (0.7, 80 / 13), (0.9, 80 / 11), (0.999, 8 / 1.001)])
def test_expectiles_of_the_guide(tau: float, expected: float) -> None:
    assert textbook.expectile(np.array([3.0, 5.0, 8.0]), tau) == pytest.approx(expected)


def test_expectile_of_equal_values_is_that_value_and_tau_one_is_refused() -> None:
    assert textbook.expectile(np.array([2.0, 2.0]), 0.9) == 2.0
    with pytest.raises(ConfigError, match="strictly"):
        textbook.expectile(np.array([1.0, 2.0]), 1.0)


@pytest.mark.parametrize(("alpha", "expected"), [(1.0, [0.018, 0.979, 0.002]), (5.0, [0.257, 0.571, 0.172])])
def test_awr_weights_of_the_guide(alpha: float, expected: list[float]) -> None:
    assert textbook.weighted(np.array([3.0, 7.0, 1.0]), alpha).weight == pytest.approx(expected, abs=1e-3)


def test_filter_keeps_the_top_and_reaches_their_mean() -> None:
    kept, least, mean = textbook.filtered(np.arange(1.0, 101.0), 10.0)
    assert (kept.sum(), least, mean) == (10, 91.0, 95.5)


def test_raw_awr_weights_of_the_guide_and_how_few_decide() -> None:
    sharp, even = (textbook.weighted(np.array([3.0, 7.0, 1.0]), alpha) for alpha in (1.0, 1e9))
    assert sharp.advantage == pytest.approx([-2 / 3, 10 / 3, -8 / 3])
    assert sharp.raw == pytest.approx([0.513, 28.03, 0.0695], abs=1e-2)
    assert (sharp.effective, even.effective) == (pytest.approx(1.04, abs=0.01), pytest.approx(3.0))
    with pytest.raises(ConfigError, match="alpha"):
        textbook.weighted(np.array([1.0]), 0.0)


def test_on_the_guides_graph_monte_carlo_never_tells_s1_and_temporal_differences_do() -> None:
    found = textbook.stitch(textbook.GUIDE, tau=0.5)
    assert found.monte_carlo == {"s1": 3.0, "s3": 6.5, "s4": 10.0, "s5": 3.0, "s6": 10.0}
    assert (found.temporal_difference["s1"], found.temporal_difference["s3"]) == (6.5, 6.5)
    assert textbook.stitch(textbook.GUIDE, tau=0.9999).temporal_difference["s1"] == pytest.approx(10.0, abs=1e-2)
    assert found.cloned == ("s1", "s3", "s5", "end 0")
    assert found.stitched == ("s1", "s3", "s6", "end 1")


def test_on_the_extended_graph_cloning_stays_at_five_and_values_reach_ten() -> None:
    found = textbook.stitch(tau=0.9)
    assert found.cloned == ("s1", "s2", "end 2")
    assert found.stitched == ("s1", "s3", "s6", "end 1")
    assert found.q["s1", 0] == pytest.approx(9.3)  # the 0.9-expectile of 3 and 10
    assert found.temporal_difference["s1"] == pytest.approx(0.9 * 9.3 + 0.1 * 5.0)
    assert (found.best["s1"], found.monte_carlo["s1"]) == (10.0, 4.0)


def test_values_rise_with_tau_and_fall_with_the_discount() -> None:
    values = [textbook.stitch(tau=tau).temporal_difference["s1"] for tau in (0.1, 0.5, 0.7, 0.9, 0.99)]
    assert values == sorted(values)
    assert textbook.stitch(tau=0.7, gamma=0.5).temporal_difference["s6"] == 10.0
    assert textbook.stitch(tau=0.7, gamma=0.5).best["s1"] == pytest.approx(2.5)  # 5 a step away, or 10 two
    assert textbook.stitch(tau=0.7, gamma=0.9).best["s1"] == pytest.approx(8.1)


@pytest.mark.parametrize("options", [{"tau": 1.0}, {"gamma": 1.5}, {"start": "s7"}])
def test_a_graph_cannot_be_walked_from_nowhere_or_beyond_the_ranges(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="stitch"):
        textbook.stitch(**options)  # type: ignore[arg-type]


def test_the_first_round_of_the_guides_feedback_loop() -> None:
    found = textbook.exploited((5.0, 5.0, 5.0), 5.0, 3.0, 0.99)
    assert (found.estimate, found.chosen) == (8.0, True)
    assert (found.target, found.right_target) == (pytest.approx(7.92), pytest.approx(4.95))
    assert found.limit == pytest.approx(300.0)


def test_who_goes_on_collecting_gets_better_and_a_wider_log_is_worth_more() -> None:
    few, many = textbook.rounds(2), textbook.rounds(40)
    assert few.best == pytest.approx(0.9**7)
    assert few.online[0] < few.online[-1] <= few.best
    assert list(few.online_seen) == sorted(few.online_seen)
    assert few.offline < few.online[-1]
    assert few.offline < many.offline <= many.best
    assert few.online == many.online, "online is the same whatever the log"
    assert few.offline_seen < many.offline_seen <= 96


def test_a_log_without_an_episode_is_refused() -> None:
    with pytest.raises(ConfigError, match="logged 0"):
        textbook.rounds(0)


def test_who_knows_a_way_takes_it_and_no_move_that_was_never_seen() -> None:
    assert textbook.rounds(2, size=2).offline == pytest.approx(0.9)  # each pair of walks arrived: a way of 2 is known
