"""Realism: what is counted of the simulated stays and doses, beside what was counted in real intensive care."""

import numpy as np
from jaxtyping import Bool, Int

from cohort.hospital.clinicians import WINDOW_HOURS
from cohort.hospital.population import Outcomes
from cohort.hospital.truth import Decisions

HORIZON_HOURS = 72

TARGETS: dict[str, float] = {
    "windows with a vasopressor": 0.27,
    "stays ever on a vasopressor": 0.37,
    "vasopressor, lower quartile (ug/kg/min)": 0.033,
    "vasopressor, median": 0.094,
    "vasopressor, upper quartile": 0.218,
    "vasopressor, 95th percentile": 0.53,
    "vasopressor again after a window with": 0.89,
    "vasopressor after a window without": 0.027,
    "windows with fluid": 0.84,
    "fluid, lower quartile (mL in 4 h)": 71.0,
    "fluid, median": 240.0,
    "fluid, upper quartile": 504.0,
    "windows with neither": 0.16,
    "fluid bin unchanged from the window before": 0.59,
    "hospital mortality": 0.145,
    "stay, lower quartile (days)": 1.2,
    "stay, median": 2.2,
    "stay, upper quartile": 4.9,
    "in the ICU at 72 h": 0.39,
}
"""Counts of the MIMIC-IV demo; mortality of a Sepsis-3 cohort of MIMIC-IV."""
TOLERANCE = 0.25
"""A simulated figure may differ by this share of the real one."""


def figures(decisions: Decisions, outcomes: Outcomes) -> dict[str, float]:
    """The figures of TARGETS; doses are those of the first 72 h."""
    order = np.lexsort((decisions.hour, decisions.stay_id))
    early = order[decisions.hour[order] < HORIZON_HOURS]
    stay = decisions.stay_id[early]
    found = {**_doses(decisions, early), **_habits(decisions, early, stay)}
    found["stays ever on a vasopressor"] = len(np.unique(stay[decisions.vasopressor[early] > 0])) / len(
        outcomes.out_hour
    )
    days = np.quantile(outcomes.out_hour / 24, [0.25, 0.5, 0.75])
    found |= dict(
        zip(("stay, lower quartile (days)", "stay, median", "stay, upper quartile"), map(float, days), strict=True)
    )
    found["hospital mortality"] = float(outcomes.died_in_hospital.mean())
    found["in the ICU at 72 h"] = float((outcomes.out_hour > HORIZON_HOURS).mean())
    return {name: found[name] for name in TARGETS}


def _doses(decisions: Decisions, early: Int[np.ndarray, "m"]) -> dict[str, float]:
    pressor, fluid = decisions.vasopressor_ug_kg_min[early], decisions.fluid_ml_h[early] * WINDOW_HOURS
    rates = np.quantile(pressor[pressor > 0], [0.25, 0.5, 0.75, 0.95])
    volumes = np.quantile(fluid[fluid > 0], [0.25, 0.5, 0.75])
    return {
        "windows with a vasopressor": float((pressor > 0).mean()),
        "vasopressor, lower quartile (ug/kg/min)": float(rates[0]),
        "vasopressor, median": float(rates[1]),
        "vasopressor, upper quartile": float(rates[2]),
        "vasopressor, 95th percentile": float(rates[3]),
        "windows with fluid": float((fluid > 0).mean()),
        "fluid, lower quartile (mL in 4 h)": float(volumes[0]),
        "fluid, median": float(volumes[1]),
        "fluid, upper quartile": float(volumes[2]),
        "windows with neither": float(((pressor <= 0) & (fluid <= 0)).mean()),
    }


def _habits(decisions: Decisions, early: Int[np.ndarray, "m"], stay: Int[np.ndarray, "m"]) -> dict[str, float]:
    same = stay[1:] == stay[:-1]
    on, fluid = decisions.vasopressor[early] > 0, decisions.fluid[early]
    return {
        "vasopressor again after a window with": _share(on[1:], same & on[:-1]),
        "vasopressor after a window without": _share(on[1:], same & ~on[:-1]),
        "fluid bin unchanged from the window before": _share(fluid[1:] == fluid[:-1], same),
    }


def _share(yes: Bool[np.ndarray, "m"], among: Bool[np.ndarray, "m"]) -> float:
    return float(yes[among].mean()) if among.any() else float("nan")
