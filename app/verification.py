"""Verification: whether every file of a run is the one that was written, and every stage made from those beside it."""

from dataclasses import dataclass
from pathlib import Path

from app.run_directory import RECORD
from cohort import artifact
from cohort.errors import ArtifactError

TABLES, POLICY = "tables", "policy"
"""A hospital's own tables stay where they are: only a simulated hospital's are beside the stages."""
_NO_STAGES = {POLICY, "mlartifacts"}
_RUN_AGAIN = "suture run CONFIG --out RUN --resume"
_AGAIN = {"multiverse": "suture cohort CONFIG --out RUN --multiverse FILE --resume"}
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
        ArtifactError: there is no run, a file differs from its manifest, or a stage was made from something else.
    """
    if not (run / RECORD).is_file():
        raise ArtifactError(f"{run}: has no {RECORD}, so it is not a run's directory")
    folders = _stages(run)
    if not folders:
        raise ArtifactError(f"{run}: no finished stage")
    manifests = {str(folder.relative_to(run)): artifact.verify(folder) for folder in folders}
    digests = {name: artifact.digest(run / name) for name in manifests}
    for name, manifest in manifests.items():
        for source, recorded in manifest["inputs"].items():
            if source not in digests and source != TABLES:
                raise ArtifactError(f"{run / name}: made from {source}, which is not beside it")
            if source in digests and digests[source] != recorded:
                raise ArtifactError(
                    f"{run / name}: made from another {source} than the one beside it; "
                    f"`{_AGAIN.get(name, _RUN_AGAIN)}` makes it again"
                )
    return [
        Checked(name, manifest["kind"], len(manifest["files"]), _megabytes(run / name), digests[name])
        for name, manifest in manifests.items()
    ]


def _stages(run: Path) -> list[Path]:
    """Every stage's directory: those that the record lists and those that are there.

    Raises:
        ArtifactError: the record is damaged, or lists a stage that is not there.
    """
    record = artifact.read_json(run / RECORD)
    if not isinstance(record, dict) or not isinstance(record.get("stages"), dict):
        raise ArtifactError(f"{run / RECORD}: lists no stages")
    below = [path for path in run.iterdir() if path.is_dir() and path.name not in _NO_STAGES]
    found = [*below, *(path for path in (run / POLICY).glob("*") if path.is_dir())]
    visible = [path for path in found if not path.name.startswith(".")]
    return sorted({*visible, *(run / name for name in record["stages"])})


def _megabytes(path: Path) -> float:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / 1e6
