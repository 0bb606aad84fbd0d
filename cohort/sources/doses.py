"""Doses: charted infusions and boluses to canonical infusions (drug rates, tonicity-adjusted fluid), counted."""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from cohort import concepts
from cohort.errors import InputError
from cohort.sources import items
from cohort.sources.measurements import HOUR, MINUTE, NAT, Accepted, categorical, codes, id_table
from cohort.tables import Counts

DRUGS = (
    "fluid", "d5w", "norepinephrine", "epinephrine", "phenylephrine", "dopamine", "vasopressin", "angiotensin_ii",
    "dobutamine",
)  # fmt: skip
FLUID, FLUID_RATE, URINE = "fluid", "fluid_rate", "urine"
"""What the units of volumes and of a fluid's rate are reviewed under; a drug's rate is reviewed under its name."""
FLUIDS = 2
"""The first two of DRUGS are fluids."""
RATED = DRUGS[FLUIDS:]
UNREADABLE = (
    "unit not known", "negative amount or rate", "amount or rate not finite", "start or end missing",
    "end not after start",
)  # fmt: skip
"""Why a dose cannot be read, as counted after `fluid: ` or `drug: `."""


@dataclass(frozen=True)
class Orders:
    """Raw infusion rows of one table. Times are microseconds since 1970, NAT where missing."""

    table: str
    stay: Int[np.ndarray, "n"]
    item: Int[np.ndarray, "n"]
    start: Int[np.ndarray, "n"]
    end: Int[np.ndarray, "n"]
    amount: Float[np.ndarray, "n"]
    amount_unit: Int[np.ndarray, "n"]
    amount_units: tuple[str, ...]
    rate: Float[np.ndarray, "n"]
    rate_unit: Int[np.ndarray, "n"]
    rate_units: tuple[str, ...]
    weight: Float[np.ndarray, "n"]
    """The row's own weight in kg, NaN where there is none."""
    order: Int[np.ndarray, "n"]
    """Order id, -1 where there is none."""
    link: Int[np.ndarray, "n"]
    """The first order of the chain that an order continues, -1 where there is none."""

    def __getitem__(self, rows: np.ndarray) -> "Orders":
        columns = (self.stay, self.item, self.start, self.end, self.amount, self.amount_unit, self.rate, self.rate_unit)
        stay, item, start, end, amount, amount_unit, rate, rate_unit = (column[rows] for column in columns)
        return Orders(
            self.table, stay, item, start, end, amount, amount_unit, self.amount_units, rate, rate_unit,
            self.rate_units, self.weight[rows], self.order[rows], self.link[rows],
        )  # fmt: skip


@dataclass(frozen=True)
class Weights:
    """Charted weights, in order of stay and time."""

    stay: Int[np.ndarray, "w"]
    available: Int[np.ndarray, "w"]
    kg: Float[np.ndarray, "w"]

    def before(self, stay: Int[np.ndarray, "n"], moment: Int[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        """The last weight of each stay that was available at the moment, NaN where none was."""
        found = np.full(len(stay), np.nan)
        if not len(self.stay):
            return found
        everything = np.r_[self.available, moment]
        stays = np.r_[self.stay, stay]
        query = np.r_[np.zeros(len(self.stay), dtype=bool), np.ones(len(stay), dtype=bool)]
        order = np.lexsort((query, everything, stays))
        last = np.maximum.accumulate(np.where(query[order], -1, np.arange(len(order))))
        asked = query[order] & (last >= 0)
        source, target = order[last[asked]], order[asked] - len(self.stay)
        same = self.stay[source] == stay[target]
        found[target[same]] = self.kg[source[same]]
        return found


@dataclass(frozen=True)
class Compiled:
    """Item id -> drug, and the fluid factors by item."""

    drug_of: Int[np.ndarray, "ids"]
    factor: Float[np.ndarray, "ids"]
    ml_per_meq: Float[np.ndarray, "ids"]
    ml_per_gram: Float[np.ndarray, "ids"]


def give(
    orders: Orders, drugs: tuple[items.Drug, ...], fluids: tuple[items.Fluid, ...], weights: Weights,
    counts: Counts, accepted: Accepted = (),
) -> pd.DataFrame:  # fmt: skip
    """Canonical infusions (columns of the schema; `stay_id` holds the stay's index) of sound rows.

    Fluid runs at amount over duration times its tonicity factor, so that its volume is exact; a drug at its charted
    rate. Rows without a positive duration are dropped; those of an unknown unit or a number that cannot be keep their
    times, their rate being missing; overlaps of one order are clipped.

    Args:
        orders: rows whose item is a drug's or a fluid's.
        drugs, fluids: the dictionary's.
        weights: for doses per minute whose row has no weight.
        counts: (table, reason) -> rows; added to.
        accepted: further units, as a reviewer accepted them.
    """
    compiled = compile_items(drugs, fluids)
    orders = _lasting(orders, codes(compiled.drug_of, orders.item) < FLUIDS, counts)
    code = codes(compiled.drug_of, orders.item)
    fluid = code < FLUIDS
    sound = ~_impossible(orders, fluid, counts)
    rate = np.full(len(code), np.nan)
    weight, assumed = np.full(len(code), np.nan), np.zeros(len(code), dtype=bool)
    fluids_read, drugs_read = fluid & sound, ~fluid & sound
    rate[fluids_read] = _fluid_rate(orders[fluids_read], compiled, counts, accepted)
    rate[drugs_read], weight[drugs_read], assumed[drugs_read] = _drug_rate(
        orders[drugs_read], code[drugs_read], weights, counts, accepted
    )
    end = orders.end.copy()
    end[sound] = _clipped_end(orders[sound], counts)
    said = ~sound | ~(np.isnan(orders.amount) & np.isnan(orders.rate))
    return frame(replace(orders, end=end), code, rate, weight, assumed, (end > orders.start) & said)


def frame(
    orders: Orders,
    code: Int[np.ndarray, "n"],
    rate: Float[np.ndarray, "n"],
    weight: Float[np.ndarray, "n"],
    assumed: Bool[np.ndarray, "n"],
    kept: Bool[np.ndarray, "n"],
) -> pd.DataFrame:
    """The canonical infusions table of the rows `kept`, `stay_id` being the stay's index."""
    left = orders[kept]
    order = pd.array(left.order, dtype="Int64")
    order[left.order < 0] = pd.NA
    return pd.DataFrame(
        {
            "stay_id": left.stay.astype(np.int64),
            "drug": categorical(code[kept], DRUGS),
            "item_id": left.item.astype(np.int64),
            "start": left.start.view("datetime64[us]"),
            "end": left.end.view("datetime64[us]"),
            "rate": np.where(np.isinf(left.rate), np.nan, left.rate),
            "rate_unit": categorical(left.rate_unit, left.rate_units),
            "amount": np.where(np.isinf(left.amount), np.nan, left.amount),
            "amount_unit": categorical(left.amount_unit, left.amount_units),
            "normalised_rate": rate[kept],
            "weight_kg": weight[kept],
            "weight_assumed": assumed[kept],
            "order_id": order,
        }
    )


def _lasting(orders: Orders, fluid: Bool[np.ndarray, "n"], counts: Counts) -> Orders:
    """Rows with a start before an end."""
    missing = (orders.start == NAT) | (orders.end == NAT)
    backwards = ~missing & (orders.end <= orders.start)
    _add_by_kind(counts, orders.table, "start or end missing", missing, fluid)
    _add_by_kind(counts, orders.table, "end not after start", backwards, fluid)
    kept = ~missing & ~backwards
    return orders if kept.all() else orders[kept]


def _impossible(orders: Orders, fluid: Bool[np.ndarray, "n"], counts: Counts) -> Bool[np.ndarray, "n"]:
    """Where an amount or a rate is negative or infinite."""
    numbers = (orders.amount, orders.rate)
    negative = np.any([number < 0 for number in numbers], axis=0)
    infinite = np.any([np.isinf(number) for number in numbers], axis=0) & ~negative
    _add_by_kind(counts, orders.table, "negative amount or rate", negative, fluid)
    _add_by_kind(counts, orders.table, "amount or rate not finite", infinite, fluid)
    impossible: np.ndarray = negative | infinite
    return impossible


def _clipped_end(orders: Orders, counts: Counts) -> Int[np.ndarray, "n"]:
    """Each row's end, brought forward to the next start of the same order of the same item where they overlap."""
    end = orders.end.copy()
    order = np.lexsort((end, orders.start, orders.link, orders.item, orders.stay))
    if len(order) < 2:
        return end
    now, later = order[:-1], order[1:]
    same = (orders.link[now] == orders.link[later]) & (orders.link[now] >= 0)
    same &= (orders.item[now] == orders.item[later]) & (orders.stay[now] == orders.stay[later])
    overlap = same & (orders.start[later] < end[now])
    whole = overlap & (orders.start[later] <= orders.start[now])
    end[now[overlap]] = orders.start[later[overlap]]
    _add(counts, orders.table, "overlaps a later row of its order: clipped", overlap & ~whole)
    _add(counts, orders.table, "overlaps a later row of its order: dropped", whole)
    return end


def _fluid_rate(orders: Orders, compiled: Compiled, counts: Counts, accepted: Accepted) -> Float[np.ndarray, "n"]:
    """Tonicity-adjusted mL/h: the amount over the duration; the charted rate where there is no amount."""
    hours = (orders.end - orders.start) / HOUR
    millilitres = amount_ml(orders, compiled, accepted)
    by_rate = ml_per_hour(orders.rate_units, accepted)[orders.rate_unit] * orders.rate
    rate = np.where(np.isnan(orders.amount), by_rate, millilitres / hours)
    nothing = np.isnan(orders.amount) & np.isnan(orders.rate)
    _add(counts, orders.table, "fluid: neither amount nor rate", nothing)
    _add(counts, orders.table, "fluid: unit not known", np.isnan(rate) & ~nothing)
    tonic: np.ndarray = rate * compiled.factor[orders.item]
    return tonic


def amount_ml(orders: Orders, compiled: Compiled, accepted: Accepted = ()) -> Float[np.ndarray, "n"]:
    """The amount in mL, NaN where its unit is not known for the fluid. An empty unit is mL."""
    spelt = [items.spelling(unit) for unit in orders.amount_units]
    volume = volumes(FLUID, accepted)
    factor = np.array([*(volume.get(unit, np.nan) for unit in spelt), 1.0])[orders.amount_unit]
    for names, table in (({"meq", "meq."}, compiled.ml_per_meq), ({"grams", "gram", "g"}, compiled.ml_per_gram)):
        named = np.array([*(unit in names for unit in spelt), False])[orders.amount_unit]
        factor = np.where(named, table[orders.item], factor)
    millilitres: np.ndarray = orders.amount * factor
    return millilitres


def volumes(concept: str, accepted: Accepted = ()) -> dict[str, float]:
    """Spelling -> mL in one, for `fluid` or `urine`."""
    known = {items.spelling(s): row.ml for row in items.units().volumes for s in row.spellings}
    return {items.spelling(unit): ml for name, unit, ml, _, _ in accepted if name == concept} | known


def ml_per_hour(spellings: tuple[str, ...], accepted: Accepted = ()) -> Float[np.ndarray, "units"]:
    """mL/h in one of each unit of a fluid's rate, NaN where it is not known; the last entry is the empty unit."""
    known = {items.spelling(unit): gain for name, unit, gain, _, _ in accepted if name == FLUID_RATE}
    known |= {items.spelling(s): 1.0 for s in ("mL/hour", "mL/hr", "mL/h")}
    return np.array([known.get(items.spelling(unit), np.nan) for unit in (*spellings, "")])


def _drug_rate(
    orders: Orders, code: Int[np.ndarray, "n"], weights: Weights, counts: Counts, accepted: Accepted
) -> tuple[Float[np.ndarray, "n"], Float[np.ndarray, "n"], Bool[np.ndarray, "n"]]:
    """ug/kg/min (vasopressin U/min), the weight it was divided by (NaN: by none), and whether that was assumed."""
    unit_of = (code, orders.rate_unit)
    micrograms, units_per_minute, per_kg = (table[unit_of] for table in rate_units(orders.rate_units, accepted))
    vasopressin = code == DRUGS.index("vasopressin")
    gain = np.where(vasopressin, units_per_minute, micrograms)
    rate = orders.rate * gain
    poured = np.isnan(orders.rate) & ~np.isnan(orders.amount)
    rate = np.where(poured, _rate_of_amount(orders, vasopressin), rate)
    missing = np.isnan(orders.rate) & ~poured
    _add(counts, orders.table, "drug: neither amount nor rate", missing)
    _add(counts, orders.table, "drug: unit not known", np.isnan(rate) & ~missing)
    _add(counts, orders.table, "drug: no rate, its amount over its duration used", poured & ~np.isnan(rate))
    fast = vasopressin & (rate > items.units().vasopressin_limit_u_min)
    fast &= units_per_minute == 1
    _add(counts, orders.table, "vasopressin: U/min above 0.2 read as U/h", fast)
    rate = np.where(fast, rate / 60, rate)
    unweighed = (orders.weight == 1) & (micrograms == 1000) & per_kg & ~vasopressin
    _add(counts, orders.table, "drug: mg/kg/min beside a weight of 1 read as ug/kg/min", unweighed)
    rate = np.where(unweighed, rate / 1000, rate)
    divided = ~vasopressin & (~per_kg | poured) & ~np.isnan(rate)
    weight, assumed = _weight(orders, divided, weights, counts)
    return np.where(divided, rate / weight, rate), weight, assumed


def _rate_of_amount(orders: Orders, vasopressin: Bool[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """ug/min (vasopressin U/min) of amounts over their durations, NaN where the unit is not known."""
    spelt = [items.spelling(unit) for unit in orders.amount_units]
    mass = np.array([*({"mg": 1000.0, "mcg": 1.0, "ug": 1.0}.get(unit, np.nan) for unit in spelt), np.nan])
    international = np.array([*(1.0 if unit in {"units", "u", "unit"} else np.nan for unit in spelt), np.nan])
    one = np.where(vasopressin, international[orders.amount_unit], mass[orders.amount_unit])
    rate: np.ndarray = orders.amount * one / ((orders.end - orders.start) / MINUTE)
    return rate


def _weight(
    orders: Orders, divided: Bool[np.ndarray, "n"], weights: Weights, counts: Counts
) -> tuple[Float[np.ndarray, "n"], Bool[np.ndarray, "n"]]:
    """The weight of the rows to be divided by one: their own, else the last known, else the assumed one (flagged)."""
    weight = np.where(divided, plausible_weight(orders.weight), np.nan)
    _add(
        counts, orders.table, "drug: implausible weight not used", divided & np.isnan(weight) & ~np.isnan(orders.weight)
    )
    wanted = np.flatnonzero(divided & np.isnan(weight))
    weight[wanted] = weights.before(orders.stay[wanted], orders.start[wanted])
    assumed = divided & np.isnan(weight)
    _add(counts, orders.table, "drug: no weight, 80 kg assumed", assumed)
    return np.where(assumed, items.units().assumed_weight_kg, weight), assumed


def plausible_weight(kg: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """The weight, NaN outside the dictionary's range."""
    low, high = concepts.load().measured["weight_kg"].range
    return np.where((kg >= low) & (kg <= high), kg, np.nan)


@lru_cache(maxsize=8)
def compile_items(drugs: tuple[items.Drug, ...], fluids: tuple[items.Fluid, ...]) -> Compiled:
    """Lookups by item id."""
    code = {i: DRUGS.index(group.drug) for group in drugs for i in group.ids}
    code |= {i: DRUGS.index(group.drug) for group in fluids for i in group.ids}
    drug_of = id_table(code)
    factor, per_meq, per_gram = (np.full(len(drug_of), np.nan) for _ in range(3))
    for group in fluids:
        factor[list(group.ids)] = group.factor
        per_meq[list(group.ids)] = np.nan if group.ml_per_meq is None else group.ml_per_meq
        per_gram[list(group.ids)] = np.nan if group.ml_per_gram is None else group.ml_per_gram
    return Compiled(drug_of, factor, per_meq, per_gram)


@lru_cache(maxsize=64)
def rate_units(
    spellings: tuple[str, ...], accepted: Accepted = ()
) -> tuple[Float[np.ndarray, "drugs units"], Float[np.ndarray, "drugs units"], Bool[np.ndarray, "drugs units"]]:
    """Micrograms a minute, units a minute and whether by kg, of one in each unit; the last column is the empty unit.

    Raises:
        InputError: a unit was accepted as one that is not known.
    """
    known = {items.spelling(s): row for row in items.units().rates for s in row.spellings}
    alike = {(drug, items.spelling(unit)): items.spelling(like) for drug, unit, _, _, like in accepted if drug in RATED}
    strange = sorted(set(alike.values()) - set(known))
    if strange:
        raise InputError(f"review: like: {strange[0]!r} is no rate of units.yaml")
    shape = len(DRUGS), len(spellings) + 1
    mass, international, per_kg = np.full(shape, np.nan), np.full(shape, np.nan), np.zeros(shape, dtype=bool)
    for column, unit in enumerate(items.spelling(unit) for unit in (*spellings, "")):
        for code, drug in enumerate(DRUGS):
            row = known.get(unit) or known.get(alike.get((drug, unit), ""))
            if row is not None:
                (mass if row.kind == "mass" else international)[code, column] = row.amount / row.minutes
                per_kg[code, column] = row.per_kg
    return mass, international, per_kg


def _add_by_kind(
    counts: Counts, table: str, reason: str, rows: Bool[np.ndarray, "n"], fluid: Bool[np.ndarray, "n"]
) -> None:
    _add(counts, table, f"fluid: {reason}", rows & fluid)
    _add(counts, table, f"drug: {reason}", rows & ~fluid)


def _add(counts: Counts, table: str, reason: str, rows: Bool[np.ndarray, "n"]) -> None:
    count = int(rows.sum())
    if count:
        counts[table, reason] += count
