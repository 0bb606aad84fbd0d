"""Registry: trained policies as registered models of a run's MLflow store, as code and safetensors, never a pickle."""

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import policy.store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.models import ModelSignature

FOLDER = "models"
CODE = Path(__file__).with_name("served_model.py")


def register(client: "MlflowClient", run_id: str, name: str, directory: Path) -> int:
    """Store a saved policy as a pyfunc below an MLflow run and register it; returns its version.

    `mlflow.pyfunc.load_model("models:/NAME/VERSION")` reads it back where Suture is installed.

    Args:
        name: of the registered model, made where it is missing.
        directory: the policy's own.
    """
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    from mlflow import pyfunc

    fitted = policy.store.load(directory)
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / directory.name
        pyfunc.save_model(
            model,
            python_model=str(CODE),
            artifacts={"policy": str(directory.resolve())},
            signature=_signature(fitted.features, fitted.n_actions),
            pip_requirements=[],
        )
        client.log_artifacts(run_id, str(model), f"{FOLDER}/{directory.name}")
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    source = f"{client.get_run(run_id).info.artifact_uri}/{FOLDER}/{directory.name}"
    return int(client.create_model_version(name, source, run_id).version)


def _signature(features: tuple[str, ...], n_actions: int) -> "ModelSignature":
    """Features by name in, probabilities out.

    The features' types are left open and none is marked as required, though all are: what MLflow would refuse, it
    refuses with the table's content in the message. `served_model` refuses the same with none of it.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import Schema

    inputs = [{"type": "any", "name": name, "required": False} for name in features]
    outputs = [{"type": "float", "name": f"action_{a}"} for a in range(n_actions)]
    return ModelSignature(*(Schema.from_json(json.dumps(columns)) for columns in (inputs, outputs)))
