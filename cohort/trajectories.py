"""Trajectories: the cohort's one table, a row a decision, and the schema that is its whole contract."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cohort import artifact
from cohort.errors import InputError
from cohort.features import DOSES_BEFORE, FEATURES, MEASURED
from cohort.split import SPLITS

FILE = "trajectories.parquet"
FINAL_STATES = "final_states.parquet"
END_REASONS = ("death", "discharge", "horizon")
OUTCOMES = ("died", "survived")
ROWS_PER_GROUP = 65536
_TEXT = pa.dictionary(pa.int8(), pa.string())


@cache
def schema(features: tuple[str, ...] = FEATURES) -> pa.Schema:
    """Columns of trajectories.parquet where the state has `features`; clinical units, nothing scaled, imputed."""

    def required(name: str, kind: pa.DataType) -> pa.Field:
        return pa.field(name, kind, nullable=False)

    return pa.schema(
        [
            required("stay_id", pa.int64()),
            required("subject_id", pa.int64()),
            required("step", pa.int32()),
            required("time", pa.timestamp("us")),
            required("duration_h", pa.float64()),  # of the window [time, time + step), cut at the episode's end
            *(required(name, pa.float32()) for name in features),
            *(pa.field(f"{name}_age_h", pa.float32()) for name in MEASURED),  # null: imputed, so of no age
            *(required(f"{name}_imputed", pa.bool_()) for name in FEATURES),
            required("fio2_estimated", pa.bool_()),  # from oxygen device and flow
            required("sofa_missing", pa.int8()),  # organ systems of six without a value, counted 0
            required("sirs_missing", pa.int8()),
            pa.field("cvp", pa.float32()),
            required("fluid_balance_total", pa.float64()),  # IV fluid less urine since the anchor, mL
            required("fluid_ml", pa.float64()),  # given in the window, tonicity-adjusted
            required("vasopressor_ug_kg_min", pa.float64()),  # norepinephrine equivalent, mean over the window
            required("vasopressor_capped", pa.bool_()),
            required("dose_unknown", pa.bool_()),  # more ran in the window than could be read: the doses are a part
            pa.field("previous_fluid_ml", pa.float64()),  # null at an episode's first step
            pa.field("previous_vasopressor_ug_kg_min", pa.float64()),
            required("action", pa.int16()),
            required("previous_action", pa.int16()),  # -1 at an episode's first step
            required("reward", pa.float32()),
            required("terminated", pa.bool_()),  # the last row of an episode whose outcome is in its reward
            required("end_reason", _TEXT),
            required("outcome", _TEXT),
            required("split", _TEXT),
            required("extreme_urine", pa.bool_()),  # above 12 L in the window: flagged, kept
            required("extreme_intake", pa.bool_()),  # above 10 L in the window: flagged, kept
        ]
    )


@cache
def final_schema(features: tuple[str, ...] = FEATURES) -> pa.Schema:
    """Columns of final_states.parquet: the imputed state at the end of each episode that was cut off."""
    fields = [pa.field(name, pa.float32(), nullable=False) for name in features]
    return pa.schema([pa.field("stay_id", pa.int64(), nullable=False), *fields])


def known() -> pa.Schema:
    """The schema with every column that a cohort may have."""
    return schema(FEATURES + DOSES_BEFORE)


def write(path: Path, blocks: Iterator[pa.Table], features: tuple[str, ...] = FEATURES) -> int:
    """Write blocks of rows, ordered by stay and step, each checked; returns the number of rows.

    Raises:
        InputError: a block does not follow the schema or the ranges.
    """
    rows = 0
    with pq.ParquetWriter(path, schema(features), compression="zstd", write_page_checksum=True) as writer:
        for block in blocks:
            writer.write_table(check(block, path.name), row_group_size=ROWS_PER_GROUP)
            rows += block.num_rows
    return rows


def read(cohort: Path, columns: list[str] | None = None, split: str | None = None) -> pa.Table:
    """Rows of a finished cohort directory, its hash verified; `split` keeps one of SPLITS.

    Raises:
        ArtifactError: the file is missing, damaged, or changed after it was written.
        InputError: it does not follow the schema, or a column is unknown.
    """
    unknown = sorted(set(columns or ()) - set(known().names))
    if unknown:
        raise InputError(f"{FILE}: column {unknown[0]!r} is not in the schema")
    wanted = None if columns is None else [name for name in known().names if name in {*columns, "split"}]
    table = artifact.read_parquet(artifact.verified(cohort, FILE), wanted)
    check(table, str(cohort / FILE))
    if split is not None:
        if split not in SPLITS:
            raise InputError(f"{FILE}: split {split!r} is unknown; known: {', '.join(SPLITS)}")
        table = table.filter(pc.equal(table["split"].cast(pa.string()), split))
    return table if columns is None else table.select(list(dict.fromkeys(columns)))


def check(table: pa.Table, name: str) -> pa.Table:
    """The table, if its columns are the schema's (all, or some of them) and its values are in range.

    Raises:
        InputError: naming table, column, what is wrong, row count and the allowed range.
    """
    for column in table.schema:
        if column.name not in known().names:
            raise InputError(f"{name}: column {column.name!r} is not in the schema")
        expected = known().field(column.name)
        if column.type != expected.type:
            raise InputError(f"{name}: {column.name}: type {column.type}, expected {expected.type}")
        values = table[column.name]
        if values.null_count and not expected.nullable:
            raise InputError(f"{name}: {column.name}: missing in {values.null_count} of {len(values)} rows")
        if pa.types.is_floating(column.type):
            _forbid(name, column.name, ~np.isfinite(values.drop_null().to_numpy()), "NaN or infinite")
    for column_name, low in (
        ("step", 0),
        ("action", 0),
        ("fluid_ml", 0),
        ("vasopressor_ug_kg_min", 0),
        ("duration_h", 0),
    ):
        if column_name in table.column_names:
            _forbid(name, column_name, table[column_name].to_numpy() < low, f"below {low}")
    return table


def _forbid(name: str, column: str, wrong: np.ndarray, what: str) -> None:
    count = int(wrong.sum())
    if count:
        raise InputError(f"{name}: {column}: {what} ({count} of {len(wrong)} rows)")
