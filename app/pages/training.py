"""Training: learning curves and the overestimation monitor from MLflow, all learners side by side, and the sweep."""

import streamlit as st

from app import charts, drawing, view_training
from app.pages.context import Context, show_problem
from app.study import Problem


def show(context: Context) -> None:
    """The whole page."""
    st.title("Training")
    _comparison(context)
    _curves(context)
    _sweep(context)


def _comparison(context: Context) -> None:
    st.header("All learners")
    found = view_training.compared(context.study.path)
    if isinstance(found, Problem):
        show_problem(found, level=2)
        return
    table, told = found
    st.html(charts.table(table))
    st.caption(told)


def _curves(context: Context) -> None:
    st.header("Learning curves")
    run = context.study.path
    found = view_training.curves(run)
    if isinstance(found, Problem):
        show_problem(found, level=2)
        return
    st.caption("From the run's MLflow store, which is a copy; `make mlflow` opens it whole.")
    names = sorted(found)
    main = context.study.policy_name
    name: str = st.selectbox("Policy", names, names.index(main) if main in names else 0, key="curve")
    left, right = st.columns(2, gap="large")
    left.html(drawing.figure(view_training.losses(name, found[name]), "Losses on training and on held-out patients."))
    watched = view_training.monitored(name, found[name], view_training.notes(run, name).get("overestimation"))
    with right:
        if watched is None:
            st.text("This policy has no value network, so there is nothing to overestimate.")
        else:
            st.html(drawing.figure(watched.picture, "What it believes against what the rewards allow."))
            st.text(watched.told)


def _sweep(context: Context) -> None:
    st.header("Sweep")
    found = view_training.frontier(context.study.path)
    if isinstance(found, Problem):
        show_problem(found, level=2)
        return
    pictures, table, told = found
    for first in range(0, len(pictures), 2):
        for column, picture in zip(st.columns(2, gap="large"), pictures[first : first + 2], strict=False):
            column.html(drawing.figure(picture))
    st.caption(
        "Up: a better lower bound, more evidence, or more doses to choose from. Right: further from the clinicians."
    )
    st.text(told)
    with st.expander("Every setting"):
        st.html(charts.table(table))
