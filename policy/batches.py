"""Batches: transitions as contiguous tensors, and minibatches drawn from them."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cohort.episodes import Episodes
from cohort.errors import ConfigError, InputError
from cohort.scaler import Scaler, fit

BLOCK = 256
"""Minibatches drawn together; row numbers depend on (seed, update) alone, so a resumed run repeats them."""
STREAM = 0x6261
FEWEST_PATIENTS = 20
"""With fewer nobody is held out: a few trajectories are needed whole."""

Truncated = Literal["refuse", "drop"]


@dataclass(frozen=True)
class Data:
    """Transitions in scaled units on one device."""

    states: Float[Tensor, "k d"]
    """The n states, then one final state per cut-off episode, then one of zeros."""
    following: Int[Tensor, "n"]
    """Row of `states` that comes next; the zeros where the episode terminated."""
    action: Int[Tensor, "n"]
    reward: Float[Tensor, "n"]
    alive: Float[Tensor, "n"]
    """1 where the next state counts, 0 where the episode terminated."""
    n_actions: int

    @property
    def n(self) -> int:
        """Number of transitions."""
        return len(self.action)

    @property
    def d(self) -> int:
        """Number of features."""
        return self.states.shape[1]


@dataclass(frozen=True)
class Batch:
    """One minibatch for all members of a stack, or one for each of g equal groups of them."""

    pair: Float[Tensor, "*g b2 d"]
    """The b states, then the b next states: one forward pass serves both."""
    action: Int[Tensor, "*g b 1"]
    reward: Float[Tensor, "*g b"]
    alive: Float[Tensor, "*g b"]
    row: Int[Tensor, "*g b"]

    @property
    def state(self) -> Float[Tensor, "*g b d"]:
        """The states."""
        return self.pair[..., : self.row.shape[-1], :]

    @property
    def next_state(self) -> Float[Tensor, "*g b d"]:
        """The states after the actions; zeros where the episode terminated."""
        return self.pair[..., self.row.shape[-1] :, :]


@dataclass(frozen=True)
class Prepared:
    """What a learner trains on: training and held-out transitions in scaled units."""

    episodes: Episodes
    """The training episodes, those held out taken away."""
    held_episodes: Episodes | None
    scaler: Scaler
    reward_scale: float
    fit: Data
    held: Data | None
    device: str


class Sampler:
    """Minibatches by update number: rows drawn uniformly with replacement."""

    def __init__(self, source: Data, size: int, seed: int) -> None:
        self.source, self.size, self.seed = source, size, seed
        self._block = -1
        self._rows = torch.empty(0)

    def at(self, update: int) -> Batch:
        """The minibatch of one update; the same for the same (seed, update), whatever was drawn before."""
        if update // BLOCK != self._block:
            self._block = update // BLOCK
            rng = np.random.default_rng([self.seed, STREAM, 0, self._block])
            rows = rng.integers(0, self.source.n, size=(BLOCK, self.size))
            self._rows = torch.from_numpy(rows).to(self.source.action.device)
        return take(self.source, self._rows[update % BLOCK])


def prepare(episodes: Episodes, holdout: float, gamma: float, seed: int, device: str = "cpu") -> Prepared:
    """Split off held-out patients, fit the scalers on the others, and lay both out for training.

    Raises:
        ConfigError: there is only one action to choose from.
    """
    if episodes.n_actions < 2:
        raise ConfigError(f"episodes: n_actions is {episodes.n_actions}; a policy needs at least 2 to choose from")
    kept, held = split(episodes, holdout, seed)
    scaler = kept.scaler if kept.scaler is not None else fit(kept.state)
    scale = reward_scale(kept, gamma)
    held_data = None if held is None else data(held, scaler, scale, device)
    return Prepared(kept, held, scaler, scale, data(kept, scaler, scale, device), held_data, device)


def data(episodes: Episodes, scaler: Scaler, reward_scale: float = 1.0, device: str = "cpu") -> Data:
    """Scale and lay out episodes; rewards are divided by `reward_scale`."""
    n, cut = episodes.n, np.flatnonzero(~episodes.terminated)
    zeros = np.zeros((1, episodes.state.shape[1]), np.float32)
    parts = [scaler.transform(episodes.state), scaler.transform(episodes.final_state[cut]), zeros]
    last = episodes.start + episodes.length - 1
    following = np.arange(1, n + 1)
    following[last] = n + len(cut)
    following[last[cut]] = n + np.arange(len(cut))
    arrays = (
        np.concatenate(parts),
        following,
        episodes.action,
        (episodes.reward.astype(np.float64) / reward_scale).astype(np.float32),
        (~episodes.terminal).astype(np.float32),
    )
    states, rows, action, reward, alive = (torch.from_numpy(np.array(array)).to(device) for array in arrays)
    return Data(states, rows, action, reward, alive, episodes.n_actions)


def take(source: Data, row: Int[Tensor, "b"]) -> Batch:
    """The transitions of the given rows."""
    pair = source.states.index_select(0, torch.cat([row, source.following.index_select(0, row)]))
    return Batch(
        pair,
        source.action.index_select(0, row).unsqueeze(1),
        source.reward.index_select(0, row),
        source.alive.index_select(0, row),
        row,
    )


def everything(source: Data) -> Batch:
    """All transitions, as one batch."""
    return take(source, torch.arange(source.n, device=source.action.device))


def complete(episodes: Episodes, truncated: Truncated) -> tuple[Episodes, int]:
    """Episodes whose returns are known, and how many were dropped because they were cut off.

    Raises:
        InputError: `truncated` is "refuse" and there are some, or none remain.
    """
    cut = int((~episodes.terminated).sum())
    if cut and truncated == "refuse":
        raise InputError(
            f"episodes: {cut} of {episodes.n_episodes} were cut off, so their returns are not known; "
            "set truncated: drop, or end episodes at the horizon"
        )
    return (episodes.select(episodes.terminated), cut) if cut else (episodes, 0)


def require_different_returns(episodes: Episodes) -> None:
    """Raise InputError where every episode returns the same: values then tell doses apart by their noise alone."""
    returns = episodes.returns_to_go(1.0)[episodes.start]
    if float(np.ptp(returns)) <= 1e-6 * float(np.abs(returns).max()):
        raise InputError(
            f"reward: all {episodes.n_episodes} episodes return {returns[0]:g}; "
            "nothing in them says which dose is better"
        )


def split(episodes: Episodes, fraction: float, seed: int) -> tuple[Episodes, Episodes | None]:
    """Training episodes and held-out ones, patients kept together.

    Nothing is held out where `fraction` is 0 or there are fewer than `FEWEST_PATIENTS`.
    """
    patients = np.unique(episodes.patient)
    if fraction == 0.0 or len(patients) < FEWEST_PATIENTS:
        return episodes, None
    count = max(1, round(fraction * len(patients)))
    chosen = np.random.default_rng([seed, STREAM, 1]).permutation(patients)[:count]
    held = np.isin(episodes.patient, chosen)
    return episodes.select(~held), episodes.select(held)


def reward_scale(episodes: Episodes, gamma: float) -> float:
    """What rewards are divided by so that values are of size 1: the standard deviation of Monte Carlo returns.

    Where all returns are equal it is their size, and 1 where they are all 0. Multiplying all rewards by a
    power of two multiplies it exactly.
    """
    returns = episodes.returns_to_go(gamma)
    spread, size = float(returns.std()), float(np.abs(returns).max())
    if spread > 1e-6 * size:
        return spread
    return size if size > 0 else 1.0
