"""Masked extraction: any critic served inside clinicians' support, at a stated divergence from them."""

from dataclasses import replace

import numpy as np
from jaxtyping import Float
from pydantic import Field

from cohort.config import Config
from cohort.episodes import Episodes
from cohort.errors import InputError
from policy import batches, behaviour, extraction, monitor
from policy.behaviour import BehaviourConfig
from policy.served import NetworkPolicy


class ExtractionConfig(Config):
    """How far an extracted policy may go."""

    eps: float = Field(default=0.1, ge=0, le=1)
    """Supported: at least this much as likely as the likeliest dose of the state."""
    target_kl: float = Field(default=0.1, gt=0)
    """Mean KL, in nats, to the masked and renormalised behaviour policy over training states."""


def masked(
    policy: NetworkPolicy,
    episodes: Episodes,
    config: ExtractionConfig | None = None,
    seed: int = 0,
    behaviour_config: BehaviourConfig | None = None,
) -> NetworkPolicy:
    """Serve a value learner's Q through the support mask at `target_kl`, so that methods compare at equal divergence.

    Raises:
        InputError: the policy has no value network, all returns are equal, or `target_kl` is infeasible.
    """
    batches.require_different_returns(episodes)
    clinicians = behaviour.fit(replace(episodes, scaler=policy.scaler), behaviour_config, seed)
    return extract(policy, clinicians, episodes.state, config or ExtractionConfig(), f"{policy.learner}_masked")


def extract(
    policy: NetworkPolicy,
    clinicians: NetworkPolicy,
    state: Float[np.ndarray, "n d"],
    config: ExtractionConfig,
    name: str,
) -> NetworkPolicy:
    """Solve the temperature on the given (training) states and freeze it into a policy that tilts `clinicians`."""
    if policy.critic is None:
        raise InputError(f"a {policy.learner} policy has no value network to extract from")
    if clinicians.actor is None or not np.array_equal(clinicians.scaler.mean, policy.scaler.mean):
        raise InputError("the behaviour model and the critic were fitted on differently scaled states")
    usual, q = clinicians.probs(state), policy.q(state)
    supported = extraction.mask(usual, config.eps)
    alpha = extraction.solve_alpha(usual, q, config.eps, config.target_kl)
    probs = extraction.tilt(usual, q, config.eps, alpha)
    notes = {
        **policy.notes,
        "target_kl": config.target_kl,
        "kl_masked": float(extraction.kl(probs, extraction.renormalised(usual, config.eps)).mean()),
        "kl_behaviour": float(extraction.kl(probs, usual).mean()),
        "supported_actions": float(supported.sum(1).mean()),
        "overestimation": monitor.with_served(policy.notes["overestimation"], q, supported),
    }
    return replace(
        policy,
        learner=name,
        rule="tilt",
        actor=clinicians.actor,
        temperature=clinicians.temperature,
        eps=config.eps,
        alpha=alpha,
        notes=notes,
    )


def require_feasible(clinicians: NetworkPolicy, state: Float[np.ndarray, "n d"], config: ExtractionConfig) -> None:
    """Raise InputError, before a critic is trained, where no critic could reach `target_kl` within the support."""
    most = extraction.largest_kl(clinicians.probs(state), config.eps)
    if config.target_kl > most:
        raise InputError(
            f"target_kl {config.target_kl:g} is infeasible: with eps {config.eps:g} no policy on these states "
            f"differs by more than {most:.4g}; lower target_kl or eps"
        )
