"""ViewCohort: what the data scientist sees of the data: flow, Table 1, quality, distributions, and one stay's chain."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from app import drawing, study
from app.study import DOSES, HOUR, Problem, Study
from app.view import Table, plain
from cohort import artifact, trajectories
from cohort.errors import ArtifactError
from cohort.features import FEATURES
from cohort.split import SPLITS
from ope import plots, quality_page
from ope.plots import Series

SECTIONS: dict[str, tuple[str, ...]] = {
    "Cohort flow": ("flow",),
    "Table 1": ("table-1",),
    "Quality": ("features", "charted", "times", "infusions", "windows", "counted"),
}
"""The page's sections -> the quality page's."""
BINS = 20
RAW = {
    "chartevents": ("icu", "stay_id", "storetime", "d_items"),
    "labevents": ("hosp", "hadm_id", "storetime", "d_labitems"),
    "inputevents": ("icu", "stay_id", "starttime", "d_items"),
    "outputevents": ("icu", "stay_id", "storetime", "d_items"),
}
"""Raw table -> its folder, its key, the time by which its rows are cut to a window, and where its items are named."""
RAW_MOST = 200
"""Raw rows that are sent to the browser."""
RAW_COLUMNS = (
    "label", "charttime", "storetime", "starttime", "endtime", "value", "valuenum", "valueuom", "amount", "amountuom",
    "rate", "rateuom", "itemid",
)  # fmt: skip
STEP_COLUMNS = ("action", "reward", "terminated", "end_reason", "outcome", "previous_action")


@dataclass(frozen=True)
class Chain:
    """One decision of one stay, from raw rows to the reward."""

    raw: dict[str, pd.DataFrame] | Problem
    """By raw table, rows stored in the window before the decision."""
    canonical: pd.DataFrame
    """What the source made of them: observations and doses stored before the decision, in the dictionary's units."""
    state: pd.DataFrame
    """The grid's value, its age, and what the policy gets where it is missing."""
    action: Table
    reward: Table


def sections(run: Path) -> dict[str, str] | Problem:
    """The quality page's sections, each file hashed first; or what is missing and what makes it."""
    try:
        found = drawing.parts(quality_page.render(run))
    except ArtifactError as error:
        return Problem(
            "The cohort's quality cannot be shown", str(error), f"suture cohort CONFIG --out {run} --overwrite"
        )
    return {title: drawing.within("".join(found[anchor] for anchor in anchors)) for title, anchors in SECTIONS.items()}


def distribution(run: Path, feature: str) -> tuple[str, Table]:
    """How a feature's known values are distributed in each split: a picture and quartiles; imputed values count apart.

    Raises:
        ArtifactError: the cohort is missing or damaged.
    """
    columns = [feature, f"{feature}_imputed", "split"]
    rows = trajectories.read(run / "cohort", columns).to_pandas()
    known = rows[~rows[f"{feature}_imputed"]]
    values = {split: known.loc[known["split"] == split, feature].to_numpy(np.float64) for split in SPLITS}
    every = np.concatenate(list(values.values()))
    name = feature_name(feature)
    table = Table(
        f"{name}: known values by split",
        ("Split", "Decisions", "Known", "Lower quartile", "Median", "Upper quartile"),
        tuple(_quartiles(split, int((rows["split"] == split).sum()), values[split]) for split in SPLITS),
    )
    if len(every) == 0:
        return "", table
    low, high = np.quantile(every, [0.005, 0.995])
    edges = np.linspace(low, high if high > low else low + 1.0, BINS + 1)
    middle = ((edges[:-1] + edges[1:]) / 2).tolist()
    series = [
        Series(split, middle, (100 * np.histogram(one, edges)[0] / max(len(one), 1)).tolist())
        for split, one in values.items()
    ]
    alt = f"{name}, share of known values by split; " + "; ".join(f"{row[0]} median {row[4]}" for row in table.rows)
    return str(plots.lines(series, alt, (name, "share of known values, %"), height=220.0)), table


def feature_name(feature: str) -> str:
    """A feature as the report calls it, with its unit."""
    name, unit = quality_page.named(feature)
    return f"{name} ({unit})" if unit else name


def stays(of: Study) -> list[int]:
    """The evaluation patients' stays."""
    return [int(one) for one in of.stays["stay_id"]]


def hours(of: Study, stay_id: int) -> list[float]:
    """The decisions of a stay, hours since its start."""
    mine = of.decisions[of.decisions["stay_id"] == stay_id]
    return [float(one) for one in np.sort(mine[HOUR].to_numpy())]


def chain(of: Study, stay_id: int, hour: float) -> Chain:
    """One decision, side by side: raw rows, canonical rows, state, action, reward.

    Raises:
        ArtifactError: a table differs from its manifest.
    """
    course = study.course(of, stay_id)
    now = course[course[HOUR] == hour].iloc[0]
    end = pd.Timestamp(now["time"])
    start = end - pd.Timedelta(hours=of.dictionary.step_hours)
    steps = trajectories.read(of.path / "cohort", ["stay_id", "step", *STEP_COLUMNS], split=study.SPLIT).to_pandas()
    row = steps[(steps["stay_id"] == stay_id) & (steps["step"] == now["step"])].iloc[0]
    mine = of.stays[of.stays["stay_id"] == stay_id].iloc[0]
    return Chain(
        _raw(of.path, stay_id, mine, start, end),
        _canonical(of, str(mine["shard"]), stay_id, start, end),
        _state(of, now),
        _action(of, now, int(row["action"])),
        _reward(steps[steps["stay_id"] == stay_id], row),
    )


def _quartiles(split: str, decisions: int, values: np.ndarray) -> tuple[str, ...]:
    share = f"{len(values):,} ({len(values) / decisions:.0%})" if decisions else "0"
    found = [f"{one:.4g}" for one in np.quantile(values, [0.25, 0.5, 0.75])] if len(values) else ["–"] * 3
    return (split, f"{decisions:,}", share, *found)


def _raw(
    run: Path, stay_id: int, mine: pd.Series, start: pd.Timestamp, end: pd.Timestamp
) -> dict[str, pd.DataFrame] | Problem:
    """Rows of the simulated hospital's own tables; a hospital's tables stay where they are."""
    folder = run / "tables"
    if not folder.is_dir():
        return Problem(
            "The raw tables are not in this run",
            "They stayed where they were when the run was made with --source; beside this is what was read of them.",
            "suture verify RUN --source DIR",
        )
    with duckdb.connect() as connection:
        found = {
            name: _rows(connection, folder, name, stay_id if key == "stay_id" else int(mine[key]), start, end)
            for name, (room, key, _, _) in RAW.items()
            if (folder / room / f"{name}.parquet").is_file()
        }
    return {name: rows for name, rows in found.items() if len(rows)}


def _rows(
    connection: duckdb.DuckDBPyConnection, folder: Path, name: str, wanted: int, start: pd.Timestamp, end: pd.Timestamp
) -> pd.DataFrame:
    """One raw table's rows of a window, its items named."""
    room, key, time, names = RAW[name]
    query = f"""
        SELECT named.label, raw.* FROM read_parquet(?) raw LEFT JOIN read_parquet(?) named USING (itemid)
        WHERE raw.{key} = ? AND raw.{time} >= ? AND raw.{time} < ? ORDER BY raw.{time}, raw.itemid LIMIT {RAW_MOST}
    """
    files = [str(folder / room / f"{one}.parquet") for one in (name, names)]
    rows = connection.execute(query, [*files, wanted, start, end]).df()
    shown = rows[[column for column in RAW_COLUMNS if column in rows]].dropna(axis=1, how="all")
    texts = shown.select_dtypes(include=["object", "string"]).columns
    return shown.assign(**{column: shown[column].map(lambda one: plain(one, 60)) for column in texts})


def _canonical(of: Study, shard: str, stay_id: int, start: pd.Timestamp, end: pd.Timestamp) -> pd.DataFrame:
    """Observations that became available in the window before the decision, and infusions that ran in it."""
    frames = []
    for name, time in (("observations", "available"), ("infusions", "start")):
        file = artifact.verified(of.path / "cohort", f"canonical/{shard}/{name}.parquet")
        rows = pq.read_table(file, filters=[("stay_id", "=", stay_id)]).to_pandas().drop(columns="stay_id")
        inside = (rows[time] < end) & ((rows["end"] > start) if name == "infusions" else (rows[time] >= start))
        frames.append(rows[inside].sort_values(time).assign(table=name))
    found: pd.DataFrame = pd.concat(frames, ignore_index=True)
    order = ["table", *(column for column in found.columns if column != "table")]
    return found[order].dropna(axis=1, how="all")


def _state(of: Study, now: pd.Series) -> pd.DataFrame:
    names = [name for name in of.dictionary.features if name in FEATURES]
    value = now[names].to_numpy(np.float64)
    ages = [now.get(f"{name}_age_h") for name in names]
    typical = of.dictionary.imputation[[of.dictionary.features.index(name) for name in names]]
    return pd.DataFrame(
        {
            "Feature": [feature_name(name) for name in names],
            "On the grid": value,
            "Age (h)": pd.Series(ages, dtype="float64").round(1),
            "Given to the policy": np.where(np.isnan(value), typical, value),
            "Imputed": np.isnan(value),
        }
    )


def _action(of: Study, now: pd.Series, action: int) -> Table:
    known = of.dictionary
    fluid, pressor = divmod(action, known.n_vasopressor_bins)
    typical = known.dose(action)
    rate = float(now["fluid_ml"]) / float(now["duration_h"])
    rows = (
        ("IV fluid", f"{now[DOSES[0]]:,.0f} mL ({rate:,.1f} mL/h)", str(fluid), f"{typical[0]:,.0f} mL a window"),
        ("Vasopressor", f"{now[DOSES[1]]:.3f} µg/kg/min", str(pressor), f"{typical[1]:.2f} µg/kg/min"),
        ("Action", "", str(action), f"of {known.n_actions}"),
    )  # fmt: skip
    return Table(
        "Action: what was given in the window after the decision", ("Drug", "Dose", "Bin", "Bin's median"), rows
    )


def _reward(mine: pd.DataFrame, row: pd.Series) -> Table:
    rest = mine[mine["step"] >= row["step"]]["reward"].to_numpy(np.float64)
    ended = f"yes, {row['outcome']}" if row["terminated"] else "no"
    rows: Sequence[tuple[str, str]] = (
        ("Reward of this step", f"{row['reward']:+.3f}"),
        ("Last step of the stay with its outcome", ended),
        ("Sum of rewards from here to the end", f"{rest.sum():+.3f} over {len(rest)} steps"),
        ("How the record ends", str(row["end_reason"])),
    )
    return Table("Reward", ("What", "Value"), tuple(rows))
