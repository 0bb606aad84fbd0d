"""Monitor: the bound that rewards imply, the guide's error figures, and runs that are marked."""

import numpy as np
import pytest
import torch

import policy
from cohort.episodes import Episodes
from policy import batches, monitor
from policy.monitor import Bound
from tests import probes


@pytest.mark.parametrize(("epsilon", "expected"), [(3.0, 300.0), (1.0, 100.0)])
def test_error_of_the_guide_compounds_to_epsilon_over_one_minus_gamma(epsilon: float, expected: float) -> None:
    assert monitor.compounded_error(epsilon, 0.99) == pytest.approx(expected)
    assert monitor.compounded_error(epsilon, 0.99, backups=5000) == pytest.approx(expected)


def test_error_after_one_backup_is_epsilon_plus_gamma_epsilon() -> None:
    assert monitor.compounded_error(2.0, 0.9, backups=0) == pytest.approx(2.0)
    assert monitor.compounded_error(2.0, 0.9, backups=1) == pytest.approx(3.8)


def _episodes(rewards: list[list[float]], terminated: bool = True) -> Episodes:
    lengths = [len(each) for each in rewards]
    n = sum(lengths)
    return Episodes.from_arrays(
        np.arange(n, dtype=float)[:, None], np.arange(n) % 2, np.concatenate(rewards),
        np.repeat(np.arange(len(rewards)), lengths), np.full(len(rewards), terminated),
        np.zeros((len(rewards), 1)), n_actions=2,
    )  # fmt: skip


def test_an_outcome_at_the_end_is_not_added_up_over_the_stay() -> None:
    found = monitor.bound(_episodes([[-0.1, -0.1, 1.0], [-0.1, -1.0]]), 1.0)
    assert (found.low, found.high) == (pytest.approx(-1.2), pytest.approx(1.0))


def test_rewards_at_every_step_add_up_to_the_longest_stay() -> None:
    assert monitor.bound(_episodes([[1.0, 1.0, 1.0], [0.0]]), 0.5).high == pytest.approx(1.75)


def test_without_an_end_only_the_discount_bounds() -> None:
    assert monitor.bound(_episodes([[1.0, 1.0]], terminated=False), 0.9).high == pytest.approx(10.0)


def _watch() -> monitor.Watch:
    prepared = batches.prepare(probes.clinic(), 0.0, 1.0, 0)
    return monitor.watch(prepared, 0.9, 0)


def test_share_excess_and_epsilon_by_hand() -> None:
    at = _watch()
    assert at.bound == Bound(-1.0, 1.0)
    values = torch.zeros(len(at.state), 4)
    values[: len(at.state) // 4, 2] = 3.0 / at.scale
    row = monitor.look(lambda _: values, at)
    assert row["q_max"] == pytest.approx(3.0)
    assert row["q_above"] == pytest.approx(0.25)
    assert (row["excess"], row["epsilon"]) == (pytest.approx(2.0), pytest.approx(0.2))
    assert monitor.summary([row | {"update": 1.0}], at, 1)["verdict"] == "overestimates"


@pytest.mark.parametrize("worst", [100.0, -100.0, float("nan"), float("inf")])
def test_values_far_outside_have_exploded(worst: float) -> None:
    at = _watch()
    row = monitor.look(lambda _: torch.full((len(at.state), 4), worst), at)
    assert monitor.exploded(row, at)


def test_values_inside_are_within_bounds() -> None:
    at = _watch()
    row = monitor.look(lambda _: torch.full((len(at.state), 4), 0.5), at)
    assert not monitor.exploded(row, at)
    assert monitor.summary([row | {"update": 1.0}], at, 1)["verdict"] == "within bounds"


def test_what_thrown_away_weights_believed_does_not_count_unless_it_exploded() -> None:
    at = _watch()
    low, high, far = ({**monitor.look(lambda _, v=v: torch.full((len(at.state), 4), v), at)} for v in (0.5, 3.0, 100.0))
    first, later = low | {"update": 1.0}, high | {"update": 2.0}
    assert monitor.summary([first, later], at, 1)["verdict"] == "within bounds"
    assert monitor.summary([first, later], at, 2)["verdict"] == "overestimates"
    assert monitor.summary([first, far | {"update": 2.0}], at, 1)["verdict"] == "exploded"


@pytest.mark.parametrize(
    ("before", "best", "verdict"),
    [
        ("within bounds", 1.5, "overestimates"),
        ("within bounds", 0.5, "within bounds"),
        ("exploded", 0.5, "exploded"),
    ],
)
def test_only_values_that_may_be_served_are_asked_of_an_extracted_policy(
    before: str, best: float, verdict: str
) -> None:
    told = {"verdict": before, "bound_low": -1.0, "bound_high": 1.0}
    q, supported = np.array([[best, 9.0], [0.0, 9.0]]), np.array([[True, False], [True, False]])
    found = monitor.with_served(told, q, supported)
    assert (found["verdict"], found["served_above"]) == (verdict, 0.5 if best > 1 else 0.0)


@pytest.mark.parametrize("name", ["dqn", "sac"])
def test_a_naive_learner_on_few_data_explodes_and_is_stopped_and_marked(name: str) -> None:
    options = probes.SMALL | {"hidden": (32,), "batch": 16, "updates": 300, "evaluate_every": 20, "learning_rate": 0.1}
    ward = probes.clinic(patients=30, d=2, n_actions=12)
    fitted = policy.fit(name, ward, options | {"target_update_interval": 1, "n_critics": 1})
    assert fitted.notes["ended"] == "exploded"
    assert fitted.notes["overestimation"]["verdict"] == "exploded"
    assert fitted.notes["updates"] < 300


def test_iql_on_the_same_data_stays_within_bounds() -> None:
    options = probes.SMALL | {"hidden": (32,), "batch": 16, "updates": 300, "evaluate_every": 20, "learning_rate": 0.01}
    fitted = policy.fit("iql", probes.clinic(patients=30, d=2, n_actions=12), options | {"tau": 0.5})
    assert fitted.notes["ended"] == "complete"
    assert fitted.notes["overestimation"]["verdict"] != "exploded"
