"""Advantage: what each action adds in a state, read from a critic's errors by a regression that is shrunk to nothing.

A state's own value varies far more than what one dose changes in it, and a network fitted to both spends
its early-stopped updates on the former: between the actions of a state its values are noise. Here the value network
keeps what it is good at, and the actions are compared by what is left over: A(s, a) = E[error | s, a].
"""

from dataclasses import replace

import numpy as np
from jaxtyping import Float, Float32
from pydantic import Field

from policy.batches import Prepared
from policy.iql import CriticConfig
from policy.networks import Network

REACH = 4.0
"""Standard deviations at which a feature's effect on the advantage stops growing."""


class AdvantageConfig(CriticConfig):
    """A critic, and how advantages are read from it."""

    trace: float = Field(default=0.5, ge=0, le=1)
    """How far errors are added up: 0 one decision ahead, 1 to the end of the stay, whatever the values say."""
    shrinkage: float = Field(default=30_000.0, gt=0)
    """How many decisions that show no effect are added for each action; large = only what many agree on."""


def read(value: Network, prepared: Prepared, config: AdvantageConfig) -> Network:
    """Q = V + A in the critic's units: the value network, and beside it a linear advantage for each action.

    Args:
        value: V of scaled states, one member with one output.
        prepared: the training episodes that V was trained on.
        config: trace and shrinkage.
    """
    known = _basis(prepared.fit.states[: prepared.fit.n].cpu().numpy())
    left = errors(value, prepared, config)
    left = left - known @ _ridge(known, left, 1.0)  # what errors have in common whatever the action
    action = prepared.episodes.action
    effect = [_ridge(known[rows], left[rows], config.shrinkage) for rows in _by_action(action, prepared.fit.n_actions)]
    return _beside(value, np.stack(effect, axis=1))


def errors(value: Network, prepared: Prepared, config: AdvantageConfig) -> Float[np.ndarray, "n"]:
    """sum over k of (gamma trace)^k (r + gamma V(s') - V(s)), k decisions later (Schulman et al. 2016, eq. 16)."""
    data = prepared.fit
    v = value(data.states.cpu().numpy())[0, :, 0].astype(np.float64)
    following, alive, reward = (part.cpu().numpy() for part in (data.following, data.alive, data.reward))
    one = reward + config.gamma * alive * v[following] - v[: data.n]
    return replace(prepared.episodes, reward=one.astype(np.float32)).returns_to_go(config.gamma * config.trace)


def _basis(scaled: Float32[np.ndarray, "n d"]) -> Float[np.ndarray, "n b"]:
    return np.hstack([np.clip(scaled, -REACH, REACH), np.ones((len(scaled), 1))]).astype(np.float64)


def _by_action(action: np.ndarray, n_actions: int) -> list[np.ndarray]:
    return [np.flatnonzero(action == a) for a in range(n_actions)]


def _ridge(known: Float[np.ndarray, "n b"], wanted: Float[np.ndarray, "n"], shrinkage: float) -> np.ndarray:
    gram = known.T @ known + shrinkage * np.eye(known.shape[1])
    solved: np.ndarray = np.linalg.solve(gram, known.T @ wanted)
    return solved


def _beside(value: Network, effect: Float[np.ndarray, "b a"]) -> Network:
    """One network that adds a linear function of the clipped inputs to another's output, for each action.

    clip(x) = relu(x + REACH) - relu(x - REACH) - REACH: 2 d more units in every hidden layer carry the inputs on.
    """
    d, actions = len(effect) - 1, effect.shape[1]
    eye, none = np.eye(2 * d), np.zeros((1, 2 * d))
    carry = np.hstack([np.eye(d), np.eye(d)]), np.full((1, 2 * d), REACH) * np.repeat([1.0, -1.0], d)
    weights, biases = [], []
    for layer, (weight, bias) in enumerate(zip(value.weights[:-1], value.biases[:-1], strict=True)):
        own = weight[0]
        if layer == 0:
            weights.append(np.hstack([own, carry[0]]))
            biases.append(np.hstack([bias[0], carry[1]]))
            continue
        weights.append(np.block([[own, np.zeros((len(own), 2 * d))], [np.zeros((2 * d, own.shape[1])), eye]]))
        biases.append(np.hstack([bias[0], none]))
    slope, level = effect[:-1], effect[-1] - REACH * effect[:-1].sum(axis=0)
    weights.append(np.vstack([np.tile(value.weights[-1][0], actions), slope, -slope]))
    biases.append(value.biases[-1][0] + level[None])
    return Network(*(tuple(part[None].astype(np.float32) for part in parts) for parts in (weights, biases)))
