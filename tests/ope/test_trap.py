"""The trap: the policy that looks best on the log is far from the clinicians and worse than it looks: withheld."""

import os
from pathlib import Path

import numpy as np
import pytest

import ope
from cohort.scaler import Scaler
from ope import tabular
from ope.tabular import Problem

HORIZON, STATES, ACTIONS = 12, 8, 5


def world(seed: int) -> tuple[Problem, np.ndarray]:
    """A random problem with an outcome near 0 or 1 at its end, and stochastic clinicians."""
    rng = np.random.default_rng(seed)
    transition = rng.dirichlet(np.full(STATES, 0.5), (STATES, ACTIONS)) * 0.9
    reward = rng.beta(0.5, 0.5, (STATES, 1)) * 0.1 + rng.normal(0, 0.01, (STATES, ACTIONS))
    behaviour = rng.dirichlet(np.full(ACTIONS, 2.0), STATES)
    return Problem(np.full(STATES, 1 / STATES), transition, reward, HORIZON, np.full((STATES, ACTIONS), 0.2)), behaviour


def evaluated(log: tabular.Log, policy: np.ndarray, behaviour: np.ndarray, gates: object = None) -> ope.Estimate:
    found = ope.evaluate(
        log.episodes, policy[log.place], behaviour[log.place], 1.0, estimators=["wis"], n_bootstrap=300, gates=gates
    )
    return found[0]


def test_the_best_looking_of_many_deterministic_policies_is_withheld_and_worse_than_it_looks() -> None:
    problem, behaviour = world(0)
    log = tabular.draw(problem, behaviour, 10_000, np.random.default_rng(1))
    rng = np.random.default_rng(2)
    policies = [np.eye(ACTIONS)[rng.integers(0, ACTIONS, STATES)] for _ in range(60)]
    naive = [evaluated(log, policy, behaviour, gates=False) for policy in policies]
    best = int(np.argmax([one.value if one.value is not None else -np.inf for one in naive]))
    truth = tabular.value(problem, policies[best], 1.0)
    assert naive[best].value > truth + 0.1
    assert naive[best].ess < 200
    shown = evaluated(log, policies[best], behaviour)
    assert (shown.value, shown.low, shown.high) == (None, None, None)
    assert shown.withheld.split(":")[0] in {"low_ess", "low_ess_share", "weight_share", "unsupported", "mean_weight"}


def test_printed_intervals_rarely_miss_the_truth_and_never_by_far() -> None:
    """60 worlds, policies near to the clinicians and far from them: at most 7% of what is printed misses."""
    printed, missed, far, withheld = 0, 0, 0, 0
    for seed in range(60):
        problem, behaviour = world(seed)
        rng = np.random.default_rng(seed + 100)
        log = tabular.draw(problem, behaviour, 2000, rng)
        for step in (2, 5):
            other = rng.dirichlet(np.full(ACTIONS, 0.3), STATES)
            policy = (1 - step / 7) * behaviour + step / 7 * other
            found = evaluated(log, policy, behaviour)
            if found.value is None:
                withheld += 1
                continue
            truth = tabular.value(problem, policy, 1.0)
            error = (found.high - found.low) / (2 * 1.96)
            printed += 1
            missed += not found.low <= truth <= found.high
            far += abs(found.value - truth) > 3 * error
    assert printed >= 30
    assert withheld >= 30
    assert missed <= 0.07 * printed
    assert far == 0


class Linear:
    """A deterministic policy: the largest of random linear scores of the scaled state."""

    def __init__(self, seed: int, scaler: Scaler) -> None:
        self.scaler = scaler
        self.weight = np.random.default_rng(seed).normal(size=(len(scaler.mean), 25))

    def probs(self, state: np.ndarray) -> np.ndarray:
        best = (self.scaler.transform(state) @ self.weight).argmax(axis=1)
        return np.eye(25, dtype=np.float32)[best]


@pytest.mark.slow
def test_in_the_simulated_hospital_too(tmp_path: Path) -> None:
    """10,000 stays (or SUTURE_TRAP_STAYS): of 40 deterministic policies, the one with the highest wis on the evaluation
    patients is withheld, and its rollout is far below that wis."""
    from cohort import artifact, build, hospital, sources
    from policy import behaviour as behaviour_model

    n = int(os.environ.get("SUTURE_TRAP_STAYS", "10000"))
    hospital.simulate(tmp_path / "tables", tmp_path / "truth", hospital.HospitalConfig(n_stays=n), 0)
    with artifact.writing(tmp_path / "cohort", "cohort", {}, seed=0) as draft:
        sources.ingest(tmp_path / "tables", draft.path / "canonical", sources.SourceConfig(kind="mimic_iv"))
        build.build(draft.path / "canonical", draft.path, build.CohortConfig(), 0)
    episodes = build.episodes(tmp_path / "cohort", "evaluate")
    clinicians = behaviour_model.cross_fit(episodes, seed=0)
    policies = [Linear(seed, episodes.scaler) for seed in range(40)]
    naive = [
        ope.evaluate(episodes, one.probs(episodes.state), clinicians, 1.0, estimators=["wis"], gates=False)[0]
        for one in policies
    ]
    best = int(np.argmax([one.value if one.value is not None else -np.inf for one in naive]))
    shown = ope.evaluate(episodes, policies[best].probs(episodes.state), clinicians, 1.0, estimators=["wis"])[0]
    assert shown.value is None
    truth = hospital.rollout(policies[best], 1000, 1)
    assert naive[best].value > truth.mean_return + 4 * truth.se_return + 0.1
