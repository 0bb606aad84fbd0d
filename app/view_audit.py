"""ViewAudit: what the auditor's page shows: the report's sections, the lineage hashed again, and how cards were met."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from app import drawing, responses, verification
from app.audit_log import Entry
from app.run_directory import again
from app.study import Problem
from app.view import Table
from cohort.errors import ArtifactError
from ope import evaluation, page, plots, report
from ope.evidence import Evidence, gather
from ope.plots import Series

SECTIONS: dict[str, tuple[str, ...]] = {
    "Verdict and gates": ("verdict", "gates"),
    "Estimates": ("estimates", "differences", "controls"),
    "Calibration certificate": ("trust",),
    "Overlap": ("behaviour", "overlap"),
    "Divergence and dose shift": ("divergence",),
    "Hazards": ("hazards",),
    "Subgroups": ("subgroups",),
    "Sensitivity": ("sensitivity",),
    "Selection and lineage": ("tried", "lineage"),
}
"""The page's sections in order -> the report's sections in each."""
FILES = {
    "report.html": ("HTML", "text/html"),
    "report.pdf": ("PDF", "application/pdf"),
    "report.json": ("JSON", "application/json"),
}
"""What can be downloaded of a report -> what it is called, and its type."""


@dataclass(frozen=True)
class Met:
    """How the cards of the log were met."""

    shown: int
    """Cards with a dose."""
    abstained: int
    answers: Table | None
    reasons: Table | None
    over_time: str | None
    """A picture: the share of answers that follow, day by day; None before the second day with answers."""


def sections(run: Path) -> dict[str, str] | Problem:
    """The report's sections by the run's files as they are now, each hashed first; or what is missing."""
    try:
        evaluation.read(run / "ope")
        rendered = page.render(report.TEMPLATE, {**report.context(Evidence(gather(run))), "data": None})
    except ArtifactError as error:
        remedy = f"suture evaluate CONFIG --out {run} --overwrite"
        return Problem("The evaluation of this run cannot be shown", str(error), remedy)
    found = drawing.parts(rendered)
    return {title: drawing.within("".join(found[anchor] for anchor in anchors)) for title, anchors in SECTIONS.items()}


def lineage(run: Path) -> Table | Problem:
    """Every stage hashed again, now, and every number that the report prints compared with its file."""
    try:
        stages = verification.check(run)
        loose, printed = verification.check_loose(run), verification.check_report(run)
    except ArtifactError as error:
        remedy = f"suture verify {run}\n{again(run)}"
        return Problem("This run is not what was written", str(error), remedy)
    rows = [(one.name, str(one.files), f"{one.megabytes:.1f}", one.digest) for one in stages]
    rows.append(("beside the stages", str(loose), "", ""))
    rows.append(("printed values of the report", str(printed), "", "each as in the file that it names"))
    return Table("Hashed again just now", ("Stage", "Files", "MB", "Digest (SHA-256)"), tuple(rows), long=True)


def downloads(run: Path) -> tuple[dict[str, Path], Problem | None]:
    """The report's files by name, and which are missing and how to make them."""
    folder = run / "report"
    found = {name: folder / name for name in FILES if (folder / name).is_file()}
    missing = [name for name in FILES if name not in found]
    if not missing:
        return found, None
    told = f"{folder} has no {', '.join(missing)}. A PDF needs Pango on this machine; `suture doctor` says whether."
    return found, Problem("Part of the report is missing", told, f"suture report {run} --overwrite")


def met(entries: Sequence[Entry]) -> Met:
    """Override statistics: of several answers by anyone to one drug of one card the last counts."""
    cards = [entry for entry in entries if entry.kind == "card"]
    shown = [entry for entry in cards if entry.body["output"]["recommendation"] is not None]
    last: dict[tuple[Any, Any], Entry] = {
        (entry.card, entry.body["drug"]): entry for entry in entries if entry.kind == "response"
    }
    answers = list(last.values())
    return Met(
        len(shown),
        len(cards) - len(shown),
        _answers(answers, len(shown)),
        _reasons(answers),
        _over_time(answers),
    )


def _answers(answers: Sequence[Entry], shown: int) -> Table | None:
    if not answers:
        return None
    rows = []
    for drug, name in responses.DRUGS.items():
        counts = Counter(entry.body["answer"] for entry in answers if entry.body["drug"] == drug)
        total = counts.total()
        shares = (f"{counts[word]} ({counts[word] / total:.0%})" if total else "0" for word in responses.ANSWERS)
        rows.append((name, str(shown), str(total), *shares))
    head = ("Drug", "Cards with a dose", "Answered", *responses.ANSWERS)
    return Table("How recommendations were met", head, tuple(rows))


def _reasons(answers: Sequence[Entry]) -> Table | None:
    counts = Counter(str(entry.body["reason"]) for entry in answers if entry.body["answer"] == "reject")
    if not counts:
        return None
    rows = tuple((responses.REASONS.get(code, "not known"), str(count)) for code, count in counts.most_common())
    return Table("Why doses were rejected", ("Reason", "Answers"), rows)


def _over_time(answers: Sequence[Entry]) -> str | None:
    frame = pd.DataFrame(
        {
            "day": [pd.Timestamp(entry.time[:10]) for entry in answers],
            "drug": [entry.body["drug"] for entry in answers],
            "followed": [float(entry.body["answer"] == "follow") for entry in answers],
        }
    )
    if frame["day"].nunique() < 2:
        return None
    first = frame["day"].min()
    series = []
    for drug, name in responses.DRUGS.items():
        mine = frame[frame["drug"] == drug].groupby("day")["followed"].mean()
        days = [float((day - first).days) for day in mine.index]
        series.append(Series(name, days, [100 * share for share in mine]))
    told = "; ".join(f"{one.label} last {one.y[-1]:.0f}%" for one in series if one.y)
    alt = f"Share of answers that follow the recommendation, by day: {told}"
    return str(plots.lines(series, alt, (f"days since {first:%Y-%m-%d}", "answers that follow, %"), height=200.0))
