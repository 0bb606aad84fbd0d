"""Comparison: one pass of a policy over the evaluated states, from which all that is said of its doses is told."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int
from pydantic import Field

from cohort.config import Config
from cohort.episodes import Episodes
from ope import divergence, hazards, subgroups
from ope.divergence import MEASURES, Grid
from ope.hazards import Decisions

_ROWS = 1 << 16  # decisions compared at once


class ComparisonConfig(Config):
    """What is shown of a policy's doses."""

    smallest_cell: int = Field(default=10, ge=1)
    """Patients a cell must hold to be shown."""
    influential_cases: int = Field(default=5, ge=0, le=50)
    clip: float = Field(default=10.0, gt=1)
    """Largest weight in the high-confidence bound; fixed beforehand."""


@dataclass(frozen=True)
class Clinical:
    """The evaluated decisions in clinical terms."""

    decisions: Decisions
    strata: Mapping[str, Float[np.ndarray, "n"]]
    doses: Grid
    step_hours: float
    unit: np.ndarray
    """The care unit that each decision's stay began in."""
    groups: Mapping[str, np.ndarray]
    """Feature -> each decision's group of patients, from `subgroups.groups_of`."""


@dataclass(frozen=True)
class Comparison:
    """What one pass leaves; nothing of it is a (step, action) matrix."""

    ratio: Float32[np.ndarray, "n"]
    """Target over behaviour probability of the logged action; 1, its mean over actions, where the dose is unread."""
    measures: Float32[np.ndarray, "n k"]
    hazards: Float32[np.ndarray, "n h"]
    shift: Float[np.ndarray, "a a"]
    """Share of decisions with the clinicians' dose (row) and the policy's (column), of those whose dose was read."""
    by_group: Float[np.ndarray, "s a"]
    """The policy's mean probabilities in each group of the twin."""

    @property
    def unsupported(self) -> float:
        """Mean probability on unsupported doses."""
        return float(self.measures[:, MEASURES.index("unsupported")].mean(dtype=np.float64))


def compare(
    target: Float32[np.ndarray, "n a"],
    episodes: Episodes,
    behaviour: Float32[np.ndarray, "n a"],
    clinical: Clinical,
    group: Int[np.ndarray, "n"],
    support_floor: float,
) -> Comparison:
    """Hold a policy's probabilities at every decision against the clinicians', some decisions at a time."""
    n, a = episodes.n, episodes.n_actions
    ratio, measures = np.empty(n, np.float32), np.empty((n, len(MEASURES)), np.float32)
    hazard, shift = np.empty((n, len(hazards.HAZARDS)), np.float32), np.zeros((a, a))
    by_group = np.zeros((int(group.max()) + 1, a))
    for first in range(0, n, _ROWS):
        rows = slice(first, first + _ROWS)
        given, action = target[rows], episodes.action[rows]
        at = (np.arange(len(given)), action)
        part = Decisions(**{key: value[rows] for key, value in vars(clinical.decisions).items()})
        ratio[rows] = np.where(part.unread, 1, given[at] / behaviour[rows][at])
        measures[rows] = divergence.per_step(given, behaviour[rows], action, clinical.doses, support_floor)
        hazard[rows] = hazards.policy(part, given, clinical.doses, clinical.step_hours)
        shift += divergence.shift_matrix(given[~part.unread], action[~part.unread], a)
        np.add.at(by_group, group[rows], given)
    read = n - int(clinical.decisions.unread.sum())
    return Comparison(ratio, measures, hazard, shift / max(read, 1), by_group / by_group.sum(axis=1, keepdims=True))


def sections(
    found: Comparison,
    episodes: Episodes,
    clinical: Clinical,
    config: ComparisonConfig,
    level: float,
    n_bootstrap: int,
    seed: int,
) -> dict[str, Any]:
    """`divergence` and `hazards` of the evaluation document, as plain values.

    Rows of the dose-shift matrix whose dose fewer than `smallest_cell` decisions had are null, and so are strata and
    hazards with fewer patients or exposed decisions.
    """
    episode, by_row = episodes.episode, episodes.patient[episodes.episode]
    options = (level, n_bootstrap, seed)
    means = divergence.overall(found.measures, episode, episodes.patient, *options)
    cells = divergence.strata(found.measures, clinical.strata, by_row, config.smallest_cell)
    given = np.bincount(episodes.action[~clinical.decisions.unread], minlength=episodes.n_actions)
    rates = hazards.rates(
        clinical.decisions, found.hazards, clinical.doses, clinical.step_hours, episode, episodes.patient, *options
    )
    return {
        "divergence": {
            "overall": {name: asdict(one) for name, one in means.items()},
            "strata": [asdict(cell) for cell in cells],
            "shape": list(clinical.doses.shape),
            "shift": [
                row.tolist() if count >= config.smallest_cell else None
                for row, count in zip(found.shift, given.tolist(), strict=True)
            ],
        },
        "hazards": [
            asdict(one) if one.exposed >= config.smallest_cell else {"name": one.name, "exposed": one.exposed}
            for one in rates
        ],
        "subgroups": subgroups.measure(
            found.measures, clinical.groups, episode, episodes.patient, config.smallest_cell, *options
        ),
    }
