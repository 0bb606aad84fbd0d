"""Shards: a raw layout on disk to canonical tables, patients by the thousand, in bounded memory.

Rows are streamed, routed to the shard of their patient and spilt as fixed-width records; then each shard is read back,
brought to canonical form and written, in as many processes as asked for.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
from jaxtyping import Int

from cohort import tables
from cohort.errors import InputError
from cohort.sources import SourceConfig, files, review
from cohort.sources.files import Text
from cohort.sources.measurements import Accepted, categorical
from cohort.sources.raw import Kind, RawTable
from cohort.tables import Counts, Tables
from cohort.workers import each

Canonical = Callable[[Mapping[str, pd.DataFrame], Accepted], tuple[Tables, Counts]]
_DTYPE = {Kind.INTEGER: np.int64, Kind.NUMBER: np.float64, Kind.TIME: np.int64, Kind.TEXT: np.int32}


@dataclass(frozen=True)
class Plan:
    """To which shard each stay and each patient goes; ids ascending."""

    stay: Int[np.ndarray, "s"]
    stay_shard: Int[np.ndarray, "s"]
    patient: Int[np.ndarray, "p"]
    patient_shard: Int[np.ndarray, "p"]
    n_shards: int

    def shard(self, key: str, ids: Int[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
        """The shard of each stay or patient id, -1 where it has none."""
        known, shard = (self.patient, self.patient_shard) if key == "patient" else (self.stay, self.stay_shard)
        change = np.flatnonzero(np.r_[True, ids[1:] != ids[:-1]]) if len(ids) else np.zeros(0, dtype=np.int64)
        heads = ids[change]
        place = np.minimum(np.searchsorted(known, heads), len(known) - 1)
        found = np.where(known[place] == heads, shard[place], -1)
        return np.repeat(found, np.diff(np.r_[change, len(ids)]))


@dataclass(frozen=True)
class Spill:
    """One table's rows on disk, grouped by shard in each of its chunks."""

    table: RawTable
    path: Path
    dtype: np.dtype
    bounds: Int[np.ndarray, "chunks shards1"]
    """Row of the file at which each shard of each chunk begins."""
    vocabularies: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class _Work:
    """What a process needs to make one shard."""

    module: str
    spills: tuple[Spill, ...]
    shard: int
    n_shards: int
    directory: Path
    accepted: Accepted
    until: np.datetime64 | None


def ingest(
    root: Path,
    out: Path,
    config: SourceConfig,
    module: ModuleType,
    progress: Callable[[int, int], None] | None = None,
    until: np.datetime64 | None = None,
) -> Counts:
    """Read a raw layout and write canonical shards; see `cohort.sources.ingest`."""
    accepted: Accepted = ()
    if config.review:
        review.check(config.review, files.read(root, module.TABLES))
        accepted = config.review.accepted()
    with spilt(root, out, config, module.TABLES, progress) as (spills, n_shards, counts):
        folders = [out / f"shard-{shard:05d}" for shard in range(n_shards)]
        work = [
            _Work(module.__name__, spills, shard, n_shards, path, accepted, until) for shard, path in enumerate(folders)
        ]
        for done, lost in enumerate(each(_make, work, config.workers)):
            counts.update(lost)
            if progress:
                progress(len(spills) + done + 1, len(spills) + n_shards)
    return counts


@contextmanager
def spilt(
    root: Path,
    out: Path,
    config: SourceConfig,
    layout: tuple[RawTable, ...],
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[tuple[tuple[Spill, ...], int, Counts]]:
    """The layout's tables, routed to shards and spilt in a folder in `out` that is gone afterwards."""
    found, counts = files.find(root, layout)
    listed = next(table for table in layout if table.key == "stays")
    plan = _plan(listed, found[listed.name], config.shard_stays)
    block = min(config.memory_mb << 12, 16 << 20)
    with _scratch(out) as folder:
        spills = []
        for table in layout:
            if table.name in found:
                spills.append(_spill(table, files.batches(table, found[table.name], block), plan, folder, counts))
                if progress:
                    progress(len(spills), len(found) + plan.n_shards)
        yield tuple(spills), plan.n_shards, counts


def raw_tables(spills: tuple[Spill, ...], shard: int) -> dict[str, pd.DataFrame]:
    """The raw tables of one shard, text columns categorical."""
    return {spill.table.name: _frame(spill, shard) for spill in spills}


def _plan(table: RawTable, paths: list[Path], shard_stays: int) -> Plan:
    """Shards of whole patients, in order of each patient's smallest stay id (of their own, where stays have none)."""
    parts = [batch.columns for batch in files.batches(table, paths)]
    patient = np.concatenate([_whole(part["subject_id"]) for part in parts]) if parts else np.zeros(0, dtype=np.int64)
    if not len(patient):
        raise InputError(f"{table.name}: the table has no rows")
    id_column = _id_column(table)
    stay = patient if id_column == "subject_id" else np.concatenate([_whole(part[id_column]) for part in parts])
    patients, which = np.unique(patient, return_inverse=True)
    smallest = np.full(len(patients), np.iinfo(np.int64).max)
    np.minimum.at(smallest, which, stay)
    order = np.argsort(smallest)
    size = np.bincount(which)[order]
    patient_shard = np.empty(len(patients), dtype=np.int64)
    patient_shard[order] = np.unique((np.cumsum(size) - size) // shard_stays, return_inverse=True)[1]
    stays, first = np.unique(stay, return_index=True)
    return Plan(stays, patient_shard[which[first]], patients, patient_shard, int(patient_shard.max()) + 1)


def _spill(table: RawTable, batches: Iterator[files.Batch], plan: Plan, folder: Path, counts: Counts) -> Spill:
    """Stream a table, keep what is read of it, and write it as records grouped by shard."""
    kinds = table.columns.items()
    dtype = np.dtype([(name, _DTYPE[kind]) for name, kind in kinds])
    words: dict[str, dict[str, int]] = {name: {} for name, kind in kinds if kind is Kind.TEXT}
    path = folder / table.name
    bounds, written, rows = [np.zeros(plan.n_shards + 1, dtype=np.int64)], 0, 0
    with path.open("wb") as handle:
        for batch in batches:
            rows += batch.rows
            shard = plan.shard(
                "patient" if _id_column(table) == "subject_id" else "stay", _whole(batch.columns[_id_column(table)])
            )
            outside = int((shard < 0).sum())
            if outside and table.ids is not None:
                counts[table.name, "outside every stay"] += outside
            order = np.flatnonzero(shard >= 0)
            order = order[np.argsort(shard[order].astype(np.uint16), kind="stable")]
            records = np.empty(len(order), dtype=dtype)
            for name, column in batch.columns.items():
                records[name] = (_recoded(column, words[name]) if isinstance(column, Text) else column)[order]
            records.tofile(handle)
            bounds.append(written + np.searchsorted(shard[order], np.arange(plan.n_shards + 1)))
            written += len(order)
    if not rows:
        if table.required:
            raise InputError(f"{table.name}: the table has no rows")
        counts[table.name, "table empty"] = 1
    return Spill(table, path, dtype, np.array(bounds), {name: tuple(known) for name, known in words.items()})


def _recoded(column: Text, words: dict[str, int]) -> Int[np.ndarray, "n"]:
    """The column's codes in the table's vocabulary, which grows."""
    place = [words.setdefault(word, len(words)) for word in column.words]
    code: np.ndarray = np.array([*place, -1], dtype=np.int32)[column.code]
    return code


def _make(work: _Work) -> Counts:
    """Read one shard back, bring it to canonical form, and write it."""
    canonical: Canonical = import_module(work.module).canonical
    raw = raw_tables(work.spills, work.shard)
    for spill in work.spills if work.until is not None else ():
        raw[spill.table.name] = _running(raw[spill.table.name], spill.table, work.until)
    try:
        shard, counts = canonical(raw, work.accepted)
    except InputError as error:  # its row counts are those of these stays alone
        raise InputError(f"{error} [shard {work.shard + 1} of {work.n_shards}]") from None
    tables.write(shard, work.directory)
    return counts


def _running(rows: pd.DataFrame, table: RawTable, until: np.datetime64 | None) -> pd.DataFrame:
    """The rows, those that have begun and have no end yet ending at `until`."""
    if table.open_end is None:
        return rows
    start = next(name for name in ("intime", "starttime") if name in rows)
    going = rows[table.open_end].isna() & (rows[start] < until)
    return rows.assign(**{table.open_end: rows[table.open_end].where(~going, until)})


def _frame(spill: Spill, shard: int) -> pd.DataFrame:
    """One shard's rows of a table."""
    parts = []
    for start, end in spill.bounds[:, shard : shard + 2]:
        if end > start:
            offset = int(start) * spill.dtype.itemsize
            parts.append(np.fromfile(spill.path, dtype=spill.dtype, count=int(end - start), offset=offset))
    rows = np.concatenate(parts) if parts else np.empty(0, dtype=spill.dtype)
    columns: dict[str, object] = {}
    for name, kind in spill.table.columns.items():
        values = np.ascontiguousarray(rows[name])
        if kind is Kind.TEXT:
            columns[name] = categorical(values, spill.vocabularies[name])
        else:
            columns[name] = values.view("datetime64[us]") if kind is Kind.TIME else values
    return pd.DataFrame(columns)


@contextmanager
def _scratch(out: Path) -> Iterator[Path]:
    """A folder beside the shards that is gone afterwards."""
    out.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".spill-", dir=out))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _id_column(table: RawTable) -> str:
    """The column of the stay, or of the patient where rows name no stay."""
    named = [] if table.key == "patient" else [name for name in table.columns if name in {"stay_id", "icustay_id"}]
    return named[0] if named else "subject_id"


def _whole(column: np.ndarray | Text) -> Int[np.ndarray, "n"]:
    if isinstance(column, Text):
        raise TypeError("an id column is declared as text")
    return column
