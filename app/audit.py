"""Audit: what the command line asks of a run's audit log: is it whole, a card again, and what leaves it."""

import os
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa

from app import audit_log, card, responses, settings, study
from app.audit_log import AuditLog, Entry
from app.settings import AppConfig
from app.study import Problem, Study
from cohort import artifact
from cohort.errors import ArtifactError, ConfigError


def verified(run: Path, told_in: Path | None) -> str:
    """What the check of the audit log says, in a line.

    Raises:
        AuditError: naming the first entry that is wrong, a trigger that is gone, or the entries that are missing.
    """
    place = settings.place(run, settings.read(told_in).audit)
    if not audit_log.exists(place):
        return "no audit log: the app has not shown this run yet, or --settings names another place"
    found = audit_log.check(place)
    later = found.entries - found.head
    note = f"; {later} later ones were never acknowledged" if later else ""
    return f"audit log: {found.entries} entries follow each other, the signed head vouches for {found.head}{note}"


def replay(run: Path, number: str, told_in: Path | None) -> bytes:
    """A card's document as it was logged, after it was made again and found the same, byte for byte.

    Raises:
        AuditError: the log cannot be read or has no such card.
        ArtifactError: the run cannot be opened, is another than the card's, or gives another card.
    """
    told = settings.read(told_in)
    found = [entry for entry in _entries(run, told, number) if entry.kind == "card"]
    if not found:
        raise ArtifactError(f"{run}: the audit log has no such card")
    card.replay(_opened(run, told), found[0])
    return audit_log.canonical(dict(found[0].body["output"]))


def export(
    run: Path, cds_hooks: Path | None, preferences: Path | None, told_in: Path | None, overwrite: bool
) -> list[str]:
    """Write what clinicians answered; returns a line for each file.

    Raises:
        ConfigError: no file was asked for, or its name ends otherwise.
        ArtifactError: the log or the run cannot be read, or a file is there already or cannot be written.
    """
    if cds_hooks is None and preferences is None:
        raise ConfigError("name a file with --cds-hooks, --preferences, or both")
    if preferences is not None and preferences.suffix not in {".csv", ".parquet"}:
        raise ConfigError(f"{preferences}: expected a name that ends in .csv or .parquet")
    told = settings.read(told_in)
    entries = _entries(run, told)
    lines = []
    if cds_hooks is not None:
        content = responses.feedback(entries)
        _write(cds_hooks, overwrite, lambda draft: draft.write_bytes(audit_log.canonical(content) + b"\n"))
        lines.append(f"{len(content['feedback'])} responses -> {cds_hooks}")
    if preferences is not None:
        table, left_out = responses.preferences(_opened(run, told), entries)
        _write(preferences, overwrite, lambda draft: _save(table, draft, preferences.suffix))
        told_out = ", ".join(f"{reason}: {count}" for reason, count in left_out.items())
        lines.append(f"{len(table)} preferences -> {preferences} (cards left out: {told_out})")
    return lines


def _entries(run: Path, told: AppConfig, number: str | None = None) -> list[Entry]:
    place = settings.place(run, told.audit)
    if not audit_log.exists(place):
        raise ArtifactError(f"{place.name}: there is no audit log of this run")
    log = AuditLog(place)
    try:
        return log.entries(card=number)
    finally:
        log.close()


def _opened(run: Path, told: AppConfig) -> Study:
    opened = study.open_study(run, told)
    if isinstance(opened, Problem):
        raise ArtifactError(opened.detail)
    return opened


def _save(table: pd.DataFrame, draft: Path, suffix: str) -> None:
    if suffix == ".csv":
        table.to_csv(draft, index=False)
    else:
        artifact.write_parquet(pa.Table.from_pandas(table, preserve_index=False), draft)


def _write(path: Path, overwrite: bool, write: Callable[[Path], object]) -> None:
    if path.exists() and not overwrite:
        raise ArtifactError(f"{path}: already exists; use --overwrite to replace it")
    draft = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(draft)
        draft.replace(path)
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be written: {error.strerror or type(error).__name__}") from error
    finally:
        draft.unlink(missing_ok=True)
