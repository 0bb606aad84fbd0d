"""Exports: what leaves the log: CDS Hooks feedback, and the preference table that `dpo` learns from."""

import streamlit as st

from app import audit_log, responses
from app.audit_log import AuditError
from app.pages.context import Context, show_problem
from app.study import Problem


def show(context: Context) -> None:
    """The whole page."""
    st.title("Exports")
    if isinstance(context.log, Problem):
        show_problem(context.log, level=2)
        return
    try:
        entries = context.log.entries()
    except AuditError as error:
        show_problem(Problem("The audit log cannot be read", str(error), "suture verify RUN"), level=2)
        return
    answers = sum(entry.kind == "response" for entry in entries)
    st.text(f"{answers} responses in {len(entries):,} entries.")
    if not answers:
        st.info("Nobody has answered a card yet, so there is nothing to export.")
        return
    st.header("CDS Hooks feedback")
    st.text("One entry a response, with HL7's reason where it was rejected. It names no patient, but notes may.")
    st.download_button(
        "Download feedback.json", audit_log.canonical(responses.feedback(entries)), "feedback.json", "application/json"
    )
    st.header("Preferences")
    table, left_out = responses.preferences(context.study, entries)
    st.text(
        f"{len(table)} preferences; left out: "
        + ", ".join(f"{reason} {count}" for reason, count in left_out.items())
        + ".\nName the file under learners.dpo.preferences and train again. It holds states of patients."
    )
    if len(table):
        st.download_button("Download preferences.csv", table.to_csv(index=False), "preferences.csv", "text/csv")
