"""Benchmark: the app's server under load: CPU of a warm patient page, answers to many sessions, memory over many views.

Sessions speak the page's own protocol over its socket, without a browser, so that the server's cost alone is measured.
Each signs in, opens a patient for whom a dose is recommended, each session another one, and asks for the patient page
again and again; the decision time moves, so that cards are new until each has been seen once.
"""

import argparse
import asyncio
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import websockets
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

sys.path.remove(str(Path(__file__).resolve().parent))  # this file is called as the package that it measures

from app import run as pipeline
from app import serve, view
from app.run import Request, RunConfig
from cohort.config import parse

STAYS, QUICK_STAYS = 50_000, 400
MOST_CPU_S, MOST_P95_S, MOST_GROWTH_MB, MOST_FIRST_CPU_S = 0.3, 5.0, 30.0, 2.0
QUICK_TRAINING = {"hidden": [32], "updates": 200, "evaluate_every": 100, "min_updates": 0}
VIEWS_A_PATIENT = 20
KEPT_PATIENTS = 64
"""Whose courses and cards the server keeps: so many are opened before memory is looked at."""
_ID = re.compile(rb"\$\$ID-[0-9a-f]+-([A-Za-z0-9_]+)")


def main() -> int:
    """Print one JSON object; exit code 1 where a claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_STAYS} stays instead of {STAYS:,}")
    parser.add_argument("--run", type=Path, help="a finished run instead of a simulated one")
    given = parser.parse_args()
    stays = QUICK_STAYS if given.quick else STAYS
    with tempfile.TemporaryDirectory() as folder:
        run = given.run or simulated(Path(folder) / "run", stays)
        found = measured(run, Path(folder), given.quick)
    claims = [
        claim("server CPU of a warm patient page, s", found["cpu_s_warm"], MOST_CPU_S),
        claim("server CPU of a warm worklist, s", found["cpu_s_worklist"], MOST_CPU_S),
        claim(
            "server CPU of a worklist cut to recommendations for the first time, s",
            found["cpu_s_cut"],
            MOST_FIRST_CPU_S,
        ),
        claim("p95 answer to 25 sessions at once, s", found["p95_s_25_sessions"], MOST_P95_S),
        claim("errors of 100 sessions at once", found["errors_100_sessions"], 0),
        claim("memory gained over the page views, MB", found["memory_gained_mb"], MOST_GROWTH_MB),
    ]
    print(json.dumps({"benchmark": "app", "quick": given.quick, **found, "claims": claims}, indent=1))
    return 0 if all(one["holds"] for one in claims) else 1


def claim(name: str, value: float, bar: float) -> dict[str, object]:
    """A claim that holds where the value is at most the bar."""
    return {"name": name, "value": value, "bar": bar, "better": "low", "holds": value <= bar}


def simulated(out: Path, stays: int) -> Path:
    """A run of the simulated hospital; its policy is hardly trained, which costs a page the same."""
    config = {
        "name": "bench", "seed": 1, "hospital": {"n_stays": stays, "charting": {"other_rows": False}},
        "source": {"kind": "mimic_iv"}, "cohort": {}, "behaviour": QUICK_TRAINING,
        "learners": {"iql": {**QUICK_TRAINING, "hidden": [256, 256]}},
        "evaluation": {
            "n_bootstrap": 100, "estimators": ["wis"], "primary": "wis", "behaviour": {**QUICK_TRAINING, "folds": 2},
            "fqe": {"hidden": [8], "updates": 20, "members": 2}, "twin": {"groups": 4, "repeats": 2, "n_bootstrap": 20},
        },
    }  # fmt: skip
    return pipeline.run(Request(parse(config, RunConfig, "bench"), out)).path


def measured(run: Path, scratch: Path, quick: bool) -> dict[str, Any]:
    """Serve the run and measure."""
    with socket.socket() as free:
        free.bind((serve.ADDRESS, 0))
        port = free.getsockname()[1]
    told = scratch / "app.yaml"
    told.write_text(f"audit: {{url: 'sqlite:///{scratch}/audit.db', timeout_s: 30}}\n", encoding="utf-8")
    environment = {**os.environ, "XDG_STATE_HOME": str(scratch / "state"), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        serve.command(run, port, told), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as server:
        try:
            wait(port)
            return asyncio.run(load(port, server.pid, views=200 if quick else 1000))
        finally:
            server.terminate()


async def load(port: int, pid: int, views: int) -> dict[str, Any]:
    """One session for CPU and memory, then 25 and 100 at once."""
    started = time.perf_counter()
    one = await entered(port)
    opening = time.perf_counter() - started
    await settled(pid)
    cut = await cost(pid, one.cut)
    worklist = await cost(pid, one.ask, 30)
    await one.open_patient()
    for _ in range(20):
        await one.ask()
    warm = await cost(pid, one.ask, 30)
    for patient in range(KEPT_PATIENTS):
        await one.open_patient(patient)
    memory = [memory_mb(pid)]
    for number in range(views):
        if number % VIEWS_A_PATIENT == 0:
            await one.open_patient(KEPT_PATIENTS + number // VIEWS_A_PATIENT)
        await one.scrub(number)
        if (number + 1) % (views // 5) == 0:
            memory.append(memory_mb(pid))
    await one.close()
    answers_25, errors_25 = await many(port, 25)
    _, errors_100 = await many(port, 100)
    return {
        "opening_s": round(opening, 2),
        "pages_with_a_dose": one.doses,
        "cpu_s_warm": round(warm, 4),
        "cpu_s_worklist": round(worklist, 4),
        "cpu_s_cut": round(cut, 3),
        "views": views,
        "patients_viewed": views // VIEWS_A_PATIENT,
        "memory_mb_over_the_views": [round(one) for one in memory],
        "memory_gained_mb": round(memory[-1] - memory[0], 1),
        "p95_s_25_sessions": round(statistics.quantiles(answers_25, n=20)[-1], 3),
        "median_s_25_sessions": round(statistics.median(answers_25), 3),
        "errors_25_sessions": errors_25,
        "errors_100_sessions": errors_100,
    }


async def settled(pid: int) -> None:
    """Until the server has hashed the run's files, which it does once beside the pages."""
    for _ in range(600):
        cpu = cpu_s(pid)
        await asyncio.sleep(1)
        if cpu_s(pid) - cpu < 0.05:
            return
    raise RuntimeError("the server does not come to rest")


async def cost(pid: int, what: Callable[[], Awaitable[object]], times: int = 1) -> float:
    """CPU seconds of the server each time."""
    cpu = cpu_s(pid)
    for _ in range(times):
        await what()
    return (cpu_s(pid) - cpu) / times


async def many(port: int, sessions: int) -> tuple[list[float], int]:
    """Sessions that enter, open a patient and look five times at once: seconds of each look, and how many failed."""
    outcomes = await asyncio.gather(*(visit(port, number) for number in range(sessions)), return_exceptions=True)
    answers = [seconds for one in outcomes if isinstance(one, list) for seconds in one]
    return answers, sum(not isinstance(one, list) for one in outcomes)


async def visit(port: int, patient: int) -> list[float]:
    """One session's looks at a patient's page, in seconds."""
    session = await entered(port)
    await session.open_patient(patient)
    seconds = []
    for number in range(5):
        started = time.perf_counter()
        await session.scrub(number)
        seconds.append(time.perf_counter() - started)
    await session.close()
    return seconds


@dataclass
class Session:
    """One reader's socket: the state of the widgets, and the identifiers that the server gave them."""

    socket: Any
    ids: dict[str, str] = field(default_factory=dict)
    state: dict[str, dict[str, Any]] = field(default_factory=dict)
    decisions: int = 0
    doses: bool = False
    """Whether the last patient's page showed a dose."""
    patients: list[str] = field(default_factory=list)
    """On the worklist."""

    async def ask(self, **triggers: bool) -> bytes:
        """Run the page with the widgets as they are and read until it is finished."""
        message = BackMsg()
        message.rerun_script.query_string = ""
        for key, value in {**self.state, **{key: {"trigger_value": on} for key, on in triggers.items()}}.items():
            widget = message.rerun_script.widget_states.widgets.add(id=self.ids[key])
            for name, content in value.items():
                if isinstance(content, list):
                    getattr(widget, name).data.extend(content)
                else:
                    setattr(widget, name, content)
        await self.socket.send(message.SerializeToString())
        return await self._answer()

    async def cut(self) -> None:
        """Show only stays for whom a dose is recommended; all where that is nobody."""
        self.patients = []
        for show in view.SHOW[1], view.SHOW[0]:
            self.state["show"] = {"string_value": show}
            await self.ask()
            if self.patients:
                return

    async def open_patient(self, number: int = 0) -> None:
        """From the worklist to the page of its patient of that number."""
        self.state = {"page": {"string_value": "Worklist"}} if "now" in self.ids else self.state
        await self.cut()
        self.state["chosen"] = {"string_value": self.patients[number % len(self.patients)]}
        await self.ask()
        answer = await self.ask(open=True)
        self.state.clear()  # those widgets are gone
        answer += await self.ask()
        if b"Clinicians gave" not in answer or "now" not in self.ids:
            raise RuntimeError("no patient's page opened")
        self.doses = b"Recommended" in answer

    async def scrub(self, number: int) -> None:
        """Look at another decision of the patient."""
        self.state["now"] = {"double_array_value": [float(number % max(self.decisions, 1))]}
        await self.ask()

    async def close(self) -> None:
        """Leave."""
        await self.socket.close()

    async def _answer(self) -> bytes:
        told = b""
        while True:
            raw = await asyncio.wait_for(self.socket.recv(), timeout=300)
            message = ForwardMsg()
            message.ParseFromString(raw)
            self.ids |= {found.group(1).decode(): found.group(0).decode() for found in _ID.finditer(raw)}
            told += raw
            element = message.delta.new_element
            if element.HasField("slider") and element.slider.id == self.ids.get("now"):
                self.decisions = int(element.slider.max) + 1
            if element.HasField("selectbox") and element.selectbox.id == self.ids.get("chosen"):
                self.patients = list(element.selectbox.options)
            if element.HasField("exception"):
                raise RuntimeError("the page shows an exception")
            if message.HasField("script_finished") and message.script_finished == ForwardMsg.FINISHED_SUCCESSFULLY:
                return told


async def entered(port: int) -> Session:
    """A session of a clinician, on the worklist."""
    found = await websockets.connect(
        f"ws://{serve.ADDRESS}:{port}/_stcore/stream", subprotocols=[websockets.Subprotocol("streamlit")],
        max_size=None, open_timeout=120, ping_timeout=None,
    )  # fmt: skip
    session = Session(found)
    await session.ask()
    session.state |= {"name": {"string_value": "Dr Bench"}, "role": {"string_value": "clinician"}}
    await session.ask(enter=True)
    return session


def wait(port: int) -> None:
    """Until the server answers."""
    for _ in range(600):
        try:
            with urllib.request.urlopen(f"http://{serve.ADDRESS}:{port}/_stcore/health", timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.5)
    raise SystemExit("the server did not answer")


def cpu_s(pid: int) -> float:
    """CPU seconds of a process so far."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def memory_mb(pid: int) -> float:
    """Resident memory of a process."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found.group(1)) / 1024 if found else 0.0


if __name__ == "__main__":
    sys.exit(main())
