"""Doses: exact integrals over half-open windows, the norepinephrine equivalent, and the bins they fall in."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from cohort import actions
from cohort.actions import ActionConfig
from cohort.dictionary import Dictionary
from cohort.scaler import Scaler
from tests.cohort import tiny

CONFIG = ActionConfig()


def doses(infusions, *, hours=(0, 4, 8), step=4, end=12.0, config=CONFIG):
    """Doses of the only stay."""
    shard = tiny.make(infusions=infusions)
    return actions.doses(
        shard, tiny.anchors(shard), np.array(hours), step, np.array([tiny.at(end)], "datetime64[us]"), config
    )


def test_a_dose_is_the_exact_integral_over_each_window_it_overlaps() -> None:
    made = doses([(1, "fluid", 3.5, 8.25, 100.0)])
    assert made.fluid_ml.tolist() == [[50.0, 400.0, 25.0]]


def test_a_window_holds_its_start_and_not_its_end() -> None:
    made = doses([(1, "fluid", 0.0, 4.0, 100.0), (1, "fluid", 4.0, 5.0, 10.0), (1, "norepinephrine", 4.0, 8.0, 0.1)])
    assert made.fluid_ml.tolist() == [[400.0, 10.0, 0.0]]
    np.testing.assert_allclose(made.vasopressor_ug_kg_min, [[0.0, 0.1, 0.0]], rtol=1e-12)


def test_doses_before_the_anchor_and_after_the_end_of_the_episode_are_in_no_window() -> None:
    made = doses([(1, "fluid", -2.0, 1.0, 100.0), (1, "fluid", 9.0, 30.0, 100.0)], end=10.0)
    assert made.fluid_ml.tolist() == [[100.0, 0.0, 100.0]]
    assert made.duration_h.tolist() == [[4.0, 4.0, 2.0]]


def test_the_rate_of_a_partial_last_window_is_the_mean_over_its_own_duration() -> None:
    """A discharge artefact in earlier pipelines: the shorter window looked like a smaller dose."""
    made = doses([(1, "norepinephrine", 0.0, 30.0, 0.2)], end=9.0)
    np.testing.assert_allclose(made.vasopressor_ug_kg_min, [[0.2, 0.2, 0.2]], rtol=1e-9)
    assert made.duration_h[0, 2] == 1.0


def test_nothing_is_given_and_no_time_passes_after_the_end() -> None:
    made = doses([(1, "norepinephrine", 0.0, 30.0, 0.2)], end=4.0)
    assert made.vasopressor_ug_kg_min[0, 1:].tolist() == [0.0, 0.0]
    assert made.duration_h[0, 1:].tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("drug", "rate", "equivalent"),
    [("norepinephrine", 0.1, 0.1), ("epinephrine", 0.1, 0.1), ("dopamine", 6.0, 0.06), ("phenylephrine", 1.5, 0.15),
     ("vasopressin", 0.04, 0.1), ("angiotensin_ii", 0.02, 0.2), ("dobutamine", 5.0, 0.0)],
)  # fmt: skip
def test_the_norepinephrine_equivalent_of_each_drug(drug, rate, equivalent) -> None:
    """Vasopressin is in U/min here: 2.4 U/h is 0.04; read as U/min it would count sixtyfold."""
    made = doses([(1, drug, 0.0, 4.0, rate)])
    np.testing.assert_allclose(made.vasopressor_ug_kg_min[0, 0], equivalent, rtol=1e-9)


def test_equivalents_of_drugs_given_together_add_up() -> None:
    made = doses([(1, "norepinephrine", 0.0, 2.0, 0.2), (1, "vasopressin", 0.0, 4.0, 0.04)])
    np.testing.assert_allclose(made.vasopressor_ug_kg_min[0, 0], 0.2)


def test_the_equivalent_is_capped_and_counted_but_no_single_rate_is() -> None:
    made = doses([(1, "dopamine", 0.0, 4.0, 6.0), (1, "norepinephrine", 4.0, 8.0, 5.0)])
    np.testing.assert_allclose(made.vasopressor_ug_kg_min[0], [0.06, 3.0, 0.0])
    assert made.capped.tolist() == [[0, 1, 0]]


def test_a_charted_rate_of_zero_is_not_a_drug() -> None:
    made = doses([(1, "norepinephrine", 0.0, 4.0, 0.0), (1, "fluid", 0.0, 4.0, 0.0)])
    assert actions.bin_of(made.vasopressor_ug_kg_min[0], (0.1, 0.2, 0.3)).tolist() == [0, 0, 0]
    assert actions.bin_of(made.fluid_ml[0], (0.1, 0.2, 0.3)).tolist() == [0, 0, 0]


def test_dextrose_counts_as_fluid_only_where_the_configuration_says_so() -> None:
    rows = [(1, "d5w", 0.0, 4.0, 50.0)]
    assert doses(rows).fluid_ml[0, 0] == 0.0
    assert doses(rows, config=ActionConfig(include_d5w=True)).fluid_ml[0, 0] == 200.0


def test_factors_come_from_the_configuration() -> None:
    half = ActionConfig(norepinephrine_equivalent={"dopamine": 0.5})
    made = doses([(1, "dopamine", 0.0, 4.0, 1.0), (1, "norepinephrine", 0.0, 4.0, 1.0)], config=half)
    np.testing.assert_allclose(made.vasopressor_ug_kg_min[0, 0], 0.5)


def test_asking_for_one_window_gives_what_all_windows_give() -> None:
    shard = tiny.random_tables(3)
    end = shard.stays["outtime"].to_numpy()
    every = actions.doses(shard, tiny.anchors(shard), np.arange(0, 72, 4), 4, end, CONFIG)
    for k in (0, 7, 17):
        one = actions.doses(shard, tiny.anchors(shard), np.array([4 * k]), 4, end, CONFIG)
        np.testing.assert_array_equal(one.fluid_ml[:, 0], every.fluid_ml[:, k])
        np.testing.assert_array_equal(one.vasopressor_ug_kg_min[:, 0], every.vasopressor_ug_kg_min[:, k])


INFUSIONS = st.lists(
    st.tuples(st.integers(-120, 1500), st.integers(1, 900), st.sampled_from([1.0, 33.3, 0.07, 250.0])), max_size=12
)  # start minute, minutes, mL/h


@settings(max_examples=60, deadline=None)
@given(INFUSIONS, st.integers(60, 24 * 60), st.sampled_from([1, 2, 4]))
def test_volume_is_conserved_and_equals_the_sum_of_every_minute(infusions, end_minute, step) -> None:
    rows = [(1, "fluid", start / 60, (start + length) / 60, rate) for start, length, rate in infusions]
    made = doses(rows, hours=np.arange(0, 24, step), step=step, end=end_minute / 60)
    by_minute = np.zeros(24 * 60)
    for start, length, rate in infusions:
        by_minute[max(start, 0) : max(start + length, 0)] += rate / 60
    by_minute[end_minute:] = 0.0
    np.testing.assert_allclose(made.fluid_ml[0], by_minute.reshape(-1, step * 60).sum(axis=1), atol=1e-7)
    np.testing.assert_allclose(made.fluid_ml.sum(), by_minute.sum(), atol=1e-7)


@settings(max_examples=30, deadline=None)
@given(INFUSIONS, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_move_a_dose_by_a_bit(infusions, random) -> None:
    rows = [(1, "norepinephrine", start / 60, (start + length) / 60, rate) for start, length, rate in infusions]
    turned = list(rows)
    random.shuffle(turned)
    one, other = doses(rows), doses(turned)
    assert one.vasopressor_ug_kg_min.tobytes() == other.vasopressor_ug_kg_min.tobytes()


def test_bins_are_none_and_the_quartiles_of_what_was_given() -> None:
    dose = np.array([0.0, 0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0])
    edges, medians = actions.fit_bins(dose, 5)
    assert edges == (3.0, 5.0, 7.0)
    assert medians == (0.0, 2.0, 4.5, 6.5, 8.5)
    assert actions.bin_of(dose, edges).tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 3, 3, 4, 4]


def test_the_smallest_dose_above_none_is_in_the_first_bin_and_an_edge_in_the_bin_below_it() -> None:
    assert actions.bin_of(np.array([0.0, 1e-9, 3.0, 3.0001, 99.0]), (3.0, 5.0, 7.0)).tolist() == [0, 1, 1, 2, 4]


def test_equal_doses_leave_bins_empty_without_an_error() -> None:
    edges, medians = actions.fit_bins(np.full(9, 2.0), 5)
    assert (edges, medians) == ((2.0, 2.0, 2.0), (0.0, 2.0, 2.0, 2.0, 2.0))
    assert actions.fit_bins(np.zeros(4), 5) == ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0, 0.0))


def test_the_action_is_five_times_the_fluid_bin_plus_the_vasopressor_bin() -> None:
    scaler = Scaler(np.zeros(1), np.ones(1), np.zeros(1, bool))
    bins = Dictionary(
        ("x",),
        np.zeros(1),
        scaler,
        4.0,
        (10.0, 20.0, 30.0),
        (0.0, 5.0, 15.0, 25.0, 40.0),
        (0.1, 0.2, 0.3),
        (0.0, 0.05, 0.15, 0.25, 0.5),
    )
    fluid, vasopressor = np.array([0.0, 0.0, 15.0, 31.0]), np.array([0.0, 0.15, 0.0, 0.9])
    assert actions.to_action(fluid, vasopressor, bins).tolist() == [0, 2, 10, 24]
    assert bins.dose(24) == (160.0, 0.5)
    assert bins.n_actions == 25


@pytest.mark.parametrize(
    "wrong",
    [{"bins": 1}, {"equivalent_cap": 0}, {"norepinephrine_equivalent": {"aspirin": 1.0}},
     {"norepinephrine_equivalent": {"dopamine": -1.0}}],
)  # fmt: skip
def test_a_configuration_that_is_not_allowed_is_refused(wrong) -> None:
    with pytest.raises(ValidationError):
        ActionConfig(**wrong)
