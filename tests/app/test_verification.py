"""Verification: a changed byte in any file of a run is found and named, and so is a file that is gone or was added."""

import shutil
import warnings
from pathlib import Path

import pytest

from app import verification
from app.run_directory import LOCK
from cohort import artifact
from cohort.errors import ArtifactError


def everything(run: Path) -> None:
    """What `suture verify` checks of the files."""
    verification.check(run)
    verification.check_loose(run)


@pytest.fixture(scope="module")
def copy(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of every kind of file; each test leaves it as it was."""
    out = tmp_path_factory.mktemp("verified") / "run"
    shutil.copytree(tiny_run, out)
    return out


def test_a_flipped_byte_in_any_file_of_a_run_is_named(copy: Path) -> None:
    everything(copy)
    files = [file for file in sorted(copy.rglob("*")) if file.is_file() and file.stat().st_size]
    assert {"run.json", "mlflow.db", "report.html", "manifest.json", "trajectories.parquet"} <= {f.name for f in files}
    missed = [str(file.relative_to(copy)) for file in files if not flip_is_named(copy, file)]
    assert missed == []


def flip_is_named(run: Path, file: Path) -> bool:
    """Whether verification names a file whose middle byte differs in one bit; puts it back."""
    content = file.read_bytes()
    at = len(content) // 2
    file.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    try:
        everything(run)
    except ArtifactError as error:
        return str(file) in str(error)
    finally:
        file.write_bytes(content)
    return False


@pytest.mark.parametrize("name", ["run.json", "cohort/manifest.json"])
def test_a_flipped_bit_anywhere_in_a_sealed_file_is_found(copy: Path, tmp_path: Path, name: str) -> None:
    content, file = (copy / name).read_bytes(), tmp_path / "sealed.json"
    for at in range(0, len(content), 5):
        file.write_bytes(content[:at] + bytes([content[at] ^ 1 << at % 6]) + content[at + 1 :])
        with pytest.raises(ArtifactError, match=r"sealed\.json"):
            artifact.read_sealed(file)


def test_every_file_of_a_run_is_a_stage_s_or_in_its_record(copy: Path) -> None:
    stages = sum(one.files + 1 for one in verification.check(copy))
    files = [file for file in copy.rglob("*") if file.is_file() and file.name != LOCK]
    assert stages + verification.check_loose(copy) == len(files)


@pytest.mark.parametrize("name", ["notes.txt", "policy/notes.txt", ".ope.tmp-1/evaluation.json"])
def test_a_file_that_is_no_part_of_the_run_is_named(copy: Path, name: str) -> None:
    file = copy / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("x")
    try:
        with pytest.raises(ArtifactError, match=f"{name}: no part of the run"):
            everything(copy)
    finally:
        shutil.rmtree(file.parent) if "tmp" in name else file.unlink()


def test_mlflow_s_copies_are_checked_against_the_record_and_may_be_made_again(copy: Path) -> None:
    store = copy / "mlflow.db"
    content = store.read_bytes()
    store.unlink()
    try:
        with pytest.raises(ArtifactError, match=r"mlflow\.db: listed in run\.json but missing"):
            everything(copy)
    finally:
        store.write_bytes(content)


def test_reading_the_mlflow_store_leaves_it_as_it_was(copy: Path) -> None:
    from mlflow import MlflowClient

    with warnings.catch_warnings(action="ignore"):  # its libraries deprecate each other
        MlflowClient(tracking_uri=f"sqlite:///{copy / 'mlflow.db'}").search_experiments()
    verification.check_loose(copy)


def test_a_manifest_sealed_again_after_an_edit_is_not_the_one_in_the_record(copy: Path) -> None:
    file = copy / "truth" / "manifest.json"
    content = file.read_bytes()
    artifact.write_sealed(file, artifact.read_sealed(file) | {"created": "2001-01-01T00:00:00+00:00"})
    try:
        with pytest.raises(ArtifactError, match=r"truth/manifest\.json: not the one that run\.json lists"):
            everything(copy)
    finally:
        file.write_bytes(content)


def test_what_a_process_that_was_stopped_left_in_the_lock_is_named(copy: Path) -> None:
    (copy / LOCK).write_text("12345")
    try:
        with pytest.raises(ArtifactError, match=r"\.lock: not empty"):
            everything(copy)
    finally:
        (copy / LOCK).write_text("")


def test_rows_and_notes_are_part_of_the_digest_and_the_time_is_not(copy: Path, tmp_path: Path) -> None:
    shutil.copytree(copy / "cohort", tmp_path / "cohort")
    before, file = artifact.digest(tmp_path / "cohort"), tmp_path / "cohort" / "manifest.json"
    manifest = artifact.read_sealed(file)
    artifact.write_sealed(file, manifest | {"created": "2001-01-01T00:00:00+00:00"})
    assert artifact.digest(tmp_path / "cohort") == before
    artifact.write_sealed(file, manifest | {"rows": {**manifest["rows"], "stays": 1}})
    assert artifact.digest(tmp_path / "cohort") != before
