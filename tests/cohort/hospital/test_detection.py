"""Detection: a planted fault counts as caught only where the canonical tables do not hold what it wrote."""

from pathlib import Path

import pandas as pd
import pytest

from cohort import artifact
from cohort.hospital import detection, simulate
from cohort.hospital.simulation import HospitalConfig
from cohort.sources import SourceConfig, ingest


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tables/, truth/ and canonical/ of 80 stays with the usual faults."""
    root = tmp_path_factory.mktemp("detection")
    simulate(root / "tables", root / "truth", HospitalConfig(n_stays=80, shard_stays=80), 5)
    (root / "canonical").mkdir()
    ingest(root / "tables", root / "canonical", SourceConfig(kind="mimic_iv"))
    return root


def test_planted_faults_are_caught_and_counted_by_kind(hospital: Path) -> None:
    detection.write(hospital / "found.json", hospital / "tables", hospital / "canonical", hospital / "truth")
    rows = {row["kind"]: row for row in artifact.read_json(hospital / "found.json")["faults"]}
    assert rows["duplicate"]["planted"] > 100
    planted = sum(row["planted"] for row in rows.values() if row["unit_fault"])
    caught = sum(row["caught"] for row in rows.values() if row["unit_fault"])
    assert planted >= caught > 0.9 * planted


def test_a_fault_that_came_through_is_not_caught(hospital: Path, tmp_path: Path) -> None:
    before = detection.caught(hospital / "tables", hospital / "canonical", hospital / "truth")["fahrenheit_as_celsius"]
    faults = pd.read_parquet(hospital / "truth" / "faults.parquet")
    fault = faults[faults["kind"] == "fahrenheit_as_celsius"].iloc[0]
    (tmp_path / "shard-00000").mkdir()
    for file in (hospital / "canonical").rglob("*.parquet"):
        rows = pd.read_parquet(file)
        if file.name == "observations.parquet":
            escaped = rows.head(1).assign(
                stay_id=fault["stay_id"], concept="temperature_c", charted=fault["charttime"], value=fault["value"]
            )
            rows = pd.concat([rows, escaped])
        rows.to_parquet(tmp_path / "shard-00000" / file.name)
    after = detection.caught(hospital / "tables", tmp_path, hospital / "truth")["fahrenheit_as_celsius"]
    assert after == (before[0], before[1] - 1)
