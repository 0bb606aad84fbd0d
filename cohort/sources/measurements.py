"""Measurements: charted and laboratory rows to canonical observations (units, plausibility, clocks, duplicates)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from cohort import concepts
from cohort.sources import items
from cohort.tables import Counts

NAT = np.iinfo(np.int64).min
"""A missing time among integer microseconds."""
MINUTE = 60_000_000
HOUR = 60 * MINUTE

CONCEPTS = tuple(concepts.load().measured)
_CODE = {name: code for code, name in enumerate(CONCEPTS)}
_LOW, _HIGH = (np.array([concepts.load().measured[name].range[end] for name in CONCEPTS]) for end in (0, 1))
_STORED = np.array([concepts.load().measured[name].clock == "stored" for name in CONCEPTS])
_ARTERIAL = np.array([concepts.load().measured[name].arterial for name in CONCEPTS])
_VENTILATION = _CODE["mechanical_ventilation"]
_FAHRENHEIT = (77.0, 113.0)  # 25-45 degC; no plausible temperature in one scale is plausible in the other


EARLY = "stored before it was charted"
"""Why a row's two times contradict each other; the later one counts."""
Accepted = tuple[tuple[str, str, float, float, str], ...]
"""Conversions that a reviewer accepted: concept, unit, factor, offset, and the known unit it is like."""


@dataclass(frozen=True)
class Events:
    """Raw rows of one table whose items are in the dictionary. Times are microseconds since 1970, NAT where missing."""

    table: str
    stay: Int[np.ndarray, "n"]
    """Index of the stay."""
    item: Int[np.ndarray, "n"]
    charted: Int[np.ndarray, "n"]
    stored: Int[np.ndarray, "n"]
    value: Float[np.ndarray, "n"]
    unit: Int[np.ndarray, "n"]
    """Index into `units`, -1 where the column is empty."""
    units: tuple[str, ...]
    text: Int[np.ndarray, "n"]
    """Index into `texts`, -1 where the text is empty or not read."""
    texts: tuple[str, ...]
    specimen: Int[np.ndarray, "n"]
    """Specimen id, -1 where there is none."""
    arterial: Bool[np.ndarray, "n"]
    """True where the specimen is recorded as arterial."""


@dataclass(frozen=True)
class Observations:
    """Canonical observations as arrays; the columns of `tables.SCHEMAS["observations"]` and the item."""

    stay: Int[np.ndarray, "n"]
    item: Int[np.ndarray, "n"]
    concept: Int[np.ndarray, "n"]
    """Index into CONCEPTS."""
    charted: Int[np.ndarray, "n"]
    available: Int[np.ndarray, "n"]
    value: Float[np.ndarray, "n"]
    unit: Int[np.ndarray, "n"]
    units: tuple[str, ...]
    text: Int[np.ndarray, "n"]
    texts: tuple[str, ...]
    specimen: Int[np.ndarray, "n"]

    def __getitem__(self, rows: np.ndarray) -> "Observations":
        columns = (self.stay, self.item, self.concept, self.charted, self.available, self.value)
        stay, item, concept, charted, available, value = (column[rows] for column in columns)
        return Observations(
            stay, item, concept, charted, available, value,
            self.unit[rows], self.units, self.text[rows], self.texts, self.specimen[rows],
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Section:
    """The groups of one section of an id dictionary, compiled."""

    groups: tuple[items.Group, ...]
    group_of: Int[np.ndarray, "ids"]
    """Item id -> index of its group, -1 where the id is not in the section; the last entry is -1."""
    concept: Int[np.ndarray, "groups"]
    gas: Bool[np.ndarray, "groups"]
    textual: Bool[np.ndarray, "groups"]

    def rule(self, *rules: str) -> Bool[np.ndarray, "groups"]:
        """Which groups are read by one of the rules."""
        return np.array([group.rule in rules for group in self.groups], dtype=bool)


def section(groups: tuple[items.Group, ...]) -> Section:
    """Compile groups for lookups."""
    group_of = id_table({i: index for index, group in enumerate(groups) for i in group.ids})
    return Section(
        groups=groups,
        group_of=group_of,
        concept=np.array([_CODE[group.concept] for group in groups]),
        gas=np.array([group.gas for group in groups]),
        textual=np.array([group.textual for group in groups]),
    )


def ids(chosen: Section) -> frozenset[int]:
    """The item ids of a section."""
    return frozenset(i for group in chosen.groups for i in group.ids)


def text_ids(chosen: Section) -> frozenset[int]:
    """The item ids of a section whose text is read."""
    return frozenset(i for group in chosen.groups if group.textual for i in group.ids)


def id_table(code: dict[int, int]) -> Int[np.ndarray, "ids"]:
    """A table from item id to code, -1 elsewhere; look up with `codes`."""
    table = np.full(max(code, default=0) + 2, -1, dtype=np.int16)
    table[list(code)] = list(code.values())
    return table


def codes(table: Int[np.ndarray, "ids"], item: Int[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
    """The code of each item id, -1 where it has none."""
    return np.take(table, item, mode="clip")


def observe(
    events: Events, chosen: Section, delays: items.Delays, counts: Counts, accepted: Accepted = ()
) -> list[Observations]:
    """Canonical observations of raw rows: units, rules, text, ranges, specimens and clocks; every loss is counted.

    Args:
        events: rows whose `item` is in `chosen`.
        chosen: the section of the dictionary their items are in.
        delays: assumed where no storing time is recorded.
        counts: (table, reason) -> rows; added to.
        accepted: further units, as a reviewer accepted them.
    """
    timed = events.charted != NAT
    if not timed.all():
        counts[events.table, "charting time missing"] += int((~timed).sum())
        events = _rows(events, timed)
    group = codes(chosen.group_of, events.item)
    concept = chosen.concept[group]
    value, text, dropped = _values(events, chosen, group, concept, counts, accepted)
    extra = _device_evidence(events, chosen, delays, counts)
    kept = ~dropped
    left, concept = _rows(events, kept), concept[kept]
    available = _available(left, chosen.gas[group[kept]], concept, delays, counts)
    found = Observations(
        left.stay, left.item, concept, left.charted, available, value[kept],
        left.unit, left.units, text[kept], left.texts, left.specimen,
    )  # fmt: skip
    return [found, *extra]


def _values(
    events: Events,
    chosen: Section,
    group: Int[np.ndarray, "n"],
    concept: Int[np.ndarray, "n"],
    counts: Counts,
    accepted: Accepted,
) -> tuple[Float[np.ndarray, "n"], Int[np.ndarray, "n"], Bool[np.ndarray, "n"]]:
    """Canonical value, the text that is kept, and which rows are dropped."""
    factor, offset = conversions(chosen, events.units, accepted)
    gain = factor[group, events.unit]
    value = events.value * gain + offset[group, events.unit]
    text = np.full(len(value), -1, dtype=events.text.dtype)
    dropped = np.zeros(len(value), dtype=bool)
    decided = _texts(events, chosen, group, value, text)
    declared = (gain == factor[group, -1]) & (offset[group, events.unit] == offset[group, -1])
    other = ~declared & ~np.isnan(gain) & ~decided
    for code, count in enumerate(np.bincount(concept[other])):
        _add(counts, events.table, f"{CONCEPTS[code]}: converted from another unit than usual", int(count))
    _drop(counts, events.table, "unit not known", np.isnan(gain) & ~decided, concept, dropped)
    _drop(counts, events.table, "value missing", np.isnan(value) & ~decided, concept, dropped)
    _drop(counts, events.table, "value not finite", np.isinf(value), concept, dropped)
    _temperature(events, chosen, group, value, counts)
    _fio2(events, chosen, group, value, concept, dropped, counts)
    positive = np.flatnonzero(chosen.rule("positive")[group])
    zero = np.zeros(len(value), dtype=bool)
    zero[positive] = value[positive] <= 0
    value[positive] = 1.0
    _drop(counts, events.table, "zero proves nothing", zero, concept, dropped)
    outside = (value < _LOW[concept]) | (value > _HIGH[concept])
    _drop(counts, events.table, "out of range", outside & ~decided, concept, dropped)
    _drop(counts, events.table, "not recorded as arterial", _ARTERIAL[concept] & ~events.arterial, concept, dropped)
    return value, text, dropped


def _texts(
    events: Events,
    chosen: Section,
    group: Int[np.ndarray, "n"],
    value: Float[np.ndarray, "n"],
    text: Int[np.ndarray, "n"],
) -> Bool[np.ndarray, "n"]:
    """Let the text decide where the item says so (in place); True where it did, and the value may be missing."""
    decided = np.zeros(len(value), dtype=bool)
    words = [word.strip().casefold() for word in events.texts]
    for index in np.flatnonzero(chosen.textual):
        rows = np.flatnonzero(group == index)
        if not rows.size:
            continue
        rule = chosen.groups[index]
        code = events.text[rows]
        if rule.rule == "mode":
            value[rows] = np.array([*(_mode(rule, word) for word in words), np.nan])[code]
        elif rule.rule == "device":
            value[rows] = np.nan
            text[rows] = code
            decided[rows] = np.array([*(bool(word) for word in words), False])[code]
        else:
            untestable = rows[np.array([*(word in rule.untestable for word in words), False])[code]]
            value[untestable] = np.nan
            text[untestable] = events.text[untestable]
            decided[untestable] = True
    return decided


def _mode(rule: items.Group, word: str) -> float:
    """1, 0 or NaN: what a ventilator's mode or an event says of invasive ventilation."""
    if word in rule.unventilated:
        return 0.0
    known = word in rule.ventilated if rule.ventilated else bool(word) and word not in rule.unknown
    return 1.0 if known else np.nan


def _temperature(
    events: Events, chosen: Section, group: Int[np.ndarray, "n"], value: Float[np.ndarray, "n"], counts: Counts
) -> None:
    """A temperature recorded in the other scale is read in that scale (in place): 25-45 is degC, 77-113 is degF."""
    rows = np.flatnonzero(chosen.rule("temperature")[group])
    rows = rows[~np.isnan(value[rows])]
    raw = events.value[rows]
    celsius = (raw >= 25) & (raw <= 45) & (value[rows] != raw)
    fahrenheit = (raw >= _FAHRENHEIT[0]) & (raw <= _FAHRENHEIT[1]) & (value[rows] == raw)
    value[rows[celsius]] = raw[celsius]
    value[rows[fahrenheit]] = (raw[fahrenheit] - 32) / 1.8
    _add(counts, events.table, "temperature_c: recorded in the other scale", int(celsius.sum() + fahrenheit.sum()))


def _fio2(
    events: Events,
    chosen: Section,
    group: Int[np.ndarray, "n"],
    value: Float[np.ndarray, "n"],
    concept: Int[np.ndarray, "n"],
    dropped: Bool[np.ndarray, "n"],
    counts: Counts,
) -> None:
    """The value tells fraction (up to 1) from percent (20 and more); between them it is litres a minute, not FiO2."""
    rows = np.flatnonzero(chosen.rule("fio2")[group])
    raw = value[rows]
    percent = raw >= 20
    value[rows[percent]] = raw[percent] / 100
    litres = np.zeros(len(value), dtype=bool)
    litres[rows] = (raw > 1) & (raw < 20)
    _drop(counts, events.table, "1-20 is litres a minute, not a fraction", litres, concept, dropped)
    as_percent = np.array([rule.unit == "%" for rule in chosen.groups])[group[rows]]
    other = np.where(as_percent, raw <= 1, percent)
    _add(counts, events.table, "fio2: fraction where percent is usual, or the reverse", int(other.sum()))


def _device_evidence(events: Events, chosen: Section, delays: items.Delays, counts: Counts) -> list[Observations]:
    """What oxygen devices say of invasive ventilation, as further observations."""
    found = []
    for index in np.flatnonzero(chosen.rule("device")):
        rule = chosen.groups[index]
        rows = np.flatnonzero(codes(chosen.group_of, events.item) == index)
        words = [word.strip().casefold() for word in events.texts]
        verdict = [1.0 if w in rule.ventilated else 0.0 if w in rule.unventilated else np.nan for w in words]
        value = np.array([*verdict, np.nan])[events.text[rows]]
        rows, value = rows[~np.isnan(value)], value[~np.isnan(value)]
        proof = _rows(events, rows)
        concept = np.full(len(rows), _VENTILATION)
        blank = np.full(len(rows), -1)
        available = _available(proof, np.zeros(len(rows), dtype=bool), concept, delays, counts)
        found.append(
            Observations(
                proof.stay, proof.item, concept, proof.charted, available, value, blank, (), blank, (), blank
            )
        )  # fmt: skip
    return found


def _available(
    events: Events,
    gas: Bool[np.ndarray, "n"],
    concept: Int[np.ndarray, "n"],
    delays: items.Delays,
    counts: Counts,
) -> Int[np.ndarray, "n"]:
    """When each row was visible: monitors as charted; the rest once charted and stored."""
    late = _STORED[concept]
    early = (events.stored < events.charted) & (events.stored != NAT)
    for code, count in enumerate(np.bincount(concept[early])):
        _add(counts, events.table, f"{CONCEPTS[code]}: {EARLY}", int(count))
    missing = late & (events.stored == NAT)
    delay = np.where(gas, delays.gas, delays.lab) if events.table == "labevents" else delays.chart
    _add(counts, events.table, "storing time missing, a usual delay assumed", int(missing.sum()))
    stored = np.where(missing, events.charted + np.int64(MINUTE) * delay, events.stored)
    return np.where(late, np.maximum(stored, events.charted), events.charted)


@lru_cache(maxsize=256)
def conversions(
    chosen: Section, spellings: tuple[str, ...], accepted: Accepted
) -> tuple[Float[np.ndarray, "groups units"], Float[np.ndarray, "groups units"]]:
    """Factor and offset by group and unit; the last column is the empty unit; NaN: not known."""
    further = {(concept, items.spelling(unit)): (gain, shift) for concept, unit, gain, shift, _ in accepted}
    understood = {**further, **items.conversions()}
    factor = np.full((len(chosen.groups), len(spellings) + 1), np.nan)
    offset = np.full_like(factor, np.nan)
    for row, group in enumerate(chosen.groups):
        declared = (1.0, 0.0) if group.unit is None else items.conversions()[group.concept, items.spelling(group.unit)]
        ignored = {"", *(items.spelling(unit) for unit in group.unit_ignored)}
        known = [items.spelling(unit) for unit in spellings]
        for column, unit in enumerate([*known, ""]):
            missing = (np.nan, np.nan)
            pair = declared if unit in ignored else understood.get((group.concept, unit), missing)
            factor[row, column], offset[row, column] = pair
    return factor, offset


def _drop(
    counts: Counts,
    table: str,
    reason: str,
    wrong: Bool[np.ndarray, "n"],
    concept: Int[np.ndarray, "n"],
    dropped: Bool[np.ndarray, "n"],
) -> None:
    """Mark rows as dropped (in place) and count, by concept, those that were not yet."""
    if not wrong.any():
        return
    new = concept[wrong & ~dropped]
    dropped |= wrong
    for code, count in enumerate(np.bincount(new, minlength=0)):
        _add(counts, table, f"{CONCEPTS[code]}: {reason}", int(count))


def _add(counts: Counts, table: str, reason: str, count: int) -> None:
    if count:
        counts[table, reason] += count


def _rows(events: Events, rows: np.ndarray) -> Events:
    columns = (events.stay, events.item, events.charted, events.stored, events.value, events.unit)
    stay, item, charted, stored, value, unit = (column[rows] for column in columns)
    return Events(
        events.table, stay, item, charted, stored, value, unit, events.units,
        events.text[rows], events.texts, events.specimen[rows], events.arterial[rows],
    )  # fmt: skip


def merge(parts: Sequence[Observations], counts: Counts) -> Observations:
    """All observations in order of stay, concept, charted, available, value; exact repetitions of a row dropped."""
    units, unit = _vocabulary([(part.units, part.unit) for part in parts])
    texts, text = _vocabulary([(part.texts, part.text) for part in parts])

    def joined(name: str) -> np.ndarray:
        return np.concatenate([getattr(part, name) for part in parts])

    whole = Observations(
        joined("stay"), joined("item"), joined("concept"), joined("charted"), joined("available"), joined("value"),
        unit, units, text, texts, joined("specimen"),
    )  # fmt: skip
    ordered = whole[_order(whole)]
    repeated = np.zeros(len(ordered.stay), dtype=bool)
    if len(repeated):
        repeated[1:] = ordered.charted[1:] == ordered.charted[:-1]
        for column in (ordered.stay, ordered.concept, ordered.item, ordered.specimen, ordered.text):
            repeated[1:] &= column[1:] == column[:-1]
        same = (ordered.value[1:] == ordered.value[:-1]) | (np.isnan(ordered.value[1:]) & np.isnan(ordered.value[:-1]))
        repeated[1:] &= same
    for code, count in enumerate(np.bincount(ordered.concept[repeated])):
        _add(counts, "observations", f"{CONCEPTS[code]}: repeated row", int(count))
    return ordered[~repeated] if repeated.any() else ordered


def categorical(code: Int[np.ndarray, "n"], vocabulary: tuple[str, ...]) -> pd.Categorical:
    """A categorical column of codes; -1 is missing."""
    return pd.Categorical.from_codes(code, categories=pd.Index(vocabulary, dtype="str"))


def frame(found: Observations, stay_ids: Int[np.ndarray, "s"]) -> pd.DataFrame:
    """The canonical observations table."""
    specimen = pd.array(found.specimen, dtype="Int64")
    specimen[found.specimen < 0] = pd.NA
    return pd.DataFrame(
        {
            "stay_id": stay_ids[found.stay],
            "concept": categorical(found.concept, CONCEPTS),
            "charted": found.charted.view("datetime64[us]"),
            "available": found.available.view("datetime64[us]"),
            "value": found.value,
            "unit": categorical(found.unit, found.units),
            "specimen_id": specimen,
            "text": categorical(found.text, found.texts),
        }
    )


def _order(found: Observations) -> Int[np.ndarray, "n"]:
    """Rows by stay, concept, charted, then item, value, text, specimen, available."""
    if not len(found.stay):
        return np.zeros(0, dtype=np.int64)
    moment = found.charted - found.charted.min()
    if not (moment % 1_000_000).any():
        moment //= 1_000_000
    place = found.stay.astype(np.int64) * len(CONCEPTS) + found.concept
    span = int(moment.max()) + 1
    if int(place.max()) >= (2**62) // span:  # microseconds over centuries: too wide for one key
        order = np.lexsort((moment, place))
        key = np.cumsum(np.r_[0, (np.diff(place[order]) != 0) | (np.diff(moment[order]) != 0)])
    else:
        combined = place * span + moment
        order = np.argsort(combined, kind="stable")
        key = combined[order]
    tied = np.zeros(len(order), dtype=bool)
    equal = key[1:] == key[:-1]
    tied[1:] |= equal
    tied[:-1] |= equal
    rows = order[tied]
    within = np.lexsort(
        (found.available[rows], found.specimen[rows], found.text[rows], found.value[rows], found.item[rows], key[tied])
    )
    order[tied] = rows[within]
    return order


def _vocabulary(parts: list[tuple[tuple[str, ...], np.ndarray]]) -> tuple[tuple[str, ...], Int[np.ndarray, "n"]]:
    """One vocabulary for all parts, and their codes in it."""
    words = tuple(sorted({word for vocabulary, _ in parts for word in vocabulary}))
    place = {word: code for code, word in enumerate(words)}
    renamed = [np.array([*(place[word] for word in vocabulary), -1])[code] for vocabulary, code in parts]
    return words, np.concatenate(renamed).astype(np.int32)
