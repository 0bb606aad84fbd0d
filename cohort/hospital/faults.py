"""Faults: what goes wrong on the way into the record, planted at known rates and counted by kind."""

from pydantic import Field

from cohort.config import Config


class FaultConfig(Config):
    """The share of the rows it could befall that a fault does befall; 0 plants none."""

    duplicate: float = Field(0.01, ge=0, le=0.5)
    """A chart or laboratory row written twice, every column equal."""
