"""Sources: raw hospital layouts brought to the canonical tables, in shards of stays."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from cohort.config import Config, load
from cohort.sources.review import Review
from cohort.tables import Counts

SOURCES = {
    "mimic_iv": "cohort.sources.mimic_iv",
    "mimic_iii": "cohort.sources.mimic_iii",
    "meds": "cohort.sources.meds",
}
"""Source kind -> the module with its raw tables (`TABLES`) and its pure `canonical(raw) -> (Tables, Counts)`."""


class SourceConfig(Config):
    """How raw tables are read."""

    kind: Literal["mimic_iv", "mimic_iii", "meds"]
    shard_stays: int = Field(default=1000, ge=1, le=20_000)
    """Stays of a shard; the stays of one patient are never parted, so a shard may hold a few more."""
    workers: int = Field(default=1, ge=1, le=64)
    """Processes over the shards; they do not change the result."""
    memory_mb: int = Field(default=1024, ge=256, le=262_144)
    """What reading may take: blocks of a 256th of it, of which Arrow reads 32 ahead."""
    review: Review | None = None
    """A review of unknown units (or the path of its file): its accepted conversions are used and recorded."""

    @field_validator("review", mode="before")
    @classmethod
    def _loaded(cls, given: object) -> object:
        return load(Path(given), Review) if isinstance(given, str | Path) else given


def ingest(root: Path, out: Path, config: SourceConfig, progress: Callable[[int, int], None] | None = None) -> Counts:
    """Read a raw layout and write `out`/shard-00000/{stays,observations,infusions,outputs}.parquet.

    Tables are found under `root`, `root`/hosp or `root`/icu, as NAME.parquet, NAME.csv.gz or NAME.csv (or a folder NAME
    of such files), names in lower or upper case. Shards hold patients in the order of their smallest stay id.

    Args:
        root: the folder of the raw tables.
        out: an existing or new folder; its shards must not be there yet.
        config: which layout, and how many stays to a shard.
        progress: called with (steps done, steps in all).

    Returns:
        (table, reason) -> rows dropped, changed or flagged; a missing optional table is (table, "table missing") -> 1.

    Raises:
        InputError: a required table or column is missing, of a wrong type, unreadable, or damaged.
    """
    from cohort.sources.shards import ingest as read  # Arrow is loaded only where tables are read

    return read(root, out, config, import_module(SOURCES[config.kind]), progress)
