"""Twin: counts by hand, grades that are right where estimators are, and that fail an estimator that is not."""

import numpy as np
import pytest

from cohort.episodes import Episodes
from cohort.errors import InputError
from cohort.scaler import Scaler
from ope import self_test, tabular, twin
from ope.twin import TwinConfig

BEHAVIOUR = np.array([[0.75, 0.25], [0.5, 0.5]])
TARGET = np.array([[0.4, 0.6], [0.5, 0.5]])
QUICK = TwinConfig(groups=2, repeats=30, episodes=400, n_bootstrap=100, pseudo_count=0.01)


def drawn(n: int) -> Episodes:
    """Episodes whose states are two well-separated points."""
    log = tabular.draw(self_test.early_end(), BEHAVIOUR, n, np.random.default_rng(0))
    base = log.episodes
    return Episodes.from_arrays(
        np.eye(2)[log.place], base.action, base.reward, base.episode, base.terminated, n_actions=2,
        scaler=Scaler(np.zeros(2), np.ones(2), np.zeros(2, bool)),
    )  # fmt: skip


def test_a_twin_of_a_tabular_problem_is_that_problem() -> None:
    problem, found = self_test.early_end(), twin.fit(drawn(20_000), QUICK, 0)
    swap = found.problem.start.argsort() if abs(found.behaviour[0, 0] - 0.75) > 0.1 else np.arange(2)
    if abs(found.behaviour[swap[0], 0] - 0.75) > 0.1:
        swap = swap[::-1]
    assert found.behaviour[swap] == pytest.approx(BEHAVIOUR, abs=0.02)
    assert found.problem.reward[swap] == pytest.approx(problem.reward, abs=0.01)
    exact = tabular.value(problem, TARGET, 0.9)
    assert tabular.value(found.problem, TARGET[swap], 0.9) == pytest.approx(exact, abs=0.02)


def test_the_certificate_finds_the_estimators_right_and_their_intervals_holding() -> None:
    fitted = twin.fit(drawn(5000), QUICK, 0)
    policies = {"near": TARGET, "clinicians": fitted.behaviour, "far": np.array([[0.05, 0.95], [0.1, 0.9]])}
    found = twin.certify(fitted, policies, ("wis", "cwpdis", "wdr", "dm"), 0.9, 5000, 10_000, QUICK, 0.95, 0)
    assert (found.repeats, found.episodes, found.groups) == (30, 400, 2)
    for grade in found.grades:
        if grade.policy != "far":
            assert abs(grade.bias) < 0.02, grade
            assert grade.coverage >= 0.8 or grade.estimator == "dm", grade
    best = {one.estimator: one for one in found.orderings}
    assert best["wdr"].rank_correlation > 0.8
    assert best["wdr"].regret[0] < 0.05


def test_policies_are_averaged_within_groups() -> None:
    fitted = twin.fit(drawn(500), QUICK, 0)
    probs = np.where(fitted.group[:, None] == 0, [0.2, 0.8], [0.6, 0.4])
    assert twin.averaged(fitted, probs) == pytest.approx(np.array([[0.2, 0.8], [0.6, 0.4]]))


def test_the_same_seed_gives_the_same_certificate() -> None:
    fitted = twin.fit(drawn(300), QUICK, 0)
    few = QUICK.model_copy(update={"repeats": 3, "episodes": 50})
    one, two = (twin.certify(fitted, {"t": TARGET}, ("wis",), 0.9, 300, 300, few, 0.95, 1) for _ in range(2))
    assert repr(one) == repr(two)


def test_more_groups_than_decisions_are_refused() -> None:
    with pytest.raises(InputError, match="40 groups, but only"):
        twin.fit(drawn(5), TwinConfig(), 0)
