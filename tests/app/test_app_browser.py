"""The app in a real browser: what a clinician does, what nobody may do, and what every reader can reach."""

import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin, Subprotocol

from app import access, card, server, settings, study, view
from app.audit_log import AuditLog, Entry
from app.run_directory import RunDirectory
from app.study import HOUR, Study
from tests import small_run
from tests.app import browsing
from tests.app.browsing import Visit

pytestmark = browsing.NEEDS_CHROMIUM
SLOW = pytest.mark.slow
GATES = (
    "data freshness",
    pytest.param("state density", marks=SLOW),
    pytest.param("action support", marks=SLOW),
    "hazard rule",
)
FOCUSED = """(() => {
  const focused = document.activeElement;
  if (!focused || focused === document.body) return "";
  const words = (focused.getAttribute("aria-labelledby") || "").split(" ").map(
    name => (document.getElementById(name) || {}).textContent || "");
  const own = focused.tagName === "BUTTON" ? focused.innerText : "";
  return [focused.getAttribute("aria-label") || "", ...words, own].join(" ");
})()"""
STREAM = [Subprotocol("streamlit")]
EVIL = "<img src=x onerror=alert(1)>![y](http://evil.example/y.png)\u202e"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of this module's own: its last test replaces its evaluation."""
    shared = small_run.shared(tmp_path_factory.getbasetemp())
    return small_run.with_evaluation(shared, tmp_path_factory.mktemp("browser") / "run", {})


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("settings")
    path = folder / "app.yaml"
    path.write_text(f"audit: {{url: 'sqlite:///{folder}/audit.db', head: {folder}/head, key: {folder}/key}}\n")
    return path


@pytest.fixture(scope="module")
def address(run: Path, told: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with browsing.served(run, told, tmp_path_factory.mktemp("state")) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with browsing.chromium() as started:
        yield started


@pytest.fixture
def visit(browser: Any) -> Iterator[Visit]:
    with browsing.visiting(browser) as seen:
        yield seen


@pytest.fixture(scope="module")
def opened(run: Path) -> Study:
    found = study.open_study(run)
    assert isinstance(found, Study), found
    return found


def enter(page: Any, address: str, role: str = "clinician", name: str = "Dr A") -> None:
    page.goto(address)
    page.get_by_label("Name").fill(name)
    page.get_by_label("Name").press("Tab")
    page.get_by_text(role, exact=True).click()
    page.get_by_role("button", name="Enter").click()
    first = access.PAGES[next(known for known in settings.ROLES if known == role)][0]
    page.get_by_role("heading", name=first, level=1).wait_for()


def open_stay(page: Any, stay: int, hour: float) -> None:
    """Find one stay on the worklist, open it, and scrub to a decision with the keyboard."""
    page.get_by_label("Find a stay by its id").fill(str(stay))
    page.get_by_label("Find a stay by its id").press("Enter")
    page.get_by_text("1 stays of the evaluation patients").wait_for()
    page.get_by_role("button", name="Open patient").click()
    page.get_by_role("heading", name="Patient", level=1).wait_for()
    page.get_by_text("Decision 8 h after the start").wait_for()
    if hour != 8.0:
        slide(page, f"{hour:g} h", "ArrowRight" if hour > 8.0 else "ArrowLeft")
    page.get_by_text(f"Decision {hour:g} h after the start").wait_for()


def reject_vasopressor(page: Any) -> None:
    """Answer the card on the page: no vasopressor, the patient has a contraindication."""
    page.get_by_role("radiogroup", name="Vasopressor: your answer").get_by_text("reject").click()
    page.get_by_role("combobox", name="Vasopressor: reason").fill("contraindication")
    page.get_by_role("option", name="Patient has contraindication").click()
    page.get_by_role("button", name="Record: Vasopressor").click()
    page.get_by_text("Vasopressor: recorded.").wait_for()


def at_eight(page: Any) -> None:
    """The worklist at 8 h: the slider is moved with the keyboard."""
    slide(page, "8 h", "ArrowLeft")
    page.get_by_text("decision at 8 h").wait_for()


def slide(page: Any, wanted: str, key: str) -> None:
    """Press an arrow until the slider says so; the page follows it later."""
    slider, said = page.get_by_role("slider").first, page.get_by_test_id("stSliderThumbValue").first
    said.wait_for()
    for _ in range(20):
        if said.inner_text() == wanted:
            return
        slider.press(key)
        page.wait_for_timeout(150)
    pytest.fail(f"the slider does not reach {wanted}")


def recommended(of: Study) -> int:
    """A stay with a dose at 8 h."""
    rows = view.worklist(of, 8.0, view.Filters(show=view.SHOW[1]))
    return int(rows["stay_id"].iloc[0])


def entries(run: Path, told: Path) -> list[Entry]:
    log = AuditLog(settings.place(run, settings.read(told).audit))
    found = log.entries()
    log.close()
    return found


def test_a_clinician_enters_finds_a_patient_and_answers_and_nobody_else_is_asked_for_anything(
    visit: Visit, address: str, run: Path, told: Path, opened: Study
) -> None:
    page = visit.page
    enter(page, address)
    at_eight(page)
    open_stay(page, recommended(opened), 8.0)
    page.locator("table.doses td.best").first.wait_for()
    page.locator(".charts figure").first.wait_for()
    page.get_by_role("radiogroup", name="IV fluid: your answer").get_by_text("follow").click()
    page.get_by_role("button", name="Record: IV fluid").click()
    page.get_by_text("IV fluid: recorded.").wait_for()
    page.get_by_role("radiogroup", name="Vasopressor: your answer").get_by_text("modify").click()
    page.get_by_label("Vasopressor instead").fill("0.15")
    page.get_by_label("Vasopressor instead").press("Tab")
    page.get_by_role("button", name="Record: Vasopressor").click()
    page.get_by_text("modify to 0.15 µg/kg/min").wait_for()
    kept = [entry.body["answer"] for entry in entries(run, told) if entry.kind == "response"]
    assert kept[-2:] == ["follow", "modify"]
    assert all(url.startswith((address, "data:", "blob:")) for url in visit.requested), visit.requested
    assert visit.complaints == []


@SLOW
def test_defer_and_reject_are_kept_with_their_reasons(
    visit: Visit, address: str, run: Path, told: Path, opened: Study
) -> None:
    page = visit.page
    enter(page, address)
    at_eight(page)
    open_stay(page, recommended(opened), 8.0)
    page.get_by_role("radiogroup", name="IV fluid: your answer").get_by_text("defer").click()
    page.get_by_role("button", name="Record: IV fluid").click()
    page.get_by_text("IV fluid: recorded.").wait_for()
    reject_vasopressor(page)
    last = [entry.body for entry in entries(run, told) if entry.kind == "response"][-2:]
    assert [one["answer"] for one in last] == ["defer", "reject"]
    assert last[0]["recheck_h"] == 0.5
    assert last[1]["reason"] == "patient-contraindication"


@pytest.mark.parametrize("gate", GATES)
def test_an_abstention_names_each_gate_and_shows_no_dose(visit: Visit, address: str, opened: Study, gate: str) -> None:
    decided = opened.decisions[opened.decisions["stay_id"].isin(_with_eight(opened))]
    at = [index for index, word in enumerate(view.said(opened, decided)) if word == f"abstains: {gate}"]
    if not at:
        pytest.skip(f"no decision of the small run abstains by {gate}")
    row = decided.iloc[at[0]]
    page = visit.page
    enter(page, address)
    at_eight(page)
    open_stay(page, int(row["stay_id"]), float(row[HOUR]))
    page.get_by_role("heading", name="Suture abstains").wait_for()
    assert page.get_by_text(f"Gate: {gate}").first.is_visible()
    assert page.get_by_text("What would lift it").first.is_visible()
    for gone in (
        page.get_by_role("columnheader", name="Recommended"),
        page.get_by_role("radiogroup", name="IV fluid: your answer"),
    ):
        gone.first.wait_for(state="detached")


def _with_eight(of: Study) -> set[int]:
    return set(of.decisions.loc[of.decisions[HOUR] == 8.0, "stay_id"])


def test_a_dose_is_committed_before_the_card_is_revealed(
    browser: Any, run: Path, told: Path, opened: Study, tmp_path: Path
) -> None:
    own = tmp_path / "app.yaml"
    own.write_text(told.read_text() + "commit_first: true\n")
    with browsing.served(run, own, tmp_path / "state") as address, browsing.visiting(browser) as visit:
        page = visit.page
        enter(page, address)
        at_eight(page)
        open_stay(page, recommended(opened), 8.0)
        page.get_by_role("heading", name="First, your own dose").wait_for()
        assert page.get_by_text("Recommended").count() == 0
        assert page.locator("table.doses").count() == 0
        page.get_by_label("IV fluid (mL per window)").fill("500")
        page.get_by_label("Vasopressor (µg/kg/min)").fill("0.1")
        page.get_by_label("Vasopressor (µg/kg/min)").press("Tab")
        page.get_by_role("button", name="Commit and reveal").click()
        page.get_by_role("columnheader", name="Recommended").first.wait_for()
        assert [entry.kind for entry in entries(run, told)][-2:] == ["intent", "card"]


@SLOW
def test_two_clinicians_on_one_patient_are_both_kept_and_neither_sees_the_others_session(
    browser: Any, address: str, run: Path, told: Path, opened: Study
) -> None:
    stay = recommended(opened)
    with browsing.visiting(browser) as one, browsing.visiting(browser) as two:
        for visit, name in ((one, "Dr One"), (two, "Dr Two")):
            enter(visit.page, address, name=name)
            at_eight(visit.page)
            assert visit.page.get_by_text("No patient is open").count() == 0
            open_stay(visit.page, stay, 8.0)
        for visit in (one, two):
            page = visit.page
            page.get_by_role("radiogroup", name="IV fluid: your answer").get_by_text("follow").click()
            page.get_by_role("button", name="Record: IV fluid").click()
            page.get_by_text("IV fluid: recorded.").wait_for()
        assert two.page.get_by_role("cell", name="Dr One").count() >= 1
        assert one.page.get_by_text("Dr One, clinician").is_visible()
        assert two.page.get_by_text("Dr Two, clinician").is_visible()
    kept = [entry for entry in entries(run, told) if entry.kind == "response"][-2:]
    assert [entry.actor.name for entry in kept] == ["Dr One", "Dr Two"]
    assert kept[0].card != kept[1].card
    assert kept[0].subject == kept[1].subject


def test_what_somebody_types_is_text_and_nothing_else(
    visit: Visit, address: str, run: Path, told: Path, opened: Study
) -> None:
    page = visit.page
    page.on("dialog", lambda dialog: pytest.fail(f"a dialog opened: {dialog.message}"))
    enter(page, address, name=EVIL)
    at_eight(page)
    page.get_by_label("Find a stay by its id").fill("9" * 10_000)
    assert len(page.get_by_label("Find a stay by its id").input_value()) <= 20
    page.get_by_label("Find a stay by its id").fill("9" * 20)
    page.get_by_label("Find a stay by its id").press("Enter")
    page.get_by_text("No stay has such a decision here").wait_for()
    open_stay(page, recommended(opened), 8.0)
    page.get_by_role("radiogroup", name="IV fluid: your answer").get_by_text("follow").click()
    page.get_by_label("IV fluid: note (optional)").fill(EVIL + "x" * 1500)
    page.get_by_label("IV fluid: note (optional)").press("Tab")
    page.get_by_role("button", name="Record: IV fluid").click()
    page.get_by_text("IV fluid: recorded.").wait_for()
    page.get_by_role("cell", name="⟨U+202E⟩").first.wait_for()
    assert page.locator("main img, [data-testid=stMain] img").count() == 0
    assert not [url for url in visit.requested if "evil" in url]
    assert "\u202e" not in page.get_by_test_id("stMain").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert [entry.actor.name for entry in entries(run, told) if entry.kind == "response"][-1] == EVIL


def test_everything_can_be_done_with_the_keyboard_alone(visit: Visit, address: str, run: Path, told: Path) -> None:
    page = visit.page
    page.goto(address)
    page.get_by_label("Name").wait_for()
    reach(page, "Name")
    page.keyboard.type("Dr Key")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    reach(page, "Enter")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Worklist", level=1).wait_for()
    page.get_by_role("button", name="Open patient").wait_for()
    reach(page, "Open patient")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Patient", level=1).wait_for()
    page.get_by_text("after the start").wait_for()
    before = len([entry for entry in entries(run, told) if entry.kind == "card"])
    reach(page, "Decision, hours since the start")
    page.keyboard.press("ArrowLeft")
    page.get_by_text("Decision 20 h after the start").wait_for()
    page.get_by_text("Course until this decision").wait_for()
    page.wait_for_timeout(500)
    assert len([entry for entry in entries(run, told) if entry.kind == "card"]) > before


def reach(page: Any, name: str) -> None:
    """Press Tab until the element of that name has the focus."""
    for _ in range(40):
        told = page.evaluate(FOCUSED)
        if told.strip().startswith(name):
            return
        page.keyboard.press("Tab")
    pytest.fail(f"{name} cannot be reached with the keyboard")


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=SLOW)])
def test_axe_finds_nothing_wrong_on_any_page(browser: Any, address: str, opened: Study, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed").Axe()
    with browsing.visiting(browser, scheme) as visit:
        page = visit.page
        page.goto(address)
        page.get_by_label("Name").wait_for()
        assert problems(axe, page) == []
        enter(page, address)
        at_eight(page)
        page.get_by_role("button", name="Open patient").wait_for()
        page.wait_for_timeout(1000)
        assert problems(axe, page) == []
        open_stay(page, recommended(opened), 8.0)
        page.get_by_role("radiogroup", name="IV fluid: your answer").get_by_text("reject").click()
        page.get_by_role("combobox", name="IV fluid: reason").wait_for()
        page.wait_for_timeout(500)
        assert problems(axe, page) == []
        page.get_by_role("button", name="Leave").click()
        page.get_by_label("Name").wait_for()
        enter(page, address, role="auditor")
        page.get_by_text("Audit log", exact=True).first.click()
        page.get_by_role("button", name="Make it again and compare").wait_for()
        page.wait_for_timeout(1000)
        assert problems(axe, page) == []
        enter(page, address, role="data scientist")
        page.get_by_text("Exports", exact=True).first.click()
        page.get_by_role("heading", name="Exports", level=1).wait_for()
        page.wait_for_timeout(500)
        assert problems(axe, page) == []


def problems(axe: Any, page: Any) -> list[str]:
    found = axe.run(page).response["violations"]
    return [
        f"{one['id']}: {node['target']} {node['html'][:120]} {node.get('failureSummary', '')[:200]}"
        for one in found
        for node in one["nodes"]
    ]


def test_every_answer_carries_the_headers_and_no_other_host_is_answered(address: str) -> None:
    with urllib.request.urlopen(address, timeout=20) as answer:
        for name, value in server.HEADERS.items():
            assert answer.headers[name] == value
        assert answer.headers["cache-control"] == "no-store"
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(urllib.request.Request(address, headers={"Host": "evil.example"}), timeout=20)


def test_a_page_of_another_origin_opens_no_socket(address: str) -> None:
    socket = address.replace("http", "ws") + "/_stcore/stream"
    for origin in ("http://evil.example", "http://127.0.0.1:1", "null"):
        with pytest.raises(InvalidStatus, match="403"), connect(socket, origin=Origin(origin), subprotocols=STREAM):
            pass
    with connect(socket, origin=Origin(address), subprotocols=STREAM) as opened:
        assert opened.subprotocol == "streamlit"


def test_the_notice_stays_in_sight_when_scrolled(visit: Visit, address: str, opened: Study) -> None:
    page = visit.page
    enter(page, address)
    at_eight(page)
    open_stay(page, recommended(opened), 8.0)
    page.locator("table.doses").first.wait_for()
    page.get_by_test_id("stMain").evaluate("element => element.scrollTo(0, element.scrollHeight)")
    page.wait_for_timeout(300)
    box = page.get_by_text(view.NOTICE).bounding_box()
    assert box is not None
    assert 0 <= box["y"] < 900


def test_a_card_of_a_replaced_model_takes_no_answer(
    visit: Visit, address: str, run: Path, told: Path, opened: Study, tmp_path: Path
) -> None:
    """The last test: it replaces the evaluation of the run that is served."""
    page = visit.page
    enter(page, address)
    at_eight(page)
    open_stay(page, recommended(opened), 8.0)
    page.get_by_role("radiogroup", name="IV fluid: your answer").get_by_text("follow").click()
    page.get_by_role("button", name="Record: IV fluid").wait_for()
    before = len([entry for entry in entries(run, told) if entry.kind == "response"])
    other = small_run.with_evaluation(run, tmp_path / "other", {"verdict/binding/reason": "another reason"})
    (run / "ope").rename(tmp_path / "before")
    (other / "ope").rename(run / "ope")
    RunDirectory(run).seal()
    page.get_by_role("button", name="Record: IV fluid").click()
    page.get_by_text("this card is stale").wait_for()
    after = entries(run, told)
    assert len([entry for entry in after if entry.kind == "response"]) == before
    assert [entry.kind for entry in after][-2:] == ["model", "card"]
    assert isinstance(card.make(opened, recommended(opened), 8.0), card.Card)
