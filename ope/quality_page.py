"""Quality page: who is in the cohort and how it was charted, for a reader who must decide whether to use the data."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from cohort import artifact, concepts
from cohort.baseline import BINARY
from cohort.errors import ArtifactError
from ope import evidence, page, plots

READ = ("flow.json", "baseline.json", "quality.json")
"""The cohort's files that the page prints; each is checked against the manifest's hash before it is read."""
DETECTION_STAGE, DETECTION = "rollouts", "detection.json"
"""The stage of a simulated run that tells which of its planted faults were caught, and its file."""
LEAST_CAUGHT = 0.95
"""Share of a kind of fault below which the page marks it."""
SMALLEST_CELL = 10
"""Counts of fewer stays are not printed in Table 1, nor is anything from which they could be worked out."""
STRONG_DRIFT = 0.25
"""Standard deviations between calendar thirds from which drift is marked: the usual bound for a group's imbalance."""
KINDS: Mapping[str, str] = {
    "out of range": "out_of_range",
    "unit not known": "quarantined",
    "2.2 times earlier weights of its stay: pounds, not used": "quarantined",
    "converted from another unit than usual": "converted",
    "repeated row": "repeated",
    "value missing": "without_value",
    "stored before it was charted": "stored_early",
}
"""Reason that the source counts by concept -> its column."""
ORDER = ("end not after start", "start or end missing", "charting time missing", "storing time missing")
EARLY = "stored before it was charted"
OVERLAP = "overlaps "
NAMES: Mapping[str, tuple[str, str]] = {
    "age_years": ("Age", "years"), "sex_male": ("Male", ""), "icu_hours": ("Time in intensive care", "h"),
    "fluid_ever": ("Any fluid", ""), "vasopressor_ever": ("Any vasopressor", ""),
    "fluid_ml_first_24_h": ("Fluid in the first 24 h", "mL"), "temperature_c": ("Temperature", "°C"),
    "weight_kg": ("Weight", "kg"), "hours_since_start": ("Time since the start", "h"),
    "urine_output_step": ("Urine in the last window", "mL"), "urine_output_total": ("Urine since the start", "mL"),
    "mechanical_ventilation": ("Mechanical ventilation", ""), "pao2_fio2": ("PaO₂/FiO₂", "mmHg"),
    "map": ("Mean arterial pressure", "mmHg"), "sbp": ("Systolic pressure", "mmHg"),
    "dbp": ("Diastolic pressure", "mmHg"), "resp_rate": ("Respiratory rate", "1/min"), "ph": ("pH", ""),
    "cvp": ("Central venous pressure", "mmHg"), "bun": ("Urea nitrogen", "mg/dL"), "wbc": ("White cells", "10⁹/L"),
    "platelets": ("Platelets", "10⁹/L"), "ptt": ("PTT", "s"), "pt": ("PT", "s"), "inr": ("INR", ""),
    "shock_index": ("Shock index", ""),
}  # fmt: skip
"""Feature or characteristic -> its name and unit, where those of the dictionary would not read well."""
SPELT = {
    "gcs": "GCS", "spo2": "SpO₂", "fio2": "FiO₂", "co2": "CO₂", "ast": "AST", "alt": "ALT", "pao2": "PaO₂",
    "paco2": "PaCO₂", "sofa": "SOFA", "sirs": "SIRS", "o2": "O₂", "ml": "mL", "peep": "PEEP",
}  # fmt: skip
RULES = {
    "sofa": ", highest", "sirs": ", highest", "mechanical_ventilation": ", ever", "urine_output_total": " to 24 h",
}  # fmt: skip
"""What Table 1 says of a feature within 24 h where it is not the first value."""
ENDS = {"death": "death", "discharge": "leaving intensive care", "horizon": "the horizon: the stay went on"}


@dataclass(frozen=True)
class Evidence:
    """A cohort's documents and the hashes that vouch for them."""

    flow: dict[str, Any]
    baseline: dict[str, Any]
    quality: dict[str, Any]
    faults: list[dict[str, Any]] | None
    """Planted faults by kind and how many were caught; None where the truth is not known."""
    hashes: Mapping[str, str]
    digest: str


def render(run: Path) -> str:
    """The quality of a run's cohort as one HTML page that needs no network; the same cohort gives the same bytes.

    Raises:
        ArtifactError: the run has no finished cohort, or a file differs from its manifest.
    """
    return page.render("quality.html.j2", context(read(run)))


def read(run: Path) -> Evidence:
    """Gather a cohort's documents, each checked against its manifest.

    Raises:
        ArtifactError: one is missing, changed, not JSON, or of an older cohort that lacks the sizes of its cells.
    """
    hashes = {file: evidence.checked(run, "cohort", file) for file in READ}
    flow, baseline, quality = (artifact.read_json(run / "cohort" / file) for file in READ)
    if not all("known" in row for row in baseline["rows"]):
        raise ArtifactError(f"{run / 'cohort' / 'baseline.json'}: rows: no field `known`; build the cohort again")
    faults = None
    if (run / DETECTION_STAGE / artifact.MANIFEST).is_file():
        hashes[DETECTION] = evidence.checked(run, DETECTION_STAGE, DETECTION)
        faults = artifact.read_json(run / DETECTION_STAGE / DETECTION)["faults"]
    return Evidence(flow, baseline, quality, faults, hashes, artifact.digest(run / "cohort"))


def context(evidence: Evidence) -> dict[str, Any]:
    """Everything the template prints, by section."""
    quality = evidence.quality
    losses = [row for row in quality["source"] if row["rows"]]
    return {
        "evidence": evidence,
        "record": quality["record"],
        "windows": quality["windows"],
        "diagram": _diagram(evidence.flow["steps"]),
        "ends": [(ENDS.get(name, name), n) for name, n in evidence.flow["ends"].items()],
        "groups": _groups(evidence.baseline["groups"]),
        "table_1": table_1(evidence.baseline),
        "smallest_cell": SMALLEST_CELL,
        "features": _features(quality["features"]),
        "strong_drift": STRONG_DRIFT,
        "charted": charted(quality),
        "overlaps": [row for row in losses if row["reason"].startswith(OVERLAP)],
        "times": [
            *(row for row in losses if row["reason"].rpartition(": ")[2].startswith(ORDER)),
            *_stored_early(losses),
        ],
        "losses": losses,
        "faults": None if evidence.faults is None else [row for row in evidence.faults if row["planted"]],
        "least_caught": LEAST_CAUGHT,
        "sofa_missing": list(enumerate(quality["sofa_missing_systems"])),
        "bar": plots.bar,
    }


def table_1(baseline: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Table 1's rows as text; where one outcome's cell is small both are withheld, or the total would give it away."""
    return [_characteristic(row) for row in baseline["rows"]]


def named(name: str) -> tuple[str, str]:
    """The name and the unit that a reader knows a feature by."""
    if name in NAMES:
        return NAMES[name]
    known = concepts.load().measured
    words = [SPELT.get(word, word) for word in name.split("_")]
    text = " ".join(words)
    return text[:1].upper() + text[1:], known[name].unit if name in known else ""


def charted(quality: Mapping[str, Any]) -> list[dict[str, Any]]:
    """How each concept was charted: rows (None where it is no observation), units, delay, and what was counted."""
    record = quality["record"]
    rows: dict[str, dict[str, Any]] = {
        name: {"name": named(name)[0], "rows": n, **dict.fromkeys(KINDS.values(), 0)}
        for name, n in sorted(record["rows"].items())
    }
    for loss in quality["source"]:
        concept, _, reason = loss["reason"].partition(": ")
        if reason in KINDS and concept not in ("fluid", "drug"):
            row = rows.setdefault(
                concept, {"name": named(concept)[0], "rows": None, **dict.fromkeys(KINDS.values(), 0)}
            )
            row[KINDS[reason]] += loss["rows"]
    for name in set(record["delay_minutes"]) - set(rows):
        rows[name] = {"name": named(name)[0], "rows": None, **dict.fromkeys(KINDS.values(), 0)}
    for name, row in rows.items():
        row["units"] = _units(record["units"].get(name, {}))
        row["conflicts"] = record["conflicts"].get(name, 0)
        row["delay"] = record["delay_minutes"].get(name)
    return sorted(rows.values(), key=_by_name)


def _stored_early(losses: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row a table of those stored before they were charted, whatever they measure."""
    rows: Counter[str] = Counter()
    for row in losses:
        if row["reason"].endswith(EARLY):
            rows[row["table"]] += row["rows"]
    return [{"table": table, "reason": f"{EARLY}: the later time counts", "rows": n} for table, n in rows.items()]


def _characteristic(row: Mapping[str, Any]) -> dict[str, Any]:
    name, unit = named(row["name"])
    cells = {group: _small(row[group], row["known"][group]) for group in ("overall", "survived", "died")}
    withheld = cells["survived"] or cells["died"]
    missing, shown = row["missing"], {}
    for group, small in cells.items():
        hidden = small or (withheld and group != "overall")
        shown[group] = None if hidden else _summary(row[group])
    return {
        "name": name + RULES.get(row["name"], ""),
        "unit": unit,
        "missing": f"<{SMALLEST_CELL}" if 0 < missing < SMALLEST_CELL else f"{missing:,}",
        "smd": None if withheld else row["smd"],
        **shown,
    }


def _small(cell: Mapping[str, Any] | Sequence[float] | None, known: int) -> bool:
    """True where a cell is about fewer stays than may be told: those it describes, with the trait, or without it."""
    if cell is None or known < SMALLEST_CELL:
        return True
    return isinstance(cell, Mapping) and min(cell["count"], known - cell["count"]) < SMALLEST_CELL


def _summary(cell: Mapping[str, Any] | Sequence[float]) -> str:
    if isinstance(cell, Mapping):
        return f"{cell['count']:,} ({cell['share']:.0%})"
    low, middle, high = (_plain(value) for value in cell)
    return f"{middle} ({low} to {high})"


def _groups(groups: Mapping[str, int]) -> dict[str, str]:
    """The size of each group; both outcomes' are withheld where one is small."""
    small = min(groups["survived"], groups["died"]) < SMALLEST_CELL
    return {
        name: "not shown" if n < SMALLEST_CELL or (small and name != "overall") else f"{n:,}"
        for name, n in groups.items()
    }


def _plain(value: float) -> str:
    """Three figures, more only before the decimal point."""
    text = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return text.replace("-", "−")


def _diagram(steps: Sequence[Mapping[str, Any]]) -> Markup:
    boxes: list[tuple[str, tuple[str, str] | None]] = []
    for number, step in enumerate(steps):
        left = f"{step['stays_kept']:,} stays of {step['patients_kept']:,} patients"
        where = " in the source" if number == 0 else " in the cohort" if number == len(steps) - 1 else ""
        lost = None if number == 0 else (f"{step['stays_lost']:,} stays left out", str(step["reason"]))
        boxes.append((left + where, lost))
    said = "; ".join(f"{lost[0]}: {lost[1]}; {left} remain" if lost else left for left, lost in boxes)
    return plots.flow(boxes, f"Cohort flow: {said}")


def _features(found: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    rows = [
        {
            "name": named(name)[0],
            "unit": named(name)[1],
            "columns": plots.columns(entry["coverage_by_step"], _course(name, entry["coverage_by_step"])),
            "age": [f"{hours:.1f}" for hours in entry["age_h_quartiles"]] if entry["age_h_quartiles"] else None,
            "values": [_plain(value) for value in entry["quartiles"]]
            if entry["quartiles"] and name not in BINARY
            else None,
            "coverage": entry["coverage"],
            "drift": entry["drift"],
        }
        for name, entry in found.items()
    ]
    return sorted(rows, key=_by_name)


def _by_name(row: Mapping[str, Any]) -> str:
    return str(row["name"]).lower()


def _course(name: str, shares: Sequence[float]) -> str:
    return f"{named(name)[0]} known at {shares[0]:.0%} of the first decisions, {shares[-1]:.0%} of the last"


def _units(rows: Mapping[str, int]) -> list[tuple[str, int]]:
    """Units as the source wrote them, the commonest first."""
    return sorted(((unit or "none written", n) for unit, n in rows.items()), key=lambda one: (-one[1], one[0]))
