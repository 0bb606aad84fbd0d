"""The simulated hospital is held to figures counted in real intensive care."""

import numpy as np
import pytest

from cohort.hospital import HospitalConfig, realism, simulation
from cohort.hospital.physiology import Latent
from cohort.hospital.population import Outcomes
from cohort.hospital.truth import Decisions

N = 1500


def test_stays_and_doses_are_within_a_quarter_of_the_real_figures() -> None:
    """A fixed seed and 1,500 stays; `benchmarks/realism.py` holds more stays to the same figures."""
    shard = simulation.admit(N, 0, 0, 11, HospitalConfig(shard_stays=N))
    log = simulation.DecisionLog()
    outcomes = simulation.course(shard, log).outcomes
    found = realism.figures(log.decisions(), outcomes)
    off = {name: value / realism.TARGETS[name] - 1 for name, value in found.items()}
    assert {name: share for name, share in off.items() if abs(share) > realism.TOLERANCE} == {}


def test_figures_by_hand() -> None:
    """Two stays, five decisions; the one at 72 h is past the horizon and is not counted."""
    n = 5
    none = np.zeros((n, 25))
    decisions = Decisions(
        stay_id=np.array([2, 1, 1, 1, 2]),
        hour=np.array([0, 4, 0, 8, 72]),
        style=np.zeros(n, np.int64),
        fluid=np.array([0, 1, 1, 3, 4]),
        vasopressor=np.array([0, 2, 1, 0, 4]),
        fluid_ml_h=np.array([0.0, 10.0, 10.0, 100.0, 300.0]),
        vasopressor_ug_kg_min=np.array([0.0, 0.06, 0.02, 0.0, 0.4]),
        propensity=none,
        mixture=none,
        latent=Latent(*(np.zeros(n) for _ in Latent.__dataclass_fields__)),
    )
    never = np.full(2, np.datetime64("NaT", "us"))
    outcomes = Outcomes(np.array([24.0, 96.0]), never, never, never, np.array([True, False]), np.array([True, False]))
    found = realism.figures(decisions, outcomes)
    assert found["windows with a vasopressor"] == 0.5
    assert found["stays ever on a vasopressor"] == 0.5
    assert found["vasopressor, median"] == pytest.approx(0.04)
    assert found["vasopressor again after a window with"] == 0.5
    assert np.isnan(found["vasopressor after a window without"])
    assert found["windows with fluid"] == 0.75
    assert found["fluid, median"] == 40.0
    assert found["windows with neither"] == 0.25
    assert found["fluid bin unchanged from the window before"] == 0.5
    assert found["hospital mortality"] == 0.5
    assert found["stay, median"] == 2.5
    assert found["in the ICU at 72 h"] == 0.5
