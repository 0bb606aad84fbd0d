"""The review of unknown units: written whole, never over what a person accepted, and used once it is accepted."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml

Suture = Callable[..., Any]
SODIUM = 50983


@pytest.fixture
def strange(tiny_run: Path, tmp_path: Path) -> Path:
    """The tiny run's tables, every other sodium in a unit that is in no dictionary."""
    root = tmp_path / "tables"
    shutil.copytree(tiny_run / "tables", root, ignore=shutil.ignore_patterns("manifest.json"))
    path = root / "hosp" / "labevents.parquet"
    rows = pq.read_table(path)
    odd = pc.and_(pc.equal(rows["itemid"], SODIUM), pa.array(np.arange(len(rows)) % 2 == 0))
    value = pc.if_else(odd, pc.divide(rows["valuenum"], 1000.0), rows["valuenum"])
    unit = pc.if_else(odd, pa.scalar("[mol/l]"), rows["valueuom"])
    for name, column in (("valuenum", value), ("valueuom", unit)):
        rows = rows.set_column(rows.schema.get_field_index(name), name, column)
    pq.write_table(rows, path)
    return root


def test_an_unknown_unit_is_listed_with_its_proposal_and_used_once_accepted(
    suture: Suture, tiny_config: Path, strange: Path, tmp_path: Path
) -> None:
    review = tmp_path / "reviews" / "review.yaml"
    done = suture("units", tiny_config, "--source", strange, "--out", review)
    assert done.code == 0, done.err
    (finding,) = yaml.safe_load(review.read_text())["findings"]
    assert (finding["concept"], finding["unit"], finding["accept"]) == ("sodium", "[mol/l]", False)
    assert finding["proposal"]["factor"] == 1000.0
    line = next(line for line in done.out.splitlines() if line.startswith("sodium"))
    assert "'[mol/l]'" in line
    assert f" {finding['rows']} " in line
    assert "times 1000" in line
    assert [path.name for path in review.parent.iterdir()] == ["review.yaml"]

    review.write_text(review.read_text().replace("accept: false", "accept: true"))
    accepted = tmp_path / "accepted.yaml"
    source = f"source: {{kind: mimic_iv, shard_stays: 40, review: {review}}}"
    accepted.write_text(tiny_config.read_text().replace("source: {kind: mimic_iv, shard_stays: 40}", source))
    sodium = [_sodium(suture, config, strange, tmp_path / config.stem) for config in (tiny_config, accepted)]
    assert 0.9 * finding["rows"] < sodium[1] - sodium[0] <= finding["rows"]  # a few are duplicates or out of range


def test_a_review_that_is_there_is_replaced_only_when_asked(
    suture: Suture, tiny_config: Path, tiny_run: Path, tmp_path: Path
) -> None:
    review = tmp_path / "review.yaml"
    review.write_text("accepted")
    ask = ("units", tiny_config, "--source", tiny_run / "tables", "--out", review)
    done = suture(*ask)
    assert (done.code, done.err.count("\n")) == (4, 1)
    assert review.read_text() == "accepted"
    assert suture(*ask, "--overwrite").code == 0
    assert yaml.safe_load(review.read_text())["findings"] == []


def test_a_folder_without_tables_is_one_line_and_leaves_nothing(
    suture: Suture, tiny_config: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    done = suture("units", tiny_config, "--source", tmp_path / "empty", "--out", tmp_path / "out" / "review.yaml")
    assert (done.code, done.err.count("\n")) == (3, 1)
    assert not list(tmp_path.rglob("*review*"))


def _sodium(suture: Suture, config: Path, source: Path, out: Path) -> int:
    """Canonical rows of sodium."""
    done = suture("cohort", config, "--source", source, "--out", out)
    assert done.code == 0, done.err
    shards = (out / "cohort" / "canonical").glob("*/observations.parquet")
    return sum(int((pq.read_table(path)["concept"].to_pandas() == "sodium").sum()) for path in shards)
