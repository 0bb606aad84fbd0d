"""Transfer: folders come and go whole, every file compared, and messages hold no key."""

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
    (tmp_path / "from" / "icu").mkdir(parents=True)
    (tmp_path / "from" / "icu" / "chartevents.csv").write_bytes(b"rows" * 1000)
    (tmp_path / "from" / "run.json").write_text("{}")
    (tmp_path / "from" / "manifest.json").write_text("{}")
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
    assert (back / "icu" / "chartevents.csv").read_bytes() == b"rows" * 1000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["away", "back", "from"]


def test_what_is_broken_off_is_taken_for_nothing(folder: Path, tmp_path: Path) -> None:
    away = elsewhere(tmp_path / "away")

    def stop(done: int, total: int) -> None:
        if done == total - 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy(place(str(folder)), away, stop)
    assert {path.name for path in (tmp_path / "away").rglob("*")} == {
        "bucket",
        "run",
        "icu",
        "chartevents.csv",
        "manifest.json",
    }
    with pytest.raises(KeyboardInterrupt):
        copy(place(str(folder)), place(str(tmp_path / "here")), stop)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["away", "from"]


def test_what_is_there_stays(folder: Path, tmp_path: Path) -> None:
    away = elsewhere(tmp_path / "away")
    copy(place(str(folder)), away)
    for target in (away, place(str(folder))):
        with pytest.raises(ArtifactError, match="already exists; nothing was written"):
            copy(place(str(folder)), target)


def test_nothing_to_copy_is_an_error_without_the_key_of_its_address(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no files there"):
        copy(place(str(tmp_path / "nowhere")), place(str(tmp_path / "to")))
    found = place("s3://KEY:SECRET@bucket/run?region=eu-central-1&endpoint_override=127.0.0.1:1")
    assert found.said == "s3://bucket/run"


def test_a_file_that_arrives_changed_is_found(folder: Path, tmp_path: Path) -> None:
    def damage(_done: int, _total: int) -> None:
        next(tmp_path.glob(".to.tmp-*/icu/*")).write_bytes(b"x")

    with pytest.raises(ArtifactError, match=r"to/icu/chartevents\.csv: holds something else than was written"):
        copy(place(str(folder)), place(str(tmp_path / "to")), damage)
    assert not (tmp_path / "to").exists()


def test_paths_of_this_machine_may_be_uris_and_others_are_refused() -> None:
    assert local(Path("file:///data/mimic")) == Path("/data/mimic")
    assert local(Path("data/mimic")) == Path("data/mimic")
    with pytest.raises(ConfigError, match="s3: not mounted here; `suture copy URI DIR`"):
        local(Path("s3://bucket/mimic"))
    with pytest.raises(ConfigError, match="foo: no file system that Arrow knows"):
        place("foo://bucket/mimic")


def test_the_command_copies_and_names_what_is_wrong_in_a_line(suture: Any, folder: Path, tmp_path: Path) -> None:
    done = suture("copy", folder.as_uri(), tmp_path / "to")
    assert (done.code, done.out) == (0, "3 files, 0.0 MB: read again where they are now, and the same\n")
    again = suture("copy", folder, tmp_path / "to")
    assert (again.code, len(again.err.splitlines())) == (4, 1)
    shutil.rmtree(tmp_path / "to")
    run = suture("simulate", "configs/demo.yaml", "--out", "s3://bucket/run")
    assert (run.code, len(run.err.splitlines())) == (2, 1)
