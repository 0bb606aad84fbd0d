"""Intervals: infusions cut exactly at window boundaries, in whole microseconds."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float64, Int, Shaped

from cohort.grid import HOUR_US, microseconds, stay_rows

QUANTA = 1e9
"""Doses are summed in whole billionths of a mL (or of ug/kg/min x h), so that the order of rows cannot matter."""


@dataclass(frozen=True)
class Infusions:
    """A shard's infusions as arrays; times are microseconds since the stay's anchor."""

    stay: Int[np.ndarray, "n"]
    start: Int[np.ndarray, "n"]
    end: Int[np.ndarray, "n"]
    rate: Float64[np.ndarray, "n"]
    """Per hour (fluid) or per minute (drugs), times the drug's factor."""
    drug: Int[np.ndarray, "n"]
    """Position of the drug among the factors asked for."""


@dataclass(frozen=True)
class Pieces:
    """Infusions cut by windows: one row for each window that an infusion touches."""

    stay: Int[np.ndarray, "m"]
    window: Int[np.ndarray, "m"]
    overlap_us: Int[np.ndarray, "m"]
    """Above 0."""
    rate: Float64[np.ndarray, "m"]
    drug: Int[np.ndarray, "m"]


def infusions(
    table: pd.DataFrame, stays: pd.DataFrame, anchor: Shaped[np.ndarray, "s"], factors: dict[str, float]
) -> Infusions:
    """The infusions of the drugs in `factors`, each rate times its factor; charted rates of 0 are left out."""
    names, codes = table["drug"].cat.categories, table["drug"].cat.codes.to_numpy()
    asked = {name: position for position, name in enumerate(factors)}
    drug = np.array([asked.get(name, -1) for name in names] + [-1])[codes]
    factor = np.array([*factors.values(), 0.0])  # the last for drugs not asked for, whose position is -1
    rate = table["normalised_rate"].to_numpy(np.float64) * factor[drug]
    given = np.flatnonzero(rate > 0)
    stay = stay_rows(table["stay_id"].to_numpy()[given], stays["stay_id"].to_numpy())
    zero = microseconds(anchor)[stay]
    start = microseconds(table["start"].to_numpy()[given]) - zero
    end = microseconds(table["end"].to_numpy()[given]) - zero
    return Infusions(stay, start, end, rate[given], drug[given])


def unreadable(
    table: pd.DataFrame, stays: pd.DataFrame, anchor: Shaped[np.ndarray, "s"], factors: dict[str, float]
) -> Infusions:
    """The infusions of the drugs in `factors` that ran at a rate that cannot be read; their rates here mean nothing."""
    rows = table[table["normalised_rate"].isna()]
    return infusions(rows.assign(normalised_rate=1.0), stays, anchor, dict.fromkeys(factors, 1.0))


def cut(infusions: Infusions, first_hour: int, width_hours: int, n_windows: int) -> Pieces:
    """Cut by the half-open windows [first_hour + j width, first_hour + (j + 1) width), j = 0 .. n_windows - 1."""
    width, origin = width_hours * HOUR_US, first_hour * HOUR_US
    start = np.maximum(infusions.start - origin, 0)
    end = np.minimum(infusions.end - origin, n_windows * width)
    rows = np.flatnonzero(end > start)
    start, end = start[rows], end[rows]
    first = start // width
    touched = (end - 1) // width - first + 1
    piece = np.repeat(np.arange(len(rows)), touched)
    window = first[piece] + np.arange(len(piece)) - np.repeat(np.cumsum(touched) - touched, touched)
    overlap = np.minimum(end[piece], (window + 1) * width) - np.maximum(start[piece], window * width)
    source = rows[piece]
    return Pieces(infusions.stay[source], window, overlap, infusions.rate[source], infusions.drug[source])


def quanta(pieces: Pieces, n_stays: int, n_windows: int) -> Float64[np.ndarray, "s w"]:
    """Rate times hours, summed per stay and window, in whole billionths (see QUANTA)."""
    whole = np.rint(pieces.rate * (pieces.overlap_us / HOUR_US) * QUANTA)
    return exact_sum(whole, pieces.stay * n_windows + pieces.window, n_stays * n_windows).reshape(n_stays, n_windows)


def peaks(pieces: Pieces, n_drugs: int, n_stays: int, n_windows: int) -> Float64[np.ndarray, "g w s"]:
    """For each drug the highest rate of any one infusion that touches the window; 0 without one."""
    highest = np.zeros((n_drugs, n_windows, n_stays))
    np.maximum.at(highest, (pieces.drug, pieces.window, pieces.stay), pieces.rate)
    return highest


def exact_sum(whole: Float64[np.ndarray, "m"], cell: Int[np.ndarray, "m"], n_cells: int) -> Float64[np.ndarray, "w"]:
    """Sums of whole numbers per cell; exact, so in any order the same, while they stay below 2^53."""
    return np.bincount(cell, weights=whole, minlength=n_cells).astype(np.float64, copy=False)  # no rows: integers
