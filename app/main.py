"""Main: the frame of every page. Streamlit runs this file anew at each interaction; it only displays."""

import os
import sys
from pathlib import Path

import streamlit as st

from app import view
from app.pages import patients

RUN_VARIABLE = "SUTURE_RUN"  # the run's directory where no argument names it
STYLE = """<style>
:has(> .st-key-notice) { position: sticky; top: 3.75rem; z-index: 5; }
.st-key-notice p { margin: 0; text-align: center; font-weight: 600; font-size: .9rem; padding: .35rem .75rem;
  border: 2px solid #c24e00; border-radius: .4rem; background: #c24e00; color: #fff; }
.block-container { padding-top: 4rem; padding-bottom: 3rem; max-width: 92rem; }
@media print { [data-testid="stHeader"] { display: none; } }
</style>"""


def main() -> None:
    """Show the notice, then the page, or what is wrong with the run."""
    st.set_page_config(page_title="Suture", layout="wide")
    st.html(STYLE)
    with st.container(key="notice"):
        st.html(f'<p role="note">{view.NOTICE}</p>')
    run = run_argument(sys.argv[1:], os.environ.get(RUN_VARIABLE))
    study = _study(run, view.stamp(run))
    if isinstance(study, view.Problem):
        _study.clear()  # the next look opens the run again: it may have been mended
        show_problem(study)
        return
    patients.show(study)


def run_argument(arguments: list[str], variable: str | None) -> Path | None:
    """The run's directory: the first argument, else the environment variable."""
    given = arguments[0] if arguments else variable
    return Path(given) if given else None


def show_problem(problem: view.Problem) -> None:
    """Say what is wrong and what to do; nothing else is on the page."""
    st.title(problem.title)
    st.text(problem.detail)
    st.subheader("What to do", divider=False)
    st.code(problem.remedy, language=None)


@st.cache_resource(show_spinner="Checking the run's files ...", max_entries=2)
def _study(run: Path | None, stamp: tuple[tuple[str, int], ...]) -> view.Study | view.Problem:  # noqa: ARG001
    """The opened run; `stamp` is part of the cache's key only, so that a run made anew is opened anew."""
    return view.open_study(run)


if __name__ == "__main__":
    main()
