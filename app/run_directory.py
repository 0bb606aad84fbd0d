"""RunDirectory: the directory of one run, locked while it is written, with its record `run.json`."""

import fcntl
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
POLICY = "policy"
"""The folder of stages that are policies."""
STORE = ("mlflow.db", "mlartifacts")
"""MLflow's copies: no evidence, and MLflow itself may write to them; their hashes stand in the run's record."""


@dataclass(frozen=True)
class RunDirectory:
    """A run's directory that this process holds the lock of."""

    path: Path

    def record(self) -> dict[str, Any]:
        """What `run.json` says so far."""
        return artifact.read_sealed(self.path / RECORD)

    def update(self, **changes: object) -> None:
        """Set keys of `run.json`, atomically; it is sealed, so that a changed byte is found."""
        record = {**self.record(), **changes} if (self.path / RECORD).exists() else dict(changes)
        _write(self.path / RECORD, record)

    def note_stage(self, name: str, entry: dict[str, Any]) -> None:
        """Record what a stage cost, and how often it was made: whoever judges a result asks how many came before it."""
        record = self.record()
        made = record.get("made", {})
        times = max(made.get(name, 0) + (not entry.get("kept", False)), 1)  # one kept was made, noted or not
        self.update(stages={**record.get("stages", {}), name: entry}, made={**made, name: times})

    def seal(self) -> None:
        """Record the hash of every stage's manifest and of MLflow's copies, as they are now."""
        manifests = [folder / artifact.MANIFEST for folder in folders(self.path)]
        self.update(
            manifests={
                name_of(file.parent, self.path): artifact.hash_file(file) for file in manifests if file.is_file()
            },
            files={
                name: artifact.hash_file(self.path / name) for name in loose(self.path) if name.split("/")[0] in STORE
            },
        )


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
            for name in (RECORD, STORE[0]):  # of a process that was killed: this one holds the lock
                for draft in out.glob(f".{name}.tmp-*"):  # SQLite's journal of a draft too
                    draft.unlink()
            if not (out / RECORD).exists():
                directory.update(created=datetime.now(UTC).isoformat(timespec="seconds"), stages={})
            try:
                yield directory
            finally:
                directory.seal()
    finally:
        if fresh and out.exists() and {entry.name for entry in out.iterdir()} <= {RECORD, LOCK}:
            shutil.rmtree(out, ignore_errors=True)


def folders(run: Path) -> list[Path]:
    """Every directory of a run that a stage may have written, finished or not."""
    below = [path for path in run.iterdir() if path.is_dir() and path.name not in {POLICY, *STORE}]
    found = [*below, *(path for path in (run / POLICY).glob("*") if path.is_dir())]
    return sorted(path for path in found if not path.name.startswith("."))


def loose(run: Path) -> list[str]:
    """Every file of a run that lies in no stage's directory, as paths below it, sorted."""
    within = {folder.relative_to(run) for folder in folders(run)}
    files = [path.relative_to(run) for path in run.rglob("*") if path.is_file()]
    return sorted(str(file) for file in files if not within & {*file.parents})


def again(run: Path) -> str:
    """The command that makes what is missing or damaged of a run; tables that lie elsewhere are named in it."""
    try:
        made = artifact.read_sealed(run / RECORD).get("stages", {})
    except ArtifactError:
        made = {}
    elsewhere = " --source TABLES" if "cohort" in made and "tables" not in made else ""
    return f"suture run CONFIG{elsewhere} --out {run} --resume"


def name_of(folder: Path, run: Path) -> str:
    """A stage's name, from its directory."""
    return str(folder.relative_to(run))


def _refuse(out: Path, new: bool) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise ArtifactError(f"{out}: is a file, not a directory")
    present = {entry.name for entry in out.iterdir() if not entry.name.startswith(f".{RECORD}.tmp-")} - {LOCK}
    if present and RECORD not in present:
        raise ArtifactError(f"{out}: has files but no {RECORD}, so it is not a run's directory; nothing was written")
    if present and new:
        raise ArtifactError(f"{out}: already exists; use --resume to go on with it or --overwrite to replace it")


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Hold the directory's lock; the system gives it back when this process ends, however it ends."""
    with or_artifact_error(out):
        out.mkdir(parents=True, exist_ok=True)
        lock = (out / LOCK).open("a+", encoding="utf-8")
    with lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            lock.seek(0)
            owner = lock.read().strip() or "unknown"
            raise ArtifactError(f"{out}: another run is writing here (process {owner})") from None
        with or_artifact_error(out):
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
        try:
            yield
        finally:
            with or_artifact_error(out):
                lock.truncate(0)


@contextmanager
def or_artifact_error(path: Path) -> Iterator[None]:
    """What the system refuses below a path, as one line."""
    try:
        yield
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be written: {error.strerror or type(error).__name__}") from error


def _write(path: Path, content: dict[str, Any]) -> None:
    draft = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        with or_artifact_error(path):
            artifact.write_sealed(draft, content)
            with draft.open("rb") as handle:
                os.fsync(handle.fileno())
            draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
