"""Explain: what moved a recommendation, what single change would move it elsewhere, and what to measure next.

Every figure is the policy's own answer to a changed state, not an approximation of it: one value is exchanged, the
others stay as they are, scores and ratios included. It says how the policy answers, not what would help a patient.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from cohort.features import MEASURED
from policy.recommend import Support
from policy.served import NetworkPolicy

QUANTILES = (0.05, 0.15, 0.25, 0.35, 0.5, 0.65, 0.75, 0.85, 0.95)
"""Of the training decisions: the values that count as plausible."""
DRAWS = 25
"""Similar patients whose value stands in for one that is not known."""
STALE_H = 4.0
"""A value older than this may be measured again."""


@dataclass(frozen=True)
class Moved:
    """How much one feature's value counts: the score of the dose with it and with the typical value."""

    feature: str
    value: float
    typical: float
    score: float
    """Probability of the recommended dose were the value typical; its value (reward units) for a greedy policy."""
    action: int
    """What would be recommended then."""


@dataclass(frozen=True)
class Change:
    """The smallest single plausible change after which another dose would be recommended."""

    feature: str
    value: float
    to: float
    action: int


@dataclass(frozen=True)
class Measurement:
    """What measuring a feature could change."""

    feature: str
    age_h: float
    """Hours since it was measured; NaN where it is not known."""
    changes: float
    """Share of similar patients' values with which another dose would be recommended."""


def moved(
    policy: NetworkPolicy, state: Float[np.ndarray, "d"], action: int, typical: Float[np.ndarray, "d"]
) -> tuple[float, list[Moved]]:
    """The dose's score, and what it would be with each feature at its typical value; the largest difference first."""
    states = np.where(np.eye(len(state), dtype=bool), typical, state)
    before = float(_score(policy, state[None], action)[0])
    after, chosen = _score(policy, states, action), policy.probs(states).argmax(axis=1)
    order = np.argsort(-np.abs(after - before), kind="stable")
    found = [
        Moved(policy.features[i], float(state[i]), float(typical[i]), float(after[i]), int(chosen[i]))
        for i in order
        if state[i] != typical[i]
    ]
    return before, found


def smallest_change(
    policy: NetworkPolicy, state: Float[np.ndarray, "d"], action: int, known: Support, measured: Bool[np.ndarray, "d"]
) -> Change | None:
    """The smallest change, in scaled units, of one measured value that changes the dose; None where no single one does.

    Args:
        policy: the policy.
        state: the state as it is.
        action: what is recommended.
        known: training decisions, whose quantiles say what is plausible.
        measured: which features were measured and may change.
    """
    columns = np.flatnonzero(measured & changeable(policy.features))
    if not len(columns):
        return None
    plausible = np.quantile(known.state[:, columns], QUANTILES, axis=0)
    states = np.repeat(state[None], plausible.size, axis=0)
    feature = np.tile(columns, len(QUANTILES))
    states[np.arange(plausible.size), feature] = plausible.ravel()
    chosen = policy.probs(states).argmax(axis=1)
    size = np.abs(known.scaler.transform(states) - known.scaler.transform(state[None])).max(axis=1)
    other = np.flatnonzero(chosen != action)
    if not len(other):
        return None
    best = other[size[other].argmin()]
    at = int(feature[best])
    return Change(policy.features[at], float(state[at]), float(states[best, at]), int(chosen[best]))


def next_measurements(
    policy: NetworkPolicy,
    state: Float[np.ndarray, "d"],
    action: int,
    known: Support,
    near: Int[np.ndarray, "k"],
    age_h: Float[np.ndarray, "d"],
) -> list[Measurement]:
    """Features that are not known or older than STALE_H, by how often a similar patient's value changes the dose."""
    with np.errstate(invalid="ignore"):
        wanted = np.flatnonzero(changeable(policy.features) & ~(age_h <= STALE_H))
    if not len(wanted):
        return []
    values = known.state[near[np.linspace(0, len(near) - 1, min(DRAWS, len(near))).astype(int)]][:, wanted]
    states = np.repeat(state[None], values.size, axis=0)
    states[np.arange(values.size), np.tile(wanted, len(values))] = values.ravel()
    differs = (policy.probs(states).argmax(axis=1) != action).reshape(values.shape).mean(axis=0)
    order = np.argsort(-differs, kind="stable")
    return [Measurement(policy.features[wanted[i]], float(age_h[wanted[i]]), float(differs[i])) for i in order]


def changeable(features: tuple[str, ...]) -> Bool[np.ndarray, "d"]:
    """Which features are measured at the bedside; all where none of the names is known."""
    found = np.array([name in MEASURED for name in features])
    return found if found.any() else np.ones(len(features), bool)


def _score(policy: NetworkPolicy, state: Float[np.ndarray, "n d"], action: int) -> Float[np.ndarray, "n"]:
    answers = policy.q(state) if policy.rule == "greedy" else policy.probs(state)
    return answers[:, action].astype(np.float64)
