"""Tiny canonical tables that a reader can check by hand: times in hours after ICU admission."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from cohort import concepts, tables
from cohort.tables import Tables

ADMISSION = pd.Timestamp("2150-01-01 07:00")


def at(hours: float | None) -> pd.Timestamp | None:
    """A clock time, to the second."""
    return None if hours is None else ADMISSION + pd.Timedelta(seconds=round(hours * 3600))


def stay(
    stay_id: int = 1, *, hours: float = 100.0, intime: float = 0.0, died_at: float | None = None, **more: Any
) -> dict[str, Any]:
    """One ICU stay of `hours`; patient and admission share its number unless given."""
    row = {
        "stay_id": stay_id, "subject_id": stay_id, "hadm_id": stay_id,
        "intime": at(intime), "outtime": at(intime + hours),
        "admittime": at(intime - 2), "dischtime": at(intime + hours + 20),
        "deathtime": at(died_at), "dod": at(died_at), "died_in_hospital": died_at is not None,
        "age_years": 60.0, "sex_male": 1.0, "readmission": 0.0, "elixhauser": 3.0, "charting": "metavision",
    }  # fmt: skip
    return {**row, **more}


def make(
    stays: Sequence[dict[str, Any]] = (),
    observations: Sequence[tuple[Any, ...]] = (),
    infusions: Sequence[tuple[Any, ...]] = (),
    outputs: Sequence[tuple[Any, ...]] = (),
) -> Tables:
    """Checked tables.

    Args:
        stays: of `stay()`; one by default.
        observations: (stay, concept, charted h, available h, value[, text]).
        infusions: (stay, drug, start h, end h, normalised rate).
        outputs: (stay, charted h, available h, mL).
    """
    seen = [(*row, None)[:6] for row in observations]
    columns = ("stay_id", "concept", "charted", "available", "value", "text")
    observed = _columns(columns, seen)
    given = _columns(("stay_id", "drug", "start", "end", "normalised_rate"), infusions)
    urine = _columns(("stay_id", "charted", "available", "volume_ml"), outputs)
    people = pd.DataFrame(list(stays) or [stay()])
    made = Tables(
        tables.frame("stays", dict(people.items())),
        tables.frame("observations", observed) if seen else tables.empty("observations"),
        tables.frame("infusions", {**given, "item_id": 1, "weight_assumed": False})
        if infusions
        else tables.empty("infusions"),
        tables.frame("outputs", urine) if outputs else tables.empty("outputs"),
    )
    return tables.check(made)


def anchors(shard: Tables) -> np.ndarray:
    """ICU admission of each stay."""
    return shard.stays["intime"].to_numpy()


def random_tables(seed: int, n_stays: int = 4, rows: int = 250, first: int = 1) -> Tables:
    """Random but valid tables: every concept, results that come late, infusions that overlap, stays of many lengths."""
    rng = np.random.default_rng(seed)
    known = concepts.load().measured
    names = [name for name in known if name != "o2_device"]
    people = [
        stay(
            number,
            subject_id=number // 2,
            hours=float(rng.uniform(2, 130)),
            intime=1000.0 * (number % 2),
            suspicion_time=at(1000.0 * (number % 2) + float(rng.uniform(-5, 30))),
        )
        for number in range(first, first + n_stays)
    ]

    def when(number: int, low: float, high: float) -> float:
        return round(1000.0 * (number % 2) + float(rng.uniform(low, high)), 3)

    observed, given, urine = [], [], []
    for person in people:
        number = person["stay_id"]
        for _ in range(rows):
            name = names[rng.integers(len(names))]
            low, high = known[name].range
            charted = when(number, -6, 90)
            delay = 0.0 if known[name].clock == "charted" else float(rng.uniform(0, 3))
            observed.append((number, name, charted, charted + delay, round(float(rng.uniform(low, high)), 2)))
        for _ in range(12):
            charted = when(number, 0, 80)
            observed.append(
                (number, "o2_device", charted, charted + 0.2, np.nan, str(rng.choice(["Nasal cannula", "None"])))
            )
            observed.append((number, "gcs_verbal", charted, charted + 0.2, np.nan, "No Response-ETT"))
            start = when(number, -1, 80)
            drug = str(rng.choice(["fluid", "norepinephrine", "dopamine", "vasopressin", "d5w", "dobutamine"]))
            rate = float(rng.uniform(1, 300)) if drug in ("fluid", "d5w") else float(rng.uniform(0.01, 0.4))
            given.append((number, drug, start, start + float(rng.uniform(0.1, 12)), rate))
            urine.append((number, charted, charted + 0.3, float(rng.integers(10, 300))))
    return make(people, observed, given, urine)


def _columns(names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> dict[str, list[Any]]:
    values = {name: [row[i] for row in rows] for i, name in enumerate(names)}
    timed = {"charted", "available", "start", "end"} & set(names)
    return {name: [at(hour) for hour in column] if name in timed else column for name, column in values.items()}
