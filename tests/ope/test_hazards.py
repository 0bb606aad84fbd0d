"""Hazards: each one at its threshold, for clinicians and for a policy, and never from an imputed value."""

import numpy as np
import pytest

from ope import hazards
from ope.divergence import Grid
from ope.hazards import HAZARDS, Decisions

DOSES = Grid(np.array([0.0, 40.0, 200.0, 600.0, 1200.0]), np.array([0.0, 0.05, 0.1, 0.3, 0.8]))
"""mL per 4 h: 0, 10, 50, 150, 300 mL/h."""
NONE = {
    "map": 70.0, "cvp": np.nan, "lactate": 1.0, "balance_ml": 0.0, "fluid_ml_h": 50.0, "vasopressor_ug_kg_min": 0.1,
    "action": 12, "previous_action": 12, "unread": False, "unread_before": False,
}  # fmt: skip


def decisions(**fields: float) -> Decisions:
    return Decisions(**{name: np.array([value]) for name, value in (NONE | fields).items()})


@pytest.mark.parametrize(
    ("name", "fields", "spared"),
    [
        ("A", {"map": 54.0, "fluid_ml_h": 20.0, "vasopressor_ug_kg_min": 0.0}, {"map": 55.0}),
        ("A", {"map": 54.0, "fluid_ml_h": 20.0, "vasopressor_ug_kg_min": 0.0}, {"fluid_ml_h": 20.1}),
        ("A", {"map": 54.0, "fluid_ml_h": 20.0, "vasopressor_ug_kg_min": 0.0}, {"vasopressor_ug_kg_min": 0.01}),
        ("B", {"map": 95.1, "vasopressor_ug_kg_min": 0.66}, {"map": 95.0}),
        ("B", {"map": 95.1, "vasopressor_ug_kg_min": 0.66}, {"vasopressor_ug_kg_min": 0.65}),
        ("C", {"map": 55.0, "cvp": 5.0, "fluid_ml_h": 0.0}, {"cvp": 5.1}),
        ("C", {"map": 55.0, "cvp": 5.0, "fluid_ml_h": 0.0}, {"fluid_ml_h": 1.0}),
        ("C_without_cvp", {"map": 55.0, "fluid_ml_h": 0.0}, {"cvp": 9.0}),
        ("D", {"map": 75.0, "balance_ml": 10_001.0, "cvp": 15.0, "fluid_ml_h": 241.0}, {"balance_ml": 10_000.0}),
        ("D", {"map": 75.0, "balance_ml": 10_001.0, "cvp": 15.0, "fluid_ml_h": 241.0}, {"fluid_ml_h": 240.0}),
        ("D", {"map": 75.0, "balance_ml": 10_001.0, "cvp": 15.0, "fluid_ml_h": 241.0}, {"map": 74.9}),
        ("D_without_cvp", {"map": 75.0, "balance_ml": 10_001.0, "fluid_ml_h": 241.0}, {"cvp": 15.0}),
        ("E", {"action": 12, "previous_action": 10}, {"previous_action": 11}),
        ("E", {"action": 14, "previous_action": 2}, {"previous_action": -1}),
        ("hypotension_untreated", {"map": 64.9, "fluid_ml_h": 0.0, "vasopressor_ug_kg_min": 0.0}, {"map": 65.0}),
        ("lactate_without_fluid", {"lactate": 2.1, "fluid_ml_h": 0.0}, {"lactate": 2.0}),
    ],
)
def test_a_hazard_begins_at_its_threshold(name: str, fields: dict[str, float], spared: dict[str, float]) -> None:
    at = HAZARDS.index(name)
    assert hazards.clinicians(decisions(**fields), DOSES)[0, at]
    assert not hazards.clinicians(decisions(**fields | spared), DOSES)[0, at]


def test_a_quiet_decision_has_no_hazard() -> None:
    assert not hazards.clinicians(decisions(), DOSES).any()


def test_a_policys_hazard_is_the_probability_of_its_harmful_doses() -> None:
    """MAP 50: harmful are no pressor with 0 or 10 mL/h (actions 0, 5); two bins from bin 2 are bins 0 and 4."""
    probs = np.zeros((1, 25))
    probs[0, [0, 5, 10, 12, 4]] = [0.1, 0.2, 0.3, 0.3, 0.1]
    found = dict(zip(HAZARDS, hazards.policy(decisions(map=50.0), probs, DOSES, 4.0)[0].tolist(), strict=True))
    assert found["A"] == pytest.approx(0.3)
    assert found["E"] == pytest.approx(0.1 + 0.2 + 0.3 + 0.1)
    assert found["hypotension_untreated"] == pytest.approx(0.1)
    assert found["C_without_cvp"] == pytest.approx(0.1 + 0.1)
    assert found["B"] == 0


def test_rates_are_per_hundred_decisions_and_paired() -> None:
    n = 200
    d = Decisions(**{name: np.full(n, value) for name, value in NONE.items()})
    d.map[::10] = 50.0
    d.vasopressor_ug_kg_min[::20], d.fluid_ml_h[::20], d.action[::20] = 0.0, 0.0, 0
    probs = np.eye(25)[np.full(n, 12)]
    of_policy = hazards.policy(d, probs, DOSES, 4.0)
    found = {h.name: h for h in hazards.rates(d, of_policy, DOSES, 4.0, np.repeat(np.arange(50), 4), np.arange(50))}
    assert found["A"].exposed == 20
    assert found["A"].clinicians.value == pytest.approx(5.0)
    assert found["A"].clinicians_binned == pytest.approx(5.0)
    assert found["A"].policy.value == 0
    assert found["A"].difference.value == pytest.approx(-5.0)
    assert found["A"].difference.high < 0


def test_an_imputed_value_is_not_a_measurement() -> None:
    columns = {
        "map": np.array([50.0, 50.0]), "map_imputed": np.array([True, False]), "lactate": np.array([1.0, 1.0]),
        "lactate_imputed": np.array([False, False]), "cvp": np.array([np.nan, np.nan]),
        "fluid_balance_total": np.zeros(2),
        "fluid_ml": np.array([10.0, 30.0]), "duration_h": np.array([4.0, 2.0]), "vasopressor_ug_kg_min": np.zeros(2),
        "action": np.array([5, 5]), "previous_action": np.array([-1, 5]), "dose_unknown": np.array([False, False]),
    }  # fmt: skip
    d = hazards.of_table(columns)
    assert d.fluid_ml_h.tolist() == [2.5, 15.0]
    assert hazards.clinicians(d, DOSES)[:, HAZARDS.index("A")].tolist() == [False, True]


def test_a_dose_partly_read_is_no_dose() -> None:
    """Four windows of one stay, MAP 50 without drugs but for the third, of which bin 4 was read: A in the second alone,
    E in none, and three decisions to count by; for the policy likewise."""
    columns = {
        "map": np.full(4, 50.0), "map_imputed": np.zeros(4, bool), "lactate": np.ones(4),
        "lactate_imputed": np.zeros(4, bool), "cvp": np.full(4, np.nan), "fluid_balance_total": np.zeros(4),
        "fluid_ml": np.array([400.0, 0, 0, 400]), "duration_h": np.full(4, 4.0),
        "vasopressor_ug_kg_min": np.array([0, 0, 0.5, 0]), "action": np.array([10, 0, 4, 10]),
        "previous_action": np.array([-1, 10, 0, 4]), "dose_unknown": np.array([False, False, True, False]),
    }  # fmt: skip
    d = hazards.of_table(columns)
    assert d.unread_before.tolist() == [False, False, False, True]
    happened = hazards.clinicians(d, DOSES)
    assert happened[:, HAZARDS.index("A")].tolist() == [False, True, False, False]
    assert not happened[:, HAZARDS.index("E")].any()
    of_policy = hazards.policy(d, np.eye(25)[[0, 0, 0, 4]], DOSES, 4.0)
    assert of_policy[:, HAZARDS.index("E")].tolist() == [0, 0, 0, 0]
    found = {h.name: h for h in hazards.rates(d, of_policy, DOSES, 4.0, np.zeros(4, int), np.zeros(1, int))}
    assert found["A"].clinicians.value == pytest.approx(100 / 3)
    assert found["A"].policy.value == pytest.approx(200 / 3)


def test_a_dose_partly_read_at_the_end_of_one_stay_is_not_the_dose_before_of_the_next() -> None:
    two = {name: np.zeros(2) for name in hazards.COLUMNS} | {"duration_h": np.full(2, 4.0)}
    two |= {"previous_action": np.array([0, -1]), "dose_unknown": np.array([True, False])}
    assert hazards.of_table(two).unread_before.tolist() == [False, False]
