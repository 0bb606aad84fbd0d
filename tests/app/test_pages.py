"""The page's states as Streamlit runs them, without a browser."""

import sys
from itertools import pairwise
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from app import main, serve, view
from ope import gates
from tests import small_run

MAIN = Path(main.__file__)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_run.shared(tmp_path_factory.getbasetemp())


def opened(run: Path | None, monkeypatch: pytest.MonkeyPatch) -> AppTest:
    monkeypatch.setattr(sys, "argv", ["main.py", *([str(run)] if run else [])])
    monkeypatch.delenv(main.RUN_VARIABLE, raising=False)
    page = AppTest.from_file(str(MAIN), default_timeout=120).run()
    assert not page.exception
    return page


def texts(page: AppTest) -> str:
    return "\n".join(str(element.value) for element in [*page.text, *page.caption, *page.title, *page.subheader])


def notice(page: AppTest) -> bool:
    return any(view.NOTICE in str(element.value) for element in page.get("html"))


def test_the_page_lists_patients_and_shows_one_with_a_dose_or_an_abstention(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = opened(run, monkeypatch)
    assert notice(page)
    assert [title.value for title in page.title] == ["Patients"]
    assert len(page.dataframe[0].value) > 1
    assert "Stay " in texts(page)
    assert {header.value for header in page.subheader} & {"Suture abstains", "Research output, not advice"}


def test_moving_the_decision_time_moves_the_patients_hour(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = opened(run, monkeypatch)
    page.select_slider(key="hour").set_value(4.0).run()
    assert "Decision 4 h after the start" in texts(page)


def test_searching_for_one_stay_shows_that_stay_and_nonsense_shows_none(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = opened(run, monkeypatch)
    wanted = page.dataframe[0].value["Stay"].iloc[-1]
    page.text_input(key="search").set_value(wanted).run()
    assert f"Stay {wanted}\n" in texts(page)
    page.text_input(key="search").set_value("<script>").run()
    assert not page.dataframe
    assert "No stay has a decision here" in page.info[0].value


def test_an_abstention_names_its_gate_and_what_would_lift_it(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = opened(run, monkeypatch)
    page.select_slider(key="hour").set_value(0.0).run()
    assert "Suture abstains" in texts(page)
    assert any(warning.value.startswith("Gate: ") for warning in page.warning)
    assert "What would lift it: " in texts(page)
    assert list(page.table[0].value.columns) == ["Clinicians gave"]


def test_showing_only_recommendations_lists_nothing_else(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = opened(run, monkeypatch)
    page.selectbox(key="show").set_value(view.SHOW[1]).run()
    assert not page.exception
    assert set(page.dataframe[0].value["Suture"]) == {view.RECOMMENDS}
    assert list(page.table[0].value.columns) == ["Recommended", "Clinicians gave"]
    assert any("most similar training decisions" in str(element.value) for element in page.get("html"))


def test_an_evaluation_without_enough_evidence_warns_above_the_doses(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "insufficient evidence" in opened(run, monkeypatch).warning[0].value


def test_a_refused_evaluation_shows_no_dose_anywhere(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = opened(small_run.with_evaluation(run, tmp_path / "run", {"verdict/verdict": gates.REFUSED}), monkeypatch)
    assert "refused" in page.error[0].value
    assert all("Recommended" not in table.value.columns for table in page.table)
    assert "recommendation" not in set(page.dataframe[0].value["Suture"])


def test_without_a_run_the_page_says_what_to_do_and_shows_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    page = opened(None, monkeypatch)
    assert notice(page)
    assert [title.value for title in page.title] == ["There is no run to show"]
    assert "suture run" in page.code[0].value
    assert not page.dataframe


def test_a_damaged_run_is_a_plain_page(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = small_run.with_evaluation(run, tmp_path / "run", {})
    file = out / "ope" / "evaluation.json"
    whole = file.read_bytes()
    file.write_text("{}")
    page = opened(out, monkeypatch)
    assert [title.value for title in page.title] == ["This run fails verification"]
    assert not page.dataframe
    file.write_bytes(whole)
    page.run()
    assert [title.value for title in page.title] == ["Patients"], "a mended run opens without a restart"


def test_the_argument_comes_before_the_environment() -> None:
    assert main.run_argument(["a"], "b") == Path("a")
    assert main.run_argument([], "b") == Path("b")
    assert main.run_argument([], None) is None


def test_the_server_is_bound_to_this_machine_and_tells_nobody() -> None:
    words = serve.command(Path("runs/demo"), 8502)
    options = dict(pairwise(words))
    assert options["--server.address"] == "127.0.0.1"
    assert options["--browser.gatherUsageStats"] == "false"
    assert options["--client.showErrorDetails"] == "none"
    assert options["--server.port"] == "8502"
    assert Path(words[-1]).is_absolute()
