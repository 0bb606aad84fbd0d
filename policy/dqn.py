"""Double DQN (van Hasselt et al. 2015) on logged data: a naive baseline that shows overestimation."""

from cohort.episodes import Episodes
from policy import d3rlpy_baselines
from policy.d3rlpy_baselines import BaselineConfig, DoubleDQNConfig
from policy.served import NetworkPolicy
from policy.train import Session


class Config(BaselineConfig):
    """d3rlpy's double DQN has no options of its own."""


def fit(episodes: Episodes, config: Config, seed: int, session: Session) -> NetworkPolicy:
    """Train it to the end, without early stopping; the policy is greedy over all actions."""
    algorithm = DoubleDQNConfig(**d3rlpy_baselines.common(config))
    return d3rlpy_baselines.fit("dqn", episodes, config, algorithm, "greedy", seed, session, stops=False)
