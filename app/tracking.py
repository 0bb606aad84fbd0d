"""Tracking: copies of a run's parameters, figures and documents in an MLflow store below the run's directory.

The run's own files are the source of truth; nothing reads the store back.
"""

import logging
import os
import re
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cohort import artifact
from cohort.errors import ArtifactError

if TYPE_CHECKING:
    from mlflow import MlflowClient
STORE = "mlflow.db"
ARTIFACTS = "mlartifacts"
EXPERIMENT = "suture"
_BATCH = 1000
"""MLflow takes at most so many metrics (and 100 parameters) in one call."""
_PARAMS = 100
_LONGEST = 500


def record(run: Path, name: str) -> str:
    """Copy a finished run into its MLflow store, made where it is missing; returns the MLflow run's id.

    Args:
        run: the run's directory.
        name: what the MLflow run is called.

    Raises:
        ArtifactError: the store cannot be written (a full disk) or is damaged; the run itself is whole.
    """
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    for library in ("mlflow", "alembic"):
        logging.getLogger(library).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):  # its libraries deprecate each other
            return _record(run, name)
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise ArtifactError(
            f"{run / STORE}: the copy for MLflow failed ({type(error).__name__}); every stage of the run is finished"
        ) from error


def params(run: Path) -> dict[str, str]:
    """The configuration of every stage, flat: `policy/iql.expectile` -> its value as text."""
    flat: dict[str, str] = {}
    for stage, manifest in _manifests(run):
        for key, value in _leaves(manifest["config"]):
            flat[f"{stage}.{key}"] = str(value)[:_LONGEST]
        flat[f"{stage}.seed"] = str(manifest["seed"])
    return flat


def metrics(run: Path) -> Iterator[tuple[str, float, int]]:
    """(name, value, step) of what was measured: learning curves, estimates that were not withheld, and costs."""
    for stage, _ in _manifests(run):
        if stage.startswith(("policy/", "behaviour")):
            yield from _curves(run / stage, stage)
    for policy, estimate in _estimates(run):
        if estimate["withheld"] is None:
            for key in ("value", "low", "high", "ess"):
                yield f"{policy}/{estimate['estimator']}/{key}", float(estimate[key]), 0
    for stage, cost in artifact.read_json(run / "run.json")["stages"].items():
        for key in ("seconds", "cpu_seconds", "peak_memory_mb"):
            if key in cost:
                yield f"cost/{stage}/{key}", float(cost[key]), 0


def documents(run: Path) -> Iterator[tuple[Path, str]]:
    """(file, folder of the store) of the documents that are copied: manifests, evaluation, report, costs."""
    for stage, _ in _manifests(run):
        yield run / stage / artifact.MANIFEST, f"manifests/{stage}"
    for path in (
        run / "ope" / "evaluation.json",
        run / "report" / "report.html",
        run / "report" / "quality.html",
        run / "run.json",
    ):
        if path.is_file():
            yield path, path.parent.name if path.parent != run else ""


def _curves(directory: Path, stage: str) -> Iterator[tuple[str, float, int]]:
    """Every loss of a learning curve, at the update it was measured at."""
    for row in artifact.read_json(directory / "curves.json"):
        for loss, value in row.items():
            if loss not in {"update", "seconds"}:
                yield f"{stage}/{loss}", float(value), int(row["update"])


def _estimates(run: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    document = artifact.read_json(run / "ope" / "evaluation.json")
    yield "clinicians", document["clinicians"]["estimate"]
    for policy, entry in document["policies"].items():
        for estimate in entry["estimates"]:
            yield policy, estimate


def _manifests(run: Path) -> list[tuple[str, dict[str, Any]]]:
    folders = sorted(path.parent for path in run.glob("*/" + artifact.MANIFEST))
    folders += sorted(path.parent for path in run.glob("policy/*/" + artifact.MANIFEST))
    return [(str(folder.relative_to(run)), artifact.read_manifest(folder)) for folder in folders]


def _leaves(content: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{at}{key}.")
        else:
            yield f"{at}{key}", value


def _record(run: Path, name: str) -> str:
    client = _client((run / STORE).resolve())
    entry = client.create_run(_experiment(client, run), run_name=name)
    id_ = str(entry.info.run_id)
    _log_params(client, id_, params(run))
    _log_metrics(client, id_, list(metrics(run)))
    for path, folder in documents(run):
        client.log_artifact(id_, str(path), folder)
    client.set_terminated(id_)
    return id_


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
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is not None:
        return str(found.experiment_id)
    return str(client.create_experiment(EXPERIMENT, artifact_location=(run / ARTIFACTS).resolve().as_uri()))


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
