"""Documents: every file of a run's report, written together and checked against the run."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cohort import artifact
from cohort.errors import ArtifactError
from ope import model_card, pdf, provenance, quality_page, report
from ope.evidence import RECORD, canonical

DATA, PAGE, PAPER, QUALITY = "report.json", "report.html", "report.pdf", "quality.html"


def write(run: Path, out: Path, paper: bool | None = None) -> str | None:
    """Write the report of a run into a directory; returns why there is no PDF, where there is none.

    Args:
        run: the run's directory.
        out: where to write; what is left there on an error is no report.
        paper: True demands a PDF, False makes none, None makes one where this machine can.

    Raises:
        ArtifactError: the run has no finished cohort or evaluation, a file differs from its manifest, or a PDF is
            demanded and a library or every font is missing.
    """
    document = report.document(run)
    page = report.render(document)
    (out / DATA).write_bytes(canonical(document))
    (out / PAGE).write_text(page, encoding="utf-8")
    (out / QUALITY).write_text(quality_page.render(run), encoding="utf-8")
    for name, text in model_card.render(document).items():
        (out / name).write_text(text, encoding="utf-8")
    if paper is False:
        return "not asked for"
    try:
        (out / PAPER).write_bytes(pdf.printed(page))
    except ArtifactError as error:
        if paper:
            raise
        return str(error)
    return None


def check(run: Path, folder: Path) -> int:
    """Check a report from its printed values back to the files of the run; returns how many values it prints.

    Raises:
        ArtifactError: the data are not those of the run, or a page prints something else than the data say.
    """
    document = artifact.read_json(folder / DATA)
    if not isinstance(document, dict) or canonical(document) != (folder / DATA).read_bytes():
        raise ArtifactError(f"{folder / DATA}: not in its canonical form: changed after it was written")
    for name, one in document["files"].items():
        if name != RECORD:
            _require_same(run / name, one, folder / DATA)
    contents = {name: one["content"] for name, one in document["files"].items()}
    return _check_page(folder / PAGE, document, contents, _same_code(folder))


def _check_page(file: Path, document: Mapping[str, Any], contents: Mapping[str, Any], same_code: bool) -> int:
    page = file.read_text(encoding="utf-8")
    count = provenance.check(page, str(file), contents)
    if [vars(one) for one in provenance.printed(page)] != document["printed"]:
        raise ArtifactError(f"{file}: prints other values than {DATA} lists")
    if hashlib.sha256(canonical(document)).hexdigest() not in page:
        raise ArtifactError(f"{file}: the digest that it prints is not that of {DATA}")
    made_again = report.render(document) if same_code else page
    if made_again != page:
        raise ArtifactError(f"{file}: differs from what {DATA} makes, at {_first_difference(made_again, page)!r}")
    return count


def _require_same(file: Path, recorded: Mapping[str, Any], report_file: Path) -> None:
    if not file.is_file():
        raise ArtifactError(f"{file}: missing, though {report_file} was made from it")
    content = artifact.read_manifest(file.parent) if file.name == artifact.MANIFEST else artifact.read_json(file)
    if artifact.hash_file(file) != recorded["sha256"] or content != recorded["content"]:
        raise ArtifactError(f"{report_file}: made from another {file.parent.name}/{file.name} than the one beside it")


def _same_code(folder: Path) -> bool:
    """Whether the code that made the report is the one that runs now: then it makes the same page, byte for byte."""
    made_by = artifact.read_manifest(folder)["code"].get("sources", {}).get("ope")
    return bool(made_by == artifact.code()["sources"]["ope"])


def _first_difference(expected: str, found: str) -> str:
    at = next((i for i, (one, other) in enumerate(zip(expected, found, strict=False)) if one != other), len(expected))
    return found[max(at - 20, 0) : at + 20]
