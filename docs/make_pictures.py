"""Makes the README's pictures from the real pages of a finished run: python docs/make_pictures.py runs/demo."""

import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from app import serve
from app.run import REPORT

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
OUT = Path(__file__).with_name("pictures")


def main(run: Path) -> None:
    """Write docs/pictures/report.png, app.png and lab.png."""
    OUT.mkdir(exist_ok=True)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        picture_of_the_report(browser, run)
        with served(run) as address:
            picture_of_the_app(browser, address)
            picture_of_the_lab(browser, address)
        browser.close()
    print(f"wrote report.png, app.png and lab.png below {OUT}")


def picture_of_the_report(browser: Browser, run: Path) -> None:
    """The report's first screen."""
    page = browser.new_page(viewport={"width": 1180, "height": 860}, color_scheme="light")
    page.goto((run / REPORT / "report.html").resolve().as_uri())
    page.screenshot(path=OUT / "report.png")
    page.close()


def picture_of_the_app(browser: Browser, address: str) -> None:
    """The first patient of the list, sickest first."""
    page = entered(browser, address, "clinician", 1180)
    page.get_by_role("button", name="Open patient").click()
    page.get_by_role("heading", name="Patient", level=1).wait_for(timeout=120_000)
    page.get_by_text("Course until this decision").wait_for(timeout=60_000)
    page.wait_for_timeout(3_000)  # what stands below the card is drawn after it
    page.screenshot(path=OUT / "app.png")
    page.close()


def picture_of_the_lab(browser: Browser, address: str) -> None:
    """The expectile between the mean and the largest value."""
    page = entered(browser, address, "auditor", 1060)
    page.get_by_text("Lab", exact=True).first.click()
    page.get_by_role("heading", name="Lab", level=1).wait_for(timeout=60_000)
    page.get_by_role("combobox").first.click()
    page.get_by_role("option", name="Expectile", exact=True).click()
    page.get_by_role("heading", name="Expectile", level=2).wait_for()
    page.wait_for_timeout(1_500)
    page.screenshot(path=OUT / "lab.png")
    page.close()


def entered(browser: Browser, address: str, role: str, height: int) -> Page:
    """A new page of the app, signed in."""
    page = browser.new_page(viewport={"width": 1280, "height": height}, color_scheme="light")
    page.goto(address)
    page.get_by_label("Name").fill("Ada", timeout=120_000)
    page.get_by_label("Name").press("Tab")
    page.get_by_text(role, exact=True).click()
    page.get_by_role("button", name="Enter").click()
    page.get_by_text(f"Ada, {role}").wait_for(timeout=60_000)
    return page


@contextmanager
def served(run: Path) -> Iterator[str]:
    """The page of a run, served until the block ends; gives its address."""
    with socket.socket() as free:
        free.bind((serve.ADDRESS, 0))
        port = free.getsockname()[1]
    address = f"http://{serve.ADDRESS}:{port}"
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(
            serve.command(run, port, settings_without_trace(Path(folder))),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as server,
    ):
        try:
            wait_until_healthy(address, server)
            yield address
        finally:
            server.terminate()


def settings_without_trace(folder: Path) -> Path:
    """Settings whose audit log goes with the folder: looking for a picture leaves nothing beside the run."""
    file = folder / "app.yaml"
    file.write_text(f"audit: {{url: 'sqlite:///{folder}/audit.db', head: {folder}/head, key: {folder}/key}}\n")
    return file


def wait_until_healthy(address: str, server: "subprocess.Popen[bytes]", seconds: float = 120) -> None:
    """Return once the server answers.

    Raises:
        TimeoutError: it ended, or did not answer in time.
    """
    last = time.monotonic() + seconds
    while server.poll() is None and time.monotonic() < last:
        try:
            with urllib.request.urlopen(f"{address}/_stcore/health", timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.5)
    raise TimeoutError(f"{address}: the page did not answer within {seconds:g} s")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python docs/make_pictures.py RUN")
    main(Path(sys.argv[1]))
