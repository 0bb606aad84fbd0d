"""Cli: the command line. Everything heavy is imported by the command that needs it, so that help is instant."""

import os
import signal
import sys
import threading
from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from itertools import pairwise
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from app import evidence
from cohort.errors import ArtifactError, ConfigError, SutureError

if TYPE_CHECKING:
    from app.run import Request

_OWN_PID = os.getpid()
_WRONG_WORDS: type[typer.BadParameter] = typer.BadParameter.__mro__[1]
"""What Typer raises for a wrong command or option; where its class lies differs between its versions."""
EPILOG = (
    "Exit codes: 0 done; 1 the request cannot be met; 2 wrong option or configuration; 3 wrong input tables; "
    "4 a stage's directory is missing, damaged, in use, already there, or cannot be written; 130 interrupted."
)
TITLE = (
    "Learn dosing policies from hospital records and audit them.\n\n"
    "Fluids and vasopressors in sepsis: from a hospital's tables to trajectories, policies, off-policy evaluation "
    "and a report. A research prototype, not for clinical use."
)


class LogFormat(Enum):
    """How a run says what it does: lines for a person, or JSON, an object a line, for a machine."""

    TEXT = "text"
    JSON = "json"


app = typer.Typer(
    help=TITLE,
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="The run's YAML file, as configs/demo.yaml.")]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="The run's directory.")]
Source = Annotated[
    Path | None,
    typer.Option("--source", metavar="DIR", help="The hospital's own tables; without it the simulated hospital's."),
]
Resume = Annotated[
    bool,
    typer.Option("--resume", help="Keep what matches (configuration, inputs, seed, hashes); make the rest."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there, each stage once it is complete.")]
Device = Annotated[str, typer.Option("--device", metavar="NAME", help="Where networks are trained: cpu or cuda.")]
Limit = Annotated[
    int | None,
    typer.Option(
        "--limit-stays",
        metavar="N",
        min=1,
        help="A dry run: about N stays, those of the smallest patient ids; tables in that order are not read further.",
    ),
]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run's directory, as runs/demo.")]
Settings = Annotated[
    Path | None,
    typer.Option("--settings", metavar="FILE", help="The app's settings (YAML); where its audit log lies, among them."),
]


def main() -> None:
    """Console entry: an error that a user can act on is one line on the error stream, never a traceback."""
    sys.excepthook = _defect
    threading.excepthook = _defect_in_a_thread
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    _quieten_libraries()
    command = typer.main.get_command(app)  # calling `app` itself would put Typer's own handler of defects before ours
    try:
        if _asked_for_json():
            sys.exit(command(standalone_mode=False))
        command()
    except _WRONG_WORDS as error:  # only where the log is for a machine: to a person Typer says it
        _fail(" ".join(error.format_message().split()), error.exit_code)
    except MemoryError:
        _fail("not enough memory: fewer source.workers or smaller shards take less; --resume keeps what is finished", 1)
    except SutureError as error:
        _fail(" ".join(str(error).split()), error.exit_code)


@app.callback(invoke_without_command=True)
def top(
    log_format: Annotated[
        LogFormat,
        typer.Option("--log-format", envvar="SUTURE_LOG_FORMAT", help="What is said on the error stream."),
    ] = LogFormat.TEXT,
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    if version:
        from importlib.metadata import version as installed

        print(f"suture {installed('suture')}")
        raise typer.Exit
    os.environ["SUTURE_LOG_FORMAT"] = log_format.value


@app.command()
def run(
    config: ConfigFile,
    out: Out,
    source: Source = None,
    limit_stays: Limit = None,
    device: Device = "cpu",
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Every stage, from tables to report; ends with a short table and the files to open."""
    from app import run as pipeline
    from app.summary import show

    request = pipeline.limited(_request(config, out, source, resume, overwrite, device), limit_stays)
    show(pipeline.run(request).path)


@app.command()
def simulate(config: ConfigFile, out: Out, resume: Resume = False, overwrite: Overwrite = False) -> None:
    """Write the simulated hospital's tables (MIMIC-IV layout) and its truth: DIR/tables and DIR/truth."""
    from app import run as pipeline

    request = _request(config, out, None, resume, overwrite)
    pipeline.alone(request, [pipeline.simulate_stage(request)])


@app.command()
def cohort(
    config: ConfigFile,
    out: Out,
    source: Source = None,
    multiverse: Annotated[
        Path | None,
        typer.Option(
            "--multiverse",
            metavar="FILE",
            help="Also build these variants of the cohort, as configs/multiverse.yaml, and say how far each moves it: "
            "DIR/multiverse. A cohort that is there is used as it is.",
        ),
    ] = None,
    limit_stays: Limit = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Make trajectories from hospital tables: DIR/cohort."""
    from app import run as pipeline

    request = pipeline.limited(_request(config, out, source, resume, overwrite), limit_stays)
    if multiverse is None:
        pipeline.alone(request, [pipeline.cohort_stage(request)])
    else:
        from app import multiverse as variants

        variants.show(variants.build(request, multiverse))


@app.command()
def copy(
    origin: Annotated[str, typer.Argument(metavar="FROM", help="A folder, or a URI, as s3://BUCKET/mimic-iv.")],
    target: Annotated[str, typer.Argument(metavar="TO", help="A folder or URI that is not there yet.")],
) -> None:
    """Bring tables here, or take a run away: between any file systems that Arrow knows, each file compared."""
    from app import log, transfer

    with log.progress() as told:
        files, size = transfer.copy(
            transfer.place(origin), transfer.place(target), lambda done, total: told(("copy", done, total))
        )
    print(f"{files} files, {size / 1e6:,.1f} MB: read again where they are now, and the same")


@app.command()
def units(
    config: ConfigFile,
    source: Annotated[Path, typer.Option("--source", metavar="DIR", help="The hospital's tables.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The review (YAML), for a person to accept.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
) -> None:
    """List the units that no dictionary knows, each with a conversion where one clearly fits; nothing is converted."""
    from app import units as review
    from app.run import load_config

    review.show(review.write(source, out, load_config(config).source, overwrite), out)


@app.command("export-meds")
def export_meds(
    source: Annotated[Path, typer.Option("--source", metavar="DIR", help="Tables in MIMIC-IV's layout.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The MEDS dataset's directory.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the dataset once it is complete.")] = False,
) -> None:
    """Write tables in MIMIC-IV's layout, the simulated hospital's too, as a MEDS dataset."""
    from app import meds

    print(f"{meds.write(source, out, overwrite):,} events -> {out}")


@app.command()
def train(
    config: ConfigFile,
    out: Out,
    learner: Annotated[
        list[str] | None, typer.Option("--learner", metavar="NAME", help="Only this one; may be repeated.")
    ] = None,
    device: Device = "cpu",
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Train the configuration's learners on DIR/cohort: DIR/policy/NAME."""
    from app import run as pipeline

    pipeline.train(_request(config, out, None, resume, overwrite, device), learner)


@app.command()
def sweep(
    config: ConfigFile, out: Out, device: Device = "cpu", resume: Resume = False, overwrite: Overwrite = False
) -> None:
    """Try the settings of the configuration's `sweep` on DIR/cohort and select by a written rule: DIR/sweep."""
    from app import sweep as settings

    settings.show(settings.run(_request(config, out, None, resume, overwrite, device)))


@app.command()
def lab(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The results' directory.")],
    seed: Annotated[int, typer.Option("--seed", min=0, help="All randomness.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there once it is complete.")] = False,
) -> None:
    """Break offline learning on purpose, on problems with a known answer, and write the curves: DIR/lab.json."""
    from app import lab as experiments

    experiments.show(experiments.write(out, seed, overwrite))


@app.command("export-onnx")
def export_onnx(
    run: RunArgument,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The graph (ONNX).")],
    policy: Annotated[
        str | None, typer.Option("--policy", metavar="NAME", help="Which; else the one the verdict is about.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
) -> None:
    """Write a policy as one ONNX graph: states in clinical units in, probabilities (and values) out, no abstention."""
    from app import recommendation
    from policy import onnx_graph, store

    name = policy or recommendation.main_policy(run)
    onnx_graph.write(store.load(run / "policy" / name), out, overwrite)
    print("Research prototype, not for clinical use.")
    print(f"policy {name} -> {out}")


@app.command()
def evaluate(
    config: ConfigFile,
    out: Out,
    multiverse: Annotated[
        Path | None,
        typer.Option(
            "--multiverse",
            metavar="FILE",
            help="Also repeat the main policy's training and evaluation under these definitions of the cohort, as "
            "configs/definitions.yaml: DIR/definitions, and in the evaluation. About a minute each on the demo.",
        ),
    ] = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Estimate what the policies are worth on patients held back, or say why not: DIR/ope."""
    from app import run as pipeline

    pipeline.evaluate(_request(config, out, None, resume, overwrite), multiverse)


@app.command()
def recommend(
    run: RunArgument,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Doses or abstentions (CSV, parquet).")],
    states: Annotated[
        Path | None, typer.Option("--states", metavar="FILE", help="States in clinical units (CSV, parquet).")
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(
            "--source",
            metavar="DIR",
            help="Or a hospital's tables, in the layout that the run read or canonical (shard-*/): every decision time "
            "of every patient.",
        ),
    ] = None,
    at: Annotated[
        datetime | None,
        typer.Option(
            "--at",
            metavar="TIME",
            formats=["%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S"],
            help="With --source: only the patients who are in intensive care then, each at the last whole hour of "
            "the stay; what is later in the tables is not used.",
        ),
    ] = None,
    stay: Annotated[int | None, typer.Option("--stay", metavar="ID", help="With --source: only this stay.")] = None,
    policy: Annotated[
        str | None, typer.Option("--policy", metavar="NAME", help="Which; else the one the verdict is about.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
) -> None:
    """Answer each state with a dose and its support in the records, or with an abstention and the reason."""
    from app import recommendation

    if (states is None) == (source is None):
        raise ConfigError("name either --states FILE or --source DIR")
    if states is not None and (at is not None or stay is not None):
        raise ConfigError("--at and --stay go with --source; a table of states has its own rows")
    name = policy or recommendation.main_policy(run)
    if states is not None:
        counts = recommendation.write(run, states, out, name, overwrite)
    elif source is not None:
        counts, asked = recommendation.write_bedside(run, source, out, at, stay, name, overwrite)
        for reason, n in asked.left_out.items():
            print(f"left out, {reason}: {n:,} stays")
        if asked.unknown_units:
            print(f"not used, unit not known: {asked.unknown_units:,} rows (`suture units` lists them)")
    print("Research prototype, not for clinical use.")
    print(f"policy {name}, verdict: {recommendation.verdict(run, name)}")
    print(f"{counts['rows']:,} states: {counts['recommended']:,} doses, {counts['abstained']:,} abstentions -> {out}")


@app.command()
def explain(run: RunArgument) -> None:
    """Say for each stage of a run why it was made or reused, and what it was made from."""
    from app.explain import explain as each_stage

    for one in each_stage(run):
        print(f"{one.name:<14} {one.lines[0]}")
        for line in one.lines[1:]:
            print(f"{'':<14} {line}")


@app.command()
def doctor(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where runs are to be written.")] = Path("runs"),
) -> None:
    """Check this machine: versions, memory, disk, threads, Java, browser, fonts; what will not work and what will."""
    from app.doctor import examine, show

    raise typer.Exit(0 if show(examine(out)) else 1)


@app.command("app")
def page(
    run: RunArgument,
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Where the page answers.")] = 8501,
    settings: Settings = None,
) -> None:
    """Open the pages of a run in the browser: on this machine only, unless a sign-in is configured."""
    from app.serve import serve

    if not (run / "run.json").is_file():
        raise ArtifactError(f"{run}: has no run.json, so it is not a run's directory")
    raise typer.Exit(serve(run, port, settings))


@app.command()
def replay(
    run: RunArgument,
    card: Annotated[
        str, typer.Argument(metavar="CARD", help="A card's number, as the page and the audit log name it.")
    ],
    settings: Settings = None,
) -> None:
    """Make a card again that somebody was shown, compare it with the audit log byte for byte, and print it."""
    from app import audit

    sys.stdout.buffer.write(audit.replay(run, card, settings) + b"\n")


@app.command()
def feedback(
    run: RunArgument,
    cds_hooks: Annotated[
        Path | None, typer.Option("--cds-hooks", metavar="FILE", help="Every response as CDS Hooks feedback (JSON).")
    ] = None,
    preferences: Annotated[
        Path | None,
        typer.Option("--preferences", metavar="FILE", help="What was preferred, as `dpo` reads it (CSV, parquet)."),
    ] = None,
    settings: Settings = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the files.")] = False,
) -> None:
    """Write what clinicians answered: as CDS Hooks feedback, and as a preference table for the learner `dpo`."""
    from app import audit

    for line in audit.export(run, cds_hooks, preferences, settings, overwrite):
        print(line)


@app.command()
def bench(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Which; all where none is named.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Smaller inputs.")] = False,
) -> None:
    """Run the benchmarks: one JSON object each on the output; exit code 1 where a claim does not hold."""
    from app.bench import run as run_benchmarks

    raise typer.Exit(0 if run_benchmarks(names or [], quick) else 1)


app.add_typer(evidence.commands)


def _request(
    config: Path, out: Path, source: Path | None, resume: bool, overwrite: bool, device: str = "cpu"
) -> "Request":
    from app.run import Request, load_config
    from app.stage import Existing
    from app.transfer import local

    if resume and overwrite:
        raise ConfigError("--resume and --overwrite exclude each other")
    existing = Existing.KEEP if resume else Existing.REPLACE if overwrite else Existing.REFUSE
    there = None if source is None else local(source)
    return Request(load_config(config), local(out), there, existing, device)


def _asked_for_json() -> bool:
    """Whether the log is for a machine, by the words given: they may be wrong ones, and that has to be said so too."""
    words = sys.argv[1:]
    pairs = {f"{one}={other}" for one, other in pairwise(words)} | set(words)
    if f"--log-format={LogFormat.JSON.value}" in pairs:
        os.environ["SUTURE_LOG_FORMAT"] = LogFormat.JSON.value
    return os.environ.get("SUTURE_LOG_FORMAT") == LogFormat.JSON.value


def _fail(message: str, exit_code: int) -> NoReturn:
    _say("error", f"error: {message}", {"message": message, "exit_code": exit_code})
    sys.exit(exit_code)


def _say(event: str, text: str, fields: Mapping[str, object]) -> None:
    """How this process ends, in the log's format."""
    if os.environ.get("SUTURE_LOG_FORMAT") == LogFormat.JSON.value:
        from app.log import say

        say(event, text, fields)
    else:
        print(text, file=sys.stderr)


def _quieten_libraries() -> None:
    """What libraries print about themselves is not for a hospital's terminal; our own messages are never warnings."""
    import warnings

    warnings.filterwarnings("ignore")
    os.environ.setdefault("PYTHONWARNINGS", "ignore")  # of worker processes
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")


def _stop(number: int, _frame: FrameType | None) -> NoReturn:
    """Leave at once but in order: half-written directories are removed on the way out."""
    if os.getpid() == _OWN_PID:  # worker processes inherit this handler and stay silent
        text = "interrupted: finished stages stay; --resume goes on with the others"
        _say("interrupted", text, {"exit_code": 128 + number})
    raise SystemExit(128 + number)


def _defect(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A defect of ours: where it happened, without the message, which may hold a patient's data."""
    import traceback

    if os.environ.get("SUTURE_DEBUG"):
        sys.__excepthook__(kind, error, trace)
        return
    last = traceback.extract_tb(trace)[-1]
    place = f"{Path(last.filename).name}:{last.lineno}"
    why = "SUTURE_DEBUG=1 shows the traceback, which may hold patient data"
    message = f"a defect in Suture ({kind.__name__} at {place}); {why}"
    _say("error", f"error: {message}", {"message": message, "exit_code": 1})


def _defect_in_a_thread(found: threading.ExceptHookArgs) -> None:
    """The same for a thread; one that is refused memory or a thread is missed by whoever waits for it, who says so."""
    refused = isinstance(found.exc_value, MemoryError) or str(found.exc_value) == "can't start new thread"
    if found.exc_value is not None and (os.environ.get("SUTURE_DEBUG") or not refused):
        _defect(found.exc_type, found.exc_value, found.exc_traceback)
