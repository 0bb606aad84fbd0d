"""Patients: the worklist at a decision time, one patient's course, and the recommendation or the abstention."""

import pandas as pd
import streamlit as st

from app import charts, view

SHOWN_AT_MOST = 500
"""Rows of the worklist that are sent to the browser; the search narrows the rest."""


def show(study: view.Study) -> None:
    """The whole page."""
    st.title("Patients")
    _verdict(study)
    time_column, search_column, sort_column, show_column = st.columns([4, 2, 2, 2], gap="medium")
    with time_column:
        hour = _decision_time(study)
    search = search_column.text_input("Find a stay by its id", key="search", max_chars=20)
    sort = sort_column.selectbox("Order", options=view.SORTS, key="sort")
    shown = show_column.selectbox("Show", options=view.SHOW, key="show")
    chosen = _worklist(study, view.worklist(study.decisions, hour, search, sort), hour, shown)
    if chosen is not None:
        _patient(study, chosen, hour)


def _verdict(study: view.Study) -> None:
    banner = view.banner(study.verdict, study.binding)
    {"refused": st.error, "insufficient": st.warning, "eligible": st.info}[banner.tone](banner.text)


def _decision_time(study: view.Study) -> float:
    hours = view.decision_hours(study.decisions)
    chosen: float = st.select_slider(
        "Decision time, hours since the start",
        options=hours,
        value=view.default_hour(hours),
        key="hour",
        format_func=lambda hour: f"{hour:g} h",
    )
    return chosen


def _worklist(study: view.Study, rows: pd.DataFrame, hour: float, show: str) -> int | None:
    if show == view.SHOW[0]:
        rows, total = rows.head(SHOWN_AT_MOST), len(rows)
        shown = view.filtered(rows, view.said(study, rows), show)
    else:
        found = view.filtered(rows, view.said(study, rows), show)
        shown, total = found.head(SHOWN_AT_MOST), len(found)
    st.caption(view.counted(total, len(shown), hour))
    if shown.empty:
        st.info("No stay has a decision here. Choose another decision time, show all stays, or clear the search.")
        return None
    event = st.dataframe(
        view.worklist_columns(shown),
        hide_index=True,
        height=246,
        key="table",
        placeholder="not known",
        alt="Stays with a decision at this time",
        on_select="rerun",
        selection_mode="single-row-required",
    )
    picked = event["selection"]["rows"]
    return int(shown["stay_id"].iloc[picked[0] if picked and picked[0] < len(shown) else 0])


def _patient(study: view.Study, stay_id: int, hour: float) -> None:
    stay = view.stay(study.decisions, stay_id)
    left, right = st.columns([4, 7], gap="large")
    with left:
        st.subheader("Patient")
        st.text(view.patient_text(stay, hour))
        _card(view.card(study, stay, hour))
    with right:
        st.subheader("Course until this decision")
        st.caption(view.TIMELINE_KEY)
        _course(study, stay, hour)
        _grids(view.grids(study, stay, hour))


def _grids(pictures: tuple[view.Grid, ...]) -> None:
    if not pictures:
        return
    st.subheader("Doses in states like this one")
    st.caption(view.GRID_KEY)
    for column, picture in zip(st.columns(2), pictures, strict=False):
        with column:
            st.html(charts.grid(picture))


def _card(card: view.Card) -> None:
    st.subheader(card.title)
    if card.abstention is not None:
        gate, reason, lifts = card.abstention
        st.warning(f"Gate: {gate}")
        st.text(f"{reason}.\nWhat would lift it: {lifts}.")
    st.table(view.dose_table(card))
    for name, text in card.facts:
        st.text(f"{name}: {text}")


def _course(study: view.Study, stay: pd.DataFrame, hour: float) -> None:
    points = view.timeline(stay, hour, study.dictionary.step_hours)
    windows = view.given(stay, hour)
    drawn = [
        charts.signal(points[points["signal"] == name], name, hour, study.horizon_h)
        for name in view.SIGNALS.values()
        if (points["signal"] == name).any()
    ]
    if len(windows):
        drawn += [charts.doses(windows, drug, name, hour, study.horizon_h) for drug, name in view.DRUGS.items()]
    columns = st.columns(2)
    for number, chart in enumerate(drawn):
        columns[number % 2].altair_chart(chart, width="stretch", key=f"chart{number}")
    absent = view.absent(points, windows)
    if absent:
        st.caption(absent)
