"""The auditor's, data scientist's and lab pages in a real browser: each control of the lab, axe, and printing."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.view_lab import EXPERIMENTS
from tests import small_run
from tests.app import browsing
from tests.app.test_app_browser import enter, problems

pytestmark = browsing.NEEDS_CHROMIUM
LOWER, HIGHER = -1, 1
SLIDERS: tuple[tuple[str, str, str, int], ...] = (
    ("gridworld", "Discount γ", r"the last square\s+(-?[0-9.]*[0-9])", LOWER),
    ("gridworld", "Reward of each step", r"the last square\s+(-?[0-9.]*[0-9])", LOWER),
    ("rounds", "Logged episodes", r"offline ([0-9.]*[0-9])", LOWER),
    ("stitching", "Expectile τ", r"V\(s1\) is ([0-9.]*[0-9])", LOWER),
    ("overestimation", "Error of one guess ε", r"the limit ε/\(1−γ\) is ([0-9.]*[0-9])", LOWER),
    ("overestimation", "Discount γ", r"the limit ε/\(1−γ\) is ([0-9.]*[0-9])", LOWER),
    ("filter", "Keep the best k%", r"promises ([0-9.]*[0-9])", HIGHER),
    ("temperature", "Temperature α", r"as if ([0-9.]*[0-9]) of", LOWER),
    ("expectile", "Expectile τ", r"V = ([0-9.]*[0-9])", LOWER),
    ("preferences", "Of 10, B preferred to C", r"DPO gives dose B ([0-9]+)%", LOWER),
    ("preferences", "Of 10, B preferred to A", r"DPO gives dose B ([0-9]+)%", LOWER),
    ("preferences", "Leash β", r"DPO gives dose B ([0-9]+)%", LOWER),
)
"""Experiment, its slider, the number that it moves, and which way where the slider goes to its lowest value."""
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


def words(page: Any) -> str:
    return str(page.inner_text("body"))


def number(page: Any, pattern: str) -> float:
    """What the page says, once it says it."""
    for _ in range(browsing.WAIT_MS // 100):
        found = re.search(pattern, words(page))
        if found is not None:
            return float(found.group(1))
        page.wait_for_timeout(100)
    pytest.fail(f"{pattern}: not on the page")


def moved(page: Any, pattern: str, before: float, way: int) -> None:
    """Wait until the number is on that side of what it was."""
    for _ in range(browsing.WAIT_MS // 100):
        if (number(page, pattern) - before) * way > 0:
            return
        page.wait_for_timeout(100)
    pytest.fail(f"{pattern}: {number(page, pattern)} after {before}")


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
        hash_again = page.get_by_role("button", name="Hash everything again")
        assert hash_again.is_visible()
        page.emulate_media(media="print")
        assert not hash_again.is_visible(), "on paper nothing can be clicked"
        assert page.get_by_role("heading", name="Sensitivity").is_visible()
        page.emulate_media(media="screen")
        go(page, "Lab")
        choose(page, "expectile")
        before = page.evaluate(SHOWN)
        page.get_by_role("slider", name="Expectile τ").press("End")
        changed(page, before)
        page.get_by_text("V = 7.92 at τ = 0.99").wait_for()
        assert {one.split("/")[2] for one in visit.requested if one.startswith("http")} == {address.split("/")[2]}
        assert visit.complaints == []


@pytest.mark.slow
def test_moving_any_control_of_the_lab_changes_its_picture_the_way_the_guide_says(browser: Any, address: str) -> None:
    with browsing.visiting(browser) as visit:
        page = visit.page
        enter(page, address, role="auditor")
        go(page, "Lab")
        for name, label, pattern, way in SLIDERS:
            choose(page, name)
            before, said = page.evaluate(SHOWN), number(page, pattern)
            page.get_by_role("slider", name=label).press("Home")
            changed(page, before)
            moved(page, pattern, said, way)
        choose(page, "stitching")
        page.get_by_text("Imitation goes s1 → s3 → s5").wait_for()
        page.get_by_text("With a third trajectory", exact=False).first.click()
        page.get_by_text("Imitation goes s1 → s2 → reward 5; stitching goes s1 → s3 → s6").wait_for()
        choose(page, "overestimation")
        before, said = page.evaluate(SHOWN), number(page, r"has become ([0-9.]*[0-9])")
        page.get_by_role("button", name="Run").click()
        changed(page, before)
        moved(page, r"has become ([0-9.]*[0-9])", said, HIGHER)
        page.get_by_role("button", name="Begin again").click()
        page.get_by_text("After 0 backups").wait_for()
        choose(page, "break")
        for part in ("conservatism", "stitching", "advantage weighting"):
            before = page.evaluate(SHOWN)
            page.get_by_text(f"Remove {part}", exact=True).click()
            changed(page, before)
            page.get_by_text(re.compile(rf"reaches .*; without {part} ")).wait_for()
            told = re.search(rf"reaches (-?[0-9.]+[0-9]); without {part} .*? reaches (-?[0-9.]+[0-9])", words(page))
            assert told is not None
            assert float(told.group(1)) > float(told.group(2))
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
