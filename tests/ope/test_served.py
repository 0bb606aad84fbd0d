"""Served: what reaches the patient is only what may be shown, and the clinicians' own dose where nothing is."""

from pathlib import Path

import numpy as np
import pytest

import policy.store
from cohort import build
from cohort.episodes import Episodes
from ope import served
from ope.served import Served
from policy import recommend
from policy.recommend import Bedside


@pytest.fixture(scope="module")
def episodes(cohort_dir: Path) -> Episodes:
    return build.episodes(cohort_dir, "evaluate")


@pytest.fixture(scope="module")
def clinicians(episodes: Episodes) -> np.ndarray:
    return np.random.default_rng(0).dirichlet(np.ones(25), episodes.n).astype(np.float32)


@pytest.fixture(scope="module")
def reader(cohort_dir: Path, behaviour: Path, episodes: Episodes) -> served.Reader:
    age = np.zeros_like(episodes.state, np.float64)
    age[: episodes.n // 4, episodes.features.index("map")] = np.nan
    nothing = np.full(episodes.n, np.nan)
    return served.Reader(
        recommend.support(build.episodes(cohort_dir, "train")),
        policy.store.load(behaviour),
        age,
        Bedside(nothing, nothing, episodes.previous_action),
    )


@pytest.fixture(scope="module")
def found(policies: dict[str, Path], reader: served.Reader, episodes: Episodes, clinicians: np.ndarray) -> Served:
    return served.serve(policy.store.load(policies["bc"]), reader, episodes, clinicians)


def test_clinicians_decide_where_the_policy_is_silent_and_only_there(
    found: Served, clinicians: np.ndarray, episodes: Episodes
) -> None:
    silent = (found.drawn == clinicians).all(axis=1)
    assert np.array_equal(silent, (found.likeliest == clinicians).all(axis=1))
    assert silent[: episodes.n // 4].all()
    assert found.silent["data freshness"] >= episodes.n // 4
    assert 0 < silent.sum() == sum(found.silent.values()) < episodes.n


def test_a_dose_that_is_given_is_one_that_may_be_shown(
    found: Served, clinicians: np.ndarray, policies: dict[str, Path], reader: served.Reader, episodes: Episodes
) -> None:
    own = policy.store.load(policies["bc"])
    spoken = np.flatnonzero((found.drawn != clinicians).any(axis=1))
    assert found.drawn.sum(axis=1) == pytest.approx(np.ones(episodes.n), abs=1e-5)
    assert (found.likeliest[spoken].max(axis=1) == 1).all()
    assert np.array_equal(found.likeliest[spoken].argmax(axis=1), own.probs(episodes.state[spoken]).argmax(axis=1))
    looks = recommend.looks(own, episodes.state[spoken], reader.known, reader.behaviour, reader.age_h[spoken])
    for row, look in zip(spoken, looks, strict=True):
        assert look.evidence is not None
        assert not found.drawn[row][~look.evidence.supported].any()
    assert (found.drawn[spoken] > 0).sum() < (own.probs(episodes.state[spoken]) > 0).sum()
