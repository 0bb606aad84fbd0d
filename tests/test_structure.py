"""The house's own rules: layers, registries, the top level, and what importing the command line may load."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from cohort.sources import SOURCES
from ope.estimates import ESTIMATORS
from policy.base import LEARNERS

ROOT = Path(__file__).resolve().parents[1]
TOP_LEVEL = {
    "pyproject.toml", "cohort", "policy", "ope", "app", "configs", "tests", "README.md", "CONTRIBUTING.md",
    "CHANGELOG.md", "Makefile", ".ci", "benchmarks", "docs", "LICENSE", "constraints.txt", ".gitignore",
}  # fmt: skip
HEAVY = ("torch", "pandas", "mlflow", "streamlit", "d3rlpy", "duckdb", "pyarrow", "sklearn", "scipy", "numpy")


def test_import_contracts_hold() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_truth_is_out_of_every_pipeline_stages_reach() -> None:
    """The contract names every package that is not the simulated hospital itself, so that a new module is under it."""
    import tomllib

    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    truth = next(contract for contract in contracts if contract.get("forbidden_modules") == ["cohort.hospital"])
    modules = {path.stem for path in (ROOT / "cohort").glob("*.py")} | {"sources"}
    expected = {f"cohort.{name}" for name in modules - {"__init__"}} | {"policy", "ope"}
    assert expected - set(truth["source_modules"]) == set()


@pytest.mark.parametrize("name", sorted(LEARNERS))
def test_each_registered_learner_has_a_config_and_a_fit(name: str) -> None:
    module = import_module(LEARNERS[name])
    assert module.Config()
    assert callable(module.fit)


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_each_registered_source_names_its_tables(name: str) -> None:
    module = import_module(SOURCES[name])
    assert module.TABLES
    assert callable(module.canonical)


def test_each_registered_estimator_is_a_function() -> None:
    assert all(callable(estimator) for estimator in ESTIMATORS.values())


def test_the_top_level_is_what_the_architecture_lists() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: what is tracked is unknown")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {line.partition("/")[0] for line in listed.splitlines()} <= TOP_LEVEL


def test_importing_the_command_line_loads_nothing_heavy() -> None:
    """What keeps `suture --help` fast, without a clock: a slow machine must not fail it."""
    code = f"import app.cli, sys; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("target", ["run", "test"])
def test_make_installs_only_where_the_environment_is_missing(target: str, tmp_path: Path) -> None:
    def plan(environment: Path) -> str:
        make = ["make", "--dry-run", target, f"VENV={environment}"]
        return subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert "pip install" in plan(tmp_path / "none")
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / ".installed").touch()
    assert "pip install" not in plan(tmp_path / "there")


def test_every_python_file_keeps_its_shape_annotations() -> None:
    """`from __future__ import annotations` silently switches the array checks off."""
    wrong = [
        path
        for package in ("cohort", "policy", "ope", "app")
        for path in (ROOT / package).rglob("*.py")
        if "from __future__ import annotations" in path.read_text(encoding="utf-8")
    ]
    assert wrong == []
