"""Conservative IQL, the main method: IQL's values, extracted within clinicians' support at a stated divergence."""

from dataclasses import replace

from cohort.episodes import Episodes
from policy import advantage, batches, behaviour, iql, masked, train
from policy.advantage import AdvantageConfig
from policy.batches import Batch
from policy.behaviour import BehaviourConfig
from policy.iql import Critic
from policy.masked import ExtractionConfig
from policy.served import NetworkPolicy
from policy.train import Session


class Config(AdvantageConfig, ExtractionConfig):
    """The critic, how advantages are read from it, the support mask and the divergence."""

    behaviour: BehaviourConfig = BehaviourConfig()
    """The clinicians' factor."""


def fit(episodes: Episodes, config: Config, seed: int, session: Session) -> NetworkPolicy:
    """Fit the behaviour factor, the critic, the advantages, then the temperature that meets `target_kl` in training.

    Raises:
        InputError: all returns are equal; or `target_kl` is infeasible, where no critic could reach it before the
            critic is trained.
    """
    batches.require_different_returns(episodes)
    prepared = batches.prepare(episodes, config.holdout, config.gamma, seed, session.device)
    clinicians = behaviour.fit(
        replace(episodes, scaler=prepared.scaler), config.behaviour, seed, session.named("behaviour")
    )
    masked.require_feasible(clinicians, prepared.episodes.state, config)
    with train.one_thread():
        pair = iql.critic(prepared, config, seed)
        task = train.Task(
            {"value": pair.value, "q": pair.q},
            lambda batch, report: _update(pair, batch, config, report),
            lambda held: iql.held_out_critic(pair, held, config),
            {"critic": ("value", "q")},
            bootstraps=("critic",),
            values=lambda state: pair.value.net.forward(state, keep=False)[0],
        )
        outcome = train.run(task, prepared, config, seed, session)
    critic_only = NetworkPolicy(
        learner="iql",
        config=config.model_dump(mode="json"),
        rule="greedy",
        scaler=prepared.scaler,
        features=episodes.features,
        n_actions=episodes.n_actions,
        critic=advantage.read(pair.value.net.freeze(), prepared, config),
        reward_scale=prepared.reward_scale,
        curves=outcome.curves,
        notes=outcome.notes,
    )
    state = prepared.episodes.state
    return masked.extract(critic_only, clinicians, state, config, "conservative_iql")


def _update(pair: Critic, batch: Batch, config: Config, report: bool) -> dict[str, float]:
    _, u = iql.update_value(pair, batch, iql.tau_of(config, batch.reward))
    following = pair.value.net.forward(batch.next_state, keep=False)[:, :, 0]
    q, target = iql.update_q(pair, batch, following, config)
    return iql.training_losses(q, target, u, batch, config) if report else {}
