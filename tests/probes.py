"""Probes: tiny decision problems whose right values and actions are known, as episodes that learners can be run on."""

import numpy as np

from cohort.episodes import Episodes
from policy.lab import expected_return, graph, greedy_return
from policy.textbook import STITCHING, Trajectory

__all__ = ["expected_return", "graph", "greedy_return"]

SMALL = {
    "hidden": (32,),
    "batch": 48,
    "learning_rate": 1e-2,
    "updates": 500,
    "holdout": 0.0,
    "gamma": 1.0,
}
"""Training options under which a probe takes about a second."""

CLINICIANS = {
    "hidden": (16,),
    "batch": 48,
    "learning_rate": 1e-2,
    "updates": 400,
    "evaluate_every": 100,
    "min_updates": 0,
    "holdout": 0.0,
}
"""The same for a behaviour model."""

OWN_OPTIONS: dict[str, dict[str, object]] = {
    "awac": {"target_rate": 0.05},
    "iql": {"target_rate": 0.05},
    "conservative_iql": {"target_rate": 0.05, "behaviour": CLINICIANS},
    "bear": {"target_rate": 0.05, "behaviour": CLINICIANS, "eps": 1.0},
    "dpo": {"behaviour": CLINICIANS},
    **{name: {"target_update_interval": 20} for name in ("cql", "bcq", "dqn", "sac")},
}


def small(name: str) -> dict[str, object]:
    """Training options of the learner called `name` for a probe."""
    return SMALL | OWN_OPTIONS.get(name, {})


def stitching(copies: int = 30) -> tuple[Episodes, dict[str, np.ndarray]]:
    """Episodes of the extended stitching graph and its states by name."""
    return graph(STITCHING, copies)


def constant_value(copies: int = 60) -> tuple[Episodes, dict[str, np.ndarray]]:
    """One state, both actions, reward 1, over: every value is 1."""
    return graph([Trajectory(("s",), (0,), 1.0), Trajectory(("s",), (1,), 1.0)], copies)


def state_dependent_value(copies: int = 60) -> tuple[Episodes, dict[str, np.ndarray]]:
    """Two states that differ in reward (1 and -1), whatever is done."""
    paths = [Trajectory((name,), (a,), reward) for name, reward in (("good", 1.0), ("bad", -1.0)) for a in (0, 1)]
    return graph(paths, copies)


def delayed_reward(copies: int = 60) -> tuple[Episodes, dict[str, np.ndarray]]:
    """Two steps, reward 1 after the second: the first state's value is gamma."""
    return graph([Trajectory(("first", "second"), (a, b), 1.0) for a in (0, 1) for b in (0, 1)], copies)


def action_choice(copies: int = 60) -> tuple[Episodes, dict[str, np.ndarray]]:
    """One state; action 1 is worth 1 and action 0 is worth -1; both are taken equally often."""
    return graph([Trajectory(("s",), (0,), -1.0), Trajectory(("s",), (1,), 1.0)], copies)


def cut_off(terminated: bool, copies: int = 60) -> tuple[Episodes, np.ndarray]:
    """A state that returns to itself with reward 1 a step, logged for one step and then ended or cut off.

    With gamma 0.5 the value is 1 where it ended and 2 where it was cut off.
    """
    n = 2 * copies
    state = np.ones((n, 1), np.float32)
    return (
        Episodes.from_arrays(
            state, np.tile([0, 1], copies), np.ones(n), np.arange(n), np.full(n, terminated), state, n_actions=2
        ),
        state[:1],
    )


def clinic(patients: int = 120, d: int = 6, n_actions: int = 4, seed: int = 0, steps: int = 6) -> Episodes:
    """A small noisy ward: an illness score drifts, the right dose lowers it, survival depends on where it ends."""
    rng = np.random.default_rng(seed)
    ill = rng.normal(size=patients)
    states, actions = [], []
    for _ in range(steps):
        states.append(np.c_[ill, rng.normal(size=(patients, d - 1))])
        wanted = np.clip(np.round(ill + 1.5), 0, n_actions - 1)
        action = np.where(rng.random(patients) < 0.6, wanted, rng.integers(0, n_actions, patients)).astype(int)
        actions.append(action)
        ill = 0.9 * ill + 0.4 * np.abs(action - wanted) - 0.2 + 0.2 * rng.normal(size=patients)
    reward = np.zeros((patients, steps))
    reward[:, -1] = np.where(rng.random(patients) < 1 / (1 + np.exp(2 * ill)), 1.0, -1.0)
    return Episodes.from_arrays(
        np.stack(states, 1).reshape(-1, d), np.stack(actions, 1).reshape(-1), reward.reshape(-1),
        np.repeat(np.arange(patients), steps), np.ones(patients, bool), n_actions=n_actions,
    )  # fmt: skip


def with_reward(episodes: Episodes, reward: np.ndarray) -> Episodes:
    """The same episodes with other rewards."""
    return Episodes.from_arrays(
        episodes.state, episodes.action, reward, episodes.episode, episodes.terminated, episodes.final_state,
        episodes.n_actions, patient=episodes.patient, scaler=episodes.scaler,
    )  # fmt: skip
