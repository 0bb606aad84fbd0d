"""Evaluation: the document that says what each policy of a cohort is worth, against whom, and what withholds it."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32
from pydantic import Field, field_validator, model_validator

import policy.store
from cohort import artifact, build, trajectories
from cohort.config import Config
from cohort.episodes import Episodes
from cohort.errors import ConfigError, InputError
from ope import estimates, fqe, importance, interval, overlap, self_test
from ope import gates as gating
from ope.estimates import ESTIMATORS, NEED_Q, Estimate, Sample, evaluate
from ope.fqe import FqeConfig
from ope.gates import Gate, GateConfig
from ope.interval import Interval
from ope.overlap import Overlap
from ope.self_test import Check
from ope.trajectories import attainable, pad
from policy import behaviour as behaviour_model
from policy.behaviour import BehaviourConfig

__all__ = ["Estimate", "EvaluationConfig", "evaluate", "run"]

CLINICIANS = "clinicians"
BASELINE = "bc"
PREFERRED = "conservative_iql"
CONTROLS = ("random", "zero_drug", "maximum_dose")

VERSION = 1

_ROWS = 1 << 16  # states a policy is asked about at once


class EvaluationConfig(Config):
    """What is estimated and what withholds it; fixed, and hashed, before any policy is evaluated."""

    gamma: float = Field(default=0.99, gt=0, le=1)
    """Discount per decision."""
    level: float = Field(default=0.95, gt=0.5, lt=1)
    n_bootstrap: int = Field(default=1000, ge=100, le=100_000)
    estimators: tuple[str, ...] = tuple(ESTIMATORS)
    primary: str = "wis"
    """The estimator that the verdict reads."""
    main: str | None = None
    """The policy that the run's verdict is about; None: conservative_iql, else the first that is not bc."""
    fqe: FqeConfig | None = FqeConfig()
    """Fits Q for the model-based estimators; controls do without."""
    gates: GateConfig = GateConfig()
    behaviour: BehaviourConfig = BehaviourConfig()
    """The model of what clinicians do, which the importance weights divide by."""

    @field_validator("estimators")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in value if name not in ESTIMATORS]
        if unknown or not value:
            raise ValueError(f"estimator {unknown} is unknown; known: {', '.join(ESTIMATORS)}")
        return value

    @model_validator(mode="after")
    def _primary_is_estimated(self) -> "EvaluationConfig":
        if self.primary not in self.estimators:
            raise ValueError(f"primary: {self.primary} is not among the estimators: {', '.join(self.estimators)}")
        if self.fqe is None and set(self.estimators) & set(NEED_Q):
            raise ValueError(f"fqe: null, but {', '.join(set(self.estimators) & set(NEED_Q))} need it")
        return self


@runtime_checkable
class _Answers(Protocol):
    def probs(self, state: Float[np.ndarray, "n d"]) -> Float32[np.ndarray, "n a"]: ...


@dataclass(frozen=True)
class Constant:
    """A control: the same probabilities in every state."""

    distribution: Float32[np.ndarray, "a"]

    def probs(self, state: Float[np.ndarray, "n d"]) -> Float32[np.ndarray, "n a"]:
        """`distribution`, once for each state."""
        return np.broadcast_to(self.distribution, (len(state), len(self.distribution)))


def run(cohort_dir: Path, policies: Mapping[str, Path], config: EvaluationConfig, seed: int) -> dict[str, Any]:
    """Evaluate saved policies on the cohort's evaluation patients.

    Returns:
        A JSON-serialisable document::

            version, seed, config, gates {config, sha256}, cohort {digest, split, patients, episodes, decisions},
            self_test [check], behaviour {gate}, clinicians {estimate}, verdict {policy, verdict, binding: gate},
            policies {name: {kind: learned | control, digest, overlap, gates [gate], estimates [estimate],
            against {clinicians | bc: [estimate of the difference]}, minimum_detectable, verdict, binding: gate}}

        An estimate has the fields of `Estimate`, a gate those of `Gate`. Where `withheld` is not null it is
        `code: reason` and value, low and high are null. Controls have no verdict.

    Raises:
        InputError: a policy may have been trained on evaluation patients, does not fit the cohort's states or actions,
            or the evaluation split is empty.
        ConfigError: no policies, or `main` is not among them.
        ArtifactError: a directory is missing or damaged.
    """
    thresholds = {"config": config.gates.model_dump(mode="json"), "sha256": gating.digest(config.gates)}
    if not policies:
        raise ConfigError("evaluation: no policy to evaluate")
    main = _main(config, policies)
    for name, path in policies.items():
        require_apart(name, path, cohort_dir)
    episodes = build.episodes(cohort_dir, "evaluate")
    checks = self_test.run()
    setting = _setting(_everyone(cohort_dir, episodes), episodes, checks, config, seed)
    clinicians = _clinicians(setting)
    findings = {name: _assess(name, answers, setting) for name, answers in _subjects(policies, episodes.n_actions)}
    entries = {name: _entry(name, findings, clinicians, setting) for name in findings}
    for name, path in policies.items():
        entries[name] |= {"digest": artifact.digest(path)}
    return {
        "version": VERSION,
        "seed": seed,
        "config": config.model_dump(mode="json"),
        "gates": thresholds,
        "cohort": {
            "digest": artifact.digest(cohort_dir),
            "split": "evaluate",
            "patients": len(np.unique(episodes.patient)),
            "episodes": episodes.n_episodes,
            "decisions": episodes.n,
        },
        "self_test": [_plain(check) for check in checks],
        "behaviour": {"gate": _plain(setting.calibration)},
        "clinicians": {"estimate": _plain(clinicians.estimates[0])},
        "policies": entries,
        "verdict": {"policy": main, **{key: entries[main][key] for key in ("verdict", "binding")}},
    }


def require_apart(name: str, path: Path, cohort_dir: Path) -> None:
    """Check by the manifests that a policy's training patients are not among the evaluated.

    Raises:
        InputError: it was trained on another cohort (whose patients may be the same), or not on the train split.
    """
    manifest = artifact.read_manifest(path)
    source, split = manifest["inputs"].get("cohort"), manifest["notes"].get("split", "train")
    if source != artifact.digest(cohort_dir):
        raise InputError(f"policy {name}: trained on another cohort: its patients may be among those evaluated")
    if split != "train":
        raise InputError(f"policy {name}: trained on the {split!r} split, must be 'train'")


@dataclass(frozen=True)
class _Setting:
    """What all policies of one evaluation share."""

    episodes: Episodes
    behaviour: Float32[np.ndarray, "n a"]
    config: EvaluationConfig
    seed: int
    allowed: tuple[float, float]
    self_test: Gate
    calibration: Gate
    cut: int
    """Episodes that are cut off: a value without a final value is withheld."""
    spread: float
    """Standard deviation of the logged returns."""


@dataclass(frozen=True)
class _Finding:
    """One policy's numbers, before any comparison."""

    overlap: Overlap
    gates: tuple[Gate, ...]
    samples: Mapping[str, Sample]
    estimates: tuple[Estimate, ...]


def _setting(
    everyone: Episodes, episodes: Episodes, checks: Sequence[Check], config: EvaluationConfig, seed: int
) -> _Setting:
    behaviour = behaviour_model.cross_fit(everyone, config.behaviour, seed)[-episodes.n :]
    worst = float(overlap.calibration_error(behaviour, episodes.action).max())
    return _Setting(
        episodes=episodes,
        behaviour=behaviour,
        config=config,
        seed=seed,
        allowed=attainable(episodes, config.gamma),
        self_test=gating.check_self_test([check.name for check in checks if not check.passed], len(checks)),
        calibration=gating.check_calibration(worst, config.gates),
        cut=int((~episodes.terminated).sum()),
        spread=float(episodes.returns_to_go(config.gamma)[episodes.start].std()),
    )


def _everyone(cohort_dir: Path, evaluated: Episodes) -> Episodes:
    """All patients of a cohort, those evaluated last: the behaviour model is cross-fitted on as many as there are."""
    parts = [evaluated]
    for split in ("select", "train"):
        if trajectories.read(cohort_dir, ["stay_id"], split).num_rows:
            parts.insert(0, build.episodes(cohort_dir, split))
    offset = np.cumsum([0, *(part.n_episodes for part in parts)])
    return Episodes.from_arrays(
        np.concatenate([part.state for part in parts]),
        np.concatenate([part.action for part in parts]),
        np.concatenate([part.reward for part in parts]),
        np.concatenate([part.episode + first for part, first in zip(parts, offset, strict=False)]),
        np.concatenate([part.terminated for part in parts]),
        np.concatenate([part.final_state for part in parts]),
        evaluated.n_actions,
        patient=np.concatenate([part.patient for part in parts]),
        features=evaluated.features,
        scaler=evaluated.scaler,
    )


def _subjects(policies: Mapping[str, Path], n_actions: int) -> Iterator[tuple[str, _Answers]]:
    """The policies, one in memory at a time, then the controls."""
    for name, path in policies.items():
        yield name, policy.store.load(path)
    random = np.full(n_actions, 1 / n_actions, np.float32)
    one_hot = np.eye(n_actions, dtype=np.float32)
    for name, distribution in zip(CONTROLS, (random, one_hot[0], one_hot[-1]), strict=True):
        yield name, Constant(distribution)


def _clinicians(setting: _Setting) -> _Finding:
    """The logged actions' own return; only the number of patients can withhold it."""
    episodes, config = setting.episodes, setting.config
    t = pad(episodes, np.ones(episodes.n), config.gamma)
    shared = overlap.measure(t, episodes.patient)
    found = estimates.sample(t, episodes, {CLINICIANS: importance.logged}, config.n_bootstrap, setting.seed)
    return _finding(shared, gating.check_overlap(shared, config.gates), found, setting.cut, setting)


def _assess(name: str, answers: _Answers, setting: _Setting) -> _Finding:
    episodes, config = setting.episodes, setting.config
    ratio, unsupported = _compare(answers, setting)
    wanted, fitted, cut = config.estimators, None, setting.cut
    if name in CONTROLS or config.fqe is None:
        wanted = tuple(one for one in wanted if one not in NEED_Q)
        t = pad(episodes, ratio, config.gamma)
    else:
        fitted, cut = fqe.evaluate(episodes, answers.probs, config.gamma, config.fqe, setting.seed), 0
        t = pad(episodes, ratio, config.gamma, fitted.q, fitted.v, fitted.final_value)
    shared = overlap.measure(t, episodes.patient, unsupported)
    chosen = {one: ESTIMATORS[one] for one in wanted}
    found = estimates.sample(t, episodes, chosen, config.n_bootstrap, setting.seed)
    if fitted is not None and "dm" in found:
        found["dm"] = _with_model_error(found["dm"], fitted.member_values)
    gates = [setting.self_test, *gating.check_overlap(shared, config.gates), setting.calibration]
    return _finding(shared, gates, found, cut, setting)


def _with_model_error(sample: Sample, members: Float[np.ndarray, "m"]) -> Sample:
    """Add the members' deviations to the direct method's replicates: resampling patients leaves the model fixed."""
    if len(members) < 2:
        return sample
    deviation = (members - members.mean()) * np.sqrt(len(members) / (len(members) - 1))
    return Sample(sample.value, sample.replicates + np.resize(deviation, len(sample.replicates)))


def _finding(
    shared: Overlap, gates: Sequence[Gate], found: Mapping[str, Sample], cut: int, setting: _Setting
) -> _Finding:
    config = setting.config
    intervals = {
        name: interval.percentile(one.value, one.replicates, config.level, setting.allowed)
        for name, one in found.items()
    }
    reasons = estimates.reasons_to_withhold(intervals, gates, config.gates, setting.allowed, cut)
    shown = [estimates.shown(name, intervals[name], config.level, shared, reasons[name]) for name in found]
    return _Finding(shared, tuple(gates), found, tuple(shown))


def _compare(answers: _Answers, setting: _Setting) -> tuple[Float[np.ndarray, "n"], float]:
    """Ratio of the logged actions' probabilities, and the unsupported share; states are streamed."""
    episodes, behaviour = setting.episodes, setting.behaviour
    ratio, unsupported = np.empty(episodes.n, np.float32), 0.0
    for first in range(0, episodes.n, _ROWS):
        rows = slice(first, first + _ROWS)
        target = answers.probs(episodes.state[rows])
        if target.shape != behaviour[rows].shape:
            raise InputError(f"policy answers for {target.shape[1]} actions, the cohort has {episodes.n_actions}")
        at = (np.arange(len(target)), episodes.action[rows])
        ratio[rows] = target[at] / behaviour[rows][at]
        unsupported += len(target) * overlap.unsupported_share(
            target, behaviour[rows], setting.config.gates.support_floor
        )
    return ratio, unsupported / episodes.n


def _entry(name: str, findings: Mapping[str, _Finding], clinicians: _Finding, setting: _Setting) -> dict[str, Any]:
    finding, config = findings[name], setting.config
    against = {CLINICIANS: _differences(finding, clinicians, CLINICIANS, setting)}
    if BASELINE in findings and name != BASELINE:
        against[BASELINE] = _differences(finding, findings[BASELINE], BASELINE, setting)
    entry = {
        "kind": "control" if name in CONTROLS else "learned",
        "overlap": _plain(finding.overlap),
        "gates": [_plain(gate) for gate in finding.gates],
        "estimates": [_plain(estimate) for estimate in finding.estimates],
        "against": {other: [_plain(one) for one in differences] for other, differences in against.items()},
        "minimum_detectable": interval.minimum_detectable(setting.spread, finding.overlap.ess, config.level)
        if finding.overlap.ess > 0
        else None,
    }
    if name not in CONTROLS:
        entry |= _verdict(finding, against[CLINICIANS], config)
    return entry


def _differences(one: _Finding, other: _Finding, against: str, setting: _Setting) -> list[Estimate]:
    """`one` minus `other`, replicate by replicate; withheld where either is."""
    low, high = setting.allowed
    other_reasons = {estimate.estimator: estimate.withheld for estimate in other.estimates}
    out = []
    for estimate in one.estimates:
        name = estimate.estimator if against != CLINICIANS else CLINICIANS
        mine, theirs = one.samples[estimate.estimator], other.samples[name]
        found = interval.percentile(
            mine.value - theirs.value, mine.replicates - theirs.replicates, estimate.level, (low - high, high - low)
        )
        reason = estimate.withheld or (other_reasons[name] and f"{against}: {other_reasons[name]}")
        out.append(estimates.shown(estimate.estimator, found, estimate.level, one.overlap, reason))
    return out


def _verdict(finding: _Finding, differences: Sequence[Estimate], config: EvaluationConfig) -> dict[str, Any]:
    primary = next(one for one in differences if one.estimator == config.primary)
    gates, difference = list(finding.gates), None
    if primary.withheld is not None and all(gate.passed for gate in gates):
        code, _, reason = primary.withheld.partition(": ")
        gates.append(Gate(code, 0.0, "", False, reason, -1.0))
    elif primary.value is not None and primary.low is not None and primary.high is not None:
        difference = Interval(primary.value, primary.low, primary.high)
    decided, binding = gating.decide(gates, difference)
    return {"verdict": decided, "binding": _plain(binding)}


def _main(config: EvaluationConfig, policies: Mapping[str, Path]) -> str:
    if config.main is not None and config.main not in policies:
        raise ConfigError(f"evaluation: main: {config.main!r} is not among the policies: {', '.join(policies)}")
    ordered = [PREFERRED, *(name for name in policies if name != BASELINE), *policies]
    return config.main or next(name for name in ordered if name in policies)


def _plain(record: Estimate | Gate | Overlap | Check) -> dict[str, Any]:
    """A record's fields for JSON, which has no infinity (it becomes null) and no tuple."""
    return {key: _json(value) for key, value in asdict(record).items()}


def _json(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_json(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
