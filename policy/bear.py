"""BEAR (Kumar et al. 2019) for discrete doses: the best-valued policy whose distribution stays near the clinicians'."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from cohort.episodes import Episodes
from policy import awac, batches, behaviour, train
from policy.batches import Batch
from policy.behaviour import BehaviourConfig
from policy.networks import Learned
from policy.served import NetworkPolicy
from policy.train import Session, TrainConfig

DOSE_BINS = 5
LOG_LAMBDA = (-5.0, 10.0)
"""Range of the dual variable's logarithm, the paper's code's."""


class Config(TrainConfig):
    """BEAR's critic and constraint."""

    n_critics: int = Field(default=2, ge=1, le=4)
    target_rate: float = Field(default=0.005, gt=0, le=1)
    eps: float = Field(default=0.1, gt=0)
    """Largest root mean square MMD between policy and clinicians over training states (the paper's 0.05)."""
    dual_rate: float = Field(default=0.01, gt=0)
    bandwidth: float = Field(default=1.0, gt=0)
    """Of the Laplace kernel, in dose bins; 25 actions are taken as the 5 x 5 dose grid."""
    behaviour: BehaviourConfig = BehaviourConfig()
    """The clinicians' model."""


class Dual:
    """The constraint's price, lambda: it rises while the policy is too far from the clinicians."""

    def __init__(self) -> None:
        self.log_price = torch.zeros(1, dtype=torch.float64)

    def step(self, mmd2: float, limit: float, rate: float) -> None:
        """Ascend on the violation, relative to the limit; at most one limit's worth a step."""
        self.log_price += rate * float(np.clip(mmd2 / limit - 1.0, -1.0, 1.0))
        self.log_price.clamp_(*LOG_LAMBDA)

    @property
    def price(self) -> float:
        """lambda."""
        return float(self.log_price.exp())

    def tensors(self) -> dict[str, Tensor]:
        """For a checkpoint."""
        return {"log_price": self.log_price}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put a checkpoint's value back."""
        self.log_price.copy_(tensors["log_price"])

    def snapshot(self) -> Tensor:
        """A copy."""
        return self.log_price.clone()

    def revert(self, snapshot: Tensor) -> None:
        """Put a copy back."""
        self.log_price.copy_(snapshot)


def fit(episodes: Episodes, config: Config, seed: int, session: Session) -> NetworkPolicy:
    """Train a critic of the policy's own value, and the policy on it, priced by its distance from the clinicians."""
    prepared = batches.prepare(episodes, config.holdout, config.gamma, seed, session.device)
    clinicians = behaviour.fit(
        replace(episodes, scaler=prepared.scaler), config.behaviour, seed, session.named("behaviour")
    )
    usual = torch.from_numpy(clinicians.probs(prepared.episodes.state)).to(session.device)
    similar = kernel(episodes.n_actions, config.bandwidth).to(session.device)
    sizes = (prepared.fit.d, *config.hidden, prepared.fit.n_actions)
    with train.one_thread():
        actor, dual = train.actor(prepared, config, seed), Dual()
        q = train.values("critic", sizes, config.n_critics, prepared, config, seed)
        task = train.Task(
            {"actor": actor, "q": q, "dual": dual},
            lambda batch, report: _update(actor, q, dual, batch, usual[batch.row], similar, config, report),
            lambda held: {"td": awac.held_out_td(actor.net, q, batches.everything(held), config.gamma)},
            {"td": ("actor", "q", "dual")},
            bootstraps=("td",),
            values=lambda state: q.net.forward(state, keep=False).amin(0),
        )
        outcome = train.run(task, prepared, config, seed, session)
        probs = torch.softmax(actor.net.forward(prepared.fit.states[: prepared.fit.n], keep=False)[0], 1)
    distance = float(mmd2(probs, usual, similar).mean().clamp(min=0).sqrt())
    return NetworkPolicy(
        learner="bear",
        config=config.model_dump(mode="json"),
        rule="softmax",
        scaler=prepared.scaler,
        features=episodes.features,
        n_actions=episodes.n_actions,
        actor=actor.net.freeze(),
        critic=q.net.freeze(),
        reward_scale=prepared.reward_scale,
        curves=outcome.curves,
        notes={**outcome.notes, "mmd": distance, "lambda": dual.price},
    )


def kernel(n_actions: int, bandwidth: float) -> Float[Tensor, "a a"]:
    """exp(-|difference in bins| / bandwidth) between doses of the 5 x 5 grid; the identity for other action sets."""
    if n_actions != DOSE_BINS**2:
        return torch.eye(n_actions)
    fluid, vasopressor = np.divmod(np.arange(n_actions), DOSE_BINS)
    distance = np.abs(fluid[:, None] - fluid) + np.abs(vasopressor[:, None] - vasopressor)
    return torch.from_numpy(np.exp(-distance / bandwidth).astype(np.float32))


def mmd2(probs: Float[Tensor, "b a"], usual: Float[Tensor, "b a"], similar: Float[Tensor, "a a"]) -> Float[Tensor, "b"]:
    """Squared maximum mean discrepancy per state, exact: (pi - pi_b)' K (pi - pi_b)."""
    difference = probs - usual
    return ((difference @ similar) * difference).sum(1)


def actor_gradient(
    probs: Float[Tensor, "b a"],
    q: Float[Tensor, "b a"],
    usual: Float[Tensor, "b a"],
    similar: Float[Tensor, "a a"],
    price: float,
) -> Float[Tensor, "b a"]:
    """Gradient of mean(-E_pi Q + price MMD^2) with respect to the policy's logits."""
    by_probability = 2.0 * price * ((probs - usual) @ similar) - q
    return probs * (by_probability - (probs * by_probability).sum(1, keepdim=True)) / len(probs)


def _update(
    actor: Learned,
    q: Learned,
    dual: Dual,
    batch: Batch,
    usual: Float[Tensor, "b a"],
    similar: Float[Tensor, "a a"],
    config: Config,
    report: bool,
) -> dict[str, float]:
    td = awac.update_q(actor.net, q, batch, config.gamma, config.target_rate, report)
    probs = torch.softmax(actor.net.forward(batch.state)[0], 1)
    values = q.net.forward(batch.state, keep=False).amin(0)
    actor.net.backward(actor_gradient(probs, values, usual, similar, dual.price).unsqueeze(0))
    actor.step()
    distance = float(mmd2(probs, usual, similar).mean())
    dual.step(distance, config.eps**2, config.dual_rate)
    return td | ({"mmd2": distance, "lambda": dual.price} if report else {})
