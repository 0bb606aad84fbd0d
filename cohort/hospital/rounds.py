"""Rounds: which things are charted in an hour, and the oftener the sicker."""

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float

from cohort.hospital import channels
from cohort.hospital.bedside import NEVER, Bedside, Patient
from cohort.hospital.channels import CHANNELS, GROUP_COLUMNS, C
from cohort.hospital.draws import Draws

# Tuned to the counts of the MIMIC-IV demo (benchmarks/charting_figures.py).
_BEFORE_ICU = 0.08  # an hour, in the two hours before: a set of vital signs
_REFRACTORY_HOURS = 3  # between two blood draws for the same panel


def choose(
    bedside: Bedside, patient: Patient, draws: Draws, other_rows: bool
) -> tuple[Bool[np.ndarray, "n c"], Bedside]:
    """Which channels are charted this hour, and the bedside after it."""
    chosen = np.zeros(draws.choice.shape, bool)
    at_bed = (bedside.away_until <= patient.hour) & patient.in_icu
    _monitor(chosen, at_bed, bedside, patient, draws)
    _rounds(chosen, at_bed, bedside, patient, draws)
    if other_rows:
        _notes(chosen, at_bed, bedside, patient, draws)
    urine = _urine(chosen, at_bed, bedside, draws)
    drawn = _laboratory(chosen, bedside, patient, draws)
    weighed = (chosen[:, C["weight_kg"]] | chosen[:, C["weight_lb"]]).astype(np.int64)
    return chosen, replace(
        bedside,
        urine_ml=np.where(urine, bedside.urine_ml - written_urine(bedside), bedside.urine_ml),
        drawn=np.where(drawn, patient.hour, bedside.drawn),
        weighed=np.maximum(bedside.weighed, weighed),
    )


def _monitor(
    chosen: Bool[np.ndarray, "n c"], at_bed: Bool[np.ndarray, "n"], bedside: Bedside, patient: Patient, draws: Draws
) -> None:
    """Vital signs: a set an hour, and more for the sick."""
    u, line = draws.choice, bedside.arterial
    rate = patient.intensity * (0.06 + 0.2 * patient.severity + 0.05 * patient.on_vasopressor)
    before = (-2 <= patient.hour < 0) & (draws.of("set") < _BEFORE_ICU)
    sets = {
        "monitor": (at_bed & (draws.of("set") < 0.99)) | before,
        "extra": at_bed & (draws.of("extra") < rate),
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
    chosen[:, C["cvp"]] = sets["monitor"] & bedside.central & (u[:, C["cvp"]] < 0.32)


def _rounds(
    chosen: Bool[np.ndarray, "n c"], at_bed: Bool[np.ndarray, "n"], bedside: Bedside, patient: Patient, draws: Draws
) -> None:
    """What is done on a round every four hours, and in between for the sick."""
    u, habits, extra = draws.choice, bedside.habits, patient.intensity * patient.severity
    due = (habits.clock_hour + patient.hour + habits.phase) % 4 == 0
    warm = at_bed & (draws.of("temperature") < np.where(due, 0.90, 0.07 + 0.15 * extra))
    chosen[:, C["fahrenheit"]] = warm & ~habits.celsius
    chosen[:, C["celsius"]] = warm & habits.celsius
    alert = at_bed & (draws.of("coma") < np.where(due, 0.76, 0.07 + 0.13 * extra))
    for name in ("gcs_eye", "gcs_verbal", "gcs_motor"):
        chosen[:, C[name]] = alert & (u[:, C[name]] < 0.995)
    _breathing(chosen, at_bed, due, bedside, patient, draws)
    _weights(chosen, at_bed, bedside, patient, draws)
    often = np.where(patient.values["glucose"] > 150, 0.14, 0.02) * patient.intensity
    chosen[:, C["finger_stick"]] = at_bed & (u[:, C["finger_stick"]] < np.where(due, 0.22, often))
    for name, share in (("chart_glucose", 0.05), ("blood_glucose", 0.004)):
        chosen[:, C[name]] = at_bed & (u[:, C[name]] < share)


def _breathing(
    chosen: Bool[np.ndarray, "n c"],
    at_bed: Bool[np.ndarray, "n"],
    due: Bool[np.ndarray, "n"],
    bedside: Bedside,
    patient: Patient,
    draws: Draws,
) -> None:
    """The ventilator's settings, the inspired fraction where there is much oxygen, the device and its flow."""
    u, fraction, extra = draws.choice, bedside.habits.fraction, patient.intensity * patient.severity
    flow, free = patient.values["o2_flow"], at_bed & ~patient.ventilated
    machine = at_bed & patient.ventilated & (draws.of("breath") < np.where(due, 0.9, 0.06 + 0.15 * extra))
    much = free & (flow >= 3) & (draws.of("much_oxygen") < np.where(due, 0.78, 0.05 + 0.08 * extra))
    fio2 = (machine & (u[:, C["fio2_percent"]] < 0.95)) | much
    chosen[:, C["fio2_percent"]] = fio2 & ~fraction
    chosen[:, C["fio2_fraction"]] = fio2 & fraction
    for name, share in _BREATH_SHARES.items():
        chosen[:, C[name]] = machine & (u[:, C[name]] < share)
    oxygen = draws.of("device") < np.where(due, 0.75, 0.03 + 0.05 * extra)
    chosen[:, C["device"]] = at_bed & oxygen
    chosen[:, C["flow"]] = free & oxygen & (flow > 0) & (u[:, C["flow"]] < 0.85)
    chosen[:, C["added_flow"]] = free & oxygen & (flow > 0) & (u[:, C["added_flow"]] < 0.08)


def _weights(
    chosen: Bool[np.ndarray, "n c"], at_bed: Bool[np.ndarray, "n"], bedside: Bedside, patient: Patient, draws: Draws
) -> None:
    """On admission in kg, in pounds, in both or never; of some every morning."""
    habits = bedside.habits
    fresh = at_bed & (bedside.weighed == 0) & (patient.hour < 12) & (draws.of("weight") < 0.5)
    chosen[:, C["weight_kg"]] = fresh & habits.weighed_kg
    chosen[:, C["weight_lb"]] = fresh & habits.weighed_lb
    morning = ((habits.clock_hour + patient.hour) % 24 == 5) & (patient.hour > 4)
    daily = draws.choice[:, C["weight_daily"]] < 0.8
    chosen[:, C["weight_daily"]] = at_bed & morning & habits.weighed_daily & daily


_BREATH_SHARES = {
    "peep": 0.95, "peep_total": 0.13, "volume_set": 0.5, "volume_observed": 0.9, "volume_spontaneous": 0.45,
    "minute_volume": 0.92, "total_rate": 0.6, "mode": 0.97,
}  # fmt: skip


def _notes(
    chosen: Bool[np.ndarray, "n c"], at_bed: Bool[np.ndarray, "n"], bedside: Bedside, patient: Patient, draws: Draws
) -> None:
    """What no feature reads."""
    clock = bedside.habits.clock_hour + bedside.habits.phase + patient.hour
    due = clock[:, None] % channels.NOTE_HOURS == 0
    columns = channels.NOTE_COLUMNS
    chosen[:, columns] = at_bed[:, None] & due & (draws.choice[:, columns] < 0.92)


def _urine(
    chosen: Bool[np.ndarray, "n c"], at_bed: Bool[np.ndarray, "n"], bedside: Bedside, draws: Draws
) -> Bool[np.ndarray, "n"]:
    """Urine is written hourly from a catheter, else when the patient passes it; returns where some was."""
    u, wash = draws.choice, bedside.habits.irrigated
    foley = at_bed & bedside.catheter & ~wash & (u[:, C["foley"]] < 0.6)
    void = at_bed & ~bedside.catheter & ~wash & (bedside.urine_ml > 60) & (u[:, C["void"]] < 0.25)
    washed = at_bed & wash & (u[:, C["irrigant_in"]] < 0.25)
    chosen[:, C["foley"]], chosen[:, C["void"]] = foley, void
    chosen[:, C["irrigant_in"]] = chosen[:, C["irrigant_out"]] = washed
    chosen[:, C["chest_tube"]] = at_bed & bedside.habits.second_line & (u[:, C["chest_tube"]] < 0.3)
    chosen[:, C["stool"]] = at_bed & (u[:, C["stool"]] < 0.02)
    written: np.ndarray = foley | void | washed
    return written


def written_urine(bedside: Bedside) -> Float[np.ndarray, "n"]:
    """Urine as it is read off the bag, to 5 mL; the rest is written with the next."""
    return np.maximum(5 * np.round(bedside.urine_ml / 5), 0)


def _laboratory(
    chosen: Bool[np.ndarray, "n c"], bedside: Bedside, patient: Patient, draws: Draws
) -> Bool[np.ndarray, "n 4"]:
    """Blood draws: every morning, on admission, and the oftener the sicker; returns which kinds were drawn."""
    u, hour, more = draws.choice, patient.hour, patient.intensity
    sick, pressor, tube = patient.severity, patient.on_vasopressor, patient.ventilated
    since = hour - bedside.drawn
    rested = since >= _REFRACTORY_HOURS
    first = (bedside.drawn == NEVER) & (hour >= 0)
    early = hour < 0
    morning = ((bedside.habits.clock_hour + hour) % 24 == bedside.habits.lab_hour) & (hour >= 0)
    chance = np.where(early, 0.10, np.where(first[:, 0], 0.3, more * (0.020 + 0.065 * sick + 0.03 * pressor)))
    chemistry = rested[:, 0] & (draws.of("chemistry") < np.where(morning, 0.93, chance))
    own = np.where(early, 0.02, more * (0.007 + 0.016 * sick))
    count = rested[:, 1] & (draws.of("count") < np.where(chemistry, 0.85, own))
    clotting = rested[:, 2] & (draws.of("clotting") < np.where(chemistry, 0.54 + 0.28 * sick, own))
    rate = np.where(
        early, 0.03, more * (0.042 + 0.02 * sick + 0.04 * tube + 0.075 * pressor + 0.1 * first[:, 3] * (tube | pressor))
    )
    gas = (since[:, 3] >= 1) & (draws.of("gas") < rate)
    lactate = draws.of("lactate") < np.where(
        gas, 0.45 + 0.15 * pressor, more * (0.006 + 0.012 * sick + 0.008 * pressor)
    )
    for group, drawn in (("chemistry", chemistry), ("count", count), ("clotting", clotting), ("gas", gas)):
        columns = GROUP_COLUMNS[group]  # type: ignore[index]
        chosen[:, columns] = drawn[:, None] & (u[:, columns] < _TUBE_SHARE[columns])
    liver = chemistry & (draws.of("liver") < 0.20 + 0.3 * sick)
    for itemid in (50861, 50878, 50885):
        chosen[:, C[f"lab_{itemid}"]] &= liver
    chosen[:, C["lab_50862"]] &= chemistry & (draws.of("albumin") < 0.12)
    chosen[:, C["lab_51144"]] &= u[:, C["lab_51144"]] < 0.04 + 0.2 * sick
    chosen[:, C["lab_50813"]] = lactate
    return np.stack([chemistry, count, clotting, gas], axis=1)


_SHARES = {50960: 0.85, 50893: 0.8, 52033: 0.96, 50808: 0.5, 50822: 0.35, 50824: 0.13, 50806: 0.1, 50809: 0.27,
           50811: 0.13, 50803: 0.02, 50816: 0.3}  # fmt: skip
_TUBE_SHARE: Float[np.ndarray, "c"] = np.array([_SHARES.get(channel.itemid, 0.985) for channel in CHANNELS])
"""How often a channel is asked for when its tube is drawn."""
