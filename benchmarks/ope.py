"""Benchmark: off-policy estimates with 1,000 joint resamples, in CPU seconds on one thread, and fitted Q evaluation.

Set SUTURE_SCOPE_RL to a Python that has scope-rl (a throw-away environment) to run its seven estimators on the same
data in turn with ours; without it that claim is not made. d3rlpy's DiscreteFQE runs in this process.
"""

# ruff: noqa: E402  (this folder leaves the path before `ope` is imported)
import argparse
import contextlib
import io
import json
import logging
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path = [
    folder for folder in sys.path if Path(folder).resolve() != Path(__file__).resolve().parent
]  # this is no `ope`

import numpy as np
import structlog
import torch

with contextlib.redirect_stderr(io.StringIO()):
    from d3rlpy.algos import DQNConfig
    from d3rlpy.constants import ActionSpace
    from d3rlpy.dataset import MDPDataset
    from d3rlpy.logging import NoopAdapterFactory
    from d3rlpy.models import VectorEncoderFactory
    from d3rlpy.ope import DiscreteFQE, FQEConfig

from cohort.episodes import Episodes
from ope import estimates, fqe, overlap, samples
from ope.trajectories import pad
from policy import batches
from policy.networks import Learned, Mlp

ACTIONS, D, BATCH, GAMMA = 25, 48, 256, 0.99
OURS = ("is", "wis", "pdis", "cwpdis", "dr", "wdr")
THEIRS = """
import json, sys, time, warnings
warnings.simplefilter("ignore")
import numpy as np
import scope_rl.ope.discrete as d
data = np.load(sys.argv[1])
n, steps = len(data["action"]), int(data["steps"])
given = dict(
    step_per_trajectory=steps, action=data["action"], reward=data["reward"].astype(float),
    pscore=data["behaviour"][np.arange(n), data["action"]].astype(float),
    evaluation_policy_action_dist=data["target"].astype(float), state_action_value_prediction=data["q"].astype(float),
    gamma=0.99, n_bootstrap_samples=1000, random_state=0, ci="bootstrap", alpha=0.05)
seven = (d.DirectMethod, d.TrajectoryWiseImportanceSampling, d.PerDecisionImportanceSampling, d.DoublyRobust,
         d.SelfNormalizedTIS, d.SelfNormalizedPDIS, d.SelfNormalizedDR)
seconds = []
for _ in range(int(sys.argv[2])):
    began = time.process_time()
    for one in seven:
        one().estimate_interval(**given)
    seconds.append(time.process_time() - began)
print(json.dumps(seconds))
"""


def main() -> int:
    """Print one JSON object; exit code 1 where a claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, fewer stays for the memory claim")
    parser.add_argument("--memory", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory:
        print(json.dumps(stream(arguments.memory, 72, 10)))
        return 0
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    rounds = 3 if arguments.quick else 9
    measured, claims = joint(rounds)
    for part in (memory(5_000 if arguments.quick else 50_000), fitted(rounds, 60 if arguments.quick else 200)):
        measured |= part[0]
        claims += part[1]
    print(json.dumps({"benchmark": "ope", "quick": arguments.quick, "measured": measured, "claims": claims}, indent=1))
    return 0 if all(one["holds"] for one in claims) else 1


def claim(name: str, value: float, bar: float, better: str) -> dict[str, object]:
    """One claim; `better` says on which side of the bar it holds."""
    return {
        "name": name,
        "value": round(value, 4),
        "bar": bar,
        "better": better,
        "holds": bool(value <= bar if better == "low" else value >= bar),
    }


def ward(n: int, steps: int, seed: int = 0, d: int = 2) -> tuple[Episodes, np.ndarray, np.ndarray]:
    """Episodes of equal length with an outcome at the end, and the clinicians' and a policy's probabilities."""
    rng, rows = np.random.default_rng(seed), n * steps
    behaviour = rng.gamma(2.0, size=(rows, ACTIONS)).astype(np.float32) + np.float32(1e-3)
    behaviour /= behaviour.sum(axis=1, keepdims=True)
    target = behaviour ** np.float32(1.05)
    target /= target.sum(axis=1, keepdims=True)
    action = np.minimum((behaviour.cumsum(axis=1) < rng.random((rows, 1), np.float32)).sum(axis=1), ACTIONS - 1)
    reward = np.zeros(rows, np.float32)
    reward[steps - 1 :: steps] = rng.choice([-1.0, 1.0], n)
    state = rng.normal(size=(rows, d)).astype(np.float32)
    episodes = Episodes.from_arrays(state, action, reward, np.repeat(np.arange(n), steps), np.ones(n, bool))
    return episodes, behaviour, target


def joint(rounds: int) -> tuple[dict[str, object], list[dict[str, object]]]:
    """The six estimators with their intervals, checks and gates included; and scope-rl's seven."""
    n, steps = 10_000, 18
    episodes, behaviour, target = ward(n, steps)
    q = np.random.default_rng(1).normal(size=behaviour.shape).astype(np.float32)

    def ours() -> float:
        began = time.process_time()
        estimates.evaluate(episodes, target, behaviour, GAMMA, q, OURS, n_bootstrap=1000)
        return time.process_time() - began

    ours()
    seconds, theirs = [], []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "data.npz"
        np.savez(
            file, action=episodes.action, reward=episodes.reward, behaviour=behaviour, target=target, q=q, steps=steps
        )
        for _ in range(rounds):
            seconds += [ours(), ours()]
            theirs += scope_rl(file)
    own = statistics.median(seconds)
    measured: dict[str, object] = {"six estimators, CPU seconds": round(own, 4)}
    claims = [claim("six estimators with 1,000 joint resamples, 10,000 x 18 x 25, CPU seconds", own, 0.2, "low")]
    if theirs:
        measured["scope-rl's seven, CPU seconds"] = round(statistics.median(theirs), 4)
        claims.append(claim("times less CPU than scope-rl's seven", statistics.median(theirs) / own, 8.0, "high"))
    else:
        measured["scope-rl"] = "not compared: SUTURE_SCOPE_RL names no Python that has it"
    return measured, claims


def scope_rl(file: Path) -> list[float]:
    """CPU seconds of scope-rl's seven estimators on the same data; empty where it is not at hand."""
    python = os.environ.get("SUTURE_SCOPE_RL")
    if not python:
        return []
    done = subprocess.run(
        [python, "-W", "ignore", "-c", THEIRS, str(file), "1"], capture_output=True, text=True, check=True
    )
    return [float(second) for second in json.loads(done.stdout.splitlines()[-1])]


def memory(n: int) -> tuple[dict[str, object], list[dict[str, object]]]:
    """Peak memory of ten streamed policies, in a process of its own."""
    done = subprocess.run([sys.executable, __file__, "--memory", str(n)], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    name = f"{n:,} x 72, 10 policies streamed, peak GB"
    return {name: found}, [claim(name, found["peak_gb"], 3.0, "low")]


def stream(n: int, steps: int, policies: int) -> dict[str, float]:
    """Evaluate policies one at a time: what is kept of each is its values and resamples."""
    episodes, behaviour, target = ward(n, steps)
    began, floor = time.process_time(), 0.002
    at = (np.arange(episodes.n), episodes.action)
    chosen = {name: estimates.ESTIMATORS[name] for name in ("is", "wis", "pdis", "cwpdis")}
    kept = []
    for number in range(policies):
        mixed = (1 - number / 20) * behaviour + (number / 20) * target
        t = pad(episodes, mixed[at] / behaviour[at], GAMMA)
        unsupported = overlap.unsupported_share(mixed, behaviour, floor)
        overlap.measure(t, episodes.patient, unsupported)
        kept.append(samples.sample(t, episodes, chosen, 1000, 0))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    return {"peak_gb": round(peak, 3), "cpu_seconds": round(time.process_time() - began, 2), "policies": len(kept)}


def fitted(rounds: int, updates: int) -> tuple[dict[str, object], list[dict[str, object]]]:
    """FQE steps per CPU second at hidden 256: ours, d3rlpy's `fit`, and its `update` alone."""
    episodes, _, target = ward(1_000, 18, d=D)
    data = batches.data(episodes, batches.prepare(episodes, 0.0, GAMMA, 0).scaler)
    following = torch.from_numpy(np.concatenate([target, np.zeros((1, ACTIONS), np.float32)]))
    net = Learned(Mlp((D, 256, 256, ACTIONS), 1, np.random.default_rng(0)), 1e-4, True)
    sampler, weight = batches.Sampler(data, BATCH, 0), torch.ones(1, BATCH)
    theirs, dataset, batch = _d3rlpy(episodes)

    def ours() -> None:
        for number in range(updates):
            rows = sampler.at(number)
            probs = following.index_select(0, data.following.index_select(0, rows.row))
            fqe.update(net, rows, probs, weight, GAMMA, (-2.0, 2.0), 0.005)

    def fit() -> None:
        quiet = NoopAdapterFactory()
        theirs.fit(dataset, n_steps=updates, n_steps_per_epoch=updates, logger_adapter=quiet, show_progress=False)

    def update() -> None:
        for _ in range(updates):
            theirs.update(batch)

    contenders = {"ours": ours, "d3rlpy fit": fit, "d3rlpy update": update}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, run in contenders.items():
            began = time.process_time()
            with contextlib.redirect_stdout(io.StringIO()):
                run()
            if number:  # the first round warms up
                seconds[name].append(time.process_time() - began)
    rate = {name: round(updates / statistics.median(times), 1) for name, times in seconds.items()}
    ratios = {
        name: statistics.median(a / b for a, b in zip(seconds[name], seconds["ours"], strict=True))
        for name in ("d3rlpy fit", "d3rlpy update")
    }
    return {"FQE steps per CPU second at hidden 256": rate}, [
        claim("FQE over d3rlpy's fit", ratios["d3rlpy fit"], 2.3, "high"),
        claim("FQE over d3rlpy's update", ratios["d3rlpy update"], 1.3, "high"),
    ]


def _d3rlpy(episodes: Episodes) -> tuple[DiscreteFQE, MDPDataset, object]:
    """Their evaluation of a greedy policy on the same transitions, and one batch for `update`."""
    dataset = MDPDataset(
        episodes.state, episodes.action[:, None], episodes.reward[:, None], episodes.terminal.astype(np.float32),
        action_space=ActionSpace.DISCRETE, action_size=ACTIONS,
    )  # fmt: skip
    encoder = VectorEncoderFactory([256, 256])
    greedy = DQNConfig(batch_size=BATCH, encoder_factory=encoder).create()
    greedy.build_with_dataset(dataset)
    theirs = DiscreteFQE(greedy, FQEConfig(batch_size=BATCH, encoder_factory=encoder, learning_rate=1e-4))
    theirs.build_with_dataset(dataset)
    from d3rlpy.dataset import ReplayBuffer, create_infinite_replay_buffer

    buffer: ReplayBuffer = create_infinite_replay_buffer(dataset.episodes)
    return theirs, dataset, buffer.sample_transition_batch(BATCH)


if __name__ == "__main__":
    sys.exit(main())
