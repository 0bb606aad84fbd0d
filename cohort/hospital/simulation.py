"""Simulation: the hourly loop over a shard of stays, and the writing of a whole simulated hospital."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Int
from pydantic import Field

from cohort import pieces
from cohort.actions import bin_of
from cohort.config import Config
from cohort.errors import ConfigError
from cohort.hospital import bedside as beds
from cohort.hospital import charting, clinicians, events, infusions, layout, orders, physiology, population, truth
from cohort.hospital.charting import ChartingConfig
from cohort.hospital.clinicians import WINDOW_HOURS, Reading
from cohort.hospital.physiology import Arrays, Latent, Signs, Traits
from cohort.hospital.population import Outcomes, Population
from cohort.hospital.writer import Writer
from cohort.pieces import Pieces
from cohort.workers import each

SHIFT_HOURS = 12
MAX_HOURS = 28 * 24
_POPULATION, _TRAITS, _BEGIN, _BODY, _CHOICE, _CHART, _INFUSE, _SHIFT, _WARD, _ADMIT = range(10)
_FIRST_IMPRESSION_MMHG = 8.0  # SD of what is seen of the pressure on arrival, before the monitor is connected
_MONITOR_MMHG = 1.5
_VASOPRESSIN_U_MIN = 0.03
LONGEST_ADMISSION = np.timedelta64(100, "D")
"""No hospital admission is longer, and nobody returns sooner."""


class HospitalConfig(Config):
    """How large the hospital is, what its clinicians see, and how it charts."""

    n_stays: int = Field(default=2000, ge=1, le=50_000)
    decision_hours: Literal[1, 2, 4] = 4
    """Hours between a policy's decisions; the clinicians decide every four."""
    shard_stays: int = Field(default=1000, ge=1, le=5000)
    hidden_confounder: float = Field(default=0.0, ge=0, le=3)
    """How strongly dosing follows how ill the patient looks, which nobody charts; 0: not at all."""
    longest_stay_hours: int = Field(default=MAX_HOURS, ge=24, le=MAX_HOURS)
    """A stay still running then is moved to another hospital."""
    charting: ChartingConfig = ChartingConfig()
    format: Literal["parquet", "csv.gz"] = "parquet"


@dataclass(frozen=True)
class Shard:
    """One shard of stays at admission, and all that its randomness comes from."""

    number: int
    seed: int
    config: HospitalConfig
    population: Population
    traits: Traits

    @property
    def n(self) -> int:
        """Number of stays."""
        return self.population.n

    def rng(self, hour: int, stream: int) -> np.random.Generator:
        """The generator of one hour and one purpose: draws never depend on who is present or what was given."""
        return np.random.default_rng([self.seed, self.number, hour + 1000, stream])


@dataclass(frozen=True)
class Choice(Arrays):
    """Doses for the coming window."""

    fluid: Int[np.ndarray, "n"]
    """Bin on the simulator's nominal edges, 0 to 4."""
    vasopressor: Int[np.ndarray, "n"]
    fluid_ml_h: Float[np.ndarray, "n"]
    vasopressor_ug_kg_min: Float[np.ndarray, "n"]


@dataclass(frozen=True)
class Moment:
    """A decision time: who is there, what a clinician sees, and the draws that a choice may use."""

    shard: Shard
    hour: int
    rows: Int[np.ndarray, "k"]
    """Positions of the stays present, which everything below is about."""
    reading: Reading
    latent: Latent
    running: Choice
    """The doses that run until now; bin -1 at admission."""
    uniform: Float[np.ndarray, "u k"]
    """Four uniforms a stay: style, action, fluid dose, vasopressor dose."""
    record: "Record | None"


Decide = Callable[[Moment], Choice]


@dataclass
class Record:
    """What is charted of a shard while it runs."""

    bedside: beds.Bedside
    charted: list[events.Events] = field(default_factory=list)
    given: list[orders.Infusions] = field(default_factory=list)


@dataclass(frozen=True)
class Course:
    """A shard's stays from admission to their ends."""

    outcomes: Outcomes
    record: Record | None


def shards(n_stays: int, seed: int, config: HospitalConfig) -> Iterator[Shard]:
    """The hospital's stays, shard by shard; every stay has a patient of its own until `with_history` links them."""
    for number, first in enumerate(range(0, n_stays, config.shard_stays)):
        yield admit(min(config.shard_stays, n_stays - first), first, number, seed, config)


def admit(n: int, first_stay: int, number: int, seed: int, config: HospitalConfig) -> Shard:
    """One shard's stays."""
    people = population.sample(n, first_stay, np.random.default_rng([seed, number, 0, _POPULATION]))
    body = physiology.traits(people, np.random.default_rng([seed, number, 0, _TRAITS]))
    return Shard(number, seed, config, people, body)


def with_history(shard: Shard, history: "Course | None" = None) -> Shard:
    """Returning patients linked to their earlier stay where they left it alive under the clinicians.

    Whether a stay has an earlier one in the record is part of its state, so it may not depend on the policy that is
    tried: what happened before was the clinicians' doing.
    """
    people = shard.population
    if (people.returns_from < 0).all():
        return shard
    if history is None:
        history = course(shard, clinicians_decide)
    return replace(shard, population=population.link(people, ~history.outcomes.died_in_hospital))


def course(shard: Shard, decide: Decide, charted_hours: int = 0) -> Course:
    """Run a shard to the end of every stay, charting its first `charted_hours` hours."""
    run = _Run.of(shard, charted_hours)
    longest = shard.config.longest_stay_hours
    for hour in range(longest):
        rows = np.flatnonzero(run.present)
        if hour % shard.config.decision_hours == 0:
            run.close_window(hour)
            if len(rows):
                run.open_window(hour, rows, decide)
        if not len(rows):
            break
        run.hour(hour, rows)
    else:
        run.close_window(longest)
    return Course(_outcomes(shard, run), run.record)


def clinicians_decide(moment: Moment) -> Choice:
    """The attendings on shift choose; between their rounds what runs goes on."""
    if moment.hour % WINDOW_HOURS:
        return moment.running
    style = moment_style(moment)
    probability = clinicians.all_propensities(moment.reading)[np.arange(len(moment.rows)), style]
    action = clinicians.choose(probability.reshape(len(style), -1), moment.uniform[1])
    return choice(action, moment.uniform)


def moment_style(moment: Moment) -> Int[np.ndarray, "k"]:
    """Which style attends each stay: position in STYLES."""
    return clinicians.choose(np.tile(clinicians.shares(), (len(moment.rows), 1)), moment.uniform[0])


def choice(
    action: Int[np.ndarray, "k"],
    uniform: Float[np.ndarray, "u k"],
    fluid_edges_ml_h: tuple[float, ...] = clinicians.FLUID_EDGES_ML_H,
    vasopressor_edges_ug_kg_min: tuple[float, ...] = clinicians.VASOPRESSOR_EDGES_UG_KG_MIN,
) -> Choice:
    """Doses drawn inside the bins of 5 * fluid + vasopressor; the bins kept are those on the nominal edges."""
    chosen = np.divmod(action, clinicians.BINS)
    fluid = clinicians.fluid_dose(chosen[0], uniform[2], fluid_edges_ml_h)
    vasopressor = clinicians.vasopressor_dose(chosen[1], uniform[3], vasopressor_edges_ug_kg_min)
    return Choice(
        bin_of(fluid, clinicians.FLUID_EDGES_ML_H),
        bin_of(vasopressor, clinicians.VASOPRESSOR_EDGES_UG_KG_MIN),
        fluid,
        vasopressor,
    )


def simulate(
    tables_out: Path,
    truth_out: Path,
    config: HospitalConfig,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
    workers: int = 1,
    work: Path | None = None,
) -> dict[str, int]:
    """Write a hospital in MIMIC-IV layout under `tables_out` and its truth under `truth_out`; returns rows per table.

    Args:
        tables_out, truth_out: directories to make.
        config: the hospital.
        seed: all its randomness.
        progress: called with (stays done, stays in all).
        workers: processes over the shards; they change nothing in the result.
        work: where finished shards outlive this process if it is killed, and are found by the next.

    Raises:
        ConfigError: the truth would lie where a stage that reads the tables could find it.
    """
    if truth_out.resolve().is_relative_to(tables_out.resolve()):
        raise ConfigError(f"{truth_out}: the truth may not lie below the tables' directory {tables_out}")
    rows: Counter[str] = Counter()
    numbers = range(-(-config.n_stays // config.shard_stays))
    with (
        pieces.kept_in(work, tables_out) as kept,
        Writer(tables_out, config.format) as writer,
        truth.Writer(truth_out) as keeper,
    ):
        missing = [number for number in numbers if not kept.has(_piece(number))]
        made = each(partial(_make_shard, kept, config, seed), missing, workers)
        for number in numbers:
            if number in missing:
                next(made)
            tables, known = (_read_tables(kept.path(_piece(number)) / part) for part in ("tables", "truth"))
            writer.write(tables)
            keeper.write(known)
            rows.update({name: table.num_rows for name, table in tables.items()})
            if progress is not None:
                progress(min((number + 1) * config.shard_stays, config.n_stays), config.n_stays)
    return dict(rows)


def _make_shard(kept: Pieces, config: HospitalConfig, seed: int, number: int) -> None:
    """Simulate one shard and keep its tables, and its truth beside them, as a piece."""
    first = number * config.shard_stays
    shard = admit(min(config.shard_stays, config.n_stays - first), first, number, seed, config)
    log = DecisionLog()
    end = course(shard, log, charted_hours=MAX_HOURS)
    people = with_history(shard, end).population
    outcomes = population.die_once(people, end.outcomes)
    assert end.record is not None
    charted = charted_rows(end.record, outcomes.out_hour)
    tables = layout.tables(charted, people, outcomes, shard.number)
    faults = layout.fault_table(charted, people)
    with kept.making(_piece(number)) as piece:
        _write_tables(tables, piece.path / "tables")
        _write_tables(truth.tables(people, shard.traits, outcomes, log.decisions(), faults), piece.path / "truth")


def _piece(number: int) -> str:
    return f"shard-{number:05d}"


def _write_tables(tables: Mapping[str, pa.Table], folder: Path) -> None:
    """Tables by name, as they are: their chunks and codes decide the bytes of the files they end in."""
    for name, table in tables.items():
        path = folder / f"{name}.arrow"
        path.parent.mkdir(parents=True, exist_ok=True)
        with pa.ipc.new_stream(path, table.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as writer:
            writer.write_table(table)


def _read_tables(folder: Path) -> dict[str, pa.Table]:
    tables = {}
    for path in sorted(folder.rglob("*.arrow")):
        with pa.ipc.open_stream(path.read_bytes()) as reader:
            tables[str(path.relative_to(folder).with_suffix(""))] = reader.read_all()
    return tables


def charted_rows(record: Record, out_hour: Float[np.ndarray, "n"]) -> layout.Rows:
    """All rows charted before `out_hour`; a ventilation that still runs ends then."""
    charted = layout.Rows(
        events.concatenate(record.charted),
        orders.concatenate(record.given or [orders.empty()]),
        beds.ventilation(record.bedside, out_hour),
    )
    return layout.trim(charted, out_hour)


class DecisionLog:
    """Lets the clinicians decide and keeps their propensities and the hidden state, for the truth."""

    def __init__(self) -> None:
        self._parts: list[truth.Decisions] = []

    def __call__(self, moment: Moment) -> Choice:
        """Decide as `clinicians_decide` does, and write it down."""
        made = clinicians_decide(moment)
        if moment.hour % WINDOW_HOURS:
            return made
        style = moment_style(moment)
        every = clinicians.all_propensities(moment.reading).reshape(len(style), len(clinicians.STYLES), -1)
        self._parts.append(
            truth.Decisions(
                stay_id=moment.shard.population.stay_id[moment.rows],
                hour=np.full(len(style), moment.hour),
                style=style,
                fluid=made.fluid,
                vasopressor=made.vasopressor,
                fluid_ml_h=made.fluid_ml_h,
                vasopressor_ug_kg_min=made.vasopressor_ug_kg_min,
                propensity=every[np.arange(len(style)), style],
                mixture=np.einsum("s,nsa->na", clinicians.shares(), every),
                latent=moment.latent,
            )
        )
        return made

    def decisions(self) -> "truth.Decisions":
        """All decisions, in time order."""
        return truth.concatenate(self._parts)


@dataclass
class _Run:
    """The moving parts of a shard: arrays over all its stays, changed in place."""

    shard: Shard
    latent: Latent
    signs: Signs
    present: Bool[np.ndarray, "n"]
    out_minute: Int[np.ndarray, "n"]
    died: Bool[np.ndarray, "n"]
    doses: Choice
    urine_ml: Float[np.ndarray, "n"]
    intime_hour: Float[np.ndarray, "n"]
    charted_hours: int
    record: Record | None
    opened: int = -1

    @classmethod
    def of(cls, shard: Shard, charted_hours: int) -> "_Run":
        n, people = shard.n, shard.population
        latent = physiology.begin(shard.traits, shard.rng(0, _BEGIN))
        signs = physiology.circulation(latent, shard.traits, np.zeros(n))
        doses = Choice(np.full(n, -1), np.zeros(n, np.int64), np.zeros(n), np.zeros(n))
        clock = (people.intime - people.intime.astype("datetime64[D]")) / np.timedelta64(1, "h")
        run = cls(
            shard, latent, signs, np.ones(n, bool), np.full(n, shard.config.longest_stay_hours * 60), np.zeros(n, bool),
            doses, WINDOW_HOURS * signs.urine_ml_h, clock, charted_hours, None,
        )  # fmt: skip
        if charted_hours:
            bedside = beds.admit(people, shard.rng(0, _ADMIT))
            run.record = Record(bedside)
            for hour in range(charting.FIRST_HOUR, 0):
                run.chart(hour, np.arange(n))
        return run

    def open_window(self, hour: int, rows: np.ndarray, decide: Decide) -> None:
        draws = self.shard.rng(hour, _CHOICE)
        uniform, noise = draws.random((3, self.shard.n)), draws.standard_normal(self.shard.n)
        shift = self.shard.rng(hour - hour % SHIFT_HOURS, _SHIFT).random(self.shard.n)
        moment = Moment(
            self.shard, hour, rows, self.reading(hour, noise).take(rows), self.latent.take(rows),
            self.doses.take(rows), np.vstack([shift, uniform])[:, rows], self.record,
        )  # fmt: skip
        self.doses.put(rows, decide(moment))
        if hour % WINDOW_HOURS == 0:
            self.urine_ml = np.zeros(self.shard.n)
        self.opened = hour

    def reading(self, hour: int, noise: np.ndarray) -> Reading:
        """What was on the monitor in the hour before, and on arrival a first impression."""
        signs, latent, config = self.signs, self.latent, self.shard.config
        blur = (_FIRST_IMPRESSION_MMHG if hour == 0 else _MONITOR_MMHG) * noise
        ill = 0.8 * (latent.damage - 0.6) + 0.5 * (latent.inflammation - 0.6)
        pulse = physiology.pulse_pressure(signs, self.shard.traits)
        return Reading(
            map=signs.map + blur,
            shock_index=signs.heart_rate / (signs.map + blur + 0.62 * pulse),
            spo2_fio2=signs.spo2 / 100.0 / latent.fio2,
            urine_ml_kg_h=self.urine_ml / WINDOW_HOURS / self.shard.traits.weight_kg,
            fluid=self.doses.fluid,
            vasopressor=self.doses.vasopressor,
            looks_ill=config.hidden_confounder * np.clip(ill, -2, 2),
        )

    def hour(self, hour: int, rows: np.ndarray) -> None:
        draws = self.shard.rng(hour, _BODY)
        normal = draws.standard_normal((physiology.N_NORMALS, self.shard.n))[:, rows]
        uniform = draws.random((physiology.N_UNIFORMS, self.shard.n))[:, rows]
        latent, traits, doses = self.latent.take(rows), self.shard.traits.take(rows), self.doses.take(rows)
        signs = physiology.circulation(latent, traits, doses.vasopressor_ug_kg_min)
        self.signs.put(rows, signs)
        if hour < self.charted_hours:
            self.chart(hour, rows)
        self.urine_ml[rows] += signs.urine_ml_h
        after = physiology.step(
            latent, traits, signs, hour, doses.fluid_ml_h, doses.vasopressor_ug_kg_min, normal, uniform
        )
        ended = physiology.ends(after, traits, signs, hour, (self.intime_hour[rows] + hour) % 24, uniform)
        self.latent.put(rows, after)
        gone = rows[ended.died | ended.discharged]
        self.died[rows] = ended.died
        self.present[gone] = False
        self.out_minute[gone] = hour * 60 + ended.minute[ended.died | ended.discharged]

    def chart(self, hour: int, rows: np.ndarray) -> None:
        assert self.record is not None
        n = self.shard.n
        there = np.zeros(n, bool)
        there[rows] = True
        values = physiology.values(self.latent, self.shard.traits, self.signs)
        on = self.doses.vasopressor_ug_kg_min > 0
        self.record.bedside, made = charting.hour(
            self.record.bedside, hour, there, values, physiology.severity(self.latent, self.signs, on), on,
            self.latent.ventilated > 0.5, self.shard.config.charting, self.shard.rng(hour, _CHART),
        )  # fmt: skip
        self.record.charted.append(made)

    def close_window(self, hour: int) -> None:
        """Write down what the window that ends now gave, to those who were there and for as long as they were."""
        if self.opened < 0 or self.record is None or self.opened >= self.charted_hours:
            return
        minutes = np.clip(self.out_minute - self.opened * 60, 0, (hour - self.opened) * 60)
        self.record.bedside, given = infusions.infuse(
            self.record.bedside, self.opened, minutes, self.doses.fluid_ml_h * minutes / 60.0,
            drug_rates(self.shard, self.doses),
            self.shard.config.charting, self.shard.rng(self.opened, _INFUSE),
        )  # fmt: skip
        self.record.given.append(given)


def drug_rates(shard: Shard, doses: Choice) -> Float[np.ndarray, "n v"]:
    """Which drugs make up the norepinephrine equivalent: columns as orders.DRUGS, their factors from the dictionary.

    Norepinephrine first; some patients are kept on phenylephrine, dopamine or epinephrine, which is a habit of the
    patient's admission and not of the illness; above 0.2 most get vasopressin on top.
    """
    equivalent = doses.vasopressor_ug_kg_min
    habit = (shard.population.hadm_id * 2_654_435_761 % 2**32) / 2**32
    factors = truth.equivalents()
    vasopressin = np.where((equivalent > 0.2) & (habit * 7 % 1 < 0.6), _VASOPRESSIN_U_MIN, 0.0)
    rest = equivalent - vasopressin * factors["vasopressin"]
    bounds = {"norepinephrine": 0.0, "phenylephrine": 0.74, "dopamine": 0.93, "epinephrine": 0.965}
    order = [*bounds.values(), 1.0]
    main = {
        drug: np.where((habit >= order[i]) & (habit < order[i + 1]), rest / factors[drug], 0.0)
        for i, drug in enumerate(bounds)
    }
    return np.stack([vasopressin if drug == "vasopressin" else main[drug] for drug in orders.DRUGS], axis=1)


def _outcomes(shard: Shard, run: _Run) -> Outcomes:
    """What becomes of the patients after the ICU."""
    draws = shard.rng(0, _WARD)
    uniform, days = draws.random((2, shard.n)), draws.exponential(1.0, (3, shard.n))
    people, latent, traits = shard.population, run.latent, shard.traits
    out = people.intime + (run.out_minute * 60_000_000).astype("timedelta64[us]")
    ward_death = ~run.died & (uniform[0] < physiology.ward_death_probability(latent, traits))
    ward_days = np.minimum(np.where(ward_death, 0.3 + 6.0 * days[0], 0.4 + 3.8 * days[1]), 60.0)
    left = np.where(run.died, out, out + _whole_minutes(ward_days))
    dead = run.died | ward_death
    never = np.datetime64("NaT", "us")
    later = ~dead & (uniform[1] < physiology.year_death_probability(latent, traits))
    dod = np.where(dead, left, np.where(later, left + _whole_minutes(np.minimum(1 + 110.0 * days[2], 364.0)), never))
    return Outcomes(
        out_hour=run.out_minute / 60.0,
        dischtime=left,
        deathtime=np.where(dead, left, never),
        dod=dod.astype("datetime64[D]").astype("datetime64[us]"),
        died_in_hospital=dead,
        died_in_icu=run.died,
    )


def _whole_minutes(days: Float[np.ndarray, "n"]) -> np.ndarray:
    return (np.round(days * 24 * 60) * 60_000_000).astype("timedelta64[us]")
