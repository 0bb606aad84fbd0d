"""Canaries: identifiers planted in a hospital's tables stay where patients' data belong, and nowhere else."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app import log, serve

SCRIPT = Path(sys.executable).with_name("suture")
NUMBER, NAME = "91827364", "Canarysdottir"
"""What every planted id begins with, and what every planted name and note holds."""
PATIENTS_DATA = ("tables", "truth", "cohort/canonical", "cohort/trajectories", "cohort/stays", "cohort/final_states")
"""Where a row is a stay or a decision: without ids no answer could be traced to the patient it is about."""
NOTES = {
    "hosp/admissions": ("admit_provider_id", "insurance", "language", "marital_status", "race"),
    "hosp/labevents": ("comments", "flag", "value"),
    "hosp/microbiologyevents": ("comments", "org_name", "spec_type_desc", "test_name"),
    "hosp/prescriptions": ("drug", "poe_id", "route"),
    "icu/chartevents": ("value", "valueuom"),
    "icu/inputevents": ("ordercategoryname", "statusdescription"),
    "icu/outputevents": ("valueuom",),
}
SHARE = 0.02


def plant(tables: Path, out: Path) -> None:
    """The tables as somebody else's: every id becomes a canary, some texts too, and patients get names and notes."""
    rng = np.random.default_rng(0)
    for path in sorted(tables.rglob("*.parquet")):
        name = str(path.relative_to(tables).with_suffix(""))
        table = pq.read_table(path)
        for column in table.column_names:
            place = table.column_names.index(column)
            if column in {"subject_id", "hadm_id", "stay_id"}:
                ids = pa.array([None if one is None else int(f"{NUMBER}{one}") for one in table[column].to_pylist()])
                table = table.set_column(place, column, ids)
            elif column in NOTES.get(name, ()):
                texts = np.array(table[column].cast(pa.string()).to_pylist(), object)
                for row in np.flatnonzero(rng.random(len(texts)) < SHARE):
                    texts[row] = f"seen by {NAME} {row}, {NUMBER}{row}"
                table = table.set_column(place, column, pa.array(texts, pa.string()))
        if name in {"hosp/patients", "hosp/admissions"}:
            for added in ("name", "note"):
                table = table.append_column(added, pa.array([f"{NAME} {row}" for row in range(table.num_rows)]))
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, out / f"{name}.parquet")


def sightings(run: Path, words: str) -> Iterator[str]:
    """Every file outside the patients' data, and every file's name, in which one of the words is."""
    found = re.compile(words.encode())
    for path in sorted(run.rglob("*")):
        name = str(path.relative_to(run))
        if name.startswith(PATIENTS_DATA):
            continue
        if found.search(name.encode()) or (path.is_file() and found.search(path.read_bytes())):
            yield name


@pytest.mark.slow
def test_no_planted_name_note_or_id_is_in_a_log_report_model_or_mlflow_record(
    tiny_run: Path, tiny_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(tiny_run / "tables", tmp_path / "source")
    run = tmp_path / "run"
    logs = []
    for form in ("text", "json"):
        monkeypatch.setenv(log.FORMAT, form)
        again = ["--overwrite"] if run.exists() else []
        done = subprocess.run(
            [SCRIPT, "run", tiny_config, "--source", tmp_path / "source", "--out", run, *again],
            check=False, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        logs.append(done.stdout + done.stderr)
    for command in ("verify", "explain"):
        done = subprocess.run([SCRIPT, command, run], check=False, capture_output=True, text=True)
        logs.append(done.stdout + done.stderr)
    words = f"{NUMBER}|{NAME}"
    assert list(sightings(run, words)) == []
    assert not re.search(words, "".join(logs))
    assert not re.search(words, " ".join(serve.command(run)))
    planted = [path for path in (tmp_path / "source").rglob("*.parquet") if NAME.encode() in path.read_bytes()]
    assert len(planted) >= len(NOTES) - 1, "the canaries were not planted, so that nothing was tested"


@pytest.mark.slow
@pytest.mark.parametrize(("table", "column"), [("icu/chartevents", "charttime"), ("icu/icustays", "stay_id")])
def test_no_planted_note_is_in_what_is_said_of_tables_that_are_refused(
    tiny_run: Path, tiny_config: Path, tmp_path: Path, table: str, column: str
) -> None:
    plant(tiny_run / "tables", tmp_path / "source")
    path = tmp_path / "source" / f"{table}.parquet"
    rows = pq.read_table(path)
    wrong = pa.array([f"{NAME} {NUMBER}"] * rows.num_rows)
    pq.write_table(rows.set_column(rows.column_names.index(column), column, wrong), path)
    done = subprocess.run(
        [SCRIPT, "cohort", tiny_config, "--source", tmp_path / "source", "--out", tmp_path / "run"],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 3
    assert not re.search(f"{NUMBER}|{NAME}", done.stdout + done.stderr)


def test_no_id_of_a_simulated_patient_is_in_a_report_model_or_mlflow_record(tiny_run: Path) -> None:
    stays = pq.read_table(tiny_run / "tables" / "icu" / "icustays.parquet")
    ids = {str(one) for column in ("subject_id", "hadm_id", "stay_id") for one in stays[column].to_pylist()}
    assert len(ids) > 150
    assert list(sightings(tiny_run, rf"(?<![\d.])({'|'.join(sorted(ids))})(?!\d)")) == []


def test_an_id_that_is_in_a_report_would_be_seen(tiny_run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(tiny_run / "report", copy / "report")
    report = copy / "report" / "report.html"
    report.write_text(report.read_text().replace("</body>", f"<p>{NUMBER}</p></body>"))
    assert list(sightings(copy, NUMBER)) == ["report/report.html"]
