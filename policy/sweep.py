"""Sweep: conservative IQL over expectiles, divergences and masks; one critic serves every extraction from it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from cohort.config import Config
from cohort.episodes import Episodes
from cohort.errors import ConfigError, InputError
from policy import batches, behaviour, extraction, iql, masked, train
from policy.batches import Batch, Prepared
from policy.behaviour import BehaviourConfig
from policy.iql import Critic, CriticConfig
from policy.masked import ExtractionConfig
from policy.networks import Learned, Network
from policy.served import NetworkPolicy
from policy.train import Curves, Session


class SweepConfig(Config):
    """The grid, and the rule that selects from it."""

    taus: tuple[float, ...] = Field(default=(0.7, 0.9), min_length=1)
    target_kls: tuple[float, ...] = Field(default=(0.05, 0.1, 0.2, 0.5), min_length=1)
    eps: tuple[float, ...] = Field(default=(0.1,), min_length=1)
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    critic: CriticConfig = CriticConfig()
    """Its `tau` is replaced by each of `taus`."""
    behaviour: BehaviourConfig = BehaviourConfig()
    min_ess: float = Field(default=200.0, gt=0)
    """Effective number of select-split episodes that a selected setting must leave."""


@dataclass(frozen=True)
class Setting:
    """One row of the sweep's table."""

    tau: float
    target_kl: float
    eps: float
    seed: int
    held_td: float | None
    """On held-out training patients; None where nothing was held out."""
    held_expectile: float | None
    alpha: float
    kl_behaviour: float
    """Mean KL to the unmasked behaviour policy on the select split."""
    supported_actions: float
    ess: float
    """Of the select split's episodes under the policy's importance weights."""
    infeasible: str | None
    """Why this setting has no policy."""


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


def run(
    train_episodes: Episodes,
    select: Episodes,
    config: SweepConfig,
    select_behaviour: Float[np.ndarray, "n a"] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Setting]:
    """Train a stack of critics per seed, extract every setting from it, and measure each on the select split.

    Args:
        select_behaviour: the evaluation's behaviour probabilities on the select split, for the effective sample size;
            cross-fitted here where not given.
    """
    usual = (
        behaviour.cross_fit(select, config.behaviour, config.seeds[0]) if select_behaviour is None else select_behaviour
    )
    rows: list[Setting] = []
    for done, seed in enumerate(config.seeds):
        found = critics(train_episodes, config.critic, config.taus, seed)
        scaled = replace(train_episodes, scaler=next(iter(found.values())).scaler)
        clinicians = behaviour.fit(scaled, config.behaviour, seed)
        for tau, critic in found.items():
            for eps in config.eps:
                for target_kl in config.target_kls:
                    options = ExtractionConfig(eps=eps, target_kl=target_kl)
                    rows.append(_measured(critic, clinicians, train_episodes, select, usual, tau, options, seed))
        if progress is not None:
            progress(done + 1, len(config.seeds))
    return rows


def selected(rows: Sequence[Setting], min_ess: float) -> Setting:
    """The written rule: of the expectile with the least held-out loss, the largest divergence still evaluable.

    Held-out TD plus expectile loss is averaged over seeds per expectile (the loss of an expectile nearer 0.5 is not
    comparable, so it decides only where losses differ by more than a tenth, else the smallest tau is taken). Then, of
    the settings whose ESS is at least `min_ess` in every seed, that of the largest target_kl, then the largest eps.
    No value estimate enters, so selection cannot chase an optimistic critic.

    Raises:
        InputError: no setting leaves that many effective episodes.
    """
    usable = [row for row in rows if row.infeasible is None]
    groups = {(row.tau, row.target_kl, row.eps) for row in usable}
    enough = {
        key for key in groups if min(row.ess for row in usable if (row.tau, row.target_kl, row.eps) == key) >= min_ess
    }
    if not enough:
        best = max((row.ess for row in usable), default=0.0)
        raise InputError(f"sweep: no setting leaves {min_ess:g} effective episodes; the most is {best:.0f}")
    taus = sorted({tau for tau, *_ in enough})
    losses = {tau: _mean_loss(usable, tau) for tau in taus}
    least = min(losses.values())
    tau = next(tau for tau in taus if losses[tau] <= 1.1 * least)
    key = max((key for key in enough if key[0] == tau), key=lambda key: (key[1], key[2]))
    return next(row for row in usable if (row.tau, row.target_kl, row.eps) == key)


def critics(
    episodes: Episodes,
    config: CriticConfig,
    taus: Sequence[float],
    seed: int = 0,
    session: Session | None = None,
) -> dict[float, NetworkPolicy]:
    """Train one IQL critic per expectile side by side, from the same start on the same minibatches.

    Raises:
        ConfigError: an expectile outside (0, 1) or given twice.
    """
    if any(not 0 < tau < 1 for tau in taus) or len(set(taus)) != len(taus):
        raise ConfigError("sweep: taus must be different numbers strictly between 0 and 1")
    used = session or Session()
    prepared = batches.prepare(episodes, config.holdout, config.gamma, seed, used.device)
    with train.one_thread():
        pair = _stacked(prepared, config, len(taus), seed)
        column = prepared.fit.reward.new_tensor(taus).unsqueeze(1)
        n = config.n_critics
        slices = {f"value {k}": Slice(pair.value, slice(k, k + 1)) for k in range(len(taus))}
        slices |= {f"q {k}": Slice(pair.q, slice(k * n, k * n + n)) for k in range(len(taus))}
        task = train.Task(
            {"value": pair.value, "q": pair.q, **slices},
            lambda batch, report: _update(pair, batch, column, config, report),
            lambda held: _held_out(pair, held, column, config),
            {f"critic {k}": (f"value {k}", f"q {k}") for k in range(len(taus))},
            bootstraps=tuple(f"critic {k}" for k in range(len(taus))),
            values=lambda state: pair.q.net.forward(state, keep=False).amin(0),
        )
        outcome = train.run(task, prepared, config, seed, used)
    whole = pair.q.net.freeze()
    return {
        tau: NetworkPolicy(
            learner="iql",
            config=config.model_dump(mode="json") | {"tau": tau},
            rule="greedy",
            scaler=prepared.scaler,
            features=episodes.features,
            n_actions=episodes.n_actions,
            critic=Network(
                tuple(w[k * n : k * n + n] for w in whole.weights), tuple(b[k * n : k * n + n] for b in whole.biases)
            ),
            reward_scale=prepared.reward_scale,
            curves=outcome.curves,
            notes={**outcome.notes, **_best(outcome.curves, k, outcome.notes["best_at"])},
        )
        for k, tau in enumerate(taus)
    }


def _stacked(prepared: Prepared, config: CriticConfig, k: int, seed: int) -> Critic:
    """k copies of the critic that a single run with this seed starts from."""
    one = iql.critic(prepared, config, seed)
    d, a = prepared.fit.d, prepared.fit.n_actions
    value = train.values("value", (d, *config.hidden, 1), k, prepared, config, seed)
    q = train.values("critic", (d, *config.hidden, a), k * config.n_critics, prepared, config, seed)
    for many, single in ((value, one.value), (q, one.q)):
        for net in (many.net, many.target_net):
            for part, start in zip(net.weights + net.biases, single.net.weights + single.net.biases, strict=True):
                part.copy_(start.repeat(k, 1, 1))
    return Critic(value, q)


def _update(
    pair: Critic, batch: Batch, tau: Float[Tensor, "k 1"], config: CriticConfig, report: bool
) -> dict[str, float]:
    _, u = iql.update_value(pair, batch, tau)
    following = pair.value.net.forward(batch.next_state, keep=False)[:, :, 0]
    q, target = iql.update_q(pair, batch, following, config)
    if not report:
        return {}
    index = batch.action.expand(q.shape[0], *batch.action.shape)
    return {"td": float((q.gather(2, index).squeeze(2) - target).square().mean()), "u": float(u.mean())}


def _held_out(pair: Critic, held: batches.Data, tau: Float[Tensor, "k 1"], config: CriticConfig) -> dict[str, float]:
    td, fit, _ = iql.held_out_critics(pair, held, tau, config)
    row = {f"td {k}": value for k, value in enumerate(td)} | {f"expectile {k}": value for k, value in enumerate(fit)}
    return row | {f"critic {k}": td[k] + fit[k] for k in range(len(tau))}


def _best(curves: Curves, k: int, best_at: Mapping[str, int]) -> dict[str, float | None]:
    at = best_at.get(f"critic {k}")
    row = next((row for row in curves if row["update"] == at), {})
    return {"held_td": row.get(f"held_td {k}"), "held_expectile": row.get(f"held_expectile {k}")}


def _measured(
    critic: NetworkPolicy,
    clinicians: NetworkPolicy,
    episodes: Episodes,
    select: Episodes,
    usual: Float[np.ndarray, "n a"],
    tau: float,
    options: ExtractionConfig,
    seed: int,
) -> Setting:
    held = (critic.notes["held_td"], critic.notes["held_expectile"])
    try:
        policy = masked.extract(critic, clinicians, episodes.state, options, "conservative_iql")
    except InputError as error:
        return Setting(tau, options.target_kl, options.eps, seed, *held, np.nan, np.nan, np.nan, 0.0, str(error))
    probs = policy.probs(select.state)
    away = extraction.kl(probs.astype(np.float64), clinicians.probs(select.state).astype(np.float64)).mean()
    return Setting(
        tau,
        options.target_kl,
        options.eps,
        seed,
        *held,
        policy.alpha,
        float(away),
        float(policy.support(select.state).sum(1).mean()),
        effective_episodes(select, probs, usual),
        None,
    )


def effective_episodes(episodes: Episodes, probs: Float[np.ndarray, "n a"], usual: Float[np.ndarray, "n a"]) -> float:
    """(sum w)^2 / sum w^2 over episodes, w the product of the policy's over the clinicians' probabilities."""
    rows = np.arange(episodes.n)
    with np.errstate(divide="ignore"):
        log_ratio = np.log(probs[rows, episodes.action].astype(float)) - np.log(
            usual[rows, episodes.action].astype(float)
        )
    total = np.add.reduceat(log_ratio, episodes.start)
    if not np.isfinite(total).any():
        return 0.0
    weight = np.exp(total - total.max())
    return float(weight.sum() ** 2 / (weight**2).sum())


def _mean_loss(rows: Sequence[Setting], tau: float) -> float:
    found = [
        row.held_td + row.held_expectile
        for row in rows
        if row.tau == tau and row.held_td is not None and row.held_expectile is not None
    ]
    return float(np.mean(found)) if found else 0.0
