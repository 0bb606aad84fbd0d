"""Each experiment of the lab answers as the guide says when its control is moved."""

import re
import time
from pathlib import Path

import numpy as np
import pytest

from app import view_lab
from policy import lab, textbook

ROOT = Path(__file__).resolve().parents[2]


def test_every_experiment_teaches_in_two_to_four_sentences_and_names_its_place_in_the_guide() -> None:
    for one in view_lab.EXPERIMENTS.values():
        assert 2 <= len(re.findall(r"[.:;?!](?:\s|$)", one.teaches)) <= 6
        assert one.guide.startswith("Chapter ")
    assert len(view_lab.EXPERIMENTS) == 10


def test_every_interactive_element_of_the_guide_stands_in_the_table_in_its_order() -> None:
    chapters = [int(left.split()[1].rstrip(":")) for left, _ in view_lab.mapping().rows]
    assert chapters == [1, 2, 3, 3, 4, 4, 5, 6, 6, 8, 8, 8, 8, 9, 9, 9, 9]


def test_what_the_table_names_is_there() -> None:
    titles = {one.title for one in view_lab.EXPERIMENTS.values()}
    for _, here in view_lab.mapping().rows:
        files = re.findall(r"[a-z_]+/[a-z_./]+[a-z]", here)
        assert all((ROOT / file).is_file() for file in files)
        assert files or any(title in here for title in titles)


def test_the_grid_shows_v_and_on_pointing_the_four_moves() -> None:
    shown = view_lab.gridworld(0.9, 0.0)
    value, _ = textbook.gridworld(5, 0.9)
    assert f"{value[0, 0]:.2f}" in shown
    assert shown.count('tabindex="0"') == 24
    assert shown.count('class="q"') == 24
    assert f"{textbook.gridworld(5, 0.5)[0][0, 0]:.2f}" in view_lab.gridworld(0.5, 0.0)


def test_low_squares_are_orange_and_high_ones_blue() -> None:
    colours = re.findall(r"background-color: rgba\((\d+), \d+, \d+, ([0-9.]+)\)", view_lab.gridworld(0.9, 0.0))[:-1]
    assert colours[0] == ("213", "0.50"), "the farthest square"
    assert colours[-1] == ("27", "0.50"), "the square before the goal"
    assert sum(red == "213" for red, _ in colours) >= 8


def test_a_wider_log_lifts_the_offline_line() -> None:
    def offline(told: str) -> float:
        return float(re.findall(r"offline ([0-9.]+)", told)[0])

    assert offline(view_lab.rounds(2)[1]) < offline(view_lab.rounds(40)[1])


def test_stitching_joins_two_trajectories_where_imitation_repeats_one() -> None:
    table, told = view_lab.stitching(0.9, True)
    assert "Imitation goes s1 → s2 → reward 5; stitching goes s1 → s3 → s6 → reward 10" in told
    low = dict((row[0], row[2]) for row in view_lab.stitching(0.5, True)[0].rows)
    high = dict((row[0], row[2]) for row in table.rows)
    assert float(low["s1"]) < float(high["s1"]) < 10
    assert "trajectory C" in view_lab.graph(True, 0.9)
    assert "trajectory C" not in view_lab.graph(False, 0.9)


def test_each_backup_brings_the_error_nearer_to_its_limit() -> None:
    told = [view_lab.overestimation(3.0, 0.99, backups)[1] for backups in (0, 25, 1000)]
    errors = [float(re.findall(r"become ([0-9.]+)", one)[0]) for one in told]
    assert errors[0] == 3.0
    assert errors[0] < errors[1] < errors[2] <= 300.0
    assert all("limit ε/(1−γ) is 300.0" in one for one in told)
    assert "picks the action nobody took" in view_lab.exploited(3.0, 0.99)


def test_a_stricter_filter_promises_more_from_less() -> None:
    assert "3 of 10" in view_lab.filtered(30.0)[1]
    assert "promises 9.0" in view_lab.filtered(30.0)[1]
    assert "promises 5.5" in view_lab.filtered(100.0)[1]


def test_a_small_temperature_listens_to_one_action() -> None:
    left = [float(re.findall(r"as if ([0-9.]+) of", view_lab.temperature(alpha)[1])[0]) for alpha in (0.1, 1.0, 10.0)]
    assert left == sorted(left)
    assert left[0] == 1.0
    assert "0.980 (return 7)" in view_lab.temperature(1.0)[1]


def test_the_expectile_goes_from_the_mean_to_the_largest() -> None:
    found = [float(re.findall(r"V = ([0-9.]+)", view_lab.expectile(tau)[1])[0]) for tau in (0.5, 0.7, 0.9, 0.99)]
    assert found[0] == 5.33
    assert found == sorted(found)
    assert found[-1] > 7.5


def test_each_part_that_is_switched_off_costs_what_the_guide_says() -> None:
    for removed in ("conservatism", "stitching", "advantage weighting"):
        assert "without" not in view_lab.broken(removed, False)[1]
        picture, told = view_lab.broken(removed, True)
        reached, left = (float(one) for one in re.findall(r"reaches (-?[0-9.]+[0-9])", told))
        assert reached > left
        assert picture.count('class="line s') >= 2
    assert "It believes in values up to" in view_lab.broken("conservatism", True)[1]


def test_the_method_table_has_every_learner_and_says_what_was_measured() -> None:
    picture, table = view_lab.methods()
    assert {row[0] for row in table.rows} == set(lab.CLAIMS)
    stitched = {row[0]: row[2] for row in table.rows}
    assert stitched["iql"] == "100% of the best"
    assert stitched["awr"] == "50% of the best"
    assert all(name in picture for name in lab.CLAIMS)


def test_what_was_kept_is_what_the_lab_measures_now() -> None:
    """One ablation again, with the seed that was kept."""
    kept = next(one for one in view_lab.measured()["ablations"] if one["removed"] == "advantage weighting")
    again = lab.broken("advantage weighting", kept["whole"]["update"][:2], view_lab.measured()["made"]["seed"])
    np.testing.assert_allclose(again.whole.value, kept["whole"]["value"][:2], atol=0.02)
    np.testing.assert_allclose(again.broken.value, kept["broken"]["value"][:2], atol=0.02)


def test_preferences_move_the_policy_and_a_long_leash_frees_it() -> None:
    def of_b(better: int, beta: float) -> float:
        return float(view_lab.preferences(better, 8, beta)[0].rows[1][3].rstrip("%"))

    assert of_b(2, 1.0) < of_b(8, 1.0)
    assert of_b(8, 0.1) > of_b(8, 5.0)


@pytest.mark.parametrize(
    "answer",
    [
        lambda: view_lab.gridworld(0.99, -0.1),
        lambda: view_lab.rounds(37),
        lambda: view_lab.stitching(0.77, True),
        lambda: view_lab.overestimation(1.0, 0.95, 1000),
        lambda: view_lab.preferences(6, 4, 0.5),
        view_lab.methods,
    ],
)
def test_a_change_is_answered_within_a_second(answer: object) -> None:
    assert callable(answer)
    answer()  # what is loaded once is not a change
    started = time.process_time()
    answer()
    assert time.process_time() - started < 1.0
