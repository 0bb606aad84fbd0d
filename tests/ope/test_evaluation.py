"""Evaluation: the document of a small simulated cohort, and the policies it refuses to look at."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cohort import artifact, build, trajectories
from cohort.config import parse
from cohort.errors import ArtifactError, ConfigError, InputError
from ope import evaluation, gates, self_test, subjects, treated
from ope.evaluation import Beside, EvaluationConfig
from ope.fqe import FqeConfig
from ope.gates import GateConfig
from ope.hazards import HAZARDS
from ope.treated import Treated
from ope.twin import TwinConfig
from policy.behaviour import BehaviourConfig
from tests.ope.test_estimates import OPEN

QUICK = {
    "n_bootstrap": 100,
    "behaviour": BehaviourConfig(hidden=(16,), updates=60, min_updates=0, folds=2),
    "fqe": FqeConfig(hidden=(16,), updates=60, members=2),
    "twin": TwinConfig(groups=8, repeats=3, n_bootstrap=20),
}


@pytest.fixture(scope="module")
def document(cohort_dir: Path, policies: dict[str, Path]) -> dict[str, Any]:
    return evaluation.run(cohort_dir, policies, EvaluationConfig(**QUICK), 0)


@pytest.fixture(scope="module")
def opened(
    cohort_dir: Path, policies: dict[str, Path], behaviour: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """The same with gates so wide that every number is printed, as served too, and beside what treating returned."""
    rollouts = tmp_path_factory.mktemp("treated") / "rollouts"
    names = ["clinicians", *policies, *evaluation.CONTROLS]
    with artifact.writing(rollouts, "rollouts", {}) as draft:
        treated.write(draft.path, 50, {name: Treated(k / 10, 0.1, k / 10, 0.1) for k, name in enumerate(names)})
    return evaluation.run(cohort_dir, policies, EvaluationConfig(gates=OPEN, **QUICK), 0, Beside(behaviour, rollouts))


def every_estimate(found: dict[str, Any]) -> list[dict[str, Any]]:
    own = [one for entry in found["policies"].values() for one in entry["estimates"]]
    pairs = [one for entry in found["policies"].values() for pair in entry["against"].values() for one in pair]
    return [found["clinicians"]["estimate"], *own, *pairs]


def test_the_document_is_json_without_nan(document: dict[str, Any]) -> None:
    assert json.loads(json.dumps(document, allow_nan=False)) == document


def test_thirty_patients_print_no_value_at_all(document: dict[str, Any]) -> None:
    assert document["cohort"]["patients"] < 200
    for one in every_estimate(document):
        assert (one["value"], one["low"], one["high"]) == (None, None, None)
        assert one["withheld"].startswith("too_few_patients: ")
    assert document["verdict"]["verdict"] == gates.INSUFFICIENT
    assert document["verdict"]["binding"]["code"] == "too_few_patients"


def test_every_number_or_its_reason_is_there_and_never_both(opened: dict[str, Any]) -> None:
    for one in every_estimate(opened):
        assert (one["value"] is None) == (one["withheld"] is not None)
    printed = [one for one in opened["policies"]["bc"]["estimates"] if one["value"] is not None]
    assert printed


def test_a_control_has_no_model_based_number_and_says_so(opened: dict[str, Any]) -> None:
    found = {one["estimator"]: one["withheld"] for one in opened["policies"]["random"]["estimates"]}
    assert set(found) == set(opened["config"]["estimators"])
    assert found["wdr"].startswith("no_model: Q is fitted neither for controls")
    pair = {one["estimator"]: one for one in opened["policies"]["random"]["against"]["bc"]}
    assert (pair["wdr"]["value"], pair["wdr"]["withheld"]) == (None, found["wdr"])


def test_the_controls_and_the_baseline_are_compared(document: dict[str, Any]) -> None:
    assert set(document["policies"]) == {"bc", "iql", "random", "zero_drug", "maximum_dose"}
    assert set(document["policies"]["iql"]["against"]) == {"clinicians", "bc"}
    assert set(document["policies"]["bc"]["against"]) == {"clinicians"}
    assert "verdict" not in document["policies"]["random"]


def test_a_paired_difference_is_the_difference_of_the_values(opened: dict[str, Any]) -> None:
    clinicians = opened["clinicians"]["estimate"]["value"]
    entry = opened["policies"]["bc"]
    values = {one["estimator"]: one["value"] for one in entry["estimates"]}
    for one in entry["against"]["clinicians"]:
        if one["value"] is not None:
            assert one["value"] == pytest.approx(values[one["estimator"]] - clinicians)


def test_the_thresholds_are_recorded_with_their_hash(document: dict[str, Any]) -> None:
    gates.require_unchanged(document["gates"], GateConfig())
    assert all(check["passed"] for check in document["self_test"])


def test_an_evaluation_is_read_by_the_thresholds_that_were_written_before_it(
    cohort_dir: Path, policies: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gates.json is there before a policy is looked at, and an edit of either file is refused, whole hashes or not."""

    def remade(name: str, **edit: object) -> Path:
        with artifact.writing(tmp_path / name, "evaluation", {}) as draft:
            gates.write(draft.path, GateConfig())
            document = {"version": evaluation.VERSION, "gates": gates.record(GateConfig()), **edit}
            artifact.write_json(draft.path / evaluation.FILE, document)
        return tmp_path / name

    assert evaluation.read(remade("whole"))["version"] == evaluation.VERSION
    with pytest.raises(ArtifactError, match="not of version"):
        evaluation.read(remade("old", version=1))
    with pytest.raises(ArtifactError, match="not the thresholds that the evaluation was made with"):
        evaluation.read(remade("wide", gates=gates.record(GateConfig(min_ess=1))))
    edited = remade("edited") / gates.FILE
    edited.write_text(edited.read_text() + " ")
    with pytest.raises(ArtifactError, match=r"gates\.json: its hash differs"):
        evaluation.read(edited.parent)
    monkeypatch.setattr(evaluation, "run", lambda *_: {"thresholds": (tmp_path / gates.FILE).is_file()})
    assert evaluation.write(tmp_path, cohort_dir, policies, EvaluationConfig(**QUICK), 0) == {"thresholds": True}


def test_the_clinicians_model_is_judged_in_every_subgroup(document: dict[str, Any]) -> None:
    found = document["behaviour"]["by_subgroup"]
    assert {one["feature"] for one in found} == {"sofa", "lactate", "map", "age_years", "sex_male", "care_unit"}
    assert all((one["by_drug"] is None) == (one["patients"] < 10) for one in found)
    units = [one for one in found if one["feature"] == "care_unit"]
    assert all(one["label"] and one["low"] is None for one in units)


def test_doses_partly_read_are_counted_and_compared_with_nothing(document: dict[str, Any], cohort_dir: Path) -> None:
    table = trajectories.read(cohort_dir, ["dose_unknown"], "evaluate")["dose_unknown"].to_numpy()
    assert document["cohort"]["dose_unknown"] == table.sum() > 0
    units = [one for one in document["behaviour"]["by_subgroup"] if one["feature"] == "care_unit"]
    assert sum(one["decisions"] for one in units) == (~table).sum()
    bins = document["behaviour"]["by_drug"]["fluid"]
    assert sum(one["count"] for one in bins) == (~table).sum()


def test_a_failed_self_test_refuses_every_policy(
    cohort_dir: Path, policies: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(self_test.ORACLES, "broken", lambda: iter([("wis", 1.0)]))
    found = evaluation.run(cohort_dir, policies, EvaluationConfig(gates=OPEN, **QUICK), 0)
    assert found["verdict"]["verdict"] == gates.REFUSED
    assert found["verdict"]["binding"]["code"] == "self_test"
    assert all(one["value"] is None for entry in found["policies"].values() for one in entry["estimates"])


def test_a_policy_of_another_cohort_or_split_is_refused(
    cohort_dir: Path, policies: dict[str, Path], tmp_path: Path
) -> None:
    with artifact.writing(tmp_path / "stranger", "policy", {}, {"cohort": policies["bc"]}) as draft:
        (draft.path / "x").write_text("")
    with pytest.raises(InputError, match="policy p: trained on another cohort"):
        evaluation.run(cohort_dir, {"p": tmp_path / "stranger"}, EvaluationConfig(**QUICK), 0)
    with artifact.writing(tmp_path / "peeked", "policy", {}, {"cohort": cohort_dir}) as draft:
        draft.notes["split"] = "evaluate"
    with pytest.raises(InputError, match="trained on the 'evaluate' split"):
        evaluation.run(cohort_dir, {"p": tmp_path / "peeked"}, EvaluationConfig(**QUICK), 0)
    with pytest.raises(ArtifactError, match=r"no manifest\.json"):
        evaluation.run(cohort_dir, {"p": tmp_path / "absent"}, EvaluationConfig(**QUICK), 0)


def test_the_main_policy_must_be_there(cohort_dir: Path, policies: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="main: 'bear' is not among the policies: bc, iql"):
        evaluation.run(cohort_dir, policies, EvaluationConfig(main="bear", **QUICK), 0)


def test_a_wrong_configuration_is_refused() -> None:
    with pytest.raises(ConfigError, match="estimator"):
        parse({"estimators": ["ips"]}, EvaluationConfig, "evaluation")
    with pytest.raises(ConfigError, match="primary"):
        parse({"estimators": ["is"], "primary": "wis", "fqe": None}, EvaluationConfig, "evaluation")
    with pytest.raises(ConfigError, match="primary: magic leans on the model"):
        parse({"primary": "magic"}, EvaluationConfig, "evaluation")
    with pytest.raises(ConfigError, match="fqe: null, but dm need it"):
        parse({"estimators": ["wis", "dm"], "primary": "wis", "fqe": None}, EvaluationConfig, "evaluation")
    with pytest.raises(ConfigError, match="unknown key"):
        parse({"n_boot": 3}, EvaluationConfig, "evaluation")


def test_a_constant_policy_answers_alike_in_every_state() -> None:
    probs = subjects.constant(np.array([0.25, 0.75], np.float32), np.zeros((3, 4)))
    assert probs.tolist() == [[0.25, 0.75]] * 3


def test_what_supports_a_number_is_withheld_with_it(document: dict[str, Any], opened: dict[str, Any]) -> None:
    for entry in document["policies"].values():
        assert entry.get("supporting") is None
    assert document["policies"]["bc"]["supporting_withheld"].startswith("too_few_patients")
    assert (document["ranks"], document["simultaneous"]) == (None, None)
    shown = [entry["supporting"] for entry in opened["policies"].values() if entry.get("supporting")]
    assert shown
    assert set(shown[0]) == {"tipping_gamma", "influence", "lower_bound", "discounts", "poorly_supported_gain"}
    hangs_on = shown[0]["influence"]
    assert hangs_on["estimator"] == opened["config"]["primary"] == "wdr"
    changes = [abs(case["change"]) for case in hangs_on["cases"]]
    assert len(changes) == 5
    assert changes == sorted(changes, reverse=True)
    for case in hangs_on["cases"]:
        assert set(case) == {"change", "weight_share", "return", "decisions", "mean_agreement", "largest_ratio"}
    assert np.sum(opened["ranks"]["probability"], axis=0) == pytest.approx(np.ones(len(opened["ranks"]["policies"])))


def test_what_a_policy_does_is_shown_whatever_it_is_worth(document: dict[str, Any]) -> None:
    entry = document["policies"]["maximum_dose"]
    assert entry["divergence"]["overall"]["fluid_shift_ml"]["value"] > 0
    assert entry["divergence"]["shape"] == [5, 5]
    rows = [row for row in entry["divergence"]["shift"] if row is not None]
    assert all(sum(row[:-1]) == 0 for row in rows)
    assert {one["name"] for one in entry["hazards"]} == set(HAZARDS)


def test_no_cell_holds_fewer_patients_than_allowed(document: dict[str, Any]) -> None:
    cells = document["policies"]["bc"]["divergence"]["strata"]
    assert any(cell["means"] is None for cell in cells)
    assert all((cell["means"] is None) == (cell["patients"] < 10) for cell in cells)


def test_the_policy_as_served_is_evaluated_beside_the_plain_one(
    document: dict[str, Any], opened: dict[str, Any]
) -> None:
    assert document["served"] is None
    found = opened["served"]
    assert (found["policy"], found["decisions"]) == (opened["verdict"]["policy"], opened["cohort"]["decisions"])
    assert set(found["ways"]) == {"served_drawn", "served_likeliest"}
    assert 0 < sum(found["silent"].values()) <= found["decisions"]
    drawn, likeliest = (found["ways"][way]["overlap"]["ess"] for way in ("served_drawn", "served_likeliest"))
    assert drawn != likeliest
    for way in found["ways"].values():
        assert {one["estimator"] for one in way["estimates"]} == set(opened["config"]["estimators"])
        assert way["verdict"] in (gates.REFUSED, gates.INSUFFICIENT, gates.ELIGIBLE)


def test_estimates_stand_beside_what_treating_returned(document: dict[str, Any], opened: dict[str, Any]) -> None:
    assert document["rollouts"] is None
    found = opened["rollouts"]
    assert found["stays"] == 50
    assert found["truths"]["iql"] == {"value": 0.2, "error": 0.1, "difference": 0.2, "difference_error": 0.1}
    grades = {one["estimator"]: one for one in found["grades"]}
    assert set(grades) == set(opened["config"]["estimators"])
    assert grades["wdr"]["policies"] == 2
    estimates = {name: entry["estimates"] for name, entry in opened["policies"].items()}
    wdr = {name: one["value"] for name, all_ in estimates.items() for one in all_ if one["estimator"] == "wdr"}
    assert grades["wdr"]["bias"] == pytest.approx((wdr["bc"] - 0.1 + wdr["iql"] - 0.2) / 2)


def test_the_certificate_grades_every_policy_and_estimator(document: dict[str, Any]) -> None:
    grades = document["certificate"]["grades"]
    assert {(one["policy"], one["estimator"]) for one in grades} == {
        (policy, estimator) for policy in document["policies"] for estimator in document["config"]["estimators"]
    }


def test_no_patient_is_named(document: dict[str, Any], cohort_dir: Path) -> None:
    text = json.dumps(document)
    for patient in set(build.episodes(cohort_dir, "evaluate").patient.tolist()):
        assert str(patient) not in text


def test_too_few_decisions_for_a_twin_leave_no_certificate_and_do_not_stop_the_evaluation(
    cohort_dir: Path, policies: dict[str, Path], behaviour: Path
) -> None:
    large = EvaluationConfig(gates=OPEN, **{**QUICK, "twin": {"groups": 500}})
    document = evaluation.run(cohort_dir, policies, large, 0, Beside(behaviour))
    assert document["certificate"] is None
