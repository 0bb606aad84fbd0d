"""Record: how the source charted, counted per shard from canonical tables so that shards can be added up."""

from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int

from cohort import concepts, grid
from cohort.tables import Tables

LONGEST_DELAY_MIN = 2880
"""Delays between charting and storing are counted by the minute up to here; longer ones in the last bin."""


FEWEST_ROWS = 10
SELDOM = "(units of fewer than 10 rows)"


def of(shard: Tables) -> dict[str, Any]:
    """Counts of one shard: rows, units, delays by concept (and of urine), rows outside the stay, conflicts, infusions.

    `delays` holds the minutes that occur and the rows of each, by concept; `conflicts` counts values charted at the
    same moment that differ.
    """
    observations = shard.observations
    stay = grid.stay_rows(observations["stay_id"].to_numpy(), shard.stays["stay_id"].to_numpy())
    charted = grid.microseconds(observations["charted"].to_numpy())
    return {
        "rows": _count(observations["concept"]),
        "units": _units(observations),
        "delays": _delays(observations, charted) | _urine_delays(shard.outputs),
        "before_admission": int((charted < grid.microseconds(shard.stays["intime"].to_numpy())[stay]).sum()),
        "after_discharge": int((charted >= grid.microseconds(shard.stays["outtime"].to_numpy())[stay]).sum()),
        "conflicts": _conflicts(observations, stay, charted),
        "infusions": _count(shard.infusions["drug"]),
        "overlapping_infusions": _overlapping(shard.infusions),
        "weight_assumed": int(shard.infusions["weight_assumed"].sum()),
    }


def merge(records: list[dict[str, Any]]) -> dict[str, Any]:
    """The record of all shards: counts added, delays as quantiles in minutes."""
    totals: dict[str, Any] = {
        name: 0 for name in ("before_admission", "after_discharge", "overlapping_infusions", "weight_assumed")
    }
    for name in totals:
        totals[name] = sum(record[name] for record in records)
    for name in ("rows", "conflicts", "infusions"):
        added: Counter[str] = Counter()
        for record in records:
            added.update(record[name])
        totals[name] = dict(sorted(added.items()))
    totals["units"] = _add_units([record["units"] for record in records])
    totals["delay_minutes"] = _delay_quantiles([record["delays"] for record in records])
    return totals


def _count(values: "pd.Series[str]") -> dict[str, int]:
    codes = values.cat.codes.to_numpy()
    counts = np.bincount(codes[codes >= 0], minlength=len(values.cat.categories))
    return {str(name): int(n) for name, n in zip(values.cat.categories, counts, strict=True) if n}


def _units(observations: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Rows of each concept by the unit the source wrote ("" where it wrote none)."""
    concept, unit = observations["concept"], observations["unit"]
    names = ["", *(str(name) for name in unit.cat.categories)]
    pair = concept.cat.codes.to_numpy().astype(np.int64) * len(names) + unit.cat.codes.to_numpy() + 1
    counts = np.bincount(pair, minlength=len(concept.cat.categories) * len(names)).reshape(-1, len(names))
    return {
        str(name): {names[code]: int(row[code]) for code in np.flatnonzero(row)}
        for name, row in zip(concept.cat.categories, counts, strict=True)
        if row.any()
    }


def _delays(observations: pd.DataFrame, charted: Int[np.ndarray, "n"]) -> dict[str, list[list[int]]]:
    minute = _minutes(observations["available"], charted)
    names = observations["concept"].cat.categories
    bins = LONGEST_DELAY_MIN + 1
    cell = observations["concept"].cat.codes.to_numpy().astype(np.int64) * bins + minute
    counts = np.bincount(cell, minlength=len(names) * bins).reshape(-1, bins)
    minutes = [np.flatnonzero(row) for row in counts]
    return {
        str(name): [found.tolist(), row[found].tolist()]
        for name, row, found in zip(names, counts, minutes, strict=True)
        if len(found)
    }


def _urine_delays(outputs: pd.DataFrame) -> dict[str, list[list[int]]]:
    minute = _minutes(outputs["available"], grid.microseconds(outputs["charted"].to_numpy()))
    found, rows = np.unique(minute, return_counts=True)
    return {"urine": [found.tolist(), rows.tolist()]} if len(found) else {}


def _minutes(available: "pd.Series[pd.Timestamp]", charted: Int[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
    minute: np.ndarray = np.minimum(
        (grid.microseconds(available.to_numpy()) - charted) // 60_000_000, LONGEST_DELAY_MIN
    )
    return minute


def _conflicts(observations: pd.DataFrame, stay: Int[np.ndarray, "n"], charted: Int[np.ndarray, "n"]) -> dict[str, int]:
    """Further values of a concept that differ, charted at the same moment in the same stay."""
    names, codes = observations["concept"].cat.categories, observations["concept"].cat.codes.to_numpy().astype(np.int64)
    value = observations["value"].to_numpy()
    series = stay * len(names) + codes
    order = np.lexsort((charted, series))
    tied = np.flatnonzero((np.diff(series[order]) == 0) & (np.diff(charted[order]) == 0))
    rows = order[np.union1d(tied, tied + 1)]
    rows = rows[~np.isnan(value[rows])]
    rows = rows[np.lexsort((value[rows], charted[rows], series[rows]))]
    here, there = rows[:-1], rows[1:]
    same = (series[here] == series[there]) & (charted[here] == charted[there])
    counts = np.bincount(codes[here[same & (value[here] != value[there])]], minlength=len(names))
    return {str(name): int(n) for name, n in zip(names, counts, strict=True) if n}


def _overlapping(infusions: pd.DataFrame) -> int:
    """Rows of one order and item that start before an earlier one ends: a source that clips them leaves none."""
    order = ["stay_id", "item_id", "order_id"]
    rows = infusions.dropna(subset="order_id").sort_values([*order, "start", "end"])
    latest = rows.groupby(order)["end"].cummax().groupby([rows[name] for name in order]).shift()
    return int((rows["start"] < latest).sum())


def _add_units(parts: list[dict[str, dict[str, int]]]) -> dict[str, dict[str, int]]:
    added: dict[str, Counter[str]] = {}
    for part in parts:
        for concept, units in part.items():
            added.setdefault(concept, Counter()).update(units)
    return {
        concept: dict(sorted(_often(units, _own_unit(concept)).items())) for concept, units in sorted(added.items())
    }


def _own_unit(concept: str) -> str:
    known = concepts.load().measured
    return known[concept].unit if concept in known else ""


def _often(units: Counter[str], own: str) -> Counter[str]:
    """Units, those of few rows as one unless it is the dictionary's: what is written seldom may be somebody's note."""
    often = Counter({unit: rows for unit, rows in units.items() if rows >= FEWEST_ROWS or unit in {"", own}})
    seldom = units.total() - often.total()
    return often + Counter({SELDOM: seldom}) if seldom else often


def _delay_quantiles(parts: list[dict[str, list[list[int]]]]) -> dict[str, list[int]]:
    """[median, 95th percentile] of each concept."""
    counts: dict[str, np.ndarray] = {}
    for part in parts:
        for concept, (minutes, rows) in part.items():
            counts.setdefault(concept, np.zeros(LONGEST_DELAY_MIN + 1, np.int64))[minutes] += rows
    return {
        concept: [int(np.searchsorted(np.cumsum(row), share * row.sum())) for share in (0.5, 0.95)]
        for concept, row in sorted(counts.items())
    }
