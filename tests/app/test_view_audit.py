"""What the auditor sees: the report's sections, the lineage, and how cards were met."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from app import drawing, view_audit
from app.audit_log import Actor, Entry
from app.study import Problem
from ope import plots, report
from ope.plots import Series
from ope.words import SECTIONS
from tests import small_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_run.shared(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def sections(run: Path) -> dict[str, str]:
    found = view_audit.sections(run)
    assert isinstance(found, dict), found
    return found


def test_the_verdict_and_what_binds_it_come_first(sections: dict[str, str]) -> None:
    assert list(sections) == list(view_audit.SECTIONS)
    first = next(iter(sections.values()))
    assert first.index("Insufficient evidence") < first.index("Binding constraint") < first.index('id="gates"')


def test_a_withheld_estimate_says_so_and_why(sections: dict[str, str]) -> None:
    assert "withheld" in sections["Estimates"]
    assert "Why withheld" in sections["Estimates"]


def test_no_section_has_a_drawing_or_script_that_the_page_would_drop(sections: dict[str, str]) -> None:
    for section in sections.values():
        assert "<svg" not in section
        assert "<script" not in section
        assert 'href="quality.html"' not in section
    assert "data:image/svg+xml" in sections["Divergence and dose shift"]


def test_every_section_of_a_report_is_found_by_its_anchor(run: Path) -> None:
    assert list(drawing.parts(report.render(report.document(run)))) == list(SECTIONS)


def test_a_picture_keeps_its_spoken_name_and_carries_its_style() -> None:
    drawn = drawing.picture(str(plots.lines([Series("a", [0, 1], [0, 1])], "goes <up>", ("x", "y"))))
    assert drawn.startswith('<img class="drawn wide" alt="goes &lt;up&gt;"')
    assert "prefers-color-scheme" in drawn
    assert drawn.count("<") == 1


def test_only_wide_pictures_are_moved_sideways_instead_of_shrunk() -> None:
    wide = '<svg class="plot" viewBox="0 0 720 300" role="img" aria-label="x"></svg>'
    assert 'class="drawn wide"' in drawing.picture(wide)
    assert 'class="drawn"' in drawing.picture(wide.replace("720", "300"))
    assert '<figure tabindex="0">' in drawing.figure(wide)


def test_what_is_missing_is_named_with_the_command_that_makes_it(run: Path, tmp_path: Path) -> None:
    out = small_run.with_evaluation(run, tmp_path / "old", {"version": 1})
    found = view_audit.sections(out)
    assert isinstance(found, Problem)
    assert "not of version" in found.detail
    assert found.remedy == f"suture evaluate CONFIG --out {out} --overwrite"
    files, missing = view_audit.downloads(out)
    assert files == {}
    assert missing is not None
    assert missing.remedy == f"suture report {out} --overwrite"


def test_the_lineage_is_hashed_again_and_names_what_changed(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(run, out)
    found = view_audit.lineage(out)
    assert not isinstance(found, Problem), found
    assert {"cohort", "behaviour", "policy/iql", "ope"} <= {row[0] for row in found.rows}
    with (out / "policy" / "iql" / "weights.safetensors").open("ab") as weights:
        weights.write(b"x")
    changed = view_audit.lineage(out)
    assert isinstance(changed, Problem)
    assert "weights.safetensors" in changed.detail


def entry(seq: int, kind: Any, body: dict[str, Any], card: str | None = "c1", day: int = 1) -> Entry:
    who = Actor("Dr A", "clinician", "s")
    return Entry(seq, str(seq), f"2026-01-{day:02}T08:00:00.000000Z", kind, who, card, "d", body, "0")


def said(drug: str, answer: str, reason: str | None = None) -> dict[str, Any]:
    return {"drug": drug, "answer": answer, "value": None, "recheck_h": None, "reason": reason, "note": ""}


def test_of_several_answers_the_last_counts_and_reasons_are_counted() -> None:
    shown, silent = {"output": {"recommendation": {"action": 1}}}, {"output": {"recommendation": None}}
    log = [
        entry(1, "card", shown),
        entry(2, "card", shown, "c2"),
        entry(3, "card", silent, "c3"),
        entry(4, "response", said("fluid", "follow")),
        entry(5, "response", said("fluid", "reject", "wrong-time-workflow")),
        entry(6, "response", said("fluid", "follow"), "c2", day=3),
        entry(7, "response", said("vasopressor", "defer"), "c2"),
    ]
    found = view_audit.met(log)
    assert (found.shown, found.abstained) == (2, 1)
    assert found.answers is not None
    assert found.answers.rows[0] == ("IV fluid", "2", "2", "1 (50%)", "0 (0%)", "0 (0%)", "1 (50%)")
    assert found.answers.rows[1][2:] == ("1", "0 (0%)", "0 (0%)", "1 (100%)", "0 (0%)")
    assert found.reasons is not None
    assert found.reasons.rows == (("PC CDS delivered at wrong time in workflow or patient lifecycle", "1"),)
    assert found.over_time is not None
    assert "IV fluid last 100%" in found.over_time


def test_before_any_answer_nothing_is_counted() -> None:
    found = view_audit.met([entry(1, "card", {"output": {"recommendation": None}})])
    assert (found.answers, found.reasons, found.over_time) == (None, None, None)
