"""Workers: processes over independent pieces of work, which end with their parent and never speak for themselves."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from multiprocessing.queues import SimpleQueue
from typing import Any, TypeVar

import pyarrow as pa

from cohort.errors import SutureError

Item = TypeVar("Item")
Result = TypeVar("Result")
Heard = Callable[[Any], None]
_LOOK_SECONDS = 2.0
LAST_WORDS_SECONDS = 5.0
"""How long what processes told is still awaited when they have ended."""
_listeners: list[Heard] = []
"""Who hears what work tells in this process: the last of them."""
_engines: list[Callable[[Callable[[Any], Any], Sequence[Any]], Iterator[Any]]] = []
"""Who does the work in place of processes: the last of them."""


def each(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int,
    heard: Heard | None = None,
    here: bool = False,
) -> Iterator[Result]:
    """`work` of each item, in the items' order; in this process where one worker or one item is enough.

    Where the iteration is left early (an error, an interruption), the processes are killed: they write only what the
    caller throws away.

    Args:
        work: picklable, as its items and results are.
        items: what to work on.
        workers: processes, at most one an item.
        heard: called here with everything that `work` says by `tell`.
        here: never by an engine: what the work takes along is too large to be sent to other machines.

    Raises:
        SutureError: a process was killed from outside, mostly for want of memory. What `work` raises is passed on.
    """
    if _engines and not here:
        yield from _engines[-1](work, items)
        return
    if min(workers, len(items)) <= 1:
        with _heard_by(heard):
            yield from map(work, items)
        return
    others = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")
    with _collected(context.SimpleQueue(), heard) as queue:
        pool = ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(queue,))
        done = 0
        try:
            threads = set(threading.enumerate())
            with _interrupts_held():
                futures = [pool.submit(work, item) for item in items]
            keepers = set(threading.enumerate()) - threads
            if not keepers:  # dead already
                raise BrokenProcessPool
            crew: list[threading.Thread | BaseProcess] = [*keepers, *(set(multiprocessing.active_children()) - others)]
            for future in futures:
                result = _awaited(future, crew)
                done += 1
                yield result
        except BrokenProcessPool:
            raise SutureError(
                "a worker process was killed (too little memory?); try fewer workers or smaller shards"
            ) from None
        finally:
            if done < len(items):
                for process in set(multiprocessing.active_children()) - others:
                    process.kill()
            pool.shutdown()


def _awaited(future: "Future[Result]", crew: Collection[threading.Thread | BaseProcess]) -> Result:
    """The result. A pool that lost a thread of its own, for want of memory, would never have one; nor would one that
    lost a process before it had looked at it: it looks anew only when another process has answered.
    """
    while not wait([future], timeout=_LOOK_SECONDS).done:
        if not all(one.is_alive() for one in crew) and not future.done():
            raise BrokenProcessPool
    return future.result()


@contextmanager
def done_by(engine: Callable[[Callable[[Any], Any], Sequence[Any]], Iterator[Any]]) -> Iterator[None]:
    """In this block `each` has its work done by `engine(work, items)`, which gives the results in the items' order."""
    _engines.append(engine)
    try:
        yield
    finally:
        _engines.remove(engine)


def tell(message: object) -> None:
    """Say something picklable to whoever started this work with a listener; nobody hears it otherwise."""
    if _listeners:
        _listeners[-1](message)


@contextmanager
def _heard_by(listener: Heard | None) -> Iterator[None]:
    if listener is None:
        yield
        return
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


@contextmanager
def _collected(queue: "SimpleQueue[Any]", heard: Heard | None) -> Iterator["SimpleQueue[Any] | None"]:
    """A queue that processes tell things by, emptied by a thread while the block runs; None where nobody listens."""
    if heard is None:
        yield None
        return

    def collect() -> None:
        for message in iter(queue.get, None):
            heard(message)

    collector = threading.Thread(target=collect, daemon=True)
    collector.start()
    try:
        yield queue
    finally:
        ending = threading.Thread(target=queue.put, args=(None,), daemon=True)
        ending.start()
        for thread in (ending, collector):  # a process that was killed while it told something holds the queue for ever
            thread.join(timeout=LAST_WORDS_SECONDS)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C, which a terminal sends to all, waits for the block's end; processes started inside never hear it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(queue: "SimpleQueue[Any] | None") -> None:
    """One thread each, and an end when the parent's comes: a killed parent leaves nobody behind."""
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    if queue is not None:
        _listeners.append(queue.put)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
