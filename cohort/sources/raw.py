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
    file: str | None = None
    """The name of its file or folder; None: the table's own."""
    open_end: str | None = None
    """The column that stays empty while a stay or an infusion goes on."""
    optional: frozenset[str] = frozenset()
    """Columns that may be missing: their values are then missing."""


@dataclass(frozen=True)
class Keep:
    """A cheap filter on a text column, before anything else is done with a row."""

    column: str
    pattern: str
    """A regular expression that is found in the text of every row that is kept."""
    every_case: bool = True
    """True: it is looked for in the text in lower case."""
