"""Benchmark: one state at the bedside equals the batch bit for bit, in under 20 ms of CPU time."""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from cohort import artifact, bedside, build, dictionary, frames, hospital, sources, tables, trajectories
from cohort.build import CohortConfig
from cohort.features import FEATURES
from cohort.hospital import HospitalConfig
from cohort.sources import SourceConfig


def main() -> int:
    """Print one JSON object; exit code 1 where a claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer simulated stays and bedside states")
    quick = parser.parse_args().quick
    stays, asked = (60, 100) if quick else (500, 1000)
    with tempfile.TemporaryDirectory() as folder:
        seconds, equal = measure(Path(folder), stays, asked)
    cpu, wall = 1000 * np.median(seconds, axis=0)
    claims = [
        {"name": "median CPU ms for one state", "value": round(float(cpu), 2), "bar": 20, "better": "low"},
        {"name": "share of states equal bit for bit", "value": equal / asked, "bar": 1, "better": "high"},
    ]
    for claim in claims:
        claim["holds"] = claim["value"] <= claim["bar"] if claim["better"] == "low" else claim["value"] >= claim["bar"]
    result = {"benchmark": "parity", "quick": quick, "stays": stays, "states": asked, "claims": claims}
    print(json.dumps({**result, "median_wall_ms": round(float(wall), 2)}))
    return 0 if all(claim["holds"] for claim in claims) else 1


def measure(folder: Path, stays: int, asked: int) -> tuple[np.ndarray, int]:
    """CPU and wall seconds of bedside states at random decisions of a simulated hospital; how many equal the batch."""
    config = CohortConfig()
    with (
        artifact.writing(folder / "tables", "tables", {}) as draft,
        artifact.writing(folder / "truth", "truth", {}) as truth,
    ):
        hospital.simulate(draft.path, truth.path, HospitalConfig(n_stays=stays), 0)
    with artifact.writing(folder / "cohort", "cohort", {}) as draft:
        sources.ingest(folder / "tables", draft.path / "canonical", SourceConfig(kind="mimic_iv"))
        build.build(draft.path / "canonical", draft.path, config, 0)
    fitted = dictionary.load(folder / "cohort" / "dictionary.json")
    rows = trajectories.read(folder / "cohort", ["stay_id", *FEATURES]).to_pandas()
    rows = rows.sample(asked, random_state=0, replace=asked > len(rows))
    shards = [tables.read(shard) for shard in sorted((folder / "cohort" / "canonical").glob("shard-*"))]
    seconds, equal = [], 0
    for _, row in rows.iterrows():
        shard = next(each for each in shards if (each.stays["stay_id"] == row["stay_id"]).any())
        one = frames.only(shard, shard.stays[shard.stays["stay_id"] == row["stay_id"]])
        start, clock = time.process_time(), time.perf_counter()
        made = bedside.state(
            one, np.datetime64(one.stays["intime"].iloc[0]), int(row["hours_since_start"]), config.grid, fitted
        )
        seconds.append((time.process_time() - start, time.perf_counter() - clock))
        equal += made.value.tobytes() == row[list(FEATURES)].to_numpy(np.float32).tobytes()
    return np.array(seconds), equal


if __name__ == "__main__":
    sys.exit(main())
