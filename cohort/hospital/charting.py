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
present. Times are whole seconds since each stay's `intime`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from pydantic import Field

from cohort.config import Config
from cohort.hospital.faults import FaultConfig
from cohort.hospital.population import Population

FIRST_HOUR = -6
"""The first hour that may be charted: laboratory work (and a few vital signs) from before the ICU."""

SIGNALS: tuple[str, ...] = (
    "heart_rate", "sbp", "map", "dbp", "resp_rate", "spo2", "temperature_c", "gcs_eye", "gcs_motor", "gcs_verbal",
    "fio2", "cvp", "peep", "tidal_volume", "minute_volume", "o2_flow", "potassium", "sodium", "chloride", "glucose",
    "bun", "creatinine", "magnesium", "calcium", "ionised_calcium", "total_co2", "ast", "alt", "bilirubin_total",
    "albumin", "hemoglobin", "wbc", "bands", "platelets", "ptt", "pt", "inr", "ph", "pao2", "paco2", "base_excess",
    "bicarbonate", "lactate", "urine_ml_h", "weight_kg",
)  # fmt: skip
"""The noise-free values `hour` needs, in canonical units (fio2: fraction; tidal volume: mL; minute volume: L/min)."""


class ChartingConfig(Config):
    """How much is charted, and what goes wrong on the way."""

    intensity: float = Field(1.0, gt=0, le=4)
    """Multiplies the frequency of everything that is not charted every hour."""
    other_rows: bool = True
    """Chart what no feature needs too (rhythm, alarm limits, pain ...), as a real unit does."""
    faults: FaultConfig = FaultConfig()


@dataclass(frozen=True)
class Events:
    """Rows of chartevents, labevents and outputevents; which table a row is for is its item's."""

    stay: Int[np.ndarray, "r"]
    """Position of the stay in the shard."""
    item: Int[np.ndarray, "r"]
    """Position in items.ITEMS."""
    charted: Int[np.ndarray, "r"]
    """Seconds since `intime`."""
    stored: Int[np.ndarray, "r"]
    value: Float[np.ndarray, "r"]
    """In the row's own unit, rounded as it is written; NaN where there is only a text."""
    text: Int[np.ndarray, "r"]
    """Position in items.TEXTS; -1: the value's own digits."""
    unit: Int[np.ndarray, "r"]
    """Position in items.UNITS; -1: none was written."""
    specimen: Int[np.ndarray, "r"]
    """Laboratory specimen, unique in the shard; 0 outside the laboratory."""
    fault: Int[np.ndarray, "r"]
    """Position in faults.KINDS of the fault that was planted in the row; -1: a clean row."""


@dataclass(frozen=True)
class Bedside:
    """What is at each bed between two hours: lines, tube, when things were last done. Opaque to the loop."""


def admit(population: Population, config: ChartingConfig, rng: np.random.Generator) -> Bedside:
    """The bedsides of a shard's stays before anything is charted (ids are not used: only intime's clock and weight)."""
    raise NotImplementedError


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
    raise NotImplementedError


def ventilation(bedside: Bedside, out_hour: Float[np.ndarray, "n"]) -> "Procedures":
    """Ventilation so far; what still runs ends at `out_hour` (the stay's end; in a rollout the hour of the reading)."""
    raise NotImplementedError


@dataclass(frozen=True)
class Procedures:
    """Rows of procedureevents (ventilation)."""

    stay: Int[np.ndarray, "r"]
    item: Int[np.ndarray, "r"]
    start: Int[np.ndarray, "r"]
    end: Int[np.ndarray, "r"]
    stored: Int[np.ndarray, "r"]


def concatenate(parts: Sequence[Events]) -> Events:
    """All rows, in the order given."""
    raise NotImplementedError
