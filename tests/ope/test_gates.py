"""Gates: each threshold, the order of verdicts, and that they cannot be edited unseen."""

from pathlib import Path

import pytest

from cohort.config import parse
from cohort.errors import ArtifactError, ConfigError
from ope import gates
from ope.gates import Gate, GateConfig
from ope.interval import Interval
from ope.overlap import Overlap

FINE = Overlap(
    n_episodes=1000, n_patients=900, ess=500.0, ess_per_step=(500.0,), largest_share=0.01, mean_weight=1.0,
    mean_weight_per_step=(1.0,), unsupported=0.01,
)  # fmt: skip
BETTER, UNSURE, WORSE = Interval(0.1, 0.05, 0.2), Interval(0.1, -0.1, 0.2), Interval(-0.1, -0.2, -0.05)


def changed(**fields: float) -> Overlap:
    return Overlap(**{**FINE.__dict__, **fields})


def test_good_overlap_passes_every_gate() -> None:
    assert gates.withheld(gates.check_overlap(FINE, GateConfig())) is None


@pytest.mark.parametrize(
    ("code", "fields"),
    [
        ("too_few_patients", {"n_patients": 199}),
        ("low_ess", {"ess": 199.9}),
        ("low_ess_share", {"ess": 250.0, "n_episodes": 20_000}),
        ("weight_share", {"largest_share": 0.051}),
        ("mean_weight", {"mean_weight": 0.79}),
        ("mean_weight", {"mean_weight": 1.26}),
        ("unsupported", {"unsupported": 0.051}),
    ],
)
def test_each_threshold_withholds_with_its_code_and_the_figures(code: str, fields: dict[str, float]) -> None:
    reason = gates.withheld(gates.check_overlap(changed(**fields), GateConfig()))
    assert reason is not None
    assert reason.startswith(f"{code}: ")


@pytest.mark.parametrize(
    ("fields", "difference", "verdict", "code"),
    [
        ({}, BETTER, gates.ELIGIBLE, "low_ess"),
        ({}, UNSURE, gates.INSUFFICIENT, "includes_zero"),
        ({}, WORSE, gates.REFUSED, "worse_than_clinicians"),
        ({"ess": 100.0}, None, gates.INSUFFICIENT, "low_ess"),
        ({"ess": 100.0, "unsupported": 0.5}, None, gates.REFUSED, "unsupported"),
        ({"n_patients": 27, "unsupported": 0.5}, None, gates.INSUFFICIENT, "too_few_patients"),
    ],
)
def test_the_verdict_names_the_gate_that_binds(
    fields: dict[str, float], difference: Interval | None, verdict: str, code: str
) -> None:
    decided, binding = gates.decide(gates.check_overlap(changed(**fields), GateConfig(min_ess=450)), difference)
    assert (decided, binding.code) == (verdict, code)


def test_no_verdict_says_safe_or_deploy() -> None:
    for verdict in (gates.REFUSED, gates.INSUFFICIENT, gates.ELIGIBLE):
        assert not any(word in verdict for word in ("safe", "deploy", "approved"))


def test_a_failed_refusing_gate_binds_before_any_other() -> None:
    failed = [Gate("low_ess", 1.0, ">= 2", False, ""), Gate("self_test", 0.0, "", False, "")]
    assert gates.decide(failed, None)[1].code == "self_test"


def test_thresholds_edited_after_an_evaluation_are_found() -> None:
    config = GateConfig()
    recorded = {"config": config.model_dump(mode="json"), "sha256": gates.digest(config)}
    gates.require_unchanged(recorded, config)
    with pytest.raises(ArtifactError, match="edited after the evaluation"):
        gates.require_unchanged({**recorded, "config": {**recorded["config"], "min_ess": 10}})
    with pytest.raises(ArtifactError, match="not the ones"):
        gates.require_unchanged(recorded, GateConfig(min_ess=10))


def test_a_misspelt_or_impossible_threshold_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown key"):
        parse({"min_es": 10}, GateConfig, "gates")
    with pytest.raises(ConfigError, match="max_weight_share"):
        parse({"max_weight_share": 2}, GateConfig, "gates")


def test_thresholds_on_disk_are_held_against_the_evaluations(tmp_path: Path) -> None:
    gates.write(tmp_path, GateConfig())
    recorded = gates.record(GateConfig())
    gates.require_written(tmp_path, recorded)
    with pytest.raises(ArtifactError, match=r"gates\.json: not the thresholds that the evaluation was made with"):
        gates.require_written(tmp_path, gates.record(GateConfig(min_ess=10)))
    file = tmp_path / gates.FILE
    file.write_text(file.read_text().replace('"min_patients": 200', '"min_patients": 2'))
    with pytest.raises(ArtifactError, match="edited after the evaluation"):
        gates.require_written(tmp_path, recorded)
    file.unlink()
    with pytest.raises(ArtifactError, match=r"gates\.json"):
        gates.require_written(tmp_path, recorded)
