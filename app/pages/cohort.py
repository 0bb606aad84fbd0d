"""Cohort: the data scientist's view of the data: who was selected, Table 1, quality, distributions by split."""

from pathlib import Path

import streamlit as st

from app import charts, drawing, view_cohort
from app.pages.context import Context, show_problem
from app.study import Problem
from app.view import Table
from cohort.features import FEATURES


def show(context: Context) -> None:
    """The whole page."""
    st.title("Cohort")
    run, digest = context.study.path, context.study.digests["cohort"]
    found = _sections(run, digest)
    if isinstance(found, Problem):
        show_problem(found, level=2)
    else:
        for section in found.values():
            st.html(section)
    st.header("Distribution by split")
    feature: str = st.selectbox("Feature", sorted(FEATURES), key="feature", format_func=view_cohort.feature_name)
    picture, table = _distribution(run, digest, feature)
    if picture:
        st.html(drawing.figure(picture, "Known values only; the middle 99% of them."))
    else:
        st.info("No value of this feature is known in any split; the policy gets the typical value throughout.")
    st.html(charts.table(table))


@st.cache_data(show_spinner="Reading the cohort ...", max_entries=2)
def _sections(run: Path, digest: str) -> dict[str, str] | Problem:  # noqa: ARG001
    return view_cohort.sections(run)


@st.cache_data(show_spinner=False, max_entries=100)
def _distribution(run: Path, digest: str, feature: str) -> tuple[str, Table]:  # noqa: ARG001
    return view_cohort.distribution(run, feature)
