"""A card: the same run and patient give the same bytes again, and whatever differs is refused."""

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import policy
from app import audit, audit_log, card, recommendation, responses, settings, study
from app.audit_log import Actor, AuditLog, Entry
from app.card import Card
from app.responses import Response
from app.settings import AppConfig
from app.study import HOUR, Study
from cohort import build, trajectories
from cohort.errors import ArtifactError, ConfigError, InputError
from policy import dpo
from policy.recommend import RecommendConfig
from tests import small_run

NURSE = Actor("A. Nurse", "clinician", "s1")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_run.shared(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def opened(run: Path) -> Study:
    found = study.open_study(run)
    assert isinstance(found, Study), found
    return found


@pytest.fixture(scope="module")
def shown(opened: Study) -> Card:
    """A card with a dose."""
    for stay in opened.stays["stay_id"]:
        if (study.course(opened, int(stay))[HOUR] == 8.0).any():
            made = card.make(opened, int(stay), 8.0)
            if made.output["recommendation"] is not None:
                return made
    raise AssertionError("no card of the small run has a dose")


@pytest.fixture
def log(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[AuditLog, Path]]:
    """An empty log, and the settings' file that names it."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    told = tmp_path / "app.yaml"
    told.write_text(f"audit: {{url: 'sqlite:///{tmp_path}/audit.db'}}\n")
    opened_log = AuditLog(settings.place(run, settings.read(told).audit))
    yield opened_log, told
    opened_log.close()


def logged(log: AuditLog, made: Card) -> Entry:
    number = "12345678-1234-4234-8234-123456789abc"
    return log.append("card", NURSE, made.body(), card=number, subject=made.subject)


def test_a_card_is_json_of_known_numbers_and_its_canonical_form_is_small(opened: Study) -> None:
    for stay in opened.stays["stay_id"].iloc[:6]:
        for hour in study.course(opened, int(stay))[HOUR]:
            body = card.make(opened, int(stay), float(hour)).body()
            assert len(audit_log.canonical(body)) < 20_000
            assert json.loads(audit_log.canonical(body)) == body


def test_the_same_question_gives_the_same_bytes_in_a_run_opened_anew(run: Path, opened: Study, shown: Card) -> None:
    again = study.open_study(run)
    assert isinstance(again, Study)
    made = card.make(again, shown.stay_id, shown.hour)
    assert made is not shown
    assert audit_log.canonical(made.body()) == audit_log.canonical(shown.body())
    assert opened.model == again.model


def test_the_inputs_digest_changes_with_what_was_known_at_the_decision(opened: Study, shown: Card) -> None:
    stays = opened.stays.copy()
    stays.loc[stays["stay_id"] == shown.stay_id, "anchor"] += pd.Timedelta(hours=1)
    assert card.make(replace(opened, stays=stays), shown.stay_id, shown.hour).input != shown.input


def test_a_patient_of_another_split_or_hour_is_refused_without_naming_them(opened: Study) -> None:
    for stay, hour in ((1, 8.0), (int(opened.stays["stay_id"].iloc[0]), 7.0)):
        with pytest.raises(InputError) as caught:
            card.make(opened, stay, hour)
        assert str(stay) not in str(caught.value)


def test_replay_finds_the_same_bytes(run: Path, opened: Study, shown: Card, log: tuple[AuditLog, Path]) -> None:
    entry = logged(log[0], shown)
    assert card.replay(opened, entry) == shown
    assert audit.replay(run, str(entry.card), log[1]) == audit_log.canonical(shown.output)


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("model", "policy"), "0" * 64, "another policy"),
        (("model", "evaluation"), "0" * 64, "another evaluation"),
        (("config", "recommend", "min_support"), 99, "other settings"),
        (("input",), "0" * 64, "the card's input differs"),
        (("output", "recommendation", "fluid_ml"), 1.0, "the card's output differs"),
    ],
)
def test_replay_names_what_differs(
    opened: Study, shown: Card, log: tuple[AuditLog, Path], path: tuple[str, ...], value: object, says: str
) -> None:
    body = json.loads(json.dumps(shown.body()))
    at = body
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    entry = log[0].append("card", NURSE, body, card="c", subject=shown.subject)
    with pytest.raises(ArtifactError, match=says):
        card.replay(opened, entry)


def test_replay_of_a_card_that_never_was_is_one_line(run: Path, log: tuple[AuditLog, Path]) -> None:
    with pytest.raises(ArtifactError, match="no such card"):
        audit.replay(run, "nothing", log[1])


def test_other_gates_settings_are_part_of_the_card(run: Path, shown: Card) -> None:
    strict = study.open_study(run, AppConfig(recommend=RecommendConfig(min_support=150)))
    assert isinstance(strict, Study)
    made = card.make(strict, shown.stay_id, shown.hour)
    assert made.output["recommendation"] is None
    assert made.config["recommend"]["min_support"] == 150


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (Response("fluid", "modify"), "enter the dose"),
        (Response("fluid", "modify", value=-1.0), "enter the dose, 0 to 20000 mL per window"),
        (Response("vasopressor", "modify", value=11.0), "0 to 10"),
        (Response("fluid", "modify", value=float("nan")), "enter the dose"),
        (Response("fluid", "defer", recheck_h=3.3), "when to look again"),
        (Response("fluid", "reject"), "choose a reason"),
        (Response("fluid", "reject", reason="because"), "choose a reason"),
        (Response("fluid", "follow", note="x" * 2001), "2,001 characters, at most 2,000"),
    ],
)
def test_an_answer_that_lacks_what_it_needs_is_refused(given: Response, says: str) -> None:
    with pytest.raises(InputError, match=says):
        given.body()


def test_an_answer_keeps_only_what_belongs_to_it() -> None:
    full = Response("fluid", "follow", value=3.0, recheck_h=1.0, reason="patient-refuses", note="ok")
    assert full.body() == {
        "drug": "fluid", "answer": "follow", "value": None, "recheck_h": None, "reason": None, "note": "ok",
    }  # fmt: skip


def test_the_reasons_are_hl7s_own(opened: Study) -> None:
    """Against the code system as published in CDS Hooks 3.0.0-ballot."""
    golden = json.loads((Path(__file__).parents[1] / "golden" / "non_adherence_reasons.json").read_text())
    assert golden["system"] == responses.REASON_SYSTEM
    assert responses.REASONS.items() <= golden["codes"].items()
    assert opened.path.is_dir()


def test_feedback_is_cds_hooks(shown: Card, log: tuple[AuditLog, Path]) -> None:
    entry = logged(log[0], shown)
    for given in (
        Response("fluid", "follow"),
        Response("vasopressor", "reject", reason="patient-contraindication", note="allergy"),
        Response("fluid", "modify", value=100.0),
    ):
        log[0].append("response", NURSE, given.body(), card=entry.card, subject=shown.subject)
    told = responses.feedback(log[0].entries())["feedback"]
    assert [one["outcome"] for one in told] == ["accepted", "overridden", "overridden"]
    assert told[0]["acceptedSuggestions"] == [{"id": responses.suggestion(str(entry.card), "fluid")}]
    assert told[1]["overrideReason"] == {
        "reason": {
            "code": "patient-contraindication",
            "system": "http://terminology.hl7.org/CodeSystem/non-adherence-reason-codes",
            "display": "Patient has contraindication to recommended action",
        },
        "userComment": "allergy",
    }
    assert "overrideReason" not in told[2]
    assert all(one["card"] == entry.card and one["outcomeTimestamp"].endswith("Z") for one in told)
    assert told[2]["extension"]["suture.response"]["value"] == 100.0


def test_preferences_are_what_dpo_reads_and_dpo_trains_on_them(
    run: Path, opened: Study, shown: Card, log: tuple[AuditLog, Path], tmp_path: Path
) -> None:
    entry = logged(log[0], shown)
    was = shown.output["recommendation"]
    other = 0.0 if was["fluid_ml"] > 0 else 4_000.0
    log[0].append("response", NURSE, Response("fluid", "modify", value=9.0).body(), card=entry.card)
    log[0].append("response", NURSE, Response("fluid", "modify", value=other).body(), card=entry.card)
    out = tmp_path / "preferences.parquet"
    lines = audit.export(run, tmp_path / "feedback.json", out, log[1], overwrite=False)
    assert "2 responses" in lines[0]
    assert "1 preferences" in lines[1]
    assert len(json.loads((tmp_path / "feedback.json").read_text())["feedback"]) == 2
    read = dpo.read(out, opened.policy.features, opened.policy.n_actions)
    assert read.rejected.tolist() == [was["action"]]
    assert read.chosen[0] // 5 != was["action"] // 5, "of two answers the last counts"
    assert read.chosen[0] % 5 == was["action"] % 5
    rows = study.course(opened, shown.stay_id)
    state, _, _ = study.asked(opened, rows[rows[HOUR] == shown.hour])
    assert np.array_equal(read.state[0].astype(np.float32), state[0].astype(np.float32))
    quick = {"updates": 20, "evaluate_every": 10, "min_updates": 0, "hidden": (8,)}
    config = {**quick, "preferences": out, "behaviour": quick}
    trained = policy.fit("dpo", build.episodes(run / "cohort", "train"), config, 0)
    assert trained.notes["source"] == "table"
    assert trained.notes["preferences"] == 1
    with pytest.raises(ArtifactError, match="already exists"):
        audit.export(run, None, out, log[1], overwrite=False)


def test_a_rejection_prefers_the_dose_that_was_stated_before_the_reveal(
    opened: Study, shown: Card, log: tuple[AuditLog, Path]
) -> None:
    was = shown.output["recommendation"]["action"]
    target = (was + 10) % 25
    dose = card.dose(opened, target)
    intent = {"fluid": dose["fluid_ml"], "vasopressor": dose["vasopressor_ug_kg_min"]}
    log[0].append("intent", NURSE, intent, subject=shown.subject)
    entry = logged(log[0], shown)
    reject = Response("fluid", "reject", reason="expert-contradicts")
    for given in (reject, replace(reject, drug="vasopressor")):
        log[0].append("response", NURSE, given.body(), card=entry.card)
    table, left_out = responses.preferences(opened, log[0].entries())
    assert table[["chosen", "rejected"]].to_numpy().tolist() == [[target, was]]
    assert sum(left_out.values()) == 0


def test_what_says_nothing_about_another_dose_is_left_out_and_counted(
    opened: Study, shown: Card, log: tuple[AuditLog, Path]
) -> None:
    was = shown.output["recommendation"]
    for number, given in enumerate(
        (
            Response("fluid", "follow"),
            Response("fluid", "defer", recheck_h=1.0),
            Response("fluid", "reject", reason="patient-refuses"),
            Response("fluid", "modify", value=was["fluid_ml"]),
        )
    ):
        made = log[0].append("card", NURSE, shown.body(), card=f"c{number}", subject=shown.subject)
        log[0].append("response", NURSE, given.body(), card=made.card)
    stale = {**shown.body(), "model": {**shown.model, "policy": "0" * 64}}
    log[0].append("card", NURSE, stale, card="old", subject=shown.subject)
    other = 0.0 if was["fluid_ml"] > 0 else 9_000.0
    log[0].append("response", NURSE, Response("fluid", "modify", value=other).body(), card="old")
    table, left_out = responses.preferences(opened, log[0].entries())
    assert table.empty
    assert isinstance(table, pd.DataFrame)
    assert left_out == {"no other dose stated": 3, "the same bins": 1, "another model or patient": 1}


def test_an_export_without_a_file_or_with_another_ending_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--cds-hooks"):
        audit.export(run, None, None, None, overwrite=False)
    with pytest.raises(ConfigError, match=r"\.csv or \.parquet"):
        audit.export(run, None, tmp_path / "x.txt", None, overwrite=False)


def test_a_run_that_was_never_shown_has_no_log_and_says_so(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    told = tmp_path / "app.yaml"
    told.write_text(f"audit: {{url: 'sqlite:///{tmp_path}/none.db'}}\n")
    assert "no audit log" in audit.verified(run, told)
    with pytest.raises(ArtifactError, match="there is no audit log"):
        audit.export(run, tmp_path / "f.json", None, told, overwrite=False)
    assert not (tmp_path / "none.db").exists()


def test_verify_counts_the_entries_and_those_never_acknowledged(run: Path, log: tuple[AuditLog, Path]) -> None:
    head = log[0].place.head.read_bytes()
    log[0].append("sign_in", NURSE, {"by": "name given"})
    assert audit.verified(run, log[1]).startswith("audit log: 2 entries follow each other, the signed head vouches")
    log[0].place.head.write_bytes(head)
    assert "1 later ones were never acknowledged" in audit.verified(run, log[1])
    assert dataclasses.is_dataclass(log[0].place)


def test_a_table_of_states_is_answered_as_the_page_answers_hazard_rules_included(
    run: Path, opened: Study, tmp_path: Path
) -> None:
    stored = trajectories.read(run / "cohort", split="evaluate").to_pandas()
    at_eight = stored[stored[HOUR] == 8.0].reset_index(drop=True)
    at_eight.to_parquet(tmp_path / "states.parquet")
    recommendation.write(run, tmp_path / "states.parquet", tmp_path / "out.csv")
    answers = pd.read_csv(tmp_path / "out.csv")
    for stay, action, gate in zip(at_eight["stay_id"], answers["action"], answers["gate"], strict=True):
        made = card.make(opened, int(stay), 8.0).output
        held = [one["gate"] for one in made["gates"] if one["passed"] is False]
        assert (None if pd.isna(action) else int(action)) == (made["recommendation"] or {}).get("action")
        assert (None if pd.isna(gate) else gate) == (held[0] if held else None)
    assert "hazard rule" in set(answers["gate"])
