"""Serve: how the pages are started: a process of their own, on this machine only unless a sign-in is configured."""

import subprocess
import sys
from pathlib import Path

from app import access, settings
from app.settings import LOCAL as ADDRESS

_START = (
    "import sys; from pathlib import Path; from app.server import serve; "
    "serve(Path(sys.argv[1]), Path(sys.argv[2]) if sys.argv[2] else None, int(sys.argv[3]))"
)


def command(run: Path, port: int = 8501, told_in: Path | None = None) -> list[str]:
    """The command line that serves the pages of the run directory `run`."""
    where = "" if told_in is None else str(told_in.resolve())
    return [sys.executable, "-c", _START, str(run.resolve()), where, str(port)]


def serve(run: Path, port: int = 8501, told_in: Path | None = None) -> int:
    """Serve the pages until they are interrupted; returns the server's exit status.

    Raises:
        ConfigError: the settings are wrong, or would let others in without a sign-in.
    """
    told = settings.read(told_in)
    access.require_safe(told)
    who = "this machine only, as no sign-in is configured" if told.access.oidc is None else "with OpenID Connect"
    print(f"Suture shows {run} at http://{told.access.address}:{port} ({who}). Stop with Ctrl+C.", flush=True)
    try:
        return subprocess.run(command(run, port, told_in), check=False).returncode
    except KeyboardInterrupt:
        return 0


__all__ = ["ADDRESS", "command", "serve"]
