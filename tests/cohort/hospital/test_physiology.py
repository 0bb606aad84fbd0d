"""The simulated body: drugs help and harm, and hazards follow the hidden state."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from cohort import concepts
from cohort.hospital import HospitalConfig, charting, physiology, population, simulation
from cohort.hospital.physiology import Latent, Traits

N = 200
CONFIG = HospitalConfig(n_stays=N, shard_stays=N, longest_stay_hours=48)


@pytest.fixture(scope="module")
def patients() -> tuple[Latent, Traits]:
    shard = simulation.admit(N, 0, 0, 7, CONFIG)
    return physiology.begin(shard.traits, np.random.default_rng(0)), shard.traits


def hours(
    start: Latent,
    traits: Traits,
    count: int,
    fluid_ml_h: float,
    vasopressor: float,
    each: Callable[[Latent], None] | None = None,
) -> Latent:
    """The expected course under constant doses: no noise, nobody put on a ventilator."""
    latent, n = start, len(start.damage)
    quiet, none = np.zeros((physiology.N_NORMALS, n)), np.ones((physiology.N_UNIFORMS, n))
    fluid, pressor = np.full(n, fluid_ml_h), np.full(n, vasopressor)
    for hour in range(count):
        signs = physiology.circulation(latent, traits, pressor)
        latent = physiology.step(latent, traits, signs, hour, fluid, pressor, quiet, none)
        if each is not None:
            each(latent)
    return latent


def pressure(latent: Latent, traits: Traits, vasopressor: float) -> np.ndarray:
    return physiology.circulation(latent, traits, np.full(len(latent.damage), vasopressor)).map


def test_a_vasopressor_raises_pressure_and_more_raises_it_more(patients: tuple[Latent, Traits]) -> None:
    latent, traits = patients
    low, mid, high = (pressure(latent, traits, dose) for dose in (0.0, 0.1, 0.4))
    free = (low > 19) & (high < 169)  # within the model's floor and ceiling
    assert free.mean() > 0.8
    assert (low < mid)[free].all()
    assert (mid < high)[free].all()
    assert (high - mid)[free].mean() < 2 * (mid - low)[free].mean()  # three times more drug, less than twice the effect


def test_the_response_to_a_vasopressor_wears_off(patients: tuple[Latent, Traits]) -> None:
    latent, traits = patients
    used = replace(latent, tolerance=np.full(N, 0.6))
    gain_fresh = pressure(latent, traits, 0.2) - pressure(latent, traits, 0.0)
    gain_used = pressure(used, traits, 0.2) - pressure(used, traits, 0.0)
    free = (pressure(latent, traits, 0.0) > 19) & (pressure(latent, traits, 0.2) < 169)
    assert (gain_used < gain_fresh)[free].all()
    assert hours(latent, traits, 24, 60.0, 0.3).tolerance.mean() > 0.4


def test_shock_untreated_does_damage_that_a_vasopressor_prevents(patients: tuple[Latent, Traits]) -> None:
    latent, traits = patients
    shocked = replace(latent, tone=np.full(N, 0.55), inflammation=np.full(N, 2.0))
    without = hours(shocked, traits, 12, 60.0, 0.0).damage
    treated = hours(shocked, traits, 12, 60.0, 0.15).damage
    assert (treated < without - 0.1).mean() > 0.8


def test_a_vasopressor_without_shock_harms(patients: tuple[Latent, Traits]) -> None:
    mild = np.flatnonzero(patients[1].peak < 0.6)
    latent, traits = patients[0].take(mild), patients[1].take(mild)
    well = replace(latent, tone=np.ones(len(mild)), volume_l=np.zeros(len(mild)))
    rested, dosed = (hours(well, traits, 24, 30.0, dose) for dose in (0.0, 0.5))
    assert (dosed.lactate > rested.lactate + 0.3).all()
    assert (dosed.limb > rested.limb).all()
    assert (dosed.damage > rested.damage).mean() > 0.95


def test_vasopressors_bring_on_fibrillation(patients: tuple[Latent, Traits]) -> None:
    latent, traits = patients
    sinus = replace(latent, fibrillation=np.zeros(N))
    none = np.ones((physiology.N_UNIFORMS, N))
    none[1] = 0.01
    quiet = np.zeros((physiology.N_NORMALS, N))

    def share(dose: float) -> float:
        pressor = np.full(N, dose)
        signs = physiology.circulation(sinus, traits, pressor)
        after = physiology.step(sinus, traits, signs, 0, np.zeros(N), pressor, quiet, none)
        return float(after.fibrillation.mean())

    assert share(0.5) > share(0.0) + 0.2


def test_fluid_helps_the_dry_heart_that_responds_and_not_the_weak_one(patients: tuple[Latent, Traits]) -> None:
    latent, traits = patients
    dry = replace(latent, volume_l=np.full(N, -0.3), tone=np.full(N, 0.95), fibrillation=np.zeros(N))
    full = replace(dry, volume_l=np.full(N, 0.7))
    strong = replace(dry, heart=np.full(N, 1.1)), replace(full, heart=np.full(N, 1.1))
    weak = replace(dry, heart=np.full(N, 0.4)), replace(full, heart=np.full(N, 0.4))

    def gain(pair: tuple[Latent, Latent]) -> tuple[np.ndarray, np.ndarray]:
        before, after = (physiology.circulation(state, traits, np.zeros(N)) for state in pair)
        return after.stroke / before.stroke - 1, after.cvp - before.cvp

    assert (gain(strong)[0] > 0.15).all()  # a responder: more than 15% of stroke volume for a litre
    assert (gain(weak)[0] < 0.15).all()
    assert (gain(weak)[1] > gain(strong)[1]).all()


def test_overload_floods_the_lungs_and_lowers_oxygenation(patients: tuple[Latent, Traits]) -> None:
    latent, traits = patients
    ratios: dict[float, np.ndarray] = {}
    for rate in (20.0, 250.0):
        end = hours(latent, traits, 36, rate, 0.0)
        ratios[rate] = physiology.circulation(end, traits, np.zeros(N)).pao2_fio2
    assert (ratios[250.0] < ratios[20.0]).all()
    assert (ratios[20.0] - ratios[250.0]).mean() > 40


def test_without_fluid_the_inflamed_run_dry_and_their_kidneys_fail(patients: tuple[Latent, Traits]) -> None:
    latent, traits = patients
    septic = replace(latent, inflammation=np.full(N, 2.0))
    dry, given = (hours(septic, traits, 24, rate, 0.05) for rate in (0.0, 90.0))
    assert (dry.volume_l < given.volume_l - 0.3).all()
    assert given.kidney.mean() > dry.kidney.mean() + 0.02


def test_death_follows_damage_and_shock(patients: tuple[Latent, Traits]) -> None:
    latent, traits = patients
    signs = physiology.circulation(latent, traits, np.zeros(N))
    hazard = physiology.death_hazard(latent, traits, signs)
    worse = physiology.death_hazard(replace(latent, damage=latent.damage + 1), traits, signs)
    assert (worse > 2 * hazard).all()
    arrest = physiology.death_hazard(latent, traits, replace(signs, map=np.full(N, 35.0)))
    assert (arrest > 2 * hazard)[signs.map > 45].all()
    ward = physiology.ward_death_probability(replace(latent, damage=latent.damage + 1), traits)
    assert (ward > physiology.ward_death_probability(latent, traits)).all()


def test_nobody_is_discharged_on_a_vasopressor_or_unstable(patients: tuple[Latent, Traits]) -> None:
    latent, traits = patients
    afternoon = np.full(N, 14.0)
    after = hours(replace(latent, stable_hours=np.full(N, 40.0)), traits, 1, 30.0, 0.05)
    assert not physiology.discharge_hazard(after, afternoon, 30).any()
    stable = replace(latent, stable_hours=np.full(N, 40.0))
    by_day = physiology.discharge_hazard(stable, afternoon, 30)
    assert (by_day > physiology.discharge_hazard(stable, np.full(N, 3.0), 30)).all()


def test_events_come_as_often_as_their_hazards_say(patients: tuple[Latent, Traits]) -> None:
    latent, traits = patients
    sick = replace(latent, damage=np.full(N, 4.0), stable_hours=np.zeros(N))
    signs = physiology.circulation(sick, traits, np.zeros(N))
    expected = -np.expm1(-physiology.death_hazard(sick, traits, signs))
    rng, died = np.random.default_rng(3), np.zeros(N)
    for _ in range(200):
        uniform = rng.random((physiology.N_UNIFORMS, N))
        ended = physiology.ends(sick, traits, signs, 10, np.full(N, 12.0), uniform)
        died += ended.died
        assert not (ended.died & ended.discharged).any()
        assert ((ended.minute >= 1) & (ended.minute <= 59)).all()
    spread = np.sqrt((expected * (1 - expected) * 200).sum())
    assert abs(died.sum() - 200 * expected.sum()) < 4.5 * spread


def test_every_signal_that_is_charted_has_a_plausible_value() -> None:
    shard = simulation.admit(N, 0, 0, 7, CONFIG)
    seen: list[dict[str, np.ndarray]] = []

    def watch(moment: simulation.Moment) -> simulation.Choice:
        traits = moment.shard.traits.take(moment.rows)
        signs = physiology.circulation(moment.latent, traits, moment.running.vasopressor_ug_kg_min)
        seen.append(physiology.values(moment.latent, traits, signs))
        return simulation.clinicians_decide(moment)

    simulation.course(shard, watch)
    known = concepts.load().measured
    for name in charting.SIGNALS:
        values = np.concatenate([each[name] for each in seen])
        assert np.isfinite(values).all(), name
        if name in known:
            low, high = known[name].range
            assert low <= values.min(), name
            assert values.max() <= high, name


def test_saturation_is_severinghaus() -> None:
    """Severinghaus 1979, table 1: PO2 26.86 is half saturated, 40 is 75%, 60 is 91%, 100 is 98%."""
    got = physiology.saturation(np.array([26.86, 40.0, 60.0, 100.0]))
    np.testing.assert_allclose(got, [50.0, 75.0, 90.9, 97.7], atol=0.5)


def test_a_returning_patient_keeps_body_and_never_overlaps() -> None:
    people = population.sample(600, 0, np.random.default_rng(1))
    back = np.flatnonzero(people.returns_from >= 0)
    first = people.returns_from[back]
    assert len(back) > 20
    assert not np.isin(first, back).any()
    assert (people.sex_male[back] == people.sex_male[first]).all()
    assert (people.birth_year[back] == people.birth_year[first]).all()
    assert (people.condition[back] == people.condition[first]).all()
    assert (people.intime[back] - people.intime[first] > simulation.LONGEST_ADMISSION).all()
    alive = np.zeros(600, bool)
    assert (population.link(people, alive).subject_id == people.subject_id).all()
    linked = population.link(people, ~alive).subject_id
    assert (linked[back] == linked[first]).all()
    assert len(np.unique(linked)) == 600 - len(back)


def test_earlier_admissions_are_over_before_the_stay() -> None:
    people = population.sample(300, 0, np.random.default_rng(1))
    assert (people.earlier.dischtime < people.intime[people.earlier.stay]).all()
    assert (people.earlier.dischtime > people.earlier.admittime).all()
    assert (people.admittime <= people.intime).all()
    own = people.codes.admission < 0
    assert (people.codes.stay[~own] == people.earlier.stay[people.codes.admission[~own]]).all()
