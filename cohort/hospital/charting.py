"""Charting: what the staff write down of a stay, hour by hour, before it is laid out as MIMIC-IV tables.

The simulation loop calls, for one shard of n stays:

    bedside = admit(population, config, rng)                     # once
    for h in range(FIRST_HOUR, last_hour):                       # FIRST_HOUR = -6: laboratory work before the ICU
        bedside, events = hour(bedside, h, present, values, severity, on_vasopressor, ventilated, config, rng)
        # after the last hour of a decision window, once it is known how long each patient was there:
        bedside, given = infusions.infuse(bedside, start_hour, minutes, fluid_ml, drug_rates, config, rng)
    rows = Rows(concatenate(all events), infusions.concatenate(all given), ventilation(bedside, out_hour))
    tables = layout.tables(rows, population, outcomes, shard)    # dict path -> pa.Table

Everything is vectorised over the stays of the shard; every call draws the same number of random numbers whoever is
present. Times are whole seconds since each stay's `intime`; charted times lie on whole minutes of the clock.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, UInt64
from pydantic import Field

from cohort.config import Config
from cohort.hospital import channels, faults, items
from cohort.hospital.channels import CHANNELS, GROUP_COLUMNS, GROUPS, SIGNALS, C, Group
from cohort.hospital.events import Events, concatenate
from cohort.hospital.faults import FaultConfig
from cohort.hospital.items import ITEM_UNIT, TEXT
from cohort.hospital.population import Population

__all__ = [
    "FIRST_HOUR", "SIGNALS", "Bedside", "ChartingConfig", "Events", "Procedures", "admit", "concatenate", "hour",
    "ventilation",
]  # fmt: skip

FIRST_HOUR = -6
"""The first hour that may be charted: laboratory work (and a few vital signs) from before the ICU."""
NEVER = -1000
"""An hour before any: of what has not happened yet."""

# Tuned to the counts of the MIMIC-IV demo: how often each thing is charted an hour, and what makes it more often.
_ON_THE_HOUR = 0.88  # of the monitor's rows
_NEGATIVE_STORE = 0.05  # vital signs validated before the minute they are charted at
_BEFORE_ICU = 0.08  # an hour, in the two hours before
_AWAY = 0.0033  # an hour: begins a trip of 4 to 8 hours, for a scan or an operation
_WITHOUT_ADMISSION = 0.17, 0.75  # laboratory orders that name no admission, in the ICU and before it
_REFRACTORY_HOURS = 3
_OTHERS = 24  # uniforms a stay and hour that are no channel's


class ChartingConfig(Config):
    """How much is charted, and what goes wrong on the way."""

    intensity: float = Field(default=1.0, ge=0.25, le=2)
    """Multiplies the frequency of all that is charted on no fixed round."""
    other_rows: bool = True
    """Chart what no feature needs too (rhythm, alarm limits, pain ...), as a real unit does."""
    faults: FaultConfig = FaultConfig()


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


def admit(population: Population, config: ChartingConfig, rng: np.random.Generator) -> Bedside:
    """The bedsides of a shard's stays before anything is charted (no id is read: only intime's clock and weight)."""
    del config
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


def hour(
    bedside: Bedside,
    hour: int,
    present: Bool[np.ndarray, "n"],
    values: Mapping[str, Float[np.ndarray, "n"]],
    severity: Float[np.ndarray, "n"],
    on_vasopressor: Bool[np.ndarray, "n"],
    ventilated: Bool[np.ndarray, "n"],
    config: ChartingConfig,
    rng: np.random.Generator,
) -> tuple[Bedside, Events]:
    """Chart the hour [hour, hour + 1) after `intime`.

    Args:
        hour: from FIRST_HOUR on, ascending by one.
        present: the stays charted in this hour (before hour 0: all that will be admitted).
        values: SIGNALS by name; the values that hold in this hour. Where `present` is False they are ignored.
        severity: 0 well to 1 dying; the sicker, the more often laboratory work is sent.
        ventilated: invasively.
    """
    key = rng.integers(0, 2**64, len(present), dtype=np.uint64)
    stay = np.flatnonzero(present)
    draws, local = _Draws.of(key[stay]), at(bedside, stay)
    patient = _Patient(
        stay, hour, severity[stay], on_vasopressor[stay], ventilated[stay],
        {name: values[name][stay] for name in SIGNALS}, config.intensity,
    )  # fmt: skip
    attended = _attend(local, patient, draws)
    chosen, after = _choose(attended, patient, draws, config)
    row, column = np.nonzero(chosen)
    noise, spoils = _hashed(draws.key[row], column)
    events = _events(row, column, _matrix(attended, patient, chosen, draws), noise, attended, patient, draws)
    return put(bedside, stay, after), faults.plant(events, spoils, config.faults)


def ventilation(bedside: Bedside, out_hour: Float[np.ndarray, "n"]) -> Procedures:
    """Ventilation so far; what still runs ends at `out_hour` (the stay's end; in a rollout the hour of the reading)."""
    out = np.round(out_hour * 3600).astype(np.int64)
    running = []
    for itemid, since in ((225792, bedside.ventilated_since), (225794, bedside.masked_since)):
        stay = np.flatnonzero((since >= 0) & (since < out))
        running.append(_procedures(stay, itemid, since[stay], out[stay]))
    parts = (*bedside.ended, *running)
    return Procedures(*(np.concatenate([getattr(part, name) for part in parts]) for name in Procedures.__annotations__))


@dataclass(frozen=True)
class _Draws:
    """An hour's random numbers for the stays present, all from one word a stay."""

    choice: Float32[np.ndarray, "n c"]
    minute: Float32[np.ndarray, "n g"]
    other: Float32[np.ndarray, "n o"]
    delay: Float[np.ndarray, "n g"]
    key: UInt64[np.ndarray, "n"]
    """What the noise and the faults of a stay's rows come from."""

    @classmethod
    def of(cls, key: UInt64[np.ndarray, "n"]) -> "_Draws":
        c, g = len(CHANNELS), len(GROUPS)
        uniform = _uniforms(key, c + g + _OTHERS)
        delay, _ = _hashed(key[:, None], np.arange(c, c + g))
        return cls(uniform[:, :c], uniform[:, c : c + g], uniform[:, c + g :], delay, key)


def _uniforms(key: UInt64[np.ndarray, "n"], columns: int) -> Float32[np.ndarray, "n u"]:
    """A uniform on [0, 1) for each cell (MurmurHash3's 32-bit finaliser)."""
    z = key.astype(np.uint32)[:, None] + np.arange(1, columns + 1, dtype=np.uint32) * np.uint32(0x9E3779B9)
    z ^= z >> np.uint32(16)
    z *= np.uint32(0x85EBCA6B)
    z ^= z >> np.uint32(13)
    z *= np.uint32(0xC2B2AE35)
    z ^= z >> np.uint32(16)
    return (z >> np.uint32(8)).astype(np.float32) * np.float32(2**-24)


def _hashed(
    key: UInt64[np.ndarray, "..."], column: Int[np.ndarray, "r"]
) -> tuple[Float[np.ndarray, "*s"], Float[np.ndarray, "*s"]]:
    """A standard normal (to four sixteenths of a word: within 3.5) and a uniform for each cell of the chart.

    The mixing is SplitMix64's (Steele, Lea and Flood 2014), so that only rows that exist cost a draw.
    """
    z = key + column.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    quarters = z.view(np.uint16).reshape(*z.shape, 4).sum(axis=-1, dtype=np.int64)
    uniform = (z * np.uint64(0xD1342543DE82EF95)) >> np.uint64(40)
    return (quarters - 2 * 65535) / (65536 / np.sqrt(3.0)), uniform.astype(np.float64) / 2**24


@dataclass(frozen=True)
class _Patient:
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


def _attend(bedside: Bedside, patient: _Patient, draws: _Draws) -> Bedside:
    """Lines and tubes that go in or come out, trips away, urine made."""
    if not patient.in_icu:
        return bedside
    other, hour = draws.other, patient.hour
    sick, pressor, tube = patient.severity, patient.on_vasopressor, patient.ventilated
    line = np.where(pressor, 0.7, np.where(tube, 0.15 + 0.3 * sick, 0.004))
    line_out = np.where(pressor | (tube & (sick > 0.4)), 0.0, 0.02)
    central = np.where(pressor, 0.5, 0.004 + 0.03 * sick)
    leaves = (other[:, 2] < _AWAY) & (hour >= 1) & (bedside.away_until <= hour)
    wet = (tube | pressor) & (other[:, 4] < 0.5)
    need = patient.values["fio2"] > 0.5
    masked = ~tube & np.where(bedside.masked_since >= 0, other[:, 5] < 0.93, need & (other[:, 5] < 0.03))
    start = hour * 3600 + 60 * (1 + (other[:, 6] * 20).astype(np.int64))
    ventilated_since, off = _since(bedside.ventilated_since, tube, start)
    masked_since, mask_off = _since(bedside.masked_since, masked, start)
    spells = ((off, 225792, bedside.ventilated_since), (mask_off, 225794, bedside.masked_since))
    return replace(
        bedside,
        arterial=np.where(bedside.arterial, other[:, 0] >= line_out, other[:, 0] < line),
        central=np.where(bedside.central, other[:, 1] >= 0.004, other[:, 1] < central),
        catheter=np.where(bedside.catheter, other[:, 4] < 0.99, wet),
        away_until=np.where(leaves, hour + 4 + (other[:, 3] * 5).astype(np.int64), bedside.away_until),
        urine_ml=bedside.urine_ml + patient.values["urine_ml_h"],
        ventilated_since=ventilated_since,
        masked_since=masked_since,
        ended=tuple(
            _procedures(patient.stay[gone], itemid, since[gone], np.full(int(gone.sum()), hour * 3600))
            for gone, itemid, since in spells
            if gone.any()
        ),
    )


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
    return Procedures(stay, np.full(len(stay), items.INDEX[itemid]), start, end, end + late)


def _choose(
    bedside: Bedside, patient: _Patient, draws: _Draws, config: ChartingConfig
) -> tuple[Bool[np.ndarray, "n c"], Bedside]:
    """Which channels are charted this hour, and the bedside after it."""
    chosen = np.zeros(draws.choice.shape, bool)
    at_bed = (bedside.away_until <= patient.hour) & patient.in_icu
    _monitor(chosen, at_bed, bedside, patient, draws)
    _rounds(chosen, at_bed, bedside, patient, draws)
    if config.other_rows:
        _notes(chosen, at_bed, bedside, patient, draws)
    urine = _urine(chosen, at_bed, bedside, draws)
    drawn = _laboratory(chosen, bedside, patient, draws)
    weighed = (chosen[:, C["weight_kg"]] | chosen[:, C["weight_lb"]]).astype(np.int64)
    return chosen, replace(
        bedside,
        urine_ml=np.where(urine, bedside.urine_ml - _written_urine(bedside), bedside.urine_ml),
        drawn=np.where(drawn, patient.hour, bedside.drawn),
        weighed=np.maximum(bedside.weighed, weighed),
    )


def _monitor(
    chosen: Bool[np.ndarray, "n c"], at_bed: Bool[np.ndarray, "n"], bedside: Bedside, patient: _Patient, draws: _Draws
) -> None:
    """Vital signs: a set an hour, and more for the sick."""
    u, line = draws.choice, bedside.arterial
    rate = patient.intensity * (0.06 + 0.2 * patient.severity + 0.05 * patient.on_vasopressor)
    before = (-2 <= patient.hour < 0) & (draws.other[:, 7] < _BEFORE_ICU)
    sets = {
        "monitor": (at_bed & (draws.other[:, 7] < 0.99)) | before,
        "extra": at_bed & (draws.other[:, 8] < rate),
    }
    for prefix, given in sets.items():
        for name in ("heart_rate", "resp_rate", "spo2"):
            column = C[f"{prefix}_{name}"]
            chosen[:, column] = given & (u[:, column] < 0.995)
        art = line & bedside.habits.second_line
        cuff = ~line | (u[:, C[f"{prefix}_cuff_map"]] < 0.08)
        for source, there in (("arterial", line & ~art), ("art", art), ("cuff", cuff)):
            for name in ("sbp", "dbp", "map"):
                chosen[:, C[f"{prefix}_{source}_{name}"]] = (
                    given & there & (u[:, C[f"{prefix}_arterial_{name}"]] < 0.99)
                )
    chosen[:, C["cvp"]] = sets["monitor"] & bedside.central & (u[:, C["cvp"]] < 0.4)


def _rounds(
    chosen: Bool[np.ndarray, "n c"], at_bed: Bool[np.ndarray, "n"], bedside: Bedside, patient: _Patient, draws: _Draws
) -> None:
    """What is done on a round every four hours, and in between for the sick."""
    u, other, habits, sick = draws.choice, draws.other, bedside.habits, patient.severity
    clock = (habits.clock_hour + patient.hour) % 24
    due = (clock + habits.phase) % 4 == 0
    extra = patient.intensity * sick

    def done(draw: Float32[np.ndarray, "n"], on_round: float, between: Float[np.ndarray, "n"]) -> Bool[np.ndarray, "n"]:
        return at_bed & (draw < np.where(due, on_round, between))

    warm = done(other[:, 9], 0.90, 0.07 + 0.15 * extra)
    chosen[:, C["fahrenheit"]] = warm & ~habits.celsius
    chosen[:, C["celsius"]] = warm & habits.celsius
    alert = done(other[:, 10], 0.76, 0.07 + 0.13 * extra)
    for name in ("gcs_eye", "gcs_verbal", "gcs_motor"):
        chosen[:, C[name]] = alert & (u[:, C[name]] < 0.995)
    breath = done(other[:, 11], 0.9, 0.06 + 0.15 * extra) & patient.ventilated
    much = done(other[:, 12], 0.78, 0.05 + 0.08 * extra) & (patient.values["o2_flow"] >= 3) & ~patient.ventilated
    fio2 = (breath & (u[:, C["fio2_percent"]] < 0.95)) | much
    chosen[:, C["fio2_percent"]] = fio2 & ~habits.fraction
    chosen[:, C["fio2_fraction"]] = fio2 & habits.fraction
    for name, share in _BREATH_SHARES.items():
        chosen[:, C[name]] = breath & (u[:, C[name]] < share)
    oxygen = done(other[:, 13], 0.85, 0.03 + 0.05 * extra)
    chosen[:, C["device"]] = oxygen
    flowing = oxygen & (patient.values["o2_flow"] > 0) & ~patient.ventilated
    chosen[:, C["flow"]] = flowing & (u[:, C["flow"]] < 0.85)
    chosen[:, C["added_flow"]] = flowing & (u[:, C["added_flow"]] < 0.08)
    fresh = at_bed & (bedside.weighed == 0) & (patient.hour < 12) & (other[:, 14] < 0.5)
    chosen[:, C["weight_kg"]] = fresh & habits.weighed_kg
    chosen[:, C["weight_lb"]] = fresh & habits.weighed_lb
    morning = at_bed & (clock == 5) & (patient.hour > 4)
    chosen[:, C["weight_daily"]] = morning & habits.weighed_daily & (u[:, C["weight_daily"]] < 0.8)
    high = patient.values["glucose"] > 150
    chosen[:, C["finger_stick"]] = done(u[:, C["finger_stick"]], 0.22, np.where(high, 0.14, 0.02) * patient.intensity)
    for name, share in (("chart_glucose", 0.05), ("blood_glucose", 0.004)):
        chosen[:, C[name]] = at_bed & (u[:, C[name]] < share)


_BREATH_SHARES = {
    "peep": 0.95, "peep_total": 0.13, "volume_set": 0.5, "volume_observed": 0.9, "volume_spontaneous": 0.45,
    "minute_volume": 0.92, "total_rate": 0.6, "mode": 0.97,
}  # fmt: skip


def _notes(
    chosen: Bool[np.ndarray, "n c"], at_bed: Bool[np.ndarray, "n"], bedside: Bedside, patient: _Patient, draws: _Draws
) -> None:
    """What no feature reads."""
    clock = bedside.habits.clock_hour + bedside.habits.phase + patient.hour
    due = clock[:, None] % channels.NOTE_HOURS == 0
    columns = channels.NOTE_COLUMNS
    chosen[:, columns] = at_bed[:, None] & due & (draws.choice[:, columns] < 0.92)


def _urine(
    chosen: Bool[np.ndarray, "n c"], at_bed: Bool[np.ndarray, "n"], bedside: Bedside, draws: _Draws
) -> Bool[np.ndarray, "n"]:
    """Urine is written hourly from a catheter, else when the patient passes it; returns where some was."""
    u, wash = draws.choice, bedside.habits.irrigated
    foley = at_bed & bedside.catheter & ~wash & (u[:, C["foley"]] < 0.65)
    void = at_bed & ~bedside.catheter & ~wash & (bedside.urine_ml > 60) & (u[:, C["void"]] < 0.25)
    washed = at_bed & wash & (u[:, C["irrigant_in"]] < 0.25)
    chosen[:, C["foley"]], chosen[:, C["void"]] = foley, void
    chosen[:, C["irrigant_in"]] = chosen[:, C["irrigant_out"]] = washed
    chosen[:, C["chest_tube"]] = at_bed & bedside.habits.second_line & (u[:, C["chest_tube"]] < 0.3)
    chosen[:, C["stool"]] = at_bed & (u[:, C["stool"]] < 0.02)
    written: np.ndarray = foley | void | washed
    return written


def _written_urine(bedside: Bedside) -> Float[np.ndarray, "n"]:
    """Urine as it is read off the bag, to 5 mL; the rest is written with the next."""
    return np.maximum(5 * np.round(bedside.urine_ml / 5), 0)


def _laboratory(
    chosen: Bool[np.ndarray, "n c"], bedside: Bedside, patient: _Patient, draws: _Draws
) -> Bool[np.ndarray, "n 4"]:
    """Blood draws: every morning, on admission, and the oftener the sicker; returns which kinds were drawn."""
    u, other, hour, more = draws.choice, draws.other, patient.hour, patient.intensity
    sick, pressor, tube = patient.severity, patient.on_vasopressor, patient.ventilated
    since = hour - bedside.drawn
    rested = since >= _REFRACTORY_HOURS
    first = (bedside.drawn == NEVER) & (hour >= 0)
    early = hour < 0
    morning = ((bedside.habits.clock_hour + hour) % 24 == bedside.habits.lab_hour) & (hour >= 0)
    chance = np.where(early, 0.10, np.where(first[:, 0], 0.3, more * (0.020 + 0.065 * sick + 0.03 * pressor)))
    chemistry = rested[:, 0] & (other[:, 15] < np.where(morning, 0.93, chance))
    own = np.where(early, 0.02, more * (0.007 + 0.016 * sick))
    count = rested[:, 1] & (other[:, 16] < np.where(chemistry, 0.85, own))
    clotting = rested[:, 2] & (other[:, 17] < np.where(chemistry, 0.54 + 0.28 * sick, own))
    rate = np.where(
        early, 0.03, more * (0.042 + 0.02 * sick + 0.04 * tube + 0.075 * pressor + 0.1 * first[:, 3] * (tube | pressor))
    )
    gas = (since[:, 3] >= 1) & (other[:, 18] < rate)
    lactate = other[:, 19] < np.where(gas, 0.45 + 0.15 * pressor, more * (0.006 + 0.012 * sick + 0.008 * pressor))
    for group, drawn in (("chemistry", chemistry), ("count", count), ("clotting", clotting), ("gas", gas)):
        columns = GROUP_COLUMNS[group]  # type: ignore[index]
        chosen[:, columns] = drawn[:, None] & (u[:, columns] < _TUBE_SHARE[columns])
    liver = chemistry & (other[:, 20] < 0.20 + 0.3 * sick)
    for itemid in (50861, 50878, 50885):
        chosen[:, C[f"lab_{itemid}"]] &= liver
    chosen[:, C["lab_50862"]] &= chemistry & (other[:, 21] < 0.12)
    chosen[:, C["lab_51144"]] &= u[:, C["lab_51144"]] < 0.04 + 0.2 * sick
    chosen[:, C["lab_50813"]] = lactate
    return np.stack([chemistry, count, clotting, gas], axis=1)


_TUBE_SHARE = np.full(len(CHANNELS), 0.985)
for _itemid, _share in {50960: 0.85, 50893: 0.8, 52033: 0.96, 50808: 0.5, 50822: 0.35, 50824: 0.13, 50806: 0.1,
                        50809: 0.27, 50811: 0.13, 50803: 0.02, 50816: 0.3}.items():  # fmt: skip
    _TUBE_SHARE[C[f"lab_{_itemid}"]] = _share


def _matrix(
    bedside: Bedside, patient: _Patient, chosen: Bool[np.ndarray, "n c"], draws: _Draws
) -> Float[np.ndarray, "n s"]:
    """The true values, a column a signal, as they are in this specimen and at this bed."""
    values = dict(patient.values)
    zero = np.zeros(len(patient.stay))
    venous, mixed = _specimen(bedside, draws)
    drawn = chosen[:, C["lab_50821"]] & (venous | mixed)
    values["pao2"] = np.where(drawn, np.minimum(values["pao2"], 34.0 + 12.0 * draws.other[:, 22]), values["pao2"])
    values["paco2"] = np.where(drawn, values["paco2"] + 6.0, values["paco2"])
    values["ph"] = np.where(drawn, values["ph"] - 0.03, values["ph"])
    derived = (
        zero, values["sodium"] - values["chloride"] - values["bicarbonate"], 3.0 * values["hemoglobin"],
        _written_urine(bedside), bedside.habits.recorded_weight_kg,
    )  # fmt: skip
    return np.stack([*(values[name] for name in SIGNALS), *derived], axis=1)


def _specimen(bedside: Bedside, draws: _Draws) -> tuple[Bool[np.ndarray, "n"], Bool[np.ndarray, "n"]]:
    """Where a gas drawn this hour would be venous, and where mixed venous."""
    u = draws.other[:, 22]
    return u < np.where(bedside.arterial, 0.01, 0.12), u > np.where(bedside.central, 0.92, 0.99)


def _events(
    stay: Int[np.ndarray, "r"],
    column: Int[np.ndarray, "r"],
    matrix: Float[np.ndarray, "n s"],
    noise: Float[np.ndarray, "r"],
    bedside: Bedside,
    patient: _Patient,
    draws: _Draws,
) -> Events:
    """The chosen cells as rows."""
    true = matrix[stay, channels.SIGNAL[column]]
    noisy = true + (channels.SD[column] + channels.CV[column] * true) * noise
    shown = np.clip(
        noisy * channels.SCALE[column] + channels.OFFSET[column], channels.LOW[column], channels.HIGH[column]
    )
    value = np.round(shown * channels.POWER[column]) / channels.POWER[column]
    group = channels.GROUP[column]
    charted, stored, specimen = (part[stay, group] for part in _clocks(bedside, patient, draws))
    item = channels.ITEM[column]
    text = channels.FIXED_TEXT[column]
    special = np.flatnonzero(_SPECIAL[column])
    text[special], value[special] = _texts(stay[special], column[special], value[special], bedside, patient, draws)
    value[(channels.FIXED_TEXT[column] >= 0)] = np.nan
    return Events(
        patient.stay[stay].astype(np.int32), item, charted, stored, value, text, ITEM_UNIT[item], specimen,
        np.full(len(stay), -1, np.int8),
    )  # fmt: skip


def _clocks(
    bedside: Bedside, patient: _Patient, draws: _Draws
) -> tuple[Int[np.ndarray, "n g"], Int[np.ndarray, "n g"], Int[np.ndarray, "n g"]]:
    """When each group of rows is charted and stored, and the specimen it is of."""
    hour, mark = patient.hour, bedside.habits.mark_s
    minute = draws.minute.astype(np.float64)
    spread = 60 * np.floor(minute * 59).astype(np.int64) + (mark % 60)[:, None]
    on_mark = draws.other[:, 23, None] < _MARKED
    charted = hour * 3600 + np.where(on_mark, mark[:, None], spread)
    for group in ("count", "clotting"):  # drawn with the chemistry
        charted[:, GROUPS.index(group)] = charted[:, GROUPS.index("chemistry")]
    delay = np.exp(_LOG_MEDIAN + _LOG_SPREAD * draws.delay)
    delay = np.where(_EARLY_STORE & (minute < _NEGATIVE_STORE), -1 - 200 * minute, delay)
    stored = charted + 60 * np.round(delay).astype(np.int64)
    orphan = minute * 7.0 % 1.0 < (_WITHOUT_ADMISSION[0] if hour >= 0 else _WITHOUT_ADMISSION[1])
    tube = (patient.stay[:, None] * 1024 + hour + 8) * 4 + _TUBE
    specimen = np.where(_TUBE >= 0, 2 * (tube + 1) + orphan, 0)
    return charted.astype(np.int32), stored.astype(np.int32), specimen.astype(np.int32)


def _per_group(values: Mapping[Group, float], default: float) -> Float[np.ndarray, "g"]:
    return np.array([values.get(group, default) for group in GROUPS], np.float64)


_Z95 = 1.6449
_LOG_MEDIAN = np.log(_per_group({group: median for group, (median, _) in channels.DELAY_MINUTES.items()}, 1.0))
_LOG_SPREAD = (
    np.log(_per_group({group: p95 for group, (_, p95) in channels.DELAY_MINUTES.items()}, 1.0)) - _LOG_MEDIAN
) / _Z95
_MARKED = _per_group({"monitor": _ON_THE_HOUR, "round": 0.75, "urine": 0.9}, 0.0)
_EARLY_STORE = _per_group({"monitor": 1, "extra": 1}, 0) > 0
_TUBE = np.array([channels.LABORATORY.index(group) if group in channels.LABORATORY else -1 for group in GROUPS])
_SPECIAL = np.isin(
    np.arange(len(CHANNELS)),
    [C[name] for name in ("gcs_eye", "gcs_verbal", "gcs_motor", "device", "mode", "lab_52033")],
)


def _texts(
    stay: Int[np.ndarray, "k"],
    column: Int[np.ndarray, "k"],
    value: Float[np.ndarray, "k"],
    bedside: Bedside,
    patient: _Patient,
    draws: _Draws,
) -> tuple[Int[np.ndarray, "k"], Float[np.ndarray, "k"]]:
    """Text and number of the rows whose text depends on the patient."""
    text, number = np.full(len(stay), -1, np.int16), np.full(len(stay), np.nan)
    habits, tube = bedside.habits, patient.ventilated
    for name, words in (("gcs_eye", items.GCS_EYE), ("gcs_verbal", items.GCS_VERBAL), ("gcs_motor", items.GCS_MOTOR)):
        rows = column == C[name]
        points = np.clip(value[rows], 1, len(words)).astype(np.int64)
        text[rows], number[rows] = np.array([TEXT[word] for word in words])[points - 1], points
    mute = (column == C["gcs_verbal"]) & tube[stay]
    text[mute], number[mute] = TEXT[items.UNTESTABLE], 1.0
    mode = column == C["mode"]
    text[mode] = habits.mode[stay[mode]]
    number[mode] = _MODE_NUMBER[text[mode]]
    device = column == C["device"]
    text[device] = _device(bedside, patient)[stay[device]]
    gas = column == C["lab_52033"]
    venous, mixed = _specimen(bedside, draws)
    kind = np.where(venous, TEXT["VEN."], np.where(mixed, TEXT["MIX."], TEXT["ART."]))
    text[gas] = kind[stay[gas]]
    return text, number


_MODE_NUMBER = np.full(len(items.TEXTS), np.nan)
for _name, _number in items.MODES:
    _MODE_NUMBER[TEXT[_name]] = _number


def _device(bedside: Bedside, patient: _Patient) -> Int[np.ndarray, "n"]:
    """What delivers the oxygen."""
    flow = patient.values["o2_flow"]
    open_air = np.where(flow <= 0, TEXT["None"], np.where(flow < 7, TEXT["Nasal cannula"], bedside.habits.mask))
    masked = np.where(bedside.masked_since >= 0, TEXT["Bipap mask "], open_air)
    return np.where(patient.ventilated, bedside.habits.tube, masked)


def _pick(draw: Float[np.ndarray, "n"], options: list[int], shares: tuple[float, ...]) -> Int[np.ndarray, "n"]:
    """One option a stay, with the given shares (their sum is 1)."""
    return np.array(options)[np.searchsorted(np.cumsum(shares)[:-1], draw, side="right")]
