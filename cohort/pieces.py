"""Pieces: finished parts of an unfinished stage, kept on disk so that the next attempt goes on where this one ended.

A piece is a directory that appears whole or not at all, with a note and the hash of each of its files. Whether it is
used again is decided by those hashes alone: one that was damaged meanwhile is made again.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from cohort.artifact import hash_file
from cohort.errors import ArtifactError

NOTE = "piece.json"


class Piece:
    """A piece being written: `path` to write in, and a JSON-serialisable note."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.note: Any = None


@dataclass(frozen=True)
class Pieces:
    """The finished pieces in a folder."""

    folder: Path

    def path(self, name: str) -> Path:
        """Where a finished piece is."""
        return self.folder / name

    def note(self, name: str) -> Any:
        """The note of a finished piece.

        Raises:
            ArtifactError: it is not there.
        """
        return _read(self.path(name))["note"]

    def has(self, name: str) -> bool:
        """Whether a piece is there and every file of it is as it was written; a damaged one is removed."""
        path = self.path(name)
        try:
            intact = bool(_read(path)["files"] == _hashes(path))
        except (ArtifactError, OSError):
            intact = False
        if not intact:
            shutil.rmtree(path, ignore_errors=True)
        return intact

    @contextmanager
    def making(self, name: str) -> Iterator[Piece]:
        """Write a piece; on any error nothing of it stays."""
        draft = self.folder / f".{name}.tmp-{uuid4().hex}"
        draft.mkdir(parents=True)
        try:
            piece = Piece(draft)
            yield piece
            content = {"note": piece.note, "files": _hashes(draft)}
            (draft / NOTE).write_text(json.dumps(content, allow_nan=False), encoding="utf-8")
            try:
                draft.rename(self.path(name))
            except OSError:  # another machine made the same piece meanwhile
                if not self.path(name).is_dir():
                    raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def discard(self, name: str) -> None:
        """Remove a piece that is needed no more."""
        shutil.rmtree(self.path(name), ignore_errors=True)

    def hand_over(self, name: str, target: Path) -> None:
        """Put a piece's files into `target` too, without a copy where the file system can link."""
        for file in _files(self.path(name)):
            there = target / file.relative_to(self.path(name))
            there.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(file, there)
            except OSError:
                shutil.copyfile(file, there)


def arrays(kept: Pieces | None, name: str, make: Callable[[], Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Arrays that take long to make: made once and kept, then found; made anew where nothing is kept."""
    if kept is None:
        return dict(make())
    if not kept.has(name):
        with kept.making(name) as piece:
            for key, array in make().items():
                np.save(piece.path / f"{key}.npy", array)
    return {path.stem: np.load(path) for path in sorted(kept.path(name).glob("*.npy"))}


@contextmanager
def kept_in(work: Path | None, beside: Path) -> Iterator[Pieces]:
    """The pieces of a stage's work folder; without one they are in a scratch folder in `beside`, gone afterwards."""
    folder = work or beside / f".pieces-{os.getpid()}"
    folder.mkdir(parents=True, exist_ok=True)
    for draft in folder.glob(".*.tmp-*"):
        shutil.rmtree(draft, ignore_errors=True)
    try:
        yield Pieces(folder)
    finally:
        if work is None:
            shutil.rmtree(folder, ignore_errors=True)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads((path / NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: not a finished piece ({type(error).__name__})") from error
    if not isinstance(content, dict) or set(content) != {"note", "files"}:
        raise ArtifactError(f"{path / NOTE}: damaged")
    return content


def _files(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file() and file.name != NOTE)


def _hashes(path: Path) -> dict[str, str]:
    return {str(file.relative_to(path)): hash_file(file) for file in _files(path)}
