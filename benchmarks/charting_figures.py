"""Benchmark: how the simulated hospital is charted, measured from its files, beside counts of the MIMIC-IV demo."""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import duckdb

from cohort.hospital import HospitalConfig, simulate
from cohort.sources import items

CHARTED: dict[str, tuple[str, tuple[int, ...]]] = {
    # figure: table, items
    "heart_rate": ("chartevents", (220045,)),
    "map": ("chartevents", (220052, 220181, 225312)),
    "spo2": ("chartevents", (220277,)),
    "temperature": ("chartevents", (223761, 223762)),
    "gcs": ("chartevents", (223900,)),
    "fio2": ("chartevents", (223835,)),
    "potassium": ("labevents", (50971, 50822)),
    "creatinine": ("labevents", (50912,)),
    "platelets": ("labevents", (51265,)),
    "inr": ("labevents", (51237,)),
    "gas": ("labevents", (50821,)),
    "lactate": ("labevents", (50813,)),
    "bilirubin": ("labevents", (50885,)),
    "albumin": ("labevents", (50862,)),
}
_DELAYS = {
    "vitals": ("chartevents", (220045, 220052, 220181, 220277)),
    "gcs": ("chartevents", (220739, 223900, 223901)),
    "chemistry": ("labevents", (50971, 50912, 51006)),
    "haemoglobin": ("labevents", (51222,)),
    "gas and lactate": ("labevents", (50821, 50813)),
    "urine": ("outputevents", (226559, 226560)),
}
_VASOPRESSORS = (221906, 222315, 221749, 221662, 221289)
HORIZON_HOURS = 72
WINDOW_HOURS = 4

TARGETS: dict[str, float] = {
    "per hour: heart_rate": 1.14, "per hour: map": 1.16, "per hour: spo2": 1.11, "per hour: temperature": 0.32,
    "per hour: gcs": 0.28, "per hour: fio2": 0.15,
    "per day: potassium": 2.7, "per day: creatinine": 2.0, "per day: platelets": 1.9, "per day: inr": 1.4,
    "per day: gas": 2.0, "per day: lactate": 1.4, "per day: bilirubin": 0.6,
    "per day on vasopressors: gas": 3.3, "per day off vasopressors: gas": 1.1,
    "per day on vasopressors: lactate": 2.3, "per day off vasopressors: lactate": 0.7,
    "no new value in 4 h: heart_rate": 0.01, "no new value in 4 h: temperature": 0.09, "no new value in 4 h: gcs": 0.19,
    "no new value in 4 h: fio2": 0.59, "no new value in 4 h: potassium": 0.62, "no new value in 4 h: creatinine": 0.68,
    "no new value in 4 h: inr": 0.78, "no new value in 4 h: gas": 0.77, "no new value in 4 h: lactate": 0.79,
    "no new value in 4 h: bilirubin": 0.90, "no new value in 4 h: albumin": 0.96,
    "delay, median: vitals": 20, "delay, p95: vitals": 131, "delay, median: gcs": 10, "delay, p95: gcs": 164,
    "delay, median: chemistry": 68, "delay, p95: chemistry": 128, "delay, median: haemoglobin": 36,
    "delay, p95: haemoglobin": 92, "delay, median: gas and lactate": 3, "delay, p95: gas and lactate": 8,
    "delay, median: urine": 17, "labs without hadm_id": 0.19, "map below 55": 0.036, "map below 65": 0.18,
    "map above 95": 0.083, "heart rate known at hour 0": 0.15, "feature rows an hour": 10.0, "rows an hour": 24.0,
}  # fmt: skip
"""Counts of the MIMIC-IV demo (the last two: all rows of it)."""


UNCLAIMED = "rows an hour"
"""Fewer rows that no feature reads are written than in a real unit, to keep 50,000 stays within 60 million rows."""
STAYS, QUICK_STAYS, SEED = 5_000, 1_000, 7
MOST_OFF = 0.25


def main() -> int:
    """Print one JSON object; exit code 1 where a figure is off by more than a quarter."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_STAYS:,} stays instead of {STAYS:,}")
    quick = parser.parse_args().quick
    stays = QUICK_STAYS if quick else STAYS
    with tempfile.TemporaryDirectory() as folder:
        simulate(Path(folder) / "tables", Path(folder) / "truth", HospitalConfig(n_stays=stays), SEED)
        found = measure(Path(folder) / "tables")
    claims = [
        claim(f"{name}: relative distance from the demo's", abs(found[name] / real - 1), MOST_OFF)
        for name, real in TARGETS.items()
        if name != UNCLAIMED
    ]
    figures = {name: {"demo": real, "simulated": round(found[name], 4)} for name, real in TARGETS.items()}
    result = {"benchmark": "charting_figures", "quick": quick, "stays": stays, "figures": figures, "claims": claims}
    print(json.dumps(result, indent=1))
    return 0 if all(one["holds"] for one in claims) else 1


def claim(name: str, value: float, bar: float) -> dict[str, object]:
    """A claim that a value is at most the bar."""
    return {"name": name, "value": round(value, 4), "bar": bar, "better": "low", "holds": bool(value <= bar)}


def measure(tables: Path) -> dict[str, float]:
    """All figures of TARGETS, from the parquet or csv.gz files below `tables`; rates are over the first 72 h."""
    with duckdb.connect() as db:
        _open(db, tables)
        found = {**_frequencies(db), **_by_vasopressor(db), **_gaps(db), **_delays(db), **_pressures(db), **_totals(db)}
    return {name: float(found[name]) for name in TARGETS}


def _open(db: duckdb.DuckDBPyConnection, tables: Path) -> None:
    for name in ("icu/icustays", "icu/chartevents", "icu/outputevents", "icu/inputevents", "hosp/labevents"):
        file = next(tables.glob(f"{name}.*"))
        reader = "read_parquet" if file.suffix == ".parquet" else "read_csv"
        db.execute(f"create view {name.rpartition('/')[2]} as select * from {reader}('{file}')")
    db.execute(
        f"""create table stays as select stay_id, subject_id, intime,
            least(outtime, intime + interval {HORIZON_HOURS} hour) as until,
            date_diff('second', intime, least(outtime, intime + interval {HORIZON_HOURS} hour)) / 3600.0 as hours
            from icustays"""
    )
    db.execute(
        f"""create table given as select stay_id, starttime, endtime from inputevents
            where itemid in {_VASOPRESSORS} and statusdescription <> 'Rewritten' and amount > 0"""
    )
    for figure, (table, ids) in CHARTED.items():
        key = "stay_id" if table == "chartevents" else "subject_id"
        chosen = f"({','.join(map(str, ids))})"
        db.execute(
            f"""create table f_{figure} as select s.stay_id, s.intime, e.charttime,
                date_diff('second', s.intime, e.charttime) / 3600.0 as hour
                from {table} e join stays s using ({key}) where e.itemid in {chosen}
                and e.charttime >= s.intime and e.charttime < s.until"""
        )


def _one(db: duckdb.DuckDBPyConnection, query: str) -> tuple[float, ...]:
    row = db.execute(query).fetchone()
    assert row is not None
    return row


def _frequencies(db: duckdb.DuckDBPyConnection) -> dict[str, float]:
    (hours,) = _one(db, "select sum(hours) from stays")
    found = {}
    for figure, (table, _) in CHARTED.items():
        (count,) = _one(db, f"select count(*) from f_{figure}")
        found[f"per hour: {figure}" if table == "chartevents" else f"per day: {figure}"] = (
            count / hours * (1 if table == "chartevents" else 24)
        )
    return found


def _by_vasopressor(db: duckdb.DuckDBPyConnection) -> dict[str, float]:
    """Windows of 4 h with and without a vasopressor running in them."""
    db.execute(
        f"""create table windows as with w as (select stay_id, intime, until,
            unnest(range(0, {HORIZON_HOURS}, {WINDOW_HOURS})) as h from stays)
            select stay_id, h, least(until, intime + interval (h + {WINDOW_HOURS}) hour) as ends,
            intime + interval (h) hour as begins from w where intime + interval (h) hour < until"""
    )
    db.execute(
        """create table pressed as select w.*, exists(select 1 from given g where g.stay_id = w.stay_id
           and g.starttime < w.ends and g.endtime > w.begins) as running,
           date_diff('second', begins, ends) / 86400.0 as days from windows w"""
    )
    found = {}
    for figure in ("gas", "lactate"):
        for running, name in ((True, "on"), (False, "off")):
            (count,) = _one(
                db,
                f"""select count(*) from f_{figure} f join pressed p on f.stay_id = p.stay_id
                    and f.charttime >= p.begins and f.charttime < p.ends where p.running = {running}""",
            )
            (days,) = _one(db, f"select sum(days) from pressed where running = {running}")
            found[f"per day {name} vasopressors: {figure}"] = count / days
    return found


def _gaps(db: duckdb.DuckDBPyConnection) -> dict[str, float]:
    """Share of whole windows of 4 h without a value."""
    found = {}
    for figure in CHARTED:
        (share,) = _one(
            db,
            f"""select avg((n is null)::int) from (select w.stay_id, w.h, any_value(f.n) as n from pressed w left join
                (select stay_id, floor(hour / {WINDOW_HOURS}) * {WINDOW_HOURS} as h, count(*) as n from f_{figure}
                group by all) f on f.stay_id = w.stay_id and f.h = w.h where w.days * 24 = {WINDOW_HOURS}
                group by all)""",
        )
        found[f"no new value in 4 h: {figure}"] = share
    return found


def _delays(db: duckdb.DuckDBPyConnection) -> dict[str, float]:
    found = {}
    for name, (table, ids) in _DELAYS.items():
        chosen = f"({','.join(map(str, ids))})"
        median, high = _one(
            db,
            f"""select quantile_cont(d, 0.5), quantile_cont(d, 0.95) from (
                select date_diff('second', charttime, storetime) / 60.0 as d from {table} where itemid in {chosen})""",
        )
        found[f"delay, median: {name}"], found[f"delay, p95: {name}"] = median, high
    (found["labs without hadm_id"],) = _one(db, "select avg((hadm_id is null)::int) from labevents")
    return found


def _pressures(db: duckdb.DuckDBPyConnection) -> dict[str, float]:
    low, lower, high = _one(
        db,
        """select avg((valuenum < 55)::int), avg((valuenum < 65)::int), avg((valuenum > 95)::int) from chartevents
           where itemid in (220052, 220181, 225312) and valuenum between 1 and 200""",
    )
    (known,) = _one(
        db,
        """select count(distinct s.stay_id) / (select count(*) from stays)
           from chartevents c join stays s using (stay_id) where c.itemid = 220045
           and c.charttime < s.intime and c.charttime >= s.intime - interval 2 hour""",
    )
    return {"map below 55": low, "map below 65": lower, "map above 95": high, "heart rate known at hour 0": known}


def _totals(db: duckdb.DuckDBPyConnection) -> dict[str, float]:
    """Rows an hour of the whole stay; a feature's rows are those whose item has a concept."""
    known = ",".join(map(str, items.load("mimic_iv").ids()))
    (hours,) = _one(db, "select sum(date_diff('second', intime, outtime)) / 3600.0 from icustays")
    every = useful = 0.0
    for table in ("chartevents", "labevents", "outputevents", "inputevents"):
        rows, kept = _one(db, f"select count(*), count(*) filter (itemid in ({known})) from {table}")
        every, useful = every + rows, useful + kept
    return {"rows an hour": every / hours, "feature rows an hour": useful / hours}


if __name__ == "__main__":
    sys.exit(main())
