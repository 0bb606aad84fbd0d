"""Extraction: never outside support, at the stated divergence, greedy and imitating at its two ends."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.errors import InputError
from policy import extraction

BEHAVIOUR = np.array([[0.6, 0.3, 0.05, 0.05], [0.25, 0.25, 0.25, 0.25], [0.85, 0.14, 0.01, 0.0]])
Q = np.array([[0.0, 1.0, 9.0, 0.0], [1.0, 2.0, 3.0, 4.0], [0.0, 1.0, 5.0, 9.0]])


def test_mask_by_hand() -> None:
    expected = [[True, True, False, False], [True] * 4, [True, True, False, False]]
    assert extraction.mask(BEHAVIOUR, 0.1).tolist() == expected


def test_tilt_by_hand() -> None:
    e = np.e
    first = np.array([0.6, 0.3 * e, 0.0, 0.0]) / (0.6 + 0.3 * e)
    assert extraction.tilt(BEHAVIOUR, Q, 0.1, 1.0)[0] == pytest.approx(first, rel=1e-6)


def test_large_alpha_gives_the_masked_behaviour_and_small_alpha_its_best_action() -> None:
    assert extraction.tilt(BEHAVIOUR, Q, 0.1, 1e9) == pytest.approx(extraction.renormalised(BEHAVIOUR, 0.1), abs=1e-6)
    assert extraction.tilt(BEHAVIOUR, Q, 0.1, 1e-6).argmax(1).tolist() == [1, 3, 1]


def test_a_state_value_subtracted_from_q_changes_nothing() -> None:
    shifted = Q - np.array([[3.0], [-2.0], [7.0]])
    assert extraction.tilt(BEHAVIOUR, Q, 0.1, 0.7) == pytest.approx(
        extraction.tilt(BEHAVIOUR, shifted, 0.1, 0.7), abs=1e-6
    )


def test_kl_by_hand_and_infinite_outside_the_reference() -> None:
    found = extraction.kl(np.array([[0.5, 0.5], [0.5, 0.5]]), np.array([[0.25, 0.75], [1.0, 0.0]]))
    assert found[0] == pytest.approx(0.5 * np.log(2) + 0.5 * np.log(2 / 3))
    assert np.isinf(found[1])


@given(st.integers(0, 10_000), st.floats(0.0, 0.5), st.floats(0.01, 0.3))
@settings(max_examples=30, deadline=None)
def test_solved_alpha_meets_the_target_and_never_leaves_support(seed: int, eps: float, target: float) -> None:
    rng = np.random.default_rng(seed)
    behaviour, q = rng.dirichlet(np.ones(5), size=40), rng.normal(size=(40, 5))
    alpha = extraction.solve_alpha(behaviour, q, eps, target)
    probs = extraction.tilt(behaviour, q, eps, alpha)
    reference = extraction.renormalised(behaviour, eps)
    assert extraction.kl(probs, reference).mean() == pytest.approx(target, rel=1e-3)
    assert not probs[~extraction.mask(behaviour, eps)].any()
    assert target <= extraction.largest_kl(behaviour, eps)


def test_an_infeasible_divergence_is_refused_with_what_can_be_reached() -> None:
    with pytest.raises(InputError, match="infeasible: the greedy policy among supported actions"):
        extraction.solve_alpha(BEHAVIOUR, Q, 0.1, 5.0)
    with pytest.raises(InputError, match="infeasible"):
        extraction.solve_alpha(BEHAVIOUR, np.zeros_like(Q), 0.1, 0.1)
