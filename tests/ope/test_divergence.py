"""Divergence: hand-worked distances on a two-by-two grid, the shift matrix's margins, and suppressed cells."""

import numpy as np
import pytest
from scipy.optimize import linprog

from ope import divergence
from ope.divergence import MEASURES, STRATA, Grid

DOSES = Grid(np.array([0.0, 100.0]), np.array([0.0, 0.2]))


def measures(target: list[float], behaviour: list[float], action: int = 0) -> dict[str, float]:
    row = divergence.per_step(np.array([target]), np.array([behaviour]), np.array([action]), DOSES, 0.05)[0]
    return dict(zip(MEASURES, row.tolist(), strict=True))


def test_equal_policies_do_not_diverge() -> None:
    same = measures([0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4], action=3)
    assert same.pop("agreement") == pytest.approx(0.4)
    assert all(value == 0 for value in same.values())


def test_the_hand_worked_distances() -> None:
    """Actions: 0 none, 1 pressor, 2 fluid, 3 both. Half of the probability moves from none to both."""
    found = measures([0.0, 0.25, 0.25, 0.5], [0.5, 0.25, 0.25, 0.0], action=1)
    assert found["total_variation"] == pytest.approx(0.5)
    assert found["agreement"] == pytest.approx(0.25)
    assert (found["fluid_transport"], found["vasopressor_transport"]) == (pytest.approx(0.5), pytest.approx(0.5))
    assert found["unsupported"] == pytest.approx(0.5)
    assert found["fluid_shift_ml"] == pytest.approx(50)
    assert found["vasopressor_shift_ug_kg_min"] == pytest.approx(0.1)


def test_kl_is_that_of_the_policy_from_the_clinicians() -> None:
    found = measures([0.5, 0.5, 0.0, 0.0], [0.25, 0.25, 0.25, 0.25])
    assert found["kl"] == pytest.approx(np.log(2))


def test_transport_counts_bins_and_not_only_that_they_differ() -> None:
    wide = Grid(np.array([0.0]), np.arange(5.0))
    near, far = (
        divergence.per_step(np.eye(5)[[end]], np.eye(5)[[0]] * 0.99 + 0.002, np.array([0]), wide, 0.0)[0, 4]
        for end in (1, 4)
    )
    assert far > 3 * near


def test_the_shift_matrix_has_clinicians_in_its_rows_and_the_policy_in_its_columns() -> None:
    target = np.array([[0.5, 0.5, 0, 0], [0.0, 0, 0, 1], [1.0, 0, 0, 0]])
    matrix = divergence.shift_matrix(target, np.array([2, 0, 2]), 4)
    assert matrix.sum(axis=1).tolist() == [1, 0, 2, 0]
    assert matrix.sum(axis=0).tolist() == target.sum(axis=0).tolist()
    assert matrix[2].tolist() == [1.5, 0.5, 0, 0]


def test_overall_means_hold_their_value() -> None:
    rng = np.random.default_rng(0)
    rows = rng.random((400, len(MEASURES))).astype(np.float32)
    found = divergence.overall(rows, np.repeat(np.arange(100), 4), np.arange(100) // 2, 0.95, 200, 0)
    assert found["kl"].value == pytest.approx(rows[:, 0].mean(), rel=1e-5)
    assert found["kl"].low < found["kl"].value < found["kl"].high


def test_small_cells_are_suppressed_and_unmeasured_values_are_in_none() -> None:
    rows = np.ones((6, len(MEASURES)), np.float32)
    features = {name: np.full(6, 1.0) for name in STRATA}
    features["lactate"] = np.array([1.0, 1, 1, 3, np.nan, np.nan])
    cells = {(c.feature, c.low): c for c in divergence.strata(rows, features, np.array([1, 2, 3, 3, 4, 5]), smallest=2)}
    assert cells["lactate", -np.inf].means == dict.fromkeys(MEASURES, 1.0)
    assert (cells["lactate", 2].patients, cells["lactate", 2].means) == (1, None)
    assert sum(c.decisions for c in cells.values() if c.feature == "lactate") == 4
    assert sum(c.decisions for c in cells.values() if c.feature == "map") == 6


def linear_programme(a: np.ndarray, b: np.ndarray, shape: tuple[int, int]) -> float:
    """The same distance as a plan of what goes where: as many unknowns as pairs of cells."""
    row, column = np.divmod(np.arange(a.size), shape[1])
    cost = np.abs(row[:, None] - row) + np.abs(column[:, None] - column)
    leaves, arrives = np.kron(np.eye(a.size), np.ones(a.size)), np.kron(np.ones(a.size), np.eye(a.size))
    return float(linprog(cost.ravel(), A_eq=np.vstack([leaves, arrives]), b_eq=np.r_[a.ravel(), b.ravel()]).fun)


@pytest.mark.parametrize("shape", [(5, 5), (3, 4), (4, 2), (1, 3)])
def test_the_distance_on_the_grid_is_that_of_linear_programming(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.dirichlet(np.full(shape[0] * shape[1], 0.3), (2, 8)).reshape(2, 8, *shape)
    exact = [linear_programme(*pair, shape) for pair in zip(a, b, strict=True)]
    assert divergence.transport(a - b) == pytest.approx(exact, abs=2e-6)


def test_the_distance_on_the_grid_sees_what_the_drugs_alone_do_not() -> None:
    """Half with both drugs and half with neither, against half with each: every drug's doses are the same, and half of
    the probability must move by one bin."""
    both, each = np.array([[[0.5, 0.0], [0.0, 0.5]]]), np.array([[[0.0, 0.5], [0.5, 0.0]]])
    assert divergence.transport(both - each).tolist() == [1.0]
    gap = both - each
    assert (np.abs(gap.sum(axis=1)).max(), np.abs(gap.sum(axis=2)).max()) == (0, 0)


def test_a_grid_too_large_for_the_distance_has_none() -> None:
    assert np.isnan(divergence.transport(np.zeros((2, 7, 7)))).all()
