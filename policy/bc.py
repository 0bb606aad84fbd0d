"""Behaviour cloning: the policy that imitates the logged decisions (maximum likelihood)."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cohort.episodes import Episodes
from policy import batches, losses, train
from policy.batches import Batch, Data
from policy.networks import Learned
from policy.served import NetworkPolicy
from policy.train import Session, TrainConfig


class Config(TrainConfig):
    """Behaviour cloning has no options of its own."""


def fit(episodes: Episodes, config: Config, seed: int, session: Session) -> NetworkPolicy:
    """Imitate every logged decision alike."""
    return imitate("bc", episodes, config, seed, session)


def imitate(
    name: str,
    episodes: Episodes,
    config: TrainConfig,
    seed: int,
    session: Session,
    notes: Mapping[str, Any] | None = None,
) -> NetworkPolicy:
    """Train an actor by maximum likelihood on logged decisions, stopped by held-out patients' likelihood."""
    prepared = batches.prepare(episodes, config.holdout, config.gamma, seed, session.device)
    with train.one_thread():
        actor = train.actor(prepared, config, seed)
        task = train.Task(
            {"actor": actor},
            lambda batch, report: update(actor, batch, mean_weight(batch), report),
            lambda held: {"nll": nll(actor, held)},
            {"nll": ("actor",)},
        )
        outcome = train.run(task, prepared, config, seed, session)
    return NetworkPolicy(
        learner=name,
        config=config.model_dump(mode="json"),
        rule="softmax",
        scaler=prepared.scaler,
        features=episodes.features,
        n_actions=episodes.n_actions,
        actor=actor.net.freeze(),
        curves=outcome.curves,
        notes={**outcome.notes, **(notes or {})},
    )


def update(actor: Learned, batch: Batch, weight: Float[Tensor, "b"], report: bool) -> dict[str, float]:
    """One step of weighted maximum likelihood; every learner with an actor of its own takes this one."""
    logits = actor.net.forward(batch.state)
    actor.net.backward(losses.weighted_nll_gradient(logits, batch.action, weight))
    found = {"nll": float(losses.weighted_nll(logits, batch.action, weight))} if report else {}
    actor.step()
    return found


def mean_weight(batch: Batch) -> Float[Tensor, "b"]:
    """Every decision alike: 1/b."""
    return torch.full_like(batch.reward, 1.0 / len(batch.reward))


def nll(actor: Learned, source: Data, weight: Float[Tensor, "n"] | None = None) -> float:
    """Negative log-likelihood of the logged actions in nats: the mean, or the sum under the given weights."""
    logits = actor.net.forward(source.states[: source.n], keep=False)
    weights = source.reward.new_full((source.n,), 1.0 / source.n) if weight is None else weight
    return float(losses.weighted_nll(logits, source.action.unsqueeze(1), weights))
