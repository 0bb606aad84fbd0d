"""Benchmark: what every learned policy is truly worth, by letting it treat the simulated hospital's patients.

Five hospitals; in each, every learner trains on that hospital's records and then treats other patients, with the same
luck under every policy. Intervals are over the five hospitals, so they hold training, records and patients. With --work
every stage stays on disk (seed-N/tables, truth, cohort, behaviour, policy/NAME, rollouts-PATIENTS.json) and is not made
again.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import structlog
from scipy import stats

import policy
from cohort import artifact, build, dictionary, hospital, sources
from cohort.build import CohortConfig
from cohort.episodes import Episodes
from cohort.hospital import HospitalConfig
from cohort.sources import SourceConfig
from policy import behaviour, extraction, masked, store, sweep
from policy.behaviour import BehaviourConfig
from policy.masked import ExtractionConfig
from policy.served import NetworkPolicy

MAIN, IMITATOR = "conservative_iql", "bc"
MASKED = ("iql", "awac", "cql", "bcq", "bear", "dqn", "sac")
NAIVE = ("dqn", "sac")
DIVERGENCES = (0.05, 0.2, 0.3, 0.5)
"""Other than the default, to see what the main method's caution costs."""
LEARNERS = (MAIN, IMITATOR, "filtered_bc", "awr", "awac", "iql", "cql", "bcq", "bear", "dpo", "dqn", "sac")
SEEDS, SIZES, TREATED = (1, 2, 3, 4, 5), (2_000, 20_000), 2_000
CLOSELY = 5 * TREATED
"""Patients treated where the main method is compared with clinicians and imitator, so that luck decides less."""
QUICK_SEEDS, QUICK_SIZE, QUICK_TREATED, QUICK_LEARNERS = (1, 2), 300, 60, (MAIN, IMITATOR)
TREATED_SEED = 1_000
"""Added to a hospital's seed for the patients who are treated: others than those of the records."""
OPTIONS: dict[str, dict[str, Any]] = {name: {"hidden": [64, 64]} for name in LEARNERS}
OPTIONS["bc"] |= {"learning_rate": 1e-3}
OPTIONS["dqn"] |= {"updates": 5_000}
OPTIONS["sac"] |= {"updates": 5_000}


@dataclass(frozen=True)
class Ward:
    """One hospital's records as the learners see them, and where they lie."""

    path: Path
    seed: int
    train: Episodes
    evaluate: Episodes
    fitted: dictionary.Dictionary
    clinicians: NetworkPolicy
    usual: np.ndarray
    """What clinicians do at the evaluation's states, by a model that sees the previous action too."""


class Constant:
    """Always the same dose, or any."""

    def __init__(self, action: int | None) -> None:
        self._row = np.full(25, 1 / 25, np.float32) if action is None else np.eye(25, dtype=np.float32)[action]

    def probs(self, state: np.ndarray) -> np.ndarray:
        """The same row for every state."""
        return np.tile(self._row, (len(state), 1))


CONTROLS: dict[str, Constant | None] = {
    "clinicians": None, "random": Constant(None), "no drug": Constant(0), "maximum dose": Constant(24),
}  # fmt: skip


def main() -> int:
    """Print one JSON object; exit code 1 where a claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two tiny hospitals and two learners; no bar applies")
    parser.add_argument("--work", type=Path, help="keep and reuse every stage here")
    parser.add_argument("--stays", type=int, nargs="+", help="hospital sizes, instead of 2,000 and 20,000")
    parser.add_argument("--seeds", type=int, nargs="+", help="hospitals, instead of 1 to 5")
    parser.add_argument(
        "--learners", nargs="+", choices=LEARNERS, help="these and the main method and the imitator only"
    )
    parser.add_argument("--treated", type=int, help="patients that each policy treats in each hospital")
    asked = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    sizes = asked.stays or ([QUICK_SIZE] if asked.quick else SIZES)
    seeds = asked.seeds or (QUICK_SEEDS if asked.quick else SEEDS)
    chosen = asked.learners or (QUICK_LEARNERS if asked.quick else LEARNERS)
    learners = [name for name in LEARNERS if name in {MAIN, IMITATOR, *chosen}]
    treated = asked.treated or (QUICK_TREATED if asked.quick else TREATED)
    closely = QUICK_TREATED if asked.quick else CLOSELY
    start, found, close = time.process_time(), {}, {}
    with tempfile.TemporaryDirectory() as scratch:
        for stays in sizes:
            work = (asked.work or Path(scratch)) / (f"{stays}" if len(sizes) > 1 else "")
            found[stays] = [hospital_of(work, stays, seed, learners, treated) for seed in seeds]
            close[stays] = [compared(work / f"seed-{seed}", seed, closely) for seed in seeds]
    claims = [] if asked.quick else [one for stays in sizes for one in claims_of(stays, found[stays], close[stays])]
    result = {
        "benchmark": "truth",
        "quick": asked.quick,
        "hospitals": len(seeds),
        "patients treated in each": treated,
        "patients treated in each by the compared": closely,
        "policies": {stays: table(runs) for stays, runs in found.items()},
        "differences": {stays: differences(runs) for stays, runs in found.items()},
        "compared": {stays: differences(runs) for stays, runs in close.items()},
        "cpu_s": round(time.process_time() - start, 1),
        "claims": claims,
    }
    print(json.dumps(result, indent=1))
    return 0 if all(one["holds"] for one in claims) else 1


def hospital_of(work: Path, stays: int, seed: int, learners: Sequence[str], treated: int) -> dict[str, dict[str, Any]]:
    """Every policy's truth in one hospital, by name."""
    path = work / f"seed-{seed}"
    ward = records(path, stays, seed)
    rows = read(path, treated)
    for name, control in CONTROLS.items():
        if name not in rows:
            rows[name] = truth(control, treated, seed)
            note(path, treated, rows)
    wanted = list(CONTROLS)
    for learner in learners:
        trained = learn(ward, learner)
        for name, one in {learner: trained, **served(ward, learner, trained)}.items():
            treats = {} if name in rows else truth(one, treated, seed)
            rows[name] = {**rows.get(name, {}), **treats, **distance(ward, one), **facts(one)}
            note(path, treated, rows)
            wanted.append(name)
    return {name: rows[name] for name in wanted}


def compared(path: Path, seed: int, treated: int) -> dict[str, dict[str, Any]]:
    """The truth of the main method, the imitator and the clinicians over more patients."""
    rows = read(path, treated)
    for name in ("clinicians", MAIN, IMITATOR):
        if name not in rows:
            one = None if name in CONTROLS else store.load(path / "policy" / name)
            rows[name] = truth(one, treated, seed)
            note(path, treated, rows)
    return rows


def records(path: Path, stays: int, seed: int) -> Ward:
    """Simulate, build the cohort with the doses before in its states, and fit both models of the clinicians."""
    if not (path / "tables").is_dir():
        with (
            artifact.writing(path / "tables", "tables", {}) as tables,
            artifact.writing(path / "truth", "truth", {}) as hidden,
        ):
            hospital.simulate(tables.path, hidden.path, HospitalConfig(n_stays=stays), seed)
    if not (path / "cohort").is_dir():
        config = CohortConfig.model_validate({"actions": {"in_state": True}})
        with artifact.writing(path / "cohort", "cohort", {"cohort": config.model_dump(mode="json")}) as draft:
            sources.ingest(path / "tables", draft.path / "canonical", SourceConfig(kind="mimic_iv"))
            build.build(draft.path / "canonical", draft.path, config, seed)
    train, evaluate = (build.episodes(path / "cohort", split) for split in ("train", "evaluate"))
    fitted = dictionary.load(path / "cohort" / "dictionary.json")
    clinicians = kept(path / "behaviour", lambda: replace(behaviour.fit(train, None, seed), dictionary=fitted), seed)
    usual = behaviour.predict(train, evaluate, BehaviourConfig(), seed)
    return Ward(path, seed, train, evaluate, fitted, clinicians, usual)


def learn(ward: Ward, learner: str) -> NetworkPolicy:
    """A learner's policy, trained now or found on disk."""

    def fit() -> NetworkPolicy:
        return replace(policy.fit(learner, ward.train, OPTIONS[learner], ward.seed), dictionary=ward.fitted)

    return kept(ward.path / "policy" / learner, fit, ward.seed)


def served(ward: Ward, learner: str, trained: NetworkPolicy) -> dict[str, NetworkPolicy]:
    """Its values served within the clinicians' support, a baseline's at the default divergence, its own at others."""
    named = {f"{learner}_masked": ExtractionConfig()} if learner in MASKED else {}
    if learner == MAIN:
        named = {f"{MAIN} at target_kl {kl:g}": ExtractionConfig(target_kl=kl) for kl in DIVERGENCES}

    def extract(name: str, config: ExtractionConfig) -> NetworkPolicy:
        return masked.extract(trained, ward.clinicians, ward.train.state, config, name)

    return {
        name: kept(ward.path / "policy" / name.replace(" ", "_"), partial(extract, name, config), ward.seed)
        for name, config in named.items()
    }


def kept(path: Path, make: Callable[[], NetworkPolicy], seed: int) -> NetworkPolicy:
    """What is at `path`, made and saved where nothing is."""
    if not path.is_dir():
        store.save(make(), path, seed=seed)
    return store.load(path)


def truth(one: Any, treated: int, seed: int) -> dict[str, Any]:
    """Mean return and survival of the treated patients, with standard errors."""
    return asdict(hospital.rollout(one, treated, TREATED_SEED + seed))


def distance(ward: Ward, one: NetworkPolicy) -> dict[str, float]:
    """Mean KL to the clinicians' factor, and effective episodes of the evaluation, at the evaluation's states."""
    probs = one.probs(ward.evaluate.state)
    usual = ward.clinicians.probs(ward.evaluate.state)
    return {
        "kl": float(extraction.kl(probs.astype(np.float64), usual).mean()),
        "ess": sweep.effective_episodes(ward.evaluate, probs, ward.usual),
        "episodes": ward.evaluate.n_episodes,
    }


def facts(one: NetworkPolicy) -> dict[str, Any]:
    """What training found out: updates and the monitor's verdict."""
    watched = one.notes.get("overestimation", {})
    return {"updates": one.notes.get("updates"), "monitor": watched.get("verdict"), "q_max": watched.get("q_max")}


def read(path: Path, treated: int) -> dict[str, dict[str, Any]]:
    """The rollouts over so many patients that are there."""
    file = path / f"rollouts-{treated}.json"
    found: dict[str, dict[str, Any]] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return found


def note(path: Path, treated: int, rows: dict[str, dict[str, Any]]) -> None:
    """Write the rollouts down."""
    draft = path / ".rollouts.json.tmp"
    draft.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    draft.replace(path / f"rollouts-{treated}.json")


def table(runs: Sequence[dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Each policy's means over the hospitals; the standard error of a return is over the patients of all."""
    found = {}
    for name in runs[0]:
        rows = [run[name] for run in runs]
        one: dict[str, Any] = {
            key: round(float(np.mean([row[key] for row in rows])), 4) for key in ("mean_return", "survival")
        }
        for key in ("se_return", "se_survival"):
            one[key] = round(float(np.sqrt(np.sum([row[key] ** 2 for row in rows])) / len(rows)), 4)
        one["spread of return over seeds"] = round(float(np.std([row["mean_return"] for row in rows], ddof=1)), 4)
        if "kl" in rows[0]:
            one |= {key: round(float(np.mean([row[key] for row in rows])), 3) for key in ("kl", "ess", "episodes")}
            one["monitor"] = [row["monitor"] for row in rows]
        found[name] = one
    return found


def differences(runs: Sequence[dict[str, dict[str, Any]]]) -> dict[str, dict[str, list[float]]]:
    """The main method less every other policy on the same patients: mean and 95% interval over hospitals."""
    return {
        name: {key: [round(x, 4) for x in paired(runs, name, key)] for key in ("mean_return", "survival")}
        for name in runs[0]
        if name != MAIN
    }


def paired(runs: Sequence[dict[str, dict[str, Any]]], other: str, key: str) -> tuple[float, float, float]:
    """Mean over hospitals of the main method less another policy, and its 95% t interval."""
    gap = np.array([run[MAIN][key] - run[other][key] for run in runs])
    half = float(stats.t.ppf(0.975, len(gap) - 1) * gap.std(ddof=1) / np.sqrt(len(gap)))
    return float(gap.mean()), float(gap.mean()) - half, float(gap.mean()) + half


def claims_of(
    stays: int, runs: Sequence[dict[str, dict[str, Any]]], close: Sequence[dict[str, dict[str, Any]]]
) -> list[dict[str, Any]]:
    """The claims, as far as the learners they need were trained."""
    found = [
        claim(
            f"{stays} stays: {MAIN} less {other}, return, lower 95% limit", paired(close, other, "mean_return")[1], 0.0
        )
        for other in ("clinicians", IMITATOR)
    ]
    found += [
        claim(f"{stays} stays: {MAIN} less {name}, return, upper 95% limit", paired(runs, name, "mean_return")[2], 0.0)
        for name in runs[0]
        if name.endswith("_masked")
    ]
    for name in NAIVE:
        if name in runs[0]:
            flagged = [run[name]["monitor"] in ("overestimates", "exploded") for run in runs]
            found.append(
                claim(f"{stays} stays: share of {name} runs that the monitor flags", float(np.mean(flagged)), 1.0)
            )
    return found


def claim(name: str, value: float, bar: float) -> dict[str, Any]:
    """One claim, which holds at the bar and above."""
    return {"name": name, "value": round(float(value), 4), "bar": bar, "better": "high", "holds": bool(value >= bar)}


if __name__ == "__main__":
    sys.exit(main())
