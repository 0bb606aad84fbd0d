"""Forecast: how long a run may still take, a range: each stage's measured costs, corrected by this machine's pace."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from cohort.sources import SOURCES, SourceConfig, files
from ope.subjects import CONTROLS
from policy.train import TrainConfig

if TYPE_CHECKING:
    from app.run import Request

UPDATE_MS = {
    "behaviour": 1.1, "bc": 2.0, "filtered_bc": 1.7, "awr": 4.0, "awac": 10.8, "iql": 10.3, "conservative_iql": 9.7,
    "cql": 12.1, "bcq": 11.1, "bear": 9.5, "dqn": 8.0, "sac": 10.9, "dpo": 2.3,
}  # fmt: skip
"""Processor milliseconds of an update of 256 decisions in networks of 256 x 256, with the looks at held-out patients:
configs/hospital.yaml with 20,000 stays, two cores, 2026-11-22 (run.json over the updates in the manifests). With 5,000
stays it was up to a quarter less, with 50,000 a quarter to two fifths more. Networks of other sizes in proportion."""
ROWS_PER_SECOND = 1.3e6
"""Chart rows that are read in a processor second (benchmarks/ingest.py)."""
ROW_BYTES = {".csv": (60, 150), ".gz": (7, 30), ".parquet": (5, 30)}
"""What a chart row takes in a file: the least and the most."""
SPARK_SECONDS = 12, 60
"""What starting a cluster's executors adds to a stage (benchmarks/cluster.py); nobody knows how fast they will be."""
ROWS_OF_A_STAY = 1_100
STOPS = (1_500, 8_000)
"""Between these updates training stopped where it stopped early: 1,750 to 7,250 in the same run, whatever the limit."""
UNMEASURED, MEASURED = (0.7, 2.5), (0.8, 1.5)
"""How far off a pace may be: that of an unknown machine, and that of this one's last stages."""
_LADDER_MIN = (0, 1, 2, 3, 5, 7, 10, 15, 20, 25, 30, 40, 50, 60, 75, 90, 120)


@dataclass(frozen=True)
class Work:
    """Processor seconds that a stage may take."""

    low: float
    high: float
    planned: float | None = None
    """All of it, where training may stop before; such a stage is one process's, others spread over processes."""
    cluster: bool = False
    """Done by Spark: what it takes says nothing of this machine's pace."""

    @property
    def usual(self) -> float:
        """The middle."""
        return (self.low + self.high) / 2

    def after(self, share: float) -> "Work":
        """What is left once this share of all that was planned is done."""
        if self.planned is None:
            return Work(self.low * (1 - share), self.high * (1 - share))
        gone = share * self.planned
        low, high = max(self.low - gone, 0.0), max(self.high - gone, self.high * (share < 1) / 10)
        return Work(low, high, self.planned)


class Forecast:
    """What is left of a run; told of its stages as they go on."""

    def __init__(self, groups: Sequence[Mapping[str, Work]], processes: int) -> None:
        self._groups = [dict(group) for group in groups]
        self._left = [dict(group) for group in groups]
        self._processes = processes
        self._load = 1.0
        self._expected = self._taken = 0.0
        self._measured = False

    def told(self, name: str, done: int, total: int) -> None:
        """A stage is so far."""
        self._now(name, done / total if total else 0.0)

    def kept(self, name: str) -> None:
        """A stage is not made."""
        self._now(name, 1.0)

    def ended(self, name: str, cost: Mapping[str, float]) -> None:
        """A stage was made; `cost` has its seconds and processor seconds."""
        self._now(name, 1.0)
        work = next(group[name] for group in self._groups if name in group)
        if work.cluster or cost["cpu_seconds"] < 1:
            return
        alone = work.planned is not None
        load = max(cost["seconds"] * (1 if alone else self._processes) / cost["cpu_seconds"], 1.0)
        self._load = (self._load + load) / 2 if self._measured else load
        self._measured = True
        if not alone:
            self._expected += work.usual
            self._taken += cost["cpu_seconds"]

    def left(self) -> tuple[float, float]:
        """Seconds by the clock, at least and at most."""
        least, most = MEASURED if self._measured else UNMEASURED
        pace = self._load * (self._taken / self._expected if self._expected else 1.0)
        usual = sum(map(self._seconds, self._left))
        off = math.sqrt(sum(((one.high - one.low) / 2) ** 2 for one in self._all())) / self._processes
        return max(usual - off, 0.0) * pace * least, (usual + off) * pace * most  # 0.0: nothing but rounding is below

    def words(self) -> str:
        """What is left, in minutes and without false precision."""
        low, high = (seconds / 60 for seconds in self.left())
        most = next((step for step in _LADDER_MIN if step >= high), None)
        if most is None:
            return f"{math.floor(low / 60)} to {math.ceil(high / 60)} hours"
        least = max(step for step in _LADDER_MIN if step <= low)
        return f"{least} to {most} min" if least else f"at most {max(most, 1)} min"

    def _now(self, name: str, share: float) -> None:
        for whole, rest in zip(self._groups, self._left, strict=True):
            if name in whole:
                rest[name] = whole[name].after(share)

    def _seconds(self, group: Mapping[str, Work]) -> float:
        """By the clock of a free machine: stages of one process each share the processes, the longest decides."""
        longest = max((one.usual for one in group.values() if one.planned is not None), default=0.0)
        return max(longest, sum(one.usual for one in group.values()) / self._processes)

    def _all(self) -> list[Work]:
        return [one for group in self._left for one in group.values()]


def of(request: "Request", groups: Sequence[Sequence[str]]) -> Forecast:
    """The forecast of a run whose stages, those that are made together in one group, have these names."""
    stays, rows_s = _size(request)
    known = _costs(request, stays, rows_s)
    processes = min(request.config.source.workers, os.cpu_count() or 1)
    return Forecast([{name: known[name] for name in group} for group in groups], processes)


def _costs(request: "Request", stays: int, rows_s: tuple[float, float]) -> dict[str, Work]:
    """Stage -> what it may take: a third off what was measured, and of training what early stopping leaves open."""
    config = request.config
    policies = len(config.learners)
    treated = (config.rollouts.n_stays if config.rollouts else 0) * (policies + 1 + len(CONTROLS))
    cohort = _about(6 + 0.0013 * stays)
    found = {
        "tables": _about(3 + 0.003 * stays),
        "cohort": Work(cohort.low + rows_s[0], cohort.high + rows_s[1]),
        "rollouts": _about(4 + 0.009 * treated + 0.0008 * stays),
        "ope": _about(6 + 7 * policies + 0.0004 * stays * policies),
        "report": Work(5, 20, 20),
        "behaviour": _training("behaviour", config.behaviour),
    }
    if config.engine == "spark":
        start, most = SPARK_SECONDS
        spread = ("tables", "cohort", "rollouts", "ope")
        found |= {name: Work(start, found[name].high + most, cluster=True) for name in spread}
    return found | {f"policy/{name}": _training(name, own) for name, own in config.learners.items()}


def _about(seconds: float) -> Work:
    return Work(seconds / 1.33, seconds * 1.33)


def _training(name: str, config: object) -> Work:
    """In proportion to the updates and to the networks' size."""
    if not isinstance(config, TrainConfig):
        return Work(1, 600, 600)
    layers = (48, *config.hidden, 25)
    size = config.batch * sum(one * other for one, other in pairwise(layers)) / (256 * 84_224)
    update = UPDATE_MS[name] / 1000 * max(size, 0.3)
    low, high, planned = (update * min(config.updates, limit) for limit in (*STOPS, config.updates))
    return Work(low / 1.33, high * 1.33, planned)


def _size(request: "Request") -> tuple[int, tuple[float, float]]:
    """Stays, and the processor seconds that reading a hospital's own tables may take."""
    config = request.config
    if request.source is None:
        return (config.hospital.n_stays if config.hospital else 0), (0.0, 0.0)
    stays, read = _foreign(request.source, config.source)
    share = min(config.source.limit_stays / max(stays, 1), 1.0) if config.source.limit_stays else 1.0
    rows = [(path.stat().st_size, ROW_BYTES[path.suffix.lower()]) for path in read]
    least, most = (sum(size / each[end] for size, each in rows) / ROWS_PER_SECOND for end in (1, 0))
    return int(stays * share), (least * share, most)


def _foreign(root: Path, config: SourceConfig) -> tuple[int, list[Path]]:
    """Stays of a hospital's own tables, and the files that are read."""
    layout = import_module(SOURCES[config.kind]).TABLES
    found, _ = files.find(root, layout)
    listed = next(table for table in layout if table.key == "stays")
    read = sorted({path for paths in found.values() for path in paths})
    if listed.file is None:
        return sum(batch.rows for batch in files.batches(listed, found[listed.name])), read
    rows = sum(path.stat().st_size / sum(ROW_BYTES[path.suffix.lower()]) * 2 for path in read)
    return int(rows / ROWS_OF_A_STAY), read  # stays lie among all other rows: counting them would read the whole
