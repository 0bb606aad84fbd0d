"""Rollouts: on the simulated hospital the policies treat its patients, which is what their estimates are graded by."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32
from pydantic import Field

import policy.store
from app.stage import Advance
from cohort import artifact
from cohort.build import CohortConfig
from cohort.config import Config
from cohort.dictionary import Dictionary
from cohort.hospital import HospitalConfig
from cohort.hospital.rollouts import Policy, Returns, returns
from ope import evaluation, treated
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
        return evaluation.constant(self.distribution, state)


def write(
    draft: artifact.Draft, policies: Mapping[str, Path], known: Dictionary, rolled: Rolled, advance: Advance
) -> None:
    """Let the clinicians, every policy and every control treat the same patients, and write what that returned.

    Raises:
        ConfigError: the cohort's definition has no true value in the simulated hospital.
    """
    own = _treat(None, rolled)
    truths = {CLINICIANS: _truth(own, own, rolled)}
    fixed = {name: Constant(each, known) for name, each in evaluation.controls(known.n_actions).items()}
    total = len(policies) + len(fixed)
    for number, name in enumerate([*policies, *fixed], start=1):
        who = fixed[name] if name in fixed else policy.store.load(policies[name])
        truths[name] = _truth(_treat(who, rolled), own, rolled)
        advance(number, total)
    treated.write(draft.path, rolled.n_stays, truths)
    draft.rows.update(policies=total, stays=rolled.n_stays)


def _treat(who: Policy | None, rolled: Rolled) -> Returns:
    cohort = rolled.cohort
    return returns(
        who, rolled.n_stays, rolled.seed + _OTHER_PATIENTS, rolled.hospital, grid=cohort.grid, reward=cohort.reward,
        given=cohort.actions, gamma=rolled.gamma,
    )  # fmt: skip


def _truth(found: Returns, clinicians: Returns, rolled: Rolled) -> Treated:
    """Of the stays that last a first step, as a cohort keeps them; the difference of those that do under both."""
    step = rolled.cohort.grid.step_hours
    value = found.value[found.hours >= step]
    both = (found.hours >= step) & (clinicians.hours >= step)
    more = (found.value - clinicians.value)[both]
    return Treated(float(value.mean()), _error(value), float(more.mean()), _error(more))


def _error(each: Float[np.ndarray, "n"]) -> float:
    return float(each.std(ddof=1) / np.sqrt(len(each)))
