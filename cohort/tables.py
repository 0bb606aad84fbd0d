"""Tables: the canonical form every source is brought to, and its schema."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa

from cohort import artifact
from cohort.errors import InputError

_TIME = pa.timestamp("us")
_TEXT = pa.dictionary(pa.int32(), pa.string())

SCHEMAS: dict[str, pa.Schema] = {
    "stays": pa.schema(
        [
            pa.field("stay_id", pa.int64(), nullable=False),
            pa.field("subject_id", pa.int64(), nullable=False),
            pa.field("hadm_id", pa.int64(), nullable=False),
            pa.field("intime", _TIME, nullable=False),
            pa.field("outtime", _TIME, nullable=False),
            pa.field("admittime", _TIME, nullable=False),
            pa.field("dischtime", _TIME),
            pa.field("deathtime", _TIME),  # in hospital only
            pa.field("dod", _TIME),  # date of death, in or out of hospital
            pa.field("died_in_hospital", pa.bool_(), nullable=False),
            pa.field("age_years", pa.float64(), nullable=False),  # at ICU admission; 91.4 where the source hides it
            pa.field("sex_male", pa.float64()),  # 1, 0, or missing
            pa.field("ethnicity", pa.string()),
            pa.field("care_unit", pa.string()),
            pa.field("readmission", pa.float64(), nullable=False),  # 1: an earlier ICU stay is in the source
            pa.field("elixhauser", pa.float64()),  # from prior admissions only; missing: no prior admission
            pa.field("elixhauser_current", pa.float64()),  # from this admission's codes, known at discharge only
            pa.field("suspicion_time", _TIME),  # suspected infection: the earlier of culture and antibiotic
            pa.field("charting", pa.string(), nullable=False),  # metavision, carevue
        ]
    ),
    "observations": pa.schema(
        [
            pa.field("stay_id", pa.int64(), nullable=False),
            pa.field("concept", _TEXT, nullable=False),
            pa.field("charted", _TIME, nullable=False),
            pa.field("available", _TIME, nullable=False),  # never before `charted`
            pa.field("value", pa.float64()),  # canonical unit; missing only where the text decides
            pa.field("unit", _TEXT),  # as the source wrote it
            pa.field("specimen_id", pa.int64()),
            pa.field("text", _TEXT),  # where it decides: untestable verbal response, ventilator mode, oxygen device
        ]
    ),
    "infusions": pa.schema(
        [
            pa.field("stay_id", pa.int64(), nullable=False),
            pa.field("drug", _TEXT, nullable=False),  # `fluid`, a vasopressor of the dictionary, or `dobutamine`
            pa.field("item_id", pa.int64(), nullable=False),
            pa.field("start", _TIME, nullable=False),
            pa.field("end", _TIME, nullable=False),  # after `start`
            pa.field("rate", pa.float64()),  # as charted
            pa.field("rate_unit", _TEXT),
            pa.field("amount", pa.float64()),  # as charted
            pa.field("amount_unit", _TEXT),
            # fluid: tonicity-adjusted mL/h; vasopressin: U/min; other drugs: ug/kg/min. Times (end - start) = the dose.
            # Missing: something ran from start to end, but how much cannot be read.
            pa.field("normalised_rate", pa.float64()),
            pa.field("weight_kg", pa.float64()),  # the weight a dose per minute was divided by
            pa.field("weight_assumed", pa.bool_(), nullable=False),  # True: no weight was charted, 80 kg was used
            pa.field("order_id", pa.int64()),
        ]
    ),
    "outputs": pa.schema(
        [
            pa.field("stay_id", pa.int64(), nullable=False),
            pa.field("charted", _TIME, nullable=False),
            pa.field("available", _TIME, nullable=False),
            pa.field("volume_ml", pa.float64(), nullable=False),  # urine; negative: irrigant put in
        ]
    ),
}


@dataclass(frozen=True)
class Tables:
    """One shard of stays in canonical form. Events may lie before `intime` (laboratory) but belong to one stay each."""

    stays: pd.DataFrame
    observations: pd.DataFrame
    infusions: pd.DataFrame
    outputs: pd.DataFrame


Counts = Counter[tuple[str, str]]
"""(table, reason) -> rows that were dropped, changed or flagged on the way in. Nothing is dropped uncounted."""


def check(tables: Tables, name: str = "tables") -> Tables:
    """Cast to the schema and check what it cannot say; returns the cast tables.

    Raises:
        InputError: one line naming table, column, what is wrong, row count and the allowed range.
    """
    cast = {table: _cast(f"{name}: {table}", getattr(tables, table), schema) for table, schema in SCHEMAS.items()}
    stays, observations, infusions, outputs = (cast[table] for table in SCHEMAS)
    _forbid(f"{name}: stays: stay_id: given twice", stays["stay_id"].duplicated())
    _forbid(f"{name}: stays: outtime: not after intime", stays["outtime"] <= stays["intime"])
    for table, frame in (("observations", observations), ("infusions", infusions), ("outputs", outputs)):
        _forbid(f"{name}: {table}: stay_id: not among the stays", ~frame["stay_id"].isin(stays["stay_id"]))
    for table, frame in (("observations", observations), ("outputs", outputs)):
        _forbid(f"{name}: {table}: available: before charted", frame["available"] < frame["charted"])
    _forbid(
        f"{name}: observations: value: missing where no text decides",
        observations["value"].isna() & observations["text"].isna(),
    )
    _forbid(f"{name}: infusions: end: not after start", infusions["end"] <= infusions["start"])
    _forbid(f"{name}: infusions: normalised_rate: negative", infusions["normalised_rate"] < 0)
    return Tables(stays, observations, infusions, outputs)


def write(tables: Tables, directory: Path) -> None:
    """Write the four tables of a shard as parquet."""
    for name, schema in SCHEMAS.items():
        frame = getattr(tables, name)
        artifact.write_parquet(
            pa.Table.from_pandas(frame, schema=schema, preserve_index=False), directory / f"{name}.parquet"
        )


def read(directory: Path) -> Tables:
    """Read a shard that `write` wrote.

    Raises:
        ArtifactError: a file is missing or damaged.
        InputError: a table does not follow the schema.
    """
    frames = {name: artifact.read_parquet(directory / f"{name}.parquet").to_pandas() for name in SCHEMAS}
    return check(Tables(**frames), name=f"{directory.parent.name}/{directory.name}")


def empty(name: str) -> pd.DataFrame:
    """A canonical table without rows."""
    frame: pd.DataFrame = SCHEMAS[name].empty_table().to_pandas()
    return frame


def frame(name: str, columns: Mapping[str, object]) -> pd.DataFrame:
    """A canonical table from columns; columns not given are null.

    Raises:
        InputError: a column is not the schema's, or cannot be cast to it.
    """
    unknown = sorted(set(columns) - set(SCHEMAS[name].names))
    if unknown:
        raise InputError(f"{name}: column {unknown[0]!r} is not in the schema")
    given = pd.DataFrame(dict(columns))
    for column in SCHEMAS[name].names:
        if column not in given:
            given[column] = None
    return _cast(name, given, SCHEMAS[name])


def _cast(name: str, frame: pd.DataFrame, schema: pa.Schema) -> pd.DataFrame:
    missing = [column for column in schema.names if column not in frame]
    if missing:
        raise InputError(f"{name}: column {missing[0]!r} is missing")
    arrays = []
    for field in schema:
        try:
            array = pa.Array.from_pandas(frame[field.name])
            if pa.types.is_timestamp(array.type) and array.type.tz is not None:
                raise InputError(f"{name}: {field.name}: has a time zone; times are local and without one")
            array = array.cast(field.type) if array.type != field.type else array
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
            raise InputError(f"{name}: {field.name}: type {frame[field.name].dtype}, expected {field.type}") from None
        if array.null_count and not field.nullable:
            raise InputError(f"{name}: {field.name}: missing in {array.null_count} of {len(array)} rows")
        if pa.types.is_floating(field.type):
            _forbid(f"{name}: {field.name}: infinite", pd.Series(array.to_pandas()).abs() == float("inf"))
        arrays.append(array)
    cast: pd.DataFrame = pa.Table.from_arrays(arrays, schema=schema).to_pandas()
    return cast


def _forbid(what: str, wrong: "pd.Series[bool]") -> None:
    count = int(wrong.sum())
    if count:
        raise InputError(f"{what} ({count} of {len(wrong)} rows)")
