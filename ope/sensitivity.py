"""Sensitivity: how strong an unrecorded confounder must be before a policy's benefit vanishes.

Marginal sensitivity model (Tan 2006; Kallus and Zhou 2020; Namkoong et al. 2020): given what was not recorded, the odds
of the logged action differ from the modelled odds by at most Gamma, so that its inverse probability, relative to the
modelled 1/b, lies between b + (1 - b)/Gamma and b + (1 - b) Gamma. Gamma 1: no confounder. One decision: in each
episode a confounder acts at no more than one decision. Every step: it may act at all of them.
"""

from typing import Literal

import numpy as np
from jaxtyping import Float

from cohort.episodes import Episodes
from ope.trajectories import Trajectories

Scope = Literal["one_decision", "every_step"]
LARGEST = 100.0
"""Gamma is looked for up to here."""


def tipping_gamma(
    t: Trajectories, behaviour: Float[np.ndarray, "n"], episodes: Episodes, reference: float, scope: Scope
) -> float:
    """The least Gamma at which the worst case of wis is no longer above `reference` (the clinicians' return).

    1 where there is no benefit to begin with; LARGEST where none as strong as that undoes it.

    Args:
        t: the policy's trajectories.
        behaviour: modelled probability of each logged action.
        episodes: those of `t`.
        reference: what the policy is compared with.
        scope: at how many decisions of an episode the confounder may act.
    """
    low, high = 0.0, float(np.log(LARGEST))
    if worst_case(t, behaviour, episodes, 1.0, scope) <= reference:
        return 1.0
    if worst_case(t, behaviour, episodes, LARGEST, scope) > reference:
        return LARGEST
    for _ in range(40):
        middle = (low + high) / 2
        if worst_case(t, behaviour, episodes, float(np.exp(middle)), scope) > reference:
            low = middle
        else:
            high = middle
    return float(np.exp(high))


def worst_case(
    t: Trajectories, behaviour: Float[np.ndarray, "n"], episodes: Episodes, gamma: float, scope: Scope
) -> float:
    """The lowest wis that confounding of strength `gamma` could hide."""
    smallest, largest = _factors(behaviour, episodes, gamma, scope)
    weight = t.weight[:, -1] / t.weight[:, -1].max()
    return lowest_mean(t.returns, weight * smallest, weight * largest)


def lowest_mean(
    value: Float[np.ndarray, "e"], smallest: Float[np.ndarray, "e"], largest: Float[np.ndarray, "e"]
) -> float:
    """The least weighted mean of `value` over weights between `smallest` and `largest`.

    The minimum gives the largest weight to all values below some threshold and the smallest to those above it, so that
    it is the least over the n + 1 thresholds.
    """
    order = np.argsort(value, kind="stable")
    value, smallest, largest = value[order], smallest[order], largest[order]
    below = np.r_[0.0, np.cumsum(largest * value)] + np.r_[np.cumsum((smallest * value)[::-1])[::-1], 0.0]
    total = np.r_[0.0, np.cumsum(largest)] + np.r_[np.cumsum(smallest[::-1])[::-1], 0.0]
    return float((below[total > 0] / total[total > 0]).min())


def _factors(
    behaviour: Float[np.ndarray, "n"], episodes: Episodes, gamma: float, scope: Scope
) -> tuple[Float[np.ndarray, "e"], Float[np.ndarray, "e"]]:
    """The range of the true over the modelled inverse probability of each episode's actions."""
    lower = behaviour + (1 - behaviour) / gamma
    upper = behaviour + (1 - behaviour) * gamma
    if scope == "one_decision":
        return np.minimum.reduceat(lower, episodes.start), np.maximum.reduceat(upper, episodes.start)
    with np.errstate(over="ignore"):
        products = [np.exp(np.add.reduceat(np.log(side), episodes.start)) for side in (lower, upper)]
    return products[0], products[1]
