"""Infusions: the drips and boluses through which a window's doses are given, as rows of inputevents."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from cohort.hospital import bedside as beds
from cohort.hospital import infusion_faults
from cohort.hospital.bedside import NEVER, Bedside
from cohort.hospital.charting import ChartingConfig
from cohort.hospital.faults import KIND
from cohort.hospital.items import INDEX, UNIT
from cohort.hospital.orders import (
    AMPOULE,
    BLOOD,
    BOLUS,
    CARRIER,
    COLLOID,
    DRIP,
    DRUGS,
    LINES,
    RUNNING,
    STATUS,
    Infusions,
    concatenate,
    empty,
)

_DRUG_ITEMS = (221906, 222315, 221749, 221662, 221289)
_VASOPRESSIN = DRUGS.index("vasopressin")
_MAX_U_MIN = 0.2  # above, "units/min" would be read as U/h
_MAINTENANCE: tuple[tuple[int, float, float], ...] = (
    # itemid, mL of it that count as one (tonicity), share of the stays
    (225158, 1.0, 0.52), (225828, 1.0, 0.22), (225823, 0.5, 0.12), (225159, 0.5, 0.05), (225825, 1.0, 0.04),
    (225827, 1.0, 0.03), (225941, 0.25, 0.02),
)  # fmt: skip
_BOLUSES: tuple[tuple[int, float, float, int], ...] = (
    # itemid, tonicity, share, category
    (225158, 1.0, 0.40, BOLUS), (225828, 1.0, 0.20, BOLUS), (226089, 1.0, 0.12, RUNNING),
    (225168, 1.0, 0.10, BLOOD), (220864, 1.0, 0.05, COLLOID), (220970, 1.0, 0.03, BLOOD),
    (220862, 5.0, 0.04, COLLOID),
    (225170, 1.0, 0.02, BLOOD), (225171, 1.0, 0.01, BLOOD), (220995, 6.66, 0.02, AMPOULE),
    (225161, 3.0, 0.01, RUNNING),
)  # fmt: skip
_MAX_PARTS = 3
# Columns of a window's uniform draws; the first 7 * len(DRUGS) are the drugs'.
_STOPPED, _CARRIED, _STEP, _BOLUS_SHARE = slice(35, 40), 40, 42, slice(44, 46)
_BOLUS_KIND, _FAULTS, _STORED, _DRAWS = slice(46, 50), slice(50, 55), 55, 56
_CARRIER_SHARE = 0.3  # of a window's fluid that at most comes with the drugs


def infuse(
    bedside: Bedside,
    start_hour: int,
    minutes: Int[np.ndarray, "n"],
    fluid_ml: Float[np.ndarray, "n"],
    drug_rates: Float[np.ndarray, "n v"],
    config: ChartingConfig,
    rng: np.random.Generator,
) -> tuple[Bedside, Infusions]:
    """Give a decision window's doses: call it at the window's END, when it is known how long each patient was there.

    No row reaches out of [start, start + minutes). Once Rewritten and other faulty rows are set right, the integral
    over the rows is the dose asked for: tonicity-adjusted mL, and ug/kg/min (U/min) over the window, up to the digits
    stored.

    Args:
        start_hour: the window's start, hours since `intime`.
        minutes: how long each patient was there in this window; 0: nothing is given.
        fluid_ml: tonicity-adjusted mL over those minutes (5% dextrose not counted); 0: none.
        drug_rates: (n, len(DRUGS)) mean rates over those minutes; 0: not given.
    """
    draw = rng.random((len(minutes), _DRAWS))
    stay = np.flatnonzero(minutes > 0)
    local = beds.at(bedside, stay)
    window = _Window(stay, local, start_hour, minutes[stay], fluid_ml[stay], drug_rates[stay], draw[stay])
    running = _running(window)
    began = np.where(running & (local.order_start < 0), start_hour, np.where(running, local.order_start, NEVER))
    began[:, LINES.index("bolus")] = start_hour
    parts = [part for part in (*_drugs(window, began), *_fluids(window, began)) if part is not None]
    clean = concatenate(parts or [empty()])
    spoilt = infusion_faults.plant(clean, _hashed(clean, window), config.faults)
    rows = concatenate([spoilt, _stopped(window, config.faults.zero_rate)])
    after = replace(local, given=window.rates > 0, order_start=began)
    return beds.put(bedside, stay, after), replace(rows, stay=stay[rows.stay].astype(np.int32))


@dataclass(frozen=True)
class _Window:
    """The stays to whom a window's doses are given; below, rows count positions among them until the very end."""

    stay: Int[np.ndarray, "n"]
    bedside: Bedside
    start_hour: int
    minutes: Int[np.ndarray, "n"]
    fluid_ml: Float[np.ndarray, "n"]
    rates: Float[np.ndarray, "n v"]
    draw: Float[np.ndarray, "n u"]

    @property
    def weight_kg(self) -> Float[np.ndarray, "n"]:
        return self.bedside.habits.recorded_weight_kg

    @property
    def carried(self) -> Bool[np.ndarray, "n"]:
        """Where the drugs' solution counts as fluid (saline); elsewhere it is 5% dextrose."""
        return (self.rates > 0).any(axis=1) & (self.fluid_ml > 0) & (self.bedside.habits.unit < 0.7)


def _running(window: _Window) -> Bool[np.ndarray, "n w"]:
    fluid, drug = window.fluid_ml > 0, window.rates > 0
    return np.column_stack([drug, drug.any(axis=1), fluid, fluid])


def _drugs(window: _Window, began: Int[np.ndarray, "n w"]) -> list[Infusions | None]:
    """Vasopressors, titrated in up to three steps whose time-weighted mean is the rate asked for."""
    parts: list[Infusions | None] = []
    for drug, name in enumerate(DRUGS):
        stay = np.flatnonzero(window.rates[:, drug] > 0)
        if not len(stay):
            continue
        draw = window.draw[stay, 7 * drug : 7 * drug + 7]
        minutes, rate = window.minutes[stay], window.rates[stay, drug]
        fresh = ~window.bedside.given[stay, drug] & (minutes > 60)
        late = np.where(fresh, (draw[:, 0] * 30).astype(np.int64), 0)
        cut = _cuts(late, minutes, draw[:, 1:4])
        swing = 1 + 0.5 * (draw[:, 4:7] - 0.5)
        lasts = np.diff(cut, axis=1)
        pace = rate[:, None] * swing * (minutes / (swing * lasts).sum(axis=1))[:, None]
        for part in range(_MAX_PARTS):
            there = lasts[:, part] > 0
            rows = _Segment(stay[there], LINES.index(name), part, cut[there, part], cut[there, part + 1])
            last = cut[there, part + 1] == minutes[there]
            parts.append(_drug_rows(window, began, rows, drug, pace[there, part], last))
    return parts


@dataclass(frozen=True)
class _Segment:
    """One stretch of a line, for some stays; minutes since the window's start."""

    stay: Int[np.ndarray, "k"]
    line: int
    part: int
    start: Int[np.ndarray, "k"]
    end: Int[np.ndarray, "k"]


def _cuts(
    first: Int[np.ndarray, "k"], last: Int[np.ndarray, "k"], draw: Float[np.ndarray, "k 3"]
) -> Int[np.ndarray, "k 4"]:
    """Minutes at which the rate changes: one to three stretches, empty ones where there are fewer."""
    steps = 1 + (draw[:, 0] > 0.55).astype(np.int64) + (draw[:, 0] > 0.85)
    length = last - first
    middle = np.sort(first[:, None] + np.floor(draw[:, 1:] * length[:, None]).astype(np.int64), axis=1)
    middle = np.where(np.stack([steps > 1, steps > 2], axis=1), middle, last[:, None])
    return np.column_stack([first, np.sort(middle, axis=1), last])


def _drug_rows(
    window: _Window,
    began: Int[np.ndarray, "n w"],
    rows: _Segment,
    drug: int,
    rate: Float[np.ndarray, "k"],
    last: Bool[np.ndarray, "k"],
) -> Infusions:
    weight = window.weight_kg[rows.stay]
    unit_draw = (window.bedside.habits.unit[rows.stay] * 97 + drug * 0.37) % 1
    minutes = rows.end - rows.start
    if drug == _VASOPRESSIN:
        minutely = (unit_draw < 0.1) & (rate < _MAX_U_MIN)
        shown = np.where(minutely, rate, 60 * rate)
        unit = np.where(minutely, UNIT["units/min"], UNIT["units/hour"])
        amount, amount_unit = rate * minutes, UNIT["units"]
    else:
        whole, odd = unit_draw < 0.06, (unit_draw > 0.99) & (drug == 0)
        shown = rate * np.where(whole, weight, np.where(odd, 1e-3, 1.0))
        unit = np.where(whole, UNIT["mcg/min"], np.where(odd, UNIT["mg/kg/min"], UNIT["mcg/kg/min"]))
        amount, amount_unit = rate * weight * minutes / 1000, UNIT["mg"]
    status = np.where(last, STATUS["FinishedRunning"], STATUS["Changed"])
    return _rows(window, began, rows, _DRUG_ITEMS[drug], amount, amount_unit, shown, unit, DRIP, status)


def _fluids(window: _Window, began: Int[np.ndarray, "n w"]) -> list[Infusions | None]:
    """The drugs' carrier, a running fluid, and boluses, in shares that depend on how much is given."""
    carrier = _carrier_ml(window)
    rest = np.where(window.carried, window.fluid_ml - carrier, window.fluid_ml)
    hourly = rest * 60 / window.minutes
    draw = window.draw[:, _BOLUS_SHARE]
    chance = np.clip((hourly - 15) / 100, 0, 0.95)
    bolus = np.where(draw[:, 0] < chance, rest * (0.35 + 0.6 * draw[:, 1]), 0.0)
    return [
        _carriers(window, began, carrier),
        *_maintenance(window, began, rest - bolus),
        *_boluses(window, began, bolus),
    ]


def _carrier_ml(window: _Window) -> Float[np.ndarray, "n"]:
    wanted = (5 + 12 * window.draw[:, _CARRIED]) * window.minutes / 60
    volume: np.ndarray = np.where(window.carried, np.minimum(wanted, _CARRIER_SHARE * window.fluid_ml), wanted)
    return volume


def _carriers(window: _Window, began: Int[np.ndarray, "n w"], ml: Float[np.ndarray, "n"]) -> Infusions | None:
    """What vasopressors are dissolved in: saline (counts as fluid) or 5% dextrose (does not)."""
    stay = np.flatnonzero((window.rates > 0).any(axis=1) & (ml > 0))
    if not len(stay):
        return None
    saline = np.where(window.draw[stay, _CARRIED + 1] < 0.3, INDEX[225943], INDEX[225158])
    item = np.where(window.carried[stay], saline, INDEX[220949])
    rows = _Segment(stay, LINES.index("carrier"), 0, np.zeros_like(stay), window.minutes[stay])
    return _millilitres(window, began, rows, item, ml[stay], np.full(len(stay), CARRIER))


def _maintenance(
    window: _Window, began: Int[np.ndarray, "n w"], counted: Float[np.ndarray, "n"]
) -> list[Infusions | None]:
    """The running fluid, at times set to another rate within the window."""
    kind = _kind(window.bedside.habits.maintenance, [share for _, _, share in _MAINTENANCE])
    item = np.array([INDEX[itemid] for itemid, _, _ in _MAINTENANCE])[kind]
    ml = counted / np.array([tonicity for _, tonicity, _ in _MAINTENANCE])[kind]
    share = np.where(window.draw[:, _STEP] < 0.25, 0.2 + 0.6 * window.draw[:, _STEP + 1], 1.0)
    first = np.where((share < 1) & (window.minutes > 60), window.minutes // 2, window.minutes)
    share = np.where(first == window.minutes, 1.0, share)
    parts: list[Infusions | None] = []
    for part, (start, end, volume) in enumerate(
        ((np.zeros_like(first), first, ml * share), (first, window.minutes, ml * (1 - share)))
    ):
        stay = np.flatnonzero((volume > 0) & (end > start))
        rows = _Segment(stay, LINES.index("maintenance"), part, start[stay], end[stay])
        category = np.full(len(stay), RUNNING)
        parts.append(_millilitres(window, began, rows, item[stay], volume[stay], category) if len(stay) else None)
    return parts


def _boluses(window: _Window, began: Int[np.ndarray, "n w"], counted: Float[np.ndarray, "n"]) -> list[Infusions | None]:
    """Volume over a short time: of crystalloid as a bolus without a rate, of products over up to two hours."""
    stay = np.flatnonzero(counted > 0)
    if not len(stay):
        return []
    draw = window.draw[stay, _BOLUS_KIND]
    kind = _kind(draw[:, 0], [share for _, _, share, _ in _BOLUSES])
    item = np.array([INDEX[itemid] for itemid, _, _, _ in _BOLUSES])[kind]
    category = np.array([category for _, _, _, category in _BOLUSES])[kind]
    ml = counted[stay] / np.array([tonicity for _, tonicity, _, _ in _BOLUSES])[kind]
    minutes = window.minutes[stay]
    pushed = category == BOLUS
    lasts = np.where(pushed, 1, np.minimum(30 + (90 * draw[:, 1]).astype(np.int64), minutes))
    start = ((minutes - lasts + 1) * draw[:, 2]).astype(np.int64)
    rows = _Segment(stay, LINES.index("bolus"), 0, start, start + lasts)
    given = _millilitres(window, began, rows, item, ml, category)
    ampoule = category == AMPOULE
    without_rate = pushed | ampoule
    return [
        replace(
            given,
            rate=np.where(without_rate, np.nan, given.rate),
            rate_unit=np.where(without_rate, -1, given.rate_unit),
            amount_unit=np.where(ampoule, UNIT["mEq"], given.amount_unit),
        )
    ]


def _millilitres(
    window: _Window,
    began: Int[np.ndarray, "n w"],
    rows: _Segment,
    item: Int[np.ndarray, "k"],
    ml: Float[np.ndarray, "k"],
    category: Int[np.ndarray, "k"],
) -> Infusions:
    minutes = rows.end - rows.start
    last = rows.end == window.minutes[rows.stay]
    status = np.where(last | (category != RUNNING), STATUS["FinishedRunning"], STATUS["Changed"])
    given = _rows(
        window, began, rows, 225158, ml, UNIT["ml"], ml * 60 / minutes, np.full(len(ml), UNIT["mL/hour"]), 0, status
    )
    return replace(given, item=item.astype(np.int16), category=category.astype(np.int8))


def _rows(
    window: _Window,
    began: Int[np.ndarray, "n w"],
    rows: _Segment,
    itemid: int,
    amount: Float[np.ndarray, "k"],
    amount_unit: int,
    rate: Float[np.ndarray, "k"],
    rate_unit: Int[np.ndarray, "k"],
    category: int,
    status: Int[np.ndarray, "k"],
) -> Infusions:
    k, base = len(rows.stay), window.start_hour * 3600
    late = 60 * np.floor(np.exp(2.0 + 1.2 * (window.draw[rows.stay, _STORED] * 2 - 1))).astype(np.int64)
    order = _order(window.stay[rows.stay], window.start_hour, rows.line, rows.part)
    return Infusions(
        rows.stay, np.full(k, INDEX[itemid], np.int16), base + 60 * rows.start, base + 60 * rows.end,
        base + 60 * rows.start + late, amount, np.full(k, amount_unit, np.int16), rate, rate_unit.astype(np.int16),
        order, _order(window.stay[rows.stay], began[rows.stay, rows.line], rows.line, 0), np.full(k, category, np.int8),
        status.astype(np.int8), window.weight_kg[rows.stay], np.full(k, -1, np.int8),
    )  # fmt: skip


def _order(
    stay: Int[np.ndarray, "k"], hour: int | Int[np.ndarray, "k"], line: int, part: int | Int[np.ndarray, "k"]
) -> Int[np.ndarray, "k"]:
    """An order's number: below 2**17 * (stays + 1). Parts above 2 are for rows that should not be there."""
    return ((stay.astype(np.int64) * 1024 + hour) * 8 + line) * 16 + part


def _kind(draw: Float[np.ndarray, "k"], shares: list[float]) -> Int[np.ndarray, "k"]:
    return np.searchsorted(np.cumsum(shares)[:-1], draw, side="right")


def _hashed(rows: Infusions, window: _Window) -> Float[np.ndarray, "r 5"]:
    """Five uniform numbers a row, from the draws of its stay, turned by its line and part."""
    turn = ((rows.order % 128) * 0.6180339887)[:, None] + np.array([0.11, 0.31, 0.53, 0.71, 0.97])
    uniform: np.ndarray = (window.draw[rows.stay, _FAULTS] * 7919 + turn) % 1
    return uniform


def _stopped(window: _Window, rate: float) -> Infusions:
    """A row of rate 0 where a vasopressor was stopped at this window's start."""
    off = window.bedside.given & (window.rates <= 0)
    stay, drug = np.nonzero(off & (window.draw[:, _STOPPED] < rate))
    if not len(stay):
        return empty()
    parts = []
    for number in np.unique(drug):
        rows = _Segment(stay[drug == number], int(number), 12, *_first_minutes(window, stay[drug == number]))
        zero = np.zeros(len(rows.stay))
        began = window.bedside.order_start
        made = _drug_rows(window, began, rows, int(number), zero, np.ones(len(zero), bool))
        parts.append(replace(made, status=np.full(made.n, STATUS["Paused"], np.int8)))
    made = concatenate(parts)
    return replace(made, fault=np.full(made.n, KIND["zero_rate"], np.int8))


def _first_minutes(window: _Window, stay: Int[np.ndarray, "k"]) -> tuple[Int[np.ndarray, "k"], Int[np.ndarray, "k"]]:
    return np.zeros_like(stay), np.minimum(window.minutes[stay], 30)
