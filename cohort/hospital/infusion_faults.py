"""Infusion faults: what goes wrong between an infusion and its rows, planted at known rates."""

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float

from cohort.hospital.faults import KIND, FaultConfig
from cohort.hospital.items import INDEX, UNIT
from cohort.hospital.orders import DRIP, STATUS, Infusions, concatenate, take


def plant(rows: Infusions, draw: Float[np.ndarray, "r 5"], config: FaultConfig) -> Infusions:
    """Spoil rows of one window at the configured rates, and add those that should not be there.

    Args:
        rows: clean rows of one window.
        draw: uniform on [0, 1): five a row.
    """
    spoilt = _spoilt(_overlapping(rows, draw[:, 0] < config.overlap), draw[:, 1], config)
    parts = [spoilt]
    for name, column, make in (
        ("rewritten", 2, _rewritten), ("infusion_duplicate", 3, None), ("end_before_start", 4, _backwards),
    ):  # fmt: skip
        copies = take(spoilt, (draw[:, column] < getattr(config, name)) & (spoilt.fault < 0))
        made = copies if make is None else make(copies)
        parts.append(replace(made, fault=np.full(made.n, KIND[name], np.int8)))
    return concatenate(parts)


def _overlapping(rows: Infusions, wanted: Bool[np.ndarray, "r"]) -> Infusions:
    """Let a row run on into the next of its own order, by up to half of that."""
    by_order = np.lexsort((rows.start, rows.link))
    this, following = by_order[:-1], by_order[1:]
    able = (rows.link[this] == rows.link[following]) & (rows.end[this] == rows.start[following])
    able &= wanted[this] & np.isfinite(rows.rate[this]) & (rows.rate[this] > 0)
    this, following = this[able], following[able]
    more = np.maximum((rows.end[following] - rows.start[following]) // 120, 1) * 60
    scale = 1 + more / (rows.end[this] - rows.start[this])
    end, amount, fault = rows.end.copy(), rows.amount.copy(), rows.fault.copy()
    end[this] += more
    amount[this] *= scale
    fault[this] = KIND["overlap"]
    return replace(rows, end=end, amount=amount, fault=fault)


def _spoilt(rows: Infusions, draw: Float[np.ndarray, "r"], config: FaultConfig) -> Infusions:
    """Rows without a weight, without a rate, or with an hourly rate labelled as one a minute."""
    clean = rows.fault < 0
    hourly = clean & (rows.item == INDEX[222315]) & (rows.rate_unit == UNIT["units/hour"])
    drip = clean & (rows.category == DRIP)
    upper = config.missing_weight + np.where(drip, config.null_rate, 0.0)
    weightless = clean & (draw < config.missing_weight)
    null = drip & (draw >= config.missing_weight) & (draw < upper)
    minute = hourly & (draw >= upper) & (draw < upper + config.hourly_as_minute)
    fault = rows.fault.copy()
    for chosen, name in ((weightless, "missing_weight"), (null, "null_rate"), (minute, "hourly_as_minute")):
        fault[chosen] = KIND[name]
    return replace(
        rows,
        weight_kg=np.where(weightless, np.nan, rows.weight_kg),
        rate=np.where(null, np.nan, rows.rate),
        rate_unit=np.where(null, -1, np.where(minute, UNIT["units/min"], rows.rate_unit)),
        fault=fault,
    )


def _rewritten(rows: Infusions) -> Infusions:
    """The superseded row: another rate and end, its own number in the same order."""
    return replace(
        rows,
        order=rows.order + 4,
        rate=rows.rate * 1.25,
        amount=rows.amount * 1.25,
        status=np.full(rows.n, STATUS["Rewritten"], np.int8),
    )


def _backwards(rows: Infusions) -> Infusions:
    """A cancelled row that ends before it starts."""
    return replace(rows, order=rows.order + 8, end=rows.start - 300, amount=-rows.amount / 10)
