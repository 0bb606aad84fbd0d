"""Report: a run as one document of numbers with their origins, and as a self-contained page made from it."""

import hashlib
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from cohort import concepts
from cohort.dictionary import Dictionary
from ope import crosswalk, page, pictures, plots, provenance
from ope.evidence import MULTIVERSE, RECORD, SWEEP, Evidence, canonical, gather
from ope.quality_page import named
from ope.words import (
    ASSUMPTIONS,
    CHANGES,
    ESTIMATORS,
    GATES,
    HAZARDS,
    LAYOUTS,
    MEASURES,
    POLICIES,
    SECTIONS,
    SPLITS,
    STRATA,
    SUBGROUPS,
    VERDICTS,
    GateText,
)  # fmt: skip

TEMPLATE = "report.html.j2"


def document(run: Path) -> dict[str, Any]:
    """What the report of a run says: what `gather` finds, and `printed`: each number on the page, its file and field.

    Raises:
        ArtifactError: the run has no finished cohort or evaluation, or a file differs from its manifest.
    """
    found = gather(run)
    body = page.render(TEMPLATE, {**context(Evidence(found)), "data": None})
    return {**found, "printed": [vars(one) for one in provenance.printed(body)]}


def render(document: Mapping[str, Any]) -> str:
    """The report as one HTML page that needs no network, holds its data, and checks itself in the browser."""
    data = canonical(document)
    shown = {"data": page.embedded(data.decode()), "digest": hashlib.sha256(data).hexdigest()}
    return page.render(TEMPLATE, {**context(Evidence(document)), **shown, **page.script("report.js")})


def context(evidence: Evidence) -> dict[str, Any]:
    """Everything the template prints, by section."""
    entry = evidence.evaluation["policies"][evidence.main]
    return {
        "evidence": evidence,
        "verdict": _verdict(evidence),
        "gate_texts": GATES,
        "about": {"policies": POLICIES, "estimators": ESTIMATORS, "splits": SPLITS, "hazards": HAZARDS},
        "entry": entry,
        "settings": evidence.manifests["cohort"]["config"]["cohort"],
        "training": evidence.manifests[f"policy/{evidence.main}"]["config"],
        "bc_difference": _primary(evidence, entry["against"].get("bc", [])),
        "simulated": "tables" in evidence.manifests,
        "layout": LAYOUTS.get(evidence.manifests["cohort"]["config"]["source"]["kind"], "another layout"),
        "features": _features(evidence),
        "losses": [row for row in evidence.quality["source"] if row["rows"]],
        "doses": _doses(evidence.dictionary),
        "calibration": _calibration(evidence),
        "described": described(evidence),
        "assumptions": ASSUMPTIONS,
        "spread": _spread(entry["estimates"]),
        "subgroups": _subgroups(entry),
        "multiverse": evidence.files.get(MULTIVERSE),
        "tried": _tried(evidence),
        "sweep": evidence.files.get(SWEEP),
        "made": evidence.files[RECORD]["made"],
        "changes": CHANGES,
        "crosswalk": crosswalk.TABLES,
        "sections": SECTIONS,
        "calibrated_groups": _calibrated_groups(evidence.evaluation["behaviour"].get("by_subgroup") or []),
        "plots": {
            "returns": pictures.returns(evidence),
            "differences": pictures.differences(evidence),
            "sample": pictures.sample(evidence),
            "calibration": pictures.calibration(evidence),
        },
        "bar": plots.bar,
    }


def _verdict(evidence: Evidence) -> dict[str, Any]:
    found = evidence.evaluation["verdict"]
    tone, word, meaning = VERDICTS[found["verdict"]]
    binding = found["binding"]
    primary = evidence.evaluation["config"]["primary"]
    against = evidence.evaluation["policies"][found["policy"]]["against"]["clinicians"]
    return {
        "tone": tone,
        "word": word,
        "meaning": meaning,
        "binding": binding,
        "text": GATES.get(binding["code"], GateText(binding["code"], "not known")),
        "difference": next(row for row in against if row["estimator"] == primary),
        "primary": primary,
    }


def _primary(evidence: Evidence, rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The row of the estimator that was named before the evaluation; None where there is none."""
    return next((row for row in rows if row["estimator"] == evidence.evaluation["config"]["primary"]), None)


def _features(evidence: Evidence) -> list[dict[str, Any]]:
    rows = [
        {"name": named(name)[0], "unit": named(name)[1], "measured": name in concepts.load().measured, **entry}
        for name, entry in evidence.quality["features"].items()
    ]
    return sorted(rows, key=lambda row: str(row["name"]).lower())


def described(evidence: Evidence) -> dict[str, Any]:
    """What the main policy does beside the clinicians: divergence, by stratum, and its dose grids as pictures."""
    found = evidence.evaluation["policies"][evidence.main]["divergence"]
    return {
        "overall": [(*said, found["overall"][name]) for name, said in MEASURES.items() if name in found["overall"]],
        "strata": [{**cell, "name": _stratum(cell)} for cell in found["strata"]],
        "grids": pictures.grids(evidence, found),
    }


def _stratum(cell: Mapping[str, Any]) -> str:
    name = STRATA.get(cell["feature"], cell["feature"])
    if cell["feature"] == "sex_male":
        return f"{name}: {'female' if cell['low'] is None else 'male'}"
    low, high = cell["low"], cell["high"]
    if low is None:
        return f"{name}: below {high:g}"
    return f"{name}: {low:g} or more" if high is None else f"{name}: {low:g} to below {high:g}"


def _doses(known: Dictionary) -> list[dict[str, str]]:
    """Each bin of both drugs: its bounds and its median, in a full window's units."""
    step = known.step_hours
    fluid = _bins([edge * step for edge in known.fluid_edges_ml_h], "{:,.0f}")
    pressor = _bins(list(known.vasopressor_edges_ug_kg_min), "{:.3f}")
    return [
        {
            "bin": str(index),
            "fluid": fluid[index],
            "fluid_median": f"{known.fluid_medians_ml_h[index] * step:,.0f}",
            "pressor": pressor[index],
            "pressor_median": f"{known.vasopressor_medians_ug_kg_min[index]:.3f}",
        }
        for index in range(min(len(fluid), len(pressor)))
    ]


def _calibration(evidence: Evidence) -> list[dict[str, Any]]:
    """Each drug's bins: how often the dose was given, how often the behaviour model said so, and its error."""
    names = dict(zip(("fluid", "vasopressor"), pictures.bin_names(evidence.dictionary), strict=True))
    units = {"fluid": f"mL in {evidence.dictionary.step_hours:g} h", "vasopressor": "µg/kg/min"}
    return [
        {"dose": f"{drug}, {names[drug][row['bin']]} {units[drug]}", **row}
        for drug in names
        for row in evidence.evaluation["behaviour"]["by_drug"][drug]
    ]


def _bins(edges: Sequence[float], form: str) -> list[str]:
    named = [form.format(edge) for edge in edges]
    between = [f"{low} to {high}" for low, high in pairwise(named)]
    return ["none", f"up to {named[0]}", *between, f"above {named[-1]}"]


def _spread(estimates: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], Mapping[str, Any]] | None:
    """The lowest and the highest estimate that may be shown; None where fewer than two may."""
    shown = sorted((row for row in estimates if row["withheld"] is None), key=lambda row: float(row["value"]))
    return (shown[0], shown[-1]) if len(shown) > 1 else None


def _subgroups(entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each subgroup with its name, in the order of SUBGROUPS."""
    return [
        {**cell, "name": SUBGROUPS[cell["feature"]].format(cell["group"])}
        for cell in (entry.get("subgroups") or {}).get("groups", [])
    ]


def _tried(evidence: Evidence) -> list[dict[str, Any]]:
    """Every policy that was trained: what its training read, how long it went on, and what ended it."""
    rows = []
    for name in evidence.learned:
        manifest = evidence.manifests.get(f"policy/{name}")
        if manifest is not None:
            notes = manifest["notes"]
            rows.append({"name": name, "seed": manifest["seed"], "rows": manifest["rows"], "notes": notes})
    return rows


def _calibrated_groups(groups: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each group's largest calibration error by drug; none where too few patients are in it."""
    rows = []
    for group in groups:
        name = f"Unit: {group['label']}" if group["label"] is not None else _stratum(group)
        errors = None
        if group["by_drug"] is not None:
            bins = ([row["error"] for row in drug if row["error"] is not None] for drug in group["by_drug"].values())
            errors = [max(found, default=None) for found in bins]
        rows.append({**group, "name": name, "errors": errors})
    return rows
