"""Debian's Chromium and a served app, for the tests that look at pages as a reader does."""

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from app import serve

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
WAIT_MS = 60_000
NEEDS_CHROMIUM = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is not installed"),
]


@dataclass
class Visit:
    """A page and what it did while it was looked at."""

    page: Any
    requested: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser; skips where Playwright is not installed."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        try:
            yield started
        finally:
            started.close()


@contextmanager
def visiting(browser: Any, scheme: str = "light", width: int = 1280) -> Iterator[Visit]:
    """A new session in the browser, with nothing of any other."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    context.set_default_timeout(WAIT_MS)
    seen = Visit(context.new_page())
    seen.page.on("request", lambda request: seen.requested.append(request.url))
    seen.page.on("console", lambda told: seen.complaints.append(told.text) if told.type == "error" else None)
    seen.page.on("pageerror", lambda error: seen.complaints.append(str(error)))
    try:
        yield seen
    finally:
        context.close()


@contextmanager
def served(run: Path, told: Path | None, state: Path) -> Iterator[str]:
    """The app on a run, until the block ends; gives its address."""
    with socket.socket() as free:
        free.bind((serve.ADDRESS, 0))
        port = free.getsockname()[1]
    address = f"http://{serve.ADDRESS}:{port}"
    environment = {**os.environ, "XDG_STATE_HOME": str(state)}
    state.mkdir(parents=True, exist_ok=True)
    with (
        (state / "server.log").open("w") as log,
        subprocess.Popen(serve.command(run, port, told), stdout=log, stderr=log, env=environment) as server,
    ):
        try:
            wait_until_healthy(address, server)
            yield address
        finally:
            server.terminate()
            server.wait(30)


def wait_until_healthy(address: str, server: "subprocess.Popen[bytes]") -> None:
    """Return once the server answers."""
    for _ in range(240):
        assert server.poll() is None, "the server ended"
        try:
            with urllib.request.urlopen(f"{address}/_stcore/health", timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.5)
    pytest.fail("the server did not answer within two minutes")
