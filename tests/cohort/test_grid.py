"""The kernel: what is known at a decision time, which of the known values counts, and for how long."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from cohort import concepts, grid
from cohort.grid import GridConfig
from tests.cohort import tiny

HOLDS = {
    "heart_rate": 2, "sbp": 2, "map": 2, "dbp": 2, "resp_rate": 2, "spo2": 2, "temperature_c": 6, "gcs": 6, "fio2": 12,
    "weight_kg": 72, "potassium": 14, "sodium": 14, "chloride": 14, "glucose": 14, "bun": 28, "creatinine": 28,
    "magnesium": 28, "calcium": 28, "ionised_calcium": 28, "total_co2": 14, "ast": 28, "alt": 28, "bilirubin_total": 28,
    "albumin": 28, "hemoglobin": 14, "wbc": 28, "platelets": 28, "ptt": 28, "pt": 28, "inr": 28, "ph": 8, "pao2": 8,
    "paco2": 8, "base_excess": 8, "lactate": 8, "bicarbonate": 14, "cvp": 2,
}  # fmt: skip


def held(observations, concept, hours, config=None):
    """Values and ages of one concept of the only stay."""
    shard = tiny.make(observations=observations)
    events = grid.events(shard.observations, shard.stays, tiny.anchors(shard))
    hold_h = np.array([concepts.load().measured[concept].hold_hours]) * (config or GridConfig()).hold_scale
    made = grid.hold(events, (concept,), np.asarray(hours), 1, hold_h)
    return made.value[:, 0, 0].tolist(), made.age_h[:, 0, 0].tolist()


def test_a_value_available_exactly_at_a_decision_is_first_known_at_the_next_one() -> None:
    value, age = held([(1, "lactate", 3.0, 4.0, 2.5)], "lactate", [4, 5])
    assert np.isnan(value[0])
    assert value[1] == 2.5
    assert age[1] == 2.0


def test_a_result_counts_from_when_it_was_stored_and_its_age_from_when_it_was_drawn() -> None:
    value, age = held([(1, "creatinine", 3.5, 4.6, 1.4)], "creatinine", [4, 8])
    assert np.isnan(value[0])
    assert (value[1], age[1]) == (1.4, 4.5)


def test_the_value_charted_last_counts_even_where_an_older_one_arrives_later() -> None:
    rows = [(1, "lactate", 1.0, 6.5, 9.0), (1, "lactate", 2.0, 2.1, 1.0)]
    value, age = held(rows, "lactate", [4, 8])
    assert value == [1.0, 1.0]
    assert age == [2.0, 6.0]


@pytest.mark.parametrize("turned", [False, True])
def test_of_values_charted_together_the_one_available_last_counts_then_the_larger(turned: bool) -> None:
    rows = [
        (1, "map", 1.0, 1.0, 80.0),
        (1, "map", 1.0, 1.5, 60.0),
        (1, "sodium", 1.0, 1.0, 140.0),
        (1, "sodium", 1.0, 1.0, 131.0),
    ]
    rows = rows[::-1] if turned else rows
    assert held(rows, "map", [2])[0] == [60.0]
    assert held(rows, "sodium", [2])[0] == [140.0]


def test_a_correction_stored_at_a_later_decision_replaces_the_value_of_the_same_charted_time() -> None:
    rows = [(1, "sodium", 1.0, 1.0, 140.0), (1, "sodium", 1.0, 5.0, 131.0)]
    assert held(rows, "sodium", [4, 8])[0] == [140.0, 131.0]


def test_a_value_as_old_as_its_hold_time_counts_and_an_older_one_is_missing() -> None:
    value, _ = held([(1, "heart_rate", 2.0, 2.0, 90.0)], "heart_rate", [4, 5])
    assert value[0] == 90.0
    assert np.isnan(value[1])
    value, _ = held([(1, "heart_rate", 1.999, 1.999, 90.0)], "heart_rate", [4])
    assert np.isnan(value[0])


def test_hold_scale_stretches_every_hold() -> None:
    value, _ = held([(1, "heart_rate", 1.0, 1.0, 90.0)], "heart_rate", [5], GridConfig(hold_scale=2.0))
    assert value == [90.0]


def test_hold_times_are_those_of_the_clinical_definitions() -> None:
    """A hold of 144 h for 14 h was in a published pipeline."""
    assert {name: concepts.load().measured[name].hold_hours for name in HOLDS} == HOLDS


def test_values_are_carried_neither_across_stays_nor_backwards() -> None:
    shard = tiny.make(
        [tiny.stay(1), tiny.stay(2), tiny.stay(3)], [(1, "sodium", 5.0, 5.0, 140.0), (2, "sodium", 6.0, 6.0, 150.0)]
    )
    events = grid.events(shard.observations, shard.stays, tiny.anchors(shard))
    value = grid.hold(events, ("sodium",), np.array([4, 8]), 3, np.array([14.0])).value[..., 0]
    np.testing.assert_array_equal(value, [[np.nan] * 3, [140.0, 150.0, np.nan]])


def test_laboratory_values_from_before_admission_count_while_they_hold() -> None:
    assert held([(1, "sodium", -3.0, -2.0, 150.0)], "sodium", [0, 12])[0][0] == 150.0


def test_a_missing_value_without_a_deciding_text_does_not_displace_an_older_one() -> None:
    rows = [(1, "sodium", 1.0, 1.0, 140.0), (1, "sodium", 2.0, 2.0, np.nan, "hemolysed")]
    assert held(rows, "sodium", [4])[0] == [140.0]


EVENTS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.integers(0, 1),
        st.integers(-300, 1300),
        st.integers(0, 240),
        st.sampled_from([1.0, 2.0, 3.0]),
    ),
    max_size=60,
)  # stay, concept, charted minute, delay in minutes, value


@settings(max_examples=60, deadline=None)
@given(EVENTS, st.sampled_from([1, 2, 4]), st.randoms(use_true_random=False))
def test_the_kernel_agrees_with_looking_through_every_event_at_every_decision_in_any_order(
    events, step, random
) -> None:
    names, holds, hours = ("sodium", "lactate"), np.array([14.0, 8.0]), np.arange(0, 24, step)
    shuffled = list(events)
    random.shuffle(shuffled)
    made, again = (grid.hold(_events(rows, names), names, hours, 3, holds) for rows in (events, shuffled))
    np.testing.assert_array_equal(made.value, again.value)
    expected = np.full((len(hours), 3, 2), np.nan)
    for k, hour in enumerate(hours):
        for stay in range(3):
            for concept in range(2):
                known = [e for e in events if e[0] == stay and e[1] == concept and e[2] + e[3] < hour * 60]
                if known:
                    charted, _, value = max((e[2], e[2] + e[3], e[4]) for e in known)
                    if hour * 60 - charted <= holds[concept] * 60:
                        expected[k, stay, concept] = value
    np.testing.assert_array_equal(made.value, expected)


def _events(rows, names) -> grid.Events:
    minute = 60_000_000
    columns = np.array(rows, float).reshape(-1, 5)
    concept = np.array([grid.columns().index(name) for name in names])[columns[:, 1].astype(int)]
    charted = columns[:, 2].astype(np.int64) * minute
    return grid.Events(
        columns[:, 0].astype(int), concept, charted, charted + columns[:, 3].astype(np.int64) * minute, columns[:, 4]
    )


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-(10**12), 10**12), min_size=1, max_size=50))
def test_every_event_becomes_known_at_exactly_one_whole_hour(available) -> None:
    available = np.array(available)
    first_known = grid.visible_hour(available) * grid.HOUR_US
    assert (available < first_known).all()
    assert (available >= first_known - grid.HOUR_US).all()


def gcs(eye, motor, verbal, total=np.nan, last=np.nan, rule="normal", ages=(1.0, 2.0, 3.0, 4.0)):
    names = ("gcs_eye", "gcs_motor", "gcs_verbal", "gcs")
    value = {name: np.array([v]) for name, v in zip(names, (eye, motor, verbal, total), strict=True)}
    age = {name: np.where(np.isnan(value[name]), np.nan, a) for name, a in zip(names, ages, strict=True)}
    combined, age_h = grid.combine_gcs(value, age, np.array([last]), rule)
    return combined[0], age_h[0]


def test_the_coma_scale_is_the_sum_of_its_parts_as_old_as_the_oldest() -> None:
    assert gcs(4.0, 6.0, 5.0) == (15.0, 3.0)
    assert gcs(1.0, 2.0, 1.0, total=9.0) == (4.0, 3.0)


def test_a_charted_total_counts_where_a_part_is_missing() -> None:
    assert gcs(4.0, np.nan, 5.0, total=9.0) == (9.0, 4.0)
    assert np.isnan(gcs(4.0, 6.0, np.nan)).all()


@pytest.mark.parametrize(
    ("rule", "last", "expected"),
    [("normal", 4.0, (15.0, 3.0)), ("last_testable", 4.0, (12.0, 3.0)), ("missing", 4.0, (np.nan, np.nan)),
     ("last_testable", np.nan, (np.nan, np.nan))],
)  # fmt: skip
def test_an_untestable_verbal_response_follows_the_rule(rule, last, expected) -> None:
    np.testing.assert_equal(gcs(2.0, 6.0, grid.UNTESTABLE, total=9.0, last=last, rule=rule), expected)


def test_an_untestable_verbal_response_is_told_by_its_text_and_not_scored_as_one() -> None:
    rows = [(1, "gcs_verbal", 1.0, 1.0, 5.0), (1, "gcs_verbal", 2.0, 2.0, np.nan, "1.0 ET/Trach")]
    assert held(rows, "gcs_verbal", [2, 4])[0] == [5.0, grid.UNTESTABLE]


@pytest.mark.parametrize(
    "wrong", [{"step_hours": 3}, {"horizon_hours": 70}, {"hold_scale": 0}, {"anchor": "birth"}, {"step_hour": 4}]
)
def test_a_grid_that_is_not_allowed_is_refused(wrong) -> None:
    with pytest.raises(ValidationError):
        GridConfig(**wrong)


def test_decision_times_stop_one_step_before_the_horizon() -> None:
    assert GridConfig().hours.tolist() == list(range(0, 72, 4))
    assert len(GridConfig(step_hours=1).hours) == 72
