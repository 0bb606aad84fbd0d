"""Promotion: the alias `champion` in the registry, set where the verdict allows it, with who and why on record."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from app import tracking, verification
from app.run_directory import opened
from cohort import artifact
from cohort.errors import ConfigError, SutureError
from ope import evaluation, gates

ALIAS = "champion"


def promote(run: Path, by: str, reason: str) -> dict[str, Any]:
    """Give the policy that a run's verdict is about the alias `champion`; returns the entry in the run's record.

    Raises:
        ConfigError: no name or no reason.
        SutureError: the verdict does not allow it.
        ArtifactError: the run does not verify, or its registry has no such model.
    """
    for option, text in (("--by", by), ("--reason", reason)):
        if not text.strip():
            raise ConfigError(f"{option}: empty; a promotion names who decided and why")
    verification.check_all(run)
    found = evaluation.read(run / "ope")["verdict"]
    if found["verdict"] != gates.ELIGIBLE:
        raise SutureError(
            f"{run}: {found['policy']} is not promoted: the verdict is {found['verdict']!r} "
            f"({found['binding']['reason']}); only {gates.ELIGIBLE!r} allows it"
        )
    with opened(run) as directory:
        record = directory.record()
        entry = {
            "alias": ALIAS,
            "policy": found["policy"],
            "digest": artifact.digest(run / "policy" / found["policy"]),
            "evaluation": artifact.digest(run / "ope"),
            "verdict": found["verdict"],
            "by": by.strip(),
            "reason": reason.strip(),
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        entry["version"] = tracking.alias(run, f"{record['name']}-{found['policy']}", ALIAS, entry)
        directory.update(promotions=[*record.get("promotions", []), entry])
    return entry
