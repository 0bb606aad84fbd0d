"""Rollouts, and the simulated hospital they share with `simulate`."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from cohort import features
from cohort.actions import ActionConfig
from cohort.dictionary import Dictionary
from cohort.errors import ConfigError, InputError
from cohort.grid import GridConfig
from cohort.hospital import HospitalConfig, layout, rollout, simulate, simulation
from cohort.hospital.charting import ChartingConfig
from cohort.hospital.clinicians import STYLES, shares
from cohort.hospital.faults import FaultConfig
from cohort.hospital.rollouts import Chart, PolicyDecides, frames, raw_tables, stay_returns
from cohort.hospital.truth import decision_table
from cohort.reward import RewardConfig
from cohort.scaler import Scaler
from cohort.sources import mimic_iv

GRID = GridConfig()
SMALL = HospitalConfig(n_stays=40, shard_stays=25, longest_stay_hours=100)


def small(n: int) -> HospitalConfig:
    return HospitalConfig(n_stays=n, shard_stays=n, longest_stay_hours=100)


class Always:
    """A policy with one action."""

    def __init__(self, action: int) -> None:
        self.action = action
        self.seen = 0
        self.dictionary: Dictionary | None = None

    def probs(self, state: np.ndarray) -> np.ndarray:
        self.seen += len(state)
        out = np.zeros((len(state), 25), np.float32)
        out[:, self.action] = 1
        return out


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("hospital")
    simulate(out / "tables", out / "truth", SMALL, seed=5)
    return out


@pytest.fixture(scope="module")
def decisions() -> pd.DataFrame:
    log = simulation.DecisionLog()
    simulation.course(simulation.admit(300, 0, 0, 9, small(300)), log)
    return decision_table(log.decisions()).to_pandas()


def digests(directory: Path) -> dict[str, str]:
    files = sorted(file for file in directory.rglob("*") if file.is_file())
    return {str(file.relative_to(directory)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_same_seed_same_bytes_and_another_seed_other_bytes(written: Path, tmp_path: Path) -> None:
    simulate(tmp_path / "a" / "tables", tmp_path / "a" / "truth", SMALL, seed=5)
    simulate(tmp_path / "b" / "tables", tmp_path / "b" / "truth", SMALL, seed=6)
    assert digests(tmp_path / "a") == digests(written)
    other = digests(tmp_path / "b")
    assert other["tables/icu/chartevents.parquet"] != digests(written)["tables/icu/chartevents.parquet"]


def test_truth_below_the_tables_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="may not lie below"):
        simulate(tmp_path, tmp_path / "truth", HospitalConfig(n_stays=1), seed=0)
    assert not list(tmp_path.iterdir())


def test_nothing_of_the_truth_is_in_the_tables(written: Path) -> None:
    tables = {column for file in (written / "tables").rglob("*.parquet") for column in pq.read_schema(file).names}
    truth = set(pq.read_schema(written / "truth" / "decisions.parquet").names)
    assert truth & tables == {"stay_id"}


def test_clinicians_rollout_is_what_simulate_wrote(written: Path) -> None:
    stays = pq.read_table(written / "truth" / "stays.parquet").to_pandas()
    truth = rollout(None, 40, 5, SMALL)
    assert truth.n == len(stays) == 40
    assert truth.survival == 1 - stays["died_in_hospital"].mean()


def test_recorded_outcomes_are_those_of_the_truth(written: Path) -> None:
    stays = pq.read_table(written / "truth" / "stays.parquet").to_pandas().set_index("hadm_id")
    admissions = pq.read_table(written / "tables" / "hosp" / "admissions.parquet").to_pandas().set_index("hadm_id")
    recorded = admissions.loc[stays.index, "hospital_expire_flag"] == 1
    assert (recorded == stays["died_in_hospital"]).all()


def test_batch_features_and_rollout_features_agree() -> None:
    shard = simulation.with_history(simulation.admit(40, 0, 0, 3, small(40)))
    end = simulation.course(shard, simulation.clinicians_decide, simulation.MAX_HOURS)
    assert end.record is not None
    charted = simulation.charted_rows(end.record, end.outcomes.out_hour)
    tables, _ = mimic_iv.canonical(frames(layout.tables(charted, shard.population, end.outcomes, 0)))
    given = ActionConfig(in_state=True)
    batch = features.states(tables, tables.stays["intime"].to_numpy(), GRID.hours, GRID, given)
    row = pd.Index(tables.stays["stay_id"]).get_indexer(shard.population.stay_id)
    chart, compared = Chart(GRID, given), 0

    def decide(moment: simulation.Moment) -> simulation.Choice:
        nonlocal compared
        if moment.hour < GRID.horizon_hours:
            seen = chart.states(moment)
            np.testing.assert_allclose(seen, batch.value[row[moment.rows], moment.hour // 4], rtol=0, atol=1e-5)
            compared += int(np.isfinite(seen).sum())
        return simulation.clinicians_decide(moment)

    simulation.course(shard, decide, GRID.horizon_hours)
    assert compared > 10_000


def test_a_policy_is_asked_only_within_the_horizon_and_the_stay() -> None:
    policy = Always(0)
    config = small(20)
    rollout(policy, 20, 1, config, grid=GridConfig(horizon_hours=8))
    shard = simulation.admit(20, 0, 0, 1, config)

    def nothing(moment: simulation.Moment) -> simulation.Choice:
        if moment.hour >= 8:
            return simulation.clinicians_decide(moment)
        return simulation.choice(np.zeros(len(moment.rows), np.int64), moment.uniform)

    out = simulation.course(shard, nothing).outcomes.out_hour
    assert policy.seen == (out > 0).sum() + (out > 4).sum()


def test_the_same_seed_gives_the_same_value() -> None:
    config, grid = small(15), GridConfig(horizon_hours=8)
    assert rollout(Always(11), 15, 4, config, grid=grid) == rollout(Always(11), 15, 4, config, grid=grid)


def test_maximum_dose_kills() -> None:
    config = small(60)
    assert rollout(Always(24), 60, 2, config).survival < rollout(None, 60, 2, config).survival - 0.2


def test_probabilities_that_do_not_sum_to_one_are_refused() -> None:
    class Half(Always):
        def probs(self, state: np.ndarray) -> np.ndarray:
            return super().probs(state) / 2

    with pytest.raises(InputError, match="do not sum to 1"):
        rollout(Half(0), 5, 0, small(5))


def test_another_step_than_the_hospitals_is_refused() -> None:
    with pytest.raises(ConfigError, match="decides every 4 h"):
        rollout(None, 5, 0, grid=GridConfig(step_hours=1))


def fitted(**changes: object) -> Dictionary:
    """A cohort's dictionary; its fluid bins are far above the nominal ones."""
    d = len(features.FEATURES)
    scaler = Scaler(np.zeros(d), np.ones(d), np.zeros(d, bool))
    made = Dictionary(
        features.FEATURES, features.typical(), scaler, 4.0, (300.0, 400.0, 500.0), (0.0, 200.0, 350.0, 450.0, 600.0),
        (0.033, 0.094, 0.218), (0.0, 0.02, 0.06, 0.15, 0.36),
    )  # fmt: skip
    return replace(made, **changes)


def test_a_policys_bins_are_given_on_its_own_edges() -> None:
    policy = Always(10)  # fluid bin 2
    policy.dictionary = fitted()
    shard = simulation.admit(20, 0, 0, 1, small(20))
    given: list[np.ndarray] = []
    decides = PolicyDecides(policy, GRID)

    def watch(moment: simulation.Moment) -> simulation.Choice:
        made = decides(moment)
        if moment.hour < 8:
            given.append(made.fluid_ml_h)
        return made if moment.hour < 8 else simulation.clinicians_decide(moment)

    simulation.course(shard, watch, 8)
    doses = np.concatenate(given)
    assert len(doses) > 20
    assert doses.min() >= 300
    assert doses.max() <= 400


def test_a_policy_fitted_with_the_doses_before_sees_what_it_gave() -> None:
    seen: list[np.ndarray] = []

    class Watches(Always):
        def probs(self, state: np.ndarray) -> np.ndarray:
            seen.append(state)
            return super().probs(state)

    policy, names = Watches(12), features.names(ActionConfig(in_state=True))
    scaler = Scaler(np.zeros(50), np.ones(50), np.zeros(50, bool))
    policy.dictionary = fitted(features=names, imputation=features.typical(names), scaler=scaler)
    rollout(policy, 20, 1, small(20), grid=GridConfig(horizon_hours=12))
    assert [state.shape[1] for state in seen] == [50, 50, 50]
    assert (seen[0][:, 48:] == 0).all()
    fluid, vasopressor = seen[1][:, 48:].T
    assert np.median(fluid) == pytest.approx(350, rel=0.15), "fluid bin 2 of this dictionary is 300 to 400 mL/h"
    assert np.quantile(vasopressor, 0.1) >= 0.03
    assert np.quantile(vasopressor, 0.9) <= 0.1


def test_a_policy_fitted_on_other_steps_or_features_is_refused() -> None:
    policy = Always(0)
    policy.dictionary = fitted(step_hours=1.0)
    with pytest.raises(ConfigError, match="fitted on steps of 1 h"):
        rollout(policy, 5, 0, small(5))
    policy.dictionary = fitted(features=("lactate",))
    with pytest.raises(InputError, match="other features"):
        rollout(policy, 5, 0, small(5))


def test_returns_add_up_by_hand() -> None:
    shard = simulation.admit(3, 0, 0, 0, small(3))
    ends = simulation.course(shard, simulation.clinicians_decide).outcomes
    fixed = type(ends)(
        out_hour=np.array([10.0, 100.0, 400.0]),
        dischtime=ends.dischtime,
        deathtime=ends.deathtime,
        dod=ends.dod,
        died_in_hospital=np.array([True, False, False]),
        died_in_icu=np.array([True, False, False]),
    )
    got = stay_returns(fixed, GRID, RewardConfig(cost_per_icu_hour=0.001, tail_cap_hours=240))
    np.testing.assert_allclose(got, [-1 - 0.010, 1 - 0.072 - 0.028, 1 - 0.072 - 0.240], atol=1e-6)


def test_propensities_are_the_frequencies(decisions: pd.DataFrame) -> None:
    """Over many windows the chosen bins come up as often as their recorded propensities say."""
    propensity = decisions[[f"propensity_{a:02d}" for a in range(25)]].to_numpy(np.float64)
    np.testing.assert_allclose(propensity.sum(axis=1), 1, atol=1e-5)
    assert propensity.min() > 0
    chosen = np.eye(25)[5 * decisions["fluid_bin"] + decisions["vasopressor_bin"]]
    spread = np.sqrt((propensity * (1 - propensity)).sum(axis=0))
    z = (chosen.sum(axis=0) - propensity.sum(axis=0)) / spread
    assert np.abs(z).max() < 4.5
    assert (z**2).mean() < 2.5


def test_styles_come_up_as_their_shares_say(decisions: pd.DataFrame) -> None:
    shifts = decisions[decisions["hour"] % simulation.SHIFT_HOURS == 0]
    found = shifts["style"].value_counts(normalize=True)
    for name, share in zip(STYLES, shares(), strict=True):
        assert abs(found[name] - share) < 4.5 * np.sqrt(share * (1 - share) / len(shifts))


def test_doses_lie_in_their_bins(decisions: pd.DataFrame) -> None:
    fluid = pd.cut(decisions["fluid_ml_h"], [-1, 0, 71 / 4, 60, 126, 1e9], labels=False)
    pressor = pd.cut(decisions["vasopressor_ug_kg_min"], [-1, 0, 0.033, 0.094, 0.218, 1e9], labels=False)
    assert (fluid == decisions["fluid_bin"]).all()
    assert (pressor == decisions["vasopressor_bin"]).all()


def test_the_confounder_makes_the_ill_looking_get_more() -> None:
    def doses(strength: float) -> tuple[float, float]:
        shard = simulation.admit(
            150, 0, 0, 8, HospitalConfig(shard_stays=150, longest_stay_hours=24, hidden_confounder=strength)
        )
        log = simulation.DecisionLog()
        simulation.course(shard, log)
        first = log.decisions()
        ill = first.latent.damage > 1.0
        early = first.hour < 24
        return float(first.fluid[early & ill].mean()), float(first.fluid[early & ~ill].mean())

    without, with_it = doses(0.0), doses(1.5)
    assert with_it[0] - with_it[1] > without[0] - without[1] + 0.3


def test_reading_only_the_new_rows_gives_the_tables_of_reading_all() -> None:
    """Many drips lack their weight here, so that doses depend on weights charted long before."""
    faults = FaultConfig(missing_weight=0.2)
    config = HospitalConfig(shard_stays=25, longest_stay_hours=40, charting=ChartingConfig(faults=faults))
    chart, compared = Chart(GRID), 0

    def decide(moment: simulation.Moment) -> simulation.Choice:
        nonlocal compared
        if moment.hour <= 24:
            piecewise = chart.canonical(moment)
            assert moment.record is not None
            whole, _ = mimic_iv.canonical(raw_tables(moment.shard, moment.record, moment.hour))
            now = moment.shard.population.intime + np.timedelta64(moment.hour, "h")
            for name in ("observations", "outputs", "infusions"):
                got, expected = getattr(piecewise, name), getattr(whole, name)
                if name == "observations":  # a ventilation that still runs is cut at now, which nobody reads
                    until = pd.Series(now, moment.shard.population.stay_id)
                    expected = expected[expected["charted"].to_numpy() < until[expected["stay_id"]].to_numpy()]
                pd.testing.assert_frame_equal(plain(got), plain(expected))
                compared += len(got)
        return simulation.choice(np.full(len(moment.rows), 12), moment.uniform)  # a vasopressor for all

    simulation.course(simulation.admit(25, 0, 0, 3, config), decide, 28)
    assert compared > 10_000


def plain(table: pd.DataFrame) -> pd.DataFrame:
    """Rows in one order, texts as texts."""
    texts = {name: "object" for name in table if isinstance(table[name].dtype, pd.CategoricalDtype)}
    return table.astype(texts).sort_values(list(table.columns)).reset_index(drop=True)
