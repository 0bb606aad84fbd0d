"""Faults: what goes wrong on the way into the record, planted at known rates and counted by kind."""

from dataclasses import replace
from functools import cache

import numpy as np
from jaxtyping import Float, Int
from pydantic import Field

from cohort.config import Config
from cohort.hospital import items
from cohort.hospital.events import Events, concatenate, take
from cohort.hospital.items import INDEX, ITEMS, TEXT, UNIT


class FaultConfig(Config):
    """The share of the rows it could befall that each fault does befall; 0 plants none.

    The names of the fields are the kinds of faults in the truth.
    """

    duplicate: float = Field(0.01, ge=0, le=0.2)
    """A chart, laboratory or output row written twice, every column equal; the second is the faulty one."""
    zero_heart_rate: float = Field(0.001, ge=0, le=0.2)
    """Heart rate 0 while a lead is off."""
    flush_pressure: float = Field(0.004, ge=0, le=0.2)
    """Arterial mean pressure far above any patient's while the line is flushed."""
    probe_off: float = Field(0.001, ge=0, le=0.2)
    """Oxygen saturation below 50% while the probe is off."""
    fahrenheit_as_celsius: float = Field(0.02, ge=0, le=0.2)
    """Among Celsius rows: the number is Fahrenheit."""
    celsius_as_fahrenheit: float = Field(0.005, ge=0, le=0.2)
    """Among Fahrenheit rows: the number is Celsius."""
    temperature_without_unit: float = Field(0.01, ge=0, le=0.2)
    """The unit column is empty; the number is right."""
    fio2_litres: float = Field(0.01, ge=0, le=0.2)
    """Litres a minute written into the inspired fraction (a number from 2 to 15)."""
    pounds_as_kg: float = Field(0.005, ge=0, le=0.2)
    """A weight in pounds under an item declared in kg."""
    impossible_value: float = Field(0.0005, ge=0, le=0.2)
    """A laboratory number that means an error (999999)."""
    unparsed_value: float = Field(0.003, ge=0, le=0.2)
    """A laboratory row whose value is a blanked text and has no number."""
    foreign_unit: float = Field(0.002, ge=0, le=0.2)
    """A laboratory row in another unit than its item's, and saying so."""
    unknown_unit: float = Field(0.001, ge=0, le=0.2)
    """A laboratory row in a unit that no dictionary here has for its item."""
    mislabelled_unit: float = Field(0.001, ge=0, le=0.2)
    """A laboratory row in another unit than its item's, labelled with the item's."""
    rewritten: float = Field(0.25, ge=0, le=0.5)
    """An infusion row written anew: the superseded row stays in the table with status Rewritten."""
    infusion_duplicate: float = Field(0.004, ge=0, le=0.2)
    """An infusion row twice, every column equal."""
    overlap: float = Field(0.02, ge=0, le=0.2)
    """An infusion row that runs on into the next row of its own order."""
    missing_weight: float = Field(0.02, ge=0, le=0.2)
    """patientweight is empty."""
    hourly_as_minute: float = Field(0.02, ge=0, le=0.2)
    """Among vasopressin rows: U/h labelled units/min."""
    zero_rate: float = Field(0.05, ge=0, le=0.5)
    """A row of rate 0 and amount 0 after a vasopressor was stopped, per stopped drug."""
    null_rate: float = Field(0.01, ge=0, le=0.2)
    """Among drip rows: no rate, only the amount."""
    end_before_start: float = Field(0.002, ge=0, le=0.2)
    """A cancelled infusion row that ends before it starts and has a negative amount."""


KINDS: tuple[str, ...] = tuple(FaultConfig.model_fields)
KIND: dict[str, int] = {kind: position for position, kind in enumerate(KINDS)}
NONE = FaultConfig(**dict.fromkeys(KINDS, 0.0))
"""Nothing goes wrong."""

POUNDS_PER_KG = 2.20462
_FOREIGN: dict[int, tuple[str, float]] = {
    # itemid: SI unit, units of the item times this
    50931: ("mmol/L", 1 / 18.016),  # glucose
    50912: ("umol/L", 88.42),  # creatinine
    50885: ("umol/L", 17.104),  # bilirubin
    51006: ("mmol/L", 0.357),  # urea nitrogen, as urea
    50893: ("mmol/L", 0.2495),  # calcium
    51222: ("g/L", 10.0),  # haemoglobin
}
_UNKNOWN: dict[int, tuple[str, float]] = {
    50931: ("g/L", 0.01),  # glucose
    50912: ("mg/L", 10.0),  # creatinine
    50885: ("mg/L", 10.0),  # bilirubin
    50893: ("mg/L", 10.0),  # calcium
    50813: ("mg/L", 90.08),  # lactate
}
_MISLABELLED = (50912, 51222)  # those whose foreign number no patient could have in the item's own unit
_NUMERIC_LABS = tuple(item.itemid for item in ITEMS if item.table == "labevents" and not item.text)
_COUNTED = tuple(item.itemid for item in ITEMS if item.table in ("chartevents", "labevents", "outputevents"))

_BEFALLS: dict[str, tuple[int, ...]] = {
    "duplicate": _COUNTED,
    "zero_heart_rate": (220045,),
    "flush_pressure": (220052, 225312),
    "probe_off": (220277,),
    "fahrenheit_as_celsius": (223762,),
    "celsius_as_fahrenheit": (223761,),
    "temperature_without_unit": (223761, 223762),
    "fio2_litres": (223835,),
    "pounds_as_kg": (226512, 224639),
    "impossible_value": _NUMERIC_LABS,
    "unparsed_value": _NUMERIC_LABS,
    "foreign_unit": tuple(_FOREIGN),
    "unknown_unit": tuple(_UNKNOWN),
    "mislabelled_unit": _MISLABELLED,
}
"""Which items a fault of charting can befall; a row gets at most one."""
_CHARTED = tuple(_BEFALLS)


def plant(events: Events, draw: Float[np.ndarray, "r"], config: FaultConfig) -> Events:
    """Spoil rows at the configured rates; duplicates are appended.

    Args:
        events: clean rows.
        draw: uniform on [0, 1), one a row.
    """
    upper = _thresholds(config)
    hit = np.flatnonzero(draw < upper[events.item, -1])
    if not len(hit):
        return events
    bounds = np.pad(upper[events.item[hit]], ((0, 0), (1, 0)))
    kind = (draw[hit, None] >= bounds[:, 1:]).sum(axis=1)
    value, unit, text, fault = (column.copy() for column in (events.value, events.unit, events.text, events.fault))
    lower, higher = (bounds[np.arange(len(hit)), kind + step] for step in (0, 1))
    share = (draw[hit] - lower) / (higher - lower)  # uniform again, for how bad it is
    for position, name in enumerate(_CHARTED[1:], start=1):
        chosen = kind == position
        rows = hit[chosen]
        if len(rows):
            value[rows], unit[rows], text[rows] = _spoil(name, rows, share[chosen], events)
            fault[rows] = KIND[name]
    spoilt = replace(events, value=value, unit=unit, text=text, fault=fault)
    again = take(events, hit[kind == 0])
    copies = replace(again, fault=np.full(again.n, KIND["duplicate"], events.fault.dtype))
    return concatenate([spoilt, copies])


@cache
def _thresholds(config: FaultConfig) -> Float[np.ndarray, "i k"]:
    """Per item the cumulative probability of each kind of charted fault."""
    rate = np.zeros((len(ITEMS), len(_CHARTED)))
    for position, name in enumerate(_CHARTED):
        rate[[INDEX[itemid] for itemid in _BEFALLS[name]], position] = getattr(config, name)
    return np.cumsum(rate, axis=1)


def _spoil(
    name: str, rows: np.ndarray, share: Float[np.ndarray, "k"], events: Events
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Value, unit and text of rows after the fault `name`."""
    value, unit, text = events.value[rows], events.unit[rows], events.text[rows]
    if name == "zero_heart_rate":
        return np.zeros(len(rows)), unit, text
    if name == "flush_pressure":
        return np.round(220 + 100 * share), unit, text
    if name == "probe_off":
        return np.round(48 * share), unit, text
    if name == "fahrenheit_as_celsius":
        return np.round(value * 1.8 + 32, 1), unit, text
    if name == "celsius_as_fahrenheit":
        return np.round((value - 32) / 1.8, 1), unit, text
    if name == "temperature_without_unit":
        return value, np.full_like(unit, -1), text
    if name == "fio2_litres":
        return np.round(2 + 13 * share), unit, text
    if name == "pounds_as_kg":
        return np.round(value * POUNDS_PER_KG, 1), unit, text
    if name == "impossible_value":
        return np.full(len(rows), 999999.0), unit, text
    if name == "unparsed_value":
        return np.full(len(rows), np.nan), unit, np.full_like(text, TEXT[items.UNPARSED])
    code, factor = _UNKNOWN_UNIT if name == "unknown_unit" else _FOREIGN_UNIT
    item = events.item[rows]
    return np.round(value * factor[item], 2), unit if name == "mislabelled_unit" else code[item], text


def _by_item(units: dict[int, tuple[str, float]]) -> tuple[Int[np.ndarray, "i"], Float[np.ndarray, "i"]]:
    """Unit code and factor per item; -1 and NaN where there is none."""
    rows = [units.get(item.itemid) for item in ITEMS]
    code = np.array([-1 if row is None else UNIT[row[0]] for row in rows], np.int16)
    return code, np.array([np.nan if row is None else row[1] for row in rows])


_FOREIGN_UNIT, _UNKNOWN_UNIT = _by_item(_FOREIGN), _by_item(_UNKNOWN)
