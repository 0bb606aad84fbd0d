"""FQE: fitted Q evaluation, the value of a policy by regression instead of by weights (Le, Voloshin and Yue 2019).

Q(s, a) is fitted to y = r + gamma (1 - terminal) sum_a' pi(a'|s') Q'(s', a'), Q' a moving average of Q, y kept within
what the rewards allow. An ensemble sees the patients in different proportions (a Bayesian bootstrap), so that its
spread says how far the data determine Q; and each patient's values come from networks fitted without them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
from pydantic import Field
from torch import Tensor

from cohort.config import Config
from cohort.episodes import Episodes
from cohort.errors import ConfigError, InputError
from cohort.scaler import Scaler
from cohort.scaler import fit as fit_scaler
from ope.trajectories import attainable
from policy import batches
from policy.batches import Batch, Sampler
from policy.losses import chosen
from policy.networks import Learned, Mlp, Network
from policy.train import one_thread

STREAM = 0x667165
_SUM_TOLERANCE = 1e-4
_ROWS = 1 << 16  # states a policy is asked about at once

Probabilities = Callable[[np.ndarray], np.ndarray]
"""States (n, d) in their own units to action probabilities (n, n_actions)."""


class FqeConfig(Config):
    """The networks and how long they are trained."""

    hidden: tuple[int, ...] = Field(default=(64, 64), min_length=1, max_length=6)
    learning_rate: float = Field(default=1e-3, gt=0, le=1)
    batch: int = Field(default=256, ge=1, le=65536)
    updates: int = Field(default=2_000, ge=1)
    target_rate: float = Field(default=0.02, gt=0, le=1)
    members: int = Field(default=4, ge=1, le=64)
    folds: int = Field(default=2, ge=2, le=20)


@dataclass(frozen=True)
class Fitted:
    """What an evaluation needs of Q: two numbers a step, not a table."""

    q: Float32[np.ndarray, "n"]
    """Of the logged action, the ensemble's mean."""
    v: Float32[np.ndarray, "n"]
    """Expected Q under the target policy."""
    final_value: Float[np.ndarray, "e"]
    """V of the state where an episode is cut off; 0 where it terminated."""
    member_values: Float[np.ndarray, "m"]
    """Each member's mean V of the first states: their spread is the model's own uncertainty."""
    gain: Float32[np.ndarray, "n"] | None = None
    """What Q claims the policy gains on the clinicians by one decision: sum_a (pi - b) Q; None without `behaviour`."""
    poor_gain: Float32[np.ndarray, "n"] | None = None
    """The part of it from poorly supported actions: sum over b < floor of (pi - b) (Q - sum_a b Q)."""


@dataclass(frozen=True)
class Target:
    """A policy's probabilities wherever an evaluation needs them."""

    rows: Float32[np.ndarray, "n a"]
    """At each decision."""
    final: Float32[np.ndarray, "k a"]
    """Where an episode was cut off, in the order of the episodes."""


def ask(episodes: Episodes, probabilities: Probabilities) -> Target:
    """A policy's answers in every state of the episodes.

    Raises:
        InputError: the policy's probabilities do not fit the states.
    """
    rows = np.empty((episodes.n, episodes.n_actions), np.float32)
    for first in range(0, episodes.n, _ROWS):
        part = episodes.state[first : first + _ROWS]
        rows[first : first + _ROWS] = _checked(probabilities(part), len(part), episodes.n_actions)
    return Target(rows, ask_final(episodes, probabilities))


def ask_final(episodes: Episodes, probabilities: Probabilities) -> Float32[np.ndarray, "k a"]:
    """A policy's answers where episodes were cut off."""
    cut = episodes.final_state[~episodes.terminated]
    if not len(cut):
        return np.empty((0, episodes.n_actions), np.float32)
    return _checked(probabilities(cut), len(cut), episodes.n_actions)


def evaluate(
    episodes: Episodes,
    probabilities: Probabilities,
    gamma: float,
    config: FqeConfig | None = None,
    seed: int = 0,
    behaviour: Float[np.ndarray, "n a"] | None = None,
    poor: float = 0.02,
) -> Fitted:
    """`evaluate_target` of a policy that answers states.

    Raises:
        ConfigError: fewer patients than folds.
        InputError: the policy's probabilities do not fit the states.
    """
    return evaluate_target(episodes, ask(episodes, probabilities), gamma, config, seed, behaviour, poor)


def evaluate_target(
    episodes: Episodes,
    target: Target,
    gamma: float,
    config: FqeConfig | None = None,
    seed: int = 0,
    behaviour: Float[np.ndarray, "n a"] | None = None,
    poor: float = 0.02,
    read: Bool[np.ndarray, "n"] | None = None,
) -> Fitted:
    """Fit Q of a policy on each fold's other patients and read it off for the fold's own.

    Args:
        episodes: the evaluation patients.
        target: the policy's probabilities, which may depend on more than the state.
        gamma: discount per step.
        config: networks and training; None: the defaults.
        seed: of folds, networks and batches.
        behaviour: the clinicians' probabilities, where the claimed gain is wanted.
        poor: an action that clinicians choose less often is poorly supported.
        read: decisions whose action is known; nothing is fitted to the others.

    Raises:
        ConfigError: fewer patients than folds.
    """
    options = config or FqeConfig()
    patients = np.unique(episodes.patient)
    if len(patients) < options.folds:
        raise ConfigError(f"fqe folds: {options.folds} folds, but only {len(patients)} patients")
    drawn = np.random.default_rng([seed, STREAM]).permutation(len(patients)) % options.folds
    fold = drawn[np.searchsorted(patients, episodes.patient)]
    scaler = episodes.scaler if episodes.scaler is not None else fit_scaler(episodes.state)
    q, v = np.empty(episodes.n, np.float32), np.empty((options.members, episodes.n), np.float32)
    final, gains = np.zeros(episodes.n_episodes), np.zeros((2, episodes.n), np.float32)
    for k in range(options.folds):
        chosen_episodes = fold != k
        part = _part(target, episodes, chosen_episodes)
        known = None if read is None else read[chosen_episodes[episodes.episode]]
        network, scale = fit_target(episodes.select(chosen_episodes), part, gamma, options, seed + k, scaler, known)
        own = _part(target, episodes, ~chosen_episodes)
        rows, cut = np.flatnonzero((fold == k)[episodes.episode]), np.flatnonzero((fold == k) & ~episodes.terminated)
        table = network(scaler.transform(episodes.state[rows])) * np.float32(scale)
        q[rows] = table[:, np.arange(len(rows)), episodes.action[rows]].mean(axis=0)
        v[:, rows] = np.einsum("mna,na->mn", table, own.rows)
        if behaviour is not None:
            gains[:, rows] = _gain(table.mean(axis=0), own.rows, behaviour[rows], poor)
        if len(cut):
            ends = network(scaler.transform(episodes.final_state[cut])) * np.float32(scale)
            final[cut] = np.einsum("mna,na->mn", ends, own.final).mean(axis=0)
    members = v[:, episodes.start].astype(np.float64).mean(axis=1)
    gain, poor_gain = gains if behaviour is not None else (None, None)
    return Fitted(q, v.mean(axis=0), final, members, gain, poor_gain)


def fit(
    episodes: Episodes, probabilities: Probabilities, gamma: float, config: FqeConfig, seed: int, scaler: Scaler
) -> tuple[Network, float]:
    """`fit_target` of a policy that answers states."""
    return fit_target(episodes, ask(episodes, probabilities), gamma, config, seed, scaler)


def fit_target(
    episodes: Episodes,
    target: Target,
    gamma: float,
    config: FqeConfig,
    seed: int,
    scaler: Scaler,
    read: Bool[np.ndarray, "n"] | None = None,
) -> tuple[Network, float]:
    """Fit the ensemble on all of `episodes`, or on the decisions `read` of them.

    Returns:
        The networks (scaled states in, Q of every action out), and the number their outputs are multiplied by.
    """
    scale = batches.reward_scale(episodes, gamma)
    data = batches.data(episodes, scaler, scale)
    end = np.zeros((1, episodes.n_actions), np.float32)  # the last row of `batches.data`
    known = torch.from_numpy(np.concatenate([target.rows, target.final, end]))
    weight = _weights(episodes, config.members, seed)
    if read is not None:
        weight[:, torch.from_numpy(~read)] = 0.0
    low, high = (bound / scale for bound in attainable(episodes, gamma))
    with one_thread():
        sizes = (data.d, *config.hidden, data.n_actions)
        net = Learned(Mlp(sizes, config.members, np.random.default_rng([seed, STREAM, 1])), config.learning_rate, True)
        sampler = Sampler(data, config.batch, seed)
        for number in range(config.updates):
            batch = sampler.at(number)
            following = known.index_select(0, data.following.index_select(0, batch.row))
            update(net, batch, following, weight[:, batch.row], gamma, (low, high), config.target_rate)
    return net.net.freeze(), scale


def update(
    net: Learned,
    batch: Batch,
    following: Float[Tensor, "b a"],
    weight: Float[Tensor, "m b"],
    gamma: float,
    allowed: tuple[float, float],
    target_rate: float,
) -> None:
    """One step: minimise the members' weighted mean of (Q(s, a) - y)^2, then move the average."""
    ahead = torch.einsum("mba,ba->mb", net.target_net.forward(batch.next_state, keep=False), following)
    y = torch.addcmul(batch.reward, batch.alive, ahead, value=gamma).clamp_(*allowed)
    q = net.net.forward(batch.state)
    error = (chosen(q, batch.action) - y) * weight * (2.0 / len(batch.row))
    index = batch.action.expand(q.shape[0], *batch.action.shape)
    net.net.backward(torch.zeros_like(q).scatter_(2, index, error.unsqueeze(2)))
    net.step()
    net.average(target_rate)


def _weights(episodes: Episodes, members: int, seed: int) -> Float[Tensor, "m n"]:
    """Each member's weight of each row: exponential(1) per patient, 1 for all where there is one member."""
    names, place = np.unique(episodes.patient, return_inverse=True)
    drawn = np.ones((1, len(names)))
    if members > 1:
        drawn = np.random.default_rng([seed, STREAM, 2]).exponential(size=(members, len(names)))
        drawn /= drawn.mean(axis=1, keepdims=True)
    return torch.from_numpy(drawn[:, place][:, episodes.episode].astype(np.float32))


def _part(target: Target, episodes: Episodes, chosen: Bool[np.ndarray, "e"]) -> Target:
    """The probabilities of some episodes."""
    return Target(target.rows[chosen[episodes.episode]], target.final[chosen[~episodes.terminated]])


def _checked(probs: np.ndarray, n: int, n_actions: int) -> Float32[np.ndarray, "n a"]:
    if probs.shape != (n, n_actions):
        raise InputError(f"policy answers with shape {probs.shape}, expected ({n}, {n_actions})")
    off = int((~(np.abs(probs.sum(axis=1) - 1) <= _SUM_TOLERANCE) | (probs < 0).any(axis=1)).sum())
    if off:
        raise InputError(f"policy answers with probabilities that do not sum to 1 in {off} of {n} states")
    return probs.astype(np.float32, copy=False)


def _gain(
    q: Float32[np.ndarray, "n a"], target: Float32[np.ndarray, "n a"], behaviour: Float[np.ndarray, "n a"], poor: float
) -> Float32[np.ndarray, "2 n"]:
    """The claimed gain of one decision, and its part from actions with b < poor."""
    excess = target - behaviour
    advantage = q - (behaviour * q).sum(axis=1, keepdims=True)
    gain: np.ndarray = np.stack(
        [(excess * advantage).sum(axis=1), (excess * advantage * (behaviour < poor)).sum(axis=1)]
    )
    return gain.astype(np.float32)
