"""The auditor's, data scientist's and lab pages in a real browser: each control of the lab, axe, and printing."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.view_lab import EXPERIMENTS
from tests import small_run
from tests.app import browsing
from tests.app.test_app_browser import enter, problems

pytestmark = browsing.NEEDS_CHROMIUM
CONTROLS: dict[str, tuple[str, ...]] = {
    "gridworld": ("Discount γ", "Reward of each step"),
    "rounds": ("Logged episodes",),
    "stitching": ("Expectile τ",),
    "overestimation": ("Error of one guess ε", "Discount γ"),
    "filter": ("Keep the best k%",),
    "temperature": ("Temperature α",),
    "expectile": ("Expectile τ",),
    "preferences": ("Of 10, B preferred to A", "Of 10, B preferred to C", "Leash β"),
}
SHOWN = "[...document.querySelectorAll('.report img.drawn, .world, .plain')].map(e => e.src || e.textContent).join('|')"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    run = small_run.shared(tmp_path_factory.getbasetemp())
    folder = tmp_path_factory.mktemp("settings")
    told = folder / "app.yaml"
    told.write_text(f"audit: {{url: 'sqlite:///{folder}/audit.db', head: {folder}/head, key: {folder}/key}}\n")
    with browsing.served(run, told, tmp_path_factory.mktemp("state")) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with browsing.chromium() as started:
        yield started


def go(page: Any, name: str) -> None:
    page.get_by_text(name, exact=True).first.click()
    page.get_by_role("heading", name=name, level=1).wait_for()


def choose(page: Any, name: str) -> None:
    """Open an experiment of the lab."""
    if page.get_by_role("heading", name=EXPERIMENTS[name].title, level=2).count():
        return
    box = page.get_by_role("combobox").first
    box.click()
    box.fill(EXPERIMENTS[name].title)  # the list draws only the options in sight
    page.get_by_role("option", name=EXPERIMENTS[name].title, exact=True).click()
    page.get_by_role("heading", name=EXPERIMENTS[name].title, level=2).wait_for()


def changed(page: Any, before: str) -> None:
    page.wait_for_function(f"before => ({SHOWN}) !== before", arg=before)


def test_the_auditor_reads_the_verdict_prints_it_and_nobody_else_is_asked_for_anything(
    browser: Any, address: str, tmp_path: Path
) -> None:
    with browsing.visiting(browser) as visit:
        page = visit.page
        enter(page, address, role="auditor")
        page.get_by_text("Binding constraint").wait_for()
        page.get_by_role("heading", name="Hazards").wait_for()
        page.pdf(path=str(tmp_path / "printed.pdf"), format="A4")
        assert (tmp_path / "printed.pdf").read_bytes().count(b"/Type /Page\n") >= 4, "all of it, not one screen"
        go(page, "Lab")
        choose(page, "expectile")
        before = page.evaluate(SHOWN)
        page.get_by_role("slider", name="Expectile τ").press("End")
        changed(page, before)
        page.get_by_text("V = 7.92 at τ = 0.99").wait_for()
        assert {one.split("/")[2] for one in visit.requested if one.startswith("http")} == {address.split("/")[2]}
        assert visit.complaints == []


@pytest.mark.slow
def test_moving_any_control_of_the_lab_changes_its_picture(browser: Any, address: str) -> None:
    with browsing.visiting(browser) as visit:
        page = visit.page
        enter(page, address, role="auditor")
        go(page, "Lab")
        for name, labels in CONTROLS.items():
            choose(page, name)
            for label in labels:
                before = page.evaluate(SHOWN)
                slider = page.get_by_role("slider", name=label)
                slider.press("Home")
                changed(page, before)
        choose(page, "overestimation")
        before = page.evaluate(SHOWN)
        page.get_by_role("button", name="Run").click()
        changed(page, before)
        choose(page, "break")
        for label in ("Remove conservatism", "Remove stitching", "Remove advantage weighting"):
            before = page.evaluate(SHOWN)
            page.get_by_text(label, exact=True).click()
            changed(page, before)
        choose(page, "gridworld")
        page.locator(".world td").first.hover()
        page.wait_for_function("getComputedStyle(document.querySelector('.world td .q')).opacity === '1'")
        assert visit.complaints == []


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_wrong_on_the_pages_of_auditor_and_data_scientist(
    browser: Any, address: str, scheme: str
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed").Axe()
    with browsing.visiting(browser, scheme) as visit:
        page = visit.page
        enter(page, address, role="auditor")
        page.get_by_role("heading", name="Downloads").wait_for()
        found = {"Evaluation": problems(axe, page)}
        page.get_by_role("button", name="Leave").click()
        page.get_by_label("Name").wait_for()
        enter(page, address, role="data scientist")
        for name in ("Cohort", "One stay", "Training", "Lab"):
            go(page, name)
            page.wait_for_timeout(2500)
            found[name] = problems(axe, page)
        for name in EXPERIMENTS:
            choose(page, name)
            page.wait_for_timeout(500)
            found[f"Lab: {name}"] = problems(axe, page)
        assert not any(found.values()), found
