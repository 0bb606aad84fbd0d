"""Behaviour: the evaluation's model knows the previous action, never its own patients, and states its floor."""

import numpy as np
import pytest

from cohort.episodes import Episodes
from cohort.errors import ConfigError
from policy import behaviour
from policy.behaviour import BehaviourConfig
from tests import probes

TINY = BehaviourConfig(
    hidden=(16,), updates=300, evaluate_every=50, min_updates=0, folds=3, batch=64, learning_rate=1e-2
)


def _sticky(patients: int = 200, steps: int = 8) -> Episodes:
    """The action mostly repeats the previous one and the state says nothing about it."""
    rng = np.random.default_rng(0)
    action = np.zeros((patients, steps), int)
    action[:, 0] = rng.integers(0, 2, patients)
    for k in range(1, steps):
        action[:, k] = np.where(rng.random(patients) < 0.9, action[:, k - 1], 1 - action[:, k - 1])
    n = patients * steps
    return Episodes.from_arrays(
        rng.normal(size=(n, 2)), action.reshape(-1), np.zeros(n), np.repeat(np.arange(patients), steps),
        np.ones(patients, bool), n_actions=2,
    )  # fmt: skip


def test_previous_action_is_used_by_the_evaluation_model() -> None:
    episodes = _sticky()
    probs = behaviour.cross_fit(episodes, TINY)
    later = episodes.step > 0
    stays = probs[later, episodes.action[np.flatnonzero(later) - 1]]
    assert stays.mean() == pytest.approx(0.9, abs=0.04)
    assert probs[~later].mean(0) == pytest.approx([0.5, 0.5], abs=0.1)


def test_first_step_has_no_previous_action() -> None:
    seen = behaviour.with_previous_action(_sticky(5))
    assert not seen.state[seen.start, 2:].any()
    assert (seen.state[seen.step > 0, 2:].argmax(1) == seen.action[:-1][(seen.step > 0)[1:]]).all()


def test_floor_is_the_least_probability_and_rows_sum_to_one() -> None:
    episodes = probes.clinic()
    probs = behaviour.cross_fit(episodes, TINY.model_copy(update={"floor": 0.05}))
    assert probs.min() >= 0.05 - 1e-6
    assert probs.sum(1) == pytest.approx(1.0, abs=1e-5)


def test_no_patient_is_predicted_by_a_model_that_saw_them() -> None:
    """Every patient repeats one action of their own, which their unique state gives away to a model that saw them."""
    rng = np.random.default_rng(0)
    n = 150
    action = rng.integers(0, 2, n)
    episodes = Episodes.from_arrays(
        np.repeat(rng.normal(size=(n, 2)), 4, 0), np.repeat(action, 4), np.zeros(4 * n), np.repeat(np.arange(2 * n), 2),
        np.ones(2 * n, bool), n_actions=2, patient=np.repeat(np.arange(n), 2),
    )  # fmt: skip
    greedy = TINY.model_copy(update={"hidden": (256,), "holdout": 0.0, "updates": 400})
    first = episodes.step == 0
    probs = behaviour.cross_fit(episodes, greedy)
    right = (probs.argmax(1) == episodes.action)[first].mean()
    assert right < 0.65


def test_fewer_patients_than_folds_is_refused() -> None:
    with pytest.raises(ConfigError, match="2 patients"):
        behaviour.cross_fit(probes.clinic(patients=2), TINY)


def test_a_floor_too_high_for_the_number_of_actions_is_refused() -> None:
    with pytest.raises(ConfigError, match="floor"):
        behaviour.cross_fit(probes.clinic(), TINY.model_copy(update={"floor": 0.3}))


def test_temperature_undoes_overconfidence() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20_000, 3))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    action = (p.cumsum(1) < rng.random((20_000, 1))).sum(1)
    assert behaviour.temperature(logits * 3, action) == pytest.approx(3.0, rel=0.05)


def test_reliability_error_is_positive_where_predicted_too_often() -> None:
    probs = np.tile([0.8, 0.2], (100, 1))
    action = np.repeat([0, 1], 50)
    first, second = behaviour.reliability(probs, action)
    assert (first["count"], first["error"]) == (50, pytest.approx(0.3))
    assert second["error"] == pytest.approx(-0.3)


def test_nothing_is_fitted_to_decisions_whose_dose_was_not_read_whole() -> None:
    """A third of the decisions say action 1 where only action 0 is ever read: it must not be learned."""
    rng = np.random.default_rng(0)
    unread = rng.random(600) < 1 / 3
    episodes = Episodes.from_arrays(
        rng.normal(size=(600, 2)), unread.astype(int), np.zeros(600), np.arange(600), np.ones(600, bool), n_actions=2
    )
    assert behaviour.cross_fit(episodes, TINY, read=~unread)[:, 1].max() < 0.1
    assert behaviour.cross_fit(episodes, TINY)[:, 1].mean() > 0.2


def test_members_are_averaged_in_each_fold_and_the_first_is_the_single_one(monkeypatch: pytest.MonkeyPatch) -> None:
    episodes = _sticky(60)
    quick = TINY.model_copy(update={"updates": 50, "floor": 0.0})
    one, two = (behaviour.cross_fit(episodes, quick.model_copy(update={"members": m}), 3) for m in (1, 2))
    other = behaviour.cross_fit(episodes, quick.model_copy(update={"members": 1}), 3 + behaviour.STREAM)
    assert not np.allclose(one, two)
    assert two.sum(axis=1) == pytest.approx(np.ones(len(two)), abs=1e-5)
    assert not np.allclose(two, other)
    monkeypatch.setattr(behaviour, "_sharpened", lambda probs, *_: probs)
    assert not np.array_equal(two, behaviour.cross_fit(episodes, quick.model_copy(update={"members": 2}), 3))
    assert np.array_equal(one, behaviour.cross_fit(episodes, quick, 3)), "a single one is calibrated already"


def test_a_mean_of_calibrated_networks_is_calibrated_again_by_the_other_folds() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20_000, 3))
    sure = np.exp(2 * logits) / np.exp(2 * logits).sum(1, keepdims=True)
    action = (sure.cumsum(1) < rng.random((20_000, 1))).sum(1)
    unsure = (np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).astype(np.float32)
    fold, known = np.arange(20_000) % 4, np.ones(20_000, bool)
    found = behaviour._sharpened(unsure, action, fold, known)
    assert (sure[np.arange(20_000), action] / found[np.arange(20_000), action]).mean() == pytest.approx(1, abs=0.02)
    assert found.sum(axis=1) == pytest.approx(np.ones(20_000), abs=1e-5)
    own = np.where(fold == 2, 2 - action, action)  # what a fold's own answers are worth is not for itself to say
    assert (behaviour._sharpened(unsure, own, fold, known)[fold == 2] == found[fold == 2]).all()
    unread = np.where(fold == 1, 2 - action, action)  # nor for decisions whose dose was not read whole
    one, other = (behaviour._sharpened(unsure, taken, fold, fold != 1) for taken in (unread, action))
    assert (one == other).all()
