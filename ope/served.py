"""Served: a policy as its reader gets it: only doses that may be shown, and the clinicians' own where it is silent."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32

from cohort.episodes import Episodes
from policy import recommend
from policy.base import Policy
from policy.recommend import Bedside, Look, Support
from policy.served import NetworkPolicy

_ROWS = 1 << 12  # states answered at once


@dataclass(frozen=True)
class Reader:
    """What answers at the bedside beside the policy, and what is known of each decision there."""

    known: Support
    behaviour: Policy
    """What clinicians do in a state: the model that is shown, not the evaluation's."""
    age_h: Float[np.ndarray, "n d"]
    bedside: Bedside


@dataclass(frozen=True)
class Served:
    """What reaches the patient where the reader follows every recommendation, and otherwise goes on as usual."""

    drawn: Float32[np.ndarray, "n a"]
    """A dose is drawn with the policy's probabilities, among those that may be shown."""
    likeliest: Float32[np.ndarray, "n a"]
    """The likeliest dose, which is the one recommended."""
    silent: Mapping[str, int]
    """Gate -> decisions at which it keeps the policy silent; the clinicians' probabilities stand in both tables."""


def serve(policy: NetworkPolicy, reader: Reader, episodes: Episodes, clinicians: Float32[np.ndarray, "n a"]) -> Served:
    """Ask for a recommendation at every decision.

    Args:
        policy: the policy.
        reader: what answers beside it.
        episodes: the decisions.
        clinicians: the evaluation's own model of what they do at each, which takes over where the policy is silent.
    """
    drawn, likeliest = clinicians.copy(), clinicians.copy()
    silent: Counter[str] = Counter()
    for first in range(0, episodes.n, _ROWS):
        rows = slice(first, first + _ROWS)
        bedside = Bedside(*(getattr(reader.bedside, name)[rows] for name in ("cvp", "balance_ml", "previous_action")))
        looks = recommend.looks(
            policy, episodes.state[rows], reader.known, reader.behaviour, reader.age_h[rows], bedside
        )
        for row, look in enumerate(looks, start=first):
            if look.recommendation.gate is not None:
                silent[look.recommendation.gate] += 1
                continue
            drawn[row] = _shown(look)
            likeliest[row] = np.eye(episodes.n_actions, dtype=np.float32)[look.recommendation.action]
    return Served(drawn, likeliest, dict(silent))


def _shown(look: Look) -> Float32[np.ndarray, "a"]:
    """The policy's probabilities among the doses that are supported and break no rule."""
    assert look.evidence is not None
    allowed = look.evidence.supported & np.array([rule is None for rule in look.evidence.hazard])
    weight = look.evidence.probability * allowed
    shares: np.ndarray = weight / weight.sum()
    return shares
