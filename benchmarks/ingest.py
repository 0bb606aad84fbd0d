"""Benchmark: chart rows in MIMIC-IV layout (csv.gz) to canonical shards: CPU time a row, memory that stays flat."""

import argparse
import gzip
import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

STAY_HOURS = 80
ROWS_AN_HOUR = 24
"""Everything charted in MIMIC-IV; about ten of these rows are of items that are read."""
STAYS_A_CHUNK = 500
FULL_ROWS = 433_000_000
"""Rows of chartevents in MIMIC-IV 3.1."""
READ = {  # item id: relative frequency, centre, spread, unit
    220045: (10, 85, 15, "bpm"), 220210: (10, 19, 4, "insp/min"), 220277: (10, 97, 2, "%"),
    220179: (6, 118, 20, "mmHg"), 220180: (6, 62, 12, "mmHg"), 220181: (6, 76, 12, "mmHg"),
    220050: (4, 118, 20, "mmHg"), 220051: (4, 58, 12, "mmHg"), 220052: (4, 77, 12, "mmHg"),
    223761: (3, 98.4, 1, "°F"), 220739: (3, 3, 1, ""), 223901: (3, 5, 1, ""), 223900: (3, 4, 1, ""),
    223835: (2, 50, 12, ""), 220339: (1, 7, 2, "cmH2O"), 224685: (1, 480, 80, "mL"), 220621: (1, 140, 40, "mg/dL"),
    226732: (2, 0, 0, ""),
}  # fmt: skip
OTHERS = np.arange(224000, 224090)
_CHILD = """
import json, resource, sys, time
from pathlib import Path
from cohort import sources
sources.ingest(Path(sys.argv[1]), Path(sys.argv[2]), sources.SourceConfig(kind="mimic_iv", workers=int(sys.argv[3])))
own, others = (resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
cpu = own.ru_utime + own.ru_stime + others.ru_utime + others.ru_stime
print(json.dumps({"cpu_s": cpu, "peak_mb": max(own.ru_maxrss, others.ru_maxrss) / 1024}))
"""


def main() -> int:
    """Print one JSON object; exit code 1 where a claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="2 M and 6 M rows instead of 5 M, 20 M and 80 M")
    parser.add_argument("--workers", type=int, default=1, help="processes over the shards")
    options = parser.parse_args()
    sizes = (2_000_000, 6_000_000) if options.quick else (5_000_000, 20_000_000, 80_000_000)
    runs = [measure(rows, options.workers) for rows in sizes]
    small, large = runs[0], runs[-1]
    rate = large["rows"] / large["cpu_s"]
    per_row, fixed = np.polyfit([run["rows"] for run in runs], [run["cpu_s"] for run in runs], 1)
    claims = [
        ("chart rows per CPU-second", rate, 1e6, "high"),
        ("peak memory of the larger, MB", large["peak_mb"], 2000.0, "low"),
        ("peak memory, larger over smaller", large["peak_mb"] / small["peak_mb"], 1.3, "low"),
    ]
    result = {
        "runs": runs,
        "extrapolation": {
            "rows": FULL_ROWS,
            "cpu_minutes": round((FULL_ROWS * per_row + fixed) / 60, 1),
            "note": "all of MIMIC-IV's chartevents, on the line through the runs; memory does not grow with rows",
        },
        "claims": [
            {"name": name, "value": round(value, 3), "bar": bar, "better": better,
             "holds": bool(value >= bar if better == "high" else value <= bar)}
            for name, value, bar, better in claims
        ],
    }  # fmt: skip
    print(json.dumps(result, indent=1))
    return 0 if all(claim["holds"] for claim in result["claims"]) else 1


def measure(rows: int, workers: int) -> dict[str, float]:
    """Write a hospital of about so many chart rows, read it in a process of its own, and say what that cost."""
    with tempfile.TemporaryDirectory() as scratch:
        written = write(Path(scratch) / "hospital", rows)
        arguments = [str(Path(scratch) / "hospital"), str(Path(scratch) / "out"), str(workers)]
        done = subprocess.run(
            [sys.executable, "-c", _CHILD, *arguments], check=True, capture_output=True, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        cost = json.loads(done.stdout)
    return {"rows": written, "cpu_s": round(cost["cpu_s"], 2), "peak_mb": round(cost["peak_mb"], 1),
            "rows_per_cpu_s": round(written / cost["cpu_s"])}  # fmt: skip


def write(root: Path, rows: int) -> int:
    """A hospital's tables as csv.gz; returns its chart rows. Chart rows are written in chunks of stays."""
    per_stay = STAY_HOURS * ROWS_AN_HOUR
    chunks = max(rows // (per_stay * STAYS_A_CHUNK), 1)
    stays = chunks * STAYS_A_CHUNK
    for folder in ("hosp", "icu"):
        (root / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    start = np.datetime64("2130-01-01", "s") + rng.integers(0, 70 * 365 * 86400, stays).astype("timedelta64[s]")
    _static(root, start)
    with (root / "icu" / "chartevents.csv.gz").open("wb") as out:
        for chunk in range(chunks):
            first = chunk * STAYS_A_CHUNK
            table = _chart(rng, np.arange(first, first + STAYS_A_CHUNK), start)
            text = io.BytesIO()
            pacsv.write_csv(table, text, pacsv.WriteOptions(include_header=chunk == 0))
            out.write(gzip.compress(text.getvalue(), compresslevel=4))
    return chunks * STAYS_A_CHUNK * per_stay


def _static(root: Path, start: np.ndarray) -> None:
    n = len(start)
    ids, end = np.arange(n), start + np.timedelta64(STAY_HOURS, "h")
    admitted, discharged = start - np.timedelta64(3, "h"), end + np.timedelta64(60, "h")
    subject, hadm, stay = 10_000_000 + ids, 20_000_000 + ids, 30_000_000 + ids
    none = pa.nulls(n, pa.string())
    tables = {
        "icu/icustays": {"subject_id": subject, "hadm_id": hadm, "stay_id": stay, "first_careunit": ["MICU"] * n,
                         "last_careunit": ["MICU"] * n, "intime": start, "outtime": end, "los": [STAY_HOURS / 24] * n},
        "hosp/patients": {"subject_id": subject, "gender": ["F"] * n, "anchor_age": [60] * n,
                          "anchor_year": start.astype("datetime64[Y]").astype(int) + 1970, "dod": none},
        "hosp/admissions": {"subject_id": subject, "hadm_id": hadm, "admittime": admitted, "dischtime": discharged,
                            "deathtime": none, "race": ["WHITE"] * n, "hospital_expire_flag": [0] * n},
        "icu/inputevents": {"subject_id": subject, "hadm_id": hadm, "stay_id": stay, "starttime": start,
                            "endtime": start + np.timedelta64(1, "h"), "itemid": [225158] * n, "amount": [500.0] * n,
                            "amountuom": ["ml"] * n, "rate": [500.0] * n, "rateuom": ["mL/hour"] * n, "orderid": ids,
                            "linkorderid": ids, "patientweight": [80.0] * n,
                            "statusdescription": ["FinishedRunning"] * n},
    }  # fmt: skip
    for name, columns in tables.items():
        with pa.CompressedOutputStream(str(root / f"{name}.csv.gz"), "gzip") as out:
            pacsv.write_csv(pa.table(columns), out)


def _chart(rng: np.random.Generator, stays: np.ndarray, start: np.ndarray) -> pa.Table:
    """All chart rows of some stays, in order of stay and time."""
    per_stay = STAY_HOURS * ROWS_AN_HOUR
    n = len(stays) * per_stay
    stay = np.repeat(stays, per_stay)
    minute = np.sort(rng.integers(0, STAY_HOURS * 60, (len(stays), per_stay)), axis=1).ravel()
    time = start[stay] + minute.astype("timedelta64[m]")
    ids, weight, centre, spread, unit = zip(*((i, *row) for i, row in READ.items()), strict=True)
    which = rng.choice(len(ids), n, p=np.array(weight) / sum(weight))
    read = rng.random(n) < 10 / ROWS_AN_HOUR
    item = np.where(read, np.array(ids)[which], rng.choice(OTHERS, n))
    number = np.round(np.array(centre)[which] + np.array(spread)[which] * rng.standard_normal(n), 1)
    device = item == 226732
    text = np.where(device, "Nasal cannula", number.astype("U8"))
    return pa.table(
        {
            "subject_id": 10_000_000 + stay,
            "hadm_id": 20_000_000 + stay,
            "stay_id": 30_000_000 + stay,
            "caregiver_id": rng.integers(1000, 99999, n),
            "charttime": pa.array(time).cast(pa.timestamp("s")),
            "storetime": pa.array(time + np.timedelta64(17, "m")).cast(pa.timestamp("s")),
            "itemid": item,
            "value": text,
            "valuenum": pa.array(number, mask=device),
            "valueuom": np.where(read, np.array(unit)[which], "cmH2O"),
            "warning": np.zeros(n, dtype=np.int64),
        }
    )


if __name__ == "__main__":
    sys.exit(main())
