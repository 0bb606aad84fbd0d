"""Implicit Q-learning (Kostrikov et al. 2021): values and policy from logged actions; no other is ever queried."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from cohort.episodes import Episodes
from policy import batches, bc, losses, train
from policy.batches import Batch, Data, Prepared
from policy.networks import Learned
from policy.served import NetworkPolicy
from policy.train import Session, TrainConfig


class CriticConfig(TrainConfig):
    """The critic, shared with conservative IQL."""

    tau: float = Field(default=0.7, gt=0, lt=1)
    """Expectile: 0.5 evaluates the clinicians, near 1 the best of their actions; 1 itself cannot be trained."""
    n_critics: int = Field(default=2, ge=1, le=4)
    target_rate: float = Field(default=0.005, gt=0, le=1)


class Config(CriticConfig):
    """IQL with its policy by advantage-weighted regression."""

    alpha: float = Field(default=1 / 3, gt=0)
    """Temperature in reward units; it divides the advantage (the paper's beta 3 multiplies: alpha 1/3)."""
    weight_clip: float = Field(default=100.0, gt=0)
    """Largest exp(A / alpha), the paper's."""


@dataclass(frozen=True)
class Critic:
    """The two value networks."""

    value: Learned
    q: Learned
    """With its moving average as `q.target`."""


def fit(episodes: Episodes, config: Config, seed: int, session: Session) -> NetworkPolicy:
    """Train V, policy, Q and the moving average, in that order in every update."""
    prepared = batches.prepare(episodes, config.holdout, config.gamma, seed, session.device)
    with train.one_thread():
        actor, pair = train.actor(prepared, config, seed), critic(prepared, config, seed)
        task = train.Task(
            {"actor": actor, "value": pair.value, "q": pair.q},
            lambda batch, report: _update(actor, pair, batch, config, config.alpha / prepared.reward_scale, report),
            lambda held: _held_out(actor, pair, held, config, config.alpha / prepared.reward_scale),
            {"critic": ("value", "q"), "nll": ("actor",)},
            bootstraps=("critic",),
            values=lambda state: pair.value.net.forward(state, keep=False)[0],
        )
        outcome = train.run(task, prepared, config, seed, session)
    return NetworkPolicy(
        learner="iql",
        config=config.model_dump(mode="json"),
        rule="softmax",
        scaler=prepared.scaler,
        features=episodes.features,
        n_actions=episodes.n_actions,
        actor=actor.net.freeze(),
        critic=pair.q.net.freeze(),
        reward_scale=prepared.reward_scale,
        curves=outcome.curves,
        notes=outcome.notes,
    )


def critic(prepared: Prepared, config: CriticConfig, seed: int) -> Critic:
    """Untrained value networks."""
    d, a = prepared.fit.d, prepared.fit.n_actions
    value = train.values("value", (d, *config.hidden, 1), 1, prepared, config, seed)
    q = train.values("critic", (d, *config.hidden, a), config.n_critics, prepared, config, seed)
    return Critic(value, q)


def update_value(
    pair: Critic, batch: Batch, tau: Float[Tensor, "k 1"]
) -> tuple[Float[Tensor, "k b"], Float[Tensor, "k b"]]:
    """The expectile step on V; returns min target Q(s, a) and u = Q - V before it (positive: V too low)."""
    target_q = least(losses.chosen(pair.q.target_net.forward(batch.state, keep=False), batch.action), len(tau))
    u = target_q - pair.value.net.forward(batch.state)[:, :, 0]
    pair.value.net.backward((losses.expectile_gradient(u, tau) / u.shape[1]).unsqueeze(2))
    pair.value.step()
    return target_q, u


def update_q(
    pair: Critic, batch: Batch, following: Float[Tensor, "k b"], config: CriticConfig
) -> tuple[Float[Tensor, "m b a"], Float[Tensor, "m b"]]:
    """The TD step of every Q towards r + gamma V(s'), then the moving average; returns Q before it, and the target."""
    target = torch.addcmul(batch.reward, batch.alive, following, value=config.gamma)
    target = target.repeat_interleave(config.n_critics, 0)
    q = pair.q.net.forward(batch.state)
    pair.q.net.backward(losses.squared_error_gradient(q, batch.action, target))
    pair.q.step()
    pair.q.average(config.target_rate)
    return q, target


def least(values: Float[Tensor, "m b"], k: int) -> Float[Tensor, "k b"]:
    """The minimum over each of k critics' ensembles, which lie one after the other."""
    return values.view(k, -1, values.shape[1]).amin(1)


def held_out_critic(pair: Critic, held: Data, config: CriticConfig) -> dict[str, float]:
    """TD and expectile losses on held-out transitions; `critic`, their sum, decides when to stop."""
    td, fit, mean = held_out_critics(pair, held, tau_of(config, held.reward), config)
    return {"td": td[0], "expectile": fit[0], "critic": td[0] + fit[0], "value_mean": mean[0]}


def held_out_critics(
    pair: Critic, held: Data, tau: Float[Tensor, "k 1"], config: CriticConfig
) -> tuple[list[float], list[float], list[float]]:
    """Per stacked critic: mean TD loss, mean expectile loss and mean V on held-out transitions."""
    every = batches.everything(held)
    values = pair.value.net.forward(every.pair, keep=False)[:, :, 0].clone()
    target = every.reward + config.gamma * every.alive * values[:, held.n :]
    q = losses.chosen(pair.q.net.forward(every.state, keep=False), every.action)
    target_q = least(losses.chosen(pair.q.target_net.forward(every.state, keep=False), every.action), len(tau))
    td = (q.view(len(tau), -1, held.n) - target.unsqueeze(1)).square().mean((1, 2))
    fit = losses.expectile(target_q - values[:, : held.n], tau).mean(1)
    return td.tolist(), fit.tolist(), values[:, : held.n].mean(1).tolist()


def tau_of(config: CriticConfig, like: Tensor) -> Float[Tensor, "1 1"]:
    """The config's expectile as a column, on the device of `like`."""
    return like.new_full((1, 1), config.tau)


def _update(actor: Learned, pair: Critic, batch: Batch, config: Config, alpha: float, report: bool) -> dict[str, float]:
    target_q, u = update_value(pair, batch, tau_of(config, batch.reward))
    values = pair.value.net.forward(batch.pair, keep=False)[:, :, 0]
    b = len(batch.row)
    weight = losses.advantage_weights(target_q[0] - values[0, :b], alpha, config.weight_clip)
    found = bc.update(actor, batch, weight, report)
    q, target = update_q(pair, batch, values[:, b:], config)
    return found | (training_losses(q, target, u, batch, config) if report else {})


def training_losses(
    q: Float[Tensor, "m b a"], target: Float[Tensor, "m b"], u: Float[Tensor, "k b"], batch: Batch, config: CriticConfig
) -> dict[str, float]:
    """Mean TD and expectile loss of the latest minibatch."""
    td = float(((losses.chosen(q, batch.action) - target) ** 2).mean())
    return {"td": td, "expectile": float(losses.expectile(u, tau_of(config, u)).mean())}


def _held_out(actor: Learned, pair: Critic, held: Data, config: Config, alpha: float) -> dict[str, float]:
    state, action = held.states[: held.n], held.action.unsqueeze(1)
    target_q = losses.chosen(pair.q.target_net.forward(state, keep=False), action).amin(0)
    advantage = target_q - pair.value.net.forward(state, keep=False)[0, :, 0]
    weight = losses.advantage_weights(advantage, alpha, config.weight_clip)
    return held_out_critic(pair, held, config) | {"nll": bc.nll(actor, held, weight)}
