"""Conservative Q-learning (Kumar et al. 2020): double DQN that pushes down all values and lifts the logged action's."""

from pydantic import Field

from cohort.episodes import Episodes
from policy import d3rlpy_baselines
from policy.d3rlpy_baselines import BaselineConfig, DiscreteCQLConfig
from policy.served import NetworkPolicy
from policy.train import Session


class Config(BaselineConfig):
    """d3rlpy's discrete CQL."""

    alpha: float = Field(default=1.0, ge=0)
    """Weight of logsumexp Q(s, .) - Q(s, a), in normalised reward units; 0 is double DQN."""


def fit(episodes: Episodes, config: Config, seed: int, session: Session) -> NetworkPolicy:
    """Train it; the policy is greedy over all actions."""
    algorithm = DiscreteCQLConfig(**d3rlpy_baselines.common(config), alpha=config.alpha)
    return d3rlpy_baselines.fit("cql", episodes, config, algorithm, "greedy", seed, session)
