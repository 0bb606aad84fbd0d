"""The documentation names only what exists, and leaves out nothing that a newcomer needs."""

import importlib.util
import re
import shlex
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import typer.main
import yaml
from click import Command

from app import access
from app.cli import app
from app.run import RunConfig, load_config
from cohort import errors
from cohort.sources import mimic_iii, mimic_iv
from ope import gates
from policy.base import LEARNERS

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
README = PAGES[0].read_text(encoding="utf-8")
GROUP = typer.main.get_command(app)
COMMANDS: dict[str, Command] = GROUP.commands  # type: ignore[attr-defined]
MADE_BY_A_RUN = (
    "runs/",
    "policy/NAME",
    "policy/bc",
    "policy/iql",
    "ope/evaluation.json",
    "ope/gates.json",
    "report/report.html",
    "report/quality.html",
    "truth/",
)


def code(text: str) -> list[str]:
    """Everything that a page shows as code: fenced lines without their comments, and inline spans."""
    fenced = re.findall(r"^```.*?\n(.*?)^```", text, flags=re.S | re.M)
    lines = [line.split("#")[0].strip() for block in fenced for line in block.splitlines()]
    return [*lines, *re.findall(r"(?<!`)`([^`\n]+)`(?!`)", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M))]


def shown(prefix: str) -> list[tuple[str, str]]:
    """(page, command) of every code that begins with the word."""
    return [
        (str(page.relative_to(ROOT)), found)
        for page in PAGES
        for found in code(page.read_text(encoding="utf-8"))
        if found.split(" ")[0] == prefix
    ]


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M))


@pytest.mark.parametrize(("page", "line"), shown("suture"))
def test_every_command_shown_exists_with_its_options(page: str, line: str) -> None:
    words = shlex.split(line)[1:]
    if not words or words[0] in {"COMMAND", "--help", "--version"}:
        return
    assert words[0] in COMMANDS, f"{page}: suture {words[0]}"
    known = {option for one in COMMANDS[words[0]].params for option in one.opts} | {"--help"}
    assert {word for word in words[1:] if word.startswith("--")} <= known, f"{page}: {line}"


@pytest.mark.parametrize(("page", "line"), shown("make"))
def test_every_make_target_shown_exists(page: str, line: str) -> None:
    words = line.split()
    assert len(words) == 1 or words[1] in make_targets(), f"{page}: {line}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_named_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    linked = {link.split("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text) if not re.match(r"\w+:", link)} - {""}
    assert not [link for link in linked if not (page.parent / link).exists()]
    rooms = ("cohort/", "policy/", "ope/", "app/", "configs/", "docs/", "tests/", "benchmarks/", ".ci/")
    named = [word for found in code(text) for word in found.split() if word.startswith(rooms)]
    missing = [word for word in named if not word.startswith(MADE_BY_A_RUN) and not (ROOT / word.rstrip(".,")).exists()]
    assert not missing


def test_every_command_is_in_the_readme() -> None:
    listed = {line.split()[1] for page, line in shown("suture") if page == "README.md" and len(line.split()) > 1}
    assert set(COMMANDS) <= listed


def test_the_readmes_two_commands_are_make_targets_and_ci_runs_the_tests_the_same_way() -> None:
    assert README.index("make run ") < README.index("make test ")
    assert {"run", "test", "app"} <= make_targets()
    assert re.search(r"^make test\b", (ROOT / ".ci" / "run").read_text(), flags=re.M)


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_every_run_configuration_that_ships_is_valid(path: Path) -> None:
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    if "learners" not in content:
        pytest.skip("not a run's configuration")
    assert isinstance(load_config(path), RunConfig)


def test_the_configuration_page_is_what_the_models_say() -> None:
    maker = script("make_configuration")
    assert maker.OUT.read_text(encoding="utf-8") == maker.page(), "run: python docs/make_configuration.py"


def test_every_configuration_key_has_a_meaning() -> None:
    maker = script("make_configuration")
    models = [RunConfig, *(import_module(module).Config for module in LEARNERS.values())]
    assert {key for model in models for key, _, meaning in maker.keys(model) if not meaning} == set()


def test_the_readme_lists_the_tables_that_a_source_needs_and_those_it_uses() -> None:
    rows = dict(re.findall(r"^\| (needed|used where present) \| (.+) \|$", README, flags=re.M))
    for word, required in (("needed", True), ("used where present", False)):
        assert set(re.findall(r"`(\w+)`", rows[word])) == {t.name for t in mimic_iv.TABLES if t.required is required}
    assert mimic_iii.TABLES


def test_the_readme_explains_every_verdict_and_every_exit_code() -> None:
    for verdict in (gates.REFUSED, gates.INSUFFICIENT, gates.ELIGIBLE):
        assert f"| {verdict} |" in README
    for kind in (errors.SutureError, errors.ConfigError, errors.InputError, errors.ArtifactError):
        assert f"\n| {kind.exit_code} | " in README


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_line_that_a_diff_of_contributing_adds_stands_in_its_file() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    diffs = re.findall(r"^```diff\n(.*?)^```", text, flags=re.S | re.M)
    assert len(diffs) == 3, "a learner, an estimator, a source"
    shown: list[tuple[str, str]] = []
    for diff in diffs:
        file = ""
        for line in diff.splitlines():
            if line.startswith("+++ b/"):
                file = line.removeprefix("+++ b/")
            elif not line.startswith("---") and line[1:].strip():
                shown.append((file, line[1:]))
    assert len({file for file, _ in shown}) == 8
    content = {file: (ROOT / file).read_text(encoding="utf-8").splitlines() for file, _ in shown}
    assert [(file, line) for file, line in shown if line not in content[file]] == []


def test_every_page_of_the_app_is_in_the_readme() -> None:
    for page in {page for pages in access.PAGES.values() for page in pages}:
        assert f"*{page}*" in README
