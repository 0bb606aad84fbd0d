"""Benchmark: whether the tipping Gamma warns where the simulated hospital's clinicians see what nobody charts.

With the hidden confounder on, patients who look worse get more of both drugs. A policy that gives less then seems
better than it is. The modelled propensities are those of one who knows the clinicians, but not how ill a patient looks.
"""

# ruff: noqa: E402  (this folder leaves the path before `ope` is imported)
import argparse
import json
import os
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path = [folder for folder in sys.path if Path(folder).resolve() != Path(__file__).resolve().parent]

import numpy as np

from cohort.hospital import HospitalConfig, clinicians, logs
from cohort.hospital.logs import Answer, Log
from ope import assessment, importance, samples, sensitivity
from ope.trajectories import attainable, pad

STRENGTHS, GAMMA, LEVEL = (0.0, 0.5, 1.0), 1.0, 0.95
LOGGED, TREATED = 1, 50
FLUID, VASOPRESSOR = np.divmod(np.arange(clinicians.BINS**2), clinicians.BINS)
LESS = -0.2 * FLUID - 0.4 * (VASOPRESSOR > 0)
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(5)


@dataclass(frozen=True)
class Row:
    """One strength of the confounder and one policy."""

    strength: float
    policy: str
    true: float
    """Return more than the clinicians' where the policy treats; its standard error below."""
    true_error: float
    estimated: float
    low: float
    high: float
    tipping_one_decision: float
    tipping_every_step: float
    confounder_gamma: float
    """The factor within which the true odds of the logged action lie of the modelled, in 95% of decisions."""


def main() -> int:
    """Print one JSON object; exit code 1 where a claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer stays")
    quick, began = parser.parse_args().quick, time.process_time()
    stays, treated = (2_000, 2_000) if quick else (4_000, 5_000)
    rows = [row for strength in STRENGTHS for row in at(strength, stays, treated)]
    bias = {row.strength: row.estimated - row.true for row in rows if row.policy == "less of both"}
    false = [row for row in rows if row.strength > 0 and row.estimated > 0 > row.true]
    claims = [
        claim("bias for less of both drugs that a hidden confounder adds", bias[1.0] - bias[0.0], 0.0, "high"),
        claim(
            "largest tipping Gamma (one decision) of a false benefit, as a share of the confounder's own",
            max((row.tipping_one_decision / row.confounder_gamma for row in false), default=np.inf), 1.0, "low",
        ),
    ]  # fmt: skip
    measured = {"rows": [vars(row) for row in rows], "false benefits": len(false)}
    measured["cpu_s"] = round(time.process_time() - began, 1)
    print(json.dumps({"benchmark": "confounding", "quick": quick, "measured": measured, "claims": claims}, indent=1))
    return 0 if all(one["holds"] for one in claims) else 1


def claim(name: str, value: float, bar: float, better: str) -> dict[str, object]:
    """One claim; `better` says on which side of the bar it holds."""
    holds = value <= bar if better == "low" else value >= bar
    return {"name": name, "value": round(float(value), 4), "bar": bar, "better": better, "holds": bool(holds)}


def at(strength: float, stays: int, treated: int) -> list[Row]:
    """Less and more of both drugs in a hospital with this hidden confounder."""
    config = HospitalConfig(hidden_confounder=strength)
    log = logs.draw(stays, LOGGED, config)
    model = partial(modelled, *looks(log))
    own = logs.returns(None, treated, TREATED, config)
    rows = []
    for name, by in (("less of both", LESS), ("more of both", -LESS)):
        answer = partial(tilted, model, by)
        more = logs.returns(answer, treated, TREATED, config) - own
        rows.append(estimated(strength, name, answer, model, log, more))
    return rows


def looks(log: Log) -> tuple[np.ndarray, float]:
    """How ill patients look, as far as the record tells: a regression on the state, and its residual."""
    wide = np.column_stack([log.episodes.state, np.ones(log.episodes.n)]).astype(np.float64)
    coefficients = np.linalg.lstsq(wide, log.looks_ill, rcond=None)[0]
    return coefficients, float((log.looks_ill - wide @ coefficients).std())


def modelled(coefficients: np.ndarray, residual: float, state: np.ndarray) -> np.ndarray:
    """The clinicians' choices where only the record is known: how ill a patient looks is integrated out."""
    expected = np.column_stack([state, np.ones(len(state))]) @ coefficients
    parts = [w * logs.mixture(state, looks_ill=expected + residual * x) for x, w in zip(NODES, WEIGHTS, strict=True)]
    return np.sum(parts, axis=0) / WEIGHTS.sum()


def tilted(model: Answer, by: np.ndarray, state: np.ndarray) -> np.ndarray:
    """A policy near the model."""
    weight = model(state) * np.exp(by)
    return weight / weight.sum(axis=1, keepdims=True)


def estimated(strength: float, name: str, answer: Answer, model: Answer, log: Log, more: np.ndarray) -> Row:
    """wis with the modelled propensities, beside what treating returned."""
    episodes, at = log.episodes, (np.arange(log.episodes.n), log.episodes.action)
    behaviour, target = model(episodes.state)[at], answer(episodes.state)[at]
    t = pad(episodes, target / behaviour, GAMMA)
    drawn = samples.sample(t, episodes, {"wis": importance.wis, "own": importance.logged}, 1000, 0)
    found = assessment.difference(drawn["wis"], drawn["own"], LEVEL, attainable(episodes, GAMMA))
    reference = importance.logged(t).value
    tipping = [
        sensitivity.tipping_gamma(t, behaviour, episodes, reference, scope) for scope in ("one_decision", "every_step")
    ]
    apart = np.abs(np.log(odds(log.behaviour[at])) - np.log(odds(behaviour)))
    return Row(
        strength, name, float(more.mean()), float(more.std() / np.sqrt(len(more))), found.value, found.low, found.high,
        *tipping, float(np.exp(np.quantile(apart, 0.95))),
    )  # fmt: skip


def odds(probability: np.ndarray) -> np.ndarray:
    """p / (1 - p)."""
    return probability / (1 - probability)


if __name__ == "__main__":
    sys.exit(main())
