"""Stay: one decision of one stay from raw rows to the grid, the state, the action and the reward, side by side."""

import streamlit as st

from app import charts, view_cohort
from app.pages.context import Context, show_problem
from app.study import Problem
from cohort.errors import SutureError

HEIGHT = 420


def show(context: Context) -> None:
    """The whole page."""
    st.title("One stay")
    of = context.study
    left, right = st.columns([1, 3])
    ids = view_cohort.stays(of)
    stay: int = left.selectbox("Stay", ids, key="chain_stay", format_func=lambda one: f"Stay {one}")
    hours = view_cohort.hours(of, stay)
    if st.session_state.get("chain_hour") not in hours:
        st.session_state["chain_hour"] = hours[min(2, len(hours) - 1)]
    if len(hours) > 1:
        hour: float = right.select_slider(
            "Decision, hours since the start", hours, key="chain_hour", format_func=lambda one: f"{one:g} h"
        )
    else:
        hour = hours[0]
    try:
        found = view_cohort.chain(of, stay, hour)
    except SutureError as error:
        show_problem(Problem("This stay cannot be shown", str(error), f"suture verify {of.path}"), level=2)
        return
    _columns(found, of.dictionary.step_hours)


def _columns(found: view_cohort.Chain, step: float) -> None:
    first, second = st.columns(2, gap="medium")
    with first:
        st.header("1 · Raw rows")
        if isinstance(found.raw, Problem):
            show_problem(found.raw, level=2)
        elif not found.raw:
            st.text(f"Nothing was stored in the {step:g} hours before this decision.")
        else:
            for name, rows in found.raw.items():
                st.caption(f"{name}: {len(rows)} rows stored (infusions: begun) in the {step:g} h before the decision")
                st.dataframe(rows, hide_index=True, height=160, key=f"raw_{name}", alt=f"Raw rows of {name}")
    with second:
        st.header("2 · Canonical rows")
        st.caption("Named, in one unit, out-of-range values set aside; infusions with their exact times.")
        st.dataframe(found.canonical, hide_index=True, height=HEIGHT, key="canonical", alt="Canonical rows")
    first, second = st.columns(2, gap="medium")
    with first:
        st.header("3 · Grid and state")
        st.caption("A value counts while it is within its hold time; what is missing is imputed for the policy.")
        st.dataframe(
            found.state,
            hide_index=True,
            height=HEIGHT,
            key="state",
            placeholder="–",
            alt="State at the decision",
        )
    with second:
        st.header("4 · Action and reward")
        st.html(charts.table(found.action))
        st.html(charts.table(found.reward))
