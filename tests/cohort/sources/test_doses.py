"""Doses: units, weights, tonicity, overlaps and CareVue's rates, by hand."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from cohort import tables
from cohort.sources import mimic_iii, mimic_iv

Hospital = Callable[..., dict[str, pd.DataFrame]]
START, END = "2150-01-01 14:00", "2150-01-01 16:00"


def given(raw: dict[str, pd.DataFrame]) -> tuple[pd.DataFrame, dict[tuple[str, str], int]]:
    canonical, counts = mimic_iv.canonical(raw)
    return tables.check(canonical).infusions, dict(counts)


def order(
    item: int, rate: float | None, unit: str | None, amount: float | None = None, amount_unit: str | None = None,
    weight: float | None = None, start: str | None = START, end: str | None = END, link: int = 1,
    status: str = "FinishedRunning", number: int = 1,
) -> tuple[object, ...]:  # fmt: skip
    return (100, item, start, end, amount, amount_unit, rate, unit, number, link, weight, status)


@pytest.mark.parametrize(
    ("item", "rate", "unit", "weight", "expected"),
    [
        (221906, 0.1, "mcg/kg/min", 80.0, 0.1),
        (221906, 0.1, "mcgkgmin", 80.0, 0.1),
        (221906, 8.0, "mcg/min", 80.0, 0.1),
        (221749, 200.0, "mcgmin", 100.0, 2.0),
        (221906, 0.0001, "mg/kg/min", 80.0, 0.1),
        (221906, 0.1, "mg/kg/min", 1.0, 0.1),  # a weight of 1: the label is wrong, not the number
        (221289, 0.48, "mg/hour", 80.0, 0.1),
        (221662, 5.0, "mcg/kg/min", None, 5.0),
        (229709, 20.0, "ng/kg/min", 80.0, 0.02),
        (221653, 5.0, "mcg/kg/min", None, 5.0),
        (222315, 2.4, "units/hour", 80.0, 0.04),
        (222315, 0.04, "units/min", 80.0, 0.04),
        (222315, 0.2, "units/min", 80.0, 0.2),
        (222315, 2.4, "units/min", 80.0, 0.04),  # above 0.2 it was an hour's
        (222315, 24.0, "units/hour", 80.0, 0.4),  # a true 24 U/h stays
    ],
)
def test_a_drug_s_rate_is_brought_to_its_canonical_unit(
    hospital: Hospital, item: int, rate: float, unit: str, weight: float | None, expected: float
) -> None:
    found, _ = given(hospital(inputevents=[order(item, rate, unit, weight=weight)]))
    assert found["normalised_rate"].tolist() == pytest.approx([expected])


def test_a_dose_per_minute_uses_the_row_s_weight_else_the_last_charted_else_80_kg_flagged(hospital: Hospital) -> None:
    chart = [(100, 226512, "2150-01-01 13:00", "2150-01-01 13:05", None, 50.0, "kg"),
             (100, 224639, "2150-01-01 15:00", "2150-01-01 15:05", None, 200.0, "kg")]  # fmt: skip
    rows = [
        order(221906, 100.0, "mcg/min", weight=100.0, start="2150-01-01 15:00"),
        order(221749, 100.0, "mcg/min", weight=0.0),  # no weight at all: the last that was known
    ]
    found, _ = given(hospital(inputevents=rows, chartevents=chart))
    assert found.set_index("item_id")["normalised_rate"].to_dict() == {221906: 1.0, 221749: 2.0}
    assert not found["weight_assumed"].any()
    found, counts = given(hospital(inputevents=rows[1:]))
    assert found["normalised_rate"].tolist() == [1.25]
    assert found["weight_kg"].tolist() == [80.0]
    assert found["weight_assumed"].all()
    assert counts == {
        ("inputevents", "drug: no weight, 80 kg assumed"): 1,
        ("inputevents", "drug: implausible weight not used"): 1,
    }


@pytest.mark.parametrize(
    ("item", "amount", "unit", "total"),
    [
        (225158, 1000.0, "mL", 1000.0),
        (225158, 1.0, "L", 1000.0),
        (225158, 1000.0, None, 1000.0),
        (225159, 1000.0, "ml", 500.0),
        (225941, 1000.0, "ml", 250.0),
        (225161, 100.0, "ml", 300.0),
        (220862, 100.0, "ml", 500.0),
        (220995, 100.0, "mEq", 666.0),
        (227533, 50.0, "ml", 333.0),
        (228341, 10.0, "ml", 80.0),
        (227531, 50.0, "grams", 916.67),
    ],
)
def test_the_whole_tonicity_adjusted_volume_of_a_fluid_is_given(
    hospital: Hospital, item: int, amount: float, unit: str | None, total: float
) -> None:
    found, _ = given(hospital(inputevents=[order(item, None, None, amount, unit)]))
    hours = (found["end"] - found["start"]) / pd.Timedelta(hours=1)
    assert (found["normalised_rate"] * hours).tolist() == pytest.approx([total], rel=1e-4)
    assert found["drug"].tolist() == ["fluid"]


def test_dextrose_is_named_apart(hospital: Hospital) -> None:
    found, _ = given(hospital(inputevents=[order(220949, 50.0, "mL/hour", 100.0, "ml")]))
    assert found[["drug", "normalised_rate"]].to_numpy().tolist() == [["d5w", 50.0]]


def test_a_fluid_without_an_amount_runs_at_its_rate(hospital: Hospital) -> None:
    found, _ = given(hospital(inputevents=[order(225159, 100.0, "mL/hour")]))
    assert found["normalised_rate"].tolist() == [50.0]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (order(225158, None, None), "fluid: neither amount nor rate"),
        (order(221906, None, None), "drug: neither amount nor rate"),
        (order(221906, 0.1, "mcg/kg/min", start=END, end=START), "drug: end not after start"),
        (order(225158, None, None, 100.0, "ml", start=END, end=START), "fluid: end not after start"),
        (order(221906, 0.1, "mcg/kg/min", end=START), "drug: end not after start"),
        (order(221906, 0.1, "mcg/kg/min", end=None), "drug: start or end missing"),
        (order(221906, 0.1, "mcg/kg/min", status="Rewritten"), "rewritten: replaced by another row"),
    ],
)
def test_a_row_that_is_not_used_is_counted_by_its_reason(
    hospital: Hospital, row: tuple[object, ...], reason: str
) -> None:
    found, counts = given(hospital(inputevents=[row]))
    assert found.empty
    assert counts == {("inputevents", reason): 1}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (order(225158, None, None, 100.0, "drops"), "fluid: unit not known"),
        (order(221906, 0.1, "furlong"), "drug: unit not known"),
        (order(221906, 0.1, None), "drug: unit not known"),
        (order(221906, 0.1, "units/hour"), "drug: unit not known"),
        (order(221906, -0.1, "mcg/kg/min"), "drug: negative amount or rate"),
        (order(225158, None, None, -100.0, "ml"), "fluid: negative amount or rate"),
        (order(221906, np.inf, "mcg/kg/min"), "drug: amount or rate not finite"),
    ],
)
def test_a_dose_that_cannot_be_read_keeps_its_times_and_is_counted(
    hospital: Hospital, row: tuple[object, ...], reason: str
) -> None:
    found, counts = given(hospital(inputevents=[row]))
    assert found["normalised_rate"].isna().tolist() == [True]
    assert (found["end"] > found["start"]).all()
    assert counts == {("inputevents", reason): 1}


def test_a_drug_without_a_rate_is_given_as_its_amount_over_its_duration(hospital: Hospital) -> None:
    found, counts = given(hospital(inputevents=[order(221906, None, None, 0.96, "mg", weight=80.0)]))
    assert found["normalised_rate"].tolist() == pytest.approx([0.1])  # 960 ug in 120 minutes to 80 kg
    assert counts == {("inputevents", "drug: no rate, its amount over its duration used"): 1}


def test_overlapping_rows_of_one_chain_of_orders_give_nothing_twice(hospital: Hospital) -> None:
    rows = [
        order(221906, 0.1, "mcg/kg/min", start="2150-01-01 14:00", end="2150-01-01 15:30", number=1),
        order(221906, 0.2, "mcg/kg/min", start="2150-01-01 15:00", end="2150-01-01 16:00", number=2),
        order(221906, 0.2, "mcg/kg/min", start="2150-01-01 15:00", end="2150-01-01 16:00", number=2),
        order(221906, 0.3, "mcg/kg/min", start="2150-01-01 15:30", end="2150-01-01 16:00", link=2, number=3),
    ]
    found, counts = given(hospital(inputevents=rows))
    assert [(s.hour + s.minute / 60, e.hour + e.minute / 60, r) for s, e, r in zip(
        found["start"], found["end"], found["normalised_rate"], strict=True
    )] == [(14, 15, 0.1), (15, 16, 0.2), (15.5, 16, 0.3)]  # fmt: skip
    assert counts == {
        ("inputevents", "overlaps a later row of its order: clipped"): 1,
        ("inputevents", "overlaps a later row of its order: dropped"): 1,
    }


def test_a_clipped_fluid_keeps_its_rate_and_loses_the_overlapping_volume(hospital: Hospital) -> None:
    rows = [
        order(225158, None, None, 300.0, "ml", start="2150-01-01 14:00", end="2150-01-01 17:00"),
        order(225158, None, None, 100.0, "ml", start="2150-01-01 16:00", end="2150-01-01 17:00"),
    ]
    found, _ = given(hospital(inputevents=rows))
    assert found["normalised_rate"].tolist() == [100.0, 100.0]
    assert (found["end"] - found["start"]).dt.total_seconds().tolist() == [7200.0, 3600.0]


def test_the_weights_of_infusion_rows_are_observed_once_a_day_from_their_start(hospital: Hospital) -> None:
    rows = [
        order(225158, None, None, 1.0, "ml", weight=81.0, start="2150-01-01 15:00"),
        order(225158, None, None, 1.0, "ml", weight=81.0, start="2150-01-01 14:00"),
        order(225158, None, None, 1.0, "ml", weight=81.0, start="2150-01-02 14:00", end="2150-01-02 16:00"),
        order(225158, None, None, 1.0, "ml", weight=5.0, start="2150-01-02 15:00", end="2150-01-02 16:00"),
    ]
    canonical, _ = mimic_iv.canonical(hospital(inputevents=rows))
    found = canonical.observations
    assert found["concept"].tolist() == ["weight_kg"] * 2
    assert found["available"].dt.strftime("%d %H").tolist() == ["01 14", "02 14"]


def test_urine_is_signed_limited_and_known_once_stored(hospital: Hospital) -> None:
    rows = [
        (100, 226559, START, "2150-01-01 14:20", 100.0, "mL"),
        (100, 227488, START, "2150-01-01 14:20", 300.0, "ml"),
        (100, 227489, START, None, 400.0, None),
        (100, 226559, END, None, 5001.0, "mL"),
        (100, 226559, END, None, -1.0, "mL"),
        (100, 226559, END, None, 10.0, "furlong"),
        (100, 226559, END, None, None, "mL"),
        (100, 226559, START, "2150-01-01 14:20", 100.0, "mL"),
    ]
    canonical, counts = mimic_iv.canonical(hospital(outputevents=rows))
    found = tables.check(canonical).outputs
    known = zip(found["volume_ml"], found["available"].dt.strftime("%H:%M"), strict=True)
    assert sorted(known) == [(-300, "14:20"), (100, "14:20"), (400, "14:17")]
    assert {reason: count for (_, reason), count in counts.items()} == {
        "urine: above 5000 mL": 1,
        "urine: negative": 1,
        "urine: unit not known": 1,
        "urine: value missing": 1,
        "urine: repeated row": 1,
        "storing time missing, a usual delay assumed": 1,
    }


def carevue(rows: list[tuple[object, ...]], chart: list[tuple[object, ...]] | None = None) -> tuple[
    pd.DataFrame, dict[tuple[str, str], int]
]:  # fmt: skip
    """Canonical infusions of CareVue rows: item, time, amount, its unit, rate, its unit, order, stopped."""
    time = "datetime64[us]"
    begin, end = (pd.Series([day], dtype=time) for day in ("2150-01-01 12:00", "2150-01-03 12:00"))
    raw = {
        "icustays": pd.DataFrame({
            "subject_id": [1], "hadm_id": [10], "icustay_id": [100], "dbsource": ["carevue"],
            "first_careunit": ["MICU"], "intime": begin, "outtime": end,
        }),
        "patients": pd.DataFrame({"subject_id": [1], "gender": ["F"], "dob": pd.Series(["2090-01-01"], dtype=time),
                                  "dod": pd.Series([None], dtype=time)}),
        "admissions": pd.DataFrame({
            "subject_id": [1], "hadm_id": [10], "admittime": pd.Series(["2150-01-01"], dtype=time),
            "dischtime": pd.Series(["2150-01-05"], dtype=time), "deathtime": pd.Series([None], dtype=time),
            "ethnicity": ["WHITE"], "hospital_expire_flag": [0],
        }),
        "chartevents": pd.DataFrame(chart or [], columns=[
            "icustay_id", "itemid", "charttime", "storetime", "value", "valuenum", "valueuom", "error"
        ]).astype({"charttime": time, "storetime": time, "itemid": "int64", "icustay_id": "int64", "error": "float64"}),
        "inputevents_mv": pd.DataFrame({name: [] for name in (
            "icustay_id", "itemid", "starttime", "endtime", "amount", "amountuom", "rate", "rateuom", "orderid",
            "linkorderid", "patientweight", "statusdescription")}).astype({"icustay_id": "int64", "itemid": "int64"}),
        "inputevents_cv": pd.DataFrame([(100, *row) for row in rows], columns=[
            "icustay_id", "itemid", "charttime", "amount", "amountuom", "rate", "rateuom", "orderid", "stopped"
        ]).astype({"charttime": time, "amount": "float64", "rate": "float64"}),
    }  # fmt: skip
    canonical, counts = mimic_iii.canonical(raw)
    return tables.check(canonical).infusions, dict(counts)


def rate(time: str, value: float | None, stopped: str | None = None, item: int = 30120) -> tuple[object, ...]:
    unit = None if value is None else "mcgkgmin"
    return (item, f"2150-01-01 {time}", None, None, value, unit, 1, stopped)


def spans(found: pd.DataFrame) -> list[tuple[str, str, float]]:
    return [
        (f"{s:%H:%M}", f"{e:%H:%M}", r)
        for s, e, r in zip(found["start"], found["end"], found["normalised_rate"], strict=True)
    ]


def test_carevue_s_rate_holds_to_the_next_row_or_two_hours(  # and a row without a rate is no stop
) -> None:
    found, counts = carevue([rate("14:00", 0.1), rate("14:30", None), rate("15:00", 0.2), rate("20:00", 0.1)])
    assert spans(found) == [("14:00", "15:00", 0.1), ("15:00", "17:00", 0.2), ("20:00", "22:00", 0.1)]
    assert counts["inputevents_cv", "drug: row without a rate, stops nothing"] == 1
    assert counts["inputevents_cv", "drug: rate cut after 2 h without a row"] == 2


@pytest.mark.parametrize("word", ["Stopped", "D/C'd"])
def test_carevue_s_stop_ends_a_rate(word: str) -> None:
    found, _ = carevue([rate("14:00", 0.1), rate("14:40", None, word)])
    assert spans(found) == [("14:00", "14:40", 0.1)]


def test_carevue_s_stop_that_still_names_the_rate_is_a_stop() -> None:
    found, _ = carevue([rate("14:00", 0.1), rate("14:40", 0.1, "Stopped")])
    assert spans(found) == [("14:00", "14:40", 0.1)]


def test_carevue_s_rate_of_zero_ends_a_rate_and_is_no_dose() -> None:
    found, _ = carevue([rate("14:00", 0.1), rate("14:40", 0.0)])
    assert spans(found)[0] == ("14:00", "14:40", 0.1)
    assert (found["normalised_rate"].iloc[1:] == 0).all()


def test_carevue_s_stop_of_an_old_bag_gives_way_to_a_rate_at_the_same_moment() -> None:
    found, _ = carevue([rate("14:00", 0.1), rate("15:00", None, "D/C'd"), rate("15:00", 0.2), rate("16:00", 0.0)])
    assert spans(found)[:2] == [("14:00", "15:00", 0.1), ("15:00", "16:00", 0.2)]


def test_another_item_of_the_same_drug_takes_over() -> None:
    chart = [(100, 762, "2150-01-01 13:00", "2150-01-01 13:05", None, 50.0, "kg", None)]
    found, _ = carevue(
        [rate("14:00", 0.1), (30047, "2150-01-01 15:00", None, None, 10.0, "mcgmin", 2, None), rate("16:00", 0.0)],
        chart,
    )
    assert spans(found)[:2] == [("14:00", "15:00", 0.1), ("15:00", "16:00", 0.2)]


def test_carevue_s_vasopressin_above_a_fifth_is_an_hour_s() -> None:
    row = (30051, "2150-01-01 14:00", None, None, 1.2, "Umin", 1, None)
    found, counts = carevue([row])
    assert found["normalised_rate"].tolist() == pytest.approx([0.02])
    assert counts["inputevents_cv", "vasopressin: U/min above 0.2 read as U/h"] == 1


def test_carevue_s_fluids_are_given_whole_within_the_minute() -> None:
    rows = [
        (30018, "2150-01-01 14:00", 250.0, "ml", None, None, 1, None),
        (30018, "2150-01-01 14:00", 250.0, "ml", None, None, 1, None),  # the same row twice
        (30030, "2150-01-01 15:00", 10.0, "mEq", None, None, 2, None),
        (30009, "2150-01-01 16:00", 100.0, "ml", None, None, 3, None),
    ]
    found, counts = carevue(rows)
    hours = (found["end"] - found["start"]) / pd.Timedelta(hours=1)
    assert (found["normalised_rate"] * hours).tolist() == pytest.approx([250.0, 66.6, 500.0])
    assert counts == {("inputevents_cv", "fluid: repeated row"): 1}


def test_another_stay_s_weight_is_not_borrowed(hospital: Hospital) -> None:
    icu = [(1, 10, 100, "MICU", "2150-01-01 12:00", "2150-01-03 12:00"),
           (2, 11, 101, "MICU", "2150-01-01 12:00", "2150-01-03 12:00")]  # fmt: skip
    raw = hospital(
        icustays=icu,
        patients=[(1, "M", 60, 2148, None), (2, "F", 60, 2148, None)],
        admissions=[(k, 9 + k, "2150-01-01 08:00", "2150-01-05 08:00", None, "WHITE", 0) for k in (1, 2)],
        chartevents=[(100, 226512, "2150-01-01 13:00", "2150-01-01 13:05", None, 50.0, "kg")],
        inputevents=[(101, *order(221906, 80.0, "mcg/min")[1:])],
    )
    found, _ = given(raw)
    assert found["normalised_rate"].tolist() == [1.0]
    assert found["weight_assumed"].all()
