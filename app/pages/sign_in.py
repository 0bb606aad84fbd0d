"""Sign in: who is here, by OpenID Connect where it is configured, else by a name and a role given for this session."""

import time
import uuid

import streamlit as st

from app import access, view
from app.access import Visitor
from app.audit_log import Actor, AuditError, AuditLog
from app.pages.context import show_message, show_problem, tell
from app.settings import ROLES, AppConfig
from app.study import Problem

LOCAL_ONLY = (
    "No sign-in service is configured, so this app answers on this machine only. "
    "Say who you are: the audit log records it with everything you are shown and answer."
)
OIDC = "OpenID Connect"


def visitor(settings: AppConfig, log: AuditLog | Problem) -> Visitor | None:
    """Who is here; None while the page asks."""
    if settings.access.oidc is not None:
        return _by_oidc(settings, log)
    known: Visitor | None = st.session_state.get("visitor")
    if known is None:
        _ask(log)
    return known


def leave(settings: AppConfig) -> None:
    """Forget who was here, and what they were looking at."""
    for key in list(st.session_state):
        del st.session_state[key]
    if settings.access.oidc is not None:
        st.logout()


def _ask(log: AuditLog | Problem) -> None:
    st.title("Who are you?")
    st.text(LOCAL_ONLY)
    show_message()
    st.text_input("Name", key="name", max_chars=access.NAME_MOST)
    st.radio("Role", options=ROLES, key="role")
    st.button("Enter", key="enter", on_click=_enter, args=(log,), type="primary")


def _enter(log: AuditLog | Problem) -> None:
    name = str(st.session_state.get("name") or "")
    role = next((one for one in ROLES if one == st.session_state.get("role")), None)
    wrong = access.name_problem(name)
    if wrong is not None or role is None:
        tell("error", wrong or "Choose a role.")
        return
    _remember(Visitor(name.strip(), role, str(uuid.uuid4())), log, "name given")


def _by_oidc(settings: AppConfig, log: AuditLog | Problem) -> Visitor | None:
    if not st.user.get("is_logged_in", False):
        st.title("Sign in")
        st.button("Sign in", key="login", on_click=st.login, type="primary")
        return None
    email = str(st.user.get("email") or "")
    refused, role = access.refusal(settings.access, st.user, time.time()), access.role_of(settings.access, email)
    if refused is not None or role is None:
        _refuse(email, str(refused), log)
        return None
    known: Visitor | None = st.session_state.get("visitor")
    if known is None or (known.name, known.role) != (email, role):
        known = _remember(Visitor(email, role, str(uuid.uuid4())), log, OIDC)
    return known


def _refuse(email: str, why: str, log: AuditLog | Problem) -> None:
    """Say so, and log it once in each session: an auditor may ask who tried."""
    remedy = "Sign in again; or ask whoever runs this app to list your address under access.roles."
    show_problem(Problem("You may not enter", f"You are signed in as {view.plain(email, 80)}, but {why}.", remedy))
    st.button("Sign out", key="logout", on_click=st.logout, type="primary")
    if isinstance(log, AuditLog) and st.session_state.get("refused") != (email, why):
        try:
            log.append("sign_in", Actor(email, "none", str(uuid.uuid4())), {"by": OIDC, "refused": why})
        except AuditError:
            return  # nothing is shown to this person either way
        st.session_state["refused"] = email, why


def _remember(who: Visitor, log: AuditLog | Problem, how: str) -> Visitor:
    """Enter; where nothing can be logged one may look at data, and no dose is shown."""
    st.session_state["visitor"] = who
    if isinstance(log, AuditLog):
        try:
            log.append("sign_in", who.actor, {"by": how})
        except AuditError as error:
            tell("error", str(error))
    return who
