"""Hazards: doses that harm in a state, as rules that the evaluation counts and the bedside refuses.

A-D: Festor 2022. A: MAP < 55, no vasopressor and at most 20 mL/h of fluid. B: MAP > 95 and vasopressor above
0.65 ug/kg/min. C: MAP <= 55 and CVP <= 5 and no fluid. D: MAP >= 75, balance above 10 L, CVP >= 15 and fluid above
240 mL/h. Without a charted CVP, C and D are told apart. E (ours): the vasopressor changes by two bins or more from one
window to the next. Guideline checks (Surviving Sepsis 2021): MAP below 65 left without either drug; lactate above 2
without fluid. Only what was measured counts: a comparison with NaN is False.
"""

import numpy as np
from jaxtyping import Bool, Float, Int

HAZARDS = ("A", "B", "C", "C_without_cvp", "D", "D_without_cvp", "E", "hypotension_untreated", "lactate_without_fluid")
BLOCKING = HAZARDS[:7]
"""The hazards that block a dose at the bedside; the guideline checks are counted only."""
REASONS = {
    "A": "mean arterial pressure below 55 mmHg, and the dose is no vasopressor and at most 20 mL/h of fluid",
    "B": "mean arterial pressure above 95 mmHg, and the dose is more than 0.65 µg/kg/min of vasopressor",
    "C": "mean arterial pressure at most 55 mmHg, central venous pressure at most 5 mmHg, and the dose is no fluid",
    "C_without_cvp": "mean arterial pressure at most 55 mmHg, central venous pressure not charted, and the dose is no "
    "fluid",
    "D": "mean arterial pressure at least 75 mmHg, fluid balance above 10 L, central venous pressure at least 15 mmHg, "
    "and the dose is more than 240 mL/h of fluid",
    "D_without_cvp": "mean arterial pressure at least 75 mmHg, fluid balance above 10 L, central venous pressure not "
    "charted, and the dose is more than 240 mL/h of fluid",
    "E": "the dose is two or more vasopressor steps away from the window before",
}


def exposure(
    map: Float[np.ndarray, "n"],
    cvp: Float[np.ndarray, "n"],
    lactate: Float[np.ndarray, "n"],
    balance_ml: Float[np.ndarray, "n"],
    previous_action: Int[np.ndarray, "n"],
) -> Bool[np.ndarray, "n h"]:
    """Whether each state allows each hazard, in the order of HAZARDS.

    Args:
        map: mean arterial pressure, mmHg; NaN where not measured, as below.
        cvp: central venous pressure, mmHg.
        lactate: mmol/L.
        balance_ml: fluid in less urine out since the anchor, mL.
        previous_action: the dose of the window before; -1 at an episode's first decision.
    """
    very_low, unknown = map <= 55, np.isnan(cvp)
    overloaded = (map >= 75) & (balance_ml > 10_000)
    columns = (
        map < 55,
        map > 95,
        very_low & (cvp <= 5),
        very_low & unknown,
        overloaded & (cvp >= 15),
        overloaded & unknown,
        previous_action >= 0,
        map < 65,
        lactate > 2,
    )
    return np.stack(columns, axis=1)


def harmful(
    fluid_ml_h: Float[np.ndarray, "n"],
    vasopressor: Float[np.ndarray, "n"],
    change: Int[np.ndarray, "n"],
) -> Bool[np.ndarray, "n h"]:
    """Whether a dose completes each hazard in an exposed state; `change`: vasopressor bins since the last window."""
    none, no_fluid, much_fluid = vasopressor == 0, fluid_ml_h == 0, fluid_ml_h > 240
    columns = (
        none & (fluid_ml_h <= 20),
        vasopressor > 0.65,
        no_fluid,
        no_fluid,
        much_fluid,
        much_fluid,
        np.abs(change) >= 2,
        none & no_fluid,
        no_fluid,
    )
    return np.stack(columns, axis=1)
