"""Lab: offline RL broken on purpose, on problems small enough that the right answer is known; curves for the pages."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float

from cohort.episodes import Episodes
from cohort.errors import ConfigError
from policy import base, dpo, monitor
from policy.base import Policy
from policy.textbook import STITCHING, Trajectory

Removed = Literal["conservatism", "stitching", "advantage weighting"]

OPTIONS: Mapping[str, Any] = {
    "hidden": (32,),
    "batch": 48,
    "learning_rate": 1e-2,
    "holdout": 0.0,
    "gamma": 1.0,
}
CLINICIANS: Mapping[str, Any] = {
    "hidden": (16,),
    "batch": 64,
    "learning_rate": 1e-2,
    "updates": 400,
    "min_updates": 0,
    "holdout": 0.0,
}
"""Options of the behaviour models on these problems."""
OWN_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "awac": {"target_rate": 0.05},
    "iql": {"target_rate": 0.05},
    "conservative_iql": {"target_rate": 0.05, "behaviour": CLINICIANS},
    "bear": {"target_rate": 0.05, "behaviour": CLINICIANS, "eps": 1.0},
    "dpo": {"behaviour": CLINICIANS},
    "filtered_bc": {"top_percent": 60.0},
    **{name: {"target_update_interval": 20} for name in ("cql", "bcq", "dqn", "sac")},
}

UNGUARDED: Mapping[str, Any] = {"n_critics": 1, "target_update_interval": 1, "learning_rate": 0.1, "batch": 16}
"""Double DQN without the twin critics and slow target that hide how its errors feed on themselves."""


@dataclass(frozen=True)
class Curve:
    """What one learner reaches as it trains."""

    label: str
    update: tuple[int, ...]
    value: tuple[float, ...]
    """The policy's exact return on the problem."""
    q_max: tuple[float, ...]
    """The largest value it believes in; empty for learners without values."""


@dataclass(frozen=True)
class Break:
    """One ablation: the whole method and the broken one, against the known answer."""

    removed: Removed
    whole: Curve
    broken: Curve
    best: float
    """The best return that the data allow."""
    logged: float
    """The mean return of the logged episodes."""


@dataclass(frozen=True)
class Claim:
    """What is said of a method: the guide's table, and its authors where the guide has no row."""

    constraint: str
    values: str
    stitches: bool
    risk: str
    """Of querying values outside the data."""


CLAIMS: Mapping[str, Claim] = {
    "bc": Claim("hard (only data actions)", "none", False, "none"),
    "filtered_bc": Claim("hard (only data actions)", "none", False, "none"),
    "awr": Claim("soft (exp weighting)", "MC returns", False, "none"),
    "awac": Claim("soft (exp weighting)", "TD (Q with policy)", True, "moderate (policy query)"),
    "iql": Claim("soft (exp weighting)", "TD (Q with V)", True, "none (no OOD query)"),
    "conservative_iql": Claim("hard mask and stated KL", "TD (Q with V)", True, "none (supported actions only)"),
    "cql": Claim("none (values are pushed down)", "TD (greedy), penalised", True, "low (unseen values are lowered)"),
    "bcq": Claim("hard mask by an imitator", "TD (masked greedy)", True, "low (masked query)"),
    "bear": Claim("MMD at most eps", "TD (Q with policy)", True, "moderate (policy query)"),
    "dqn": Claim("none", "TD (greedy)", True, "high (max over all actions)"),
    "sac": Claim("none", "TD (Q with policy)", True, "high (policy over all actions)"),
    "dpo": Claim("KL to a reference", "none (preferences)", False, "none"),
}
OWN_TARGETS = frozenset({"awac", "bear", "cql", "bcq", "dqn", "sac"})
"""Learners whose targets ask the values of their own policy's actions; the others' ask logged actions only, or none."""


@dataclass(frozen=True)
class Compared:
    """A row of the method comparison: what is said, and what was measured."""

    learner: str
    said: Claim
    stitching: float
    """Return from s1 on the stitching graph, as a share of the best, 10; the best trajectory from there has 0.5."""
    unseen: float
    """Mean probability of actions that no record of that state has."""
    queried: float
    """The share of its targets' values that belongs to such actions."""
    excess: float
    """How far the largest value lies above what the rewards allow, in attainable ranges; 0 without values."""
    achieved: float
    """Exact return where unseen actions are harmful; 1 is best, -1 worst, 0 what chance logs."""


@dataclass(frozen=True)
class Preferred:
    """What a set of comparisons makes of a reference policy, both ways."""

    dpo: Float[np.ndarray, "k"]
    awr: Float[np.ndarray, "k"]
    """reference * exp(reward / beta), normalised."""
    reward: Float[np.ndarray, "k"]
    """By which sigmoid(difference) is the share of wins (Bradley and Terry), its mean 0."""


def graph(paths: Sequence[Trajectory], copies: int, n_actions: int = 2) -> tuple[Episodes, dict[str, np.ndarray]]:
    """Episodes of ways through a graph, each repeated, and the one-hot state of every name."""
    names = sorted({name for path in paths for name in path.states})
    one_hot = {name: row for name, row in zip(names, np.eye(len(names), dtype=np.float32), strict=True)}
    every = [path for path in paths for _ in range(copies)]
    episodes = Episodes.from_arrays(
        state=np.stack([one_hot[name] for path in every for name in path.states]),
        action=np.array([action for path in every for action in path.actions]),
        reward=np.concatenate([np.r_[np.zeros(len(path.states) - 1), path.reward] for path in every]),
        episode=np.repeat(np.arange(len(every)), [len(path.states) for path in every]),
        terminated=np.ones(len(every), bool),
        n_actions=n_actions,
    )
    return episodes, one_hot


def options(name: str, updates: int) -> dict[str, Any]:
    """A learner's options on these problems."""
    return {**OPTIONS, **OWN_OPTIONS.get(name, {}), "updates": updates}


def broken(removed: Removed, updates: Sequence[int] = (25, 50, 100, 200, 400), seed: int = 0) -> Break:
    """Train a whole method and the same without one component, on a problem with a known answer.

    conservatism: conservative IQL against double DQN where most actions were never tried and all of those are harmful.
    stitching: IQL (temporal differences) against AWR (Monte Carlo returns) on the stitching graph.
    advantage weighting: AWR against behaviour cloning where half of the logged decisions were bad.

    Raises:
        ConfigError: an unknown component, or no updates.
    """
    if not updates or min(updates) < 1:
        raise ConfigError("lab: updates must name at least one positive number")
    if removed == "conservatism":
        problem, names, best = _untried(), ("conservative_iql", "dqn"), 1.0
    elif removed == "stitching":
        problem, names, best = graph(STITCHING, 30)[0], ("iql", "awr"), 10.0
    elif removed == "advantage weighting":
        problem, names, best = _half_bad(), ("awr", "bc"), 1.0
    else:
        raise ConfigError(f"lab: cannot remove {removed!r}")
    score = {"conservatism": _untried_return, "stitching": expected_return, "advantage weighting": _half_bad_return}
    extra = UNGUARDED if removed == "conservatism" else {}
    curves = [_curve(name, problem, score[removed], updates, seed, extra if name == "dqn" else {}) for name in names]
    logged = float(problem.returns_to_go(1.0)[problem.start].mean())
    return Break(removed, curves[0], curves[1], best, logged)


def compare(
    learners: Sequence[str] | None = None,
    updates: int = 400,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[Compared]:
    """The guide's method comparison, measured: on the stitching graph, and where most actions are untried."""
    rows: list[Compared] = []
    names = tuple(CLAIMS if learners is None else learners)
    problem = _untried()
    limit = monitor.bound(problem, 1.0)
    for name in names:
        stitched = base.fit(name, graph(STITCHING, 30)[0], options(name, updates), seed)
        policy = base.fit(name, problem, options(name, updates), seed)
        unseen = float(policy.probs(problem.state)[:, TRIED:].sum(1).mean())
        largest = limit.high if policy.critic is None else float(policy.q(problem.state).max())
        rows.append(
            Compared(
                name,
                CLAIMS[name],
                greedy_return(stitched) / 10.0,
                unseen,
                unseen if name in OWN_TARGETS else 0.0,
                max(0.0, largest - limit.high) / (limit.high - limit.low),
                _untried_return(policy),
            )
        )
        if progress is not None:
            progress(len(rows), len(names))
    return rows


def preferred(wins: Float[np.ndarray, "k k"], reference: Float[np.ndarray, "k"], beta: float) -> Preferred:
    """DPO's policy on one state, by minimising its own loss, and AWR's with the comparisons' rewards at alpha = beta.

    Args:
        wins: how often row was preferred to column; each pair that was compared needs a win on both sides.
        reference: probabilities before.
        beta: how much the reference counts.

    Raises:
        ConfigError: beta is not above 0, or a comparison was won by one side only, so that no finite policy is best.
    """
    if beta <= 0 or ((wins > 0) != (wins.T > 0)).any():
        raise ConfigError(f"preferred: beta {beta:g} must be above 0 and each compared pair needs wins on both sides")
    chosen, rejected = (torch.from_numpy(index) for index in np.nonzero(wins))
    weight = torch.from_numpy(wins[np.nonzero(wins)].astype(np.float64))
    log = torch.from_numpy(np.log(reference))
    logits = log.clone().requires_grad_(True)
    optimiser = torch.optim.LBFGS([logits], max_iter=200, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimiser.zero_grad()
        rows = logits.expand(len(chosen), -1)
        found = dpo.loss(dpo.margin(rows, chosen, rejected, log[chosen] - log[rejected]), weight, beta)
        found.backward()  # type: ignore[no-untyped-call]
        return float(found.detach())

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    return Preferred(torch.softmax(logits.detach(), 0).numpy(), *_by_reward(wins, reference, beta))


def expected_return(policy: Policy) -> float:
    """Mean return on the stitching graph from s1, by the policy's own probabilities."""
    first, second = _at_forks(policy)
    return float(first[1] * 5.0 + first[0] * (second[0] * 3.0 + second[1] * 10.0))


def greedy_return(policy: Policy) -> float:
    """Return on the stitching graph from s1 by the likeliest action; all actions there are in the data."""
    first, second = _at_forks(policy)
    if first[1] > first[0]:
        return 5.0
    return 10.0 if second[1] > second[0] else 3.0


def _by_reward(
    wins: Float[np.ndarray, "k k"], reference: Float[np.ndarray, "k"], beta: float
) -> tuple[Float[np.ndarray, "k"], Float[np.ndarray, "k"]]:
    """AWR's policy, and the rewards by Newton's steps on the comparisons' likelihood."""
    total, reward = wins + wins.T, np.zeros(len(wins))
    for _ in range(100):
        share = 1.0 / (1.0 + np.exp(-(reward[:, None] - reward[None, :])))
        slope = (wins - total * share).sum(axis=1)
        curve = total * share * (1.0 - share)
        step = np.linalg.lstsq(np.diag(curve.sum(axis=1)) - curve, slope, rcond=None)[0]
        reward = reward + step - (reward + step).mean()
        if np.abs(step).max() < 1e-12:
            break
    tilted = reference * np.exp(reward / beta)
    return tilted / tilted.sum(), reward


TRIED = 2
"""Of the actions in `_untried`, the first two are in the records."""


def _at_forks(policy: Policy) -> Float[np.ndarray, "2 a"]:
    _, state = graph(STITCHING, 1)
    return policy.probs(np.stack([state["s1"], state["s3"]])).astype(np.float64)


def _untried(patients: int = 15, steps: int = 12, n_actions: int = 25) -> Episodes:
    """Of 25 actions only 0 and 1 were ever used, at random; the return says how often the right one was (-1 to 1)."""
    rng = np.random.default_rng(1)
    state = rng.normal(size=(patients, steps, 2))
    action = rng.integers(0, TRIED, (patients, steps))
    reward = np.zeros((patients, steps))
    reward[:, -1] = 2.0 * (action == (state[..., 0] > 0)).mean(1) - 1.0
    return Episodes.from_arrays(
        state.reshape(-1, 2), action.reshape(-1), reward.reshape(-1), np.repeat(np.arange(patients), steps),
        np.ones(patients, bool), n_actions=n_actions,
    )  # fmt: skip


def _untried_return(policy: Policy) -> float:
    """Its mean return on fresh states; an action that was never tried is as bad as the wrong one."""
    state = np.random.default_rng(2).normal(size=(500, 2))
    right = policy.probs(state)[np.arange(len(state)), (state[:, 0] > 0).astype(int)]
    return float(2.0 * right.mean() - 1.0)


def _half_bad() -> Episodes:
    return graph([Trajectory(("s",), (0,), -1.0), Trajectory(("s",), (1,), 1.0)], 60)[0]


def _half_bad_return(policy: Policy) -> float:
    return float(2.0 * policy.probs(np.ones((1, 1)))[0, 1] - 1.0)


def _curve(
    name: str,
    problem: Episodes,
    score: Callable[[Policy], float],
    updates: Sequence[int],
    seed: int,
    extra: Mapping[str, Any],
) -> Curve:
    """Runs of the same seed share their beginning, so each length is a point on one training curve."""
    values, largest = [], []
    for count in updates:
        policy = base.fit(name, problem, {**options(name, count), **extra}, seed)
        values.append(score(policy))
        if policy.critic is not None:
            largest.append(float(policy.q(problem.state).max()))
    return Curve(name, tuple(updates), tuple(values), tuple(largest))
