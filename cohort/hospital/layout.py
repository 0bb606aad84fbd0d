"""Layout: a shard's rows as tables in MIMIC-IV's layout, and the files they are written to."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import pyarrow as pa

from cohort.hospital.charting import Events, Procedures
from cohort.hospital.infusions import Infusions
from cohort.hospital.population import Outcomes, Population


@dataclass(frozen=True)
class Rows:
    """All that was charted of a shard."""

    events: Events
    infusions: Infusions
    procedures: Procedures


def tables(rows: Rows, population: Population, outcomes: Outcomes, shard: int) -> dict[str, pa.Table]:
    """MIMIC-IV tables by path without extension ("hosp/labevents", "icu/chartevents", ...), MIMIC-IV columns and types.

    All randomness of the parts that nobody charts by hand (cultures, antibiotics ...) comes from the ids.
    Row ids (labevent_id, specimen_id, orderid) are unique across shards. Rows charted after the stay's end are left out.
    """
    raise NotImplementedError


def fault_table(rows: Rows, population: Population) -> pa.Table:
    """Every planted fault: table, kind, stay_id, itemid, charttime. For the truth directory only."""
    raise NotImplementedError


class Writer:
    """Writes shards one after another into `hosp/` and `icu/` below a directory: one file a table, closed on exit."""

    def __init__(self, directory: Path, file_format: Literal["parquet", "csv.gz"]) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def write(self, shard: Mapping[str, pa.Table]) -> None:
        """Append a shard's tables; d_items and d_labitems are written once, at the end."""
