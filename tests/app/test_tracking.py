"""MLflow holds copies: parameters, learning curves, estimates, costs, manifests and the report."""

import os
import shutil
import warnings
from pathlib import Path

import pytest

from app import tracking
from cohort import artifact
from cohort.errors import ArtifactError


@pytest.fixture(scope="module")
def stored(tiny_run: Path):  # type: ignore[no-untyped-def]
    """The MLflow run of the tiny run, and its client."""
    from mlflow import MlflowClient

    with warnings.catch_warnings(action="ignore"):  # its libraries deprecate each other, at the first query
        client = MlflowClient(tracking_uri=f"sqlite:///{tiny_run / 'mlflow.db'}")
        experiment = client.get_experiment_by_name("suture")
        (found,) = client.search_runs([experiment.experiment_id])
    return client, found


def test_the_store_and_its_artifacts_are_below_the_run(tiny_run: Path, stored) -> None:  # type: ignore[no-untyped-def]
    _, found = stored
    assert found.info.status == "FINISHED"
    assert Path(found.info.artifact_uri.removeprefix("file://")).is_relative_to(tiny_run / "mlartifacts")


def test_every_stages_configuration_is_a_parameter(stored) -> None:  # type: ignore[no-untyped-def]
    _, found = stored
    assert found.data.params["cohort.cohort.grid.step_hours"] == "4"
    assert found.data.params["policy/iql.updates"] == "60"
    assert found.data.params["tables.seed"] == "3"


def test_learning_curves_are_metrics_at_their_updates(tiny_run: Path, stored) -> None:  # type: ignore[no-untyped-def]
    client, found = stored
    curve = artifact.read_json(tiny_run / "policy" / "bc" / "curves.json")
    history = client.get_metric_history(found.info.run_id, "policy/bc/held_nll")
    assert [(one.step, one.value) for one in history] == [(int(row["update"]), row["held_nll"]) for row in curve]


def test_a_withheld_estimate_is_no_metric(tiny_run: Path, stored) -> None:  # type: ignore[no-untyped-def]
    """Twelve evaluation patients carry no value, so no policy's value may be in the store."""
    _, found = stored
    document = artifact.read_json(tiny_run / "ope" / "evaluation.json")
    assert all(one["withheld"] for entry in document["policies"].values() for one in entry["estimates"])
    assert not [name for name in found.data.metrics if name.startswith(("bc/", "iql/", "clinicians/"))]


def test_manifests_the_report_and_the_costs_are_copied_byte_for_byte(tiny_run: Path, stored) -> None:  # type: ignore[no-untyped-def]
    client, found = stored
    for name in ("manifests/cohort/manifest.json", "report/report.html", "ope/evaluation.json"):
        copy = Path(client.download_artifacts(found.info.run_id, name))
        assert copy.read_bytes() == (tiny_run / name.removeprefix("manifests/")).read_bytes()


def test_telemetry_is_off(stored) -> None:  # type: ignore[no-untyped-def]
    assert stored
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_a_second_record_goes_into_the_same_store(tiny_run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(tiny_run, copy, ignore=shutil.ignore_patterns("tables", "truth", "canonical"))
    with tracking._store(copy) as client:
        left = client.create_run(tracking._experiment(client, copy)).info.run_id  # as by a process that was killed
    first, second = tracking.record(copy, "tiny"), tracking.record(copy, "tiny")
    assert first != second
    assert [client.get_run(one).info.status for one in (left, first, second)] == ["KILLED", "FINISHED", "FINISHED"]


def test_a_damaged_store_is_one_line_and_leaves_the_run(tiny_run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(tiny_run, copy, ignore=shutil.ignore_patterns("tables", "truth", "canonical"))
    (copy / "mlflow.db").write_bytes(b"not a database, but long enough to look at" * 100)
    with pytest.raises(ArtifactError, match="the copy for MLflow failed") as caught:
        tracking.record(copy, "tiny")
    assert "\n" not in str(caught.value)
    assert artifact.verify(copy / "ope")
