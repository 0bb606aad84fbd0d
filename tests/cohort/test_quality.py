"""The quality report and Table 1: counts and quantiles by hand."""

from pathlib import Path

import numpy as np
import pytest

from cohort import artifact, build, record, tables
from cohort.build import CohortConfig
from cohort.tables import Tables
from tests.cohort import tiny


def charted() -> Tables:
    """Two stays: late results, values at the same moment that differ, rows before and after the stay, two lines."""
    rows = [
        (1, "sodium", 1.0, 1.5, 140.0), (1, "sodium", 2.0, 3.0, 141.0), (1, "sodium", 3.0, 3.0, 142.0),
        (1, "map", 2.0, 2.0, 60.0), (1, "map", 2.0, 2.0, 70.0), (1, "map", 2.0, 2.0, 70.0), (2, "map", 2.0, 2.0, 80.0),
        (2, "lactate", -3.0, -2.5, 1.0), (2, "lactate", 60.0, 60.1, 1.0),
    ]  # fmt: skip
    made = tiny.make(
        [tiny.stay(1), tiny.stay(2, hours=50.0)],
        rows,
        [(1, "fluid", 0.0, 4.0, 10.0), (1, "fluid", 3.0, 5.0, 10.0), (2, "fluid", 0.0, 4.0, 10.0)],
    )
    made.infusions["order_id"] = [7, 7, 8]
    return made


def test_the_record_counts_by_hand() -> None:
    made = record.of(charted())
    assert made["rows"] == {"sodium": 3, "map": 4, "lactate": 2}
    assert made["conflicts"] == {"map": 1}
    assert (made["before_admission"], made["after_discharge"]) == (1, 1)
    assert made["overlapping_infusions"] == 1
    assert made["infusions"] == {"fluid": 3}
    merged = record.merge([made])
    assert merged["delay_minutes"]["sodium"] == [30, 60]
    assert merged["delay_minutes"]["map"] == [0, 0]
    assert merged["units"]["sodium"] == {"": 3}


def test_records_of_shards_add_up_to_the_record_of_all() -> None:
    shard = tiny.random_tables(3, n_stays=6, rows=80)
    parts = []
    for stay_id in shard.stays["stay_id"]:
        frames = (shard.stays, shard.observations, shard.infusions, shard.outputs)
        parts.append(record.of(Tables(*(frame[frame["stay_id"] == stay_id] for frame in frames))))
    assert record.merge(parts) == record.merge([record.of(shard)])


def test_a_delay_of_days_is_in_the_last_bin() -> None:
    made = record.merge([record.of(tiny.make(observations=[(1, "sodium", 1.0, 200.0, 140.0)]))])
    assert made["delay_minutes"]["sodium"] == [record.LONGEST_DELAY_MIN] * 2


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cohort of five stays whose first sodium values, deaths and drugs are known."""
    folder = tmp_path_factory.mktemp("table")
    ends = [{}, {}, {}, {"died_at": 90.0}, {"died_at": 90.0}]
    people = [tiny.stay(number, age_years=50.0 + number, **end) for number, end in enumerate(ends, start=1)]
    seen = [(number, "sodium", 5.0, 5.0, 130.0 + number) for number in range(1, 5)]
    seen += [(number, "sodium", 13.0, 13.0, 199.0) for number in range(1, 5)] + [(5, "sodium", 30.0, 30.0, 100.0)]
    made = tiny.make(people, seen, [(4, "norepinephrine", 2.0, 3.0, 0.1), (1, "fluid", 20.0, 28.0, 100.0)])
    tables.write(made, folder / "canonical" / "shard-00000")
    config = CohortConfig.model_validate({"split": {"train": 1.0, "select": 0.0}})
    with artifact.writing(folder / "cohort", "cohort", {}) as draft:
        build.build(folder / "canonical", draft.path, config, 0)
    return folder / "cohort"


def test_table_1_describes_the_first_value_of_the_first_day_by_outcome(path: Path) -> None:
    made = artifact.read_json(path / "baseline.json")
    assert made["groups"] == {"overall": 5, "survived": 3, "died": 2}
    rows = {row["name"]: row for row in made["rows"]}
    assert rows["sodium"]["survived"] == [131.5, 132.0, 132.5]
    assert rows["sodium"]["died"] == [134.0, 134.0, 134.0]
    assert rows["sodium"]["missing"] == 1
    assert rows["sodium"]["known"] == {"overall": 4, "survived": 3, "died": 1}
    assert rows["sodium"]["smd"] is None
    assert rows["vasopressor_ever"]["died"] == {"count": 1, "share": 0.5}
    assert rows["vasopressor_ever"]["survived"] == {"count": 0, "share": 0.0}
    assert rows["fluid_ml_first_24_h"]["survived"] == [0.0, 0.0, 200.0]
    survived, died = np.array([51.0, 52.0, 53.0]), np.array([54.0, 55.0])
    spread = np.sqrt((survived.var(ddof=1) + died.var(ddof=1)) / 2)
    assert rows["age_years"]["smd"] == pytest.approx((54.5 - 52.0) / spread)


def test_drift_between_calendar_thirds_is_the_widest_difference_of_their_means(path: Path) -> None:
    report = artifact.read_json(path / "quality.json")
    assert report["features"]["sex_male"]["drift"] is None
    ages = np.repeat([51.0, 52.0, 53.0, 54.0, 55.0], 18)
    means = [ages[:36].mean(), ages[36:72].mean(), ages[72:].mean()]
    assert report["features"]["age_years"]["drift"] == pytest.approx(np.ptp(means) / ages.std(), abs=1e-3)


def test_table_1_takes_the_worst_score_and_the_whole_urine_of_the_first_day(tmp_path: Path) -> None:
    """At hour 0 hardly anything is known: the first SOFA, SIRS and urine would be 0 of nearly everybody."""
    seen = [(1, "platelets", 3.0, 3.0, 30.0), (1, "heart_rate", 3.0, 3.0, 130.0), (1, "peep", 40.0, 40.0, 5.0)][:2]
    made = tiny.make([tiny.stay(1), tiny.stay(2)], seen, outputs=[(1, 5.0, 5.0, 300.0), (1, 20.0, 20.0, 200.0)])
    tables.write(made, tmp_path / "canonical" / "shard-00000")
    config = CohortConfig.model_validate({"split": {"train": 1.0, "select": 0.0}})
    with artifact.writing(tmp_path / "cohort", "cohort", {}) as draft:
        build.build(tmp_path / "canonical", draft.path, config, 0)
    rows = {row["name"]: row for row in artifact.read_json(tmp_path / "cohort" / "baseline.json")["rows"]}
    assert rows["sofa"]["overall"] == [0.75, 1.5, 2.25]  # 3 of one stay, 0 of the other
    assert rows["sirs"]["overall"][2] > 0
    assert rows["urine_output_total"]["overall"] == [500.0] * 3
    assert (rows["sofa"]["rule"], rows["urine_output_total"]["rule"], rows["age_years"]["rule"]) == (
        "highest", "last", "first",
    )  # fmt: skip
    assert "urine_output_step" not in rows


def test_a_unit_that_was_written_seldom_is_counted_and_not_quoted() -> None:
    """It may be a note about somebody; the dictionary's own unit, and none at all, are no secrets."""
    part = {"sodium": {"": 1, "mEq/L": 2, "mmol/L": 12, "seen by her daughter": 3}}
    merged = record._add_units([part, {"sodium": {"mmol/L": 1}}, {"lactate": {"mmol/L": 1}}])
    assert merged == {"lactate": {"mmol/L": 1}, "sodium": {"": 1, "mmol/L": 13, record.SELDOM: 5}}
