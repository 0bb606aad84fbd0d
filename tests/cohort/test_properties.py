"""Properties of the way from canonical tables to states and doses, for any tables: order, shards and repetition."""

from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cohort import actions, features, frames, grid, tables
from cohort.actions import ActionConfig
from cohort.grid import GridConfig
from cohort.tables import Tables
from tests.cohort import tiny

ARRAYS = ("value", "age_h", "fio2_estimated", "sofa_missing", "sirs_missing", "cvp", "fluid_balance_total")
DOSES = ("fluid_ml", "vasopressor_ug_kg_min", "duration_h", "capped", "unknown")
CONFIG = GridConfig()
STAYS = 6
TABLE = st.integers(0, 4)
ORDER = st.permutations(range(STAYS))


@cache
def shard(seed: int) -> Tables:
    """Random tables in which some doses cannot be read."""
    made = tiny.random_tables(seed, n_stays=STAYS, rows=60)
    unread = np.arange(len(made.infusions)) % 7 == 0
    return Tables(
        made.stays,
        made.observations,
        made.infusions.assign(normalised_rate=made.infusions["normalised_rate"].mask(unread)),
        made.outputs,
    )


def answers(shard: Tables) -> dict[int, list[bytes]]:
    """Stay -> the bytes of all its states and doses."""
    anchor, hours = tiny.anchors(shard), CONFIG.hours
    state = features.states(shard, anchor, hours, CONFIG)
    end = shard.stays["outtime"].to_numpy()
    dose = actions.doses(shard, anchor, hours, CONFIG.step_hours, end, ActionConfig())
    arrays = [getattr(state, name) for name in ARRAYS] + [getattr(dose, name) for name in DOSES]
    return {int(stay): [one[row].tobytes() for one in arrays] for row, stay in enumerate(shard.stays["stay_id"])}


@cache
def expected(seed: int) -> dict[int, list[bytes]]:
    return answers(shard(seed))


@settings(max_examples=8, deadline=None)
@given(TABLE, ORDER, st.integers(0, 2**32 - 1))
def test_the_order_of_stays_and_of_rows_moves_no_bit(seed: int, order: list[int], turn: int) -> None:
    made = shard(seed)
    rows = (table.sample(frac=1, random_state=turn) for table in (made.observations, made.infusions, made.outputs))
    assert answers(Tables(made.stays.iloc[order].reset_index(drop=True), *rows)) == expected(seed)


@settings(max_examples=8, deadline=None)
@given(TABLE, ORDER, st.integers(1, STAYS - 1))
def test_however_stays_are_parted_into_shards_no_bit_moves(seed: int, order: list[int], first: int) -> None:
    made = shard(seed)
    found: dict[int, list[bytes]] = {}
    for part in (order[:first], order[first:]):
        found |= answers(frames.only(made, made.stays.iloc[part]))
    assert found == expected(seed)


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=TABLE)
def test_writing_reading_and_checking_again_changes_nothing(tmp_path: Path, seed: int) -> None:
    made = tables.check(shard(seed))
    tables.write(made, tmp_path / "shard-00000")
    again = tables.check(tables.read(tmp_path / "shard-00000"))
    for name in tables.SCHEMAS:
        pd.testing.assert_frame_equal(getattr(again, name), getattr(made, name))
    assert answers(again) == expected(seed)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.one_of(st.just(np.nan), st.floats(-1e6, 1e6, width=32)), min_size=1, max_size=20))
def test_imputing_what_is_imputed_changes_nothing(values: list[float]) -> None:
    fill = np.full(len(values), 7.0)
    once = features.impute(np.array([values]), fill)
    assert features.impute(once.astype(np.float64), fill).tobytes() == once.tobytes()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40 * 60), st.integers(1, 400)), min_size=1, max_size=12),
       st.sampled_from([1, 2, 4]))  # fmt: skip
def test_every_volume_is_in_exactly_one_window_its_start_inside_and_its_end_outside(
    charted: list[tuple[int, int]], step: int
) -> None:
    """Urine known at the minute t is in the window that begins at or before t and ends after it, and in no other."""
    made = tiny.make(outputs=[(1, minute / 60, minute / 60, float(ml)) for minute, ml in charted])
    hours = np.arange(0, 48 + step, step)
    state = features.states(made, tiny.anchors(made), hours, GridConfig(step_hours=step))
    column = features.FEATURES.index("urine_output_step")
    windows = np.zeros(len(hours))
    for minute, ml in charted:
        windows[minute // (60 * step) + 1] += ml
    np.testing.assert_array_equal(np.nan_to_num(state.value[0, :, column]), windows)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 47 * 60), st.sampled_from([1.0, 2.5, 6.0, 14.0]), st.sampled_from([1, 2, 4]))
def test_a_value_is_held_for_its_hold_time_and_not_a_minute_longer(minute: int, hold_h: float, step: int) -> None:
    made = tiny.make(observations=[(1, "sodium", minute / 60, minute / 60, 140.0)])
    hours = np.arange(0, 72, step)
    events = grid.events(made.observations, made.stays, tiny.anchors(made))
    held = grid.hold(events, ("sodium",), hours, 1, np.array([hold_h])).value[:, 0, 0]
    age = hours * 60 - minute
    assert np.array_equal(~np.isnan(held), (age > 0) & (age <= hold_h * 60))


def test_an_infusion_that_cannot_be_read_flags_the_windows_it_ran_in_and_no_other() -> None:
    made = tiny.make(infusions=[(1, "norepinephrine", 4.0, 8.0, 0.1), (1, "fluid", 10.0, 13.0, 50.0)])
    unread = made.infusions.assign(normalised_rate=made.infusions["normalised_rate"].mask([False, True]))
    shard_ = tables.check(Tables(made.stays, made.observations, unread, made.outputs))
    end = made.stays["outtime"].to_numpy()
    dose = actions.doses(shard_, tiny.anchors(shard_), np.arange(0, 20, 4), 4, end, ActionConfig())
    assert dose.unknown[0].tolist() == [False, False, True, True, False]
    assert dose.fluid_ml[0].tolist() == [0.0] * 5
    assert dose.vasopressor_ug_kg_min[0].tolist() == pytest.approx([0, 0.1, 0, 0, 0])
