"""Reproduction: a run made again from its own manifests, and compared with itself file by file."""

import json
import math
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from safetensors.numpy import load_file

from app import run as pipeline
from app import verification
from app.run import Request, RunConfig
from app.run_directory import POLICY
from cohort import artifact
from cohort.config import parse
from cohort.errors import ArtifactError, InputError
from cohort.sources import SourceConfig

RELATIVE, ABSOLUTE = 1e-6, 1e-9
"""Numbers a and b agree where |a - b| <= ABSOLUTE + RELATIVE max(|a|, |b|): rounding on another machine moves less."""
NOT_MADE = ("multiverse", "sweep", "comparison")
"""What `suture run` does not make."""
REPORT = "report"


@dataclass(frozen=True)
class Compared:
    """One stage beside its reproduction."""

    name: str
    identical: bool
    """Equal digests; of a report, equal printed values."""
    agrees: bool
    """Every number within the tolerance."""
    said: str


def request_of(run: Path, source: Path | None = None, out: Path | None = None) -> Request:
    """What a run was asked for, from its record and manifests.

    Raises:
        ArtifactError: a stage is missing or damaged.
        InputError: the run read a hospital's own tables and `source` is not given.
    """
    record = verification.read_record(run)
    cohort, evaluated = (artifact.read_manifest(run / name) for name in ("cohort", "ope"))
    hospital = artifact.read_manifest(run / "tables")["config"] if (run / "tables").is_dir() else None
    if "policies" not in evaluated["notes"]:
        raise ArtifactError(f"{run / 'ope'}: does not say in which order its policies were judged; evaluate again")
    learners = {}
    for name in evaluated["notes"]["policies"]:
        options = dict(artifact.read_manifest(run / POLICY / name)["config"])
        learners[name] = {key: value for key, value in options.items() if key != "learner"}
    content = {
        "name": record.get("name", run.name),
        "seed": evaluated["seed"],
        "hospital": hospital,
        **cohort["config"],
        "learners": learners,
        "behaviour": artifact.read_manifest(run / "behaviour")["config"],
        "evaluation": evaluated["config"],
        **_rollouts(run),
    }
    return Request(parse(content, RunConfig, name=str(run)), out or run, source)


def reproduce(run: Path, source: Path | None = None, out: Path | None = None) -> list[Compared]:
    """Verify a run, make it again, and compare every stage.

    Args:
        run: the run's directory.
        source: the hospital's tables, where they are not in it.
        out: where to make it; a temporary directory that is removed where None.

    Raises:
        ArtifactError: the run does not verify, or `out` is there already.
        InputError: the run read a hospital's own tables and `source` is not given, or holds other tables.
    """
    verification.check(run)
    if source is None and not (run / "tables").is_dir():
        raise InputError(f"{run}: was made from a hospital's own tables; name them with --source DIR")
    folder = Path(tempfile.mkdtemp(prefix=".reproduced-", dir=run.resolve().parent)) if out is None else None
    try:
        again = out or Path(str(folder)) / run.name
        if source is not None:
            require_same_tables(run, source)
        pipeline.run(request_of(run, source, again))
        return [_compared(name, run / name, again / name) for name in _stages(run)]
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def require_same_tables(run: Path, source: Path) -> None:
    """Check that a hospital's tables are, byte for byte, those that a run was made from.

    Raises:
        InputError: they are not, or the run holds its tables itself.
    """
    if (run / "tables").is_dir():
        raise InputError(f"{run}: holds its own tables; --source is for a run on a hospital's")
    cohort = artifact.read_manifest(run / "cohort")
    read_as = parse(cohort["config"]["source"], SourceConfig, name=f"{run}: source")
    if pipeline.digest_tables(source, read_as) != cohort["inputs"]["tables"]:
        raise InputError(f"{source}: not the tables that {run} was made from (their digest differs)")


def show(found: list[Compared]) -> bool:
    """Print a line a stage; True where all agree."""
    for one in found:
        print(f"{one.name:<18} {one.said}")
    print(f"numbers agree where they differ by at most {ABSOLUTE:g} + {RELATIVE:g} of the larger")
    if all(one.identical for one in found):
        print("reproduced: every stage has the same digest, and the report prints the same values")
    elif all(one.agrees for one in found):
        print("reproduced within the tolerance")
    else:
        print("NOT reproduced")
    return all(one.agrees for one in found)


def _stages(run: Path) -> list[str]:
    order = ["tables", "truth", "cohort", "behaviour"]
    names = [one.name for one in verification.check(run) if one.name not in NOT_MADE]
    return sorted(names, key=lambda name: (order.index(name) if name in order else len(order), name))


def _rollouts(run: Path) -> dict[str, Any]:
    if not (run / "rollouts").is_dir():
        return {}
    return {"rollouts": {"n_stays": artifact.read_manifest(run / "rollouts")["config"]["n_stays"]}}


def _compared(name: str, stage: Path, again: Path) -> Compared:
    if name == REPORT:
        return _compared_report(name, stage, again)
    mine, other = artifact.digest(stage), artifact.digest(again)
    if mine == other:
        return Compared(name, True, True, f"identical, digest {mine[:16]}")
    worst, where = 0.0, ""
    for file in sorted({*artifact.read_manifest(stage)["files"], *artifact.read_manifest(again)["files"]}):
        gap = _gap(stage / file, again / file)
        if gap > worst:
            worst, where = gap, file
    if worst <= 1:
        return Compared(
            name, False, True, f"within the tolerance: at most {worst:.2g} of it, in {where or 'its manifest'}"
        )
    return Compared(name, False, False, f"DIFFERS in {where}")


def _compared_report(name: str, stage: Path, again: Path) -> Compared:
    """A report tells when and on what each stage was made, so that its bytes differ; what it prints must not."""
    mine, other = (artifact.read_json(folder / "report.json")["printed"] for folder in (stage, again))
    if mine == other:
        return Compared(name, True, True, f"identical in all {len(mine)} printed values")
    first = next((one["field"] for one, two in zip(mine, other, strict=False) if one != two), "their number")
    return Compared(name, False, False, f"DIFFERS in what it prints, first in {first}")


def _gap(one: Path, other: Path) -> float:
    """The largest difference of two files' numbers as a multiple of the tolerance; infinite where all else differs."""
    if not (one.is_file() and other.is_file()):
        return math.inf
    if artifact.hash_file(one) == artifact.hash_file(other):
        return 0.0
    readers = {".json": _json_numbers, ".parquet": _parquet_numbers, ".safetensors": _tensor_numbers}
    reader = readers.get(one.suffix)
    if reader is None:
        return math.inf
    mine, theirs = dict(reader(one)), dict(reader(other))
    if mine.keys() != theirs.keys():
        return math.inf
    return max((_ratio(mine[key], theirs[key]) for key in mine), default=0.0)


def _ratio(one: Any, other: Any) -> float:
    if isinstance(one, np.ndarray):
        if one.shape != other.shape or one.dtype != other.dtype:
            return math.inf
        if one.dtype.kind not in "fiu":
            return 0.0 if np.array_equal(one, other) else math.inf
        allowed = ABSOLUTE + RELATIVE * np.maximum(np.abs(one), np.abs(other))
        gap = np.where(np.isnan(one) & np.isnan(other), 0.0, np.abs(one - other)) / allowed
        return float(np.nan_to_num(gap, nan=math.inf).max(initial=0.0))
    return 0.0 if one == other else math.inf


def _json_numbers(file: Path) -> Iterator[tuple[str, Any]]:
    def walk(value: Any, at: str) -> Iterator[tuple[str, Any]]:
        if isinstance(value, Mapping):
            for key, part in value.items():
                yield from walk(part, f"{at}/{key}")
        elif isinstance(value, list):
            for index, part in enumerate(value):
                yield from walk(part, f"{at}/{index}")
        else:
            number = isinstance(value, int | float) and not isinstance(value, bool)
            yield at, np.array([float(value)]) if number else value

    yield from walk(json.loads(file.read_text(encoding="utf-8")), "")


def _parquet_numbers(file: Path) -> Iterator[tuple[str, Any]]:
    table = pq.read_table(file).to_pandas()
    for name in table.columns:
        yield str(name), table[name].to_numpy()


def _tensor_numbers(file: Path) -> Iterator[tuple[str, Any]]:
    yield from load_file(file).items()
