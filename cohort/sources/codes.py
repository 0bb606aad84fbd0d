"""Codes: what the codes of a Medical Event Data Standard dataset mean, as a person writes it down."""

import re
from typing import Literal

from pydantic import Field, field_validator

from cohort import config

End = Literal[
    "icu_start", "icu_end", "admission", "discharge", "birth", "death", "sex", "race", "measurement", "output",
    "infusion_start", "infusion_end", "infusion_weight", "procedure_start", "procedure_end", "culture", "prescription",
    "diagnosis",
]  # fmt: skip


class Rule(config.Config):
    """What codes that match a pattern mean."""

    as_: End = Field(alias="as")
    pattern: str = Field(min_length=1)
    item: int | None = None
    unit: str | None = None
    clock: Literal["stored", "charted"] = "stored"

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        return pattern


class CodeMap(config.Config):
    """Every rule, none before another."""

    rules: tuple[Rule, ...] = Field(min_length=1)
    """What codes mean: `as`, a pattern, and where the code itself does not say them item, unit and clock."""
