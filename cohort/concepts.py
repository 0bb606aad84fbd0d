"""Concepts: the clinical dictionary, read from configs/concepts/features.yaml."""

from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from cohort import config

DIRECTORY = Path(__file__).resolve().parents[1] / "configs" / "concepts"


class Concept(config.Config):
    """One measured quantity."""

    unit: str
    """The canonical unit; sources convert to it."""
    range: tuple[float, float]
    """Values outside are dropped and counted."""
    hold_hours: float = Field(gt=0, le=72)
    """A value older than this is missing."""
    clock: Literal["charted", "stored"]
    """When a value is visible: at its charted time (monitor vitals) or once it is charted and stored."""
    typical: float
    """A healthy adult's value: imputes only where there is no training median."""
    arterial: bool = False
    """Kept only where its specimen is recorded as arterial."""

    @model_validator(mode="after")
    def _range_ascends(self) -> "Concept":
        if self.range[0] > self.range[1]:
            raise ValueError("range: the lower end is above the upper")
        return self


class Concepts(config.Config):
    """The whole dictionary."""

    measured: dict[str, Concept]
    derived: dict[str, tuple[float, float]]
    """What a state feature that is not measured can be, lowest and highest."""
    state: tuple[str, ...]
    """The names of the state's columns, in order."""
    doses_before: tuple[str, ...]
    """The doses of the step before, fluid and vasopressor; they follow the others where a cohort asks for them."""
    log: tuple[str, ...]
    """State features scaled as log(0.1 + x)."""
    norepinephrine_equivalent: dict[str, float]

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """The lowest and highest possible value of every feature."""
        return {name: concept.range for name, concept in self.measured.items()} | self.derived


@cache
def load() -> Concepts:
    """The dictionary that ships with Suture."""
    return config.load(DIRECTORY / "features.yaml", Concepts)
