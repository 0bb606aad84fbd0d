"""Benchmark: whether printed numbers hold the truth in the simulated hospital, where the truth can be had by treating.

Clinicians treat; policies near and far from them are estimated from that log with all estimators, through the default
gates; then each policy treats many patients itself. Propensities are exact, so that what is tried is the estimators,
their intervals and the gates, not the clinicians' model. Coverage: over many small hospitals, Q fitted on another.
"""

# ruff: noqa: E402  (this folder leaves the path before `ope` is imported)
import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path = [folder for folder in sys.path if Path(folder).resolve() != Path(__file__).resolve().parent]

import numpy as np

from cohort.hospital import clinicians, logs
from cohort.hospital.logs import Answer, Log
from cohort.scaler import fit as fit_scaler
from ope import assessment, estimates, fqe, importance, overlap
from ope import gates as gating
from ope.estimates import ESTIMATORS
from ope.fqe import FqeConfig
from ope.gates import GateConfig
from ope.interval import Interval
from ope.trajectories import Trajectories, attainable, pad

GAMMA, LEVEL = 1.0, 0.95
FLUID, VASOPRESSOR = np.divmod(np.arange(clinicians.BINS**2), clinicians.BINS)
SEEDS = (1, 2, 3, 4, 5)
TRUTH_SEED, Q_SEED, REPEAT_SEED = 1000, 2000, 3000


@dataclass(frozen=True)
class Truth:
    """What a policy returns when it treats, and how much more than the clinicians on the same patients."""

    value: float
    difference: float
    error: float
    """Standard error of the value."""


@dataclass(frozen=True)
class Number:
    """One number that the gates let through."""

    policy: str
    estimator: str
    kind: str
    found: Interval
    truth: float

    @property
    def missed(self) -> bool:
        """Whether the interval misses the truth."""
        return not self.found.low <= self.truth <= self.found.high

    @property
    def errors_off(self) -> float:
        """Distance to the truth in standard errors, these read off the interval."""
        return abs(self.found.value - self.truth) / ((self.found.high - self.found.low) / (2 * 1.96))


def main() -> int:
    """Print one JSON object; exit code 1 where a claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer stays, repeats and treated patients")
    quick, began = parser.parse_args().quick, time.process_time()
    treated, stays, repeats, small = (6_000, 2_000, 20, 1_000) if quick else (60_000, 5_000, 200, 2_000)
    true = truths(treated)
    numbers, withheld = trial(SEEDS[:2] if quick else SEEDS, stays, true)
    far = max(numbers, key=lambda one: one.errors_off)
    measured = {
        "stays a hospital": stays,
        "numbers printed": len(numbers),
        "numbers withheld": withheld,
        "missed by estimator": by_estimator(numbers),
        "farthest off": [far.policy, far.estimator, far.kind, round(far.errors_off, 2)],
        f"coverage over {repeats} hospitals of {small} stays": coverage(repeats, small, true),
        "truths (value, more than clinicians, standard error)": {
            name: [round(one.value, 4), round(one.difference, 4), round(one.error, 4)] for name, one in true.items()
        },
        "cpu_s": round(time.process_time() - began, 1),
    }
    claims = [
        claim("share of printed numbers whose interval misses the truth", np.mean([n.missed for n in numbers]), 0.07),
        claim("printed numbers more than three standard errors off", sum(n.errors_off > 3 for n in numbers), 0),
    ]
    print(json.dumps({"benchmark": "trial", "quick": quick, "measured": measured, "claims": claims}, indent=1))
    return 0 if all(one["holds"] for one in claims) else 1


def claim(name: str, value: float, bar: float) -> dict[str, object]:
    """One claim: at most the bar."""
    return {"name": name, "value": round(float(value), 4), "bar": bar, "better": "low", "holds": bool(value <= bar)}


def policies() -> dict[str, Answer]:
    """Eight: other shares of the clinicians' styles, more or less of a drug, more or less certain; and one far away."""
    return {
        "styles redrawn": logs.mixture,
        "more guideline": lambda state: logs.mixture(state, shares(guideline=0.72)),
        "guideline only": lambda state: logs.mixture(state, np.eye(5)[0]),
        "no late": lambda state: logs.mixture(state, shares(late=0.0)),
        "more fluid": lambda state: tilted(state, 0.15 * FLUID),
        "less fluid": lambda state: tilted(state, -0.15 * FLUID),
        "more vasopressor": lambda state: tilted(state, 0.2 * VASOPRESSOR),
        "likeliest": lambda state: np.eye(clinicians.BINS**2)[logs.mixture(state).argmax(axis=1)],
    }


def shares(**changed: float) -> np.ndarray:
    """The styles' shares with some changed, summing to 1 again."""
    found = np.array([changed.get(name, style.share) for name, style in clinicians.STYLES.items()])
    return found / found.sum()


def tilted(state: np.ndarray, by: np.ndarray) -> np.ndarray:
    """The clinicians' mixture times exp(by)."""
    weight = logs.mixture(state) * np.exp(by)
    return weight / weight.sum(axis=1, keepdims=True)


def truths(n: int) -> dict[str, Truth]:
    """Every policy treats the same n patients with the same luck."""
    own = logs.returns(None, n, TRUTH_SEED)
    found = {name: logs.returns(answer, n, TRUTH_SEED) for name, answer in policies().items()}
    return {
        name: Truth(float(each.mean()), float((each - own).mean()), float(each.std() / np.sqrt(n)))
        for name, each in found.items()
    }


def trial(seeds: Sequence[int], n: int, true: dict[str, Truth]) -> tuple[list[Number], int]:
    """The printed numbers of all hospitals and policies, and how many were withheld."""
    printed, withheld = [], 0
    for seed in seeds:
        log = logs.draw(n, seed)
        for name, answer in policies().items():
            fitted = fqe.evaluate(log.episodes, answer, GAMMA, FqeConfig(), seed)
            t, shared = trajectories(log, answer(log.episodes.state), fitted.q, fitted.v)
            for estimator, kind, found, reason in judged(t, shared, log, fitted.member_values, seed, GateConfig()):
                truth = true[name].value if kind == "value" else true[name].difference
                withheld += reason is not None
                if reason is None:
                    printed.append(Number(name, estimator, kind, found, truth))
    return printed, withheld


def trajectories(
    log: Log, target: np.ndarray, q: np.ndarray | None = None, v: np.ndarray | None = None
) -> tuple[Trajectories, overlap.Overlap]:
    """A policy's trajectories and overlap, behaviour exact."""
    at = (np.arange(len(target)), log.episodes.action)
    t = pad(log.episodes, target[at] / log.behaviour[at], GAMMA, q, v)
    unsupported = overlap.unsupported_share(target, log.behaviour, GateConfig().support_floor)
    return t, overlap.measure(t, log.episodes.patient, unsupported)


def judged(
    t: Trajectories,
    shared: overlap.Overlap,
    log: Log,
    members: np.ndarray | None,
    seed: int,
    config: GateConfig,
    n_bootstrap: int = 1000,
) -> Iterator[tuple[str, str, Interval, str | None]]:
    """Each estimator's value and difference to the clinicians, and why it would be withheld."""
    allowed = attainable(log.episodes, GAMMA)
    chosen = {**ESTIMATORS, "clinicians": importance.logged}
    samples = estimates.sample(t, log.episodes, chosen, n_bootstrap, seed)
    if members is not None:
        samples["dm"] = estimates.with_model_error(samples["dm"], members)
    own = samples.pop("clinicians")
    found = {name: estimates.interval_of(one, LEVEL, allowed) for name, one in samples.items()}
    reasons = estimates.reasons_to_withhold(found, gating.check_overlap(shared, config), config, allowed, 0)
    for name, one in samples.items():
        yield name, "value", found[name], reasons[name]
        yield name, "difference", assessment.difference(one, own, LEVEL, allowed), reasons[name]


def by_estimator(numbers: Sequence[Number]) -> dict[str, str]:
    """missed / printed."""
    return {
        name: f"{sum(n.missed for n in numbers if n.estimator == name)} of {sum(n.estimator == name for n in numbers)}"
        for name in ESTIMATORS
    }


def coverage(repeats: int, n: int, true: dict[str, Truth]) -> dict[str, dict[str, float]]:
    """How often each estimator's interval held the truth, policy by policy, whatever the gates say."""
    other = logs.draw(n, Q_SEED)
    scaler = fit_scaler(other.episodes.state)
    models = {
        name: fqe.fit(other.episodes, answer, GAMMA, FqeConfig(), 0, scaler) for name, answer in policies().items()
    }
    held: dict[str, dict[str, list[bool]]] = {name: {} for name in policies()}
    for repeat in range(repeats):
        log = logs.draw(n, REPEAT_SEED + repeat)
        state, at = log.episodes.state, (np.arange(log.episodes.n), log.episodes.action)
        for name, answer in policies().items():
            network, scale = models[name]
            table, target = network(scaler.transform(state)).mean(axis=0) * scale, answer(state)
            t, shared = trajectories(log, target, table[at], (target * table).sum(axis=1))
            for estimator, kind, found, _ in judged(t, shared, log, None, repeat, GateConfig(), 400):
                truth = true[name].value if kind == "value" else true[name].difference
                held[name].setdefault(f"{estimator} {kind}", []).append(found.low <= truth <= found.high)
    return {name: {key: round(float(np.mean(one)), 3) for key, one in found.items()} for name, found in held.items()}


if __name__ == "__main__":
    sys.exit(main())
