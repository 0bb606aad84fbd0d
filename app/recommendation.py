"""Recommendation: a table of states or a hospital's tables in, a table of doses or abstentions out."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from jaxtyping import Bool, Float

import policy.store
from app import bedside
from app.bedside import Asked
from app.run import BEHAVIOUR, COHORT, OPE, POLICY, TRAINING_SPLIT
from cohort import artifact, build
from cohort.errors import ArtifactError, InputError
from ope import evaluation
from ope.gates import REFUSED
from policy import recommend
from policy.recommend import Recommendation
from policy.served import NetworkPolicy

AGE_SUFFIX = "_age_h"
IMPUTED_SUFFIX = "_imputed"
_SUFFIXES = (".csv", ".parquet")


def write(run: Path, states: Path, out: Path, name: str | None = None, overwrite: bool = False) -> dict[str, int]:
    """Recommend for every row of a table of states and write the answers, rows in the same order.

    Args:
        run: a finished run's directory.
        states: CSV or parquet with the policy's features as columns, in clinical units, as in trajectories.parquet; an
            empty value is imputed as in training and counts as imputed. Columns `<feature>_age_h` (hours since it was
            measured, empty: imputed) or else `<feature>_imputed` (true, false) are read where they are there; without
            them a value that is there counts as fresh. `cvp`, `fluid_balance_total` and `previous_action` (empty: not
            charted, none) are read too; without any of them the hazard rules C, D and E are not asked.
        out: CSV or parquet; one row a state.
        name: which policy; None: the one that the run's verdict is about.
        overwrite: replace `out`.

    Returns:
        rows, recommended, abstained.

    Raises:
        InputError: the table lacks a feature, is empty or cannot be read.
        ArtifactError: the run is unfinished or damaged, or `out` exists or cannot be written.
    """
    _refuse(out, overwrite)
    chosen = name or main_policy(run)
    served = _load(run, chosen)
    table = read_states(states)
    state, age = _features(table, served, states)
    return _write(_answers(run, chosen, served, state, age, _beside(table, states)), out)


def write_bedside(
    run: Path,
    source: Path,
    out: Path,
    at: datetime | None = None,
    stay: int | None = None,
    name: str | None = None,
    overwrite: bool = False,
) -> tuple[dict[str, int], Asked]:
    """Recommend for the patients in a hospital's tables; `out` then begins with stay_id, time, hours_since_start.

    Args:
        run, out, name, overwrite: as `write`.
        source, at, stay: as `bedside.ask`.

    Returns:
        rows, recommended, abstained; and what was asked.

    Raises:
        InputError: the tables are wrong, or nobody in them has a decision time.
        ArtifactError: as `write`.
    """
    _refuse(out, overwrite)
    chosen = name or main_policy(run)
    served = _load(run, chosen)
    with _or_artifact_error(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        asked = bedside.ask(run, source, out.parent, at, stay)
    columns = [asked.features.index(feature) for feature in served.features]
    answers = _answers(run, chosen, served, asked.state[:, columns], asked.age_h[:, columns], asked.beside)
    return _write(answers, out, asked.rows), asked


def _answers(
    run: Path,
    name: str,
    served: NetworkPolicy,
    state: Float[np.ndarray, "m d"],
    age: Float[np.ndarray, "m d"],
    beside: recommend.Bedside | None = None,
) -> list[dict[str, Any]]:
    _require_one_cohort(run, name)
    known = recommend.support(build.episodes(run / COHORT, TRAINING_SPLIT))
    answers = recommend.recommend(served, state, known, policy.store.load(run / BEHAVIOUR), age, beside)
    return rows(answers, refused=verdict(run, name) == REFUSED)


def rows(answers: Sequence[Recommendation], refused: bool) -> list[dict[str, Any]]:
    """One record a state; a policy that the evaluation refused recommends no dose to anybody."""
    records = []
    for row, answer in enumerate(answers):
        runners_up = "; ".join(f"action {a}: {p:.3f} ({count} similar)" for a, p, count in answer.alternatives)
        record = {"row": row, **asdict(answer), "alternatives": runners_up}
        if refused and answer.gate is None:
            record |= dict.fromkeys(("action", "fluid_ml", "vasopressor_ug_kg_min", "probability", "alternatives"))
            record |= {
                "gate": "evaluation",
                "reason": "the evaluation refused this policy",
                "lifts": "another policy, or an evaluation that does not refuse this one",
            }
        records.append(record)
    return records


def verdict(run: Path, name: str) -> str:
    """What the run's evaluation decided about a policy.

    Raises:
        ArtifactError: there is no evaluation, it was changed, or it is of another policy of that name.
    """
    document = _evaluation(run)
    if name not in document["policies"] or document["policies"][name]["digest"] != artifact.digest(run / POLICY / name):
        raise ArtifactError(f"{run / OPE}: does not evaluate the policy {name!r} that is there; evaluate again")
    return str(document["policies"][name]["verdict"])


def main_policy(run: Path) -> str:
    """The policy that the run's verdict is about."""
    return str(_evaluation(run)["verdict"]["policy"])


def _evaluation(run: Path) -> dict[str, Any]:
    return evaluation.read(run / OPE)


def read_states(path: Path) -> pd.DataFrame:
    """Read a CSV or parquet table.

    Raises:
        InputError: it is missing, of another kind, damaged or empty.
    """
    if path.suffix not in _SUFFIXES:
        raise InputError(f"{path}: expected a file that ends in {' or '.join(_SUFFIXES)}")
    try:
        table = pa.csv.read_csv(path) if path.suffix == ".csv" else pq.read_table(path)
        names = table.column_names  # decoded here: a name need not be text
    except FileNotFoundError:
        raise InputError(f"{path}: missing") from None
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable: truncated or damaged ({type(error).__name__})") from None
    if not table.num_rows:
        raise InputError(f"{path}: has no rows")
    if len(set(names)) < table.num_columns:
        raise InputError(f"{path}: a column is given twice")
    frame: pd.DataFrame = table.to_pandas()
    return frame


def _features(
    table: pd.DataFrame, served: NetworkPolicy, path: Path
) -> tuple[Float[np.ndarray, "m d"], Float[np.ndarray, "m d"]]:
    """States and ages; a missing value becomes the training patients' imputation and its age NaN."""
    missing = [name for name in served.features if name not in table]
    if missing:
        raise InputError(
            f"{path}: column {missing[0]!r} is missing ({len(missing)} of {len(served.features)} features)"
        )
    if served.dictionary is None:
        raise ArtifactError("the policy has no dictionary: it was not trained from a cohort's directory")
    state = np.column_stack([_numbers(table, name, path) for name in served.features])
    age = np.where(np.isfinite(state), 0.0, np.nan)
    for column, name in enumerate(served.features):
        if name + AGE_SUFFIX in table:
            age[:, column] = _numbers(table, name + AGE_SUFFIX, path)
        elif name + IMPUTED_SUFFIX in table:
            age[_flags(table, name + IMPUTED_SUFFIX, path), column] = np.nan
    negative = int((age < 0).sum())
    if negative:
        raise InputError(f"{path}: {negative} ages (columns *{AGE_SUFFIX}) are below 0 h")
    age[np.isnan(state)] = np.nan  # a value that is not there was not measured, whatever its age says
    return np.where(np.isnan(state), served.dictionary.imputation, state), age


def _beside(table: pd.DataFrame, path: Path) -> recommend.Bedside | None:
    """What the hazard rules need beside the state, where the table has any of it; None: those rules are not asked."""
    if not {"cvp", "fluid_balance_total", "previous_action"} & {*table.columns}:
        return None
    nothing = np.full(len(table), np.nan)
    cvp, balance, before = (
        _numbers(table, name, path) if name in table else nothing
        for name in ("cvp", "fluid_balance_total", "previous_action")
    )
    return recommend.Bedside(cvp, balance, np.nan_to_num(before, nan=-1.0).astype(np.int64))


def _numbers(table: pd.DataFrame, name: str, path: Path) -> Float[np.ndarray, "m"]:
    if not (pd.api.types.is_numeric_dtype(table[name]) or table[name].isna().all()):
        raise InputError(f"{path}: {name}: type {table[name].dtype}, expected numbers")
    return table[name].to_numpy(np.float64, na_value=np.nan)


def _flags(table: pd.DataFrame, name: str, path: Path) -> Bool[np.ndarray, "m"]:
    """A column of true and false (or 1 and 0); an empty one counts as imputed."""
    values = table[name].astype("object").where(table[name].notna(), True)
    if not values.isin([True, False]).all():
        raise InputError(f"{path}: {name}: expected true or false in {int((~values.isin([True, False])).sum())} rows")
    return values.to_numpy(bool)


def _require_one_cohort(run: Path, name: str) -> None:
    """The policy and the behaviour model were trained on the cohort that is there."""
    cohort = artifact.digest(run / COHORT)
    for path in (run / POLICY / name, run / BEHAVIOUR):
        if artifact.read_manifest(path)["inputs"].get(COHORT) != cohort:
            raise ArtifactError(f"{path}: made from another cohort than the one beside it; train again")


def _load(run: Path, name: str) -> NetworkPolicy:
    if not (run / POLICY / name).is_dir():
        known = sorted(path.name for path in (run / POLICY).glob("*") if path.is_dir())
        raise ArtifactError(f"{run}: no policy {name!r}; it has: {', '.join(known) or 'none'}")
    return policy.store.load(run / POLICY / name)


def _refuse(out: Path, overwrite: bool) -> None:
    if out.suffix not in _SUFFIXES:
        raise InputError(f"{out}: expected a name that ends in {' or '.join(_SUFFIXES)}")
    if out.exists() and not overwrite:
        raise ArtifactError(f"{out}: already exists; use --overwrite to replace it")


def _write(records: list[dict[str, Any]], out: Path, beside: pd.DataFrame | None = None) -> dict[str, int]:
    """Write the answers, `beside` before their columns, and count them."""
    frame = pd.DataFrame(records)
    frame["action"] = frame["action"].astype("Int64")
    if beside is not None:
        frame = pd.concat([beside, frame], axis=1)
    draft = out.with_name(f".{out.name}.tmp-{os.getpid()}")
    try:
        with _or_artifact_error(out):
            out.parent.mkdir(parents=True, exist_ok=True)
            if out.suffix == ".csv":
                frame.to_csv(draft, index=False)
            else:
                artifact.write_parquet(pa.Table.from_pandas(frame, preserve_index=False), draft)
            draft.replace(out)
    finally:
        draft.unlink(missing_ok=True)
    abstained = sum(record["gate"] is not None for record in records)
    return {"rows": len(records), "recommended": len(records) - abstained, "abstained": abstained}


@contextmanager
def _or_artifact_error(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ArtifactError(f"{out}: cannot be written: {error.strerror or type(error).__name__}") from error
