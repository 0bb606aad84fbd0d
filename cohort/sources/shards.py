"""Shards: a raw layout on disk to canonical tables, patients by the thousand, in bounded memory.

Rows are streamed, routed to the shard of their patient and spilt as fixed-width records; then each shard is read back,
brought to canonical form and written, in as many processes as asked for. Each spilt table and each shard is a piece:
where the caller keeps them, an attempt that was killed is gone on with.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int

from cohort import pieces, tables
from cohort.errors import ConfigError, InputError
from cohort.pieces import Pieces
from cohort.sources import SourceConfig, files, review
from cohort.sources.codes import CodeMap
from cohort.sources.files import Text
from cohort.sources.measurements import Accepted, categorical
from cohort.sources.raw import Kind, RawTable
from cohort.tables import Counts, Tables
from cohort.workers import each

Canonical = Callable[..., tuple[Tables, Counts]]
"""`canonical(raw, accepted)`, and the map of codes where the source has one."""
_ROWS, _BOUNDS, _INGESTED = "rows", "bounds.npy", "ingested"
_MOST_SHARDS = 65_535
_DTYPE = {Kind.INTEGER: np.int64, Kind.NUMBER: np.float64, Kind.TIME: np.int64, Kind.TEXT: np.int32}


@dataclass(frozen=True)
class Plan:
    """To which shard each stay and each patient goes; ids ascending."""

    stay: Int[np.ndarray, "s"]
    stay_shard: Int[np.ndarray, "s"]
    patient: Int[np.ndarray, "p"]
    patient_shard: Int[np.ndarray, "p"]
    n_shards: int
    first: Int[np.ndarray, "p"] | None
    """In a dry run the patients that are read."""

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
    kept: Pieces
    accepted: Accepted
    codes: CodeMap | None
    until: np.datetime64 | None


def ingest(
    root: Path,
    out: Path,
    config: SourceConfig,
    module: ModuleType,
    progress: Callable[[int, int], None] | None = None,
    until: np.datetime64 | None = None,
    work: Path | None = None,
) -> Counts:
    """Read a raw layout and write canonical shards; see `cohort.sources.ingest`."""
    accepted: Accepted = ()
    if config.review:
        review.check(config.review, files.read(root, module.TABLES))
        accepted = config.review.accepted()
    with pieces.kept_in(work, out) as kept:
        if not kept.has(_INGESTED):
            _ingest(root, config, module, accepted, kept, progress, until)
        n_shards, counts = kept.note(_INGESTED)
        for shard in range(n_shards):
            kept.hand_over(_shard_name(shard), out / _shard_name(shard))
    return _counted(counts)


def _ingest(
    root: Path,
    config: SourceConfig,
    module: ModuleType,
    accepted: Accepted,
    kept: Pieces,
    progress: Callable[[int, int], None] | None,
    until: np.datetime64 | None,
) -> None:
    """Make every shard that is not among the pieces, and the piece that says that all are."""
    spills, n_shards, counts = spilt(root, kept, config, layout(config, module), progress)
    missing = [shard for shard in range(n_shards) if not kept.has(_shard_name(shard))]
    work = [_Work(module.__name__, spills, shard, n_shards, kept, accepted, config.codes, until) for shard in missing]
    steps = len(spills) + n_shards
    for done, _ in enumerate(each(_make, work, config.workers), start=steps - len(missing) + 1):
        if progress:
            progress(done, steps)
    for shard in range(n_shards):
        counts.update(_counted(kept.note(_shard_name(shard))))
    with kept.making(_INGESTED) as piece:
        piece.note = [n_shards, _listed(counts)]
    for spill in spills:
        kept.discard(spill.table.name)


def layout(config: SourceConfig, module: ModuleType) -> tuple[RawTable, ...]:
    """What is read: the source's own tables, by the configuration's map of codes where it has one."""
    tables: tuple[RawTable, ...] = module.TABLES if config.codes is None else module.layout(config.codes)
    return tables


def further(codes: CodeMap | None) -> tuple[CodeMap, ...]:
    """What a source is asked besides: its map of codes, where the configuration has one."""
    return () if codes is None else (codes,)


def spilt(
    root: Path,
    kept: Pieces,
    config: SourceConfig,
    layout: tuple[RawTable, ...],
    progress: Callable[[int, int], None] | None = None,
) -> tuple[tuple[Spill, ...], int, Counts]:
    """The layout's tables, routed to shards, a piece each; the number of shards; and what was counted on the way."""
    found, counts = files.find(root, layout)
    listed = next(table for table in layout if table.key == "stays")
    plan = _plan(listed, found[listed.name], config, counts)
    block = min(config.memory_mb << 12, 16 << 20)
    spills: list[Spill] = []
    for table in layout:
        if table.name in found:
            if not kept.has(table.name):
                _spill(table, files.batches(table, found[table.name], block, plan.first), plan, kept)
            spills.append(_spilt(table, kept))
            counts.update(_counted(kept.note(table.name)["counts"]))
            if progress:
                progress(len(spills), len(found) + plan.n_shards)
    return tuple(spills), plan.n_shards, counts


def raw_tables(spills: tuple[Spill, ...], shard: int) -> dict[str, pd.DataFrame]:
    """The raw tables of one shard, text columns categorical."""
    return {spill.table.name: _frame(spill, shard) for spill in spills}


def _plan(table: RawTable, paths: list[Path], config: SourceConfig, counts: Counts) -> Plan:
    """Shards of whole patients, in order of each patient's smallest stay id (of their own, where stays have none)."""
    parts = [batch.columns for batch in files.batches(table, paths)]
    patient = np.concatenate([_whole(part["subject_id"]) for part in parts]) if parts else np.zeros(0, dtype=np.int64)
    if not len(patient):
        raise InputError(f"{table.name}: the table has no rows")
    id_column = _id_column(table)
    stay = patient if id_column == "subject_id" else np.concatenate([_whole(part[id_column]) for part in parts])
    if config.limit_stays is not None:
        first = _first(patient, config.limit_stays)
        counts[table.name, "dry run: stays not read"] = int((~first).sum())
        patient, stay = patient[first], stay[first]
    patients, which = np.unique(patient, return_inverse=True)
    smallest = np.full(len(patients), np.iinfo(np.int64).max)
    np.minimum.at(smallest, which, stay)
    order = np.argsort(smallest)
    size = np.bincount(which)[order]
    patient_shard = np.empty(len(patients), dtype=np.int64)
    patient_shard[order] = np.unique((np.cumsum(size) - size) // config.shard_stays, return_inverse=True)[1]
    n_shards = int(patient_shard.max()) + 1
    if n_shards > _MOST_SHARDS:
        raise ConfigError(f"source.shard_stays: {n_shards} shards, at most {_MOST_SHARDS}; give each more stays")
    stays, at = np.unique(stay, return_index=True)
    limited = None if config.limit_stays is None else patients
    return Plan(stays, patient_shard[which[at]], patients, patient_shard, n_shards, limited)


def _first(patient: Int[np.ndarray, "n"], limit: int) -> Bool[np.ndarray, "n"]:
    """The stays of the patients with the smallest ids, of so many that there are `limit` stays."""
    patients, size = np.unique(patient, return_counts=True)
    chosen = patients[np.cumsum(size) - size < limit]
    return np.isin(patient, chosen)


def _spill(table: RawTable, batches: Iterator[files.Batch], plan: Plan, kept: Pieces) -> None:
    """Stream a table, keep what is read of it, and write it as records grouped by shard."""
    kinds = table.columns.items()
    dtype = _record(table)
    words: dict[str, dict[str, int]] = {name: {} for name, kind in kinds if kind is Kind.TEXT}
    bounds, written, rows = [np.zeros(plan.n_shards + 1, dtype=np.int64)], 0, 0
    counts = Counts()
    with kept.making(table.name) as piece, (piece.path / _ROWS).open("wb") as handle:
        for batch in batches:
            rows += batch.rows
            shard = plan.shard(
                "patient" if _id_column(table) == "subject_id" else "stay", _whole(batch.columns[_id_column(table)])
            )
            outside = int((shard < 0).sum())
            if outside and table.ids is not None and plan.first is None:
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
        handle.flush()  # the piece is hashed when this block ends
        np.save(piece.path / _BOUNDS, np.array(bounds))
        piece.note = {"words": {name: list(known) for name, known in words.items()}, "counts": _listed(counts)}


def _spilt(table: RawTable, kept: Pieces) -> Spill:
    """A table that was spilt, by this process or an earlier one."""
    folder, words = kept.path(table.name), kept.note(table.name)["words"]
    vocabularies = {name: tuple(known) for name, known in words.items()}
    return Spill(table, folder / _ROWS, _record(table), np.load(folder / _BOUNDS), vocabularies)


def _record(table: RawTable) -> np.dtype:
    return np.dtype([(name, _DTYPE[kind]) for name, kind in table.columns.items()])


def _shard_name(shard: int) -> str:
    return f"shard-{shard:05d}"


def _listed(counts: Counts) -> list[list[str | int]]:
    """Counts as JSON; `_counted` reads them back."""
    return [[table, reason, count] for (table, reason), count in counts.items()]


def _counted(listed: list[list[Any]]) -> Counts:
    return Counts({(table, reason): count for table, reason, count in listed})


def _recoded(column: Text, words: dict[str, int]) -> Int[np.ndarray, "n"]:
    """The column's codes in the table's vocabulary, which grows."""
    place = [words.setdefault(word, len(words)) for word in column.words]
    code: np.ndarray = np.array([*place, -1], dtype=np.int32)[column.code]
    return code


def _make(work: _Work) -> None:
    """Read one shard back, bring it to canonical form, and keep it, with what was counted."""
    canonical: Canonical = import_module(work.module).canonical
    raw = raw_tables(work.spills, work.shard)
    for spill in work.spills if work.until is not None else ():
        raw[spill.table.name] = _running(raw[spill.table.name], spill.table, work.until)
    try:
        shard, counts = canonical(raw, work.accepted, *further(work.codes))
    except InputError as error:  # its row counts are those of these stays alone
        where = f" (shard {work.shard + 1} of {work.n_shards})" if work.n_shards > 1 else ""
        raise InputError(f"{error}{where}") from None
    with work.kept.making(_shard_name(work.shard)) as piece:
        tables.write(shard, piece.path)
        piece.note = _listed(counts)


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


def _id_column(table: RawTable) -> str:
    """The column of the stay, or of the patient where rows name no stay."""
    named = [] if table.key == "patient" else [name for name in table.columns if name in {"stay_id", "icustay_id"}]
    return named[0] if named else "subject_id"


def _whole(column: np.ndarray | Text) -> Int[np.ndarray, "n"]:
    if isinstance(column, Text):
        raise TypeError("an id column is declared as text")
    return column
