"""Logs: exact probabilities of what clinicians did, and returns of the policies that treat instead of them."""

import numpy as np
import pytest

from cohort.hospital import clinicians, logs
from cohort.hospital.clinicians import BINS, STYLES, Reading
from cohort.hospital.logs import SEEN
from cohort.hospital.simulation import SHIFT_HOURS

STAYS = 60


@pytest.fixture(scope="module")
def log() -> logs.Log:
    return logs.draw(STAYS, 4)


def test_the_probabilities_of_a_shifts_decisions_multiply_to_that_of_the_shift_whatever_the_style(
    log: logs.Log,
) -> None:
    """sum over styles of share times the product of the style's probabilities, by the first shift of every stay."""
    episodes = log.episodes
    columns = dict(zip(SEEN, episodes.state.astype(np.float64).T, strict=True))
    columns |= {name: columns[name].astype(np.int64) for name in ("fluid", "vasopressor")}
    reading = Reading(**columns, looks_ill=np.zeros(episodes.n))
    every = clinicians.all_propensities(reading).reshape(episodes.n, len(STYLES), BINS**2)
    chosen = every[np.arange(episodes.n), :, episodes.action]
    own = log.behaviour[np.arange(episodes.n), episodes.action]
    for start, length in zip(episodes.start, episodes.length, strict=True):
        rows = slice(start, start + min(length, SHIFT_HOURS // 4))
        assert np.prod(own[rows]) == pytest.approx(clinicians.shares() @ chosen[rows].prod(axis=0), rel=1e-4)


def test_every_stay_is_there_with_the_return_that_it_has_when_the_clinicians_treat(log: logs.Log) -> None:
    assert log.episodes.n_episodes == STAYS
    assert log.behaviour.sum(axis=1) == pytest.approx(np.ones(log.episodes.n))
    found = log.episodes.returns_to_go(1.0)[log.episodes.start]
    assert found == pytest.approx(logs.returns(None, STAYS, 4), abs=1e-5)


def test_a_policy_treats_the_same_patients_and_changes_what_becomes_of_them() -> None:
    most = np.eye(BINS**2)[-1]
    treated = logs.returns(lambda state: np.tile(most, (len(state), 1)), STAYS, 4)
    own = logs.returns(None, STAYS, 4)
    assert treated.mean() < own.mean() - 0.5
    assert logs.returns(logs.mixture, STAYS, 4) == pytest.approx(logs.returns(logs.mixture, STAYS, 4))
