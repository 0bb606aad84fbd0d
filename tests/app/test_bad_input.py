"""Bad input: one line, a non-zero exit, nothing half-written, earlier artifacts as they were, and no identifier."""

import os
import re
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cohort import artifact

Suture = Callable[..., Any]
Change = Callable[[pd.DataFrame], pd.DataFrame]


def one_line(done: Any, code: int) -> str:
    """The error of a command that failed as it should."""
    assert done.code == code, done
    assert done.out == ""
    assert re.fullmatch(r"error: [^\n]+\n", done.err), done.err
    return str(done.err)


# Configuration


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("seed: 3", "sed: 3", r"sed: unknown key|seed: Field required"),
        ("seed: 3", "seed: -1", r"seed: .*greater than or equal to 0, got -1"),
        ("seed: 3", "seed: three", r"seed: .*integer"),
        ("seed: 3", "seed: 3\nseed: 4", r"the key 'seed' is given twice"),
        ("seed: 3", "seed: [3", r"not valid YAML"),
        ("name: tiny", "name: ../up", r"name: "),
        ("cohort: {}", "cohort: {grid: {step_hours: 3}}", r"cohort\.grid\.step_hours: "),
        ("cohort: {}", "cohort: {grid: {horizon_hours: 70}}", r"not a multiple of step_hours"),
        ("cohort: {}", "cohort: {selection: {minimum_age: .nan}}", r"minimum_age: .*finite"),
        ("n_stays: 60", "n_stays: 60000", r"hospital\.n_stays: .*50000, got 60000"),
        ("n_bootstrap: 100", "bootstrap: 100", r"evaluation\.bootstrap: unknown key"),
        ("  iql: *quick", "  iqm: *quick", r"learners: 'iqm' is unknown; known: bc, "),
        ("  iql: *quick", "  iql: {expectyle: 0.7}", r"learners\.iql: expectyle: unknown key"),
        ("  iql: *quick", "  iql: 7", r"learners\.iql: expected a mapping"),
        ("kind: mimic_iv", "kind: eicu", r"source\.kind: "),
    ],
)
def test_a_wrong_configuration_names_its_key(
    suture: Suture, tiny_config: Path, tmp_path: Path, old: str, new: str, says: str
) -> None:
    path = tmp_path / "wrong.yaml"
    text = tiny_config.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    error = one_line(suture("run", path, "--out", tmp_path / "run"), 2)
    assert re.search(says, error), error
    assert str(path) in error
    assert not (tmp_path / "run").exists()


# Tables


@pytest.fixture
def source(tiny_run: Path, tmp_path: Path) -> Path:
    """The simulated hospital's tables as somebody else's: without our manifest."""
    path = tmp_path / "source"
    shutil.copytree(tiny_run / "tables", path, ignore=shutil.ignore_patterns("manifest.json"))
    return path


@pytest.fixture(scope="module")
def identifiers(tiny_run: Path) -> set[str]:
    """Every id of a patient, stay or admission of the tables."""
    stays = pq.read_table(tiny_run / "tables" / "icu" / "icustays.parquet").to_pandas()
    return {str(one) for column in ("subject_id", "hadm_id", "stay_id") for one in stays[column]}


@pytest.fixture
def cohort(suture: Suture, tiny_config: Path, source: Path, tmp_path: Path, identifiers: set[str]) -> Callable[[], Any]:
    """`suture cohort` on the changed tables; whatever happens, no id may be in what it says."""

    def call() -> Any:
        done = suture("cohort", tiny_config, "--source", source, "--out", tmp_path / "run")
        words = set(re.findall(r"\d+", done.out + done.err))
        assert not words & identifiers
        if done.code:
            assert not (tmp_path / "run").exists()
        return done

    return call


def rewrite(source: Path, table: str, change: Change) -> None:
    """Change a table and write it back."""
    path = source / f"{table}.parquet"
    frame = change(pq.read_table(path).to_pandas())
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), path, write_page_checksum=True)


def with_column(name: str, value: Callable[[pd.DataFrame], object]) -> Change:
    return lambda frame: frame.assign(**{name: value(frame)})


def test_vasopressors_in_a_unit_nobody_knows_are_refused_not_read_as_none(
    cohort: Callable[[], Any], source: Path
) -> None:
    def unknown(frame: pd.DataFrame) -> pd.DataFrame:
        vasopressor = frame["itemid"].isin([221906, 221289, 221749, 221662, 222315])
        frame.loc[vasopressor, ["rateuom", "amountuom"]] = "furlong"
        return frame

    rewrite(source, "icu/inputevents", unknown)
    error = one_line(cohort(), 3)
    assert re.search(r"inputevents: \d+ drug doses cannot be read \(.*unit not known: \d+.*\), only \d+ can", error)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda frame: frame.assign(endtime=frame["starttime"] - pd.Timedelta(hours=1)), "end not after start"),
        (with_column("rate", lambda frame: -frame["rate"].abs() - 1), "negative amount or rate"),
    ],
)
def test_infusions_that_mostly_cannot_be_are_refused_not_read_as_none(
    cohort: Callable[[], Any], source: Path, change: Change, reason: str
) -> None:
    rewrite(source, "icu/inputevents", change)
    error = one_line(cohort(), 3)
    assert re.search(rf"inputevents: \d+ drug doses cannot be read \({reason}: \d+\), only \d can;", error), error


def test_a_window_whose_dose_cannot_be_read_is_flagged(cohort: Callable[[], Any], source: Path, tmp_path: Path) -> None:
    """What ran is not known, so the window must not pass for one in which clinicians gave nothing."""

    def some(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(rateuom=frame["rateuom"].where(frame.index % 9 > 0, "drops/fortnight"))

    rewrite(source, "icu/inputevents", some)
    assert cohort().code == 0
    made = tmp_path / "run" / "cohort"
    flagged = pq.read_table(made / "trajectories.parquet", columns=["dose_unknown"])["dose_unknown"].to_numpy()
    assert 0 < flagged.mean() < 1
    assert artifact.read_json(made / "quality.json")["windows"]["dose_unknown"] == flagged.sum()


@pytest.mark.parametrize("column", ["rateuom", "statusdescription"])
def test_a_renamed_text_column_is_named(cohort: Callable[[], Any], source: Path, column: str) -> None:
    rewrite(source, "icu/inputevents", lambda frame: frame.rename(columns={column: "other"}))
    assert re.search(rf"inputevents.*{column}", one_line(cohort(), 3))


@pytest.mark.parametrize("table", ["icu/icustays", "hosp/patients", "icu/chartevents"])
def test_a_missing_required_table_is_named(cohort: Callable[[], Any], source: Path, table: str) -> None:
    (source / f"{table}.parquet").unlink()
    assert table.partition("/")[2] in one_line(cohort(), 3)


@pytest.mark.parametrize("put", [lambda at: at.symlink_to(at.parent / "nowhere"), os.mkfifo])
def test_a_link_to_nothing_and_a_pipe_are_no_tables(
    cohort: Callable[[], Any], source: Path, put: Callable[[Path], None]
) -> None:
    table = source / "icu/chartevents.parquet"
    table.unlink()
    put(table)
    assert "chartevents.parquet: not a file that can be read again" in one_line(cohort(), 3)


@pytest.mark.parametrize(
    ("table", "change", "says"),
    [
        ("icu/icustays", lambda frame: frame.drop(columns="outtime"), r"icustays.*outtime"),
        ("icu/chartevents", lambda frame: frame.rename(columns={"valuenum": "value_num"}), r"chartevents.*valuenum"),
        ("icu/chartevents", with_column("charttime", lambda _: "yesterday"), r"chartevents.*charttime"),
        ("icu/icustays", with_column("stay_id", lambda frame: frame["stay_id"] + 0.5), r"icustays.*stay_id"),
        ("icu/icustays", lambda frame: frame.iloc[:0], r"icustays"),
        (
            "icu/icustays",
            lambda frame: pd.concat([frame, frame.head(3)]),
            r"icustays.*(twice|duplicate|more than once)",
        ),
    ],
)
def test_a_broken_table_is_named_with_its_column(
    cohort: Callable[[], Any], source: Path, table: str, change: Change, says: str
) -> None:
    rewrite(source, table, change)
    error = one_line(cohort(), 3)
    assert re.search(says, error), error


def test_times_with_a_zone_are_refused(cohort: Callable[[], Any], source: Path) -> None:
    """Shifted or not, nobody can tell: the hours between a dose and a pressure would be guesses."""
    path = source / "icu" / "chartevents.parquet"
    table = pq.read_table(path)
    column = table.schema.get_field_index("charttime")
    zoned = table["charttime"].cast(pa.timestamp("us", tz="UTC"))
    pq.write_table(table.set_column(column, "charttime", zoned), path, write_page_checksum=True)
    assert re.search(r"chartevents.*charttime.*zone", one_line(cohort(), 3))


@pytest.mark.parametrize("table", ["icu/icustays", "icu/chartevents", "hosp/labevents"])
def test_a_truncated_table_is_named(cohort: Callable[[], Any], source: Path, table: str) -> None:
    path = source / f"{table}.parquet"
    path.write_bytes(path.read_bytes()[:-200])
    assert path.name in one_line(cohort(), 3)


@pytest.mark.parametrize("at", [0.2, 0.5, 0.8])
def test_a_flipped_bit_in_a_table_is_found(cohort: Callable[[], Any], source: Path, at: float) -> None:
    path = source / "icu" / "chartevents.parquet"
    content = bytearray(path.read_bytes())
    content[int(at * len(content))] ^= 0x10
    path.write_bytes(content)
    assert path.name in one_line(cohort(), 3)


def test_no_stay_left_after_selection_is_an_error(
    suture: Suture, tiny_config: Path, tiny_run: Path, tmp_path: Path
) -> None:
    path = tmp_path / "old.yaml"
    path.write_text(tiny_config.read_text().replace("cohort: {}", "cohort: {selection: {minimum_age: 120}}"))
    done = suture("cohort", path, "--source", tiny_run / "tables", "--out", tmp_path / "run")
    error = one_line(done, 3)
    assert re.search(r"error: no stay of \d+ is left after selection; the last were lost to: younger than 120", error)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("table", "change", "reason"),
    [
        (
            "inputevents",
            with_column("endtime", lambda frame: frame["endtime"].where(frame.index % 4 > 0, frame["starttime"])),
            "end not after",
        ),
        (
            "inputevents",
            with_column("rate", lambda frame: frame["rate"].where(frame.index % 4 > 0, -1.0)),
            "negative",
        ),
        (
            "inputevents",
            with_column("rateuom", lambda frame: frame["rateuom"].where(frame.index % 4 > 0, "drops/fortnight")),
            "unit",
        ),
        ("chartevents", with_column("valuenum", lambda _: np.inf), "not finite"),
    ],
)
def test_wrong_rows_are_left_out_and_counted(
    cohort: Callable[[], Any], source: Path, tmp_path: Path, table: str, change: Change, reason: str
) -> None:
    """Real records hold such rows: none is used, and the quality report says how many there were."""
    rewrite(source, f"icu/{table}", change)
    done = cohort()
    assert done.code == 0, done.err
    counts = artifact.read_json(tmp_path / "run" / "cohort" / "quality.json")["source"]
    rows = sum(one["rows"] for one in counts if one["table"] == table and re.search(reason, one["reason"]))
    assert rows > 50, counts


def test_a_review_of_other_tables_is_refused(suture: Suture, tiny_config: Path, source: Path, tmp_path: Path) -> None:
    (tmp_path / "review.yaml").write_text("dataset: 0123456789abcdef\nfindings: []\n")
    config = tmp_path / "reviewed.yaml"
    given = f"source: {{kind: mimic_iv, review: {tmp_path / 'review.yaml'}}}"
    config.write_text(tiny_config.read_text().replace("source: {kind: mimic_iv, shard_stays: 40}", given))
    error = one_line(suture("cohort", config, "--source", source, "--out", tmp_path / "run"), 3)
    assert "review: made of dataset 0123456789abcdef" in error
    assert not (tmp_path / "run").exists()


def test_events_of_no_stay_and_stays_that_overlap_are_left_out_and_counted(
    cohort: Callable[[], Any], source: Path, tmp_path: Path
) -> None:
    rewrite(
        source, "icu/chartevents", lambda frame: frame.assign(stay_id=frame["stay_id"].where(frame.index % 5 > 0, 7))
    )

    def doubled(frame: pd.DataFrame) -> pd.DataFrame:
        again = frame.head(4).assign(stay_id=frame["stay_id"].max() + np.arange(1, 5))
        return pd.concat([frame, again.assign(intime=again["intime"] + pd.Timedelta(hours=1))])

    rewrite(source, "icu/icustays", doubled)
    assert cohort().code == 0
    made = tmp_path / "run" / "cohort"
    counts = {(one["table"], one["reason"]): one["rows"] for one in artifact.read_json(made / "quality.json")["source"]}
    assert counts["chartevents", "outside every stay"] > 1000
    assert counts["icustays", "overlaps an earlier stay of its patient"] == 4
    lost = {step["reason"]: step["stays_lost"] for step in artifact.read_json(made / "flow.json")["steps"]}
    assert lost["overlaps an earlier stay of the same patient"] == 4


def test_a_unit_that_contradicts_its_number_is_counted_and_not_used(
    cohort: Callable[[], Any], source: Path, tmp_path: Path
) -> None:
    """Creatinine in umol/L that says mg/dL: no patient has such a number."""

    def mislabelled(frame: pd.DataFrame) -> pd.DataFrame:
        row = (frame["itemid"] == 50912) & (frame.index % 3 == 0)
        return frame.assign(valuenum=frame["valuenum"].where(~row, frame["valuenum"] * 88.4))

    rewrite(source, "hosp/labevents", mislabelled)
    assert cohort().code == 0
    counts = artifact.read_json(tmp_path / "run" / "cohort" / "quality.json")["source"]
    (found,) = [one["rows"] for one in counts if one["reason"] == "creatinine: out of range"]
    assert found > 20


def test_a_weight_of_zero_divides_no_dose(cohort: Callable[[], Any], source: Path, tmp_path: Path) -> None:
    rewrite(source, "icu/inputevents", with_column("patientweight", lambda _: 0.0))
    assert cohort().code == 0
    shards = (tmp_path / "run" / "cohort" / "canonical").glob("*/infusions.parquet")
    infusions = pd.concat([pq.read_table(shard).to_pandas() for shard in shards])
    assert np.isfinite(infusions["normalised_rate"]).all()
    assert not (infusions["weight_kg"] == 0).any()


# Directories and disks


def contents(path: Path) -> dict[str, str]:
    return {
        str(file.relative_to(path)): artifact.hash_file(file)
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.name != ".lock"
    }


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may grow past 30 kB: every stage fails to write part way, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("small_files")
@pytest.mark.parametrize("command", ["simulate", "cohort", "report"])
def test_a_disk_that_is_full_is_one_line_and_leaves_the_earlier_run(
    suture: Suture, tiny_run: Path, tiny_config: Path, tmp_path: Path, command: str
) -> None:
    out = tmp_path / "run"
    out.mkdir()
    for path in tiny_run.rglob("*"):  # links: copies would be larger than the limit allows
        if path.is_dir():
            (out / path.relative_to(tiny_run)).mkdir(parents=True, exist_ok=True)
        elif path.name != "run.json":
            (out / path.relative_to(tiny_run)).hardlink_to(path)
        else:
            shutil.copy(path, out / path.relative_to(tiny_run))
    before = contents(out)
    error = one_line(suture(command, tiny_config, "--out", out, "--overwrite"), 4)
    assert "cannot be written" in error
    left = {name: content for name, content in contents(out).items() if ".work/" not in name}  # pieces: --resume's
    assert left == before


def test_an_output_that_exists_is_refused_and_left(suture: Suture, tiny_config: Path, tiny_run: Path) -> None:
    before = contents(tiny_run)
    for command in ("run", "simulate", "cohort", "train", "evaluate", "report"):
        assert "already exists" in one_line(suture(command, tiny_config, "--out", tiny_run), 4)
    assert contents(tiny_run) == before


def test_a_source_that_is_no_directory_is_one_line(suture: Suture, tiny_config: Path, tmp_path: Path) -> None:
    for command in ("run", "cohort"):
        done = suture(command, tiny_config, "--source", tmp_path / "none", "--out", tmp_path / "run")
        assert "not a directory" in one_line(done, 3)
    assert not (tmp_path / "run").exists()
