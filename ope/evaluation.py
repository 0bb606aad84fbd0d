"""Evaluation: the document that says what each policy of a cohort is worth, against whom, and what withholds it."""

import itertools
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from cohort import artifact, build
from cohort.errors import ArtifactError, ConfigError, InputError, VersionError
from ope import assessment, divergence, overlap, self_test, subjects, treated, twin
from ope import entries as parts
from ope import gates as gating
from ope import setting as shared
from ope.assessment import Finding
from ope.estimates import Estimate, evaluate
from ope.setting import EvaluationConfig, Means, Setting, Step
from ope.subjects import CONTROLS
from ope.twin import Certificate

__all__ = ["CONTROLS", "Estimate", "EvaluationConfig", "Means", "evaluate", "run"]

FILE, DEFINITIONS = "evaluation.json", "definitions.json"
VERSION = 2
"""Of the document; raised with every change of what a reader may rely on."""
PREFERRED = "conservative_iql"


@dataclass(frozen=True)
class Beside:
    """Directories of a run beside its cohort and policies."""

    behaviour: Path | None = None
    """The model of what clinicians do in a state, which stands beside a recommendation: for the policy as served."""
    rollouts: Path | None = None
    """What the policies returned where they treated a simulated hospital's patients."""
    definitions: Path | None = None
    """The analysis under other definitions."""


def run(
    cohort_dir: Path,
    policies: Mapping[str, Path],
    config: EvaluationConfig,
    seed: int,
    beside: Beside | None = None,
    means: Means | None = None,
) -> dict[str, Any]:
    """Evaluate saved policies on the cohort's evaluation patients.

    Args:
        cohort_dir: a finished cohort.
        policies: name -> directory of each.
        config: what is estimated, and the gates.
        seed: of every fold, network and resample.
        beside: further directories that there may be; what would come from one that is not there is null.
        means: processes, and where what was fitted is kept.

    Returns:
        A JSON-serialisable document::

            version, seed, config
            gates        {config, sha256}
            cohort       {digest, split, patients, episodes, decisions, dose_unknown: decisions whose dose was partly
                         read, which count in no comparison of doses}
            self_test    [check]
            behaviour    {gate, by_action [error], by_drug {drug: [bin]}, by_subgroup [{feature, low, high, label,
                         patients, decisions, by_drug or null}], floor}
            clinicians   {estimate}
            certificate  of the twin, or null: {repeats, episodes, groups, grades [{policy, estimator, truth, bias,
                         rmse, coverage, ess}], orderings [{estimator, rank_correlation, regret [k = 1, 2, 3]}]}
            rollouts     in a simulated hospital, else null: {stays, truths {policy | clinicians: {value, error,
                         difference, difference_error}}, grades [{estimator, policies, bias, rmse, coverage, printed,
                         printed_missed, rank_correlation, regret [k = 1, 2, 3]}]}
            definitions  null, or [{name, step_hours, horizon_hours, gamma, patients, decisions, ess, unsupported,
                         clinicians estimate, value estimate, difference estimate, verdict, binding, moved}]: the
                         first is the base
            served       null, or {policy, decisions, silent {gate: decisions}, ways {served_drawn | served_likeliest:
                         {overlap, gates, estimates, against {clinicians}, divergence {measure: interval}, verdict,
                         binding}}}
            ranks        null, or {estimator, policies, probability [policy][place]}
            simultaneous null, or {policy: interval}
            verdict      {policy, verdict, binding: gate}
            policies     {name: {kind: learned | control, digest, overlap, gates [gate], estimates [estimate],
                         against {clinicians | bc: [estimate of the difference]}, minimum_detectable, divergence,
                         hazards, supporting (or null, or null parts, and supporting_withheld: the reason), verdict,
                         binding: gate}}

        An estimate has the fields of `Estimate`, a gate those of `Gate`. Where `withheld` is not null it is
        `code: reason` and value, low and high are null. Controls have no verdict. A subgroup has a label or else
        values in [low, high), null where open-ended; a cell of too few is null. Truths are discounted means over
        simulated patients; a rollout's grades count estimates whether or not they are withheld.

    Raises:
        InputError: a policy may have been trained on evaluation patients, does not fit the cohort's states or actions,
            or the evaluation split is empty.
        ConfigError: no policies, or `main` is not among them.
        ArtifactError: a directory is missing or damaged.
    """
    if not policies:
        raise ConfigError("evaluation: no policy to evaluate")
    main, directories = main_policy(config, policies), beside or Beside()
    for name, path in policies.items():
        require_apart(name, path, cohort_dir)
    episodes = build.episodes(cohort_dir, "evaluate")
    checks = self_test.run()
    using = means or Means()
    done = _steps(using, config, len(policies) + len(CONTROLS))
    setting = shared.of_cohort(cohort_dir, episodes, checks, config, seed, using, done)
    clinicians = assessment.clinicians(setting)
    findings = subjects.findings(policies, setting, using.workers, done)
    served, silent = subjects.served(policies[main], directories.behaviour, cohort_dir, setting)
    certificate = _certificate({**findings, **served}, setting, using.workers, done)
    entries = parts.entries(findings, clinicians, certificate, setting)
    for name, path in policies.items():
        entries[name] |= {"digest": artifact.digest(path)}
    document: dict[str, Any] = _json(
        {
            "version": VERSION,
            "seed": seed,
            "config": config.model_dump(mode="json"),
            "gates": gating.record(config.gates),
            "cohort": {
                "digest": artifact.digest(cohort_dir),
                "split": "evaluate",
                "patients": len(np.unique(episodes.patient)),
                "episodes": episodes.n_episodes,
                "decisions": episodes.n,
                "dose_unknown": int((~setting.read).sum()),
            },
            "self_test": checks,
            "behaviour": {
                "gate": setting.calibration,
                "by_action": _by_action(setting).tolist(),
                "by_drug": setting.by_drug,
                "by_subgroup": _by_subgroup(setting),
                "floor": config.behaviour.floor,
            },
            "clinicians": {"estimate": assessment.judged(clinicians, {}, setting)[0]},
            "certificate": certificate,
            "rollouts": _rollouts(directories.rollouts, findings, entries),
            "definitions": _definitions(directories.definitions, cohort_dir),
            "served": parts.as_served(main, served, silent, clinicians, certificate, setting),
            **parts.together(findings, clinicians, entries, setting),
            "policies": entries,
            "verdict": {"policy": main, **{key: entries[main][key] for key in ("verdict", "binding")}},
        }
    )
    return document


def write(
    draft: Path,
    cohort_dir: Path,
    policies: Mapping[str, Path],
    config: EvaluationConfig,
    seed: int,
    beside: Beside | None = None,
    means: Means | None = None,
) -> dict[str, Any]:
    """`run`, in a stage's draft: gates.json before any policy is looked at, evaluation.json in the end.

    Raises:
        SutureError: as `run`.
    """
    gating.write(draft, config.gates)
    document = run(cohort_dir, policies, config, seed, beside, means)
    artifact.write_json(draft / FILE, document)
    return document


def read(directory: Path) -> dict[str, Any]:
    """A finished evaluation's document.

    Raises:
        ArtifactError: a file is missing or was changed, it is of another version of the document, or its thresholds
            are not those that were written before it.
    """
    artifact.verify(directory)
    document: dict[str, Any] = artifact.read_json(directory / FILE)
    if document.get("version") != VERSION:
        raise VersionError(f"{directory / FILE}: not of version {VERSION}, which this Suture reads; evaluate again")
    gating.require_written(directory, document["gates"])
    return document


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


def _steps(using: Means, config: EvaluationConfig, subjects: int) -> Step:
    """Counts what is done: a fold, a policy or a replay is a step."""
    total = config.behaviour.folds + subjects + (config.twin.repeats if config.twin else 0)
    counter = itertools.count(1)

    def done(_done: int, _of: int) -> None:
        if using.progress is not None:
            using.progress(next(counter), total)

    return done


def _by_action(setting: Setting) -> Float[np.ndarray, "a"]:
    """Calibration of each action's probability, over the decisions whose dose was read."""
    return overlap.calibration_error(setting.behaviour[setting.read], setting.episodes.action[setting.read])


def _by_subgroup(setting: Setting) -> list[overlap.Subgroup]:
    """Calibration by age, sex, severity and care unit; age and sex are known of everybody."""
    episodes, clinical = setting.episodes, setting.clinical
    every = [*divergence.by_edges(clinical.strata), *divergence.by_name("care_unit", clinical.unit)]
    groups = [replace(group, rows=group.rows & setting.read) for group in every]
    of_row, smallest = episodes.patient[episodes.episode], setting.config.comparison.smallest_cell
    return overlap.by_subgroup(setting.behaviour, episodes.action, of_row, clinical.doses.shape, groups, smallest)


def _certificate(findings: Mapping[str, Finding], setting: Setting, workers: int, done: Step) -> Certificate | None:
    config = setting.config
    if setting.twin is None or config.twin is None:
        return None
    policies = {name: finding.by_group for name, finding in findings.items() if finding.by_group is not None}
    sizes = setting.episodes.n_episodes, setting.n_behaviour
    return twin.certify(
        setting.twin, policies, config.estimators, config.gamma, *sizes, config.twin, config.level, setting.seed,
        workers, done,
    )  # fmt: skip


def _rollouts(
    directory: Path | None, findings: Mapping[str, Finding], entries: Mapping[str, Any]
) -> treated.Certificate | None:
    if directory is None:
        return None
    found = {name: finding.intervals for name, finding in findings.items()}
    return treated.certify(directory, found, {name: entry["estimates"] for name, entry in entries.items()})


def _definitions(directory: Path | None, cohort_dir: Path) -> list[dict[str, Any]] | None:
    """The analysis under other definitions of the same cohort's patients."""
    if directory is None:
        return None
    rows: list[dict[str, Any]] = artifact.read_json(artifact.verified(directory, DEFINITIONS))
    if artifact.read_manifest(directory)["inputs"].get("cohort") != artifact.digest(cohort_dir):
        raise ArtifactError(f"{directory}: made from another cohort; make it again with --multiverse, or remove it")
    return rows


def main_policy(config: EvaluationConfig, policies: Mapping[str, Path]) -> str:
    """The policy that the verdict is about.

    Raises:
        ConfigError: the configuration names one that is not there.
    """
    if config.main is not None and config.main not in policies:
        raise ConfigError(f"evaluation: main: {config.main!r} is not among the policies: {', '.join(policies)}")
    ordered = [PREFERRED, *(name for name in policies if name != parts.BASELINE), *policies]
    return config.main or next(name for name in ordered if name in policies)


def _json(value: Any) -> Any:
    """Records as mappings, tuples as lists, and null for what JSON has no number for."""
    if is_dataclass(value) and not isinstance(value, type):
        return _json(asdict(value))
    if isinstance(value, Mapping):
        return {key: _json(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_json(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
