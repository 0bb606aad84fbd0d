"""Truth: what only the simulated hospital knows, kept where no pipeline stage reads it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float, Int

from cohort import concepts
from cohort.hospital.clinicians import STYLES
from cohort.hospital.physiology import Latent, Traits
from cohort.hospital.population import Outcomes, Population


@dataclass(frozen=True)
class Truth:
    """The exact-but-for-sampling value of a policy: means over the stays of a rollout and their standard errors."""

    mean_return: float
    """Undiscounted sum of rewards over the horizon, outcome included."""
    se_return: float
    survival: float
    """Share of stays whose patient left the hospital alive."""
    se_survival: float
    n: int


@dataclass(frozen=True)
class Decisions:
    """The clinicians' decisions, a row each."""

    stay_id: Int[np.ndarray, "m"]
    hour: Int[np.ndarray, "m"]
    style: Int[np.ndarray, "m"]
    """Position in STYLES of the attending on shift."""
    fluid: Int[np.ndarray, "m"]
    """Bin on the nominal edges."""
    vasopressor: Int[np.ndarray, "m"]
    fluid_ml_h: Float[np.ndarray, "m"]
    vasopressor_ug_kg_min: Float[np.ndarray, "m"]
    propensity: Float[np.ndarray, "m a"]
    """Of each 5 * fluid + vasopressor under that attending's style."""
    mixture: Float[np.ndarray, "m a"]
    """The same, averaged over the styles by their shares: for one who does not know who is on shift."""
    latent: Latent
    """The hidden state when the decision was made."""


def concatenate(parts: Sequence[Decisions]) -> Decisions:
    """All rows in the order given."""
    latent = Latent(**{f.name: np.concatenate([getattr(p.latent, f.name) for p in parts]) for f in fields(Latent)})
    own = [f.name for f in fields(Decisions) if f.name != "latent"]
    return Decisions(latent=latent, **{name: np.concatenate([getattr(part, name) for part in parts]) for name in own})


def equivalents() -> dict[str, float]:
    """Norepinephrine equivalent per unit of each drug, from the dictionary."""
    return dict(concepts.load().norepinephrine_equivalent)


def tables(
    population: Population, traits: Traits, outcomes: Outcomes, decisions: Decisions, faults: pa.Table
) -> dict[str, pa.Table]:
    """The truth of a shard as it is written."""
    return {"stays": _stays(population, traits, outcomes), "decisions": decision_table(decisions), "faults": faults}


class Writer:
    """Writes the truth of shard after shard: stays.parquet, decisions.parquet, faults.parquet."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._open: dict[str, pq.ParquetWriter] = {}

    def __enter__(self) -> "Writer":
        self._directory.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        for writer in self._open.values():
            writer.close()

    def write(self, shard: Mapping[str, pa.Table]) -> None:
        """Append a shard's tables."""
        for name, rows in shard.items():
            self._append(name, rows)

    def _append(self, name: str, table: pa.Table) -> None:
        if name not in self._open:
            path = self._directory / f"{name}.parquet"
            self._open[name] = pq.ParquetWriter(path, table.schema, compression="zstd", write_page_checksum=True)
        self._open[name].write_table(table)


def _stays(population: Population, traits: Traits, outcomes: Outcomes) -> pa.Table:
    ids = {name: getattr(population, name) for name in ("stay_id", "subject_id", "hadm_id", "infected")}
    ends = {name: getattr(outcomes, name) for name in ("out_hour", "died_in_hospital", "died_in_icu")}
    own = {f"trait_{field.name}": getattr(traits, field.name) for field in fields(Traits)}
    return pa.table({**ids, **ends, **own})


def decision_table(decisions: Decisions) -> pa.Table:
    """The decisions as they are written."""
    names = np.array(list(STYLES), object)
    columns: dict[str, object] = {
        "stay_id": decisions.stay_id,
        "hour": decisions.hour,
        "fluid_bin": decisions.fluid,
        "vasopressor_bin": decisions.vasopressor,
        "fluid_ml_h": decisions.fluid_ml_h,
        "vasopressor_ug_kg_min": decisions.vasopressor_ug_kg_min,
    }
    columns["style"] = pa.DictionaryArray.from_arrays(decisions.style.astype(np.int8), names)
    for kind in ("propensity", "mixture"):
        table = getattr(decisions, kind).astype(np.float32)
        columns |= {f"{kind}_{action:02d}": table[:, action] for action in range(table.shape[1])}
    columns |= {f"latent_{f.name}": getattr(decisions.latent, f.name).astype(np.float32) for f in fields(Latent)}
    return pa.table(columns)
