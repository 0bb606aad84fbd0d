"""Benchmark: a run is killed, starved and damaged in every stage; nothing may be lost and nothing wrong silently.

Each fault is put to a copy of a run, `--resume` follows, and every stage's digest has to be that of an undisturbed run.
Commands are forked from this process, which has loaded everything already: they are the command line's own, without its
seconds of loading. `--table` prints the findings as a Markdown table too, on the error stream.
"""

import argparse
import hashlib
import importlib
import itertools
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path = [
    folder for folder in sys.path if Path(folder).resolve() != Path(__file__).resolve().parent
]  # benchmarks/app.py is not the package

from app.run_directory import RECORD  # noqa: E402
from cohort import artifact  # noqa: E402

CONFIG = """
name: faults
seed: {seed}
hospital: {{n_stays: {stays}, shard_stays: {shard}, charting: {{other_rows: false}}}}
source: {{kind: mimic_iv, shard_stays: {shard}, workers: {workers}}}
cohort: {{grid: {{horizon_hours: 24}}}}
learners:
  bc: &quick {{hidden: [16], updates: {updates}, evaluate_every: 20, min_updates: 20, patience: 1000}}
  iql: *quick
behaviour: &fast {{hidden: [16], updates: {updates}, evaluate_every: 20, min_updates: 20, patience: 1000, folds: 2}}
sweep: {{learners: [conservative_iql, iql], taus: [0.7], target_kls: [0.1], critic: *quick, behaviour: *fast}}
rollouts: {{n_stays: 20}}
evaluation:
  n_bootstrap: 100
  estimators: [wis, cwpdis, dm]
  primary: wis
  behaviour: *fast
  fqe: {{hidden: [8], updates: 200, members: 2}}
  twin: {{groups: 4, repeats: 10, n_bootstrap: 20}}
"""
ALONE = {
    "tables": ("simulate",),
    "cohort": ("cohort",),
    "behaviour": ("train",),
    "policy/iql": ("train", "--learner", "iql"),
    "sweep": ("sweep",),
    "rollouts": ("evaluate",),
    "ope": ("evaluate",),
    "report": ("report",),
}
"""Stage -> the command that makes it alone."""
STAGES = tuple(ALONE)
RUN = "whole run"
SUTURE = Path(sys.executable).with_name("suture")
UNTOUCHED = "the digests of an undisturbed run"
LONGEST_S = 1800
POLL_S = 0.01
NOBODY = 65534
_NUMBERS = itertools.count()


@dataclass(frozen=True)
class Finding:
    """One fault and what came of it."""

    fault: str
    stage: str
    detected: str
    """What the run, or the next one, said of it."""
    outcome: str
    reused: int
    """Finished pieces and checkpoints that the next run found."""
    ok: bool


NOT_MOUNTED = Finding("full disk", RUN, "not tried: no tmpfs could be mounted here", "not tried", 0, True)


@dataclass(frozen=True)
class Bench:
    """Where a campaign works: its configuration, an undisturbed run, and that run's digests."""

    folder: Path
    config: Path
    whole: Path
    swept: Path
    """The same run with a sweep, which its report would tell of."""
    other: Path
    """Tables and cohort of another hospital."""
    digests: dict[str, str]


def main() -> int:
    """Print one JSON object; exit code 1 where anything was lost, or wrong and not said."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one kill a stage instead of twenty")
    parser.add_argument("--kills", type=int, help="kills a stage")
    parser.add_argument("--stays", type=int, default=60, help="stays of the simulated hospital")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--only", nargs="+", metavar="PART", choices=PARTS, help=f"of {', '.join(PARTS)}")
    parser.add_argument("--table", action="store_true", help="a Markdown table too, on the error stream")
    options = parser.parse_args()
    kills = options.kills or (1 if options.quick else 20)
    with tempfile.TemporaryDirectory() as folder:
        bench = prepare(Path(folder), options.stays)
        findings = list(told(campaign(bench, kills, options.seed, options.only or tuple(PARTS))))
    if options.table:
        print(table(findings), file=sys.stderr)
    wrong = [one for one in findings if not one.ok]
    claims = [
        {"name": "faults after which something was lost or silently wrong", "value": len(wrong), "bar": 0,
         "better": "low", "holds": not wrong},
    ]  # fmt: skip
    print(
        json.dumps({"faults": len(findings), "findings": [asdict(one) for one in findings], "claims": claims}, indent=1)
    )
    return 1 if wrong else 0


def prepare(folder: Path, stays: int, updates: int = 600) -> Bench:
    """An undisturbed run, the same with a sweep, and the cohort of another hospital."""
    load()
    config, other = folder / "faults.yaml", folder / "other.yaml"
    for file, seed in ((config, 3), (other, 4)):
        text = CONFIG.format(stays=stays, shard=max(stays // 3, 1), updates=updates, workers=1, seed=seed)
        file.write_text(text, encoding="utf-8")
    bench = Bench(folder, config, folder / "whole", folder / "swept", folder / "other", {})
    must(bench, "run", config, "--out", bench.whole)
    shutil.copytree(bench.whole, bench.swept)
    must(bench, "sweep", config, "--out", bench.swept)
    for name in ("simulate", "cohort"):
        must(bench, name, other, "--out", bench.other)
    return replace(bench, digests=digests(bench.whole) | {"sweep": artifact.digest(bench.swept / "sweep")})


def must(bench: Bench, *words: object) -> None:
    """Run a command that has to end well."""
    done = suture(bench, *words)
    if done.code:
        raise SystemExit(f"the undisturbed run failed: {done.said}")


def load() -> None:
    """What every command needs, so that forked ones have it."""
    for module in ("app.cli", "app.run", "app.sweep", "app.summary", "app.verification", "mlflow", "weasyprint"):
        with suppress(ImportError):  # without Pango there is no PDF; the command says so
            importlib.import_module(module)


def campaign(bench: Bench, kills: int, seed: int, parts: Sequence[str]) -> Iterator[Finding]:
    """Every fault in turn, of the parts asked for."""
    for part in parts:
        yield from PARTS[part](bench, kills, random.Random(f"{seed} {part}"))


def told(findings: Iterator[Finding]) -> Iterator[Finding]:
    """The findings, each said on the error stream as it comes."""
    for one in findings:
        mark = "ok" if one.ok else "WRONG"
        print(f"{mark}: {one.stage}: {one.fault}: {one.detected}; {one.outcome}; {one.reused} reused", file=sys.stderr)
        yield one


def table(findings: list[Finding]) -> str:
    """Fault, where, what detected it, what came of it; equal rows are counted."""
    rows: dict[tuple[str, ...], list[int]] = {}
    for one in findings:
        rows.setdefault((one.fault, one.stage, one.detected, one.outcome), []).append(one.reused)
    lines = ["| fault | where | times | detected by | outcome | pieces reused |", "|---|---|---|---|---|---|"]
    for (fault, stage, detected, outcome), reused in rows.items():
        span = f"{min(reused)} to {max(reused)}" if min(reused) < max(reused) else str(reused[0])
        lines.append(f"| {fault} | {stage} | {len(reused)} | {detected} | {outcome} | {span} |")
    return "\n".join(lines)


# Faults


def kills_of_stages(bench: Bench, kills: int, rng: random.Random) -> Iterator[Finding]:
    """Every stage, alone, at moments of its processor time."""
    costs = artifact.read_json(bench.swept / RECORD)["stages"]
    for stage in STAGES:
        for _ in range(kills):
            yield killed(bench, stage, rng.random() * costs[stage]["cpu_seconds"])


def kills_of_runs(bench: Bench, kills: int, rng: random.Random) -> Iterator[Finding]:
    """The whole run, at moments of its processor time."""
    costs = artifact.read_json(bench.whole / RECORD)["stages"]
    whole = sum(cost["cpu_seconds"] for cost in costs.values())
    for _ in range(kills):
        yield killed(bench, RUN, rng.random() * whole)


def damages(bench: Bench, _kills: int, _rng: random.Random) -> Iterator[Finding]:
    """Files that are not what was written."""
    for stage in STAGES:
        for damage in (flipped, truncated):
            yield damaged(bench, stage, damage)
    yield damaged(bench, "tables", flipped, at="truth")
    for change in (manifest_cut, manifest_edited, manifest_newer, other_shard, other_stage):
        yield damaged(bench, "cohort", change)
    yield damaged(bench, "cohort", wrong_clock, expected=None)
    yield stale(bench)


def starvation(bench: Bench, _kills: int, _rng: random.Random) -> Iterator[Finding]:
    """No room, no permission, no memory, no directory of one's own, no clock."""
    yield from full_disk(bench)
    yield from (full_disk_in(bench, stage) for stage in STAGES)
    yield read_only(bench)
    yield forbidden(bench)
    yield second_run(bench)
    for stage in ("tables", "cohort", "rollouts", "ope"):
        yield worker_killed(bench, stage)
        yield worker_killed(bench, stage, parent=True)
    yield little_memory(bench)
    yield shifted_clock(bench)


PARTS: dict[str, Callable[[Bench, int, random.Random], Iterator[Finding]]] = {
    "damages": damages, "starvation": starvation, "stages": kills_of_stages, "runs": kills_of_runs,
}  # fmt: skip


def killed(bench: Bench, stage: str, after_cpu_s: float) -> Finding:
    """kill -9 of the whole process group, so much processor time after the stage (or the run) began."""
    run = without(bench, stage)
    child = started(bench, *resuming(bench, run, stage))
    work = work_folder(run, stage)
    while not work.is_dir() and not child.ended():
        time.sleep(POLL_S)
    end = cpu_seconds(child.pid) + after_cpu_s
    while not child.ended() and cpu_seconds(child.pid) < end:
        time.sleep(POLL_S)
    child.kill()
    begun = "half-made" if work.is_dir() or stage == RUN else "whole already"
    reused = sum(map(pieces_in, run.rglob(".*.work")))
    return resumed(bench, run, f"kill -9, {begun}", stage, "temporary directories and pieces", reused)


def damaged(
    bench: Bench,
    stage: str,
    damage: Callable[[Bench, Path], str],
    expected: str | None = "made again: ",
    at: str | None = None,
) -> Finding:
    """A finished run whose stage is changed on disk; `verify` has to say so, and resuming to mend it."""
    run = copy(bench, stage)
    fault = damage(bench, run / (at or stage))
    checked = suture(bench, "verify", run)
    named = checked.code == 4 and (at or stage) in checked.said
    said = "`suture verify` and --resume" if named else "nothing"
    finding = resumed(bench, run, fault, stage, said if expected else "nothing, as it should be", 0, expected)
    return finding if named == (expected is not None) else failed(finding, f"verify: {checked.said.strip()[:100]}")


def stale(bench: Bench) -> Finding:
    """What processes that are gone may leave: drafts, a replaced directory, a piece of another attempt."""
    run = without(bench, "cohort")
    for name in (".cohort.tmp-999999", ".truth.tmp-1", "policy/.iql.tmp-999999", ".cohort.work/.frames.tmp-0"):
        (run / name).mkdir(parents=True)
        (run / name / "rows").write_bytes(b"half a row")
    for name in (".run.json.tmp-999999", ".mlflow.db.tmp-999999", ".mlflow.db.tmp-999999-journal"):
        (run / name).write_text("{")
    (run / ".cohort.work" / "identity").write_text("of another configuration")
    (run / "tables").rename(run / ".tables.old-999999")
    return resumed(bench, run, "directories of dead processes", RUN, "their names and the lock", 0)


def full_disk(bench: Bench) -> Iterator[Finding]:
    """A file system with too little room; more room follows, and the run is gone on with."""
    size = sum(file.stat().st_size for file in bench.whole.rglob("*") if file.is_file()) / 1e6
    for share in (0.05, 0.2, 0.4, 0.6, 0.8):
        with small_disk(bench.folder / "small", max(int(size * share), 1)) as (disk, resize):
            if disk is None:
                yield NOT_MOUNTED
                return
            run = disk / "run"
            done = suture(bench, "run", bench.config, "--out", run)
            said = "exit code 4, one line" if done.code == 4 and "cannot be written" in done.error else done.error[:120]
            stage = next((name for name in (*STAGES, "mlflow.db") if f"{run / name}: " in done.error), RUN)
            resize()
            finding = resumed(
                bench, run, "full disk", stage, said, sum(map(pieces_in, run.rglob(".*.work"))), whole=True
            )
            yield finding if done.code in {0, 4} else failed(finding, f"exit code {done.code}")


def full_disk_in(bench: Bench, stage: str) -> Finding:
    """Room for half of what a stage alone writes; then room for all."""
    with small_disk(bench.folder / "small", 512) as (disk, resize):
        if disk is None:
            return NOT_MOUNTED
        run = disk / "run"
        shutil.copytree(without(bench, stage), run)
        state = os.statvfs(disk)
        own = sum(path.stat().st_size for path in (bench.swept / stage).rglob("*"))
        resize((state.f_blocks - state.f_bfree) * state.f_frsize + own // 2)
        done = suture(bench, *resuming(bench, run, stage))
        named = f"error: {run}/" in done.error and ": cannot be written" in done.error
        resize()
        reused = sum(map(pieces_in, run.rglob(".*.work")))
        said = "exit code 4, one line" if named else done.error[:120]
        finding = resumed(bench, run, "full disk, half written", stage, said, reused)
        return finding if done.code == 4 and named else failed(finding, f"exit code {done.code}")


def read_only(bench: Bench) -> Finding:
    """The output cannot be written at all."""
    with small_disk(bench.folder / "frozen", 64, read_only=True) as (disk, resize):
        if disk is None:
            return replace(NOT_MOUNTED, fault="read-only output")
        done = suture(bench, "run", bench.config, "--out", disk / "run")
        resize()
        return refused(bench, disk / "run", "read-only output", done, 4)


def forbidden(bench: Bench) -> Finding:
    """The output belongs to somebody else; asked by a process that is not root."""
    with tempfile.TemporaryDirectory() as folder:  # one that others may look into
        Path(folder).chmod(0o755)
        config, run = Path(shutil.copy(bench.config, folder)), Path(folder) / "run"
        run.mkdir(mode=0o555)
        done = suture(bench, "run", config, "--out", run, user=None if os.geteuid() else NOBODY)
        run.chmod(0o755)
        return refused(bench, run, "a directory without permission", done, 4)


def second_run(bench: Bench) -> Finding:
    """Two runs on one directory at once."""
    run = without(bench, "rollouts")
    first = started(bench, *resuming(bench, run, "rollouts"))
    while not work_folder(run, "rollouts").is_dir() and not first.ended():
        time.sleep(POLL_S)
    second = suture(bench, *resuming(bench, run, "rollouts"))
    first.wait()
    right = second.code == 4 and "another run is writing here" in second.error
    finding = resumed(bench, run, "two runs on one directory", "rollouts", "the directory's lock: exit code 4", 0)
    return finding if right and not first.code else failed(finding, f"{first.code}, {second.code}: {second.error}")


def worker_killed(bench: Bench, stage: str, parent: bool = False) -> Finding:
    """One worker process is killed, as the system does where memory ends, or their parent alone."""
    run, two = without(bench, stage), bench.folder / "two.yaml"
    two.write_text(bench.config.read_text().replace("workers: 1", "workers: 2"))
    child = started(replace(bench, config=two), *resuming(replace(bench, config=two), run, stage))
    while not (processes := spawned(child.pid)) and not child.ended():
        time.sleep(POLL_S)
    time.sleep(0.5)  # until then it only loads
    for pid in [child.pid] if parent else processes[:1]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    child.wait()
    deadline = time.monotonic() + LONGEST_S
    while any(b"spawn_main" in cmdline(pid) for pid in processes) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    reused = sum(map(pieces_in, run.rglob(".*.work")))
    if parent:
        return resumed(bench, run, "kill -9 of the parent alone", stage, "its processes end with it", reused)
    said = "exit code 1, one line" if "a worker process was killed" in child.error else child.error[:120]
    finding = resumed(bench, run, "a worker out of memory", stage, said, reused)
    return finding if child.code == 1 else failed(finding, f"exit code {child.code}")


def little_memory(bench: Bench) -> Finding:
    """The system refuses more memory (a limit on the address space)."""
    run = without(bench, "cohort")
    words = resuming(bench, run, "cohort")
    done = suture(bench, *words, limit=(resource.RLIMIT_AS, resident_bytes() + (48 << 20)))
    reused = sum(map(pieces_in, run.rglob(".*.work")))
    if done.code is not None and done.code < 0:  # where a library asks for memory and does not look at what it got
        return resumed(bench, run, "memory refused", "cohort", f"ended by the system, signal {-done.code}", reused)
    right = done.code == 1 and "not enough memory" in done.error
    found = resumed(bench, run, "memory refused", "cohort", "exit code 1, one line", reused)
    return found if right else failed(found, done.error[:120])


def shifted_clock(bench: Bench) -> Finding:
    """The machine's clock is years off while a run is made."""
    program = shutil.which("faketime")
    if program is None:
        return Finding("a clock ten years off", RUN, "not tried: no faketime here", "not tried", 0, True)
    run = without(bench, RUN)
    words = [program, "-f", "-3650d", str(SUTURE), "run", str(bench.config), "--out", str(run)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=LONGEST_S, check=False)
    finding = resumed(bench, run, "a clock ten years off", RUN, "nothing, as it should be", 0)
    return finding if not done.returncode else failed(finding, done.stderr.strip()[-120:])


def refused(bench: Bench, run: Path, fault: str, done: "Child", code: int) -> Finding:
    """A command that had to end with one line; then it is gone on with under better conditions."""
    right = done.code == code and len(done.said.strip().splitlines()) == 1
    said = f"exit code {code}, one line" if right else f"exit code {done.code}: {done.said.strip()[-160:]}"
    finding = resumed(bench, run, fault, RUN, said, sum(map(pieces_in, run.rglob(".*.work"))))
    return finding if right else failed(finding, "not refused as it should be")


# Damages


def flipped(_bench: Bench, folder: Path) -> str:
    """One bit in the middle of the largest file."""
    file = largest(folder)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))
    return "one flipped bit"


def truncated(_bench: Bench, folder: Path) -> str:
    """The second half of the largest file."""
    file = largest(folder)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return "a truncated file"


def manifest_cut(_bench: Bench, folder: Path) -> str:
    """Half a manifest."""
    file = folder / artifact.MANIFEST
    file.write_text(file.read_text()[: file.stat().st_size // 2])
    return "a truncated manifest"


def manifest_edited(_bench: Bench, folder: Path) -> str:
    """A number of rows that is not true."""
    file = folder / artifact.MANIFEST
    content = json.loads(file.read_text())
    content["rows"]["decisions"] += 1
    file.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
    return "an edited manifest"


def manifest_newer(_bench: Bench, folder: Path) -> str:
    """A manifest of a Suture to come."""
    file = folder / artifact.MANIFEST
    file.write_text(json.dumps({**json.loads(file.read_text()), "version": artifact.VERSION + 1}))
    return "a newer version's manifest"


def other_shard(bench: Bench, folder: Path) -> str:
    """A shard of another configuration among the run's own."""
    shards = sorted((folder / "canonical").glob("shard-*"))
    shutil.copytree(bench.other / "cohort" / "canonical" / shards[0].name, shards[-1], dirs_exist_ok=True)
    return "another configuration's shard among its own"


def other_stage(bench: Bench, folder: Path) -> str:
    """A whole stage of another configuration, with its own manifest."""
    shutil.rmtree(folder)
    shutil.copytree(bench.other / folder.name, folder)
    return "another configuration's stage, whole"


def wrong_clock(_bench: Bench, folder: Path) -> str:
    """Files from the year 2096: nothing may depend on it."""
    for file in folder.rglob("*"):
        os.utime(file, (4e9, 4e9))
    return "a wrong clock"


# What all have in common


def resumed(
    bench: Bench,
    run: Path,
    fault: str,
    stage: str,
    detected: str,
    reused: int,
    says: str | None = None,
    whole: bool = False,
) -> Finding:
    """Go on with a stage (or the whole run) and compare with the undisturbed one."""
    alone = stage in ALONE and not whole
    done = suture(bench, *resuming(bench, run, stage if alone else RUN))
    if done.code:
        return Finding(fault, stage, detected, f"not resumed: {done.said.strip()[-200:]}", reused, False)
    left = [str(path.relative_to(run)) for path in run.rglob(".*") if path.name not in {".lock"}]
    found = digests(run)
    same = found == {name: bench.digests[name] for name in found}
    same = same and (stage in found if alone else set(bench.digests) - set(found) <= {"sweep"})
    outcome = UNTOUCHED if same else "OTHER DIGESTS"
    outcome += f"; LEFT: {left[0]}" if left else ""
    silent = says is not None and says not in done.said
    outcome += "; SILENT" if silent else ""
    shutil.rmtree(run, ignore_errors=True)
    return Finding(fault, stage, detected, outcome, reused, same and not left and not silent)


def failed(finding: Finding, why: str) -> Finding:
    """The same finding, not as it should be."""
    return Finding(finding.fault, finding.stage, finding.detected, f"{finding.outcome}; {why}", finding.reused, False)


def digests(run: Path) -> dict[str, str]:
    """The digest of every stage's directory; of the report, which tells when each was made, of what it prints."""
    folders = sorted(path.parent for path in run.rglob(artifact.MANIFEST) if "mlartifacts" not in path.parts)
    found = {str(folder.relative_to(run)): artifact.digest(folder) for folder in folders}
    if "report" in found:
        artifact.verify(run / "report")
        printed = artifact.read_json(run / "report" / "report.json")["printed"]
        of_results = [one for one in printed if one["file"] != RECORD]  # how often a stage was made is the run's own
        found["report"] = hashlib.sha256(json.dumps(of_results).encode()).hexdigest()
    return found


def copy(bench: Bench, stage: str) -> Path:
    """A copy of the undisturbed run, with its sweep where that is the stage."""
    run = bench.folder / "run"
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(bench.swept if stage == "sweep" else bench.whole, run)
    return run


def without(bench: Bench, stage: str) -> Path:
    """A copy of the undisturbed run that ends before a stage; nothing at all before the whole run."""
    if stage == RUN:
        shutil.rmtree(bench.folder / "run", ignore_errors=True)
        return bench.folder / "run"
    run = copy(bench, stage)
    for name in (*STAGES[STAGES.index(stage) :], *(("truth",) if stage == "tables" else ())):
        shutil.rmtree(run / name, ignore_errors=True)
    return run


def resuming(bench: Bench, run: Path, stage: str) -> list[object]:
    """The command that goes on with a stage alone, or with the run."""
    name, *options = ALONE.get(stage, ("run",))
    return [name, bench.config, "--out", run, "--resume", *options]


def work_folder(run: Path, stage: str) -> Path:
    """Where a stage keeps its pieces while it is made; of a run, its first stage."""
    if stage == RUN:
        stage = "tables"
    return (run / stage).with_name(f".{Path(stage).name}.work")


def pieces_in(work: Path) -> int:
    """Finished pieces and checkpoints of an unfinished stage."""
    if not work.is_dir():
        return 0
    return sum(not path.name.startswith(".") and path.name != "identity" for path in work.iterdir())


def largest(folder: Path) -> Path:
    """The largest file below a folder."""
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def spawned(parent: int) -> list[int]:
    """A process's workers, not multiprocessing's own resource tracker."""
    found = []
    for listing in Path(f"/proc/{parent}/task").glob("*/children"):
        try:
            found += [int(child) for child in listing.read_text().split()]
        except OSError:
            continue
    return [pid for pid in found if b"spawn_main" in cmdline(pid)]


def cmdline(pid: int) -> bytes:
    """How a process was started; nothing where it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@contextmanager
def small_disk(
    where: Path, megabytes: int, read_only: bool = False
) -> Iterator[tuple[Path | None, Callable[..., None]]]:
    """A tmpfs of so many MB and what makes it writable and so many bytes; None where nobody may mount one here."""
    where.mkdir(exist_ok=True)
    options = f"size={megabytes}m{',ro' if read_only else ''}"
    mounted = (
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", where], capture_output=True).returncode == 0
    )

    def resize(to: int = 1 << 30) -> None:
        subprocess.run(["mount", "-o", f"remount,rw,size={to}", where], check=True, capture_output=True)

    try:
        yield (where if mounted else None), resize
    finally:
        if mounted:
            subprocess.run(["umount", where], check=True, capture_output=True)


class Child:
    """A command of Suture's in a process group of its own."""

    def __init__(self, pid: int, log: Path) -> None:
        self.pid = pid
        self._log = log
        self.code: int | None = None

    def ended(self) -> bool:
        """Whether it is no more."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code is not None

    def wait(self) -> None:
        """Until it ends; one that does not is killed."""
        deadline = time.monotonic() + LONGEST_S
        while not self.ended():
            time.sleep(POLL_S)
            if time.monotonic() > deadline:
                self.kill()

    def kill(self) -> None:
        """kill -9 of the whole group."""
        if not self.ended():
            os.killpg(self.pid, signal.SIGKILL)
            self.wait()

    @property
    def said(self) -> str:
        """All that it wrote on either stream."""
        return self._log.read_text(encoding="utf-8")

    @property
    def error(self) -> str:
        """Its last line."""
        return (self.said.strip().splitlines() or ["nothing was said"])[-1]


def suture(bench: Bench, *words: object, user: int | None = None, limit: tuple[int, int] | None = None) -> Child:
    """Run a command of Suture's to its end."""
    child = started(bench, *words, user=user, limit=limit)
    child.wait()
    return child


def started(bench: Bench, *words: object, user: int | None = None, limit: tuple[int, int] | None = None) -> Child:
    """Start a command in a fork of this process; as another user, or with a limit on a resource, where asked for."""
    log = bench.folder / f"log-{next(_NUMBERS)}"
    with log.open("wb") as file, warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        pid = os.fork()  # nothing has started a thread here
        if pid:
            return Child(pid, log)
        code = 70
        try:
            os.setpgid(0, 0)
            for number, name in ((1, "stdout"), (2, "stderr")):
                os.dup2(file.fileno(), number)
                setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115  not pytest's
            if limit is not None:
                resource.setrlimit(limit[0], (limit[1], limit[1]))
            if user is not None:
                os.setuid(user)
            sys.argv = ["suture", *map(str, words)]
            importlib.import_module("app.cli").main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException as error:  # noqa: BLE001  what an interpreter does at its end
            sys.excepthook(type(error), error, error.__traceback__)
            code = 1
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


def cpu_seconds(pid: int) -> float:
    """Processor time of a process so far; the largest number there is where it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return float("inf")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_bytes() -> int:
    """The address space of this process."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    sys.exit(main())
