"""Events: rows of chartevents, labevents and outputevents before they become tables."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Bool, Float, Int


@dataclass(frozen=True)
class Events:
    """Columns of charted rows; which table a row is for is its item's."""

    stay: Int[np.ndarray, "r"]
    """Position of the stay in the shard."""
    item: Int[np.ndarray, "r"]
    """Position in items.ITEMS."""
    charted: Int[np.ndarray, "r"]
    """Seconds since `intime`."""
    stored: Int[np.ndarray, "r"]
    value: Float[np.ndarray, "r"]
    """In the row's own unit, rounded as it is written; NaN where there is only a text."""
    text: Int[np.ndarray, "r"]
    """Position in items.TEXTS; -1: the value's own digits."""
    unit: Int[np.ndarray, "r"]
    """Position in items.UNITS; -1: none was written."""
    specimen: Int[np.ndarray, "r"]
    """Laboratory specimen, unique in the shard; 0 outside the laboratory. Odd: its order names no admission."""
    fault: Int[np.ndarray, "r"]
    """Position in faults.KINDS of the fault that was planted in the row; -1: a clean row."""

    @property
    def n(self) -> int:
        """Number of rows."""
        return len(self.stay)


def concatenate(parts: Sequence[Events]) -> Events:
    """All rows, in the order given (at least one part)."""
    return Events(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Events)))


def take(events: Events, rows: Int[np.ndarray, "k"] | Bool[np.ndarray, "r"]) -> Events:
    """The rows at these positions, or where True."""
    return Events(*(getattr(events, field.name)[rows] for field in fields(Events)))
