"""Run: the pipeline from a hospital's tables to a report, stage by stage, and the configuration of one run."""

import hashlib
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from pydantic import Field, SerializeAsAny, field_validator

import policy
import policy.store
from app import tracking
from app.run_directory import RunDirectory, opened
from app.stage import Advance, Existing, Stage, console, perform
from cohort import artifact, build, hospital, sources
from cohort.build import CohortConfig
from cohort.config import Config, load, parse
from cohort.errors import ConfigError, InputError
from cohort.hospital import HospitalConfig
from cohort.sources import SOURCES, SourceConfig
from ope import evaluation, report
from ope.evaluation import EvaluationConfig
from policy.base import LEARNERS

TABLES, TRUTH, COHORT, POLICY, OPE, REPORT = "tables", "truth", "cohort", "policy", "ope", "report"
REPORT_FILE = "report.html"
EVALUATION_FILE = "evaluation.json"


class RunConfig(Config):
    """Everything a run is made from; the seed and this give the same bytes again."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=60)
    seed: int = Field(ge=0, lt=2**31)
    hospital: HospitalConfig | None = None
    """The simulated hospital; None where the tables are given with --source."""
    source: SourceConfig
    cohort: CohortConfig
    learners: dict[str, SerializeAsAny[Config]] = Field(min_length=1)
    """Learner -> its own Config."""
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


def load_config(path: Path) -> RunConfig:
    """Read a run's YAML file.

    Raises:
        ConfigError: naming the file, the first wrong key, and what is allowed there.
    """
    try:
        return load(path, RunConfig)
    except ConfigError as error:
        raise ConfigError(str(error) if str(path) in str(error) else f"{path}: {error}") from None


def run(request: Request) -> RunDirectory:
    """All stages, in order; the directory then holds what `suture run` promises.

    Raises:
        SutureError: one line saying what is wrong; finished stages stay as they are.
    """
    started = time.perf_counter()
    _require_tables(request)
    with opened(request.out, new=request.existing is Existing.REFUSE) as directory:
        directory.update(name=request.config.name, seed=request.config.seed, finished=False)
        made = [perform(stage, directory, request.existing) for stage in stages(request)]
        if request.existing is Existing.REPLACE:
            _remove_other_policies(request)
        if any(made) or not (request.out / tracking.STORE).exists():
            with console.status("copying to MLflow"):
                tracking.record(request.out, request.config.name)
        directory.update(finished=True, seconds=round(time.perf_counter() - started, 1))
    return directory


def alone(request: Request, chosen: Sequence[Stage]) -> RunDirectory:
    """Some stages only, on the directories that earlier ones left in the run's directory."""
    with opened(request.out) as directory:
        directory.update(name=request.config.name, seed=request.config.seed, finished=False)
        for stage in chosen:
            perform(stage, directory, request.existing)
    return directory


def stages(request: Request) -> list[Stage]:
    """Every stage of a run, in order."""
    return [
        *([] if request.source else [simulate_stage(request)]),
        cohort_stage(request),
        *train_stages(request),
        evaluate_stage(request),
        report_stage(request),
    ]


def simulate_stage(request: Request) -> Stage:
    """The simulated hospital's tables, and its truth beside them.

    Raises:
        ConfigError: the configuration has no hospital.
    """
    config, seed = request.config.hospital, request.config.seed
    if config is None:
        raise ConfigError("hospital: this configuration simulates none; name the hospital's tables with --source DIR")
    settings = config.model_dump(mode="json")

    def make(draft: artifact.Draft, advance: Advance) -> None:
        with artifact.writing(request.out / TRUTH, TRUTH, settings, seed=seed, overwrite=True) as truth:
            draft.rows.update(hospital.simulate(draft.path, truth.path, config, seed, advance))

    return Stage(TABLES, TABLES, settings, {}, seed, make, beside=(TRUTH,))


def cohort_stage(request: Request) -> Stage:
    """Canonical tables, trajectories, and all that was fitted on training patients."""
    config, root = request.config, request.source or request.out / TABLES
    settings = {
        "source": config.source.model_dump(mode="json"),
        "cohort": config.cohort.model_dump(mode="json"),
    }
    inputs = {TABLES: root if _is_artifact(root) or not request.source else _digest_tables(root, config.source.kind)}

    def make(draft: artifact.Draft, advance: Advance) -> None:
        shards = draft.path / "canonical"
        counts = sources.ingest(root, shards, config.source, advance)
        draft.notes["source"] = {f"{table}: {reason}": count for (table, reason), count in sorted(counts.items())}
        draft.rows.update(build.build(shards, draft.path, config.cohort, config.seed, progress=advance))

    return Stage(COHORT, COHORT, settings, inputs, config.seed, make)


def train_stages(request: Request, names: Sequence[str] | None = None) -> list[Stage]:
    """One stage for each learner, or for those named.

    Raises:
        ConfigError: a name is not among the configuration's learners.
    """
    for name in names or ():
        if name not in request.config.learners:
            raise ConfigError(f"learner {name!r} is not in the configuration: {', '.join(request.config.learners)}")
    return [_train_stage(request, name) for name in names or request.config.learners]


def evaluate_stage(request: Request) -> Stage:
    """Every policy's value on the patients held back, with its gates and verdict."""
    config, policies = request.config, _policies(request)

    def make(draft: artifact.Draft, _advance: Advance) -> None:
        document = evaluation.run(request.out / COHORT, policies, config.evaluation, config.seed)
        artifact.write_json(draft.path / EVALUATION_FILE, document)
        draft.rows["policies"] = len(policies)

    settings = config.evaluation.model_dump(mode="json")
    return Stage(OPE, "evaluation", settings, {COHORT: request.out / COHORT, **_named(policies)}, config.seed, make)


def report_stage(request: Request) -> Stage:
    """One self-contained HTML page."""

    def make(draft: artifact.Draft, _advance: Advance) -> None:
        (draft.path / REPORT_FILE).write_text(report.render(request.out), encoding="utf-8")

    inputs = {COHORT: request.out / COHORT, **_named(_policies(request)), OPE: request.out / OPE}
    return Stage(REPORT, REPORT, {"name": request.config.name}, inputs, request.config.seed, make)


def _train_stage(request: Request, name: str) -> Stage:
    config, seed = request.config.learners[name], request.config.seed

    def make(draft: artifact.Draft, advance: Advance) -> None:
        episodes = build.episodes(request.out / COHORT, "train")
        policy.store.save(policy.fit(name, episodes, config, seed), draft.path)
        draft.rows.update(stays=episodes.n_episodes, decisions=episodes.n)

    settings = {"learner": name, **config.model_dump(mode="json")}
    return Stage(f"{POLICY}/{name}", POLICY, settings, {COHORT: request.out / COHORT}, seed, make)


def _learner_config(name: str, options: object) -> Config:
    if name not in LEARNERS:
        raise ConfigError(f"learners: {name!r} is unknown; known: {', '.join(LEARNERS)}")
    own: type[Config] = import_module(LEARNERS[name]).Config
    if isinstance(options, own):
        return options
    if not isinstance(options, Mapping | None):
        raise ConfigError(f"learners.{name}: expected a mapping of options, or nothing")
    return parse(options or {}, own, name=f"learners.{name}")


def _policies(request: Request) -> dict[str, Path]:
    return {name: request.out / POLICY / name for name in request.config.learners}


def _named(policies: Mapping[str, Path]) -> dict[str, Path]:
    return {f"{POLICY}/{name}": path for name, path in policies.items()}


def _require_tables(request: Request) -> None:
    if request.source is not None and not request.source.is_dir():
        raise InputError(f"{request.source}: not a directory; --source names the folder with the hospital's tables")
    if request.source is None and request.config.hospital is None:
        raise ConfigError("hospital: this configuration simulates none; name the hospital's tables with --source DIR")


def _is_artifact(path: Path) -> bool:
    return (path / artifact.MANIFEST).is_file()


def _digest_tables(root: Path, kind: str) -> str:
    """One digest of the raw files that the source reads: their names and bytes."""
    names = set(import_module(SOURCES[kind]).TABLES)
    files = sorted(file for file in root.rglob("*") if file.name.partition(".")[0].lower() in names and file.is_file())
    lines = [f"{file.relative_to(root)} {artifact.hash_file(file)}" for file in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _remove_other_policies(request: Request) -> None:
    """A replaced run keeps no policy of its predecessor."""
    for path in (request.out / POLICY).iterdir():
        if path.name not in request.config.learners:
            shutil.rmtree(path)
