"""Worker processes: results in order, and nobody left behind, however the work ends."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from cohort import workers as processes
from cohort.errors import SutureError
from cohort.workers import done_by, each, tell


def test_results_come_in_the_order_of_the_items() -> None:
    assert list(each(abs, [-3, 1, -2], workers=2)) == [3, 1, 2]
    assert list(each(abs, [-3, 1, -2], workers=1)) == [3, 1, 2]
    assert list(each(abs, [], workers=2)) == []


@pytest.mark.parametrize(("items", "workers"), [([1], 2), ([1, 2], 1)])
def test_one_item_or_one_worker_stays_in_this_process(items: list[int], workers: int) -> None:
    assert set(each(lambda _: os.getpid(), items, workers)) == {os.getpid()}


def surroundings(_item: int) -> tuple[int, int, bool, int]:
    """What work finds in its process: Arrow's threads, whether Ctrl-C waits, and listeners."""
    held = signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    return pa.cpu_count(), pa.io_thread_count(), held, len(processes._listeners)


def test_a_process_starts_anew_with_one_thread_and_does_not_hear_an_interruption(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(processes, "_listeners", [print])
    assert list(each(surroundings, [1, 2], workers=2)) == [(1, 1, True, 0)] * 2
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def last_words(path: Path) -> None:
    """Work whose process has something left to do when it ends by itself."""
    Finalize(None, path.touch, exitpriority=1)


def test_processes_whose_work_is_done_end_by_themselves_before_the_iteration_does(tmp_path: Path) -> None:
    paths = [tmp_path / "a", tmp_path / "b"]
    before = multiprocessing.active_children()
    list(each(last_words, paths, workers=2))
    assert multiprocessing.active_children() == before
    assert any(path.exists() for path in paths)


def test_an_engine_does_the_work_of_its_block_but_what_has_to_be_done_here() -> None:
    def engine(name: str) -> Callable[[Callable[[Any], Any], Sequence[Any]], Iterator[Any]]:
        return lambda work, items: ((name, work(item)) for item in items)

    with done_by(engine("outer")):
        with done_by(engine("inner")):
            assert list(each(abs, [-1, 2], 1)) == [("inner", 1), ("inner", 2)]
            assert list(each(abs, [-1, 2], 1, here=True)) == [1, 2]
        assert list(each(abs, [-1], 1)) == [("outer", 1)]
    with pytest.raises(ZeroDivisionError), done_by(engine("broken")):
        list(each((1).__truediv__, [0], 1))
    assert list(each(abs, [-1], 1)) == [1]


def test_what_the_work_raises_is_passed_on() -> None:
    with pytest.raises(ZeroDivisionError):
        list(each((1).__truediv__, [1, 0], workers=2))


def test_an_error_ends_its_own_processes_and_no_others() -> None:
    bystander = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,))
    bystander.start()
    try:
        with pytest.raises(ZeroDivisionError):
            list(each((1).__truediv__, [0, 1], workers=2))
        assert bystander.is_alive()
    finally:
        bystander.kill()
        bystander.join()


def test_a_worker_killed_from_outside_is_an_error_that_says_so() -> None:
    with pytest.raises(SutureError, match="a worker process was killed"):
        list(each(os._exit, [1, 1], workers=2))


def dies_telling(_item: int) -> None:
    """Work that is killed in the middle of what it says."""
    processes._listeners[-1].__self__._wlock.acquire()  # type: ignore[attr-defined]
    os._exit(1)


def test_a_worker_killed_while_it_tells_something_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "LAST_WORDS_SECONDS", 0.1)
    with pytest.raises(SutureError, match="a worker process was killed"):
        list(each(dies_telling, [1, 2], 2, print))


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

    def listener(message: object) -> None:
        time.sleep(0.05)
        heard.append(message)

    before = set(threading.enumerate())
    assert list(each(told, [1, 2, 3], workers, listener)) == [1, 2, 3]
    assert set(threading.enumerate()) <= before
    assert sorted(heard, key=str) == [("working on", 1), ("working on", 2), ("working on", 3)]
    assert list(each(told, [4], workers)) == [4]
    assert len(heard) == 3


def test_the_innermost_listener_hears_and_none_after_an_error() -> None:
    outer: list[object] = []
    inner: list[object] = []

    def nested(item: str) -> None:
        list(each(tell, [item], 1, inner.append))
        tell("outside")

    list(each(nested, ["inside"], 1, outer.append))
    with pytest.raises(ZeroDivisionError):
        list(each((1).__truediv__, [0], 1, outer.append))
    tell("nobody hears this")
    assert (inner, outer) == (["inside"], ["outside"])


@pytest.mark.parametrize("kind", [threading.Thread, multiprocessing.get_context("spawn").Process])
def test_a_pool_that_lost_a_thread_or_a_process_of_its_own_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, kind: Callable[..., threading.Thread]
) -> None:
    """As where the system refuses it memory, or kills a process in its first moment: no result would ever come."""
    monkeypatch.setattr(processes, "_LOOK_SECONDS", 0.01)
    dead, never, done = kind(target=int), Future[int](), Future[int]()
    dead.start()
    dead.join()
    done.set_result(3)
    with pytest.raises(BrokenProcessPool):
        processes._awaited(never, {dead})
    assert processes._awaited(done, {dead}) == 3


def test_a_pool_whose_thread_is_gone_at_once_is_an_error_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "enumerate", list)  # as where it died before anyone looked
    with pytest.raises(SutureError, match="a worker process was killed"):
        list(each(abs, [1, 2], 2))
