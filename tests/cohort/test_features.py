"""The 48 features: which they are, the scores by hand-worked tables, look-backs, urine, one function for all uses."""

import numpy as np
import pytest

from cohort import features, scores
from cohort.actions import ActionConfig
from cohort.features import FEATURES, MEASURED
from cohort.grid import GridConfig
from tests.cohort import tiny

NAN = np.nan
ARRAYS = ("value", "age_h", "fio2_estimated", "sofa_missing", "sirs_missing", "cvp", "fluid_balance_total")


def state(name, hours=(4,), config=None, **rows):
    """One feature of the only stay at `hours`."""
    shard = tiny.make(**rows)
    made = features.states(shard, tiny.anchors(shard), np.asarray(hours), config or GridConfig())
    return made.value[0, :, FEATURES.index(name)].tolist()


def test_the_state_is_the_list_of_48_and_no_drug_dose_is_in_it() -> None:
    assert len(FEATURES) == len(set(FEATURES)) == 48
    assert FEATURES[:6] == ("age_years", "sex_male", "weight_kg", "readmission", "elixhauser", "hours_since_start")
    assert FEATURES[-6:] == ("pao2_fio2", "sofa", "sirs", "shock_index", "urine_output_step", "urine_output_total")
    assert not [name for name in FEATURES if "dose" in name or "fluid" in name or "pressor" in name]


def test_every_measured_feature_is_where_its_name_says() -> None:
    rows = [(1, name, 3.0, 3.5, 1.0 + column) for column, name in enumerate(MEASURED)]
    shard = tiny.make(observations=rows)
    made = features.states(shard, tiny.anchors(shard), np.array([4]), GridConfig())
    for column, name in enumerate(MEASURED):
        assert made.value[0, 0, FEATURES.index(name)] == 1.0 + column, name
        assert made.age_h[0, 0, column] == 1.0, name


def test_static_features_come_from_the_stay_and_comorbidity_from_prior_admissions_unless_asked() -> None:
    person = tiny.stay(age_years=71.5, sex_male=0.0, readmission=1.0, elixhauser=2.0, elixhauser_current=9.0)
    assert state("age_years", stays=[person]) == [71.5]
    assert state("sex_male", stays=[person]) == [0.0]
    assert state("readmission", stays=[person]) == [1.0]
    assert state("elixhauser", stays=[person]) == [2.0]
    assert state("elixhauser", stays=[person], config=GridConfig(comorbidity="current")) == [9.0]
    assert state("hours_since_start", hours=[0, 8]) == [0.0, 8.0]


def test_ratios_of_held_values() -> None:
    rows = [
        (1, "pao2", 1.0, 1.1, 80.0),
        (1, "fio2", 2.0, 2.1, 0.4),
        (1, "heart_rate", 3.0, 3.0, 120.0),
        (1, "sbp", 3.5, 3.5, 80.0),
    ]
    assert state("pao2_fio2", observations=rows) == [200.0]
    assert state("shock_index", observations=rows) == [1.5]
    assert np.isnan(state("shock_index", observations=rows[:3])[0])


@pytest.mark.parametrize(
    ("flow", "device", "expected"),
    [(2.0, "Nasal cannula", 0.28), (2.5, " nasal Cannula ", 0.32), (6.0, None, 0.44), (10.0, "Non-rebreather", 0.99),
     (NAN, "None", 0.21), (0.0, "None", 0.21), (3.0, "None", 0.32), (10.0, "Nasal cannula", NAN), 
     (8.0, "Venti mask", NAN), (NAN, "Nasal cannula", NAN), (NAN, None, NAN)],
)  # fmt: skip
def test_fio2_is_estimated_from_device_and_flow_where_it_is_not_charted(flow, device, expected) -> None:
    rows = [] if np.isnan(flow) else [(1, "o2_flow", 2.0, 2.1, flow)]
    rows += [(1, "o2_device", 3.0, 3.1, NAN, device)] if device else []
    shard = tiny.make(observations=rows)
    made = features.states(shard, tiny.anchors(shard), np.array([4]), GridConfig())
    np.testing.assert_equal(made.value[0, 0, FEATURES.index("fio2")], expected)
    assert made.fio2_estimated[0, 0] == (not np.isnan(expected))


def test_a_charted_fio2_is_preferred_to_an_estimate() -> None:
    rows = [(1, "fio2", 1.0, 1.1, 0.5), (1, "o2_flow", 2.0, 2.1, 2.0), (1, "o2_device", 2.0, 2.1, NAN, "Nasal cannula")]
    assert state("fio2", observations=rows) == [0.5]


NOTHING = {
    "pao2": NAN, "fio2": NAN, "mechanical_ventilation": NAN, "platelets": NAN, "bilirubin_total": NAN, "map": NAN,
    "gcs": NAN, "creatinine": NAN,
}  # fmt: skip
NO_DRUG = {"norepinephrine": 0.0, "epinephrine": 0.0, "dopamine": 0.0, "dobutamine": 0.0}


def points(urine=NAN, **given):
    """The six systems' SOFA points and how many of them are known."""
    value = {name: np.array([given.get(name, missing)]) for name, missing in NOTHING.items()}
    rate = {name: np.array([given.get(name, none)]) for name, none in NO_DRUG.items()}
    made = list(scores.sofa_components(value, rate, np.array([urine])))
    return [int(score[0]) for score, _ in made], sum(int(known[0]) for _, known in made)


@pytest.mark.parametrize(
    ("system", "given", "expected"),
    [
        (0, {"pao2": 400.0, "fio2": 1.0}, 0),
        (0, {"pao2": 399.0, "fio2": 1.0}, 1), (0, {"pao2": 299.0, "fio2": 1.0}, 2),
        (0, {"pao2": 50.0, "fio2": 1.0}, 2), (0, {"pao2": 50.0, "fio2": 1.0, "mechanical_ventilation": 0.0}, 2),
        (0, {"pao2": 199.0, "fio2": 1.0, "mechanical_ventilation": 1.0}, 3),
        (0, {"pao2": 99.0, "fio2": 1.0, "mechanical_ventilation": 1.0}, 4),
        (1, {"platelets": 150.0}, 0), (1, {"platelets": 149.0}, 1), (1, {"platelets": 99.0}, 2),
        (1, {"platelets": 49.0}, 3),
        (1, {"platelets": 19.0}, 4),
        (2, {"bilirubin_total": 1.1}, 0), (2, {"bilirubin_total": 1.2}, 1), (2, {"bilirubin_total": 2.0}, 2),
        (2, {"bilirubin_total": 6.0}, 3), (2, {"bilirubin_total": 12.0}, 4),
        (3, {"map": 70.0}, 0), (3, {"map": 69.0}, 1), (3, {"dobutamine": 1.0}, 2), (3, {"dopamine": 5.0}, 2),
        (3, {"dopamine": 5.1}, 3), (3, {"norepinephrine": 0.1}, 3), (3, {"epinephrine": 0.05}, 3),
        (3, {"dopamine": 15.1}, 4),
        (3, {"norepinephrine": 0.11}, 4), (3, {"epinephrine": 0.2, "map": 90.0}, 4),
        (4, {"gcs": 15.0}, 0), (4, {"gcs": 14.0}, 1), (4, {"gcs": 13.0}, 1), (4, {"gcs": 12.0}, 2),
        (4, {"gcs": 10.0}, 2),
        (4, {"gcs": 9.0}, 3), (4, {"gcs": 6.0}, 3), (4, {"gcs": 5.0}, 4),
        (5, {"creatinine": 1.1}, 0), (5, {"creatinine": 1.2}, 1), (5, {"creatinine": 2.0}, 2),
        (5, {"creatinine": 3.5}, 3),
        (5, {"creatinine": 5.0}, 4), (5, {"urine": 500.0}, 0), (5, {"urine": 499.0}, 3), (5, {"urine": 199.0}, 4),
        (5, {"urine": 499.0, "creatinine": 5.0}, 4),
    ],
)  # fmt: skip
def test_sofa_points_by_hand(system, given, expected) -> None:
    made, known = points(**given)
    assert made == [expected if i == system else 0 for i in range(6)]
    assert known == 1


def test_a_missing_organ_system_counts_zero_and_is_counted_as_missing() -> None:
    assert points() == ([0] * 6, 0)
    shard = tiny.make(observations=[(1, "platelets", 1.0, 1.0, 10.0)])
    made = features.states(shard, tiny.anchors(shard), np.array([0, 4]), GridConfig())
    assert made.value[0, :, FEATURES.index("sofa")].tolist() == [0.0, 4.0]
    assert made.sofa_missing.tolist() == [[6, 5]]


def test_sofa_keeps_the_worst_of_24_hours_and_then_forgets_it() -> None:
    rows = [(1, "platelets", 3.0, 3.5, 10.0), (1, "platelets", 7.0, 7.5, 200.0), (1, "platelets", 30.0, 30.5, 210.0)]
    assert state("sofa", [4, 8, 27, 30, 31], observations=rows, config=GridConfig(step_hours=1)) == [
        4.0,
        4.0,
        4.0,
        4.0,
        0.0,
    ]


def test_sofa_reads_past_doses_only() -> None:
    assert state("sofa", infusions=[(1, "norepinephrine", 4.0, 8.0, 0.5)]) == [0.0]
    assert state("sofa", infusions=[(1, "norepinephrine", 3.99, 8.0, 0.5)]) == [4.0]
    assert state("sofa", [4, 29, 32], infusions=[(1, "norepinephrine", 3.0, 5.5, 0.05)]) == [3.0, 3.0, 0.0]


def test_sofa_scores_urine_once_22_hours_were_observed() -> None:
    rows = [(1, 1.0 + 2 * i, 1.1 + 2 * i, 10.0) for i in range(20)]
    assert state("sofa", [12, 23, 24], outputs=rows) == [0.0, 0.0, 4.0]


def test_urine_that_stopped_being_charted_is_not_read_as_none() -> None:
    rows = [(1, 1.0, 1.1, 10.0), (1, 3.0, 3.1, 10.0)]
    assert state("sofa", [28, 48], outputs=rows) == [0.0, 0.0]


@pytest.mark.parametrize(
    ("given", "expected", "missing"),
    [({}, 0, 4), ({"temperature_c": 35.9}, 1, 3), ({"temperature_c": 38.1}, 1, 3), ({"temperature_c": 37.0}, 0, 3),
     ({"heart_rate": 91.0}, 1, 3), ({"resp_rate": 21.0}, 1, 3), ({"paco2": 31.0}, 1, 3), ({"wbc": 3.9}, 1, 3),
     ({"wbc": 12.1}, 1, 3), ({"bands": 11.0}, 1, 3),
     ({"wbc": 8.0, "bands": 11.0, "paco2": 40.0, "resp_rate": 20.0}, 1, 2)],
)  # fmt: skip
def test_sirs_by_hand(given, expected, missing) -> None:
    names = ("temperature_c", "heart_rate", "resp_rate", "paco2", "wbc", "bands")
    made = scores.sirs({name: np.array([given.get(name, NAN)]) for name in names})
    assert [int(one[0]) for one in made] == [expected, missing]


def test_urine_is_missing_until_some_is_charted_and_zero_in_a_dry_step_after() -> None:
    rows = [(1, 5.0, 5.5, 120.0), (1, 7.9, 8.2, 80.0)]
    assert state("urine_output_step", [4, 8, 12, 16], outputs=rows)[1:] == [120.0, 80.0, 0.0]
    assert np.isnan(state("urine_output_step", [4], outputs=rows)[0])
    assert state("urine_output_total", [4, 8, 12, 16], outputs=rows)[1:] == [120.0, 200.0, 200.0]
    assert np.isnan(state("urine_output_total", [4], outputs=rows)[0])


def test_every_volume_of_urine_is_in_exactly_one_step() -> None:
    shard = tiny.random_tables(1)
    hours = np.arange(0, 120, 4)
    made = features.states(shard, tiny.anchors(shard), hours, GridConfig()).value
    step, total = (np.nan_to_num(made[..., FEATURES.index(f"urine_output_{name}")]) for name in ("step", "total"))
    np.testing.assert_allclose(step.cumsum(axis=1), total, atol=1e-6)
    np.testing.assert_allclose(total[:, -1], shard.outputs.groupby("stay_id")["volume_ml"].sum().to_numpy())


def test_urine_from_before_the_anchor_is_not_counted() -> None:
    rows = [(1, -1.0, -0.9, 900.0), (1, -0.5, 1.0, 400.0), (1, 5.0, 5.1, 100.0)]
    assert state("urine_output_total", [4, 8], outputs=rows) == [0.0, 100.0]


def test_irrigation_put_in_counts_negative_but_no_state_is_below_zero() -> None:
    rows = [(1, 1.0, 1.1, -500.0), (1, 5.0, 5.1, 700.0)]
    assert state("urine_output_step", [4, 8], outputs=rows) == [0.0, 700.0]
    assert state("urine_output_total", [4, 8], outputs=rows) == [0.0, 200.0]


def test_the_fluid_balance_is_what_ran_in_so_far_less_the_urine_known() -> None:
    shard = tiny.make(
        infusions=[(1, "fluid", 2.0, 10.0, 100.0), (1, "d5w", 0.0, 4.0, 10.0)], outputs=[(1, 3.0, 3.1, 50.0)]
    )
    made = features.states(shard, tiny.anchors(shard), np.array([0, 4, 8]), GridConfig())
    assert made.fluid_balance_total.tolist() == [[0.0, 190.0, 590.0]]


def test_the_doses_before_are_those_of_the_step_that_ends_now_and_never_of_the_one_that_begins() -> None:
    shard = tiny.make(
        infusions=[(1, "fluid", 2.0, 9.0, 100.0), (1, "norepinephrine", 4.0, 30.0, 0.2), (1, "d5w", 0.0, 9.0, 80.0)]
    )
    hours, given = np.array([0, 4, 8, 12]), ActionConfig(in_state=True)
    made = features.states(shard, tiny.anchors(shard), hours, GridConfig(), given)
    assert features.names(given)[-2:] == ("fluid_before_ml_h", "vasopressor_before_ug_kg_min")
    np.testing.assert_allclose(made.value[0, :, -2:], [[0, 0], [50, 0], [100, 0.2], [25, 0.2]], rtol=1e-12)
    hourly = features.states(shard, tiny.anchors(shard), np.array([3, 5]), GridConfig(step_hours=1), given)
    np.testing.assert_allclose(hourly.value[0, :, -2:], [[100, 0], [100, 0.2]], rtol=1e-12)


def test_without_being_asked_for_the_doses_before_are_in_no_state() -> None:
    shard = tiny.random_tables(4)
    plain, more = (
        features.states(shard, tiny.anchors(shard), GridConfig().hours, GridConfig(), given)
        for given in (ActionConfig(), ActionConfig(in_state=True))
    )
    assert plain.value.shape[2] == len(FEATURES) == 48
    assert more.value[..., :48].tobytes() == plain.value.tobytes()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rule", ["normal", "last_testable"])
def test_asking_for_one_hour_gives_bit_for_bit_what_the_batch_gives(seed, rule) -> None:
    shard, config, given = tiny.random_tables(seed), GridConfig(gcs_rule=rule), ActionConfig(in_state=True)
    hours = np.append(config.hours, 72)
    batch = features.states(shard, tiny.anchors(shard), hours, config, given)
    for position in (0, 1, 9, 18):
        one = features.states(shard, tiny.anchors(shard), hours[position : position + 1], config, given)
        for name in ARRAYS:
            assert getattr(one, name)[:, 0].tobytes() == getattr(batch, name)[:, position].tobytes(), name


def test_one_stay_alone_gives_bit_for_bit_what_its_shard_gives() -> None:
    shard, config = tiny.random_tables(5), GridConfig()
    batch = features.states(shard, tiny.anchors(shard), config.hours, config)
    for row, stay_id in enumerate(shard.stays["stay_id"]):
        frames = (shard.stays, shard.observations, shard.infusions, shard.outputs)
        alone = type(shard)(*(frame[frame["stay_id"] == stay_id] for frame in frames))
        one = features.states(alone, tiny.anchors(alone), config.hours, config)
        for name in ARRAYS:
            assert getattr(one, name)[0].tobytes() == getattr(batch, name)[row].tobytes(), name


def test_steps_of_1_2_and_4_hours_agree_at_the_hours_they_share() -> None:
    shard = tiny.random_tables(2)
    made = {}
    for step in (1, 2, 4):
        config = GridConfig(step_hours=step)
        value = features.states(shard, tiny.anchors(shard), config.hours, config).value[:, :: 4 // step].copy()
        value[..., FEATURES.index("urine_output_step")] = 0.0
        made[step] = value.tobytes()
    assert made[1] == made[2] == made[4]


def test_the_order_of_rows_changes_no_bit() -> None:
    shard, config = tiny.random_tables(4), GridConfig()
    frames = (shard.observations, shard.infusions, shard.outputs)
    turned = type(shard)(shard.stays, *(frame.sample(frac=1.0, random_state=0) for frame in frames))
    one, other = (features.states(each, tiny.anchors(each), config.hours, config) for each in (shard, turned))
    for name in ARRAYS:
        assert getattr(one, name).tobytes() == getattr(other, name).tobytes(), name


def test_impute_fills_only_what_is_missing() -> None:
    filled = features.impute(np.array([[1.0, NAN], [NAN, 4.0]]), np.array([10.0, 20.0]))
    assert filled.tolist() == [[1.0, 20.0], [10.0, 4.0]]
    assert filled.dtype == np.float32


def test_typical_values_complete_any_state() -> None:
    assert np.isfinite(features.typical()).all()
    assert features.typical()[FEATURES.index("heart_rate")] == 80.0
