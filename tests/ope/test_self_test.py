"""Self-test: passes on the estimators as they are, and finds each way of breaking them."""

import numpy as np
import pytest

from ope import importance, self_test
from ope.trajectories import Sums, Trajectories


def test_every_oracle_passes_and_every_estimator_is_tested() -> None:
    checks = self_test.run()
    assert {check.name: check.passed for check in checks} == dict.fromkeys(self_test.ORACLES, True)
    assert set(self_test.ESTIMATORS) == {name for check in checks for name in check.estimators}


def drops_the_finished(t: Trajectories) -> Sums:
    alive = t.reward != 0
    horizon = t.reward.shape[1]
    columns = np.concatenate([t.weight * t.reward * t.discount, t.weight * alive], axis=1)
    return Sums(
        columns, lambda sums: importance.divide(sums[:, :horizon], np.maximum(sums[:, horizon:], 1e-9)).sum(axis=1)
    )


def forgets_the_discount(t: Trajectories) -> Sums:
    return importance.mean_of((t.weight * t.reward).sum(axis=1))


@pytest.mark.parametrize(
    ("name", "broken", "oracle"),
    [("cwpdis", drops_the_finished, "padding_trap"), ("pdis", forgets_the_discount, "unequal_lengths")],
)
def test_a_broken_estimator_fails_the_self_test(
    monkeypatch: pytest.MonkeyPatch, name: str, broken: object, oracle: str
) -> None:
    monkeypatch.setitem(self_test.ESTIMATORS, name, broken)
    failed = {check.name for check in self_test.run() if not check.passed}
    assert oracle in failed
