"""Benchmark: a Spark cluster (a master and two workers, all on this machine) against this machine's own processes.

One small hospital goes through every stage and a sweep, on both engines: the digests have to be the same. One larger
hospital's tables and cohort are made on the cluster, to see what an executor takes in memory and how the processor time
is shared between driver and executors.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path = [
    folder for folder in sys.path if Path(folder).resolve() != Path(__file__).resolve().parent
]  # benchmarks/app.py is not the package

from app.run_directory import RECORD  # noqa: E402
from cohort import artifact  # noqa: E402
from cohort.spark import JAVA_MB, SparkConfig  # noqa: E402

SUTURE = Path(sys.executable).with_name("suture")
QUICK = {"hidden": [16], "updates": 200, "evaluate_every": 50, "min_updates": 50}
STAYS, QUICK_STAYS, SHARD = 10_000, 600, 1_000
EXECUTORS = 2
POLL_S, START_S = 0.2, 60.0


def main() -> int:
    """Print one JSON object; exit code 1 where a claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_STAYS} stays instead of {STAYS:,}")
    parser.add_argument("--stays", type=int, help="of the larger hospital")
    options = parser.parse_args()
    if find_spec("pyspark") is None or shutil.which("java") is None:
        print(json.dumps({"not_run": "needs the extra `spark` and Java 17 or newer", "claims": []}))
        return 0
    stays = options.stays or (QUICK_STAYS if options.quick else STAYS)
    with tempfile.TemporaryDirectory() as scratch, cluster(Path(scratch) / "cluster") as master:
        folder = Path(scratch)
        engines: dict[str, dict[str, Any]] = {
            "local": {"engine": "local"},
            "spark": {"engine": "spark", "spark": {"master": master}},
        }
        small = {name: everything(folder / name, engine) for name, engine in engines.items()}
        large = {name: cohort(folder / f"large-{name}", engine, stays) for name, engine in engines.items()}
    stages = small["local"]["digests"].keys() | small["spark"]["digests"].keys()
    differ = sorted(stage for stage in stages if len({run["digests"].get(stage) for run in small.values()}) > 1)
    differ += [stage for stage in ("tables", "cohort") if len({run["digests"][stage] for run in large.values()}) > 1]
    python_mb = large["spark"]["executors"]["python_mb"]
    allowed = SparkConfig().executor_memory_mb
    claims = [
        {"name": "stages whose digest differs between the engines", "value": len(differ), "bar": 0, "better": "low",
         "holds": not differ},
        {"name": "MB that Python took in an executor, against what is allowed by default", "value": python_mb,
         "bar": allowed, "better": "low", "holds": python_mb <= allowed},
    ]  # fmt: skip
    result = {
        "executors": EXECUTORS, "java_mb_allowed": JAVA_MB, "stays_a_shard": SHARD, "differ": differ, "small": small,
        "large": large, "claims": claims,
    }  # fmt: skip
    print(json.dumps(result, indent=1))
    return 0 if all(one["holds"] for one in claims) else 1


# A cluster


@contextmanager
def cluster(folder: Path, workers: int = EXECUTORS) -> Iterator[str]:
    """Spark's own master and so many workers of one core, each a process; the master's address.

    Raises:
        SystemExit: they did not come up within a minute.
    """
    import pyspark

    home = Path(pyspark.__file__).parent
    folder.mkdir(parents=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"spark://127.0.0.1:{port}"
    environment = {**os.environ, "SPARK_HOME": str(home), "SPARK_LOCAL_IP": "127.0.0.1"}
    log = (folder / "log").open("wb")

    def start(kind: str, *words: str) -> "subprocess.Popen[bytes]":
        command = [str(home / "bin" / "spark-class"), f"org.apache.spark.deploy.{kind}", "--host", "127.0.0.1", *words]
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)

    processes = [start("master.Master", "--port", str(port), "--webui-port", "0")]
    try:
        _until(lambda: _answers(port), folder)
        for number in range(workers):
            place = folder / f"worker-{number}"
            words = ("--cores", "1", "--memory", f"{2 * JAVA_MB}m", "--webui-port", "0", "--work-dir", str(place))
            processes.append(start("worker.Worker", *words, address))
        _until(lambda: (folder / "log").read_text(errors="replace").count("Registering worker") == workers, folder)
        yield address
    finally:
        for process in reversed(processes):
            os.killpg(process.pid, signal.SIGKILL)  # its executors too
            process.wait()
        log.close()


def _answers(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def _until(true: Callable[[], bool], folder: Path) -> None:
    end = time.monotonic() + START_S
    while not true():
        if time.monotonic() > end:
            raise SystemExit(f"Spark's own cluster did not come up:\n{(folder / 'log').read_text(errors='replace')}")
        time.sleep(POLL_S)


# Runs


def everything(out: Path, engine: dict[str, Any]) -> dict[str, Any]:
    """Every stage and a sweep of a small hospital."""
    config = {
        "name": "cluster",
        "seed": 5,
        "hospital": {"n_stays": 240, "shard_stays": 60},
        "source": {"kind": "mimic_iv", "shard_stays": 60, "workers": 1},
        "cohort": {},
        "learners": {"bc": QUICK, "conservative_iql": QUICK},
        "behaviour": QUICK,
        "sweep": {"learners": ["conservative_iql", "iql"], "taus": [0.7], "target_kls": [0.1], "critic": QUICK,
                  "behaviour": QUICK},
        "rollouts": {"n_stays": 40},
        "evaluation": {"n_bootstrap": 100, "behaviour": QUICK, "fqe": {"hidden": [8], "updates": 200, "members": 2},
                       "twin": {"groups": 4, "repeats": 10, "n_bootstrap": 20}},
        **engine,
    }  # fmt: skip
    return timed(out, config, ("run", "sweep"))


def cohort(out: Path, engine: dict[str, Any], stays: int) -> dict[str, Any]:
    """Tables and cohort of a larger hospital, in shards of the usual size."""
    config = {
        "name": "cluster",
        "seed": 5,
        "hospital": {"n_stays": stays, "shard_stays": min(SHARD, stays // 3)},
        "source": {"kind": "mimic_iv", "shard_stays": min(SHARD, stays // 3), "workers": EXECUTORS},
        "cohort": {},
        "learners": {"bc": QUICK},
        "evaluation": {},
        **engine,
    }
    return timed(out, config, ("simulate", "cohort"))


def timed(out: Path, config: dict[str, Any], commands: tuple[str, ...]) -> dict[str, Any]:
    """The commands in turn, as their users start them; digests, seconds, and what executors took."""
    out.mkdir()
    file, run = out / "config.yaml", out / "run"
    file.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    with watched() as seen:
        for command in commands:
            subprocess.run([str(SUTURE), command, str(file), "--out", str(run)], check=True, stdout=subprocess.DEVNULL)
    stages = artifact.read_sealed(run / RECORD)["stages"]
    folders = (path.parent for path in run.rglob(artifact.MANIFEST) if "mlartifacts" not in path.parts)
    return {
        "digests": {str(one.relative_to(run)): artifact.digest(one) for one in folders if one.name != "report"},
        "driver": {
            name: {key: cost[key] for key in ("seconds", "cpu_seconds", "peak_memory_mb")}
            for name, cost in stages.items()
        },
        "executors": {
            "java_mb": round(seen.java_mb),
            "python_mb": round(max(seen.python_mb.values(), default=0)),
            "java_cpu_s": round(sum(seen.java_cpu_s.values()), 1),
            "python_cpu_s": round(sum(seen.python_cpu_s.values()), 1),
        },
    }


# What executors take


@dataclass
class Seen:
    """The most that was seen of executors, by process."""

    java_mb: float = 0.0
    java_cpu_s: dict[int, float] = field(default_factory=dict)
    python_mb: dict[int, float] = field(default_factory=dict)
    """Of all Python processes of one executor together."""
    python_cpu_s: dict[int, float] = field(default_factory=dict)


@contextmanager
def watched() -> Iterator[Seen]:
    """What every executor on this machine takes while the block runs, looked at five times a second."""
    seen, over = Seen(), threading.Event()

    def look() -> None:
        while not over.wait(POLL_S):
            for executor in _executors():
                seen.java_mb = max(seen.java_mb, _status(executor, "VmHWM") / 1024)
                seen.java_cpu_s[executor] = max(seen.java_cpu_s.get(executor, 0.0), _cpu_s(executor))
                pythons = list(_below(executor))
                resident = sum(_status(python, "VmRSS") for python in pythons) / 1024
                seen.python_mb[executor] = max(seen.python_mb.get(executor, 0.0), resident)
                for python in pythons:
                    seen.python_cpu_s[python] = max(seen.python_cpu_s.get(python, 0.0), _cpu_s(python))

    looker = threading.Thread(target=look)
    looker.start()
    try:
        yield seen
    finally:
        over.set()
        looker.join()


def _executors() -> list[int]:
    mark = b"CoarseGrainedExecutorBackend"
    return [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/cmdline") if mark in _read(path)]


def _below(pid: int) -> Iterator[int]:
    """All descendants of a process."""
    for listing in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in _read(listing).split():
            yield int(child)
            yield from _below(int(child))


def _status(pid: int, name: str) -> float:
    """A figure of /proc/PID/status in KiB; 0 where the process has ended."""
    for line in _read(Path(f"/proc/{pid}/status")).decode().splitlines():
        if line.startswith(f"{name}:"):
            return float(line.split()[1])
    return 0.0


def _cpu_s(pid: int) -> float:
    fields = _read(Path(f"/proc/{pid}/stat")).rpartition(b")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") if fields else 0.0


def _read(path: Path) -> bytes:
    """A file of /proc; nothing where the process has ended."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


if __name__ == "__main__":
    sys.exit(main())
