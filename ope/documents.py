"""Documents: every file of a run's report, written together."""

from pathlib import Path

from ope import quality_page, report
from ope.evidence import canonical

DATA, PAGE, QUALITY = "report.json", "report.html", "quality.html"


def write(run: Path, out: Path) -> None:
    """Write the report of a run into a directory: its data, its page, and the page on the quality of the data.

    Raises:
        ArtifactError: the run has no finished cohort or evaluation, or a file differs from its manifest.
    """
    document = report.document(run)
    (out / DATA).write_bytes(canonical(document))
    (out / PAGE).write_text(report.render(document), encoding="utf-8")
    (out / QUALITY).write_text(quality_page.render(run), encoding="utf-8")
