"""Assessment: one policy on the evaluation patients: its numbers, and what bears on whether they may be shown."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from cohort import pieces
from cohort.episodes import Episodes
from ope import comparison, estimates, fqe, importance, influence, interval, overlap, samples, sensitivity
from ope import gates as gating
from ope.comparison import Comparison
from ope.estimates import ESTIMATORS, NEED_Q, Estimate
from ope.fqe import Fitted, Target
from ope.gates import Gate
from ope.interval import Interval
from ope.overlap import Overlap
from ope.samples import Sample
from ope.setting import Setting
from ope.trajectories import Sums, Trajectories, pad
from ope.twin import Certificate

CLINICIANS = "clinicians"
UNKNOWN = Interval(float("nan"), float("nan"), float("nan"))
NO_MODEL = "no_model: Q is fitted neither for controls nor to fewer patients than fqe.folds"
WEIGHTED = ("tipping_gamma", "discounts")
"""Parts of `Finding.supporting` that rest on wis."""


@dataclass(frozen=True)
class Finding:
    """One policy's numbers, before anything is withheld."""

    overlap: Overlap
    gates: tuple[Gate, ...]
    samples: Mapping[str, Sample]
    intervals: Mapping[str, Interval]
    cut: int
    by_group: Float[np.ndarray, "s a"] | None = None
    described: Mapping[str, Any] | None = None
    """Divergence and hazards: what the policy does, shown whatever it is worth."""
    supporting: Mapping[str, Any] | None = None
    """Sensitivity, influence, bound, other discounts: shown only where the primary estimate is."""


def clinicians(setting: Setting) -> Finding:
    """The logged actions' own return; only the number of patients can withhold it."""
    t = pad(setting.episodes, np.ones(setting.episodes.n), setting.config.gamma)
    shared = overlap.measure(t, setting.episodes.patient)
    gates = gating.check_overlap(shared, setting.config.gates)
    return _finding(t, shared, gates, {CLINICIANS: importance.logged}, setting.cut, setting)


def assess(target: Target, learned: bool, setting: Setting) -> Finding:
    """All that is found of one policy; model-based estimates only for a learned one."""
    episodes, config = setting.episodes, setting.config
    found = comparison.compare(
        target.rows, episodes, setting.behaviour, setting.clinical, setting.group, config.gates.support_floor
    )
    fitted = _fitted(target, setting) if learned else None
    t = _trajectories(found, fitted, config.gamma, setting)
    shared = overlap.measure(t, episodes.patient, found.unsupported)
    gates = [setting.self_test, *gating.check_overlap(shared, config.gates), setting.calibration]
    chosen = {name: ESTIMATORS[name] for name in config.estimators if fitted is not None or name not in NEED_Q}
    cut = setting.cut if fitted is None else 0
    plain = _finding(t, shared, gates, chosen, cut, setting, None if fitted is None else fitted.member_values)
    options = (config.comparison, config.level, config.n_bootstrap, setting.seed)
    described = comparison.sections(found, episodes, setting.clinical, *options)
    several = shared.ess > 0 and shared.n_patients > 1
    supporting = _supporting(t, found, fitted, setting) if learned and several else None
    return Finding(
        plain.overlap, plain.gates, plain.samples, plain.intervals, cut, found.by_group, described, supporting
    )


def judged(finding: Finding, coverage: Mapping[str, float], setting: Setting) -> list[Estimate]:
    """The estimates as they may be shown; `coverage`: of each estimator's intervals in the twin."""
    config, own = setting.config, {}
    for name in finding.intervals:
        if name in coverage:
            own[name] = [gating.check_coverage(coverage[name], config.gates)]
    reasons = estimates.reasons_to_withhold(
        finding.intervals, finding.gates, config.gates, setting.allowed, finding.cut, own
    )
    shown = [
        estimates.shown(name, found, config.level, finding.overlap, reasons[name])
        for name, found in finding.intervals.items()
    ]
    if finding.by_group is None:  # the clinicians
        return shown
    absent = [name for name in config.estimators if name not in finding.intervals]
    reason = gating.withheld(finding.gates) or NO_MODEL
    return shown + [estimates.shown(name, UNKNOWN, config.level, finding.overlap, reason) for name in absent]


def difference(one: Sample, other: Sample, level: float, allowed: tuple[float, float]) -> Interval:
    """`one` minus `other`, resample by resample."""
    width = allowed[1] - allowed[0]
    return samples.interval_of(samples.less(one, other), level, (-width, width))


def coverage_of(name: str, certificate: Certificate | None) -> dict[str, float]:
    """Each estimator's coverage for one policy."""
    grades = () if certificate is None else certificate.grades
    return {grade.estimator: grade.coverage for grade in grades if grade.policy == name}


def _fitted(target: Target, setting: Setting) -> Fitted | None:
    config = setting.config
    if config.fqe is None or len(np.unique(setting.episodes.patient)) < config.fqe.folds:
        return None

    def fit() -> dict[str, np.ndarray]:
        fitted = fqe.evaluate_target(
            setting.episodes, target, config.gamma, config.fqe, setting.seed, setting.behaviour,
            poor=10 * config.gates.support_floor, read=setting.read,
        )  # fmt: skip
        return {name: value for name, value in vars(fitted).items() if value is not None}

    name = hashlib.sha256(target.rows.tobytes() + target.final.tobytes()).hexdigest()
    return Fitted(**pieces.arrays(setting.kept, f"q-{name}", fit))


def _trajectories(found: Comparison, fitted: Fitted | None, gamma: float, setting: Setting) -> Trajectories:
    if fitted is None:
        return pad(setting.episodes, found.ratio, gamma)
    q = np.where(setting.read, fitted.q, fitted.v)
    return pad(setting.episodes, found.ratio, gamma, q, fitted.v, fitted.final_value)


def _finding(
    t: Trajectories,
    shared: Overlap,
    gates: Sequence[Gate],
    chosen: Mapping[str, Callable[[Trajectories], Sums]],
    cut: int,
    setting: Setting,
    members: Float[np.ndarray, "m"] | None = None,
) -> Finding:
    config = setting.config
    found = samples.sample(t, setting.episodes, chosen, config.n_bootstrap, setting.seed)
    if members is not None and "dm" in found:
        found["dm"] = samples.with_model_error(found["dm"], members)
    intervals = {name: samples.interval_of(one, config.level, setting.allowed) for name, one in found.items()}
    return Finding(shared, tuple(gates), found, intervals, cut)


def _supporting(t: Trajectories, found: Comparison, fitted: Fitted | None, setting: Setting) -> dict[str, Any]:
    episodes, config = setting.episodes, setting.config
    behaviour = setting.behaviour[np.arange(episodes.n), episodes.action].astype(np.float64)
    reference = importance.logged(t).value
    tipping = {
        scope: sensitivity.tipping_gamma(t, behaviour, episodes, reference, scope)
        for scope in ("one_decision", "every_step")
    }
    low = interval.high_confidence(
        t.weight[:, -1], t.returns, episodes.patient, setting.allowed, config.comparison.clip, config.level
    )
    return {
        "tipping_gamma": {"estimator": "wis", "largest": sensitivity.LARGEST, **tipping},
        "influence": _influence(t, found, setting),
        "lower_bound": {"estimator": "is", "clip": config.comparison.clip, "level": config.level, "value": low},
        "discounts": [_at_discount(found, gamma, setting) for gamma in config.discounts],
        "poorly_supported_gain": None if fitted is None else _poor_share(fitted, t, episodes),
    }


def _influence(t: Trajectories, found: Comparison, setting: Setting) -> dict[str, Any]:
    """How few patients the verdict's estimate hangs on, and who they are without anything that identifies them."""
    episodes, primary = setting.episodes, setting.config.primary
    name = "wis" if t.q is None and primary in NEED_Q else primary
    measured = influence.of_difference(ESTIMATORS[name](t), importance.logged(t), episodes.patient)
    names, place = np.unique(episodes.patient, return_inverse=True)
    weight = np.bincount(place, t.weight[:, -1], len(names))
    cases = []
    for patient in np.argsort(-np.abs(measured.change), kind="stable")[: setting.config.comparison.influential_cases]:
        own = np.flatnonzero(place == patient)
        rows = np.flatnonzero(np.isin(episodes.episode, own))
        cases.append(
            {
                "change": float(measured.change[patient]),
                "weight_share": float(weight[patient] / weight.sum()),
                "return": float(t.returns[own].mean()),
                "decisions": len(rows),
                "mean_agreement": float(found.measures[rows, 2].mean()),
                "largest_ratio": float(found.ratio[rows].max()),
            }
        )
    return {"estimator": name, "flips_after": measured.flips_after, "cases": cases}


def _at_discount(found: Comparison, gamma: float, setting: Setting) -> dict[str, Any]:
    """wis minus the clinicians at another discount."""
    t = pad(setting.episodes, found.ratio, gamma)
    chosen = {"wis": importance.wis, CLINICIANS: importance.logged}
    drawn = samples.sample(t, setting.episodes, chosen, setting.config.n_bootstrap, setting.seed)
    gap = difference(drawn["wis"], drawn[CLINICIANS], setting.config.level, setting.allowed)
    return {"gamma": gamma, "estimator": "wis", **asdict(gap)}


def _poor_share(fitted: Fitted, t: Trajectories, episodes: Episodes) -> dict[str, Any] | None:
    """How much of what Q claims the policy gains on clinicians' states comes from poorly supported doses."""
    if fitted.gain is None or fitted.poor_gain is None:
        return None
    discount = t.discount[episodes.step]
    claimed, poor = (float((part * discount).sum() / episodes.n_episodes) for part in (fitted.gain, fitted.poor_gain))
    return {"claimed": claimed, "from_poorly_supported": poor, "share": poor / claimed if claimed > 0 else None}
