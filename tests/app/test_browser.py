"""The report in a real browser: it needs nothing but itself, prints no error, and fits the screen."""

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
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_run.shared(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with browsing.chromium() as started:
        yield started


@pytest.fixture
def visit(browser: Any) -> Iterator[Visit]:
    with browsing.visiting(browser) as seen:
        yield seen


@pytest.mark.parametrize("width", [1280, 390])
def test_the_report_needs_nothing_but_itself_and_fits_the_screen(
    visit: Visit, run: Path, tmp_path: Path, width: int
) -> None:
    file = tmp_path / "report.html"
    file.write_text(report.render(report.document(run)), encoding="utf-8")
    page = visit.page
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(file.as_uri())
    assert page.get_by_role("heading", level=1).is_visible()
    assert page.locator("#verdict").is_visible()
    assert visit.requested == [file.as_uri()]
    assert visit.complaints == []
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_the_report_prints_within_thirty_pages(visit: Visit, run: Path, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text(report.render(report.document(run)), encoding="utf-8")
    visit.page.goto(file.as_uri())
    printed = visit.page.pdf(format="A4")
    assert 2 <= printed.count(b"/Type /Page\n") + printed.count(b"/Type /Page ") <= 30
