"""Reward: survival, and a small cost of every hour in intensive care."""

from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Float32
from pydantic import Field

from cohort.config import Config


class RewardConfig(Config):
    """What is rewarded; dimensionless."""

    outcome: Literal["hospital", "90_days"] = "hospital"
    """Alive at hospital discharge, or 90 days after the anchor."""
    survival: float = 1.0
    death: float = -1.0
    cost_per_icu_hour: float = Field(default=0.001, ge=0, le=1)
    tail_cap_hours: float = Field(default=240.0, ge=0)
    """ICU hours past the episode's end that still cost; they are charged with the outcome."""
    horizon_end: Literal["terminate", "truncate"] = "terminate"
    """A stay longer than the horizon ends with its known outcome, or is cut off and bootstraps from its final state."""
    sofa_shaping: float = Field(default=0.0, ge=0, le=1)
    """Penalty per SOFA point gained over a window (a point lost is rewarded)."""
    lactate_shaping: float = Field(default=0.0, ge=0, le=1)
    """Penalty per mmol/L of lactate gained over a window, through tanh."""


def rewards(
    duration_h: Float[np.ndarray, "n"],
    terminal: Bool[np.ndarray, "n"],
    died: Bool[np.ndarray, "n"],
    hours_after: Float[np.ndarray, "n"],
    config: RewardConfig,
    sofa_change: Float[np.ndarray, "n"] | None = None,
    lactate_change: Float[np.ndarray, "n"] | None = None,
) -> Float32[np.ndarray, "n"]:
    """The reward of each decision window, one element a window.

    r = -c duration - w_sofa dSOFA - w_lactate tanh(dLactate), and where the episode terminates with this window
    + (survival or death) - c min(hours_after, cap).

    Args:
        duration_h: hours of the window.
        terminal: True where the episode ends here with a known outcome.
        died: the outcome; read only where `terminal`.
        hours_after: ICU hours past the episode's end; read only where `terminal`.
        config: the weights.
        sofa_change: SOFA after the window less before it, positive = worse; 0 where there is no later state.
        lactate_change: likewise, mmol/L.
    """
    cost = config.cost_per_icu_hour
    outcome = np.where(died, config.death, config.survival) - cost * np.minimum(hours_after, config.tail_cap_hours)
    reward = np.where(terminal, outcome, 0.0) - cost * duration_h
    if sofa_change is not None:
        reward = reward - config.sofa_shaping * sofa_change
    if lactate_change is not None:
        reward = reward - config.lactate_shaping * np.tanh(lactate_change)
    return reward.astype(np.float32)
