"""From the page to the learner: answers in a browser, the log in either database, and what leaves it by commands."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from app import card, study
from app.study import Study
from cohort import artifact
from tests import small_run
from tests.app import browsing, postgres
from tests.app.test_app_browser import at_eight, enter, open_stay, recommended, reject_vasopressor

pytestmark = [*browsing.NEEDS_CHROMIUM, pytest.mark.slow]
Suture = Callable[..., Any]
CONFIG = """
name: small
seed: 0
source: {kind: mimic_iv}
cohort: {}
learners:
  bc: &quick {updates: 60, evaluate_every: 30, min_updates: 0, hidden: [32]}
  dpo: {preferences: PREFERENCES, updates: 100, behaviour: *quick}
evaluation: {}
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Of an audit log in each database."""
    with ExitStack() as held:
        at = f"sqlite:///{tmp_path}/audit.db"
        yield at if request.param == "sqlite" else held.enter_context(postgres.server())


def test_answers_given_in_the_page_are_checked_replayed_exported_and_learned_from_by_commands(
    suture: Suture, url: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    run = Path(shutil.copytree(small_run.shared(tmp_path_factory.getbasetemp()), tmp_path / "run"))
    told, table = tmp_path / "app.yaml", tmp_path / "preferences.parquet"
    told.write_text(
        f"commit_first: true\naudit: {{url: '{url}', head: {tmp_path}/head, key: {tmp_path}/key, timeout_s: 10}}\n"
    )
    opened = study.open_study(run)
    assert isinstance(opened, Study)
    stay = recommended(opened)
    advised = card.make(opened, stay, 8.0).output["recommendation"]
    other_fluid = 0.0 if advised["fluid_ml"] > 0 else 3000.0
    with browsing.chromium() as browser, browsing.served(run, told, tmp_path / "state") as address:
        number = _answer(browser, address, stay, f"{other_fluid:g}", "0.3")
    words = suture("verify", run, "--settings", told)
    assert (words.code, "audit log: 7 entries follow each other" in words.out) == (0, True), words
    again = suture("replay", run, number, "--settings", told)
    assert again.code == 0, again.err
    assert json.loads(again.out)["recommendation"] == advised
    hooks = tmp_path / "feedback.json"
    done = suture("feedback", run, "--cds-hooks", hooks, "--preferences", table, "--settings", told)
    assert done.code == 0, done.err
    feedback = json.loads(hooks.read_text())["feedback"]
    assert [one["outcome"] for one in feedback] == ["overridden", "overridden"]
    assert feedback[1]["overrideReason"]["reason"]["code"] == "patient-contraindication"
    preferred = pd.read_parquet(table).iloc[0]
    wanted = opened.dictionary.dose(int(preferred["chosen"]))
    assert int(preferred["rejected"]) == advised["action"]
    assert (wanted[0] > 0) == (other_fluid > 0)
    assert wanted[1] > 0, "the vasopressor that was stated before the reveal"
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG.replace("PREFERENCES", str(table)))
    trained = suture("train", config, "--out", run, "--learner", "dpo")
    assert trained.code == 0, trained.err
    notes = artifact.read_manifest(run / "policy" / "dpo")["notes"]
    assert (notes["source"], notes["preferences"]) == ("table", 1)
    assert suture("verify", run, "--settings", told).code == 0


def _answer(browser: Any, address: str, stay: int, fluid: str, vasopressor: str) -> str:
    """State a dose, see the card, modify the fluid, reject the vasopressor; returns the card's number."""
    with browsing.visiting(browser) as visit:
        page = visit.page
        enter(page, address)
        at_eight(page)
        open_stay(page, stay, 8.0)
        page.get_by_label("IV fluid (mL per window)").fill(fluid)
        page.get_by_label("Vasopressor (µg/kg/min)").fill(vasopressor)
        page.get_by_label("Vasopressor (µg/kg/min)").press("Tab")
        page.get_by_role("button", name="Commit and reveal").click()
        page.get_by_role("radiogroup", name="IV fluid: your answer").get_by_text("modify").click()
        page.get_by_label("IV fluid instead").fill(fluid)
        page.get_by_label("IV fluid instead").press("Tab")
        page.get_by_role("button", name="Record: IV fluid").click()
        page.get_by_text("IV fluid: recorded.").wait_for()
        reject_vasopressor(page)
        return str(page.get_by_text("Card ", exact=False).last.inner_text()).removeprefix("Card ")
