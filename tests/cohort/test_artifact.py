"""Artifacts: all or nothing on writing, and nothing changed goes unnoticed on reading."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from cohort import artifact
from cohort.errors import ArtifactError


def written(out: Path, content: str = "one", *, overwrite: bool = False) -> Path:
    """An artifact of two files."""
    with artifact.writing(out, "cohort", {"a": 1}, seed=3, overwrite=overwrite) as draft:
        (draft.path / "deep").mkdir()
        (draft.path / "deep" / "text.txt").write_text(content)
        artifact.write_parquet(pa.table({"x": [1, 2, 3]}), draft.path / "x.parquet")
        draft.rows["x"] = 3
    return out


def fails_halfway(out: Path, *, overwrite: bool = False) -> None:
    """An error after half of the files were written."""
    with artifact.writing(out, "cohort", {}, overwrite=overwrite) as draft:
        (draft.path / "half.txt").write_text("half")
        if overwrite:
            artifact.verify(out)
        raise ZeroDivisionError


def test_the_manifest_says_what_made_it_and_every_files_hash(tmp_path: Path) -> None:
    manifest = artifact.verify(written(tmp_path / "out"))
    assert manifest["kind"] == "cohort"
    assert (manifest["config"], manifest["seed"], manifest["rows"]) == ({"a": 1}, 3, {"x": 3})
    assert sorted(manifest["files"]) == ["deep/text.txt", "x.parquet"]
    assert manifest["code"]["packages"]["numpy"]


def test_an_error_while_writing_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        fails_halfway(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_directory_is_kept_unless_it_may_be_replaced(tmp_path: Path) -> None:
    out = written(tmp_path / "out")
    with pytest.raises(ArtifactError, match="already exists; use --resume to keep it or --overwrite to replace it"):
        written(out, "two")
    assert (out / "deep" / "text.txt").read_text() == "one"
    written(out, "two", overwrite=True)
    assert (out / "deep" / "text.txt").read_text() == "two"
    artifact.verify(out)


def test_an_overwrite_that_fails_leaves_the_earlier_artifact_intact(tmp_path: Path) -> None:
    out = written(tmp_path / "out")
    with pytest.raises(ZeroDivisionError):
        fails_halfway(out, overwrite=True)
    assert artifact.verify(out)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_directory_that_is_no_artifact_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    with pytest.raises(ArtifactError, match="not a stage's directory; not overwritten"):
        written(tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "thesis.txt").exists()


@pytest.mark.parametrize("name", ["deep/text.txt", "x.parquet"])
def test_one_flipped_bit_is_found(tmp_path: Path, name: str) -> None:
    out = written(tmp_path / "out")
    content = bytearray((out / name).read_bytes())
    content[len(content) // 2] ^= 1
    (out / name).write_bytes(bytes(content))
    with pytest.raises(ArtifactError, match=f"{name}: its hash differs"):
        artifact.verify(out)
    with pytest.raises(ArtifactError, match=f"{name}: its hash differs"):
        artifact.verified(out, name)


def test_a_file_lost_or_added_is_found(tmp_path: Path) -> None:
    out = written(tmp_path / "out")
    (out / "extra.txt").write_text("x")
    with pytest.raises(ArtifactError, match=r"extra\.txt: not listed"):
        artifact.verify(out)
    (out / "extra.txt").unlink()
    (out / "x.parquet").unlink()
    with pytest.raises(ArtifactError, match=r"x\.parquet: listed in manifest\.json but missing"):
        artifact.verify(out)
    with pytest.raises(ArtifactError, match="lists no file 'y'"):
        artifact.verified(out, "y")


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no manifest.json"), ("{", "cannot be read"), ("[]", "version None"), ('{"version": 99}', "version 99"),
     ('{"version": 1}', "version 1, this Suture reads version 2; run it again"),
     ('{"version": 2}', "sha256: missing or damaged")],
)  # fmt: skip
def test_a_manifest_that_is_missing_or_wrong_is_refused(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(ArtifactError, match=message):
        artifact.read_manifest(tmp_path)


def dead_process() -> int:
    """The id of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def test_drafts_of_processes_that_are_no_more_are_removed_and_others_left(tmp_path: Path) -> None:
    stale, alive = tmp_path / f".out.tmp-{dead_process()}", tmp_path / f".out.tmp-{os.getppid()}"
    stale.mkdir()
    alive.mkdir()
    written(tmp_path / "out")
    assert not stale.exists()
    assert alive.exists()


def test_a_replacement_killed_between_its_two_renames_brings_the_earlier_artifact_back(tmp_path: Path) -> None:
    out = written(tmp_path / "out")
    out.rename(tmp_path / f".out.old-{dead_process()}")
    artifact.remove_stale_drafts(out)
    assert artifact.verify(out)


def test_the_identity_ignores_time_and_machine_but_not_content(tmp_path: Path) -> None:
    one, same, other = (written(tmp_path / name, text) for name, text in (("a", "1"), ("b", "1"), ("c", "2")))
    assert artifact.digest(one) == artifact.digest(same) != artifact.digest(other)


def test_parquet_is_the_same_bytes_for_the_same_table_and_tells_what_it_lacks(tmp_path: Path) -> None:
    table = pa.table({"x": [1.5, None], "y": ["a", "b"]})
    for name in ("a", "b"):
        artifact.write_parquet(table, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert artifact.read_parquet(tmp_path / "a", ["y"]).column_names == ["y"]
    with pytest.raises(ArtifactError, match="column 'z' is missing"):
        artifact.read_parquet(tmp_path / "a", ["z"])
    with pytest.raises(ArtifactError, match="missing"):
        artifact.read_parquet(tmp_path / "none")


def test_a_damaged_or_truncated_parquet_file_is_one_clear_error(tmp_path: Path) -> None:
    file = tmp_path / "x.parquet"
    artifact.write_parquet(pa.table({"x": list(range(5000))}), file)
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[100] ^= 0xFF
    for content in (whole[: len(whole) // 2], bytes(flipped), b"not parquet"):
        file.write_bytes(content)
        with pytest.raises(ArtifactError, match="not readable as parquet: truncated or damaged"):
            artifact.read_parquet(file)


def test_json_is_sorted_without_nan_and_checked_when_read(tmp_path: Path) -> None:
    artifact.write_json(tmp_path / "a.json", {"b": 1, "a": 2})
    assert list(json.loads((tmp_path / "a.json").read_text())) == ["a", "b"]
    with pytest.raises(ValueError, match="not JSON compliant"):
        artifact.write_json(tmp_path / "b.json", float("nan"))
    (tmp_path / "c.json").write_text("{")
    with pytest.raises(ArtifactError, match="cannot be read as JSON"):
        artifact.read_json(tmp_path / "c.json")


def test_a_folder_that_cannot_be_written_is_an_artifact_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ArtifactError, match="cannot be written"):
        written(tmp_path / "file" / "out")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(27, "File too large"), "File too large"),
        (OSError("Error writing bytes to file. Detail: [errno 27] File too large"), "File too large"),
        (OSError("something else"), r"OSError \(is the disk full\? [\d,]+ MB are free now\)"),
    ],
)
def test_why_a_directory_cannot_be_written_is_what_the_system_said(tmp_path: Path, error: OSError, told: str) -> None:
    with (
        pytest.raises(ArtifactError, match=f"cannot be written: {told}$"),
        artifact.writing(tmp_path / "out", "stage", {}),
    ):
        raise error
