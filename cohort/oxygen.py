"""Oxygen: the fraction of inspired oxygen, estimated from device and flow where it is not charted."""

from functools import cache

import numpy as np
from jaxtyping import Float64
from pydantic import Field

from cohort import concepts
from cohort.config import Config, load

OTHER = 0
"""A device whose flow does not tell the fraction, or that the table does not know."""


class Step(Config):
    """Up to this flow, this fraction."""

    up_to_l_min: float = Field(ge=0)
    fio2: float = Field(ge=0.21, le=1)


class Oxygen(Config):
    """configs/concepts/oxygen.yaml."""

    kinds: dict[str, tuple[Step, ...]]
    devices: dict[str, str]


@cache
def table() -> Oxygen:
    """The table that ships with Suture."""
    return load(concepts.DIRECTORY / "oxygen.yaml", Oxygen)


def kind_of(device: str) -> int:
    """The number of a charted device's kind, from 1; OTHER where the table does not have it."""
    kind = table().devices.get(device.strip().lower())
    return OTHER if kind is None else list(table().kinds).index(kind) + 1


def estimate(kind: Float64[np.ndarray, "*a"], flow_l_min: Float64[np.ndarray, "*a"]) -> Float64[np.ndarray, "*a"]:
    """FiO2 from the device's kind and the flow; NaN where they do not tell it.

    A flow without a device (kind NaN), or with "none", is read as a nasal cannula; no device and no flow charted is
    unknown, but "none" without flow is room air. A flow above a kind's last step is unknown.
    """
    kinds = list(table().kinds)
    breathing_air = kind == kinds.index("room_air") + 1
    flowing = flow_l_min > 0
    cannula = kinds.index("nasal_cannula") + 1
    device = np.where(np.isnan(kind) | (breathing_air & flowing), cannula, kind)
    fio2 = np.where(breathing_air & ~flowing, table().kinds["room_air"][0].fio2, np.nan)
    for number, name in enumerate(kinds, start=1):
        limits = np.array([step.up_to_l_min for step in table().kinds[name]])
        fractions = np.array([step.fio2 for step in table().kinds[name]] + [np.nan])
        of_kind = (device == number) & flowing
        fio2 = np.where(of_kind, fractions[np.searchsorted(limits, flow_l_min)], fio2)
    return fio2
