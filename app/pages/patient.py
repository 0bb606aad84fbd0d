"""Patient: one stay's course, the recommendation or the abstention with all that stands behind it, and the answer."""

import uuid

import pandas as pd
import streamlit as st

from app import access, card, charts, responses, study, view
from app.audit_log import AuditError, AuditLog
from app.card import Card
from app.pages.context import Context, show_message, show_problem, tell
from app.responses import Drug, Response
from app.study import Problem, Study
from cohort.errors import InputError, SutureError

NO_LOG = "No dose is shown that cannot be logged. The patient's data are below."


def show(context: Context) -> None:
    """The whole page."""
    st.title("Patient")
    stay = st.session_state.get("stay")
    if stay is None or not (context.study.stays["stay_id"] == stay).any():
        st.info("No patient is open. Choose one on the worklist.")
        return
    try:
        rows = study.course(context.study, stay)
        hour = _decision_time(rows)
        made = card.make(context.study, stay, hour)
    except SutureError as error:
        show_problem(Problem("This patient cannot be shown", str(error), "suture verify RUN"), level=2)
        return
    st.text(view.patient_text(rows, hour))
    left, right = st.columns([5, 6], gap="large")
    with left:
        number = _advice(context, made, rows)
    with right:
        _course(context.study, stay, hour)
    if number is not None:
        _behind(context.study, made)


def _decision_time(rows: pd.DataFrame) -> float:
    hours = view.decision_hours(rows)
    if len(hours) == 1:
        st.session_state["now"] = hours[0]
        return hours[0]
    if st.session_state.get("now") not in hours:
        st.session_state["now"] = hours[-1]
    chosen: float = st.select_slider(
        "Decision, hours since the start (the last one is the current)",
        options=hours,
        key="now",
        format_func=lambda hour: f"{hour:g} h",
    )
    return chosen


def _advice(context: Context, made: Card, rows: pd.DataFrame) -> str | None:
    """The recommendation as far as it may be shown; returns the card's number in the log, None where none is shown."""
    show_message()
    if isinstance(context.log, Problem):
        show_problem(context.log, level=2)
        st.text(NO_LOG)
        return None
    if _must_commit(context, made):
        _ask_intent(context, made)
        return None
    try:
        number = _logged(context, context.log, made)
        earlier = context.log.entries(kind="response", subject=made.subject)
    except AuditError as error:
        remedy = "Free the audit log's disk or end what holds the log, then look again."
        show_problem(Problem("The audit log cannot be written", f"{error}\n{NO_LOG}", remedy), level=2)
        return None
    _card(context.study, made, rows)
    if made.output["recommendation"] is not None and context.visitor.role == access.ANSWERS:
        _answers(context, made, number)
    table = view.answered(earlier)
    if table is not None:
        st.html(charts.table(table))
    st.caption(f"Card {number}")
    return number


def _card(of: Study, made: Card, rows: pd.DataFrame) -> None:
    st.header(view.headline(made))
    for gate, reason, lifts in view.held(made):
        with st.container(key=f"gate_{gate.replace(' ', '_')}"):
            st.text(f"Gate: {gate}\n{reason}\n{lifts}")
    st.html(charts.table(view.dose_table(of, made, rows)))
    glance, (told, same) = view.facts(of, made), view.equivalence(of, made)
    if glance is not None:
        st.html(charts.table(glance))
    if told:
        st.text(told)
    if same is not None:
        st.html(charts.table(same))
    if made.output["values"] is not None:
        st.caption(view.VALUE_KEY)


def _behind(of: Study, made: Card) -> None:
    """What stands behind the card: similar patients, what moved it, what to measure next."""
    pictures = view.grids(of, made)
    if pictures:
        st.header("Every dose in states like this one")
        st.caption(view.GRID_KEY)
        for column, picture in zip(st.columns(2, gap="large"), pictures, strict=False):
            column.html(charts.grid(picture))
        if view.rules(made):
            st.text(view.rules(made))
    left, right = st.columns(2, gap="large")
    moved, near = view.why(of, made), view.cases(of, made)
    with left:
        if moved is not None:
            st.header("Why this dose")
            st.html(charts.table(moved))
            st.text(view.change(of, made))
        next_one = view.measurements(made)
        if next_one:
            st.header("What to measure next")
            st.text(next_one)
    with right:
        if near is not None:
            st.header("Similar patients")
            st.html(charts.table(near))


def _course(of: Study, stay: int, hour: float) -> None:
    st.header("Course until this decision")
    st.caption(view.TIMELINE_KEY)
    drawn, absent = charts.course(of, stay, hour)
    if drawn:
        st.html(drawn)
    if absent:
        st.caption(absent)


def _must_commit(context: Context, made: Card) -> bool:
    settings, role = context.study.settings, context.visitor.role
    return settings.commit_first and role == access.ANSWERS and made.subject not in st.session_state.get("intents", {})


def _ask_intent(context: Context, made: Card) -> None:
    st.header("First, your own dose")
    st.text("State what you would give now. Suture's answer is shown after that.")
    st.number_input("IV fluid (mL per window)", 0.0, responses.LARGEST["fluid"], None, 50.0, key="intent_fluid")
    st.number_input(
        "Vasopressor (µg/kg/min)", 0.0, responses.LARGEST["vasopressor"], None, 0.05, key="intent_vasopressor"
    )
    st.button("Commit and reveal", key="commit", on_click=_commit, args=(context, made), type="primary")


def _commit(context: Context, made: Card) -> None:
    stated: dict[str, float | None] = {drug: st.session_state.get(f"intent_{drug}") for drug in responses.DRUGS}
    if any(value is None for value in stated.values()):
        tell("error", "State a dose of both drugs; 0 where you would give none.")
        return
    try:
        if isinstance(context.log, AuditLog):
            body: dict[str, object] = {**stated, "stay": str(made.stay_id), "hour": made.hour}
            context.log.append("intent", context.visitor.actor, body, subject=made.subject)
    except AuditError as error:
        tell("error", f"Not recorded: {error}")
        return
    st.session_state.setdefault("intents", {})[made.subject] = stated


def _logged(context: Context, log: AuditLog, made: Card) -> str:
    """The number under which this session was shown this card; logged the first time, before anything is drawn."""
    shown: dict[tuple[str, str], str] = st.session_state.setdefault("cards", {})
    key = made.subject, made.model["policy"] + made.model["behaviour"] + made.model["evaluation"] + made.model["cohort"]
    if key not in shown:
        number = str(uuid.uuid4())
        log.append("card", context.visitor.actor, made.body(), card=number, subject=made.subject)
        shown[key] = number
    return shown[key]


def _answers(context: Context, made: Card, number: str) -> None:
    st.header("Your answer")
    for drug, name in responses.DRUGS.items():
        key = f"{drug}_{number}"
        answer = st.radio(f"{name}: your answer", responses.ANSWERS, index=None, horizontal=True, key=f"answer_{key}")
        if answer is None:
            continue
        if answer == "modify":
            unit, most = responses.UNITS[drug], responses.LARGEST[drug]
            st.number_input(f"{name} instead ({unit})", 0.0, most, None, key=f"value_{key}")
        elif answer == "defer":
            st.selectbox(f"{name}: look again after", responses.RECHECK_H, key=f"recheck_{key}", format_func=_hours)
        elif answer == "reject":
            codes = list(responses.REASONS)
            st.selectbox(
                f"{name}: reason", codes, index=None, key=f"reason_{key}", format_func=responses.REASONS.__getitem__
            )
        st.text_area(f"{name}: note (optional)", key=f"note_{key}", max_chars=responses.NOTE_MOST, height=68)
        st.button(f"Record: {name}", key=f"record_{key}", on_click=_record, args=(context, made, number, drug))


def _hours(value: float) -> str:
    return f"{value:g} h"


def _record(context: Context, made: Card, number: str, drug: Drug) -> None:
    """Log one answer, unless the run was replaced since the card was shown."""
    now = context.current()
    if isinstance(now, Problem) or dict(now.model) != dict(made.model):
        tell("error", "Not recorded: this card is stale, the model behind it was replaced. Read the new card.")
        return
    state, key = st.session_state, f"{drug}_{number}"
    given = Response(
        drug,
        state[f"answer_{key}"],
        state.get(f"value_{key}"),
        state.get(f"recheck_{key}"),
        state.get(f"reason_{key}"),
        str(state.get(f"note_{key}") or ""),
    )
    try:
        body = given.body()
        if isinstance(context.log, AuditLog):
            context.log.append("response", context.visitor.actor, body, card=number, subject=made.subject)
    except (InputError, AuditError) as error:
        tell("error", f"Not recorded: {error}")
        return
    tell("done", f"{responses.DRUGS[drug]}: recorded.")
