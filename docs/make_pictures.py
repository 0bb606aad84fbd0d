"""Makes the README's pictures from the real pages of a finished run: python docs/make_pictures.py runs/demo."""

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from app import serve
from app.run import REPORT, REPORT_FILE

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
OUT = Path(__file__).with_name("pictures")
READY = "Course until this decision"


def main(run: Path) -> None:
    """Write docs/pictures/report.png and docs/pictures/app.png."""
    OUT.mkdir(exist_ok=True)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        picture_of_the_report(browser, run)
        with served(run) as address:
            picture_of_the_app(browser, address)
        browser.close()
    print(f"wrote {OUT}/report.png and {OUT}/app.png")


def picture_of_the_report(browser: Browser, run: Path) -> None:
    """The report's first screen."""
    page = browser.new_page(viewport={"width": 1180, "height": 860}, color_scheme="light")
    page.goto((run / REPORT / REPORT_FILE).resolve().as_uri())
    page.screenshot(path=OUT / "report.png")
    page.close()


def picture_of_the_app(browser: Browser, address: str) -> None:
    """The first patient of the list, sickest first."""
    page = browser.new_page(viewport={"width": 1280, "height": 1180}, color_scheme="light")
    page.goto(address)
    page.get_by_role("heading", name=READY).wait_for(timeout=120_000)
    page.locator("canvas.marks, svg.marks").last.wait_for(timeout=60_000)
    page.wait_for_timeout(3_000)  # the charts are drawn after they are there
    page.screenshot(path=OUT / "app.png")
    page.close()


@contextmanager
def served(run: Path) -> Iterator[str]:
    """The page of a run, served until the block ends; gives its address."""
    with socket.socket() as free:
        free.bind((serve.ADDRESS, 0))
        port = free.getsockname()[1]
    address = f"http://{serve.ADDRESS}:{port}"
    with subprocess.Popen(serve.command(run, port), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            wait_until_healthy(address, server)
            yield address
        finally:
            server.terminate()


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
