"""A run's policies are registered models that MLflow loads from code and safetensors, and that refuse bad tables."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import policy.store
from app import tracking
from cohort.errors import InputError


@pytest.fixture(scope="module")
def recorded(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny run copied and recorded once more, one policy alone."""
    copy = Path(shutil.copytree(tiny_run, tmp_path_factory.mktemp("registry") / "run"))
    for path in (copy / tracking.STORE, copy / tracking.ARTIFACTS):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    tracking.record(copy, "tiny", ["policy/iql"])
    return copy


@pytest.fixture(scope="module")
def served(recorded: Path) -> Iterator[object]:
    """The registered policy, loaded by MLflow."""
    import mlflow

    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{recorded / tracking.STORE}")
    yield mlflow.pyfunc.load_model("models:/tiny-iql/1")
    mlflow.set_tracking_uri(before)


@pytest.fixture(scope="module")
def states(recorded: Path) -> pd.DataFrame:
    fitted = policy.store.load(recorded / "policy" / "iql")
    state = np.abs(np.random.default_rng(0).normal(80, 20, (5, len(fitted.features))))
    return pd.DataFrame(state, columns=list(fitted.features))


pytestmark = pytest.mark.filterwarnings("ignore")
"""MLflow's libraries deprecate each other."""


def test_the_loaded_model_answers_as_the_policy_whatever_the_columns_order(recorded: Path, served, states) -> None:  # type: ignore[no-untyped-def]
    expected = policy.store.load(recorded / "policy" / "iql").probs(states.to_numpy(np.float32))
    found = served.predict(states.iloc[:, ::-1])
    assert list(found.columns) == [f"action_{a}" for a in range(25)]
    assert np.array_equal(found.to_numpy(), expected)


def test_its_signature_names_every_feature_and_action(served, states) -> None:  # type: ignore[no-untyped-def]
    signature = served.metadata.signature
    assert signature.inputs.input_names() == list(states.columns)
    assert signature.outputs.input_names() == [f"action_{a}" for a in range(25)]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda table: table.assign(map=np.nan), "5 of 5 rows hold NaN or infinity"),
        (lambda table: table.assign(map=np.inf), "5 of 5 rows hold NaN or infinity"),
        (lambda table: table.assign(map="high"), "column 'map' holds no numbers"),
        (lambda table: table.drop(columns="map"), "column 'map' is missing"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused_in_one_line_without_its_values(served, states, change, named) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=named) as refused:
        served.predict(change(states))
    assert "\n" not in str(refused.value)
    assert f"{states.iloc[0, 0]:.3f}" not in str(refused.value)


@pytest.mark.usefixtures("served")
def test_nothing_in_the_store_is_a_pickle(recorded: Path) -> None:
    files = [path for path in (recorded / tracking.ARTIFACTS).rglob("*") if path.is_file()]
    assert {"served_model.py", "weights.safetensors", "policy.json"} <= {path.name for path in files}
    assert not [path for path in files if path.suffix in {".pkl", ".pickle", ".pt", ".joblib"}]
    assert not [path for path in files if path.read_bytes()[:1] == b"\x80"]


def test_the_cohort_stands_in_the_store_by_its_digest(recorded: Path) -> None:
    from mlflow import MlflowClient

    from cohort import artifact

    client = MlflowClient(tracking_uri=f"sqlite:///{recorded / tracking.STORE}")
    (found,) = client.search_runs([client.get_experiment_by_name("suture").experiment_id])
    assert found.inputs.dataset_inputs[0].dataset.digest == artifact.digest(recorded / "cohort")[:36]
    assert "policy/iql/train_td" in found.data.metrics
    assert not [name for name in found.data.metrics if name.startswith(("policy/bc", "cost"))]
