"""Charted and laboratory values: units, plausibility, text, specimens, clocks and repetitions, by hand."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from cohort import tables
from cohort.sources import mimic_iv

Hospital = Callable[..., dict[str, pd.DataFrame]]
T = "2150-01-01 18:00"


def observed(raw: dict[str, pd.DataFrame]) -> tuple[pd.DataFrame, dict[tuple[str, str], int]]:
    canonical, counts = mimic_iv.canonical(raw)
    return tables.check(canonical).observations, dict(counts)


def chart(item: int, value: float | None, unit: str | None, text: str | None = None) -> tuple[object, ...]:
    return (100, item, T, "2150-01-01 18:10", text, value, unit)


@pytest.mark.parametrize(
    ("item", "value", "unit", "expected"),
    [
        (220045, 80, "bpm", 80),
        (220045, 80, None, 80),
        (223762, 37, "°C", 37),
        (223761, 98.6, "°F", 37),
        (223761, 98.6, "?F", 37),
        (223761, 98.6, None, 37),
        (223761, 98.6, "Deg. F", 37),
        (223761, 37.0, "°F", 37),  # Celsius under the Fahrenheit item
        (223762, 98.6, "°C", 37),  # Fahrenheit under the Celsius item
        (223761, 37.0, "°C", 37),
        (223835, 40, None, 0.4),
        (223835, 40, "%", 0.4),
        (223835, 0.4, None, 0.4),
        (223835, 1, None, 1.0),
        (223835, 20, None, 0.2),
        (226512, 80, "kg", 80),
        (226531, 176.37, None, 80),
        (226531, 176.37, "lbs", 80),
        (226512, 80000, "g", 80),
        (220074, 10, "cmH2O", 7.3556),
        (220179, 16, "kPa", 120.01),
        (220339, 5, "cmH2O", 1),
    ],
)
def test_a_charted_value_is_brought_to_its_canonical_unit(
    hospital: Hospital, item: int, value: float, unit: str | None, expected: float
) -> None:
    found, _ = observed(hospital(chartevents=[chart(item, value, unit)]))
    assert found["value"].tolist() == pytest.approx([expected], rel=1e-4)


@pytest.mark.parametrize(
    ("item", "value", "unit", "expected"),
    [
        (50912, 88.4, "umol/L", 1.0),
        (50912, 1.0, "MG/DL", 1.0),
        (50931, 5.55, "mmol/L", 100.0),
        (50885, 17.1, "µmol/L", 1.0),
        (51006, 5.0, "mmol/L", 14.0),
        (50893, 2.25, "mmol/L", 9.018),
        (50813, 18.0, "mg/dL", 2.0),
        (51222, 120, "g/L", 12.0),
        (50971, 4.0, "mmol/L", 4.0),
        (51265, 200, "K/uL", 200),
        (50816, 50, "%", 0.5),
        (50816, 50, None, 0.5),
    ],
)
def test_a_laboratory_value_is_brought_to_its_canonical_unit(
    hospital: Hospital, item: int, value: float, unit: str | None, expected: float
) -> None:
    raw = hospital(labevents=[(1, 7, item, T, "2150-01-01 19:00", None, value, unit)])
    assert observed(raw)[0]["value"].tolist() == pytest.approx([expected], rel=2e-3)


@pytest.mark.parametrize(
    ("item", "value", "unit", "reason"),
    [
        (220045, 80, "furlong", "heart_rate: unit not known"),
        (220277, 97, "mmHg", "spo2: unit not known"),
        (220045, 0, "bpm", "heart_rate: out of range"),
        (220045, 251, "bpm", "heart_rate: out of range"),
        (220045, -5, "bpm", "heart_rate: out of range"),
        (220045, None, "bpm", "heart_rate: value missing"),
        (220045, np.inf, "bpm", "heart_rate: value not finite"),
        (223835, 5, None, "fio2: 1-20 is litres a minute, not a fraction"),
        (223835, 101, None, "fio2: out of range"),
        (223761, 60, "°F", "temperature_c: out of range"),
        (220339, 0, "cmH2O", "mechanical_ventilation: zero proves nothing"),
        (226512, 0, "kg", "weight_kg: out of range"),
    ],
)
def test_a_value_that_is_not_used_is_counted_by_its_reason(
    hospital: Hospital, item: int, value: float | None, unit: str, reason: str
) -> None:
    found, counts = observed(hospital(chartevents=[chart(item, value, unit)]))
    assert found.empty
    assert counts == {("chartevents", reason): 1}


@pytest.mark.parametrize(
    ("item", "value", "unit", "reason"),
    [
        (223761, 37.0, "°F", "temperature_c: recorded in the other scale"),
        (223761, 37.0, "°C", "temperature_c: converted from another unit than usual"),
        (223835, 0.5, None, "fio2: fraction where percent is usual, or the reverse"),
        (226512, 176, "lb", "weight_kg: converted from another unit than usual"),
    ],
)
def test_a_value_that_was_changed_is_counted(
    hospital: Hospital, item: int, value: float, unit: str | None, reason: str
) -> None:
    found, counts = observed(hospital(chartevents=[chart(item, value, unit)]))
    assert len(found) == 1
    assert counts == {("chartevents", reason): 1}


def test_an_untestable_verbal_response_keeps_its_text_and_has_no_value(hospital: Hospital) -> None:
    rows = [chart(223900, 1, None, "No Response-ETT"), chart(223901, 6, None, "Obeys Commands")]
    found, _ = observed(hospital(chartevents=rows))
    verbal = found[found["concept"] == "gcs_verbal"].iloc[0]
    assert np.isnan(verbal["value"])
    assert verbal["text"] == "No Response-ETT"
    motor = found[found["concept"] == "gcs_motor"].iloc[0]
    assert motor["value"] == 6
    assert pd.isna(motor["text"])


def test_a_verbal_response_of_none_stays_a_one(hospital: Hospital) -> None:
    found, _ = observed(hospital(chartevents=[chart(223900, 1, None, "No Response")]))
    assert found["value"].tolist() == [1]


@pytest.mark.parametrize(
    ("item", "text", "evidence"),
    [
        (226732, "Endotracheal tube", [1.0]),
        (226732, "Nasal cannula", [0.0]),
        (226732, "None", [0.0]),
        (226732, "Other", []),
        (223849, "CMV/ASSIST", [1.0]),
        (223849, "Standby", [0.0]),
    ],
)
def test_devices_and_modes_tell_of_ventilation(hospital: Hospital, item: int, text: str, evidence: list[float]) -> None:
    found, _ = observed(hospital(chartevents=[chart(item, None, None, text)]))
    assert found[found["concept"] == "mechanical_ventilation"]["value"].tolist() == evidence
    devices = found[found["concept"] == "o2_device"]
    assert devices["text"].tolist() == ([text] if item == 226732 else [])


def test_invasive_ventilation_is_restated_every_four_hours_and_ends_with_a_zero(hospital: Hospital) -> None:
    raw = hospital(procedureevents=[(100, 225792, "2150-01-01 14:00", "2150-01-01 23:00")])
    found, _ = observed(raw)
    assert found["charted"].dt.hour.tolist() == [14, 18, 22, 23]
    assert found["value"].tolist() == [1, 1, 1, 0]
    assert (found["available"] == found["charted"]).all()


def test_a_ventilation_that_goes_on_in_the_next_row_has_no_zero_between(hospital: Hospital) -> None:
    first, second = "2150-01-01 14:00", "2150-01-01 16:00"
    raw = hospital(procedureevents=[(100, 225792, first, second), (100, 225792, second, "2150-01-01 18:00")])
    assert observed(raw)[0]["value"].tolist() == [1, 1, 0]


def test_a_mask_s_pressure_is_no_evidence_of_invasive_ventilation(hospital: Hospital) -> None:
    raw = hospital(
        chartevents=[chart(220339, 5, "cmH2O")],
        procedureevents=[(100, 225794, "2150-01-01 17:00", "2150-01-01 19:00")],
    )
    found, counts = observed(raw)
    assert found["value"].tolist() == [0]
    assert counts["chartevents", "mechanical_ventilation: by mask, not invasive"] == 1


def gas(specimen: int, label: str | None, item: int = 50821, minute: int = 0) -> list[tuple[object, ...]]:
    time = f"2150-01-01 18:{minute:02d}"
    rows: list[tuple[object, ...]] = [(1, specimen, item, time, "2150-01-01 18:50", None, 90.0, "mm Hg")]
    return rows if label is None else [*rows, (1, specimen, 52033, time, "2150-01-01 18:50", label, None, None)]


def test_oxygen_is_kept_only_from_specimens_recorded_as_arterial(hospital: Hospital) -> None:
    rows = [*gas(1, "ART.", minute=1), *gas(2, "VEN.", minute=2), *gas(3, None, minute=3), *gas(4, "VEN.", 50820, 4)]
    rows[-2] = (1, 4, 50820, "2150-01-01 18:04", "2150-01-01 18:50", None, 7.3, "units")
    found, counts = observed(hospital(labevents=rows))
    assert found[["concept", "specimen_id"]].to_numpy().tolist() == [["ph", 4], ["pao2", 1]]
    assert counts["labevents", "pao2: not recorded as arterial"] == 2


def test_a_specimen_that_is_called_two_things_is_not_arterial(hospital: Hospital) -> None:
    rows = [*gas(1, "ART.", minute=1), gas(1, "VEN.", minute=1)[1]]
    found, counts = observed(hospital(labevents=rows))
    assert found.empty
    assert counts == {("labevents", "pao2: not recorded as arterial"): 1}


def test_each_class_of_item_has_its_clock(hospital: Hospital) -> None:
    raw = hospital(
        chartevents=[
            (100, 220045, T, "2150-01-01 20:00", None, 80.0, "bpm"),  # a monitor's value is there when charted
            (100, 220045, "2150-01-01 19:00", "2150-01-01 18:30", None, 81.0, "bpm"),
            (100, 220739, T, "2150-01-01 20:00", None, 4.0, None),
            (100, 220739, "2150-01-01 21:00", "2150-01-01 20:30", None, 3.0, None),  # stored before it was charted
            (100, 220739, "2150-01-01 22:00", None, None, 2.0, None),
        ],
        labevents=[
            (1, 1, 50912, T, "2150-01-01 19:05", None, 1.0, "mg/dL"),
            (1, 2, 50912, "2150-01-01 19:00", None, None, 1.1, "mg/dL"),
            (1, 3, 50813, "2150-01-01 19:00", None, None, 1.1, "mmol/L"),
        ],
    )
    found, counts = observed(raw)
    known = found.set_index(["concept", "value"])["available"].dt.strftime("%H:%M").to_dict()
    assert known == {
        ("heart_rate", 80.0): "18:00",
        ("heart_rate", 81.0): "19:00",
        ("gcs_eye", 4.0): "20:00",
        ("gcs_eye", 3.0): "21:00",
        ("gcs_eye", 2.0): "22:10",
        ("creatinine", 1.0): "19:05",
        ("creatinine", 1.1): "20:10",
        ("lactate", 1.1): "19:05",
    }
    assert counts["labevents", "storing time missing, a usual delay assumed"] == 2


def test_a_row_that_is_there_twice_counts_once_and_is_known_from_the_earlier(hospital: Hospital) -> None:
    rows = [
        (100, 220739, T, "2150-01-01 20:00", None, 4.0, None),
        (100, 220739, T, "2150-01-01 19:00", None, 4.0, None),
        (100, 220739, T, "2150-01-01 19:00", None, 3.0, None),
    ]
    found, counts = observed(hospital(chartevents=rows))
    assert found["value"].tolist() == [3, 4]
    assert found["available"].dt.hour.tolist() == [19, 19]
    assert counts == {("observations", "gcs_eye: repeated row"): 1}


def test_equal_pressures_of_two_cuffs_are_no_repetition(hospital: Hospital) -> None:
    found, counts = observed(hospital(chartevents=[chart(220050, 120, "mmHg"), chart(220179, 120, "mmHg")]))
    assert len(found) == 2
    assert counts == {}


def test_events_of_no_stay_or_far_from_it_are_counted(hospital: Hospital) -> None:
    rows = [
        (999, 220045, T, T, None, 80.0, "bpm"),
        (100, 220045, "2149-12-31 11:59", T, None, 80.0, "bpm"),
        (100, 220045, "2150-01-04 12:00", T, None, 80.0, "bpm"),
        (100, 220045, None, T, None, 80.0, "bpm"),
        (100, 220045, "2149-12-31 12:00", T, None, 80.0, "bpm"),
    ]
    found, counts = observed(hospital(chartevents=rows))
    assert len(found) == 1
    assert counts == {
        ("chartevents", "outside every stay"): 1,
        ("chartevents", "more than 24 h outside its stay"): 2,
        ("chartevents", "charting time missing"): 1,
    }


def test_items_that_mean_no_concept_are_left_out(hospital: Hospital) -> None:
    assert observed(hospital(chartevents=[chart(1, 80, "bpm"), chart(10**9, 80, "bpm")]))[0].empty


def test_the_order_of_rows_changes_nothing(hospital: Hospital) -> None:
    rng = np.random.default_rng(0)
    rows = [
        (100, int(item), f"2150-01-01 {hour:02d}:00", f"2150-01-01 {hour:02d}:30", None, float(value), None)
        for item, hour, value in zip(
            rng.choice([220045, 220179, 220050, 220739], 200), rng.integers(12, 24, 200), rng.integers(2, 6, 200),
            strict=True,
        )
    ]  # fmt: skip
    raw = hospital(chartevents=rows)
    shuffled = {name: frame.sample(frac=1, random_state=1) for name, frame in raw.items()}
    first, second = mimic_iv.canonical(raw), mimic_iv.canonical(shuffled)
    pd.testing.assert_frame_equal(first[0].observations, second[0].observations, check_categorical=False)
    assert first[1] == second[1]


def test_microseconds_over_centuries_are_ordered_like_seconds(hospital: Hospital) -> None:
    years = range(1800, 2200, 10)
    stays = [(1, 10, year, "MICU", f"{year}-01-01 12:00", f"{year}-01-03 12:00") for year in years]
    rows = [
        (year, 220045, f"{year}-01-01 13:00:00.{micros}", None, None, value, None)
        for year in years
        for micros, value in (("000001", 82.0), ("000000", 81.0), ("500000", 83.0))
    ]
    found, _ = observed(hospital(icustays=stays, chartevents=rows))
    assert found["stay_id"].tolist() == [year for year in years for _ in range(3)]
    assert found["value"].tolist() == [81, 82, 83] * len(years)


def test_what_was_stored_before_it_was_charted_is_counted_and_the_later_time_counts(hospital: Hospital) -> None:
    early = (1, 1, 50971, "2150-01-01 18:00", "2150-01-01 17:00", "4.0", 4.0, "mEq/L")
    late = (1, 1, 50971, "2150-01-01 19:00", "2150-01-01 20:00", "4.0", 4.0, "mEq/L")
    raw = hospital(
        labevents=[early, late],
        chartevents=[(100, 220045, "2150-01-01 18:00", "2150-01-01 17:59", "80", 80.0, "bpm")],
        outputevents=[(100, 226559, "2150-01-01 18:00", "2150-01-01 17:00", 100.0, "mL")],
    )
    made, counts = mimic_iv.canonical(raw)
    assert counts["labevents", "potassium: stored before it was charted"] == 1
    assert counts["chartevents", "heart_rate: stored before it was charted"] == 1
    assert counts["outputevents", "urine: stored before it was charted"] == 1
    assert (made.observations["available"] >= made.observations["charted"]).all()
    assert (made.outputs["available"] == made.outputs["charted"]).all()


@pytest.mark.parametrize(
    ("kg", "used"),
    [
        ([80.0, 176.4, 81.0], [80.0, 81.0]),
        ([80.0, 81.0, 176.4, 178.6], [80.0, 81.0]),
        ([36.3, 80.0, 80.5], [36.3, 80.5]),  # kilograms divided by 2.2 come first: a third weight decides
        ([176.4, 80.0, 80.0, 176.4], [176.4, 80.0, 80.0]),
        ([80.0, 160.0, 100.0], [80.0, 160.0, 100.0]),
    ],
)
def test_pounds_under_kilograms_are_told_by_the_stay_s_earlier_weights(
    hospital: Hospital, kg: list[float], used: list[float]
) -> None:
    rows = [
        (100, 224639, f"2150-01-01 {13 + hour}:00", f"2150-01-01 {13 + hour}:00", str(value), value, "kg")
        for hour, value in enumerate(kg)
    ]
    made, counts = mimic_iv.canonical(hospital(chartevents=rows))
    assert made.observations["value"].tolist() == used
    lost = sum(n for (_, reason), n in counts.items() if "pounds" in reason)
    assert lost == len(kg) - len(used)
    for known in range(1, len(kg)):  # what comes later changes nothing
        before = mimic_iv.canonical(hospital(chartevents=rows[:known]))[0].observations["value"].tolist()
        assert before == used[: len(before)]
