"""Channels: how each charted number comes from a true value: its item, noise, unit and the round it is charted in."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from cohort.hospital import items
from cohort.hospital.faults import POUNDS_PER_KG
from cohort.hospital.items import INDEX, ITEM_DECIMALS, TEXT

SIGNALS: tuple[str, ...] = (
    "heart_rate", "sbp", "map", "dbp", "resp_rate", "spo2", "temperature_c", "gcs_eye", "gcs_motor", "gcs_verbal",
    "fio2", "cvp", "peep", "tidal_volume", "minute_volume", "o2_flow", "potassium", "sodium", "chloride", "glucose",
    "bun", "creatinine", "magnesium", "calcium", "ionised_calcium", "total_co2", "ast", "alt", "bilirubin_total",
    "albumin", "hemoglobin", "wbc", "bands", "platelets", "ptt", "pt", "inr", "ph", "pao2", "paco2", "base_excess",
    "bicarbonate", "lactate", "urine_ml_h", "weight_kg",
)  # fmt: skip
"""The noise-free values charting needs, in canonical units (fio2: fraction; tidal volume: mL; minute volume: L/min)."""
DERIVED: tuple[str, ...] = ("zero", "anion_gap", "hematocrit", "urine_ml", "recorded_weight_kg")
"""Values charting works out itself; they follow SIGNALS in the matrix of values."""

Group = Literal["monitor", "extra", "round", "urine", "chemistry", "count", "clotting", "gas"]
GROUPS: tuple[Group, ...] = ("monitor", "extra", "round", "urine", "chemistry", "count", "clotting", "gas")
"""Rows of one group are charted together and stored together."""
DELAY_MINUTES: dict[Group, tuple[float, float]] = {
    # median, 95th percentile, charted to stored (MIMIC-IV demo)
    "monitor": (20, 131),
    "extra": (20, 131),
    "round": (10, 164),
    "urine": (17, 130),
    "chemistry": (68, 128),
    "count": (36, 92),
    "clotting": (62, 120),
    "gas": (3, 8),
}
LABORATORY: tuple[Group, ...] = ("chemistry", "count", "clotting", "gas")


@dataclass(frozen=True)
class Channel:
    """One item as it is charted from one value: value * scale + offset, with noise before."""

    name: str
    itemid: int
    signal: str
    group: Group
    sd: float = 0.0
    """Noise, in the value's unit."""
    cv: float = 0.0
    """Noise, as a share of the value."""
    scale: float = 1.0
    offset: float = 0.0
    low: float = 0.0
    """What the instrument shows at least, after scaling."""
    high: float = np.inf


def _pressures(prefix: str, ids: tuple[int, int, int], group: Group, sd: float) -> tuple[Channel, ...]:
    names = ("sbp", "dbp", "map")
    return tuple(
        Channel(f"{prefix}_{name}", itemid, name, group, sd=sd * factor)
        for name, itemid, factor in zip(names, ids, (1.5, 1.0, 1.0), strict=True)
    )


_ARTERIAL, _CUFF, _ART = (220050, 220051, 220052), (220179, 220180, 220181), (225309, 225310, 225312)


def _vitals(group: Group, prefix: str) -> tuple[Channel, ...]:
    return (
        Channel(f"{prefix}_heart_rate", 220045, "heart_rate", group, sd=1.5, cv=0.02),
        *_pressures(f"{prefix}_arterial", _ARTERIAL, group, 2.0),
        *_pressures(f"{prefix}_cuff", _CUFF, group, 3.5),
        *_pressures(f"{prefix}_art", _ART, group, 2.0),
        Channel(f"{prefix}_resp_rate", 220210, "resp_rate", group, sd=1.5),
        Channel(f"{prefix}_spo2", 220277, "spo2", group, sd=0.7, high=100),
    )


def _lab(itemid: int, signal: str, group: Group, cv: float = 0.0, sd: float = 0.0, low: float | None = None) -> Channel:
    lowest = 10.0 ** -float(ITEM_DECIMALS[INDEX[itemid]]) if low is None else low
    return Channel(f"lab_{itemid}", itemid, signal, group, sd=sd, cv=cv, low=lowest)


def _note(itemid: int, signal: str, group: Group = "round", offset: float = 0.0) -> Channel:
    return Channel(f"note_{itemid}", itemid, signal, group, offset=offset)


CHANNELS: tuple[Channel, ...] = (
    *_vitals("monitor", "monitor"),
    Channel("cvp", 220074, "cvp", "monitor", sd=1.0, low=-10),
    *_vitals("extra", "extra"),
    Channel("fahrenheit", 223761, "temperature_c", "round", sd=0.12, scale=1.8, offset=32.0),
    Channel("celsius", 223762, "temperature_c", "round", sd=0.12),
    Channel("gcs_eye", 220739, "gcs_eye", "round"),
    Channel("gcs_verbal", 223900, "gcs_verbal", "round"),
    Channel("gcs_motor", 223901, "gcs_motor", "round"),
    Channel("fio2_percent", 223835, "fio2", "round", scale=100.0, low=21, high=100),
    Channel("fio2_fraction", 223835, "fio2", "round", low=0.21, high=1.0),
    Channel("device", 226732, "zero", "round"),
    Channel("flow", 223834, "o2_flow", "round"),
    Channel("added_flow", 227287, "o2_flow", "round"),
    Channel("peep", 220339, "peep", "round"),
    Channel("peep_total", 224700, "peep", "round", sd=0.5),
    Channel("volume_set", 224684, "tidal_volume", "round"),
    Channel("volume_observed", 224685, "tidal_volume", "round", cv=0.08, low=50),
    Channel("volume_spontaneous", 224686, "tidal_volume", "round", cv=0.15, low=50),
    Channel("minute_volume", 224687, "minute_volume", "round", cv=0.06, low=1),
    Channel("total_rate", 224690, "resp_rate", "round", sd=1.0),
    Channel("mode", 223849, "zero", "round"),
    Channel("weight_kg", 226512, "recorded_weight_kg", "round"),
    Channel("weight_lb", 226531, "recorded_weight_kg", "round", scale=POUNDS_PER_KG),
    Channel("weight_daily", 224639, "weight_kg", "round", sd=0.7, low=20),
    Channel("finger_stick", 225664, "glucose", "round", cv=0.06, low=20),
    Channel("chart_glucose", 220621, "glucose", "round", cv=0.03, low=20),
    Channel("blood_glucose", 226537, "glucose", "round", cv=0.04, low=20),
    Channel("foley", 226559, "urine_ml", "urine"),
    Channel("void", 226560, "urine_ml", "urine"),
    Channel("irrigant_in", 227488, "zero", "urine", offset=1000.0),
    Channel("irrigant_out", 227489, "urine_ml", "urine", offset=1000.0),
    Channel("chest_tube", 226588, "zero", "urine", sd=20.0, offset=30.0),
    Channel("stool", 226579, "zero", "urine", sd=100.0, offset=250.0),
    _lab(50971, "potassium", "chemistry", 0.02),
    _lab(50983, "sodium", "chemistry", 0.006),
    _lab(50902, "chloride", "chemistry", 0.008),
    _lab(50882, "bicarbonate", "chemistry", 0.03),
    _lab(51006, "bun", "chemistry", 0.02),
    _lab(50912, "creatinine", "chemistry", 0.03),
    _lab(50931, "glucose", "chemistry", 0.03),
    _lab(50868, "anion_gap", "chemistry", sd=0.5),
    _lab(50960, "magnesium", "chemistry", 0.03),
    _lab(50893, "calcium", "chemistry", 0.015),
    _lab(50861, "alt", "chemistry", 0.03),
    _lab(50878, "ast", "chemistry", 0.03),
    _lab(50885, "bilirubin_total", "chemistry", 0.04),
    _lab(50862, "albumin", "chemistry", 0.03),
    _lab(51222, "hemoglobin", "count", 0.02),
    _lab(51221, "hematocrit", "count", 0.02),
    _lab(51301, "wbc", "count", 0.04),
    _lab(51265, "platelets", "count", 0.04),
    _lab(51144, "bands", "count", 0.1, low=0),
    _lab(51274, "pt", "clotting", 0.02),
    _lab(51237, "inr", "clotting", 0.02),
    _lab(51275, "ptt", "clotting", 0.03),
    _lab(52033, "zero", "gas"),
    _lab(50820, "ph", "gas", sd=0.008),
    _lab(50821, "pao2", "gas", 0.03),
    _lab(50818, "paco2", "gas", 0.03),
    _lab(50804, "total_co2", "gas", 0.02),
    _lab(50802, "base_excess", "gas", sd=0.4, low=-50),
    _lab(50808, "ionised_calcium", "gas", 0.015),
    _lab(50822, "potassium", "gas", 0.03),
    _lab(50824, "sodium", "gas", 0.008),
    _lab(50806, "chloride", "gas", 0.01),
    _lab(50809, "glucose", "gas", 0.04),
    _lab(50811, "hemoglobin", "gas", 0.03),
    _lab(50803, "bicarbonate", "gas", 0.03),
    Channel("lab_50816", 50816, "fio2", "gas", scale=100.0, low=21, high=100),
    _lab(50813, "lactate", "gas", 0.03),
    # No feature reads the rest.
    _note(220046, "zero", offset=120), _note(220047, "zero", offset=50), _note(223769, "zero", offset=100),
    _note(223770, "zero", offset=90), _note(223751, "zero", offset=160), _note(223752, "zero", offset=90),
    _note(224161, "zero", offset=30), _note(224162, "zero", offset=8),
    *(_note(item.itemid, "zero") for item in items.ITEMS
      if item.text and item.table == "chartevents" and item.itemid not in (220739, 223900, 223901, 223849, 226732)),
)  # fmt: skip

C: dict[str, int] = {channel.name: position for position, channel in enumerate(CHANNELS)}
"""Channel name -> column."""
GROUP_COLUMNS: dict[Group, Int[np.ndarray, "g"]] = {
    group: np.array([i for i, channel in enumerate(CHANNELS) if channel.group == group]) for group in GROUPS
}
NOTE_COLUMNS: Int[np.ndarray, "g"] = np.array([i for i, c in enumerate(CHANNELS) if c.name.startswith("note_")])
_NAMES = (*SIGNALS, *DERIVED)
ITEM: Int[np.ndarray, "c"] = np.array([INDEX[channel.itemid] for channel in CHANNELS], np.int16)
GROUP: Int[np.ndarray, "c"] = np.array([GROUPS.index(channel.group) for channel in CHANNELS], np.int8)
SIGNAL: Int[np.ndarray, "c"] = np.array([_NAMES.index(channel.signal) for channel in CHANNELS])
SD: Float[np.ndarray, "c"] = np.array([channel.sd for channel in CHANNELS])
CV: Float[np.ndarray, "c"] = np.array([channel.cv for channel in CHANNELS])
SCALE: Float[np.ndarray, "c"] = np.array([channel.scale for channel in CHANNELS])
OFFSET: Float[np.ndarray, "c"] = np.array([channel.offset for channel in CHANNELS])
LOW: Float[np.ndarray, "c"] = np.array([channel.low for channel in CHANNELS])
HIGH: Float[np.ndarray, "c"] = np.array([channel.high for channel in CHANNELS])
POWER: Float[np.ndarray, "c"] = 10.0 ** ITEM_DECIMALS[ITEM].astype(np.float64)
"""Values are rounded to 1 / POWER."""
IS_LAB: Int[np.ndarray, "c"] = np.isin(GROUP, [GROUPS.index(group) for group in LABORATORY])

_FIXED = {223791: "None", 228096: " 0  Alert and calm", 220048: "SR (Sinus Rhythm)", 223985: "Normal",
          224093: "Supine", 224082: "Turned", 224004: "Present",
          223898: "Oriented x 3", 224026: "Normal", 224027: "Warm", 224080: "30 Degrees", 227121: "Up x 2"}  # fmt: skip
_LUNGS, _PULSES = (223986, 223987, 223988, 223989), (223943, 223948)


def _text(channel: Channel) -> int:
    """The text a note carries; -1 where the value is a number or the text depends on the patient."""
    if channel.itemid in _FIXED:
        return TEXT[_FIXED[channel.itemid]]
    if channel.itemid in _LUNGS:
        return TEXT["Diminished" if channel.itemid in _LUNGS[2:] else "Clear"]
    if channel.itemid in _PULSES:
        return TEXT["Weak Palpable"]
    is_note = channel.name.startswith("note_") and items.ITEMS[INDEX[channel.itemid]].text
    return TEXT["No Impairment"] if is_note else -1


_EVERY_HOURS = {220048: 4, 224093: 8, 224082: 8, 224080: 12, 227121: 12, 223791: 4, 228096: 4, 223985: 8}
NOTE_HOURS: Int[np.ndarray, "g"] = np.array([_EVERY_HOURS.get(CHANNELS[i].itemid, 24) for i in NOTE_COLUMNS])
"""How often each of NOTE_COLUMNS is written."""
FIXED_TEXT: Int[np.ndarray, "c"] = np.array([_text(channel) for channel in CHANNELS], np.int16)
