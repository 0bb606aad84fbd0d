"""Stage: one step of a run, which reads directories and writes a new one, or keeps the one that is there."""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

from app import log
from app.forecast import Forecast
from app.measure import measuring
from app.run_directory import RunDirectory, or_artifact_error
from cohort import artifact, workers
from cohort.errors import ArtifactError, ConfigError, InputError

IDENTITY_FILE = "identity"
DECIDED_BY = {
    **dict.fromkeys(("tables", "truth", "cohort", "multiverse"), ("cohort",)),
    **dict.fromkeys(("behaviour", "policy", "sweep"), ("cohort", "policy")),
}
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
    """What a stage is made from and how; picklable where it may be made in a process of its own."""

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
    return perform_all([stage], run, existing)[0]


def perform_all(
    stages: Sequence[Stage],
    run: RunDirectory,
    existing: Existing,
    processes: int = 1,
    whole: Forecast | None = None,
) -> list[bool]:
    """Make stages that do not read each other, in processes of their own where asked for; which of them were made.

    `whole`, where there is one, is told what is kept, how far stages are, and what they cost.

    Raises:
        ArtifactError: as `perform`; stages that were finished by then stay.
    """
    reasons = [_why_made(stage, run, existing) for stage in stages]
    planned = [(stage, reason) for stage, reason in zip(stages, reasons, strict=True) if reason is not None]
    for stage, _ in planned:
        artifact.refuse_existing(run.path / stage.name, existing is not Existing.REFUSE)
        _verify(stage.inputs)
    for stage, reason in zip(stages, reasons, strict=True):
        if reason is None and whole is not None:
            whole.kept(stage.name)
    work = partial(_make, root=run.path, existing=existing)
    try:
        with log.progress(whole) as told:
            costs = workers.each(work, [stage for stage, _ in planned], processes, told, here=True)
            for (stage, reason), cost in zip(planned, costs, strict=True):
                _note(run, stage, {**cost, "kept": False, "why": reason})
                _say_made(run, stage, cost)
                if whole is not None:
                    whole.ended(stage.name, cost)
    finally:  # what processes left that were killed with this one's interruption
        for stage, _ in planned:
            _clear_drafts(stage, run.path)
    return [reason is not None for reason in reasons]


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
    for manifest in manifests:
        if manifest["seed"] != stage.seed:
            return f"the seed was {manifest['seed']} and is {stage.seed}"
        changed = first_difference(manifest["config"], dict(stage.config))
        if changed:
            return f"its configuration changed: {changed}"
    changed = first_difference(found["inputs"], inputs)
    return f"its input changed: {changed.partition(' ')[0]}" if changed else code_change(found)


def packages(kind: str) -> tuple[str, ...]:
    """The packages whose sources decide what a stage of this kind makes; all that are recorded where none is listed."""
    return DECIDED_BY.get(kind, tuple(artifact.SOURCES))


def code_change(manifest: Mapping[str, Any]) -> str | None:
    """What of the code that made an artifact is no more as it was: Suture's own sources, or a library's version."""
    recorded, now = manifest["code"], artifact.code()
    for package in packages(manifest["kind"]):
        if recorded.get("sources", {}).get(package) != now["sources"].get(package):
            return f"Suture's code changed: {package}/"
    changed = first_difference(recorded["packages"], now["packages"])
    return f"a library changed: {changed}" if changed else None


def first_difference(old: Any, new: Any, at: str = "") -> str | None:
    """Where two JSON-like values differ first, as `learners.iql.steps was 10 and is 20`; None where they are equal."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            found = first_difference(old.get(key), new.get(key), f"{at}.{key}" if at else key)
            if found:
                return found
        return None
    return None if old == new else f"{at} was {old!s:.40} and is {new!s:.40}"


def _why_made(stage: Stage, run: RunDirectory, existing: Existing) -> str | None:
    """Why a stage has to be made; None where it is kept. Its directory is cleared of what killed runs left."""
    out = run.path / stage.name
    _clear_drafts(stage, run.path)
    if existing is not Existing.KEEP:
        return "asked for with --overwrite" if out.exists() else "it was not there"
    reason = why_not_kept(stage, run.path)
    if reason is None:
        shutil.rmtree(_work_folder(stage, run.path), ignore_errors=True)
        log.say("stage_kept", f"  {stage.name:<14} kept: same configuration, inputs, seed and code; files verified",
                {"stage": stage.name})  # fmt: skip
        _note(run, stage, {"kept": True})
        return None
    if not out.exists():
        return "it was not there"
    log.say("stage_outdated", f"  {stage.name:<14} made again: {reason}", {"stage": stage.name, "why": reason})
    return reason


def _clear_drafts(stage: Stage, root: Path) -> None:
    for path in (root / name for name in (stage.name, *stage.beside)):
        if path.parent.is_dir():
            artifact.remove_stale_drafts(path, held=True)


def _make(stage: Stage, root: Path, existing: Existing) -> dict[str, Any]:
    """Write the stage's directory, from the finished pieces of an attempt that was killed where there are any."""
    work = _work(stage, root, existing)
    overwrite = existing is not Existing.REFUSE
    writing = artifact.writing(
        root / stage.name, stage.kind, stage.config, stage.inputs, stage.seed, overwrite, work=work
    )
    try:
        with measuring() as cost, writing as draft:
            stage.make(draft, lambda done, total: workers.tell((stage.name, done, total)))
    except (ConfigError, InputError):  # going on would only meet it again
        shutil.rmtree(work, ignore_errors=True)
        raise
    finally:
        if {path.name for path in work.glob("*")} <= {IDENTITY_FILE}:
            shutil.rmtree(work, ignore_errors=True)
    shutil.rmtree(work, ignore_errors=True)
    return asdict(cost)


def _work_folder(stage: Stage, root: Path) -> Path:
    out = root / stage.name
    return out.with_name(f".{out.name}.work")


def _work(stage: Stage, root: Path, existing: Existing) -> Path:
    """Where the stage keeps finished pieces until it is whole; those of an attempt at something else are removed."""
    folder = _work_folder(stage, root)
    identity = json.dumps(
        [stage.kind, dict(stage.config), artifact.digests(stage.inputs), stage.seed, artifact.code()["packages"],
         [artifact.code()["sources"][package] for package in packages(stage.kind)]], sort_keys=True,
    )  # fmt: skip
    digest = hashlib.sha256(identity.encode()).hexdigest()
    file = folder / IDENTITY_FILE
    if existing is not Existing.KEEP or not file.is_file() or file.read_text(encoding="ascii") != digest:
        shutil.rmtree(folder, ignore_errors=True)
        with or_artifact_error(folder):
            folder.mkdir(parents=True)
            file.write_text(digest, encoding="ascii")
    else:
        log.say("stage_resumed", f"  {stage.name:<14} goes on from what was finished", {"stage": stage.name})
    return folder


def _verify(inputs: Mapping[str, Path | str]) -> None:
    for path in inputs.values():
        if isinstance(path, Path):
            artifact.verify(path)


def _note(run: RunDirectory, stage: Stage, entry: Mapping[str, Any]) -> None:
    earlier = run.record().get("stages", {}).get(stage.name, {}) if entry["kept"] else {}
    written = [name for name in (stage.name, *stage.beside) if (run.path / name / artifact.MANIFEST).is_file()]
    for name in written:
        manifest = run.path / name / artifact.MANIFEST
        own = {"rows": artifact.read_manifest(manifest.parent)["rows"], "manifest": artifact.hash_file(manifest)}
        run.note_stage(name, {**earlier, **entry, **own})


def _say_made(run: RunDirectory, stage: Stage, cost: Mapping[str, float]) -> None:
    rows = artifact.read_manifest(run.path / stage.name)["rows"]
    text = f"  {stage.name:<14} {cost['seconds']:7.1f} s  {cost['peak_memory_mb']:6.0f} MB  {_rows(rows)}"
    log.say("stage_made", text, {"stage": stage.name, **cost, "rows": rows})


def _rows(rows: Mapping[str, int]) -> str:
    if len(rows) > _NAMED:
        return f"{sum(rows.values()):,} rows in {len(rows)} tables"
    return ", ".join(f"{count:,} {name}" for name, count in rows.items())
