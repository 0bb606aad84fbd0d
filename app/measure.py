"""Measure: what a stage costs in seconds, processor seconds and memory, its child processes included."""

import os
import resource
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SAMPLE_SECONDS = 0.2
_PROC = Path("/proc")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass
class Cost:
    """Filled in when the measured block ends."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory_mb: float = 0.0


@contextmanager
def measuring() -> Iterator[Cost]:
    """Measure a block.

    Memory is the largest sum of resident memory over this process and its descendants, sampled five times a second
    (pages that processes share count in each: an upper bound). Where there is no /proc it is the largest of
    this process so far.
    """
    cost, stop, peak = Cost(), threading.Event(), [_resident_bytes()]

    def sample() -> None:
        while not stop.wait(SAMPLE_SECONDS):
            peak[0] = max(peak[0], _resident_bytes())

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    started, cpu = time.perf_counter(), _cpu_seconds()
    try:
        yield cost
    finally:
        stop.set()
        sampler.join()
        cost.seconds = round(time.perf_counter() - started, 3)
        cost.cpu_seconds = round(_cpu_seconds() - cpu, 3)
        cost.peak_memory_mb = round(max(peak[0], _resident_bytes()) / 2**20, 1)


def _cpu_seconds() -> float:
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def _resident_bytes() -> int:
    if not (_PROC / "self" / "statm").exists():
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return sum(_resident_pages(pid) for pid in _tree(os.getpid())) * _PAGE


def _tree(root: int) -> list[int]:
    """A process and its descendants, as far as they still live."""
    found = [root]
    for pid in found:  # grows while it is walked
        for listing in (_PROC / str(pid) / "task").glob("*/children"):
            try:
                found.extend(int(child) for child in listing.read_text().split())
            except OSError:  # the process ended meanwhile
                continue
    return found


def _resident_pages(pid: int) -> int:
    try:
        return int((_PROC / str(pid) / "statm").read_text().split()[1])
    except (OSError, IndexError):  # the process ended meanwhile
        return 0
