"""Transfer: tables or a run copied from or to any file system that Arrow knows, every file compared on arrival."""

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
from pyarrow import fs

from app.run_directory import RECORD
from cohort.artifact import MANIFEST, remove_stale_drafts
from cohort.errors import ArtifactError, ConfigError, InputError

_BLOCK = 4 << 20
_URI = re.compile(r"^([a-z][a-z0-9+.-]*):/+(.*)$")


@dataclass(frozen=True)
class Place:
    """A folder on some file system."""

    system: fs.FileSystem
    path: str
    said: str
    """What messages call it: its scheme and path, and nothing of a key that its URI may hold."""


def local(path: Path) -> Path:
    """A path that may be given as `file:///PATH`.

    Raises:
        ConfigError: it is on another file system.
    """
    found = _URI.match(str(path))
    if found is None:
        return path
    if found[1] != "file":
        raise ConfigError(
            f"{found[1]}: not mounted here; `suture copy URI DIR` brings tables, and takes a run away again"
        )
    return Path("/") / unquote(found[2])


def place(uri: str) -> Place:
    """A folder named by its path or by a URI, as `s3://BUCKET/FOLDER`.

    Raises:
        ConfigError: Arrow knows no such file system.
    """
    found = _URI.match(uri)
    if found is None or found[1] == "file":
        path = Path(uri).absolute() if found is None else local(Path(uri))
        return Place(fs.LocalFileSystem(), str(path), str(path))
    try:
        system, path = fs.FileSystem.from_uri(uri)
    except (pa.ArrowException, OSError):
        raise ConfigError(f"{found[1]}: no file system that Arrow knows, or its address is not one") from None
    return Place(system, path, f"{found[1]}://{path}")


def copy(origin: Place, target: Place, progress: Callable[[int, int], None] | None = None) -> tuple[int, int]:
    """Copy every file of a folder; returns their number and bytes.

    A folder here appears whole or not at all. Elsewhere manifests come after what they list, and a run's record last:
    what was broken off is not taken for a run.

    Raises:
        InputError: there is nothing, or it cannot be read.
        ArtifactError: the target is there already, cannot be written, or holds something else after it was written.
    """
    names = _files(origin)
    with _refused(target, ArtifactError):
        if _listed(target):
            raise ArtifactError(f"{target.said}: already exists; nothing was written")
    written: dict[str, str] = {}
    total = 0
    with _whole(target) as folder:
        for name in names:
            with _refused(target, ArtifactError):
                folder.system.create_dir(_below(folder, name).rpartition("/")[0], recursive=True)
            written[name], size = _copied(origin, folder, name)
            total += size
            if progress is not None:
                progress(len(written), len(names))
        for name, digest in written.items():
            if _digest(folder, name) != digest:
                raise ArtifactError(f"{target.said}/{name}: holds something else than was written")
    return len(names), total


def _files(origin: Place) -> list[str]:
    """Paths below a folder, in the order in which they are copied."""
    with _refused(origin, InputError):
        names = _listed(origin)
    if not names:
        raise InputError(f"{origin.said}: no files there")
    late = {MANIFEST: 1, RECORD: 2}
    return sorted(names, key=lambda name: (late.get(name.rpartition("/")[2], 0), name))


def _listed(at: Place) -> list[str]:
    found = at.system.get_file_info(fs.FileSelector(at.path, allow_not_found=True, recursive=True))
    return [one.path[len(at.path) :].lstrip("/") for one in found if one.type == fs.FileType.File]


def _copied(origin: Place, target: Place, name: str) -> tuple[str, int]:
    content, size = hashlib.sha256(), 0
    with _refused(target, ArtifactError), target.system.open_output_stream(_below(target, name)) as sink:
        for block in _blocks(origin, name):
            content.update(block)
            size += len(block)
            sink.write(block)
    return content.hexdigest(), size


def _digest(at: Place, name: str) -> str:
    content = hashlib.sha256()
    for block in _blocks(at, name):
        content.update(block)
    return content.hexdigest()


def _blocks(at: Place, name: str) -> Iterator[bytes]:
    with _refused(at, InputError), at.system.open_input_stream(_below(at, name)) as source:
        while block := source.read(_BLOCK):
            yield block


def _below(at: Place, name: str) -> str:
    return f"{at.path}/{name}"


@contextmanager
def _whole(target: Place) -> Iterator[Place]:
    """Where to write: beside a folder here, which takes its name once all is there."""
    if not isinstance(target.system, fs.LocalFileSystem):
        yield target
        return
    out = Path(target.path)
    draft = out.with_name(f".{out.name}.tmp-{os.getpid()}")
    remove_stale_drafts(out)
    try:
        yield Place(target.system, str(draft), target.said)
        with _refused(target, ArtifactError):
            draft.rename(out)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def _refused(at: Place, error: type[InputError] | type[ArtifactError]) -> Iterator[None]:
    """What a file system refuses, as one line without its own words: they may hold a key."""
    try:
        yield
    except (OSError, pa.ArrowException) as cause:
        number = cause.errno if isinstance(cause, OSError) else None
        reason = os.strerror(number) if number else type(cause).__name__
        raise error(f"{at.said}: {'not readable' if error is InputError else 'cannot be written'} ({reason})") from None
