"""Overlap: what the weights say about how much is known of a policy."""

import numpy as np
import pytest

from cohort.errors import InputError
from ope import divergence, overlap
from ope.trajectories import pad
from tests.ope.worlds import hand, random_log

RATIO = np.array([2.0, 0.5, 0.5])


def test_the_hand_worked_weights_give_their_ess_share_and_mean() -> None:
    log = hand()
    found = overlap.measure(pad(log.episodes, RATIO, 1.0), log.episodes.patient)
    assert found.ess_per_step == pytest.approx((2.5**2 / 4.25, 1.5**2 / 1.25))
    assert found.ess == found.ess_per_step[-1]
    assert found.mean_weight_per_step == pytest.approx((1.25, 0.75))
    assert found.largest_share == pytest.approx(2 / 2.5)
    assert (found.n_episodes, found.n_patients) == (2, 2)


def test_the_share_of_a_patient_counts_all_their_episodes() -> None:
    log = hand()
    assert overlap.measure(pad(log.episodes, RATIO, 1.0), np.array([4, 4])).largest_share == pytest.approx(1.0)


def test_huge_weights_do_not_break_the_ess_and_overflow_is_named() -> None:
    log = hand()
    found = overlap.measure(pad(log.episodes, RATIO * 1e150, 1.0), log.episodes.patient)
    assert 1 <= found.ess <= 2
    with pytest.raises(InputError, match="weights overflow in 1 of 2 episodes"):
        overlap.measure(pad(log.episodes, RATIO * 1e300, 1.0), log.episodes.patient)


def test_no_weight_left_is_no_evidence() -> None:
    log = hand()
    found = overlap.measure(pad(log.episodes, np.zeros(3), 1.0), log.episodes.patient)
    assert (found.ess, found.largest_share, found.mean_weight) == (0.0, 1.0, 0.0)


def test_unsupported_counts_only_what_goes_beyond_the_clinicians() -> None:
    behaviour = np.array([[0.99, 0.005, 0.005], [0.5, 0.25, 0.25]])
    assert overlap.unsupported_share(behaviour, behaviour, 0.01) == 0
    target = np.array([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    assert overlap.unsupported_share(target, behaviour, 0.01) == pytest.approx(0.495 / 2)


def test_a_calibrated_model_has_a_small_error_and_a_wrong_one_a_large() -> None:
    log = random_log(n_episodes=4000)
    right = overlap.calibration_error(log.behaviour, log.episodes.action)
    wrong = overlap.calibration_error(
        np.roll(log.behaviour, 1, axis=1) * [1, 0.5, 1] + [0, 0.25, 0], log.episodes.action
    )
    assert right.max() < 0.02
    assert wrong.max() > 0.05


def test_over_confidence_that_is_right_on_average_needs_groups_to_be_seen() -> None:
    rng = np.random.default_rng(0)
    action = rng.integers(0, 2, 4000)
    confident = np.where(rng.random((4000, 1)) < 0.5, [[0.95, 0.05]], [[0.05, 0.95]])
    assert overlap.calibration_error(confident, action, 1).max() < 0.03
    assert overlap.calibration_error(confident, action, 10).min() > 0.4


def test_calibration_by_drug_adds_the_other_drug_up() -> None:
    behaviour = np.tile([0.1, 0.2, 0.3, 0.4], (1000, 1))
    action = np.repeat([0, 1, 2, 3], [100, 200, 300, 400])
    found = overlap.by_drug(behaviour, action, (2, 2))
    assert [one["predicted"] for one in found["fluid"]] == pytest.approx([0.3, 0.7])
    assert [one["observed"] for one in found["vasopressor"]] == pytest.approx([0.4, 0.6])
    assert max(one["error"] for bins in found.values() for one in bins) < 1e-9
    wrong = overlap.by_drug(behaviour, np.zeros(1000, int), (2, 2))
    assert wrong["fluid"][0]["error"] == pytest.approx(0.7)


def test_a_subgroup_shows_a_model_that_is_right_on_average_and_wrong_in_it() -> None:
    """Two units: the model says a half of both doses everywhere; one unit always gives the first, the other never."""
    action, unit = np.repeat([0, 1], 40), np.repeat(["A", "B"], 40)
    groups = list(divergence.by_name("care_unit", unit))
    found = overlap.by_subgroup(np.full((80, 2), 0.5, np.float32), action, np.arange(80), (2, 1), groups, 10)
    assert [(one.label, one.patients, one.decisions) for one in found] == [("A", 40, 40), ("B", 40, 40)]
    first = found[0].by_drug["fluid"][0]
    assert (first["predicted"], first["observed"], first["error"]) == (0.5, 1.0, 0.5)
    pooled = overlap.by_drug(np.full((80, 2), 0.5, np.float32), action, (2, 1))
    assert pooled["fluid"][0]["error"] == 0


def test_few_patients_and_few_doses_of_a_subgroup_are_not_shown() -> None:
    unit, action = np.repeat(["few", "many"], [9, 31]), np.r_[np.zeros(9, int), np.zeros(25, int), np.ones(6, int)]
    groups = list(divergence.by_name("care_unit", unit))
    few, many = overlap.by_subgroup(np.full((40, 2), 0.5, np.float32), action, np.arange(40), (2, 1), groups, 10)
    assert (few.patients, few.by_drug) == (9, None)
    assert many.by_drug["fluid"][0]["count"] == 25
    assert many.by_drug["fluid"][1] == {"bin": 1, "count": None, "predicted": None, "observed": None, "error": None}


def test_groups_are_half_open_and_leave_out_what_was_not_measured() -> None:
    features = {name: np.array([np.nan]) for name in divergence.STRATA} | {"map": np.array([64.9, 65.0, np.nan])}
    rows = {group.low: group.rows.tolist() for group in divergence.by_edges(features) if group.feature == "map"}
    assert rows[-np.inf] == [True, False, False]
    assert rows[65] == [False, True, False]
