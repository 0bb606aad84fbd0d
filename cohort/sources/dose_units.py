"""Dose units: infusions' and urine's numbers by unit, known and unknown, and what an unknown unit could be."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from cohort.sources import doses, items, normalise
from cohort.sources.doses import DRUGS, FLUID, FLUID_RATE, URINE, Orders
from cohort.sources.measurements import HOUR, codes

POWERS = (1e-3, 1e-2, 0.1, 10.0, 100.0, 1e3)


@dataclass(frozen=True)
class Numbers:
    """Numbers of one concept in one unit, in the canonical unit where the unit is known."""

    concept: str
    unit: str
    known: bool
    value: Float[np.ndarray, "n"]


def of_infusions(
    raw: pd.DataFrame, table: str, drugs: tuple[items.Drug, ...], fluids: tuple[items.Fluid, ...]
) -> Iterator[Numbers]:
    """The amounts (mL) and rates of fluids, and the rates of drugs; a rate that is not by kg is one of 80 kg here."""
    rows = normalise.of_items(raw, table, items.ids(drugs) | items.ids(fluids))
    if "statusdescription" in rows:
        rows = normalise.without_rewritten(rows, table, Counter())
    orders = _orders(rows, table)
    compiled = doses.compile_items(drugs, fluids)
    code = codes(compiled.drug_of, orders.item)
    fluid, poured = code < doses.FLUIDS, ~np.isnan(orders.amount)
    by_amount = fluid & poured
    yield from _by_unit(
        FLUID, doses.amount_ml(orders, compiled), orders.amount, orders.amount_unit, orders.amount_units, by_amount
    )
    by_rate = fluid & ~poured
    per_hour = doses.ml_per_hour(orders.rate_units)[orders.rate_unit] * orders.rate
    yield from _by_unit(FLUID_RATE, per_hour, orders.rate, orders.rate_unit, orders.rate_units, by_rate)
    mass, international, per_kg = (part[code, orders.rate_unit] for part in doses.rate_units(orders.rate_units))
    for number in np.unique(code[~fluid]):
        units = DRUGS[number] == "vasopressin"
        gain = international if units else np.where(per_kg, mass, mass / items.units().assumed_weight_kg)
        mine = code == number
        yield from _by_unit(DRUGS[number], gain * orders.rate, orders.rate, orders.rate_unit, orders.rate_units, mine)


def of_urine(raw: pd.DataFrame, table: str, rule: items.Urine) -> Iterator[Numbers]:
    """The volumes of urine, in mL."""
    rows = normalise.of_items(raw, table, frozenset((*rule.ids, *rule.irrigant)))
    value = normalise.numbers(rows, table, "value")
    unit, spellings = normalise.words(normalise.column(rows, table, "valueuom"))
    scale = doses.volumes(URINE)
    gain = np.array([*(scale.get(items.spelling(spelt), np.nan) for spelt in spellings), 1.0])[unit]
    yield from _by_unit(URINE, gain * value, value, unit, spellings, np.ones(len(value), dtype=bool))


def candidates(concept: str) -> list[tuple[str, float, float]]:
    """(known unit that it is like, factor, offset) of every conversion that a unit of the concept could have."""
    if concept in (FLUID, URINE):
        found = [(row.spellings[0], row.ml, 0.0) for row in items.units().volumes]
        return found + [(f"mL x {power:g}", power, 0.0) for power in POWERS if power not in {row[1] for row in found}]
    if concept == FLUID_RATE:
        return [("mL/hour", 1.0, 0.0), *((f"mL/hour x {power:g}", power, 0.0) for power in POWERS)]
    kind = "units" if concept == "vasopressin" else "mass"
    weight = 1.0 if kind == "units" else items.units().assumed_weight_kg
    rates = [row for row in items.units().rates if row.kind == kind]
    return [(r.spellings[0], r.amount / r.minutes / (1.0 if r.per_kg else weight), 0.0) for r in rates]


def _orders(rows: pd.DataFrame, table: str) -> Orders:
    """Infusion rows of any layout, their times left out."""
    amount_unit, amount_units = normalise.words(normalise.column(rows, table, "amountuom"))
    rate_unit, rate_units = normalise.words(normalise.column(rows, table, "rateuom"))
    item = normalise.integers(rows, table, "itemid")
    none, nothing = np.zeros(len(item), dtype=np.int64), np.full(len(item), np.nan)
    amount, rate = (normalise.numbers(rows, table, name) for name in ("amount", "rate"))
    return Orders(
        table, none, item, none, none + HOUR, amount, amount_unit, amount_units, rate, rate_unit, rate_units,
        nothing, none, none,
    )  # fmt: skip


def _by_unit(
    concept: str,
    canonical: Float[np.ndarray, "n"],
    written: Float[np.ndarray, "n"],
    unit: Int[np.ndarray, "n"],
    spellings: tuple[str, ...],
    mine: Bool[np.ndarray, "n"],
) -> Iterator[Numbers]:
    """Zeros tell nothing of a unit; they are counted with it all the same, and left out where units are compared."""
    there: Any = mine & np.isfinite(written) & (written >= 0)
    for code in np.unique(unit[there]):
        rows = there & (unit == code)
        spelt = "" if code < 0 else spellings[code]
        for known in (True, False):
            chosen = rows & (~np.isnan(canonical) == known)
            if chosen.any():
                yield Numbers(concept, spelt, known, (canonical if known else written)[chosen])
