"""Dictionary: all that was fitted on training patients, stored beside the trajectories it made."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from cohort.scaler import Scaler


@dataclass(frozen=True)
class Dictionary:
    """Imputation values, scaler and dose bins, so that any state can be built and any action shown as a dose.

    Fluid doses are binned as mL/h of the window, so that a shorter last window is not mistaken for a smaller dose;
    a full window's volume is the rate times `step_hours`. Bin 0 means no drug; bin b > 0 holds the doses in
    (edges[b-1], edges[b]] with edges[0] = 0 and no upper end to the last.
    """

    features: tuple[str, ...]
    imputation: Float[np.ndarray, "d"]
    scaler: Scaler
    step_hours: float
    fluid_edges_ml_h: tuple[float, ...]
    """Upper edges of fluid bins 1..n-2, ascending (three numbers for five bins)."""
    fluid_medians_ml_h: tuple[float, ...]
    """Median dose of each fluid bin; the first is 0."""
    vasopressor_edges_ug_kg_min: tuple[float, ...]
    vasopressor_medians_ug_kg_min: tuple[float, ...]

    @property
    def n_vasopressor_bins(self) -> int:
        """Bins of the vasopressor's dose, the zero bin included."""
        return len(self.vasopressor_medians_ug_kg_min)

    @property
    def n_actions(self) -> int:
        """Fluid bins times vasopressor bins."""
        return len(self.fluid_medians_ml_h) * self.n_vasopressor_bins

    def dose(self, action: int) -> tuple[float, float]:
        """The action's typical dose: (mL per full window, ug/kg/min), each the median of its bin."""
        fluid, vasopressor = divmod(action, self.n_vasopressor_bins)
        return self.fluid_medians_ml_h[fluid] * self.step_hours, self.vasopressor_medians_ug_kg_min[vasopressor]

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, for JSON."""
        return {
            "features": list(self.features),
            "imputation": self.imputation.tolist(),
            "scaler": self.scaler.to_dict(),
            "step_hours": self.step_hours,
            "fluid_edges_ml_h": list(self.fluid_edges_ml_h),
            "fluid_medians_ml_h": list(self.fluid_medians_ml_h),
            "vasopressor_edges_ug_kg_min": list(self.vasopressor_edges_ug_kg_min),
            "vasopressor_medians_ug_kg_min": list(self.vasopressor_medians_ug_kg_min),
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "Dictionary":
        """The inverse of `to_dict`."""
        return cls(
            features=tuple(content["features"]),
            imputation=np.asarray(content["imputation"], np.float64),
            scaler=Scaler.from_dict(content["scaler"]),
            step_hours=float(content["step_hours"]),
            fluid_edges_ml_h=tuple(content["fluid_edges_ml_h"]),
            fluid_medians_ml_h=tuple(content["fluid_medians_ml_h"]),
            vasopressor_edges_ug_kg_min=tuple(content["vasopressor_edges_ug_kg_min"]),
            vasopressor_medians_ug_kg_min=tuple(content["vasopressor_medians_ug_kg_min"]),
        )


def load(path: Path) -> Dictionary:
    """Read `dictionary.json` of a cohort directory."""
    return Dictionary.from_dict(json.loads(path.read_text(encoding="utf-8")))
