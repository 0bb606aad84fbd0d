"""Raw tables: which tables and columns of a hospital's layout are read, and what they hold."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Literal


class Kind(Enum):
    """What a column holds."""

    INTEGER = "whole numbers"
    NUMBER = "numbers"
    TIME = "times without a zone"
    TEXT = "text"


@dataclass(frozen=True)
class RawTable:
    """One table of a layout and what is read of it."""

    name: str
    columns: dict[str, Kind]
    key: Literal["stay", "patient", "stays"]
    """What its rows belong to: a stay (column `stay_id` or `icustay_id`), a patient, or it is the table of stays."""
    required: bool = False
    ids: frozenset[int] | None = None
    """Only rows of these item ids are read; None: all."""
    text_ids: frozenset[int] = frozenset()
    """`value` is read only for these item ids."""
    alternatives: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Other names of a column in other versions of the layout."""
    keep: "Keep | None" = None


@dataclass(frozen=True)
class Keep:
    """A cheap filter on a text column, before anything else is done with a row."""

    column: str
    pattern: str
    """A regular expression that is found in the lower-case text of every row that is kept."""
