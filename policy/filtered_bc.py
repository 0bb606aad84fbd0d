"""Filtered behaviour cloning: imitate the trajectories with the highest returns only."""

import numpy as np
from jaxtyping import Bool, Float
from pydantic import Field

from cohort.episodes import Episodes
from policy import batches, bc
from policy.batches import Truncated
from policy.served import NetworkPolicy
from policy.train import Session, TrainConfig


class Config(TrainConfig):
    """How many trajectories are good enough to imitate."""

    top_percent: float = Field(default=10.0, gt=0, le=100)
    truncated: Truncated = "refuse"
    """What is done with episodes that were cut off, whose returns are not known."""


def fit(episodes: Episodes, config: Config, seed: int, session: Session) -> NetworkPolicy:
    """Imitate the best `top_percent` of trajectories, ties kept."""
    complete, dropped = batches.complete(episodes, config.truncated)
    chosen = best(complete.returns_to_go(1.0)[complete.start], config.top_percent)
    notes = {"trajectories": complete.n_episodes, "imitated": int(chosen.sum()), "cut_off_dropped": dropped}
    return bc.imitate("filtered_bc", complete.select(chosen), config, seed, session, notes)


def best(returns: Float[np.ndarray, "e"], top_percent: float) -> Bool[np.ndarray, "e"]:
    """True for the `top_percent` of trajectories with the highest returns, at least one; ties are kept."""
    count = max(1, int(np.floor(len(returns) * top_percent / 100 + 1e-9)))
    least = np.partition(returns, len(returns) - count)[len(returns) - count]
    return np.asarray(returns >= least, bool)
