"""Evaluation: the document that says what each policy of a cohort is worth, against whom, and what withholds it."""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32

import policy.store
from cohort import artifact, build, dictionary, features, pieces, trajectories
from cohort.episodes import Episodes
from cohort.errors import ArtifactError, ConfigError, InputError, VersionError
from cohort.pieces import Pieces
from cohort.workers import each
from ope import assessment, divergence, fqe, hazards, interval, overlap, samples, self_test, subgroups, treated, twin
from ope import gates as gating
from ope import served as serving
from ope.assessment import CLINICIANS, EvaluationConfig, Finding, Setting
from ope.comparison import Clinical
from ope.estimates import Estimate, evaluate, shown
from ope.fqe import Target
from ope.gates import Gate
from ope.interval import Interval
from ope.self_test import Check
from ope.trajectories import attainable
from ope.twin import Certificate
from policy import behaviour as behaviour_model
from policy import recommend
from policy.recommend import Bedside

__all__ = ["Estimate", "EvaluationConfig", "evaluate", "run"]

FILE, DEFINITIONS = "evaluation.json", "definitions.json"
VERSION = 2
"""Of the document; raised with every change of what a reader may rely on."""
Step = Callable[[int, int], None]
BASELINE = "bc"
PREFERRED = "conservative_iql"
CONTROLS = ("random", "zero_drug", "maximum_dose")
DRAWN, LIKELIEST = "served_drawn", "served_likeliest"
"""The main policy as its reader gets it: see `ope.served`."""


@dataclass(frozen=True)
class Beside:
    """Directories of a run beside its cohort and policies."""

    behaviour: Path | None = None
    """The model of what clinicians do in a state, which stands beside a recommendation: for the policy as served."""
    rollouts: Path | None = None
    """What the policies returned where they treated a simulated hospital's patients."""
    definitions: Path | None = None
    """The analysis under other definitions."""


@dataclass(frozen=True)
class Means:
    """What an evaluation may use; none of it changes the result."""

    workers: int = 1
    """Processes over folds, policies and replays."""
    work: Path | None = None
    """Where models, once fitted, outlive this process if it is killed, and are found by the next."""
    progress: Callable[[int, int], None] | None = None
    """Called with (steps done, steps in all)."""


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
    setting = _setting(cohort_dir, episodes, checks, config, seed, using, done)
    clinicians = assessment.clinicians(setting)
    findings = _findings(policies, setting, using.workers, done)
    served, silent = _served(policies[main], directories.behaviour, cohort_dir, setting)
    certificate = _certificate({**findings, **served}, setting, using.workers, done)
    entries = _entries(findings, clinicians, certificate, setting)
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
            "served": _served_entry(main, served, silent, clinicians, certificate, setting),
            **_together(findings, clinicians, entries, setting),
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


def _setting(
    cohort_dir: Path,
    episodes: Episodes,
    checks: Sequence[Check],
    config: EvaluationConfig,
    seed: int,
    using: Means,
    done: Step,
) -> Setting:
    everyone, read = _everyone(cohort_dir, episodes)
    kept = None if using.work is None else Pieces(using.work)
    folds = min(config.behaviour.folds, len(np.unique(everyone.patient)))
    model = config.behaviour.model_copy(update={"folds": folds})

    def clinicians_model() -> dict[str, np.ndarray]:
        fitted = behaviour_model.cross_fit(everyone, model, seed, done, using.workers, read)
        return {"probabilities": fitted[-episodes.n :]}

    behaviour = pieces.arrays(kept, "behaviour", clinicians_model)["probabilities"]
    clinical = _clinical(cohort_dir)
    known = ~clinical.decisions.unread
    by_drug = overlap.by_drug(behaviour[known], episodes.action[known], clinical.doses.shape)
    worst = max(one["error"] for bins in by_drug.values() for one in bins)
    return Setting(
        episodes=episodes,
        behaviour=behaviour,
        clinical=clinical,
        twin=twin.fit(episodes, config.twin, seed) if config.twin and episodes.n >= config.twin.groups else None,
        config=config,
        seed=seed,
        allowed=attainable(episodes, config.gamma),
        self_test=gating.check_self_test([check.name for check in checks if not check.passed], len(checks)),
        calibration=gating.check_calibration(worst, config.gates),
        by_drug=by_drug,
        cut=int((~episodes.terminated).sum()),
        n_behaviour=everyone.n_episodes,
        kept=kept,
    )


def _steps(using: Means, config: EvaluationConfig, subjects: int) -> Step:
    """Counts what is done: a fold, a policy or a replay is a step."""
    total = config.behaviour.folds + subjects + (config.twin.repeats if config.twin else 0)
    counter = itertools.count(1)

    def done(_done: int, _of: int) -> None:
        if using.progress is not None:
            using.progress(next(counter), total)

    return done


def _findings(policies: Mapping[str, Path], setting: Setting, workers: int, done: Step) -> dict[str, Finding]:
    """What is found of each policy and control, in processes of their own where asked for."""
    subjects = dict(_subjects(policies, setting.episodes.n_actions))
    findings = {}
    for name, finding in zip(
        subjects, each(partial(_assessed, setting), list(subjects.items()), workers, here=True), strict=True
    ):
        findings[name] = finding
        done(len(findings), len(subjects))
    return findings


def _assessed(setting: Setting, subject: tuple[str, Callable[[np.ndarray], np.ndarray]]) -> Finding:
    name, probabilities = subject
    return assessment.assess(fqe.ask(setting.episodes, probabilities), name not in CONTROLS, setting)


def _clinical(cohort_dir: Path) -> Clinical:
    """The evaluated decisions' clinical columns, in the order of the episodes' rows."""
    strata = [name for feature in divergence.STRATA for name in (feature, f"{feature}_imputed")]
    names = sorted({*hazards.COLUMNS, *strata, "stay_id"})
    table = trajectories.read(cohort_dir, names, "evaluate")
    columns = {name: table[name].to_numpy() for name in names}
    fitted = dictionary.load(artifact.verified(cohort_dir, "dictionary.json"))
    stays = build.stays_of(cohort_dir, "evaluate")
    stay = np.searchsorted(stays["stay_id"], columns["stay_id"])
    began_in, ethnicity = (stays[name].fillna("unknown").to_numpy()[stay] for name in ("care_unit", "ethnicity"))
    highest = np.zeros(len(stays), columns["sofa"].dtype)
    np.maximum.at(highest, stay, columns["sofa"])
    return Clinical(
        hazards.of_table(columns),
        {
            name: np.where(columns[f"{name}_imputed"], np.nan, columns[name]).astype(np.float64)
            for name in divergence.STRATA
        },
        divergence.grid(fitted),
        fitted.step_hours,
        began_in.astype(str),
        subgroups.groups_of(columns["age_years"], columns["sex_male"], ethnicity, began_in, highest[stay]),
    )


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


def _everyone(cohort_dir: Path, evaluated: Episodes) -> tuple[Episodes, Bool[np.ndarray, "n"]]:
    """All patients of a cohort, those evaluated last, and which of their doses were read whole.

    The behaviour model is cross-fitted on as many as there are.
    """
    parts, read = [evaluated], [_read(cohort_dir, "evaluate")]
    for split in ("select", "train"):
        rows = _read(cohort_dir, split)
        if len(rows):
            parts.insert(0, build.episodes(cohort_dir, split))
            read.insert(0, rows)
    offset = np.cumsum([0, *(part.n_episodes for part in parts)])
    everyone = Episodes.from_arrays(
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
    return everyone, np.concatenate(read)


def _read(cohort_dir: Path, split: str) -> Bool[np.ndarray, "n"]:
    """Of each decision of a split: whether its dose was read whole."""
    known: np.ndarray = ~trajectories.read(cohort_dir, ["dose_unknown"], split)["dose_unknown"].to_numpy()
    return known


def _subjects(policies: Mapping[str, Path], n_actions: int) -> Iterator[tuple[str, Callable[[np.ndarray], np.ndarray]]]:
    """The policies, one in memory at a time, then the controls."""
    for name, path in policies.items():
        yield name, policy.store.load(path).probs
    for name, distribution in controls(n_actions).items():
        yield name, partial(constant, distribution)


def controls(n_actions: int) -> dict[str, Float32[np.ndarray, "a"]]:
    """The deliberately bad policies: the same probabilities in every state."""
    random, one_hot = np.full(n_actions, 1 / n_actions, np.float32), np.eye(n_actions, dtype=np.float32)
    return dict(zip(CONTROLS, (random, one_hot[0], one_hot[-1]), strict=True))


def constant(distribution: Float32[np.ndarray, "a"], state: Float[np.ndarray, "n d"]) -> Float32[np.ndarray, "n a"]:
    """A control's answers: the same probabilities in every state."""
    return np.broadcast_to(distribution, (len(state), len(distribution)))


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


def _served(
    path: Path, behaviour: Path | None, cohort_dir: Path, setting: Setting
) -> tuple[dict[str, Finding], Mapping[str, int]]:
    """The main policy as its reader gets it, with a dose drawn or the likeliest; where it is silent, as clinicians do.

    At the end of an episode that is cut off the policy answers unmasked.
    """
    if behaviour is None:
        return {}, {}
    own, episodes, decisions = policy.store.load(path), setting.episodes, setting.clinical.decisions
    reader = serving.Reader(
        known=recommend.support(build.episodes(cohort_dir, "train")),
        behaviour=policy.store.load(behaviour),
        age_h=_ages(cohort_dir, own.features),
        bedside=Bedside(decisions.cvp, decisions.balance_ml, decisions.previous_action),
    )
    found = serving.serve(own, reader, episodes, setting.behaviour)
    final = fqe.ask_final(episodes, own.probs)
    tables = {DRAWN: found.drawn, LIKELIEST: found.likeliest}
    return {name: assessment.assess(Target(rows, final), True, setting) for name, rows in tables.items()}, found.silent


def _ages(cohort_dir: Path, names: Sequence[str]) -> Float[np.ndarray, "n d"]:
    """Hours since each feature of the evaluated states was measured; NaN where imputed, 0 for what never ages."""
    aged = [name for name in names if name in features.MEASURED]
    table = trajectories.read(cohort_dir, [f"{name}_age_h" for name in aged], "evaluate")
    out = np.zeros((table.num_rows, len(names)))
    for name in aged:
        out[:, names.index(name)] = table[f"{name}_age_h"].to_numpy()
    return out


def _served_entry(
    main: str,
    served: Mapping[str, Finding],
    silent: Mapping[str, int],
    clinicians: Finding,
    certificate: Certificate | None,
    setting: Setting,
) -> dict[str, Any] | None:
    if not served:
        return None
    own, ways = assessment.judged(clinicians, {}, setting)[0], {}
    for name, finding in served.items():
        judged = assessment.judged(finding, assessment.coverage_of(name, certificate), setting)
        against = {CLINICIANS: _differences(finding, judged, clinicians, [own], CLINICIANS, setting)}
        described = {"divergence": (finding.described or {})["divergence"]["overall"]}
        ways[name] = {"overlap": finding.overlap, "gates": finding.gates, "estimates": judged, "against": against}
        ways[name] |= described | _verdict(finding, against[CLINICIANS], setting.config)
    return {"policy": main, "decisions": setting.episodes.n, "silent": silent, "ways": ways}


def _entries(
    findings: Mapping[str, Finding], clinicians: Finding, certificate: Certificate | None, setting: Setting
) -> dict[str, dict[str, Any]]:
    judged = {
        name: assessment.judged(finding, assessment.coverage_of(name, certificate), setting)
        for name, finding in findings.items()
    }
    own = assessment.judged(clinicians, {}, setting)[0]
    entries: dict[str, dict[str, Any]] = {}
    for name, finding in findings.items():
        against = {CLINICIANS: _differences(finding, judged[name], clinicians, [own], CLINICIANS, setting)}
        if BASELINE in findings and name != BASELINE:
            other = (findings[BASELINE], judged[BASELINE], BASELINE)
            against[BASELINE] = _differences(finding, judged[name], *other, setting)
        entries[name] = _entry(name, finding, judged[name], against, setting)
    return entries


def _entry(
    name: str,
    finding: Finding,
    judged: Sequence[Estimate],
    against: Mapping[str, Sequence[Estimate]],
    setting: Setting,
) -> dict[str, Any]:
    config = setting.config
    spread = float(setting.episodes.returns_to_go(config.gamma)[setting.episodes.start].std())
    ess = finding.overlap.ess
    entry = {
        "kind": "control" if name in CONTROLS else "learned",
        "overlap": finding.overlap,
        "gates": finding.gates,
        "estimates": judged,
        "against": against,
        "minimum_detectable": interval.minimum_detectable(spread, ess, config.level) if ess > 0 else None,
        **(finding.described or {}),
    }
    if name in CONTROLS:
        return entry
    withheld = {one.estimator: one.withheld for one in judged}
    reason, weighted = withheld[config.primary], withheld.get("wis", "no_estimate: wis is not among the estimators")
    hidden = assessment.WEIGHTED if weighted else ()
    supporting = {key: None if key in hidden else part for key, part in (finding.supporting or {}).items()}
    entry["supporting"] = supporting if reason is None else None
    entry["supporting_withheld"] = reason or weighted
    return entry | _verdict(finding, against[CLINICIANS], config)


def _differences(
    one: Finding,
    judged: Sequence[Estimate],
    other: Finding,
    other_judged: Sequence[Estimate],
    against: str,
    setting: Setting,
) -> list[Estimate]:
    """`one` minus `other`, resample by resample; withheld where either is."""
    other_reasons = {estimate.estimator: estimate.withheld for estimate in other_judged}
    out = []
    for estimate in judged:
        name = estimate.estimator if against != CLINICIANS else CLINICIANS
        mine, theirs = one.samples.get(estimate.estimator), other.samples.get(name)
        found = assessment.UNKNOWN
        if mine is not None and theirs is not None:
            found = assessment.difference(mine, theirs, estimate.level, setting.allowed)
        reason = estimate.withheld or (other_reasons[name] and f"{against}: {other_reasons[name]}")
        out.append(shown(estimate.estimator, found, estimate.level, one.overlap, reason))
    return out


def _verdict(finding: Finding, differences: Sequence[Estimate], config: EvaluationConfig) -> dict[str, Any]:
    primary = next(one for one in differences if one.estimator == config.primary)
    gates, found = list(finding.gates), None
    if primary.withheld is not None and all(gate.passed for gate in gates):
        code, _, reason = primary.withheld.partition(": ")
        gates.append(Gate(code, 0.0, "", False, reason, -1.0))
    elif primary.value is not None and primary.low is not None and primary.high is not None:
        found = Interval(primary.value, primary.low, primary.high)
    decided, binding = gating.decide(gates, found)
    return {"verdict": decided, "binding": binding}


def _together(
    findings: Mapping[str, Finding], clinicians: Finding, entries: Mapping[str, Any], setting: Setting
) -> dict[str, Any]:
    """Rank probabilities and simultaneous intervals of the differences, over the policies whose primary is shown."""
    primary = setting.config.primary
    shown_names = [
        name for name, entry in entries.items()
        if any(one.estimator == primary and one.withheld is None for one in entry["against"][CLINICIANS])
    ]  # fmt: skip
    if not shown_names:
        return {"ranks": None, "simultaneous": None}
    own = [findings[name].samples[primary] for name in shown_names]
    base = clinicians.samples[CLINICIANS]
    ranks = interval.rank_probabilities(np.stack([one.replicates for one in [*own, base]], axis=1))
    together = samples.simultaneous([samples.less(one, base) for one in own], setting.config.level)
    return {
        "ranks": {"estimator": primary, "policies": [*shown_names, CLINICIANS], "probability": ranks.tolist()},
        "simultaneous": dict(zip(shown_names, together, strict=True)),
    }


def main_policy(config: EvaluationConfig, policies: Mapping[str, Path]) -> str:
    """The policy that the verdict is about.

    Raises:
        ConfigError: the configuration names one that is not there.
    """
    if config.main is not None and config.main not in policies:
        raise ConfigError(f"evaluation: main: {config.main!r} is not among the policies: {', '.join(policies)}")
    ordered = [PREFERRED, *(name for name in policies if name != BASELINE), *policies]
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
