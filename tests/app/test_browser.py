"""The page and the report in a real browser: they work, ask nobody else for anything, and print no error."""

import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from app import serve, view
from ope import report
from tests import small_run

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is not installed"),
]
playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")


@dataclass
class Visit:
    """A page and what it did while it was looked at."""

    page: "playwright.Page"
    requested: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_run.shared(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def address(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as free:
        free.bind((serve.ADDRESS, 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log"
    with log.open("w") as output, subprocess.Popen(serve.command(run, port), stdout=output, stderr=output) as server:
        url = f"http://{serve.ADDRESS}:{port}"
        try:
            wait_until_healthy(url, server)
            yield url
        finally:
            server.terminate()
            server.wait(30)


def wait_until_healthy(url: str, server: "subprocess.Popen[bytes]") -> None:
    for _ in range(240):
        assert server.poll() is None, "the server ended"
        try:
            with urllib.request.urlopen(f"{url}/_stcore/health", timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.5)
    pytest.fail("the server did not answer within two minutes")


@pytest.fixture(scope="module")
def browser() -> Iterator["playwright.Browser"]:
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture
def visit(browser: "playwright.Browser") -> Iterator[Visit]:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    seen = Visit(page)
    page.on("request", lambda request: seen.requested.append(request.url))
    page.on("console", lambda message: seen.complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: seen.complaints.append(str(error)))
    yield seen
    page.close()


def test_the_app_leads_from_the_list_to_a_patient_and_asks_nobody_else(visit: Visit, address: str) -> None:
    page = visit.page
    page.goto(address)
    page.get_by_role("heading", name="Course until this decision").wait_for(timeout=120_000)
    page.locator("canvas.marks, svg.marks").first.wait_for(timeout=60_000)
    page.locator("table.doses td").first.wait_for(timeout=60_000)
    first = page.get_by_text("Stay 3").first.inner_text()
    page.get_by_label("Order").click()
    page.get_by_role("option", name="stay id").click()
    page.get_by_text("Stay 3").first.filter(has_not_text=first.splitlines()[0]).wait_for(timeout=60_000)
    assert page.get_by_text(view.NOTICE).is_visible()
    assert all(url.startswith((address, "data:", "blob:")) for url in visit.requested), visit.requested
    assert visit.complaints == []


def test_the_apps_notice_stays_in_sight_when_scrolled(visit: Visit, address: str) -> None:
    page = visit.page
    page.goto(address)
    page.get_by_role("heading", name="Course until this decision").wait_for(timeout=120_000)
    page.get_by_test_id("stMain").evaluate("element => element.scrollTo(0, element.scrollHeight)")
    page.wait_for_timeout(300)
    box = page.get_by_text(view.NOTICE).bounding_box()
    assert box is not None
    assert 0 <= box["y"] < 900


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
