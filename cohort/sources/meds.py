"""MEDS: a Medical Event Data Standard dataset, by a map of its codes, brought to the canonical tables.

Events become MIMIC-IV's tables and go the same way from there. What MEDS lacks is documented in docs/decisions/meds.md.
"""

import re
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Int

from cohort import concepts, config
from cohort.errors import InputError
from cohort.sources import items, measurements, mimic_iv, normalise, stays
from cohort.sources.codes import CodeMap, End, Rule
from cohort.sources.measurements import Accepted
from cohort.sources.raw import Keep, Kind, RawTable
from cohort.tables import Counts, Tables

GENERATED = 1000
"""A stay or admission without an id of its own is numbered patient * 1000 + its place in time."""


class Meaning(config.Config):
    """What one code means."""

    end: End
    item: int = -1
    unit: str | None = None
    clock: Literal["stored", "charted"] = "stored"
    word: str | None = None
    version: int = 0


@cache
def code_map() -> CodeMap:
    """The map that ships with Suture."""
    return config.load(concepts.DIRECTORY / "meds.yaml", CodeMap)


@lru_cache(maxsize=200_000)
def meaning(code: str, codes: CodeMap) -> Meaning | None:
    """What a code means; None where no rule claims it.

    Raises:
        InputError: two rules claim it for different ends.
    """
    found = {_read(rule, match) for rule in codes.rules if (match := re.match(rule.pattern, code))}
    if len(found) > 1:
        raise InputError(f"code map: {len(found)} rules claim the code {code[:60]!r} for different ends")
    return found.pop() if found else None


_I, _N, _T, _W = Kind.INTEGER, Kind.NUMBER, Kind.TIME, Kind.TEXT


def layout(codes: CodeMap) -> tuple[RawTable, ...]:
    """What is read of data/**/*.parquet where codes mean what the map says."""
    patterns = (re.sub(r"[(][?]P<[a-z]+>", "(?:", rule.pattern) for rule in codes.rules)
    starts = (re.sub(r"[(][?]P<[a-z]+>", "(?:", rule.pattern) for rule in codes.rules if rule.as_ == "icu_start")
    claimed, stays_begin = ("|".join(f"^(?:{pattern})" for pattern in some) for some in (patterns, starts))
    return (
        RawTable("icu", {"subject_id": _I, "code": _W}, key="stays", required=True, file="data",
                 keep=Keep("code", stays_begin or "^$", every_case=False)),
        RawTable("data", {"subject_id": _I, "time": _T, "code": _W, "numeric_value": _N, "text_value": _W,
                          "hadm_id": _I, "icustay_id": _I, "order_id": _I, "link_order_id": _I},
                 key="patient", required=True, keep=Keep("code", claimed, every_case=False),
                 optional=frozenset({"numeric_value", "text_value", "hadm_id", "icustay_id", "order_id",
                                     "link_order_id"})),
    )  # fmt: skip


TABLES = layout(code_map())
"""What is read of the layout by the map that ships with Suture."""
SECTIONS, DOSES, OUTPUTS = mimic_iv.SECTIONS, mimic_iv.DOSES, mimic_iv.OUTPUTS
"""The tables that events become and the items they hold."""


def measured(raw: Mapping[str, pd.DataFrame], codes: CodeMap | None = None) -> Mapping[str, pd.DataFrame]:
    """The events as MIMIC-IV's tables, by the map given or the one that ships with Suture."""
    return as_mimic_iv(raw["data"], codes or code_map())


def canonical(
    raw: Mapping[str, pd.DataFrame], accepted: Accepted = (), codes: CodeMap | None = None
) -> tuple[Tables, Counts]:
    """Bring the events of some patients to the canonical tables; counts name MIMIC-IV's tables they became.

    Args:
        raw: `data`: subject_id, time, code, and where there are any numeric_value, text_value, hadm_id, icustay_id,
            order_id, link_order_id.
        accepted: units beside the dictionary's that a reviewer accepted.
        codes: what codes mean; None: the map that ships with Suture.

    Raises:
        InputError: a code is claimed twice, no ICU stay is in the events, or a column is of a wrong type.
    """
    return mimic_iv.canonical(measured(raw, codes), accepted)


def as_mimic_iv(events: pd.DataFrame, codes: CodeMap) -> dict[str, pd.DataFrame]:
    """Events as the tables of MIMIC-IV that they came from or could have come from."""
    known = _known(events, codes)
    icu = _stays(known)
    measured = _measurements(known, icu)
    lab_ids = measurements.ids(measurements.section(items.load("mimic_iv").lab))
    laboratory = measured["itemid"].isin(lab_ids | set(items.load("mimic_iv").specimen.ids))
    return {
        "icustays": icu,
        "patients": _patients(known, icu),
        "admissions": _admissions(known),
        "chartevents": measured[~laboratory],
        "labevents": measured[laboratory],
        "outputevents": _outputs(known, icu),
        "inputevents": _infusions(known, icu),
        "procedureevents": _procedures(known, icu),
        **_history(known),
    }


def _known(events: pd.DataFrame, codes: CodeMap) -> pd.DataFrame:
    """The events that mean something, with what they mean, in order of patient and time."""
    code, vocabulary = normalise.words(normalise.column(events, "data", "code"))
    used = np.zeros(len(vocabulary) + 1, dtype=bool)
    used[code] = True
    meanings = [meaning(word, codes) if used[k] else None for k, word in enumerate(vocabulary)]
    table = pd.DataFrame(
        [
            (m.end, m.item, m.unit, m.clock, m.word, m.version) if m else (None, -1, None, None, None, 0)
            for m in meanings
        ]
        + [(None, -1, None, None, None, 0)],
        columns=["end", "item", "unit", "clock", "word", "version"],
    )
    found = table.iloc[code].reset_index(drop=True)
    found["subject_id"] = normalise.integers(events, "data", "subject_id")
    found["time"] = normalise.moments(events, "data", "time")
    found["value"] = normalise.numbers(events, "data", "numeric_value") if "numeric_value" in events else np.nan
    found["text"] = events["text_value"].to_numpy() if "text_value" in events else None
    for name in ("hadm_id", "icustay_id", "order_id", "link_order_id"):
        found[name] = normalise.integers(events, "data", name) if name in events else -1
    found = found[found["end"].notna()]
    return found.sort_values(["subject_id", "time", "end", "item", "order_id"], kind="stable", ignore_index=True)


def _of(known: pd.DataFrame, *ends: End) -> pd.DataFrame:
    return known[known["end"].isin(ends)].reset_index(drop=True)


def _numbered(frame: pd.DataFrame, name: str) -> Int[np.ndarray, "n"]:
    """The ids of a column; where missing, numbered by the patient's order in time."""
    given = frame[name].to_numpy(np.int64)
    place = frame.groupby("subject_id").cumcount().to_numpy(np.int64)
    subject = frame["subject_id"].to_numpy(np.int64)
    if len(subject) and np.abs(subject).max() > 2**62 // GENERATED and (given < 0).any():
        raise InputError(f"data: {name}: missing, and patient ids are too large to number from")
    return np.where(given >= 0, given, subject * GENERATED + place)


def _pairs(known: pd.DataFrame, start: End, end: End) -> pd.DataFrame:
    """Starts with their ends: by order_id and item where given, else the k-th start with the k-th end.

    What has no partner keeps a missing time in its place, so that it is counted like a raw row without that time.
    """
    starts, ends = _of(known, start), _of(known, end)
    keys = ["subject_id", "item", "order_id", "icustay_id"]
    for frame in (starts, ends):
        frame["place"] = frame.groupby(keys).cumcount()
    pairs = starts.merge(ends, on=[*keys, "place"], how="outer", suffixes=("", "_end"))
    return pairs.astype({"hadm_id": "Int64", "link_order_id": "Int64"}).fillna({"hadm_id": -1, "link_order_id": -1})


def _stays(known: pd.DataFrame) -> pd.DataFrame:
    pairs = _pairs(known, "icu_start", "icu_end")
    if pairs[["time", "time_end"]].isna().any(axis=1).all():
        raise InputError("data: no ICU stay has both a start and an end")
    pairs = pairs.sort_values(["subject_id", "time"], ignore_index=True)
    admissions = _of(known, "admission")
    inside = pd.merge_asof(
        pairs.dropna(subset="time").sort_values("time")[["time", "subject_id", "icustay_id"]].reset_index(names="row"),
        admissions.assign(number=_numbered(admissions, "hadm_id")).sort_values("time")[
            ["time", "subject_id", "number"]
        ],
        on="time",
        by="subject_id",
    ).set_index("row")["number"]
    hadm = pairs["hadm_id"].where(pairs["hadm_id"] >= 0, inside.reindex(pairs.index)).fillna(-1).astype(np.int64)
    return pd.DataFrame(
        {
            "subject_id": pairs["subject_id"],
            "hadm_id": hadm,
            "stay_id": _numbered(pairs, "icustay_id"),
            "first_careunit": pairs["word"],
            "intime": pairs["time"],
            "outtime": pairs["time_end"],
        }
    )


def _patients(known: pd.DataFrame, icu: pd.DataFrame) -> pd.DataFrame:
    first = icu.groupby("subject_id")["intime"].min().dropna()
    born = _of(known, "birth").groupby("subject_id")["time"].first().reindex(first.index)
    died = _of(known, "death").groupby("subject_id")["time"].first().reindex(first.index)
    sex = _of(known, "sex").groupby("subject_id")["word"].first().reindex(first.index)
    return pd.DataFrame(
        {
            "subject_id": first.index,
            "gender": sex.to_numpy(),
            "anchor_age": (first.dt.year - born.dt.year).to_numpy(float),
            "anchor_year": first.dt.year.to_numpy(np.int64),
            "dod": died.dt.floor("D").to_numpy(),
        }
    )


def _admissions(known: pd.DataFrame) -> pd.DataFrame:
    """Admissions; who died between admission and discharge died in hospital."""
    starts, ends = _of(known, "admission"), _of(known, "discharge")
    starts["number"], ends["number"] = _numbered(starts, "hadm_id"), _numbered(ends, "hadm_id")
    pairs = starts.merge(ends[["subject_id", "number", "time"]], on=["subject_id", "number"], suffixes=("", "_end"))
    died = _of(known, "death").groupby("subject_id")["time"].first().reindex(pairs["subject_id"])
    died.index = pairs.index
    inside = (died >= pairs["time"]) & (died <= pairs["time_end"])
    race = pairs["subject_id"].map(_of(known, "race").groupby("subject_id")["word"].first())
    return pd.DataFrame(
        {
            "subject_id": pairs["subject_id"],
            "hadm_id": pairs["number"],
            "admittime": pairs["time"],
            "dischtime": pairs["time_end"],
            "deathtime": died.where(inside),
            "race": race,
            "hospital_expire_flag": inside.astype(np.int64),
        }
    )


def _stay_of(frame: pd.DataFrame, icu: pd.DataFrame) -> Int[np.ndarray, "n"]:
    """The stay each event names, else the one whose window holds it; -1 where neither."""
    where = stays.windows(icu.sort_values(["subject_id", "intime"], ignore_index=True))
    stay = where.by_time(frame["subject_id"].to_numpy(np.int64), stays.micros(frame["time"]))
    inside = np.where(stay >= 0, where.stay_id[stay], -1)
    given = frame["icustay_id"].to_numpy(np.int64)
    return np.where(given >= 0, given, inside)


def _measurements(known: pd.DataFrame, icu: pd.DataFrame) -> pd.DataFrame:
    """Charted and laboratory values. What was drawn from a patient at one moment is one specimen."""
    rows = _of(known, "measurement")
    stored = rows["time"].where(rows["clock"] == "stored")
    specimen = rows.groupby(["subject_id", "time"], dropna=False).ngroup()
    return pd.DataFrame(
        {
            "subject_id": rows["subject_id"],
            "stay_id": _stay_of(rows, icu),
            "specimen_id": specimen.astype(np.int64),
            "itemid": rows["item"],
            "charttime": rows["time"],
            "storetime": stored,
            "value": rows["text"],
            "valuenum": rows["value"].astype(float),
            "valueuom": rows["unit"],
        }
    )


def _outputs(known: pd.DataFrame, icu: pd.DataFrame) -> pd.DataFrame:
    rows = _of(known, "output")
    return pd.DataFrame(
        {
            "stay_id": _stay_of(rows, icu),
            "itemid": rows["item"],
            "charttime": rows["time"],
            "storetime": rows["time"].where(rows["clock"] == "stored"),
            "value": rows["value"].astype(float),
            "valueuom": rows["unit"],
        }
    )


def _infusions(known: pd.DataFrame, icu: pd.DataFrame) -> pd.DataFrame:
    """Infusions: the start's value is the rate, the end's the amount; the weight is that of the same order and time."""
    pairs = _pairs(known, "infusion_start", "infusion_end")
    weights = _of(known, "infusion_weight").drop_duplicates(["subject_id", "order_id", "time"])
    pairs = pairs.merge(
        weights[["subject_id", "order_id", "time", "value"]],
        on=["subject_id", "order_id", "time"],
        how="left",
        suffixes=("", "_weight"),
    )
    return pd.DataFrame(
        {
            "stay_id": _stay_of(pairs, icu),
            "itemid": pairs["item"],
            "starttime": pairs["time"],
            "endtime": pairs["time_end"],
            "amount": pairs["value_end"].astype(float),
            "amountuom": pairs["unit_end"],
            "rate": pairs["value"].astype(float),
            "rateuom": pairs["unit"],
            "orderid": pairs["order_id"],
            "linkorderid": pairs["link_order_id"].where(pairs["link_order_id"] >= 0, pairs["order_id"]),
            "patientweight": pairs["value_weight"].astype(float),
            "statusdescription": "FinishedRunning",
        }
    )


def _procedures(known: pd.DataFrame, icu: pd.DataFrame) -> pd.DataFrame:
    pairs = _pairs(known, "procedure_start", "procedure_end")
    return pd.DataFrame(
        {
            "stay_id": _stay_of(pairs, icu),
            "itemid": pairs["item"],
            "starttime": pairs["time"],
            "endtime": pairs["time_end"],
        }
    )


def _history(known: pd.DataFrame) -> dict[str, pd.DataFrame]:
    cultures, drugs, codes = (_of(known, end) for end in ("culture", "prescription", "diagnosis"))
    return {
        "microbiologyevents": pd.DataFrame(
            {
                "subject_id": cultures["subject_id"],
                "chartdate": cultures["time"].dt.floor("D"),
                "charttime": cultures["time"],
                "spec_type_desc": cultures["word"],
            }
        ),
        "prescriptions": pd.DataFrame(
            {
                "subject_id": drugs["subject_id"],
                "starttime": drugs["time"],
                "drug": drugs["word"],
                "route": drugs["text"],
            }
        ),
        "diagnoses_icd": pd.DataFrame(
            {
                "subject_id": codes["subject_id"],
                "hadm_id": codes["hadm_id"],
                "icd_code": codes["word"],
                "icd_version": codes["version"],
            }
        ),
    }


def _read(rule: Rule, match: "re.Match[str]") -> Meaning:
    groups = {name: word for name, word in match.groupdict().items() if word}
    word = next((groups[name] for name in ("place", "drug", "icd", "sex") if name in groups), None)
    return Meaning(
        end=rule.as_,
        item=rule.item if rule.item is not None else int(groups.get("item", -1)),
        unit=rule.unit if rule.unit is not None else groups.get("unit"),
        clock=rule.clock,
        word=word,
        version=int(groups.get("version", 0)),
    )
