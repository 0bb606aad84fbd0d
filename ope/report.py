"""Report: a run as one self-contained page for a reader who has to decide whether to believe it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from cohort import artifact, concepts
from cohort.dictionary import Dictionary
from cohort.errors import ArtifactError
from ope import gates, plots
from ope.plots import Interval, Series

TEMPLATES = Path(__file__).with_name("templates")
NOTICE = "Research prototype. Not for clinical use."
READ = (("ope", "evaluation.json"), ("cohort", "flow.json"), ("cohort", "quality.json"), ("cohort", "dictionary.json"))
"""Stage and file of everything the page prints; each is checked against its manifest's hash before it is read."""


@dataclass(frozen=True)
class GateText:
    """What a gate means to a reader."""

    name: str
    lifts: str


GATES: Mapping[str, GateText] = {
    "too_few_patients": GateText("Enough patients", "records of more patients"),
    "low_ess": GateText(
        "Enough effective sample", "more patients, or a policy that departs less from what clinicians do"
    ),
    "low_ess_share": GateText(
        "Effective sample as a share of the stays", "a policy that departs less from what clinicians do"
    ),
    "weight_share": GateText("No single patient dominates", "more patients whose care resembled the policy"),
    "mean_weight": GateText(
        "Weights average 1", "a better behaviour model, or a policy that departs less from what clinicians do"
    ),
    "unsupported": GateText(
        "Doses are ones that clinicians give", "a policy that keeps to the doses in the records: more data do not help"
    ),
    "behaviour_calibration": GateText(
        "The behaviour model is calibrated", "a better model of what clinicians do: more data of this kind do not help"
    ),
    "value_range": GateText("The value is possible", "mending the evaluation: such a number is a defect"),
    "disagreement": GateText("Weights and model agree", "more overlap, or a better model of the return"),
    "interval_coverage": GateText(
        "The estimator's intervals hold the truth in the twin", "more patients, or another estimator"
    ),
    "self_test": GateText("The estimators pass their self-test", "mending the evaluation"),
    "truncated": GateText("Every episode has its outcome", "records until the outcome, or a value for the last state"),
    "no_model": GateText("A value model was fitted", "fitting a value model for this policy too"),
    "no_estimate": GateText("The estimator applies", "an estimator that applies to this policy"),
    "undefined": GateText("The policy agrees with the clinicians somewhere", "a policy closer to what clinicians do"),
    "worse_than_clinicians": GateText(
        "Not worse than the clinicians", "another policy: the evidence is against this one"
    ),
    "includes_zero": GateText(
        "Better than the clinicians beyond chance", "more patients, or a policy with a larger benefit"
    ),
}
"""Gate's code -> its name and what would lift it."""

NOT_APPLICABLE = ("no_model", "no_estimate")
VERDICTS: Mapping[str, tuple[str, str, str]] = {
    gates.REFUSED: (
        "bad", "Refused",
        "The policy, or its evaluation, failed a test that more data of the same kind would not mend. "
        "It is not to be used, watched or compared further as it is.",
    ),
    gates.INSUFFICIENT: (
        "wait", "Insufficient evidence",
        "The records cannot say whether this policy is better or worse than what the clinicians did. "
        "That is a statement about the evidence, not about the policy.",
    ),
    gates.ELIGIBLE: (
        "good", "Eligible for silent (shadow) evaluation",
        "Every gate passed. The policy may be watched beside care without anyone seeing or acting on it. "
        "This is not a finding that it is safe or effective.",
    ),
}  # fmt: skip
"""The evaluation's verdict -> tone, word, and what it means."""

POLICIES: Mapping[str, str] = {
    "bc": "imitates the average clinician",
    "filtered_bc": "imitates the clinicians in the stays that ended best",
    "awr": "imitates clinicians, more so where a stay went better than expected",
    "awac": "advantage-weighted actor and critic: favours recorded doses that its own value model prefers",
    "iql": "implicit Q-learning: learns values from the records only, then favours the better recorded doses",
    "conservative_iql": "implicit Q-learning that keeps to doses clinicians give, at a stated distance from them",
    "cql": "conservative Q-learning: values of doses that were not given are pushed down",
    "bcq": "chooses the dose of highest value among those clinicians often give",
    "bear": "maximises value within a bounded distance from the clinicians' doses",
    "dqn": "deep Q-learning without any safeguard, a baseline that overestimates",
    "sac": "soft actor-critic without any safeguard, a baseline that overestimates",
    "dpo": "learned from clinicians' preferences between doses",
    "random": "control: every dose with the same probability",
    "zero_drug": "control: never any drug",
    "maximum_dose": "control: always the highest bin of both drugs",
}
"""Policy's name -> what it is, in a phrase."""
LAYOUTS = {"mimic_iv": "MIMIC-IV layout", "mimic_iii": "MIMIC-III layout", "meds": "MEDS layout"}
ESTIMATORS: Mapping[str, str] = {
    "clinicians": "mean of the records",
    "is": "importance sampling",
    "wis": "weighted importance sampling",
    "pdis": "per-decision importance sampling",
    "cwpdis": "consistent weighted per-decision importance sampling",
    "dm": "direct method: fitted Q evaluation (FQE)",
    "dr": "doubly robust",
    "wdr": "weighted doubly robust",
    "magic": "model and guided importance sampling combined",
}
MEASURES: Mapping[str, tuple[str, str]] = {
    "agreement": ("Probability of the dose that was given", "share"),
    "total_variation": ("Probability that would have to move to match the clinicians", "share"),
    "unsupported": ("Probability on doses that clinicians rarely give there", "share"),
    "kl": ("Kullback-Leibler divergence", "nats"),
    "fluid_transport": ("Distance in fluid bins", "bins"),
    "vasopressor_transport": ("Distance in vasopressor bins", "bins"),
    "fluid_shift_ml": ("Fluid, policy minus clinicians", "mL per window"),
    "vasopressor_shift_ug_kg_min": ("Vasopressor, policy minus clinicians", "µg/kg/min"),
}
"""Measure of divergence -> its name and unit."""
STRATA: Mapping[str, str] = {
    "sofa": "SOFA (points)", "lactate": "Lactate (mmol/L)", "map": "Mean arterial pressure (mmHg)",
    "age_years": "Age (years)", "sex_male": "Sex",
}  # fmt: skip
HAZARDS: Mapping[str, str] = {
    "A": "Mean pressure below 55, no vasopressor and at most 20 mL/h of fluid",
    "B": "Mean pressure above 95 and vasopressor above 0.65 µg/kg/min",
    "C": "Mean pressure and central venous pressure low, no fluid",
    "C_without_cvp": "The same, central venous pressure not charted",
    "D": "Fluid above 240 mL/h on top of a balance above 10 L, central venous pressure high",
    "D_without_cvp": "The same, central venous pressure not charted",
    "E": "Vasopressor changed by two bins or more from one window to the next",
    "hypotension_untreated": "Mean pressure below 65 and neither drug",
    "lactate_without_fluid": "Lactate above 2 mmol/L and no fluid",
}
"""A to D: Festor 2022; E: ours; the last two: Surviving Sepsis 2021."""
SPLITS = {"train": "to learn", "select": "to choose settings", "evaluate": "to evaluate, never seen before"}


@dataclass(frozen=True)
class Evidence:
    """What a report is made from: the documents of a run and the manifests that vouch for them."""

    name: str
    evaluation: dict[str, Any]
    flow: dict[str, Any]
    quality: dict[str, Any]
    dictionary: Dictionary
    manifests: Mapping[str, dict[str, Any]]
    """Stage -> manifest, as `policy/iql`."""
    digests: Mapping[str, str]
    hashes: Mapping[str, str]
    """File -> SHA-256, as `ope/evaluation.json`."""

    @property
    def main(self) -> str:
        """The policy that the verdict is about."""
        return str(self.evaluation["verdict"]["policy"])

    @property
    def learned(self) -> list[str]:
        """The policies that were trained, the main one first, then in the order of their names."""
        names = [name for name, entry in self.evaluation["policies"].items() if entry["kind"] == "learned"]
        return sorted(names, key=lambda name: (name != self.main, name))

    @property
    def controls(self) -> list[str]:
        """The policies that are known to be bad."""
        return [name for name, entry in self.evaluation["policies"].items() if entry["kind"] == "control"]


def render(run: Path) -> str:
    """The report of a run as one HTML page that needs no network.

    Raises:
        ArtifactError: the run has no finished cohort or evaluation, or a file differs from its manifest.
    """
    return page("report.html.j2", context(read(run)))


def page(template: str, content: Mapping[str, Any]) -> str:
    """A page from a template, with the style and the notice that every page carries; what it prints is escaped."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=number, signed=signed, percent=percent, count=count, short=short, grouped=grouped)
    style = Markup((TEMPLATES / "report.css").read_text(encoding="utf-8"))
    return environment.get_template(template).render(style=style, notice=NOTICE, **content)


def read(run: Path) -> Evidence:
    """Gather the documents of a run, each checked against its manifest.

    Raises:
        ArtifactError: one is missing, changed, or not JSON.
    """
    hashes = {f"{stage}/{file}": checked(run, stage, file) for stage, file in READ}
    evaluation, flow, quality, known = (artifact.read_json(run / name) for name in hashes)
    stages = ["tables", "cohort", "behaviour", *(f"policy/{name}" for name in sorted(evaluation["policies"])), "ope"]
    made = [stage for stage in stages if (run / stage / artifact.MANIFEST).is_file()]
    return Evidence(
        name=run.name,
        evaluation=evaluation,
        flow=flow,
        quality=quality,
        dictionary=Dictionary.from_dict(known),
        manifests={stage: artifact.read_manifest(run / stage) for stage in made},
        digests={stage: artifact.digest(run / stage) for stage in made},
        hashes=hashes,
    )


def context(evidence: Evidence) -> dict[str, Any]:
    """Everything the template prints, by section."""
    return {
        "evidence": evidence,
        "verdict": _verdict(evidence),
        "gate_texts": GATES,
        "about": {"policies": POLICIES, "estimators": ESTIMATORS, "splits": SPLITS, "hazards": HAZARDS},
        "entry": evidence.evaluation["policies"][evidence.main],
        "settings": evidence.manifests["cohort"]["config"]["cohort"],
        "training": evidence.manifests[f"policy/{evidence.main}"]["config"],
        "bc_difference": _primary(evidence, evidence.evaluation["policies"][evidence.main]["against"].get("bc", [])),
        "simulated": "tables" in evidence.manifests,
        "layout": LAYOUTS.get(evidence.manifests["cohort"]["config"]["source"]["kind"], "another layout"),
        "features": _features(evidence),
        "losses": [row for row in evidence.quality["source"] if row["rows"]],
        "doses": _doses(evidence.dictionary),
        "calibration": _calibration(evidence),
        "described": described(evidence),
        "plots": {
            "returns": _return_plot(evidence),
            "differences": _difference_plot(evidence),
            "sample": _sample_plot(evidence),
        },
        "bar": plots.bar,
    }


def number(value: float | None, digits: int = 3) -> str:
    """A number for a reader; a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def signed(value: float | None, digits: int = 3) -> str:
    """A difference, its sign always written."""
    return "–" if value is None else f"{value:+.{digits}f}".replace("-", "−")


def percent(share: float | None, digits: int = 0) -> str:
    """A share of 1 as a percentage."""
    return "–" if share is None else f"{100 * share:.{digits}f}%"


def count(value: float | None) -> str:
    """A count with separators for thousands."""
    return "–" if value is None else f"{value:,.0f}"


def short(digest: str) -> str:
    """The beginning of a hash, enough to compare by eye; the full one stands in the lineage."""
    return digest[:12]


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


def _row_for(estimates: Sequence[dict[str, Any]], primary: str) -> dict[str, Any]:
    """The primary estimator's row; where it does not apply (a control has no value model), that of wis."""
    found = {row["estimator"]: row for row in estimates}
    row = found[primary]
    if (row["withheld"] or "").startswith(NOT_APPLICABLE):
        return found.get("wis", row)
    return row


def _primary(evidence: Evidence, rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The row of the estimator that was named before the evaluation; None where there is none."""
    return next((row for row in rows if row["estimator"] == evidence.evaluation["config"]["primary"]), None)


def checked(run: Path, stage: str, file: str) -> str:
    """The file's hash, once it is known to be its manifest's.

    Raises:
        ArtifactError: it is missing, or differs from its manifest.
    """
    expected = artifact.read_manifest(run / stage)["files"].get(file)
    path = run / stage / file
    if expected is None or not path.is_file():
        raise ArtifactError(f"{path}: missing; `suture run CONFIG --out {run} --resume` makes it")
    if artifact.hash_file(path) != expected:
        raise ArtifactError(
            f"{path}: its hash differs from {artifact.MANIFEST}: changed or damaged after it was written"
        )
    return str(expected)


def _features(evidence: Evidence) -> list[dict[str, Any]]:
    units = {name: concept.unit for name, concept in concepts.load().measured.items()}
    return [
        {"name": name.replace("_", " "), "unit": units.get(name, ""), "measured": name in units, **entry}
        for name, entry in evidence.quality["features"].items()
    ]


def described(evidence: Evidence) -> dict[str, Any]:
    """What the main policy does beside the clinicians: divergence, by stratum, and its dose grids as pictures."""
    found = evidence.evaluation["policies"][evidence.main]["divergence"]
    return {
        "overall": [(*said, found["overall"][name]) for name, said in MEASURES.items()],
        "strata": [{**cell, "name": _stratum(cell)} for cell in found["strata"]],
        "grids": _grids(evidence, found),
    }


def _stratum(cell: Mapping[str, Any]) -> str:
    name = STRATA.get(cell["feature"], cell["feature"])
    if cell["feature"] == "sex_male":
        return f"{name}: {'female' if cell['low'] is None else 'male'}"
    low, high = cell["low"], cell["high"]
    if low is None:
        return f"{name}: below {high:g}"
    return f"{name}: {low:g} or more" if high is None else f"{name}: {low:g} to below {high:g}"


def _grids(evidence: Evidence, found: Mapping[str, Any]) -> list[tuple[str, Markup]]:
    """Pictures of the dose grid: what clinicians gave, what the policy would give, and each drug's shift."""
    fluids, pressors = found["shape"]
    rows = [np.zeros(fluids * pressors) if row is None else np.asarray(row, float) for row in found["shift"]]
    shift = np.stack(rows)
    known = evidence.dictionary
    names = _bin_names(known)
    drugs = f"fluid, mL in {known.step_hours:g} h", "vasopressor, µg/kg/min"
    cells = shift.reshape(fluids, pressors, fluids, pressors)
    given, advised = cells.sum(axis=(2, 3)), cells.sum(axis=(0, 1))
    by_drug = _conditional(cells.sum(axis=(1, 3))), _conditional(cells.sum(axis=(0, 2)))
    out = []
    for title, share in (("Clinicians gave", given), ("The policy would give", advised)):
        out.append((title, plots.heat(share, _grid_alt(title, share, names), *names, drugs)))
    units = f"mL in {known.step_hours:g} h", "µg/kg/min"
    for unit, title, share, bins in zip(units, ("Fluid", "Vasopressor"), by_drug, names, strict=True):
        alt = f"{title}: of the decisions with each dose given (row), the share with each dose of the policy (column)"
        axes = f"given, {unit}", f"policy, {unit}"
        out.append(
            (f"{title}: from what was given to what the policy would give", plots.heat(share, alt, bins, bins, axes))
        )
    return out


def _bin_names(known: Dictionary) -> tuple[list[str], list[str]]:
    fluid = [f"{rate * known.step_hours:.0f}" for rate in known.fluid_medians_ml_h]
    return fluid, [f"{dose:.2f}" for dose in known.vasopressor_medians_ug_kg_min]


def _conditional(joint: Float[np.ndarray, "f v"]) -> Float[np.ndarray, "f v"]:
    """Each row as shares of 1; NaN where a row has nothing."""
    total = joint.sum(axis=1, keepdims=True)
    shares: np.ndarray = np.divide(joint, total, out=np.full(joint.shape, np.nan), where=total > 0)
    return shares


def _grid_alt(title: str, share: Float[np.ndarray, "f v"], names: tuple[list[str], list[str]]) -> str:
    row, column = np.unravel_index(int(share.argmax()), share.shape)
    return (
        f"{title}, by fluid and vasopressor bin: most often {names[0][row]} mL with {names[1][column]} µg/kg/min "
        f"({share.max():.0%}); no drug at all in {share[0, 0]:.0%} of decisions"
    )


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
    names = dict(zip(("fluid", "vasopressor"), _bin_names(evidence.dictionary), strict=True))
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


def _return_plot(evidence: Evidence) -> Markup | None:
    primary = evidence.evaluation["config"]["primary"]
    clinicians = evidence.evaluation["clinicians"]["estimate"]
    rows = [_interval("clinicians (records)", clinicians)]
    for name in [*evidence.learned, *evidence.controls]:
        estimates = evidence.evaluation["policies"][name]["estimates"]
        rows.append(_interval(name.replace("_", " "), _row_for(estimates, primary)))
    reference = None if clinicians["value"] is None else (clinicians["value"], "clinicians")
    alt = f"Estimated return by {primary} with intervals: " + "; ".join(_spoken(row) for row in rows)
    return _unless_empty(rows, alt, "return per stay (higher is better)", reference)


def _difference_plot(evidence: Evidence) -> Markup | None:
    rows = [
        _interval(f"{name} − {other}", row)
        for name in evidence.learned
        for other in ("clinicians", "bc")
        for row in evidence.evaluation["policies"][name]["against"].get(other, [])
        if row["estimator"] == evidence.evaluation["config"]["primary"]
    ]
    alt = "Paired differences in return with intervals: " + "; ".join(_spoken(row) for row in rows)
    axis = "difference in return per stay (right of 0: the first is better)"
    return _unless_empty(rows, alt, axis, (0.0, "no difference"))


def _unless_empty(rows: list[Interval], alt: str, axis: str, reference: tuple[float, str] | None) -> Markup | None:
    """The plot, or None where every number in it is withheld: an empty plot says less than the table."""
    return plots.intervals(rows, alt, axis, reference) if any(row.value is not None for row in rows) else None


def _sample_plot(evidence: Evidence) -> Markup:
    policies = evidence.evaluation["policies"]
    hours = evidence.dictionary.step_hours
    series = [
        Series(
            name,
            [hours * step for step in range(len(policies[name]["overlap"]["ess_per_step"]))],
            policies[name]["overlap"]["ess_per_step"],
        )
        for name in evidence.learned
    ]
    needed = evidence.evaluation["gates"]["config"]["min_ess"]
    spoken = "; ".join(f"{one.label} falls from {one.y[0]:.0f} to {one.y[-1]:.0f}" for one in series)
    alt = f"Effective sample size by decision time, {needed:g} needed: {spoken}"
    axes = ("hours since the start of the stay's record", "effective sample size (stays)")
    return plots.lines(series, alt, axes, floor=(needed, f"needed at the end: {needed:g}"))


def _interval(label: str, row: Mapping[str, Any]) -> Interval:
    """A plot's row; a withheld number is not even placed."""
    if row["withheld"] is None:
        return Interval(label, row["value"], row["low"], row["high"])
    code = row["withheld"].partition(":")[0]
    return Interval(label, None, None, None, f"gate “{GATES[code].name.lower() if code in GATES else code}” failed")


def _spoken(row: Interval) -> str:
    if row.value is None:
        return f"{row.label} withheld"
    return f"{row.label} {number(row.value)} ({number(row.low)} to {number(row.high)})"


def grouped(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Estimates for a table: those that one gate withholds share a row, their names joined, with `why` in words."""
    out: list[dict[str, Any]] = []
    for row in rows:
        code, _, why = (row["withheld"] or "").partition(": ")
        alike = next((one for one in out if code and one["code"] == code), None)
        if alike is None:
            out.append({**row, "estimators": [row["estimator"]], "code": code, "why": why})
            continue
        alike["estimators"].append(row["estimator"])
        if alike["why"] != why:
            alike["why"] = f"gate “{GATES[code].name if code in GATES else code}” failed for each, by different amounts"
    return out


def embedded(document: object) -> Markup:
    """A document as JSON that is safe inside a script element: no `<`, `>` or `&` is left as it is."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))
