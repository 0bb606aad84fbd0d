"""Pieces: what was finished is found again, whole and unchanged, and nothing else is."""

import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from cohort import pieces
from cohort.errors import ArtifactError
from cohort.pieces import NOTE, Pieces


def made(folder: Path, name: str = "shard-0", text: str = "rows") -> Pieces:
    """One finished piece of two files."""
    found = Pieces(folder)
    with found.making(name) as piece:
        (piece.path / "a.txt").write_text(text)
        (piece.path / "deep").mkdir()
        (piece.path / "deep" / "b.txt").write_text("b")
        piece.note = {"rows": 3}
    return found


def test_a_finished_piece_is_found_with_its_note(tmp_path: Path) -> None:
    found = made(tmp_path)
    assert found.has("shard-0")
    assert found.note("shard-0") == {"rows": 3}
    assert not found.has("shard-1")
    with pytest.raises(ArtifactError, match="shard-1: not a finished piece"):
        found.note("shard-1")


def test_an_error_leaves_no_piece_behind(tmp_path: Path) -> None:
    def halfway() -> None:
        with Pieces(tmp_path).making("shard-0") as piece:
            (piece.path / "half.txt").write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        halfway()
    assert list(tmp_path.iterdir()) == []


def test_a_note_that_is_not_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"), Pieces(tmp_path).making("shard-0") as piece:
        piece.note = math.nan
    assert list(tmp_path.iterdir()) == []


def test_of_two_that_make_the_same_piece_at_once_the_first_is_kept(tmp_path: Path) -> None:
    found = Pieces(tmp_path)
    with found.making("shard-0") as late, found.making("shard-0") as first:
        (late.path / "a.txt").write_text("late")
        (first.path / "a.txt").write_text("first")
    assert found.has("shard-0")
    assert (found.path("shard-0") / "a.txt").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["shard-0"]


def test_a_piece_that_cannot_take_its_name_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "shard-0").write_text("not a folder")
    with pytest.raises(OSError, match="shard-0"):
        made(tmp_path)


@pytest.mark.parametrize(
    "damage", ["flip", "truncate", "remove", "add", "unreadable", '{"note": ', "1", '{"files": {}}']
)
def test_a_damaged_piece_is_removed_and_not_used(tmp_path: Path, damage: str) -> None:
    found = made(tmp_path)
    file = found.path("shard-0") / "a.txt"
    if damage == "flip":
        file.write_text("rowt")
    elif damage == "truncate":
        file.write_text("")
    elif damage == "remove":
        file.unlink()
    elif damage == "add":
        (found.path("shard-0") / "c.txt").write_text("c")
    elif damage == "unreadable":
        file.unlink()
        file.symlink_to("/proc/self/mem")
    else:
        (found.path("shard-0") / NOTE).write_text(damage)
    assert not found.has("shard-0")
    assert not found.path("shard-0").exists()


def test_a_piece_is_handed_over_without_its_note(tmp_path: Path) -> None:
    found = made(tmp_path / "work")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.txt").write_text("where no link can be made")
    found.hand_over("shard-0", tmp_path / "out")
    files = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert files == {"a.txt", "deep/b.txt"}
    assert (tmp_path / "out" / "a.txt").read_text() == "rows"
    assert (tmp_path / "out" / "deep" / "b.txt").samefile(found.path("shard-0") / "deep" / "b.txt")
    assert found.has("shard-0")


def test_a_piece_that_is_needed_no_more_is_removed(tmp_path: Path) -> None:
    made(tmp_path).discard("shard-0")
    assert list(tmp_path.iterdir()) == []


def test_arrays_are_made_once_where_they_are_kept_and_again_where_they_were_damaged(tmp_path: Path) -> None:
    calls: list[int] = []

    def make() -> dict[str, np.ndarray]:
        calls.append(1)
        return {"b": np.arange(2), "a": np.zeros(1)}

    kept = Pieces(tmp_path)
    for where, made_by_now in ((None, 1), (None, 2), (kept, 3), (kept, 3)):
        found = pieces.arrays(where, "twin", make)
        assert {key: array.tolist() for key, array in found.items()} == {"a": [0.0], "b": [0, 1]}
        assert len(calls) == made_by_now
    np.save(kept.path("twin") / "b.npy", np.arange(3))
    assert pieces.arrays(kept, "twin", make)["b"].tolist() == [0, 1]


def test_without_a_work_folder_pieces_are_gone_afterwards(tmp_path: Path) -> None:
    def work() -> None:
        with pieces.kept_in(None, tmp_path) as found:
            made(found.folder)
            assert list(tmp_path.iterdir()) == [found.folder]
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_half_made_is_removed(tmp_path: Path) -> None:
    made(tmp_path)
    with Pieces(tmp_path / "alive").making("shard-1") as piece:
        shutil.copytree(piece.path, tmp_path / piece.path.name)
    shutil.rmtree(tmp_path / "alive")
    with pieces.kept_in(tmp_path, tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == ["shard-0"]
    assert Pieces(tmp_path).has("shard-0")
