"""What learners refuse: one line, before training starts or at loading, and nothing overwritten."""

import hashlib
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import policy
from cohort import artifact
from cohort.episodes import Episodes
from cohort.errors import ArtifactError, ConfigError, InputError, SutureError
from policy import LEARNERS, batches, masked, store, sweep
from policy.behaviour import BehaviourConfig
from policy.sweep import SweepConfig
from policy.train import Session
from tests import probes
from tests.policy.test_policies import tiny


def untrained(*_: object) -> None:
    raise AssertionError("training started")


def refused(kind: type[SutureError], fit: Callable[[], object]) -> str:
    """The one line that a call ends with."""
    with pytest.raises(kind) as caught:
        fit()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def ward_with(**changes: np.ndarray) -> Episodes:
    ward = probes.clinic(patients=30)
    arrays = {"state": ward.state.copy(), "action": ward.action.copy(), "reward": ward.reward.copy()} | changes
    return Episodes.from_arrays(**arrays, episode=ward.episode, terminated=ward.terminated, n_actions=4)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_states_that_are_not_finite_never_become_episodes(bad: float) -> None:
    state = probes.clinic(patients=30).state.copy()
    state[7, 2] = bad
    assert "state: 1 values are NaN or infinite" in refused(InputError, lambda: ward_with(state=state))


@pytest.mark.parametrize("bad", [-1, 4])
def test_an_action_outside_the_range_never_becomes_an_episode(bad: int) -> None:
    action = probes.clinic(patients=30).action.copy()
    action[3] = bad
    assert "action: 1 of 180 rows outside 0..3" in refused(InputError, lambda: ward_with(action=action))


@pytest.mark.parametrize("name", ["conservative_iql", "dpo"])
def test_equal_returns_are_refused_where_a_policy_would_follow_noise(name: str) -> None:
    flat = ward_with(reward=np.zeros(180, np.float32))
    said = refused(InputError, lambda: policy.fit(name, flat, tiny(name)))
    assert re.search(r"all \d+ episodes return 0; nothing in them says", said)
    options = BehaviourConfig(**probes.CLINICIANS)
    grid = SweepConfig(target_kls=(0.1,))
    assert "all 30 episodes return 0" in refused(InputError, lambda: sweep.run(flat, flat, grid))
    trained = policy.fit("dqn", flat, tiny("dqn"))
    assert "episodes return 0" in refused(InputError, lambda: masked.masked(trained, flat, behaviour_config=options))


@pytest.mark.parametrize("name", [name for name in LEARNERS if name not in {"conservative_iql", "dpo"}])
def test_other_learners_meet_equal_returns_without_a_nan(name: str) -> None:
    fitted = policy.fit(name, ward_with(reward=np.zeros(180, np.float32)), tiny(name) | {"updates": 5})
    assert np.isfinite(fitted.probs(np.zeros((3, 6)))).all()


def test_a_divergence_that_nothing_reaches_is_refused_before_the_critic_is_trained() -> None:
    asked: list[int] = []
    options = tiny("conservative_iql") | {"target_kl": 50.0}
    session = Session(progress=lambda _done, total, _losses: asked.append(total))
    said = refused(InputError, lambda: policy.fit("conservative_iql", probes.clinic(), options, session=session))
    assert "target_kl 50 is infeasible" in said
    behaviour_updates = options["behaviour"]["updates"]  # type: ignore[index]
    assert set(asked) == {behaviour_updates}


@pytest.mark.parametrize(
    ("name", "config", "says"),
    [
        ("ppo", {}, "learner 'ppo' is unknown; known: bc, "),
        ("iql", {"expectyle": 0.7}, "expectyle: unknown key"),
        ("iql", {"tau": 1.0}, "tau: "),
        ("iql", {"updates": 0}, "updates: "),
        ("iql", {"learning_rate": float("nan")}, "learning_rate: "),
        ("bcq", {"threshold": 1.0}, "threshold: "),
        ("conservative_iql", {"target_kl": 0.0}, "target_kl: "),
        ("cql", {"hidden": ()}, "hidden: "),
        ("dpo", {"preferences": 7}, "preferences: "),
    ],
)
def test_an_unknown_learner_or_option_is_named(name: str, config: dict[str, object], says: str) -> None:
    session = Session(progress=untrained)
    said = refused(ConfigError, lambda: policy.fit(name, probes.clinic(), config, session=session))
    assert says in said


def test_a_config_of_another_learner_is_refused() -> None:
    from policy import awr, iql

    assert "Config" in refused(ConfigError, lambda: policy.fit("iql", probes.clinic(), awr.Config()))
    assert isinstance(iql.Config(), iql.Config)


@pytest.mark.parametrize("content", [pickle.dumps({"weights": [1.0]}), b"", b"\x00" * 64])
def test_weights_that_are_no_safetensors_are_never_loaded_even_with_the_right_hash(
    tmp_path: Path, content: bytes
) -> None:
    out = tmp_path / "policy"
    out.mkdir()
    store.write(policy.fit("bc", probes.clinic(patients=30), tiny("bc")), out)
    (out / store.WEIGHTS).write_bytes(content)
    assert "hash differs" in refused(ArtifactError, lambda: store.load(out))
    description = artifact.read_json(out / store.POLICY)
    description |= {"weights_sha256": hashlib.sha256(content).hexdigest()}
    description.pop("sha256")
    artifact.write_json(out / store.POLICY, description | {"sha256": store._hash(description)})
    assert "not a safetensors file" in refused(ArtifactError, lambda: store.load(out))
    assert (out / store.WEIGHTS).read_bytes() == content


def test_a_directory_without_a_policy_is_refused(tmp_path: Path) -> None:
    assert "policy.json" in refused(ArtifactError, lambda: store.load(tmp_path / "none"))


def test_cut_off_episodes_are_refused_by_methods_that_need_returns() -> None:
    ward = probes.clinic(patients=30)
    ended = ward.terminated.copy()
    ended[3] = False
    cut = Episodes.from_arrays(ward.state, ward.action, ward.reward, ward.episode, ended, ward.final_state, n_actions=4)
    said = refused(InputError, lambda: policy.fit("awr", cut, tiny("awr"), session=Session(progress=untrained)))
    assert "1 of 30 were cut off" in said
    assert batches.complete(cut, "drop")[1] == 1
