"""The exported graph answers as the policy does, in another runtime."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import policy
from cohort.errors import ArtifactError
from cohort.scaler import Scaler
from policy import LEARNERS, masked, onnx_graph
from policy.behaviour import BehaviourConfig
from policy.masked import ExtractionConfig
from policy.served import NetworkPolicy
from tests import probes
from tests.policy.test_policies import CLINICIANS, tiny


@pytest.fixture(scope="module")
def ward():  # type: ignore[no-untyped-def]
    return probes.clinic(patients=40)


def answers(fitted: NetworkPolicy, state: np.ndarray) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(onnx_graph.graph(fitted).SerializeToString())
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"state": state.astype(np.float32)}), strict=True))


def assert_equal(fitted: NetworkPolicy, state: np.ndarray) -> None:
    """Wherever no action's likelihood lies within 1e-5 of the mask's edge."""
    found = answers(fitted, state)
    away = np.ones(len(state), bool)
    if fitted.eps > 0 and fitted.actor is not None:
        usual = replace(fitted, rule="softmax").probs(state).astype(np.float64)
        away = (np.abs(usual / usual.max(1, keepdims=True) - fitted.eps) > 1e-5).all(1)
    assert away.mean() > 0.9
    assert np.abs(found["probs"] - fitted.probs(state))[away].max() < 1e-5
    if fitted.critic is not None:
        assert np.abs(found["q"] - fitted.q(state)).max() < 1e-5


@pytest.mark.parametrize("name", LEARNERS)
def test_every_learners_graph_equals_the_policy(name: str, ward) -> None:  # type: ignore[no-untyped-def]
    assert_equal(policy.fit(name, ward, tiny(name)), ward.state)


def test_a_masked_policy_with_calibration_and_logarithms_is_equal_too(ward) -> None:  # type: ignore[no-untyped-def]
    state = np.abs(ward.state)
    log = np.array([True, True, False, False, True, False])
    logged = np.where(log, np.log(0.1 + state), state)
    scaler = Scaler(logged.mean(0).astype(np.float64), logged.std(0).astype(np.float64), log)
    skewed = replace(ward, state=state, scaler=scaler)
    options = BehaviourConfig(**CLINICIANS)
    fitted = masked.masked(policy.fit("dqn", skewed, tiny("dqn")), skewed, ExtractionConfig(target_kl=0.05), 0, options)
    assert_equal(replace(fitted, temperature=1.7, reward_scale=0.3, alpha=0.01), state)


def test_a_row_that_cannot_be_read_gets_nan_and_the_others_their_answer(ward) -> None:  # type: ignore[no-untyped-def]
    fitted = policy.fit("cql", ward, tiny("cql"))
    state = ward.state[:4].copy()
    state[1, 0], state[2, 3] = np.nan, np.inf
    found = answers(fitted, state)
    for name in ("probs", "q"):
        assert np.isnan(found[name][1:3]).all()
    assert np.array_equal(found["probs"][[0, 3]], fitted.probs(state[[0, 3]]))


def test_the_file_names_its_features_and_is_not_replaced_unasked(ward, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    fitted, file = policy.fit("bc", ward, tiny("bc")), tmp_path / "bc.onnx"
    onnx_graph.write(fitted, file)
    properties = {entry.key: entry.value for entry in onnx.load(file).metadata_props}
    assert json.loads(properties["features"]) == list(fitted.features)
    with pytest.raises(ArtifactError, match="already exists"):
        onnx_graph.write(fitted, file)
    assert list(tmp_path.iterdir()) == [file]
