"""Rollouts: on the simulated hospital the policies treat its patients, which is what their estimates are graded by."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32
from pydantic import Field

import policy.store
from app.stage import Advance
from cohort import artifact, pieces, workers
from cohort.build import CohortConfig
from cohort.config import Config
from cohort.dictionary import Dictionary
from cohort.hospital import HospitalConfig
from cohort.hospital.rollouts import Policy, Returns, returns
from cohort.pieces import Pieces
from ope import subjects, treated
from ope.assessment import CLINICIANS
from ope.treated import Treated

_OTHER_PATIENTS = 1_000_003  # added to the run's seed, so that those treated are not those evaluated


class RolloutConfig(Config):
    """How many patients each policy treats."""

    n_stays: int = Field(default=1000, ge=20, le=50_000)


@dataclass(frozen=True)
class Rolled:
    """One rollout: who treats, in which hospital, and what is added up."""

    hospital: HospitalConfig
    cohort: CohortConfig
    gamma: float
    n_stays: int
    seed: int


@dataclass(frozen=True)
class Constant:
    """A control as a rollout asks for it."""

    distribution: Float32[np.ndarray, "a"]
    dictionary: Dictionary

    def probs(self, state: Float[np.ndarray, "n d"]) -> Float32[np.ndarray, "n a"]:
        """The same probabilities in every state."""
        return subjects.constant(self.distribution, state)


def write(
    draft: artifact.Draft,
    policies: Mapping[str, Path],
    known: Dictionary,
    rolled: Rolled,
    advance: Advance,
    processes: int = 1,
) -> None:
    """Let the clinicians, every policy and every control treat the same patients, and write what that returned.

    Raises:
        ConfigError: the cohort's definition has no true value in the simulated hospital.
    """
    fixed = {name: Constant(each, known) for name, each in subjects.controls(known.n_actions).items()}
    who: dict[str, Path | Constant | None] = {CLINICIANS: None, **policies, **fixed}
    treat = partial(_treat, rolled, None if draft.work is None else Pieces(draft.work))
    found: dict[str, Returns] = {}
    for name, each in zip(who, workers.each(treat, list(who.items()), processes), strict=True):
        found[name] = each
        advance(len(found), len(who))
    own = found[CLINICIANS]
    treated.write(draft.path, rolled.n_stays, {name: _truth(each, own, rolled) for name, each in found.items()})
    draft.rows.update(policies=len(who) - 1, stays=rolled.n_stays)


def _treat(rolled: Rolled, kept: Pieces | None, named: tuple[str, Path | Constant | None]) -> Returns:
    """What one policy's patients returned: the clinicians' where there is none."""
    name, who = named
    treats: Policy | None = policy.store.load(who) if isinstance(who, Path) else who

    def treat() -> dict[str, np.ndarray]:
        cohort = rolled.cohort
        found = returns(
            treats, rolled.n_stays, rolled.seed + _OTHER_PATIENTS, rolled.hospital, grid=cohort.grid,
            reward=cohort.reward, given=cohort.actions, gamma=rolled.gamma,
        )  # fmt: skip
        return vars(found)

    return Returns(**pieces.arrays(kept, f"treated-by-{name}", treat))


def _truth(found: Returns, clinicians: Returns, rolled: Rolled) -> Treated:
    """Of the stays that last a first step, as a cohort keeps them; the difference of those that do under both."""
    step = rolled.cohort.grid.step_hours
    value = found.value[found.hours >= step]
    both = (found.hours >= step) & (clinicians.hours >= step)
    more = (found.value - clinicians.value)[both]
    return Treated(float(value.mean()), _error(value), float(more.mean()), _error(more))


def _error(each: Float[np.ndarray, "n"]) -> float:
    return float(each.std(ddof=1) / np.sqrt(len(each)))
