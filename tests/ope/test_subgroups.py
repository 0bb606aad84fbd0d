"""Subgroups: exact means and differences, small groups hidden with what gives them away, errors for all at once."""

import numpy as np
import pytest

from ope import subgroups
from ope.divergence import MEASURES

AGREEMENT = MEASURES.index("agreement")


def table(value: np.ndarray) -> np.ndarray:
    measures = np.zeros((len(value), len(MEASURES)), np.float32)
    measures[:, AGREEMENT] = value
    return measures


def test_a_group_is_compared_with_everybody_else_by_hand() -> None:
    """Three patients with 2, 1 and 1 decisions; the first is a woman: 0.3 on average, the others 0.75."""
    episode, patient = np.array([0, 0, 1, 2]), np.array([10, 11, 12])
    sex = np.array(["female", "female", "male", "male"])
    found = subgroups.measure(table(np.array([0.2, 0.4, 0.5, 1.0])), {"sex": sex}, episode, patient, 1, 0.9, 200, 0)
    women, men = found["groups"]
    assert (women["group"], women["patients"]) == ("female", 1)
    assert women["measures"]["agreement"]["mean"] == pytest.approx(0.3)
    assert women["measures"]["agreement"]["difference"] == pytest.approx(-0.45)
    assert men["measures"]["agreement"]["difference"] == pytest.approx(0.45)


def test_a_small_group_is_hidden_and_so_is_the_one_that_would_give_it_away() -> None:
    patient = np.arange(30)
    sex = np.where(patient < 4, "female", "male")
    found = subgroups.measure(table(np.ones(30)), {"sex": sex}, patient, patient, 10, 0.95, 100, 0)["groups"]
    assert [(cell["measures"], cell["patients"]) for cell in found] == [(None, None), (None, None)]


def test_groups_keep_their_names_and_a_band_holds_its_lower_edge() -> None:
    age = np.array([49.9, 50.0, 80.0])
    unit, ethnicity, sex = np.array(["A", "B", "A"]), np.array(["WHITE", "ASIAN", "unknown"]), np.array([0.0, 1.0, 1.0])
    groups = subgroups.groups_of(age, sex, ethnicity, unit, np.array([4.0, 5.0, 20.0]))
    assert groups["age"].tolist() == ["below 50", "50 to below 65", "80 or more"]
    assert groups["severity"].tolist() == ["below 5", "5 to below 10", "15 or more"]
    assert groups["ethnicity"].tolist() == ["white", "asian", "unknown"]
    assert groups["sex"].tolist() == ["female", "male", "male"]


def test_where_no_group_differs_seldom_any_of_ten_is_found_to() -> None:
    """At 95% for all together; ten intervals that each held alone would find one in 40% of the data sets."""
    rng, false = np.random.default_rng(0), 0
    patient = np.arange(300)
    for seed in range(60):
        names = np.array([f"g{one}" for one in rng.integers(0, 10, 300)])
        found = subgroups.measure(table(rng.random(300)), {"unit": names}, patient, patient, 10, 0.95, 300, seed)
        told = [cell["measures"]["agreement"] for cell in found["groups"] if cell["measures"]]
        false += any(one["low"] > 0 or one["high"] < 0 for one in told)
    assert false <= 9


def test_bands_come_in_the_order_of_their_values() -> None:
    patient = np.arange(4)
    age = np.array(["80 or more", "50 to below 65", "below 50", "65 to below 80"])
    found = subgroups.measure(table(np.ones(4)), {"age": age}, patient, patient, 1, 0.9, 100, 0)["groups"]
    assert [cell["group"] for cell in found] == ["below 50", "50 to below 65", "65 to below 80", "80 or more"]
