"""Estimates: what a policy would have achieved, from other doctors' choices, or why that cannot be said."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cohort.episodes import Episodes
from cohort.errors import ConfigError, InputError
from ope import doubly_robust, importance, overlap, samples
from ope import gates as gating
from ope.gates import Gate, GateConfig
from ope.interval import Interval
from ope.trajectories import Sums, Trajectories, attainable, pad

ESTIMATORS: Mapping[str, Callable[[Trajectories], Sums]] = {
    "is": importance.is_,
    "wis": importance.wis,
    "pdis": importance.pdis,
    "cwpdis": importance.cwpdis,
    "dm": doubly_robust.dm,
    "dr": doubly_robust.dr,
    "wdr": doubly_robust.wdr,
    "magic": doubly_robust.magic,
}
NEED_Q = ("dm", "dr", "wdr", "magic")
LEAN_ON_MODEL = ("dm", "magic")
"""Their own resamples do not show the model's bias; see `samples.CORRECTION`."""

_REFERENCE = (
    "cwpdis",
    "wis",
    "pdis",
    "is",
)  # which importance-sampling estimate a model-based one is held against
_SUM_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Estimate:
    """One estimator's answer for one policy: discounted return per episode, in the reward's units."""

    estimator: str
    value: float | None
    low: float | None
    high: float | None
    level: float
    n_episodes: int
    ess: float
    withheld: str | None
    """None, or `code: reason`; value, low and high are then None."""


def evaluate(
    episodes: Episodes,
    target_probs: np.ndarray,
    behaviour_probs: np.ndarray,
    gamma: float | int,
    q: np.ndarray | None = None,
    estimators: Sequence[str] | None = None,
    final_value: np.ndarray | None = None,
    level: float | int = 0.95,
    n_bootstrap: int = 1000,
    seed: int = 0,
    gates: GateConfig | Literal[False] | None = None,
) -> list[Estimate]:
    """Estimate the discounted return of a target policy from episodes made by the behaviour policy.

    Args:
        episodes: the evaluation patients' trajectories.
        target_probs: (n, n_actions) of the target policy, or (n,) of the logged actions.
        behaviour_probs: the same of the clinicians.
        gamma: discount per step, above 0 and at most 1.
        q: (n, n_actions) Q of the target policy, for dm, dr, wdr and magic.
        estimators: names in ESTIMATORS; None: all that the inputs allow.
        final_value: (n_episodes,) V of `final_state`, read where an episode is cut off. Without it dm, dr,
            wdr and magic are withheld there, and the others too unless `gates` is False: they then estimate
            the return up to the cut.
        level: of the intervals, from a bootstrap over patients (see `samples`).
        n_bootstrap: resamples, shared by all estimators.
        seed: of the resamples; the same seed and patients give the same resamples for another policy.
        gates: thresholds; None: the defaults; False: nothing is withheld that can be computed (tests,
            research).

    Raises:
        InputError: lengths that differ, NaN, probabilities outside 0..1 or not summing to 1, a logged action
            that the behaviour policy gives probability 0, or an input that an estimator needs and does not
            have.
        ConfigError: an unknown estimator, or gamma, level or n_bootstrap out of range.
    """
    gamma, level = float(gamma), float(level)
    _check_options(gamma, level, n_bootstrap)
    names = _names(estimators, q is not None)
    target, behaviour = (
        _probabilities(episodes, "target_probs", target_probs),
        _probabilities(episodes, "behaviour_probs", behaviour_probs),
    )
    ratio = _logged(episodes, target) / _positive(_logged(episodes, behaviour))
    values, v = _model(episodes, target, q) if any(name in NEED_Q for name in names) else (None, None)
    tail = None if final_value is None else _final_value(episodes, final_value)
    trajectories = pad(episodes, ratio, gamma, values, v, tail)
    config = GateConfig() if gates is None else gates
    shared = overlap.measure(trajectories, episodes.patient, _unsupported(target, behaviour, config))
    found = samples.sample(trajectories, episodes, {name: ESTIMATORS[name] for name in names}, n_bootstrap, seed)
    allowed = attainable(episodes, gamma)
    intervals = {name: samples.interval_of(one, level, allowed) for name, one in found.items()}
    policy_gates = [] if config is False else gating.check_overlap(shared, config)
    if config is not False and behaviour.ndim == 2:
        policy_gates.append(
            gating.check_calibration(float(overlap.calibration_error(behaviour, episodes.action, 1).max()), config)
        )
    cut = 0 if tail is not None else int((~episodes.terminated).sum())
    reasons = reasons_to_withhold(intervals, policy_gates, config, allowed, cut)
    return [shown(name, intervals[name], level, shared, reasons[name]) for name in names]


def reasons_to_withhold(
    intervals: Mapping[str, Interval],
    policy_gates: Sequence[Gate],
    config: GateConfig | Literal[False],
    allowed: tuple[float, float],
    cut: int,
    more: Mapping[str, Sequence[Gate]] | None = None,
) -> dict[str, str | None]:
    """Per estimator: None, or why its number is withheld.

    Args:
        intervals: what was found.
        policy_gates: those of all the policy's estimators.
        config: False: nothing is gated.
        allowed: what the rewards allow.
        cut: episodes cut off without a final value.
        more: further gates of single estimators.
    """
    reasons: dict[str, str | None] = {}
    for name, found in intervals.items():
        own = gating.too_few(policy_gates)  # said first: it makes every other reason idle
        if own is None and cut and (name in NEED_Q or config is not False):
            own = f"truncated: {cut} episodes are cut off and have no final_value"
        elif own is None and np.isnan(found.value):
            own = "undefined: at some step no episode has any weight left"
        elif own is None and config is not False:
            own = gating.withheld(
                [*policy_gates, *(more or {}).get(name, ()), *_own_gates(name, intervals, config, allowed)]
            )
        reasons[name] = own
    return reasons


def _own_gates(
    name: str, intervals: Mapping[str, Interval], config: GateConfig, allowed: tuple[float, float]
) -> list[Gate]:
    gates = [gating.check_range(intervals[name].value, allowed)] if config.value_in_range else []
    reference = name if name in _REFERENCE else next((other for other in _REFERENCE if other in intervals), None)
    if config.agreement and reference is not None and "dm" in intervals:
        gates.append(gating.check_agreement(intervals["dm"].value, reference, intervals[reference]))
    return gates


def shown(name: str, found: Interval, level: float, shared: overlap.Overlap, reason: str | None) -> Estimate:
    """The estimate as it may be printed: without its numbers where there is a reason to withhold them."""
    value, low, high = (found.value, found.low, found.high) if reason is None else (None, None, None)
    return Estimate(name, value, low, high, level, shared.n_episodes, shared.ess, reason)


def _names(estimators: Sequence[str] | None, has_q: bool) -> list[str]:
    if estimators is None:
        return [name for name in ESTIMATORS if has_q or name not in NEED_Q]
    for name in estimators:
        if name not in ESTIMATORS:
            raise ConfigError(f"estimator {name!r} is unknown; known: {', '.join(ESTIMATORS)}")
        if name in NEED_Q and not has_q:
            raise InputError(f"estimator {name} needs q, the target policy's (n, n_actions) state-action values")
    if not estimators or len(set(estimators)) < len(estimators):
        raise ConfigError("estimators: none given, or one given twice")
    return list(estimators)


def _check_options(gamma: float, level: float, n_bootstrap: int) -> None:
    if not 0 < gamma <= 1:
        raise ConfigError(f"gamma: {gamma}, allowed: above 0 and at most 1")
    if not 0 < level < 1:
        raise ConfigError(f"level: {level}, allowed: between 0 and 1")
    if n_bootstrap < 2:
        raise ConfigError(f"n_bootstrap: {n_bootstrap}, allowed: 2 or more")


def _probabilities(episodes: Episodes, name: str, given: np.ndarray) -> np.ndarray:
    probs = _floats(given)
    if probs.shape not in ((episodes.n,), (episodes.n, episodes.n_actions)):
        raise InputError(
            f"{name}: has shape {probs.shape}, expected {(episodes.n, episodes.n_actions)} or {(episodes.n,)}"
        )
    total = probs @ np.ones(episodes.n_actions, probs.dtype) if probs.ndim == 2 else probs
    bad = int((~np.isfinite(total)).sum())
    if bad:
        raise InputError(f"{name}: NaN or infinite in {bad} of {episodes.n} rows")
    if probs.min() < 0 or probs.max() > 1 + _SUM_TOLERANCE:
        wrong = ((probs < 0) | (probs > 1 + _SUM_TOLERANCE)).reshape(len(probs), -1).any(axis=1).sum()
        raise InputError(f"{name}: outside 0..1 in {int(wrong)} of {episodes.n} rows")
    off = int((np.abs(total - 1) > _SUM_TOLERANCE).sum()) if probs.ndim == 2 else 0
    if off:
        raise InputError(f"{name}: do not sum to 1 (tolerance {_SUM_TOLERANCE}) in {off} of {episodes.n} rows")
    return probs


def _logged(episodes: Episodes, probs: np.ndarray) -> np.ndarray:
    return probs if probs.ndim == 1 else probs[np.arange(episodes.n), episodes.action]


def _positive(logged: np.ndarray) -> np.ndarray:
    zero = int((logged <= 0).sum())
    if zero:
        raise InputError(f"behaviour_probs: {zero} of {len(logged)} logged actions have probability 0, must be above 0")
    return logged


def _model(episodes: Episodes, target: np.ndarray, q: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    values = _floats(q)
    if values.shape != (episodes.n, episodes.n_actions):
        raise InputError(f"q: has shape {values.shape}, expected ({episodes.n}, {episodes.n_actions})")
    if target.ndim != 2:
        raise InputError("target_probs: dm, dr, wdr and magic need all actions' probabilities, (n, n_actions)")
    v = np.einsum("na,na->n", target, values)
    bad = int((~np.isfinite(v)).sum())
    if bad:
        raise InputError(f"q: NaN or infinite in {bad} of {episodes.n} rows")
    return values[np.arange(episodes.n), episodes.action], v


def _final_value(episodes: Episodes, given: np.ndarray) -> np.ndarray:
    value = _floats(given)
    if value.shape != (episodes.n_episodes,):
        raise InputError(f"final_value: has shape {value.shape}, expected ({episodes.n_episodes},)")
    bad = int((~np.isfinite(value[~episodes.terminated])).sum())
    if bad:
        raise InputError(f"final_value: NaN or infinite in {bad} cut-off episodes")
    return value


def _floats(given: np.ndarray | None) -> np.ndarray:
    array = np.asarray(given)
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float64)


def _unsupported(target: np.ndarray, behaviour: np.ndarray, config: GateConfig | Literal[False]) -> float | None:
    if config is False or target.ndim != 2 or behaviour.ndim != 2:
        return None
    return overlap.unsupported_share(target, behaviour, config.support_floor)
