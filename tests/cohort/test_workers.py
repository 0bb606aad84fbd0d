"""Worker processes: results in order, and nobody left behind, however the work ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cohort.errors import SutureError
from cohort.workers import each, tell


def test_results_come_in_the_order_of_the_items() -> None:
    assert list(each(abs, [-3, 1, -2], workers=2)) == [3, 1, 2]
    assert list(each(abs, [-3, 1, -2], workers=1)) == [3, 1, 2]
    assert list(each(abs, [], workers=2)) == []


def test_what_the_work_raises_is_passed_on() -> None:
    with pytest.raises(ZeroDivisionError):
        list(each((1).__truediv__, [1, 0], workers=2))


def test_a_worker_killed_from_outside_is_an_error_that_says_so() -> None:
    with pytest.raises(SutureError, match="a worker process was killed"):
        list(each(os._exit, [1, 1], workers=2))


SCRIPT = """
import signal, sys, time
from cohort.workers import each, tell
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background is born ignoring it
    print("ready", flush=True)
    list(each(time.sleep, [600, 600, 600], workers=2))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_parent_that_ends_leaves_no_process_behind(tmp_path: Path, number: signal.Signals) -> None:
    """The terminal sends Ctrl-C to the whole group; only the parent may answer, and no worker prints a traceback."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True) as parent:
        deadline = time.monotonic() + 60
        while len(_group(parent.pid)) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.5)
        if number is signal.SIGINT:
            os.killpg(parent.pid, number)
        else:
            os.kill(parent.pid, number)
        _, err = parent.communicate(timeout=60)
    assert err.count(b"KeyboardInterrupt") <= 1
    while _group(parent.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert _group(parent.pid) == []


def _group(leader: int) -> list[int]:
    """Living processes of a process group, as /proc lists them."""
    if not Path("/proc/self/stat").exists():
        pytest.skip("no /proc on this system")
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        if int(fields[2]) == leader and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


def told(item: int) -> int:
    """Work that says what it does."""
    tell(("working on", item))
    return item


@pytest.mark.parametrize("workers", [1, 2])
def test_what_work_tells_is_heard_where_it_was_started(workers: int) -> None:
    heard: list[object] = []
    assert list(each(told, [1, 2, 3], workers, heard.append)) == [1, 2, 3]
    assert sorted(heard, key=str) == [("working on", 1), ("working on", 2), ("working on", 3)]
    assert list(each(told, [4], workers)) == [4]
    assert len(heard) == 3
