"""Monitor: whether values exceed what the rewards allow, during training, for every learner that has values."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cohort.episodes import Episodes
from policy.batches import Prepared

ROWS = 4096
"""Training states looked at."""
EXPLODED = 10.0
"""Training stops where a value lies this many times the attainable range outside it."""
TOLERATED = 0.01
"""Share of states whose best value may exceed the bound."""

Verdict = Literal["within bounds", "overestimates", "exploded"]
Values = Callable[[Float[Tensor, "b d"]], Float[Tensor, "b a"]]


@dataclass(frozen=True)
class Bound:
    """What returns the rewards allow at all, in reward units."""

    low: float
    high: float


@dataclass(frozen=True)
class Watch:
    """The states watched and what is known about them."""

    state: Float[Tensor, "b d"]
    returns: Float[np.ndarray, "b"]
    """Monte Carlo returns of the logged decisions there (to the cut where an episode was cut off)."""
    bound: Bound
    scale: float
    gamma: float


def bound(episodes: Episodes, gamma: float) -> Bound:
    """The least and greatest discounted return that any sequence of logged rewards of logged length could give.

    Rewards of an episode's last step and of the others count apart, so that an outcome at the end is not added up over
    the stay. Where episodes were cut off the horizon has no end and gamma below 1 is what bounds it.
    """
    last = episodes.terminal
    ends = episodes.reward[last] if last.any() else episodes.reward[:0]
    steps = episodes.reward[~last]
    longest = int(episodes.length.max()) if episodes.terminated.all() else None
    return Bound(-_most(-steps, -ends, gamma, longest), _most(steps, ends, gamma, longest))


def compounded_error(epsilon: float, gamma: float, backups: int | None = None) -> float:
    """Largest value error after so many backups of a one-step error: epsilon (1 - gamma^(k+1)) / (1 - gamma).

    Without `backups` its limit, epsilon / (1 - gamma) (the guide, chapter 4).
    """
    if backups is None:
        return epsilon / (1.0 - gamma)
    return epsilon * sum(gamma**k for k in range(backups + 1))


def watch(prepared: Prepared, gamma: float, seed: int) -> Watch:
    """Choose the training states to look at."""
    episodes = prepared.episodes
    rows = np.random.default_rng([seed, 0x6D6F]).permutation(episodes.n)[:ROWS]
    at = torch.from_numpy(rows).to(prepared.fit.action.device)
    returns = episodes.returns_to_go(gamma)[rows]
    return Watch(prepared.fit.states[at], returns, bound(episodes, gamma), prepared.reward_scale, gamma)


def look(values: Values, at: Watch) -> dict[str, float]:
    """The monitor's row of the learning curves, in reward units.

    Returns:
        `q_max` and `q_min` over states and actions; `q_best_mean`, the mean over states of the best action's value;
        `return_mean`, the mean Monte Carlo return there; `q_above`, the share of states whose best value exceeds the
        bound; `excess`, how far `q_max` does (0 where it does not); `epsilon`, the one-step error that would compound
        to that excess, (1 - gamma) excess.
    """
    q = values(at.state).double().cpu().numpy() * at.scale
    best = q.max(axis=1)
    excess = max(0.0, float(q.max()) - at.bound.high)
    return {
        "q_max": float(q.max()),
        "q_min": float(q.min()),
        "q_best_mean": float(best.mean()),
        "return_mean": float(at.returns.mean()),
        "q_above": float((best > at.bound.high + _slack(at.bound.low, at.bound.high)).mean()),
        "excess": excess,
        "epsilon": (1.0 - at.gamma) * excess,
    }


def exploded(row: dict[str, float], at: Watch) -> bool:
    """True where values are NaN or far outside what rewards allow: training should stop."""
    span = max(at.bound.high - at.bound.low, abs(at.bound.high), 1e-12)
    inside = (row["q_max"] <= at.bound.high + EXPLODED * span) and (row["q_min"] >= at.bound.low - EXPLODED * span)
    return not inside


def with_served(
    found: Mapping[str, Any], q: Float[np.ndarray, "n a"], supported: Bool[np.ndarray, "n a"]
) -> dict[str, Any]:
    """A training run's summary, and whether the values of the actions that are served exceed the bound too.

    Adds `served_above`, the share of states whose best supported value exceeds the bound.

    Args:
        found: the summary.
        q: values in reward units.
        supported: the actions that may be served.
    """
    best = np.where(supported, q, -np.inf).max(axis=1)
    above = float((best > found["bound_high"] + _slack(found["bound_low"], found["bound_high"])).mean())
    bad = found["verdict"] == "within bounds" and above > TOLERATED
    return {**found, "served_above": above, "verdict": "overestimates" if bad else found["verdict"]}


def summary(curves: Sequence[dict[str, float]], at: Watch, served: int) -> dict[str, Any]:
    """The verdict over a training run up to the update whose weights are served: the worst row until then decides.

    Weights from after the best update are thrown away, and so is what they believed; only an explosion always counts.
    """
    watched = [row for row in curves if "q_max" in row]
    rows = [row for row in watched if row["update"] <= served]
    worst = max(rows, key=lambda row: row["q_max"])
    verdict: Verdict = "within bounds"
    if any(exploded(row, at) for row in watched):
        verdict = "exploded"
    elif max(row["q_above"] for row in rows) > TOLERATED:
        verdict = "overestimates"
    return {
        "verdict": verdict,
        "bound_low": at.bound.low,
        "bound_high": at.bound.high,
        **{
            key: worst[key] for key in ("update", "q_max", "q_best_mean", "return_mean", "q_above", "excess", "epsilon")
        },
    }


def _slack(low: float, high: float) -> float:
    return 1e-3 * (high - low)


def _most(steps: np.ndarray, ends: np.ndarray, gamma: float, longest: int | None) -> float:
    step = float(steps.max()) if len(steps) else 0.0
    if longest is None:
        end = float(ends.max()) if len(ends) else -np.inf
        forever = step / (1.0 - gamma) if gamma < 1 else np.inf * np.sign(step) if step else 0.0
        return max(float(forever), end, step)
    end = float(ends.max())
    return max(
        step * sum(gamma**j for j in range(length - 1)) + gamma ** (length - 1) * end
        for length in range(1, longest + 1)
    )
