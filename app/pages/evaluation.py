"""Evaluation: the auditor's page: the verdict and what binds it, all that stands behind it, and how cards were met."""

from pathlib import Path

import streamlit as st

from app import charts, drawing, view_audit
from app.audit_log import AuditError
from app.pages.context import Context, show_problem
from app.study import Problem

PRINT = """<style>
@page { size: A4; margin: 15mm 14mm 17mm;
  @bottom-left { content: "Research prototype, not for clinical use"; font: 7.5pt sans-serif; }
  @bottom-right { content: counter(page) " / " counter(pages); font: 7.5pt sans-serif; } }
@media print {
  .block-container { padding: 0; }
  .st-key-page, .st-key-leave, .st-key-rehash, .st-key-downloads { display: none; }
  .report p, .report li, .report td, .report th { break-inside: avoid; orphans: 3; widows: 3; }
  .report p, .report li { font-size: 10pt; line-height: 1.4; }
  [data-testid="stHeading"] { break-after: avoid; }
}
</style>"""
"""On paper: what can only be clicked is left out, and each sheet says what it is of."""


def show(context: Context) -> None:
    """The whole page, in one piece so that it prints whole."""
    st.html(PRINT)
    st.title("Evaluation")
    run = context.study.path
    found = _sections(run, tuple(context.study.digests.values()))
    if isinstance(found, Problem):
        show_problem(found, level=2)
    else:
        for title, section in found.items():
            with st.container(key=f"section_{title.split()[0].lower()}"):
                st.html(section)
    _lineage(run)
    _met(context)
    with st.container(key="downloads"):
        _downloads(run)


@st.cache_data(show_spinner="Reading the evaluation ...", max_entries=4)
def _sections(run: Path, digests: tuple[str, ...]) -> dict[str, str] | Problem:  # noqa: ARG001
    return view_audit.sections(run)


def _lineage(run: Path) -> None:
    st.header("Lineage, checked now")
    st.text("Every file from the raw tables to the report is hashed again and compared with what was written.")
    if not st.button("Hash everything again", key="rehash"):
        return
    with st.spinner("Hashing ..."):
        found = view_audit.lineage(run)
    if isinstance(found, Problem):
        show_problem(found, level=2)
    else:
        st.success("Every file is as it was written, and every stage was made from the ones beside it.")
        st.html(charts.table(found))


def _met(context: Context) -> None:
    st.header("How cards were met")
    if isinstance(context.log, Problem):
        show_problem(context.log, level=2)
        return
    try:
        found = view_audit.met(context.log.entries())
    except AuditError as error:
        show_problem(Problem("The audit log cannot be read", str(error), "suture verify RUN"), level=2)
        return
    st.text(f"Shown: cards with a dose {found.shown:,}, abstentions {found.abstained:,}.")
    if found.answers is None:
        st.info("Nobody has answered a card yet, so there is nothing to count.")
        return
    st.html(charts.table(found.answers))
    if found.reasons is not None:
        st.html(charts.table(found.reasons))
    if found.over_time is not None:
        st.html(drawing.figure(found.over_time, "Agreement over time: answers that follow, by day."))


def _downloads(run: Path) -> None:
    st.header("Downloads")
    files, problem = view_audit.downloads(run)
    for (name, path), column in zip(files.items(), st.columns(len(view_audit.FILES)), strict=False):
        label, kind = view_audit.FILES[name]
        column.download_button(
            f"Report as {label}", path.read_bytes(), name, kind, key=f"download_{name}", on_click="ignore"
        )
    if problem is not None:
        show_problem(problem, level=2)
