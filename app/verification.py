"""Verification: whether every file of a run is the one that was written, and every stage made from those beside it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.run_directory import LOCK, RECORD, STORE, again, folders, loose, name_of
from cohort import artifact
from cohort.errors import ArtifactError
from ope import documents, evaluation

EVALUATION = "evaluation"
"""The kind of directory whose thresholds are checked too."""
TABLES, REPORT = "tables", "report"
"""A hospital's own tables stay where they are: only a simulated hospital's are beside the stages."""
SIGNATURE = "signature.json"
FOREIGN = "other run: "
"""An input so named lies in another run: a comparison's."""
_AGAIN = {
    "multiverse": "suture cohort CONFIG --out RUN --multiverse FILE --resume",
    "definitions": "suture evaluate CONFIG --out RUN --multiverse FILE --resume",
    "comparison": "suture report RUN --against OTHER --overwrite",
}
"""Which command makes a directory again that no run makes."""


@dataclass(frozen=True)
class Checked:
    """One directory that passed."""

    name: str
    kind: str
    files: int
    megabytes: float
    digest: str


def check(run: Path) -> list[Checked]:
    """Hash every stage of a run again and compare each stage's recorded inputs with the stages beside it.

    Raises:
        ArtifactError: there is no run, a file differs from its manifest, a manifest from its own hash or from the one
            in the run's record, a stage was made from something else, or an evaluation is not of the thresholds that
            were written before it.
    """
    record = read_record(run)
    folders = _stages(run, record)
    if not folders:
        raise ArtifactError(f"{run}: no finished stage")
    manifests = {name_of(folder, run): artifact.verify(folder) for folder in folders}
    digests = {name: artifact.digest(run / name) for name in manifests}
    for name, manifest in manifests.items():
        _require_inputs(run, name, manifest["inputs"], digests)
        if manifest["kind"] == EVALUATION:
            evaluation.read(run / name)
    for name, recorded in record.get("manifests", {}).items():
        if artifact.hash_file(run / name / artifact.MANIFEST) != recorded:
            raise ArtifactError(f"{run / name / artifact.MANIFEST}: not the one that {RECORD} lists: written since")
    return [
        Checked(name, manifest["kind"], len(manifest["files"]), _megabytes(run / name), digests[name])
        for name, manifest in manifests.items()
    ]


def check_all(run: Path) -> int:
    """Everything: stages, files beside them, and the report's numbers; returns how many values the report prints.

    Raises:
        ArtifactError: naming the first file, or the first printed value, that differs.
    """
    check(run)
    check_loose(run)
    return check_report(run)


def check_report(run: Path) -> int:
    """Compare every value that the run's report prints with the file that it names; returns how many there are.

    Raises:
        ArtifactError: one differs; 0 where the run has no report.
    """
    return documents.check(run, run / REPORT) if (run / REPORT).is_dir() else 0


def check_loose(run: Path) -> int:
    """Check every file that lies in no stage's directory against the run's record; returns how many there are.

    Raises:
        ArtifactError: one differs, is missing, or is no part of the run.
    """
    listed: Mapping[str, str] = read_record(run).get("files", {})
    found = set(loose(run)) - {RECORD, LOCK, SIGNATURE}
    for name, expected in listed.items():
        if name not in found:
            raise ArtifactError(f"{run / name}: listed in {RECORD} but missing")
        if artifact.hash_file(run / name) != expected:
            raise ArtifactError(f"{run / name}: its hash differs from {RECORD}: {_why_changed(name)}")
    for name in sorted(found - {*listed}):
        raise ArtifactError(f"{run / name}: no part of the run: {RECORD} does not list it")
    if (run / LOCK).is_file() and (run / LOCK).read_bytes():
        raise ArtifactError(f"{run / LOCK}: not empty: a process is writing here, was stopped here, or it was changed")
    if (run / SIGNATURE).is_file():
        artifact.read_sealed(run / SIGNATURE)
    return len(found) + 1


def read_record(run: Path) -> dict[str, Any]:
    """The run's record.

    Raises:
        ArtifactError: there is no run, or its record is damaged.
    """
    if not (run / RECORD).is_file():
        raise ArtifactError(f"{run}: has no {RECORD}, so it is not a run's directory")
    record = artifact.read_sealed(run / RECORD)
    if not isinstance(record.get("stages"), dict):
        raise ArtifactError(f"{run / RECORD}: lists no stages")
    return record


def _stages(run: Path, record: Mapping[str, Any]) -> list[Path]:
    """Every stage's directory: those that the record lists and those that are there."""
    return sorted({*folders(run), *(run / name for name in record["stages"])})


def _require_inputs(run: Path, name: str, inputs: Mapping[str, str], digests: Mapping[str, str]) -> None:
    for source, recorded in inputs.items():
        if source not in digests and source != TABLES and not source.startswith(FOREIGN):
            raise ArtifactError(f"{run / name}: made from {source}, which is not beside it")
        if source in digests and digests[source] != recorded:
            command = _AGAIN.get(name, again(run))
            raise ArtifactError(
                f"{run / name}: made from another {source} than the one beside it; `{command}` makes it again"
            )


def _why_changed(name: str) -> str:
    if name.split("/")[0] in STORE:
        return "changed since; MLflow may have, and it is a copy: delete it and `suture run --resume` makes it again"
    return "changed or damaged after it was written"


def _megabytes(path: Path) -> float:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / 1e6
