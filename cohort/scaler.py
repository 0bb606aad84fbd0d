"""Scaler: what turns clinical units into numbers of similar size, fitted on training states only."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

LOG_OFFSET = 0.1  # log(0.1 + x), CLINICAL's transform of the skewed features


@dataclass(frozen=True)
class Scaler:
    """Per feature: optional log(0.1 + x), then (x - mean) / std."""

    mean: Float[np.ndarray, "d"]
    std: Float[np.ndarray, "d"]
    log: Bool[np.ndarray, "d"]

    def transform(self, state: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
        """Scale states given in their own units; float32."""
        logged = np.where(self.log, np.log(LOG_OFFSET + np.where(self.log, state, 1.0)), state)
        return np.asarray((logged - self.mean) / self.std, np.float32)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, for JSON."""
        return {"mean": self.mean.tolist(), "std": self.std.tolist(), "log": self.log.tolist()}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "Scaler":
        """The inverse of `to_dict`."""
        return cls(
            np.asarray(content["mean"], np.float64),
            np.asarray(content["std"], np.float64),
            np.asarray(content["log"], bool),
        )


def fit(state: Float[np.ndarray, "n d"], log: Sequence[bool] | None = None) -> Scaler:
    """Fit on training states; a constant feature gets std 1, so that it maps to 0 and not to NaN."""
    mask = np.zeros(state.shape[1], bool) if log is None else np.asarray(log, bool)
    logged = np.where(mask, np.log(LOG_OFFSET + np.where(mask, state, 1.0)), state).astype(np.float64)
    std = logged.std(axis=0)
    return Scaler(logged.mean(axis=0), np.where(std > 1e-6, std, 1.0), mask)
