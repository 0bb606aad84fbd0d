"""Store: policies as files: weights in safetensors, all else in policy.json; nothing is ever unpickled."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from cohort import artifact
from cohort.dictionary import Dictionary
from cohort.errors import ArtifactError
from cohort.scaler import Scaler
from policy.networks import Network
from policy.served import NetworkPolicy

WEIGHTS, POLICY, CURVES = "weights.safetensors", "policy.json", "curves.json"
FORMAT = 1
NUMBERS = ("temperature", "eps", "alpha", "reward_scale")


def save(
    policy: NetworkPolicy,
    out: Path,
    overwrite: bool = False,
    inputs: Mapping[str, Path] | None = None,
    seed: int | None = None,
) -> None:
    """Write a policy as an artifact directory of its own, atomically, with its manifest.

    Raises:
        ArtifactError: `out` exists (and not `overwrite`), or cannot be written.
    """
    with artifact.writing(Path(out), "policy", policy.config, inputs, seed, overwrite) as draft:
        write(policy, draft.path)
        draft.notes = {"learner": policy.learner, **policy.notes}


def write(policy: NetworkPolicy, directory: Path) -> None:
    """Write a policy's files into a directory that the caller made (an artifact's draft, say)."""
    tensors = {
        f"{name}/{layer}/{part}": np.ascontiguousarray(array)
        for name, network in (("actor", policy.actor), ("critic", policy.critic))
        if network is not None
        for layer, pair in enumerate(zip(network.weights, network.biases, strict=True))
        for part, array in zip(("weight", "bias"), pair, strict=True)
    }
    content = save_tensors(tensors)
    description: dict[str, Any] = {
        "format": FORMAT,
        "learner": policy.learner,
        "config": dict(policy.config),
        "rule": policy.rule,
        "scaler": policy.scaler.to_dict(),
        "features": list(policy.features),
        "n_actions": policy.n_actions,
        **{name: getattr(policy, name) for name in NUMBERS},
        "dictionary": None if policy.dictionary is None else policy.dictionary.to_dict(),
        "notes": dict(policy.notes),
        "weights_sha256": hashlib.sha256(content).hexdigest(),
    }
    description["sha256"] = _hash(description)
    (directory / WEIGHTS).write_bytes(content)
    artifact.write_json(directory / POLICY, description)
    artifact.write_json(directory / CURVES, list(policy.curves))


def load(directory: Path | str) -> NetworkPolicy:
    """Read a saved policy; its hashes, and the manifest's where there is one, are verified first.

    Raises:
        ArtifactError: a file is missing, damaged, changed, of another format, or no safetensors (a pickle, say).
    """
    path = Path(directory)
    if (path / artifact.MANIFEST).exists():
        artifact.verify(path)
    description = artifact.read_json(path / POLICY)
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise ArtifactError(f"{path / POLICY}: not a policy of format {FORMAT}")
    if description.pop("sha256", None) != _hash(description):
        raise ArtifactError(f"{path / POLICY}: its hash differs from its content: changed after it was written")
    networks = _networks(path / WEIGHTS, description["weights_sha256"])
    dictionary = description["dictionary"]
    curves = artifact.read_json(path / CURVES) if (path / CURVES).exists() else []
    return NetworkPolicy(
        learner=description["learner"],
        config=description["config"],
        rule=description["rule"],
        scaler=Scaler.from_dict(description["scaler"]),
        features=tuple(description["features"]),
        n_actions=description["n_actions"],
        actor=networks.get("actor"),
        critic=networks.get("critic"),
        **{name: float(description[name]) for name in NUMBERS},
        dictionary=None if dictionary is None else Dictionary.from_dict(dictionary),
        curves=tuple(curves),
        notes=description["notes"],
    )


def _networks(file: Path, expected: str) -> dict[str, Network]:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{file}: cannot be read ({type(error).__name__})") from error
    if hashlib.sha256(content).hexdigest() != expected:
        raise ArtifactError(f"{file}: its hash differs from {POLICY}: changed or damaged after it was written")
    try:
        tensors = load_tensors(content)
    except SafetensorError as error:
        raise ArtifactError(f"{file}: not a safetensors file; nothing else is ever loaded") from error
    found = {}
    for name in {key.partition("/")[0] for key in tensors}:
        layers = range(sum(key.startswith(f"{name}/") for key in tensors) // 2)
        weights, biases = (tuple(tensors[f"{name}/{layer}/{part}"] for layer in layers) for part in ("weight", "bias"))
        found[name] = Network(weights, biases)
    return found


def _hash(description: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()
