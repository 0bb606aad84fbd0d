"""Setting: what is estimated, and what all policies of one evaluation share."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Int
from pydantic import Field, field_validator, model_validator

from cohort import artifact, build, dictionary, pieces, trajectories
from cohort.config import Config
from cohort.episodes import Episodes
from cohort.pieces import Pieces
from ope import divergence, hazards, overlap, subgroups, twin
from ope import gates as gating
from ope.comparison import Clinical, ComparisonConfig
from ope.estimates import ESTIMATORS, LEAN_ON_MODEL, NEED_Q
from ope.fqe import FqeConfig
from ope.gates import Gate, GateConfig
from ope.self_test import Check
from ope.trajectories import attainable
from ope.twin import Twin, TwinConfig
from policy import behaviour as behaviour_model
from policy.behaviour import BehaviourConfig

Step = Callable[[int, int], None]


class EvaluationConfig(Config):
    """What is estimated and what withholds it; fixed, and hashed, before any policy is evaluated."""

    gamma: float = Field(default=0.99, gt=0, le=1)
    """Discount per decision."""
    discounts: tuple[float, ...] = (0.95, 1.0)
    """Other discounts under which the comparison with the clinicians is repeated."""
    level: float = Field(default=0.95, gt=0.5, lt=1)
    n_bootstrap: int = Field(default=1000, ge=100, le=100_000)
    estimators: tuple[str, ...] = tuple(ESTIMATORS)
    primary: str = "wdr"
    """The estimator that the verdict reads."""
    main: str | None = None
    """The policy that the run's verdict is about; None: conservative_iql, else the first that is not bc."""
    fqe: FqeConfig | None = FqeConfig()
    """Fits Q for the model-based estimators; controls do without."""
    twin: TwinConfig | None = TwinConfig()
    """Grades the estimators; None: no certificate, and no gate on coverage."""
    comparison: ComparisonConfig = ComparisonConfig()
    gates: GateConfig = GateConfig()
    behaviour: BehaviourConfig = BehaviourConfig()
    """The model of what clinicians do, which the importance weights divide by."""

    @field_validator("estimators")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in value if name not in ESTIMATORS]
        if unknown or not value:
            raise ValueError(f"estimator {unknown} is unknown; known: {', '.join(ESTIMATORS)}")
        return value

    @field_validator("discounts")
    @classmethod
    def _discounts_in_range(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 < gamma <= 1 for gamma in value):
            raise ValueError("a discount must be above 0 and at most 1")
        return value

    @model_validator(mode="after")
    def _parts_fit(self) -> "EvaluationConfig":
        if self.primary not in self.estimators:
            raise ValueError(f"primary: {self.primary} is not among the estimators: {', '.join(self.estimators)}")
        if self.primary in LEAN_ON_MODEL:
            raise ValueError(f"primary: {self.primary} leans on the model, whose bias its resamples do not show")
        if self.fqe is None and set(self.estimators) & set(NEED_Q):
            raise ValueError(f"fqe: null, but {', '.join(set(self.estimators) & set(NEED_Q))} need it")
        return self


@dataclass(frozen=True)
class Means:
    """What an evaluation may use; none of it changes the result."""

    workers: int = 1
    """Processes over folds, policies and replays."""
    work: Path | None = None
    """Where models, once fitted, outlive this process if it is killed, and are found by the next."""
    progress: Callable[[int, int], None] | None = None
    """Called with (steps done, steps in all)."""


@dataclass(frozen=True)
class Setting:
    """What all policies of one evaluation share."""

    episodes: Episodes
    behaviour: Float32[np.ndarray, "n a"]
    clinical: Clinical
    twin: Twin | None
    config: EvaluationConfig
    seed: int
    allowed: tuple[float, float]
    self_test: Gate
    calibration: Gate
    by_drug: Mapping[str, list[dict[str, float]]]
    """Calibration of the clinicians' model for each drug's dose bins."""
    cut: int
    """Episodes that are cut off: a value without a final value is withheld."""
    n_behaviour: int
    """Episodes that the clinicians' model is fitted to."""
    kept: Pieces | None = None
    """Where Q, once fitted, outlives this process."""

    @property
    def read(self) -> Bool[np.ndarray, "n"]:
        """Whether each decision's dose was read whole: only then does it count as a dose."""
        return ~self.clinical.decisions.unread

    @property
    def group(self) -> Int[np.ndarray, "n"]:
        """The twin's group of each decision; one group where there is no twin."""
        return self.twin.group if self.twin is not None else np.zeros(self.episodes.n, np.int64)


def of_cohort(
    cohort_dir: Path,
    episodes: Episodes,
    checks: Sequence[Check],
    config: EvaluationConfig,
    seed: int,
    using: Means,
    done: Step,
) -> Setting:
    """Fit what all policies of an evaluation share: the clinicians' model and the twin."""
    everyone, read = _everyone(cohort_dir, episodes)
    kept = None if using.work is None else Pieces(using.work)
    folds = min(config.behaviour.folds, len(np.unique(everyone.patient)))
    model = config.behaviour.model_copy(update={"folds": folds})

    def clinicians_model() -> dict[str, np.ndarray]:
        fitted = behaviour_model.cross_fit(everyone, model, seed, done, using.workers, read)
        return {"probabilities": fitted[-episodes.n :]}

    behaviour = pieces.arrays(kept, "behaviour", clinicians_model)["probabilities"]
    clinical = _clinical(cohort_dir)
    known = ~clinical.decisions.unread
    by_drug = overlap.by_drug(behaviour[known], episodes.action[known], clinical.doses.shape)
    worst = max(one["error"] for bins in by_drug.values() for one in bins)
    return Setting(
        episodes=episodes,
        behaviour=behaviour,
        clinical=clinical,
        twin=twin.fit(episodes, config.twin, seed) if config.twin and episodes.n >= config.twin.groups else None,
        config=config,
        seed=seed,
        allowed=attainable(episodes, config.gamma),
        self_test=gating.check_self_test([check.name for check in checks if not check.passed], len(checks)),
        calibration=gating.check_calibration(worst, config.gates),
        by_drug=by_drug,
        cut=int((~episodes.terminated).sum()),
        n_behaviour=everyone.n_episodes,
        kept=kept,
    )


def _clinical(cohort_dir: Path) -> Clinical:
    """The evaluated decisions' clinical columns, in the order of the episodes' rows."""
    strata = [name for feature in divergence.STRATA for name in (feature, f"{feature}_imputed")]
    names = sorted({*hazards.COLUMNS, *strata, "stay_id"})
    table = trajectories.read(cohort_dir, names, "evaluate")
    columns = {name: table[name].to_numpy() for name in names}
    fitted = dictionary.load(artifact.verified(cohort_dir, "dictionary.json"))
    stays = build.stays_of(cohort_dir, "evaluate")
    stay = np.searchsorted(stays["stay_id"], columns["stay_id"])
    began_in, ethnicity = (stays[name].fillna("unknown").to_numpy()[stay] for name in ("care_unit", "ethnicity"))
    highest = np.zeros(len(stays), columns["sofa"].dtype)
    np.maximum.at(highest, stay, columns["sofa"])
    return Clinical(
        hazards.of_table(columns),
        {
            name: np.where(columns[f"{name}_imputed"], np.nan, columns[name]).astype(np.float64)
            for name in divergence.STRATA
        },
        divergence.grid(fitted),
        fitted.step_hours,
        began_in.astype(str),
        subgroups.groups_of(columns["age_years"], columns["sex_male"], ethnicity, began_in, highest[stay]),
    )


def _everyone(cohort_dir: Path, evaluated: Episodes) -> tuple[Episodes, Bool[np.ndarray, "n"]]:
    """All patients of a cohort, those evaluated last, and which of their doses were read whole.

    The behaviour model is cross-fitted on as many as there are.
    """
    parts, read = [evaluated], [_read(cohort_dir, "evaluate")]
    for split in ("select", "train"):
        rows = _read(cohort_dir, split)
        if len(rows):
            parts.insert(0, build.episodes(cohort_dir, split))
            read.insert(0, rows)
    offset = np.cumsum([0, *(part.n_episodes for part in parts)])
    everyone = Episodes.from_arrays(
        np.concatenate([part.state for part in parts]),
        np.concatenate([part.action for part in parts]),
        np.concatenate([part.reward for part in parts]),
        np.concatenate([part.episode + first for part, first in zip(parts, offset, strict=False)]),
        np.concatenate([part.terminated for part in parts]),
        np.concatenate([part.final_state for part in parts]),
        evaluated.n_actions,
        patient=np.concatenate([part.patient for part in parts]),
        features=evaluated.features,
        scaler=evaluated.scaler,
    )
    return everyone, np.concatenate(read)


def _read(cohort_dir: Path, split: str) -> Bool[np.ndarray, "n"]:
    """Of each decision of a split: whether its dose was read whole."""
    known: np.ndarray = ~trajectories.read(cohort_dir, ["dose_unknown"], split)["dose_unknown"].to_numpy()
    return known
