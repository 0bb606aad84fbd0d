"""Doctor: what this machine has, what will not work on it, and what still will."""

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

GB = 1e9
DEMO_MEMORY_GB, HOSPITAL_MEMORY_GB = 2.0, 6.0
DEMO_DISK_GB, HOSPITAL_DISK_GB = 1.0, 10.0
OLDEST_JAVA = 17
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "firefox", "x-www-browser")
_EXTRAS = {
    "audit": "`make audit` and `make sbom`",
    "dev": "`make test`, `make check` and `make bench`",
    "oidc": "the pages' sign-in with OpenID Connect",
    "postgres": "the audit log in PostgreSQL",
    "spark": "`engine: spark`",
}


@dataclass(frozen=True)
class Finding:
    """One thing looked at."""

    name: str
    found: str
    lost: str = ""
    """What will not work and what still will; empty where all is well."""
    needed: bool = False
    """Whether nothing works without it."""

    @property
    def mark(self) -> str:
        """`ok`, `note` (something less important will not work) or `NO`."""
        return "ok" if not self.lost else "NO" if self.needed else "note"


def examine(directory: Path) -> list[Finding]:
    """Everything that a run into `directory` meets; nothing stays there."""
    return [*_versions(), *_machine(), *_disk(_existing(directory)), *_programs(), _clock()]


def show(findings: list[Finding]) -> bool:
    """Print a line a finding and what to make of all; True where runs work."""
    for one in findings:
        print(f"{one.mark:<5} {one.name:<12} {one.found}{': ' if one.lost else ''}{one.lost}")
    works = all(one.mark != "NO" for one in findings)
    notes = sum(one.mark == "note" for one in findings)
    print(
        "runs work on this machine" if works else "no run works on this machine before the lines marked NO are mended"
    )
    if works and notes:
        print(f"{notes} {'line' if notes == 1 else 'lines'} marked note: what they name, and nothing else, is lost")
    return works


def _versions() -> Iterator[Finding]:
    old = sys.version_info < (3, 11)
    yield Finding("Python", sys.version.split()[0], "3.11 or newer is needed" if old else "", needed=True)
    required, extras = [], {name: [] for name in _EXTRAS}  # type: tuple[list[Requirement], dict[str, list[Requirement]]]
    for requirement in map(Requirement, metadata.requires("suture") or ()):
        extra = re.search(r'extra == "(\w+)"', str(requirement.marker))
        (extras[extra[1]] if extra else required).append(requirement)
    yield _packages("packages", required, "nothing works without them", needed=True)
    for name, wanted in extras.items():
        yield _packages(f"extra {name}", wanted, f"{_EXTRAS[name]} will not work, runs will", needed=False)


def _packages(name: str, wanted: list[Requirement], consequence: str, needed: bool) -> Finding:
    wrong = [problem for one in wanted if (problem := _problem(one))]
    found = f"{len(wanted) - len(wrong)} of {len(wanted)} as required"
    return Finding(name, found, f"{', '.join(wrong)}; {consequence}" if wrong else "", needed)


def _problem(wanted: Requirement) -> str:
    try:
        found = metadata.version(wanted.name)
    except metadata.PackageNotFoundError:
        return f"{wanted.name} is not installed"
    fits = wanted.specifier.contains(found, prereleases=True)
    return "" if fits else f"{wanted.name} {found} is not {wanted.specifier}"


def _machine() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    lost = "one core: runs work, with half the speed of two" if cores < 2 else ""
    yield Finding("processors", f"{cores} usable", lost)
    threads = os.environ.get("OMP_NUM_THREADS")
    lost = "" if threads == "1" else "set OMP_NUM_THREADS=1, else libraries' threads slow each other down; runs work"
    yield Finding("threads", f"OMP_NUM_THREADS={threads or 'not set'}", lost)
    memory = memory_gb()
    if memory is None:
        yield Finding("memory", "unknown here")
        return
    lost = ""
    if memory < DEMO_MEMORY_GB:
        lost = f"less than the {DEMO_MEMORY_GB:g} GB of configs/demo.yaml; smaller hospitals still run"
    elif memory < HOSPITAL_MEMORY_GB:
        lost = f"configs/hospital.yaml needs {HOSPITAL_MEMORY_GB:g} GB and may be killed; configs/demo.yaml runs"
    yield Finding("memory", f"{memory:.1f} GB free", lost)


def memory_gb() -> float | None:
    """Memory that a process may still take: the system's, or its control group's where that is less."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            ceiling = (Path("/sys/fs/cgroup") / limit).read_text(encoding="ascii").strip()
            taken = int((Path("/sys/fs/cgroup") / used).read_text(encoding="ascii"))
        except (OSError, ValueError):
            continue
        if ceiling.isdigit():
            free = min(free, int(ceiling) - taken)
    return max(free, 0) / GB


def _disk(folder: Path) -> Iterator[Finding]:
    free = shutil.disk_usage(folder).free / GB
    lost = ""
    if free < DEMO_DISK_GB:
        lost = f"less than the {DEMO_DISK_GB:g} GB of configs/demo.yaml; smaller hospitals still run"
    elif free < HOSPITAL_DISK_GB:
        lost = f"configs/hospital.yaml needs {HOSPITAL_DISK_GB:g} GB; configs/demo.yaml runs"
    yield Finding("disk", f"{free:.1f} GB free at {folder}", lost)
    try:
        with tempfile.TemporaryDirectory(prefix=".suture-doctor-", dir=folder) as scratch:
            yield from _directory(Path(scratch))
    except OSError as error:
        yield Finding("directory", str(folder), f"cannot be written ({error.strerror}); name another with --out", True)


def _directory(scratch: Path) -> Iterator[Finding]:
    file = scratch / "file"
    with file.open("w", encoding="ascii") as handle:
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            lock = ""
        except OSError as error:
            lock = f"no locks here ({error.strerror}): a run cannot be started; name another directory with --out"
    yield Finding("directory", "can be written and locked" if not lock else "can be written", lock, needed=True)
    try:
        os.link(file, scratch / "link")
        yield Finding("hard links", "work")
    except OSError:
        yield Finding("hard links", "none", "shards are copied once more; runs work")


def _programs() -> Iterator[Finding]:
    java = _java()
    home = os.environ.get("JAVA_HOME") if java is None else None
    why = f"JAVA_HOME ({home}) has no Java that starts" if home else f"Java {OLDEST_JAVA} or newer is missing"
    lost = f"{why}: `engine: spark` will not work, `engine: local` will"
    fits = java is not None and java >= OLDEST_JAVA
    yield Finding("Java", "none" if java is None else str(java), "" if fits else lost)
    browser = next((name for name in BROWSERS if shutil.which(name)), None)
    lost = "the report and the pages are served all the same, to a browser on another machine"
    yield Finding("browser", browser or "none", "" if browser else f"nothing opens them here; {lost}")
    if shutil.which("chromium") is None:
        yield Finding("chromium", "none", "the pages' own tests will not run; the pages will")
    fonts = _fonts()
    lost = "a browser on this machine may show boxes for letters; reports and pages are made all the same"
    yield Finding("fonts", "unknown here" if fonts is None else f"{fonts} files", lost if fonts == 0 else "")
    git = shutil.which("git")
    lost = "manifests say which sources were used by their hash, not by their commit"
    yield Finding("git", "there" if git else "none", "" if git else lost)


def _java() -> int | None:
    """The major version of the Java that Spark would start; None where there is none."""
    home = os.environ.get("JAVA_HOME")
    program = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    said = None if program is None else _output([program, "-version"])
    version = None if said is None else re.search(r'version "(\d+)(?:\.(\d+))?', said)
    if version is None:
        return None
    return int(version[2] or 0) if version[1] == "1" else int(version[1])  # 1.8 is what Java 8 calls itself


def _fonts() -> int | None:
    if shutil.which("fc-list") is None:
        return None
    said = _output(["fc-list"])
    return None if said is None else len(said.splitlines())


def _output(command: list[str]) -> str | None:
    """What a program prints on either stream; None where it cannot be run."""
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def _clock() -> Finding:
    newest = max(file.stat().st_mtime for file in Path(__file__).parent.glob("*.py"))
    today = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    wrong = "before Suture itself was written: manifests and the audit log will hold wrong times; nothing else reads it"
    return Finding("clock", today, wrong if time.time() < newest else "")


def _existing(path: Path) -> Path:
    """The directory itself, or the nearest one above it that is there."""
    here = path.resolve()
    while not here.is_dir():
        here = here.parent
    return here
