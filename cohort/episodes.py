"""Episodes: the immutable set of trajectories that every learner and estimator takes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from cohort.errors import InputError
from cohort.scaler import Scaler


@dataclass(frozen=True)
class Episodes:
    """Trajectories as flat arrays, one row a decision, the rows of one episode contiguous and in time order."""

    state: Float32[np.ndarray, "n d"]
    action: Int[np.ndarray, "n"]
    reward: Float32[np.ndarray, "n"]
    start: Int[np.ndarray, "e"]
    """Row at which each episode begins."""
    length: Int[np.ndarray, "e"]
    terminated: Bool[np.ndarray, "e"]
    """True: the episode ended (death, discharge, known outcome). False: it was cut off and bootstraps."""
    final_state: Float32[np.ndarray, "e d"]
    """The state after the last action; zeros where the episode terminated."""
    n_actions: int
    patient: Int[np.ndarray, "e"]
    """Which patient an episode is of: what splits, cross-fitting and bootstraps keep together."""
    features: tuple[str, ...]
    scaler: Scaler | None

    @classmethod
    def from_arrays(
        cls,
        state: np.ndarray,
        action: np.ndarray,
        reward: np.ndarray,
        episode: np.ndarray,
        terminated: np.ndarray,
        final_state: np.ndarray | None = None,
        n_actions: int = 25,
        *,
        patient: np.ndarray | None = None,
        features: Sequence[str] | None = None,
        scaler: Scaler | None = None,
    ) -> "Episodes":
        """Check and freeze arrays.

        Args:
            state: (n, d), in the units they were recorded in; no NaN, no infinity.
            action: (n,) integers in [0, n_actions).
            reward: (n,).
            episode: (n,) integers; equal and adjacent within an episode.
            terminated: (n_episodes,), in the order in which the episodes appear.
            final_state: (n_episodes, d); needed where `terminated` is False, ignored elsewhere.
            n_actions: number of discrete actions.
            patient: (n_episodes,) integers; by default every episode is a patient of its own.
            features: names of the d columns.
            scaler: fitted scaler of these states; learners fit their own where there is none.

        Raises:
            InputError: shapes that differ, NaN or infinity, an action out of range, rows of an episode apart, no rows,
                or a cut-off episode without its final state.
        """
        state, reward = np.asarray(state, np.float32), np.asarray(reward, np.float32)
        action, episode = np.asarray(action), np.asarray(episode)
        terminated = np.asarray(terminated, bool)
        if state.ndim != 2 or not len(state):
            raise InputError(f"episodes: state has shape {state.shape}, expected (n, d) with n > 0")
        n, d = state.shape
        for name, array in (("action", action), ("reward", reward), ("episode", episode)):
            if array.shape != (n,):
                raise InputError(f"episodes: {name} has shape {array.shape}, expected ({n},)")
        if not np.issubdtype(action.dtype, np.integer):
            raise InputError(f"episodes: action has type {action.dtype}, expected integers")
        for name, array in (("state", state), ("reward", reward)):
            _require_finite(name, array)
        wrong = int(((action < 0) | (action >= n_actions)).sum())
        if wrong:
            raise InputError(f"episodes: action: {wrong} of {n} rows outside 0..{n_actions - 1}")
        start = np.flatnonzero(np.r_[True, episode[1:] != episode[:-1]]).astype(np.int64)
        if len(np.unique(episode)) != len(start):
            raise InputError("episodes: the rows of one episode are not contiguous")
        if terminated.shape != (len(start),):
            raise InputError(f"episodes: terminated has shape {terminated.shape}, expected ({len(start)},)")
        length = np.diff(np.r_[start, n])
        if final_state is None:
            if not terminated.all():
                raise InputError(
                    f"episodes: final_state is missing, but {int((~terminated).sum())} episodes are cut off"
                )
            final = np.zeros((len(start), d), np.float32)
        else:
            given = np.asarray(final_state, np.float32)
            if given.shape != (len(start), d):
                raise InputError(f"episodes: final_state has shape {given.shape}, expected ({len(start)}, {d})")
            final = np.where(terminated[:, None], 0.0, given).astype(np.float32)
            _require_finite("final_state", final)
        groups = np.arange(len(start)) if patient is None else np.asarray(patient)
        if groups.shape != (len(start),):
            raise InputError(f"episodes: patient has shape {groups.shape}, expected ({len(start)},)")
        names = tuple(features) if features is not None else tuple(f"x{i}" for i in range(d))
        if len(names) != d:
            raise InputError(f"episodes: {len(names)} feature names for {d} columns")
        return cls(
            _frozen(state), _frozen(action.astype(np.int64)), _frozen(reward), _frozen(start), _frozen(length),
            _frozen(terminated), _frozen(final), n_actions, _frozen(groups), names, scaler,
        )  # fmt: skip

    @property
    def n(self) -> int:
        """Number of decisions."""
        return len(self.state)

    @property
    def n_episodes(self) -> int:
        """Number of trajectories."""
        return len(self.start)

    @property
    def episode(self) -> Int[np.ndarray, "n"]:
        """Which episode (0-based) each row is of."""
        return np.repeat(np.arange(self.n_episodes), self.length)

    @property
    def step(self) -> Int[np.ndarray, "n"]:
        """Position of each row within its episode, from 0."""
        return np.asarray(np.arange(self.n) - np.repeat(self.start, self.length))

    @property
    def last(self) -> Bool[np.ndarray, "n"]:
        """True at the last row of each episode."""
        mask = np.zeros(self.n, bool)
        mask[self.start + self.length - 1] = True
        return mask

    @property
    def terminal(self) -> Bool[np.ndarray, "n"]:
        """True at the last row of episodes that terminated: the rows that do not bootstrap."""
        mask = np.zeros(self.n, bool)
        mask[(self.start + self.length - 1)[self.terminated]] = True
        return mask

    @property
    def next_state(self) -> Float32[np.ndarray, "n d"]:
        """The state after each action; `final_state` at the end of an episode (zeros where it terminated)."""
        following = np.empty_like(self.state)
        following[:-1] = self.state[1:]
        following[self.start + self.length - 1] = self.final_state
        return following

    @property
    def previous_action(self) -> Int[np.ndarray, "n"]:
        """The action one row earlier in the same episode; -1 at an episode's first row."""
        previous: np.ndarray = np.r_[-1, self.action[:-1]]
        previous[self.start] = -1
        return previous

    def returns_to_go(self, gamma: float) -> Float[np.ndarray, "n"]:
        """Monte Carlo return from each row: sum over k of gamma^k r(t + k), to the episode's end; float64."""
        total = np.zeros(self.n_episodes)
        out = np.empty(self.n)
        for back in range(int(self.length.max())):
            alive = np.flatnonzero(self.length > back)
            row = self.start[alive] + self.length[alive] - 1 - back
            total[alive] = self.reward[row] + gamma * total[alive]
            out[row] = total[alive]
        return out

    def select(self, episodes: np.ndarray) -> "Episodes":
        """The given episodes only, in the given order: positions, or a mask over episodes.

        Raises:
            InputError: none are selected.
        """
        chosen = np.flatnonzero(episodes) if episodes.dtype == bool else np.asarray(episodes)
        if not len(chosen):
            raise InputError("episodes: none selected (an empty split?)")
        length = self.length[chosen]
        start = np.r_[0, np.cumsum(length)[:-1]]
        rows = np.repeat(self.start[chosen] - start, length) + np.arange(length.sum())
        return Episodes(
            _frozen(self.state[rows]), _frozen(self.action[rows]), _frozen(self.reward[rows]), _frozen(start),
            _frozen(length), _frozen(self.terminated[chosen]), _frozen(self.final_state[chosen]), self.n_actions,
            _frozen(self.patient[chosen]), self.features, self.scaler,
        )  # fmt: skip


def _require_finite(name: str, array: np.ndarray) -> None:
    bad = int((~np.isfinite(array)).sum())
    if bad:
        raise InputError(f"episodes: {name}: {bad} values are NaN or infinite")


def _frozen(array: np.ndarray) -> np.ndarray:
    view = array.view()
    view.flags.writeable = False
    return view
