"""Treated: grades worked by hand from what treating returned, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from cohort import artifact
from cohort.errors import ArtifactError, InputError
from ope import treated
from ope.estimates import Estimate
from ope.interval import Interval
from ope.treated import Treated

TRUTHS = {
    "a": Treated(0.5, 0.01, 0.1, 0.005),
    "b": Treated(0.3, 0.01, -0.1, 0.005),
    "c": Treated(0.1, 0.01, -0.3, 0.01),
}
NAN = float("nan")


def rolled(out: Path, truths: dict[str, Treated]) -> Path:
    with artifact.writing(out, "rollouts", {}) as draft:
        treated.write(draft.path, 1000, truths)
    return out


def shown(value: float | None) -> list[Estimate]:
    reason = None if value is not None else "low_ess: too low"
    return [Estimate("wis", value, value, value, 0.95, 100, 50.0, reason)]


def test_the_grades_of_three_policies_are_those_worked_by_hand(tmp_path: Path) -> None:
    """Errors -0.15, +0.1 and 0: b's and c's intervals miss; a, b are printed; b > a > c swaps two of three."""
    intervals = {
        "a": {"wis": Interval(0.35, 0.2, 0.6)},
        "b": {"wis": Interval(0.4, 0.35, 0.45)},
        "c": {"wis": Interval(0.1, 0.15, 0.2)},
    }
    judged = {"a": shown(0.35), "b": shown(0.4), "c": shown(None)}
    found = treated.certify(rolled(tmp_path / "r", TRUTHS), intervals, judged)
    assert (found.stays, found.truths) == (1000, TRUTHS)
    grade = found.grades[0]
    assert (grade.estimator, grade.policies, grade.printed, grade.printed_missed) == ("wis", 3, 2, 1)
    assert grade.bias == pytest.approx((-0.15 + 0.1 + 0) / 3)
    assert grade.rmse == pytest.approx(np.sqrt((0.15**2 + 0.1**2) / 3))
    assert grade.coverage == pytest.approx(1 / 3)
    assert grade.rank_correlation == pytest.approx(0.5)
    assert grade.regret == pytest.approx((0.2, 0.0, 0.0))


def test_an_estimator_without_a_number_is_left_out_of_its_own_grade(tmp_path: Path) -> None:
    intervals = {"a": {"wis": Interval(0.5, 0.4, 0.6)}, "b": {"wis": Interval(NAN, NAN, NAN)}}
    found = treated.certify(rolled(tmp_path / "r", TRUTHS), intervals, {"a": shown(0.5), "b": shown(None)}).grades[0]
    assert (found.policies, found.bias, found.coverage) == (1, 0.0, 1.0)
    assert np.isnan(found.rank_correlation)
    assert np.isnan(found.regret[1])


def test_a_policy_that_did_not_treat_and_a_changed_file_are_refused(tmp_path: Path) -> None:
    folder, intervals = rolled(tmp_path / "r", {"a": TRUTHS["a"]}), {"z": {"wis": Interval(0.0, 0.0, 0.0)}}
    with pytest.raises(InputError, match="policy 'z' was not rolled out"):
        treated.certify(folder, intervals, {"z": shown(None)})
    (folder / treated.FILE).write_text("{}")
    with pytest.raises(ArtifactError, match="its hash differs"):
        treated.certify(folder, {}, {})
