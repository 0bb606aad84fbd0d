"""Debian's PostgreSQL, started for the tests in a folder of its own and stopped after them."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_PLACES = (*Path("/usr/lib/postgresql").glob("*/bin"), *map(Path, os.environ.get("PATH", "").split(os.pathsep)))


@contextmanager
def server() -> Iterator[str]:
    """The URL of a server with one empty database; skips the test where there is no PostgreSQL."""
    bin_path = next((place for place in _PLACES if (place / "initdb").exists() and (place / "pg_ctl").exists()), None)
    if bin_path is None:
        pytest.skip("PostgreSQL's server is not installed (Debian: apt-get install postgresql)")
    user = "postgres" if os.geteuid() == 0 else None  # the server refuses to run as root
    folder = Path(tempfile.mkdtemp(prefix="suture-pg-"))
    try:
        if user is not None:
            shutil.chown(folder, user)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        _run(user, bin_path / "initdb", "-D", folder / "data", "-U", "suture", "-A", "trust", "-N", "-E", "UTF8")
        options = f"-p {port} -h 127.0.0.1 -k {folder} -c max_connections=40"
        _run(user, bin_path / "pg_ctl", "-D", folder / "data", "-l", folder / "log", "-w", "-o", options, "start")
        try:
            yield f"postgresql+psycopg://suture@127.0.0.1:{port}/postgres"
        finally:
            _run(user, bin_path / "pg_ctl", "-D", folder / "data", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(user: str | None, *command: object) -> None:
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL, user=user, cwd="/")
