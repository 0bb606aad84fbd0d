"""Three reports side by side: an honest run, one with too few patients, and one whose policy must be refused."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from app import run as pipeline
from app.run import Request, RunConfig
from cohort import artifact
from cohort.config import parse
from ope import documents, evaluation, gates, words
from ope.evaluation import Beside, EvaluationConfig
from ope.fqe import FqeConfig
from ope.twin import TwinConfig
from policy.behaviour import BehaviourConfig
from tests import small_run
from tests.small_run import COHORT, OPE, POLICY

HOSPITAL: dict[str, Any] = {
    "name": "three",
    "seed": 1,
    "hospital": {"n_stays": 1200, "shard_stays": 600, "charting": {"other_rows": False}},
    "source": {"kind": "mimic_iv"},
    "cohort": {},
    "learners": {"bc": {"updates": 1000}, "dqn": {"updates": 3000}},
    "evaluation": {},
}
"""Enough patients to be judged, and a deep Q-learner without any safeguard, which believes what it made up."""


def judged(out: Path, main: str) -> str:
    """Evaluate a run's policies, make its report, and return the page."""
    config = EvaluationConfig(
        main=main,
        n_bootstrap=200,
        behaviour=BehaviourConfig(folds=2, updates=1000),
        fqe=FqeConfig(updates=100, members=2, hidden=(16,)),
        twin=TwinConfig(groups=10, repeats=4, n_bootstrap=50),
    )
    policies = {path.name: path for path in sorted((out / POLICY).iterdir())}
    inputs = {COHORT: out / COHORT, **{f"{POLICY}/{name}": path for name, path in policies.items()}}
    settings = config.model_dump(mode="json")
    with artifact.writing(out / OPE, "evaluation", settings, inputs, 0, overwrite=True) as draft:
        evaluation.write(draft.path, out / COHORT, policies, config, 0, Beside())
    with artifact.writing(out / "report", "report", {}, {OPE: out / OPE}, 0, overwrite=True) as draft:
        documents.write(out, draft.path, paper=False)
    documents.check(out, out / "report")
    return (out / "report" / "report.html").read_text()


def found(out: Path) -> tuple[str, str]:
    """The verdict and the code of the gate that binds it, from the report's own data."""
    files = json.loads((out / "report" / "report.json").read_text())["files"]
    verdict = files["ope/evaluation.json"]["content"]["verdict"]
    return verdict["verdict"], verdict["binding"]["code"]


def cover(page: str) -> str:
    """What stands in the box on top of the page, without marks."""
    return " ".join(re.sub(r"<[^>]+>", " ", page.split('<section id="verdict"')[1].split("</section>")[0]).split())


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the simulated hospital up to its trained policies, with more than 200 patients to be judged on."""
    request = Request(parse(HOSPITAL, RunConfig, name="three"), tmp_path_factory.mktemp("three") / "run")
    for stage in (pipeline.simulate_stage(request), pipeline.cohort_stage(request)):
        pipeline.alone(request, [stage])
    pipeline.alone(request, pipeline.train_stages(request))
    return request.out


def test_too_few_patients_are_the_binding_constraint_and_every_estimate_is_withheld(tmp_path: Path) -> None:
    out = small_run.make(tmp_path / "run")
    page = judged(out, "iql")
    assert found(out) == (gates.INSUFFICIENT, "too_few_patients")
    assert "Insufficient evidence" in cover(page)
    assert f"Binding constraint: {words.GATES['too_few_patients'].name}." in cover(page)
    assert "Lifted by</b> records of more patients" in page


@pytest.mark.slow
def test_an_honest_run_says_that_its_evidence_is_too_thin_and_names_what_decided(large: Path) -> None:
    page = judged(large, "bc")
    verdict, binding = found(large)
    assert verdict in (gates.INSUFFICIENT, gates.ELIGIBLE)
    assert binding not in gates.NOT_FOR_WANT_OF_DATA | {"too_few_patients"}
    assert words.VERDICTS[verdict][1] in cover(page)
    assert f"Binding constraint: {words.GATES[binding].name}." in cover(page)


@pytest.mark.slow
def test_an_overestimating_policy_without_a_mask_is_refused_for_doses_that_nobody_gives(large: Path) -> None:
    page = judged(large, "dqn")
    assert found(large) == (gates.REFUSED, "unsupported")
    assert 'class="verdict bad"' in page
    assert "Refused" in cover(page)
    assert f"Binding constraint: {words.GATES['unsupported'].name}." in cover(page)
    assert re.search(r"(overestimates|exploded) <span", page), "its own values are called what they are"
