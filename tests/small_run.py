"""A small run directory made by the real stages from canonical tables that are drawn at random, in a few seconds."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import policy
import policy.store
from app.run_directory import RECORD, RunDirectory, opened
from cohort import artifact, build, concepts, dictionary, tables
from cohort.build import CohortConfig
from cohort.tables import Tables
from ope import evaluation
from ope.evaluation import Beside, EvaluationConfig
from ope.fqe import FqeConfig
from ope.gates import GateConfig
from policy import behaviour
from policy.behaviour import BehaviourConfig

COHORT, BEHAVIOUR, POLICY, OPE = "cohort", "behaviour", "policy", "ope"
START = np.datetime64("2150-03-01T00:00:00", "us")
HOUR = np.timedelta64(3_600_000_000, "us")
SELDOM = ("lactate", "creatinine", "pao2", "fio2", "platelets", "bilirubin_total", "potassium", "sodium")
OFTEN = ("heart_rate", "map", "sbp", "dbp", "resp_rate", "spo2")
FAST: dict[str, Any] = {"updates": 60, "evaluate_every": 30, "min_updates": 0, "hidden": (32,)}
LENIENT = GateConfig(
    min_patients=2, min_ess=1, min_ess_share=0.001, max_weight_share=1, min_mean_weight=0.01, max_mean_weight=100,
    max_unsupported=1, max_calibration_error=1, min_coverage=0.001, value_in_range=False, agreement=False,
)  # fmt: skip
"""Thresholds that let nearly everything through, to see what is printed where nothing is withheld."""


def shared(base: Path) -> Path:
    """One run directory for all tests of a session, made by the first that asks; nobody may change it."""
    out = base / "small-run"
    return out if out.exists() else make(out)


def make(out: Path, n_stays: int = 150, gates: GateConfig | None = None, seed: int = 0) -> Path:
    """Write a finished run directory below `out`: cohort, behaviour, policies bc and iql, and their evaluation."""
    with opened(out, new=True) as directory:
        cohort(out / COHORT, n_stays, seed)
        training = build.episodes(out / COHORT, "train")
        inputs, known = {COHORT: out / COHORT}, dictionary.load(out / COHORT / "dictionary.json")
        policy.store.save(
            behaviour.fit(training, BehaviourConfig(**FAST), seed), out / BEHAVIOUR, inputs=inputs, seed=seed
        )
        for name in ("bc", "iql"):
            trained = replace(policy.fit(name, training, FAST, seed), dictionary=known)
            policy.store.save(trained, out / POLICY / name, inputs=inputs, seed=seed)
        evaluated(out, gates or GateConfig(), seed)
        directory.update(name="small", seed=seed, finished=True)
    return out


def with_evaluation(run: Path, out: Path, edit: Mapping[str, object]) -> Path:
    """A run that shares the stages of `run`, its evaluation edited; keys are paths, as `verdict/verdict`."""
    document = artifact.read_json(run / OPE / "evaluation.json")
    for path, value in edit.items():
        *parents, last = path.split("/")
        at = document
        for key in parents:
            at = at[int(key)] if isinstance(at, list) else at[key]
        at[int(last) if isinstance(at, list) else last] = value
    out.mkdir()
    for name in (COHORT, BEHAVIOUR, POLICY):
        (out / name).symlink_to(run / name)
    shutil.copy(run / RECORD, out / RECORD)
    with artifact.writing(out / OPE, "evaluation", {}, seed=0) as draft:
        shutil.copy(run / OPE / "gates.json", draft.path)
        artifact.write_json(draft.path / "evaluation.json", document)
    RunDirectory(out).seal()
    return out


def evaluated(out: Path, gates: GateConfig, seed: int = 0) -> None:
    """Evaluate the run's policies under the given thresholds, replacing an earlier evaluation."""
    config = EvaluationConfig(
        n_bootstrap=100,
        gates=gates,
        behaviour=BehaviourConfig(folds=2, **FAST),
        fqe=FqeConfig(updates=20, members=2, hidden=(16,)),
    )
    policies = {name: out / POLICY / name for name in ("bc", "iql")}
    inputs = {COHORT: out / COHORT, BEHAVIOUR: out / BEHAVIOUR}
    inputs |= {f"{POLICY}/{name}": path for name, path in policies.items()}
    settings = config.model_dump(mode="json")
    with artifact.writing(out / OPE, "evaluation", settings, inputs, seed, overwrite=True) as draft:
        evaluation.write(draft.path, out / COHORT, policies, config, seed, Beside(out / BEHAVIOUR))


def cohort(out: Path, n_stays: int, seed: int = 0) -> None:
    """A cohort's directory from random canonical tables."""
    config = CohortConfig()
    settings = {"source": {"kind": "mimic_iv"}, "cohort": config.model_dump(mode="json")}
    with artifact.writing(out, "cohort", settings, seed=seed) as draft:
        tables.write(canonical(n_stays, seed), draft.path / "canonical" / "shard-00000")
        draft.rows.update(build.build(draft.path / "canonical", draft.path, config, seed))


def canonical(n_stays: int, seed: int) -> Tables:
    """Canonical tables of stays of 6 to 90 hours; values are drawn around each concept's typical one."""
    rng = np.random.default_rng(seed)
    hours = rng.integers(6, 90, n_stays)
    ids = np.arange(n_stays) + 30_000_001
    start = START + np.arange(n_stays) * 24 * HOUR
    died = rng.random(n_stays) < 0.2
    end = start + hours * HOUR
    stays = tables.frame(
        "stays",
        {
            "stay_id": ids, "subject_id": ids - 20_000_000, "hadm_id": ids - 10_000_000,
            "intime": start, "outtime": end, "admittime": start, "dischtime": end,
            "deathtime": np.where(died, end, np.datetime64("NaT")),
            "died_in_hospital": died, "age_years": rng.integers(19, 90, n_stays).astype(float),
            "sex_male": (rng.random(n_stays) < 0.5).astype(float), "ethnicity": "unknown", "care_unit": "MICU",
            "readmission": 0.0, "charting": "metavision",
        },
    )  # fmt: skip
    return tables.check(
        Tables(stays, _observations(ids, start, hours, rng), _infusions(ids, start, hours, rng), _outputs())
    )


def _observations(ids: np.ndarray, start: np.ndarray, hours: np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
    known = concepts.load().measured
    frames = []
    for name, share in [*((name, 0.9) for name in OFTEN), *((name, 0.15) for name in SELDOM)]:
        stay, hour = _hourly(hours, share, rng)
        charted = start[stay] + hour * HOUR + rng.integers(0, 3_600, len(stay)) * np.timedelta64(1_000_000, "us")
        value = np.clip(known[name].typical * rng.normal(1, 0.15, len(stay)), *known[name].range)
        columns = {"stay_id": ids[stay], "concept": name, "charted": charted, "available": charted, "value": value}
        frames.append(pd.DataFrame({**columns, "unit": known[name].unit}))
    frame: pd.DataFrame = tables.frame("observations", pd.concat(frames, ignore_index=True).to_dict("series"))
    return frame


def _infusions(ids: np.ndarray, start: np.ndarray, hours: np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
    frames = []
    for drug, item, share, scale, unit in (
        ("fluid", 225158, 0.5, 100.0, "mL/hour"), ("norepinephrine", 221906, 0.25, 0.1, "mcg/kg/min")
    ):  # fmt: skip
        stay, hour = _hourly(hours, share, rng)
        rate = scale * rng.lognormal(0, 0.7, len(stay))
        begin = start[stay] + hour * HOUR
        columns = {
            "stay_id": ids[stay], "drug": drug, "item_id": item, "start": begin, "end": begin + HOUR, "rate": rate,
            "rate_unit": unit, "normalised_rate": rate, "weight_assumed": False,
        }  # fmt: skip
        frames.append(pd.DataFrame(columns))
    frame: pd.DataFrame = tables.frame("infusions", pd.concat(frames, ignore_index=True).to_dict("series"))
    return frame


def _outputs() -> pd.DataFrame:
    return tables.empty("outputs")


def _hourly(hours: np.ndarray, share: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(stay, hour) of the stay-hours in which something happens."""
    stay = np.repeat(np.arange(len(hours)), hours)
    hour = np.arange(len(stay)) - np.repeat(np.cumsum(hours) - hours, hours)
    chosen = rng.random(len(stay)) < share
    return stay[chosen], hour[chosen]
