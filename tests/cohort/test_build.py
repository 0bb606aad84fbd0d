"""Shards to trajectories: what is written, what it was fitted on, and what may not change it."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cohort import artifact, build, dictionary, split, tables, trajectories
from cohort.build import CohortConfig
from cohort.errors import ArtifactError, InputError, SutureError
from cohort.features import FEATURES, MEASURED
from cohort.tables import Tables
from tests.cohort import tiny

FILES = (
    "trajectories.parquet",
    "final_states.parquet",
    "stays.parquet",
    "dictionary.json",
    "flow.json",
    "quality.json",
)


def shards(folder: Path, shard: Tables, size: int, order: list[int] | None = None, seed: int | None = None) -> Path:
    """`shard` written as shards of `size` stays, stays in `order`, rows shuffled by `seed`."""
    ids = order or shard.stays["stay_id"].tolist()
    for number, start in enumerate(range(0, len(ids), size)):
        part = ids[start : start + size]
        frames = [frame[frame["stay_id"].isin(part)] for frame in (shard.observations, shard.infusions, shard.outputs)]
        if seed is not None:
            frames = [frame.sample(frac=1.0, random_state=seed) for frame in frames]
        stays = shard.stays.set_index("stay_id", drop=False).loc[part].reset_index(drop=True)
        tables.write(Tables(stays, *frames), folder / f"shard-{number:05d}")
    return folder


def cohort(
    folder: Path, canonical: Path, config: CohortConfig | None = None, *, seed: int = 0, workers: int = 1
) -> Path:
    """A finished cohort directory."""
    config = config or CohortConfig()
    with artifact.writing(folder, "cohort", config.model_dump(mode="json"), seed=seed) as draft:
        build.build(canonical, draft.path, config, seed, workers)
    return folder


def rows(path: Path) -> pd.DataFrame:
    """The trajectories as a frame."""
    frame: pd.DataFrame = trajectories.read(path).to_pandas()
    return frame


@pytest.fixture(scope="module")
def many() -> Tables:
    """Forty random stays of twenty patients."""
    return tiny.random_tables(0, n_stays=40, rows=120)


@pytest.fixture(scope="module")
def plain(many: Tables, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their cohort, from shards of 40."""
    folder = tmp_path_factory.mktemp("plain")
    return cohort(folder / "cohort", shards(folder / "canonical", many, 40))


@pytest.mark.parametrize(
    ("size", "turned", "seed", "workers"), [(7, False, None, 1), (40, True, 3, 1), (9, True, 5, 1), (20, False, 1, 2)]
)
def test_neither_shard_size_nor_the_order_of_stays_and_rows_nor_workers_change_a_byte(
    many: Tables, plain: Path, tmp_path: Path, size: int, turned: bool, seed: int | None, workers: int
) -> None:
    ids = many.stays["stay_id"].tolist()
    order = np.random.default_rng(1).permutation(ids).tolist() if turned else ids
    made = cohort(tmp_path / "cohort", shards(tmp_path / "canonical", many, size, order, seed), workers=workers)
    for name in FILES:
        assert (made / name).read_bytes() == (plain / name).read_bytes(), name


def test_rows_are_ordered_by_stay_and_step_and_follow_the_schema(plain: Path) -> None:
    table = trajectories.read(plain)
    assert table.schema.remove_metadata() == trajectories.schema()
    frame = table.to_pandas()
    assert frame[["stay_id", "step"]].equals(frame[["stay_id", "step"]].sort_values(["stay_id", "step"]))
    steps = frame.groupby("stay_id")["step"]
    assert (steps.min() == 0).all()
    assert (steps.max() == steps.size() - 1).all()
    assert frame["action"].between(0, 24).all()


def test_what_is_imputed_is_flagged_has_no_age_and_is_the_fitted_value(plain: Path) -> None:
    frame = rows(plain)
    fitted = dictionary.load(plain / "dictionary.json")
    for column, name in enumerate(FEATURES):
        imputed = frame[f"{name}_imputed"]
        assert (frame.loc[imputed, name] == np.float32(fitted.imputation[column])).all(), name
    for name in MEASURED:
        assert frame[f"{name}_age_h"].isna().equals(frame[f"{name}_imputed"]), name
    assert frame.loc[frame["step"] == 0, "lactate_imputed"].any(), (
        "nothing was missing at hour 0, so this shows nothing"
    )


def test_previous_doses_and_actions_are_those_of_the_row_before_and_absent_at_the_first(plain: Path) -> None:
    frame = rows(plain)
    first = frame["step"] == 0
    assert (frame.loc[first, "previous_action"] == -1).all()
    assert frame.loc[first, ["previous_fluid_ml", "previous_vasopressor_ug_kg_min"]].isna().all(axis=None)
    for name in ("action", "fluid_ml", "vasopressor_ug_kg_min"):
        assert (frame[f"previous_{name}"][~first] == frame[name].shift()[~first]).all()


def test_every_fitted_part_is_blind_to_the_patients_held_back(many: Tables, plain: Path, tmp_path: Path) -> None:
    held_back = many.stays["stay_id"][split.assign(many.stays["subject_id"].to_numpy(), 0) != "train"]
    changed = [
        frame.assign(**{column: np.where(frame["stay_id"].isin(held_back), frame[column] * 1.3, frame[column])})
        for frame, column in (
            (many.observations, "value"),
            (many.infusions, "normalised_rate"),
            (many.outputs, "volume_ml"),
        )
    ]
    other = cohort(tmp_path / "cohort", shards(tmp_path / "canonical", Tables(many.stays, *changed), 40))
    assert (other / "dictionary.json").read_bytes() == (plain / "dictionary.json").read_bytes()
    one, two = rows(plain), rows(other)
    train = one["split"] == "train"
    assert one[train].equals(two[train])
    assert not one[~train].equals(two[~train])


def test_imputation_is_the_training_median_and_absent_ventilation_is_none(many: Tables, plain: Path) -> None:
    frame, fitted = rows(plain), dictionary.load(plain / "dictionary.json")
    known = frame[(frame["split"] == "train") & ~frame["sodium_imputed"]]["sodium"]
    assert fitted.imputation[FEATURES.index("sodium")] == np.median(known.astype(float))
    assert fitted.imputation[FEATURES.index("mechanical_ventilation")] == 0.0
    assert many.observations.query("concept == 'mechanical_ventilation'")["value"].median() > 0


def test_the_scaler_standardises_training_states_after_the_logarithm_of_a_tenth_more(plain: Path) -> None:
    frame, fitted = rows(plain), dictionary.load(plain / "dictionary.json")
    train = frame[frame["split"] == "train"]
    scaled = fitted.scaler.transform(train[list(FEATURES)].to_numpy())
    varied = train[list(FEATURES)].std().to_numpy() > 1e-3
    np.testing.assert_allclose(scaled.mean(axis=0), 0.0, atol=1e-3)
    np.testing.assert_allclose(scaled.std(axis=0)[varied], 1.0, atol=1e-3)
    by_hand = np.log(0.1 + train["creatinine"].astype(float))
    np.testing.assert_allclose(fitted.scaler.mean[FEATURES.index("creatinine")], by_hand.mean(), rtol=1e-6)


def test_dose_bins_are_quartiles_of_training_doses_and_fluid_is_binned_by_the_hour(plain: Path) -> None:
    frame, fitted = rows(plain), dictionary.load(plain / "dictionary.json")
    rate = (frame["fluid_ml"] / frame["duration_h"])[(frame["split"] == "train") & (frame["fluid_ml"] > 0)]
    np.testing.assert_allclose(fitted.fluid_edges_ml_h, np.quantile(rate, [0.25, 0.5, 0.75]))
    bins = frame["action"] // 5
    assert ((bins == 0) == (frame["fluid_ml"] == 0)).all()
    assert (((frame["action"] % 5) == 0) == (frame["vasopressor_ug_kg_min"] == 0)).all()


def test_episodes_hold_one_split_with_its_patients_and_scaler(many: Tables, plain: Path) -> None:
    frame = rows(plain)
    parts = {name: build.episodes(plain, name) for name in split.SPLITS}
    assert sum(part.n for part in parts.values()) == len(frame)
    for name, part in parts.items():
        mine = frame[frame["split"] == name]
        assert (part.action == mine["action"]).all()
        assert part.state.tobytes() == mine[list(FEATURES)].to_numpy(np.float32).tobytes()
        assert (part.patient == mine.drop_duplicates("stay_id")["subject_id"]).all()
        assert (part.previous_action == mine["previous_action"]).all()
        assert part.features == FEATURES
        assert part.scaler is not None
    subjects = [set(part.patient.tolist()) for part in parts.values()]
    assert not subjects[0] & subjects[1] | subjects[0] & subjects[2] | subjects[1] & subjects[2]
    assert set().union(*subjects) <= set(many.stays["subject_id"])


def hand(tmp_path: Path, **config: object) -> tuple[Path, pd.DataFrame]:
    """Four stays of one (training) patient each: discharged, dead, at the horizon, at the horizon and dead later."""
    train = [number for number in range(1, 60) if split.assign(np.array([number]), 0)[0] == "train"][:4]
    ends = ({"hours": 9.5}, {"hours": 30.0, "died_at": 6.0}, {"hours": 100.0}, {"hours": 82.0, "died_at": 82.0})
    people = [tiny.stay(number, **end) for number, end in zip(train, ends, strict=True)]
    given = [(number, "fluid", 0.0, 100.0, 30.0) for number in train]
    seen = [(number, "lactate", hour, hour, 1.0 + hour / 10) for number in train for hour in range(0, 80, 4)]
    made = tiny.make(people, seen, given, [(train[2], 1.0, 1.0, 13_000.0)])
    path = cohort(tmp_path / "cohort", shards(tmp_path / "canonical", made, 10), CohortConfig.model_validate(config))
    frame = rows(path)
    frame["who"] = frame["stay_id"].map({number: name for number, name in zip(train, "abcd", strict=True)})
    return path, frame.set_index("who")


def test_a_partial_last_window_keeps_its_duration_its_volume_and_its_rate(tmp_path: Path) -> None:
    _, frame = hand(tmp_path)
    assert frame.loc["a", "duration_h"].tolist() == [4.0, 4.0, 1.5]
    assert frame.loc["a", "fluid_ml"].tolist() == [120.0, 120.0, 45.0]
    assert frame.loc["a", "action"].nunique() == 1


def test_death_inside_a_window_ends_the_episode_with_that_window(tmp_path: Path) -> None:
    _, frame = hand(tmp_path)
    assert frame.loc["b", "duration_h"].tolist() == [4.0, 2.0]
    assert frame.loc["b", "terminated"].tolist() == [False, True]
    assert frame.loc["b", "end_reason"].tolist() == ["death", "death"]
    np.testing.assert_allclose(frame.loc["b", "reward"], [-0.004, -1.002], rtol=1e-6)


def test_at_the_horizon_an_episode_terminates_with_its_known_outcome(tmp_path: Path) -> None:
    path, frame = hand(tmp_path)
    for who, outcome in (("c", 1.0), ("d", -1.0)):
        mine = frame.loc[who]
        assert len(mine) == 18
        assert mine["end_reason"].iloc[-1] == "horizon"
        assert mine["terminated"].tolist() == [False] * 17 + [True]
        tail = {"c": 28, "d": 10}[who]
        np.testing.assert_allclose(mine["reward"].iloc[-1], outcome - 0.004 - 0.001 * tail, rtol=1e-6)
    assert build.episodes(path, "train").terminated.all()


def test_at_the_horizon_an_episode_can_be_cut_off_and_bootstrap_from_its_state_there(tmp_path: Path) -> None:
    path, frame = hand(tmp_path, reward={"horizon_end": "truncate"})
    assert not frame.loc["c", "terminated"].any()
    np.testing.assert_allclose(frame.loc["c", "reward"], -0.004, rtol=1e-6)
    made = build.episodes(path, "train")
    assert made.terminated.tolist() == [True, True, False, False]
    lactate, hours = FEATURES.index("lactate"), FEATURES.index("hours_since_start")
    assert made.final_state[2:, hours].tolist() == [72.0, 72.0]
    np.testing.assert_allclose(made.final_state[2:, lactate], 1.0 + 68 / 10)
    assert not made.final_state[:2].any()


def test_ninety_day_survival_reads_the_date_of_death(tmp_path: Path) -> None:
    train = [number for number in range(1, 60) if split.assign(np.array([number]), 0)[0] == "train"][:3]
    died = (tiny.at(24.0 * 60), tiny.at(24.0 * 91), None)
    people = [tiny.stay(number, hours=20.0, dod=dod) for number, dod in zip(train, died, strict=True)]
    config = CohortConfig.model_validate({"reward": {"outcome": "90_days"}})
    path = cohort(tmp_path / "cohort", shards(tmp_path / "canonical", tiny.make(people), 10), config)
    last = rows(path).groupby("stay_id").tail(1)
    assert last["outcome"].tolist() == ["died", "survived", "survived"]


def test_implausible_windows_are_flagged_and_kept(tmp_path: Path) -> None:
    path, frame = hand(tmp_path)
    assert frame.loc["c", "extreme_urine"].tolist() == [True] + [False] * 17
    assert json.loads((path / "quality.json").read_text())["windows"]["extreme_urine"] == 1
    assert not frame["extreme_intake"].any()


def test_times_are_the_start_of_each_window(tmp_path: Path) -> None:
    _, frame = hand(tmp_path)
    assert frame.loc["a", "time"].tolist() == [tiny.at(0.0), tiny.at(4.0), tiny.at(8.0)]


def test_no_stay_left_names_the_criterion_that_took_the_last(tmp_path: Path) -> None:
    canonical = shards(tmp_path / "canonical", tiny.make([tiny.stay(age_years=12.0)]), 1)
    with pytest.raises(InputError, match=r"no stay of 1 is left after selection.*younger than 18"):
        cohort(tmp_path / "cohort", canonical)
    assert not (tmp_path / "cohort").exists()


def test_a_cohort_without_training_patients_is_an_error(tmp_path: Path) -> None:
    held_back = next(n for n in range(1, 99) if split.assign(np.array([n]), 0)[0] == "evaluate")
    canonical = shards(tmp_path / "canonical", tiny.make([tiny.stay(held_back)]), 1)
    with pytest.raises(InputError, match="training split"):
        cohort(tmp_path / "cohort", canonical)


def test_a_split_without_patients_is_an_error_only_when_asked_for(tmp_path: Path) -> None:
    path, _ = hand(tmp_path)
    with pytest.raises(InputError, match="no patient is in the split 'evaluate'"):
        build.episodes(path, "evaluate")
    with pytest.raises(InputError, match="split 'test' is unknown"):
        build.episodes(path, "test")


def test_a_stay_in_two_shards_is_refused(tmp_path: Path) -> None:
    for number in (0, 1):
        tables.write(tiny.make([tiny.stay(1)]), tmp_path / "canonical" / f"shard-{number:05d}")
    with pytest.raises(InputError, match=r"stay_id: given twice \(1 of 2 rows\)"):
        cohort(tmp_path / "cohort", tmp_path / "canonical")


def test_a_folder_without_shards_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no shard"):
        cohort(tmp_path / "cohort", tmp_path)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_truncated_shard_is_one_clear_error_and_nothing_is_left(many: Tables, tmp_path: Path, workers: int) -> None:
    canonical = shards(tmp_path / "canonical", many, 20)
    file = canonical / "shard-00001" / "observations.parquet"
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(SutureError, match=r"shard-00001/observations.parquet: not readable"):
        cohort(tmp_path / "cohort", canonical, workers=workers)
    assert [path.name for path in tmp_path.iterdir()] == ["canonical"]


def test_trajectories_changed_after_they_were_written_are_refused(tmp_path: Path) -> None:
    path, _ = hand(tmp_path)
    file = path / "trajectories.parquet"
    damaged = bytearray(file.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    file.write_bytes(bytes(damaged))
    with pytest.raises(ArtifactError, match="its hash differs"):
        build.episodes(path, "train")


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("action", -1, "action: below 0"),
        ("fluid_ml", -5.0, "fluid_ml: below 0"),
        ("lactate", np.inf, "lactate: NaN or infinite"),
        ("reward", None, "reward: missing in"),
        ("sodium", "140", "sodium: type string, expected float"),
    ],
)
def test_rows_that_break_the_schema_are_named(plain: Path, column: str, value: object, message: str) -> None:
    table = pq.read_table(plain / "trajectories.parquet").slice(0, 3)
    kind = pa.string() if isinstance(value, str) else trajectories.schema().field(column).type
    table = table.set_column(table.column_names.index(column), column, pa.array([value] * 3, kind))
    with pytest.raises(InputError, match=message):
        trajectories.check(table, "rows")


def test_reading_some_columns_of_one_split(plain: Path) -> None:
    table = trajectories.read(plain, ["action", "stay_id"], "train")
    assert table.column_names == ["action", "stay_id"]
    assert table.num_rows == (rows(plain)["split"] == "train").sum()
    with pytest.raises(InputError, match="column 'dose' is not in the schema"):
        trajectories.read(plain, ["dose"])


def test_quality_counts_what_the_source_lost_and_what_is_covered(many: Tables, tmp_path: Path) -> None:
    canonical = shards(tmp_path / "canonical", many, 40)
    counts = tables.Counts({("observations", "unknown unit"): 3})
    with artifact.writing(tmp_path / "cohort", "cohort", {}) as draft:
        build.build(canonical, draft.path, CohortConfig(), 0, 1, counts)
    report = json.loads((tmp_path / "cohort" / "quality.json").read_text())
    assert report["source"] == [{"table": "observations", "reason": "unknown unit", "rows": 3}]
    frame = rows(tmp_path / "cohort")
    assert report["features"]["sodium"]["coverage"] == pytest.approx(1 - frame["sodium_imputed"].mean())
    at_zero = frame[frame["step"] == 0]["sodium_imputed"]
    assert report["features"]["sodium"]["coverage_by_step"][0] == pytest.approx(1 - at_zero.mean(), abs=1e-4)
    assert report["windows"]["decisions"] == len(frame)


def test_the_flow_tells_how_episodes_end_and_which_definitions_know_the_future(many: Tables, tmp_path: Path) -> None:
    canonical = shards(tmp_path / "canonical", many, 40)
    chosen = {"selection": {"sepsis3": True}, "grid": {"comorbidity": "current"}}
    made = cohort(tmp_path / "cohort", canonical, CohortConfig.model_validate(chosen))
    flow = json.loads((made / "flow.json").read_text())
    assert sum(flow["ends"].values()) == flow["steps"][-1]["stays_kept"]
    assert len(flow["notes"]) == 2
    assert [step["reason"] for step in flow["steps"]][-3:-2] == [
        "SOFA below 2 from 48 h before to 24 h after suspected infection"
    ]


def test_the_default_cohort_knows_nothing_of_the_future(plain: Path) -> None:
    assert json.loads((plain / "flow.json").read_text())["notes"] == []


def test_trajectories_of_another_making_are_checked_when_they_are_read(plain: Path, tmp_path: Path) -> None:
    table = pq.read_table(plain / "trajectories.parquet")
    wrong = table.set_column(
        table.column_names.index("fluid_ml"), "fluid_ml", pa.array(np.full(len(table), -1.0), pa.float64())
    )
    with artifact.writing(tmp_path / "cohort", "cohort", {}) as draft:
        artifact.write_parquet(wrong, draft.path / "trajectories.parquet")
    with pytest.raises(InputError, match="fluid_ml: below 0"):
        trajectories.read(tmp_path / "cohort")
