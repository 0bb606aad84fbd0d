"""Stage: one step of a run, which reads directories and writes a new one, or keeps the one that is there."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from app.measure import measuring
from app.run_directory import RunDirectory
from cohort import artifact
from cohort.errors import ArtifactError

console = Console(stderr=True, highlight=False, soft_wrap=True)
"""Progress goes to the error stream, so that the output stream holds results only."""

_NAMED = 5
"""Row counts shown by name; more are added up."""

Advance = Callable[[int, int], None]
"""Called with (done, total)."""


class Existing(Enum):
    """What to do with a stage's directory that is already there."""

    REFUSE = "refuse"
    KEEP = "resume"
    REPLACE = "overwrite"


@dataclass(frozen=True)
class Stage:
    """What a stage is made from and how."""

    name: str
    """Its directory below the run's, as `policy/bc`."""
    kind: str
    config: Mapping[str, Any]
    inputs: Mapping[str, Path | str]
    """Artifact directories that it reads (or digests of what has no manifest)."""
    seed: int
    make: Callable[[artifact.Draft, Advance], None]
    beside: tuple[str, ...] = ()
    """Further directories that it writes, without which it cannot be kept."""


def perform(stage: Stage, run: RunDirectory, existing: Existing) -> bool:
    """Make a stage's directory, or keep it; True where it was made.

    Raises:
        ArtifactError: the directory exists (and REFUSE), an input is missing or damaged, or the disk refuses.
    """
    out = run.path / stage.name
    for path in (run.path / name for name in (stage.name, *stage.beside)):
        if path.parent.is_dir():
            artifact.remove_stale_drafts(path)
    if existing is Existing.KEEP:
        reason = why_not_kept(stage, run.path)
        if reason is None:
            console.print(f"  {stage.name:<14} kept: same configuration, inputs and seed; files verified")
            _note(run, stage, kept=True)
            return False
        if out.exists():
            console.print(f"  {stage.name:<14} made again: {reason}")
    overwrite = existing is not Existing.REFUSE
    artifact.refuse_existing(out, overwrite)
    _verify(stage.inputs)
    writing = artifact.writing(out, stage.kind, stage.config, stage.inputs, stage.seed, overwrite)
    with measuring() as cost, _bar(stage.name) as advance, writing as draft:
        stage.make(draft, advance)
    _note(run, stage, kept=False, **asdict(cost))
    console.print(f"  {stage.name:<14} {cost.seconds:7.1f} s  {cost.peak_memory_mb:6.0f} MB  {_rows(draft.rows)}")
    return True


def why_not_kept(stage: Stage, run: Path) -> str | None:
    """Why the directory that is there is not what this stage would write; None where it is."""
    try:
        manifests = [artifact.verify(run / name) for name in (stage.name, *stage.beside)]
        inputs = artifact.digests(stage.inputs)
    except ArtifactError as error:
        return str(error)
    found = manifests[0]
    if found["kind"] != stage.kind:
        return f"it holds a {found['kind']}"
    if any(manifest["seed"] != stage.seed for manifest in manifests):
        return f"the seed was {found['seed']} and is {stage.seed}"
    for manifest in manifests:
        changed = first_difference(manifest["config"], dict(stage.config))
        if changed:
            return f"its configuration changed: {changed}"
    changed = first_difference(found["inputs"], inputs)
    return f"its input changed: {changed.partition(' ')[0]}" if changed else None


def first_difference(old: Any, new: Any, at: str = "") -> str | None:
    """Where two JSON-like values differ first, as `learners.iql.steps was 10 and is 20`; None where they are equal."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            found = first_difference(old.get(key), new.get(key), f"{at}.{key}" if at else key)
            if found:
                return found
        return None
    return None if old == new else f"{at} was {old!s:.40} and is {new!s:.40}"


def _verify(inputs: Mapping[str, Path | str]) -> None:
    for path in inputs.values():
        if isinstance(path, Path):
            artifact.verify(path)


def _note(run: RunDirectory, stage: Stage, kept: bool, **cost: float) -> None:
    earlier = run.record().get("stages", {}).get(stage.name, {}) if kept else {}
    rows = artifact.read_manifest(run.path / stage.name)["rows"]
    run.note_stage(stage.name, {**earlier, **cost, "rows": rows, "kept": kept})


def _rows(rows: Mapping[str, int]) -> str:
    if len(rows) > _NAMED:
        return f"{sum(rows.values()):,} rows in {len(rows)} tables"
    return ", ".join(f"{count:,} {name}" for name, count in rows.items())


@contextmanager
def _bar(name: str) -> Iterator[Advance]:
    columns = (
        SpinnerColumn(), TextColumn(f"{name:<14}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(name, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
