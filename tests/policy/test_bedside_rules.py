"""Hazard rules at the bedside, values with intervals, and what moved a dose: each by hand."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from sklearn.neighbors import NearestNeighbors

from cohort import features
from cohort.dictionary import Dictionary
from cohort.scaler import Scaler
from policy import explain, hazards, recommend
from policy.networks import Network
from policy.recommend import Bedside, RecommendConfig, Support
from policy.served import NetworkPolicy

NAMES = ("map", "lactate", "heart_rate")
FLUID, PRESSOR = (0.0, 10.0, 300.0), (0.0, 0.2, 0.7)
PLAIN = Scaler(np.zeros(3), np.ones(3), np.zeros(3, bool))


def linear(weights: np.ndarray, bias: np.ndarray) -> Network:
    """A network of one layer: members x inputs x outputs."""
    return Network((weights.astype(np.float32),), (bias.astype(np.float32),))


def policy_for(logits: np.ndarray, q: np.ndarray | None = None, slope: np.ndarray | None = None) -> NetworkPolicy:
    """A policy with these logits whatever the state (plus slope times the state), and values q (members x actions)."""
    weight = np.zeros((1, 3, 9)) if slope is None else slope[None]
    critic = None if q is None else linear(np.zeros((len(q), 3, 9)), q[:, None, :])
    dictionary = Dictionary(NAMES, np.array([80.0, 1.0, 90.0]), PLAIN, 4.0, (20.0,), FLUID, (0.3,), PRESSOR)
    return NetworkPolicy(
        "iql", {}, "softmax", PLAIN, NAMES, 9, actor=linear(weight, logits[None, None]), critic=critic,
        dictionary=dictionary,
    )  # fmt: skip


def known_for(action: np.ndarray, returned: np.ndarray, patient: np.ndarray | None = None) -> Support:
    n = len(action)
    state = np.tile(np.array([80.0, 1.0, 90.0], np.float32), (n, 1)) + np.arange(n, dtype=np.float32)[:, None] * 1e-3
    index = NearestNeighbors(n_neighbors=n, algorithm="brute").fit(state)
    config = RecommendConfig(min_support=1, min_probability=0.0, density_neighbours=1)
    people = np.arange(n) if patient is None else patient
    return Support(PLAIN, index, action, 9, 1e9, config, np.arange(n), state, people, returned.astype(np.float64))


EVEN = known_for(np.arange(9).repeat(4), np.zeros(36))
FRESH = np.zeros(3)


def prefer(action: int) -> np.ndarray:
    return np.where(np.arange(9) == action, 5.0, 0.0)


@pytest.mark.parametrize(
    ("rule", "action", "state", "beside"),
    [
        ("A", 0, (50, 1, 90), (8, 0, -1)),
        ("A", 3, (50, 1, 90), (8, 0, -1)),
        ("B", 2, (100, 1, 90), (8, 0, -1)),
        ("C", 1, (54, 1, 90), (4, 0, -1)),
        ("C_without_cvp", 1, (54, 1, 90), (np.nan, 0, -1)),
        ("D", 7, (80, 1, 90), (16, 11_000, -1)),
        ("D_without_cvp", 7, (80, 1, 90), (np.nan, 11_000, -1)),
        ("E", 2, (70, 1, 90), (8, 0, 0)),
        ("E", 0, (70, 1, 90), (8, 0, 2)),
    ],
)
def test_each_rule_blocks_its_dose_and_says_why(
    rule: str, action: int, state: tuple[float, ...], beside: tuple[float, float, int]
) -> None:
    policy = policy_for(prefer(action))
    bedside = Bedside(np.array([float(beside[0])]), np.array([float(beside[1])]), np.array([beside[2]]))
    asked = np.array([state], float)
    look = recommend.looks(policy, asked, EVEN, policy, FRESH[None], bedside)[0]
    assert look.recommendation.action is None
    assert look.recommendation.gate == "hazard rule"
    assert str(look.recommendation.reason).startswith(f"rule {rule[0]} blocks the dose")
    assert hazards.REASONS[rule] in str(look.recommendation.reason)
    assert look.recommendation.alternatives == ()
    assert look.evidence is not None
    assert look.evidence.hazard[action] == rule


def test_a_value_that_was_not_measured_triggers_no_rule_and_a_mean_pressure_none_either() -> None:
    policy = policy_for(prefer(0))
    beside = Bedside(np.array([8.0]), np.array([0.0]), np.array([-1]))
    unmeasured = np.array([[np.nan, 0.0, 0.0]])
    found = recommend.evidence(policy, np.array([[50.0, 1.0, 90.0]]), EVEN, policy, unmeasured, beside)[0]
    assert set(found.hazard) == {None}
    calm = recommend.looks(policy, np.array([[75.0, 1.0, 90.0]]), EVEN, policy, FRESH[None], beside)[0]
    assert calm.recommendation.action == 0


def test_the_evaluation_counts_exactly_the_rules_that_the_bedside_refuses() -> None:
    assert hazards.HAZARDS[:7] == hazards.BLOCKING
    assert set(hazards.REASONS) == set(hazards.BLOCKING)


def test_without_what_the_rules_need_only_those_that_the_state_alone_decides_are_asked() -> None:
    policy = policy_for(prefer(1))
    found = recommend.evidence(policy, np.array([[54.0, 1.0, 90.0]]), EVEN, policy, FRESH[None])[0]
    assert found.hazard[0] == "A"
    assert found.hazard[1] is None, "no fluid at 54 mmHg is C, which needs to know about the venous pressure"


def test_a_policy_that_prefers_nothing_abstains_and_is_not_read_as_no_drug() -> None:
    for logits in (np.full(9, np.nan), np.where(np.arange(9) == 3, np.inf, 0.0)):
        policy = policy_for(logits)
        with np.errstate(invalid="ignore"):
            found = recommend.recommend(
                policy, np.array([[75.0, 1.0, 90.0]]), EVEN, policy_for(np.zeros(9)), FRESH[None]
            )
        assert found[0].action is None
        assert found[0].gate == "action support"
        assert "prefers no dose" in str(found[0].reason)


def test_a_values_interval_is_the_ensembles_spread_and_the_outcomes_of_similar_patients() -> None:
    """Doses 0 and 1, four patients each; returns miss the value by +-1, so s^2 = 8/7 over the eight patients."""
    action, miss = np.repeat([0, 1], 4), np.tile([1.0, -1.0], 4)
    q = np.array([[0.5, 0.4, *[0.0] * 7], [0.7, 0.4, *[0.0] * 7]])
    policy = policy_for(prefer(0), q)
    value = q.min(axis=0)
    known = known_for(action, value[action] + miss)
    found = recommend.evidence(policy, np.array([[80.0, 1.0, 90.0]]), known, policy_for(np.zeros(9)), FRESH[None])[0]
    got = recommend.values(policy, np.array([80.0, 1.0, 90.0]), known, found)
    assert got is not None
    z = stats.norm.ppf(0.975)
    assert got.value[:2] == pytest.approx([0.5, 0.4])
    assert got.high[0] - got.value[0] == pytest.approx(z * np.sqrt(0.02 + (8 / 7) / 4), rel=1e-5)
    assert got.value[1] - got.low[1] == pytest.approx(z * np.sqrt((8 / 7) / 4), rel=1e-5)
    assert np.isnan(got.low[2])
    assert got.equivalent == (0, 1)


def test_doses_that_differ_clearly_are_told_apart_and_what_is_blocked_or_unsupported_is_no_equal() -> None:
    action = np.repeat([0, 1, 2, 3], 50)
    q = np.tile([0.5, -0.5, 0.49, 0.52, *[9.0] * 5], (2, 1))
    policy = policy_for(prefer(0), q)
    known = known_for(action, q[0][action] + np.tile([0.1, -0.1], 100))
    beside = Bedside(np.array([8.0]), np.array([0.0]), np.array([0]))
    found = recommend.evidence(
        policy, np.array([[80.0, 1.0, 90.0]]), known, policy_for(np.zeros(9)), FRESH[None], beside
    )[0]
    assert found.hazard[2] == "E"
    got = recommend.values(policy, np.array([80.0, 1.0, 90.0]), known, found)
    assert got is not None
    assert got.equivalent == (3, 0), "best first; 1 is worse, 2 is blocked, 4 to 8 were never given"


def test_decisions_of_one_patient_count_as_one() -> None:
    q = np.zeros((2, 9))
    policy, behaviour = policy_for(prefer(0), q), policy_for(np.zeros(9))
    many = known_for(np.repeat([0, 1], 4), np.tile([1.0, -1.0], 4))
    few = known_for(np.repeat([0, 1], 4), np.array([1, 1, -1, -1, 1, 1, -1, -1.0]), np.array([0, 0, 1, 1, 2, 2, 3, 3]))
    state = np.array([80.0, 1.0, 90.0])
    widths = []
    for known in (many, few):
        found = recommend.evidence(policy, state[None], known, behaviour, FRESH[None])[0]
        got = recommend.values(policy, state, known, found)
        assert got is not None
        widths.append(got.high[0] - got.low[0])
    assert widths[1] == pytest.approx(widths[0] * np.sqrt((4 / 3 / 2) / (8 / 7 / 4)), rel=1e-5)


def test_returns_that_are_not_known_say_nothing_and_a_policy_without_values_has_none() -> None:
    policy, behaviour = policy_for(prefer(0), np.zeros((2, 9))), policy_for(np.zeros(9))
    cut_off = known_for(np.repeat([0, 1], 4), np.full(8, np.nan))
    state = np.array([80.0, 1.0, 90.0])
    found = recommend.evidence(policy, state[None], cut_off, behaviour, FRESH[None])[0]
    got = recommend.values(policy, state, cut_off, found)
    assert got is not None
    assert np.isnan(got.low).all()
    assert got.equivalent == ()
    assert recommend.values(replace(policy, critic=None), state, EVEN, found) is None


def sloped() -> NetworkPolicy:
    """Prefers dose 1 where the lactate is above 2, else dose 0; nothing else matters."""
    slope = np.zeros((3, 9))
    slope[1, 1] = 1.0
    return policy_for(np.array([2.0, 0.0, *[-9.0] * 7]), slope=slope)


def test_what_moved_a_dose_is_the_policys_answer_with_one_typical_value() -> None:
    policy, state, typical = sloped(), np.array([70.0, 4.0, 120.0]), np.array([80.0, 1.0, 90.0])
    before, moved = explain.moved(policy, state, 1, typical)
    assert before == pytest.approx(policy.probs(state[None])[0, 1])
    assert [one.feature for one in moved] == ["lactate", "map", "heart_rate"]
    assert moved[0].score == pytest.approx(policy.probs(np.array([[70.0, 1.0, 120.0]]))[0, 1])
    assert (moved[0].action, moved[1].action) == (0, 1)
    assert moved[1].score == pytest.approx(before)
    assert explain.moved(policy, typical, 0, typical)[1] == [], "a typical value moves nothing"


def test_the_smallest_change_is_the_nearest_plausible_value_of_a_measured_feature() -> None:
    policy, state = sloped(), np.array([80.0, 4.0, 90.0])
    rows = np.tile(np.array([80.0, 0.0, 90.0], np.float32), (101, 1))
    rows[:, 1] = np.linspace(0, 5, 101)
    known = replace(known_for(np.zeros(101, int), np.zeros(101)), state=rows)
    found = explain.smallest_change(policy, state, 1, known, np.ones(3, bool))
    assert found is not None
    assert (found.feature, found.value, found.action) == ("lactate", 4.0, 0)
    assert found.to == pytest.approx(1.75), "the 35% quantile: the next one, 2.5, still prefers dose 1"
    assert explain.smallest_change(policy, state, 1, known, np.array([True, False, True])) is None
    assert explain.smallest_change(policy, state, 1, known, np.zeros(3, bool)) is None


def test_the_next_measurement_is_the_one_that_would_most_often_change_the_dose() -> None:
    policy, state = sloped(), np.array([80.0, 1.0, 90.0])
    rows = np.tile(np.array([80.0, 1.0, 90.0], np.float32), (36, 1))
    rows[::2, 1] = 4.0
    known = replace(EVEN, state=rows)
    found = explain.next_measurements(policy, state, 0, known, np.arange(36), np.array([5.0, np.nan, 1.0]))
    assert [one.feature for one in found] == ["lactate", "map"]
    assert found[0].changes == pytest.approx(12 / 25, abs=0.05)
    assert found[1].changes == 0
    assert np.isnan(found[0].age_h)
    assert explain.next_measurements(policy, state, 0, known, np.arange(36), np.zeros(3)) == []


def test_only_what_is_measured_at_the_bedside_can_be_measured() -> None:
    assert explain.changeable(("map", "sofa", "age_years")).tolist() == [True, False, False]
    assert explain.changeable(("x0", "x1")).all()
    assert "map" in features.MEASURED
