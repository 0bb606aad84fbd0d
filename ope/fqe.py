"""FQE: fitted Q evaluation, the value of a policy by regression instead of by weights (Le, Voloshin and Yue 2019).

Q(s, a) is fitted to y = r + gamma (1 - terminal) sum_a' pi(a'|s') Q'(s', a'), Q' a moving average of Q, y kept within
what the rewards allow. An ensemble sees the patients in different proportions (a Bayesian bootstrap), so that its
spread says how far the data determine Q; and each patient's values come from networks fitted without them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Int
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


def evaluate(
    episodes: Episodes,
    probabilities: Probabilities,
    gamma: float,
    config: FqeConfig | None = None,
    seed: int = 0,
    behaviour: Float[np.ndarray, "n a"] | None = None,
    poor: float = 0.02,
) -> Fitted:
    """Fit Q of a policy on each fold's other patients and read it off for the fold's own.

    Args:
        episodes: the evaluation patients.
        probabilities: the target policy.
        gamma: discount per step.
        config: networks and training; None: the defaults.
        seed: of folds, networks and batches.
        behaviour: the clinicians' probabilities, where the claimed gain is wanted.
        poor: an action that clinicians choose less often is poorly supported.

    Raises:
        ConfigError: fewer patients than folds.
        InputError: the policy's probabilities do not fit the states.
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
        network, scale = fit(episodes.select(fold != k), probabilities, gamma, options, seed + k, scaler)
        rows, cut = np.flatnonzero((fold == k)[episodes.episode]), np.flatnonzero((fold == k) & ~episodes.terminated)
        q[rows], v[:, rows] = _read(network, scaler, scale, episodes.state[rows], episodes.action[rows], probabilities)
        if behaviour is not None:
            gains[:, rows] = _gain(network, scaler, scale, episodes.state[rows], behaviour[rows], probabilities, poor)
        if len(cut):
            states = episodes.final_state[cut]
            final[cut] = _read(network, scaler, scale, states, np.zeros(len(cut), int), probabilities)[1].mean(axis=0)
    members = v[:, episodes.start].astype(np.float64).mean(axis=1)
    gain, poor_gain = gains if behaviour is not None else (None, None)
    return Fitted(q, v.mean(axis=0), final, members, gain, poor_gain)


def fit(
    episodes: Episodes, probabilities: Probabilities, gamma: float, config: FqeConfig, seed: int, scaler: Scaler
) -> tuple[Network, float]:
    """Fit the ensemble on all of `episodes`.

    Returns:
        The networks (scaled states in, Q of every action out), and the number their outputs are multiplied by.
    """
    scale = batches.reward_scale(episodes, gamma)
    data = batches.data(episodes, scaler, scale)
    target = _target_probabilities(episodes, probabilities)
    weight = _weights(episodes, config.members, seed)
    low, high = (bound / scale for bound in attainable(episodes, gamma))
    with one_thread():
        sizes = (data.d, *config.hidden, data.n_actions)
        net = Learned(Mlp(sizes, config.members, np.random.default_rng([seed, STREAM, 1])), config.learning_rate, True)
        sampler = Sampler(data, config.batch, seed)
        for number in range(config.updates):
            batch = sampler.at(number)
            following = target.index_select(0, data.following.index_select(0, batch.row))
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


def _target_probabilities(episodes: Episodes, probabilities: Probabilities) -> Float[Tensor, "k a"]:
    """The target policy at every row of `batches.data`: states, final states of cut-off episodes, and the end (0)."""
    cut = episodes.final_state[~episodes.terminated]
    parts = [
        _checked(probabilities(part), len(part), episodes.n_actions) for part in (episodes.state, cut) if len(part)
    ]
    return torch.from_numpy(np.concatenate([*parts, np.zeros((1, episodes.n_actions), np.float32)]))


def _checked(probs: np.ndarray, n: int, n_actions: int) -> np.ndarray:
    if probs.shape != (n, n_actions):
        raise InputError(f"policy answers with shape {probs.shape}, expected ({n}, {n_actions})")
    return np.asarray(probs, np.float32)


def _read(
    network: Network,
    scaler: Scaler,
    scale: float,
    state: Float32[np.ndarray, "n d"],
    action: Int[np.ndarray, "n"],
    probabilities: Probabilities,
) -> tuple[Float32[np.ndarray, "n"], Float32[np.ndarray, "m n"]]:
    """Mean Q of the actions, and every member's V."""
    values = network(scaler.transform(state)) * np.float32(scale)
    mean_q = values[:, np.arange(len(state)), action].mean(axis=0)
    return mean_q, np.einsum("mna,na->mn", values, _checked(probabilities(state), *values.shape[1:]))


def _gain(
    network: Network,
    scaler: Scaler,
    scale: float,
    state: Float32[np.ndarray, "n d"],
    behaviour: Float[np.ndarray, "n a"],
    probabilities: Probabilities,
    poor: float,
) -> Float32[np.ndarray, "2 n"]:
    """The claimed gain of one decision, and its part from actions with b < poor."""
    q = network(scaler.transform(state)).mean(axis=0) * np.float32(scale)
    excess = probabilities(state) - behaviour
    advantage = q - (behaviour * q).sum(axis=1, keepdims=True)
    gain: np.ndarray = np.stack(
        [(excess * advantage).sum(axis=1), (excess * advantage * (behaviour < poor)).sum(axis=1)]
    )
    return gain.astype(np.float32)
