"""From files to shards: every layout of the same tables gives the same shards, and bad input one clear line."""

import gzip
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from cohort import sources, tables
from cohort.errors import InputError
from cohort.sources import files, mimic_iv

IV = sources.SourceConfig(kind="mimic_iv")


@pytest.fixture(scope="module")
def shards(simulated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Those stays' canonical shards."""
    out = tmp_path_factory.mktemp("canonical")
    sources.ingest(simulated, out, IV)
    return out


@pytest.fixture
def copy(simulated: Path, tmp_path: Path) -> Path:
    """The parquet tables, to be spoilt."""
    return Path(shutil.copytree(simulated, tmp_path / "tables"))


def whole(out: Path) -> dict[str, pd.DataFrame]:
    """All shards as one table each, in an order that does not depend on the shards."""
    read = [tables.read(folder) for folder in sorted(out.iterdir())]
    joined = {}
    for name in tables.SCHEMAS:
        frame = pd.concat([getattr(shard, name).astype({}) for shard in read], ignore_index=True)
        text = {c: "str" for c in frame if frame[c].dtype.name in {"category", "object"}}
        joined[name] = frame.astype(text).sort_values(list(frame.columns), ignore_index=True)
    return joined


def same(first: Path, second: Path) -> None:
    for name, frame in whole(first).items():
        pd.testing.assert_frame_equal(frame, whole(second)[name])


def as_csv(root: Path, out: Path, gz: bool, flat: bool, upper: bool) -> Path:
    for path in root.rglob("*.parquet"):
        name = path.stem.upper() if upper else path.stem
        target = out / ("" if flat else path.parent.name) / f"{name}.csv"
        target.parent.mkdir(parents=True, exist_ok=True)
        pacsv.write_csv(pq.read_table(path), target)
        if gz:
            (target.parent / f"{target.name}.gz").write_bytes(gzip.compress(target.read_bytes()))
            target.unlink()
    return out


@pytest.mark.parametrize(
    ("gz", "flat", "upper"), [(True, False, False), (False, True, True)], ids=["csv.gz in hosp and icu", "flat CSV"]
)
def test_every_layout_of_the_same_tables_gives_the_same_shards(
    simulated: Path, shards: Path, tmp_path: Path, gz: bool, flat: bool, upper: bool
) -> None:
    sources.ingest(as_csv(simulated, tmp_path / "in", gz, flat, upper), tmp_path / "out", IV)
    same(shards, tmp_path / "out")


def test_a_folder_of_part_files_is_one_table(copy: Path, shards: Path, tmp_path: Path) -> None:
    path = copy / "icu" / "chartevents.parquet"
    rows = pq.read_table(path)
    path.unlink()
    folder = copy / "icu" / "chartevents"
    folder.mkdir()
    pq.write_table(rows.slice(0, 1000), folder / "part-0.parquet")
    pq.write_table(rows.slice(1000), folder / "part-1.parquet")
    sources.ingest(copy, tmp_path / "out", IV)
    same(shards, tmp_path / "out")


@pytest.mark.parametrize(("shard_stays", "workers"), [(6, 1), (4, 2)])
def test_shard_size_and_workers_change_nothing(
    simulated: Path, shards: Path, tmp_path: Path, shard_stays: int, workers: int
) -> None:
    config = sources.SourceConfig(kind="mimic_iv", shard_stays=shard_stays, workers=workers)
    counts = sources.ingest(simulated, tmp_path / "many", config)
    assert counts == sources.ingest(simulated, tmp_path / "one", IV)
    assert len(list((tmp_path / "many").iterdir())) > 1
    same(shards, tmp_path / "many")


def test_only_rows_of_items_that_are_read_leave_the_file(simulated: Path) -> None:
    table = next(table for table in mimic_iv.TABLES if table.name == "chartevents")
    path = simulated / "icu" / "chartevents.parquet"
    read = list(files.batches(table, [path]))
    items = {int(item) for batch in read for item in batch.columns["itemid"]}
    assert table.ids is not None
    assert items <= table.ids
    assert sum(batch.rows for batch in read) == pq.read_metadata(path).num_rows


def test_the_stays_of_one_patient_are_in_one_shard(simulated: Path, tmp_path: Path) -> None:
    sources.ingest(simulated, tmp_path, sources.SourceConfig(kind="mimic_iv", shard_stays=4))
    patients = [set(tables.read(folder).stays["subject_id"]) for folder in sorted(tmp_path.iterdir())]
    assert sum(map(len, patients)) == len(set().union(*patients))


def test_progress_ends_at_its_end_and_nothing_but_shards_is_left(simulated: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    sources.ingest(simulated, tmp_path, IV, lambda done, all_of_it: told.append((done, all_of_it)))
    assert told[-1][0] == told[-1][1] == len(told)
    assert [path.name for path in tmp_path.iterdir()] == ["shard-00000"]


def test_a_missing_optional_table_is_reported_and_its_features_are_missing(copy: Path, tmp_path: Path) -> None:
    for name in ("labevents", "diagnoses_icd", "microbiologyevents"):
        (copy / "hosp" / f"{name}.parquet").unlink()
    counts = sources.ingest(copy, tmp_path / "out", IV)
    assert counts["labevents", "table missing"] == 1
    shard = tables.read(tmp_path / "out" / "shard-00000")
    assert "creatinine" not in set(shard.observations["concept"])
    assert shard.stays["elixhauser_current"].isna().all()
    assert shard.stays["suspicion_time"].isna().all()


@pytest.mark.parametrize("name", ["hosp/patients", "hosp/admissions", "icu/icustays", "icu/chartevents"])
def test_a_missing_required_table_is_named(copy: Path, tmp_path: Path, name: str) -> None:
    (copy / f"{name}.parquet").unlink()
    refused(copy, tmp_path, f"required table {name.split('/')[1]} is missing")


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", tmp_path, "nowhere: no such folder")


def refused(root: Path, scratch: Path, message: str) -> None:
    """Reading is refused with one line that holds the message and no row of the data, and leaves nothing behind."""
    out = scratch / "out"
    with pytest.raises(InputError) as error:
        sources.ingest(root, out, IV)
    said = str(error.value)
    assert message in said
    assert "\n" not in said
    assert "secret" not in said
    assert "3000000" not in said.replace(str(root), "")  # the simulated stays' ids
    assert not out.exists() or not list(out.iterdir())


def spoil(root: Path, name: str, change: dict[str, pa.Array | None], rename: dict[str, str] | None = None) -> None:
    """Replace columns of a parquet table (None: remove), or rename them."""
    path = root / f"{name}.parquet"
    table = pq.read_table(path)
    for column, array in change.items():
        index = table.schema.get_field_index(column)
        table = table.remove_column(index) if array is None else table.set_column(index, column, array)
    pq.write_table(table.rename_columns([(rename or {}).get(c, c) for c in table.column_names]), path)


def test_a_missing_or_renamed_column_is_named(copy: Path, tmp_path: Path) -> None:
    spoil(copy, "icu/chartevents", {}, {"valuenum": "number"})
    refused(copy, tmp_path, "chartevents.parquet: column 'valuenum' is missing")


def test_a_column_of_a_wrong_type_is_named(copy: Path, tmp_path: Path) -> None:
    n = pq.read_metadata(copy / "icu" / "inputevents.parquet").num_rows
    spoil(copy, "icu/inputevents", {"rate": pa.array(["fast"] * n)})
    refused(copy, tmp_path, f"rate: expected numbers in {n} of {n} rows")


def test_times_where_numbers_belong_are_refused(copy: Path, tmp_path: Path) -> None:
    n = pq.read_metadata(copy / "icu" / "inputevents.parquet").num_rows
    spoil(copy, "icu/inputevents", {"rate": pa.nulls(n, pa.timestamp("us")), "starttime": pa.array([1.5] * n)})
    refused(copy, tmp_path, "starttime: type double, expected times")


def test_parquet_times_with_a_zone_are_refused(copy: Path, tmp_path: Path) -> None:
    column = pq.read_table(copy / "icu" / "chartevents.parquet")["charttime"].cast(pa.timestamp("us", "UTC"))
    spoil(copy, "icu/chartevents", {"charttime": column})
    refused(copy, tmp_path, "charttime: has times with a zone")


@pytest.mark.parametrize("name", ["icu/icustays", "icu/chartevents", "hosp/patients"])
def test_an_empty_required_table_is_refused(copy: Path, tmp_path: Path, name: str) -> None:
    path = copy / f"{name}.parquet"
    pq.write_table(pq.read_table(path).slice(0, 0), path)
    refused(copy, tmp_path, f"{name.split('/')[1]}: the table has no rows")


def test_an_empty_optional_table_is_counted(copy: Path, tmp_path: Path) -> None:
    path = copy / "icu" / "outputevents.parquet"
    pq.write_table(pq.read_table(path).slice(0, 0), path)
    assert sources.ingest(copy, tmp_path / "out", IV)["outputevents", "table empty"] == 1


def test_duplicate_stays_are_refused(copy: Path, tmp_path: Path) -> None:
    path = copy / "icu" / "icustays.parquet"
    rows = pq.read_table(path)
    pq.write_table(pa.concat_tables([rows, rows.slice(0, 2)]), path)
    refused(copy, tmp_path, "icustays: stay id: given more than once (2 of 14 rows)")


@pytest.mark.parametrize("place", [0.3, 0.6, 0.9])
def test_a_flipped_bit_in_parquet_is_found(copy: Path, tmp_path: Path, place: float) -> None:
    path = copy / "icu" / "chartevents.parquet"
    table = pq.read_table(path).select(["stay_id", "itemid", "charttime", "storetime", "value", "valuenum", "valueuom"])
    pq.write_table(table, path, compression="none", write_page_checksum=True, use_dictionary=False)
    content = bytearray(path.read_bytes())
    content[int(len(content) * place)] ^= 4
    path.write_bytes(content)
    refused(copy, tmp_path, "chartevents.parquet: not readable as parquet: truncated or damaged")


def test_a_truncated_parquet_is_found(copy: Path, tmp_path: Path) -> None:
    path = copy / "hosp" / "labevents.parquet"
    path.write_bytes(path.read_bytes()[:-500])
    refused(copy, tmp_path, "labevents.parquet: not readable as parquet: truncated or damaged")


@pytest.fixture
def csv(simulated: Path, tmp_path: Path) -> Path:
    """The tables as csv.gz, to be spoilt."""
    return as_csv(simulated, tmp_path / "csv", gz=True, flat=False, upper=False)


def edit(path: Path, old: str, new: str, rows: int = 1) -> None:
    """Replace text in the first rows of a csv.gz."""
    head, *body = gzip.decompress(path.read_bytes()).decode().split("\n")
    body[:rows] = [line.replace(old, new) for line in body[:rows]]
    path.write_bytes(gzip.compress("\n".join([head, *body]).encode()))


def test_a_truncated_gzip_is_found(csv: Path, tmp_path: Path) -> None:
    path = csv / "icu" / "chartevents.csv.gz"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refused(csv, tmp_path, "chartevents.csv.gz: not readable as CSV: truncated or damaged")


@pytest.mark.parametrize("place", [0.2, 0.5, 0.99])
def test_a_flipped_bit_in_gzip_is_found(csv: Path, tmp_path: Path, place: float) -> None:
    path = csv / "icu" / "chartevents.csv.gz"
    content = bytearray(path.read_bytes())
    content[int(len(content) * place)] ^= 16
    path.write_bytes(content)
    refused(csv, tmp_path, "chartevents.csv.gz: ")


def test_csv_times_with_a_zone_are_refused(csv: Path, tmp_path: Path) -> None:
    path = csv / "icu" / "icustays.csv.gz"
    lines = gzip.decompress(path.read_bytes()).decode().split("\n")
    cells = lines[1].split(",")
    cells[lines[0].split(",").index('"intime"')] += "+02:00"
    path.write_bytes(gzip.compress("\n".join([lines[0], ",".join(cells), *lines[2:]]).encode()))
    refused(csv, tmp_path, "intime: has times with a zone; times are local and without one (1 rows)")


def test_csv_times_that_are_none_are_counted_in_the_message(csv: Path, tmp_path: Path) -> None:
    edit(csv / "hosp" / "labevents.csv.gz", ":", ".", rows=3)
    refused(csv, tmp_path, "charttime: expected times without a zone in 3 of ")


def test_text_where_a_number_belongs_is_counted_in_the_message(csv: Path, tmp_path: Path) -> None:
    path = csv / "icu" / "chartevents.csv.gz"
    head, *body = gzip.decompress(path.read_bytes()).decode().split("\n")
    place = head.split(",").index('"valuenum"')
    for k in range(2):
        cells = body[k].split(",")
        body[k] = ",".join([*cells[:place], "secret", *cells[place + 1 :]])
    path.write_bytes(gzip.compress("\n".join([head, *body]).encode()))
    refused(csv, tmp_path, "valuenum: expected numbers in 2 of ")


def test_rows_of_unequal_length_are_refused(csv: Path, tmp_path: Path) -> None:
    edit(csv / "hosp" / "patients.csv.gz", ",", ",secret,", rows=1)
    refused(csv, tmp_path, "patients.csv.gz: not readable as CSV: rows of unequal length")


def test_a_row_without_an_end_is_refused(csv: Path, tmp_path: Path) -> None:
    path = csv / "icu" / "chartevents.csv.gz"
    table = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(table.rstrip(b"\n") + b"9" * 40_000_000, compresslevel=1))
    refused(csv, tmp_path, "chartevents.csv.gz: not readable as CSV: a row without an end")


def test_a_text_with_a_line_break_in_it_is_one_value(csv: Path, tmp_path: Path) -> None:
    edit(csv / "icu" / "icustays.csv.gz", "ICU", "IC\nU", rows=12)
    sources.ingest(csv, tmp_path / "out", IV)
    units = tables.read(tmp_path / "out" / "shard-00000").stays["care_unit"]
    assert units.str.contains("IC\nU", regex=False).any()


def test_a_csv_without_a_header_is_refused(csv: Path, tmp_path: Path) -> None:
    (csv / "hosp" / "patients.csv.gz").write_bytes(gzip.compress(b""))
    refused(csv, tmp_path, "patients.csv.gz: empty: not even a header")


def test_an_ingest_that_ended_early_goes_on_without_reading_again(simulated: Path, tmp_path: Path) -> None:
    """What is finished is a piece; the tables are then gone, so only pieces can have been used."""
    config = sources.SourceConfig(kind="mimic_iv", shard_stays=4)
    whole = sources.ingest(simulated, tmp_path / "whole", config)
    copy = tmp_path / "in"
    shutil.copytree(simulated, copy)

    def stop(done: int, total: int) -> None:
        if done == total - 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sources.ingest(copy, tmp_path / "first", config, stop, work=tmp_path / "work")
    with gzip.open(copy / "icu" / "chartevents.csv.gz", "wt") as file:
        file.write("not read again\n")
    (copy / "icu" / "chartevents.parquet").unlink()
    told: list[tuple[int, int]] = []
    again = sources.ingest(copy, tmp_path / "out", config, lambda *done: told.append(done), work=tmp_path / "work")
    assert again == whole
    shards = len(list((tmp_path / "whole").iterdir()))
    assert len(told) == told[-1][1] - (shards - 1), "shards that were finished were made again"
    files = [path.relative_to(tmp_path / "whole") for path in sorted((tmp_path / "whole").rglob("*.parquet"))]
    assert files == [path.relative_to(tmp_path / "out") for path in sorted((tmp_path / "out").rglob("*.parquet"))]
    assert all((tmp_path / "whole" / file).read_bytes() == (tmp_path / "out" / file).read_bytes() for file in files)


def by_patient(simulated: Path, root: Path) -> pa.Table:
    """A copy of the tables whose chart rows are in the patients' order, as in MIMIC-IV."""
    shutil.copytree(simulated, root)
    path = root / "icu" / "chartevents.parquet"
    chart = pq.read_table(path).sort_by("subject_id")
    pq.write_table(chart, path, row_group_size=200)
    return chart


def test_a_dry_run_reads_no_row_group_that_its_patients_are_not_in(simulated: Path, tmp_path: Path) -> None:
    """The last row group is damaged, and is not met."""
    root = tmp_path / "in"
    column = by_patient(simulated, root).column_names.index("stay_id")
    path = root / "icu" / "chartevents.parquet"
    groups, content = pq.read_metadata(path), bytearray(path.read_bytes())
    place = groups.row_group(groups.num_row_groups - 1).column(column).data_page_offset
    content[place : place + 40] = bytes(40)
    path.write_bytes(bytes(content))
    with pytest.raises(InputError, match="chartevents"):
        sources.ingest(root, tmp_path / "whole", IV)
    counts = sources.ingest(root, tmp_path / "dry", IV.model_copy(update={"limit_stays": 2}))
    stays = pq.read_table(tmp_path / "dry" / "shard-00000" / "stays.parquet")
    assert 2 <= stays.num_rows <= 4
    assert counts["icustays", "dry run: stays not read"] == 12 - stays.num_rows
    assert pq.read_table(tmp_path / "dry" / "shard-00000" / "observations.parquet").num_rows > 100


@pytest.mark.parametrize("in_order", [True, False])
def test_a_dry_run_reads_a_csv_until_its_patients_are_past(simulated: Path, tmp_path: Path, in_order: bool) -> None:
    """A table that is in no order is read to its end, so that nothing of them is missed."""
    chart = by_patient(simulated, tmp_path / "in")
    chart = chart if in_order else chart.take(np.random.default_rng(0).permutation(chart.num_rows))
    pacsv.write_csv(chart, tmp_path / "chartevents.csv")
    table = next(table for table in mimic_iv.TABLES if table.name == "chartevents")
    patients = np.unique(chart["subject_id"].to_numpy())[:2]
    read = list(files.batches(table, [tmp_path / "chartevents.csv"], 1 << 16, patients))
    rows = sum(batch.rows for batch in read)
    wanted = int(np.isin(chart["subject_id"].to_numpy(), patients).sum())
    assert wanted <= rows
    assert (rows < chart.num_rows / 2) if in_order else (rows == chart.num_rows)
