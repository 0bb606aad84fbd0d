"""Main: the frame of every page. Streamlit runs this file anew at each interaction; it only displays."""

import gc
import os
import sys
import threading
from pathlib import Path

import streamlit as st

from app import access, settings, study, verification, view
from app.access import Visitor
from app.audit_log import Actor, AuditError, AuditLog
from app.pages import cohort, evaluation, exports, lab, log, patient, sign_in, stay, training, worklist
from app.pages.context import Context, show_problem
from app.settings import RUN_VARIABLE, SETTINGS_VARIABLE, AppConfig
from app.study import Problem, Study
from cohort.errors import ArtifactError, SutureError

PAGES = {
    "Worklist": worklist.show,
    "Patient": patient.show,
    "Evaluation": evaluation.show,
    "Audit log": log.show,
    "Cohort": cohort.show,
    "One stay": stay.show,
    "Training": training.show,
    "Lab": lab.show,
    "Exports": exports.show,
}
STYLE = """<style>
:has(> .st-key-notice) { position: sticky; top: 0; z-index: 5; }
.st-key-notice p { margin: 0; text-align: center; font-weight: 600; font-size: .9rem; padding: .35rem .75rem;
  border-radius: .4rem; background: #b34700; color: #fff; }
.block-container { padding-top: 1rem; padding-bottom: 3rem; max-width: 96rem; }
[data-testid="stHeader"] { display: none; }
[data-testid="stText"] { white-space: pre-wrap; overflow-wrap: anywhere; font-family: inherit; }
[class*="st-key-message_"], [class*="st-key-gate_"], [class*="st-key-verdict_"] { padding: .5rem .8rem;
  border-left: .3rem solid #8a929d; background: rgba(128, 128, 128, .1); border-radius: .25rem; }
.st-key-message_error, [class*="st-key-gate_"], .st-key-verdict_refused { border-left-color: #c24e00; }
.st-key-message_done, .st-key-verdict_eligible { border-left-color: #1b87c9; }
.st-key-verdict_insufficient { border-left-color: #b58900; }
[data-testid="stCaptionContainer"], [data-testid="stCaptionContainer"] p { color: inherit; opacity: .92; }
@media (prefers-color-scheme: dark) { [data-testid="stBaseButton-primary"] p { color: #10151c; } }
</style>"""


def main() -> None:
    """Show the notice, then the page, or what is wrong."""
    st.set_page_config(page_title="Suture", layout="wide", initial_sidebar_state="collapsed")
    st.html(STYLE)
    with st.container(key="notice"):
        st.html(f'<p role="note">{view.NOTICE}</p>')
    run = run_argument(sys.argv[1:], os.environ.get(RUN_VARIABLE))
    try:
        told = settings.read(settings_argument(os.environ.get(SETTINGS_VARIABLE)))
    except SutureError as error:
        show_problem(Problem("The app's settings are wrong", str(error), "Mend the key it names."))
        return
    opened = _current(run, told)
    if isinstance(opened, Problem):
        show_problem(opened)
        return
    _show(opened, told)


def run_argument(arguments: list[str], variable: str | None) -> Path | None:
    """The run's directory: the first argument, else the environment variable."""
    given = arguments[0] if arguments else variable
    return Path(given) if given else None


def settings_argument(variable: str | None) -> Path | None:
    """The settings' file, where one is named."""
    return Path(variable) if variable else None


def _show(opened: Study, told: AppConfig) -> None:
    audit = _log(opened, told)
    who = sign_in.visitor(told, audit)
    if who is None:
        return
    for key in worklist.KEPT:  # a filter's widget that is not drawn would forget its value
        if key in st.session_state:
            st.session_state[key] = st.session_state[key]
    _header(who, told)
    with st.container(key=f"verdict_{view.banner(opened.verdict, opened.binding).tone}"):
        st.text(view.banner(opened.verdict, opened.binding).text)
    context = Context(opened, audit, who, lambda: _current(opened.path, told))
    PAGES[st.session_state.get("page") or access.PAGES[who.role][0]](context)


def _header(who: Visitor, told: AppConfig) -> None:
    pages, name, out = st.columns([6, 4, 1], vertical_alignment="center")
    st.session_state.setdefault("page", access.PAGES[who.role][0])
    pages.radio("Page", access.PAGES[who.role], key="page", horizontal=True, label_visibility="collapsed")
    name.text(f"{view.plain(who.name, 60)}, {who.role}")
    out.button("Leave", key="leave", on_click=sign_in.leave, args=(told,))


def _current(run: Path | None, told: AppConfig) -> Study | Problem:
    """The run as it is on disk; a change that the check in the background found closes it."""
    stamp = study.stamp(run)
    opened = _opened(run, stamp, told.model_dump_json())
    if isinstance(opened, Problem) or run is None:
        _opened.clear()  # the next look opens the run again: it may have been mended
        return opened
    found = _background(run, stamp).found
    return opened if found is None else study.unverified(run, found)


@st.cache_resource(show_spinner="Opening the run ...", max_entries=2)
def _opened(run: Path | None, stamp: tuple[tuple[str, int], ...], told: str) -> Study | Problem:  # noqa: ARG001
    """The opened run; `stamp` is part of the cache's key only, so that a run made anew is opened anew."""
    found = study.open_study(run, AppConfig.model_validate_json(told))
    gc.freeze()  # Streamlit collects garbage after every interaction: what stays for good need not be walked each time
    return found


def _log(opened: Study, told: AppConfig) -> AuditLog | Problem:
    """The audit log; a model that it has not seen is noted in it before anything is shown."""
    place = settings.place(opened.path, told.audit)
    try:
        audit = _open_log(place)
        _note_model(audit, opened)
    except AuditError as error:
        return Problem("The audit log cannot be used", str(error), f"suture verify {opened.path}")
    return audit


@st.cache_resource(show_spinner=False, max_entries=4)
def _open_log(place: settings.Place) -> AuditLog:
    return AuditLog(place)


def _note_model(audit: AuditLog, opened: Study) -> None:
    noted = _noted()
    key = audit.place.url, opened.digests["policy"], opened.digests["evaluation"], opened.digests["cohort"]
    with noted.lock:
        if key in noted.seen:
            return
        body = {"policy": opened.policy_name, "verdict": opened.verdict, "model": opened.model}
        last = audit.entries(kind="model", last=1)
        if not last or dict(last[0].body) != body:
            audit.append("model", Actor("suture", "system", "-"), body)
        noted.seen.clear()
        noted.seen.add(key)


class _Noted:
    """Which model this process last noted in the log."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.seen: set[tuple[str, ...]] = set()


@st.cache_resource(show_spinner=False)
def _noted() -> _Noted:
    return _Noted()


class _Background:
    """A full check of the run, beside the pages: every file hashed again, once for each state of the run."""

    def __init__(self, run: Path) -> None:
        self.found: ArtifactError | None = None
        threading.Thread(target=self._check, args=(run,), daemon=True).start()

    def _check(self, run: Path) -> None:
        try:
            verification.check(run)
        except ArtifactError as error:
            self.found = error


@st.cache_resource(show_spinner=False, max_entries=2)
def _background(run: Path, stamp: tuple[tuple[str, int], ...]) -> _Background:  # noqa: ARG001
    return _Background(run)


if __name__ == "__main__":
    main()
