"""What the pages show, without a browser."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from app import card, charts, study, view
from app.audit_log import Actor, Entry
from app.card import Card
from app.feature_names import NAMES
from app.study import HOUR, Study
from app.view import Filters
from cohort import features
from ope import gates
from tests import small_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_run.shared(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def opened(run: Path) -> Study:
    found = study.open_study(run)
    assert isinstance(found, Study), found
    return found


@pytest.fixture(scope="module")
def cards(opened: Study) -> list[Card]:
    return [card.make(opened, int(stay), 8.0) for stay in view.worklist(opened, 8.0)["stay_id"]]


@pytest.fixture
def course() -> pd.DataFrame:
    """One stay, three decisions: lactate measured, carried forward, then expired."""
    rows = {
        HOUR: [0.0, 4.0, 8.0],
        "duration_h": [4.0, 4.0, 1.5],
        "fluid_ml": [100.0, 0.0, 50.0],
        "vasopressor_ug_kg_min": [0.0, 0.1, 0.2],
    }
    for feature in view.SIGNALS:
        rows |= {feature: [np.nan] * 3, f"{feature}_age_h": [np.nan] * 3}
    return pd.DataFrame(rows | {"lactate": [2.0, 2.0, np.nan], "lactate_age_h": [4.0, 8.0, np.nan]})


def test_the_worklist_has_each_stay_of_the_hour_once_in_the_order_asked_for(opened: Study) -> None:
    rows = view.worklist(opened, 8.0)
    assert rows["stay_id"].is_unique
    assert len(rows) == (opened.decisions[HOUR] == 8.0).sum()
    assert rows["sofa"].is_monotonic_decreasing
    pressure = view.worklist(opened, 8.0, sort="lowest pressure first")["map"]
    known = pressure.dropna()
    assert known.is_monotonic_increasing
    assert pressure.iloc[: len(known)].notna().all()


def test_the_search_keeps_ids_that_begin_so_and_takes_any_text(opened: Study) -> None:
    wanted = str(view.worklist(opened, 8.0)["stay_id"].iloc[0])
    found = view.worklist(opened, 8.0, Filters(search=f" {wanted} "))
    assert found["stay_id"].astype(str).tolist() == [wanted]
    for text in ("999", "(", "<b>", "'; drop", "\\d+"):
        assert view.worklist(opened, 8.0, Filters(search=text)).empty


def test_each_filter_keeps_exactly_what_it_says_and_what_is_not_known_passes_none(opened: Study) -> None:
    rows = view.worklist(opened, 8.0)
    for filters, keep in (
        (Filters(sofa_least=2.0), rows["sofa"] >= 2),
        (Filters(lactate_least=2.0), rows["lactate"] >= 2),
        (Filters(map_most=80.0), rows["map"] <= 80),
        (Filters(units=("MICU",)), rows["unit"] == "MICU"),
        (Filters(units=("elsewhere",)), rows["unit"] == "elsewhere"),
        (Filters(sofa_least=1.0, map_most=90.0), (rows["sofa"] >= 1) & (rows["map"] <= 90)),
    ):
        assert set(view.worklist(opened, 8.0, filters)["stay_id"]) == set(rows.loc[keep, "stay_id"])


def test_the_worklist_says_of_each_stay_whether_suture_recommends_or_abstains(opened: Study, cards: list[Card]) -> None:
    words = view.said(opened, view.worklist(opened, 8.0))
    assert [word == view.RECOMMENDS for word in words] == [one.output["recommendation"] is not None for one in cards]
    assert all(word.startswith((view.RECOMMENDS, "abstains: ")) for word in words)
    assert view.said(opened, view.worklist(opened, 8.0)) == words, "asked again, the same is said"


def test_the_list_can_be_cut_to_those_with_and_those_without_a_recommendation(opened: Study) -> None:
    everyone, those_with, without = (view.worklist(opened, 8.0, Filters(show=show)) for show in view.SHOW)
    assert len(everyone) == len(those_with) + len(without)
    assert set(view.said(opened, those_with)) == {view.RECOMMENDS}
    assert view.RECOMMENDS not in view.said(opened, without)
    refused = replace(opened, verdict=gates.REFUSED)
    assert [len(view.worklist(refused, 8.0, Filters(show=show))) for show in view.SHOW] == [
        len(everyone),
        0,
        len(everyone),
    ]


def test_the_policy_is_asked_about_no_more_stays_than_the_list_needs(
    opened: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view, "ASKED_AT_ONCE", 2)
    fresh = replace(opened)  # nothing was said of it yet
    those_with = view.worklist(opened, 8.0, Filters(show=view.SHOW[1]))
    few = view.worklist(fresh, 8.0, Filters(show=view.SHOW[1]), most=2)
    assert 2 <= len(few) <= 3
    assert few["stay_id"].tolist() == those_with["stay_id"].tolist()[: len(few)]
    assert len(view._words(fresh)) < len(view.worklist(opened, 8.0))


def test_the_list_says_how_many_stays_there_are_where_it_knows() -> None:
    assert view.counted(3, 3, 8.0) == "3 stays of the evaluation patients have such a decision at 8 h"
    assert view.counted(8089, 200, 8.0).endswith("at 8 h; the first 200 are listed")
    assert view.counted(201, 200, 8.0, all_asked=False).startswith("More than 200 stays")
    assert view.counted(8, 8, 8.0, all_asked=False).startswith("8 stays")


def test_the_worklists_columns_have_units_and_a_units_name_cannot_do_harm(opened: Study) -> None:
    rows = view.worklist(opened, 8.0).head(1).assign(unit="![x](http://evil)\u202e<script>" + "x" * 10_000)
    shown = view.worklist_columns(rows, ["recommendation"])
    assert "MAP (mmHg)" in shown
    assert len(shown["Unit"].iloc[0]) < 100
    assert "\u202e" not in shown["Unit"].iloc[0]


def test_text_that_somebody_typed_is_one_line_without_hidden_signs_and_cut_short() -> None:
    assert view.plain("Müller <b>\u202eabc\u200b\n") == "Müller <b>⟨U+202E⟩abc⟨U+200B⟩⟨U+000A⟩"
    assert view.plain("x" * 10_000) == "x" * 200 + "… (cut)"
    assert view.plain("x" * 200) == "x" * 200


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


def test_a_patient_without_any_measurement_draws_nothing_and_says_so(course: pd.DataFrame) -> None:
    bare = course.assign(lactate=np.nan, lactate_age_h=np.nan)
    points = view.timeline(bare, 8.0, 4.0)
    assert points.empty
    assert all(name in view.absent(points, view.given(bare, 8.0)) for name in view.SIGNALS.values())


def doses(of: Study, one: Card) -> view.Table:
    return view.dose_table(of, one, study.course(of, one.stay_id))


def test_a_card_has_doses_or_an_abstention_with_its_gate_never_both(opened: Study, cards: list[Card]) -> None:
    for one in cards:
        table = doses(opened, one)
        if one.output["recommendation"] is None:
            assert table.head == ("Drug", "Window before", "Clinicians gave")
            assert view.headline(one) == "Suture abstains"
            assert {gate for gate, _, _ in view.held(one)} <= {
                "data freshness", "state density", "action support", "hazard rule",
            }  # fmt: skip
            assert all(reason and lifts.startswith("What would lift it: ") for _, reason, lifts in view.held(one))
            assert view.equivalence(opened, one) == ("", None)
        else:
            assert table.head == ("Drug", "Window before", "Recommended", "Clinicians gave")
            assert re.search(r" mL in 4 h \(\d+ mL/h\)$", table.rows[0][2])
            assert table.rows[1][2].endswith(" µg/kg/min")
            assert not view.held(one)
    shown = {one.output["recommendation"] is None for one in cards}
    assert shown == {True, False}, "the small run should show both"


def test_a_card_shows_what_the_clinicians_gave_in_the_window(opened: Study, cards: list[Card]) -> None:
    was = view.worklist(opened, 8.0).iloc[0]
    gave = [row[-1] for row in doses(opened, cards[0]).rows]
    assert gave[0].startswith(f"{was['fluid_ml']:,.0f} mL in {was['duration_h']:.3g} h")
    assert gave[1] == f"{was['vasopressor_ug_kg_min']:.2f} µg/kg/min"


def test_a_dose_of_which_a_part_could_not_be_read_says_so(opened: Study, cards: list[Card]) -> None:
    given = {**cards[0].output["given"], "partly_unknown": True}
    unsure = replace(cards[0], output={**cards[0].output, "given": given})
    assert all("part of it could not be read" in row[-1] for row in doses(opened, unsure).rows)


def test_a_refused_evaluation_disables_every_dose(opened: Study) -> None:
    refused = replace(opened, verdict=gates.REFUSED)
    for stay in view.worklist(refused, 8.0)["stay_id"].head(8):
        one = card.make(refused, int(stay), 8.0)
        assert doses(refused, one).head == ("Drug", "Window before", "Clinicians gave")
        assert view.headline(one) == "No dose is shown"
        assert [grid.title for grid in view.grids(refused, one)][1:] == []
        assert one.output["values"] is None
    assert view.banner(gates.REFUSED, "").tone == "refused"
    assert "No dose" in view.banner(gates.REFUSED, "").text
    assert view.RECOMMENDS not in view.said(refused, view.worklist(refused, 8.0))


def test_the_grids_mark_what_is_never_recommended_and_agree_with_the_card(opened: Study, cards: list[Card]) -> None:
    for one in cards:
        found, now = view.grids(opened, one), one.output["recommendation"]
        assert len(found) == (2 if now else 1 if one.output["records"] else 0)
        if now is None:
            continue
        where = divmod(now["action"], opened.dictionary.n_vasopressor_bins)
        assert found[0].number.sum() == pytest.approx(1)
        assert found[0].number[where] == pytest.approx(now["support"] / now["similar"])
        assert found[1].number[where] == pytest.approx(now["value"])
        assert found[0].best[where]
        assert found[0].best.sum() == 1
        assert found[0].mark[where[0]][where[1]] == ""
        assert {mark for row in found[0].mark for mark in row} <= {"", "unsupported", *(f"rule {r}" for r in "ABCDE")}


def test_the_dose_of_the_window_before_stands_beside_the_recommended_one(opened: Study, cards: list[Card]) -> None:
    one = cards[0]
    rows = study.course(opened, one.stay_id)
    was = rows[rows[HOUR] == 4.0].iloc[0]
    assert [row[1] for row in doses(opened, one).rows] == [
        f"{was['fluid_ml']:,.0f} mL in 4 h ({was['fluid_ml'] / 4:,.0f} mL/h)",
        f"{was['vasopressor_ug_kg_min']:.2f} µg/kg/min",
    ]
    first = card.make(opened, one.stay_id, 0.0)
    assert [row[1] for row in doses(opened, first).rows] == ["none yet", "none yet"]


def test_at_a_glance_it_says_how_sure_how_many_alike_and_what_happened_to_them(
    opened: Study, cards: list[Card]
) -> None:
    one = next(one for one in cards if one.output["recommendation"])
    told, glance = one.output, view.facts(opened, one)
    assert glance is not None
    answers = dict((row[0], row[1]) for row in glance.rows)
    assert list(answers) == ["How sure", "How many alike", "What happened to them", "How likely"]
    assert answers["How many alike"].startswith(
        f"{told['recommendation']['support']} of the {told['records']['similar']}"
    )
    assert answers["What happened to them"].startswith(f"{told['records']['died']} of the {told['records']['similar']}")
    silent = next(one for one in cards if one.output["recommendation"] is None and one.output["records"])
    fewer = view.facts(opened, silent)
    assert fewer is not None
    assert [row[0] for row in fewer.rows] == ["What happened to them"]


def test_every_rule_that_marks_a_cell_is_said_in_words(opened: Study, cards: list[Card]) -> None:
    for one in cards:
        marks = {mark for picture in view.grids(opened, one) for row in picture.mark for mark in row if "rule" in mark}
        assert {line.split(":")[0].replace("R", "r", 1) for line in view.rules(one).splitlines()} == marks
    assert any(view.rules(one) for one in cards)


def test_every_feature_has_a_name_for_a_reader() -> None:
    assert set(features.FEATURES) == set(NAMES)
    assert view.feature_name("sbp") == "Systolic pressure (mmHg)"
    assert view.feature_name("a_column_of_my_own") == "a column of my own"


def test_the_equivalence_set_says_whether_the_recommended_dose_is_in_it(opened: Study, cards: list[Card]) -> None:
    one = next(one for one in cards if one.output["recommendation"])
    told, table = view.equivalence(opened, one)
    assert table is not None
    assert len(table.rows) == len(one.output["equivalent"])
    inside = one.output["recommendation"]["action"] in {dose["action"] for dose in one.output["equivalent"]}
    assert ("is one of them" in told) == inside
    assert ("recommended" in {row[-1] for row in table.rows}) == inside


def test_a_policy_without_values_says_so_and_shows_none(opened: Study) -> None:
    imitator = replace(opened, policy=replace(opened.policy, critic=None, rule="softmax"))
    for stay in view.worklist(imitator, 8.0)["stay_id"]:
        one = card.make(imitator, int(stay), 8.0)
        if one.output["recommendation"] is not None:
            glance = view.facts(imitator, one)
            assert glance is not None
            assert glance.rows[0] == ("How sure", view.NO_VALUES)
            assert view.equivalence(imitator, one)[1] is None
            assert len(view.grids(imitator, one)) == 1
            return
    pytest.fail("no dose was shown")


def test_why_the_change_and_the_next_measurement_are_said_in_words(opened: Study, cards: list[Card]) -> None:
    one = next(one for one in cards if one.output["recommendation"])
    table = view.why(opened, one)
    assert table is not None
    assert len(table.rows) == len(one.output["why"]["moved"])
    assert "change the dose" in view.change(opened, one)
    assert any(view.measurements(each) for each in cards)
    none = next(each for each in cards if each.output["recommendation"] is None)
    assert view.why(opened, none) is None
    assert view.change(opened, none) == ""


def test_similar_patients_are_told_without_an_identifier_or_a_date(run: Path, opened: Study, cards: list[Card]) -> None:
    table = view.cases(opened, cards[0])
    assert table is not None
    assert table.rows
    assert {row[0] for row in table.rows} <= {"died", "survived"}
    text = " ".join(cell for row in table.rows for cell in row)
    assert not re.search(r"\d{6,}|\d{4}-\d\d", text)
    assert run.is_dir()


def test_everybodys_answers_stand_beside_each_other_and_their_text_is_harmless() -> None:
    empty = {"value": None, "recheck_h": None, "reason": None, "note": ""}
    bodies = [
        {**empty, "drug": "fluid", "answer": "modify", "value": 250.0, "note": "\u202eno"},
        {**empty, "drug": "vasopressor", "answer": "reject", "reason": "patient-contraindication"},
        {**empty, "drug": "fluid", "answer": "defer", "recheck_h": 2.0},
        {**empty, "drug": "fluid", "answer": "follow"},
    ]
    entries = [
        Entry(n, "id", "2026-01-02T03:04:05.0Z", "response", Actor(f"Dr {n}", "clinician", "s"), "c", "1@4", body, "h")
        for n, body in enumerate(bodies)
    ]
    table = view.answered(entries)
    assert table is not None
    assert [row[3] for row in table.rows] == [
        "modify to 250 mL per window",
        "reject: Patient has contraindication to recommended action",
        "defer, look again after 2 h",
        "follow",
    ]
    assert table.rows[0][4] == "⟨U+202E⟩no"
    assert view.answered([]) is None
    assert view.log_table(entries)["Entry"].tolist() == [3, 2, 1, 0]


def test_a_grid_is_a_table_with_the_larger_doses_on_top_and_held_cells_named() -> None:
    picture = view.Grid(
        "<b>", np.array([[0.5, 0.3], [0.2, np.nan]]), (("50%", "30%"), ("20%", "-")),
        (("", "rule A"), ("", "unsupported")),
        np.array([[True, False], [False, False]]), ("0 mL", "90 mL"), ("none", "0.1"), ("fluid", "pressor"),
    )  # fmt: skip
    table = charts.grid(picture)
    assert "<b>" not in table
    assert table.index("90\u00a0mL") < table.index("0\u00a0mL</th><td")
    assert table.count("unsup\u00adported</small>") == table.count("rule A</small>") == 1
    assert table.count('class="best"') == 1
    assert re.findall(r">([\d-]+%?)<", table) == ["20%", "-", "50%", "30%"]


def test_a_table_escapes_every_cell() -> None:
    shown = charts.table(view.Table("<i>", ("<a>", ""), (("<script>", "<img src=x>"),)))
    assert "<img" not in shown
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown
    assert "&lt;i&gt;" in shown


def test_a_signals_picture_has_a_mark_for_each_value_and_says_in_words_what_it_shows(course: pd.DataFrame) -> None:
    points = view.timeline(course, 8.0, 4.0)
    picture = charts.signal(points, "Lactate", 8.0, 24.0)
    assert picture.count('<i class="measured"') == picture.count('<i class="carried"') == 1
    assert "1 values measured, 1 carried forward; last 2" in picture
    assert "Lactate<span>2 at 4 h, carried</span>" in picture, "what expired is not now"
    assert "Lactate<span>2 now, carried</span>" in charts.signal(points, "Lactate", 4.0, 24.0)
    bars = charts.doses(view.given(course, 8.0), "fluid_ml", "Fluid", 8.0, 24.0)
    assert bars.count("<b ") == 1
    assert "given in 1 of 2 windows" in bars


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0.0, 1.0, [0.0, 0.5, 1.0]), (0.0, 0.0, [0.0, 0.5, 1.0]), (87.0, 96.0, [85.0, 90.0, 95.0, 100.0])],
)
def test_an_axis_has_round_numbers_that_enclose_the_values(low: float, high: float, ticks: list[float]) -> None:
    assert charts._ticks(low, high) == ticks


def test_a_score_with_missing_organ_systems_says_so(opened: Study) -> None:
    rows = view.worklist(opened, 8.0)
    missing = rows[rows["sofa_missing"] > 0].iloc[0]
    text = view.patient_text(study.course(opened, int(missing["stay_id"])), 8.0)
    assert f"({missing['sofa_missing']} of 6 organ systems without a value, counted 0)" in text
    assert f"Stay {missing['stay_id']}" in text


@pytest.mark.parametrize(("hours", "opens"), [([0.0, 4.0, 24.0, 28.0], 24.0), ([36.0, 40.0], 36.0), ([0.0], 0.0)])
def test_the_page_opens_within_the_first_day(hours: list[float], opens: float) -> None:
    assert view.default_hour(hours) == opens
