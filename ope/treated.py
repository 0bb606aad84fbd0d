"""Treated: what policies returned when they treated simulated patients themselves, and how their estimates stand to it.

Only a simulated hospital can tell. The values come in as a file; nothing here, nor any other stage, knows the hospital.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata

from cohort import artifact
from cohort.errors import InputError
from ope.estimates import Estimate
from ope.interval import Interval

FILE = "rollouts.json"
PLACES = (1, 2, 3)
"""Of the policies that an estimator puts first: regret is that of the best of so many."""


@dataclass(frozen=True)
class Treated:
    """Mean discounted return where a policy treats, and how much more than where the clinicians do."""

    value: float
    error: float
    """Standard error of the value."""
    difference: float
    difference_error: float
    """Of the difference, paired: the same patients with the same luck."""


@dataclass(frozen=True)
class Grade:
    """One estimator over the policies."""

    estimator: str
    policies: int
    """For which it gives a number, withheld or not."""
    bias: float
    rmse: float
    coverage: float
    """Share of those policies whose interval holds what treating returned."""
    printed: int
    printed_missed: int
    """Of the numbers that the gates let through, those whose interval misses it."""
    rank_correlation: float
    """Spearman's, between estimates and returns."""
    regret: tuple[float, ...]
    """Return of the best policy less that of the best among the first 1, 2 and 3 by this estimator."""


@dataclass(frozen=True)
class Certificate:
    """The grades of all estimators in the hospital that the cohort comes from."""

    stays: int
    truths: Mapping[str, Treated]
    grades: tuple[Grade, ...]


def write(directory: Path, stays: int, truths: Mapping[str, Treated]) -> None:
    """Put the truths into a stage's directory."""
    content = {"stays": stays, "policies": {name: vars(one) for name, one in truths.items()}}
    artifact.write_json(directory / FILE, content)


def certify(
    directory: Path, intervals: Mapping[str, Mapping[str, Interval]], judged: Mapping[str, Sequence[Estimate]]
) -> Certificate:
    """Hold every estimate, withheld or not, against what treating returned.

    Args:
        directory: a stage's, with rollouts.json.
        intervals: policy -> estimator -> what was found, before anything is withheld.
        judged: policy -> its estimates as they are shown.

    Raises:
        ArtifactError: the file is missing or was changed.
        InputError: a policy was not rolled out.
    """
    content: dict[str, Any] = artifact.read_json(artifact.verified(directory, FILE))
    truths = {name: Treated(**one) for name, one in content["policies"].items()}
    absent = sorted(set(intervals) - set(truths))
    if absent:
        raise InputError(f"{directory / FILE}: policy {absent[0]!r} was not rolled out ({len(absent)} missing)")
    estimators = dict.fromkeys(name for found in intervals.values() for name in found)
    grades = tuple(_grade(name, intervals, judged, truths) for name in estimators)
    return Certificate(content["stays"], truths, grades)


def _grade(
    estimator: str,
    intervals: Mapping[str, Mapping[str, Interval]],
    judged: Mapping[str, Sequence[Estimate]],
    truths: Mapping[str, Treated],
) -> Grade:
    found = {
        policy: own[estimator] for policy, own in intervals.items()
        if estimator in own and not np.isnan(own[estimator].value)
    }  # fmt: skip
    shown = {policy for policy in found for one in judged[policy] if one.estimator == estimator and not one.withheld}
    truth = np.array([truths[policy].value for policy in found])
    value, low, high = (np.array([getattr(one, end) for one in found.values()]) for end in ("value", "low", "high"))
    held = (low <= truth) & (truth <= high)
    printed = np.array([policy in shown for policy in found], bool)
    error = value - truth
    return Grade(
        estimator=estimator,
        policies=len(found),
        bias=_mean(error),
        rmse=float(np.sqrt(_mean(error**2))),
        coverage=_mean(held),
        printed=int(printed.sum()),
        printed_missed=int((printed & ~held).sum()),
        rank_correlation=rank_correlation(value, truth),
        regret=tuple(regret(value, truth, k) for k in PLACES),
    )


def rank_correlation(value: np.ndarray, truth: np.ndarray) -> float:
    """Spearman's; NaN where there is nothing to order."""
    if len(truth) < 2 or np.ptp(truth) == 0 or np.ptp(value) == 0:
        return float("nan")
    return float(np.corrcoef(rankdata(value), rankdata(truth))[0, 1])


def regret(value: np.ndarray, truth: np.ndarray, k: int) -> float:
    """The greatest truth less the greatest among the k of the greatest values; NaN where there are fewer than k."""
    if len(truth) < k:
        return float("nan")
    return float(truth.max() - truth[np.argsort(-value, kind="stable")[:k]].max())


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
