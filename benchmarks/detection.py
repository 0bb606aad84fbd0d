"""Benchmark: how many planted faults the way into the canonical tables catches, and how many clean rows it touches."""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from cohort.hospital import detection
from cohort.hospital.charting import ChartingConfig
from cohort.hospital.faults import NONE
from cohort.hospital.simulation import HospitalConfig, simulate
from cohort.sources import SourceConfig, ingest
from cohort.tables import Counts

STAYS, QUICK_STAYS = 5_000, 500
SEED = 11
LEAST_CAUGHT, MOST_TOUCHED = 0.95, 0.001

_TOUCHED = ("out of range", "value missing", "repeated row", "litres a minute", "other scale", "not known", "U/h",
            "another unit", "overlaps", "end not after start", "rewritten", "above")  # fmt: skip
"""What the reasons for which a row is dropped or changed have in their names."""


def main() -> int:
    """Print one JSON object; exit code 1 where a claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_STAYS} stays instead of {STAYS:,}")
    quick = parser.parse_args().quick
    stays = QUICK_STAYS if quick else STAYS
    with tempfile.TemporaryDirectory() as folder:
        planted = caught(Path(folder) / "dirty", stays)
        touched = touched_share(Path(folder) / "clean", stays)
    rate = {name: round(found / count, 4) for name, (count, found) in planted.items() if count}
    units = [planted[kind] for kind in detection.UNIT_FAULTS]
    claims = [
        claim("unit faults caught", sum(f for _, f in units) / sum(c for c, _ in units), LEAST_CAUGHT, "high"),
        claim("duplicates caught", rate["duplicate"], LEAST_CAUGHT, "high"),
        claim("overlaps caught", rate["overlap"], LEAST_CAUGHT, "high"),
        claim("clean rows dropped or changed", touched, MOST_TOUCHED, "low"),
    ]
    shown = {name: {"planted": count, "caught": found} for name, (count, found) in planted.items()}
    print(
        json.dumps(
            {
                "benchmark": "detection",
                "quick": quick,
                "stays": stays,
                "faults": shown,
                "caught": rate,
                "claims": claims,
            },
            indent=1,
        )
    )
    return 0 if all(one["holds"] for one in claims) else 1


def claim(name: str, value: float, bar: float, better: str) -> dict[str, object]:
    """One claim; `better` says on which side of the bar it holds."""
    holds = value <= bar if better == "low" else value >= bar
    return {"name": name, "value": round(value, 5), "bar": bar, "better": better, "holds": bool(holds)}


def touched_share(folder: Path, stays: int) -> float:
    """Rows of a hospital without faults that are dropped or changed as if they had one, per row read."""
    counts, rows = _run(folder, HospitalConfig(n_stays=stays, charting=ChartingConfig(faults=NONE)))
    touched = sum(n for (_, reason), n in counts.items() if any(part in reason for part in _TOUCHED))
    return touched / rows


def caught(folder: Path, stays: int) -> dict[str, tuple[int, int]]:
    """Kind -> (planted, caught) in a hospital with its usual faults."""
    _run(folder, HospitalConfig(n_stays=stays))
    return detection.caught(folder / "tables", folder / "canonical", folder / "truth")


def _run(folder: Path, config: HospitalConfig) -> tuple[Counts, int]:
    rows = simulate(folder / "tables", folder / "truth", config, SEED)
    (folder / "canonical").mkdir()
    counts = ingest(folder / "tables", folder / "canonical", SourceConfig(kind="mimic_iv"))
    return counts, sum(rows[f"icu/{name}"] for name in ("chartevents", "inputevents", "outputevents")) + rows[
        "hosp/labevents"
    ]


if __name__ == "__main__":
    sys.exit(main())
