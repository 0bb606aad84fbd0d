"""Grid: a shard's observations carried forward to decision times, under one rule of what was known when."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Float64, Int, Shaped
from pydantic import Field, model_validator

from cohort import concepts, oxygen
from cohort.config import Config

HOUR_US = 3_600_000_000
UNTESTABLE = 0.0
"""What an untestable verbal response is coded as; testable ones are 1 to 5."""
_NEVER = -(2**62)


class GridConfig(Config):
    """Where the decision times lie and how long and by which rules a value counts."""

    step_hours: Literal[1, 2, 4] = 4
    horizon_hours: int = Field(default=72, ge=4, le=720)
    anchor: Literal["admission", "suspicion"] = "admission"
    """Hour 0: ICU admission, or 24 h before suspected infection (not before ICU admission)."""
    gcs_rule: Literal["normal", "last_testable", "missing"] = "normal"
    """An untestable verbal response makes the total 15, takes the last testable one, or makes the total missing."""
    hold_scale: float = Field(default=1.0, gt=0, le=10)
    """Multiplies every hold time of the dictionary."""
    comorbidity: Literal["prior", "current"] = "prior"
    """`current` uses codes assigned at discharge: it knows the future, for comparison with the literature only."""

    @model_validator(mode="after")
    def _whole_steps(self) -> "GridConfig":
        if self.horizon_hours % self.step_hours:
            raise ValueError(f"horizon_hours: {self.horizon_hours} is not a multiple of step_hours {self.step_hours}")
        return self

    @property
    def hours(self) -> Int[np.ndarray, "k"]:
        """Decision times in hours since the anchor: 0, step, ... up to one step before the horizon."""
        return np.arange(0, self.horizon_hours, self.step_hours)


@cache
def columns() -> tuple[str, ...]:
    """Every measured concept, in the order of the grid's last axis: the state's first, in the state's order."""
    known = concepts.load()
    in_state = tuple(name for name in known.state if name in known.measured)
    return in_state + tuple(name for name in known.measured if name not in in_state)


@dataclass(frozen=True)
class Events:
    """A shard's observations as arrays; times are microseconds since the stay's anchor."""

    stay: Int[np.ndarray, "n"]
    """Row of the stays table."""
    concept: Int[np.ndarray, "n"]
    """Position in `columns()`."""
    charted: Int[np.ndarray, "n"]
    available: Int[np.ndarray, "n"]
    value: Float64[np.ndarray, "n"]


@dataclass(frozen=True)
class Held:
    """For each decision time, stay and concept, the latest charted of the values available before it."""

    names: tuple[str, ...]
    value: Float64[np.ndarray, "k s c"]
    """NaN where nothing was available, or it was older than its hold time."""
    age_h: Float64[np.ndarray, "k s c"]
    """Hours since the value was charted; NaN where `value` is."""


def events(observations: pd.DataFrame, stays: pd.DataFrame, anchor: Shaped[np.ndarray, "s"]) -> Events:
    """Observations as arrays, in the order of their rows.

    Rows whose value is missing are left out, but for two concepts whose text decides: an untestable verbal response
    becomes UNTESTABLE, an oxygen device the number of its kind.
    """
    names = observations["concept"].cat.categories
    codes = observations["concept"].cat.codes.to_numpy()
    position = np.array([columns().index(name) if name in columns() else -1 for name in names] + [-1])
    concept = position[codes]
    value = observations["value"].to_numpy(np.float64)
    value = _by_text(observations["text"], concept, value)
    known = (concept >= 0) & ~np.isnan(value)
    stay = stay_rows(observations["stay_id"].to_numpy(), stays["stay_id"].to_numpy())
    zero = microseconds(anchor)[stay]
    charted = microseconds(observations["charted"].to_numpy()) - zero
    available = microseconds(observations["available"].to_numpy()) - zero
    arrays = (stay, concept, charted, available, value)
    found = Events(*arrays)
    return found if known.all() else rows(found, known)


def stay_rows(stay_id: Int[np.ndarray, "n"], stays: Int[np.ndarray, "s"]) -> Int[np.ndarray, "n"]:
    """The row in `stays` of each id; ids that stand together are looked up once."""
    if not len(stay_id):
        return np.zeros(0, np.int64)
    first = np.flatnonzero(np.r_[True, stay_id[1:] != stay_id[:-1]])
    order = np.argsort(stays, kind="stable")
    row = order[np.searchsorted(stays, stay_id[first], sorter=order)]
    return np.repeat(row, np.diff(np.r_[first, len(stay_id)]))


def microseconds(times: Shaped[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
    """Times as whole microseconds since 1970."""
    return times.astype("datetime64[us]", copy=False).view(np.int64)


def visible_hour(available: Int[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
    """The first whole hour after each time: an event available at t itself is not yet known at t."""
    return available // HOUR_US + 1


def hold(
    events: Events,
    names: tuple[str, ...],
    hours: Int[np.ndarray, "k"],
    n_stays: int,
    hold_h: Float[np.ndarray, "c"],
) -> Held:
    """Carry the concepts `names` forward to the decision times `hours`, each for at most `hold_h` hours.

    Of the events available before a decision time the one charted last counts; of those charted at the same time the
    one available last, then the larger value, so that the order of rows cannot matter. Every event is put once into the
    cell of the first decision time that may know it; a running maximum along the decisions then carries it on.
    Work is proportional to rows plus cells.
    """
    column = np.full(len(columns()), -1)
    column[[columns().index(name) for name in names]] = np.arange(len(names))
    slot = _slots(visible_hour(events.available), hours)
    wanted = (column[events.concept] >= 0) & (slot < len(hours))
    if not wanted.all():
        events, slot = rows(events, wanted), slot[wanted]
    cell = (slot * n_stays + events.stay) * len(names) + column[events.concept]
    shape = (len(hours), n_stays, len(names))
    latest, source = _newest(cell, events, int(np.prod(shape)))
    held, age_h = _carried(latest.reshape(shape), source.reshape(shape), events.value, hours, hold_h)
    return Held(names, held, age_h)


def rows(events: Events, kept: Bool[np.ndarray, "n"]) -> Events:
    """Some of the events."""
    return Events(
        events.stay[kept],
        events.concept[kept],
        events.charted[kept],
        events.available[kept],
        events.value[kept],
    )


def combine_gcs(
    value: Mapping[str, Float64[np.ndarray, "*a"]],
    age_h: Mapping[str, Float64[np.ndarray, "*a"]],
    last_testable: Float64[np.ndarray, "*a"],
    rule: str,
) -> tuple[Float64[np.ndarray, "*a"], Float64[np.ndarray, "*a"]]:
    """The Glasgow coma scale (3 to 15) and its age: the sum of its held parts (the oldest's age), else the total.

    An untestable verbal response is decided by `rule` (see GridConfig), and then no charted total is used.
    """
    eye, motor, verbal = value["gcs_eye"], value["gcs_motor"], value["gcs_verbal"]
    untestable = verbal == UNTESTABLE
    spoken = last_testable if rule == "last_testable" else np.full(verbal.shape, np.nan)
    gcs = eye + motor + np.where(untestable, spoken, verbal)
    age = np.maximum(np.maximum(age_h["gcs_eye"], age_h["gcs_motor"]), age_h["gcs_verbal"])
    if rule == "normal":
        gcs, age = np.where(untestable, 15.0, gcs), np.where(untestable, age_h["gcs_verbal"], age)
    whole = np.isnan(gcs) & ~untestable
    gcs, age = np.where(whole, value["gcs"], gcs), np.where(whole, age_h["gcs"], age)
    return gcs, np.where(np.isnan(gcs), np.nan, age)


def _by_text(text: "pd.Series[str]", concept: Int[np.ndarray, "n"], value: Float64[np.ndarray, "n"]) -> np.ndarray:
    verbal, device = columns().index("gcs_verbal"), columns().index("o2_device")
    silent = np.isnan(value) & ((concept == verbal) | (concept == device))
    if not silent.any():
        return value
    decided = value.copy()
    decided[silent] = UNTESTABLE
    devices = np.flatnonzero(silent & (concept == device))
    used, which = np.unique(text.cat.codes.to_numpy()[devices], return_inverse=True)
    kinds = [oxygen.OTHER if code < 0 else oxygen.kind_of(text.cat.categories[code]) for code in used]
    decided[devices] = np.array(kinds, np.float64)[which]
    return decided


def _slots(hour: Int[np.ndarray, "n"], hours: Int[np.ndarray, "k"]) -> Int[np.ndarray, "n"]:
    low, high = int(hours[0]), int(hours[-1])
    table = np.searchsorted(hours, np.arange(low, high + 2))
    slots: np.ndarray = table[np.clip(hour, low, high + 1) - low]
    return slots


def _newest(cell: Int[np.ndarray, "n"], events: Events, n_cells: int) -> tuple[np.ndarray, np.ndarray]:
    latest = np.full(n_cells, _NEVER)
    np.maximum.at(latest, cell, events.charted)
    source = np.full(n_cells, -1, np.int32)
    winner = np.flatnonzero(events.charted == latest[cell]).astype(np.int32)
    source[cell[winner]] = winner
    beaten = winner[source[cell[winner]] != winner]
    if len(beaten):  # charted at the same time: the one available last, then the larger value
        tied = np.zeros(n_cells, bool)
        tied[cell[beaten]] = True
        rivals = winner[tied[cell[winner]]]
        rivals = rivals[np.lexsort((events.value[rivals], events.available[rivals]))]
        source[cell[rivals]] = rivals
    return latest, source


def _carried(
    latest: Int[np.ndarray, "k s c"],
    source: Int[np.ndarray, "k s c"],
    value: Float64[np.ndarray, "n"],
    hours: Int[np.ndarray, "k"],
    hold_h: Float[np.ndarray, "c"],
) -> tuple[np.ndarray, np.ndarray]:
    """One decision time after the other, so that the work stays in the processor's cache."""
    known = np.append(value, np.nan)
    held, age_h = np.empty(latest.shape), np.empty(latest.shape)
    for now, hour in enumerate(hours):
        if now:
            older = latest[now] < latest[now - 1]
            np.copyto(latest[now], latest[now - 1], where=older)
            np.copyto(source[now], source[now - 1], where=older)
        np.take(known, source[now], out=held[now], mode="wrap")  # -1 is the NaN at the end
        np.divide(hour * HOUR_US - latest[now], HOUR_US, out=age_h[now])
        missing = (age_h[now] > hold_h) | (source[now] < 0)
        np.copyto(held[now], np.nan, where=missing)
        np.copyto(age_h[now], np.nan, where=missing)
    return held, age_h
