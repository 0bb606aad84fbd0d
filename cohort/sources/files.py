"""Files: a layout's raw tables on disk, found, checked and streamed as NumPy columns.

Everything is read by Arrow, which verifies the checksums of gzip and parquet. What a reader says of a damaged file is
never passed on: it quotes rows.
"""

import csv
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from jaxtyping import Int

from cohort.errors import InputError
from cohort.sources.measurements import NAT, codes, id_table
from cohort.sources.raw import Keep, Kind, RawTable
from cohort.tables import Counts

FOLDERS = ("", "hosp", "icu")
ENDINGS = (".parquet", ".csv.gz", ".csv")
_ROW_BYTES = 64  # of a decoded row of parquet, roughly
_ARROW = {
    Kind.INTEGER: pa.int64(),
    Kind.NUMBER: pa.float64(),
    Kind.TIME: pa.timestamp("us"),
    Kind.TEXT: pa.dictionary(pa.int32(), pa.string()),
}
_DAMAGED = (OSError, pa.ArrowException, UnicodeDecodeError, EOFError)


@dataclass(frozen=True)
class Text:
    """A text column: an index into `words` for each row, -1 where missing or not read."""

    code: Int[np.ndarray, "n"]
    words: tuple[str, ...]


@dataclass(frozen=True)
class Batch:
    """Some rows of a table: those of the item ids and texts that are read."""

    rows: int
    """Rows of the file that were looked at."""
    columns: dict[str, np.ndarray | Text]
    """Whole numbers as int64 (missing: -1), numbers as float64, times as int64 microseconds (missing: NAT)."""


def find(root: Path, layout: tuple[RawTable, ...]) -> tuple[dict[str, list[Path]], Counts]:
    """Where each table of the layout is, and a count for each optional one that is missing.

    Raises:
        InputError: `root` is no folder, or a required table is missing.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder of hospital tables")
    counts: Counts = Counter()
    found = {}
    for table in layout:
        paths = _paths(root, table.file or table.name)
        if paths:
            found[table.name] = paths
        elif table.required:
            raise InputError(f"{root}: required table {table.file or table.name} is missing ({', '.join(ENDINGS)})")
        else:
            counts[table.name, "table missing"] = 1
    return found, counts


def read(root: Path, layout: tuple[RawTable, ...]) -> list[Path]:
    """Every file that is read of a layout, each once, in order.

    Raises:
        InputError: as `find`.
    """
    found, _ = find(root, layout)
    return sorted({path for paths in found.values() for path in paths})


def batches(
    table: RawTable, paths: list[Path], block_bytes: int = 4 << 20, first: Int[np.ndarray, "p"] | None = None
) -> Iterator[Batch]:
    """Stream a table, about `block_bytes` at a time.

    Where only the patients `first` (those with the smallest ids, ascending) are wanted, a parquet file's row groups
    without any of them are not read, and a CSV that is in the patients' order so far is read until they are past.

    Raises:
        InputError: a column is missing, holds something else, or a file is damaged; naming file, column and row count.
    """
    wanted = id_table(dict.fromkeys(table.ids, 0)) if table.ids is not None else None
    textual = id_table(dict.fromkeys(table.text_ids, 0))
    for path in paths:
        read = _parquet if path.name.lower().endswith(".parquet") else _csv
        for batch in read(table, path, block_bytes, first):
            yield _columns(table, batch, wanted, textual)


def _paths(root: Path, name: str) -> list[Path]:
    """The file of a table, or the files in the folder of its name; the first that is there."""
    for folder in (root / part for part in FOLDERS):
        if not folder.is_dir():
            continue
        entries = {entry.name.lower(): entry for entry in sorted(folder.iterdir())}
        for ending in ENDINGS:
            if (entry := entries.get(name + ending)) is not None:
                return _parts(entry) if entry.is_dir() else [_regular(entry)]
        entry = entries.get(name)
        if entry is not None and entry.is_dir():
            return _parts(entry)
    return []


def _regular(path: Path) -> Path:
    """A link that leads nowhere, as where a disk is not mounted, or a pipe is no table; neither is it a missing one."""
    if not path.is_file():
        raise InputError(f"{path}: not a file that can be read again (a link to nothing, a pipe or a device)")
    return path


def _parts(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name.lower().endswith(ENDINGS))


def _names(table: RawTable, path: Path, present: list[str]) -> dict[str, str]:
    """Column wanted -> its name in the file, whatever the case."""
    by_lower = {name.strip().lower(): name for name in present}
    names = {}
    for column in table.columns:
        spelt = next((n for n in (column, *table.alternatives.get(column, ())) if n in by_lower), None)
        if spelt is None and column in table.optional:
            continue
        if spelt is None:
            raise InputError(f"{path}: column {column!r} is missing")
        names[column] = by_lower[spelt]
    return names


def _csv(table: RawTable, path: Path, block_bytes: int, first: Int[np.ndarray, "p"] | None) -> Iterator[pa.RecordBatch]:
    header = _header(path)
    names = _names(table, path, header)
    types = {there: _type(table, column) for column, there in names.items()}
    patient = _patient_column(header) if first is not None else None
    asked = types if patient is None else {**types, patient: pa.int64()}
    try:
        batches = _open_csv(path, asked, block_bytes)
        if patient is not None and first is not None:
            batches = _until_past(batches, patient, int(first[-1]))
        for batch in batches:
            yield _completed(table, batch.select(list(types)).rename_columns(list(names)))
    except _DAMAGED as error:
        raise _csv_problem(table, path, names, str(error)) from None


def _type(table: RawTable, column: str) -> pa.DataType:
    """Text that is read of some items only is mostly numbers: too many words for a dictionary."""
    plain = column == "value" and table.columns[column] is Kind.TEXT
    return pa.string() if plain else _ARROW[table.columns[column]]


def _open_csv(path: Path, types: dict[str, pa.DataType], block_bytes: int = 4 << 20) -> Iterator[pa.RecordBatch]:
    compression = "gzip" if path.name.lower().endswith(".gz") else None
    options = pacsv.ConvertOptions(
        include_columns=list(types),
        column_types=types,
        null_values=[""],
        strings_can_be_null=True,
        timestamp_parsers=[pacsv.ISO8601],
    )
    read = pacsv.ReadOptions(block_size=block_bytes, use_threads=False)
    parse = pacsv.ParseOptions(newlines_in_values=True)
    with (
        pa.input_stream(str(path), compression=compression, buffer_size=1 << 20) as stream,
        pacsv.open_csv(stream, read_options=read, parse_options=parse, convert_options=options) as reader,
    ):
        yield from reader


def _patient_column(present: list[str]) -> str | None:
    return next((name for name in present if name.strip().lower() == "subject_id"), None)


def _until_past(batches: Iterator[pa.RecordBatch], patient: str, last: int) -> Iterator[pa.RecordBatch]:
    """The batches up to the first that begins behind the last patient wanted, as long as patients only ascend."""
    highest, ascending = np.iinfo(np.int64).min, True
    for batch in batches:
        ids = _integers(batch.column(patient))
        if len(ids):
            ascending = ascending and ids[0] >= highest and bool((np.diff(ids) >= 0).all())
            if ascending and ids[0] > last:
                return
            highest = ids[-1]
        yield batch


def _header(path: Path) -> list[str]:
    compression = "gzip" if path.name.lower().endswith(".gz") else None
    try:
        with pa.input_stream(str(path), compression=compression) as stream:
            start = stream.read(1 << 16)
        first = start.decode("utf-8-sig", errors="strict" if len(start) < 1 << 16 else "ignore").splitlines()
    except _DAMAGED:
        raise InputError(f"{path}: not readable as CSV: truncated or damaged") from None
    if not first:
        raise InputError(f"{path}: empty: not even a header")
    return next(csv.reader([first[0]]))


def _csv_problem(table: RawTable, path: Path, names: dict[str, str], message: str) -> InputError:
    """What is wrong with a CSV, in words that quote no row."""
    place = re.search(r"In CSV column #(\d+):.*CSV conversion error", message)
    if place is None:
        kinds = {"Expected": "rows of unequal length", "block": "a row without an end (a quotation mark?)"}
        kind = next((kind for word, kind in kinds.items() if word in message), "truncated or damaged")
        return InputError(f"{path}: not readable as CSV: {kind}")
    spelt = _header(path)[int(place[1])]
    column = next(name for name, there in names.items() if there == spelt)
    wrong = rows = 0
    zoned = False
    try:
        for batch in _open_csv(path, {spelt: pa.string()}):
            bad = _unreadable(batch.column(0), table.columns[column])
            wrong, rows = wrong + len(bad), rows + batch.num_rows
            zoned = zoned or bool(pc.any(pc.match_substring_regex(bad, r"\d(Z|[+-]\d\d:?\d\d)\s*$")).as_py())
    except _DAMAGED:
        return InputError(f"{path}: not readable as CSV: truncated or damaged")
    if zoned and table.columns[column] is Kind.TIME:
        return InputError(f"{path}: {column}: has times with a zone; times are local and without one ({wrong} rows)")
    expected = table.columns[column].value
    return InputError(f"{path}: {column}: expected {expected} in {wrong} of {rows} rows that hold something else")


def _unreadable(values: pa.Array, kind: Kind) -> pa.Array:
    """The values that cannot be read as the kind, found by halving."""
    if not len(values):
        return values
    try:
        values.cast(_ARROW[kind])
    except pa.ArrowInvalid:
        if len(values) == 1:
            return values
        half = len(values) // 2
        return pa.concat_arrays([_unreadable(values[:half], kind), _unreadable(values[half:], kind)])
    return values[:0]


def _parquet(
    table: RawTable, path: Path, block_bytes: int, first: Int[np.ndarray, "p"] | None
) -> Iterator[pa.RecordBatch]:
    texts = [column for column, kind in table.columns.items() if kind is Kind.TEXT]
    try:
        names = _names(table, path, pq.read_schema(path).names)
        categories = [names[column] for column in texts if column in names]
        with pq.ParquetFile(path, page_checksum_verification=True, read_dictionary=categories) as file:
            groups = _groups_with(file, first)
            rows = block_bytes // _ROW_BYTES
            for batch in file.iter_batches(batch_size=rows, row_groups=groups, columns=list(names.values())):
                arrays = [_cast(table, path, column, batch.column(name)) for column, name in names.items()]
                yield _completed(table, pa.RecordBatch.from_arrays(arrays, names=list(names)))
    except _DAMAGED:
        raise InputError(f"{path}: not readable as parquet: truncated or damaged") from None


def _groups_with(file: pq.ParquetFile, first: Int[np.ndarray, "p"] | None) -> list[int]:
    """The row groups that may hold one of the patients, by the file's own statistics; all where it has none."""
    every = list(range(file.num_row_groups))
    patient = _patient_column(file.schema_arrow.names)
    if first is None or patient is None or not every:
        return every
    column = file.schema_arrow.names.index(patient)
    chosen = []
    for group in every:
        found = file.metadata.row_group(group).column(column).statistics
        outside = found is not None and found.has_min_max and not ((first >= found.min) & (first <= found.max)).any()
        chosen += [] if outside else [group]
    return chosen or every[:1]  # a table is empty only where it has no rows at all


def _completed(table: RawTable, batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with its optional columns, missing values where the file has none."""
    for column in sorted(table.optional - set(batch.schema.names)):
        batch = batch.append_column(column, pa.nulls(batch.num_rows, _type(table, column)))
    return batch


def _cast(table: RawTable, path: Path, column: str, array: pa.Array) -> pa.Array:
    kind = table.columns[column]
    if pa.types.is_timestamp(array.type) and array.type.tz is not None:
        raise InputError(f"{path}: {column}: has times with a zone; times are local and without one")
    timely = pa.types.is_temporal(array.type) or pa.types.is_null(array.type)
    if (kind is Kind.TIME) != timely and not (_is_text(array.type) or pa.types.is_null(array.type)):
        raise InputError(f"{path}: {column}: type {array.type}, expected {kind.value}")
    try:
        if kind is Kind.TEXT:
            return array.cast(pa.string()).dictionary_encode() if not _is_text(array.type) else array
        array = array.cast(pa.string()) if pa.types.is_dictionary(array.type) else array
        return array.cast(_ARROW[kind], safe=kind is not Kind.TIME)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        wrong = len(_unreadable(array, kind)) if pa.types.is_string(array.type) else len(array)
        raise InputError(
            f"{path}: {column}: expected {kind.value} in {wrong} of {len(array)} rows that hold something else"
        ) from None


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _columns(table: RawTable, batch: pa.RecordBatch, wanted: np.ndarray | None, textual: np.ndarray) -> Batch:
    rows = batch.num_rows
    if wanted is not None:
        kept = codes(wanted, _integers(batch.column("itemid"))) >= 0
        batch = batch if kept.all() else batch.filter(pa.array(kept))
    if table.keep is not None:
        batch = batch.filter(_matched(batch.column(table.keep.column), table.keep))
    read: dict[str, np.ndarray | Text] = {}
    for column, kind in table.columns.items():
        values = batch.column(column)
        if kind is Kind.TEXT:
            some = (
                codes(textual, _integers(batch.column("itemid"))) >= 0 if table.text_ids and column == "value" else None
            )
            read[column] = _text(values, some)
        elif kind is Kind.INTEGER:
            read[column] = _integers(values)
        elif kind is Kind.TIME:
            read[column] = values.cast(pa.int64()).fill_null(NAT).to_numpy(zero_copy_only=False)
        else:
            read[column] = values.to_numpy(zero_copy_only=False)
    return Batch(rows, read)


def _integers(values: pa.Array) -> Int[np.ndarray, "n"]:
    numbers: np.ndarray = values.fill_null(-1).to_numpy(zero_copy_only=False)
    return numbers


def _matched(values: pa.Array, keep: Keep) -> pa.Array:
    """Which rows a filter keeps, each distinct text looked at once."""
    encoded = values if pa.types.is_dictionary(values.type) else values.dictionary_encode()
    words = pc.utf8_lower(encoded.dictionary) if keep.every_case else encoded.dictionary
    return pc.match_substring_regex(words, keep.pattern).take(encoded.indices).fill_null(False)


def _text(values: pa.Array, some: np.ndarray | None) -> Text:
    rows = None if some is None else np.flatnonzero(some)
    chosen = values if rows is None else values.take(pa.array(rows))
    encoded = chosen if pa.types.is_dictionary(chosen.type) else chosen.dictionary_encode()
    code = _integers(encoded.indices).astype(np.int32)
    words = tuple("" if word is None else str(word) for word in encoded.dictionary.to_pylist())
    if rows is None:
        return Text(code, words)
    everywhere = np.full(len(values), -1, dtype=np.int32)
    everywhere[rows] = code
    return Text(everywhere, words)
