"""Stays: who was in the ICU and when, what was known of them, and to which stay an event of a patient belongs."""

from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from cohort.errors import InputError
from cohort.sources import comorbidity, infection
from cohort.sources.measurements import HOUR, NAT
from cohort.tables import Counts

LOOK_BACK_HOURS = 24
"""A laboratory value up to this long before the ICU belongs to the stay that follows."""
HIDDEN_AGE = 91.4
"""The mean age of those whose age MIMIC-III hides behind 300 years."""


@dataclass(frozen=True)
class Windows:
    """When events of a patient belong to each stay: [start, end). Stays in order of patient and intime."""

    stay_id: Int[np.ndarray, "s"]
    subject_id: Int[np.ndarray, "s"]
    intime: Int[np.ndarray, "s"]
    start: Int[np.ndarray, "s"]
    """24 h before intime, but not before the patient's previous stay ended."""
    end: Int[np.ndarray, "s"]

    def by_time(self, subject: Int[np.ndarray, "n"], moment: Int[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
        """The index of the patient's stay whose window holds the moment, -1 where none does."""
        first = np.searchsorted(self.subject_id, subject, side="left")
        last = np.searchsorted(self.subject_id, subject, side="right") - 1
        known = (last >= first) & (moment != NAT)
        stay = np.where(known, first, 0)
        moving = np.flatnonzero(known & (first < last))
        while moving.size:
            moving = moving[(stay[moving] < last[moving]) & (moment[moving] >= self.end[stay[moving]])]
            stay[moving] += 1
        inside = known & (moment >= self.start[stay]) & (moment < self.end[stay])
        return np.where(inside, stay, -1)

    def by_id(self, stay_id: Int[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
        """The index of each stay id, -1 where it is not among the stays."""
        order = np.argsort(self.stay_id)
        place = np.searchsorted(self.stay_id, stay_id, sorter=order)
        stay = order[np.minimum(place, len(order) - 1)]
        return np.where(self.stay_id[stay] == stay_id, stay, -1)


def windows(stays: pd.DataFrame) -> Windows:
    """Windows of stays that are sorted by subject_id and intime."""
    subject = stays["subject_id"].to_numpy(np.int64)
    intime, outtime = micros(stays["intime"]), micros(stays["outtime"])
    same = np.r_[False, subject[1:] == subject[:-1]]
    earlier = pd.Series(outtime).groupby(subject).cummax().to_numpy()
    previous = np.where(same, np.r_[NAT, earlier[:-1]], NAT)
    start = np.maximum(intime - LOOK_BACK_HOURS * HOUR, previous)
    return Windows(stays["stay_id"].to_numpy(np.int64), subject, intime, start, outtime)


def micros(times: "pd.Series[Any]") -> Int[np.ndarray, "n"]:
    """Integer microseconds since 1970 of a column of times without a zone; NAT where missing.

    Raises:
        InputError: the column does not hold times, or they have a zone.
    """
    if isinstance(times.dtype, pd.DatetimeTZDtype):
        raise InputError(f"{times.name}: has a time zone; times are local and without one")
    if times.dtype.kind != "M":
        if times.isna().all():
            return np.full(len(times), NAT)
        if times.dtype == object and isinstance(times.dropna().iloc[0], date):
            return pd.to_datetime(times).to_numpy().astype("datetime64[us]").view(np.int64)
        raise InputError(f"{times.name}: type {times.dtype}, expected times")
    values: np.ndarray = times.to_numpy().astype("datetime64[us]").view(np.int64)
    return values


@dataclass(frozen=True)
class History:
    """What a source tells of patients beside their stays, in one form; columns in the order given.

    `admissions`: subject_id, hadm_id, admittime, dischtime, deathtime, ethnicity, died. `patients`: subject_id,
    sex_male, dod. `diagnoses`: subject_id, hadm_id, code, version; None: the table is missing.
    `cultures`, `antibiotics`: subject_id, time; None: the table is missing.
    """

    admissions: pd.DataFrame
    patients: pd.DataFrame
    diagnoses: pd.DataFrame | None
    cultures: pd.DataFrame | None
    antibiotics: pd.DataFrame | None


def sound(stays: pd.DataFrame, history: History, counts: Counts) -> pd.DataFrame:
    """Stays in order of patient and intime, those without times, patient or admission dropped and counted.

    Raises:
        InputError: an id is missing or given twice, or more than half of the stays end before they start.
    """
    for key in ("stay_id", "subject_id"):
        missing = int((stays[key] < 0).sum())
        if missing:
            raise InputError(f"icustays: {key.replace('_', ' ')}: missing in {missing} of {len(stays)} rows")
    repeated = int(stays["stay_id"].duplicated().sum())
    if repeated:
        raise InputError(f"icustays: stay id: given more than once ({repeated} of {len(stays)} rows)")
    for table, frame, key in (
        ("patients", history.patients, "subject_id"),
        ("admissions", history.admissions, "hadm_id"),
    ):
        again = int(frame[key].duplicated().sum())
        if again:
            raise InputError(f"{table}: {key}: given more than once ({again} of {len(frame)} rows)")
    intime, outtime = micros(stays["intime"]), micros(stays["outtime"])
    timed = (intime != NAT) & (outtime != NAT)
    backwards = timed & (outtime <= intime)
    if backwards.sum() * 2 > len(stays):
        raise InputError(f"icustays: outtime: not after intime in {int(backwards.sum())} of {len(stays)} rows")
    reasons = {
        "intime or outtime missing": ~timed,
        "outtime not after intime": backwards,
        "patient not in patients": ~stays["subject_id"].isin(history.patients["subject_id"]).to_numpy(),
        "admission not in admissions": ~stays["hadm_id"].isin(history.admissions["hadm_id"]).to_numpy(),
    }
    dropped = np.zeros(len(stays), dtype=bool)
    for reason, wrong in reasons.items():
        new = int((wrong & ~dropped).sum())
        if new:
            counts["icustays", reason] += new
        dropped |= wrong
    kept = stays[~dropped].sort_values(["subject_id", "intime", "stay_id"], ignore_index=True)
    overlap = 0 if kept.empty else int((windows(kept).start > micros(kept["intime"])).sum())
    if overlap:
        counts["icustays", "overlaps an earlier stay of its patient"] += overlap
    return kept


def build(stays: pd.DataFrame, age_years: Float[np.ndarray, "s"], history: History, where: Windows) -> pd.DataFrame:
    """The canonical stays, in order of patient and intime.

    Args:
        stays: what `sound` returned: stay_id, subject_id, hadm_id, intime, outtime, care_unit, charting.
        age_years: the age of each at ICU admission.
        history: the patients' other tables.
        where: the stays' windows.
    """
    admission = history.admissions.set_index("hadm_id").loc[stays["hadm_id"]].reset_index()
    patient = history.patients.set_index("subject_id").loc[stays["subject_id"]].reset_index()
    prior, current = _elixhauser(stays, history)
    first = np.r_[True, where.subject_id[1:] != where.subject_id[:-1]]
    return pd.DataFrame(
        {
            **{name: stays[name] for name in ("stay_id", "subject_id", "hadm_id", "intime", "outtime")},
            **{name: admission[name] for name in ("admittime", "dischtime", "deathtime")},
            "dod": patient["dod"],
            "died_in_hospital": admission["died"].to_numpy(bool),
            "age_years": age_years,
            "sex_male": patient["sex_male"],
            "ethnicity": admission["ethnicity"],
            "care_unit": stays["care_unit"],
            "readmission": (~first).astype(float),
            "elixhauser": prior,
            "elixhauser_current": current,
            "suspicion_time": _suspicion(history, where).view("datetime64[us]"),
            "charting": stays["charting"],
        }
    )


def _elixhauser(stays: pd.DataFrame, history: History) -> tuple[Float[np.ndarray, "s"], Float[np.ndarray, "s"]]:
    """Comorbidities of admissions that ended before this one began (NaN: none did), and of this one."""
    unknown = np.full(len(stays), np.nan)
    if history.diagnoses is None:
        return unknown, unknown
    bits = comorbidity.by_admission(history.diagnoses)
    admissions = history.admissions[["subject_id", "hadm_id", "dischtime"]]
    admissions = admissions.assign(bits=bits.reindex(admissions["hadm_id"], fill_value=0).to_numpy(np.int64))
    begun = history.admissions.set_index("hadm_id")["admittime"].loc[stays["hadm_id"]].to_numpy()
    wanted = pd.DataFrame({"subject_id": stays["subject_id"], "begun": begun, "stay": np.arange(len(stays))})
    pairs = wanted.merge(admissions, on="subject_id")
    pairs = pairs[(pairs["dischtime"] <= pairs["begun"]).to_numpy()]
    merged, known = np.zeros(len(stays), dtype=np.int64), np.zeros(len(stays), dtype=bool)
    np.bitwise_or.at(merged, pairs["stay"].to_numpy(np.int64), pairs["bits"].to_numpy(np.int64))
    known[pairs["stay"].to_numpy(np.int64)] = True
    current = comorbidity.count(bits.reindex(stays["hadm_id"], fill_value=0).to_numpy(np.int64))
    return np.where(known, comorbidity.count(merged), np.nan), current


def _suspicion(history: History, where: Windows) -> Int[np.ndarray, "s"]:
    """The first suspicion from 48 h before the stay (not before the previous stay ended) to its end."""
    if history.cultures is None or history.antibiotics is None:
        return np.full(len(where.stay_id), NAT)
    earliest = np.where(where.start > where.intime - LOOK_BACK_HOURS * HOUR, where.start, where.intime - 48 * HOUR)
    culture, antibiotic = (
        (frame["subject_id"].to_numpy(np.int64), micros(frame["time"]))
        for frame in (history.cultures, history.antibiotics)
    )
    return infection.suspicion(where.subject_id, earliest, where.end, _timed(culture), _timed(antibiotic))


def _timed(events: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    known = events[1] != NAT
    return events[0][known], events[1][known]
