"""AWAC (Nair et al. 2020): a critic that evaluates the learned policy, and cloning weighted by its advantages."""

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from cohort.episodes import Episodes
from policy import batches, bc, losses, train
from policy.batches import Batch, Data
from policy.networks import Learned, Mlp
from policy.served import NetworkPolicy
from policy.train import Session, TrainConfig


class Config(TrainConfig):
    """AWAC's critic and temperature."""

    n_critics: int = Field(default=2, ge=1, le=4)
    target_rate: float = Field(default=0.005, gt=0, le=1)
    alpha: float = Field(default=1.0, gt=0)
    """Temperature in reward units; it divides the advantage (the paper's lambda 1)."""
    weight_clip: float = Field(default=100.0, gt=0)
    """Largest exp(A / alpha)."""


def fit(episodes: Episodes, config: Config, seed: int, session: Session) -> NetworkPolicy:
    """Train the critic on the policy's own expected value, then the policy on the critic's advantages."""
    prepared = batches.prepare(episodes, config.holdout, config.gamma, seed, session.device)
    alpha = config.alpha / prepared.reward_scale
    sizes = (prepared.fit.d, *config.hidden, prepared.fit.n_actions)
    with train.one_thread():
        actor = train.actor(prepared, config, seed)
        q = train.values("critic", sizes, config.n_critics, prepared, config, seed)
        task = train.Task(
            {"actor": actor, "q": q},
            lambda batch, report: _update(actor, q, batch, alpha, config, report),
            lambda held: _held_out(actor, q, held, alpha, config),
            {"critic": ("q",), "nll": ("actor",)},
            bootstraps=("critic",),
            values=lambda state: q.net.forward(state, keep=False).amin(0),
        )
        outcome = train.run(task, prepared, config, seed, session)
    return NetworkPolicy(
        learner="awac",
        config=config.model_dump(mode="json"),
        rule="softmax",
        scaler=prepared.scaler,
        features=episodes.features,
        n_actions=episodes.n_actions,
        actor=actor.net.freeze(),
        critic=q.net.freeze(),
        reward_scale=prepared.reward_scale,
        curves=outcome.curves,
        notes=outcome.notes,
    )


def value(actor: Mlp, q: Mlp, state: Float[Tensor, "b d"]) -> Float[Tensor, "b"]:
    """V(s): the policy's expectation of the ensemble's minimum, exact over all actions."""
    probs = torch.softmax(actor.forward(state, keep=False)[0], 1)
    return (probs * q.forward(state, keep=False).amin(0)).sum(1)


def advantage(actor: Mlp, q: Mlp, batch: Batch) -> Float[Tensor, "b"]:
    """min Q(s, a) of the logged action minus V(s); positive: better than the policy's average."""
    expected = value(actor, q, batch.state)
    return losses.chosen(q.forward(batch.state, keep=False).amin(0, keepdim=True), batch.action)[0] - expected


def update_q(actor: Mlp, q: Learned, batch: Batch, gamma: float, target_rate: float, report: bool) -> dict[str, float]:
    """The TD step of every Q towards r + gamma E_pi min target Q(s', .), then the moving average."""
    target = torch.addcmul(batch.reward, batch.alive, value(actor, q.target_net, batch.next_state), value=gamma)
    values = q.net.forward(batch.state)
    q.net.backward(losses.squared_error_gradient(values, batch.action, target))
    found = {"td": float(((losses.chosen(values, batch.action) - target) ** 2).mean())} if report else {}
    q.step()
    q.average(target_rate)
    return found


def held_out_td(actor: Mlp, q: Learned, every: Batch, gamma: float) -> float:
    """Mean squared TD error on held-out transitions."""
    target = every.reward + gamma * every.alive * value(actor, q.target_net, every.next_state)
    return float(((losses.chosen(q.net.forward(every.state, keep=False), every.action) - target) ** 2).mean())


def _update(actor: Learned, q: Learned, batch: Batch, alpha: float, config: Config, report: bool) -> dict[str, float]:
    found = update_q(actor.net, q, batch, config.gamma, config.target_rate, report)
    weight = losses.advantage_weights(advantage(actor.net, q.net, batch), alpha, config.weight_clip)
    return found | bc.update(actor, batch, weight, report)


def _held_out(actor: Learned, q: Learned, held: Data, alpha: float, config: Config) -> dict[str, float]:
    every = batches.everything(held)
    td = held_out_td(actor.net, q, every, config.gamma)
    weight = losses.advantage_weights(advantage(actor.net, q.net, every), alpha, config.weight_clip)
    return {"td": td, "critic": td, "nll": bc.nll(actor, held, weight)}
