"""Split: which patients train, select and evaluate."""

import numpy as np
from jaxtyping import Int, Shaped
from pydantic import Field, model_validator

from cohort.config import Config

SPLITS = ("train", "select", "evaluate")


class SplitConfig(Config):
    """Shares of patients; what train and select leave is evaluate."""

    train: float = Field(default=0.6, gt=0, le=1)
    select: float = Field(default=0.2, ge=0, lt=1)

    @model_validator(mode="after")
    def _at_most_all(self) -> "SplitConfig":
        if self.train + self.select > 1:
            raise ValueError(f"train + select: {self.train + self.select:g} is above 1")
        return self


def assign(subject_id: Int[np.ndarray, "n"], seed: int, config: SplitConfig | None = None) -> Shaped[np.ndarray, "n"]:
    """The split of each row's patient: a seeded hash of the patient's id against the shares.

    It depends on nothing else: all stays of a patient go together, and neither the order of rows nor which other
    patients are in the cohort moves anyone. Shares therefore hold on average.
    """
    shares = config or SplitConfig()
    u = _hash(subject_id.astype(np.int64).view(np.uint64), seed) / 2.0**64
    part = (u >= shares.train).astype(np.int64) + (u >= shares.train + shares.select)
    return np.asarray(SPLITS)[part]


def _hash(key: np.ndarray, seed: int) -> np.ndarray:
    """splitmix64 (Steele, Lea & Flood 2014), the seed mixed in by one more round."""
    return _mix(key ^ _mix(np.array([seed], np.int64).view(np.uint64)))


def _mix(key: np.ndarray) -> np.ndarray:
    z = key + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
