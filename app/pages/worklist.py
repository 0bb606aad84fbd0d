"""Worklist: the patients at a decision time: searched, filtered, sorted, and opened."""

import pandas as pd
import streamlit as st

from app import view
from app.pages.context import Context
from app.study import Study

SHOWN_AT_MOST = 200
"""Rows that are sent to the browser; the filters narrow the rest."""
KEPT = ("hour", "search", "sort", "show", "units", "sofa", "lactate", "map")
"""Filters that stay as they are while another page is looked at."""


def show(context: Context) -> None:
    """The whole page."""
    st.title("Worklist")
    of = context.study
    hour = _decision_time(of)
    filters, sort = _filters(of)
    with st.spinner("Asking the policy ...", show_time=False):
        found = view.worklist(of, hour, filters, sort, SHOWN_AT_MOST + 1)
        listed = found.head(SHOWN_AT_MOST)
        words = view.said(of, listed)
    st.caption(view.counted(len(found), len(listed), hour, filters.show == view.SHOW[0]))
    if listed.empty:
        st.info("No stay has such a decision here. Choose another decision time, or clear the filters.")
        return
    _table(listed, words, hour)


def _decision_time(of: Study) -> float:
    hours = view.decision_hours(of.decisions)
    if len(hours) == 1:
        st.text(f"Decision time: {hours[0]:g} h after the start")
        return hours[0]
    st.session_state.setdefault("hour", view.default_hour(hours))
    chosen: float = st.select_slider(
        "Decision time, hours since the start", options=hours, key="hour", format_func=lambda hour: f"{hour:g} h"
    )
    return chosen


def _filters(of: Study) -> tuple[view.Filters, str]:
    first = st.columns([2, 3, 2, 2], gap="small")
    search = first[0].text_input("Find a stay by its id", key="search", max_chars=20)
    units = first[1].multiselect("Unit", options=view.units(of.decisions), key="units", format_func=_unit)
    show = first[2].selectbox("Show", options=view.SHOW, key="show")
    sort = first[3].selectbox("Order", options=view.SORTS, key="sort")
    second = st.columns([2, 2, 2, 3], gap="small")
    sofa = second[0].number_input("SOFA at least", 0.0, 24.0, None, 1.0, key="sofa", format="%g")
    lactate = second[1].number_input("Lactate at least (mmol/L)", 0.0, 30.0, None, 0.5, key="lactate", format="%g")
    pressure = second[2].number_input("MAP at most (mmHg)", 0.0, 200.0, None, 5.0, key="map", format="%g")
    return view.Filters(search, tuple(units), sofa, lactate, pressure, show), sort


def _unit(name: str) -> str:
    return view.plain(name, 60)


def _table(listed: pd.DataFrame, words: list[str], hour: float) -> None:
    ids = [int(one) for one in listed["stay_id"]]
    choose, button = st.columns([4, 1], vertical_alignment="bottom")
    stay = choose.selectbox("Patient to open", options=ids, key="chosen", format_func=lambda one: f"Stay {one}")
    button.button("Open patient", key="open", on_click=_open, args=(stay, hour), type="primary", width="stretch")
    st.dataframe(
        view.worklist_columns(listed, words),
        hide_index=True,
        height=min(38 + 35 * len(listed), 460),
        key="table",
        placeholder="not known",
        alt="Stays with a decision at this time",
        on_select=lambda: _open_row(ids, hour),
        selection_mode="single-row",
    )


def _open_row(ids: list[int], hour: float) -> None:
    picked = st.session_state["table"]["selection"]["rows"]
    if picked and picked[0] < len(ids):
        _open(ids[picked[0]], hour)


def _open(stay: int, hour: float) -> None:
    st.session_state["stay"] = stay
    st.session_state["now"] = hour
    st.session_state["page"] = "Patient"
