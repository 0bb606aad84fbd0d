"""Spark: what is done shard by shard, done by a Spark cluster: the same functions, a partition a shard.

Spark only hands out the work: tasks and results are small, and what is read and written lies in directories that the
driver and the executors both see. Whatever engine did it, the bytes are the same.
"""

import math
import os
import pickle
import re
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pydantic import Field

from cohort import artifact, workers
from cohort.config import Config
from cohort.errors import SutureError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

ANSWER_SECONDS = 5.0
JAVA_MB = 1024
"""What Spark's own part of an executor may take."""
_POLL_S = 0.1
_JOBS = 20
"""Jobs that work is handed out in at once: so often it can be said how far it is."""
_TASKS, _RESULTS = "number bigint, task binary", "number bigint, result binary"


class SparkConfig(Config):
    """Where the cluster is and what an executor may take; used where `engine` is `spark`."""

    master: str = Field(
        default="local[2]",
        pattern=r"^(local(\[(\*|\d+)\])?|local-cluster\[\d+,\d+,\d+\]|spark://\S+:\d+|yarn|k8s://\S+)$",
    )
    """`local[2]` is two threads of this machine; `spark://HOST:PORT`, `yarn` or `k8s://...` is a cluster;
    `local-cluster[2,1,1024]` is one on this machine, to try it: two executors of one core and 1,024 MB."""
    python: str | None = None
    """The executors' Python, in which Suture is installed; None: this one's path."""
    executor_memory_mb: int = Field(default=2048, ge=512, le=1_048_576)
    """What Python may take in each executor, beside Spark's own 1 GB."""
    executor_cores: int = Field(default=1, ge=1, le=256)
    """Shards that one executor works on at a time; they share its memory."""
    wait_s: float = Field(default=300.0, gt=0, le=86_400)
    """Seconds to wait for a first executor; a cluster whose workers are busy or too small grants none."""


@contextmanager
def engine(config: SparkConfig) -> Iterator[None]:
    """In this block all work over shards is done by the cluster.

    Raises:
        SutureError: pyspark or Java is missing, the cluster does not answer, or it gave up.
    """
    _require(config)
    environment = {"PYSPARK_PYTHON": config.python or sys.executable, "SPARK_HOME": _home()}
    with tempfile.TemporaryDirectory(prefix="suture-spark-") as scratch, _environment(environment):
        session = _session(config, scratch)
        try:
            with workers.done_by(partial(_each, session, config)):
                yield
        finally:
            session.stop()


def _require(config: SparkConfig) -> None:
    try:
        import pyspark  # noqa: F401
    except ModuleNotFoundError:
        raise SutureError("engine: spark needs the package pyspark; install Suture with its extra `spark`") from None
    home = os.environ.get("JAVA_HOME")
    java = Path(home) / "bin" / "java" if home else shutil.which("java")
    if java is None or not Path(java).exists():
        raise SutureError("engine: spark needs Java 17 or newer on the PATH, or in JAVA_HOME; `engine: local` does not")
    named = re.fullmatch(r"spark://(.+):(\d+)", config.master)
    if named:
        try:
            socket.create_connection((named[1], int(named[2])), ANSWER_SECONDS).close()
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise SutureError(f"spark.master: {config.master}: no Spark master answers there ({reason})") from None


def _home() -> str:
    """Where Spark is: what the user says, or the package's own."""
    import pyspark

    return os.environ.get("SPARK_HOME") or str(Path(pyspark.__file__).parent)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """The executors' Python and Spark's home, named where Spark looks for them first."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            del os.environ[name]
            if value is not None:
                os.environ[name] = value


def _session(config: SparkConfig, scratch: str) -> "SparkSession":
    import pyspark
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession

    options = {
        "spark.ui.enabled": "false",  # it would show paths and tracebacks on a port of its own
        "spark.ui.showConsoleProgress": "false",
        "spark.local.dir": scratch,
        "spark.executor.memory": f"{JAVA_MB}m",
        "spark.executor.memoryOverhead": f"{config.executor_memory_mb}m",
        "spark.executor.cores": str(config.executor_cores),
        "spark.executorEnv.OMP_NUM_THREADS": "1",
        "spark.sql.execution.arrow.maxRecordsPerBatch": "1",
    }
    builder = SparkSession.builder.master(config.master).appName("suture")
    for name, value in options.items():
        builder = builder.config(name, value)
    try:
        with _held() as came, _silent():
            session = builder.getOrCreate()
    except (PySparkException, Py4JError, RuntimeError, OSError) as error:
        raise SutureError(
            f"spark.master: {config.master}: Spark did not start ({type(error).__name__}); "
            f"is that a master of Spark {pyspark.__version__}?"
        ) from None
    try:
        for number in came:
            signal.raise_signal(number)
        _await_executor(session, config)
    except BaseException:
        session.stop()
        raise
    return session


def _await_executor(session: "SparkSession", config: SparkConfig) -> None:
    """Until a cluster has granted one: Spark itself would wait for ever, and say so only where nobody reads it."""
    from py4j.protocol import Py4JError

    if re.match(r"local(\[|$)", config.master):
        return
    end = time.monotonic() + config.wait_s
    context = session.sparkContext._jsc.sc()
    try:
        while context.getExecutorMemoryStatus().size() < 2:  # the driver is one
            if time.monotonic() > end:
                break
            time.sleep(_POLL_S)
        else:
            return
    except Py4JError:  # it ended by itself: nobody there speaks Spark
        pass
    raise SutureError(
        f"spark.master: {config.master}: no executor was granted within {config.wait_s:,.0f} s; it needs a worker with "
        f"{config.executor_cores} free cores and {JAVA_MB + config.executor_memory_mb:,} MB (spark.wait_s)"
    )


@contextmanager
def _held() -> Iterator[list[int]]:
    """Interruptions are kept until the block's end: who left while Java starts would leave it behind, unheard."""
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # no interruption comes here
        yield came
        return
    before = {
        number: signal.signal(number, lambda one, _: came.append(one)) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _silent() -> Iterator[None]:
    """What is started in this block has no error stream: Java would write tracebacks there, with patients' data."""
    sys.stderr.flush()
    own = os.dup(2)
    try:
        with open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(own, 2)
        os.close(own)


class _Discreet:
    """Lets the user's mistakes pass, and of a defect no more than its kind and place: executors log what they see."""

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None or issubclass(kind, SutureError):
            return
        last = traceback.extract_tb(trace)[-1]
        told = f"({kind.__name__} at {Path(last.filename).name}:{last.lineno})"
        if issubclass(kind, FileNotFoundError):
            raise SutureError(
                f"{socket.gethostname()}: an executor misses a file {told}; "
                "do all nodes see the run and the tables at the path where the driver sees them?"
            ) from None
        raise RuntimeError(f"a defect {told}") from None


def _each(
    session: "SparkSession", config: SparkConfig, work: Callable[[Any], Any], items: Sequence[Any]
) -> Iterator[Any]:
    """`work` of each item in a partition of its own; results in the items' order, as soon as a twentieth is there."""
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    lot = math.ceil(len(items) / _JOBS) or 1
    with ThreadPoolExecutor(_JOBS) as threads:  # all at once, so that no executor waits for the last of a lot
        try:
            with warnings.catch_warnings(action="ignore", category=FutureWarning):  # about pandas, which has no part
                jobs = [_job(session, work, items[start : start + lot]) for start in range(0, len(items), lot)]
            for done in [threads.submit(job.collect) for job in jobs]:
                for row in sorted(done.result(), key=lambda row: row.number):
                    result = pickle.loads(row.result)
                    if isinstance(result, SutureError):
                        raise result
                    yield result
        except BaseException as error:  # an iteration that is left early leaves no jobs behind
            with suppress(Py4JError):  # it ended by itself
                session.sparkContext.cancelAllJobs()
            if isinstance(error, PySparkException | Py4JError):
                raise SutureError(_reason(str(error), config)) from None
            raise


def _job(session: "SparkSession", work: Callable[[Any], Any], items: Sequence[Any]) -> "DataFrame":
    """What the cluster is to do, a partition an item; begun by whoever collects it."""
    tasks = [(number, bytearray(pickle.dumps(item))) for number, item in enumerate(items)]
    rows = session.sparkContext.parallelize(tasks, len(tasks))
    return session.createDataFrame(rows, _TASKS).mapInArrow(partial(_perform, work, _code()), _RESULTS)


def _reason(said: str, config: SparkConfig) -> str:
    """Why a cluster gave up, by what it said; none of that is quoted but a module's name."""
    python = f"spark.python: {config.python or sys.executable}"
    if "Cannot run program" in said:
        return f"{python}: an executor cannot start it; name a Python that is there on every node"
    if "PYTHON_VERSION_MISMATCH" in said:
        return f"{python}: another Python than the driver's {sys.version_info.major}.{sys.version_info.minor}"
    missing = re.search(r"No module named '([\w.]+)'", said)
    if missing:
        return (
            f"{python}: an executor misses the module {missing[1]}; install Suture with its extra `spark` on every node"
        )
    return (
        "the Spark cluster gave up a shard (an executor out of memory or lost?); "
        "try smaller shards or a larger spark.executor_memory_mb"
    )


def _code() -> dict[str, Any]:
    """What decides a result besides its input: Suture's sources and the libraries that calculate."""
    code = artifact.code()
    return {"Suture": code["sources"], **code["packages"]}


def _perform(
    work: Callable[[Any], Any], code: Mapping[str, Any], batches: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """An executor's side: what the user can mend comes back as a result, so that Spark does not try it again."""
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    others = [name for name, value in _code().items() if value != code[name]]
    for batch in batches:
        for number, task in zip(batch.column(0).to_pylist(), batch.column(1).to_pylist(), strict=True):
            try:
                if others:
                    raise SutureError(
                        f"{socket.gethostname()}: an executor has another version of {', '.join(others)} than the "
                        "driver; install the same on every node"
                    )
                with _Discreet():
                    result = work(pickle.loads(task))
            except SutureError as error:
                result = error
            packed = pa.array([pickle.dumps(result)], pa.binary())
            yield pa.RecordBatch.from_arrays([pa.array([number], pa.int64()), packed], names=["number", "result"])
