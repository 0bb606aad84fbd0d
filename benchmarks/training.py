"""Benchmark: training updates per CPU second on one thread, against d3rlpy's own training loop, in one process.

Every round runs each contender once, so that a busy machine slows all alike; ratios are medians over rounds. Batch 256,
48 dimensions, 25 actions, sampling included. d3rlpy has no discrete IQL: its IQL for continuous actions, with one-hot
25-dimensional actions, is the nearest.
"""

import argparse
import contextlib
import io
import json
import logging
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import structlog
import torch

with contextlib.redirect_stderr(io.StringIO()):
    from d3rlpy.algos import DiscreteBCQConfig, DiscreteCQLConfig, DiscreteSACConfig, DoubleDQNConfig, IQLConfig
    from d3rlpy.constants import ActionSpace
    from d3rlpy.dataset import MDPDataset
    from d3rlpy.logging import NoopAdapterFactory
    from d3rlpy.models import VectorEncoderFactory

import policy
from cohort.episodes import Episodes
from policy import stack
from policy.advantage import AdvantageConfig

D, ACTIONS, BATCH, STEPS = 48, 25, 256, 15
DISCRETE = {
    "cql": DiscreteCQLConfig,
    "dqn": DoubleDQNConfig,
    "bcq": DiscreteBCQConfig,
    "sac": DiscreteSACConfig,
}
Contender = Callable[[int], None]


def main() -> int:
    """Print one JSON object; exit code 1 where a claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds and updates; the same bars")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    rounds = 3 if quick else 7
    claims, runs = [], {}
    for hidden, updates in ((256, 60 if quick else 200), (64, 250 if quick else 800)):
        episodes = ward(2_000)
        seconds = race(contenders(episodes, hidden), updates, rounds)
        rates = {name: round(updates / statistics.median(times), 1) for name, times in seconds.items()}
        runs[f"hidden {hidden}x{hidden}"] = {"updates per CPU second": rates}
        ratio = {name: of(seconds[f"{name} d3rlpy"], seconds[name]) for name in ("iql", *DISCRETE)}
        claims.append(claim(f"IQL over d3rlpy's at {hidden}", ratio["iql"], 3.0 if hidden == 256 else 5.0))
        for name in DISCRETE if hidden == 64 else ("cql", "dqn"):
            bar = 1.3 if hidden == 256 else 1.8
            claims.append(claim(f"{name} under our loop over its own fit at {hidden}", ratio[name], bar))
        if hidden == 256:
            cost = of(seconds["sweep of 8"], seconds["iql d3rlpy"])
            claims.append(claim("sweep of 8 over one d3rlpy IQL run", cost, 1.5, "low"))
            runs["share of this machine's matrix ceiling"] = round(share_of_ceiling(rates["iql"]), 3)
    print(json.dumps({"benchmark": "training", "quick": quick, "runs": runs, "claims": claims}, indent=1))
    return 0 if all(one["holds"] for one in claims) else 1


def claim(name: str, value: float, bar: float, better: str = "high") -> dict[str, object]:
    """One claim; `better` says on which side of the bar it holds."""
    holds = value <= bar if better == "low" else value >= bar
    return {"name": name, "value": round(value, 3), "bar": bar, "better": better, "holds": bool(holds)}


def of(numerator: list[float], denominator: list[float]) -> float:
    """Median over rounds of one contender's seconds over another's."""
    return statistics.median(a / b for a, b in zip(numerator, denominator, strict=True))


def race(found: dict[str, Contender], updates: int, rounds: int) -> dict[str, list[float]]:
    """CPU seconds of each contender in each round; one short round before, which is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in found}
    for contender in found.values():
        contender(10)
    for _ in range(rounds):
        for name, contender in found.items():
            start = time.process_time()
            contender(updates)
            seconds[name].append(time.process_time() - start)
    return seconds


def contenders(episodes: Episodes, hidden: int) -> dict[str, Contender]:
    """Ours and theirs; each trains for the number of updates it is given."""
    shape = [hidden, hidden]
    found: dict[str, Contender] = {}
    for name in ("iql", *DISCRETE):
        found[name] = ours(name, episodes, shape)
    found["iql d3rlpy"] = theirs_continuous(episodes, shape)
    for name in DISCRETE:
        found[f"{name} d3rlpy"] = theirs(name, episodes, shape)
    if hidden == 256:
        found["sweep of 8"] = lambda updates: sweep_of_eight(episodes, shape, updates)
    return found


def ours(name: str, episodes: Episodes, hidden: list[int]) -> Contender:
    """A learner of this package, from episodes to a policy."""

    def train(updates: int) -> None:
        policy.fit(name, episodes, {"hidden": hidden, "updates": updates, "evaluate_every": updates, "holdout": 0.0})

    return train


def theirs(name: str, episodes: Episodes, hidden: list[int]) -> Contender:
    """The same algorithm and options under d3rlpy's own `fit`."""
    encoder = VectorEncoderFactory(hidden)
    options: dict[str, object] = {"batch_size": BATCH, "n_critics": 2, "target_update_interval": 200}
    names = ("actor_", "critic_") if name == "sac" else ("",)
    for prefix in names:
        options |= {f"{prefix}learning_rate": 3e-4, f"{prefix}encoder_factory": encoder}
    if name == "bcq":
        options["share_encoder"] = False
    if name == "sac":
        options |= {"initial_temperature": 0.0, "temp_learning_rate": 0.0}
    algo = DISCRETE[name](**options).create(device="cpu:0")
    dataset = MDPDataset(
        episodes.state, episodes.action[:, None], episodes.reward[:, None], episodes.terminal.astype(np.float32),
        action_space=ActionSpace.DISCRETE, action_size=ACTIONS,
    )  # fmt: skip
    return lambda updates: fit_d3rlpy(algo, dataset, updates)


def theirs_continuous(episodes: Episodes, hidden: list[int]) -> Contender:
    """d3rlpy's IQL, which is for continuous actions."""
    encoder = VectorEncoderFactory(hidden)
    algo = IQLConfig(
        batch_size=BATCH, actor_encoder_factory=encoder, critic_encoder_factory=encoder, value_encoder_factory=encoder
    ).create(device="cpu:0")
    one_hot = np.eye(ACTIONS, dtype=np.float32)[episodes.action]
    dataset = MDPDataset(
        episodes.state, one_hot, episodes.reward[:, None], episodes.terminal.astype(np.float32),
        action_space=ActionSpace.CONTINUOUS,
    )  # fmt: skip
    return lambda updates: fit_d3rlpy(algo, dataset, updates)


def fit_d3rlpy(algo: object, dataset: MDPDataset, updates: int) -> None:
    """d3rlpy's own loop, without logs and progress bar."""
    algo.fit(  # type: ignore[attr-defined]
        dataset, n_steps=updates, n_steps_per_epoch=updates, logger_adapter=NoopAdapterFactory(), show_progress=False,
    )  # fmt: skip


def sweep_of_eight(episodes: Episodes, hidden: list[int], updates: int) -> None:
    """Two expectiles by four divergences: one training of stacked critics, eight extractions."""
    critic = {"hidden": hidden, "updates": updates, "evaluate_every": updates, "holdout": 0.0}
    stack.critics(episodes, AdvantageConfig(**critic), taus=(0.7, 0.9))


def share_of_ceiling(rate: float) -> float:
    """Multiplications done in IQL's updates as a share of what bare matrix products of those sizes reach here."""
    layers = ((D, 256), (256, 256))
    trunk = sum(i * o for i, o in layers)
    heads = {"value": 1, "critic": ACTIONS, "actor": ACTIONS}
    size = {name: trunk + 256 * out for name, out in heads.items()}
    multiplications = BATCH * (5 * size["value"] + 2 * (3 + 1) * size["critic"] + 3 * size["actor"])
    a, b = torch.randn(BATCH, 256), torch.randn(256, 256)
    start, times = time.process_time(), 400
    for _ in range(times):
        torch.mm(a, b)
    ceiling = times * BATCH * 256 * 256 / (time.process_time() - start)
    return rate * multiplications / ceiling


def ward(patients: int) -> Episodes:
    """Random episodes: speed does not depend on what they say."""
    rng = np.random.default_rng(0)
    n = patients * STEPS
    reward = np.zeros(n, np.float32)
    reward[STEPS - 1 :: STEPS] = rng.choice([-1.0, 1.0], patients)
    return Episodes.from_arrays(
        rng.normal(size=(n, D)), rng.integers(0, ACTIONS, n), reward, np.repeat(np.arange(patients), STEPS),
        np.ones(patients, bool), n_actions=ACTIONS,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
