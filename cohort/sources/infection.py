"""Infection: when an infection was suspected, from cultures and antibiotics (Singer et al. 2016)."""

import re
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int
from pydantic import Field

from cohort import concepts, config
from cohort.sources.measurements import HOUR, NAT


class Infection(config.Config):
    """What counts as an antibiotic and as a culture, and how far apart they may be."""

    antibiotics: tuple[str, ...] = Field(min_length=1)
    routes_excluded: tuple[str, ...]
    specimens_excluded: tuple[str, ...]
    antibiotic_after_culture_hours: int = Field(gt=0)
    culture_after_antibiotic_hours: int = Field(gt=0)


@cache
def load() -> Infection:
    """The definition that ships with Suture."""
    return config.load(concepts.DIRECTORY / "infection.yaml", Infection)


def antibiotic_pattern() -> str:
    """A regular expression found in the lower-case name of every antibiotic."""
    return r"(^|[^a-z])(" + "|".join(re.escape(name) for name in load().antibiotics) + ")"


def is_antibiotic(drug: "pd.Series[Any]", route: "pd.Series[Any]") -> Bool[np.ndarray, "n"]:
    """Which prescriptions are of a systemic antibiotic."""
    pattern = re.compile(antibiotic_pattern())
    named = _by_value(drug, lambda name: bool(pattern.search(name)))
    local = _by_value(route, lambda name: name in load().routes_excluded)
    chosen: np.ndarray = named & ~local
    return chosen


def is_culture(specimen: "pd.Series[Any]") -> Bool[np.ndarray, "n"]:
    """Which microbiology rows are cultures rather than screens or antibody tests."""
    screen = _by_value(specimen, lambda name: name in load().specimens_excluded)
    return ~screen


def suspicion(
    stay_subject: Int[np.ndarray, "s"],
    earliest: Int[np.ndarray, "s"],
    latest: Int[np.ndarray, "s"],
    culture: tuple[Int[np.ndarray, "c"], Int[np.ndarray, "c"]],
    antibiotic: tuple[Int[np.ndarray, "a"], Int[np.ndarray, "a"]],
) -> Int[np.ndarray, "s"]:
    """The first suspicion of each stay in [earliest, latest), in microseconds, NAT where there is none.

    Args:
        stay_subject: the patient of each stay.
        earliest, latest: the window in which a suspicion is the stay's.
        culture: patient and time of each culture.
        antibiotic: patient and time of each antibiotic's start.
    """
    pairs = pd.merge(
        pd.DataFrame({"subject": culture[0], "culture": culture[1]}).drop_duplicates(),
        pd.DataFrame({"subject": antibiotic[0], "antibiotic": antibiotic[1]}).drop_duplicates(),
        on="subject",
    )
    gap = pairs["antibiotic"] - pairs["culture"]
    limits = load()
    close = (gap <= limits.antibiotic_after_culture_hours * HOUR) & (
        gap >= -limits.culture_after_antibiotic_hours * HOUR
    )
    pairs = pairs[close]
    first = pd.DataFrame({"subject": pairs["subject"], "time": pairs[["culture", "antibiotic"]].min(axis=1)})
    stays = pd.DataFrame({"subject": stay_subject, "stay": np.arange(len(stay_subject))})
    found = pd.merge(stays, first.drop_duplicates(), on="subject")
    moment, stay = found["time"].to_numpy(np.int64), found["stay"].to_numpy(np.int64)
    inside = (moment >= earliest[stay]) & (moment < latest[stay])
    suspected = np.full(len(stay_subject), np.iinfo(np.int64).max)
    np.minimum.at(suspected, stay[inside], moment[inside])
    return np.where(suspected == np.iinfo(np.int64).max, NAT, suspected)


def _by_value(column: "pd.Series[Any]", decide: Callable[[str], bool]) -> Bool[np.ndarray, "n"]:
    codes, values = pd.factorize(column)
    verdict = np.array([*(decide(str(value).strip().casefold()) for value in values), False], dtype=bool)
    return verdict[codes]
