"""The report opened by an auditor who has nothing else: it checks itself, shows where a number is from, and sorts."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ope import report
from tests import small_run
from tests.app import browsing
from tests.app.browsing import Visit

pytestmark = browsing.NEEDS_CHROMIUM


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return report.render(report.document(small_run.shared(tmp_path_factory.getbasetemp())))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with browsing.chromium() as started:
        yield started


@pytest.fixture
def visit(browser: Any) -> Iterator[Visit]:
    with browsing.visiting(browser) as seen:
        yield seen


def opened(visit: Visit, file: Path, page: str) -> Any:
    """The page in the browser, once it has checked itself."""
    file.write_text(page, encoding="utf-8")
    visit.page.goto(file.as_uri())
    visit.page.wait_for_selector("html[data-self-check]")
    return visit.page


def test_the_page_compares_its_numbers_with_its_data_and_these_with_their_digest(
    visit: Visit, page: str, tmp_path: Path
) -> None:
    seen = opened(visit, tmp_path / "report.html", page)
    said = seen.inner_text("#self-check")
    assert re.search(r"✓ Checked just now, by this page: \d{3,} printed values agree", said)
    assert "their digest is right" in said
    assert visit.complaints == []


@pytest.mark.parametrize("attribute", [False, True])
def test_one_changed_number_is_found_and_marked(visit: Visit, page: str, tmp_path: Path, attribute: bool) -> None:
    pattern = r'<data value="\d+" (data-at="ope/evaluation.json#/cohort/patients")>\d+'
    replacement = r'<data value="99" \1>99' if attribute else r'<data value="30" \1>99'
    changed = re.sub(pattern, replacement, page, count=1)
    assert changed != page
    seen = opened(visit, tmp_path / "report.html", changed)
    assert seen.get_attribute("html", "data-self-check") == "failed"
    assert "✗ 1 of" in seen.inner_text("#self-check")
    assert seen.locator("data.wrong").inner_text() == "99"


def test_changed_data_are_found_by_their_digest(visit: Visit, page: str, tmp_path: Path) -> None:
    changed = page.replace('"schema":"suture-report/1"', '"schema":"suture-report/2"')
    seen = opened(visit, tmp_path / "report.html", changed)
    assert seen.get_attribute("html", "data-self-check") == "failed"
    assert "THEIR DIGEST IS WRONG" in seen.inner_text("#self-check")


def test_a_number_shows_its_file_its_field_and_the_file_s_hash(visit: Visit, page: str, tmp_path: Path) -> None:
    seen = opened(visit, tmp_path / "report.html", page)
    seen.locator('[data-at="ope/evaluation.json#/cohort/patients"]').first.click()
    shown = seen.inner_text("#origin")
    assert "File ope/evaluation.json" in shown
    assert "Field /cohort/patients" in shown
    assert re.search(r"SHA-256 [0-9a-f]{64}", shown)
    assert """jq '.["cohort"]["patients"]' ope/evaluation.json""" in shown
    seen.keyboard.press("Escape")
    assert not seen.locator("#origin").is_visible()


def test_a_table_sorts_by_a_column_s_numbers(visit: Visit, page: str, tmp_path: Path) -> None:
    seen = opened(visit, tmp_path / "report.html", page)
    table = seen.locator('[aria-label="Overlap"] table')
    head = table.locator("thead button").nth(5)
    for order, wanted in (("ascending", 1), ("descending", -1)):
        head.click()
        assert table.locator("thead th").nth(5).get_attribute("aria-sort") == order
        shares = [float(cell.inner_text().rstrip("%")) for cell in table.locator("tbody tr td:last-child").all()]
        assert len(shares) == 5
        assert shares == sorted(shares)[::wanted]
