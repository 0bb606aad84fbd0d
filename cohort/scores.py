"""Scores: the organ failure and inflammation scores of the ward, as pure functions of values and past doses."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float64, Int, Int8

Values = Mapping[str, Float64[np.ndarray, "*a"]]


def sofa_components(
    value: Values, rate: Values, urine_ml_day: Float64[np.ndarray, "*a"]
) -> Iterator[tuple[Int8[np.ndarray, "*a"], Bool[np.ndarray, "*a"]]]:
    """The six organ systems' points (0 to 4) and whether anything was known of each; missing counts 0.

    Vincent et al. 1996. `rate` holds the past hour's highest rates in ug/kg/min, 0 where none ran; `urine_ml_day` is
    NaN where less than a day was observed. Ventilated means invasively.
    """
    yield _respiration(value["pao2"] / value["fio2"], value["mechanical_ventilation"] == 1)
    yield _below(value["platelets"], (150, 100, 50, 20))
    yield _from(value["bilirubin_total"], (1.2, 2, 6, 12))
    yield _circulation(value["map"], rate)
    yield _below(value["gcs"], (15, 13, 10, 6))
    yield _kidney(value["creatinine"], urine_ml_day)


def sirs(value: Values) -> tuple[Int[np.ndarray, "*a"], Int[np.ndarray, "*a"]]:
    """SIRS (0 to 4) and how many of its four criteria had no value; missing counts 0. Bone et al. 1992."""
    temperature, breathing, wbc = value["temperature_c"], value["resp_rate"], value["wbc"]
    met = (
        (temperature < 36) | (temperature > 38),
        value["heart_rate"] > 90,
        (breathing > 20) | (value["paco2"] < 32),
        (wbc < 4) | (wbc > 12) | (value["bands"] > 10),
    )
    missing = (
        np.isnan(temperature),
        np.isnan(value["heart_rate"]),
        np.isnan(breathing) & np.isnan(value["paco2"]),
        np.isnan(wbc) & np.isnan(value["bands"]),
    )
    return _points(met).astype(np.int64), _points(missing).astype(np.int64)


def _points(met: Sequence[np.ndarray]) -> np.ndarray:
    return np.asarray(np.sum(np.stack(met), axis=0, dtype=np.int8))


def _below(value: np.ndarray, limits: tuple[int | float, ...]) -> tuple[np.ndarray, np.ndarray]:
    return _points([value < limit for limit in limits]), ~np.isnan(value)


def _from(value: np.ndarray, limits: tuple[int | float, ...]) -> tuple[np.ndarray, np.ndarray]:
    return _points([value >= limit for limit in limits]), ~np.isnan(value)


def _respiration(pao2_fio2: np.ndarray, ventilated: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    points = [
        pao2_fio2 < 400,
        pao2_fio2 < 300,
        (pao2_fio2 < 200) & ventilated,
        (pao2_fio2 < 100) & ventilated,
    ]
    return _points(points), ~np.isnan(pao2_fio2)


def _circulation(map_mmhg: np.ndarray, rate: Values) -> tuple[np.ndarray, np.ndarray]:
    catecholamine = np.maximum(rate["norepinephrine"], rate["epinephrine"])
    dopamine, dobutamine = rate["dopamine"], rate["dobutamine"]
    points = np.select(
        [
            (catecholamine > 0.1) | (dopamine > 15),
            (catecholamine > 0) | (dopamine > 5),
            (dopamine > 0) | (dobutamine > 0),
            map_mmhg < 70,
        ],
        [4, 3, 2, 1],
        0,
    ).astype(np.int8)
    return points, ~np.isnan(map_mmhg) | (points > 0)


def _kidney(creatinine: np.ndarray, urine_ml_day: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    by_creatinine, known = _from(creatinine, (1.2, 2, 3.5, 5))
    by_urine = np.select([urine_ml_day < 200, urine_ml_day < 500], [4, 3], 0).astype(np.int8)
    return np.maximum(by_creatinine, by_urine), known | ~np.isnan(urine_ml_day)
