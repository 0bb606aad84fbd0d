"""Artifact: a stage's directory, written all at once or not at all, and verified against its manifest when read."""

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cohort.errors import ArtifactError, VersionError

MANIFEST = "manifest.json"
VERSION = 2
SEAL = "sha256"
"""The key under which a sealed JSON file holds the hash of all its other content."""
IDENTITY = ("version", "kind", "config", "inputs", "seed", "rows", "notes", "files")
"""What of a manifest makes its digest; when and on what machine and code it was made is sealed, but not part of it."""
SOURCES = {"cohort": ("cohort", "configs/concepts"), "policy": ("policy",), "ope": ("ope",)}
"""Package -> the folders whose files decide what it makes; what only displays is not among them."""
_SOURCE_ENDINGS = {".py", ".yaml", ".j2", ".css"}
RECORDED_PACKAGES = ("numpy", "pandas", "pyarrow", "scikit-learn", "torch", "d3rlpy", "safetensors")


class Draft:
    """A directory being written: `path` to write in, and what the manifest will say besides the hashes.

    `work`, where there is one, is a folder for finished pieces that outlive this process if it is killed.
    """

    def __init__(self, path: Path, work: Path | None = None) -> None:
        self.path = path
        self.work = work
        self.rows: dict[str, int] = {}
        self.notes: dict[str, Any] = {}


@contextmanager
def writing(
    out: Path,
    kind: str,
    config: Mapping[str, Any],
    inputs: Mapping[str, Path | str] | None = None,
    seed: int | None = None,
    overwrite: bool = False,
    work: Path | None = None,
) -> Iterator[Draft]:
    """Write a stage's directory atomically: a temporary sibling, hashes, fsync, then one rename.

    Args:
        out: the directory to make.
        kind: the stage's name, as `cohort`.
        config: what the stage was configured with, JSON-serialisable.
        inputs: name -> artifact directories it read; their manifests' digests are recorded. A string is a digest
            already, of an input that has no manifest (a hospital's own tables).
        seed: the stage's seed.
        overwrite: replace an existing directory once the new one is complete.
        work: the draft's `work`; the caller makes and removes it.

    Raises:
        ArtifactError: `out` exists (and not `overwrite`), or cannot be written. Nothing is left behind on any error.
    """
    refuse_existing(out, overwrite)
    draft = out.with_name(f".{out.name}.tmp-{os.getpid()}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        remove_stale_drafts(out)
        draft.mkdir()
        handle = Draft(draft, work)
        yield handle
        manifest = {
            "version": VERSION,
            "kind": kind,
            "config": dict(config),
            "inputs": digests(inputs or {}),
            "seed": seed,
            "rows": handle.rows,
            "notes": handle.notes,
            "files": {str(file.relative_to(draft)): hash_file(file) for file in _files(draft)},
            "code": code(),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        write_sealed(draft / MANIFEST, manifest)
        _fsync(draft)
        _publish(draft, out)
    except OSError as error:
        raise ArtifactError(f"{out}: cannot be written: {_reason(error, out.parent)}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def refuse_existing(out: Path, overwrite: bool) -> None:
    """Raise ArtifactError where `out` exists and may not be replaced, or is not a stage's directory."""
    if not out.exists():
        return
    if not overwrite:
        raise ArtifactError(f"{out}: already exists; use --resume to keep it or --overwrite to replace it")
    if not (out / MANIFEST).is_file():
        raise ArtifactError(f"{out}: has no {MANIFEST}, so it is not a stage's directory; not overwritten")


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of an artifact directory, its files not yet checked.

    Raises:
        VersionError: it is of another version.
        ArtifactError: there is none, or it is not JSON.
    """
    file = path / MANIFEST
    if not file.is_file():
        raise ArtifactError(f"{path}: no {MANIFEST}; not a finished stage's directory")
    manifest = read_json(file)
    if not isinstance(manifest, dict) or manifest.get("version") != VERSION:
        found = manifest.get("version") if isinstance(manifest, dict) else None
        raise VersionError(f"{file}: version {found}, this Suture reads version {VERSION}; run it again")
    manifest = read_sealed(file)
    kinds = dict.fromkeys(("files", "inputs", "config", "rows", "notes", "code"), dict) | {"kind": str}
    for key, kind in kinds.items():
        if not isinstance(manifest.get(key), kind):
            raise ArtifactError(f"{file}: {key}: missing or damaged")
    if "seed" not in manifest:
        raise ArtifactError(f"{file}: seed: missing or damaged")
    return manifest


def verify(path: Path) -> dict[str, Any]:
    """Re-hash every file of an artifact against its manifest and return the manifest.

    Raises:
        ArtifactError: naming the first file that differs, is missing, or was added.
    """
    manifest = read_manifest(path)
    listed: dict[str, str] = manifest["files"]
    for name, expected in listed.items():
        _require_intact(path / name, expected)
    extra = sorted({str(file.relative_to(path)) for file in _files(path)} - {*listed, MANIFEST})
    if extra:
        raise ArtifactError(f"{path / extra[0]}: not listed in {MANIFEST}")
    return manifest


def verified(path: Path, name: str) -> Path:
    """The path of one file of an artifact directory, after its hash alone was checked against the manifest.

    Raises:
        ArtifactError: the file is not listed, missing, or differs from what was written.
    """
    listed: dict[str, str] = read_manifest(path)["files"]
    if name not in listed:
        raise ArtifactError(f"{path}: {MANIFEST} lists no file {name!r}")
    _require_intact(path / name, listed[name])
    return path / name


def digest(path: Path) -> str:
    """The artifact's identity: SHA-256 over what IDENTITY names of its manifest; time, code and machine left out."""
    manifest = read_manifest(path)
    identity = {key: manifest[key] for key in IDENTITY}
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def digests(inputs: Mapping[str, Path | str]) -> dict[str, str]:
    """The digest of each input: of a directory, its artifact's; a string stands for itself."""
    return {name: value if isinstance(value, str) else digest(value) for name, value in inputs.items()}


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def write_parquet(table: pa.Table, path: Path) -> None:
    """Write a table with page checksums, reproducibly (same table, same bytes)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression="zstd", write_page_checksum=True)


def read_parquet(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Read a parquet file, page checksums verified.

    Raises:
        ArtifactError: it is missing, truncated, damaged, or lacks a column.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            missing = sorted(set(columns or ()) - set(file.schema_arrow.names))
            if missing:
                raise ArtifactError(f"{path}: column {missing[0]!r} is missing")
            return file.read(columns=columns)
    except FileNotFoundError:
        raise ArtifactError(f"{path}: missing") from None
    except (OSError, pa.ArrowException) as error:
        raise ArtifactError(
            f"{path}: not readable as parquet: truncated or damaged ({type(error).__name__})"
        ) from error


def write_json(path: Path, content: Any) -> None:
    """Write JSON that any reader takes: sorted keys, no NaN (ValueError)."""
    path.write_text(_text(content), encoding="utf-8")


def write_sealed(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object with the hash of its own content, so that any changed byte of the file is found."""
    path.write_text(_text(_sealed(content)), encoding="utf-8")


def read_sealed(path: Path) -> dict[str, Any]:
    """Read a JSON object that `write_sealed` wrote, its seal removed.

    Raises:
        ArtifactError: it is missing, or any byte of it differs from what was written.
    """
    content = read_json(path)
    if not isinstance(content, dict) or SEAL not in content:
        raise ArtifactError(f"{path}: {SEAL}: missing or damaged")
    del content[SEAL]
    if path.read_bytes() != _text(_sealed(content)).encode():
        raise ArtifactError(f"{path}: its hash differs from its own content: changed or damaged after it was written")
    return content


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        ArtifactError: it is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: cannot be read as JSON ({type(error).__name__})") from error


def remove_stale_drafts(out: Path, held: bool = False) -> None:
    """Delete temporary directories of `out` whose writing process is no more.

    A number of a process may be another's by now (in a container it mostly is). Where nobody else can be writing, since
    the caller holds the run's lock (`held`), every such directory goes.
    """
    for draft in out.parent.glob(f".{out.name}.tmp-*"):
        owner = draft.name.rpartition("-")[2]
        if held or (owner.isdigit() and not _alive(int(owner))):
            shutil.rmtree(draft, ignore_errors=True)
    for old in out.parent.glob(f".{out.name}.old-*"):
        if out.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:  # killed between the two renames of a replacement: the earlier artifact comes back
            old.rename(out)


def _text(content: Any) -> str:
    return json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n"


def _sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    return {**content, SEAL: hashlib.sha256(_text(content).encode()).hexdigest()}


def _require_intact(file: Path, expected: str) -> None:
    if not file.is_file():
        raise ArtifactError(f"{file}: listed in {MANIFEST} but missing")
    if hash_file(file) != expected:
        raise ArtifactError(f"{file}: its hash differs from {MANIFEST}: changed or damaged after it was written")


def _publish(draft: Path, out: Path) -> None:
    if not out.exists():
        draft.rename(out)
    else:
        old = out.with_name(f".{out.name}.old-{os.getpid()}")
        out.rename(old)
        draft.rename(out)
        shutil.rmtree(old)
    _fsync_path(out.parent)


def _reason(error: OSError, folder: Path) -> str:
    """What the system said; libraries that lose it on the way (NumPy, Arrow) mostly met a full disk."""
    if error.strerror is None and (told := re.search(r"\[errno (\d+)\]", str(error))):  # Arrow's way
        return os.strerror(int(told[1]))
    if error.strerror is None and folder.is_dir():
        free = shutil.disk_usage(folder).free / 1e6
        return f"{type(error).__name__} (is the disk full? {free:,.0f} MB are free now)"
    return error.strerror or type(error).__name__


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _files(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file())


def _fsync(path: Path) -> None:
    for file in [*_files(path), *(folder for folder in path.rglob("*") if folder.is_dir()), path]:
        _fsync_path(file)


def _fsync_path(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@cache
def code() -> dict[str, Any]:
    """What a manifest says of the code: commit, a hash of each package's sources, versions, and the machine."""
    root = Path(__file__).resolve().parents[1]
    return {
        "sources": {name: _hash_sources(root, folders) for name, folders in SOURCES.items()},
        "commit": _git(root, "rev-parse", "HEAD"),
        "dirty": bool(_git(root, "status", "--porcelain", "--untracked-files=no")),
        "python": sys.version.split()[0],
        "machine": platform.machine(),
        "packages": {name: _version(name) for name in RECORDED_PACKAGES},
    }


def _hash_sources(root: Path, folders: tuple[str, ...]) -> str:
    """One hash of the names and contents of all sources below some folders."""
    files = sorted(path for folder in folders for path in (root / folder).rglob("*") if path.suffix in _SOURCE_ENDINGS)
    lines = [f"{path.relative_to(root).as_posix()} {hash_file(path)}" for path in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None  # installed without its repository: the manifest then says null
    return done.stdout.strip()
