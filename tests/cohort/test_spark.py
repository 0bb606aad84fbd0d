"""Spark: the same bytes as this machine's processes, and one line where there is no cluster."""

import os
import pickle
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from cohort import artifact, build, hospital, sources, spark, workers
from cohort.build import CohortConfig
from cohort.errors import InputError, SutureError
from cohort.spark import SparkConfig, engine

needs_java = pytest.mark.skipif(
    shutil.which("java") is None or find_spec("pyspark") is None, reason="Java or the extra `spark` is not installed"
)
ROOT = Path(__file__).resolve().parents[2]
HOSPITAL = hospital.HospitalConfig(n_stays=24, shard_stays=8)
SOURCE = sources.SourceConfig(kind="mimic_iv", shard_stays=8)


def made(out: Path) -> dict[str, str]:
    """Every stage's work over shards, by whichever engine is in force; the hash of every file."""
    hospital.simulate(out / "tables", out / "truth", HOSPITAL, 3)
    counts = sources.ingest(out / "tables", out / "canonical", SOURCE)
    (out / "cohort").mkdir()
    build.build(out / "canonical", out / "cohort", CohortConfig(), 3, 1, counts)
    return {str(file.relative_to(out)): artifact.hash_file(file) for file in sorted(out.rglob("*")) if file.is_file()}


def odd(limit: int, number: int) -> np.ndarray:
    """Work that may meet what a user can mend, or a defect of ours with a patient's number in its message."""
    if number == limit:
        raise InputError(f"number {number} is one too many")
    return np.arange(number) if number >= 0 else np.arange(0)[10_000_032]


def waiting(file: Path, number: int) -> int:
    """The number; the last one's work goes on until the file is there, which it says where it never is."""
    end = time.monotonic() + 60
    while number == 39 and not file.exists():
        if time.monotonic() > end:
            return -1
        time.sleep(0.05)
    return number


@needs_java
@pytest.mark.slow
def test_spark_gives_the_bytes_that_this_machines_processes_give(tmp_path: Path) -> None:
    local = made(tmp_path / "local")
    with engine(SparkConfig(master="local[2]")):
        assert made(tmp_path / "spark") == local
        numbers = list(workers.each(partial(odd, 9), [3, 1, 2], 1))
        assert [len(one) for one in numbers] == [3, 1, 2]
        with pytest.raises(InputError, match="number 2 is one too many"):
            list(workers.each(partial(odd, 2), [1, 2], 1))
        with pytest.raises(SutureError, match="gave up a shard") as caught:
            list(workers.each(partial(odd, 2), [-1], 1))
        assert "10000032" not in str(caught.value)
        begun = workers.each(partial(waiting, tmp_path / "first"), range(40), 1)
        assert next(begun) == 0
        (tmp_path / "first").touch()
        assert list(begun) == list(range(1, 40))
    assert sorted(path.name for path in (tmp_path / "spark").iterdir()) == ["canonical", "cohort", "tables", "truth"]


@needs_java
@pytest.mark.slow
def test_an_executor_that_is_killed_costs_nothing_but_time(tmp_path: Path) -> None:
    """Real executors, processes of their own: one is killed once a first shard is there, and the bytes are the same."""
    simulated(tmp_path / "local", tmp_path / "local-work")
    simulated_while_one_is_killed(tmp_path, "local-cluster[2,1,1024]", lambda pid: os.kill(pid, signal.SIGKILL))
    assert hashes(tmp_path / "spark") == hashes(tmp_path / "local")


@needs_java
@pytest.mark.slow
def test_a_worker_that_is_lost_with_its_executor_costs_nothing_but_time(
    tmp_path: Path, cluster: Callable[[Path], AbstractContextManager[str]]
) -> None:
    """Spark's own master and two workers: one of them, its executor with it, is gone once a first shard is there."""
    simulated(tmp_path / "local", tmp_path / "local-work")
    with cluster(tmp_path / "cluster") as master:
        simulated_while_one_is_killed(tmp_path, master, lambda pid: os.killpg(os.getpgid(pid), signal.SIGKILL))
    assert hashes(tmp_path / "spark") == hashes(tmp_path / "local")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], AbstractContextManager[str]]:
    """What starts a cluster on this machine: the benchmark's."""
    spec = spec_from_file_location("cluster", ROOT / "benchmarks" / "cluster.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "cluster", module)  # its dataclass looks itself up there
    spec.loader.exec_module(module)
    return module.cluster  # type: ignore[no-any-return]


def simulated_while_one_is_killed(folder: Path, master: str, kill: Callable[[int], None]) -> None:
    """A hospital made on a cluster, one of whose executors is `kill`ed once a first shard is there."""
    killed: list[int] = []

    def wait_and_kill() -> None:
        while not list((folder / "work").glob("[!.]*")):
            time.sleep(0.05)
        killed.append(executors()[0])
        kill(killed[0])

    with engine(SparkConfig(master=master)):
        killer = threading.Thread(target=wait_and_kill)
        killer.start()
        simulated(folder / "spark", folder / "work")
        killer.join()
    assert killed


def simulated(out: Path, work: Path) -> None:
    """A hospital of six shards."""
    config = HOSPITAL.model_copy(update={"n_stays": 48})
    hospital.simulate(out / "tables", out / "truth", config, 3, work=work)


def hashes(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): artifact.hash_file(path) for path in folder.rglob("*") if path.is_file()}


def executors() -> list[int]:
    """This process's Spark executors."""
    found = [os.getpid()]
    for pid in found:  # grows while it is walked
        for listing in Path(f"/proc/{pid}/task").glob("*/children"):
            found += [int(child) for child in listing.read_text().split()]
    return [pid for pid in found if b"CoarseGrainedExecutorBackend" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def performed(work: Callable[[int], object], code: Mapping[str, object] | None = None) -> object:
    """What an executor answers to one task."""
    task = pa.RecordBatch.from_pydict({"number": [0], "task": [pickle.dumps(1)]})
    answer = next(spark._perform(work, spark._code() if code is None else code, iter([task])))
    return pickle.loads(answer.column(1)[0].as_py())


def test_an_executor_with_other_code_or_libraries_makes_nothing() -> None:
    assert performed(abs) == 1
    told = performed(lambda _: pytest.fail("it was made"), {**spark._code(), "Suture": {}, "numpy": "0.1"})
    assert isinstance(told, SutureError)
    assert "another version of Suture, numpy than the driver" in str(told)


def test_an_executor_that_misses_a_file_asks_whether_it_sees_the_run(tmp_path: Path) -> None:
    told = performed(lambda number: (tmp_path / f"patient-{number}").read_text())
    assert isinstance(told, SutureError)
    assert "do all nodes see the run and the tables at the path where the driver sees them?" in str(told)
    assert "patient" not in str(told)


@needs_java
@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "an executor cannot start it"),
        (f'#!/bin/sh\nexec {sys.executable} -S "$@"\n', r"misses the module \w+"),  # without any site's packages
    ],
)
def test_a_python_that_executors_cannot_use_is_one_line(tmp_path: Path, content: str | None, told: str) -> None:
    python = tmp_path / "python"
    if content is not None:
        python.write_text(content)
        python.chmod(0o755)
    with (
        pytest.raises(SutureError, match=rf"^spark\.python: {python}: .*{told}"),
        engine(SparkConfig(master="local[2]", python=str(python))),
    ):
        list(workers.each(abs, [1, 2], 1))


def test_all_work_in_an_engines_block_is_its_own() -> None:
    def engine_of_ours(work: Callable[[int], int], items: Sequence[int]) -> list[int]:
        return [work(item) + 100 for item in items]

    with workers.done_by(engine_of_ours):
        assert list(workers.each(abs, [-1, 2], 2)) == [101, 102]
    assert list(workers.each(abs, [-1, 2], 1)) == [1, 2]


@needs_java
def test_a_cluster_that_is_not_there_is_one_line() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    message = rf"spark\.master: spark://127\.0\.0\.1:{port}: no Spark master answers there \(Connection refused\)"
    with pytest.raises(SutureError, match=message), engine(SparkConfig(master=f"spark://127.0.0.1:{port}")):
        pass


@needs_java
@pytest.mark.slow
def test_a_cluster_that_grants_no_executor_is_one_line(
    tmp_path: Path, cluster: Callable[..., AbstractContextManager[str]]
) -> None:
    with (
        cluster(tmp_path / "cluster", workers=0) as master,
        pytest.raises(SutureError, match=rf"^spark\.master: {master}: no executor was granted within 3 s"),
        engine(SparkConfig(master=master, wait_s=3)),
    ):
        pass
    with engine(SparkConfig(master="local[1]", wait_s=3)):  # nothing of the other is left
        assert list(workers.each(abs, [-1], 1)) == [1]


@needs_java
@pytest.mark.slow
def test_what_answers_and_is_no_spark_master_is_one_line() -> None:
    """Spark itself gives up after a minute."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        master = f"spark://127.0.0.1:{other.getsockname()[1]}"
        told = rf"^spark\.master: {master}: (Spark did not start|no executor was granted)"
        with pytest.raises(SutureError, match=told), engine(SparkConfig(master=master)):
            pass


@pytest.mark.skipif(find_spec("pyspark") is None, reason="the extra `spark` is not installed")
def test_without_java_the_line_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(SutureError, match=r"needs Java 17 or newer .* `engine: local` does not"), engine(SparkConfig()):
        pass


def test_without_pyspark_the_line_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyspark", None)  # as where it is not installed
    with pytest.raises(SutureError, match=r"needs the package pyspark; .* its extra `spark`"), engine(SparkConfig()):
        pass


@pytest.mark.parametrize("master", ["locl[2]", "local-cluster[2]", "local[x]", "spark://host", "http://host:80", ""])
def test_a_master_that_spark_has_no_word_for_is_refused(master: str) -> None:
    with pytest.raises(ValidationError):
        SparkConfig(master=master)


def test_an_interruption_while_spark_starts_is_kept_until_it_can_be_stopped() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with spark._held() as came:
        signal.raise_signal(signal.SIGTERM)
        assert came == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) is before
