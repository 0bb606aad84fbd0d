"""What those who run it need: the doctor, the explanation of a run, and logs for a machine."""

import errno
import io
import json
import re
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from app import doctor, log
from app.explain import explain
from app.forecast import Forecast, Work
from cohort import artifact

Suture = Callable[..., Any]
ROOT = Path(__file__).parents[2]


def named(findings: list[doctor.Finding]) -> dict[str, doctor.Finding]:
    return {one.name: one for one in findings}


def test_the_doctor_finds_this_machine_fit_and_leaves_nothing_behind(suture: Suture, tmp_path: Path) -> None:
    done = suture("doctor", "--out", tmp_path / "not" / "there")
    assert done.code == 0, done.out
    assert re.search(r"^ok +Python +3\.\d+", done.out, flags=re.M)
    assert "runs work on this machine" in done.out
    assert list(tmp_path.iterdir()) == []


def test_the_doctor_says_what_is_lost_without_java_browser_and_fonts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    found = named(doctor.examine(tmp_path))
    assert "`engine: spark` will not work, `engine: local` will" in found["Java"].lost
    assert found["browser"].mark == found["Java"].mark == "note"
    assert doctor.show(list(found.values()))


def test_the_doctor_reads_javas_own_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\necho 'openjdk version \"1.8.0_292\"' >&2\n")
    java.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    assert named(doctor.examine(tmp_path))["Java"].found == "8"


def program(folder: Path, name: str, lines: str) -> None:
    """A program of that name that runs these lines of shell."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{lines}\n")
    (folder / name).chmod(0o755)


@pytest.mark.parametrize(
    ("said", "code", "found", "mark"),
    [('version "17.0.9"', 0, "17", "ok"), ('version "16"', 0, "16", "note"), ('version "21"', 1, "none", "note")],
)
def test_java_home_is_the_java_that_is_asked_and_17_is_new_enough(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: str, code: int, found: str, mark: str
) -> None:
    program(tmp_path / "home" / "bin", "java", f"echo '{said}' >&2; exit {code}")
    program(tmp_path, "java", "echo 'version \"99\"'")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "home"))
    java = next(doctor._programs())
    assert (java.found, java.mark) == (found, mark)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "gone"))
    gone = next(doctor._programs())
    assert gone.found == "none"
    assert gone.lost.startswith(
        f"JAVA_HOME ({tmp_path / 'gone'}) has no Java that starts: `engine: spark` will not work"
    )


@pytest.mark.parametrize(
    ("listed", "found", "mark"), [("exit 0", "0 files", "note"), ("echo a; echo b", "2 files", "ok")]
)
def test_a_machine_with_every_program_but_fonts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, listed: str, found: str, mark: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    bare = named(list(doctor._programs()))
    assert {name: bare[name].mark for name in ("chromium", "git", "fonts")} == {
        "chromium": "note", "git": "note", "fonts": "ok",
    }  # fmt: skip
    for name in ("chromium", "git"):
        program(tmp_path, name, "exit 0")
    program(tmp_path, "fc-list", listed)
    full = named(list(doctor._programs()))
    assert "chromium" not in full
    assert (full["git"].mark, full["browser"].found) == ("ok", "chromium")
    assert (full["fonts"].found, full["fonts"].mark) == (found, mark)


@pytest.mark.parametrize(
    ("files", "found", "lost"),
    [
        ({}, "unknown here", ""),
        ({"/proc/meminfo": 8}, "8.0 GB free", ""),
        ({"/proc/meminfo": 8, "memory.max": "max", "memory.current": 1}, "8.0 GB free", ""),
        ({"/proc/meminfo": 8, "memory.max": 900, "memory.current": 1}, "8.0 GB free", ""),
        ({"/proc/meminfo": 8, "memory.max": 5, "memory.current": 2}, "3.0 GB free", "configs/demo.yaml runs"),
        ({"/proc/meminfo": 8, "memory.max": 1, "memory.current": 2}, "0.0 GB free", "less than the 2 GB"),
        ({"/proc/meminfo": 8, "memory/memory.limit_in_bytes": 3, "memory/memory.usage_in_bytes": 2}, "1.0 GB free",
         "less than the 2 GB"),
    ],
)  # fmt: skip
def test_memory_is_the_systems_or_the_control_groups(
    monkeypatch: pytest.MonkeyPatch, files: dict[str, int | str], found: str, lost: str
) -> None:
    """The kernel's files, as they are on machines of other sizes; numbers are GB."""

    def read_text(path: Path, encoding: str) -> str:
        assert encoding == "ascii"
        size = files.get(str(path).removeprefix("/sys/fs/cgroup/"))
        if size is None:
            raise FileNotFoundError
        if path.name == "meminfo":
            return f"MemTotal: 1 kB\nMemAvailable:  {int(size) * 1_000_000_000 // 1024 + 1} kB\n"
        return f"{size * 1_000_000_000}\n" if isinstance(size, int) else f"{size}\n"

    monkeypatch.setattr(Path, "read_text", read_text)
    memory = named(list(doctor._machine()))["memory"]
    assert memory.found == found
    assert lost in memory.lost
    assert bool(memory.lost) == bool(lost)


@pytest.mark.parametrize(
    ("free", "lost"), [(20, ""), (5, "configs/hospital.yaml needs 10 GB"), (0.5, "less than the 1 GB")]
)
def test_the_disks_free_space_is_compared_with_what_runs_take(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free: float, lost: str
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=int(free * 1e9))
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: usage)
    disk = next(doctor._disk(tmp_path))
    assert disk.found == f"{free:.1f} GB free at {tmp_path}"
    assert disk.lost.startswith(lost)
    assert bool(disk.lost) == bool(lost)


def test_a_file_system_without_locks_stops_runs_and_one_without_links_does_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refused(*_arguments: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.lockf", refused)
    monkeypatch.setattr("os.link", refused)
    found = named(list(doctor._disk(tmp_path)))
    assert (found["directory"].mark, found["hard links"].mark) == ("NO", "note")
    assert "no locks here (No locks available)" in found["directory"].lost


def test_processors_threads_and_clock_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, threads, now, mark in (({0}, "2", 0.0, "note"), ({0, 1}, "1", 1e11, "ok")):
        monkeypatch.setattr("os.sched_getaffinity", lambda _process, cores=cores: cores, raising=False)
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        monkeypatch.setattr("time.time", lambda now=now: now)
        found = [*doctor._machine()][:2]
        assert [one.mark for one in (*found, doctor._clock())] == [mark] * 3


def test_below_a_file_the_nearest_folder_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert doctor._existing(tmp_path / "file" / "run") == tmp_path


def test_the_doctor_sums_up_what_it_found(capsys: pytest.CaptureFixture[str]) -> None:
    well, lost = doctor.Finding("git", "there", needed=True), doctor.Finding("Java", "none", "no Spark")
    assert doctor.show([well])
    assert capsys.readouterr().out == "ok    git          there\nruns work on this machine\n"
    assert doctor.show([well, lost])
    assert "note  Java         none: no Spark\n" in (said := capsys.readouterr().out)
    assert said.splitlines()[-1].startswith("1 line marked note:")
    assert doctor.show([lost, lost])
    assert capsys.readouterr().out.splitlines()[-1].startswith("2 lines marked note:")
    assert not doctor.show([well, lost, doctor.Finding("directory", "", "read only", needed=True)])
    assert capsys.readouterr().out.splitlines()[-1].startswith("no run works")


def test_a_directory_that_cannot_be_written_is_the_doctors_no() -> None:
    if not Path("/proc/self").exists():
        pytest.skip("no /proc on this system")
    findings = doctor.examine(Path("/proc/runs"))
    assert named(findings)["directory"].mark == "NO"
    assert not doctor.show(findings)


def test_what_only_an_extra_needs_is_not_needed_by_a_run(tmp_path: Path) -> None:
    """Every extra of pyproject.toml has a line of its own, which never stops a run."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    found = {name: one for name, one in named(doctor.examine(tmp_path)).items() if name.startswith("extra ")}
    assert set(found) == {f"extra {name}" for name in extras}
    assert {one.mark for one in found.values()} <= {"ok", "note"}


def test_a_missing_or_wrong_package_is_named() -> None:
    assert doctor._problem(doctor.Requirement("no-such-package>=1")) == "no-such-package is not installed"
    assert re.fullmatch(r"numpy \S+ is not <1", doctor._problem(doctor.Requirement("numpy<1")))
    assert doctor._problem(doctor.Requirement("numpy>=2")) == ""


def test_what_every_run_needs_stops_runs_where_it_is_too_old_or_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ["numpy>=2", "no-such-package", 'no-such-extra; extra == "oidc"']
    monkeypatch.setattr("importlib.metadata.requires", lambda _name: wanted)
    found = named(list(doctor._versions()))
    assert (found["packages"].found, found["packages"].mark) == ("1 of 2 as required", "NO")
    assert (found["extra oidc"].found, found["extra oidc"].mark) == ("0 of 1 as required", "note")
    monkeypatch.setattr("importlib.metadata.version", lambda _name: "3.0rc1")
    assert doctor._problem(doctor.Requirement("numpy>=2")) == ""  # a release candidate of what is wanted will do
    for version, mark in (((3, 10, 9), "NO"), ((3, 11, 0), "ok")):
        with monkeypatch.context() as older:
            older.setattr("sys.version_info", version)
            assert next(doctor._versions()).mark == mark


def test_explain_says_why_each_stage_was_made_and_what_it_read(suture: Suture, tiny_run: Path) -> None:
    done = suture("explain", tiny_run)
    assert done.code == 0, done
    assert re.search(r"^cohort +made because it was not there$", done.out, flags=re.M)
    read = artifact.digest(tiny_run / "tables")[:16]
    assert f"read tables {read}, which is there" in done.out
    assert [one.name for one in explain(tiny_run)][:3] == ["tables", "truth", "cohort"]


def test_explain_names_what_is_no_more_as_it_was(tiny_run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(tiny_run, copy)
    flow = copy / "cohort" / "flow.json"
    flow.write_text(flow.read_text() + " ")
    lines = {one.name: one.lines for one in explain(copy)}
    assert "flow.json: its hash differs" in lines["cohort"][1]
    shutil.rmtree(copy / "policy" / "bc")
    lines = {one.name: one.lines for one in explain(copy)}
    assert any("policy/bc" in line and "not in this directory" in line for line in lines["ope"])


def test_logs_for_a_machine_are_one_object_a_line(
    suture: Suture, tiny_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(log.FORMAT, "text")  # put back afterwards: the command sets it for its workers
    done = suture("--log-format", "json", "simulate", tiny_config, "--out", tmp_path / "run")
    events = [json.loads(line) for line in done.err.splitlines()]
    made = next(event for event in events if event["event"] == "stage_made")
    assert made["stage"] == "tables"
    assert made["rows"]["icu/icustays"] == 60
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", event["time"]) for event in events)
    assert next(event for event in events if event["event"] == "progress")["total"] == 60
    again = suture("--log-format", "json", "simulate", tiny_config, "--out", tmp_path / "run")
    error = json.loads(again.err)
    assert (again.code, error["event"], error["exit_code"]) == (4, "error", 4)
    assert "already exists" in error["message"]


def test_progress_for_a_machine_is_said_every_ten_seconds_and_at_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(log.FORMAT, "json")
    moments = iter((100.0, 104.0, 110.0, 115.0, 120.0, 121.0, 130.0, 140.0))
    monkeypatch.setattr(log, "monotonic", lambda: next(moments))
    with log.progress() as told:
        for done in (0, 1, 2, 3, 4, 8):
            told(("copy", done, 8))
        for _ in range(2):
            told(("tables", 0, 8))
    events = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(one["stage"], one["done"], one["seconds_left_at_most"]) for one in events] == [
        ("copy", 2, 30.0), ("copy", 4, 20.0), ("copy", 8, 0.0), ("tables", 0, None),
    ]  # fmt: skip


def test_progress_for_a_person_is_a_bar_a_stage_with_the_whole_run_and_only_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(log.FORMAT, raising=False)
    for terminal in (True, False):
        screen = io.StringIO()
        monkeypatch.setattr(log, "console", Console(file=screen, force_terminal=terminal, width=150))
        ahead = Forecast([{"tables": Work(600, 600)}], processes=1)
        with log.progress(ahead) as told:
            for done in (1, 2):
                told(("tables", done, 4))
        assert ahead.left() == pytest.approx((0.7 * 300, 2.5 * 300))
        frames = screen.getvalue().split("\r")
        assert bool(screen.getvalue().strip()) == terminal
        assert ("whole run: 3 to 15 min left" in screen.getvalue()) == terminal
        assert max(frame.count("tables") for frame in frames) <= 1


def test_a_line_of_the_log_is_printed_as_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(log.FORMAT, raising=False)
    log.say("stage_made", "[red]tables[/red]")
    assert capsys.readouterr().err == "[red]tables[/red]\n"
    assert log.rounded((1234.0, 0.456)) == [1200.0, 0.46]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--log-format", "json", "nosuch"), "No such command 'nosuch'."),
        (("--log-format=json", "run", "--out"), "Option '--out' requires an argument."),
    ],
)
def test_wrong_words_are_json_too_where_the_log_is(
    suture: Suture, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], told: str
) -> None:
    monkeypatch.setenv(log.FORMAT, "text")
    done = suture(*words)
    error = json.loads(done.err)
    assert (done.code, error["event"], error["message"], error["exit_code"]) == (2, "error", told, 2)
