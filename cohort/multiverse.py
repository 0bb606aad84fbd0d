"""Multiverse: the same patients under other defensible definitions, and how far states, actions and rewards move."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from pydantic import Field, StringConstraints, field_validator

from cohort import artifact, build, trajectories
from cohort.build import CohortConfig
from cohort.config import Config
from cohort.errors import InputError
from cohort.features import FEATURES

FILE = "multiverse.json"
BASE = "base"
MOVED = 1e-6
"""A value that differs by less, relative to its deviation in the base, has not moved."""

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]+$", max_length=60)]
"""A variant's; it is also its directory's."""


class MultiverseConfig(Config):
    """A base cohort and its variants, each a whole configuration (what it leaves out is the default)."""

    base: CohortConfig = CohortConfig()
    variants: dict[Name, CohortConfig] = Field(min_length=1)

    @field_validator("variants")
    @classmethod
    def _spare_the_base(cls, variants: dict[str, CohortConfig]) -> dict[str, CohortConfig]:
        if BASE in variants:
            raise ValueError(f"a variant cannot be named {BASE!r}")
        return variants


def run(
    shards: Path,
    out: Path,
    config: MultiverseConfig,
    seed: int,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Build the base and every variant under `out` and write multiverse.json, a row a variant.

    The split of patients is the same in all. Rows are compared where base and variant decide for the same stay at the
    same time; actions only where the steps are equally long, since a dose of another window is another action.

    Raises:
        InputError: no stay is left in the base or a variant, or its shards are wrong.
    """
    built = {BASE: config.base, **config.variants}
    for number, (name, variant) in enumerate(built.items(), start=1):
        (out / name).mkdir()
        try:
            build.build(shards, out / name, variant, seed, workers)
        except InputError as error:
            raise InputError(f"multiverse: {name}: {error}") from None
        if progress is not None:
            progress(number, len(built))
    base = _rows(out / BASE)
    same_step = {name: variant.grid.step_hours == config.base.grid.step_hours for name, variant in built.items()}
    table = [{"name": name, **compare(base, _rows(out / name), same_step[name])} for name in built]
    artifact.write_json(out / FILE, table)
    return table


def compare(base: pd.DataFrame, other: pd.DataFrame, same_step: bool) -> dict[str, Any]:
    """How far `other` trajectories are from `base`.

    Returns:
        counts of stays and decisions; `shared` decisions; `state_moved`, the share of their state values that differ;
        `imputed`, the share of values imputed in `other`; `most_moved`, the five features that moved most, each with
        its mean absolute change in deviations of the base (in its own unit where it is constant there); `sofa_moved`;
        `action_moved` (None for other steps); `return_change`, the mean change of a stay's total reward, over stays
        in both.
    """
    both = base.merge(other, on=["stay_id", "time"], suffixes=("", "_other"))
    before = both[list(FEATURES)].to_numpy(np.float64)
    after = both[[f"{name}_other" for name in FEATURES]].to_numpy(np.float64)
    deviation = base[list(FEATURES)].to_numpy(np.float64).std(axis=0)
    change = np.abs(after - before) / np.where(deviation > MOVED, deviation, 1.0)
    sofa = FEATURES.index("sofa")
    average = change.mean(axis=0) if len(both) else np.zeros(len(FEATURES))
    most = [int(i) for i in np.argsort(-average, kind="stable")[:5] if average[i] > 0]
    totals = pd.concat([frame.groupby("stay_id")["reward"].sum() for frame in (base, other)], axis=1, join="inner")
    return {
        "stays": int(other["stay_id"].nunique()),
        "decisions": len(other),
        "shared": len(both),
        "state_moved": _share(change > MOVED),
        "imputed": _share(other[[f"{name}_imputed" for name in FEATURES]].to_numpy(bool)),
        "most_moved": {FEATURES[i]: round(float(average[i]), 4) for i in most},
        "sofa_moved": _share(change[:, sofa] > MOVED),
        "action_moved": _share((both["action"] != both["action_other"]).to_numpy()) if same_step else None,
        "return_change": round(float((totals.iloc[:, 1] - totals.iloc[:, 0]).mean()), 6) if len(totals) else None,
    }


def _rows(cohort: Path) -> pd.DataFrame:
    columns = ["stay_id", "time", "action", "reward", *FEATURES, *(f"{name}_imputed" for name in FEATURES)]
    frame: pd.DataFrame = artifact.read_parquet(cohort / trajectories.FILE, columns).to_pandas()
    return frame


def _share(mask: np.ndarray) -> float | None:
    return round(float(mask.mean()), 6) if mask.size else None
