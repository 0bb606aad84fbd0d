"""Benchmark: canonical events to hourly states, 50,000 stays x 72 h, in shards, against a plain pandas version."""

import argparse
import json
import resource
import sys
import time

import numpy as np
import pandas as pd

from cohort import concepts, features, tables
from cohort.grid import GridConfig
from cohort.tables import Tables

SHARD_STAYS = 1000
HOURS = 72
BASE = np.datetime64("2150-01-01", "us")
RATE = {"heart_rate": 12, "map": 12, "sbp": 12, "dbp": 12, "resp_rate": 12, "spo2": 12, "temperature_c": 3}
"""Relative frequency of concepts; every other has 1. Vitals dominate, as in real charts."""


def main() -> int:
    """Print one JSON object; exit code 1 where a claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the stays; bars are scaled with them")
    quick = parser.parse_args().quick
    stays = 5_000 if quick else 50_000
    config = GridConfig(step_hours=1, horizon_hours=HOURS)
    small = measure(stays, 400, config)
    large = measure(stays, 1200, config)
    ours, plain, cells = against_pandas(config, 1200)
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    scale = stays / 50_000
    claims = [
        claim("CPU seconds at 60 M rows", large["cpu_s"], 25 * scale, "low"),
        claim("resident GB at 60 M rows", large["peak_gb"], 1.0, "low"),
        claim("growth of CPU from 20 M to 60 M rows", large["cpu_s"] / small["cpu_s"], 3.3, "low"),
        claim("CPU of plain pandas over ours", plain / ours, 2.5, "high"),
    ]
    print(
        json.dumps(
            {
                "benchmark": "grid",
                "quick": quick,
                "stays": stays,
                "note": f"row counts and CPU bar are {scale:g} of the full run's" if quick else "full size",
                "runs": [small, large],
                "pandas": {"cpu_s": plain, "ours_cpu_s": ours, "cells_equal": cells, "peak_gb_with_pandas": peak_gb},
                "claims": claims,
            },
            indent=1,
        )
    )
    return 0 if all(one["holds"] for one in claims) else 1


def claim(name: str, value: float, bar: float, better: str) -> dict[str, object]:
    """One claim; `better` says on which side of the bar it holds."""
    holds = value <= bar if better == "low" else value >= bar
    return {"name": name, "value": round(value, 3), "bar": round(bar, 3), "better": better, "holds": bool(holds)}


def measure(stays: int, rows_per_stay: int, config: GridConfig) -> dict[str, float]:
    """States of every shard in turn; making the shard's rows is not counted."""
    cpu = rows = 0.0
    hours = np.append(config.hours, config.horizon_hours)
    for seed in range(stays // SHARD_STAYS):
        shard = make_shard(seed, rows_per_stay)
        start = time.process_time()
        made = features.states(shard, shard.stays["intime"].to_numpy(), hours, config)
        cpu += time.process_time() - start
        rows += len(shard.observations) + len(shard.infusions) + len(shard.outputs)
        assert made.value.shape == (SHARD_STAYS, len(hours), len(features.FEATURES))
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return {"rows": rows, "cpu_s": round(cpu, 2), "rows_per_cpu_s": round(rows / cpu), "peak_gb": round(peak_gb, 3)}


def make_shard(seed: int, rows_per_stay: int) -> Tables:
    """Canonical tables of SHARD_STAYS stays: `rows_per_stay` observations each, and infusions and urine beside."""
    rng = np.random.default_rng(seed)
    stay_id = np.arange(SHARD_STAYS) + seed * SHARD_STAYS
    return Tables(
        _stays(stay_id), _observations(rng, stay_id, rows_per_stay), _infusions(rng, stay_id), _outputs(rng, stay_id)
    )


def _stays(stay_id: np.ndarray) -> pd.DataFrame:
    n = len(stay_id)
    columns = {
        "stay_id": stay_id, "subject_id": stay_id, "hadm_id": stay_id, "intime": np.full(n, BASE),
        "outtime": np.full(n, BASE + np.timedelta64(HOURS, "h")), "admittime": np.full(n, BASE),
        "died_in_hospital": np.zeros(n, bool), "age_years": np.full(n, 60.0), "readmission": np.zeros(n),
        "charting": ["metavision"] * n,
    }  # fmt: skip
    return tables.frame("stays", columns)


def _times(rng: np.random.Generator, n: int) -> np.ndarray:
    """Whole minutes over the stay, sorted within nothing: the kernel may not rely on an order."""
    return BASE + rng.integers(-6 * 60, HOURS * 60, n).astype("timedelta64[m]")


def _observations(rng: np.random.Generator, stay_id: np.ndarray, rows_per_stay: int) -> pd.DataFrame:
    known = {name: concept for name, concept in concepts.load().measured.items() if name != "o2_device"}
    weight = np.array([RATE.get(name, 1) for name in known], float)
    n = len(stay_id) * rows_per_stay
    code = rng.choice(len(known), n, p=weight / weight.sum()).astype(np.int32)
    low = np.array([concept.range[0] for concept in known.values()])[code]
    high = np.array([concept.range[1] for concept in known.values()])[code]
    stored = np.array([concept.clock == "stored" for concept in known.values()])[code]
    charted = _times(rng, n)
    delay = np.where(stored, rng.integers(0, 120, n), 0).astype("timedelta64[m]")
    return pd.DataFrame(
        {
            "stay_id": np.repeat(stay_id, rows_per_stay),
            "concept": pd.Categorical.from_codes(code, list(known)),
            "charted": charted,
            "available": charted + delay,
            "value": np.round(low + rng.random(n) * (high - low), 1),
            "text": pd.Categorical.from_codes(np.full(n, -1), []),
        }
    )


def _infusions(rng: np.random.Generator, stay_id: np.ndarray) -> pd.DataFrame:
    per_stay, drugs = 40, ["fluid", "norepinephrine", "vasopressin", "dopamine"]
    n = len(stay_id) * per_stay
    start = _times(rng, n)
    return pd.DataFrame(
        {
            "stay_id": np.repeat(stay_id, per_stay),
            "drug": pd.Categorical.from_codes(rng.choice(4, n, p=[0.7, 0.2, 0.05, 0.05]), drugs),
            "start": start,
            "end": start + rng.integers(1, 480, n).astype("timedelta64[m]"),
            "normalised_rate": np.round(rng.random(n), 2),
        }
    )


def _outputs(rng: np.random.Generator, stay_id: np.ndarray) -> pd.DataFrame:
    per_stay = 40
    charted = _times(rng, len(stay_id) * per_stay)
    return pd.DataFrame(
        {
            "stay_id": np.repeat(stay_id, per_stay),
            "charted": charted,
            "available": charted + np.timedelta64(17, "m"),
            "volume_ml": rng.integers(20, 300, len(charted)).astype(float),
        }
    )


def against_pandas(config: GridConfig, rows_per_stay: int) -> tuple[float, float, int]:
    """CPU seconds of our whole state and of pandas' carried values alone, on one shard, after checking they agree."""
    shard = make_shard(0, rows_per_stay)
    anchor, hours = shard.stays["intime"].to_numpy(), np.append(config.hours, config.horizon_hours)
    start = time.process_time()
    made = features.states(shard, anchor, hours, config)
    ours = time.process_time() - start
    start = time.process_time()
    plain = pandas_version(shard, hours)
    theirs = time.process_time() - start
    compared = 0
    for column, name in enumerate(features.MEASURED):
        if name in plain and name not in ("gcs", "fio2"):  # combined from parts, estimated from oxygen flow
            np.testing.assert_array_equal(plain[name].to_numpy(), made.value[..., features.FEATURES.index(name)])
            compared += made.age_h[..., column].size
    return round(ours, 3), round(theirs, 3), compared


def pandas_version(shard: Tables, hours: np.ndarray) -> dict[str, pd.DataFrame]:
    """The same carried values as a data scientist would write them: sort, group, pivot, fill forward, mask the old."""
    rows = shard.observations.merge(shard.stays[["stay_id", "intime"]], on="stay_id")
    rows["hour"] = (rows["available"] - rows["intime"]) // pd.Timedelta(hours=1) + 1
    rows["hour"] = rows["hour"].clip(lower=0)
    rows = rows[rows["hour"] <= hours[-1]].sort_values(["charted", "available", "value"])
    rows = rows.drop_duplicates(["stay_id", "concept", "hour"], keep="last").sort_values("hour")
    latest = rows.groupby(["stay_id", "concept"], observed=True)["charted"].cummax()
    rows = rows[rows["charted"] >= latest]
    out = {}
    for name, part in rows.groupby("concept", observed=True):
        wide = part.pivot(index="stay_id", columns="hour", values=["value", "charted"])
        value = wide["value"].reindex(index=shard.stays["stay_id"], columns=hours).astype(float).ffill(axis=1)
        charted = wide["charted"].reindex(index=shard.stays["stay_id"], columns=hours).ffill(axis=1)
        decision = shard.stays["intime"].to_numpy()[:, None] + hours.astype("timedelta64[h]")
        hold = pd.Timedelta(hours=concepts.load().measured[str(name)].hold_hours)
        out[str(name)] = value.where(decision - charted.astype("datetime64[us]") <= hold)
    return out


if __name__ == "__main__":
    sys.exit(main())
