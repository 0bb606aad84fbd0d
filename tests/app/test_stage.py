"""Stages and the run's directory: kept, made again, refused, locked, and never half-written."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from app import stage as stages_module
from app.forecast import Forecast, Work
from app.run_directory import RunDirectory, again, opened
from app.stage import Advance, Existing, Stage, first_difference, perform, perform_all, why_not_kept
from cohort import artifact, pieces, workers
from cohort.artifact import Draft
from cohort.errors import ArtifactError, ConfigError, InputError


def counting(seed: int = 1, upto: int = 3, inputs: dict[str, Path | str] | None = None) -> Stage:
    def make(draft: Draft, advance: Advance) -> None:
        for number in range(upto):
            (draft.path / f"{number}.txt").write_text(str(number))
            advance(number + 1, upto)
        draft.rows["numbers"] = upto

    return Stage("numbers", "numbers", {"upto": upto}, inputs or {}, seed, make)


def made(run: Path, stage: Stage, existing: Existing = Existing.REFUSE) -> bool:
    with opened(run) as directory:
        return perform(stage, directory, existing)


def contents(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_a_stage_writes_its_directory_and_what_it_cost(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert made(run, counting())
    entry = json.loads((run / "run.json").read_text())["stages"]["numbers"]
    assert artifact.verify(run / "numbers")["rows"] == {"numbers": 3} == entry["rows"]
    assert entry["seconds"] >= 0
    assert entry["cpu_seconds"] >= 0
    assert entry["peak_memory_mb"] > 10
    assert entry["kept"] is False


def test_a_stage_that_is_there_is_refused_unless_kept_or_replaced(tmp_path: Path) -> None:
    run = tmp_path / "run"
    made(run, counting())
    before = contents(run / "numbers")
    with pytest.raises(ArtifactError, match="--resume"):
        made(run, counting())
    assert contents(run / "numbers") == before
    assert not made(run, counting(), Existing.KEEP)
    assert contents(run / "numbers") == before
    assert made(run, counting(), Existing.REPLACE)


def test_a_kept_stage_keeps_what_it_cost(tmp_path: Path) -> None:
    run = tmp_path / "run"
    made(run, counting())
    first = json.loads((run / "run.json").read_text())["stages"]["numbers"]
    made(run, counting(), Existing.KEEP)
    second = json.loads((run / "run.json").read_text())["stages"]["numbers"]
    assert second == {**first, "kept": True}


def test_resuming_says_why_a_stage_is_made_again(tmp_path: Path) -> None:
    run = tmp_path / "run"
    made(run, counting(inputs={"source": "abc"}))
    assert why_not_kept(counting(inputs={"source": "abc"}), run) is None
    assert why_not_kept(counting(seed=2, inputs={"source": "abc"}), run) == "the seed was 1 and is 2"
    changed = why_not_kept(counting(upto=4, inputs={"source": "abc"}), run)
    assert changed == "its configuration changed: upto was 3 and is 4"
    assert why_not_kept(counting(inputs={"source": "abd"}), run) == "its input changed: source"
    (run / "numbers" / "1.txt").write_text("one")
    assert "its hash differs" in str(why_not_kept(counting(inputs={"source": "abc"}), run))


def test_a_stage_whose_companion_directory_is_gone_is_not_kept(tmp_path: Path) -> None:
    stage = Stage("numbers", "numbers", {"upto": 3}, {}, 1, counting().make, beside=("truth",))
    made(tmp_path / "run", stage)
    assert "truth" in str(why_not_kept(stage, tmp_path / "run"))


def test_a_companion_directory_of_another_seed_or_configuration_is_not_kept(tmp_path: Path) -> None:
    run = tmp_path / "run"
    made(run, counting())
    both = Stage("numbers", "numbers", {"upto": 3}, {}, 1, counting().make, beside=("truth",))
    for options, said in ((counting(seed=2), "the seed was 2 and is 1"), (counting(upto=4), "upto was 4 and is 3")):
        made(run, Stage("truth", "truth", options.config, {}, options.seed, options.make), Existing.REPLACE)
        assert str(why_not_kept(both, run)).endswith(said)
    made(run, Stage("truth", "truth", {"upto": 3}, {}, 1, counting().make), Existing.REPLACE)
    assert why_not_kept(both, run) is None
    assert not made(run, both, Existing.KEEP)
    entries = json.loads((run / "run.json").read_text())["stages"]
    assert entries["numbers"]["kept"] is entries["truth"]["kept"] is True


def test_a_directory_of_another_kind_is_not_kept(tmp_path: Path) -> None:
    made(tmp_path / "run", counting())
    other = Stage("numbers", "letters", {"upto": 3}, {}, 1, counting().make)
    assert why_not_kept(other, tmp_path / "run") == "it holds a numbers"


def test_a_stage_made_again_keeps_nothing_of_its_earlier_record(tmp_path: Path) -> None:
    made(tmp_path / "run", counting())
    with opened(tmp_path / "run") as run:
        run.note_stage("numbers", {"of_an_older_version": 1})
        perform(counting(), run, Existing.REPLACE)
        entry = run.record()["stages"]["numbers"]
    assert "of_an_older_version" not in entry
    assert entry["manifest"] == artifact.hash_file(tmp_path / "run" / "numbers" / "manifest.json")
    assert entry["why"] == "asked for with --overwrite"


def test_nothing_is_made_where_one_of_the_stages_is_refused(tmp_path: Path) -> None:
    made(tmp_path / "run", counting())
    new = Stage("new", "numbers", {}, {}, 1, counting().make)
    with opened(tmp_path / "run") as run, pytest.raises(ArtifactError, match="numbers: already exists"):
        perform_all([new, counting()], run, Existing.REFUSE)
    assert not (tmp_path / "run" / "new").exists()


def test_the_forecast_is_told_of_stages_made_and_kept_and_no_engine_makes_them(tmp_path: Path) -> None:
    def silent(draft: Draft, _advance: Advance) -> None:
        (draft.path / "x").write_text("x")

    stage = Stage("numbers", "numbers", {}, {}, 1, silent)
    with opened(tmp_path / "run") as run, workers.done_by(lambda _work, _items: pytest.fail("made elsewhere")):
        for is_made in (True, False):
            ahead = Forecast([{"numbers": Work(10, 10)}], processes=1)
            assert perform_all([stage], run, Existing.KEEP, whole=ahead) == [is_made]
            assert ahead.left() == (0, 0)


def test_drafts_of_processes_that_were_killed_with_the_stage_are_removed(tmp_path: Path) -> None:
    def interrupted(draft: Draft, _advance: Advance) -> None:
        draft.path.with_name(".numbers.tmp-999999999").mkdir()
        raise KeyboardInterrupt

    made(tmp_path / "run", Stage("first", "numbers", {}, {}, 1, counting().make))
    with pytest.raises(KeyboardInterrupt):
        made(tmp_path / "run", Stage("numbers", "numbers", {}, {}, 1, interrupted))
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [".lock", "first", "run.json"]


def test_rows_of_many_tables_are_added_up() -> None:
    rows = {"a": 1000, "b": 2, "c": 3, "d": 4, "e": 5}
    assert stages_module._rows(rows) == "1,000 a, 2 b, 3 c, 4 d, 5 e"
    assert stages_module._rows({**rows, "f": 6}) == "1,020 rows in 6 tables"


def test_an_input_that_was_changed_after_it_was_written_is_not_read(tmp_path: Path) -> None:
    run = tmp_path / "run"
    made(run, counting())
    (run / "numbers" / "1.txt").write_text("one")

    def never(_draft: Draft, _advance: Advance) -> None:
        raise AssertionError("read a damaged input")

    with pytest.raises(ArtifactError, match="hash differs"):
        made(run, Stage("next", "next", {}, {"numbers": run / "numbers"}, 1, never))
    assert not (run / "next").exists()


def test_a_failing_stage_leaves_the_earlier_directory_as_it_was(tmp_path: Path) -> None:
    run = tmp_path / "run"
    made(run, counting())
    before = contents(run / "numbers")

    def fails(draft: Draft, _advance: Advance) -> None:
        (draft.path / "half").write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(ArtifactError, match="No space left on device"):
        made(run, Stage("numbers", "numbers", {}, {}, 1, fails), Existing.REPLACE)
    assert contents(run / "numbers") == before
    assert sorted(path.name for path in run.iterdir()) == [".lock", "numbers", "run.json"]


def test_a_new_run_in_which_nothing_was_finished_leaves_no_directory(tmp_path: Path) -> None:
    def fails(_draft: Draft, _advance: Advance) -> None:
        raise ArtifactError("nothing to read")

    with pytest.raises(ArtifactError, match="nothing to read"):
        made(tmp_path / "deep" / "run", Stage("numbers", "numbers", {}, {}, 1, fails))
    assert not (tmp_path / "deep" / "run").exists()


def test_a_new_run_refuses_a_directory_with_a_run(tmp_path: Path) -> None:
    made(tmp_path / "run", counting())
    with pytest.raises(ArtifactError, match="already exists"), opened(tmp_path / "run", new=True):
        pass


@pytest.mark.parametrize("draft", [".run.json.tmp-4711", ".mlflow.db.tmp-4711", ".mlflow.db.tmp-4711-journal"])
def test_what_a_killed_process_left_of_the_runs_own_files_goes(tmp_path: Path, draft: str) -> None:
    made(tmp_path / "run", counting())
    (tmp_path / "run" / draft).write_text("{")
    with opened(tmp_path / "run"):
        assert not (tmp_path / "run" / draft).exists()


def test_the_command_that_mends_a_run_names_tables_only_where_they_lie_elsewhere(tmp_path: Path) -> None:
    assert again(tmp_path) == f"suture run CONFIG --out {tmp_path} --resume"
    with opened(tmp_path / "run") as run:
        run.note_stage("cohort", {})
        assert again(run.path) == f"suture run CONFIG --source TABLES --out {run.path} --resume"
        run.note_stage("tables", {})
        assert again(run.path) == f"suture run CONFIG --out {run.path} --resume"


def test_a_directory_that_holds_something_else_is_never_written_to(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    for existing in Existing:
        with pytest.raises(ArtifactError, match="not a run's directory"):
            made(tmp_path, counting(), existing)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["thesis.txt"]


def test_a_file_where_the_directory_should_be_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("x")
    with pytest.raises(ArtifactError, match="is a file"):
        made(tmp_path / "run", counting())


HOLDER = """
import sys, time
from pathlib import Path
from app.run_directory import opened
from app.stage import Existing, Stage, perform
def make(draft, advance):
    (draft.path / "half.txt").write_text("half")
    print("holding", flush=True)
    time.sleep(60)
with opened(Path(sys.argv[1])) as run:
    perform(Stage("numbers", "numbers", {"upto": 3}, {}, 1, make), run, Existing.KEEP)
"""


@pytest.fixture
def holder(tmp_path: Path):  # type: ignore[no-untyped-def]
    """Another process in the middle of a stage of tmp_path/run."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "holding\n"
        yield process
        process.kill()


def test_two_runs_on_one_directory_at_once_exclude_each_other(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    with pytest.raises(ArtifactError, match=rf"another run is writing here \(process {holder.pid}\)"):
        made(tmp_path / "run", counting(), Existing.KEEP)


def test_what_a_killed_run_left_half_written_is_removed_by_the_next(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    run = tmp_path / "run"
    assert [path.name for path in run.glob(".numbers.tmp-*")] == [f".numbers.tmp-{holder.pid}"]
    assert made(run, counting(), Existing.KEEP)
    assert sorted(path.name for path in run.iterdir()) == [".lock", "numbers", "run.json"]


def test_a_directory_that_cannot_be_written_is_one_line() -> None:
    """/proc refuses new directories to every user, the superuser included."""
    if not Path("/proc/self").exists():
        pytest.skip("no /proc on this system")
    with pytest.raises(ArtifactError, match=r"/proc/run: cannot be written: \w+") as caught:
        made(Path("/proc/run"), counting())
    assert "\n" not in str(caught.value)


def test_memory_is_measured_in_children_too(tmp_path: Path) -> None:
    child = "import time; block = bytearray(200_000_000); time.sleep(0.5)"

    def heavy(draft: Draft, _advance: Advance) -> None:
        subprocess.run([sys.executable, "-c", child], check=True)
        (draft.path / "x").write_text("x")

    made(tmp_path / "light", counting())
    made(tmp_path / "heavy", Stage("numbers", "numbers", {}, {}, 1, heavy))
    light, heavy_run = (
        json.loads((tmp_path / name / "run.json").read_text())["stages"]["numbers"] for name in ("light", "heavy")
    )
    assert 150 < heavy_run["peak_memory_mb"] - light["peak_memory_mb"] < 400
    assert heavy_run["seconds"] > 0.5


def test_processor_time_of_children_is_counted(tmp_path: Path) -> None:
    child = "import time; end = time.process_time() + 0.3\nwhile time.process_time() < end: pass"

    def busy(draft: Draft, _advance: Advance) -> None:
        subprocess.run([sys.executable, "-c", child], check=True)
        (draft.path / "x").write_text("x")

    made(tmp_path / "run", Stage("numbers", "numbers", {}, {}, 1, busy))
    assert json.loads((tmp_path / "run" / "run.json").read_text())["stages"]["numbers"]["cpu_seconds"] > 0.25


def test_the_first_difference_is_named_by_its_path() -> None:
    assert first_difference({"a": {"b": [1, 2]}}, {"a": {"b": [1, 2]}}) is None
    assert first_difference({"a": {"b": 1}}, {"a": {"b": 2}}) == "a.b was 1 and is 2"
    assert first_difference({"a": 1}, {}) == "a was 1 and is None"
    assert first_difference({}, {"c": 0}) == "c was None and is 0"


def test_a_full_disk_leaves_the_run_as_it_was(tmp_path: Path) -> None:
    """A file-size limit stands for the full disk: the write fails part way through a file."""
    made(tmp_path / "run", counting())
    before = contents(tmp_path / "run")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def big(draft: Draft, _advance: Advance) -> None:
        (draft.path / "big").write_bytes(b"x" * 1_000_000)

    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(ArtifactError, match="cannot be written: File too large"):
            made(tmp_path / "run", Stage("big", "big", {}, {}, 1, big))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    after = contents(tmp_path / "run")
    assert {name: data for name, data in after.items() if name != ".lock"} == {
        name: data for name, data in before.items() if name != ".lock"
    }


def test_an_error_that_lost_its_reason_names_the_space_that_is_left(tmp_path: Path) -> None:
    """NumPy says `3 requested and 2 written`, with no error number, where the disk is full."""

    def short(_draft: Draft, _advance: Advance) -> None:
        raise OSError("3 requested and 2 written")

    with pytest.raises(
        ArtifactError, match=r"cannot be written: OSError \(is the disk full\? [\d,]+ MB are free now\)"
    ):
        made(tmp_path / "run", Stage("numbers", "numbers", {}, {}, 1, short))


def test_the_record_survives_a_write_that_fails(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    directory.update(name="one")
    before = contents(tmp_path)
    with pytest.raises(ValueError, match="JSON"):
        directory.update(seconds=float("nan"))
    assert contents(tmp_path) == before


def piecewise(
    run: Path,
    done: list[int],
    stop_at: int | None = None,
    config: int = 1,
    seed: int = 1,
    source: str = "abc",
    existing: Existing = Existing.KEEP,
    end: BaseException | None = None,
) -> bool:
    """Make a stage of three pieces, ended by the system before piece `stop_at`; `done` lists the pieces made."""

    def make(draft: Draft, _advance: Advance) -> None:
        with pieces.kept_in(draft.work, draft.path) as kept:
            for number in range(3):
                if number == stop_at:
                    raise end or SystemExit(137)
                if not kept.has(str(number)):
                    done.append(number)
                    with kept.making(str(number)) as piece:
                        (piece.path / f"{number}.txt").write_text(str(number))
                kept.hand_over(str(number), draft.path)

    return made(run, Stage("cohort", "cohort", {"config": config}, {"source": source}, seed, make), existing)


def test_an_interrupted_stage_goes_on_from_its_finished_pieces(tmp_path: Path) -> None:
    done: list[int] = []
    with pytest.raises(SystemExit):
        piecewise(tmp_path / "run", done, stop_at=2)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [".cohort.work", ".lock", "run.json"]
    assert piecewise(tmp_path / "run", done)
    assert done == [0, 1, 2]
    piecewise(tmp_path / "undisturbed", [])
    assert artifact.digest(tmp_path / "run" / "cohort") == artifact.digest(tmp_path / "undisturbed" / "cohort")
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [".lock", "cohort", "run.json"]


def test_a_stage_that_is_kept_needs_its_pieces_no_more(tmp_path: Path) -> None:
    made(tmp_path / "run", counting())
    (tmp_path / "run" / ".numbers.work" / "0").mkdir(parents=True)
    assert not made(tmp_path / "run", counting(), Existing.KEEP)
    assert not (tmp_path / "run" / ".numbers.work").exists()


@pytest.mark.parametrize("end", [ConfigError("wrong"), InputError("wrong")])
def test_a_wrong_input_leaves_no_pieces_for_going_on_would_only_meet_it_again(tmp_path: Path, end: Exception) -> None:
    with pytest.raises(type(end), match="wrong"):
        piecewise(tmp_path / "run", [], stop_at=2, end=end)
    assert not (tmp_path / "run" / ".cohort.work").exists()


@pytest.mark.parametrize("changed", [{"seed": 2}, {"source": "abd"}, {"existing": Existing.REPLACE}])
def test_pieces_of_another_seed_or_input_or_where_all_is_replaced_are_not_used(
    tmp_path: Path, changed: dict[str, Any]
) -> None:
    done: list[int] = []
    with pytest.raises(SystemExit):
        piecewise(tmp_path / "run", done, stop_at=2)
    assert piecewise(tmp_path / "run", done, **changed)
    assert done == [0, 1, 0, 1, 2]


def test_pieces_of_another_configuration_are_not_used(tmp_path: Path) -> None:
    done: list[int] = []
    with pytest.raises(SystemExit):
        piecewise(tmp_path / "run", done, stop_at=2)
    assert piecewise(tmp_path / "run", done, config=2)
    assert done == [0, 1, 0, 1, 2]


@pytest.mark.parametrize("changed", [("sources", "cohort"), ("packages", "numpy")])
def test_pieces_of_other_code_or_another_library_are_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: tuple[str, str]
) -> None:
    done: list[int] = []
    with pytest.raises(SystemExit):
        piecewise(tmp_path / "run", done, stop_at=2)
    (part, name), now = changed, artifact.code()
    monkeypatch.setattr(artifact, "code", lambda: {**now, part: {**now[part], name: "other"}})
    assert piecewise(tmp_path / "run", done)
    assert done == [0, 1, 0, 1, 2]


def test_a_stage_is_made_again_where_the_code_that_decides_it_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage("cohort", "cohort", {"upto": 3}, {}, 1, counting().make)
    made(tmp_path / "run", stage)
    now = artifact.code()
    monkeypatch.setattr(artifact, "code", lambda: {**now, "sources": {**now["sources"], "policy": "other"}})
    assert why_not_kept(stage, tmp_path / "run") is None
    monkeypatch.setattr(artifact, "code", lambda: {**now, "sources": {**now["sources"], "cohort": "other"}})
    assert why_not_kept(stage, tmp_path / "run") == "Suture's code changed: cohort/"
    monkeypatch.setattr(artifact, "code", lambda: {**now, "packages": {**now["packages"], "numpy": "9"}})
    assert str(why_not_kept(stage, tmp_path / "run")).startswith("a library changed: numpy was ")


def test_neither_the_clock_nor_the_times_of_files_decide_what_is_kept(tmp_path: Path) -> None:
    run = tmp_path / "run"
    made(run, counting())
    for file in run.rglob("*"):
        os.utime(file, (4e9, 4e9))
    assert not made(run, counting(), Existing.KEEP)


def test_a_draft_of_a_dead_process_whose_number_lives_again_is_removed(tmp_path: Path) -> None:
    """In a container process numbers are small and soon used again."""
    run = tmp_path / "run"
    made(run, counting())
    for number in (1, os.getpid()):
        (run / f".numbers.tmp-{number}").mkdir()
    (run / ".run.json.tmp-1").write_text("{")
    assert made(run, counting(), Existing.REPLACE)
    assert sorted(path.name for path in run.iterdir()) == [".lock", "numbers", "run.json"]


def test_a_run_killed_before_its_record_was_written_is_taken_up(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".run.json.tmp-77").write_text("{")
    assert made(tmp_path / "run", counting(), Existing.KEEP)


def letters(name: str, draft: Draft, advance: Advance) -> None:
    """A stage that another process can make."""
    (draft.path / "name.txt").write_text(f"{name} {os.getpid()}")
    advance(1, 1)
    if name == "policy/wrong":
        raise InputError("nothing to learn from")


def test_stages_that_do_not_read_each_other_are_made_in_processes_of_their_own(tmp_path: Path) -> None:
    names = ("policy/a", "policy/b")
    stages = [Stage(name, "policy", {}, {}, 1, partial(letters, name)) for name in names]
    with opened(tmp_path / "run") as run:
        assert perform_all(stages, run, Existing.KEEP, processes=2) == [True, True]
    said = [(tmp_path / "run" / name / "name.txt").read_text().split() for name in names]
    assert [name for name, _ in said] == list(names)
    assert str(os.getpid()) not in {pid for _, pid in said}
    assert run.record()["stages"]["policy/a"]["why"] == "it was not there"


def test_a_stage_that_fails_beside_others_leaves_the_finished_ones(tmp_path: Path) -> None:
    names = ("policy/a", "policy/wrong")
    stages = [Stage(name, "policy", {}, {}, 1, partial(letters, name)) for name in names]
    with pytest.raises(InputError, match="nothing to learn from"), opened(tmp_path / "run") as run:
        perform_all(stages, run, Existing.KEEP, processes=2)
    assert sorted(path.name for path in (tmp_path / "run" / "policy").iterdir()) == ["a"]


def test_a_stage_that_is_outdated_takes_the_place_of_what_was_there(tmp_path: Path) -> None:
    run = tmp_path / "run"
    made(run, counting())
    assert made(run, counting(upto=4), Existing.KEEP)
    assert artifact.verify(run / "numbers")["rows"] == {"numbers": 4}


@pytest.mark.parametrize(
    ("kind", "packages"),
    [
        ("tables", ("cohort",)),
        ("cohort", ("cohort",)),
        ("behaviour", ("cohort", "policy")),
        ("policy", ("cohort", "policy")),
        ("sweep", ("cohort", "policy")),
        ("rollouts", ("cohort", "policy", "ope")),
        ("evaluation", ("cohort", "policy", "ope")),
    ],
)
def test_a_stages_result_is_decided_by_its_own_package_and_those_before(kind: str, packages: tuple[str, ...]) -> None:
    assert stages_module.packages(kind) == packages


def test_what_a_killed_process_left_of_a_directory_beside_goes_too(tmp_path: Path) -> None:
    def make(draft: Draft, _advance: Advance) -> None:
        (draft.path / "x").write_text("x")
        with artifact.writing(tmp_path / "run" / "truth", "truth", {}, overwrite=True) as beside:
            (beside.path / "y").write_text("y")

    (tmp_path / "run").mkdir()
    with opened(tmp_path / "run") as run:
        (tmp_path / "run" / f".truth.tmp-{os.getpid()}").mkdir()  # its number is another's by now
        perform(Stage("tables", "tables", {}, {}, 1, make, beside=("truth",)), run, Existing.KEEP)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [".lock", "run.json", "tables", "truth"]


def test_what_a_stage_made_and_how_far_it_is_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ahead = Forecast([{"numbers": Work(10, 10)}], processes=1)
    told: list[tuple[str, int, int]] = []
    ahead.told = lambda name, done, total: told.append((name, done, total))  # type: ignore[method-assign]
    with opened(tmp_path / "run") as run:
        perform_all([counting()], run, Existing.REFUSE, whole=ahead)
    assert re.search(r"^  numbers +\d+\.\d s +\d+ MB  3 numbers$", capsys.readouterr().err, flags=re.M)
    assert told[-1] == ("numbers", 3, 3)
