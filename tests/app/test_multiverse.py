"""The multiverse of a run: built beside its cohort, whole or not at all, and shown as a short table."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cohort import artifact

Suture = Callable[..., Any]
VARIANTS = (
    "base: {}\nvariants:\n  same: {}\n  dextrose: {actions: {include_d5w: true}}\n  hourly: {grid: {step_hours: 1}}\n"
)


@pytest.fixture
def definitions(tmp_path: Path) -> Path:
    path = tmp_path / "multiverse.yaml"
    path.write_text(VARIANTS)
    return path


@pytest.fixture
def copy(tiny_run: Path, tmp_path: Path) -> Path:
    """The tiny run, to write in."""
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


def test_the_variants_of_a_finished_run_are_built_beside_its_cohort(
    suture: Suture, tiny_config: Path, copy: Path, definitions: Path
) -> None:
    before = artifact.digest(copy / "cohort")
    done = suture("cohort", tiny_config, "--out", copy, "--multiverse", definitions)
    assert done.code == 0, done.err
    assert [line.split()[0] for line in done.out.splitlines()] == ["definition", "base", "same", "dextrose", "hourly"]
    manifest = artifact.verify(copy / "multiverse")
    assert (manifest["kind"], manifest["seed"]) == ("multiverse", 3)
    assert manifest["inputs"] == {"cohort": before}
    assert manifest["config"]["variants"]["dextrose"]["actions"]["include_d5w"] is True
    rows = artifact.read_json(copy / "multiverse" / "multiverse.json")
    table = pd.read_csv(copy / "multiverse" / "multiverse.csv")
    assert [row["name"] for row in rows] == list(table["name"]) == ["base", "same", "dextrose", "hourly"]
    assert list(table["decisions"]) == [row["decisions"] for row in rows]
    assert artifact.digest(copy / "cohort") == before
    assert json.loads((copy / "run.json").read_text())["finished"] is True
    assert suture("verify", copy).code == 0


def test_a_multiverse_that_is_there_is_refused_kept_or_replaced(
    suture: Suture, tiny_config: Path, copy: Path, definitions: Path
) -> None:
    ask = ("cohort", tiny_config, "--out", copy, "--multiverse", definitions)
    assert suture(*ask).code == 0
    before = artifact.digest(copy / "multiverse")
    refused = suture(*ask)
    assert (refused.code, refused.err.count("\n")) == (4, 1)
    kept = suture(*ask, "--resume")
    assert kept.code == 0
    assert kept.err.count("kept: same configuration") == 2
    definitions.write_text(VARIANTS.replace("  same: {}\n", ""))
    assert suture(*ask, "--resume").code == 0
    assert artifact.digest(copy / "multiverse") != before


def test_a_missing_cohort_is_made_first_from_the_source_named(
    suture: Suture, tiny_config: Path, tiny_run: Path, tmp_path: Path, definitions: Path
) -> None:
    out = tmp_path / "new"
    ask = ("cohort", tiny_config, "--out", out, "--source", tiny_run / "tables", "--multiverse", definitions)
    assert suture(*ask).code == 0
    assert artifact.digest(out / "cohort") == artifact.digest(tiny_run / "cohort")
    shutil.rmtree(out / "multiverse")
    refused = suture(*ask)  # a source is named, and the cohort that is there may be of another
    assert (refused.code, refused.err.count("\n")) == (4, 1)
    assert f"{out / 'cohort'}: already exists" in refused.err


def test_a_variant_that_leaves_no_stay_is_named_and_nothing_is_left(
    suture: Suture, tiny_config: Path, copy: Path, definitions: Path
) -> None:
    definitions.write_text("variants: {old: {selection: {minimum_age: 120}}}\n")
    done = suture("cohort", tiny_config, "--out", copy, "--multiverse", definitions)
    assert (done.code, done.err.count("\n")) == (3, 1), done.err
    assert "multiverse: old: " in done.err
    assert not list(copy.glob("*multiverse*"))


@pytest.mark.parametrize("name", ["base", "../elsewhere", ""])
def test_a_variants_name_is_a_directorys_and_not_the_bases(
    suture: Suture, tiny_config: Path, tmp_path: Path, definitions: Path, name: str
) -> None:
    definitions.write_text(f"variants: {{{name!r}: {{}}}}\n")
    done = suture("cohort", tiny_config, "--out", tmp_path / "none", "--multiverse", definitions)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "multiverse.yaml: variants" in done.err
    assert not (tmp_path / "none").exists()


def test_another_cohort_beside_the_multiverse_is_found_and_the_way_out_named(
    suture: Suture, tiny_config: Path, copy: Path, definitions: Path
) -> None:
    ask = ("cohort", tiny_config, "--out", copy, "--multiverse", definitions)
    assert suture(*ask).code == 0
    path = copy / "multiverse" / "manifest.json"
    artifact.write_sealed(path, {**artifact.read_sealed(path), "inputs": {"cohort": "other"}})
    done = suture("verify", copy)
    assert done.code == 4
    assert "`suture cohort CONFIG --out RUN --multiverse FILE --resume` makes it again" in done.err
