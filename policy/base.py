"""Policy: what every learner returns, and the registry that finds a learner by name."""

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32

from cohort.config import Config, parse
from cohort.episodes import Episodes
from cohort.errors import ConfigError

if TYPE_CHECKING:
    from policy.served import NetworkPolicy
    from policy.train import Session

LEARNERS: dict[str, str] = {
    "bc": "policy.bc",
    "filtered_bc": "policy.filtered_bc",
    "awr": "policy.awr",
    "awac": "policy.awac",
    "iql": "policy.iql",
    "conservative_iql": "policy.conservative_iql",
    "cql": "policy.cql",
    "bear": "policy.bear",
    "dpo": "policy.dpo",
    "bcq": "policy.bcq",
    "dqn": "policy.dqn",
    "sac": "policy.sac",
}
"""Name -> module with `Config` and `fit(episodes, config, seed, session)`."""


@runtime_checkable
class Policy(Protocol):
    """A stochastic policy over discrete doses."""

    def probs(self, state: Float[np.ndarray, "n d"]) -> Float32[np.ndarray, "n a"]:
        """Action probabilities; states in the episodes' own units (scaling is inside); rows sum to 1."""
        ...


def fit(
    name: str,
    episodes: Episodes,
    config: Config | Mapping[str, Any] | None = None,
    seed: int = 0,
    *,
    session: "Session | None" = None,
) -> "NetworkPolicy":
    """Train the learner called `name`.

    Args:
        name: a key of LEARNERS.
        episodes: training trajectories; held-out patients are split off inside.
        config: the learner's Config, a mapping of its fields, or None for its defaults.
        seed: all of its randomness; same seed, same weights.
        session: progress callback, checkpoint file and device; they do not change the result.

    Raises:
        ConfigError: an unknown learner, or a config that is not the learner's.
    """
    if name not in LEARNERS:
        raise ConfigError(f"learner {name!r} is unknown; known: {', '.join(LEARNERS)}")
    from policy.train import Session  # torch: not needed to look a name up

    module = import_module(LEARNERS[name])
    if config is None or isinstance(config, Mapping):
        config = parse(config or {}, module.Config, name=f"learner {name}")
    if not isinstance(config, module.Config):
        raise ConfigError(f"learner {name}: config is a {type(config).__name__}, expected its own Config")
    policy: NetworkPolicy = module.fit(episodes, config, seed, session or Session())
    return policy
