"""The MEDS export: a dataset with a manifest, whole or not at all, that a run reads like the tables it came from."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from cohort import artifact

Suture = Callable[..., Any]


def test_a_simulated_hospital_goes_out_as_meds_and_comes_back_the_same_stays(
    suture: Suture, tiny_config: Path, tiny_run: Path, tmp_path: Path
) -> None:
    dataset, config = tmp_path / "meds", tmp_path / "meds.yaml"
    done = suture("export-meds", "--source", tiny_run / "tables", "--out", dataset)
    assert done.code == 0, done.err
    events = sum(pq.read_metadata(path).num_rows for path in (dataset / "data").iterdir())
    assert done.out == f"{events:,} events -> {dataset}\n"
    manifest = artifact.verify(dataset)
    assert manifest["inputs"] == {"tables": artifact.digest(tiny_run / "tables")}
    assert manifest["rows"] == {"events": events}
    assert {path.name for path in dataset.iterdir()} == {"data", "metadata", "manifest.json"}

    config.write_text(tiny_config.read_text().replace("kind: mimic_iv", "kind: meds"))
    read = suture("cohort", config, "--source", dataset, "--out", tmp_path / "run")
    assert read.code == 0, read.err
    rows = [artifact.read_manifest(run / "cohort")["rows"] for run in (tmp_path / "run", tiny_run)]
    assert rows[0]["decisions"] == rows[1]["decisions"] > 0
    assert artifact.read_manifest(tmp_path / "run" / "cohort")["inputs"] == {"tables": artifact.digest(dataset)}


def test_a_dataset_that_is_there_is_replaced_only_when_asked(suture: Suture, tiny_run: Path, tmp_path: Path) -> None:
    ask = ("export-meds", "--source", tiny_run / "tables", "--out", tmp_path / "meds")
    assert suture(*ask).code == 0
    done = suture(*ask)
    assert (done.code, done.err) == (
        4, f"error: {tmp_path / 'meds'}: already exists; use --overwrite to replace it\n",
    )  # fmt: skip
    assert suture(*ask, "--overwrite").code == 0


@pytest.mark.parametrize("there", [False, True])
def test_a_folder_without_tables_is_one_line_and_leaves_nothing(suture: Suture, tmp_path: Path, there: bool) -> None:
    if there:
        (tmp_path / "empty").mkdir()
    done = suture("export-meds", "--source", tmp_path / "empty", "--out", tmp_path / "meds")
    assert (done.code, done.err.count("\n")) == (3, 1)
    assert not list(tmp_path.glob("*meds*"))
