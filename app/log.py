"""Log: what a run says while it works: lines for a person, or JSON objects for a machine; never a patient's data."""

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from time import monotonic

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

FORMAT = "SUTURE_LOG_FORMAT"
"""The environment's variable, so that worker processes follow."""
SECONDS_BETWEEN = 10.0
"""Between two reports of one stage's progress, as JSON."""

Told = Callable[[tuple[str, int, int]], None]
"""Called with (stage, done, total)."""

console = Console(stderr=True, highlight=False, soft_wrap=True)
"""Progress goes to the error stream, so that the output stream holds results only."""


def structured() -> bool:
    """Whether the log is JSON, an object a line."""
    return os.environ.get(FORMAT, "text") == "json"


def say(event: str, text: str, fields: Mapping[str, object] | None = None) -> None:
    """Log one event: `text` to a person; the time, the event's name and the fields to a machine."""
    if structured():
        _write({"event": event, **(fields or {})})
    else:
        console.print(text, markup=False)


@contextmanager
def progress() -> Iterator[Told]:
    """How far stages are, with the time that is left at the pace so far (`at most`, where training may stop early)."""
    if structured():
        yield _Reporter()
        return
    columns = (
        SpinnerColumn(), TextColumn("{task.description:<14}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("left at most"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        tasks = {}

        def told(what: tuple[str, int, int]) -> None:
            name, done, total = what
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=None)
            bars.update(tasks[name], completed=done, total=total)

        yield told


class _Reporter:
    """Says as JSON how far each stage is, now and then."""

    def __init__(self) -> None:
        self._began: dict[str, float] = {}
        self._said: dict[str, float] = {}

    def __call__(self, what: tuple[str, int, int]) -> None:
        name, done, total = what
        now = monotonic()
        began = self._began.setdefault(name, now)
        if now - self._said.get(name, began) < SECONDS_BETWEEN and done < total:
            return
        self._said[name] = now
        left = round((now - began) * (total - done) / done, 1) if done else None
        _write({"event": "progress", "stage": name, "done": done, "total": total, "seconds_left_at_most": left})


def _write(content: Mapping[str, object]) -> None:
    time = datetime.now(UTC).isoformat(timespec="milliseconds")
    print(json.dumps({"time": time, **content}), file=sys.stderr, flush=True)
