"""Stack: IQL critics of several expectiles and seeds, trained side by side as one network of many members."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cohort.episodes import Episodes
from cohort.errors import ConfigError
from policy import advantage, batches, iql, losses, train
from policy.advantage import AdvantageConfig
from policy.batches import Batch, Prepared
from policy.iql import Critic, CriticConfig
from policy.networks import Learned, Network
from policy.served import NetworkPolicy
from policy.train import Curves, Session


@dataclass(frozen=True)
class Slice:
    """The members of one stacked critic, so that each keeps its own best weights."""

    net: Learned
    members: slice

    def tensors(self) -> dict[str, Tensor]:
        """Nothing of its own: the whole stack is saved once."""
        return {}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Nothing of its own."""

    def snapshot(self) -> Tensor:
        """These members' weights, copied."""
        return torch.cat([part[self.members].flatten() for part in self.net.net.weights + self.net.net.biases])

    def revert(self, snapshot: Tensor) -> None:
        """Put these members' weights back."""
        at = 0
        for part in self.net.net.weights + self.net.net.biases:
            mine = part[self.members]
            mine.copy_(snapshot[at : at + mine.numel()].view_as(mine))
            at += mine.numel()


class StackConfig(AdvantageConfig):
    """A stack's whole configuration: a checkpoint of another stack is refused by it."""

    taus: tuple[float, ...]
    seeds: tuple[int, ...]


def critics(
    episodes: Episodes,
    config: AdvantageConfig,
    taus: Sequence[float],
    seeds: Sequence[int] = (0,),
    session: Session | None = None,
) -> dict[tuple[float, int], NetworkPolicy]:
    """Train one IQL critic for each expectile and seed side by side; (tau, seed) -> its policy.

    The expectiles of a seed start alike and see the same minibatches; with one seed they are bit for bit what they
    are when trained with the same company, and up to rounding what they are alone. Seeds share held-out patients and
    the scaling, which are the first seed's.

    Raises:
        ConfigError: an expectile outside (0, 1), or an expectile or a seed given twice.
    """
    if any(not 0 < tau < 1 for tau in taus) or len(set(taus)) != len(taus) or len(set(seeds)) != len(seeds):
        raise ConfigError("stack: taus must be different numbers strictly between 0 and 1, and seeds differ")
    used = session or Session()
    prepared = batches.prepare(episodes, config.holdout, config.gamma, seeds[0], used.device)
    whole = StackConfig(
        **config.model_dump() | {"batch": config.batch * len(seeds)}, taus=tuple(taus), seeds=tuple(seeds)
    )
    members = [(seed, tau) for seed in seeds for tau in taus]
    with train.one_thread():
        pair = _stacked(prepared, whole)
        column = prepared.fit.reward.new_tensor([tau for _, tau in members]).unsqueeze(1)
        task = _task(pair, column, whole)
        outcome = train.run(task, prepared, whole, seeds[0], used)
    frozen = pair.value.net.freeze()
    return {
        (tau, seed): NetworkPolicy(
            learner="iql",
            config=config.model_dump(mode="json") | {"tau": tau},
            rule="greedy",
            scaler=prepared.scaler,
            features=episodes.features,
            n_actions=episodes.n_actions,
            critic=advantage.read(Network(_of(frozen.weights, k), _of(frozen.biases, k)), prepared, config),
            reward_scale=prepared.reward_scale,
            curves=outcome.curves,
            notes={**outcome.notes, **_best(outcome.curves, k, outcome.notes["best_at"])},
        )
        for k, (seed, tau) in enumerate(members)
    }


def row_at(curves: Curves, update: int | None) -> Mapping[str, float]:
    """The row of a learning curve at an update; empty where there is none."""
    return next((row for row in curves if row["update"] == update), {})


def _stacked(prepared: Prepared, config: StackConfig) -> Critic:
    """For each seed the critic that a single run with it starts from, once for each expectile."""
    k, count, n = len(config.taus), len(config.seeds), config.n_critics
    d, a = prepared.fit.d, prepared.fit.n_actions
    value = train.values("value", (d, *config.hidden, 1), k * count, prepared, config, config.seeds[0])
    q = train.values("critic", (d, *config.hidden, a), k * count * n, prepared, config, config.seeds[0])
    for i, seed in enumerate(config.seeds):
        one = iql.critic(prepared, config, seed)
        for many, single, m in ((value, one.value, 1), (q, one.q, n)):
            mine = slice(i * k * m, (i + 1) * k * m)
            for net in (many.net, many.target_net):
                for part, start in zip(net.weights + net.biases, single.net.weights + single.net.biases, strict=True):
                    part[mine].copy_(start.repeat(k, 1, 1))
    return Critic(value, q)


def _task(pair: Critic, tau: Float[Tensor, "k 1"], config: StackConfig) -> train.Task:
    k, n = len(tau), config.n_critics
    slices = {f"value {i}": Slice(pair.value, slice(i, i + 1)) for i in range(k)}
    slices |= {f"q {i}": Slice(pair.q, slice(i * n, i * n + n)) for i in range(k)}

    def values(state: Tensor) -> Tensor:
        """The boldest critic's."""
        return pair.value.net.forward(state, keep=False).amax(0)

    return train.Task(
        {"value": pair.value, "q": pair.q, **slices},
        lambda batch, report: _update(pair, _dealt(batch, config), tau, config, report),
        lambda held: _held_out(pair, held, tau, config),
        {f"critic {i}": (f"value {i}", f"q {i}") for i in range(k)},
        bootstraps=tuple(f"critic {i}" for i in range(k)),
        values=values,
    )


def _dealt(batch: Batch, config: StackConfig) -> Batch:
    """One draw dealt out: each seed a part of its own, which all its expectiles share."""
    seeds, k = len(config.seeds), len(config.taus)
    if seeds == 1:
        return batch
    own = batch.pair.view(2, seeds, -1, batch.pair.shape[1]).transpose(0, 1).flatten(1, 2)
    parts = (
        own, batch.action.view(seeds, -1, 1), batch.reward.view(seeds, -1), batch.alive.view(seeds, -1),
        batch.row.view(seeds, -1),
    )  # fmt: skip
    return Batch(*(part.repeat_interleave(k, 0) for part in parts))


def _update(
    pair: Critic, batch: Batch, tau: Float[Tensor, "k 1"], config: CriticConfig, report: bool
) -> dict[str, float]:
    _, u = iql.update_value(pair, batch, tau)
    following = pair.value.net.forward(batch.next_state, keep=False)[:, :, 0]
    q, target = iql.update_q(pair, batch, following, config)
    if not report:
        return {}
    return {"td": float((losses.chosen(q, batch.action) - target).square().mean()), "u": float(u.mean())}


def _of(parts: tuple[Float[np.ndarray, "m _ _"], ...], k: int) -> tuple[Float[np.ndarray, "1 _ _"], ...]:
    return tuple(part[k : k + 1] for part in parts)


def _held_out(pair: Critic, held: batches.Data, tau: Float[Tensor, "k 1"], config: CriticConfig) -> dict[str, float]:
    td, fit, _ = iql.held_out_critics(pair, held, tau, config)
    row = {f"td {k}": value for k, value in enumerate(td)} | {f"expectile {k}": value for k, value in enumerate(fit)}
    return row | {f"critic {k}": td[k] + fit[k] for k in range(len(tau))}


def _best(curves: Curves, k: int, best_at: Mapping[str, int]) -> dict[str, float | None]:
    row = row_at(curves, best_at.get(f"critic {k}"))
    return {"held_td": row.get(f"held_td {k}"), "held_expectile": row.get(f"held_expectile {k}")}
