"""Benchmark: 50,000 simulated stays written as MIMIC-IV tables, parquet and truth included."""

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

from cohort.hospital.simulation import HospitalConfig, simulate

STAYS, QUICK_STAYS = 50_000, 2_500
SHARD_STAYS = 2_500
SEED = 7
MAX_CPU_S, MAX_GB = 240.0, 3.0
MIN_ROWS, MAX_ROWS = 45e6, 60e6


def main() -> int:
    """Print one JSON object; exit code 1 where a claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_STAYS:,} stays, extrapolated to {STAYS:,}")
    quick = parser.parse_args().quick
    stays = QUICK_STAYS if quick else STAYS
    scale = STAYS / stays
    run = measure(stays)
    claims = [
        claim(f"CPU seconds of {STAYS:,} stays", run["cpu_s"] * scale, MAX_CPU_S, "low"),
        claim("resident GB", run["peak_gb"], MAX_GB, "low"),
        claim(f"rows of {STAYS:,} stays, at least", run["rows"] * scale, MIN_ROWS, "high"),
        claim(f"rows of {STAYS:,} stays, at most", run["rows"] * scale, MAX_ROWS, "low"),
    ]
    print(
        json.dumps(
            {
                "benchmark": "simulate",
                "quick": quick,
                "note": f"{stays:,} stays run; CPU and rows times {scale:g}, memory as measured"
                if quick
                else "full size",
                "stays": stays,
                "shard_stays": SHARD_STAYS,
                "run": run,
                "claims": claims,
            },
            indent=1,
        )
    )
    return 0 if all(one["holds"] for one in claims) else 1


def claim(name: str, value: float, bar: float, better: str) -> dict[str, object]:
    """One claim; `better` says on which side of the bar it holds."""
    holds = value <= bar if better == "low" else value >= bar
    return {"name": name, "value": round(value, 3), "bar": bar, "better": better, "holds": bool(holds)}


def measure(stays: int) -> dict[str, float]:
    """Simulate into a temporary directory; CPU seconds are of all threads, the writing of the files included."""
    config = HospitalConfig(n_stays=stays, shard_stays=SHARD_STAYS)
    with tempfile.TemporaryDirectory() as folder:
        start, wall = time.process_time(), time.perf_counter()
        rows = simulate(Path(folder) / "tables", Path(folder) / "truth", config, SEED)
        cpu, wall = time.process_time() - start, time.perf_counter() - wall
        size = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
    total = sum(rows.values())
    return {
        "rows": total,
        "cpu_s": round(cpu, 2),
        "wall_s": round(wall, 2),
        "rows_per_cpu_s": round(total / cpu),
        "written_gb": round(size / 1e9, 3),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 3),
    }


if __name__ == "__main__":
    sys.exit(main())
