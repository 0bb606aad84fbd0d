"""Rollouts: the stage that lets policies treat simulated patients, and when a run has it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import policy.store
from app import rollouts
from app import run as pipeline
from app.rollouts import Rolled, RolloutConfig
from app.run import Request, load_config
from cohort import artifact, dictionary
from cohort.build import CohortConfig
from cohort.errors import ConfigError
from cohort.grid import GridConfig
from cohort.hospital import HospitalConfig
from cohort.hospital.rollouts import returns
from ope import treated

SHORT = HospitalConfig(longest_stay_hours=80)


@pytest.fixture(scope="module")
def written(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("rollouts") / "rollouts"
    rolled = Rolled(SHORT, CohortConfig(), 0.9, 20, 7)
    with artifact.writing(out, "rollouts", {}) as draft:
        known = dictionary.load(tiny_run / "cohort" / "dictionary.json")
        told: list[tuple[int, int]] = []
        rollouts.write(
            draft, {"bc": tiny_run / "policy" / "bc"}, known, rolled, lambda done, of: told.append((done, of))
        )
    assert told == [(done, 5) for done in range(1, 6)]
    return out


def test_everyone_who_is_evaluated_treats_the_same_patients(written: Path, tiny_run: Path) -> None:
    found = artifact.read_json(written / treated.FILE)
    assert found["stays"] == 20
    assert set(found["policies"]) == {"clinicians", "bc", "random", "zero_drug", "maximum_dose"}
    assert found["policies"]["clinicians"]["difference"] == 0
    served = policy.store.load(tiny_run / "policy" / "bc")
    each = returns(served, 20, 7 + 1_000_003, SHORT, gamma=0.9)
    value = each.value[each.hours >= 4]
    assert found["policies"]["bc"]["value"] == pytest.approx(value.mean())
    own = returns(None, 20, 7 + 1_000_003, SHORT, gamma=0.9).value
    assert np.abs(each.value - own).max() > 0


def test_a_run_has_the_stage_where_its_hospital_is_simulated_and_asked_for_it(
    tiny_config: Path, tmp_path: Path
) -> None:
    plain = load_config(tiny_config)
    asked = plain.model_copy(update={"rollouts": RolloutConfig(n_stays=20)})
    names = [stage.name for group in pipeline.stages(Request(asked, tmp_path)) for stage in group]
    assert names.index("rollouts") == names.index("ope") - 1
    assert "rollouts" in pipeline.evaluate_stage(Request(asked, tmp_path)).inputs
    for request in (Request(plain, tmp_path), Request(asked, tmp_path, source=tmp_path)):
        assert not pipeline.rolls_out(request)
        assert "rollouts" not in pipeline.evaluate_stage(request).inputs
    with pytest.raises(ConfigError, match="rollouts: need a simulated hospital"):
        pipeline.rollout_stage(replace(Request(asked, tmp_path), config=asked.model_copy(update={"hospital": None})))


def test_a_cohort_whose_steps_are_not_the_hospitals_has_no_true_value(tmp_path: Path, tiny_run: Path) -> None:
    rolled = Rolled(SHORT, CohortConfig(grid=GridConfig(step_hours=2)), 0.9, 20, 7)
    known = dictionary.load(tiny_run / "cohort" / "dictionary.json")
    with (
        pytest.raises(ConfigError, match="rollout: grid of 2 h"),
        artifact.writing(tmp_path / "r", "rollouts", {}) as draft,
    ):
        rollouts.write(draft, {}, known, rolled, lambda _done, _of: None)
