"""RunDirectory: the directory of one run, locked while it is written, with its record `run.json`."""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cohort import artifact
from cohort.errors import ArtifactError

RECORD = "run.json"
LOCK = ".lock"


@dataclass(frozen=True)
class RunDirectory:
    """A run's directory that this process holds the lock of."""

    path: Path

    def record(self) -> dict[str, Any]:
        """What `run.json` says so far."""
        content: dict[str, Any] = artifact.read_json(self.path / RECORD)
        return content

    def update(self, **changes: object) -> None:
        """Set keys of `run.json`, atomically."""
        record = {**self.record(), **changes} if (self.path / RECORD).exists() else changes
        _write(self.path / RECORD, record)

    def note_stage(self, name: str, entry: dict[str, Any]) -> None:
        """Record what a stage cost."""
        self.update(stages={**self.record().get("stages", {}), name: entry})


@contextmanager
def opened(out: Path, new: bool = False) -> Iterator[RunDirectory]:
    """Hold a run's directory, made where it is missing; a new one in which no stage was finished is removed again.

    Args:
        out: the directory.
        new: refuse a directory that already has a run.

    Raises:
        ArtifactError: it has a run (and `new`), has other files but no run, is in use, or cannot be written.
    """
    fresh = not out.exists()
    _refuse(out, new)
    try:
        with _locked(out):
            directory = RunDirectory(out)
            if not (out / RECORD).exists():
                directory.update(created=datetime.now(UTC).isoformat(timespec="seconds"), stages={})
            yield directory
    finally:
        if fresh and out.exists() and {entry.name for entry in out.iterdir()} <= {RECORD, LOCK}:
            shutil.rmtree(out, ignore_errors=True)


def _refuse(out: Path, new: bool) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise ArtifactError(f"{out}: is a file, not a directory")
    present = {entry.name for entry in out.iterdir()} - {LOCK}
    if present and RECORD not in present:
        raise ArtifactError(f"{out}: has files but no {RECORD}, so it is not a run's directory; nothing was written")
    if present and new:
        raise ArtifactError(f"{out}: already exists; use --resume to go on with it or --overwrite to replace it")


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Hold the directory's lock; the system gives it back when this process ends, however it ends."""
    with _or_artifact_error(out):
        out.mkdir(parents=True, exist_ok=True)
        lock = (out / LOCK).open("a+", encoding="utf-8")
    with lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            lock.seek(0)
            owner = lock.read().strip() or "unknown"
            raise ArtifactError(f"{out}: another run is writing here (process {owner})") from None
        with _or_artifact_error(out):
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
        yield


@contextmanager
def _or_artifact_error(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be written: {error.strerror or type(error).__name__}") from error


def _write(path: Path, content: object) -> None:
    draft = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        with _or_artifact_error(path), draft.open("w", encoding="utf-8") as handle:
            handle.write(json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n")
            handle.flush()
            os.fsync(handle.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
