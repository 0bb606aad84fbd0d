"""Audit log: its last entries, whether the chain is whole, and any card made again."""

import json

import streamlit as st

from app import audit_log, card, view
from app.audit_log import AuditError, AuditLog
from app.pages.context import Context, show_message, show_problem, tell
from app.study import Problem
from cohort.errors import SutureError

LAST = 200


def show(context: Context) -> None:
    """The whole page."""
    st.title("Audit log")
    show_message()
    log = context.log
    if isinstance(log, Problem):
        show_problem(log, level=2)
        return
    try:
        entries = log.entries(last=LAST)
    except AuditError as error:
        show_problem(Problem("The audit log cannot be read", str(error), "suture verify RUN"), level=2)
        return
    st.text(f"{log.place.name}\nSigned head: {log.place.head}")
    st.button("Check every entry", key="check", on_click=_check, args=(log,))
    st.caption(f"The last {len(entries)} entries, the newest first")
    st.dataframe(view.log_table(entries), hide_index=True, key="log", alt="The last entries of the audit log")
    cards = [entry for entry in reversed(entries) if entry.kind == "card"]
    if not cards:
        return
    st.header("A card as it was shown")
    chosen = st.selectbox("Card", cards, key="replayed", format_func=lambda one: f"{one.card}, decision {one.subject}")
    st.button("Make it again and compare", key="replay", on_click=_replay, args=(context, chosen))
    with st.expander("The card's document"):
        st.code(json.dumps(dict(chosen.body), indent=1, ensure_ascii=True), language=None, wrap_lines=True)


def _check(log: AuditLog) -> None:
    try:
        found = audit_log.check(log.place)
    except AuditError as error:
        tell("error", str(error))
        return
    tell("done", f"All {found.entries:,} entries follow each other, and the signed head vouches for {found.head:,}.")


def _replay(context: Context, chosen: audit_log.Entry) -> None:
    try:
        card.replay(context.study, chosen)
    except SutureError as error:
        tell("error", str(error))
        return
    tell("done", f"Card {chosen.card}: the same, byte for byte.")
