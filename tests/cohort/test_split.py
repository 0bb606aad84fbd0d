"""The split of patients."""

import numpy as np
import pytest
from pydantic import ValidationError

from cohort import split
from cohort.split import SplitConfig


def test_all_stays_of_a_patient_go_to_one_split() -> None:
    subjects = np.repeat(np.arange(500), 3)
    parts = split.assign(subjects, seed=0).reshape(500, 3)
    assert (parts == parts[:, :1]).all()


def test_neither_order_nor_other_patients_move_anyone() -> None:
    subjects = np.arange(1000)
    parts = split.assign(subjects, seed=1)
    turned = np.random.default_rng(0).permutation(1000)
    assert (split.assign(turned, seed=1) == parts[turned]).all()
    assert (split.assign(subjects[:10], seed=1) == parts[:10]).all()


def test_shares_hold_on_average_and_depend_on_the_seed() -> None:
    subjects = np.arange(10_000_000, 10_020_000)
    parts = split.assign(subjects, seed=0)
    for name, share in (("train", 0.6), ("select", 0.2), ("evaluate", 0.2)):
        assert abs((parts == name).mean() - share) < 0.015
    assert 0.4 < (parts == split.assign(subjects, seed=1)).mean() < 0.5  # .6^2 + .2^2 + .2^2 = .44: independent


def test_the_split_is_a_promise_that_later_versions_keep() -> None:
    assert split.assign(np.array([10000032, 10001217, 10002428]), seed=0).tolist() == PROMISED


PROMISED = ["train", "evaluate", "train"]


def test_a_split_can_be_empty() -> None:
    parts = split.assign(np.arange(100), 0, SplitConfig(train=1.0, select=0.0))
    assert (parts == "train").all()


@pytest.mark.parametrize("wrong", [{"train": 0}, {"train": 0.9, "select": 0.2}, {"evaluate": 0.2}])
def test_shares_that_are_not_allowed_are_refused(wrong) -> None:
    with pytest.raises(ValidationError):
        SplitConfig(**wrong)
