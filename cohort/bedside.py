"""Bedside: the state of one patient at one time, by the very function that made the batch."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float32, Float64, Int, Shaped

from cohort import actions, features, frames, tables
from cohort.actions import ActionConfig
from cohort.dictionary import Dictionary
from cohort.errors import InputError
from cohort.features import FEATURES, MEASURED
from cohort.grid import GridConfig
from cohort.tables import Tables


@dataclass(frozen=True)
class Bedside:
    """States, complete, and what in them was measured; the leading axes are stays and decision times, or none."""

    value: Float32[np.ndarray, "*a d"]
    imputed: Bool[np.ndarray, "*a d"]
    age_h: Float64[np.ndarray, "*a m"]
    """Hours since each of features.MEASURED was charted; NaN where it is imputed."""
    fio2_estimated: Bool[np.ndarray, "*a"]
    sofa_missing: Int[np.ndarray, "*a"]
    cvp: Float64[np.ndarray, "*a"]
    """NaN where it is not charted."""
    fluid_balance_total: Float64[np.ndarray, "*a"]
    previous_action: Int[np.ndarray, "*a"]
    """The dose of the step before; -1 before a whole step has passed."""

    def __getitem__(self, chosen: object) -> "Bedside":
        """Some of the states, chosen along the leading axes."""
        return Bedside(*(column[chosen] for column in vars(self).values()))

    @property
    def known(self) -> Float64[np.ndarray, "*a d"]:
        """The states with every imputed value missing (NaN)."""
        return np.where(self.imputed, np.nan, self.value.astype(np.float64))

    @property
    def freshness_h(self) -> Float64[np.ndarray, "*a d"]:
        """Hours since each feature was measured; NaN where it is imputed, 0 for what is derived or never ages."""
        fresh = np.where(self.imputed, np.nan, 0.0)
        fresh[..., [FEATURES.index(name) for name in MEASURED]] = self.age_h
        return fresh


def state(
    tables: Tables,
    anchor: np.datetime64,
    hour: int,
    config: GridConfig,
    fitted: Dictionary,
    given: ActionConfig | None = None,
) -> Bedside:
    """The state of the one stay in `tables`, `hour` whole hours after `anchor`.

    It is bit for bit the row of trajectories.parquet at that time. Rows available later may be in the tables or not.

    Raises:
        InputError: the tables hold no stay or several.
    """
    if len(tables.stays) != 1:
        raise InputError(f"stays: {len(tables.stays)} rows, expected one stay at the bedside")
    return states(tables, np.array([anchor], "datetime64[us]"), np.array([hour]), config, fitted, given)[0, 0, ...]


def states(
    tables: Tables,
    anchor: Shaped[np.ndarray, "s"],
    hours: Int[np.ndarray, "k"],
    config: GridConfig,
    fitted: Dictionary,
    given: ActionConfig | None = None,
) -> Bedside:
    """The state of every stay in `tables` at `hours` (ascending whole hours) after `anchor`: leading axes (s, k).

    Args:
        given: the cohort's `actions`; None: their defaults.

    Raises:
        InputError: `fitted` has other features than these would be.
    """
    given = given or ActionConfig()
    wanted = features.names(given)
    if fitted.features != wanted:
        raise InputError(
            f"dictionary: {len(fitted.features)} features, the bedside's are {len(wanted)}; "
            "it needs the cohort's own actions (in_state)"
        )
    made = features.states(tables, anchor, hours, config, given)
    before = features.doses_before(tables, anchor, hours, config.step_hours, given)
    action = actions.to_action(before[..., 0], before[..., 1], fitted)
    return Bedside(
        value=features.impute(made.value, fitted.imputation),
        imputed=np.isnan(made.value),
        age_h=made.age_h,
        fio2_estimated=made.fio2_estimated,
        sofa_missing=made.sofa_missing,
        cvp=made.cvp,
        fluid_balance_total=made.fluid_balance_total,
        previous_action=np.where(hours >= config.step_hours, action, -1),
    )


def shards(folder: Path, stays: pd.DataFrame) -> Iterator[tuple[Tables, pd.DataFrame]]:
    """The canonical tables below `folder` (shard-*/), of `stays` alone, a shard at a time, and its rows of `stays`.

    Raises:
        InputError: there is no shard, or one breaks the schema.
        ArtifactError: a file is missing or damaged.
    """
    found = sorted(folder.glob("shard-*"))
    if not found:
        raise InputError(f"{folder}: holds no shard-* folder")
    for path in found:
        shard = tables.read(path)
        mine = stays[stays["stay_id"].isin(shard.stays["stay_id"])]
        if len(mine):
            yield frames.only(shard, mine), mine
