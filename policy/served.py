"""NetworkPolicy: what every learner returns: networks, the scaling before them, and the rule behind them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Float32

from cohort.dictionary import Dictionary
from cohort.errors import InputError
from cohort.scaler import Scaler
from policy import extraction
from policy.networks import Network

Rule = Literal["softmax", "tilt", "greedy"]


@dataclass(frozen=True)
class NetworkPolicy:
    """A policy over discrete doses that can be served, saved and audited."""

    learner: str
    config: Mapping[str, Any]
    rule: Rule
    """softmax: of the actor's logits. tilt: support-constrained extraction. greedy: best supported action."""
    scaler: Scaler
    features: tuple[str, ...]
    n_actions: int
    actor: Network | None = None
    """Logits: of the policy itself (softmax), or of the behaviour model that constrains it (tilt, greedy)."""
    critic: Network | None = None
    """Q, one member each; their minimum counts. In units of `reward_scale`."""
    temperature: float = 1.0
    """The actor's logits are divided by it (calibration)."""
    eps: float = 0.0
    """Support threshold relative to the likeliest action; 0: every action is eligible."""
    alpha: float = 1.0
    """Temperature of the tilt, in reward units."""
    reward_scale: float = 1.0
    dictionary: Dictionary | None = None
    curves: tuple[dict[str, float], ...] = field(default=(), repr=False)
    notes: Mapping[str, Any] = field(default_factory=dict)
    """What training found out: counts, divergence, whether it was stopped and why. JSON-serialisable."""

    def probs(self, state: Float[np.ndarray, "n d"]) -> Float32[np.ndarray, "n a"]:
        """Action probabilities, (n, n_actions); rows sum to 1.

        Raises:
            InputError: the wrong number of features, or NaN or infinity.
        """
        scaled = self._scaled(state)
        if self.rule == "softmax":
            return self._behaviour(scaled)
        if self.rule == "tilt":
            return extraction.tilt(self._behaviour(scaled), self._values(scaled), self.eps, self.alpha)
        supported = self._support(scaled)
        best = np.where(supported, self._values(scaled), -np.inf).argmax(axis=1)
        chosen: np.ndarray = np.eye(self.n_actions, dtype=np.float32)[best]
        return chosen

    def q(self, state: Float[np.ndarray, "n d"]) -> Float32[np.ndarray, "n a"]:
        """State-action values in reward units, (n, n_actions): the ensemble's minimum.

        Values of actions outside `support` are extrapolated.

        Raises:
            InputError: as `probs`, or the learner has no value network.
        """
        return self._values(self._scaled(state))

    def support(self, state: Float[np.ndarray, "n d"]) -> Bool[np.ndarray, "n a"]:
        """True for the actions that this policy considers eligible in each state."""
        return self._support(self._scaled(state))

    def _scaled(self, state: Float[np.ndarray, "n d"]) -> Float32[np.ndarray, "n d"]:
        state = np.asarray(state)
        if state.ndim != 2 or state.shape[1] != len(self.features):
            raise InputError(f"state has shape {state.shape}, expected (n, {len(self.features)})")
        bad = int((~np.isfinite(state)).any(axis=1).sum())
        if bad:
            raise InputError(f"state: {bad} of {len(state)} rows hold NaN or infinity; nothing is recommended for such")
        return self.scaler.transform(state)

    def _behaviour(self, scaled: Float32[np.ndarray, "n d"]) -> Float32[np.ndarray, "n a"]:
        if self.actor is None:
            raise InputError(f"a {self.learner} policy has no actor")
        return softmax(self.actor(scaled)[0] / np.float32(self.temperature))

    def _values(self, scaled: Float32[np.ndarray, "n d"]) -> Float32[np.ndarray, "n a"]:
        if self.critic is None:
            raise InputError(f"a {self.learner} policy has no value network, so no q")
        values: np.ndarray = self.critic(scaled).min(axis=0) * np.float32(self.reward_scale)
        return values

    def _support(self, scaled: Float32[np.ndarray, "n d"]) -> Bool[np.ndarray, "n a"]:
        if self.eps == 0.0:
            return np.ones((len(scaled), self.n_actions), bool)
        return extraction.mask(self._behaviour(scaled), self.eps)


def softmax(logits: Float32[np.ndarray, "n a"]) -> Float32[np.ndarray, "n a"]:
    """Probabilities of logits, row by row."""
    weight = np.exp(logits - logits.max(axis=1, keepdims=True))
    out: np.ndarray = weight / weight.sum(axis=1, keepdims=True)
    return out
