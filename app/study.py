"""Study: an opened run: what the app shows of it, read when it is needed, and what answers for it."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from jaxtyping import Bool

import policy.store
from app.run import BEHAVIOUR, COHORT, DICTIONARY_FILE, OPE, POLICY, TRAINING_SPLIT
from app.run_directory import RECORD, again
from app.settings import AppConfig
from cohort import artifact, bedside, build, dictionary, features, frames, tables, trajectories
from cohort.build import CohortConfig
from cohort.dictionary import Dictionary
from cohort.errors import ArtifactError, SutureError, VersionError
from cohort.tables import Tables
from ope import evaluation
from policy import recommend
from policy.base import Policy
from policy.recommend import Support
from policy.served import NetworkPolicy

HOUR = "hours_since_start"
"""The column with the decision time, hours since the anchor."""
DOSES = ("fluid_ml", "vasopressor_ug_kg_min")
CONTEXT = ("cvp", "fluid_balance_total", "previous_action")
"""Beside the state: what the hazard rules read."""
SPLIT = "evaluate"
_CACHED_STAYS = 64
_BESIDE = ("stay_id", "step", "time", "duration_h", "sofa_missing", "dose_unknown")


@dataclass(frozen=True)
class Problem:
    """Why there is nothing to show, and what the reader can do."""

    title: str
    detail: str
    remedy: str


@dataclass(frozen=True, eq=False)
class Study:
    """An opened run: its evaluation patients and what answers for them."""

    path: Path
    settings: AppConfig
    policy_name: str
    policy: NetworkPolicy
    behaviour: Policy
    known: Support
    died: Bool[np.ndarray, "n"]
    """Of each training decision's patient, in the order of the training episodes' rows."""
    cohort: CohortConfig
    dictionary: Dictionary
    decisions: pd.DataFrame
    """Every decision of the evaluation patients: states and ages, imputed values missing, doses, and `unit`."""
    stays: pd.DataFrame
    """The evaluation patients' stays, in the order of their ids, with the `shard` of each."""
    digests: Mapping[str, str]
    """Of the cohort, the behaviour model, the policy and the evaluation."""
    verdict: str
    binding: str
    """Why the verdict is not better, in a sentence; empty where nothing binds."""

    @property
    def horizon_h(self) -> float:
        """End of the last possible decision window, hours since admission."""
        return float(self.decisions[HOUR].max() + self.dictionary.step_hours)

    @property
    def model(self) -> dict[str, str]:
        """What a card's answer depends on beside the patient: digests of policy, behaviour model and cohort."""
        return {name: self.digests[name] for name in ("policy", "behaviour", "cohort", "evaluation")}


def stamp(run: Path | None) -> tuple[tuple[str, int], ...]:
    """Which files of a run there are and when each was written: changes whenever the run should be opened anew."""
    if run is None or not run.is_dir():
        return ()
    files = [run / RECORD, *run.glob(f"*/{artifact.MANIFEST}"), *run.glob(f"*/*/{artifact.MANIFEST}")]
    return tuple(sorted((str(file), file.stat().st_mtime_ns) for file in files if file.is_file()))


def open_study(run: Path | None, settings: AppConfig | None = None) -> Study | Problem:
    """Load what the pages need of a run, or say what is wrong with it and what to do.

    Every file that is read is hashed against its manifest, and the policy, the behaviour model and the evaluation are
    compared with the cohort they name. What is not read is not hashed here: `suture verify` and the app's own check
    in the background do that.
    """
    if run is None or not (run / RECORD).is_file():
        where = "No run directory was named." if run is None else f"{run} is not the directory of a run."
        return Problem(
            "There is no run to show", where, "suture run configs/demo.yaml --out runs/demo\nsuture app runs/demo"
        )
    missing = [part for part in (COHORT, BEHAVIOUR, POLICY, OPE) if not (run / part).is_dir()]
    if missing:
        detail = f"{run} has no {missing[0]}/ yet: it is still running, or it was interrupted."
        return Problem("This run is not finished", detail, again(run))
    try:
        return _load(run, settings or AppConfig())
    except VersionError as error:
        return Problem("This run is of another version of Suture", f"{error}.", again(run))
    except ArtifactError as error:
        return unverified(run, error)
    except SutureError as error:
        return Problem("This run cannot be shown", str(error), again(run))


def unverified(run: Path, error: ArtifactError) -> Problem:
    """A run whose files are not what was written."""
    return Problem(
        "This run fails verification",
        f"{error}. Nothing of this run is shown, because it may not be what was evaluated.",
        f"suture verify {run}\n{again(run)}",
    )


@lru_cache(maxsize=_CACHED_STAYS)
def course(study: Study, stay_id: int) -> pd.DataFrame:
    """All decisions of one stay, in time order: states made at the bedside from its canonical tables, and doses.

    Columns as `Study.decisions`: the 48 features, NaN where imputed; ages; DOSES and CONTEXT.

    Raises:
        ArtifactError: a table differs from the manifest.
    """
    mine = study.stays[study.stays["stay_id"] == stay_id]
    decided: pd.DataFrame = study.decisions[study.decisions["stay_id"] == stay_id].sort_values("step")
    decided = decided.reset_index(drop=True)
    shard = frames.only(_read_stay(study, str(mine["shard"].iloc[0]), stay_id), mine)
    anchor, hours = mine["anchor"].to_numpy(), study.cohort.grid.hours
    made = bedside.states(shard, anchor, hours, study.cohort.grid, study.dictionary, study.cohort.actions)
    at = made[0, decided["step"].to_numpy()]
    states = pd.DataFrame(at.known, columns=list(study.dictionary.features))
    ages = pd.DataFrame(at.age_h, columns=[f"{name}_age_h" for name in features.MEASURED])
    decided[[*states.columns, *ages.columns]] = pd.concat([states, ages], axis=1)
    context = {name: getattr(at, name) for name in ("sofa_missing", *CONTEXT)}
    return decided.assign(**context)


def ages(rows: pd.DataFrame, names: tuple[str, ...]) -> np.ndarray:
    """Hours since each feature was measured; NaN where it is not known, 0 for what is derived or never ages."""
    columns = []
    for name in names:
        value = rows[name].to_numpy(np.float64)
        derived = np.where(np.isnan(value), np.nan, 0.0)
        columns.append(rows[f"{name}_age_h"].to_numpy(np.float64) if name in features.MEASURED else derived)
    return np.stack(columns, axis=1)


def asked(study: Study, rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, recommend.Bedside]:
    """Rows as the policy is asked: complete states, ages, and what the hazard rules need."""
    state = rows[list(study.policy.features)].to_numpy(np.float64)
    beside = recommend.Bedside(
        cvp=rows["cvp"].to_numpy(np.float64),
        balance_ml=rows["fluid_balance_total"].to_numpy(np.float64),
        previous_action=rows["previous_action"].to_numpy(np.int64),
    )
    return (
        features.impute(state, study.dictionary.imputation).astype(np.float64),
        ages(rows, study.policy.features),
        beside,
    )


def _load(run: Path, settings: AppConfig) -> Study:
    verdict = evaluation.read(run / OPE)["verdict"]
    name = verdict["policy"]
    digests = {
        "cohort": artifact.digest(run / COHORT),
        "behaviour": artifact.digest(run / BEHAVIOUR),
        "policy": artifact.digest(run / POLICY / name),
        "evaluation": artifact.digest(run / OPE),
    }
    for part in (BEHAVIOUR, f"{POLICY}/{name}", OPE):
        for source, recorded in artifact.read_manifest(run / part)["inputs"].items():
            if (run / source).is_dir() and artifact.digest(run / source) != recorded:
                raise ArtifactError(f"{run / part}: made from another {source} than the one beside it")
    served = policy.store.load(run / POLICY / name)
    fitted = dictionary.load(artifact.verified(run / COHORT, DICTIONARY_FILE))
    episodes = build.episodes(run / COHORT, TRAINING_SPLIT)
    gamma = float(served.config.get("gamma", 0.99))
    stays = _stays(run / COHORT)
    outcome = trajectories.read(run / COHORT, ["outcome"], split=TRAINING_SPLIT)["outcome"]
    return Study(
        path=run,
        settings=settings,
        policy_name=name,
        policy=served,
        behaviour=policy.store.load(run / BEHAVIOUR),
        known=recommend.support(episodes, settings.recommend, gamma=gamma),
        died=outcome.to_pandas().to_numpy() == "died",
        cohort=build.config_of(run / COHORT),
        dictionary=fitted,
        decisions=_decisions(run / COHORT, fitted, stays),
        stays=stays,
        digests=digests,
        verdict=verdict["verdict"],
        binding=f"The gate that decided it: {verdict['binding']['reason']}." if verdict.get("binding") else "",
    )


def _decisions(cohort: Path, fitted: Dictionary, stays: pd.DataFrame) -> pd.DataFrame:
    flags = [f"{name}_imputed" for name in features.FEATURES]
    aged = [f"{name}_age_h" for name in features.MEASURED]
    table = trajectories.read(cohort, [*_BESIDE, *DOSES, *CONTEXT, *fitted.features, *aged, *flags], split=SPLIT)
    rows = table.to_pandas()
    known = {name: rows[name].astype(np.float64).mask(rows[f"{name}_imputed"]) for name in features.FEATURES}
    unit = stays["care_unit"].fillna("not recorded").to_numpy()[stays["stay_id"].searchsorted(rows["stay_id"])]
    decisions: pd.DataFrame = rows.drop(columns=flags).assign(**known, unit=unit)
    return decisions


def _stays(cohort: Path) -> pd.DataFrame:
    """The evaluation patients' stays with the shard of each, told from the shards' own stays."""
    stays = build.stays_of(cohort, SPLIT)
    where: dict[int, str] = {}
    for folder in sorted((cohort / "canonical").glob("shard-*")):
        ids = artifact.read_parquet(folder / "stays.parquet", ["stay_id"])["stay_id"].to_pylist()
        where |= dict.fromkeys(ids, folder.name)
    lost = [one for one in stays["stay_id"] if one not in where]
    if lost:
        raise ArtifactError(f"{cohort / 'canonical'}: {len(lost)} of {len(stays)} stays are in no shard")
    return stays.assign(shard=[where[one] for one in stays["stay_id"]])


def _read_stay(study: Study, shard: str, stay_id: int) -> Tables:
    """One stay's canonical tables, each file's hash checked."""
    found = {}
    for name in tables.SCHEMAS:
        file = artifact.verified(study.path / COHORT, f"canonical/{shard}/{name}.parquet")
        found[name] = pq.read_table(file, filters=[("stay_id", "=", stay_id)]).to_pandas()
    return tables.check(Tables(**found), name=f"{study.path / COHORT / 'canonical' / shard}")
