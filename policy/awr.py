"""Advantage-weighted regression (Peng et al. 2019) on Monte Carlo returns: no bootstrapping, so no stitching."""

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from cohort.episodes import Episodes
from policy import batches, bc, losses, train
from policy.batches import Batch, Data, Truncated
from policy.networks import Learned
from policy.served import NetworkPolicy
from policy.train import Session, TrainConfig


class Config(TrainConfig):
    """AWR's temperature and clip."""

    alpha: float = Field(default=1.0, gt=0)
    """Temperature in reward units; it divides the advantage (the paper's beta, which divides too, is 1)."""
    weight_clip: float = Field(default=20.0, gt=0)
    """Largest exp(A / alpha), the paper's."""
    truncated: Truncated = "refuse"
    """What is done with episodes that were cut off, whose returns are not known."""


def fit(episodes: Episodes, config: Config, seed: int, session: Session) -> NetworkPolicy:
    """Fit V to Monte Carlo returns and the policy to actions weighted by exp((R - V) / alpha)."""
    complete, dropped = batches.complete(episodes, config.truncated)
    prepared = batches.prepare(complete, config.holdout, config.gamma, seed, session.device)
    alpha = config.alpha / prepared.reward_scale
    returns = _returns(prepared.episodes, config.gamma, prepared.reward_scale, session.device)
    held_episodes = prepared.held_episodes
    held_returns = (
        returns[:0]
        if held_episodes is None
        else _returns(held_episodes, config.gamma, prepared.reward_scale, session.device)
    )
    with train.one_thread():
        actor = train.actor(prepared, config, seed)
        sizes = (prepared.fit.d, *config.hidden, 1)
        value = train.values("value", sizes, 1, prepared, config, seed)
        task = train.Task(
            {"actor": actor, "value": value},
            lambda batch, report: _update(actor, value, batch, returns[batch.row], alpha, config, report),
            lambda held: _held_out(actor, value, held, held_returns, alpha, config),
            {"value": ("value",), "nll": ("actor",)},
        )
        outcome = train.run(task, prepared, config, seed, session)
    return NetworkPolicy(
        learner="awr",
        config=config.model_dump(mode="json"),
        rule="softmax",
        scaler=prepared.scaler,
        features=episodes.features,
        n_actions=episodes.n_actions,
        actor=actor.net.freeze(),
        curves=outcome.curves,
        notes={**outcome.notes, "cut_off_dropped": dropped},
    )


def _returns(episodes: Episodes, gamma: float, scale: float, device: str) -> Float[Tensor, "n"]:
    return torch.from_numpy((episodes.returns_to_go(gamma) / scale).astype("float32")).to(device)


def _update(
    actor: Learned,
    value: Learned,
    batch: Batch,
    returns: Float[Tensor, "b"],
    alpha: float,
    config: Config,
    report: bool,
) -> dict[str, float]:
    error = value.net.forward(batch.state)[0, :, 0] - returns
    value.net.backward((error * (2.0 / len(error))).view(1, -1, 1))
    value.step()
    advantage = returns - value.net.forward(batch.state, keep=False)[0, :, 0]
    found = bc.update(actor, batch, losses.advantage_weights(advantage, alpha, config.weight_clip), report)
    return found | ({"value": float((error**2).mean())} if report else {})


def _held_out(
    actor: Learned, value: Learned, held: Data, returns: Float[Tensor, "n"], alpha: float, config: Config
) -> dict[str, float]:
    error = returns - value.net.forward(held.states[: held.n], keep=False)[0, :, 0]
    weight = losses.advantage_weights(error, alpha, config.weight_clip)
    return {"value": float((error**2).mean()), "nll": bc.nll(actor, held, weight)}
