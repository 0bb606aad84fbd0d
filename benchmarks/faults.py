"""Benchmark: a run is killed, starved and damaged in every stage; nothing may be lost and nothing wrong silently.

Each fault is put to a copy of a run, `suture run --resume` follows, and every stage's digest has to be that of an
undisturbed run. `--table` prints the findings as a Markdown table too, on the error stream.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from cohort import artifact

CONFIG = """
name: faults
seed: 3
hospital: {{n_stays: {stays}, shard_stays: {shard}, charting: {{other_rows: false}}}}
source: {{kind: mimic_iv, shard_stays: {shard}, workers: 2}}
cohort: {{}}
learners:
  bc: &quick {{hidden: [16], updates: {updates}, evaluate_every: 20, min_updates: 20, patience: 1000}}
  iql: *quick
behaviour: &fast {{hidden: [16], updates: {updates}, evaluate_every: 20, min_updates: 20, patience: 1000, folds: 2}}
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
    "ope": ("evaluate",),
    "report": ("report",),
}
"""Stage -> the command that makes it alone."""
STAGES = tuple(ALONE)
RUN = "whole run"
SUTURE = Path(sys.executable).with_name("suture")
UNTOUCHED = "the digests of an undisturbed run"
LONGEST_S = 900
POLL_S = 0.01


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


@dataclass(frozen=True)
class Bench:
    """Where a campaign works: its configuration, an undisturbed run, and that run's digests."""

    folder: Path
    config: Path
    whole: Path
    digests: dict[str, str]


def main() -> int:
    """Print one JSON object; exit code 1 where anything was lost, or wrong and not said."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one kill a stage instead of twenty")
    parser.add_argument("--kills", type=int, help="kills a stage")
    parser.add_argument("--stays", type=int, default=60, help="stays of the simulated hospital")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--table", action="store_true", help="a Markdown table too, on the error stream")
    options = parser.parse_args()
    kills = options.kills or (1 if options.quick else 20)
    with tempfile.TemporaryDirectory() as folder:
        bench = prepare(Path(folder), options.stays)
        findings = list(campaign(bench, kills, random.Random(options.seed)))
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


def prepare(folder: Path, stays: int, updates: int = 200) -> Bench:
    """An undisturbed run."""
    config = folder / "faults.yaml"
    config.write_text(CONFIG.format(stays=stays, shard=max(stays // 4, 1), updates=updates), encoding="utf-8")
    done = suture("run", config, "--out", folder / "whole")
    if done.returncode:
        raise SystemExit(f"the undisturbed run failed: {done.stderr}")
    return Bench(folder, config, folder / "whole", digests(folder / "whole"))


def campaign(bench: Bench, kills: int, rng: random.Random) -> Iterator[Finding]:
    """Every fault in turn."""
    record = json.loads((bench.whole / "run.json").read_text())
    for stage in STAGES:
        for _ in range(kills):
            yield killed(bench, stage, rng.random() * record["stages"][stage]["seconds"])
    for _ in range(kills):
        yield killed(bench, RUN, rng.random() * record["seconds"])
    for stage in STAGES:
        for damage in (flipped, truncated):
            yield damaged(bench, stage, damage)
    for change in (manifest_cut, manifest_edited, manifest_newer):
        yield damaged(bench, "cohort", change)
    yield damaged(bench, "cohort", other_shard)
    yield damaged(bench, "cohort", wrong_clock, expected=None)
    yield from full_disk(bench)
    yield read_only(bench)
    yield second_run(bench)
    yield worker_killed(bench)


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


def killed(bench: Bench, stage: str, after_s: float) -> Finding:
    """kill -9 of the whole process group, so long after the stage (or the run) began."""
    run = without(bench, stage)
    process = subprocess.Popen(
        resuming(bench, run, stage), start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env=environment(),
    )  # fmt: skip
    work, deadline = work_folder(run, stage), time.monotonic() + LONGEST_S
    while not work.is_dir() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(POLL_S)
    time.sleep(after_s)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    begun = "half-made" if work.is_dir() or stage == RUN else "whole already"
    reused = sum(map(pieces_in, run.rglob(".*.work")))
    return resumed(bench, run, f"kill -9, {begun}", stage, "temporary directories and pieces", reused)


def damaged(
    bench: Bench, stage: str, damage: Callable[[Bench, Path], str], expected: str | None = "made again: "
) -> Finding:
    """A finished run whose stage is changed on disk; `verify` has to say so, and resuming to mend it."""
    run = copy(bench)
    fault = damage(bench, run / stage)
    checked = suture("verify", run)
    named = checked.returncode == 4 and stage in checked.stderr
    said = "`suture verify` and --resume" if named else "nothing"
    finding = resumed(bench, run, fault, stage, said if expected else "nothing, as it should be", 0, expected)
    return finding if named == (expected is not None) else failed(finding, "verify was wrong about it")


def full_disk(bench: Bench) -> Iterator[Finding]:
    """A file system with too little room; more room follows, and the run is gone on with."""
    size = sum(file.stat().st_size for file in bench.whole.rglob("*") if file.is_file()) >> 20
    for share, stage in ((0.05, "tables"), (0.35, RUN), (0.5, RUN)):
        with small_disk(bench.folder / "small", max(int(size * 2 * share), 1)) as (disk, grow):
            if disk is None:
                yield Finding("full disk", stage, "not tried: no tmpfs could be mounted here", "not tried", 0, True)
                return
            run = disk / "run"
            done = suture("run", bench.config, "--out", run)
            error = (done.stderr.strip().splitlines() or ["nothing was said"])[-1]
            said = "exit code 4, one line" if done.returncode == 4 and "cannot be written" in error else error[:120]
            grow()
            finding = resumed(bench, run, "full disk", stage, said, sum(map(pieces_in, run.rglob(".*.work"))))
            yield finding if done.returncode in {0, 4} else failed(finding, f"exit code {done.returncode}")


def read_only(bench: Bench) -> Finding:
    """The output cannot be written at all."""
    with small_disk(bench.folder / "frozen", 64, read_only=True) as (disk, grow):
        if disk is None:
            return Finding(
                "read-only output", "tables", "not tried: no tmpfs could be mounted here", "not tried", 0, True
            )
        done = suture("run", bench.config, "--out", disk / "run")
        error = done.stderr.strip()
        said = "exit code 4, one line" if done.returncode == 4 and len(error.splitlines()) == 1 else error[:120]
        grow()
        finding = resumed(bench, disk / "run", "read-only output", "tables", said, 0)
        return finding if done.returncode == 4 else failed(finding, f"exit code {done.returncode}")


def second_run(bench: Bench) -> Finding:
    """Two runs on one directory at once."""
    run = without(bench, "behaviour")
    first = subprocess.Popen(
        resuming(bench, run, "behaviour"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env=environment(),
    )  # fmt: skip
    while not work_folder(run, "behaviour").is_dir() and first.poll() is None:
        time.sleep(POLL_S)
    second = call(resuming(bench, run, "behaviour"))
    first.wait()
    refused = second.returncode == 4 and "another run is writing here" in second.stderr
    finding = resumed(bench, run, "two runs on one directory", "behaviour", "the directory's lock: exit code 4", 0)
    return finding if refused else failed(finding, "the second was not refused")


def worker_killed(bench: Bench) -> Finding:
    """One worker process is killed, as the system does where memory ends."""
    run = without(bench, "tables")
    process = subprocess.Popen(
        resuming(bench, run, "tables"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True, env=environment(),
    )  # fmt: skip
    while not (workers := spawned(process.pid)) and process.poll() is None:
        time.sleep(POLL_S)
    for worker in workers[:1]:
        os.kill(worker, signal.SIGKILL)
    error = process.communicate()[1]
    said = "exit code 1, one line" if "a worker process was killed" in error else error.strip()[-120:]
    finding = resumed(bench, run, "a worker out of memory", "tables", said, pieces_in(work_folder(run, "tables")))
    return finding if process.returncode == 1 else failed(finding, f"exit code {process.returncode}")


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


def other_shard(_bench: Bench, folder: Path) -> str:
    """A shard of another configuration among the run's own."""
    shards = sorted((folder / "canonical").glob("shard-*"))
    shutil.copytree(shards[0], shards[-1], dirs_exist_ok=True)
    return "another cohort's shard among its own"


def wrong_clock(_bench: Bench, folder: Path) -> str:
    """Files from the year 2096: nothing may depend on it."""
    for file in folder.rglob("*"):
        os.utime(file, (4e9, 4e9))
    return "a wrong clock"


# What all have in common


def resumed(
    bench: Bench, run: Path, fault: str, stage: str, detected: str, reused: int, says: str | None = None
) -> Finding:
    """Go on with a stage (where it is none, with the run) and compare it with the undisturbed one."""
    done = call(resuming(bench, run, stage))
    if done.returncode:
        return Finding(fault, stage, detected, f"not resumed: {done.stderr.strip()[-200:]}", reused, False)
    left = [str(path.relative_to(run)) for path in run.rglob(".*") if path.name not in {".lock"}]
    found = digests(run)
    expected = bench.digests if stage not in ALONE else {name: bench.digests[name] for name in found}
    same = found == expected and (stage not in ALONE or stage in found)
    outcome = UNTOUCHED if same else "OTHER DIGESTS"
    outcome += f"; LEFT: {left[0]}" if left else ""
    silent = says is not None and says not in done.stderr
    outcome += "; SILENT" if silent else ""
    shutil.rmtree(run, ignore_errors=True)
    return Finding(fault, stage, detected, outcome, reused, same and not left and not silent)


def failed(finding: Finding, why: str) -> Finding:
    """The same finding, not as it should be."""
    return Finding(finding.fault, finding.stage, finding.detected, f"{finding.outcome}; {why}", finding.reused, False)


def digests(run: Path) -> dict[str, str]:
    """The digest of every stage's directory."""
    folders = sorted(path.parent for path in run.rglob(artifact.MANIFEST) if "mlartifacts" not in path.parts)
    return {str(folder.relative_to(run)): artifact.digest(folder) for folder in folders}


def copy(bench: Bench) -> Path:
    """A copy of the undisturbed run."""
    run = bench.folder / "run"
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(bench.whole, run)
    return run


def without(bench: Bench, stage: str) -> Path:
    """A copy of the undisturbed run that ends before a stage; nothing at all before the whole run."""
    if stage == RUN:
        shutil.rmtree(bench.folder / "run", ignore_errors=True)
        return bench.folder / "run"
    run = copy(bench)
    for name in (*STAGES[STAGES.index(stage) :], *(("truth",) if stage == "tables" else ())):
        shutil.rmtree(run / name, ignore_errors=True)
    return run


def resuming(bench: Bench, run: Path, stage: str) -> list[str]:
    """The command that goes on with a stage alone, or with the run."""
    name, *options = ALONE.get(stage, ("run",))
    return command(name, bench.config, "--out", run, "--resume", *options)


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
) -> Iterator[tuple[Path | None, Callable[[], None]]]:
    """A tmpfs of so many MB and what makes it roomy and writable; None where nobody may mount one here."""
    where.mkdir(exist_ok=True)
    options = f"size={megabytes}m{',ro' if read_only else ''}"
    mounted = (
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", where], capture_output=True).returncode == 0
    )

    def grow() -> None:
        subprocess.run(["mount", "-o", "remount,rw,size=1g", where], check=True, capture_output=True)

    try:
        yield (where if mounted else None), grow
    finally:
        if mounted:
            subprocess.run(["umount", where], check=True, capture_output=True)


def suture(*arguments: object) -> "subprocess.CompletedProcess[str]":
    """Run a command of Suture's to its end."""
    return call(command(*arguments))


def call(words: list[str]) -> "subprocess.CompletedProcess[str]":
    """Run a program to its end."""
    return subprocess.run(words, capture_output=True, text=True, timeout=LONGEST_S, env=environment())


def command(*arguments: object) -> list[str]:
    """The installed script with these arguments."""
    return [str(SUTURE), *(str(argument) for argument in arguments)]


def environment() -> dict[str, str]:
    """One thread a process."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}


if __name__ == "__main__":
    sys.exit(main())
