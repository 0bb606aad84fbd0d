"""Orders: rows of inputevents before they become a table, and what their codes mean."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Bool, Float, Int

DRUGS = ("norepinephrine", "vasopressin", "phenylephrine", "dopamine", "epinephrine")
"""Columns of `drug_rates`: ug/kg/min, vasopressin U/min; dobutamine is not given."""
LINES = (*DRUGS, "carrier", "maintenance", "bolus")
"""What may run at once; each has its own order."""
STATUSES = ("FinishedRunning", "Changed", "Stopped", "Paused", "Rewritten")
STATUS: dict[str, int] = {name: position for position, name in enumerate(STATUSES)}

CATEGORIES: tuple[tuple[str, str | None, str, str], ...] = (
    # ordercategoryname, secondaryordercategoryname, ordercomponenttypedescription, ordercategorydescription
    ("01-Drips", "02-Fluids (Crystalloids)", "Main order parameter", "Continuous Med"),
    ("01-Drips", "02-Fluids (Crystalloids)", "Mixed solution", "Continuous Med"),
    ("02-Fluids (Crystalloids)", "Additive (Crystalloid)", "Main order parameter", "Continuous IV"),
    ("03-IV Fluid Bolus", None, "Main order parameter", "Bolus"),
    ("04-Fluids (Colloids)", None, "Main order parameter", "Continuous IV"),
    ("07-Blood Products", None, "Main order parameter", "Continuous IV"),
    ("02-Fluids (Crystalloids)", "Additive (Crystalloid)", "Additives                                         Ampoule",
     "Continuous IV"),
)  # fmt: skip
DRIP, CARRIER, RUNNING, BOLUS, COLLOID, BLOOD, AMPOULE = range(len(CATEGORIES))


@dataclass(frozen=True)
class Infusions:
    """Rows of inputevents; times are seconds since `intime`."""

    stay: Int[np.ndarray, "r"]
    item: Int[np.ndarray, "r"]
    start: Int[np.ndarray, "r"]
    end: Int[np.ndarray, "r"]
    stored: Int[np.ndarray, "r"]
    amount: Float[np.ndarray, "r"]
    amount_unit: Int[np.ndarray, "r"]
    rate: Float[np.ndarray, "r"]
    """NaN: none was written; the amount over the row's duration is the dose."""
    rate_unit: Int[np.ndarray, "r"]
    """Position in items.UNITS; -1: none."""
    order: Int[np.ndarray, "r"]
    """Unique in the shard, a row each (but for an exact duplicate)."""
    link: Int[np.ndarray, "r"]
    """The order's first row; rows of one order follow one another in time."""
    category: Int[np.ndarray, "r"]
    status: Int[np.ndarray, "r"]
    weight_kg: Float[np.ndarray, "r"]
    """patientweight; NaN: not written."""
    fault: Int[np.ndarray, "r"]
    """Position in faults.KINDS; -1: a clean row."""

    @property
    def n(self) -> int:
        """Number of rows."""
        return len(self.stay)


def concatenate(parts: Sequence[Infusions]) -> Infusions:
    """All rows, in the order given (at least one part)."""
    return Infusions(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Infusions)))


def take(rows: Infusions, chosen: Int[np.ndarray, "k"] | Bool[np.ndarray, "r"]) -> Infusions:
    """The rows at these positions, or where True."""
    return Infusions(*(getattr(rows, f.name)[chosen] for f in fields(Infusions)))


def empty() -> Infusions:
    """No rows."""
    whole, real = np.zeros(0, np.int64), np.zeros(0)
    return Infusions(
        whole, whole, whole, whole, whole, real, whole, real, whole, whole, whole, whole, whole, real, whole
    )
