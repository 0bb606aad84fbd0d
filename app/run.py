"""Run: the pipeline from a hospital's tables to a report, stage by stage, and the configuration of one run."""

import hashlib
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from pydantic import Field, SerializeAsAny, field_validator

import policy
import policy.store
from app import forecast, log, rollouts, tracking
from app.rollouts import Rolled, RolloutConfig
from app.run_directory import RunDirectory, opened
from app.stage import Advance, Existing, Stage, perform_all
from cohort import artifact, build, dictionary, hospital, sources, spark
from cohort.build import CohortConfig
from cohort.config import Config, load, parse
from cohort.episodes import Episodes
from cohort.errors import ConfigError, InputError
from cohort.hospital import HospitalConfig, detection
from cohort.multiverse import MultiverseConfig
from cohort.sources import SOURCES, SourceConfig, files
from cohort.spark import SparkConfig
from ope import definitions, documents, evaluation, evidence, quality_page
from ope.evaluation import Beside, EvaluationConfig
from policy import behaviour
from policy.base import LEARNERS
from policy.batches import FEWEST_PATIENTS
from policy.behaviour import BehaviourConfig
from policy.served import NetworkPolicy
from policy.sweep import SweepConfig
from policy.train import CheckpointError, Session, TrainConfig, for_few, require_device

TABLES, TRUTH, COHORT, BEHAVIOUR, POLICY, ROLLOUTS, DEFINITIONS, OPE, REPORT = (
    "tables", "truth", "cohort", "behaviour", "policy", "rollouts", "definitions", "ope", "report",
)  # fmt: skip
DICTIONARY_FILE = "dictionary.json"
CHECKPOINT_FILE = "checkpoint.safetensors"
TRAINING_SPLIT = "train"
_BEGINNING = 1 << 20
_NOT_IN_THE_RESULT = {"workers", "memory_mb"}
"""Source options that change time and memory only: recorded nowhere, so that any machine gives the same digests."""


@runtime_checkable
class Train(Protocol):
    """Training of one policy, its options given already."""

    def __call__(self, episodes: Episodes, *, session: Session) -> NetworkPolicy:
        """The trained policy."""
        ...


class RunConfig(Config):
    """Everything a run is made from; the seed and this give the same bytes again."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=60)
    seed: int = Field(ge=0, lt=2**31)
    hospital: HospitalConfig | None = None
    """The simulated hospital; None where the tables are given with --source."""
    source: SourceConfig
    engine: Literal["local", "spark"] = "local"
    """What works on shards: `source.workers` processes of this machine, or a Spark cluster; the result is the same."""
    spark: SparkConfig = SparkConfig()
    cohort: CohortConfig
    learners: dict[str, SerializeAsAny[TrainConfig]] = Field(min_length=1)
    """Learner -> its own Config."""
    behaviour: BehaviourConfig = BehaviourConfig()
    """The model of what clinicians do in a state, beside which a recommendation is shown."""
    sweep: SweepConfig = SweepConfig()
    """What `suture sweep` tries; `suture run` does not read it."""
    rollouts: RolloutConfig | None = None
    """In a run on the simulated hospital: how many of its patients each policy treats, to grade the estimates."""
    evaluation: EvaluationConfig

    @field_validator("learners", mode="before")
    @classmethod
    def _each_learners_own(cls, value: object) -> object:
        if not isinstance(value, Mapping):
            raise ValueError("expected a mapping of learners to their options")
        return {name: _learner_config(str(name), options) for name, options in value.items()}


@dataclass(frozen=True)
class Request:
    """One use of the pipeline: a configuration, a run directory, and what to do with what is there."""

    config: RunConfig
    out: Path
    source: Path | None = None
    existing: Existing = Existing.REFUSE
    device: str = "cpu"
    """What networks are trained on; results are the same up to rounding, so it is no part of the configuration."""


def load_config(path: Path) -> RunConfig:
    """Read a run's YAML file.

    Raises:
        ConfigError: naming the file, the first wrong key, and what is allowed there.
    """
    try:
        return load(path, RunConfig)
    except ConfigError as error:
        raise ConfigError(str(error) if str(path) in str(error) else f"{path}: {error}") from None


def limited(request: Request, stays: int | None) -> Request:
    """The request for a dry run with about so many stays; the same where that is None."""
    if stays is None:
        return request
    config = request.config
    hospital = config.hospital
    if hospital is not None:
        hospital = hospital.model_copy(update={"n_stays": min(stays, hospital.n_stays)})
    source = config.source.model_copy(update={"limit_stays": stays})
    return replace(request, config=config.model_copy(update={"hospital": hospital, "source": source}))


def engine(config: RunConfig) -> AbstractContextManager[None]:
    """In this context work over shards is done by the configuration's engine.

    Raises:
        SutureError: Spark is asked for and cannot be had.
    """
    return spark.engine(config.spark) if config.engine == "spark" else nullcontext()


def run(request: Request) -> RunDirectory:
    """All stages, in order; the directory then holds what `suture run` promises.

    Raises:
        SutureError: one line saying what is wrong; finished stages stay as they are.
    """
    started = time.perf_counter()
    planned, workers = stages(request), request.config.source.workers
    with opened(request.out, new=request.existing is Existing.REFUSE) as directory:
        was_whole = bool(directory.record().get("finished"))
        directory.update(name=request.config.name, seed=request.config.seed, finished=False)
        ahead = forecast.of(request, [[stage.name for stage in group] for group in planned])
        made = []
        for group in planned:
            if group:
                _say_left(ahead)
            made.append(perform_all(group, directory, request.existing, workers, ahead))
            if any(stage.name == COHORT for stage in group):
                _require_enough(request)
        if request.existing is Existing.REPLACE:
            _remove_other_policies(request)
        if any(map(any, made)) or not was_whole or not (request.out / tracking.STORE).exists():
            with log.console.status("copying to MLflow"):
                tracking.record(request.out, request.config.name)
        directory.update(finished=True, seconds=round(time.perf_counter() - started, 1))
    return directory


def alone(request: Request, chosen: Sequence[Stage]) -> RunDirectory:
    """Some stages only, none of which reads another, on what earlier ones left in the run's directory."""
    with opened(request.out) as directory:
        if any(perform_all(chosen, directory, request.existing, request.config.source.workers)):
            directory.update(name=request.config.name, seed=request.config.seed, finished=False)
    return directory


def train(request: Request, names: Sequence[str] | None = None) -> None:
    """The behaviour model and every learner, or only the learners named; what was made is copied to MLflow."""
    chosen = train_stages(request, names)
    with opened(request.out) as directory:
        made = perform_all(chosen, directory, request.existing, request.config.source.workers)
        new = [stage.name for stage, was_made in zip(chosen, made, strict=True) if was_made]
        if new:
            directory.update(name=request.config.name, seed=request.config.seed, finished=False)
            with log.console.status("copying to MLflow"):
                tracking.record(request.out, request.config.name, new)


def stages(request: Request) -> list[list[Stage]]:
    """Every stage of a run, in order; those that stand together do not read each other."""
    return [
        [] if request.source else [simulate_stage(request)],
        [cohort_stage(request)],
        train_stages(request),
        [rollout_stage(request)] if rolls_out(request) else [],
        [evaluate_stage(request)],
        [report_stage(request)],
    ]


def simulate_stage(request: Request) -> Stage:
    """The simulated hospital's tables, and its truth beside them.

    Raises:
        ConfigError: the configuration has no hospital.
    """
    config, seed = request.config.hospital, request.config.seed
    if config is None:
        raise ConfigError("hospital: this configuration simulates none; name the hospital's tables with --source DIR")
    settings, workers = config.model_dump(mode="json"), request.config.source.workers

    def make(draft: artifact.Draft, advance: Advance) -> None:
        writing = artifact.writing(request.out / TRUTH, TRUTH, settings, seed=seed, overwrite=True)
        with engine(request.config), writing as truth:
            rows = hospital.simulate(draft.path, truth.path, config, seed, advance, workers, draft.work)
            draft.rows.update(rows)

    return Stage(TABLES, TABLES, settings, {}, seed, make, beside=(TRUTH,))


def cohort_stage(request: Request) -> Stage:
    """Canonical tables, trajectories, and all that was fitted on training patients.

    Raises:
        InputError: the source is not a directory.
    """
    if request.source is not None and not request.source.is_dir():
        raise InputError(f"{request.source}: not a directory; --source names the folder with the hospital's tables")
    config, root = request.config, request.source or request.out / TABLES
    source = config.source.model_dump(mode="json", exclude=_NOT_IN_THE_RESULT)
    settings = {"source": source, "cohort": config.cohort.model_dump(mode="json")}
    inputs = {TABLES: digest_tables(root, config.source) if _is_foreign(request) else root}

    def make(draft: artifact.Draft, advance: Advance) -> None:
        shards, workers = draft.path / "canonical", config.source.workers
        with engine(config):
            counts = sources.ingest(root, shards, config.source, advance, work=draft.work)
            rows = build.build(shards, draft.path, config.cohort, config.seed, workers, counts, advance, draft.work)
        draft.rows.update(rows)

    return Stage(COHORT, COHORT, settings, inputs, config.seed, make)


def train_stages(request: Request, names: Sequence[str] | None = None) -> list[Stage]:
    """The behaviour model and every learner, or only the learners named.

    Raises:
        ConfigError: a name is not among the configuration's learners, or the device is not here.
    """
    require_device(request.device)
    for name in names or ():
        if name not in request.config.learners:
            raise ConfigError(f"learner {name!r} is not in the configuration: {', '.join(request.config.learners)}")
    stages = [_train_stage(request, name) for name in names or request.config.learners]
    return stages if names else [behaviour_stage(request), *stages]


def evaluate(request: Request, multiverse: Path | None = None) -> None:
    """The evaluation, after what it reads: rollouts in a simulated hospital, and other definitions where asked for.

    Raises:
        ConfigError: `multiverse` is no file of definitions.
    """
    if rolls_out(request):
        alone(request, [rollout_stage(request)])
    if multiverse is not None:
        alone(request, [definitions_stage(request, load(multiverse, MultiverseConfig))])
    alone(request, [evaluate_stage(request)])


def definitions_stage(request: Request, asked: MultiverseConfig) -> Stage:
    """The main policy, trained and evaluated anew under each definition."""
    config, seed = request.config, request.config.seed
    name = evaluation.main_policy(config.evaluation, _policies(request))
    learner = name, config.learners[name]
    settings = {
        "definitions": asked.model_dump(mode="json"), "learner": {"name": name, **learner[1].model_dump(mode="json")},
        "evaluation": config.evaluation.model_dump(mode="json"),
    }  # fmt: skip

    def make(draft: artifact.Draft, advance: Advance) -> None:
        shards, scratch = request.out / COHORT / "canonical", draft.path / ".scratch"
        rows = definitions.run(shards, scratch, asked, learner, config.evaluation, seed, advance)
        artifact.write_json(draft.path / evaluation.DEFINITIONS, rows)
        draft.rows["definitions"] = len(rows)

    return Stage(DEFINITIONS, DEFINITIONS, settings, {COHORT: request.out / COHORT}, seed, make)


def rolls_out(request: Request) -> bool:
    """Whether the policies treat simulated patients in this run."""
    return request.source is None and request.config.hospital is not None and request.config.rollouts is not None


def rollout_stage(request: Request) -> Stage:
    """What the simulator's truth shows: what policies return as they treat its patients, and which faults were caught.

    Raises:
        ConfigError: the configuration has no hospital, or no rollouts.
    """
    config, policies, out = request.config, _policies(request), request.out
    if config.hospital is None or config.rollouts is None:
        raise ConfigError("rollouts: need a simulated hospital (hospital) and how many patients to treat (rollouts)")
    simulated, asked = config.hospital, config.rollouts
    rolled = Rolled(simulated, config.cohort, config.evaluation.gamma, asked.n_stays, config.seed)
    settings = {
        "hospital": simulated.model_dump(mode="json"), "gamma": rolled.gamma, "n_stays": asked.n_stays,
    }  # fmt: skip

    def make(draft: artifact.Draft, advance: Advance) -> None:
        known = dictionary.load(out / COHORT / DICTIONARY_FILE)
        with engine(config):
            rollouts.write(draft, policies, known, rolled, advance, config.source.workers)
        detection.write(draft.path / quality_page.DETECTION, out / TABLES, out / COHORT / "canonical", out / TRUTH)

    inputs: dict[str, Path | str] = {
        TABLES: out / TABLES, TRUTH: out / TRUTH, COHORT: out / COHORT, **_named(policies),
    }  # fmt: skip
    return Stage(ROLLOUTS, ROLLOUTS, settings, inputs, config.seed, make)


def evaluate_stage(request: Request) -> Stage:
    """Every policy's value on the patients held back, with its gates and verdict; other definitions where they are."""
    config, policies, out = request.config, _policies(request), request.out
    beside = Beside(
        out / BEHAVIOUR,
        out / ROLLOUTS if rolls_out(request) else None,
        out / DEFINITIONS if (out / DEFINITIONS).is_dir() else None,
    )

    def make(draft: artifact.Draft, advance: Advance) -> None:
        means = evaluation.Means(config.source.workers, draft.work, advance)
        with engine(config):
            evaluation.write(draft.path, out / COHORT, policies, config.evaluation, config.seed, beside, means)
        draft.rows["policies"] = len(policies)
        draft.notes["policies"] = list(policies)  # in order: where none is named, it decides whom the verdict is about

    settings = config.evaluation.model_dump(mode="json")
    further = {path.name: path for path in (beside.behaviour, beside.rollouts, beside.definitions) if path is not None}
    return Stage(OPE, "evaluation", settings, {COHORT: out / COHORT, **further, **_named(policies)}, config.seed, make)


def report_stage(request: Request, pdf: bool | None = None) -> Stage:
    """The report as data, page and PDF, and beside it the model card, the facts label and the quality of its data.

    `pdf`: True demands one, False makes none, None makes one where this machine can and else says why not.
    """

    def make(draft: artifact.Draft, _advance: Advance) -> None:
        missing = documents.write(request.out, draft.path, pdf)
        if missing is not None:
            log.say("no_pdf", f"  {REPORT:<14} without a PDF: {missing}", {"why": missing})

    inputs = {COHORT: request.out / COHORT, **_named(_policies(request)), OPE: request.out / OPE}
    if rolls_out(request):
        inputs[ROLLOUTS] = request.out / ROLLOUTS
    further = [request.out / name.partition("/")[0] for name in evidence.WHERE_MADE]
    inputs |= {folder.name: folder for folder in further if (folder / artifact.MANIFEST).is_file()}
    settings = {"name": request.config.name}
    return Stage(REPORT, REPORT, settings, inputs, request.config.seed, make)


def behaviour_stage(request: Request) -> Stage:
    """What clinicians do in a state, fitted on training patients."""
    config, seed = request.config.behaviour, request.config.seed
    train = partial(_imitated, config, seed)
    return _policy_stage(request, BEHAVIOUR, BEHAVIOUR, config.model_dump(mode="json"), train)


def _train_stage(request: Request, name: str) -> Stage:
    config, seed = request.config.learners[name], request.config.seed
    train = partial(_learned, name, config, seed)
    settings = {"learner": name, **config.model_dump(mode="json")}
    return _policy_stage(request, f"{POLICY}/{name}", POLICY, settings, train)


def _policy_stage(request: Request, name: str, kind: str, settings: Mapping[str, Any], train: Train) -> Stage:
    """A stage that can be made in a process of its own."""
    source = request.out / COHORT
    make = partial(_train, source, train, request.device)
    return Stage(name, kind, settings, {COHORT: source}, request.config.seed, make)


def _imitated(config: BehaviourConfig, seed: int, episodes: Episodes, *, session: Session) -> NetworkPolicy:
    brief = for_few(config, episodes)
    return _ended(behaviour.fit(episodes, brief, seed, session), brief is not config)


def _learned(name: str, config: TrainConfig, seed: int, episodes: Episodes, *, session: Session) -> NetworkPolicy:
    brief = for_few(config, episodes)
    return _ended(policy.fit(name, episodes, brief, seed, session=session), brief is not config)


def _ended(trained: NetworkPolicy, cut: bool) -> NetworkPolicy:
    """The policy, its notes saying so where training was cut because nobody could be held out to stop it."""
    return replace(trained, notes={**trained.notes, "ended": "too few patients"}) if cut else trained


def _train(source: Path, train: Train, device: str, draft: artifact.Draft, advance: Advance) -> None:
    """Train on the training patients; a checkpoint in the draft's work folder is where a killed attempt goes on."""
    episodes = build.episodes(source, TRAINING_SPLIT)
    checkpoint = None if draft.work is None else draft.work / CHECKPOINT_FILE
    session = Session(lambda done, total, _losses: advance(done, total), checkpoint, device)
    try:
        trained = train(episodes, session=session)
    except CheckpointError as error:
        log.say("checkpoint_damaged", f"  {error}; training begins anew", {"stage": draft.path.name})
        for file in checkpoint.parent.glob("*.safetensors") if checkpoint else ():
            file.unlink()
        trained = train(episodes, session=session)
    policy.store.write(replace(trained, dictionary=dictionary.load(source / DICTIONARY_FILE)), draft.path)
    draft.rows.update(stays=episodes.n_episodes, decisions=episodes.n)
    draft.notes.update(split=TRAINING_SPLIT, **trained.notes)


def _require_enough(request: Request) -> None:
    """Say what a small cohort will not carry, before anything is trained on it.

    Raises:
        InputError: no patient is left to evaluate on; that none trains the cohort has said.
    """
    splits = artifact.read_json(artifact.verified(request.out / COHORT, "flow.json"))["splits"]
    trained, held = splits[TRAINING_SPLIT]["patients"], splits["evaluate"]["patients"]
    if not held:
        raise InputError(
            f"cohort: none of {sum(part['patients'] for part in splits.values())} patients fell to the split 'evaluate'"
            f" ({trained} train): nothing could be estimated; take more patients, or another seed"
        )
    if trained < FEWEST_PATIENTS:
        told = f"{trained} patients train, fewer than {FEWEST_PATIENTS}: training is short, and no dose is recommended"
        log.say("few_to_train", f"  {told}", {"patients": trained})
    needed = request.config.evaluation.gates.min_patients
    if held < needed:
        told = f"{held} patients to evaluate on, fewer than {needed}: every value is withheld"
        log.say("few_to_evaluate", f"  {told}", {"patients": held, "needed": needed})


def _learner_config(name: str, options: object) -> TrainConfig:
    if name not in LEARNERS:
        raise ConfigError(f"learners: {name!r} is unknown; known: {', '.join(LEARNERS)}")
    own: type[TrainConfig] = import_module(LEARNERS[name]).Config
    if isinstance(options, own):
        return options
    if not isinstance(options, Mapping | None):
        raise ConfigError(f"learners.{name}: expected a mapping of options, or nothing")
    return parse(options or {}, own, name=f"learners.{name}")


def _policies(request: Request) -> dict[str, Path]:
    return {name: request.out / POLICY / name for name in request.config.learners}


def _named(policies: Mapping[str, Path]) -> dict[str, Path]:
    return {f"{POLICY}/{name}": path for name, path in policies.items()}


def _is_foreign(request: Request) -> bool:
    """Whether the tables are a hospital's own, without a manifest of ours."""
    return request.source is not None and not (request.source / artifact.MANIFEST).is_file()


def digest_tables(root: Path, config: SourceConfig) -> str:
    """One digest of the raw files that the source reads: their names and bytes; in a dry run sizes and beginnings only.

    Raises:
        InputError: a required table is missing.
    """
    read = files.read(root, import_module(SOURCES[config.kind]).TABLES)
    content = artifact.hash_file if config.limit_stays is None else _hash_beginning
    lines = [f"{file.relative_to(root)} {content(file)}" for file in read]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _hash_beginning(path: Path) -> str:
    with path.open("rb") as file:
        return f"{path.stat().st_size} {hashlib.sha256(file.read(_BEGINNING)).hexdigest()}"


def _say_left(ahead: forecast.Forecast) -> None:
    """What the stages that come may take, between two of them."""
    log.say("forecast", f"  {ahead.words()} left", {"run_seconds_left": log.rounded(ahead.left())})


def _remove_other_policies(request: Request) -> None:
    """A replaced run keeps no policy of its predecessor."""
    for path in (request.out / POLICY).iterdir():
        if path.name not in request.config.learners:
            shutil.rmtree(path)
