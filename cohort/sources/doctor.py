"""Unit doctor: finds units that the dictionary does not know and proposes conversions by matching quantiles.

Nothing is converted by a proposal alone: a person accepts it in the review file that the source's configuration names.
"""

import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import yaml
from jaxtyping import Float

from cohort import concepts
from cohort.pieces import Pieces
from cohort.sources import SOURCES, SourceConfig, dose_units, files, items, measurements, normalise, review, shards
from cohort.sources.dose_units import Numbers
from cohort.sources.doses import RATED
from cohort.sources.measurements import Section
from cohort.sources.review import Finding, Proposal, Review

DECILES = np.array([0.1, 0.25, 0.5, 0.75, 0.9])
MINIMUM_ROWS = 20
"""Fewer values, known or unknown: no proposal."""
CLOSE = 0.5
"""A proposal's converted deciles lie at most this many spreads from the known ones."""
CLEARLY = 2.0
"""A proposal is at least so many times closer than the next different conversion."""
_SAMPLE = 20_000  # values kept per shard and unit

Values = dict[tuple[str, str, str], list[np.ndarray]]


def examine(root: Path, config: SourceConfig, scratch: Path | None = None) -> Review:
    """The unknown units of a dataset, most rows first, each with a proposal where one conversion clearly fits.

    Args:
        root: the folder of the raw tables.
        config: how they are read.
        scratch: where rows are kept meanwhile; None is the system's folder for temporary files.

    Raises:
        InputError: as `cohort.sources.ingest`.
    """
    module = import_module(SOURCES[config.kind])
    unknown: Values = defaultdict(list)
    known: dict[str, list[np.ndarray]] = defaultdict(list)
    rows: dict[tuple[str, str, str], int] = defaultdict(int)
    folder = tempfile.TemporaryDirectory(dir=scratch, prefix=".units-")
    with folder as path:
        spills, n_shards, _ = shards.spilt(root, Pieces(Path(path)), config, shards.layout(config, module))
        for shard in range(n_shards):
            raw = module.measured(shards.raw_tables(spills, shard), *shards.further(config.codes))
            for table, section in module.SECTIONS.items():
                if table in raw:
                    _sort(raw[table], table, section, unknown, known, rows)
            for table, numbers in _dosed(raw, module):
                if numbers.known:
                    known[numbers.concept].append(_sampled(numbers.value[numbers.value > 0]))
                else:
                    key = (table, numbers.concept, numbers.unit)
                    unknown[key].append(_sampled(numbers.value[numbers.value > 0]))
                    rows[key] += len(numbers.value)
    reference = {concept: np.concatenate(values) for concept, values in known.items()}
    findings = []
    for (table, concept, unit), values in unknown.items():
        proposal = propose(concept, np.concatenate(values), reference.get(concept))
        count = rows[table, concept, unit]
        findings.append(Finding(table=table, concept=concept, unit=unit, rows=count, proposal=proposal))
    ordered = sorted(findings, key=lambda finding: (-finding.rows, finding.table, finding.concept, finding.unit))
    return Review(dataset=review.fingerprint(files.read(root, module.TABLES)), findings=tuple(ordered))


def write(found: Review, path: Path) -> None:
    """Write a review as YAML, to be read by a person and named in the source's configuration."""
    text = yaml.safe_dump(found.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)
    head = (
        "# Units that are not in units.yaml: their rows are not used. Set `accept: true` where the proposal is right.\n"
    )
    path.write_text(head + text, encoding="utf-8")


def propose(concept: str, values: Float[np.ndarray, "n"], known: Float[np.ndarray, "m"] | None) -> Proposal | None:
    """The conversion whose result lies closest to the known values, if it is close, clear and plausible.

    Args:
        concept: whose conversions and range are used.
        values: in the unknown unit.
        known: in the canonical unit.
    """
    if known is None or min(len(values), len(known)) < MINIMUM_ROWS:
        return None
    target = np.quantile(known, DECILES)
    spread = max(float(target[-1] - target[0]), 1e-9)
    measured = concepts.load().measured.get(concept)
    low, high = measured.range if measured else (0.0, np.inf)
    scored = []
    for like, factor, offset in _candidates(concept):
        converted = factor * values + offset
        if ((converted >= low) & (converted <= high)).mean() > 0.9:
            scored.append(
                (float(np.abs(np.quantile(converted, DECILES) - target).mean() / spread), like, factor, offset)
            )
    scored.sort(key=lambda row: row[0])
    if not scored or scored[0][0] > CLOSE:
        return None
    distance, like, factor, offset = scored[0]
    if len(scored) > 1 and scored[1][0] < CLEARLY * distance:
        return None
    if concept in RATED:  # read as that unit, weight and all: no factor says so
        factor = 1.0
    return Proposal(factor=factor, offset=offset, like=like, distance=round(distance, 4))


def _candidates(concept: str) -> list[tuple[str, float, float]]:
    """Every different conversion of the concept, and its canonical unit a power of ten off."""
    if concept not in concepts.load().measured:
        return dose_units.candidates(concept)
    unit = concepts.load().measured[concept].unit
    found: dict[tuple[float, float], str] = {(1.0, 0.0): unit}
    for (name, spelling), pair in items.conversions().items():
        if name == concept:
            found.setdefault(pair, spelling)
    for power in (-3, -2, -1, 1, 2, 3):
        found.setdefault((10.0**power, 0.0), f"{unit} x 10^{-power}")
    return [(like, factor, offset) for (factor, offset), like in found.items()]


def _dosed(raw: Mapping[str, pd.DataFrame], module: ModuleType) -> Iterator[tuple[str, Numbers]]:
    """The numbers of infusions and urine, by table, concept and unit."""
    for table, (drugs, fluids) in module.DOSES.items():
        if table in raw:
            yield from ((table, numbers) for numbers in dose_units.of_infusions(raw[table], table, drugs, fluids))
    for table, rule in module.OUTPUTS.items():
        if table in raw:
            yield from ((table, numbers) for numbers in dose_units.of_urine(raw[table], table, rule))


def _sort(
    raw: pd.DataFrame,
    table: str,
    section: Section,
    unknown: Values,
    known: dict[str, list[np.ndarray]],
    rows: dict[tuple[str, str, str], int],
) -> None:
    """Put a shard's values with those of their unit, known ones in the canonical unit."""
    raw = normalise.known_items(raw, table, section)
    group = measurements.codes(section.group_of, normalise.integers(raw, table, "itemid"))
    code, spellings = normalise.words(normalise.column(raw, table, "valueuom"))
    value = normalise.numbers(raw, table, "valuenum")
    factor, offset = measurements.conversions(section, spellings, ())
    converted = value * factor[group, code] + offset[group, code]
    usable = np.isfinite(value) & ~section.textual[group]
    for concept in np.unique(section.concept[group]):
        name = measurements.CONCEPTS[concept]
        mine = usable & (section.concept[group] == concept)
        low, high = concepts.load().measured[name].range
        plain = converted[mine & (converted >= low) & (converted <= high)]
        known[name].append(_sampled(plain))
        strange = mine & np.isnan(converted)
        for unit in np.unique(code[strange]):
            key = (table, name, spellings[unit])
            chosen = value[strange & (code == unit)]
            unknown[key].append(_sampled(chosen))
            rows[key] += len(chosen)


def _sampled(values: Float[np.ndarray, "n"]) -> Float[np.ndarray, "m"]:
    """At most so many values, evenly over the sorted ones."""
    if len(values) <= _SAMPLE:
        return values
    return np.sort(values)[np.linspace(0, len(values) - 1, _SAMPLE).astype(np.int64)]
