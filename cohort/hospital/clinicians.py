"""Clinicians: attending styles that choose, at random but with known probabilities, a fluid and a vasopressor dose."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from cohort.hospital.physiology import Arrays

BINS = 5
"""Doses per drug, none included."""
WINDOW_HOURS = 4
"""A dose is chosen every four hours and kept."""
FLUID_EDGES_ML_H = (71 / 4, 240 / 4, 504 / 4)
"""Upper edges of fluid bins 1 to 3: the quartiles of the real non-zero doses (CLINICAL), as a rate."""
VASOPRESSOR_EDGES_UG_KG_MIN = (0.033, 0.094, 0.218)
_FLUID_FLOOR_ML_H = 2.5
_FLUID_TAIL_ML_H, _FLUID_CEILING_ML_H = 95.0, 800.0
_VASOPRESSOR_FLOOR = 0.006
_VASOPRESSOR_TAIL, _VASOPRESSOR_CEILING = 0.18, 1.5


@dataclass(frozen=True)
class Style:
    """How an attending doses."""

    share: float
    """Of all shifts."""
    map_target: float
    """Pressure to which vasopressors are titrated, mmHg."""
    start_below: float
    """Pressure below which a vasopressor is begun, mmHg."""
    fluid_level: float
    """Fluid bin for a patient in whom nothing calls for more or less."""
    shock_fluid: float
    """Bins more for a patient in full shock."""
    lung_care: float
    """Bins less for a patient whose lungs are failing."""
    spread: float
    """SD of the wished bin, in bins; larger = more erratic."""
    careless: float
    """Share of decisions that look at nothing."""


STYLES: dict[str, Style] = {
    "guideline": Style(0.28, 66.0, 55.0, 1.5, 1.4, 1.0, 0.70, 0.01),
    "liberal": Style(0.26, 66.0, 51.0, 3.5, 1.4, 0.2, 0.70, 0.01),
    "restrictive": Style(0.13, 67.0, 58.0, -0.6, 0.8, 0.8, 0.70, 0.01),
    "late": Style(0.22, 61.0, 46.0, 1.9, 1.8, 0.3, 0.70, 0.01),
    "erratic": Style(0.11, 70.0, 54.0, 1.5, 0.6, 0.2, 1.10, 0.10),
}
"""An attending's style holds for a shift; the next shift's is drawn anew."""


@dataclass(frozen=True)
class Reading(Arrays):
    """All that a clinician looks at: monitor, ventilator, urine bag and the doses that run. No laboratory, no truth."""

    map: Float[np.ndarray, "n"]
    shock_index: Float[np.ndarray, "n"]
    spo2_fio2: Float[np.ndarray, "n"]
    """SpO2 as a fraction over FiO2: below 2.4 is poor, 4.6 is healthy."""
    urine_ml_kg_h: Float[np.ndarray, "n"]
    fluid: Int[np.ndarray, "n"]
    """The fluid bin that runs; -1 at admission."""
    vasopressor: Int[np.ndarray, "n"]
    looks_ill: Float[np.ndarray, "n"]
    """The unrecorded confounder, SD about 1, times its strength; 0 where the hospital has none."""


def propensities(reading: Reading, style: Style) -> Float[np.ndarray, "n f v"]:
    """Probability of each (fluid bin, vasopressor bin) under one style; sums to 1 over both."""
    fluid = _fluid(reading, style)
    vasopressor = _vasopressor(reading, style)
    joint = fluid[:, :, None] * vasopressor[:, None, :]
    mixed: np.ndarray = (1 - style.careless) * joint + style.careless * _CARELESS[None]
    return mixed


def all_propensities(reading: Reading) -> Float[np.ndarray, "n s f v"]:
    """`propensities` under every style, in the order of STYLES."""
    return np.stack([propensities(reading, style) for style in STYLES.values()], axis=1)


def shares() -> Float[np.ndarray, "s"]:
    """Probability of each style in a shift."""
    return np.array([style.share for style in STYLES.values()])


def choose(probability: Float[np.ndarray, "n a"], uniform: Float[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
    """One index a row by the inverse of the cumulative distribution; rows sum to 1."""
    cumulative = np.cumsum(probability, axis=1)
    cumulative /= cumulative[:, -1:]
    chosen: np.ndarray = (uniform[:, None] >= cumulative).sum(axis=1).astype(np.int64)
    return chosen


def fluid_dose(
    bins: Int[np.ndarray, "n"], uniform: Float[np.ndarray, "n"], edges: tuple[float, ...] = FLUID_EDGES_ML_H
) -> Float[np.ndarray, "n"]:
    """Rate in mL/h within each bin: uniform between the edges, above the last an exponential that is cut off."""
    return _within(bins, uniform, (_FLUID_FLOOR_ML_H, *edges), _FLUID_TAIL_ML_H, _FLUID_CEILING_ML_H)


def vasopressor_dose(
    bins: Int[np.ndarray, "n"], uniform: Float[np.ndarray, "n"], edges: tuple[float, ...] = VASOPRESSOR_EDGES_UG_KG_MIN
) -> Float[np.ndarray, "n"]:
    """Norepinephrine equivalent in ug/kg/min within each bin, distributed as `fluid_dose`."""
    return _within(bins, uniform, (_VASOPRESSOR_FLOOR, *edges), _VASOPRESSOR_TAIL, _VASOPRESSOR_CEILING)


def regroup(
    propensity: Float[np.ndarray, "m a"], fluid_edges: tuple[float, ...], vasopressor_edges: tuple[float, ...]
) -> Float[np.ndarray, "m b"]:
    """Propensities of the nominal bins as propensities of other bins (as a cohort fits them on its doses), exactly.

    A dose is drawn inside its nominal bin whatever the patient's state, so each nominal bin's probability is shared
    out by how much of its distribution falls into each of the other bins.
    """
    fluid = _shares((_FLUID_FLOOR_ML_H, *FLUID_EDGES_ML_H), _FLUID_TAIL_ML_H, _FLUID_CEILING_ML_H, fluid_edges)
    nominal = (_VASOPRESSOR_FLOOR, *VASOPRESSOR_EDGES_UG_KG_MIN)
    pressor = _shares(nominal, _VASOPRESSOR_TAIL, _VASOPRESSOR_CEILING, vasopressor_edges)
    joint = np.einsum("mfv,fg,vw->mgw", propensity.reshape(-1, BINS, BINS), fluid, pressor)
    flat: np.ndarray = joint.reshape(len(propensity), -1)
    return flat


def _shares(bounds: tuple[float, ...], tail: float, ceiling: float, edges: tuple[float, ...]) -> np.ndarray:
    """(nominal bins, other bins): where the doses of each nominal bin fall."""
    lower, upper, at = np.asarray(bounds)[:-1, None], np.asarray(bounds)[1:, None], np.asarray(edges)[None, :]
    between = np.clip((at - lower) / (upper - lower), 0, 1)
    above = -np.expm1(-np.maximum(at - bounds[-1], 0) / tail) / _mass(bounds[-1], tail, ceiling)
    below = np.vstack([between, np.minimum(above, 1)])  # probability of a dose up to each edge, nominal bins 1 and on
    given = np.diff(np.hstack([np.zeros((BINS - 1, 1)), below, np.ones((BINS - 1, 1))]), axis=1)
    shares = np.zeros((BINS, given.shape[1] + 1))
    shares[0, 0], shares[1:, 1:] = 1.0, given
    return shares


def _mass(edge: float, tail: float, ceiling: float) -> float:
    """How much of an exponential above the last edge lies below the ceiling, which is at least one tail away."""
    return float(-np.expm1(-max(ceiling - edge, tail) / tail))


def _within(bins: np.ndarray, uniform: np.ndarray, edges: tuple[float, ...], tail: float, ceiling: float) -> np.ndarray:
    bounds = np.asarray(edges)
    low = np.minimum(bounds[0], 0.5 * bounds[1])  # a fitted lowest edge may lie below the usual least dose
    lower = np.r_[0.0, low, bounds[1:]][bins]
    upper = np.r_[0.0, bounds[1:], np.inf][bins]
    last = bins == len(bounds)
    above = -tail * np.log1p(-uniform * _mass(bounds[-1], tail, ceiling))
    return np.where(bins == 0, 0.0, lower + np.where(last, above, uniform * (np.where(last, 0.0, upper) - lower)))


def _fluid(reading: Reading, style: Style) -> np.ndarray:
    shock = _ramp(68.0 - reading.map, 14.0) + 0.5 * _ramp(reading.shock_index - 0.85, 0.5)
    dry = 0.7 * _ramp(0.6 - reading.urine_ml_kg_h, 0.6)
    lungs = _ramp(2.9 - reading.spo2_fio2, 1.6)
    wish = style.fluid_level + style.shock_fluid * np.minimum(shock + dry, 1.6) - 1.6 * style.lung_care * lungs
    wish = wish - 0.2 + 0.6 * reading.looks_ill
    fresh = _around(wish, 1.8 * style.spread)
    kept = np.where(reading.fluid >= 0, 0.50 - 0.20 * np.minimum(shock, 1.0), 0.0)
    return _keep(fresh, reading.fluid, kept)


def _vasopressor(reading: Reading, style: Style) -> np.ndarray:
    gap = (style.map_target - reading.map) / 10.0 + 0.5 * reading.looks_ill
    running = np.maximum(reading.vasopressor, 0)
    titrated = _around(running + np.clip(1.1 * gap, -1.35, 2.2) + 0.46, style.spread)
    begun = _around(0.75 + np.clip(0.9 * gap, -0.4, 2.5), style.spread)
    begun[:, 0] = 0.0
    begun /= begun.sum(axis=1, keepdims=True)
    begins = 0.90 / (1 + np.exp((reading.map - style.start_below - 4.0 * reading.looks_ill) / 1.4)) + 0.001
    started = begins[:, None] * begun
    started[:, 0] = 1 - begins
    return np.where((running > 0)[:, None], titrated, started)


def _around(wish: np.ndarray, spread: float) -> np.ndarray:
    """A discretised normal over the bins."""
    weight = np.exp(-0.5 * ((np.arange(BINS)[None, :] - np.clip(wish, -0.6, BINS - 0.4)[:, None]) / spread) ** 2)
    normalised: np.ndarray = weight / weight.sum(axis=1, keepdims=True)
    return normalised


def _keep(fresh: np.ndarray, running: np.ndarray, kept: np.ndarray) -> np.ndarray:
    same = np.arange(BINS)[None, :] == running[:, None]
    mixed: np.ndarray = (1 - kept)[:, None] * fresh + kept[:, None] * same
    return mixed


def _ramp(excess: np.ndarray, width: float) -> np.ndarray:
    ramp: np.ndarray = np.clip(excess / width, 0.0, 1.0)
    return ramp


_CARELESS = np.outer([0.16, 0.21, 0.21, 0.21, 0.21], [0.72, 0.10, 0.08, 0.06, 0.04])
