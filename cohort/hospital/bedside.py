"""Bedside: the lines and tubes at each bed, the ways of those who chart there, and when things were last done."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from cohort.hospital import items
from cohort.hospital.draws import Draws
from cohort.hospital.items import INDEX, TEXT
from cohort.hospital.population import Population

NEVER = -1000
"""An hour before any: of what has not happened yet."""
_AWAY = 0.0033  # an hour: begins a trip of 4 to 8 hours, for a scan or an operation
_INVASIVE, _MASK = 225792, 225794


@dataclass(frozen=True)
class Procedures:
    """Rows of procedureevents (ventilation)."""

    stay: Int[np.ndarray, "r"]
    item: Int[np.ndarray, "r"]
    start: Int[np.ndarray, "r"]
    """Seconds since `intime`."""
    end: Int[np.ndarray, "r"]
    stored: Int[np.ndarray, "r"]


@dataclass(frozen=True)
class Habits:
    """What stays the same for a stay: the bed, the nurse's ways, what the patient brought."""

    clock_hour: Int[np.ndarray, "n"]
    """Hour of the day at the first whole hour of the clock at or after `intime`."""
    mark_s: Int[np.ndarray, "n"]
    """Seconds from `intime` to that hour."""
    phase: Int[np.ndarray, "n"]
    """Which hours of the clock are rounds, 0 to 3."""
    lab_hour: Int[np.ndarray, "n"]
    """Hour of the clock of the morning blood draw."""
    celsius: Bool[np.ndarray, "n"]
    fraction: Bool[np.ndarray, "n"]
    """True: FiO2 is written as a fraction, not in percent."""
    second_line: Bool[np.ndarray, "n"]
    """True: the arterial line is charted under the operating room's items."""
    weighed_kg: Bool[np.ndarray, "n"]
    weighed_lb: Bool[np.ndarray, "n"]
    weighed_daily: Bool[np.ndarray, "n"]
    irrigated: Bool[np.ndarray, "n"]
    """True: the bladder is irrigated, so urine comes mixed with what was put in."""
    recorded_weight_kg: Float[np.ndarray, "n"]
    """As measured on admission and used for dosing."""
    mode: Int[np.ndarray, "n"]
    tube: Int[np.ndarray, "n"]
    mask: Int[np.ndarray, "n"]
    """Texts of the ventilator's mode, of the airway, and of the device for much oxygen."""
    maintenance: Float[np.ndarray, "n"]
    """Uniform: chooses the fluid that runs."""
    unit: Float[np.ndarray, "n"]
    """Uniform: chooses the unit in which a drug's rate is charted."""


@dataclass(frozen=True)
class Bedside:
    """What is at each bed between two hours: lines, tubes, when things were last done. Opaque to the loop."""

    habits: Habits
    arterial: Bool[np.ndarray, "n"]
    central: Bool[np.ndarray, "n"]
    catheter: Bool[np.ndarray, "n"]
    away_until: Int[np.ndarray, "n"]
    drawn: Int[np.ndarray, "n 4"]
    """Hour of the last draw of each kind in channels.LABORATORY."""
    urine_ml: Float[np.ndarray, "n"]
    """Made and not yet charted."""
    weighed: Int[np.ndarray, "n"]
    """1: the admission weight is charted."""
    ventilated_since: Int[np.ndarray, "n"]
    """Seconds; -1: not ventilated."""
    masked_since: Int[np.ndarray, "n"]
    """Seconds since non-invasive ventilation began; -1: none."""
    given: Bool[np.ndarray, "n v"]
    """Which of infusions.DRUGS ran at the end of the last window."""
    order_start: Int[np.ndarray, "n w"]
    """Hour at which the running order of each of infusions.LINES began."""
    ended: tuple[Procedures, ...]
    """Ventilation that has ended."""


_MOVING = tuple(field.name for field in fields(Bedside) if field.name not in ("habits", "ended"))


@dataclass(frozen=True)
class Patient:
    """The stays present in an hour."""

    stay: Int[np.ndarray, "n"]
    """Their positions in the shard."""
    hour: int
    severity: Float[np.ndarray, "n"]
    on_vasopressor: Bool[np.ndarray, "n"]
    ventilated: Bool[np.ndarray, "n"]
    values: Mapping[str, Float[np.ndarray, "n"]]
    intensity: float

    @property
    def in_icu(self) -> bool:
        return self.hour >= 0


def admit(population: Population, rng: np.random.Generator) -> Bedside:
    """The bedsides of a shard's stays before anything is charted (no id is read: only intime's clock and weight)."""
    n = population.n
    clock_s = (population.intime - population.intime.astype("datetime64[D]")).astype("timedelta64[s]").astype(np.int64)
    mark_s = (-clock_s) % 3600
    draw = rng.random((12, n))
    weight = population.weight_kg * (1 + 0.02 * rng.standard_normal(n))
    habits = Habits(
        clock_hour=(clock_s + mark_s) // 3600 % 24,
        mark_s=mark_s,
        phase=(draw[0] * 4).astype(np.int64),
        lab_hour=2 + (draw[1] * 4).astype(np.int64),
        celsius=draw[2] < 0.1,
        fraction=draw[3] < 0.06,
        second_line=draw[4] < 0.06,
        weighed_kg=draw[5] < 0.62,
        weighed_lb=(draw[5] > 0.35) & (draw[5] < 0.93),
        weighed_daily=draw[6] < 0.45,
        irrigated=draw[7] < 0.006,
        recorded_weight_kg=np.round(weight, 1),
        mode=_pick(draw[8], [TEXT[name] for name, _ in items.MODES], (0.45, 0.38, 0.07, 0.06, 0.04)),
        tube=_pick(draw[9], [TEXT["Endotracheal tube"], TEXT["Tracheostomy tube"]], (0.9, 0.1)),
        mask=_pick(
            draw[10], [TEXT[name] for name in items.DEVICES[2:7]], (0.3, 0.25, 0.1, 0.15, 0.2)
        ),
        maintenance=draw[11],
        unit=rng.random(n),
    )  # fmt: skip
    no, never = np.zeros(n, bool), np.full(n, -1)
    return Bedside(
        habits, no, no, rng.random(n) < 0.6, np.full(n, NEVER), np.full((n, 4), NEVER), np.zeros(n), np.zeros(n, int),
        never, never, np.zeros((n, 5), bool), np.full((n, 8), NEVER), (),
    )  # fmt: skip


def at(bedside: Bedside, stay: Int[np.ndarray, "k"]) -> Bedside:
    """The bedsides of some stays, without the ventilation that has ended."""
    if len(stay) == len(bedside.arterial):
        return replace(bedside, ended=())
    habits = Habits(*(getattr(bedside.habits, field.name)[stay] for field in fields(Habits)))
    return replace(bedside, habits=habits, ended=(), **{name: getattr(bedside, name)[stay] for name in _MOVING})


def put(bedside: Bedside, stay: Int[np.ndarray, "k"], part: Bedside) -> Bedside:
    """All bedsides, those of some stays brought up to date."""
    ended = (*bedside.ended, *part.ended)
    if len(stay) == len(bedside.arterial):
        return replace(part, ended=ended)
    columns = {name: getattr(bedside, name).copy() for name in _MOVING}
    for name, column in columns.items():
        column[stay] = getattr(part, name)
    return replace(bedside, ended=ended, **columns)


def attend(bedside: Bedside, patient: Patient, draws: Draws) -> Bedside:
    """Lines and tubes that go in or come out, trips away, urine made."""
    if not patient.in_icu:
        return bedside
    hour = patient.hour
    sick, pressor, tube = patient.severity, patient.on_vasopressor, patient.ventilated
    line = np.where(pressor, 0.7, np.where(tube, 0.15 + 0.3 * sick, 0.004))
    line_out = np.where(pressor | (tube & (sick > 0.4)), 0.0, 0.02)
    central = np.where(pressor, 0.5, 0.004 + 0.03 * sick)
    leaves = (draws.of("away") < _AWAY) & (hour >= 1) & (bedside.away_until <= hour)
    wet = (tube | pressor) & (draws.of("catheter") < 0.5)
    need = patient.values["fio2"] > 0.5
    masked = ~tube & np.where(bedside.masked_since >= 0, draws.of("mask") < 0.93, need & (draws.of("mask") < 0.03))
    start = hour * 3600 + 60 * (1 + (draws.of("start") * 20).astype(np.int64))
    ventilated_since, off = _since(bedside.ventilated_since, tube, start)
    masked_since, mask_off = _since(bedside.masked_since, masked, start)
    spells = ((off, _INVASIVE, bedside.ventilated_since), (mask_off, _MASK, bedside.masked_since))
    return replace(
        bedside,
        arterial=np.where(bedside.arterial, draws.of("line") >= line_out, draws.of("line") < line),
        central=np.where(bedside.central, draws.of("central") >= 0.004, draws.of("central") < central),
        catheter=np.where(bedside.catheter, draws.of("catheter") < 0.99, wet),
        away_until=np.where(leaves, hour + 4 + (draws.of("away_hours") * 5).astype(np.int64), bedside.away_until),
        urine_ml=bedside.urine_ml + patient.values["urine_ml_h"],
        ventilated_since=ventilated_since,
        masked_since=masked_since,
        ended=tuple(
            _procedures(patient.stay[gone], itemid, since[gone], np.full(int(gone.sum()), hour * 3600))
            for gone, itemid, since in spells
            if gone.any()
        ),
    )


def ventilation(bedside: Bedside, out_hour: Float[np.ndarray, "n"]) -> Procedures:
    """Ventilation so far; what still runs ends at `out_hour` (the stay's end; in a rollout the hour of the reading)."""
    out = np.round(out_hour * 3600).astype(np.int64)
    running = []
    for itemid, since in ((_INVASIVE, bedside.ventilated_since), (_MASK, bedside.masked_since)):
        stay = np.flatnonzero((since >= 0) & (since < out))
        running.append(_procedures(stay, itemid, since[stay], out[stay]))
    parts = (*bedside.ended, *running)
    return Procedures(*(np.concatenate([getattr(part, name) for part in parts]) for name in Procedures.__annotations__))


def _since(
    since: Int[np.ndarray, "n"], on: Bool[np.ndarray, "n"], start: Int[np.ndarray, "n"]
) -> tuple[Int[np.ndarray, "n"], Bool[np.ndarray, "n"]]:
    """When the running spell began (-1: none runs), and where one has just ended."""
    return np.where(on, np.where(since >= 0, since, start), -1), (since >= 0) & ~on


def _procedures(
    stay: Int[np.ndarray, "k"], itemid: int, start: Int[np.ndarray, "k"], end: Int[np.ndarray, "k"]
) -> Procedures:
    """Finished spells; they are stored some hours after their end."""
    late = 60 * (5 + (stay * 7919 + start) % 400)
    return Procedures(stay, np.full(len(stay), INDEX[itemid]), start, end, end + late)


def _pick(draw: Float[np.ndarray, "n"], options: list[int], shares: tuple[float, ...]) -> Int[np.ndarray, "n"]:
    """One option a stay, with the given shares (their sum is 1)."""
    return np.array(options)[np.searchsorted(np.cumsum(shares)[:-1], draw, side="right")]
