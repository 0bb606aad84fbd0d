"""Lab: the guide made interactive; `view_lab.EXPERIMENTS`, also shown, maps each of its elements to the one here."""

import streamlit as st

from app import charts, drawing, view_lab
from app.pages.context import Context
from app.view_lab import EXPERIMENTS

RUN_BACKUPS = 25
"""Backups that one press of Run adds."""
MOST_BACKUPS = 1000


def show(context: Context) -> None:  # noqa: ARG001
    """One experiment at a time; none needs the run that is open."""
    st.title("Lab")
    names = list(EXPERIMENTS)
    chosen: str = st.selectbox("Experiment", names, key="experiment", format_func=lambda name: EXPERIMENTS[name].title)
    st.header(EXPERIMENTS[chosen].title)
    st.text(EXPERIMENTS[chosen].teaches)
    _SHOWN[chosen]()
    with st.expander("What of the guide is where"):
        st.html(charts.table(view_lab.mapping()))


def _gridworld() -> None:
    left, right = st.columns(2)
    gamma = left.slider("Discount γ", 0.5, 0.99, 0.9, 0.01, key="grid_gamma")
    step = right.slider("Reward of each step", -0.2, 0.0, 0.0, 0.01, key="grid_step")
    st.html(view_lab.gridworld(gamma, step))


def _rounds() -> None:
    logged = st.slider("Logged episodes", 1, 40, 5, key="logged")
    _drawn(*view_lab.rounds(logged))


def _stitching() -> None:
    left, right = st.columns(2)
    tau = left.slider("Expectile τ", 0.5, 0.99, 0.9, 0.01, key="stitch_tau")
    third = right.toggle("With a third trajectory (s1 → s2, reward 5)", key="third")
    table, told = view_lab.stitching(tau, third)
    st.html(drawing.figure(view_lab.graph(third, tau)))
    st.text(told)
    st.html(charts.table(table))


def _overestimation() -> None:
    first = st.columns(2)
    epsilon = first[0].slider("Error of one guess ε", 0.1, 5.0, 3.0, 0.1, key="epsilon")
    gamma = first[1].slider("Discount γ", 0.5, 0.99, 0.99, 0.01, key="error_gamma")
    st.session_state.setdefault("backups", 0)
    run, again, _ = st.columns([1, 1, 4])
    run.button("Run", key="run_backups", on_click=_more, help=f"{RUN_BACKUPS} more backups")
    again.button("Begin again", key="no_backups", on_click=_none)
    _drawn(*view_lab.overestimation(epsilon, gamma, int(st.session_state["backups"])))
    st.text(view_lab.exploited(epsilon, gamma))


def _more() -> None:
    st.session_state["backups"] = min(int(st.session_state["backups"]) + RUN_BACKUPS, MOST_BACKUPS)


def _none() -> None:
    st.session_state["backups"] = 0


def _filter() -> None:
    _drawn(*view_lab.filtered(float(st.slider("Keep the best k%", 10, 100, 30, 10, key="top_percent"))))


def _temperature() -> None:
    choices = [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0]
    alpha = st.select_slider("Temperature α", choices, 1.0, key="alpha", format_func=lambda value: f"{value:g}")
    _drawn(*view_lab.temperature(alpha))


def _expectile() -> None:
    _drawn(*view_lab.expectile(st.slider("Expectile τ", 0.5, 0.99, 0.7, 0.01, key="tau")))


def _methods() -> None:
    picture, table = view_lab.methods()
    st.html(drawing.figure(picture, "Measured; each learner was trained by suture lab, with seed 0."))
    st.html(charts.table(table))


def _break() -> None:
    for removed in ("conservatism", "stitching", "advantage weighting"):
        off = st.toggle(f"Remove {removed}", key=f"remove_{removed.split()[0]}")
        _drawn(*view_lab.broken(removed, off))


def _preferences() -> None:
    first = st.columns(3)
    better_b = first[0].slider("Of 10, B preferred to A", 1, 9, 7, key="b_over_a")
    better_c = first[1].slider("Of 10, B preferred to C", 1, 9, 8, key="b_over_c")
    choices = [0.1, 0.2, 0.5, 1.0, 2.0, 5.0]
    beta = first[2].select_slider("Leash β", choices, 1.0, key="beta", format_func=lambda value: f"{value:g}")
    table, told = view_lab.preferences(better_b, better_c, beta)
    st.html(charts.table(table))
    st.text(told)


def _drawn(picture: str, told: str) -> None:
    st.html(drawing.figure(picture))
    st.text(told)


_SHOWN = {
    "gridworld": _gridworld,
    "rounds": _rounds,
    "stitching": _stitching,
    "overestimation": _overestimation,
    "filter": _filter,
    "temperature": _temperature,
    "expectile": _expectile,
    "methods": _methods,
    "break": _break,
    "preferences": _preferences,
}
