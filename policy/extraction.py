"""Extraction: a closed-form policy from a critic, inside what clinicians do, at a stated divergence from them.

pi(a|s) is proportional to pi_b(a|s) exp(Q(s, a) / alpha) over the actions with pi_b(a|s) >= eps max_a pi_b(a|s).
The state's value V(s) cancels, so the advantage and Q give the same policy.
"""

import numpy as np
from jaxtyping import Bool, Float, Float32
from scipy.optimize import brentq

from cohort.errors import InputError

SMALLEST, LARGEST = 1e-6, 1e6
"""Temperatures searched, in units of the returns' standard deviation."""


def mask(behaviour: Float[np.ndarray, "n a"], eps: float) -> Bool[np.ndarray, "n a"]:
    """Supported actions: at least `eps` times as likely as the likeliest one of that state."""
    kept: np.ndarray = behaviour >= eps * behaviour.max(axis=1, keepdims=True)
    return kept


def renormalised(behaviour: Float[np.ndarray, "n a"], eps: float) -> Float[np.ndarray, "n a"]:
    """The behaviour policy restricted to its supported actions; rows sum to 1."""
    kept = np.where(mask(behaviour, eps), behaviour, 0.0)
    out: np.ndarray = kept / kept.sum(axis=1, keepdims=True)
    return out


def tilt(
    behaviour: Float[np.ndarray, "n a"], q: Float[np.ndarray, "n a"], eps: float, alpha: float
) -> Float32[np.ndarray, "n a"]:
    """The extracted policy at temperature `alpha` (in q's units): small is greedy, large is masked pi_b."""
    return _tilted(renormalised(behaviour.astype(np.float64), eps), q, alpha).astype(np.float32)


def kl(policy: Float[np.ndarray, "n a"], reference: Float[np.ndarray, "n a"]) -> Float[np.ndarray, "n"]:
    """KL(policy || reference) per state, in nats; infinite where the reference never takes the policy's action."""
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(policy > 0, policy * (np.log(policy) - np.log(reference)), 0.0)
    total: np.ndarray = terms.sum(axis=1)
    return total


def largest_kl(behaviour: Float[np.ndarray, "n a"], eps: float) -> float:
    """No extracted policy's mean KL exceeds this: all weight on each state's rarest supported action."""
    kept = renormalised(behaviour.astype(np.float64), eps)
    return float(-np.log(np.where(kept > 0, kept, 1.0).min(axis=1)).mean())


def solve_alpha(
    behaviour: Float[np.ndarray, "n a"], q: Float[np.ndarray, "n a"], eps: float, target_kl: float
) -> float:
    """The temperature at which the mean KL to the masked, renormalised behaviour policy is `target_kl`.

    The mean KL falls strictly as alpha grows, so the solution is unique.

    Raises:
        InputError: `target_kl` is infeasible: even the greedy policy among supported actions differs less.
    """
    reference = renormalised(behaviour.astype(np.float64), eps)
    size = max(float(np.std(np.where(reference > 0, q, np.nan)[reference > 0])), 1e-30)

    def excess(log_alpha: float) -> float:
        return float(kl(_tilted(reference, q, size * np.exp(log_alpha)), reference).mean()) - target_kl

    low, high = np.log(SMALLEST), np.log(LARGEST)
    if excess(low) < 0:
        raise InputError(
            f"target_kl {target_kl:g} is infeasible: the greedy policy among supported actions (eps {eps:g}) "
            f"reaches {excess(low) + target_kl:.4g}; lower target_kl or eps"
        )
    return size * float(np.exp(brentq(excess, low, high, xtol=1e-6)))


def _tilted(reference: Float[np.ndarray, "n a"], q: Float[np.ndarray, "n a"], alpha: float) -> Float[np.ndarray, "n a"]:
    kept = reference > 0
    best = np.where(kept, q, -np.inf).max(axis=1, keepdims=True)
    weight = reference * np.exp(np.where(kept, (q - best) / alpha, 0.0))
    out: np.ndarray = weight / weight.sum(axis=1, keepdims=True)
    return out
