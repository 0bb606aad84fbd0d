"""Recommend: support is counted among similar decisions, and what cannot be supported is not recommended."""

from dataclasses import replace

import numpy as np
import pytest

import policy
from cohort.dictionary import Dictionary
from cohort.errors import InputError
from cohort.scaler import Scaler
from policy.recommend import Recommendation, RecommendConfig, Support, recommend, support
from policy.served import NetworkPolicy
from tests import probes

CONFIG = RecommendConfig(neighbours=50, min_support=5, fresh_features=("x0",))


@pytest.fixture(scope="module")
def served() -> tuple[NetworkPolicy, Support]:
    ward = probes.clinic(patients=200)
    fitted = policy.fit("bc", ward, probes.SMALL | {"updates": 300})
    dictionary = Dictionary(
        ward.features, np.full(6, 9.0), Scaler(np.zeros(6), np.ones(6), np.zeros(6, bool)), 4.0,
        (50.0,), (0.0, 25.0), (0.1,), (0.0, 0.2),
    )  # fmt: skip
    return replace(fitted, dictionary=dictionary), support(ward, CONFIG)


def one(served: tuple[NetworkPolicy, Support], state: np.ndarray, age_h: np.ndarray | None = None) -> Recommendation:
    fitted, known = served
    return recommend(fitted, state[None], known, fitted, None if age_h is None else age_h[None])[0]


def test_familiar_state_gets_the_likeliest_dose_with_its_support(served) -> None:  # type: ignore[no-untyped-def]
    state = np.array([0.5, 0.1, -0.1, 0.0, 0.2, 0.05])
    found = one(served, state)
    assert found.gate is None
    assert found.action == 2
    assert (found.fluid_ml, found.vasopressor_ug_kg_min) == (100.0, 0.0)
    assert 5 <= found.support <= found.neighbours == 50
    assert found.alternatives[0][0] == 2


def test_support_counts_the_neighbours_own_actions(served) -> None:  # type: ignore[no-untyped-def]
    fitted, known = served
    state = np.array([0.5, 0.1, -0.1, 0.0, 0.2, 0.05])
    _, rows = known.index.kneighbors(known.scaler.transform(state[None]))
    assert one(served, state).support == (known.action[rows[0]] == 2).sum()
    assert sum(count for *_, count in one(served, state).alternatives) <= 50
    assert fitted.n_actions == 4


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda x: x * np.nan, "NaN or infinite"),
        (lambda x: x + np.array([np.inf, 0, 0, 0, 0, 0]), "1 of 6 features are NaN or infinite"),
        (lambda x: x * 0 + 0.3, "same value"),
    ],
)
def test_unreadable_states_abstain(served, change, reason: str) -> None:  # type: ignore[no-untyped-def]
    found = one(served, change(np.array([0.5, 0.1, -0.1, 0.0, 0.2, 0.05])))
    assert found.action is None
    assert found.fluid_ml is None
    assert found.gate == "data freshness"
    assert found.reason is not None
    assert reason in found.reason
    assert found.lifts


def test_all_imputed_state_abstains(served) -> None:  # type: ignore[no-untyped-def]
    assert one(served, np.array([9.0, 9.0, 9.0, 9.0, 9.0, 0.1])).gate == "data freshness"
    fresh = np.array([0.5, 0.1, -0.1, 0.0, 0.2, 0.05])
    assert one(served, fresh, np.array([1.0, *[np.nan] * 5])).gate == "data freshness"


def test_stale_blood_pressure_abstains_and_says_what_to_measure(served) -> None:  # type: ignore[no-untyped-def]
    found = one(served, np.array([0.5, 0.1, -0.1, 0.0, 0.2, 0.05]), np.array([5.0, *[0.0] * 5]))
    assert (found.gate, found.lifts) == ("data freshness", "measure x0")
    assert found.reason == "x0 is 5.0 h old (at most 4 h)"


def test_unfamiliar_state_abstains(served) -> None:  # type: ignore[no-untyped-def]
    assert one(served, np.array([30.0, -20.0, 30.0, 25.0, -30.0, 20.0])).gate == "state density"


def test_a_dose_nobody_used_abstains(served) -> None:  # type: ignore[no-untyped-def]
    fitted, known = served
    unused = replace(known, action=np.where(known.action == 2, 0, known.action))
    found = one((fitted, unused), np.array([0.5, 0.1, -0.1, 0.0, 0.2, 0.05]))
    assert (found.gate, found.action, found.support) == ("action support", None, 0)


def test_wrong_number_of_features_is_refused(served) -> None:  # type: ignore[no-untyped-def]
    fitted, known = served
    with pytest.raises(InputError, match="7 features"):
        recommend(fitted, np.zeros((1, 7)), known, fitted)


def test_with_too_few_patients_no_state_is_familiar(served) -> None:  # type: ignore[no-untyped-def]
    fitted, _ = served
    few = probes.clinic(patients=19)
    looked = recommend(fitted, few.state, support(few, CONFIG), fitted)
    assert {one.gate for one in looked} == {"state density"}
    assert looked[0].reason == "19 patients trained the policy, too few to tell a familiar state (at least 20)"
    assert {one.action for one in looked} == {None}
    assert {one.gate for one in recommend(fitted, few.state, served[1], fitted)} != {"state density"}


def test_an_abstention_lists_no_doses(served) -> None:  # type: ignore[no-untyped-def]
    fitted, known = served
    strict = replace(known, config=known.config.model_copy(update={"min_support": 51}))
    found = recommend(fitted, np.array([[0.5, 0.1, -0.1, 0.0, 0.2, 0.05]]), strict, fitted)[0]
    assert found.gate == "action support"
    assert found.alternatives == ()
