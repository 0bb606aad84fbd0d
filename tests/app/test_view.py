"""What the page shows, without a browser."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from app import charts, view
from cohort import features, trajectories
from ope import gates
from tests import small_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_run.shared(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def study(run: Path) -> view.Study:
    opened = view.open_study(run)
    assert isinstance(opened, view.Study), opened
    return opened


@pytest.fixture
def course() -> pd.DataFrame:
    """One stay, three decisions: lactate measured, carried forward, then expired."""
    rows = {
        view.HOUR: [0.0, 4.0, 8.0],
        "duration_h": [4.0, 4.0, 1.5],
        "fluid_ml": [100.0, 0.0, 50.0],
        "vasopressor_ug_kg_min": [0.0, 0.1, 0.2],
    }
    for feature in view.SIGNALS:
        rows |= {feature: [np.nan] * 3, f"{feature}_age_h": [np.nan] * 3}
    return pd.DataFrame(rows | {"lactate": [2.0, 2.0, np.nan], "lactate_age_h": [4.0, 8.0, np.nan]})


def rows_of(study: view.Study, hour: float = 8.0) -> pd.DataFrame:
    return view.worklist(study.decisions, hour)


def test_a_run_opens_with_its_evaluation_patients_only(run: Path, study: view.Study) -> None:
    split = trajectories.read(run / "cohort", ["stay_id", "split"]).to_pandas()
    assert set(study.decisions["stay_id"]) == set(split.loc[split["split"] == "evaluate", "stay_id"])
    assert study.policy_name == "iql"
    assert study.verdict == gates.INSUFFICIENT


def test_an_imputed_value_is_missing_and_what_the_policy_sees_is_unchanged(run: Path, study: view.Study) -> None:
    stored = trajectories.read(run / "cohort", split="evaluate").to_pandas()
    names = list(features.FEATURES)
    imputed = stored[[f"{name}_imputed" for name in names]].to_numpy()
    assert imputed.any()
    assert np.array_equal(np.isnan(study.decisions[names].to_numpy()), imputed)
    seen = features.impute(study.decisions[names].to_numpy(np.float64), study.dictionary.imputation)
    assert np.array_equal(seen, stored[names].to_numpy(np.float32))


def test_the_worklist_has_each_stay_of_the_hour_once_in_the_order_asked_for(study: view.Study) -> None:
    rows = rows_of(study)
    assert rows["stay_id"].is_unique
    assert len(rows) == (study.decisions[view.HOUR] == 8.0).sum()
    assert rows["sofa"].is_monotonic_decreasing
    pressure = view.worklist(study.decisions, 8.0, sort="lowest pressure first")["map"]
    known = pressure.dropna()
    assert known.is_monotonic_increasing
    assert pressure.iloc[: len(known)].notna().all()


def test_the_search_keeps_ids_that_begin_so_and_takes_any_text(study: view.Study) -> None:
    wanted = str(rows_of(study)["stay_id"].iloc[0])
    assert view.worklist(study.decisions, 8.0, f" {wanted} ")["stay_id"].astype(str).tolist() == [wanted]
    for text in ("999", "(", "<b>", "'; drop", "\\d+"):
        assert view.worklist(study.decisions, 8.0, text).empty


def test_the_worklist_says_of_each_stay_whether_suture_recommends_or_abstains(study: view.Study) -> None:
    rows = rows_of(study)
    found = view.recommendations(study, rows)
    said = view.said(study, rows)
    assert [text == view.RECOMMENDS for text in said] == [one.action is not None for one in found]
    assert all(text.startswith((view.RECOMMENDS, "abstains: ")) for text in said)


def test_the_list_can_be_cut_to_those_with_and_those_without_a_recommendation(study: view.Study) -> None:
    rows = rows_of(study)
    words = view.said(study, rows)
    everyone, those_with, without = (view.filtered(rows, words, show) for show in view.SHOW)
    assert len(everyone) == len(rows) == len(those_with) + len(without)
    assert set(view.worklist_columns(those_with)["Suture"]) == {view.RECOMMENDS}
    assert view.RECOMMENDS not in set(view.worklist_columns(without)["Suture"])


def test_the_grid_counts_the_similar_decisions_and_hatches_what_no_gate_would_pass(study: view.Study) -> None:
    rows = rows_of(study)
    for stay_id, one in zip(rows["stay_id"], view.recommendations(study, rows), strict=True):
        found = view.grids(study, view.stay(study.decisions, int(stay_id)), 8.0)
        assert len(found) == (0 if one.gate == "data freshness" else 2 if one.gate is None else 1)
        for grid in found:
            assert grid.share.sum() == pytest.approx(1, abs=1e-5)
        if one.action is not None:
            where = divmod(one.action, study.dictionary.n_vasopressor_bins)
            assert not found[0].unsupported[where]
            assert found[0].share[where] == pytest.approx(one.support / one.neighbours)
            assert found[1].share[where] == pytest.approx(one.probability)


def test_a_refused_evaluation_shows_no_grid_of_the_policy(study: view.Study) -> None:
    refused = replace(study, verdict=gates.REFUSED)
    shown = [view.grids(refused, view.stay(study.decisions, int(one)), 8.0) for one in rows_of(study)["stay_id"]]
    assert max(map(len, shown)) == 1


def test_a_grid_is_a_table_with_the_larger_doses_on_top_and_hatched_cells_named() -> None:
    share, rare = np.array([[0.5, 0.3], [0.2, 0.001]]), np.array([[False, False], [False, True]])
    table = charts.grid(view.Grid("<b>", share, rare, ("0 mL", "90 mL"), ("none", "0.1"), ("fluid", "pressor")))
    assert "<b>" not in table
    assert table.index("90 mL") < table.index("0 mL</th><td ")
    assert table.count('class="rare" title="unsupported"') == 1
    assert re.findall(r">([\d&lt;]+%|&lt;1%)</td>", table) == ["20%", "&lt;1%", "50%", "30%"]


def test_the_course_tells_measured_from_carried_forward_and_draws_no_expired_value(course: pd.DataFrame) -> None:
    points = view.timeline(course, until=8.0, step_hours=4.0)
    assert points["hour"].tolist() == [0.0, 4.0]
    assert points["source"].tolist() == [view.MEASURED, view.CARRIED]
    assert set(points["signal"]) == {view.SIGNALS["lactate"]}


def test_the_course_shows_nothing_of_the_time_after_the_decision(course: pd.DataFrame) -> None:
    assert view.timeline(course, until=0.0, step_hours=4.0)["hour"].tolist() == [0.0]
    assert view.given(course, until=0.0).empty
    assert view.given(course, until=8.0)["end"].tolist() == [4.0, 8.0]


def test_a_short_window_ends_when_the_stay_did(course: pd.DataFrame) -> None:
    assert view.given(course, until=12.0)["end"].tolist() == [4.0, 8.0, 9.5]


def test_what_is_not_measured_is_named(course: pd.DataFrame) -> None:
    points, windows = view.timeline(course, 4.0, 4.0), view.given(course, 4.0)
    text = view.absent(points, windows)
    assert view.SIGNALS["map"] in text
    assert view.SIGNALS["lactate"] not in text
    assert "first decision" in view.absent(points, view.given(course, 0.0))


def test_ages_are_those_charted_and_nan_where_imputed(study: view.Study) -> None:
    rows = rows_of(study)
    found = view.ages(rows, ["map", "sofa", "lactate", "shock_index"])
    assert np.array_equal(found[:, 0], rows["map_age_h"].to_numpy(float), equal_nan=True)
    assert (found[:, 1] == 0).all()
    assert np.array_equal(np.isnan(found[:, 2]), rows["lactate"].isna())
    assert np.array_equal(np.isnan(found[:, 3]), rows["shock_index"].isna())


def cards(study: view.Study) -> list[view.Card]:
    return [view.card(study, view.stay(study.decisions, int(stay_id)), 8.0) for stay_id in rows_of(study)["stay_id"]]


def test_a_card_has_doses_or_an_abstention_with_its_gate_never_both(study: view.Study) -> None:
    found = cards(study)
    for one in found:
        shown = [dose.recommended for dose in one.doses]
        if one.abstention is None:
            assert shown[0] is not None
            assert shown[0].endswith(" mL / 4 h")
            assert shown[1] is not None
            assert shown[1].endswith(" µg/kg/min")
        else:
            assert shown == [None, None]
            assert one.abstention[0] in {"data freshness", "state density", "action support"}
            assert all(one.abstention)
    assert {one.abstention is None for one in found} == {True, False}, "the small run should show both"


def test_a_card_shows_what_the_clinicians_gave_in_the_window(study: view.Study) -> None:
    was = rows_of(study).iloc[0]
    card = view.card(study, view.stay(study.decisions, int(was["stay_id"])), 8.0)
    assert card.doses[0].given == f"{was['fluid_ml']:,.0f} mL / {was['duration_h']:.3g} h"
    assert card.doses[1].given == f"{was['vasopressor_ug_kg_min']:.2f} µg/kg/min"


def test_a_refused_evaluation_disables_every_dose(study: view.Study) -> None:
    refused = replace(study, verdict=gates.REFUSED)
    for card in cards(refused):
        assert [dose.recommended for dose in card.doses] == [None, None]
        assert card.abstention is not None
    assert view.banner(gates.REFUSED, "").tone == "refused"
    assert "No dose" in view.banner(gates.REFUSED, "").text
    assert view.RECOMMENDS not in view.said(refused, rows_of(study))


def test_the_table_of_doses_has_no_column_of_recommendations_where_there_are_none(study: view.Study) -> None:
    for card in cards(study):
        columns = list(view.dose_table(card).columns)
        assert columns == (["Clinicians gave"] if card.abstention else ["Recommended", "Clinicians gave"])


def test_a_score_with_missing_organ_systems_says_so(study: view.Study) -> None:
    rows = rows_of(study)
    missing = rows[rows["sofa_missing"] > 0].iloc[0]
    text = view.patient_text(view.stay(study.decisions, int(missing["stay_id"])), 8.0)
    assert f"({missing['sofa_missing']} of 6 organ systems without a value, counted 0)" in text
    assert f"Stay {missing['stay_id']}" in text


@pytest.mark.parametrize(("hours", "opens"), [([0.0, 4.0, 24.0, 28.0], 24.0), ([36.0, 40.0], 36.0), ([0.0], 0.0)])
def test_the_page_opens_within_the_first_day(hours: list[float], opens: float) -> None:
    assert view.default_hour(hours) == opens


def test_no_run_is_a_plain_page_that_says_how_to_make_one(tmp_path: Path) -> None:
    for nothing in (None, tmp_path / "none", tmp_path):
        problem = view.open_study(nothing)
        assert isinstance(problem, view.Problem)
        assert problem.title == "There is no run to show"
        assert "suture run" in problem.remedy


@pytest.mark.parametrize("part", ["cohort", "behaviour", "policy", "ope"])
def test_a_half_finished_run_names_what_is_missing(run: Path, tmp_path: Path, part: str) -> None:
    out = small_run.with_evaluation(run, tmp_path / "run", {})
    shutil.rmtree(out / part) if part == "ope" else (out / part).unlink()
    problem = view.open_study(out)
    assert isinstance(problem, view.Problem)
    assert problem.title == "This run is not finished"
    assert f"{part}/" in problem.detail
    assert "--resume" in problem.remedy


def test_a_run_that_fails_verification_shows_nothing_and_names_the_file(run: Path, tmp_path: Path) -> None:
    out = small_run.with_evaluation(run, tmp_path / "run", {})
    with (out / "ope" / "evaluation.json").open("a") as handle:
        handle.write(" ")
    problem = view.open_study(out)
    assert isinstance(problem, view.Problem)
    assert problem.title == "This run fails verification"
    assert "evaluation.json" in problem.detail
    assert "suture verify" in problem.remedy


def test_the_stamp_changes_when_a_stage_is_made_again(run: Path, tmp_path: Path) -> None:
    out = small_run.with_evaluation(run, tmp_path / "run", {})
    before = view.stamp(out)
    shutil.rmtree(out / "ope")
    assert view.stamp(out) != before
    assert view.stamp(None) == ()
