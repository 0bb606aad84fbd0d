"""Log: what a run says while it works: lines for a person, or JSON objects for a machine; never a patient's data."""

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from time import monotonic
from typing import Protocol, runtime_checkable

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
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


@runtime_checkable
class Whole(Protocol):
    """What is left of everything that was asked for."""

    def told(self, name: str, done: int, total: int) -> None:
        """A stage is so far."""
        ...

    def left(self) -> tuple[float, float]:
        """Seconds by the clock, at least and at most."""
        ...

    def words(self) -> str:
        """The same for a person."""
        ...


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
def progress(whole: Whole | None = None) -> Iterator[Told]:
    """How far stages are, with the time that is left at the pace so far (`at most`, where training may stop early).

    Where the `whole` is known, so is the time that all of it may still take.
    """
    if structured():
        yield _Reporter(whole)
        return
    columns = (
        SpinnerColumn(), TextColumn("{task.description:<14}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("left at most"), TimeRemainingColumn(), TextColumn("{task.fields[run]}"),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        tasks: dict[str, TaskID] = {}

        def told(what: tuple[str, int, int]) -> None:
            name, done, total = what
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=None, run="")
            bars.update(tasks[name], completed=done, total=total)
            if whole is not None:
                whole.told(name, done, total)
                bars.update(tasks[name], run=f"whole run: {whole.words()} left")

        yield told


class _Reporter:
    """Says as JSON how far each stage is, now and then."""

    def __init__(self, whole: Whole | None) -> None:
        self._whole = whole
        self._began: dict[str, float] = {}
        self._said: dict[str, float] = {}

    def __call__(self, what: tuple[str, int, int]) -> None:
        name, done, total = what
        now = monotonic()
        began = self._began.setdefault(name, now)
        if self._whole is not None:
            self._whole.told(name, done, total)
        if now - self._said.get(name, began) < SECONDS_BETWEEN and done < total:
            return
        self._said[name] = now
        left = round((now - began) * (total - done) / done, 1) if done else None
        fields = {"event": "progress", "stage": name, "done": done, "total": total, "seconds_left_at_most": left}
        if self._whole is not None:
            fields["run_seconds_left"] = rounded(self._whole.left())
        _write(fields)


def rounded(seconds: tuple[float, float]) -> list[float]:
    """A range in whole seconds of two figures: more would be false."""
    return [float(f"{one:.2g}") for one in seconds]


def _write(content: Mapping[str, object]) -> None:
    time = datetime.now(UTC).isoformat(timespec="milliseconds")
    print(json.dumps({"time": time, **content}), file=sys.stderr, flush=True)
