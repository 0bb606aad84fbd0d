"""Verification: whether every file of a run is the one that was written, and every stage made from those beside it."""

from dataclasses import dataclass
from pathlib import Path

from app.run_directory import RECORD
from cohort import artifact
from cohort.errors import ArtifactError

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
    folders = sorted(
        path.parent for path in [*run.glob(f"*/{artifact.MANIFEST}"), *run.glob(f"*/*/{artifact.MANIFEST}")]
    )
    if not folders:
        raise ArtifactError(f"{run}: no finished stage")
    manifests = {str(folder.relative_to(run)): artifact.verify(folder) for folder in folders}
    digests = {name: artifact.digest(run / name) for name in manifests}
    for name, manifest in manifests.items():
        for source, recorded in manifest["inputs"].items():
            if source in digests and digests[source] != recorded:
                raise ArtifactError(
                    f"{run / name}: made from another {source} than the one beside it; "
                    f"`{_AGAIN.get(name, _RUN_AGAIN)}` makes it again"
                )
    return [
        Checked(name, manifest["kind"], len(manifest["files"]), _megabytes(run / name), digests[name])
        for name, manifest in manifests.items()
    ]


def _megabytes(path: Path) -> float:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / 1e6
