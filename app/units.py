"""Units: the review of a dataset's unknown units, written for a person to accept or leave, and its short table."""

import os
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from app.summary import wide
from cohort.errors import ArtifactError
from cohort.sources import SourceConfig, doctor
from cohort.sources.doses import RATED
from cohort.sources.review import Finding, Review


def write(root: Path, out: Path, config: SourceConfig, overwrite: bool = False) -> Review:
    """Examine the tables under `root` and write the review file, whole or not at all.

    Raises:
        InputError: a table is missing, wrong or damaged.
        ArtifactError: `out` exists (and not `overwrite`: it may hold what a person accepted), or cannot be written.
    """
    if out.exists() and not overwrite:
        raise ArtifactError(f"{out}: already exists, with what was accepted in it; use --overwrite to replace it")
    draft = out.with_name(f".{out.name}.tmp-{os.getpid()}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        found = doctor.examine(root, config, scratch=out.parent)
        doctor.write(found, draft)
        draft.replace(out)
    except OSError as error:
        raise ArtifactError(f"{out}: cannot be written: {error.strerror or type(error).__name__}") from error
    finally:
        draft.unlink(missing_ok=True)
    return found


def show(found: Review, path: Path, console: Console | None = None) -> None:
    """Print a line an unknown unit, and what to do next."""
    out = console or wide(Console(highlight=False))
    if not found.findings:
        out.print(f"every unit is known; {escape(str(path))} lists none", soft_wrap=True)
        return
    table = Table("concept", "unit", "table", box=None, pad_edge=False)
    table.add_column("rows", justify="right")
    table.add_column("proposal")
    for one in found.findings:
        table.add_row(one.concept, escape(repr(one.unit)), one.table, f"{one.rows:,}", escape(_proposal(one)))
    out.print(table)
    out.print(
        f"None of these rows is used. Set `accept: true` in {escape(str(path))} where a proposal is right, "
        "and name the file in the configuration as `source: {review: FILE}`.",
        soft_wrap=True,
    )


def _proposal(finding: Finding) -> str:
    if finding.proposal is None:
        return "none"
    if finding.concept in RATED:
        return f"read as {finding.proposal.like}"
    shift = f" {finding.proposal.offset:+g}" if finding.proposal.offset else ""
    return f"times {finding.proposal.factor:g}{shift}, as {finding.proposal.like}"
