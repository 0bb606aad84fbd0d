"""Who becomes an episode, from when to when, and the flow that explains every stay that does not."""

from pathlib import Path

import pandas as pd
import pytest

from cohort import config, selection
from cohort.errors import ConfigError, InputError
from cohort.grid import GridConfig
from cohort.selection import Exclusions, SelectionConfig
from tests.cohort import tiny


def select(people, chosen=None, grid=None):
    """Stays kept with their windows, and the flow as {reason: stays lost}."""
    chosen, grid = SelectionConfig(**(chosen or {})), GridConfig(**(grid or {}))
    kept, flow = selection.candidates(tiny.make(people).stays, chosen, grid)
    kept, flow = selection.windows(kept, grid, flow)
    return kept, {step["reason"]: step["stays_lost"] for step in flow.steps}, flow


def spans(kept):
    """(stay, first hour, last hour, end reason) of each episode, hours after ADMISSION."""
    hours = ((kept[name] - tiny.ADMISSION) / pd.Timedelta(hours=1) for name in ("anchor", "end"))
    return list(zip(kept["stay_id"], *hours, kept["end_reason"], strict=True))


def test_every_lost_stay_is_in_the_flow_with_its_reason() -> None:
    people = [tiny.stay(1), tiny.stay(2, age_years=17.9), tiny.stay(3, hours=3.9), tiny.stay(4, hours=4.0)]
    kept, lost, flow = select(people)
    assert kept["stay_id"].tolist() == [1, 4]
    assert lost == {
        "in the source": 0,
        "younger than 18 years": 1,
        "overlaps an earlier stay of the same patient": 0,
        "shorter than one step of 4 h": 1,
        "dead before the first decision": 0,
    }
    assert [step["stays_in"] for step in flow.steps] == [4, 4, 3, 3, 2]
    assert flow.steps[-1]["stays_kept"] == flow.steps[-1]["patients_kept"] == 2


def test_a_patient_who_dies_in_the_first_window_is_an_episode_of_one_partial_window() -> None:
    people = [tiny.stay(1, hours=4.6, died_at=3.5), tiny.stay(2, hours=2.5, died_at=1.0), tiny.stay(3, died_at=-1.0)]
    kept, lost, _ = select(people)
    assert spans(kept) == [(1, 0.0, 3.5, "death")]
    assert (lost["shorter than one step of 4 h"], lost["dead before the first decision"]) == (1, 1)


def test_first_stays_only_where_asked() -> None:
    people = [tiny.stay(5, subject_id=1, intime=200.0), tiny.stay(9, subject_id=1), tiny.stay(7, subject_id=2)]
    assert select(people)[0]["stay_id"].tolist() == [5, 7, 9]
    assert select(people, {"stays": "first"})[0]["stay_id"].tolist() == [7, 9]


def test_the_first_stay_is_first_by_admission_whatever_the_order_of_rows() -> None:
    people = [tiny.stay(i, subject_id=i % 3, intime=500.0 * ((i * 7) % 10)) for i in range(9)]
    forward = select(people, {"stays": "first"})[0]["stay_id"].tolist()
    assert forward == select(people[::-1], {"stays": "first"})[0]["stay_id"].tolist()
    earliest = {min((p["intime"], p["stay_id"]) for p in people if p["subject_id"] == s)[1] for s in range(3)}
    assert set(forward) == earliest


def test_a_stay_inside_another_of_the_same_patient_is_left_out() -> None:
    people = [
        tiny.stay(1, subject_id=1, hours=100),
        tiny.stay(2, subject_id=1, intime=20, hours=10),
        tiny.stay(3, subject_id=1, intime=90, hours=50),
        tiny.stay(4, subject_id=2, intime=50, hours=50),
    ]
    kept, lost, _ = select(people)
    assert kept["stay_id"].tolist() == [1, 4]
    assert lost["overlaps an earlier stay of the same patient"] == 2


def test_death_discharge_or_the_horizon_ends_an_episode_whichever_comes_first() -> None:
    people = [
        tiny.stay(1, hours=50.5),
        tiny.stay(2, hours=30.0, died_at=29.25),
        tiny.stay(3, hours=100.0),
        tiny.stay(4, hours=100.0, died_at=90.0),
        tiny.stay(5, hours=20.0, died_at=60.0),
        tiny.stay(6, hours=72.0),
    ]
    kept, _, _ = select(people)
    assert spans(kept) == [
        (1, 0.0, 50.5, "discharge"),
        (2, 0.0, 29.25, "death"),
        (3, 0.0, 72.0, "horizon"),
        (4, 0.0, 72.0, "horizon"),
        (5, 0.0, 20.0, "discharge"),
        (6, 0.0, 72.0, "discharge"),
    ]


def test_nothing_that_happens_later_leaves_a_stay_out() -> None:
    """Death soon after the record's end, or treatment withdrawn, were exclusions in earlier pipelines."""
    people = [tiny.stay(1, hours=10.0, died_at=11.0), tiny.stay(2, hours=5.0, died_at=5.0), tiny.stay(3, hours=500.0)]
    assert len(select(people)[0]) == 3


def test_anchored_at_suspicion_an_episode_runs_from_24_h_before_to_48_h_after_it_in_whole_steps() -> None:
    people = [
        tiny.stay(1, hours=300, suspicion_time=tiny.at(100.0)),
        tiny.stay(2, hours=300, suspicion_time=tiny.at(10.5)),
        tiny.stay(3, hours=300, suspicion_time=tiny.at(-50.0)),
        tiny.stay(4, hours=30, suspicion_time=tiny.at(90.0)),
        tiny.stay(5, hours=300),
    ]
    kept, lost, _ = select(people, grid={"anchor": "suspicion"})
    assert spans(kept) == [(1, 76.0, 148.0, "horizon"), (2, 0.0, 56.0, "horizon")]
    assert lost["no suspected infection"] == 1
    assert lost["shorter than one step of 4 h"] == 2


def test_sepsis_needs_suspicion_and_a_sofa_rise_of_two() -> None:
    people = [tiny.stay(i, suspicion_time=tiny.at(5.0)) for i in (1, 2, 3)] + [tiny.stay(4)]
    kept, flow = selection.candidates(tiny.make(people).stays, SelectionConfig(sepsis3=True), GridConfig())
    assert kept["stay_id"].tolist() == [1, 2, 3]
    kept, flow = selection.septic(kept, pd.Series([1, 2, 7], index=[1, 2, 3]), flow)
    assert kept["stay_id"].tolist() == [2, 3]
    assert flow.steps[-1]["stays_lost"] == 1


@pytest.mark.parametrize("step", [1, 2, 4])
def test_a_stay_needs_one_whole_step(step) -> None:
    people = [tiny.stay(1, hours=step), tiny.stay(2, hours=step - 0.01)]
    assert select(people, grid={"step_hours": step})[0]["stay_id"].tolist() == [1]


def test_a_care_unit_and_a_charting_system_are_left_out_with_a_row_of_the_flow_each() -> None:
    people = [tiny.stay(1, care_unit="MICU"), tiny.stay(2, care_unit="CSRU"), tiny.stay(3, charting="carevue")]
    kept, lost, _ = select(people, {"exclusions": {"care_units": ["CSRU"], "charting": ["carevue"]}})
    assert kept["stay_id"].tolist() == [1]
    assert lost["first care unit excluded: CSRU"] == lost["charting system excluded: carevue"] == 1


@pytest.mark.parametrize("text", ["stay_id\n2\n7\n", "2 7"])
def test_listed_stays_are_left_out_and_their_ids_are_not_in_the_configuration(tmp_path: Path, text: str) -> None:
    path = tmp_path / "objections.csv"
    path.write_text(text)
    chosen = {"exclusions": {"listed": str(path)}}
    kept, lost, _ = select([tiny.stay(1), tiny.stay(2), tiny.stay(3)], chosen)
    assert kept["stay_id"].tolist() == [1, 3]
    assert lost["on the list of excluded stays"] == 1
    listed = SelectionConfig(**chosen).model_dump(mode="json")["exclusions"]["listed"]
    assert set(listed) == {"file", "sha256"}


def test_an_exclusion_that_names_nothing_in_the_source_is_refused(tmp_path: Path) -> None:
    stays = tiny.make([tiny.stay(1, care_unit="MICU"), tiny.stay(2)]).stays
    with pytest.raises(InputError, match="care_unit 'MCIU' is no stay's; known: MICU"):
        selection.require_known(stays, Exclusions(care_units=("MCIU",)))
    path = tmp_path / "list"
    path.write_text("77777\n88888\n")
    with pytest.raises(InputError, match="none of 2 listed stays is in the source"):
        selection.require_known(stays, Exclusions(listed=str(path)))


def test_a_list_that_is_changed_damaged_or_gone_is_refused_without_an_id(tmp_path: Path) -> None:
    stays, path = tiny.make([tiny.stay(1)]).stays, tmp_path / "list"
    path.write_text("1\nDoe, 77777\n")
    damaged = Exclusions(listed=str(path))
    with pytest.raises(InputError, match="1 of 3 entries are no stay id, the first is number 2") as error:
        selection.require_known(stays, damaged)
    assert "77777" not in str(error.value)
    path.write_text("1\n")
    with pytest.raises(InputError, match="changed since the configuration was read"):
        selection.require_known(stays, damaged)
    with pytest.raises(ConfigError, match="cannot be read"):
        config.parse({"listed": str(tmp_path / "none")}, Exclusions, "exclusions")
