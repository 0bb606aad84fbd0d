"""The pages' states as Streamlit runs them, without a browser."""

import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from app import access, audit_log, main, settings, study, view
from app.audit_log import AuditLog
from app.run_directory import RunDirectory
from app.settings import RUN_VARIABLE, SETTINGS_VARIABLE
from ope import gates
from tests import small_run

MAIN = Path(main.__file__)
Open = Callable[..., AppTest]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_run.shared(tmp_path_factory.getbasetemp())


@pytest.fixture
def told(tmp_path: Path) -> Path:
    path = tmp_path / "app.yaml"
    path.write_text(f"audit: {{url: 'sqlite:///{tmp_path}/audit.db', timeout_s: 0.2}}\n")
    return path


@pytest.fixture
def enter(tmp_path: Path, told: Path, monkeypatch: pytest.MonkeyPatch) -> Open:
    """Open the app on a run, signed in where a role is given."""

    def opened(run: Path | None, role: str | None = "clinician", name: str = "Dr A") -> AppTest:
        monkeypatch.setattr(sys, "argv", ["main.py", *([str(run)] if run else [])])
        monkeypatch.delenv(RUN_VARIABLE, raising=False)
        monkeypatch.setenv(SETTINGS_VARIABLE, str(told))
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
        page = AppTest.from_file(str(MAIN), default_timeout=120).run()
        if role is not None:
            page.text_input(key="name").set_value(name)
            page.radio(key="role").set_value(role)
            page.button(key="enter").click().run()
        assert not page.exception, page.exception
        return page

    return opened


def texts(page: AppTest) -> str:
    return "\n".join(
        str(element.value) for element in [*page.text, *page.caption, *page.title, *page.header, *page.info]
    )


def html(page: AppTest) -> str:
    return "\n".join(str(element.value) for element in page.get("html"))


def titles(page: AppTest) -> list[str]:
    return [str(title.value) for title in page.title]


def open_patient(page: AppTest, show: str, hour: float = 8.0) -> AppTest:
    """The first patient of the worklist that has, or has not, a recommendation."""
    page.select_slider(key="hour").set_value(hour)
    page.selectbox(key="show").set_value(show).run()
    page.button(key="open").click().run()
    assert not page.exception, page.exception
    assert titles(page) == ["Patient"]
    return page


def log_of(run: Path, told: Path) -> AuditLog:
    return AuditLog(settings.place(run, settings.read(told).audit))


def entries(run: Path, told: Path) -> list[audit_log.Entry]:
    log = log_of(run, told)
    found = log.entries()
    log.close()
    return found


def answer(page: AppTest, drug: str, word: str) -> str:
    """Choose an answer for a drug; returns the card's number."""
    radio = next(one for one in page.radio if str(one.key).startswith(f"answer_{drug}_"))
    radio.set_value(word).run()
    return str(radio.key).removeprefix(f"answer_{drug}_")


def test_nobody_sees_a_patient_before_saying_who_they_are(run: Path, enter: Open) -> None:
    page = enter(run, role=None)
    assert titles(page) == ["Who are you?"]
    assert "on this machine only" in texts(page)
    assert view.NOTICE in html(page)
    page.button(key="enter").click().run()
    assert titles(page) == ["Who are you?"]
    assert "Enter your name" in texts(page)
    assert not page.dataframe


def test_each_role_is_led_to_its_own_pages(run: Path, enter: Open, told: Path) -> None:
    for role, pages in (("clinician", 2), ("auditor", 3), ("data scientist", 7)):
        page = enter(run, role)
        assert len(page.radio(key="page").options) == pages
        assert view.NOTICE in html(page)
    signed = [entry for entry in entries(run, told) if entry.kind == "sign_in"]
    assert [entry.actor.role for entry in signed] == ["clinician", "auditor", "data scientist"]
    assert len({entry.actor.session for entry in signed}) == 3


def test_the_worklist_is_filtered_and_leads_to_a_patient(run: Path, enter: Open) -> None:
    page = enter(run)
    assert titles(page) == ["Worklist"]
    page.select_slider(key="hour").set_value(8.0).run()
    everyone = len(page.dataframe[0].value)
    page.number_input(key="map").set_value(80.0).run()
    listed = page.dataframe[0].value
    assert 0 < len(listed) < everyone
    assert (listed["MAP (mmHg)"] <= 80).all()
    wanted = listed["Stay"].iloc[-1]
    page.text_input(key="search").set_value(wanted).run()
    assert page.dataframe[0].value["Stay"].tolist() == [wanted]
    page.button(key="open").click().run()
    assert f"Stay {wanted}, MICU" in texts(page)
    page.radio(key="page").set_value("Worklist").run()
    assert page.number_input(key="map").value == 80.0, "the filters are as they were left"
    page.text_input(key="search").set_value("<script>").run()
    assert not page.dataframe
    assert "No stay has such a decision here" in texts(page)


def test_a_recommendation_is_logged_when_it_is_shown_and_once(run: Path, enter: Open, told: Path) -> None:
    page = open_patient(enter(run), view.SHOW[1])
    assert "Research output, not advice" in texts(page)
    shown = html(page)
    for heading in ("Recommended", "Doses of equal value", "What moved the recommendation", "The most similar"):
        assert heading in shown
    assert shown.count('class="doses"') == 2
    assert "Most informative next" in texts(page) or "was measured within" in texts(page)
    page.run()
    cards = [entry for entry in entries(run, told) if entry.kind == "card"]
    assert len(cards) == 1
    assert cards[0].body["output"]["recommendation"] is not None
    assert f"Card {cards[0].card}" in texts(page)


def test_scrubbing_to_a_patient_without_any_measurement_shows_no_dose_and_nothing_later(
    run: Path, enter: Open, told: Path
) -> None:
    page = open_patient(enter(run), view.SHOW[1])
    page.select_slider(key="now").set_value(0.0).run()
    assert not page.exception
    assert "Decision 0 h after the start" in texts(page)
    assert "No dose yet: this is the first decision." in texts(page)
    assert "Gate: data freshness" in texts(page), "nothing is measured yet"
    assert all(name in texts(page) for name in view.SIGNALS.values())
    assert "Recommended" not in html(page)
    subjects = [entry.subject for entry in entries(run, told) if entry.kind == "card"]
    assert len(subjects) == 2
    assert str(subjects[1]).endswith("@0")


def test_an_abstention_names_its_gate_and_what_would_lift_it_and_asks_no_answer(run: Path, enter: Open) -> None:
    page = open_patient(enter(run), view.SHOW[2])
    assert "Suture abstains" in texts(page)
    assert "Gate: " in texts(page)
    assert "What would lift it: " in texts(page)
    assert "Recommended" not in html(page)
    assert not [one for one in page.radio if str(one.key).startswith("answer_")]


def test_every_answer_is_kept_with_its_card(run: Path, enter: Open, told: Path) -> None:
    page = open_patient(enter(run), view.SHOW[1])
    number = answer(page, "fluid", "modify")
    page.number_input(key=f"value_fluid_{number}").set_value(250.0)
    page.button(key=f"record_fluid_{number}").click().run()
    assert "IV fluid: recorded." in texts(page)
    answer(page, "vasopressor", "reject")
    page.button(key=f"record_vasopressor_{number}").click().run()
    assert "Not recorded: Vasopressor: choose a reason" in texts(page)
    page.selectbox(key=f"reason_vasopressor_{number}").set_value("patient-contraindication")
    page.text_area(key=f"note_vasopressor_{number}").set_value("![x](http://evil.example/y.png) \u202e")
    page.button(key=f"record_vasopressor_{number}").click().run()
    answer(page, "fluid", "defer")
    page.selectbox(key=f"recheck_fluid_{number}").set_value(2.0)
    page.button(key=f"record_fluid_{number}").click().run()
    kept = [entry for entry in entries(run, told) if entry.kind == "response"]
    assert [entry.body["answer"] for entry in kept] == ["modify", "reject", "defer"]
    assert {entry.card for entry in kept} == {number}
    assert kept[0].body["value"] == 250.0
    assert kept[1].body["reason"] == "patient-contraindication"
    assert "⟨U+202E⟩" in html(page)
    assert not page.markdown, "what somebody typed is never read as markdown"


def test_two_clinicians_on_one_patient_are_both_kept_and_see_each_other(run: Path, enter: Open, told: Path) -> None:
    for name, word in (("Dr A", "follow"), ("Dr B", "follow")):
        page = open_patient(enter(run, name=name), view.SHOW[1])
        number = answer(page, "fluid", word)
        page.button(key=f"record_fluid_{number}").click().run()
    kept = [entry for entry in entries(run, told) if entry.kind == "response"]
    assert [entry.actor.name for entry in kept] == ["Dr A", "Dr B"]
    assert len({entry.card for entry in kept}) == 2
    assert len({entry.subject for entry in kept}) == 1
    assert html(page).count("<td>Dr A</td>") == html(page).count("<td>Dr B</td>") == 1


def test_commit_first_hides_the_card_until_a_dose_is_stated(run: Path, enter: Open, told: Path) -> None:
    told.write_text(told.read_text() + "commit_first: true\n")
    page = open_patient(enter(run), view.SHOW[1])
    assert "First, your own dose" in texts(page)
    assert "Recommended" not in html(page)
    assert "doses" not in [one for one in html(page).split('"') if one == "doses"]
    page.button(key="commit").click().run()
    assert "State a dose of both drugs" in texts(page)
    assert not [entry for entry in entries(run, told) if entry.kind in {"card", "intent"}]
    page.number_input(key="intent_fluid").set_value(500.0)
    page.number_input(key="intent_vasopressor").set_value(0.1)
    page.button(key="commit").click().run()
    assert "Recommended" in html(page)
    assert [entry.kind for entry in entries(run, told)][-2:] == ["intent", "card"]


def test_a_data_scientist_sees_the_card_and_cannot_answer_it(run: Path, enter: Open) -> None:
    page = open_patient(enter(run, "data scientist"), view.SHOW[1])
    assert "Recommended" in html(page)
    assert not [one for one in page.radio if str(one.key).startswith("answer_")]
    page.radio(key="page").set_value("Exports").run()
    assert "Nobody has answered a card yet" in texts(page)


def test_answers_can_be_exported(run: Path, enter: Open) -> None:
    page = open_patient(enter(run), view.SHOW[1])
    number = answer(page, "fluid", "follow")
    page.button(key=f"record_fluid_{number}").click().run()
    page = enter(run, "data scientist")
    page.radio(key="page").set_value("Exports").run()
    assert not page.exception
    assert "1 responses" in texts(page)
    assert "0 preferences; left out: no other dose stated 1" in texts(page)


def test_the_auditor_sees_the_log_checks_it_and_makes_a_card_again(run: Path, enter: Open, told: Path) -> None:
    open_patient(enter(run), view.SHOW[1])
    page = enter(run, "auditor")
    page.radio(key="page").set_value("Audit log").run()
    assert titles(page) == ["Audit log"]
    assert page.dataframe[0].value["Kind"].tolist() == ["sign_in", "card", "sign_in", "model", "opened"]
    page.button(key="check").click().run()
    assert "All 5 entries follow each other" in texts(page)
    page.button(key="replay").click().run()
    assert "the same, byte for byte" in texts(page)
    assert len(entries(run, told)) == 5


def test_an_evaluation_without_enough_evidence_stands_above_every_page(run: Path, enter: Open) -> None:
    assert "insufficient evidence" in texts(enter(run))


def test_a_refused_evaluation_shows_no_dose_anywhere(run: Path, enter: Open, tmp_path: Path) -> None:
    page = enter(small_run.with_evaluation(run, tmp_path / "run", {"verdict/verdict": gates.REFUSED}))
    assert "Evaluation: refused. No dose is shown" in texts(page)
    page.select_slider(key="hour").set_value(8.0).run()
    assert "recommendation" not in set(page.dataframe[0].value["Suture"])
    page.button(key="open").click().run()
    assert "Recommended" not in html(page)
    assert "Gate: evaluation" in texts(page)


def test_without_a_run_the_page_says_what_to_do_and_shows_nothing_else(enter: Open) -> None:
    page = enter(None, role=None)
    assert view.NOTICE in html(page)
    assert titles(page) == ["There is no run to show"]
    assert "suture run" in page.code[0].value
    assert not page.text_input


def test_a_damaged_run_is_a_plain_page_and_a_mended_one_opens_without_a_restart(
    run: Path, enter: Open, tmp_path: Path
) -> None:
    out = small_run.with_evaluation(run, tmp_path / "run", {})
    file = out / "ope" / "evaluation.json"
    whole = file.read_bytes()
    file.write_text("{}")
    page = enter(out, role=None)
    assert titles(page) == ["This run fails verification"]
    file.write_bytes(whole)
    page.run()
    assert titles(page) == ["Who are you?"]


def test_wrong_settings_are_a_plain_page(run: Path, enter: Open, told: Path) -> None:
    told.write_text("colour: red\n")
    page = enter(run, role=None)
    assert titles(page) == ["The app's settings are wrong"]
    assert "colour: unknown key" in texts(page)


def test_a_locked_log_shows_the_patient_and_no_dose(run: Path, enter: Open, told: Path) -> None:
    page = enter(run)
    page.select_slider(key="hour").set_value(8.0)
    page.selectbox(key="show").set_value(view.SHOW[1]).run()
    log = log_of(run, told)
    with log._turn():
        page.button(key="open").click().run()
    log.close()
    assert "The audit log cannot be written" in texts(page)
    assert "No dose is shown that cannot be logged" in texts(page)
    assert "Recommended" not in html(page)
    assert 'class="doses"' not in html(page)
    assert "charts" in html(page), "the patient's data can still be looked at"
    page.run()
    assert "Recommended" in html(page), "the next look shows it"
    assert len([entry for entry in entries(run, told) if entry.kind == "card"]) == 1


def test_a_log_that_cannot_be_opened_shows_the_patient_and_no_dose(run: Path, enter: Open, tmp_path: Path) -> None:
    (tmp_path / "audit.db").write_text("not a database, but long enough to be looked at as one" * 20)
    page = enter(run)
    page.select_slider(key="hour").set_value(8.0).run()
    page.button(key="open").click().run()
    assert "The audit log cannot be used" in texts(page)
    assert "Recommended" not in html(page)
    assert "Stay " in texts(page)


def test_an_answer_to_a_card_of_a_replaced_model_is_refused(run: Path, enter: Open, told: Path, tmp_path: Path) -> None:
    out = small_run.with_evaluation(run, tmp_path / "run", {})
    page = open_patient(enter(out), view.SHOW[1])
    number = answer(page, "fluid", "follow")
    (out / "ope").rename(tmp_path / "before")
    other = small_run.with_evaluation(run, tmp_path / "other", {"verdict/binding/reason": "another reason"})
    (other / "ope").rename(out / "ope")
    RunDirectory(out).seal()
    page.button(key=f"record_fluid_{number}").click().run()
    assert "this card is stale" in texts(page)
    kinds = [entry.kind for entry in entries(out, told)]
    assert "response" not in kinds
    assert kinds.count("model") == 2
    assert kinds.count("card") == 2, "the new card is another card"


def test_the_argument_comes_before_the_environment() -> None:
    assert main.run_argument(["a"], "b") == Path("a")
    assert main.run_argument([], "b") == Path("b")
    assert main.run_argument([], None) is None


def test_with_a_sign_in_service_nobody_enters_by_giving_a_name(run: Path, enter: Open, told: Path) -> None:
    told.write_text(told.read_text() + "access: {oidc: secrets.toml, roles: {a@b.org: clinician}}\n")
    page = enter(run, role=None)
    assert titles(page) == ["Sign in"]
    assert [button.label for button in page.button] == ["Sign in"]
    assert not page.text_input
    assert not page.dataframe


@pytest.mark.parametrize(
    ("claims", "refused"),
    [
        ({"email_verified": True}, None),
        ({"email_verified": False}, "the provider has not verified the address"),
        ({"email": "stranger@b.org"}, "no role is listed for the address"),
        ({"email": None}, "no role is listed for the address"),
        ({"iat": time.time() - 13 * 3600}, "signed in more than 12 h ago"),
    ],
)
def test_who_is_signed_in_enters_with_the_listed_role_and_nobody_else(
    run: Path, enter: Open, told: Path, monkeypatch: pytest.MonkeyPatch, claims: dict[str, object], refused: str | None
) -> None:
    told.write_text(told.read_text() + "access: {oidc: secrets.toml, roles: {a@b.org: auditor}}\n")
    says = {"is_logged_in": True, "email": "A@b.org", "iat": time.time() - 3600, **claims}
    monkeypatch.setattr("streamlit.user", says)
    page = enter(run, role=None)
    page.run()
    assert titles(page) == ([access.PAGES["auditor"][0]] if refused is None else ["You may not enter"])
    assert refused is None or refused in texts(page)
    (signed,) = (entry for entry in entries(run, told) if entry.kind == "sign_in")
    assert signed.actor.name == (says["email"] or "")
    assert signed.body == {"by": "OpenID Connect"} | ({"refused": refused} if refused else {})


def test_a_file_that_nobody_reads_closes_the_run_too_once_it_was_looked_at(
    run: Path, enter: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    shutil.copytree(run, out)
    file = out / "policy" / "bc" / "policy.json"
    file.write_bytes(file.read_bytes() + b" ")
    page = enter(out)
    for _ in range(100):
        if titles(page) == ["This run fails verification"]:
            break
        time.sleep(0.1)
        page.run()
    assert titles(page) == ["This run fails verification"]
    assert "policy.json" in texts(page)
    assert not page.dataframe
    monkeypatch.setattr(study, "open_study", lambda *_: pytest.fail("a closed run is read whole at every look"))
    page.run()
    assert titles(page) == ["This run fails verification"]
    assert not page.exception
