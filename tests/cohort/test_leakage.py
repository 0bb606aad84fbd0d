"""The leakage mutation test: what becomes available at or after t is scrambled, and no state up to t moves a bit."""

import numpy as np
import pandas as pd
import pytest

from cohort import features
from cohort.actions import ActionConfig
from cohort.grid import GridConfig
from cohort.tables import Tables
from tests.cohort import tiny

ARRAYS = ("value", "age_h", "fio2_estimated", "sofa_missing", "sirs_missing", "cvp", "fluid_balance_total")


def scrambled(shard: Tables, hour: int, seed: int) -> Tables:
    """The same past and another future: values, times, ends of running infusions, rows lost and rows added."""
    rng = np.random.default_rng(seed)
    zero = shard.stays.set_index("stay_id")["intime"]

    def from_now(frame: pd.DataFrame, clock: str) -> np.ndarray:
        return (frame[clock] >= frame["stay_id"].map(zero) + pd.Timedelta(hours=hour)).to_numpy()

    def rewritten(frame: pd.DataFrame, clock: str, columns: list[str]) -> pd.DataFrame:
        future = from_now(frame, clock)
        lost = future & (rng.random(len(frame)) < 0.3)
        frame = frame.copy()
        for column in columns:
            values = frame[column].to_numpy(copy=True)
            values[future] = rng.permutation(values[future]) * rng.uniform(0.1, 3.0)
            frame[column] = values
        return frame[~lost].sample(frac=1.0, random_state=seed)

    observations = rewritten(shard.observations, "available", ["value"])
    now = observations["stay_id"].map(zero) + pd.Timedelta(hours=hour)
    late = from_now(observations, "available") & (rng.random(len(observations)) < 0.5)
    # any charted time will do, even long ago: what counts is that it was not available before now
    observations.loc[late, "charted"] = now[late] - pd.Timedelta(minutes=int(rng.integers(1, 300)))
    infusions = rewritten(shard.infusions, "start", ["normalised_rate"])
    running = ~from_now(infusions, "start") & from_now(infusions, "end")
    now = infusions["stay_id"].map(zero) + pd.Timedelta(hours=hour)
    infusions.loc[running, "end"] = now[running] + pd.Timedelta(minutes=int(rng.integers(0, 900)))
    outputs = rewritten(shard.outputs, "available", ["volume_ml"])
    return Tables(shard.stays, observations, infusions, outputs)


@pytest.mark.parametrize("step", [1, 2, 4])
@pytest.mark.parametrize("rule", ["normal", "last_testable", "missing"])
def test_scrambling_everything_available_from_t_on_changes_no_state_up_to_t(step, rule) -> None:
    config, given = GridConfig(step_hours=step, gcs_rule=rule), ActionConfig(in_state=True)
    shard = tiny.random_tables(step)
    hours = np.append(config.hours, 72)
    before = features.states(shard, tiny.anchors(shard), hours, config, given)
    moved = 0
    for hour in (0, 4, 24, 44, 68):
        other = scrambled(shard, hour, seed=hour)
        after = features.states(other, tiny.anchors(other), hours, config, given)
        past = hours <= hour
        for name in ARRAYS:
            assert getattr(before, name)[:, past].tobytes() == getattr(after, name)[:, past].tobytes(), (name, hour)
        moved += not np.array_equal(before.value[:, ~past], after.value[:, ~past], equal_nan=True)
    assert moved == 5, "the future was not scrambled, so that this test could not fail"


def test_the_outcome_and_the_length_of_a_stay_move_no_state() -> None:
    shard, config = tiny.random_tables(7), GridConfig()
    stays = shard.stays.assign(
        outtime=shard.stays["outtime"] + pd.Timedelta(hours=30), died_in_hospital=~shard.stays["died_in_hospital"],
        deathtime=shard.stays["outtime"], elixhauser_current=40.0,
    )  # fmt: skip
    other = Tables(stays, shard.observations, shard.infusions, shard.outputs)
    one, two = (features.states(each, tiny.anchors(each), config.hours, config) for each in (shard, other))
    assert one.value.tobytes() == two.value.tobytes()
