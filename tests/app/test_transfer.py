"""Transfer: folders come and go whole, every file compared, and messages hold no key."""

import resource
import shutil
from pathlib import Path
from typing import Any

import pytest
from pyarrow import fs

from app.transfer import Place, copy, local, place
from cohort.errors import ArtifactError, ConfigError, InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a file below another."""
    (tmp_path / "from" / "tables").mkdir(parents=True)
    (tmp_path / "from" / "tables" / "vitals.csv").write_bytes(b"rows" * 1000)
    (tmp_path / "from" / "run.json").write_text("{}")
    (tmp_path / "from" / "tables" / "manifest.json").write_text("{}")
    return tmp_path / "from"


def elsewhere(root: Path) -> Place:
    """A file system that is not this machine's own: folders do not take their name by renaming."""
    root.mkdir(exist_ok=True)
    return Place(fs.SubTreeFileSystem(str(root), fs.LocalFileSystem()), "bucket/run", "s3://bucket/run")


def test_a_folder_goes_away_and_comes_back_the_same(folder: Path, tmp_path: Path) -> None:
    away = elsewhere(tmp_path / "away")
    assert copy(place(str(folder)), away) == (3, 4004)
    back = tmp_path / "back"
    (tmp_path / ".back.tmp-999999999").mkdir()  # of a copy that was killed
    copy(away, place(f"file://{back}"))
    assert (back / "tables" / "vitals.csv").read_bytes() == b"rows" * 1000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["away", "back", "from"]


@pytest.mark.parametrize(
    ("after", "there"), [(2, {"vitals.csv", "zoo.csv"}), (3, {"vitals.csv", "zoo.csv", "manifest.json"})]
)
def test_what_is_broken_off_is_taken_for_nothing(folder: Path, tmp_path: Path, after: int, there: set[str]) -> None:
    (folder / "zoo.csv").write_text("")
    away = elsewhere(tmp_path / "away")

    def stop(done: int, _total: int) -> None:
        if done == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy(place(str(folder)), away, stop)
    assert {path.name for path in (tmp_path / "away").rglob("*") if path.is_file()} == there
    with pytest.raises(KeyboardInterrupt):
        copy(place(str(folder)), place(str(tmp_path / "here")), stop)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["away", "from"]


def test_what_is_there_stays(folder: Path, tmp_path: Path) -> None:
    away = elsewhere(tmp_path / "away")
    copy(place(str(folder)), away)
    for target in (away, place(str(folder))):
        with pytest.raises(ArtifactError, match="already exists; nothing was written"):
            copy(place(str(folder)), target)
    (tmp_path / "empty").mkdir()
    assert copy(place(str(folder)), place(str(tmp_path / "empty"))) == (3, 4004)


def test_a_folder_that_comes_to_be_meanwhile_is_not_replaced(folder: Path, tmp_path: Path) -> None:
    def other(_done: int, _total: int) -> None:
        (tmp_path / "to" / "other").mkdir(parents=True, exist_ok=True)

    with pytest.raises(ArtifactError, match=rf"^{tmp_path}/to: cannot be written \(Directory not empty\)$"):
        copy(place(str(folder)), place(str(tmp_path / "to")), other)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["from", "to"]


@pytest.mark.parametrize("below", ["", "/to"])
def test_a_file_where_the_folder_should_be_is_one_line(folder: Path, tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("x")
    target = place(f"{tmp_path}/file{below}")
    with pytest.raises(ArtifactError, match=rf"^{target.said}: cannot be written \(Not a directory\)$"):
        copy(place(str(folder)), target)


def test_a_full_disk_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    """A file-size limit stands for the full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(ArtifactError, match=rf"^{tmp_path}/to: cannot be written \(File too large\)$"):
            copy(place(str(folder)), place(str(tmp_path / "to")))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["from"]


def test_what_cannot_be_read_is_an_error_of_the_input_in_no_library_s_words(folder: Path, tmp_path: Path) -> None:
    to = place(str(tmp_path / "to"))
    with pytest.raises(InputError, match=r"run\.json: not readable \(Not a directory\)$"):
        copy(place(str(folder / "run.json")), to)
    with pytest.raises(InputError, match=r"^KEYLESS: not readable \(ArrowInvalid\)$"):
        copy(Place(fs.LocalFileSystem(), "KEY\0", "KEYLESS"), to)
    if not Path("/proc/self/mem").exists():
        pytest.skip("no /proc on this system")
    (folder / "tables" / "damaged").symlink_to("/proc/self/mem")
    with pytest.raises(InputError, match=rf"^{folder}: not readable \(Input/output error\)$"):
        copy(place(str(folder)), to)


def test_nothing_to_copy_is_an_error_without_the_key_of_its_address(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no files there"):
        copy(place(str(tmp_path / "nowhere")), place(str(tmp_path / "to")))
    found = place("s3://KEY:SECRET@bucket/run?region=eu-central-1&endpoint_override=127.0.0.1:1")
    assert found.said == "s3://bucket/run"


def test_a_file_that_arrives_changed_is_found(folder: Path, tmp_path: Path) -> None:
    def damage(_done: int, _total: int) -> None:
        next(tmp_path.glob(".to.tmp-*/tables/*")).write_bytes(b"x")

    with pytest.raises(ArtifactError, match=r"to/tables/vitals\.csv: holds something else than was written"):
        copy(place(str(folder)), place(str(tmp_path / "to")), damage)
    assert not (tmp_path / "to").exists()


def test_paths_of_this_machine_may_be_uris_and_others_are_refused() -> None:
    assert local(Path("file:///data/mimic")) == Path("/data/mimic")
    assert local(Path("file:///my%20data/mimic")) == Path("/my data/mimic")
    assert local(Path("data/mimic")) == Path("data/mimic")
    assert place("file:///my%20data").said == "/my data"
    assert place("data").said == str(Path.cwd() / "data")
    with pytest.raises(ConfigError, match="s3: not mounted here; `suture copy URI DIR`"):
        local(Path("s3://bucket/mimic"))
    with pytest.raises(ConfigError, match="foo: no file system that Arrow knows"):
        place("foo://bucket/mimic")
    with pytest.raises(ConfigError, match="hdfs: no file system that Arrow knows, or its address is not one"):
        place("hdfs://127.0.0.1:1/mimic")


def test_the_command_copies_and_names_what_is_wrong_in_a_line(suture: Any, folder: Path, tmp_path: Path) -> None:
    done = suture("copy", folder.as_uri(), tmp_path / "to")
    assert (done.code, done.out) == (0, "3 files, 0.0 MB: read again where they are now, and the same\n")
    again = suture("copy", folder, tmp_path / "to")
    assert (again.code, len(again.err.splitlines())) == (4, 1)
    shutil.rmtree(tmp_path / "to")
    run = suture("simulate", "configs/demo.yaml", "--out", "s3://bucket/run")
    assert (run.code, len(run.err.splitlines())) == (2, 1)
