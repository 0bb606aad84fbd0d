"""Comorbidity: how many of Elixhauser's categories the diagnosis codes of admissions fall in."""

from functools import cache, lru_cache

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from pydantic import Field

from cohort import concepts, config


class Codes(config.Config):
    """ICD prefixes of one comorbidity; "I47-I49" is a range of prefixes of one length."""

    icd9: tuple[str, ...] = Field(min_length=1)
    icd10: tuple[str, ...] = Field(min_length=1)


class Elixhauser(config.Config):
    """Every comorbidity and its codes."""

    comorbidities: dict[str, Codes] = Field(min_length=30, max_length=30)


@cache
def load() -> Elixhauser:
    """The categories that ship with Suture."""
    return config.load(concepts.DIRECTORY / "elixhauser.yaml", Elixhauser)


@lru_cache(maxsize=100_000)
def categories(code: str, version: int) -> int:
    """The categories of one ICD code (version 9 or 10, dots left out or not), as bits; 0 where there is none."""
    code = code.strip().replace(".", "").upper()
    rows = load().comorbidities.values()
    return sum(1 << bit for bit, row in enumerate(rows) if any(_has(code, p) for p in _prefixes(row, version)))


def by_admission(diagnoses: pd.DataFrame) -> "pd.Series[int]":
    """Categories as bits, by hadm_id, of diagnoses (columns hadm_id, code, version)."""
    known = diagnoses.dropna(subset=["hadm_id", "code", "version"])
    which, names = pd.factorize(known["code"].astype(str) + "/" + known["version"].astype(int).astype(str))
    bits = [categories(code, int(version)) for code, _, version in (name.rpartition("/") for name in names)]
    marks = np.array(bits, dtype=np.int64)[which]
    order = np.argsort(known["hadm_id"].to_numpy(np.int64), kind="stable")
    admission, first = np.unique(known["hadm_id"].to_numpy(np.int64)[order], return_index=True)
    merged = np.bitwise_or.reduceat(marks[order], first) if len(first) else np.zeros(0, dtype=np.int64)
    return pd.Series(merged, index=admission)


def count(bits: Int[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """How many categories are set in each."""
    number: np.ndarray = np.bitwise_count(bits).astype(np.float64)
    return number


def _prefixes(row: Codes, version: int) -> tuple[str, ...]:
    return row.icd9 if version == 9 else row.icd10


def _has(code: str, prefix: str) -> bool:
    first, _, last = prefix.partition("-")
    return first <= code[: len(first)] <= (last or first)
