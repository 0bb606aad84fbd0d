"""Draws: an hour's random numbers, hashed from one word a stay, so that only what is charted costs any."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, Float32, Int, UInt64

from cohort.hospital.channels import CHANNELS, GROUPS

Chance = Literal[
    "line",
    "central",
    "away",
    "away_hours",
    "catheter",
    "mask",
    "start",
    "set",
    "extra",
    "temperature",
    "coma",
    "breath",
    "much_oxygen",
    "device",
    "weight",
    "chemistry",
    "count",
    "clotting",
    "gas",
    "lactate",
    "liver",
    "albumin",
    "specimen",
    "on_mark",
]
"""What is decided once a stay and hour."""
_CHANCE: dict[str, int] = {name: position for position, name in enumerate(get_args(Chance))}


@dataclass(frozen=True)
class Draws:
    """The numbers of the stays present; the same whoever else is there and whatever was given."""

    choice: Float32[np.ndarray, "n c"]
    """Uniform, one a channel: is it charted?"""
    minute: Float32[np.ndarray, "n g"]
    """Uniform, one a group of rows."""
    chances: Float32[np.ndarray, "n o"]
    """Uniform, one a Chance."""
    delay: Float[np.ndarray, "n g"]
    """Standard normal."""
    key: UInt64[np.ndarray, "n"]
    """What the noise and the faults of a stay's rows come from."""

    def of(self, chance: Chance) -> Float32[np.ndarray, "n"]:
        """The uniform that decides `chance`."""
        return self.chances[:, _CHANCE[chance]]


def draw(key: UInt64[np.ndarray, "n"]) -> Draws:
    """All of an hour's numbers from one random word a stay."""
    c, g = len(CHANNELS), len(GROUPS)
    uniform = _uniforms(key, c + g + len(_CHANCE))
    delay, _ = cells(key[:, None], np.arange(c, c + g))
    return Draws(uniform[:, :c], uniform[:, c : c + g], uniform[:, c + g :], delay, key)


def cells(
    key: UInt64[np.ndarray, "..."], column: Int[np.ndarray, "r"]
) -> tuple[Float[np.ndarray, "*s"], Float[np.ndarray, "*s"]]:
    """A standard normal (to four sixteenths of a word: within 3.5) and a uniform for each cell of the chart.

    The mixing is SplitMix64's (Steele, Lea and Flood 2014), so that only rows that exist cost a draw.
    """
    z = key + column.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    quarters = z.view(np.uint16).reshape(*z.shape, 4).sum(axis=-1, dtype=np.int64)
    uniform = (z * np.uint64(0xD1342543DE82EF95)) >> np.uint64(40)
    return (quarters - 2 * 65535) / (65536 / np.sqrt(3.0)), uniform.astype(np.float64) / 2**24


def _uniforms(key: UInt64[np.ndarray, "n"], columns: int) -> Float32[np.ndarray, "n u"]:
    """A uniform on [0, 1) for each cell (MurmurHash3's 32-bit finaliser)."""
    z = key.astype(np.uint32)[:, None] + np.arange(1, columns + 1, dtype=np.uint32) * np.uint32(0x9E3779B9)
    z ^= z >> np.uint32(16)
    z *= np.uint32(0x85EBCA6B)
    z ^= z >> np.uint32(13)
    z *= np.uint32(0xC2B2AE35)
    z ^= z >> np.uint32(16)
    return (z >> np.uint32(8)).astype(np.float32) * np.float32(2**-24)
