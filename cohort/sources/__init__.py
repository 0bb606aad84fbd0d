"""Sources: raw hospital layouts brought to the canonical tables, in shards of stays."""

from collections import Counter
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from cohort.config import Config, load
from cohort.errors import InputError
from cohort.sources.codes import CodeMap
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
    limit_stays: int | None = Field(default=None, ge=1)
    """A dry run: about so many stays only, of the patients with the smallest ids. Of a table that is in their order no
    more is read than they need."""
    review: Review | None = None
    """A review of unknown units (or the path of its file): its accepted conversions are used and recorded."""

    codes: CodeMap | None = None
    """Of a MEDS dataset: what its codes mean (the path of a file as configs/concepts/meds.yaml, which is used else)."""

    @model_validator(mode="after")
    def _codes_are_of_meds(self) -> "SourceConfig":
        if self.codes is not None and self.kind != "meds":
            raise ValueError(f"codes: only a MEDS dataset has them, kind is {self.kind}")
        return self

    @field_validator("codes", mode="before")
    @classmethod
    def _loaded_codes(cls, given: object) -> object:
        return load(Path(given), CodeMap) if isinstance(given, str | Path) else given

    @field_validator("review", mode="before")
    @classmethod
    def _loaded(cls, given: object) -> object:
        return load(Path(given), Review) if isinstance(given, str | Path) else given


def ingest(
    root: Path,
    out: Path,
    config: SourceConfig,
    progress: Callable[[int, int], None] | None = None,
    until: np.datetime64 | None = None,
    work: Path | None = None,
) -> Counts:
    """Read a raw layout and write `out`/shard-00000/{stays,observations,infusions,outputs}.parquet.

    Tables are found under `root`, `root`/hosp or `root`/icu, as NAME.parquet, NAME.csv.gz or NAME.csv (or a folder NAME
    of such files), names in lower or upper case. Shards hold patients in the order of their smallest stay id.

    Args:
        root: the folder of the raw tables.
        out: an existing or new folder; its shards must not be there yet.
        config: which layout, and how many stays to a shard.
        progress: called with (steps done, steps in all).
        work: where finished tables and shards outlive this process if it is killed, and are found by the next.
        until: where a stay or an infusion that has no end yet ends; None: such rows are dropped and counted.

    Returns:
        (table, reason) -> rows dropped, changed or flagged; a missing optional table is (table, "table missing") -> 1.

    Raises:
        InputError: a required table or column is missing, of a wrong type, unreadable, or damaged; or most doses of
            vasopressors or of fluids cannot be read, and windows would seem to have none.
    """
    from cohort.sources.shards import ingest as read  # Arrow is loaded only where tables are read

    counts = read(root, out, config, import_module(SOURCES[config.kind]), progress, until, work)
    require_rows(out, counts)
    require_doses(out, counts)
    return counts


def require_rows(out: Path, counts: Counts) -> None:
    """Refuse shards without any stay, or without any measurement: items or codes are then of another vocabulary.

    Raises:
        InputError: saying why no stay can be used, or that no row is a measurement.
    """
    from pyarrow import parquet

    def rows(table: str) -> int:
        return sum(parquet.read_metadata(shard).num_rows for shard in out.glob(f"shard-*/{table}.parquet"))

    if not rows("stays"):
        reasons = "; ".join(f"{reason}: {n}" for (table, reason), n in sorted(counts.items()) if table == "icustays")
        raise InputError(f"icustays: no stay can be used ({reasons})")
    if not rows("observations"):
        raise InputError("no row is a measurement: the items or codes of these tables are none of the dictionary's")


def require_doses(out: Path, counts: Counts) -> None:
    """Refuse shards in which more doses cannot be read than can.

    Raises:
        InputError: naming the tables, the kind of dose, both counts and the reasons.
    """
    from cohort import artifact
    from cohort.sources.doses import UNREADABLE

    drugs = Counter[str]()
    for shard in sorted(out.glob("shard-*/infusions.parquet")):
        rows = artifact.read_parquet(shard, ["drug", "normalised_rate"])
        drugs.update(rows.filter(rows["normalised_rate"].is_valid()).column("drug").to_pylist())
    fluids = drugs["fluid"] + drugs["d5w"]
    for kind, known in (("drug", drugs.total() - fluids), ("fluid", fluids)):
        wanted = {f"{kind}: {why}" for why in UNREADABLE}
        lost = {(table, why): n for (table, why), n in sorted(counts.items()) if why in wanted}
        if sum(lost.values()) > known:
            where = ", ".join(sorted({table for table, _ in lost}))
            why = "; ".join(f"{reason.removeprefix(f'{kind}: ')}: {n}" for (_, reason), n in lost.items())
            raise InputError(
                f"{where}: {sum(lost.values())} {kind} doses cannot be read ({why}), only {known} can; "
                "without them windows would seem to have no dose"
            )
