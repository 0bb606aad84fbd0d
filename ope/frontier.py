"""Frontier: what each setting of a sweep is worth at least, on the patients it is selected on; no rule reads it."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from cohort.episodes import Episodes
from ope import gates as gating
from ope import importance, interval, overlap
from ope.setting import EvaluationConfig
from ope.trajectories import attainable, pad

ESTIMATOR = "is"


@dataclass(frozen=True)
class Bound:
    """A value's lower bound in reward units; None where it is withheld."""

    value: float | None
    withheld: str | None
    """None, or `code: reason`."""


def bound(
    episodes: Episodes,
    target: Float[np.ndarray, "n a"],
    behaviour: Float[np.ndarray, "n a"],
    config: EvaluationConfig,
) -> Bound:
    """The high-confidence lower bound (`interval.high_confidence`) of a policy's value, by the evaluation's own gates.

    Args:
        episodes: of patients that trained neither the policy nor `behaviour`.
        target: the policy's probabilities.
        behaviour: the clinicians', taken as known.
        config: discount, level, clip and gates.
    """
    rows = np.arange(episodes.n)
    ratio = target[rows, episodes.action].astype(np.float64) / behaviour[rows, episodes.action]
    t = pad(episodes, ratio, config.gamma)
    unsupported = overlap.unsupported_share(target, behaviour, config.gates.support_floor)
    gates = gating.check_overlap(overlap.measure(t, episodes.patient, unsupported), config.gates)
    worst = float(overlap.calibration_error(behaviour, episodes.action, 1).max())
    reason = gating.too_few(gates) or _cut(episodes)
    reason = reason or gating.withheld([*gates, gating.check_calibration(worst, config.gates)])
    if reason is not None:
        return Bound(None, reason)
    allowed, clip = attainable(episodes, config.gamma), config.comparison.clip
    value = interval.high_confidence(t.weight[:, -1], t.returns, episodes.patient, allowed, clip, config.level)
    return Bound(value, None)


def clinicians(episodes: Episodes, config: EvaluationConfig) -> Bound:
    """What the clinicians' own mean return is, beside which bounds stand; no bound itself."""
    t = pad(episodes, np.ones(episodes.n), config.gamma)
    gates = gating.check_overlap(overlap.measure(t, episodes.patient), config.gates)
    reason = gating.too_few(gates) or _cut(episodes)
    return Bound(None, reason) if reason is not None else Bound(importance.logged(t).value, None)


def _cut(episodes: Episodes) -> str | None:
    cut = int((~episodes.terminated).sum())
    return f"truncated: {cut} episodes are cut off and have no final_value" if cut else None
