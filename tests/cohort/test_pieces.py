"""Pieces: what was finished is found again, whole and unchanged, and nothing else is."""

from pathlib import Path

import pytest

from cohort import pieces
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


def test_an_error_leaves_no_piece_behind(tmp_path: Path) -> None:
    def halfway() -> None:
        with Pieces(tmp_path).making("shard-0") as piece:
            (piece.path / "half.txt").write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        halfway()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "add", "note"])
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
    else:
        (found.path("shard-0") / NOTE).write_text('{"note": ')
    assert not found.has("shard-0")
    assert not found.path("shard-0").exists()


def test_a_piece_is_handed_over_without_its_note(tmp_path: Path) -> None:
    found = made(tmp_path / "work")
    found.hand_over("shard-0", tmp_path / "out")
    files = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert files == {"a.txt", "deep/b.txt"}
    assert found.has("shard-0")


def test_without_a_work_folder_pieces_are_gone_afterwards(tmp_path: Path) -> None:
    with pieces.kept_in(None, tmp_path) as found:
        made(found.folder)
        assert list(tmp_path.iterdir()) == [found.folder]
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_half_made_is_removed(tmp_path: Path) -> None:
    made(tmp_path)
    (tmp_path / ".shard-1.tmp-999").mkdir()
    with pieces.kept_in(tmp_path, tmp_path) as found:
        assert [path.name for path in tmp_path.iterdir()] == ["shard-0"]
        assert found.has("shard-0")
