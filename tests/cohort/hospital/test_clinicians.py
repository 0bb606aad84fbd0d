"""The simulated clinicians: styles, propensities and doses."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from cohort.actions import bin_of
from cohort.hospital import clinicians
from cohort.hospital.clinicians import STYLES, Reading, Style


def reading(n: int = 1, **changes: float) -> Reading:
    """A patient who needs nothing, with `changes`."""
    calm = {
        "map": 78.0, "shock_index": 0.7, "spo2_fio2": 4.4, "urine_ml_kg_h": 1.0, "fluid": 2, "vasopressor": 0,
        "looks_ill": 0.0,
    }  # fmt: skip
    whole = {"fluid", "vasopressor"}
    return Reading(**{k: np.full(n, v, np.int64 if k in whole else float) for k, v in (calm | changes).items()})


def fluid(given: Reading, style: Style) -> float:
    """Mean fluid bin."""
    return float(clinicians.propensities(given, style)[0].sum(axis=1) @ np.arange(5))


def vasopressor(given: Reading, style: Style) -> float:
    return float(clinicians.propensities(given, style)[0].sum(axis=0) @ np.arange(5))


def test_shares_of_the_styles_sum_to_one() -> None:
    assert clinicians.shares().sum() == pytest.approx(1)


@pytest.mark.parametrize("name", list(STYLES))
def test_propensities_are_positive_and_sum_to_one(name: str) -> None:
    rng = np.random.default_rng(0)
    n = 500
    many = replace(
        reading(n),
        map=rng.uniform(30, 130, n),
        shock_index=rng.uniform(0.3, 2.5, n),
        spo2_fio2=rng.uniform(0.6, 4.8, n),
        urine_ml_kg_h=rng.uniform(0, 4, n),
        fluid=rng.integers(-1, 5, n),
        vasopressor=rng.integers(-1, 5, n),
    )
    probability = clinicians.propensities(many, STYLES[name])
    np.testing.assert_allclose(probability.sum(axis=(1, 2)), 1, atol=1e-12)
    assert probability.min() > 0


@pytest.mark.parametrize("name", list(STYLES))
def test_shock_calls_for_more_of_both_and_failing_lungs_for_less_fluid(name: str) -> None:
    style = STYLES[name]
    assert vasopressor(reading(map=45.0), style) > vasopressor(reading(), style) + 0.3
    assert fluid(reading(map=45.0, shock_index=1.4, fluid=-1), style) > fluid(reading(fluid=-1), style)
    assert fluid(reading(spo2_fio2=1.2, map=60.0), style) < fluid(reading(map=60.0), style)


def test_styles_differ_as_they_are_named() -> None:
    low = reading(map=54.0)
    assert vasopressor(low, STYLES["late"]) < vasopressor(low, STYLES["guideline"]) - 0.2
    assert fluid(reading(), STYLES["liberal"]) > fluid(reading(), STYLES["guideline"]) + 0.5
    assert fluid(reading(), STYLES["restrictive"]) < fluid(reading(), STYLES["guideline"]) - 0.3
    erratic = clinicians.propensities(reading(), STYLES["erratic"])[0]
    calm = clinicians.propensities(reading(), STYLES["guideline"])[0]
    assert stats.entropy(erratic.ravel()) > stats.entropy(calm.ravel())


def test_what_runs_is_kept_more_often_than_begun() -> None:
    style = STYLES["guideline"]
    on = clinicians.propensities(reading(vasopressor=2, map=66.0), style)[0].sum(axis=0)
    off = clinicians.propensities(reading(vasopressor=0, map=66.0), style)[0].sum(axis=0)
    assert on[1:].sum() > 0.8
    assert off[1:].sum() < 0.1
    kept = clinicians.propensities(reading(fluid=4), style)[0].sum(axis=1)
    new = clinicians.propensities(reading(fluid=1), style)[0].sum(axis=1)
    assert kept[4] > new[4] + 0.3


def test_the_confounder_moves_both_doses_and_its_absence_neither() -> None:
    style = STYLES["guideline"]
    assert fluid(reading(looks_ill=1.0), style) > fluid(reading(), style)
    assert vasopressor(reading(map=60.0, looks_ill=1.0), style) > vasopressor(reading(map=60.0), style)


def test_choices_come_as_often_as_their_probabilities() -> None:
    probability = np.array([[0.1, 0.0, 0.6, 0.3]])
    chosen = clinicians.choose(np.repeat(probability, 20_000, axis=0), np.random.default_rng(0).random(20_000))
    count = np.bincount(chosen, minlength=4)
    assert count[1] == 0
    assert stats.chisquare(count[[0, 2, 3]], 20_000 * probability[0, [0, 2, 3]]).pvalue > 1e-3


@pytest.mark.parametrize(
    ("dose", "edges"),
    [
        (clinicians.fluid_dose, clinicians.FLUID_EDGES_ML_H),
        (clinicians.vasopressor_dose, clinicians.VASOPRESSOR_EDGES_UG_KG_MIN),
    ],
)
def test_doses_stay_inside_their_bins_and_rise_with_the_draw(dose, edges) -> None:  # type: ignore[no-untyped-def]
    draws = np.linspace(1e-9, 1 - 1e-9, 1001)
    limits = [0.0, *edges, np.inf]
    assert (dose(np.zeros(1001, np.int64), draws) == 0).all()
    for number in range(1, 5):
        given = dose(np.full(1001, number), draws)
        assert (given > limits[number - 1]).all()
        assert (given <= limits[number]).all()
        assert (np.diff(given) > 0).all()


def test_doses_follow_edges_that_a_cohort_fitted() -> None:
    """Uniform between edges: half way is the middle."""
    middle = clinicians.fluid_dose(np.array([2, 3]), np.array([0.5, 0.5]), (10.0, 30.0, 90.0))
    np.testing.assert_allclose(middle, [20.0, 60.0])


def test_regrouped_propensities_are_the_frequencies_of_regrouped_doses() -> None:
    rng = np.random.default_rng(2)
    propensity = rng.dirichlet(np.ones(25), 1)
    fluid_edges, vasopressor_edges = (12.0, 70.0, 200.0), (0.02, 0.1, 0.5)
    expected = clinicians.regroup(propensity, fluid_edges, vasopressor_edges)[0]
    assert expected.sum() == pytest.approx(1)
    n = 100_000
    action = clinicians.choose(np.repeat(propensity, n, axis=0), rng.random(n))
    fluid_ml_h = clinicians.fluid_dose(action // 5, rng.random(n))
    pressor = clinicians.vasopressor_dose(action % 5, rng.random(n))
    found = np.bincount(5 * bin_of(fluid_ml_h, fluid_edges) + bin_of(pressor, vasopressor_edges), minlength=25)
    assert stats.chisquare(found, n * expected).pvalue > 1e-3


def test_on_the_nominal_edges_nothing_is_regrouped() -> None:
    propensity = np.random.default_rng(2).dirichlet(np.ones(25), 3)
    same = clinicians.regroup(propensity, clinicians.FLUID_EDGES_ML_H, clinicians.VASOPRESSOR_EDGES_UG_KG_MIN)
    np.testing.assert_allclose(same, propensity, atol=1e-12)


def test_a_last_edge_above_the_usual_ceiling_still_gives_doses_above_it() -> None:
    given = clinicians.fluid_dose(np.full(11, 4), np.linspace(0.001, 0.999, 11), (300.0, 900.0, 2000.0))
    assert (given > 2000).all()
