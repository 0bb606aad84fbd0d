"""Tracking: copies of a run's parameters, figures and documents in an MLflow store below the run's directory.

The run's own files are the source of truth; nothing reads the store back.
"""

import json
import logging
import os
import re
import shutil
import sqlite3
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app import registry
from cohort import artifact
from cohort.errors import ArtifactError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput
STORE = "mlflow.db"
ARTIFACTS = "mlartifacts"
EXPERIMENT = "suture"
POLICIES, SWEEP = "policy/", "sweep"
SETTING = ("learner", "tau", "target_kl", "temperature", "eps", "seed")
MEASURED = (
    "held_td",
    "held_expectile",
    "alpha",
    "kl_behaviour",
    "kl_masked",
    "supported_actions",
    "ess",
    "lower_bound",
)
"""Columns of a sweep's table."""
_BATCH = 1000
"""MLflow takes at most so many metrics (and 100 parameters) in one call."""
_PARAMS = 100
_LONGEST = 500


def record(run: Path, name: str, stages: Sequence[str] | None = None) -> str:
    """Copy a run into its MLflow store, made where it is missing; returns the MLflow run's id.

    Policies among what is copied become registered models, named `NAME-LEARNER`.

    Args:
        run: the run's directory.
        name: what the MLflow run is called.
        stages: only these, as `policy/bc`; all of a finished run, its evaluation and its costs where None.

    Raises:
        ArtifactError: the store cannot be written (a full disk) or is damaged; the run itself is whole.
    """
    with _store(run) as client:
        return _record(client, run, name, stages)


def record_sweep(run: Path, name: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Copy a sweep into the run's MLflow store: one run for all of it, and below that a run for each setting.

    Args:
        rows: the sweep's table; numbers are metrics, the setting itself parameters.

    Raises:
        ArtifactError: as `record`.
    """
    with _store(run) as client:
        experiment = _experiment(client, run)
        id_ = str(client.create_run(experiment, run_name=f"{name} sweep").info.run_id)
        for stage, manifest in _manifests(run, [SWEEP]):
            _log_params(client, id_, {f"{stage}.{key}": str(value) for key, value in _leaves(manifest["config"])})
        client.log_artifacts(id_, str(run / SWEEP), SWEEP)
        for row in rows:
            said = {key: str(row[key]) for key in SETTING}
            title = " ".join(f"{key} {value}" for key, value in said.items() if value != "None")
            child = client.create_run(experiment, tags={"mlflow.parentRunId": id_}, run_name=title)
            _log_params(client, child.info.run_id, {**said, "infeasible": str(row["infeasible"])})
            _log_metrics(client, child.info.run_id, [(k, float(row[k]), 0) for k in MEASURED if row[k] is not None])
            client.set_terminated(child.info.run_id)
        client.set_terminated(id_)
    return id_


def alias(run: Path, model: str, name: str, tags: Mapping[str, str]) -> int:
    """Give the newest version of a registered model an alias, its tags saying who decided and why; returns the version.

    Raises:
        ArtifactError: there is no such model, or as `record`.
    """
    with _store(run, filling=False) as client:
        versions = client.search_model_versions(f"name = '{model}'")
        if not versions:
            raise ArtifactError(f"{run / STORE}: no registered model {model!r}")
        newest = max(int(one.version) for one in versions)
        for key, value in tags.items():
            client.set_model_version_tag(model, str(newest), f"{name}.{key}", value)
        client.set_registered_model_alias(model, name, str(newest))
    return newest


@contextmanager
def _store(run: Path, filling: bool = True) -> Iterator["MlflowClient"]:
    """The run's store; what goes wrong in it is one line."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    for library in ("mlflow", "alembic"):
        logging.getLogger(library).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):  # its libraries deprecate each other
            if filling:
                _forget_where_moved(run)
            yield _client((run / STORE).resolve())
    except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError) as error:
        raise ArtifactError(
            f"{run / STORE}: the copy for MLflow failed ({type(error).__name__}); every stage of the run is finished"
        ) from error


def params(run: Path, stages: Sequence[str] | None = None) -> dict[str, str]:
    """The configuration of every stage, flat: `policy/iql.expectile` -> its value as text."""
    flat: dict[str, str] = {}
    for stage, manifest in _manifests(run, stages):
        for key, value in _leaves(manifest["config"]):
            flat[f"{stage}.{key}"] = str(value)[:_LONGEST]
        flat[f"{stage}.seed"] = str(manifest["seed"])
    return flat


def metrics(run: Path, stages: Sequence[str] | None = None) -> Iterator[tuple[str, float, int]]:
    """(name, value, step) of what was measured: learning curves, estimates that were not withheld, and costs."""
    for stage, _ in _manifests(run, stages):
        if stage.startswith(("policy/", "behaviour")):
            yield from _curves(run / stage, stage)
    if stages is not None:
        return
    document = artifact.read_json(run / "ope" / "evaluation.json")
    for policy, estimate in _estimates(document):
        if estimate["withheld"] is None:
            for key in ("value", "low", "high", "ess"):
                yield f"{policy}/{estimate['estimator']}/{key}", float(estimate[key]), 0
    yield from _judgements(document)
    for stage, cost in artifact.read_json(run / "run.json")["stages"].items():
        for key in ("seconds", "cpu_seconds", "peak_memory_mb"):
            if key in cost:
                yield f"cost/{stage}/{key}", float(cost[key]), 0


def documents(run: Path, stages: Sequence[str] | None = None) -> Iterator[tuple[Path, str]]:
    """(file, folder of the store) of the documents that are copied: manifests, evaluation, report, costs."""
    for stage, _ in _manifests(run, stages):
        yield run / stage / artifact.MANIFEST, f"manifests/{stage}"
    if stages is not None:
        return
    for folder in ("ope", "report"):
        for path in sorted((run / folder).glob("*")):
            if path.name != artifact.MANIFEST:
                yield path, folder
    yield run / "run.json", ""


def _curves(directory: Path, stage: str) -> Iterator[tuple[str, float, int]]:
    """Every loss of a learning curve, at the update it was measured at."""
    for row in artifact.read_json(directory / "curves.json"):
        for loss, value in row.items():
            if loss != "update":
                yield f"{stage}/{loss}", float(value), int(row["update"])


def _estimates(document: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "clinicians", document["clinicians"]["estimate"]
    for policy, entry in document["policies"].items():
        for estimate in entry["estimates"]:
            yield policy, estimate


def _judgements(document: Mapping[str, Any]) -> Iterator[tuple[str, float, int]]:
    """Every gate (its value, and 1 where it passed) and every grade of the calibration certificate."""
    for policy, entry in document["policies"].items():
        for gate in entry["gates"]:
            yield f"gate/{policy}/{gate['code']}/passed", float(gate["passed"]), 0
            if gate["value"] is not None:
                yield f"gate/{policy}/{gate['code']}/value", float(gate["value"]), 0
    for grade in (document["certificate"] or {}).get("grades", []):
        for key in ("bias", "rmse", "coverage"):
            if grade[key] is not None:
                yield f"certificate/{grade['policy']}/{grade['estimator']}/{key}", float(grade[key]), 0


def _manifests(run: Path, stages: Sequence[str] | None = None) -> list[tuple[str, dict[str, Any]]]:
    if stages is not None:
        return [(stage, artifact.read_manifest(run / stage)) for stage in stages]
    folders = sorted(path.parent for path in run.glob("*/" + artifact.MANIFEST))
    folders += sorted(path.parent for path in run.glob("policy/*/" + artifact.MANIFEST))
    return [(str(folder.relative_to(run)), artifact.read_manifest(folder)) for folder in folders]


def _leaves(content: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{at}{key}.")
        else:
            yield f"{at}{key}", value


def _record(client: "MlflowClient", run: Path, name: str, stages: Sequence[str] | None) -> str:
    entry = client.create_run(_experiment(client, run), run_name=name)
    id_ = str(entry.info.run_id)
    client.log_inputs(id_, [_dataset(run)])
    _log_params(client, id_, params(run, stages))
    _log_metrics(client, id_, list(metrics(run, stages)))
    for path, folder in documents(run, stages):
        client.log_artifact(id_, str(path), folder)
    for stage, _ in _manifests(run, stages):
        if stage.startswith(POLICIES):
            registry.register(client, id_, f"{name}-{stage.removeprefix(POLICIES)}", run / stage)
    client.set_terminated(id_)
    return id_


def _dataset(run: Path) -> "DatasetInput":
    """The cohort by its digest (MLflow keeps 36 characters of it) and its counts."""
    from mlflow.entities import Dataset, DatasetInput

    cohort = run / "cohort"
    rows = json.dumps(artifact.read_manifest(cohort)["rows"])
    known = Dataset("cohort", artifact.digest(cohort)[:36], "local", str(cohort.resolve()), profile=rows)
    return DatasetInput(known)


def _forget_where_moved(run: Path) -> None:
    """Remove a store that still names the directory that it was copied or moved from: it would write there."""
    if not (run / STORE).exists():
        return
    # without MLflow, which would keep a connection to the removed file and write there
    with closing(sqlite3.connect(f"file:{(run / STORE).resolve()}?mode=ro", uri=True)) as store:
        query = "SELECT artifact_location FROM experiments WHERE name = ?"
        found = store.execute(query, (EXPERIMENT,)).fetchone()
    if found is not None and found[0] != _artifacts(run):
        (run / STORE).unlink()
        shutil.rmtree(run / ARTIFACTS, ignore_errors=True)


def _client(store: Path) -> "MlflowClient":
    """A client of the run's own store; no server and no global tracking address."""
    from mlflow import MlflowClient

    if not store.exists():  # made under another name: a run killed here leaves no store with half its tables
        draft = store.with_name(f".{STORE}.tmp-{os.getpid()}")
        try:
            MlflowClient(tracking_uri=f"sqlite:///{draft}").search_experiments()
            draft.replace(store)
        finally:
            draft.unlink(missing_ok=True)
    return MlflowClient(tracking_uri=f"sqlite:///{store}")


def _experiment(client: "MlflowClient", run: Path) -> str:
    """The store's experiment; its entries that a killed process left unfinished are marked so."""
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is not None:
        for left in client.search_runs([found.experiment_id], "attributes.status = 'RUNNING'"):
            client.set_terminated(left.info.run_id, "KILLED")  # the caller holds the run's lock: nobody else writes
        return str(found.experiment_id)
    return str(client.create_experiment(EXPERIMENT, artifact_location=_artifacts(run)))


def _artifacts(run: Path) -> str:
    return (run / ARTIFACTS).resolve().as_uri()


def _log_params(client: "MlflowClient", id_: str, values: Mapping[str, str]) -> None:
    from mlflow.entities import Param

    entries = [Param(_key(key), value) for key, value in values.items()]
    for first in range(0, len(entries), _PARAMS):
        client.log_batch(id_, params=entries[first : first + _PARAMS])


def _log_metrics(client: "MlflowClient", id_: str, values: list[tuple[str, float, int]]) -> None:
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    entries = [Metric(_key(key), value, now, step) for key, value, step in values]
    for first in range(0, len(entries), _BATCH):
        client.log_batch(id_, metrics=entries[first : first + _BATCH])


def _key(name: str) -> str:
    """MLflow takes letters, digits, and `_-. :/` in names."""
    return re.sub(r"[^\w\-. :/]", "_", name)
