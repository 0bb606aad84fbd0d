"""Pictures: a report's plots and dose grids, from its evidence."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from markupsafe import Markup

from cohort.dictionary import Dictionary
from ope import plots
from ope.evidence import Evidence
from ope.page import number
from ope.plots import Interval, Series
from ope.words import GATES, NOT_APPLICABLE


def grids(evidence: Evidence, found: Mapping[str, Any]) -> list[tuple[str, Markup]]:
    """Pictures of the dose grid: what clinicians gave, what the policy would give, and each drug's shift."""
    fluids, pressors = found["shape"]
    rows = [np.zeros(fluids * pressors) if row is None else np.asarray(row, float) for row in found["shift"]]
    shift = np.stack(rows)
    known = evidence.dictionary
    names = bin_names(known)
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


def bin_names(known: Dictionary) -> tuple[list[str], list[str]]:
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


def returns(evidence: Evidence) -> Markup | None:
    primary = evidence.evaluation["config"]["primary"]
    clinicians = evidence.evaluation["clinicians"]["estimate"]
    rows = [_interval("clinicians (records)", clinicians)]
    for name in [*evidence.learned, *evidence.controls]:
        estimates = evidence.evaluation["policies"][name]["estimates"]
        rows.append(_interval(name.replace("_", " "), row_for(estimates, primary)))
    reference = None if clinicians["value"] is None else (clinicians["value"], "clinicians")
    alt = f"Estimated return by {primary} with intervals: " + "; ".join(_spoken(row) for row in rows)
    return _unless_empty(rows, alt, "return per stay (higher is better)", reference)


def differences(evidence: Evidence) -> Markup | None:
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


def row_for(estimates: Sequence[dict[str, Any]], primary: str) -> dict[str, Any]:
    """The primary estimator's row; where it does not apply (a control has no value model), that of wis."""
    found = {row["estimator"]: row for row in estimates}
    row = found[primary]
    if (row["withheld"] or "").startswith(NOT_APPLICABLE):
        return found.get("wis", row)
    return row


def _unless_empty(rows: list[Interval], alt: str, axis: str, reference: tuple[float, str] | None) -> Markup | None:
    """The plot, or None where every number in it is withheld: an empty plot says less than the table."""
    return plots.intervals(rows, alt, axis, reference) if any(row.value is not None for row in rows) else None


def sample(evidence: Evidence) -> Markup:
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


def calibration(evidence: Evidence) -> Markup:
    """How often each dose was given against how often the behaviour model said so, by drug."""
    by_drug = evidence.evaluation["behaviour"]["by_drug"]
    series = []
    for drug in ("fluid", "vasopressor"):
        rows = sorted(by_drug[drug], key=lambda row: float(row["predicted"]))
        series.append(Series(drug, [row["predicted"] for row in rows], [row["observed"] for row in rows]))
    worst = max(float(row["error"]) for rows in by_drug.values() for row in rows)
    alt = f"Share of decisions with each dose, modelled and observed, near the diagonal; largest error {worst:.1%}"
    axes = ("probability by the model, mean over decisions", "share of decisions with the dose")
    return plots.lines(series, alt, axes, diagonal=True, height=220.0)
