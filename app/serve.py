"""Serve: how the page is started - on this machine only, without telemetry or any outside request."""

import subprocess
import sys
from pathlib import Path

ADDRESS = "127.0.0.1"
OPTIONS = {
    "server.address": ADDRESS,
    "server.headless": "true",  # asks no question in the terminal and opens no browser by itself
    "server.fileWatcherType": "none",
    "browser.gatherUsageStats": "false",
    "client.toolbarMode": "viewer",
    "client.showErrorDetails": "none",  # a traceback may hold a patient's values
    "client.showErrorLinks": "false",
    "client.showSidebarNavigation": "false",
    "runner.magicEnabled": "false",
    "theme.light.primaryColor": "#005a8c",
    "theme.dark.primaryColor": "#7cc4f0",
    "theme.headingFontWeights": "[600]",
    "theme.headingFontSizes": '["2rem", "1.4rem", "1.2rem"]',
}


def command(run: Path, port: int = 8501) -> list[str]:
    """The command line that serves the page for the run directory `run`."""
    main = Path(__file__).with_name("main.py")
    options = [word for name, value in OPTIONS.items() for word in (f"--{name}", value)]
    start = [sys.executable, "-m", "streamlit", "run", str(main), *options, "--server.port", str(port)]
    return [*start, "--", str(run.resolve())]


def serve(run: Path, port: int = 8501) -> int:
    """Serve the page until it is interrupted; returns the server's exit status."""
    print(f"Suture shows {run} at http://{ADDRESS}:{port} (this machine only). Stop with Ctrl+C.", flush=True)
    try:
        return subprocess.run(command(run, port), check=False).returncode
    except KeyboardInterrupt:
        return 0
