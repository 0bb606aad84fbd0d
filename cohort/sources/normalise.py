"""Normalise: raw frames of one shard to the arrays and tables that every layout shares."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from pandas.api.types import union_categoricals

from cohort import tables
from cohort.errors import InputError
from cohort.sources import doses, infection, items, measurements
from cohort.sources.doses import Orders, Weights
from cohort.sources.measurements import CONCEPTS, HOUR, MINUTE, NAT, Accepted, Events, Observations, Section
from cohort.sources.raw import RawTable
from cohort.sources.stays import Windows, micros
from cohort.tables import Counts, Tables

MARGIN_HOURS = 24
"""An event charted for a stay but further than this outside it is dropped."""
EVIDENCE_HOURS = 4
"""A running ventilation procedure is restated this often, so that it does not lapse."""
POUNDS_PER_KG = 2.20462
SAME_WEIGHT = 0.05
"""Weights of one stay that differ by less than this share agree."""
POUNDS = "2.2 times earlier weights of its stay: pounds, not used"
_VENTILATION = CONCEPTS.index("mechanical_ventilation")
_WEIGHT = CONCEPTS.index("weight_kg")


@dataclass(frozen=True)
class Columns:
    """What the columns of a raw table of measurements are called; None where it has no such column."""

    time: str = "charttime"
    stored: str | None = "storetime"
    value: str = "valuenum"
    text: str | None = "value"
    unit: str = "valueuom"


def column(raw: pd.DataFrame, table: str, name: str) -> "pd.Series[Any]":
    """A column of a raw table.

    Raises:
        InputError: the table has no such column.
    """
    if name not in raw:
        raise InputError(f"{table}: column {name!r} is missing")
    return raw[name]


def integers(raw: pd.DataFrame, table: str, name: str) -> Int[np.ndarray, "n"]:
    """A column of ids; -1 where missing.

    Raises:
        InputError: the table has no such column, or it does not hold whole numbers.
    """
    values = column(raw, table, name)
    if values.dtype.kind in "iu":
        return values.to_numpy(np.int64)
    if values.isna().all():
        return np.full(len(values), -1)
    if values.dtype.kind != "f" or not (values.dropna() % 1 == 0).all():
        raise InputError(f"{table}: {name}: type {values.dtype}, expected whole numbers")
    return values.fillna(-1).to_numpy(np.int64)


def numbers(raw: pd.DataFrame, table: str, name: str) -> np.ndarray:
    """A column of numbers; NaN where missing.

    Raises:
        InputError: the table has no such column, or it does not hold numbers.
    """
    values = column(raw, table, name)
    if values.dtype.kind in "iufb":
        return values.to_numpy(np.float64, na_value=np.nan)
    if values.isna().all():
        return np.full(len(values), np.nan)
    raise InputError(f"{table}: {name}: type {values.dtype}, expected numbers")


def times(raw: pd.DataFrame, table: str, name: str) -> Int[np.ndarray, "n"]:
    """A column of times as microseconds; NAT where missing.

    Raises:
        InputError: the table has no such column, it holds no times, or they have a zone.
    """
    try:
        return micros(column(raw, table, name))
    except InputError as error:
        raise InputError(f"{table}: {error}") from None


def moments(raw: pd.DataFrame, table: str, name: str) -> np.ndarray:
    """A column of times as datetime64[us].

    Raises:
        InputError: as `times`.
    """
    return times(raw, table, name).view("datetime64[us]")


def required(raw: Mapping[str, pd.DataFrame], layout: tuple[RawTable, ...]) -> None:
    """Raise InputError naming the first required table that is missing."""
    missing = [table.name for table in layout if table.required and table.name not in raw]
    if missing:
        raise InputError(f"{missing[0]}: required table is missing")


def sex_male(gender: "pd.Series[Any]") -> np.ndarray:
    """1 for M, 0 for F, missing otherwise."""
    code, vocabulary = words(gender)
    male: np.ndarray = np.array(
        [*({"M": 1.0, "F": 0.0}.get(word.strip().upper(), np.nan) for word in vocabulary), np.nan]
    )[code]
    return male


def admissions(raw: pd.DataFrame, ethnicity: str) -> pd.DataFrame:
    """Admissions as `stays.History` wants them."""
    name = "admissions"
    return pd.DataFrame(
        {
            **{key: integers(raw, name, key) for key in ("subject_id", "hadm_id")},
            **{key: moments(raw, name, key) for key in ("admittime", "dischtime", "deathtime")},
            "ethnicity": column(raw, name, ethnicity).astype(object).to_numpy(),
            "died": numbers(raw, name, "hospital_expire_flag") == 1,
        }
    )


def diagnoses(raw: Mapping[str, pd.DataFrame], code: str, version: str | None) -> pd.DataFrame | None:
    """Diagnosis codes as `stays.History` wants them; None where the table is missing. `version` None: all are ICD-9."""
    if "diagnoses_icd" not in raw:
        return None
    table = raw["diagnoses_icd"]
    return pd.DataFrame(
        {
            **{name: integers(table, "diagnoses_icd", name) for name in ("subject_id", "hadm_id")},
            "code": column(table, "diagnoses_icd", code).astype(object).to_numpy(),
            "version": 9 if version is None else integers(table, "diagnoses_icd", version),
        }
    )


def cultures(raw: Mapping[str, pd.DataFrame]) -> pd.DataFrame | None:
    """Cultures as `stays.History` wants them; from the start of their day where no time is recorded."""
    if "microbiologyevents" not in raw:
        return None
    table, name = raw["microbiologyevents"], "microbiologyevents"
    charted = times(table, name, "charttime")
    charted = np.where(charted == NAT, times(table, name, "chartdate"), charted)
    cultured = infection.is_culture(column(table, name, "spec_type_desc"))
    subject = integers(table, name, "subject_id")
    return pd.DataFrame({"subject_id": subject[cultured], "time": charted.view("datetime64[us]")[cultured]})


def antibiotics(raw: Mapping[str, pd.DataFrame], time: str) -> pd.DataFrame | None:
    """Starts of systemic antibiotics as `stays.History` wants them."""
    if "prescriptions" not in raw:
        return None
    table, name = raw["prescriptions"], "prescriptions"
    chosen = infection.is_antibiotic(column(table, name, "drug"), column(table, name, "route"))
    subject = integers(table, name, "subject_id")
    return pd.DataFrame({"subject_id": subject[chosen], "time": moments(table, name, time)[chosen]})


def without_rewritten(raw: pd.DataFrame, table: str, counts: Counts) -> pd.DataFrame:
    """Infusion rows that were not rewritten; a rewritten row's dose is in the row that replaced it."""
    status, vocabulary = words(column(raw, table, "statusdescription"))
    rewritten = np.array([*(word.strip().casefold() == "rewritten" for word in vocabulary), False])[status]
    if not rewritten.any():
        return raw
    add(counts, table, "rewritten: replaced by another row", int(rewritten.sum()))
    kept: pd.DataFrame = raw[~rewritten]
    return kept


def words(values: "pd.Series[Any]") -> tuple[Int[np.ndarray, "n"], tuple[str, ...]]:
    """Codes and vocabulary of a text column; -1 where missing."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        return values.cat.codes.to_numpy(np.int32), tuple(str(word) for word in values.cat.categories)
    codes, vocabulary = pd.factorize(values)
    return codes.astype(np.int32), tuple(str(word) for word in vocabulary)


def near(where: Windows, stay: Int[np.ndarray, "n"], moment: Int[np.ndarray, "n"]) -> Bool[np.ndarray, "n"]:
    """Whether each event lies in its stay or within the margin around it; a missing time does not."""
    margin = MARGIN_HOURS * HOUR
    inside: np.ndarray = (moment >= where.intime[stay] - margin) & (moment < where.end[stay] + margin)
    return inside


def by_stay(
    raw: pd.DataFrame, table: str, stay_column: str, time_column: str, where: Windows, counts: Counts
) -> tuple[pd.DataFrame, Int[np.ndarray, "m"]]:
    """The rows charted for a stay and near it, and the index of each one's stay; the others are counted."""
    stay = where.by_id(integers(raw, table, stay_column))
    known = stay >= 0
    if not known.all():
        counts[table, "outside every stay"] += int((~known).sum())
        raw, stay = raw[known], stay[known]
    moment = times(raw, table, time_column)
    kept = near(where, stay, moment) | (moment == NAT)
    if not kept.all():
        counts[table, "more than 24 h outside its stay"] += int((~kept).sum())
        raw, stay = raw[kept], stay[kept]
    return raw, stay


def by_patient(
    raw: pd.DataFrame, table: str, time_column: str, where: Windows, counts: Counts
) -> tuple[pd.DataFrame, Int[np.ndarray, "m"]]:
    """The rows whose patient and time fall in a stay's window, and the index of that stay; the others are counted."""
    stay = where.by_time(integers(raw, table, "subject_id"), times(raw, table, time_column))
    known = stay >= 0
    if not known.all():
        counts[table, "outside every stay"] += int((~known).sum())
        raw, stay = raw[known], stay[known]
    return raw, stay


def events(
    raw: pd.DataFrame,
    table: str,
    stay: Int[np.ndarray, "n"],
    names: Columns,
    chosen: Section,
    specimen: Int[np.ndarray, "n"] | None = None,
    arterial: Bool[np.ndarray, "n"] | None = None,
) -> Events:
    """Raw measurement rows as arrays; their items must be in `chosen`."""
    item = integers(raw, table, "itemid")
    n = len(item)
    unit, units = words(column(raw, table, names.unit))
    text, texts = np.full(n, -1, dtype=np.int32), tuple[str, ...]()
    if names.text is not None:
        textual = np.flatnonzero(chosen.textual[measurements.codes(chosen.group_of, item)])
        found, texts = words(column(raw, table, names.text).iloc[textual])
        text[textual] = found
    return Events(
        table=table,
        stay=stay.astype(np.int32),
        item=item.astype(np.int32),
        charted=times(raw, table, names.time),
        stored=np.full(n, NAT) if names.stored is None else times(raw, table, names.stored),
        value=numbers(raw, table, names.value),
        unit=unit,
        units=units,
        text=text,
        texts=texts,
        specimen=np.full(n, -1) if specimen is None else specimen,
        arterial=np.zeros(n, dtype=bool) if arterial is None else arterial,
    )


def known_items(raw: pd.DataFrame, table: str, chosen: Section) -> pd.DataFrame:
    """The rows whose item is in the dictionary."""
    known = measurements.codes(chosen.group_of, integers(raw, table, "itemid")) >= 0
    return raw if known.all() else raw[known]


def arterial(
    texts: "pd.Series[Any]", specimen: Int[np.ndarray, "t"], rule: items.Specimen, of: Int[np.ndarray, "n"]
) -> Bool[np.ndarray, "n"]:
    """Which of the specimens `of` the rows of the specimen items call arterial, and none calls anything else."""
    codes, vocabulary = words(texts)
    begins = [any(word.strip().casefold().startswith(start) for start in rule.arterial) for word in vocabulary]
    drawn = np.array([*begins, False], dtype=bool)[codes]
    otherwise = (codes >= 0) & ~drawn
    known: np.ndarray = np.isin(of, specimen[drawn]) & ~np.isin(of, specimen[otherwise]) & (of >= 0)
    return known


def orders(raw: pd.DataFrame, table: str, stay: Int[np.ndarray, "n"]) -> Orders:
    """MetaVision's infusion rows as arrays."""
    amount_unit, amount_units = words(column(raw, table, "amountuom"))
    rate_unit, rate_units = words(column(raw, table, "rateuom"))
    return Orders(
        table=table,
        stay=stay,
        item=integers(raw, table, "itemid"),
        start=times(raw, table, "starttime"),
        end=times(raw, table, "endtime"),
        amount=numbers(raw, table, "amount"),
        amount_unit=amount_unit,
        amount_units=amount_units,
        rate=numbers(raw, table, "rate"),
        rate_unit=rate_unit,
        rate_units=rate_units,
        weight=numbers(raw, table, "patientweight"),
        order=integers(raw, table, "orderid"),
        link=integers(raw, table, "linkorderid"),
    )


def of_items(raw: pd.DataFrame, table: str, ids: frozenset[int]) -> pd.DataFrame:
    """The rows of some items."""
    wanted = np.isin(integers(raw, table, "itemid"), np.array(sorted(ids)))
    return raw if wanted.all() else raw[wanted]


def outputs(
    raw: pd.DataFrame, table: str, stay: Int[np.ndarray, "n"], rule: items.Urine, delay_minutes: int,
    counts: Counts, accepted: Accepted = (),
) -> tuple[Int[np.ndarray, "m"], pd.DataFrame]:  # fmt: skip
    """Urine: the index of each row's stay, and charted, available, volume_ml (irrigant negative)."""
    item = integers(raw, table, "itemid")
    volume, charted, stored = (
        numbers(raw, table, "value"),
        times(raw, table, "charttime"),
        times(raw, table, "storetime"),
    )
    unit, spellings = words(column(raw, table, "valueuom"))
    scale = doses.volumes(doses.URINE, accepted)
    volume = volume * np.array([*(scale.get(items.spelling(s), np.nan) for s in spellings), 1.0])[unit]
    late = stored == NAT
    reasons = {
        "charting time missing": charted == NAT,
        "urine: value missing": np.isnan(numbers(raw, table, "value")),
        "urine: unit not known": np.isnan(volume),
        "urine: negative": volume < 0,
        f"urine: above {rule.limit_ml:g} mL": volume > rule.limit_ml,
        "urine: repeated row": pd.DataFrame({"stay": stay, "item": item, "time": charted, "volume": volume})
        .duplicated()
        .to_numpy(),
    }
    dropped = np.zeros(len(item), dtype=bool)
    for reason, wrong in reasons.items():
        add(counts, table, reason, int((wrong & ~dropped).sum()))
        dropped |= wrong
    add(counts, table, "storing time missing, a usual delay assumed", int((late & ~dropped).sum()))
    add(counts, table, f"urine: {measurements.EARLY}", int(((stored < charted) & ~late & ~dropped).sum()))
    stored = np.where(late, charted + np.int64(MINUTE) * delay_minutes, stored)
    sign = np.where(np.isin(item, rule.irrigant), -1.0, 1.0)
    frame = pd.DataFrame(
        {
            "charted": charted.view("datetime64[us]"),
            "available": np.maximum(charted, stored).view("datetime64[us]"),
            "volume_ml": sign * volume,
        }
    )
    return stay[~dropped], frame[~dropped]


def blank_observations(
    stay: Int[np.ndarray, "n"], concept: int, item: np.ndarray, moment: Int[np.ndarray, "n"], value: np.ndarray
) -> Observations:
    """Observations without unit, text or specimen, available when charted."""
    blank = np.full(len(stay), -1)
    code = np.full(len(stay), concept)
    return Observations(stay, item, code, moment, moment, value, blank, (), blank, (), blank)


def row_weights(orders: Orders) -> Observations:
    """The weights that infusion rows carry, one a day and value, known from the row's start."""
    kg = doses.plausible_weight(orders.weight)
    rows = np.flatnonzero(~np.isnan(kg) & (orders.start != NAT))
    day = orders.start[rows] // (24 * HOUR)
    order = np.lexsort((orders.start[rows], kg[rows], day, orders.stay[rows]))
    rows, day = rows[order], day[order]
    new = np.ones(len(rows), dtype=bool)
    same = (orders.stay[rows][1:] == orders.stay[rows][:-1]) & (day[1:] == day[:-1]) & (kg[rows][1:] == kg[rows][:-1])
    new[1:] = ~same
    rows = rows[new]
    return blank_observations(orders.stay[rows], _WEIGHT, orders.item[rows], orders.start[rows], kg[rows])


def without_pounds(parts: list[Observations], counts: Counts) -> list[Observations]:
    """Observations without the weights that are 2.2 times others of their stay: pounds under an item of kilograms.

    Only what was known before counts, so that a state never depends on a later weight: a weight is set aside where more
    of the earlier ones agree with it as pounds than as kilograms. The first weight of a stay has none to agree with.
    """
    rows = [np.flatnonzero(part.concept == _WEIGHT) for part in parts]
    stay, available, kg = (
        np.concatenate([getattr(part, name)[mine] for part, mine in zip(parts, rows, strict=True)])
        for name in ("stay", "available", "value")
    )
    order = np.lexsort((kg, available, stay))
    pounds = np.zeros(len(kg), dtype=bool)
    for mine in np.split(order, np.flatnonzero(np.diff(stay[order])) + 1):
        if len(mine) > 1 and kg[mine].max() > kg[mine].min() * POUNDS_PER_KG * (1 - SAME_WEIGHT):
            pounds[mine] = _in_pounds(kg[mine])
    add(counts, "observations", f"weight_kg: {POUNDS}", int(pounds.sum()))
    if not pounds.any():
        return parts
    wrong = np.split(pounds, np.cumsum([len(mine) for mine in rows])[:-1])
    return [
        part[~np.isin(np.arange(len(part.stay)), mine[bad])] for part, mine, bad in zip(parts, rows, wrong, strict=True)
    ]


def _in_pounds(kg: Float[np.ndarray, "n"]) -> Bool[np.ndarray, "n"]:
    """Which weights of one stay, in order of time, more earlier ones call pounds than kilograms."""
    found = np.zeros(len(kg), dtype=bool)
    for now in range(1, len(kg)):
        ratio = kg[now] / kg[:now]
        found[now] = (np.abs(ratio / POUNDS_PER_KG - 1) < SAME_WEIGHT).sum() > (np.abs(ratio - 1) < SAME_WEIGHT).sum()
    return found


def weights(parts: list[Observations]) -> Weights:
    """The weights among observations, in order of stay and time."""
    stay, available, kg = (
        np.concatenate([getattr(part, name)[part.concept == _WEIGHT] for part in parts])
        for name in ("stay", "available", "value")
    )
    order = np.lexsort((kg, available, stay))
    return Weights(stay[order], available[order], kg[order])


def procedures(
    raw: pd.DataFrame, table: str, stay: Int[np.ndarray, "n"], rule: items.Procedures, counts: Counts
) -> tuple[list[Observations], "Intervals"]:
    """Ventilation as its procedures tell: 1 at the start of invasive ventilation and every 4 h while it lasts, 0 at its
    end, at an extubation, and likewise through non-invasive ventilation; and the non-invasive intervals."""
    item = integers(raw, table, "itemid")
    start, end = times(raw, table, "starttime"), times(raw, table, "endtime")
    extubated = np.isin(item, rule.extubation) & (start != NAT)
    interval = np.isin(item, (*rule.invasive, *rule.noninvasive))
    wrong = interval & ((start == NAT) | (end == NAT) | (end <= start))
    add(counts, table, "ventilation: end not after start, or missing", int(wrong.sum()))
    rows = np.flatnonzero(interval & ~wrong)
    invasive = np.isin(item[rows], rule.invasive)
    repeats = (end[rows] - start[rows] - 1) // (EVIDENCE_HOURS * HOUR) + 1
    every = np.repeat(np.arange(len(rows)), repeats)
    step = np.arange(len(every)) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    running = start[rows][every] + step * EVIDENCE_HOURS * HOUR
    inside = Intervals(stay[rows[invasive]], start[rows[invasive]], end[rows[invasive]])
    ends = rows[invasive]
    ends = ends[~inside.hold(stay[ends], end[ends])]
    zeros = np.r_[ends, np.flatnonzero(extubated)]
    stops = np.r_[end[ends], start[extubated]]
    found = [
        blank_observations(stay[rows][every], _VENTILATION, item[rows][every], running, invasive[every].astype(float)),
        blank_observations(stay[zeros], _VENTILATION, item[zeros], stops, np.zeros(len(zeros))),
    ]
    mask = rows[~invasive]
    return found, Intervals(stay[mask], start[mask], end[mask])


@dataclass(frozen=True)
class Intervals:
    """Half-open intervals of stays."""

    stay: Int[np.ndarray, "i"]
    start: Int[np.ndarray, "i"]
    end: Int[np.ndarray, "i"]

    def hold(self, stay: Int[np.ndarray, "n"], moment: Int[np.ndarray, "n"]) -> Bool[np.ndarray, "n"]:
        """Whether each moment lies in an interval of its stay."""
        inside = np.zeros(len(stay), dtype=bool)
        candidates = np.flatnonzero(np.isin(stay, self.stay))
        pairs = pd.merge(
            pd.DataFrame({"stay": stay[candidates], "row": candidates, "moment": moment[candidates]}),
            pd.DataFrame({"stay": self.stay, "start": self.start, "end": self.end}),
            on="stay",
        )
        covered = (pairs["start"] <= pairs["moment"]) & (pairs["moment"] < pairs["end"])
        inside[pairs["row"][covered].to_numpy(np.int64)] = True
        return inside


def without_mask(part: Observations, mask: Intervals, counts: Counts) -> Observations:
    """Observations without the pressures and volumes of mask ventilation, which prove no invasive ventilation."""
    proof = np.flatnonzero((part.concept == _VENTILATION) & (part.value == 1))
    by_mask = proof[mask.hold(part.stay[proof], part.charted[proof])] if len(mask.stay) else proof[:0]
    if not by_mask.size:
        return part
    add(counts, "chartevents", "mechanical_ventilation: by mask, not invasive", len(by_mask))
    kept = np.ones(len(part.stay), dtype=bool)
    kept[by_mask] = False
    return part[kept]


def assemble(
    stay_table: pd.DataFrame,
    where: Windows,
    observed: list[Observations],
    given: list[pd.DataFrame],
    urine: list[tuple[Int[np.ndarray, "n"], pd.DataFrame]],
    counts: Counts,
) -> Tables:
    """The canonical tables of a shard; `given` holds indices of stays in `stay_id`."""
    merged = measurements.merge(observed, counts)
    infusions = _stacked([part for part in given if len(part)], "infusions")
    if len(infusions):
        infusions = infusions.sort_values(["stay_id", "start", "drug", "item_id", "end", "normalised_rate", "order_id"])
        infusions["stay_id"] = where.stay_id[infusions["stay_id"].to_numpy(np.int64)]
    volumes = _stacked([frame.assign(stay_id=stay) for stay, frame in urine if len(stay)], "outputs")
    if len(volumes):
        volumes = volumes.sort_values(["stay_id", "charted", "available", "volume_ml"])
        volumes["stay_id"] = where.stay_id[volumes["stay_id"].to_numpy(np.int64)]
    return Tables(
        stays=stay_table,
        observations=measurements.frame(merged, where.stay_id),
        infusions=infusions.reset_index(drop=True),
        outputs=volumes.reset_index(drop=True)[tables.SCHEMAS["outputs"].names],
    )


def _stacked(parts: list[pd.DataFrame], table: str) -> pd.DataFrame:
    if not parts:
        return tables.empty(table)
    if len(parts) == 1:
        return parts[0]
    stacked: pd.DataFrame = pd.concat(parts, ignore_index=True)
    for name in tables.SCHEMAS[table].names:
        if isinstance(parts[0][name].dtype, pd.CategoricalDtype):
            stacked[name] = union_categoricals([part[name] for part in parts])
    return stacked


def add(counts: Counts, table: str, reason: str, count: int) -> None:
    """Count rows; none leave no entry."""
    if count:
        counts[table, reason] += count
