"""Charting: what the staff write down of a stay, hour by hour, before it is laid out as MIMIC-IV tables.

The simulation loop calls, for one shard of n stays:

    beds = bedside.admit(population, rng)                        # once
    for h in range(FIRST_HOUR, last_hour):                       # FIRST_HOUR = -6: laboratory work before the ICU
        beds, events = hour(beds, h, present, values, severity, on_vasopressor, ventilated, config, rng)
        # after the last hour of a decision window, once it is known how long each patient was there:
        beds, given = infusions.infuse(beds, start_hour, minutes, fluid_ml, drug_rates, config, rng)
    rows = Rows(concatenate(all events), infusions.concatenate(all given), bedside.ventilation(beds, out_hour))
    tables = layout.tables(rows, population, outcomes, shard)    # dict path -> pa.Table

Everything is vectorised over the stays of the shard; every call draws the same number of random numbers whoever is
present. Times are whole seconds since each stay's `intime`; charted times lie on whole minutes of the clock.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float, Int
from pydantic import Field

from cohort.config import Config
from cohort.hospital import bedside as beds
from cohort.hospital import channels, draws, faults, items, rounds
from cohort.hospital.bedside import Bedside, Patient
from cohort.hospital.channels import CHANNELS, GROUPS, SIGNALS, C, Group
from cohort.hospital.draws import Draws
from cohort.hospital.events import Events
from cohort.hospital.faults import FaultConfig
from cohort.hospital.items import ITEM_UNIT, TEXT

FIRST_HOUR = -6
"""The first hour that may be charted: laboratory work (and a few vital signs) from before the ICU."""
_ON_THE_HOUR = 0.88  # of the monitor's rows
_NEGATIVE_STORE = 0.05  # vital signs validated before the minute they are charted at
_WITHOUT_ADMISSION = 0.17, 0.75  # laboratory orders that name no admission, in the ICU and before it


class ChartingConfig(Config):
    """How much is charted, and what goes wrong on the way."""

    intensity: float = Field(default=1.0, ge=0.25, le=2)
    """Multiplies the frequency of all that is charted on no fixed round."""
    other_rows: bool = True
    """Chart what no feature needs too (rhythm, alarm limits, pain ...), as a real unit does."""
    faults: FaultConfig = FaultConfig()


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
    drawn = draws.draw(key[stay])
    patient = Patient(
        stay, hour, severity[stay], on_vasopressor[stay], ventilated[stay],
        {name: values[name][stay] for name in SIGNALS}, config.intensity,
    )  # fmt: skip
    attended = beds.attend(beds.at(bedside, stay), patient, drawn)
    chosen, after = rounds.choose(attended, patient, drawn, config.other_rows)
    row, column = np.nonzero(chosen)
    noise, spoils = draws.cells(drawn.key[row], column)
    made = _events(row, column, _matrix(attended, patient, chosen, drawn), noise, attended, patient, drawn)
    return beds.put(bedside, stay, after), faults.plant(made, spoils, config.faults)


def _matrix(
    bedside: Bedside, patient: Patient, chosen: Bool[np.ndarray, "n c"], draw: Draws
) -> Float[np.ndarray, "n s"]:
    """The true values, a column a signal, as they are in this specimen and at this bed."""
    values = dict(patient.values)
    zero = np.zeros(len(patient.stay))
    venous, mixed = _specimen(bedside, draw)
    drawn = chosen[:, C["lab_50821"]] & (venous | mixed)
    values["pao2"] = np.where(drawn, np.minimum(values["pao2"], 34.0 + 12.0 * draw.of("specimen")), values["pao2"])
    values["paco2"] = np.where(drawn, values["paco2"] + 6.0, values["paco2"])
    values["ph"] = np.where(drawn, values["ph"] - 0.03, values["ph"])
    derived = (
        zero, values["sodium"] - values["chloride"] - values["bicarbonate"], 3.0 * values["hemoglobin"],
        rounds.written_urine(bedside), bedside.habits.recorded_weight_kg,
    )  # fmt: skip
    return np.stack([*(values[name] for name in SIGNALS), *derived], axis=1)


def _specimen(bedside: Bedside, draw: Draws) -> tuple[Bool[np.ndarray, "n"], Bool[np.ndarray, "n"]]:
    """Where a gas drawn this hour would be venous, and where mixed venous."""
    u = draw.of("specimen")
    return u < np.where(bedside.arterial, 0.01, 0.12), u > np.where(bedside.central, 0.92, 0.99)


def _events(
    stay: Int[np.ndarray, "r"],
    column: Int[np.ndarray, "r"],
    matrix: Float[np.ndarray, "n s"],
    noise: Float[np.ndarray, "r"],
    bedside: Bedside,
    patient: Patient,
    draw: Draws,
) -> Events:
    """The chosen cells as rows."""
    true = matrix[stay, channels.SIGNAL[column]]
    noisy = true + (channels.SD[column] + channels.CV[column] * true) * noise
    shown = np.clip(
        noisy * channels.SCALE[column] + channels.OFFSET[column], channels.LOW[column], channels.HIGH[column]
    )
    value = np.round(shown * channels.POWER[column]) / channels.POWER[column]
    group = channels.GROUP[column]
    charted, stored, specimen = (part[stay, group] for part in _clocks(bedside, patient, draw))
    item = channels.ITEM[column]
    text = channels.FIXED_TEXT[column]
    special = np.flatnonzero(_SPECIAL[column])
    text[special], value[special] = _texts(stay[special], column[special], value[special], bedside, patient, draw)
    value[(channels.FIXED_TEXT[column] >= 0)] = np.nan
    return Events(
        patient.stay[stay].astype(np.int32), item, charted, stored, value, text, ITEM_UNIT[item], specimen,
        np.full(len(stay), -1, np.int8),
    )  # fmt: skip


def _clocks(
    bedside: Bedside, patient: Patient, draw: Draws
) -> tuple[Int[np.ndarray, "n g"], Int[np.ndarray, "n g"], Int[np.ndarray, "n g"]]:
    """When each group of rows is charted and stored, and the specimen it is of."""
    hour, mark = patient.hour, bedside.habits.mark_s
    minute = draw.minute.astype(np.float64)
    spread = 60 * np.floor(minute * 59).astype(np.int64) + (mark % 60)[:, None]
    on_mark = draw.of("on_mark")[:, None] < _MARKED
    charted = hour * 3600 + np.where(on_mark, mark[:, None], spread)
    for group in ("count", "clotting"):  # drawn with the chemistry
        charted[:, GROUPS.index(group)] = charted[:, GROUPS.index("chemistry")]
    delay = np.exp(_LOG_MEDIAN + _LOG_SPREAD * draw.delay)
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
    patient: Patient,
    draw: Draws,
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
    venous, mixed = _specimen(bedside, draw)
    kind = np.where(venous, TEXT["VEN."], np.where(mixed, TEXT["MIX."], TEXT["ART."]))
    text[gas] = kind[stay[gas]]
    return text, number


_MODE_NUMBER = np.full(len(items.TEXTS), np.nan)
_MODE_NUMBER[[TEXT[name] for name, _ in items.MODES]] = [number for _, number in items.MODES]


def _device(bedside: Bedside, patient: Patient) -> Int[np.ndarray, "n"]:
    """What delivers the oxygen."""
    flow = patient.values["o2_flow"]
    open_air = np.where(flow <= 0, TEXT["None"], np.where(flow < 7, TEXT["Nasal cannula"], bedside.habits.mask))
    masked = np.where(bedside.masked_since >= 0, TEXT["Bipap mask "], open_air)
    return np.where(patient.ventilated, bedside.habits.tube, masked)
