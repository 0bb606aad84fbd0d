"""Actions: the doses given in each decision window, and the discrete action they make."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Shaped
from pydantic import Field, field_validator

from cohort import concepts, intervals
from cohort.config import Config
from cohort.dictionary import Dictionary
from cohort.grid import HOUR_US, microseconds
from cohort.tables import Tables


def _factors() -> dict[str, float]:
    return dict(concepts.load().norepinephrine_equivalent)


class ActionConfig(Config):
    """What counts as fluid and vasopressor, and into how many bins."""

    bins: int = Field(default=5, ge=2, le=20)
    """Per drug, the zero bin included."""
    include_d5w: bool = False
    """Count dextrose 5% in water as fluid (the literature leaves it out)."""
    equivalent_cap: float = Field(default=3.0, gt=0, le=100)
    """The norepinephrine equivalent of a window is capped here (ug/kg/min), and windows capped are counted."""
    norepinephrine_equivalent: dict[str, float] = Field(default_factory=_factors)
    """Drug -> norepinephrine per unit of it (Goradia 2020 by default; see configs/concepts/features.yaml)."""
    in_state: bool = False
    """Append the fluid rate and vasopressor dose of the step before to the 48 features; never the current step's."""

    @field_validator("norepinephrine_equivalent")
    @classmethod
    def _known_drugs(cls, factors: dict[str, float]) -> dict[str, float]:
        unknown = sorted(set(factors) - set(_factors()))
        if unknown:
            raise ValueError(f"{unknown[0]!r} is not a vasopressor of the dictionary ({', '.join(_factors())})")
        if any(factor < 0 for factor in factors.values()):
            raise ValueError("a factor is negative")
        return factors


@dataclass(frozen=True)
class Doses:
    """What was given in each decision window [t, t + step), cut at the episode's end."""

    fluid_ml: Float64[np.ndarray, "s k"]
    """Tonicity-adjusted volume."""
    vasopressor_ug_kg_min: Float64[np.ndarray, "s k"]
    """Norepinephrine equivalent, the time-weighted mean over the window's own duration."""
    duration_h: Float64[np.ndarray, "s k"]
    """Hours of the window before the episode's end; 0 after it."""
    capped: Int[np.ndarray, "s k"]
    """1 where the equivalent was above the cap."""
    unknown: Bool[np.ndarray, "s k"]
    """True: more ran in the window than could be read, so the doses are only what is known of them."""


def doses(
    tables: Tables,
    anchor: Shaped[np.ndarray, "s"],
    hours: Int[np.ndarray, "k"],
    step_hours: int,
    end: Shaped[np.ndarray, "s"],
    config: ActionConfig,
) -> Doses:
    """Integrate every infusion exactly over the windows that start at `hours` after `anchor` and stop by `end`.

    Fluid volume is conserved whatever the step; a dose below half a billionth of a mL counts as none.
    """
    first = int(hours[0])
    n_windows = (int(hours[-1]) - first) // step_hours + 1
    chosen = (hours - first) // step_hours
    limit = microseconds(end) - microseconds(anchor)
    fluids = {"fluid": 1.0, "d5w": 1.0} if config.include_d5w else {"fluid": 1.0}
    volume, equivalent = (
        _totals(
            intervals.infusions(tables.infusions, tables.stays, anchor, factors),
            limit,
            first,
            step_hours,
            n_windows,
        )[:, chosen]
        for factors in (fluids, config.norepinephrine_equivalent)
    )
    duration = np.clip(limit[:, None] - hours * HOUR_US, 0, step_hours * HOUR_US) / HOUR_US
    mean = np.divide(equivalent, duration, out=np.zeros_like(equivalent), where=duration > 0)
    capped = mean > config.equivalent_cap
    factors = {**fluids, **config.norepinephrine_equivalent}
    ran = intervals.unreadable(tables.infusions, tables.stays, anchor, factors)
    unknown = _totals(ran, limit, first, step_hours, n_windows)[:, chosen] > 0
    return Doses(volume, np.where(capped, config.equivalent_cap, mean), duration, capped.astype(np.int64), unknown)


def fit_bins(dose: Float[np.ndarray, "n"], bins: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Quantile edges of the non-zero training doses, and each bin's median dose (0 for the zero bin).

    Where doses are so often equal that two edges coincide, or none is above zero, edges are kept as they are: a bin
    between equal edges is empty, and its median is the edge itself (0 where no dose was ever given).
    """
    given = dose[dose > 0].astype(np.float64)
    if not len(given):
        return (0.0,) * (bins - 2), (0.0,) * bins
    edges = np.quantile(given, np.arange(1, bins - 1) / (bins - 1))
    chosen = bin_of(given, tuple(edges.tolist()))
    inside = [given[chosen == number] for number in range(1, bins)]
    middles = [float(np.median(part)) if len(part) else float(edges[min(i, bins - 3)]) for i, part in enumerate(inside)]
    return tuple(edges.tolist()), (0.0, *middles)


def bin_of(dose: Float[np.ndarray, "*n"], edges: tuple[float, ...]) -> Int[np.ndarray, "*n"]:
    """0 where the dose is exactly 0; else 1 plus the number of edges below the dose (an edge is in the lower bin)."""
    above: np.ndarray = np.searchsorted(np.asarray(edges, np.float64), dose, side="left")
    return np.where(dose > 0, 1 + above, 0).astype(np.int64)


def to_action(
    fluid_ml_h: Float[np.ndarray, "*n"], vasopressor_ug_kg_min: Float[np.ndarray, "*n"], dictionary: Dictionary
) -> Int[np.ndarray, "*n"]:
    """The discrete action: the number of vasopressor bins times the fluid bin, plus the vasopressor bin."""
    fluid = bin_of(fluid_ml_h, dictionary.fluid_edges_ml_h)
    vasopressor = bin_of(vasopressor_ug_kg_min, dictionary.vasopressor_edges_ug_kg_min)
    return np.asarray(dictionary.n_vasopressor_bins * fluid + vasopressor)


def _totals(
    given: intervals.Infusions, limit: Int[np.ndarray, "s"], first_hour: int, step_hours: int, n_windows: int
) -> Float64[np.ndarray, "s w"]:
    """Rate times hours per window, infusions stopped at each stay's `limit` (microseconds since its anchor)."""
    stopped = replace(given, end=np.minimum(given.end, limit[given.stay]))
    pieces = intervals.cut(stopped, first_hour, step_hours, n_windows)
    return intervals.quanta(pieces, len(limit), n_windows) / intervals.QUANTA
