"""Detection: how many of the faults that the simulated hospital planted never reached the canonical tables."""

from pathlib import Path

import duckdb

from cohort import artifact
from cohort.sources import items

UNIT_FAULTS = ("fahrenheit_as_celsius", "celsius_as_fahrenheit", "fio2_litres", "pounds_as_kg", "foreign_unit",
               "unknown_unit", "mislabelled_unit", "hourly_as_minute")  # fmt: skip
"""Kinds of fault in which a number is not what its unit says."""
_VALUES = (*UNIT_FAULTS[:-1], "zero_heart_rate", "flush_pressure", "probe_off", "impossible_value")


def caught(tables: Path, canonical: Path, truth: Path) -> dict[str, tuple[int, int]]:
    """Kind -> (planted, caught), row by row: a fault escapes where the canonical tables hold what it wrote.

    Only stays that are in the canonical tables are looked at.

    Args:
        tables: what `simulate` wrote, in MIMIC-IV's layout.
        canonical: the shards that were made of them.
        truth: the simulator's, with faults.parquet.
    """
    with duckdb.connect(config={"threads": 1}) as db:
        db.execute("set enable_progress_bar = false")
        _open(db, tables, canonical, truth)
        found = {kind: _values(db, kind) for kind in _VALUES}
        found["hourly_as_minute"] = _infusions(db, "hourly_as_minute", "abs(c.normalised_rate - r.rate) < 1e-9")
        found["overlap"] = _infusions(db, "overlap", 'c."end" = r.endtime')
        for kind in ("rewritten", "end_before_start"):
            found[kind] = _infusions(db, kind, "true")
        found["infusion_duplicate"] = _repeated_orders(db)
        found["duplicate"] = _duplicates(db)
    return found


def write(out: Path, tables: Path, canonical: Path, truth: Path) -> None:
    """Write what `caught` finds as JSON: {"faults": [{"kind", "unit_fault", "planted", "caught"}]}, kinds in order."""
    found = caught(tables, canonical, truth)
    rows = [
        {"kind": kind, "unit_fault": kind in UNIT_FAULTS, "planted": planted, "caught": seen}
        for kind, (planted, seen) in sorted(found.items())
    ]
    artifact.write_json(out, {"faults": rows})


def _open(db: duckdb.DuckDBPyConnection, tables: Path, canonical: Path, truth: Path) -> None:
    """Tables of the faults and the canonical tables; of the largest only what was charted when a fault was."""
    for name in ("stays", "infusions", "outputs"):
        db.execute(f"create table c_{name} as select * from read_parquet('{canonical}/shard-*/{name}.parquet')")
    db.execute(
        f"""create table faults as select * from read_parquet('{truth}/faults.parquet')
            where stay_id in (select stay_id from c_stays)"""
    )
    db.execute("create table touched as select distinct subject_id, charttime from faults join c_stays using (stay_id)")
    db.execute(
        f"""create table c_observations as select o.* from read_parquet('{canonical}/shard-*/observations.parquet') o
            join c_stays s using (stay_id)
            join touched t on t.subject_id = s.subject_id and t.charttime = o.charted"""
    )
    known = items.load("mimic_iv")
    pairs = ",".join(f"({i}, '{group.concept}')" for group in (*known.chart, *known.lab) for i in group.ids)
    db.execute(f"create table concepts as select * from (values {pairs}) as t(itemid, concept)")
    for view, file in (("inputs", "icu/inputevents"), ("chart", "icu/chartevents"), ("lab", "hosp/labevents")):
        (path,) = tables.glob(f"{file}.*")
        db.execute(f"create view {view} as select * from '{path}'")


def _pair(db: duckdb.DuckDBPyConnection, query: str) -> tuple[int, int]:
    """(planted, caught) of a query of (planted, escaped)."""
    row = db.execute(query).fetchone()
    assert row is not None
    return int(row[0]), int(row[0]) - int(row[1])


def _values(db: duckdb.DuckDBPyConnection, kind: str) -> tuple[int, int]:
    # A Celsius number under Fahrenheit is repaired by keeping it; every other number is wrong as it stands.
    read = "(f.value - 32) / 1.8" if kind == "celsius_as_fahrenheit" else "f.value"
    return _pair(
        db,
        f"""select count(*), count(*) filter (exists(select 1 from c_observations o where o.stay_id = f.stay_id
            and o.concept = k.concept and o.charted = f.charttime and abs(o.value - {read}) < 1e-9))
            from faults f join concepts k using (itemid) where f.kind = '{kind}'""",
    )


def _infusions(db: duckdb.DuckDBPyConnection, kind: str, escaped: str) -> tuple[int, int]:
    """`escaped`: a condition on the raw row r and its canonical row c."""
    return _pair(
        db,
        f"""select count(*), count(*) filter (exists(select 1 from c_infusions c where c.order_id = r.orderid
            and {escaped})) from faults f join inputs r on r.stay_id = f.stay_id and r.itemid = f.itemid
            and r.starttime = f.charttime and r.amount = f.value where f.kind = '{kind}'""",
    )


def _repeated_orders(db: duckdb.DuckDBPyConnection) -> tuple[int, int]:
    return _pair(
        db,
        """select (select count(*) from faults where kind = 'infusion_duplicate'),
           (select coalesce(sum(n - 1), 0) from (select count(*) as n from c_infusions group by order_id, item_id))""",
    )


def _duplicates(db: duckdb.DuckDBPyConnection) -> tuple[int, int]:
    """A duplicate escapes where there are more canonical values of its concept and time than distinct raw rows.

    Evidence of ventilation is left out: several items and the procedures make it. So is what no feature reads.
    """
    db.execute(
        """create table distinct_rows as select subject_id, concept, charttime, count(*) as n from (
           select distinct subject_id, itemid, charttime, valuenum, value
           from chart join touched using (subject_id, charttime) union
           select distinct subject_id, itemid, charttime, valuenum, value
           from lab join touched using (subject_id, charttime)) join concepts using (itemid) group by all"""
    )
    db.execute(
        """create table kept_rows as select s.subject_id, o.concept, o.charted as charttime, count(*) as n
           from c_observations o join c_stays s using (stay_id) group by all"""
    )
    observed = _pair(
        db,
        """select count(*), count(*) filter (c.n > d.n) from faults f join c_stays s using (stay_id)
           join concepts k using (itemid)
           join distinct_rows d on d.subject_id = s.subject_id and d.concept = k.concept and d.charttime = f.charttime
           left join kept_rows c on c.subject_id = s.subject_id and c.concept = k.concept and c.charttime = f.charttime
           where f.kind = 'duplicate' and k.concept <> 'mechanical_ventilation'""",
    )
    urine = _pair(
        db,
        """select (select count(*) from faults where kind = 'duplicate' and itemid in (226559, 226560, 227488, 227489)),
           (select coalesce(sum(n - 1), 0) from (select count(*) as n from c_outputs
           group by stay_id, charted, available, volume_ml))""",
    )
    return observed[0] + urine[0], observed[1] + urine[1]
