"""Evidence: what a report is made from: the documents of a run, each with the hash that vouches for it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import rfc8785

from cohort import artifact
from cohort.dictionary import Dictionary
from cohort.errors import ArtifactError
from ope import provenance

SCHEMA = "suture-report/1"
EVALUATION, FLOW, QUALITY = "ope/evaluation.json", "cohort/flow.json", "cohort/quality.json"
DICTIONARY, MULTIVERSE, SWEEP, RECORD = (
    "cohort/dictionary.json", "multiverse/multiverse.json", "sweep/selected.json", "run.json",
)  # fmt: skip
READ = (EVALUATION, FLOW, QUALITY, DICTIONARY)
"""What a report cannot do without; each file is checked against its manifest's hash before it is read."""
WHERE_MADE = (MULTIVERSE, SWEEP)
"""What a report tells where the run has it."""


@dataclass(frozen=True)
class Evidence:
    """What a page is made from: the report's document, every number of it knowing its origin."""

    document: Mapping[str, Any]
    files: Mapping[str, Any] = field(init=False)
    """File of the run -> its content, traced."""

    def __post_init__(self) -> None:
        files = {name: provenance.traced(one["content"], name) for name, one in self.document["files"].items()}
        object.__setattr__(self, "files", files)

    @property
    def name(self) -> str:
        """The run's."""
        return str(self.document["name"])

    @property
    def evaluation(self) -> dict[str, Any]:
        """The evaluation's document."""
        found: dict[str, Any] = self.files[EVALUATION]
        return found

    @property
    def flow(self) -> dict[str, Any]:
        """Stays and patients by step of the selection, and by split."""
        found: dict[str, Any] = self.files[FLOW]
        return found

    @property
    def quality(self) -> dict[str, Any]:
        """Coverage, losses, windows, drift."""
        found: dict[str, Any] = self.files[QUALITY]
        return found

    @property
    def dictionary(self) -> Dictionary:
        """Dose bins and imputation values."""
        return Dictionary.from_dict(self.files[DICTIONARY])

    @property
    def manifests(self) -> dict[str, Any]:
        """Stage -> its manifest, as `policy/iql`."""
        end = f"/{artifact.MANIFEST}"
        return {name.removesuffix(end): content for name, content in self.files.items() if name.endswith(end)}

    @property
    def digests(self) -> Mapping[str, str]:
        """Stage -> its digest."""
        found: Mapping[str, str] = self.document["digests"]
        return found

    @property
    def hashes(self) -> dict[str, str]:
        """File -> SHA-256, as `ope/evaluation.json`."""
        return {name: one["sha256"] for name, one in self.document["files"].items()}

    @property
    def main(self) -> str:
        """The policy that the verdict is about."""
        return str(self.evaluation["verdict"]["policy"])

    @property
    def learned(self) -> list[str]:
        """The policies that were trained, the main one first, then in the order of their names."""
        names = [name for name, entry in self.evaluation["policies"].items() if entry["kind"] == "learned"]
        return sorted(names, key=lambda name: (name != self.main, name))

    @property
    def controls(self) -> list[str]:
        """The policies that are known to be bad."""
        return [name for name, entry in self.evaluation["policies"].items() if entry["kind"] == "control"]


def gather(run: Path) -> dict[str, Any]:
    """Everything that a report of a run may say, as plain values, each file's content beside its hash.

    Returns:
        schema; name; files {file: {sha256, content}}; digests {stage: digest}. A number's origin is its file and its
        field in the file (a JSON pointer). `run.json` has no hash, since it goes on being written: of it only how
        often each stage was made.

    Raises:
        ArtifactError: the run has no finished cohort or evaluation, or a file differs from its manifest.
    """
    names = [*READ, *(name for name in WHERE_MADE if (run / name).is_file())]
    files: dict[str, dict[str, Any]] = {}
    for name in names:
        files[name] = {"sha256": checked(run, *name.split("/", 1)), "content": artifact.read_json(run / name)}
    _require_withheld(run / EVALUATION, files[EVALUATION]["content"])
    policies = [f"policy/{name}" for name in files[EVALUATION]["content"]["policies"]]
    stages = ("tables", "cohort", "behaviour", *policies, "rollouts", "definitions", "ope")
    made = [stage for stage in stages if (run / stage / artifact.MANIFEST).is_file()]
    for stage in made:
        name = f"{stage}/{artifact.MANIFEST}"
        files[name] = {"sha256": artifact.hash_file(run / name), "content": artifact.read_manifest(run / stage)}
    record = artifact.read_sealed(run / RECORD) if (run / RECORD).is_file() else {}
    files[RECORD] = {"sha256": None, "content": {"made": record.get("made", {})}}
    digests = {stage: artifact.digest(run / stage) for stage in made}
    found = {"schema": SCHEMA, "name": record.get("name", run.name), "files": files, "digests": digests}
    plain: dict[str, Any] = json.loads(canonical(found))  # as whoever reads it back has it: 200.0 is 200 there
    return plain


def _require_withheld(file: Path, content: Any) -> None:
    """Check that what is withheld is not there: a report holds its evaluation whole, so that anyone could read it."""
    parts = content.values() if isinstance(content, Mapping) else content if isinstance(content, list) else ()
    hidden = isinstance(content, Mapping) and content.get("withheld") is not None
    if hidden and any(content.get(key) is not None for key in ("value", "low", "high")):
        raise ArtifactError(f"{file}: holds a number that it says is withheld; evaluate again")
    for part in parts:
        _require_withheld(file, part)


def canonical(document: Mapping[str, Any]) -> bytes:
    """The document's one canonical form (RFC 8785): the same content has the same bytes."""
    return rfc8785.dumps(dict(document))


def checked(run: Path, stage: str, file: str) -> str:
    """The file's hash, once it is known to be its manifest's.

    Raises:
        ArtifactError: it is missing, or differs from its manifest.
    """
    expected = artifact.read_manifest(run / stage)["files"].get(file)
    path = run / stage / file
    if expected is None or not path.is_file():
        raise ArtifactError(f"{path}: missing; `suture run CONFIG --out {run} --resume` makes it")
    if artifact.hash_file(path) != expected:
        raise ArtifactError(
            f"{path}: its hash differs from {artifact.MANIFEST}: changed or damaged after it was written"
        )
    return str(expected)
