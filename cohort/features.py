"""Features: the 48 columns of the state, and the doses before it where asked for, from what was available before."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int, Int8, Shaped

from cohort import actions, concepts, grid, intervals, oxygen, scores
from cohort.actions import ActionConfig
from cohort.grid import Events, GridConfig, Held
from cohort.tables import Tables

FEATURES: tuple[str, ...] = concepts.load().state
DOSES_BEFORE: tuple[str, ...] = concepts.load().doses_before
"""Fluid in mL/h and vasopressor in ug/kg/min over the step that ends at the decision time; never missing."""
MEASURED: tuple[str, ...] = tuple(name for name in FEATURES if name in concepts.load().measured)
"""The features that are measured, so that each value has an age."""
LOOK_BACK_H = 24
"""SOFA takes the worst of this many hours."""
URINE_OBSERVED_H = 22
"""SOFA scores urine only where this many of its hours were observed."""
SCORED = (
    "pao2", "fio2", "o2_flow", "o2_device", "mechanical_ventilation", "platelets", "bilirubin_total", "map",
    "gcs", "gcs_eye", "gcs_motor", "gcs_verbal", "creatinine",
)  # fmt: skip
_MEASURED_AT = [FEATURES.index(name) for name in MEASURED]
_LATE = 2**61


@dataclass(frozen=True)
class States:
    """Stays by decision times; rows follow the stays table, NaN is missing, nothing is imputed."""

    value: Float64[np.ndarray, "s k d"]
    """The columns of `names`."""
    age_h: Float64[np.ndarray, "s k m"]
    """Hours since each of MEASURED was charted; NaN where the value is missing."""
    fio2_estimated: Bool[np.ndarray, "s k"]
    """True: FiO2 was not charted, but estimated from oxygen device and flow."""
    sofa_missing: Int[np.ndarray, "s k"]
    """How many of the six organ systems had no value in the look-back (they count 0)."""
    sirs_missing: Int[np.ndarray, "s k"]
    """How many of the four SIRS criteria had no value (they count 0)."""
    cvp: Float64[np.ndarray, "s k"]
    """Central venous pressure, mmHg; not in the state."""
    fluid_balance_total: Float64[np.ndarray, "s k"]
    """IV fluid (tonicity-adjusted, dextrose included) less urine since the anchor, mL; not in the state."""


def names(given: ActionConfig) -> tuple[str, ...]:
    """The columns of the state."""
    return FEATURES + DOSES_BEFORE if given.in_state else FEATURES


def states(
    tables: Tables,
    anchor: Shaped[np.ndarray, "s"],
    hours: Int[np.ndarray, "k"],
    config: GridConfig,
    given: ActionConfig | None = None,
) -> States:
    """The state of every stay at `hours` (ascending whole hours) after its `anchor`, from what was available before.

    Batch, bedside and rollout all call this. Asking for one hour gives bit for bit what the batch gives: scores that
    look back are made on whole hours since the anchor whatever the step, and sums are exact. Urine features are at
    least 0: irrigation fluid put in counts negative, and may be charted before what comes out.

    Args:
        given: what counts as a dose, and whether the doses before are in the state; None: they are not.
    """
    n_stays = len(anchor)
    events = grid.events(tables.observations, tables.stays, anchor)
    held = _hold(events, grid.columns(), hours, n_stays, config)
    measured, estimated = _measured(held, events, hours, config)
    urine = _Urine.of(tables, anchor, hours)
    sofa, sofa_missing = _sofa(tables, anchor, events, urine, hours, config)
    sirs, sirs_missing = scores.sirs(measured)
    columns = {**_static(tables, config), **_derived(measured, urine, hours, config), "sofa": sofa, "sirs": sirs}
    value = np.empty((len(hours), n_stays, len(FEATURES)))
    value[..., _MEASURED_AT] = held.value[..., : len(MEASURED)]
    for name, column in columns.items():
        value[..., FEATURES.index(name)] = column
    balance = _fluid_total(tables, anchor, hours) - np.nan_to_num(urine.total(hours))
    by_stay = value.swapaxes(0, 1)
    if given is not None and given.in_state:
        by_stay = np.concatenate([by_stay, doses_before(tables, anchor, hours, config.step_hours, given)], axis=2)
    return States(
        value=by_stay,
        age_h=held.age_h[..., : len(MEASURED)].swapaxes(0, 1),
        fio2_estimated=estimated.T,
        sofa_missing=sofa_missing.T,
        sirs_missing=sirs_missing.T,
        cvp=measured["cvp"].T,
        fluid_balance_total=balance.T,
    )


def impute(value: Float[np.ndarray, "*a d"], imputation: Float[np.ndarray, "d"]) -> Float32[np.ndarray, "*a d"]:
    """Fill what is missing with the fitted values; the only place where a state is completed."""
    return np.where(np.isnan(value), imputation, value).astype(np.float32)


def typical(columns: tuple[str, ...] = FEATURES) -> Float64[np.ndarray, "d"]:
    """A healthy adult's state: what imputes where no training patient is at hand."""
    known = {name: concept.typical for name, concept in concepts.load().measured.items()}
    derived = {
        "age_years": 65.0, "sex_male": 1.0, "readmission": 0.0, "elixhauser": 0.0, "hours_since_start": 0.0,
        "pao2_fio2": known["pao2"] / known["fio2"], "sofa": 0.0, "sirs": 0.0,
        "shock_index": known["heart_rate"] / known["sbp"], "urine_output_step": 0.0, "urine_output_total": 0.0,
        **dict.fromkeys(DOSES_BEFORE, 0.0),
    }  # fmt: skip
    return np.array([{**known, **derived}[name] for name in columns])


def _static(tables: Tables, config: GridConfig) -> dict[str, Float64[np.ndarray, "s"]]:
    source = {"age_years": "age_years", "sex_male": "sex_male", "readmission": "readmission"}
    source["elixhauser"] = "elixhauser" if config.comorbidity == "prior" else "elixhauser_current"
    return {name: tables.stays[column].to_numpy(np.float64) for name, column in source.items()}


def _derived(
    measured: dict[str, np.ndarray], urine: "_Urine", hours: Int[np.ndarray, "k"], config: GridConfig
) -> dict[str, np.ndarray]:
    return {
        "hours_since_start": hours[:, None].astype(np.float64),
        "pao2_fio2": measured["pao2"] / measured["fio2"],
        "shock_index": measured["heart_rate"] / measured["sbp"],
        "urine_output_step": np.maximum(urine.step(hours, config.step_hours), 0.0),
        "urine_output_total": np.maximum(urine.total(hours), 0.0),
    }


def _hold(
    events: Events, names: tuple[str, ...], hours: Int[np.ndarray, "k"], n_stays: int, config: GridConfig
) -> Held:
    known = concepts.load().measured
    holds = np.array([known[name].hold_hours for name in names]) * config.hold_scale
    return grid.hold(events, names, hours, n_stays, holds)


def _measured(
    held: Held, events: Events, hours: Int[np.ndarray, "k"], config: GridConfig
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Values by concept and where FiO2 was estimated; in place, the coma scale combined and FiO2 filled."""
    value = {name: held.value[..., i] for i, name in enumerate(held.names)}
    age = {name: held.age_h[..., i] for i, name in enumerate(held.names)}
    last_testable = _last_testable(events, hours, value["gcs"].shape[1], config)
    gcs, gcs_age = grid.combine_gcs(value, age, last_testable, config.gcs_rule)
    np.copyto(value["gcs"], gcs)
    np.copyto(age["gcs"], gcs_age)
    guess = oxygen.estimate(value["o2_device"], value["o2_flow"])
    estimated = np.isnan(value["fio2"]) & ~np.isnan(guess)
    np.copyto(value["fio2"], guess, where=estimated)
    np.copyto(age["fio2"], np.fmax(age["o2_flow"], age["o2_device"]), where=estimated)
    return value, estimated


def _last_testable(events: Events, hours: Int[np.ndarray, "k"], n_stays: int, config: GridConfig) -> np.ndarray:
    if config.gcs_rule != "last_testable":
        return np.full((len(hours), n_stays), np.nan)
    testable = grid.rows(events, events.value != grid.UNTESTABLE)
    return grid.hold(testable, ("gcs_verbal",), hours, n_stays, np.array([np.inf])).value[..., 0]


def _sofa(
    tables: Tables,
    anchor: Shaped[np.ndarray, "s"],
    events: Events,
    urine: "_Urine",
    hours: Int[np.ndarray, "k"],
    config: GridConfig,
) -> tuple[Int[np.ndarray, "k s"], Int[np.ndarray, "k s"]]:
    """SOFA and its number of missing organ systems: each system's worst whole hour of the last 24, then the sum."""
    every_hour = np.arange(hours[0] - LOOK_BACK_H + 1, hours[-1] + 1)
    value, _ = _measured(_hold(events, SCORED, every_hour, len(anchor), config), events, every_hour, config)
    rates = _past_rates(tables, anchor, every_hour)
    total = np.zeros((len(hours), len(anchor)), np.int64)
    missing = np.zeros_like(total)
    for score, known in scores.sofa_components(value, rates, urine.day(every_hour)):
        total += _worst(score)[hours - every_hour[0]]
        missing += _worst(known.astype(np.int8))[hours - every_hour[0]] == 0
    return total, missing


def _worst(score: Int8[np.ndarray, "h s"]) -> Int8[np.ndarray, "h s"]:
    """The largest of each hour and the 23 before it, by doubling; right from the 24th row on."""
    reach, worst = 1, score
    while reach < LOOK_BACK_H:
        step = min(reach, LOOK_BACK_H - reach)
        worst = np.concatenate([worst[:step], np.maximum(worst[step:], worst[:-step])])
        reach += step
    return worst


def _past_rates(
    tables: Tables, anchor: Shaped[np.ndarray, "s"], hours: Int[np.ndarray, "h"]
) -> dict[str, Float64[np.ndarray, "h s"]]:
    """The highest rate of each drug SOFA knows in the hour before each of `hours` (contiguous), ug/kg/min."""
    drugs = ("norepinephrine", "epinephrine", "dopamine", "dobutamine")
    given = intervals.infusions(tables.infusions, tables.stays, anchor, dict.fromkeys(drugs, 1.0))
    pieces = intervals.cut(given, int(hours[0]) - 1, 1, len(hours))
    return dict(zip(drugs, intervals.peaks(pieces, len(drugs), len(anchor), len(hours)), strict=True))


def doses_before(
    tables: Tables,
    anchor: Shaped[np.ndarray, "s"],
    hours: Int[np.ndarray, "k"],
    step_hours: int,
    given: ActionConfig,
) -> Float64[np.ndarray, "s k 2"]:
    """The doses of the windows [t - step, t), as `actions` counts them; an infusion that runs at t is cut there."""
    now = anchor + hours[-1] * np.timedelta64(1, "h")
    before = actions.doses(tables, anchor, hours - step_hours, step_hours, now, given)
    return np.stack([before.fluid_ml / step_hours, before.vasopressor_ug_kg_min], axis=2)


def _fluid_total(
    tables: Tables, anchor: Shaped[np.ndarray, "s"], hours: Int[np.ndarray, "k"]
) -> Float64[np.ndarray, "k s"]:
    """Volume infused between the anchor and each of `hours`, mL."""
    n_hours = max(int(hours[-1]), 1)
    given = intervals.infusions(tables.infusions, tables.stays, anchor, {"fluid": 1.0, "d5w": 1.0})
    hourly = intervals.quanta(intervals.cut(given, 0, 1, n_hours), len(anchor), n_hours)
    until = np.cumsum(np.pad(hourly, ((0, 0), (1, 0))), axis=1) / intervals.QUANTA
    return until[:, np.clip(hours, 0, None)].T


@dataclass(frozen=True)
class _Urine:
    """Urine that was known at each whole hour from `start` on; volumes in intervals.QUANTA, so sums are exact."""

    start: int
    since_anchor: Float64[np.ndarray, "h s"]
    ever: Float64[np.ndarray, "h s"]
    first: Int[np.ndarray, "h s"]
    """Charted time of the earliest row known, microseconds since the anchor; _LATE where none is."""
    last: Int[np.ndarray, "h s"]
    """Charted time of the latest row known; -_LATE where none is."""

    @classmethod
    def of(cls, tables: Tables, anchor: Shaped[np.ndarray, "s"], hours: Int[np.ndarray, "k"]) -> "_Urine":
        """From the outputs table, for questions about `hours` and the two days before them."""
        start = min(int(hours[0]) - 2 * LOOK_BACK_H, 0)
        shape = (int(hours[-1]) - start + 1, len(anchor))
        stay = grid.stay_rows(tables.outputs["stay_id"].to_numpy(), tables.stays["stay_id"].to_numpy())
        zero = grid.microseconds(anchor)[stay]
        charted = grid.microseconds(tables.outputs["charted"].to_numpy()) - zero
        known = grid.visible_hour(grid.microseconds(tables.outputs["available"].to_numpy()) - zero)
        rows = np.flatnonzero(known <= hours[-1])
        charted, cell = charted[rows], np.maximum(known[rows] - start, 0) * len(anchor) + stay[rows]
        volume = np.rint(tables.outputs["volume_ml"].to_numpy(np.float64)[rows] * intervals.QUANTA)
        n_cells = shape[0] * shape[1]
        first, last = np.full(n_cells, _LATE), np.full(n_cells, -_LATE)
        np.minimum.at(first, cell, charted)
        np.maximum.at(last, cell, charted)
        counted = np.where(charted >= 0, volume, 0.0)
        return cls(
            start,
            np.cumsum(intervals.exact_sum(counted, cell, n_cells).reshape(shape), axis=0),
            np.cumsum(intervals.exact_sum(volume, cell, n_cells).reshape(shape), axis=0),
            np.minimum.accumulate(first.reshape(shape), axis=0),
            np.maximum.accumulate(last.reshape(shape), axis=0),
        )

    def total(self, hours: Int[np.ndarray, "k"]) -> Float64[np.ndarray, "k s"]:
        """Urine since the anchor known at `hours`, mL; NaN until the first row is known."""
        seen = self.last[hours - self.start] > -_LATE
        return np.where(seen, self.since_anchor[hours - self.start] / intervals.QUANTA, np.nan)

    def step(self, hours: Int[np.ndarray, "k"], step_hours: int) -> Float64[np.ndarray, "k s"]:
        """Urine that became known in the step before each of `hours`, mL; NaN until the first row is known."""
        seen = self.last[hours - self.start] > -_LATE
        now, before = hours - self.start, hours - step_hours - self.start
        return np.where(seen, (self.since_anchor[now] - self.since_anchor[before]) / intervals.QUANTA, np.nan)

    def day(self, hours: Int[np.ndarray, "k"]) -> Float64[np.ndarray, "k s"]:
        """Urine that became known in the 24 h before each of `hours`, mL; NaN unless 22 of them were observed.

        Observed is from the first row (at most 24 h ago) to the last: where charting stopped, nothing is known.
        """
        now = hours - self.start
        day_ago = ((hours - LOOK_BACK_H) * grid.HOUR_US)[:, None]
        observed = self.last[now] - np.maximum(self.first[now], day_ago)
        volume = (self.ever[now] - self.ever[now - LOOK_BACK_H]) / intervals.QUANTA
        return np.where(observed >= URINE_OBSERVED_H * grid.HOUR_US, volume, np.nan)
