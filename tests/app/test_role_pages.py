"""The auditor's, data scientist's and lab pages as Streamlit runs them; and what they say where a part is missing."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from app import main, tracking, view_lab, view_training
from app.run_directory import RunDirectory
from app.settings import RUN_VARIABLE, SETTINGS_VARIABLE
from app.study import Problem
from cohort import artifact
from tests import small_run

Open = Callable[[Path, str, str], AppTest]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small run with its learning curves in MLflow."""
    shared = small_run.shared(tmp_path_factory.getbasetemp())
    out = tmp_path_factory.mktemp("roles") / "run"
    shutil.copytree(shared, out)
    tracking.record(out, "small", ["policy/bc", "policy/iql"])
    RunDirectory(out).seal()
    return out


@pytest.fixture
def enter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Open:
    """Open the app in a role and go to a page."""

    def opened(run: Path, role: str, page: str) -> AppTest:
        told = tmp_path / "app.yaml"
        told.write_text(f"audit: {{url: 'sqlite:///{tmp_path}/audit.db'}}\n")
        monkeypatch.setattr(sys, "argv", ["main.py", str(run)])
        monkeypatch.delenv(RUN_VARIABLE, raising=False)
        monkeypatch.setenv(SETTINGS_VARIABLE, str(told))
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
        shown = AppTest.from_file(str(Path(main.__file__)), default_timeout=120).run()
        shown.text_input(key="name").set_value("A")
        shown.radio(key="role").set_value(role)
        shown.button(key="enter").click().run()
        shown.radio(key="page").set_value(page).run()
        assert not shown.exception, shown.exception
        assert [title.value for title in shown.title][:1] == [page]
        return shown

    return opened


def words(page: AppTest) -> str:
    parts = [*page.text, *page.caption, *page.title, *page.header, *page.subheader, *page.info, *page.success]
    return "\n".join([*(str(one.value) for one in parts), *(str(one.value) for one in page.code)])


def html(page: AppTest) -> str:
    return "\n".join(str(element.value) for element in page.get("html"))


def test_the_auditor_lands_on_the_verdict_and_hashes_everything_again(run: Path, enter: Open) -> None:
    page = enter(run, "auditor", "Evaluation")
    assert "Binding constraint" in html(page)
    assert "Nobody has answered a card yet" in words(page)
    assert f"suture report {run} --overwrite" in words(page)
    page.button(key="rehash").click().run()
    assert "Every file is as it was written" in words(page)
    assert "policy/iql" in html(page)


def test_the_cohort_page_has_flow_table_1_quality_and_each_split(run: Path, enter: Open) -> None:
    page = enter(run, "data scientist", "Cohort")
    shown = html(page)
    for heading in ('id="flow"', 'id="table-1"', 'id="features"'):
        assert heading in shown
    page.selectbox(key="feature").set_value("map").run()
    shown = html(page)
    assert "Mean arterial pressure (mmHg): known values by split" in shown
    assert all(split in shown for split in ("train", "select", "evaluate"))


def test_one_stay_goes_from_rows_to_reward_and_says_where_raw_rows_stayed(run: Path, enter: Open) -> None:
    page = enter(run, "data scientist", "One stay")
    assert "The raw tables are not in this run" in words(page)
    canonical, state = (frame.value for frame in page.dataframe[:2])
    assert {"observations"} <= set(canonical["table"])
    assert len(state) == 48
    assert "Reward of this step" in html(page)
    page.select_slider(key="chain_hour").set_value(0.0).run()
    assert not page.exception


def test_training_has_curves_of_mlflow_the_monitor_and_every_policy(run: Path, enter: Open) -> None:
    page = enter(run, "data scientist", "Training")
    assert "All policies" in html(page)
    assert "There is no sweep" in words(page)
    assert f"suture sweep CONFIG --out {run}" in words(page)
    assert "The largest value it believed in" in words(page), "the policy of the verdict comes first"
    page.selectbox(key="curve").set_value("bc").run()
    assert "no value network" in words(page)


def test_without_mlflow_the_page_says_so_and_how_to_make_it(tmp_path: Path) -> None:
    bare = tmp_path / "run"
    bare.mkdir()
    found = view_training.curves(bare)
    assert isinstance(found, Problem)
    assert found.remedy == f"suture run CONFIG --out {bare} --resume"
    (bare / tracking.STORE).write_text("no database")
    damaged = view_training.curves(bare)
    assert isinstance(damaged, Problem)
    assert "cannot be read" in damaged.title
    assert damaged.remedy == f"rm {bare / tracking.STORE}\nsuture run CONFIG --out {bare} --resume"


@pytest.fixture
def broken(run: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A copy of the run with something wrong with it, by name."""

    def made(what: str) -> Path:
        out = tmp_path / "run"
        shutil.copytree(run, out)
        if what == "without an evaluation":
            shutil.rmtree(out / "ope")
        elif what == "without a policy":
            shutil.rmtree(out / "policy")
        elif what == "an older version's stage":
            manifest = artifact.read_json(out / "cohort" / "manifest.json")
            artifact.write_sealed(out / "cohort" / "manifest.json", {**manifest, "version": 1})
        elif what == "an older version's evaluation":
            document = artifact.read_json(out / "ope" / "evaluation.json")
            shutil.rmtree(out / "ope")
            with artifact.writing(out / "ope", "evaluation", {}, seed=0) as draft:
                artifact.write_json(draft.path / "evaluation.json", {**document, "version": 1})
        else:
            (out / "ope" / "evaluation.json").write_bytes(b"{}")
        return out

    return made


@pytest.mark.parametrize(
    ("what", "title", "part", "remedy"),
    [
        ("without an evaluation", "This run is not finished", "ope/", "suture run CONFIG --out {run} --resume"),
        ("without a policy", "This run is not finished", "policy/", "suture run CONFIG --out {run} --resume"),
        ("an older version's stage", "of another version of Suture", "cohort/manifest.json", "--out {run} --resume"),
        (
            "an older version's evaluation",
            "of another version of Suture",
            "ope/evaluation.json",
            "--out {run} --resume",
        ),
        ("changed after it was written", "This run fails verification", "evaluation.json", "suture verify {run}"),
    ],
)
def test_in_place_of_every_page_a_run_that_cannot_be_shown_names_the_part_and_what_makes_it(
    broken: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, what: str, title: str, part: str, remedy: str
) -> None:
    out = broken(what)
    monkeypatch.setattr(sys, "argv", ["main.py", str(out)])
    page = AppTest.from_file(str(Path(main.__file__)), default_timeout=120).run()
    assert not page.exception, page.exception
    (heading,) = page.title
    assert title in heading.value
    assert part in words(page)
    assert remedy.format(run=out) in words(page)
    assert not page.radio, "nobody gets to a page"


def test_curves_come_from_the_newest_copy_in_mlflow(run: Path) -> None:
    found = view_training.curves(run)
    assert isinstance(found, dict)
    assert set(found) == {"bc", "iql"}
    assert [update for update, _ in found["iql"]["held_td"]] == [30.0, 60.0]
    assert "held_nll ends at" in view_training.losses("iql", found["iql"])


def test_every_experiment_opens_and_its_controls_change_what_is_shown(run: Path, enter: Open) -> None:
    page = enter(run, "auditor", "Lab")
    for name, one in view_lab.EXPERIMENTS.items():
        page.selectbox(key="experiment").set_value(name).run()
        assert not page.exception, page.exception
        assert one.teaches in words(page)
        before = html(page)
        for slider in page.slider:
            slider.set_value(slider.min)
        for choices in page.select_slider:
            choices.set_value(5.0)
        for toggle in page.toggle:
            toggle.set_value(not toggle.value)
        page.run()
        assert not page.exception, page.exception
        assert name == "methods" or html(page) != before


def test_run_adds_backups_and_begin_again_takes_them_away(run: Path, enter: Open) -> None:
    page = enter(run, "auditor", "Lab")
    page.selectbox(key="experiment").set_value("overestimation").run()
    assert "After 0 backups" in words(page)
    page.button(key="run_backups").click().run()
    page.button(key="run_backups").click().run()
    assert "After 50 backups" in words(page)
    page.button(key="no_backups").click().run()
    assert "After 0 backups" in words(page)
