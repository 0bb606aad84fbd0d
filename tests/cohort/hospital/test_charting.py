"""What the simulated hospital charts: doses that add up, faults planted at their rates, the layout of the files."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from cohort import actions, features, tables
from cohort.actions import ActionConfig
from cohort.grid import GridConfig
from cohort.hospital import (
    bedside,
    channels,
    charting,
    draws,
    events,
    faults,
    infusions,
    items,
    layout,
    orders,
    population,
)
from cohort.hospital.charting import ChartingConfig
from cohort.hospital.faults import KINDS, NONE, FaultConfig
from cohort.hospital.layout import Rows
from cohort.hospital.orders import DRUGS
from cohort.hospital.population import Outcomes, Population
from cohort.hospital.schema import SCHEMAS
from cohort.hospital.writer import Writer
from cohort.sources import items as dictionary
from cohort.sources import mimic_iv

HOURS = 24
CLEAN = ChartingConfig(faults=NONE)
DIRTY = ChartingConfig()
FACTORS = {"norepinephrine": 1.0, "vasopressin": 2.5, "phenylephrine": 0.1, "dopamine": 0.01, "epinephrine": 1.0}
NORMAL: dict[str, float] = {
    "heart_rate": 92, "sbp": 110, "map": 72, "dbp": 54, "resp_rate": 20, "spo2": 96, "temperature_c": 37.4,
    "gcs_eye": 3,
    "gcs_motor": 6, "gcs_verbal": 4, "fio2": 0.4, "cvp": 9, "peep": 6, "tidal_volume": 450, "minute_volume": 9.0,
    "o2_flow": 6, "potassium": 4.1, "sodium": 139, "chloride": 104, "glucose": 140, "bun": 28, "creatinine": 1.4,
    "magnesium": 2.0, "calcium": 8.2, "ionised_calcium": 1.1, "total_co2": 24, "ast": 60, "alt": 45,
    "bilirubin_total": 1.1, "albumin": 3.0, "hemoglobin": 10.0, "wbc": 12, "bands": 4, "platelets": 190, "ptt": 36,
    "pt": 15, "inr": 1.4, "ph": 7.36, "pao2": 95, "paco2": 38, "base_excess": -2, "bicarbonate": 23, "lactate": 2.2,
    "urine_ml_h": 60, "weight_kg": 80,
}  # fmt: skip


def people_of(n: int, seed: int = 0) -> Population:
    return population.sample(n, 0, np.random.default_rng(seed))


def left_alive(people: Population, hours: float = HOURS) -> Outcomes:
    n, never = people.n, np.datetime64("NaT", "us")
    return Outcomes(
        out_hour=np.full(n, float(hours)),
        dischtime=people.intime + np.timedelta64(30, "D"),
        deathtime=np.full(n, never),
        dod=np.full(n, never),
        died_in_hospital=np.zeros(n, bool),
        died_in_icu=np.zeros(n, bool),
    )


def chart(
    people: Population, config: ChartingConfig, hours: int = HOURS, present: np.ndarray | None = None
) -> tuple[bedside.Bedside, list[events.Events]]:
    """Everybody steady, the second half ventilated and on a vasopressor."""
    n = people.n
    values = {name: np.full(n, float(NORMAL[name])) for name in channels.SIGNALS}
    sick = np.arange(n) >= n // 2
    there = np.ones(n, bool) if present is None else present
    beds = bedside.admit(people, np.random.default_rng(1))
    parts = []
    for hour in range(charting.FIRST_HOUR, hours):
        rng = np.random.default_rng([2, hour + 100])
        beds, made = charting.hour(beds, hour, there, values, 0.2 + 0.4 * sick, sick, sick, config, rng)
        parts.append(made)
    return beds, parts


def wanted(n: int, windows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Doses of `windows` windows of 4 h: fluids, drug rates, minutes present."""
    rng = np.random.default_rng(5)
    fluid = np.where(rng.random((windows, n)) < 0.8, rng.gamma(1.2, 180, (windows, n)), 0.0)
    rates = np.zeros((windows, n, len(DRUGS)))
    main = rng.integers(0, len(DRUGS), n)
    scale = np.array([0.15, 0.03, 1.5, 6.0, 0.08])
    on = rng.random((windows, n)) < 0.5
    for window in range(windows):
        rates[window, np.arange(n), main] = np.where(on[window], scale[main] * rng.uniform(0.2, 2, n), 0.0)
    minutes = np.full((windows, n), 240)
    minutes[-1] = rng.integers(1, 241, n)
    minutes[-1, ::7] = 0
    return fluid, rates, minutes


def give(
    people: Population, config: ChartingConfig, windows: int = 4
) -> tuple[orders.Infusions, np.ndarray, np.ndarray, np.ndarray]:
    fluid, rates, minutes = wanted(people.n, windows)
    beds = bedside.admit(people, np.random.default_rng(1))
    parts = []
    for window in range(windows):
        rng = np.random.default_rng([3, window])
        beds, given = infusions.infuse(beds, 4 * window, minutes[window], fluid[window], rates[window], config, rng)
        parts.append(given)
    return orders.concatenate(parts), fluid * (minutes > 0), rates * (minutes > 0)[:, :, None], minutes


def as_tables(people: Population, rows: Rows, hours: float = HOURS, shard: int = 0) -> dict[str, pa.Table]:
    outcomes = left_alive(people, hours)
    return layout.tables(layout.trim(rows, outcomes.out_hour), people, outcomes, shard)


def frames(made: dict[str, pa.Table]) -> dict[str, pd.DataFrame]:
    return {name.rpartition("/")[2]: table.to_pandas() for name, table in made.items()}


def rows_of(people: Population, config: ChartingConfig) -> Rows:
    beds, parts = chart(people, config)
    given, *_ = give(people, config)
    return Rows(events.concatenate(parts), given, bedside.ventilation(beds, np.full(people.n, float(HOURS))))


@pytest.fixture(scope="module")
def people() -> Population:
    return people_of(40)


@pytest.fixture(scope="module")
def clean(people: Population) -> Rows:
    return rows_of(people, CLEAN)


@pytest.fixture(scope="module")
def dirty(people: Population) -> Rows:
    return rows_of(people, DIRTY)


def canonical_doses(people: Population, rows: Rows, windows: int, minutes: np.ndarray) -> actions.Doses:
    known, _ = mimic_iv.canonical(frames(as_tables(people, rows)))
    known = tables.check(known)
    order = pd.Index(known.stays["stay_id"]).get_indexer(people.stay_id)
    anchor = known.stays["intime"].to_numpy()
    end = people.intime + (4 * 60 * (windows - 1) + np.maximum(minutes[-1], 1)).astype("timedelta64[m]")
    ends = np.empty_like(anchor)
    ends[order] = end
    found = actions.doses(known, anchor, 4 * np.arange(windows), 4, ends, ActionConfig(equivalent_cap=100.0))
    return actions.Doses(*(getattr(found, name)[order] for name in actions.Doses.__annotations__))


def test_clean_rows_integrate_to_the_doses_asked_for_minute_by_minute(people: Population) -> None:
    rows, fluid, rates, minutes = give(people, CLEAN)
    tonicity = {
        i: group.factor for group in dictionary.load("mimic_iv").fluids if group.drug == "fluid" for i in group.ids
    }
    total = np.zeros((people.n, len(DRUGS) + 1, 4 * 240))
    for k in range(rows.n):
        item = items.ITEMS[rows.item[k]]
        start, end = int(rows.start[k]) // 60, int(rows.end[k]) // 60
        if item.label in [drug.capitalize() for drug in DRUGS]:
            column = [drug.capitalize() for drug in DRUGS].index(item.label)
            unit = items.UNITS[rows.rate_unit[k]]
            weight = rows.weight_kg[k]
            per_minute = rows.rate[k] * {
                "mcg/kg/min": 1.0, "mcg/min": 1 / weight, "mg/kg/min": 1000.0, "units/hour": 1 / 60, "units/min": 1.0,
            }[unit]  # fmt: skip
        elif item.itemid in tonicity:
            column, per_minute = len(DRUGS), rows.amount[k] / (end - start) * tonicity[item.itemid]
        else:
            continue
        total[rows.stay[k], column, start:end] += per_minute
    for window in range(4):
        summed = total[:, :, 240 * window : 240 * (window + 1)].sum(axis=2)
        np.testing.assert_allclose(summed[:, -1], fluid[window], rtol=1e-9, atol=1e-9)
        asked = rates[window] * minutes[window][:, None]
        np.testing.assert_allclose(summed[:, :-1], asked, rtol=1e-9, atol=1e-9)


def test_amounts_are_rates_over_the_rows_duration(people: Population) -> None:
    rows, *_ = give(people, CLEAN)
    running = ~np.isnan(rows.rate)
    hours = (rows.end - rows.start) / 3600
    unit = np.array(items.UNITS)[rows.rate_unit]
    amount = rows.rate * np.select(
        [
            unit == "mL/hour",
            unit == "units/hour",
            unit == "units/min",
            unit == "mcg/min",
            unit == "mcg/kg/min",
            unit == "mg/kg/min",
        ],
        [hours, hours, hours * 60, hours * 60 / 1000, hours * 60 * rows.weight_kg / 1000, hours * 60 * rows.weight_kg],
    )
    np.testing.assert_allclose(rows.amount[running], amount[running], rtol=1e-9)


def test_the_pipeline_finds_the_doses_asked_for_in_clean_rows(people: Population, clean: Rows) -> None:
    _, fluid, rates, minutes = give(people, CLEAN)
    found = canonical_doses(people, clean, 4, minutes)
    equivalent = rates @ np.array([FACTORS[drug] for drug in DRUGS])
    there = (minutes > 0).T
    np.testing.assert_allclose(found.fluid_ml[there], fluid.T[there], rtol=1e-6)
    np.testing.assert_allclose(found.vasopressor_ug_kg_min[there], equivalent.T[there], rtol=1e-6, atol=1e-9)


def test_rewritten_overlapping_repeated_and_unlabelled_infusions_change_no_dose(people: Population) -> None:
    harmless = {"rewritten": 0.4, "overlap": 0.2, "infusion_duplicate": 0.1, "hourly_as_minute": 0.2, "zero_rate": 0.3,
                "null_rate": 0.2, "end_before_start": 0.1}  # fmt: skip
    config = ChartingConfig(faults=FaultConfig(**{**dict.fromkeys(KINDS, 0.0), **harmless}))
    given, fluid, rates, minutes = give(people, config)
    assert set(np.array(KINDS)[given.fault[given.fault >= 0]]) == set(harmless)
    rows = replace(rows_of(people, CLEAN), infusions=given)
    found = canonical_doses(people, rows, 4, minutes)
    equivalent = rates @ np.array([FACTORS[drug] for drug in DRUGS])
    there = (minutes > 0).T
    np.testing.assert_allclose(found.fluid_ml[there], fluid.T[there], rtol=1e-6)
    np.testing.assert_allclose(found.vasopressor_ug_kg_min[there], equivalent.T[there], rtol=1e-6, atol=1e-9)


def test_no_infusion_reaches_out_of_its_window_or_of_the_stay(people: Population) -> None:
    fluid, rates, minutes = wanted(people.n, 4)
    beds = bedside.admit(people, np.random.default_rng(1))
    for window in range(4):
        rng = np.random.default_rng([3, window])
        beds, rows = infusions.infuse(beds, 4 * window, minutes[window], fluid[window], rates[window], DIRTY, rng)
        forward = np.array(KINDS)[rows.fault] != "end_before_start"
        start = 4 * window * 3600
        assert (rows.start >= start).all()
        assert (rows.end[forward] <= start + 60 * minutes[window][rows.stay[forward]]).all()
        assert (minutes[window][rows.stay] > 0).all()


def test_one_order_runs_on_through_the_windows_and_ends_where_the_drug_stops(people: Population) -> None:
    rows, _, rates, _ = give(people, CLEAN)
    drug = rows.item == items.INDEX[221906]
    on = rates[:, :, 0] > 0
    for stay in range(people.n):
        spells = sum(not before and now for before, now in pairwise([False, *on[:, stay]]))
        assert len(np.unique(rows.link[drug & (rows.stay == stay)])) == spells
    clean_orders = rows.order[rows.fault < 0]
    assert len(np.unique(clean_orders)) == len(clean_orders)


def test_a_clean_configuration_plants_nothing(clean: Rows, people: Population) -> None:
    assert layout.fault_table(clean, people).num_rows == 0
    assert set(layout.count_faults(layout.fault_table(clean, people)).values()) == {0}
    assert not (clean.infusions.status == orders.STATUS["Rewritten"]).any()
    values = frames(as_tables(people, clean))
    assert not values["chartevents"].duplicated().any()
    assert not values["labevents"].duplicated().any()
    assert values["inputevents"]["patientweight"].notna().all()
    heart = values["chartevents"].query("itemid == 220045")["valuenum"]
    assert heart.between(70, 115).all()


@pytest.mark.parametrize("kind", list(faults._BEFALLS))
def test_each_charting_fault_is_planted_at_its_rate_and_counted_exactly(kind: str, people: Population) -> None:
    rate = 0.15
    config = ChartingConfig(faults=FaultConfig(**{**dict.fromkeys(KINDS, 0.0), kind: rate}))
    _, parts = chart(people, config)
    rows = events.concatenate(parts)
    befallen = np.isin(items.ITEM_ID[rows.item], faults._BEFALLS[kind])
    faulty = rows.fault == faults.KIND[kind]
    able = int(befallen.sum()) - (int(faulty.sum()) if kind == "duplicate" else 0)
    spread = np.sqrt(rate * (1 - rate) / able)
    assert abs(faulty.sum() / able - rate) < 4 * spread
    assert not (faulty & ~befallen).any()
    assert set(np.unique(rows.fault)) == {-1, faults.KIND[kind]}
    counted = layout.count_faults(layout.fault_table(Rows(rows, orders.empty(), _no_procedures()), people))
    assert counted == {**dict.fromkeys(KINDS, 0), kind: int(faulty.sum())}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in faults._BEFALLS])
def test_each_infusion_fault_is_planted_at_its_rate_and_counted_exactly(kind: str) -> None:
    people = people_of(300)
    rate = 0.15
    config = ChartingConfig(faults=FaultConfig(**{**dict.fromkeys(KINDS, 0.0), kind: rate}))
    rows, *_ = give(people, config)
    base, *_ = give(people, CLEAN)
    able = {
        "overlap": _followed(base),
        "hourly_as_minute": int((base.rate_unit == items.UNIT["units/hour"]).sum()),
        "null_rate": int((base.category == 0).sum()),
        "zero_rate": _stops(people),
    }.get(kind, base.n)
    faulty = rows.fault == faults.KIND[kind]
    assert abs(faulty.sum() / able - rate) < 4 * np.sqrt(rate * (1 - rate) / able)
    assert set(np.unique(rows.fault)) == {-1, faults.KIND[kind]}
    counted = layout.count_faults(layout.fault_table(Rows(_no_events(people), rows, _no_procedures()), people))
    assert counted == {**dict.fromkeys(KINDS, 0), kind: int(faulty.sum())}


def test_faults_look_as_they_are_described(people: Population) -> None:
    config = ChartingConfig(faults=FaultConfig(**{kind: 0.1 for kind in faults._BEFALLS}))
    _, parts = chart(people, config)
    rows = events.concatenate(parts)
    kind = np.where(rows.fault >= 0, np.array(KINDS)[rows.fault], "")

    def value(name: str) -> np.ndarray:
        return rows.value[kind == name]

    assert (value("zero_heart_rate") == 0).all()
    assert (value("flush_pressure") > 200).all()
    assert (value("probe_off") < 50).all()
    assert (value("fahrenheit_as_celsius") > 90).all()
    assert (value("celsius_as_fahrenheit") < 45).all()
    assert (rows.unit[kind == "temperature_without_unit"] == -1).all()
    assert ((value("fio2_litres") > 1) & (value("fio2_litres") < 20)).all()
    assert (value("impossible_value") == 999999).all()
    assert np.isnan(value("unparsed_value")).all()
    foreign = np.array(items.UNITS)[rows.unit[kind == "foreign_unit"]]
    assert set(foreign) <= set(items.FOREIGN_UNITS)
    unknown = {(items.ITEMS[i].label, items.UNITS[u]) for i, u in _pairs(rows, kind == "unknown_unit")}
    assert {label for label, _ in unknown} == {"Glucose", "Creatinine", "Bilirubin, Total", "Calcium, Total", "Lactate"}
    assert {unit for _, unit in unknown} == {"g/L", "mg/L"}
    creatinine = (rows.item == items.INDEX[50912]) & (kind == "mislabelled_unit")
    assert (rows.value[creatinine] > 30).all()
    weight = kind == "pounds_as_kg"
    clean_weight = np.median(rows.value[(rows.item == items.INDEX[226512]) & (kind == "")])
    assert np.median(rows.value[weight]) > 1.8 * clean_weight


def test_a_duplicate_equals_its_original_in_every_column(people: Population) -> None:
    config = ChartingConfig(faults=FaultConfig(**{**dict.fromkeys(KINDS, 0.0), "duplicate": 0.1}))
    beds, parts = chart(people, config)
    rows = Rows(events.concatenate(parts), orders.empty(), bedside.ventilation(beds, np.full(people.n, 24.0)))
    made = frames(as_tables(people, rows))
    planted = layout.count_faults(layout.fault_table(layout.trim(rows, np.full(people.n, 24.0)), people))["duplicate"]
    repeated = sum(int(made[name].duplicated().sum()) for name in ("chartevents", "labevents", "outputevents"))
    assert repeated == planted > 100


def test_the_pipeline_drops_or_repairs_what_was_planted_in_the_values(people: Population, dirty: Rows) -> None:
    known, _ = mimic_iv.canonical(frames(as_tables(people, dirty)))
    observed = tables.check(known).observations
    value = {name: part["value"] for name, part in observed.groupby("concept", observed=True)}
    assert value["heart_rate"].min() > 60
    assert value["map"].max() < 120
    assert value["spo2"].min() > 85
    assert value["temperature_c"].between(36, 39).all()
    assert value["creatinine"].max() < 3
    assert value["hemoglobin"].max() < 14
    assert np.isclose(value["fio2"].median(), 0.4)


@pytest.mark.parametrize("hours", [6, 24])
def test_what_is_charted_by_an_hour_does_not_depend_on_what_comes_later(people: Population, hours: int) -> None:
    short = events.concatenate(chart(people, DIRTY, hours)[1])
    long = events.concatenate(chart(people, DIRTY, 30)[1])
    cut = events.take(long, np.arange(short.n))
    for name in events.Events.__annotations__:
        np.testing.assert_array_equal(getattr(cut, name), getattr(short, name))


def test_who_else_is_there_changes_nothing_for_a_patient(people: Population) -> None:
    some = np.arange(people.n) % 3 != 0
    everyone = events.concatenate(chart(people, DIRTY)[1])
    fewer = events.concatenate(chart(people, DIRTY, present=some)[1])
    by_stay = [_of_stays(everyone, np.flatnonzero(some)), _of_stays(fewer, np.flatnonzero(some))]
    for name in events.Events.__annotations__:
        np.testing.assert_array_equal(getattr(by_stay[0], name), getattr(by_stay[1], name))


def test_every_draw_of_an_hour_is_made_whoever_is_present(people: Population) -> None:
    values = {name: np.full(people.n, float(NORMAL[name])) for name in channels.SIGNALS}
    left = []
    for there in (np.ones(people.n, bool), np.zeros(people.n, bool)):
        rng = np.random.default_rng(9)
        beds = bedside.admit(people, rng)
        beds, _ = charting.hour(beds, 0, there, values, np.full(people.n, 0.3), there, there, DIRTY, rng)
        zeros = np.zeros((people.n, len(DRUGS)))
        infusions.infuse(beds, 0, 240 * there.astype(np.int64), np.full(people.n, 100.0), zeros, DIRTY, rng)
        left.append(rng.random())
    assert left[0] == left[1]


def test_the_sicker_are_measured_more_often() -> None:
    people = people_of(200)
    rows = events.concatenate(chart(people, CLEAN, 48)[1])
    sick = rows.stay >= people.n // 2
    for itemid, least in ((50821, 2.0), (50813, 2.0), (50912, 1.1), (220045, 1.02)):
        of_item = rows.item == items.INDEX[itemid]
        assert (of_item & sick).sum() > least * (of_item & ~sick).sum()


def test_every_hour_has_a_set_of_vital_signs_but_for_trips(clean: Rows, people: Population) -> None:
    heart = (clean.events.item == items.INDEX[220045]) & (clean.events.charted >= 0)
    hours = np.zeros((people.n, HOURS), bool)
    hours[clean.events.stay[heart], clean.events.charted[heart] // 3600] = True
    assert hours.mean() > 0.94


def test_before_the_icu_there_is_laboratory_work_and_little_else() -> None:
    before = events.concatenate(chart(people_of(400), CLEAN, 0)[1])
    table = items.ITEM_TABLE[before.item]
    assert (before.charted < 0).all()
    assert (before.charted >= charting.FIRST_HOUR * 3600).all()
    assert (table == items.TABLES.index("labevents")).mean() > 0.8
    seen = np.unique(before.stay[before.item == items.INDEX[220045]])
    assert 0.08 < len(seen) / 400 < 0.22


def test_other_rows_can_be_left_out_and_nothing_else_changes(people: Population, clean: Rows) -> None:
    bare = events.concatenate(chart(people, CLEAN.model_copy(update={"other_rows": False}))[1])
    notes = np.unique(channels.ITEM[channels.NOTE_COLUMNS])
    kept = events.take(clean.events, ~np.isin(clean.events.item, notes))
    for name in events.Events.__annotations__:
        np.testing.assert_array_equal(getattr(kept, name), getattr(bare, name))


def test_a_higher_intensity_charts_more_of_what_is_on_no_round() -> None:
    people = people_of(150)
    count = {}
    for intensity in (0.5, 1.0, 2.0):
        rows = events.concatenate(chart(people, CLEAN.model_copy(update={"intensity": intensity}))[1])
        count[intensity] = int((rows.item == items.INDEX[50821]).sum())
    assert 1.5 < count[1.0] / count[0.5] < 2.5
    assert 1.3 < count[2.0] / count[1.0] < 2.5


@pytest.mark.parametrize("group", channels.GROUPS)
def test_rows_are_stored_as_late_as_their_group_is(group: channels.Group) -> None:
    rows = events.concatenate(chart(people_of(150), CLEAN)[1])
    item = np.unique(channels.ITEM[channels.GROUP_COLUMNS[group]])
    minutes = (rows.stored - rows.charted)[np.isin(rows.item, item) & (rows.charted >= 0)] / 60
    median, high = channels.DELAY_MINUTES[group]
    assert np.median(minutes) == pytest.approx(median, rel=0.15, abs=1)
    assert np.quantile(minutes, 0.95) == pytest.approx(high, rel=0.3)


def test_hashed_numbers_are_as_good_as_drawn_ones() -> None:
    key = np.random.default_rng(0).integers(0, 2**64, 4000, dtype=np.uint64)
    made = draws.draw(key)
    uniform = np.hstack([made.choice, made.minute, made.chances]).astype(np.float64)
    n, columns = uniform.shape
    assert uniform.min() >= 0
    assert uniform.max() < 1
    counts = np.stack([np.histogram(column, 10, (0, 1))[0] for column in uniform.T])
    assert (((counts - n / 10) ** 2 / (n / 10)).sum(axis=1) < 40).all()
    between = np.corrcoef(uniform.T) - np.eye(columns)
    assert np.abs(between).max() < 5.5 / np.sqrt(n)
    normal, other = draws.cells(np.repeat(key, 20), np.tile(np.arange(20), n))
    assert abs(normal.mean()) < 0.02
    assert normal.std() == pytest.approx(1, abs=0.01)
    assert (normal > 1.6449).mean() == pytest.approx(0.05, abs=0.005)
    assert abs(np.corrcoef(normal, other)[0, 1]) < 0.02
    assert abs(np.corrcoef(normal[:-1], normal[1:])[0, 1]) < 0.02


def test_panels_share_a_specimen_and_gases_say_where_they_are_from(people: Population, clean: Rows) -> None:
    labs = frames(as_tables(people, clean))["labevents"]
    gas = labs[labs["itemid"] == 52033].set_index("specimen_id")["value"]
    assert set(gas) <= {"ART.", "VEN.", "MIX."}
    tension = labs[labs["itemid"] == 50821].set_index("specimen_id")["valuenum"]
    both = pd.concat([gas, tension], axis=1, join="inner")
    arterial = both["value"].astype(str) == "ART."
    assert both[arterial]["valuenum"].median() > 80
    assert both[~arterial]["valuenum"].max() < 55
    per_specimen = labs.groupby("specimen_id")["charttime"].nunique()
    assert (per_specimen == 1).all()
    one_admission = labs.groupby("specimen_id")["hadm_id"].nunique(dropna=False)
    assert (one_admission == 1).all()
    assert 0.1 < labs["hadm_id"].isna().mean() < 0.35


def test_what_an_intubated_patient_says_is_marked_untestable(people: Population, clean: Rows) -> None:
    charted = frames(as_tables(people, clean))["chartevents"]
    verbal = charted[charted["itemid"] == 223900]
    tube = verbal["stay_id"].isin(people.stay_id[people.n // 2 :])
    assert (verbal[tube]["value"] == "No Response-ETT").all()
    assert (verbal[tube]["valuenum"] == 1).all()
    assert (verbal[~tube]["value"] == "Confused").all()


def test_all_urine_made_is_written_down_but_for_what_is_in_the_bag(people: Population, clean: Rows) -> None:
    urine = np.isin(clean.events.item, [items.INDEX[i] for i in (226559, 226560, 227489)])
    irrigant = clean.events.item == items.INDEX[227488]
    volume = np.where(urine, clean.events.value, 0.0) - np.where(irrigant, clean.events.value, 0.0)
    written = np.bincount(clean.events.stay, volume, people.n)
    assert (written <= NORMAL["urine_ml_h"] * HOURS + 3).all()
    assert np.median(written) > NORMAL["urine_ml_h"] * (HOURS - 6)


def test_a_ventilation_begins_in_the_first_hour_and_is_stored_after_its_end(people: Population, clean: Rows) -> None:
    invasive = clean.procedures.item == items.INDEX[225792]
    assert set(clean.procedures.stay[invasive]) == set(range(people.n // 2, people.n))
    assert (clean.procedures.start[invasive] < 3600).all()
    assert (clean.procedures.end[invasive] == HOURS * 3600).all()
    assert (clean.procedures.stored > clean.procedures.end).all()


def test_the_record_read_midway_shows_a_running_ventilation_as_the_whole_one_does(people: Population) -> None:
    beds, parts = chart(people, CLEAN, 12)
    later, more = chart(people, CLEAN, 20)
    states = []
    for b, p, out in ((beds, parts, 12.0), (later, more, 20.0)):
        rows = Rows(events.concatenate(p), orders.empty(), bedside.ventilation(b, np.full(people.n, out)))
        known, _ = mimic_iv.canonical(frames(as_tables(people, rows, out)))
        states.append(
            features.states(tables.check(known), known.stays["intime"].to_numpy(), np.array([12]), GridConfig()).value
        )
    np.testing.assert_array_equal(states[0], states[1])


def test_every_table_has_the_columns_and_types_of_the_layout(people: Population, dirty: Rows) -> None:
    made = as_tables(people, dirty)
    assert set(made) == set(SCHEMAS) - {"icu/d_items", "hosp/d_labitems"}
    for name, table in made.items():
        assert table.schema.names == SCHEMAS[name].names
        plain = table.cast(SCHEMAS[name])
        assert plain.num_rows == table.num_rows


def test_the_dictionary_of_the_source_knows_every_item_it_needs_and_every_unit_written() -> None:
    known = set(dictionary.load("mimic_iv").ids())
    unread = {item.label for item in items.ITEMS if item.itemid not in known}
    needed = [
        channel for channel in channels.CHANNELS
        if channel.signal in channels.SIGNALS and not channel.name.startswith("note_")
    ]  # fmt: skip
    assert not {items.ITEMS[items.INDEX[c.itemid]].label for c in needed} & unread
    spellings = {dictionary.spelling(unit) for unit in _charted_units(needed)}
    understood = {unit for _, unit in dictionary.conversions()} | {
        dictionary.spelling(s) for row in dictionary.units().volumes for s in row.spellings
    }
    assert not spellings - understood


def test_foreign_units_are_known_and_unknown_ones_are_not_so_that_both_paths_are_scored() -> None:
    concept = {i: group.concept for group in dictionary.load("mimic_iv").lab for i in group.ids}
    known = dictionary.conversions()
    for units, expected in ((faults._FOREIGN, True), (faults._UNKNOWN, False)):
        for itemid, (unit, factor) in units.items():
            key = (concept[itemid], dictionary.spelling(unit))
            assert (key in known) is expected
            if expected:
                assert known[key][0] * factor == pytest.approx(1, rel=0.01)


def test_ids_do_not_repeat_across_shards(people: Population, clean: Rows) -> None:
    first, second = (as_tables(people, clean, shard=shard) for shard in (0, 1))
    for table, column in (
        ("hosp/labevents", "labevent_id"),
        ("hosp/labevents", "specimen_id"),
        ("icu/inputevents", "orderid"),
    ):
        mine, other = (set(made[table][column].to_pylist()) for made in (first, second))
        assert not mine & other
    labs = first["hosp/labevents"]
    assert len(set(labs["labevent_id"].to_pylist())) == labs.num_rows


@pytest.mark.parametrize("file_format", ["parquet", "csv.gz"])
def test_the_same_rows_give_the_same_bytes(people: Population, dirty: Rows, tmp_path: Path, file_format: str) -> None:
    digests = []
    for folder in ("a", "b"):
        with Writer(tmp_path / folder, file_format) as writer:  # type: ignore[arg-type]
            writer.write(as_tables(people, dirty))
        digests.append({path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in _files(tmp_path / folder)})
    assert digests[0] == digests[1]
    assert len(digests[0]) == len(SCHEMAS)


def test_both_formats_hold_the_same_rows_in_order_of_the_shards(
    people: Population, dirty: Rows, tmp_path: Path
) -> None:
    for file_format in ("parquet", "csv.gz"):
        with Writer(tmp_path / file_format, file_format) as writer:  # type: ignore[arg-type]
            for shard in (0, 1):
                writer.write(as_tables(people, dirty, shard=shard))
    for name, schema in SCHEMAS.items():
        binary = pq.read_table(tmp_path / "parquet" / f"{name}.parquet").cast(schema)
        types = {field.name: field.type for field in schema}
        options = pacsv.ConvertOptions(column_types=types, strings_can_be_null=True)
        text = pacsv.read_csv(tmp_path / "csv.gz" / f"{name}.csv.gz", convert_options=options)
        assert text.column_names == schema.names
        assert binary.num_rows == text.num_rows > 0
        for field in schema:
            left, right = binary[field.name].to_pandas(), text[field.name].to_pandas()
            pd.testing.assert_series_equal(left, right, check_dtype=False, rtol=1e-12)


def test_a_fault_rate_out_of_bounds_or_misspelt_is_refused() -> None:
    for wrong in ({"duplicate": -0.1}, {"duplicate": 0.9}, {"dupliacte": 0.1}):
        with pytest.raises(ValidationError):
            FaultConfig(**wrong)


def _files(folder: Path) -> Iterator[Path]:
    return folder.rglob("*.*")


def _no_events(people: Population) -> events.Events:
    none = events.concatenate(chart(people_of(2), CLEAN, -5)[1])
    assert people.n
    return events.take(none, np.zeros(none.n, bool))


def _no_procedures() -> bedside.Procedures:
    return bedside.Procedures(*(np.zeros(0, np.int64) for _ in bedside.Procedures.__annotations__))


def _of_stays(rows: events.Events, stays: np.ndarray) -> events.Events:
    chosen = events.take(rows, np.isin(rows.stay, stays))
    order = np.lexsort((chosen.fault, chosen.specimen, chosen.value, chosen.item, chosen.charted, chosen.stay))
    return events.take(chosen, order)


def _pairs(rows: events.Events, chosen: np.ndarray) -> Iterator[tuple[int, int]]:
    return zip(rows.item[chosen].tolist(), rows.unit[chosen].tolist(), strict=True)


def _followed(rows: orders.Infusions) -> int:
    """Rows that another of their own order follows within the window."""
    window = rows.start // (4 * 3600)
    ends = set(zip(rows.link.tolist(), rows.start.tolist(), window.tolist(), strict=True))
    inside = zip(rows.link.tolist(), rows.end.tolist(), window.tolist(), strict=True)
    return sum(key in ends for key in inside)


def _stops(people: Population) -> int:
    """Drugs that ran in one window and no longer in the next, the patient being there."""
    _, rates, minutes = wanted(people.n, 4)
    on = (rates > 0) & (minutes > 0)[:, :, None]
    return int((on[:-1] & ~on[1:] & (minutes[1:] > 0)[:, :, None]).sum())


def _charted_units(needed: list[channels.Channel]) -> set[str]:
    units = {items.ITEMS[items.INDEX[channel.itemid]].unit for channel in needed}
    return {unit for unit in units if unit is not None}
