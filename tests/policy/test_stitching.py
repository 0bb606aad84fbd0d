"""The extended stitching graph: learners that bootstrap walk from s1 to 10, those that imitate do not."""

import pytest

import policy
from tests import probes

STITCHES = [
    *("iql", "conservative_iql", "cql"),
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("awac", "bear", "bcq", "dqn", "sac")),
]


@pytest.mark.parametrize("name", STITCHES)
def test_bootstrapping_learners_stitch(name: str) -> None:
    episodes, _ = probes.stitching()
    assert probes.greedy_return(policy.fit(name, episodes, probes.small(name))) == 10.0


def test_behaviour_cloning_stays_at_the_logged_average() -> None:
    episodes, _ = probes.stitching(100)
    assert probes.expected_return(policy.fit("bc", episodes, probes.SMALL)) == pytest.approx(5.75, abs=0.5)


def test_filtered_cloning_and_awr_stay_at_the_best_episode_from_there() -> None:
    episodes, _ = probes.stitching()
    filtered = policy.fit("filtered_bc", episodes, probes.SMALL | {"top_percent": 60})
    awr = policy.fit("awr", episodes, probes.SMALL)
    assert probes.expected_return(filtered) == pytest.approx(5.0, abs=0.3)
    assert probes.greedy_return(awr) == 5.0


def test_monte_carlo_value_of_s1_is_its_own_returns_and_td_rises_with_tau() -> None:
    episodes, state = probes.stitching()
    assert episodes.returns_to_go(1.0)[episodes.start].reshape(3, -1).mean(1).tolist() == [3.0, 10.0, 5.0]
    first = state["s1"][None]
    values = [
        policy.fit("iql", episodes, probes.small("iql") | {"tau": tau, "learning_rate": 3e-3}).q(first)[0, 0]
        for tau in (0.5, 0.95)
    ]
    assert values == pytest.approx([6.5, 9.65], abs=0.7)
