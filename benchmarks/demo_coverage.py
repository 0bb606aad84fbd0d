"""Benchmark: the real MIMIC-III demo through sources and cohort, per feature, beside published figures.

    benchmarks/demo_coverage.py [--demo DIR] [--page docs/decisions/mimic-iii-demo.md]

Prints one JSON object; `--page` also writes the tables of the page, between its markers.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

import pandas as pd

from cohort import build, concepts, sources, tables
from cohort.tables import Tables

ROOT = Path(__file__).resolve().parents[1]
DEMO = Path(os.environ.get("SUTURE_MIMIC_III_DEMO", ROOT.parent / "shared" / "data" / "mimic-iii-demo"))
BEGIN, END = "<!-- tables: benchmarks/demo_coverage.py writes from here -->", "<!-- to here -->"

RATES = {  # charted in the open MIMIC-IV demo: per stay-hour, and per day for laboratory values
    "heart_rate": (1.14, 1), "map": (1.16, 1), "spo2": (1.11, 1), "temperature_c": (0.32, 1), "gcs_motor": (0.28, 1),
    "fio2": (0.15, 1), "potassium": (2.7, 24), "creatinine": (2.0, 24), "platelets": (1.9, 24), "inr": (1.4, 24),
    "ph": (2.0, 24), "lactate": (1.4, 24), "bilirubin_total": (0.6, 24),
}  # fmt: skip
STALE = {  # no new value in 4 h, open MIMIC-IV demo
    "heart_rate": 0.01, "temperature_c": 0.09, "gcs": 0.19, "fio2": 0.59, "potassium": 0.62, "creatinine": 0.68,
    "inr": 0.78, "pao2": 0.77, "lactate": 0.79, "bilirubin_total": 0.90, "albumin": 0.96,
}  # fmt: skip
NORMAL = {  # laboratory reference intervals of adults
    "potassium": "3.5-5.1", "sodium": "136-145", "chloride": "98-107", "glucose": "70-99", "bun": "8-23",
    "creatinine": "0.5-1.2", "magnesium": "1.6-2.6", "calcium": "8.6-10.2", "ionised_calcium": "1.12-1.32",
    "total_co2": "22-29", "ast": "10-40", "alt": "7-40", "bilirubin_total": "0.1-1.2", "albumin": "3.5-5.2",
    "hemoglobin": "12-17", "wbc": "4-11", "platelets": "150-400", "ptt": "25-35", "pt": "11-13.5", "inr": "0.9-1.1",
    "ph": "7.35-7.45", "pao2": "80-100", "paco2": "35-45", "base_excess": "-2-2", "bicarbonate": "22-29",
    "lactate": "0.5-2.0", "heart_rate": "60-100", "sbp": "90-130", "map": "70-100", "dbp": "60-80",
    "resp_rate": "12-20", "spo2": "95-100", "temperature_c": "36.1-37.2", "gcs": "15", "fio2": "0.21",
}  # fmt: skip


def main() -> int:
    """Print one JSON object; exit code 1 where a claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--demo", type=Path, default=DEMO, help="the folder of the MIMIC-III demo")
    parser.add_argument("--page", type=Path, help="the page whose tables are written anew")
    parser.add_argument("--quick", action="store_true", help="the same: the demo is small")
    options = parser.parse_args()
    if not options.demo.is_dir():
        print(json.dumps({"skipped": f"no MIMIC-III demo at {options.demo}", "claims": []}))
        return 0
    measured = measure(options.demo)
    if options.page:
        _write(options.page, page(measured))
    print(json.dumps(measured, indent=1))
    return 0 if all(claim["holds"] for claim in measured["claims"]) else 1


def measure(demo: Path) -> dict[str, object]:
    """Everything the page shows."""
    with tempfile.TemporaryDirectory() as scratch:
        shards, out = Path(scratch) / "canonical", Path(scratch) / "cohort"
        counts = sources.ingest(demo, shards, sources.SourceConfig(kind="mimic_iii"))
        out.mkdir()
        build.build(shards, out, build.CohortConfig(), seed=1, workers=1)
        steps = pd.read_parquet(out / "trajectories.parquet")
        flow = json.loads((out / "flow.json").read_text())
        canonical = tables.read(shards / "shard-00000")
    stays = len(canonical.stays), steps["stay_id"].nunique()
    return {
        "stays_in_source": stays[0],
        "stays_in_cohort": stays[1],
        "flow": flow["steps"],
        "decisions": len(steps),
        "cohort": _cohort(canonical, steps),
        "features": {name: _feature(steps, name) for name in concepts.load().state},
        "charting": _charting(canonical),
        "dropped": {f"{table}: {reason}": count for (table, reason), count in sorted(counts.items())},
        "claims": [
            {"name": "stays read", "value": stays[0], "bar": 136, "better": "high", "holds": stays[0] == 136},
            {"name": "stays in the cohort", "value": stays[1], "bar": 134, "better": "high", "holds": stays[1] == 134},
        ],
    }


def _feature(steps: pd.DataFrame, name: str) -> dict[str, object]:
    """How often it is known, its quartiles where it is, and how often no value came since the last decision."""
    known = steps[~steps[f"{name}_imputed"]]
    age = steps.get(f"{name}_age_h")
    quartiles = [round(float(q), 3) for q in known[name].quantile([0.25, 0.5, 0.75])] if len(known) else None
    stale = None if age is None else round(float((~(age[steps["step"] > 0] < 4)).mean()), 3)
    return {"coverage": round(len(known) / len(steps), 3), "quartiles": quartiles, "no_new_value_in_4_h": stale}


def _cohort(canonical: Tables, steps: pd.DataFrame) -> dict[str, float]:
    """Figures of patients, stays and doses."""
    stays = canonical.stays[canonical.stays["stay_id"].isin(steps["stay_id"])]
    days = (stays["outtime"] - stays["intime"]).dt.total_seconds() / 86400
    fluid, pressor = steps["fluid_ml"], steps["vasopressor_ug_kg_min"]
    on = pressor > 0
    before = (steps["previous_vasopressor_ug_kg_min"] > 0)[steps["step"] > 0]
    after = on[steps["step"] > 0]
    given, infused = fluid[fluid > 0].quantile([0.25, 0.5, 0.75]), pressor[on].quantile([0.25, 0.5, 0.75, 0.95])
    figures = {
        "age_median": stays["age_years"].median(),
        "male": stays["sex_male"].mean(),
        "died_in_hospital": stays["died_in_hospital"].mean(),
        "icu_days_q1": days.quantile(0.25),
        "icu_days_median": days.median(),
        "icu_days_q3": days.quantile(0.75),
        "in_icu_at_72_h": (days > 3).mean(),
        "ever_vasopressor": on.groupby(steps["stay_id"]).any().mean(),
        "windows_with_vasopressor": on.mean(),
        "vasopressor_q1": infused[0.25],
        "vasopressor_median": infused[0.5],
        "vasopressor_q3": infused[0.75],
        "vasopressor_p95": infused[0.95],
        "on_given_on": after[before].mean(),
        "on_given_off": after[~before].mean(),
        "windows_with_fluid": (fluid > 0).mean(),
        "fluid_ml_q1": given[0.25],
        "fluid_ml_median": given[0.5],
        "fluid_ml_q3": given[0.75],
        "neither_drug": ((fluid == 0) & ~on).mean(),
        "ever_ventilated": steps.groupby("stay_id")["mechanical_ventilation"].max().gt(0).mean(),
        "sofa_at_24_h_mean": steps[steps["step"] == 6]["sofa"].mean(),
        "map_below_55": _share(canonical, 0, 55),
        "map_below_65": _share(canonical, 0, 65),
        "map_above_95": _share(canonical, 95, 999),
    }
    return {name: round(float(value), 3) for name, value in figures.items()}


def _share(canonical: Tables, low: float, high: float) -> float:
    """The share of mean pressures between two."""
    pressures = canonical.observations.query("concept == 'map'")["value"]
    return float(((pressures > low) & (pressures < high)).mean())


def _charting(canonical: Tables) -> dict[str, float]:
    """Values per stay-hour (laboratory: per day) while in the ICU."""
    stays = canonical.stays.set_index("stay_id")
    seen = canonical.observations
    start, end = (seen["stay_id"].map(stays[name]) for name in ("intime", "outtime"))
    inside = seen[(seen["charted"] >= start) & (seen["charted"] < end)]
    hours = (stays["outtime"] - stays["intime"]).dt.total_seconds().sum() / 3600
    count = inside["concept"].value_counts()
    return {name: round(float(count[name] / hours * per), 2) for name, (_, per) in RATES.items()}


PUBLISHED = [
    ("Age, years, median", "age_median", "65.8 (Johnson 2016, adult admissions)"),
    ("Male", "male", "55.9% (Johnson 2016)"),
    ("Died in hospital", "died_in_hospital", "11.5% (Johnson 2016); 14.5% (Sepsis-3 cohort)"),
    ("ICU days, first quartile", "icu_days_q1", "1.2 (Johnson 2016)"),
    ("ICU days, median", "icu_days_median", "2.1 (Johnson 2016)"),
    ("ICU days, third quartile", "icu_days_q3", "4.6 (Johnson 2016)"),
    ("Still in the ICU at 72 h", "in_icu_at_72_h", "39% (MIMIC-IV demo)"),
    ("SOFA at 24 h, mean", "sofa_at_24_h_mean", "7.2 (Komorowski 2018, septic, initial)"),
    ("Ever ventilated", "ever_ventilated", "55% (Komorowski 2018, septic)"),
    ("Ever on a vasopressor", "ever_vasopressor", "37% (MIMIC-IV demo); 35% (Komorowski 2018)"),
    ("Windows of 4 h with a vasopressor", "windows_with_vasopressor", "27% (MIMIC-IV demo)"),
    ("Norepinephrine equivalent, first quartile", "vasopressor_q1", ".033 (MIMIC-IV demo)"),
    ("Norepinephrine equivalent, median", "vasopressor_median", ".094 (MIMIC-IV demo)"),
    ("Norepinephrine equivalent, third quartile", "vasopressor_q3", ".218 (MIMIC-IV demo)"),
    ("Norepinephrine equivalent, 95th percentile", "vasopressor_p95", ".53 (MIMIC-IV demo)"),
    ("On a vasopressor after a window on one", "on_given_on", ".89 (MIMIC-IV demo)"),
    ("On a vasopressor after a window off", "on_given_off", ".027 (MIMIC-IV demo)"),
    ("Windows of 4 h with fluid", "windows_with_fluid", "84% (MIMIC-IV demo)"),
    ("Fluid of those, mL, first quartile", "fluid_ml_q1", "71 (MIMIC-IV demo)"),
    ("Fluid of those, mL, median", "fluid_ml_median", "240 (MIMIC-IV demo)"),
    ("Fluid of those, mL, third quartile", "fluid_ml_q3", "504 (MIMIC-IV demo)"),
    ("Windows with neither", "neither_drug", "16% (MIMIC-IV demo)"),
    ("MAP readings below 55", "map_below_55", "3.6% (MIMIC-IV demo)"),
    ("MAP readings below 65", "map_below_65", "18% (MIMIC-IV demo)"),
    ("MAP readings above 95", "map_above_95", "8.3% (MIMIC-IV demo)"),
]


def page(measured: dict[str, object]) -> str:
    """The page's tables, in Markdown."""
    return "\n\n".join([_flow_table(measured), _cohort_table(measured), _feature_table(measured), _dropped(measured)])


def _flow_table(measured: dict[str, object]) -> str:
    steps: list[dict[str, object]] = measured["flow"]  # type: ignore[assignment]
    rows = [f"| {step['reason']} | {step['stays_lost']} | {step['stays_kept']} |" for step in steps]
    return "\n".join(["## Flow", "", "| criterion | stays lost | stays left |", "|---|---|---|", *rows])


def _cohort_table(measured: dict[str, object]) -> str:
    found: dict[str, float] = measured["cohort"]  # type: ignore[assignment]
    rows = [f"| {label} | {found[name]:g} | {published} |" for label, name, published in PUBLISHED]
    charted: dict[str, float] = measured["charting"]  # type: ignore[assignment]
    for name, (published, per) in RATES.items():
        unit = "an hour" if per == 1 else "a day"
        rows.append(f"| {name}, values {unit} | {charted[name]:g} | {published:g} (MIMIC-IV demo) |")
    return "\n".join(["## Stays, doses, charting", "", "| figure | this demo | published |", "|---|---|---|", *rows])


def _feature_table(measured: dict[str, object]) -> str:
    features: dict[str, dict[str, object]] = measured["features"]  # type: ignore[assignment]
    head = "| feature | unit | coverage | q1 | median | q3 | normal | no new value in 4 h | published |"
    rows = [head, "|---|---|---|---|---|---|---|---|---|"]
    for name, row in features.items():
        concept = concepts.load().measured.get(name)
        quartiles = row["quartiles"] or ["", "", ""]
        cells = [name, concept.unit if concept else "", row["coverage"], *quartiles, NORMAL.get(name, "")]  # type: ignore[misc]
        stale = "" if row["no_new_value_in_4_h"] is None else row["no_new_value_in_4_h"]
        rows.append("| " + " | ".join(str(cell) for cell in [*cells, stale, STALE.get(name, "")]) + " |")
    return "\n".join(["## Features", "", *rows])


def _dropped(measured: dict[str, object]) -> str:
    lost: dict[str, int] = measured["dropped"]  # type: ignore[assignment]
    rows = [f"| {reason} | {count} |" for reason, count in lost.items()]
    return "\n".join(["## Rows dropped, changed or flagged", "", "| table: reason | rows |", "|---|---|", *rows])


def _write(path: Path, text: str) -> None:
    before, _, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
