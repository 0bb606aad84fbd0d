"""Comparison: a dose that was partly read is no dose: it weighs nothing and shifts nothing."""

import numpy as np
import pytest

from cohort.episodes import Episodes
from ope import comparison, hazards
from ope.comparison import Clinical
from ope.divergence import Grid

DOSES = Grid(np.array([0.0, 100.0]), np.array([0.0, 0.1]))


def clinical(unread: np.ndarray) -> Clinical:
    n = len(unread)
    table = {name: np.zeros(n) for name in hazards.COLUMNS} | {"duration_h": np.full(n, 4.0), "dose_unknown": unread}
    return Clinical(hazards.of_table(table), {}, DOSES, 4.0, np.full(n, "unit"), {})


def test_a_dose_partly_read_has_ratio_one_and_is_in_no_row_of_the_shift_matrix() -> None:
    """Ratios .4 / .2 where read; the second decision's dose, logged as 3, is unknown."""
    episodes = Episodes.from_arrays(
        np.zeros((3, 1)), np.array([0, 3, 0]), np.zeros(3), np.arange(3), np.ones(3, bool), n_actions=4
    )
    target = np.tile(np.array([0.4, 0.3, 0.2, 0.1], np.float32), (3, 1))
    behaviour = np.tile(np.array([0.2, 0.3, 0.25, 0.25], np.float32), (3, 1))
    group = np.zeros(3, np.int64)
    found = comparison.compare(target, episodes, behaviour, clinical(np.array([False, True, False])), group, 0.01)
    assert found.ratio.tolist() == [2, 1, 2]
    assert found.shift[0] == pytest.approx([0.4, 0.3, 0.2, 0.1])
    assert found.shift.sum() == pytest.approx(1)
