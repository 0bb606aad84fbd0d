"""Laws that every learner's policy obeys."""

from pathlib import Path

import numpy as np
import pytest

import policy
from cohort.errors import ArtifactError, ConfigError, InputError
from policy import LEARNERS, store
from policy.train import CheckpointError, Session
from tests import probes

TINY = {"hidden": (16,), "batch": 32, "updates": 30, "evaluate_every": 10, "min_updates": 0}


CLINICIANS = probes.CLINICIANS | {"updates": 30}


def tiny(name: str) -> dict[str, object]:
    """Options for a few updates of any learner."""
    own: dict[str, dict[str, object]] = {
        "conservative_iql": {"behaviour": CLINICIANS, "eps": 0.01, "target_kl": 0.01},
        "bear": {"behaviour": CLINICIANS},
        "dpo": {"behaviour": CLINICIANS},
    }
    return TINY | own.get(name, {})


@pytest.fixture(scope="module")
def ward():  # type: ignore[no-untyped-def]
    return probes.clinic()


@pytest.mark.parametrize("name", LEARNERS)
def test_rows_sum_to_one_and_a_saved_policy_is_exact(name: str, ward, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    fitted = policy.fit(name, ward, tiny(name))
    probs = fitted.probs(ward.state)
    assert probs.shape == (ward.n, ward.n_actions)
    assert probs.dtype == np.float32
    assert probs.sum(1) == pytest.approx(1.0, abs=1e-5)
    store.save(fitted, tmp_path / "policy")
    loaded = store.load(tmp_path / "policy")
    assert np.array_equal(loaded.probs(ward.state), probs)
    if fitted.critic is not None:
        assert np.array_equal(loaded.q(ward.state), fitted.q(ward.state))


@pytest.mark.parametrize("name", LEARNERS)
def test_interrupted_training_resumes_bit_for_bit(name: str, ward, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    class Interrupted(Exception):
        pass

    def interrupt(done: int, _total: int, _losses: object) -> None:
        if done == 20:
            raise Interrupted

    file = tmp_path / "checkpoint.safetensors"
    whole = policy.fit(name, ward, tiny(name))
    with pytest.raises(Interrupted):
        policy.fit(name, ward, tiny(name), session=Session(progress=interrupt, checkpoint=file))
    resumed = policy.fit(name, ward, tiny(name), session=Session(checkpoint=file))
    assert np.array_equal(resumed.probs(ward.state), whole.probs(ward.state))
    assert [row["update"] for row in resumed.curves] == [row["update"] for row in whole.curves]


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_state_that_is_not_finite_is_refused(name: str, bad: float, ward) -> None:  # type: ignore[no-untyped-def]
    fitted = policy.fit(name, ward, tiny(name) | {"updates": 1})
    state = ward.state[:2].copy()
    state[1, 0] = bad
    with pytest.raises(InputError, match="1 of 2 rows"):
        fitted.probs(state)


def test_a_checkpoint_of_another_config_is_refused(ward, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "checkpoint.safetensors"
    policy.fit("bc", ward, TINY, session=Session(checkpoint=file))
    with pytest.raises(ArtifactError, match="another run"):
        policy.fit("bc", ward, TINY | {"updates": 31}, session=Session(checkpoint=file))


def test_a_file_that_is_no_checkpoint_is_refused(ward, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "checkpoint.safetensors"
    file.write_bytes(b"\x80\x04K*.")  # a pickle
    with pytest.raises(ArtifactError, match="not a readable checkpoint"):
        policy.fit("bc", ward, TINY, session=Session(checkpoint=file))
    assert file.read_bytes() == b"\x80\x04K*."


def test_a_flipped_bit_of_a_checkpoint_is_found(ward, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """safetensors itself would read it; training would go on from another weight."""
    file = tmp_path / "checkpoint.safetensors"
    policy.fit("bc", ward, TINY, session=Session(checkpoint=file))
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(CheckpointError, match="damaged after it was written"):
        policy.fit("bc", ward, TINY, session=Session(checkpoint=file))


def test_a_changed_weight_is_found(ward, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "policy").mkdir()
    store.write(policy.fit("bc", ward, TINY), tmp_path / "policy")
    weights = tmp_path / "policy" / store.WEIGHTS
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    with pytest.raises(ArtifactError, match="hash differs"):
        store.load(tmp_path / "policy")


def test_a_changed_description_is_found(ward, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "policy").mkdir()
    store.write(policy.fit("bc", ward, TINY), tmp_path / "policy")
    file = tmp_path / "policy" / store.POLICY
    file.write_text(file.read_text().replace('"eps": 0.0', '"eps": 0.5'))
    with pytest.raises(ArtifactError, match="hash differs"):
        store.load(tmp_path / "policy")


def test_an_existing_policy_is_not_overwritten(ward, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    fitted = policy.fit("bc", ward, TINY | {"updates": 1})
    store.save(fitted, tmp_path / "policy")
    with pytest.raises(ArtifactError, match="already exists"):
        store.save(fitted, tmp_path / "policy")


def test_an_unknown_learner_is_refused(ward) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match="unknown"):
        policy.fit("ppo", ward)


def test_an_unknown_key_is_refused(ward) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match="temperatur"):
        policy.fit("bc", ward, {"temperatur": 1.0})


@pytest.mark.parametrize("name", LEARNERS)
def test_one_action_is_no_choice(name: str) -> None:
    with pytest.raises(ConfigError, match="at least 2"):
        policy.fit(name, probes.clinic(n_actions=1), tiny(name))


@pytest.mark.parametrize("name", LEARNERS)
def test_episodes_of_length_one_train(name: str) -> None:
    fitted = policy.fit(name, probes.clinic(steps=1), tiny(name) | {"updates": 3})
    assert fitted.probs(np.zeros((1, 6))).shape == (1, 4)
