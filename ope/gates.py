"""Gates: thresholds fixed before an evaluation, what they withhold, and the verdict they lead to."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from cohort import artifact
from cohort.config import Config
from cohort.errors import ArtifactError
from ope.interval import Interval
from ope.overlap import Overlap

Verdict = Literal["refused", "insufficient evidence", "eligible for silent (shadow) evaluation"]
FILE = "gates.json"
REFUSED: Verdict = "refused"
INSUFFICIENT: Verdict = "insufficient evidence"
ELIGIBLE: Verdict = "eligible for silent (shadow) evaluation"

NOT_FOR_WANT_OF_DATA = frozenset(
    {"self_test", "unsupported", "behaviour_calibration", "value_range", "worse_than_clinicians"}
)
"""Failures that more patients of the same kind would not mend: the policy, or the evaluation, is refused."""


class GateConfig(Config):
    """Thresholds; a number is withheld where one is not met. Their hash is part of every evaluation."""

    min_patients: int = Field(default=200, ge=2)
    min_ess: float = Field(default=200, ge=1)
    """Effective number of episodes, of the whole-episode weights."""
    min_ess_share: float = Field(default=0.02, gt=0, le=1)
    """The same as a share of the episodes."""
    min_mean_weight: float = Field(default=0.8, gt=0, le=1)
    max_mean_weight: float = Field(default=1.25, ge=1)
    max_weight_share: float = Field(default=0.05, gt=0, le=1)
    """Of one patient, at any step."""
    max_unsupported: float = Field(default=0.05, gt=0, le=1)
    """Share of the target's probability, beyond the clinicians' own, on actions below `support_floor`."""
    support_floor: float = Field(default=0.002, gt=0, lt=0.5)
    """An action that clinicians choose less often in such a state, after such a dose, is unsupported there."""
    max_calibration_error: float = Field(default=0.05, gt=0, le=1)
    """Of the behaviour model, per dose bin."""
    min_coverage: float = Field(default=0.85, ge=0, lt=1)
    """Of an estimator's intervals over replays of the cohort's tabular twin, for this policy; nominal is 0.95."""
    value_in_range: bool = True
    """Whether a value must lie inside what the rewards allow."""
    agreement: bool = True
    """Whether importance-sampling and model-based (FQE) estimates must lie within each other's intervals."""


@dataclass(frozen=True)
class Gate:
    """One threshold and how the policy stands to it."""

    code: str
    value: float
    limit: str
    passed: bool
    reason: str
    """One line: what was found, what was needed."""
    room: float = float("inf")
    """Distance to the limit relative to it; negative where the gate failed."""


def digest(config: GateConfig) -> str:
    """SHA-256 of the thresholds, in hexadecimal."""
    return hashlib.sha256(json.dumps(config.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()


def write(directory: Path, config: GateConfig) -> None:
    """Put the thresholds on disk with their hash, before anything is judged by them."""
    artifact.write_json(directory / FILE, record(config))


def record(config: GateConfig) -> dict[str, Any]:
    """The thresholds and their hash, as gates.json and every evaluation hold them."""
    return {"config": config.model_dump(mode="json"), "sha256": digest(config)}


def require_written(directory: Path, recorded: Mapping[str, Any]) -> None:
    """Check that an evaluation's `gates` entry is what gates.json says beside it, and that neither was edited.

    Raises:
        ArtifactError: they were, or there is no gates.json.
    """
    require_unchanged(recorded)
    written = artifact.read_json(directory / FILE)
    require_unchanged(written)
    if written != recorded:
        raise ArtifactError(f"{directory / FILE}: not the thresholds that the evaluation was made with (hash differs)")


def require_unchanged(recorded: Mapping[str, Any], config: GateConfig | None = None) -> None:
    """Check an evaluation's `gates` entry against its own hash, and against the thresholds in use today.

    Raises:
        ArtifactError: the thresholds were edited after the evaluation.
    """
    content = json.dumps(recorded["config"], sort_keys=True).encode()
    if hashlib.sha256(content).hexdigest() != recorded["sha256"]:
        raise ArtifactError("evaluation: gates: edited after the evaluation (their hash differs from the recorded one)")
    if config is not None and digest(config) != recorded["sha256"]:
        raise ArtifactError(
            "evaluation: gates: these thresholds are not the ones the evaluation was made with (hash differs)"
        )


def check_overlap(overlap: Overlap, config: GateConfig) -> list[Gate]:
    """The gates that hold for every estimator of one policy."""
    n, share = overlap.n_episodes, overlap.ess / overlap.n_episodes
    found = f"effective sample size {overlap.ess:.1f} of {n} episodes"
    gates = [
        _at_least("too_few_patients", overlap.n_patients, config.min_patients, f"{overlap.n_patients} patients"),
        _at_least("low_ess", overlap.ess, config.min_ess, found),
        _at_least("low_ess_share", share, config.min_ess_share, f"{found}, a share of {share:.4f}"),
        _at_most(
            "weight_share",
            overlap.largest_share,
            config.max_weight_share,
            f"one patient has {overlap.largest_share:.3f} of the weight",
        ),
        _within(
            "mean_weight",
            overlap.mean_weight,
            (config.min_mean_weight, config.max_mean_weight),
            f"mean importance weight {overlap.mean_weight:.3g} (should be 1)",
        ),
    ]
    if overlap.unsupported is not None:
        text = f"{overlap.unsupported:.3f} of the policy's doses are ones clinicians rarely give in that state"
        gates.append(_at_most("unsupported", overlap.unsupported, config.max_unsupported, text))
    return gates


def check_calibration(worst: float, config: GateConfig) -> Gate:
    """The behaviour model's gate; `worst` is the largest calibration error over dose bins."""
    text = f"the behaviour model's probability is off by {worst:.3f} in a dose bin"
    return _at_most("behaviour_calibration", worst, config.max_calibration_error, text)


def check_coverage(coverage: float, config: GateConfig) -> Gate:
    """How often an estimator's intervals held the exact value in the cohort's twin."""
    text = f"in the cohort's twin the intervals hold the exact value in {coverage:.2f} of the replays"
    return _at_least("interval_coverage", coverage, config.min_coverage, text)


def check_self_test(failed: Sequence[str], n_oracles: int) -> Gate:
    """Whether the estimators still solve the problems with known answers."""
    text = (
        f"{len(failed)} of {n_oracles} self-tests failed ({', '.join(failed)})" if failed else "all self-tests passed"
    )
    return _at_most("self_test", len(failed), 0, text)


def check_range(value: float, allowed: tuple[float, float]) -> Gate:
    """Whether a value is one that the rewards allow."""
    slack = 1e-6 * (1 + abs(allowed[0]) + abs(allowed[1]))
    return _within("value_range", value, allowed, "the value is outside what the rewards allow", slack)


def check_agreement(model: float, reference: str, found: Interval) -> Gate:
    """Whether the model-based (FQE) value lies inside an importance-sampling estimate's interval."""
    text = f"the model-based value and the interval of {reference} disagree"
    return _within("disagreement", model, (found.low, found.high), text)


def too_few(gates: Sequence[Gate]) -> str | None:
    """The reason where there are too few patients, whatever else holds; None where there are enough."""
    return withheld([gate for gate in gates if gate.code == "too_few_patients"])


def withheld(gates: Sequence[Gate]) -> str | None:
    """The first failed gate as `code: reason`; None where all passed."""
    failed = [gate for gate in gates if not gate.passed]
    return f"{failed[0].code}: {failed[0].reason}" if failed else None


def decide(gates: Sequence[Gate], difference: Interval | None) -> tuple[Verdict, Gate]:
    """The verdict on one policy and the gate that binds it.

    Args:
        gates: every gate, the primary estimator's own included.
        difference: policy minus clinicians by the primary estimator; None where a gate withholds it.

    A failure that more patients would not mend refuses; any other is insufficient evidence. So are too few patients,
    by whom only the self-test can be judged. Where every gate passed, a difference wholly below 0 refuses, one that
    includes 0 is insufficient, and the binding constraint of an eligible policy is the gate with the least room.
    """
    failed = [gate for gate in gates if not gate.passed]
    few = any(gate.code == "too_few_patients" for gate in failed)
    refusing = [gate for gate in failed if gate.code in ({"self_test"} if few else NOT_FOR_WANT_OF_DATA)]
    if refusing:
        return REFUSED, refusing[0]
    if failed:
        return INSUFFICIENT, failed[0]
    if difference is None:
        raise ValueError("every gate passed, so there must be a difference")
    against = f"difference to the clinicians {difference.value:+.4g} ({difference.low:+.4g} to {difference.high:+.4g})"
    if difference.high < 0:
        return REFUSED, Gate("worse_than_clinicians", difference.high, ">= 0", False, f"{against}, all below 0")
    if difference.low <= 0:
        return INSUFFICIENT, Gate("includes_zero", difference.low, "> 0", False, f"{against}, which includes 0")
    return ELIGIBLE, min(gates, key=lambda gate: gate.room)


def _at_least(code: str, value: float | int, limit: float | int, found: str) -> Gate:
    text, room = f"{found}, at least {limit:g} needed", value / limit - 1 if limit else float("inf")
    return Gate(code, float(value), f">= {limit:g}", bool(value >= limit), text, float(room))


def _at_most(code: str, value: float | int, limit: float | int, found: str) -> Gate:
    text, room = f"{found}, at most {limit:g} allowed", 1 - value / limit if limit else float("inf")
    return Gate(code, float(value), f"<= {limit:g}", bool(value <= limit), text, float(room))


def _within(code: str, value: float, limits: tuple[float, float], found: str, slack: float = 0.0) -> Gate:
    low, high = limits[0] - slack, limits[1] + slack
    text = f"{limits[0]:.4g} to {limits[1]:.4g}"
    room = 2 * min(value - low, high - value) / (high - low) if high > low else 0.0
    return Gate(code, float(value), text, bool(low <= value <= high), f"{found}, {text} allowed", float(room))
