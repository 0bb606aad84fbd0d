"""Faults: the short campaign. `benchmarks/faults.py` runs the long one."""

import importlib.util
import random
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def faults() -> ModuleType:
    """The campaign's script as a module."""
    spec = importlib.util.spec_from_file_location("faults", ROOT / "benchmarks" / "faults.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["faults"] = module  # its dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def bench(faults: ModuleType, tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """An undisturbed run of forty stays."""
    return faults.prepare(tmp_path_factory.mktemp("faults"), 40)


@pytest.mark.parametrize("stage", ["tables", "cohort", "policy/iql", "ope"])
def test_a_stage_killed_at_any_moment_ends_with_the_hashes_of_an_undisturbed_run(
    faults: ModuleType,
    bench,  # type: ignore[no-untyped-def]
    stage: str,
) -> None:
    found = faults.killed(bench, stage, random.Random(stage).random())
    assert found.ok, found


@pytest.mark.parametrize(
    "damage", ["flipped", "truncated", "manifest_cut", "manifest_newer", "other_shard", "other_stage"]
)
def test_what_was_damaged_on_disk_is_found_and_made_again(
    faults: ModuleType,
    bench,  # type: ignore[no-untyped-def]
    damage: str,
) -> None:
    found = faults.damaged(bench, "cohort", getattr(faults, damage))
    assert found.ok, found


def test_a_wrong_clock_changes_nothing(faults: ModuleType, bench) -> None:  # type: ignore[no-untyped-def]
    found = faults.damaged(bench, "cohort", faults.wrong_clock, expected=None)
    assert found.ok, found


@pytest.mark.parametrize("fault", ["stale", "forbidden", "read_only"])
def test_what_stands_in_a_runs_way_is_said_in_a_line_or_cleared_and_loses_nothing(
    faults: ModuleType,
    bench,  # type: ignore[no-untyped-def]
    fault: str,
) -> None:
    found = getattr(faults, fault)(bench)
    assert found.ok, found


@pytest.mark.parametrize("stage", ["policy/iql", "ope"])
def test_a_disk_that_fills_up_in_a_stage_is_one_line_and_loses_nothing(
    faults: ModuleType,
    bench,  # type: ignore[no-untyped-def]
    stage: str,
) -> None:
    found = faults.full_disk_in(bench, stage)
    if found is faults.NOT_MOUNTED:
        pytest.skip("nobody may mount a tmpfs here")
    assert found.ok, found


def test_a_second_run_is_refused_and_a_worker_out_of_memory_is_said(faults: ModuleType, bench) -> None:  # type: ignore[no-untyped-def]
    for found in (faults.second_run(bench), faults.worker_killed(bench, "tables")):
        assert found.ok, found
