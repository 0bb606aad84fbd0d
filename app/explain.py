"""Explain: for each stage of a run why it was made or reused, and whether what it was made from is still there."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.run_directory import RECORD
from app.stage import code_change
from cohort import artifact
from cohort.errors import ArtifactError

ORDER = (
    "tables", "truth", "cohort", "multiverse", "behaviour", "policy", "sweep", "rollouts", "definitions", "ope",
    "report",
)  # fmt: skip


@dataclass(frozen=True)
class Explanation:
    """One stage."""

    name: str
    lines: tuple[str, ...]
    """Sentences, the most important first."""


def explain(run: Path) -> list[Explanation]:
    """Every stage that the run's record lists, in the order in which they are made.

    Raises:
        ArtifactError: there is no run, or its record is damaged.
    """
    if not (run / RECORD).is_file():
        raise ArtifactError(f"{run}: has no {RECORD}, so it is not a run's directory")
    record = artifact.read_sealed(run / RECORD)
    ordered = sorted(record["stages"].items(), key=lambda item: (_place(item[0]), item[0]))
    return [Explanation(name, tuple(_lines(run, name, entry))) for name, entry in ordered]


def _lines(run: Path, name: str, entry: Mapping[str, Any]) -> list[str]:
    made = f"made because {entry.get('why', 'its reason was not recorded')}"
    kept = "reused: configuration, inputs, seed, code and every file were as recorded; "
    first = kept + made if entry["kept"] else made
    try:
        manifest = artifact.verify(run / name)
    except ArtifactError as error:
        return [first, f"no more as it was: {error}"]
    lines = [first, f"sha256 {artifact.digest(run / name)[:16]}, {len(manifest['files'])} files as they were written"]
    lines += [_input(run, source, digest) for source, digest in manifest["inputs"].items()]
    changed = code_change(manifest)
    return [*lines, f"--resume would make it again: {changed}"] if changed else lines


def _place(name: str) -> int:
    first = name.partition("/")[0]
    return ORDER.index(first) if first in ORDER else len(ORDER)


def _input(run: Path, source: str, recorded: str) -> str:
    if not (run / source).is_dir():
        return f"read {source} {recorded[:16]}, which is not in this directory"
    try:
        now = artifact.digest(run / source)
    except ArtifactError as error:
        return f"read {source} {recorded[:16]}, which is no more as it was: {error}"
    state = "which is there" if now == recorded else f"but {now[:16]} is there: --resume would make it again"
    return f"read {source} {recorded[:16]}, {state}"
