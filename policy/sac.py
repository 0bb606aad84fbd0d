"""Discrete SAC (Christodoulou 2019) on logged data: a naive actor-critic that shows overestimation."""

from pydantic import Field

from cohort.episodes import Episodes
from policy import d3rlpy_baselines
from policy.d3rlpy_baselines import BaselineConfig, DiscreteSACConfig
from policy.served import NetworkPolicy
from policy.train import Session


class Config(BaselineConfig):
    """d3rlpy's discrete SAC at a fixed temperature."""

    temperature: float = Field(default=0.0, ge=0)
    """Weight of the entropy, in normalised reward units; with d3rlpy's entropy target it alone makes Q explode."""


def fit(episodes: Episodes, config: Config, seed: int, session: Session) -> NetworkPolicy:
    """Train it to the end, without early stopping; the policy is its actor."""
    algorithm = DiscreteSACConfig(
        **d3rlpy_baselines.common(config, ("actor_", "critic_")),
        initial_temperature=config.temperature,
        temp_learning_rate=0.0,
    )
    return d3rlpy_baselines.fit(
        "sac", episodes, config, algorithm, "softmax", seed, session,
        actor=lambda driven: driven.modules["policy"], stops=False,
    )  # fmt: skip
