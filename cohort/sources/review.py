"""Review: units that the dictionary does not know, the conversions proposed for them, and which a person accepted."""

import hashlib
from pathlib import Path

from pydantic import Field, model_validator

from cohort.config import Config
from cohort.errors import InputError

_HEAD = 1 << 20


class Conversion(Config):
    """canonical value = factor * value + offset. A drug's rate is read as the known unit that it is like instead."""

    factor: float = Field(gt=0)
    offset: float = 0.0


class Proposal(Conversion):
    """A conversion whose result looks like the concept's known values."""

    like: str
    """The known unit with this conversion, or how it was made."""
    distance: float = Field(ge=0)
    """Mean distance of the converted deciles from the known values', in spreads of the known values."""


class Finding(Config):
    """One unknown unit of one concept in one table."""

    table: str
    concept: str
    unit: str
    rows: int = Field(ge=1)
    proposal: Proposal | None = None
    """None: nothing fits, or too few values are known."""
    accept: bool = False
    """True: use the proposal. A person sets it."""

    @model_validator(mode="after")
    def _accepts_something(self) -> "Finding":
        if self.accept and self.proposal is None:
            raise ValueError(f"{self.concept} in {self.unit!r}: accepted, but nothing is proposed")
        return self


class Review(Config):
    """Every unknown unit of one dataset."""

    dataset: str
    """The dataset's fingerprint."""
    findings: tuple[Finding, ...] = ()
    """What was found, most rows first."""

    def accepted(self) -> tuple[tuple[str, str, float, float, str], ...]:
        """(concept, unit, factor, offset, like) of every accepted proposal."""
        return tuple(
            (one.concept, one.unit, one.proposal.factor, one.proposal.offset, one.proposal.like)
            for one in self.findings
            if one.accept and one.proposal
        )


def fingerprint(paths: list[Path]) -> str:
    """A dataset's fingerprint: its files' names, sizes and first megabytes."""
    digest = hashlib.sha256()
    for path in sorted(paths, key=lambda path: path.name):
        with path.open("rb") as handle:
            digest.update(f"{path.name} {path.stat().st_size}\n".encode() + handle.read(_HEAD))
    return digest.hexdigest()[:16]


def check(review: Review, paths: list[Path]) -> None:
    """Raise InputError where the review was made of another dataset."""
    if review.dataset != fingerprint(paths):
        raise InputError(f"review: made of dataset {review.dataset}, this one is {fingerprint(paths)}: examine it anew")
