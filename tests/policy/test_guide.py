"""The guide's hand calculations, with its slips corrected."""

import numpy as np
import pytest

from cohort.episodes import Episodes
from policy import awr, extraction, filtered_bc
from tests import probes


def test_monte_carlo_target_sums_all_later_rewards_discounted() -> None:
    episodes = Episodes.from_arrays(
        np.zeros((3, 1)), np.zeros(3, int), np.array([1.0, 2.0, 4.0]), np.zeros(3, int), np.array([True]), n_actions=2
    )
    assert episodes.returns_to_go(0.5).tolist() == [3.0, 4.0, 4.0]


def test_monte_carlo_averages_s3_over_both_episodes_and_never_tells_s1() -> None:
    episodes, state = probes.stitching(1)
    returns = episodes.returns_to_go(1.0)
    at = {name: (episodes.state == state[name]).all(1) for name in state}
    assert returns[at["s3"]].mean() == 6.5
    assert returns[at["s1"]].max() == 5.0  # 3 on the guide's own graph; 5 by the third trajectory added to it


def test_temporal_differences_carry_ten_back_to_s1() -> None:
    """Value iteration over the logged transitions: V(s1) = V(s3) = V(s6) = 10."""
    episodes, state = probes.stitching(1)
    names = {tuple(row): name for name, row in state.items()}
    value = dict.fromkeys(state, 0.0)
    for _ in range(5):
        targets: dict[str, list[float]] = {name: [] for name in state}
        for row in range(episodes.n):
            following = 0.0 if episodes.terminal[row] else value[names[tuple(episodes.next_state[row])]]
            targets[names[tuple(episodes.state[row])]].append(float(episodes.reward[row]) + following)
        value = {name: max(found) for name, found in targets.items()}
    assert value["s1"] == value["s3"] == value["s6"] == 10.0


def test_top_ten_percent_of_a_hundred_returns() -> None:
    returns = np.arange(1.0, 101.0)
    assert filtered_bc.best(returns, 10.0).sum() == 10
    assert returns[filtered_bc.best(returns, 10.0)].min() == 91.0


def test_awr_at_the_three_transitions_before_normalising() -> None:
    advantage = np.array([3.0, 7.0, 1.0]) - 11 / 3
    assert np.exp(advantage) == pytest.approx([0.513, 28.03, 0.0695], rel=2e-3)
    assert np.exp(advantage / 5) == pytest.approx([0.875, 1.948, 0.587], rel=2e-3)
    assert awr.Config().alpha == 1.0


def test_closed_form_of_the_kl_penalised_objective_beats_its_neighbours() -> None:
    """pi_b exp(A / alpha) / Z maximises E_pi A - alpha KL(pi || pi_b)."""
    usual, advantage, alpha = np.array([[0.5, 0.3, 0.2]]), np.array([[-0.67, 3.33, -2.67]]), 2.0
    best = extraction.tilt(usual, advantage, 0.0, alpha).astype(float)

    def objective(pi: np.ndarray) -> float:
        return float((pi * advantage).sum() - alpha * extraction.kl(pi, usual)[0])

    for seed in range(50):
        other = best + 0.05 * np.random.default_rng(seed).dirichlet(np.ones(3), 1)
        assert objective(other / other.sum()) < objective(best) + 1e-9
