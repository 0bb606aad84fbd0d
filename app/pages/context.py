"""Context: what every page is given: the run, the log, and who is here."""

from collections.abc import Callable
from dataclasses import dataclass

import streamlit as st

from app.access import Visitor
from app.audit_log import AuditLog
from app.study import Problem, Study


@dataclass(frozen=True)
class Context:
    """One session's view of an opened run."""

    study: Study
    log: AuditLog | Problem
    """A problem: nothing can be logged, so no dose is shown."""
    visitor: Visitor
    current: Callable[[], Study | Problem]
    """The run as it is on disk now: another than `study` where it was replaced since."""


def tell(tone: str, text: str) -> None:
    """Leave a message for the next time the page is drawn; plain text."""
    st.session_state["message"] = (tone, text)


def show_message() -> None:
    """The message that was left, once."""
    tone, text = st.session_state.pop("message", ("", ""))
    if text:
        with st.container(key=f"message_{tone}"):
            st.text(text)


def show_problem(problem: Problem, level: int = 1) -> None:
    """Say what is wrong and what to do."""
    (st.title if level == 1 else st.header)(problem.title)
    st.text(problem.detail)
    st.text("What to do")
    st.code(problem.remedy, language=None)
