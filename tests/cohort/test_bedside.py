"""One patient at one time: bit for bit what the batch made, whatever of the future is in the tables."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cohort import artifact, bedside, build, dictionary, scaler, tables, trajectories
from cohort.actions import ActionConfig
from cohort.build import CohortConfig
from cohort.dictionary import Dictionary
from cohort.errors import InputError
from cohort.features import FEATURES, MEASURED
from cohort.tables import Tables
from tests.cohort import tiny

FITTED = Dictionary(FEATURES, np.zeros(48), scaler.fit(np.zeros((1, 48))), 4.0, (), (), (), ())


def known_by(shard: Tables, stay_id: int, time: pd.Timestamp) -> Tables:
    """One stay's rows as they stood at `time`: nothing later, and infusions that run have no known end."""
    stays, observations, infusions, outputs = (
        frame[frame["stay_id"] == stay_id]
        for frame in (shard.stays, shard.observations, shard.infusions, shard.outputs)
    )
    running = infusions[infusions["start"] < time]
    running = running.assign(end=running["end"].where(running["end"] < time, time + pd.Timedelta(hours=1)))
    seen = (observations[observations["available"] < time], running, outputs[outputs["available"] < time])
    return Tables(stays, *seen)


@pytest.mark.parametrize(("step", "doses"), [(1, False), (4, True)])
def test_a_state_at_the_bedside_is_the_row_of_the_batch(tmp_path: Path, step: int, doses: bool) -> None:
    shard = tiny.random_tables(11, n_stays=10, rows=200)
    config = CohortConfig.model_validate({"grid": {"step_hours": step}, "actions": {"in_state": doses}})
    tables.write(shard, tmp_path / "canonical" / "shard-00000")
    with artifact.writing(tmp_path / "cohort", "cohort", {}) as draft:
        build.build(tmp_path / "canonical", draft.path, config, seed=0)
    fitted = dictionary.load(tmp_path / "cohort" / "dictionary.json")
    frame = trajectories.read(tmp_path / "cohort").to_pandas()
    zero = frame.groupby("stay_id")["time"].transform("min")
    for _, row in frame.sample(12, random_state=0).iterrows():
        then = known_by(shard, row["stay_id"], row["time"])
        hour = int(row["hours_since_start"])
        made = bedside.state(then, np.datetime64(zero[row.name]), hour, config.grid, fitted, config.actions)
        assert made.value.tobytes() == row[list(fitted.features)].to_numpy(np.float32).tobytes()
        assert not made.imputed[len(FEATURES) :].any()
        assert (made.imputed[: len(FEATURES)] == row[[f"{name}_imputed" for name in FEATURES]].to_numpy(bool)).all()
        ages = row[[f"{name}_age_h" for name in MEASURED]].to_numpy(np.float32)
        np.testing.assert_array_equal(made.age_h.astype(np.float32), ages)
        assert made.sofa_missing == row["sofa_missing"]
        assert made.fluid_balance_total == row["fluid_balance_total"]


def test_several_stays_at_one_bed_are_refused() -> None:
    shard = tiny.random_tables(0, n_stays=2, rows=5)
    with pytest.raises(InputError, match="2 rows, expected one stay"):
        bedside.state(shard, np.datetime64("2150-01-01"), 4, CohortConfig().grid, FITTED)


def test_a_bedside_that_makes_other_features_than_were_fitted_is_refused() -> None:
    shard = tiny.random_tables(0, n_stays=1, rows=5)
    with pytest.raises(InputError, match="48 features, the bedside's are 50"):
        bedside.state(shard, np.datetime64("2150-01-01"), 4, CohortConfig().grid, FITTED, ActionConfig(in_state=True))
