"""What those who run it need: the doctor, the explanation of a run, and logs for a machine."""

import json
import re
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app import doctor, log
from app.explain import explain
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
