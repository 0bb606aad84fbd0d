"""Small logged worlds with known answers for the tests of `ope`."""

from dataclasses import dataclass

import numpy as np

from cohort.episodes import Episodes


@dataclass(frozen=True)
class Log:
    """Episodes with both policies' probabilities of every action."""

    episodes: Episodes
    target: np.ndarray
    behaviour: np.ndarray


def hand() -> Log:
    """Two episodes, of two steps and of one; ratios 2, 1/2 | 1/2; rewards 1, 1 | 2. Every estimate below is by hand."""
    episodes = Episodes.from_arrays(
        state=np.zeros((3, 1)), action=np.array([0, 0, 1]), reward=np.array([1.0, 1.0, 2.0]),
        episode=np.array([0, 0, 1]), terminated=np.array([True, True]), n_actions=2,
    )  # fmt: skip
    return Log(
        episodes,
        np.array([[0.8, 0.2], [0.4, 0.6], [0.6, 0.4]]),
        np.array([[0.4, 0.6], [0.8, 0.2], [0.2, 0.8]]),
    )


def random_log(
    n_episodes: int = 300,
    horizon: int = 4,
    n_actions: int = 3,
    seed: int = 0,
    unequal: bool = True,
    terminal_only: bool = False,
) -> Log:
    """Random policies, rewards and lengths."""
    rng = np.random.default_rng(seed)
    length = rng.integers(1, horizon + 1, n_episodes) if unequal else np.full(n_episodes, horizon)
    n = int(length.sum())
    target, behaviour = (rng.dirichlet(np.full(n_actions, 5.0), n) for _ in range(2))
    action = (behaviour.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    reward = rng.normal(size=n)
    if terminal_only:
        last = np.cumsum(length) - 1
        reward[np.setdiff1d(np.arange(n), last)] = 0.0
    episodes = Episodes.from_arrays(
        rng.normal(size=(n, 2)), action, reward, np.repeat(np.arange(n_episodes), length), np.ones(n_episodes, bool),
        n_actions=n_actions,
    )  # fmt: skip
    return Log(episodes, target, behaviour)
