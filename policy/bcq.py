"""Discrete BCQ (Fujimoto et al. 2019): double DQN whose greedy action must be likely enough under an imitator."""

from pydantic import Field

from cohort.episodes import Episodes
from policy import d3rlpy_baselines
from policy.d3rlpy_baselines import BaselineConfig, DiscreteBCQConfig
from policy.served import NetworkPolicy
from policy.train import Session


class Config(BaselineConfig):
    """d3rlpy's discrete BCQ, its imitator a network of its own."""

    threshold: float = Field(default=0.3, gt=0, lt=1)
    """An action is eligible where pi_b(a) / max pi_b is above it; at 1 itself none would be, so it is refused."""
    beta: float = Field(default=0.01, ge=0)
    """Penalty on the imitator's squared logits (the paper's 0.01; d3rlpy's default is 0.5)."""


def fit(episodes: Episodes, config: Config, seed: int, session: Session) -> NetworkPolicy:
    """Train it; the policy is greedy over the actions its own imitator deems likely enough."""
    algorithm = DiscreteBCQConfig(
        **d3rlpy_baselines.common(config),
        action_flexibility=config.threshold,
        beta=config.beta,
        share_encoder=False,
    )
    return d3rlpy_baselines.fit(
        "bcq", episodes, config, algorithm, "greedy", seed, session,
        actor=lambda driven: driven.modules["imitator"], eps=config.threshold,
    )  # fmt: skip
