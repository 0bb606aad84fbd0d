"""Benchmark: what each stage of a run costs as the hospital grows: processor time, memory, disk and exponents."""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path = [
    folder for folder in sys.path if Path(folder).resolve() != Path(__file__).resolve().parent
]  # benchmarks/app.py is not the package

from app.run_directory import RECORD  # noqa: E402
from cohort import artifact  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
SIZES, QUICK_SIZES = (5_000, 20_000, 50_000), (250, 500, 1_000)
QUICK_LEARNERS = ("bc", "iql")
STEEPEST, LONGEST_MIN, MOST_GB = 1.05, 45.0, 6.0
STAGES = ("tables", "cohort", "behaviour", "policy", "rollouts", "ope", "report")


def main() -> int:
    """Print one JSON object; exit code 1 where a claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_SIZES} stays and two learners of 500 updates")
    parser.add_argument("--sizes", type=int, nargs="+", help="stays of each run instead")
    parser.add_argument("--keep", type=Path, help="where the runs stay; a finished one there is not made again")
    parser.add_argument("--table", action="store_true", help="a Markdown table too, on the error stream")
    options = parser.parse_args()
    sizes = tuple(options.sizes or (QUICK_SIZES if options.quick else SIZES))
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        runs = [measure(stays, options.quick, folder) for stays in sizes]
    growth = {stage: exponents(sizes, [run["stages"][stage]["cpu_s"] for run in runs]) for stage in STAGES}
    largest = runs[-1]
    claims = [
        claim(f"growth of {stage}'s processor time, {sizes[-2]:,} to {sizes[-1]:,} stays", growth[stage][-1], STEEPEST)
        for stage in ("cohort", "ope")
    ]
    claims.append(claim(f"resident GB at {sizes[-1]:,} stays", largest["peak_gb"], MOST_GB))
    if sizes[-1] == SIZES[-1]:
        claims.append(claim("minutes of the largest run", largest["wall_s"] / 60, LONGEST_MIN))
    if options.table:
        print(table(sizes, runs, growth), file=sys.stderr)
    print(json.dumps({"runs": runs, "exponents": growth, "claims": claims}, indent=1))
    return 0 if all(one["holds"] for one in claims) else 1


def measure(stays: int, quick: bool, folder: Path) -> dict[str, Any]:
    """One whole run of configs/hospital.yaml with so many stays, as its users start it, by what it recorded."""
    out = folder / f"stays-{stays}"
    if not finished(out):
        config = folder / f"{stays}.yaml"
        config.write_text(yaml.safe_dump(configuration(stays, quick), sort_keys=False), encoding="utf-8")
        command = [str(Path(sys.executable).with_name("suture")), "run", str(config), "--out", str(out), "--resume"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    record = artifact.read_sealed(out / RECORD)
    stages = {stage: stage_cost(stage, record["stages"]) for stage in STAGES}
    return {
        "stays": stays,
        "decisions": record["stages"]["cohort"]["rows"]["decisions"],
        "rows": sum(record["stages"]["tables"]["rows"].values()),
        "wall_s": record["seconds"],
        "cpu_s": round(sum(cost["cpu_s"] for cost in stages.values()), 1),
        "peak_gb": round(max(cost["peak_mb"] for cost in stages.values()) / 1e3, 3),
        "written_gb": round(sum(file.stat().st_size for file in out.rglob("*") if file.is_file()) / 1e9, 3),
        "stages": stages,
    }


def finished(run: Path) -> bool:
    """Whether there is a run that came to its end; its own record then says what it cost."""
    return (run / RECORD).is_file() and bool(artifact.read_sealed(run / RECORD).get("finished"))


def configuration(stays: int, quick: bool) -> dict[str, Any]:
    """configs/hospital.yaml with so many stays; the quick one trains little."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "configs" / "hospital.yaml").read_text(encoding="utf-8"))
    config["name"] = f"scale-{stays}"
    config["hospital"]["n_stays"] = stays
    if quick:
        config["learners"] = {name: {**config["learners"][name], "updates": 500} for name in QUICK_LEARNERS}
    return config


def stage_cost(stage: str, stages: dict[str, Any]) -> dict[str, float]:
    """A stage's cost; the learners' are added up, their memory is the largest of one."""
    costs = [cost for name, cost in stages.items() if name.partition("/")[0] == stage]
    return {
        "seconds": round(sum(cost["seconds"] for cost in costs), 1),
        "cpu_s": round(sum(cost["cpu_seconds"] for cost in costs), 1),
        "peak_mb": max(cost["peak_memory_mb"] for cost in costs),
    }


def exponents(sizes: tuple[int, ...], costs: list[float]) -> list[float]:
    """The power by which a cost grows from each size to the next: 1 is proportional."""
    pairs = pairwise(zip(sizes, costs, strict=True))
    return [
        round(math.log(max(after, 0.01) / max(before, 0.01)) / math.log(n / m), 3) for (m, before), (n, after) in pairs
    ]


def claim(name: str, value: float, bar: float) -> dict[str, Any]:
    """One claim; the lower the better."""
    return {"name": name, "value": round(value, 3), "bar": bar, "better": "low", "holds": value <= bar}


def table(sizes: tuple[int, ...], runs: list[dict[str, Any]], growth: dict[str, list[float]]) -> str:
    """Processor seconds and memory of each stage, a column a size."""
    lines = [
        f"| stage | {' | '.join(f'{size:,} stays' for size in sizes)} | growth |",
        "|---|" + "---:|" * (len(sizes) + 1),
    ]
    for stage in STAGES:
        cells = [f"{run['stages'][stage]['cpu_s']:,.0f} s, {run['stages'][stage]['peak_mb']:,.0f} MB" for run in runs]
        lines.append(f"| {stage} | {' | '.join(cells)} | {growth[stage][-1]:.2f} |")
    whole = [f"{run['wall_s'] / 60:.1f} min, {run['peak_gb']:.1f} GB" for run in runs]
    return "\n".join([*lines, f"| whole run, by the clock | {' | '.join(whole)} | |"])


if __name__ == "__main__":
    sys.exit(main())
