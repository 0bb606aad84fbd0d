"""Writer: the files of a simulated hospital, one a table, appended to shard by shard."""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from cohort.hospital.items import ITEMS
from cohort.hospital.schema import SCHEMAS, TEXT, TIME, WHOLE, coded, table

_REPEATED_NUMBERS = {
    "subject_id", "hadm_id", "stay_id", "caregiver_id", "itemid", "warning", "valuenum", "specimen_id", "isopenbag",
    "ref_range_lower", "ref_range_upper", "continueinnextdept", "patientweight",
}  # fmt: skip


class Writer:
    """Writes shards one after another into `hosp/` and `icu/` below a directory: one file a table, closed on exit."""

    def __init__(self, directory: Path, file_format: Literal["parquet", "csv.gz"]) -> None:
        self._directory = directory
        self._format = file_format
        self._open: dict[str, pq.ParquetWriter | pacsv.CSVWriter] = {}
        self._stack = ExitStack()

    def __enter__(self) -> "Writer":
        for folder in ("hosp", "icu"):
            (self._directory / folder).mkdir(parents=True, exist_ok=True)
        for name in SCHEMAS:
            self._open[name] = self._stack.enter_context(self._file(name))
        return self

    def __exit__(self, *error: object) -> None:
        try:
            if error[0] is None:
                self._append("icu/d_items", _d_items())
                self._append("hosp/d_labitems", _d_labitems())
        finally:
            self._stack.close()

    def write(self, shard: Mapping[str, pa.Table]) -> None:
        """Append a shard's tables; d_items and d_labitems are written once, at the end."""
        for name, rows in shard.items():
            self._append(name, rows)

    def _file(self, name: str) -> pq.ParquetWriter | pacsv.CSVWriter:
        path = self._directory / f"{name}.{self._format}"
        if self._format == "parquet":
            return pq.ParquetWriter(
                path, coded(name), store_schema=False, compression="zstd", compression_level=1,
                write_page_checksum=True, use_dictionary=_repeated(name), column_encoding=_encodings(name),
            )  # fmt: skip
        sink = self._stack.enter_context(pa.CompressedOutputStream(str(path), "gzip"))
        return pacsv.CSVWriter(sink, _csv_schema(name), write_options=pacsv.WriteOptions(quoting_style="needed"))

    def _append(self, name: str, rows: pa.Table) -> None:
        if self._format == "csv.gz":
            rows = rows.cast(_csv_schema(name))
        self._open[name].write_table(rows)


def _d_items() -> pa.Table:
    chosen = [item for item in ITEMS if item.table != "labevents"]
    kinds = {
        "chartevents": "Numeric",
        "outputevents": "Numeric",
        "inputevents": "Solution",
        "procedureevents": "Process",
    }
    return table(
        "icu/d_items",
        {
            "itemid": pa.array([item.itemid for item in chosen], WHOLE),
            "label": pa.array([item.label for item in chosen], TEXT),
            "abbreviation": pa.array([item.label for item in chosen], TEXT),
            "linksto": pa.array([item.table for item in chosen], TEXT),
            "category": pa.array([item.category for item in chosen], TEXT),
            "unitname": pa.array([item.unit for item in chosen], TEXT),
            "param_type": pa.array(["Text" if item.text else kinds[item.table] for item in chosen], TEXT),
        },
    )


def _d_labitems() -> pa.Table:
    chosen = [item for item in ITEMS if item.table == "labevents"]
    return table(
        "hosp/d_labitems",
        {
            "itemid": pa.array([item.itemid for item in chosen], WHOLE),
            "label": pa.array([item.label for item in chosen], TEXT),
            "fluid": pa.array(["Blood"] * len(chosen), TEXT),
            "category": pa.array([item.category for item in chosen], TEXT),
        },
    )


def _repeated(name: str) -> list[str]:
    """Columns with few distinct values, worth a dictionary."""
    return [field.name for field in SCHEMAS[name] if field.type == TEXT or field.name in _REPEATED_NUMBERS]


def _encodings(name: str) -> dict[str, str]:
    """Times and row numbers go up in small steps: deltas."""
    repeated = _repeated(name)
    return {
        field.name: "DELTA_BINARY_PACKED"
        for field in SCHEMAS[name]
        if field.name not in repeated and field.type in (TIME, WHOLE)
    }


def _csv_schema(name: str) -> pa.Schema:
    """As MIMIC-IV's files: times to the second, no dictionaries."""
    return pa.schema([pa.field(f.name, pa.timestamp("s") if f.type == TIME else f.type) for f in SCHEMAS[name]])
