"""Benchmark: whether printed numbers hold the truth in the simulated hospital, where the truth can be had by treating.

Clinicians treat; policies near and far from them are estimated from that log with all estimators, through the default
gates; then each policy treats many patients itself. `exact`: with exact propensities, so that what is tried is the
estimators, their intervals and the gates, not the clinicians' model. `learned`: with that model, cross-fitted as in an
evaluation, and policies learned from another hospital's log, over the first day. `coverage`: exact, over many small
hospitals, Q fitted on another.
"""

# ruff: noqa: E402  (this folder leaves the path before `ope` is imported)
import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path = [folder for folder in sys.path if Path(folder).resolve() != Path(__file__).resolve().parent]

import numpy as np

from cohort.grid import GridConfig
from cohort.hospital import clinicians, logs
from cohort.hospital.logs import Answer, Log
from cohort.scaler import fit as fit_scaler
from ope import assessment, estimates, fqe, importance, overlap, samples
from ope import gates as gating
from ope.estimates import ESTIMATORS
from ope.fqe import FqeConfig
from ope.gates import GateConfig
from ope.interval import Interval
from ope.trajectories import Trajectories, attainable, pad
from policy import behaviour
from policy.behaviour import BehaviourConfig

GAMMA, LEVEL = 1.0, 0.95
FLUID, VASOPRESSOR = np.divmod(np.arange(clinicians.BINS**2), clinicians.BINS)
FQE = FqeConfig(updates=800, members=1, target_rate=0.05)
TRUTH_SEED, Q_SEED, REPEAT_SEED, LEARN_SEED = 1000, 2000, 3000, 4000
CLINICIANS_MODEL = BehaviourConfig(folds=3, members=3)
FIRST_DAY = GridConfig(horizon_hours=24)
PARTS = ("exact", "learned", "coverage")
Propensities = Callable[[Log, int], Log]


@dataclass(frozen=True)
class Truth:
    """What a policy returns when it treats, and how much more than the clinicians on the same patients."""

    value: float
    difference: float
    error: float
    """Standard error of the difference."""


@dataclass(frozen=True)
class Number:
    """One number and its interval."""

    hospital: int
    policy: str
    estimator: str
    kind: Literal["value", "difference"]
    found: Interval
    withheld: str | None

    def missed(self, true: "dict[str, Truth]") -> bool:
        """Whether the interval misses the truth."""
        return not self.found.low <= getattr(true[self.policy], self.kind) <= self.found.high

    def errors_off(self, true: "dict[str, Truth]") -> float:
        """Distance to the truth in standard errors, these read off the interval."""
        distance = abs(self.found.value - getattr(true[self.policy], self.kind))
        return float(distance / ((self.found.high - self.found.low) / (2 * 1.96)))


@dataclass(frozen=True)
class Sizes:
    """How much is drawn."""

    own: int
    treated: int
    hospitals: int
    exact: int
    learned: int
    repeats: int
    small: int = 600


FULL = Sizes(own=40_000, treated=12_000, hospitals=5, exact=3_000, learned=12_000, repeats=200)
QUICK = Sizes(own=8_000, treated=3_000, hospitals=2, exact=1_500, learned=3_000, repeats=20)


def main() -> int:
    """Print one JSON object; exit code 1 where a claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer stays, repeats and treated patients")
    parser.add_argument("--part", choices=PARTS, action="append", help="only this (several times: these)")
    given, began = parser.parse_args(), time.process_time()
    size, parts = QUICK if given.quick else FULL, given.part or PARTS
    measured: dict[str, object] = {"sizes": vars(size)}
    claims: list[dict[str, object]] = []
    near = truths(policies(), size) if {"exact", "coverage"} & set(parts) else {}
    if "exact" in parts:
        measured["exact"], made = told(trial(policies(), size.hospitals, size.exact), near, "exact propensities")
        claims += made
    if "coverage" in parts:
        repeated = coverage(size.repeats, size.small)
        measured[f"coverage over {size.repeats} hospitals"] = covered(repeated, near)
    if "learned" in parts:
        answers = learned_policies(size.learned)
        numbers = trial(answers, size.hospitals, size.learned, estimated, FIRST_DAY)
        measured["learned"], made = told(numbers, truths(answers, size, FIRST_DAY), "learned propensities")
        claims += made
    measured["cpu_s"] = round(time.process_time() - began, 1)
    print(json.dumps({"benchmark": "trial", "quick": given.quick, "measured": measured, "claims": claims}, indent=1))
    return 0 if all(one["holds"] for one in claims) else 1


def told(
    numbers: Sequence[Number], true: dict[str, Truth], kind: str
) -> tuple[dict[str, object], list[dict[str, object]]]:
    """What is printed of a trial."""
    printed = [one for one in numbers if one.withheld is None]
    reasons = Counter(one.withheld.split(":")[0] for one in numbers if one.withheld is not None)
    measured: dict[str, object] = {
        "numbers printed": len(printed),
        "numbers withheld": dict(reasons),
        "missed, of printed": by_estimator(printed, true),
        "missed, of all": by_estimator(numbers, true),
        "truths (value, more than clinicians, its standard error)": {
            name: [round(one.value, 4), round(one.difference, 4), round(one.error, 4)] for name, one in true.items()
        },
    }
    if not printed:
        return measured, [claim(f"{kind}: numbers not printed at all", 1, 0)]
    far = max(printed, key=lambda one: one.errors_off(true))
    measured["farthest off"] = [far.hospital, far.policy, far.estimator, far.kind, round(far.errors_off(true), 2)]
    missed, beyond = sum(one.missed(true) for one in printed), sum(one.errors_off(true) > 3 for one in printed)
    return measured, [
        claim(f"{kind}: share of printed numbers whose interval misses the truth", missed / len(printed), 0.07),
        claim(f"{kind}: printed numbers more than three standard errors off", beyond, 0),
    ]


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
        "more fluid": partial(tilted, logs.mixture, 0.15 * FLUID),
        "less fluid": partial(tilted, logs.mixture, -0.15 * FLUID),
        "more vasopressor": partial(tilted, logs.mixture, 0.2 * VASOPRESSOR),
        "likeliest": lambda state: np.eye(clinicians.BINS**2)[logs.mixture(state).argmax(axis=1)],
    }


def learned_policies(n: int) -> dict[str, Answer]:
    """Eight: an imitator of another hospital's clinicians, from what is charted; near it; and its likeliest dose."""
    log = logs.draw(n, LEARN_SEED, None, FIRST_DAY)
    imitator = behaviour.fit(log.episodes, CLINICIANS_MODEL, LEARN_SEED).probs
    near = {
        "more fluid": 0.15 * FLUID,
        "less fluid": -0.15 * FLUID,
        "more vasopressor": 0.2 * VASOPRESSOR,
        "less vasopressor": -0.2 * VASOPRESSOR,
        "less of both": -0.1 * (FLUID + VASOPRESSOR),
    }
    return {
        "imitator": imitator,
        **{name: partial(tilted, imitator, by) for name, by in near.items()},
        "three tenths guideline": lambda state: 0.7 * imitator(state) + 0.3 * logs.mixture(state, np.eye(5)[0]),
        "likeliest": lambda state: np.eye(clinicians.BINS**2)[imitator(state).argmax(axis=1)],
    }


def shares(**changed: float) -> np.ndarray:
    """The styles' shares with some changed, summing to 1 again."""
    found = np.array([changed.get(name, style.share) for name, style in clinicians.STYLES.items()])
    return found / found.sum()


def tilted(base: Answer, by: np.ndarray, state: np.ndarray) -> np.ndarray:
    """Another policy's probabilities times exp(by)."""
    weight = base(state) * np.exp(by)
    return weight / weight.sum(axis=1, keepdims=True)


def truths(answers: Mapping[str, Answer], size: Sizes, grid: GridConfig | None = None) -> dict[str, Truth]:
    """The clinicians' return over many patients, and each policy's distance from it on some of them, luck shared."""
    own, n = logs.returns(None, size.own, TRUTH_SEED, None, grid), size.treated
    found = {}
    for name, answer in answers.items():
        more = logs.returns(answer, n, TRUTH_SEED, None, grid) - own[:n]
        found[name] = Truth(float(own.mean() + more.mean()), float(more.mean()), float(more.std() / np.sqrt(n)))
    return found


def trial(
    answers: Mapping[str, Answer],
    hospitals: int,
    n: int,
    propensities: Propensities | None = None,
    grid: GridConfig | None = None,
) -> list[Number]:
    """The numbers of all hospitals and policies, Q fitted to the same patients without those it is used on."""
    found = []
    for seed in range(1, hospitals + 1):
        log = logs.draw(n, seed, None, grid)
        log = log if propensities is None else propensities(log, seed)
        for name, answer in answers.items():
            fitted = fqe.evaluate(log.episodes, answer, GAMMA, FQE, seed)
            t, shared = trajectories(log, answer(log.episodes.state), fitted.q, fitted.v)
            found += judged(seed, name, t, shared, log, fitted.member_values)
    return found


def estimated(log: Log, seed: int) -> Log:
    """The same log with the clinicians' model in place of the exact propensities."""
    return replace(log, behaviour=behaviour.cross_fit(log.episodes, CLINICIANS_MODEL, seed))


def trajectories(
    log: Log, target: np.ndarray, q: np.ndarray | None = None, v: np.ndarray | None = None
) -> tuple[Trajectories, overlap.Overlap]:
    """A policy's trajectories and overlap, behaviour exact."""
    at = (np.arange(len(target)), log.episodes.action)
    t = pad(log.episodes, target[at] / log.behaviour[at], GAMMA, q, v)
    unsupported = overlap.unsupported_share(target, log.behaviour, GateConfig().support_floor)
    return t, overlap.measure(t, log.episodes.patient, unsupported)


def judged(
    hospital: int,
    policy: str,
    t: Trajectories,
    shared: overlap.Overlap,
    log: Log,
    members: np.ndarray | None = None,
    n_bootstrap: int = 1000,
) -> Iterator[Number]:
    """Each estimator's value and difference to the clinicians, and why they would be withheld."""
    allowed, config = attainable(log.episodes, GAMMA), GateConfig()
    chosen = {**ESTIMATORS, "clinicians": importance.logged}
    drawn = samples.sample(t, log.episodes, chosen, n_bootstrap, hospital)
    if members is not None:
        drawn["dm"] = samples.with_model_error(drawn["dm"], members)
    own = drawn.pop("clinicians")
    found = {name: samples.interval_of(one, LEVEL, allowed) for name, one in drawn.items()}
    shape = (clinicians.BINS, clinicians.BINS)
    bins = overlap.by_drug(log.behaviour, log.episodes.action, shape)
    worst = max(one["error"] for each in bins.values() for one in each)
    gates = [*gating.check_overlap(shared, config), gating.check_calibration(worst, config)]
    reasons = estimates.reasons_to_withhold(found, gates, config, allowed, 0)
    for name, one in drawn.items():
        yield Number(hospital, policy, name, "value", found[name], reasons[name])
        apart = assessment.difference(one, own, LEVEL, allowed)
        yield Number(hospital, policy, name, "difference", apart, reasons[name])


def by_estimator(printed: Sequence[Number], true: dict[str, Truth]) -> dict[str, str]:
    """Missed of printed."""
    own = {name: [one for one in printed if one.estimator == name] for name in ESTIMATORS}
    return {name: f"{sum(one.missed(true) for one in each)} of {len(each)}" for name, each in own.items()}


def coverage(repeats: int, n: int) -> list[Number]:
    """The same in many small hospitals, Q fitted once on another; a gate withholds nothing."""
    other = logs.draw(n, Q_SEED)
    scaler, answers = fit_scaler(other.episodes.state), policies()
    models = {name: fqe.fit(other.episodes, answer, GAMMA, FQE, 0, scaler) for name, answer in answers.items()}
    found = []
    for repeat in range(REPEAT_SEED, REPEAT_SEED + repeats):
        log = logs.draw(n, repeat)
        state, at = log.episodes.state, (np.arange(log.episodes.n), log.episodes.action)
        for name, answer in answers.items():
            network, scale = models[name]
            table, target = network(scaler.transform(state)).mean(axis=0) * scale, answer(state)
            t, shared = trajectories(log, target, table[at], (target * table).sum(axis=1))
            found += judged(repeat, name, t, shared, log, n_bootstrap=400)
    return found


def covered(repeated: Sequence[Number], true: dict[str, Truth]) -> dict[str, dict[str, float]]:
    """Policy -> estimator and kind -> share of the hospitals whose interval held the truth."""
    held: dict[str, dict[str, list[bool]]] = {}
    for one in repeated:
        own = held.setdefault(one.policy, {})
        own.setdefault(f"{one.estimator} {one.kind}", []).append(not one.missed(true))
    return {name: {key: round(float(np.mean(each)), 3) for key, each in own.items()} for name, own in held.items()}


if __name__ == "__main__":
    sys.exit(main())
