"""Items: a source's id dictionary (item id -> concept, unit, rule), read from YAML and compiled for lookups."""

from functools import cache
from typing import Literal

from pydantic import Field, model_validator

from cohort import concepts, config

Rule = Literal["linear", "temperature", "fio2", "positive", "mode", "device"]


class Conversion(config.Config):
    """canonical value = factor * value + offset, for some concepts and some spellings of a unit."""

    concepts: tuple[str, ...] = Field(min_length=1)
    spellings: tuple[str, ...] = Field(min_length=1)
    factor: float = Field(default=1.0, gt=0)
    offset: float = 0.0


class Rate(config.Config):
    """A unit of a drug's rate."""

    kind: Literal["mass", "units"]
    spellings: tuple[str, ...] = Field(min_length=1)
    amount: float = Field(gt=0)
    """Micrograms (mass) or international units in one."""
    per_kg: bool = False
    minutes: int = Field(gt=0)


class Volume(config.Config):
    """A unit of volume."""

    spellings: tuple[str, ...] = Field(min_length=1)
    ml: float = Field(gt=0)


class Units(config.Config):
    """Every unit that is understood; all others are quarantined."""

    conversions: tuple[Conversion, ...]
    rates: tuple[Rate, ...]
    volumes: tuple[Volume, ...]
    vasopressin_limit_u_min: float = Field(gt=0)
    assumed_weight_kg: float = Field(gt=0)

    @model_validator(mode="after")
    def _each_once(self) -> "Units":
        pairs = [(c, spelling(s)) for row in self.conversions for c in row.concepts for s in row.spellings]
        _unique(pairs, "conversions")
        _unique([spelling(s) for row in self.rates for s in row.spellings], "rates")
        _unique([spelling(s) for row in self.volumes for s in row.spellings], "volumes")
        _known({concept for concept, _ in pairs})
        return self


class Group(config.Config):
    """Item ids that mean one concept and are read by one rule."""

    ids: tuple[int, ...] = Field(min_length=1)
    concept: str
    rule: Rule = "linear"
    unit: str | None = None
    """What an empty unit column means; None: the concept's canonical unit."""
    unit_ignored: tuple[str, ...] = ()
    """Spellings the unit column carries wrongly: read as empty."""
    untestable: tuple[str, ...] = ()
    """Texts that make the value missing: the text decides."""
    ventilated: tuple[str, ...] = ()
    """Texts (rules `mode`, `device`) that prove invasive ventilation; none given for `mode`: every other text."""
    unventilated: tuple[str, ...] = ()
    """Texts (rules `mode`, `device`) that prove there is none."""
    unknown: tuple[str, ...] = ()
    """Texts (rule `mode`) that prove nothing; where `ventilated` is given, so does every text in neither list."""
    gas: bool = False
    """From the blood gas machine: its result is stored within minutes."""

    @property
    def textual(self) -> bool:
        """Whether the item's text is read."""
        return self.rule in {"mode", "device"} or bool(self.untestable)


class Specimen(config.Config):
    """The laboratory item that says what was drawn."""

    ids: tuple[int, ...] = Field(min_length=1)
    arterial: tuple[str, ...] = Field(min_length=1)
    """How the text of an arterial specimen begins, in lower case."""


class Delays(config.Config):
    """Minutes from charting to storing assumed where no storetime is recorded."""

    gas: int = Field(ge=0)
    lab: int = Field(ge=0)
    chart: int = Field(ge=0)
    output: int = Field(ge=0)


class Drug(config.Config):
    """Item ids of one drug given by rate."""

    ids: tuple[int, ...] = Field(min_length=1)
    drug: Literal[
        "norepinephrine", "epinephrine", "phenylephrine", "dopamine", "vasopressin", "angiotensin_ii", "dobutamine"
    ]


class Fluid(config.Config):
    """Item ids of intravenous fluids of one tonicity."""

    ids: tuple[int, ...] = Field(min_length=1)
    factor: float = Field(gt=0, le=10)
    drug: Literal["fluid", "d5w"] = "fluid"
    ml_per_meq: float | None = Field(default=None, gt=0)
    ml_per_gram: float | None = Field(default=None, gt=0)


class Urine(config.Config):
    """Item ids of urine output."""

    ids: tuple[int, ...] = Field(min_length=1)
    irrigant: tuple[int, ...] = ()
    """Put in, not out: counts negative."""
    limit_ml: float = Field(gt=0)


class Procedures(config.Config):
    """Item ids of ventilation procedures."""

    invasive: tuple[int, ...]
    noninvasive: tuple[int, ...]
    extubation: tuple[int, ...]


class CareVue(config.Config):
    """The older charting system of MIMIC-III: amounts at a time, and rates that hold."""

    fluids: tuple[Fluid, ...]
    drugs: tuple[Drug, ...]
    rate_holds_hours: float = Field(gt=0, le=24)
    """A rate counts until the next row of its drug or a stop, at most this long."""
    stops: tuple[str, ...]
    """Texts of `stopped` that end a rate, in lower case."""


class Items(config.Config):
    """The id dictionary of one source; every id is mapped once."""

    chart: tuple[Group, ...]
    lab: tuple[Group, ...]
    specimen: Specimen
    assumed_delay_minutes: Delays
    drugs: tuple[Drug, ...]
    fluids: tuple[Fluid, ...]
    urine: Urine
    procedures: Procedures
    carevue: CareVue | None = None

    @model_validator(mode="after")
    def _each_once(self) -> "Items":
        groups = (*self.chart, *self.lab)
        _known({group.concept for group in groups})
        _unique(self.ids(), "item ids")
        for group in groups:
            if group.unit is not None and (group.concept, spelling(group.unit)) not in conversions():
                raise ValueError(f"unit {group.unit!r} of {group.concept} is not in units.yaml")
        return self

    def ids(self) -> list[int]:
        """Every item id of the dictionary, as often as it is given."""
        drugs = (*self.drugs, *(self.carevue.drugs if self.carevue else ()))
        fluids = (*self.fluids, *(self.carevue.fluids if self.carevue else ()))
        found = [i for group in (*self.chart, *self.lab) for i in group.ids]
        found += [i for drug in drugs for i in drug.ids] + [i for fluid in fluids for i in fluid.ids]
        found += [*self.specimen.ids, *self.urine.ids, *self.urine.irrigant]
        return [*found, *self.procedures.invasive, *self.procedures.noninvasive, *self.procedures.extubation]


def ids(groups: tuple[Drug, ...] | tuple[Fluid, ...]) -> frozenset[int]:
    """The item ids of drugs or fluids."""
    return frozenset(i for group in groups for i in group.ids)


def spelling(unit: str) -> str:
    """A unit's spelling as it is compared: without case and blanks."""
    return "".join(unit.split()).casefold()


@cache
def load(source: str) -> Items:
    """The id dictionary of a source (`mimic_iv`, `mimic_iii`)."""
    return config.load(concepts.DIRECTORY / f"{source}.yaml", Items)


@cache
def units() -> Units:
    """The units that ship with Suture."""
    return config.load(concepts.DIRECTORY / "units.yaml", Units)


@cache
def conversions() -> dict[tuple[str, str], tuple[float, float]]:
    """(concept, spelling) -> (factor, offset)."""
    rows = units().conversions
    return {(c, spelling(s)): (row.factor, row.offset) for row in rows for c in row.concepts for s in row.spellings}


def _known(names: set[str]) -> None:
    unknown = sorted(names - set(concepts.load().measured))
    if unknown:
        raise ValueError(f"concept {unknown[0]!r} is not in features.yaml")


def _unique(keys: list[object] | list[int] | list[str] | list[tuple[str, str]], what: str) -> None:
    seen: set[object] = set()
    for key in keys:
        if key in seen:
            raise ValueError(f"{what}: {key} is given twice")
        seen.add(key)
