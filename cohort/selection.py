"""Selection: which stays become episodes, from when to when, and why every other stay was left out."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Int
from pydantic import Field, field_validator

from cohort.artifact import hash_file
from cohort.config import Config
from cohort.errors import InputError
from cohort.grid import GridConfig

SUSPICION_BEFORE_H = 24
"""Anchored at suspicion, an episode starts this long before it and ends a horizon after its start."""
_NEVER = pd.Timestamp("2999-12-31")
SOFA_HOURS = (-24, 0, 24)
"""Hours from suspicion at which SOFA's 24 h look-back covers -48 .. +24 h."""


class StayList(Config):
    """A file of stays: one id a line; a first line `stay_id` is skipped."""

    file: str
    """Its path. A configuration gives it alone: `listed: FILE`."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Of the file when the configuration was read: what a manifest says of the list, whose ids it does not hold."""


class Exclusions(Config):
    """Stays left out by what is known at admission, or by id; diagnoses are coded at discharge, so never by those."""

    care_units: tuple[str, ...] = ()
    """First care units, as the source spells them."""
    charting: tuple[Literal["metavision", "carevue"], ...] = ()
    """Charting systems (MIMIC-III has two)."""
    listed: StayList | None = None
    """The path of a file of stay ids, one a line: patients who object, records known to be wrong."""

    @field_validator("listed", mode="before")
    @classmethod
    def _hashed(cls, given: object) -> object:
        if not isinstance(given, str | Path):
            return given
        try:
            return {"file": str(given), "sha256": hash_file(Path(given))}
        except OSError as error:
            raise ValueError(f"{given}: cannot be read ({type(error).__name__})") from None


class SelectionConfig(Config):
    """Inclusion criteria. Nothing here may look at how a stay ends, but for `sepsis3`, which says so."""

    minimum_age: float = Field(default=18, ge=0, le=120)
    stays: Literal["every", "first"] = "every"
    """Every ICU stay, or each patient's first in the source."""
    exclusions: Exclusions = Exclusions()
    sepsis3: bool = False
    """Suspected infection and SOFA >= 2 from 48 h before to 24 h after it. Seen from admission this uses the future."""


@dataclass(frozen=True)
class Flow:
    """The cohort flow: one step a criterion, each with the stays it lost."""

    steps: tuple[dict[str, Any], ...]

    def then(self, reason: str, before: pd.DataFrame, kept: pd.DataFrame) -> "Flow":
        """The flow with one more step."""
        step = {
            "reason": reason,
            "stays_in": len(before),
            "stays_lost": len(before) - len(kept),
            "stays_kept": len(kept),
            "patients_kept": int(kept["subject_id"].nunique()),
        }
        return Flow((*self.steps, step))


def candidates(stays: pd.DataFrame, selection: SelectionConfig, grid: GridConfig) -> tuple[pd.DataFrame, Flow]:
    """Apply every criterion that the stays table alone can answer; the stays kept are in the order of their ids."""
    kept = stays.sort_values("stay_id", ignore_index=True)
    flow = Flow(()).then("in the source", kept, kept)
    criteria = [
        (f"younger than {selection.minimum_age:g} years", kept["age_years"] >= selection.minimum_age),
        ("overlaps an earlier stay of the same patient", ~_overlapping(kept)),
    ]
    criteria += _excluded(kept, selection.exclusions)
    if selection.stays == "first":
        first = kept.sort_values(["intime", "stay_id"]).groupby("subject_id")["stay_id"].transform("first")
        criteria.append(("not the patient's first stay", kept["stay_id"] == first.sort_index()))
    if selection.sepsis3 or grid.anchor == "suspicion":
        criteria.append(("no suspected infection", kept["suspicion_time"].notna()))
    return _apply(kept, criteria, flow)


def require_known(stays: pd.DataFrame, exclusions: Exclusions) -> None:
    """Refuse exclusions that name nothing in the source: a misspelt unit or another dataset's list would do nothing.

    Raises:
        InputError: a care unit or a charting system is no stay's, or no listed id is a stay's.
    """
    for column, named in (("care_unit", exclusions.care_units), ("charting", exclusions.charting)):
        known = set(stays[column].dropna())
        unknown = [name for name in named if name not in known]
        if unknown:
            raise InputError(
                f"selection.exclusions: {column} {unknown[0]!r} is no stay's; known: {', '.join(sorted(known))}"
            )
    if exclusions.listed is not None:
        listed = _ids(exclusions.listed)
        if not stays["stay_id"].isin(listed).any():
            raise InputError(f"{exclusions.listed.file}: none of {len(listed)} listed stays is in the source")


def _excluded(stays: pd.DataFrame, exclusions: Exclusions) -> "list[tuple[str, pd.Series[bool]]]":
    """A criterion for each kind of exclusion that is in use."""
    criteria = []
    if exclusions.care_units:
        units = ", ".join(exclusions.care_units)
        criteria.append((f"first care unit excluded: {units}", ~stays["care_unit"].isin(exclusions.care_units)))
    if exclusions.charting:
        systems = ", ".join(exclusions.charting)
        criteria.append((f"charting system excluded: {systems}", ~stays["charting"].isin(exclusions.charting)))
    if exclusions.listed is not None:
        criteria.append(("on the list of excluded stays", ~stays["stay_id"].isin(_ids(exclusions.listed))))
    return criteria


def _ids(listed: StayList) -> Int[np.ndarray, "n"]:
    """The ids of a list.

    Raises:
        InputError: the file is missing, changed since the configuration was read, or a line is no id.
    """
    path = Path(listed.file)
    try:
        if hash_file(path) != listed.sha256:
            raise InputError(f"{path}: changed since the configuration was read")
        lines = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({type(error).__name__})") from None
    ids = lines[1:] if lines[:1] == ["stay_id"] else lines
    wrong = [number for number, word in enumerate(ids, start=1) if not word.isdecimal()]
    if wrong:
        raise InputError(f"{path}: {len(wrong)} of {len(ids)} entries are no stay id, the first is number {wrong[0]}")
    return np.array([int(word) for word in ids], dtype=np.int64)


def septic(stays: pd.DataFrame, sofa: "pd.Series[int]", flow: Flow) -> tuple[pd.DataFrame, Flow]:
    """Keep the stays whose SOFA around suspicion reaches 2 over a baseline of 0; `sofa` is by stay id."""
    rise = stays["stay_id"].map(sofa)
    return _apply(stays, [("SOFA below 2 from 48 h before to 24 h after suspected infection", rise >= 2)], flow)


def windows(stays: pd.DataFrame, grid: GridConfig, flow: Flow) -> tuple[pd.DataFrame, Flow]:
    """Add `anchor`, `end` and `end_reason` (death, discharge, horizon) and keep stays at least one step long.

    Death or ICU discharge inside a window ends the episode there; the horizon ends what is longer. The length that
    counts is until ICU discharge: a patient who dies in the first window is an episode of one partial window.
    """
    timed, step = timed_stays(stays, grid), pd.Timedelta(hours=grid.step_hours)
    discharged = timed["outtime"].where(timed["outtime"] < timed["horizon"], timed["horizon"])
    criteria = [
        (f"shorter than one step of {grid.step_hours} h", discharged - timed["anchor"] >= step),
        ("dead before the first decision", timed["end"] > timed["anchor"]),
    ]
    return _apply(timed.drop(columns="horizon"), criteria, flow)


def timed_stays(stays: pd.DataFrame, grid: GridConfig) -> pd.DataFrame:
    """The stays with `anchor`, `horizon`, and `end` and `end_reason` (death, discharge, horizon) of their episodes."""
    anchor = stays["intime"]
    horizon = anchor + pd.Timedelta(hours=grid.horizon_hours)
    if grid.anchor == "suspicion":  # whole steps only, so that the horizon never cuts a window
        before = stays["suspicion_time"] - pd.Timedelta(hours=SUSPICION_BEFORE_H)
        anchor = anchor.where(anchor > before, before)
        after = before + pd.Timedelta(hours=grid.horizon_hours) - anchor
        horizon = anchor + after.where(after > pd.Timedelta(0), pd.Timedelta(0)).dt.floor(f"{grid.step_hours}h")
    death = stays["deathtime"].fillna(_NEVER)
    leaves = stays["outtime"].where(stays["outtime"] < death, death)
    end = leaves.where(leaves < horizon, horizon)
    reason = np.select([end == death, end == stays["outtime"]], ["death", "discharge"], "horizon")
    return stays.assign(anchor=anchor, horizon=horizon, end=end, end_reason=reason)


def _overlapping(stays: pd.DataFrame) -> "pd.Series[bool]":
    ordered = stays.sort_values(["subject_id", "intime", "stay_id"])
    left = ordered.groupby("subject_id")["outtime"].cummax().groupby(ordered["subject_id"]).shift()
    return (ordered["intime"] < left).sort_index()


def _apply(stays: pd.DataFrame, criteria: "list[tuple[str, pd.Series[bool]]]", flow: Flow) -> tuple[pd.DataFrame, Flow]:
    meets_all = pd.Series(True, index=stays.index)
    for reason, meets in criteria:
        before = stays[meets_all]
        meets_all &= meets
        flow = flow.then(reason, before, stays[meets_all])
    return stays[meets_all].reset_index(drop=True), flow
