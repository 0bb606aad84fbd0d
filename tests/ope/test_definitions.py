"""Definitions: the analysis repeated on another cohort of the same patients, and what moved."""

from pathlib import Path
from typing import Any

import pytest

from cohort import artifact
from cohort.build import CohortConfig
from cohort.config import parse
from cohort.errors import ArtifactError, InputError
from cohort.multiverse import MultiverseConfig
from ope import definitions, evaluation
from ope.evaluation import Beside
from ope.setting import EvaluationConfig
from policy import bc
from policy.behaviour import BehaviourConfig
from tests.ope.test_estimates import OPEN

QUICK = EvaluationConfig(
    gamma=0.9, n_bootstrap=100, estimators=("wis",), primary="wis", fqe=None, twin=None, gates=OPEN,
    behaviour=BehaviourConfig(hidden=(8,), updates=30, min_updates=0, folds=2),
)  # fmt: skip
LEARNER = ("bc", bc.Config(hidden=(8,), updates=30, min_updates=0))


def under(cohort_dir: Path, scratch: Path, **variants: object) -> list[dict[str, Any]]:
    asked = parse({"variants": variants}, MultiverseConfig, "definitions")
    return definitions.run(cohort_dir / "canonical", scratch, asked, LEARNER, QUICK, 3)


@pytest.fixture(scope="module")
def rows(cohort_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    scratch = tmp_path_factory.mktemp("definitions") / "scratch"
    found = under(cohort_dir, scratch, steps={"grid": {"step_hours": 2}}, no_cost={"reward": {"cost_per_icu_hour": 0}})
    assert not scratch.exists()
    return found


@pytest.mark.slow
def test_each_definition_has_a_row_and_says_what_it_moves(rows: list[dict[str, Any]]) -> None:
    assert [row["name"] for row in rows] == ["base", "steps", "no_cost"]
    base, steps, no_cost = rows
    assert base["moved"] == 0
    for row in rows:
        assert row["moved"] == pytest.approx(row["difference"]["value"] - base["difference"]["value"])
    assert (base["patients"], base["decisions"]) == (no_cost["patients"], no_cost["decisions"])
    assert steps["decisions"] > 1.8 * base["decisions"]
    assert no_cost["clinicians"]["value"] > base["clinicians"]["value"]


@pytest.mark.slow
def test_a_discount_is_kept_per_hour(rows: list[dict[str, Any]]) -> None:
    assert [row["gamma"] for row in rows] == pytest.approx([0.9, 0.9**0.5, 0.9])


def test_a_definition_that_leaves_nobody_is_named(cohort_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="definitions: nobody: "):
        under(cohort_dir, tmp_path / "s", nobody={"selection": {"minimum_age": 120}})


@pytest.mark.slow
def test_rows_are_part_of_the_evaluation_of_the_same_cohort_only(
    cohort_dir: Path, policies: dict[str, Path], tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    def written(name: str, cohort: Path | str) -> Beside:
        with artifact.writing(tmp_path / name, "definitions", {}, {"cohort": cohort}) as draft:
            artifact.write_json(draft.path / evaluation.DEFINITIONS, rows)
        return Beside(definitions=tmp_path / name)

    document = evaluation.run(cohort_dir, {"bc": policies["bc"]}, QUICK, 0, written("own", cohort_dir))
    assert document["definitions"] == rows
    with pytest.raises(ArtifactError, match="made from another cohort"):
        evaluation.run(cohort_dir, {"bc": policies["bc"]}, QUICK, 0, written("other", "0" * 64))


def test_the_definitions_that_are_delivered_are_the_ones_that_matter() -> None:
    from cohort.config import load

    delivered = load(Path(__file__).parents[2] / "configs" / "definitions.yaml", MultiverseConfig)
    base = CohortConfig()
    variants = delivered.variants.values()
    assert {one.grid.step_hours for one in variants} == {1, 2, 4}
    for part in ("reward", "grid", "actions"):
        assert any(getattr(one, part) != getattr(base, part) for one in variants)
    assert any(one.grid.horizon_hours != base.grid.horizon_hours for one in variants)
    assert any(one.grid.gcs_rule != base.grid.gcs_rule for one in variants)
