"""Benchmark: the simulated hospital beside figures counted in real intensive care."""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import charting_figures
import numpy as np

from cohort.hospital import HospitalConfig, realism, simulate, simulation
from cohort.hospital.population import Outcomes
from cohort.hospital.truth import Decisions, concatenate

STAYS, QUICK_STAYS = 8_000, 1_500
CHARTED_STAYS, QUICK_CHARTED_STAYS = 2_000, 300
SEED = 11


def main() -> int:
    """Print one JSON object; exit code 1 where a figure is further from the real one than the tolerance."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer stays; figures of charting are shown, not claimed")
    quick = parser.parse_args().quick
    body = bodies(QUICK_STAYS if quick else STAYS)
    chart = charting(QUICK_CHARTED_STAYS if quick else CHARTED_STAYS)
    claims = [claim(name, body[name], real) for name, real in realism.TARGETS.items()]
    if not quick:
        pressures = ("map below 55", "map below 65", "map above 95")
        claims += [claim(name, chart[name], charting_figures.TARGETS[name]) for name in pressures]
    both = {name: [real, round(chart[name], 3)] for name, real in charting_figures.TARGETS.items()}
    print(json.dumps({"benchmark": "realism", "quick": quick, "charting": both, "claims": claims}, indent=1))
    return 0 if all(one["holds"] for one in claims) else 1


def claim(name: str, value: float, real: float) -> dict[str, object]:
    """The figure's distance from the real one, as a share of the real one."""
    off = abs(value / real - 1)
    return {
        "name": f"{name}: relative difference from the real figure",
        "simulated": round(value, 4),
        "real": real,
        "value": round(off, 3),
        "bar": realism.TOLERANCE,
        "better": "low",
        "holds": bool(off <= realism.TOLERANCE),
    }


def bodies(stays: int) -> dict[str, float]:
    """Figures of stays and doses, from the truth."""
    decisions: list[Decisions] = []
    outcomes: list[Outcomes] = []
    for shard in simulation.shards(stays, SEED, HospitalConfig()):
        log = simulation.DecisionLog()
        outcomes.append(simulation.course(shard, log).outcomes)
        decisions.append(log.decisions())
    ends = Outcomes(*(np.concatenate([getattr(part, name) for part in outcomes]) for name in Outcomes.__annotations__))
    return realism.figures(concatenate(decisions), ends)


def charting(stays: int) -> dict[str, float]:
    """Figures of what is written down, from the written tables."""
    with tempfile.TemporaryDirectory() as folder:
        tables = Path(folder) / "tables"
        simulate(tables, Path(folder) / "truth", HospitalConfig(n_stays=stays), SEED)
        return charting_figures.measure(tables)


if __name__ == "__main__":
    sys.exit(main())
