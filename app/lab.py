"""Lab: what breaks when a part of a method is removed, trained for real and written down for pages and readers."""

from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from app import log
from app.summary import wide
from cohort import artifact
from policy import lab, textbook
from policy.lab import Break, Removed

KIND = "lab"
LAB_FILE, CURVES_FILE = "lab.json", "curves.parquet"
UPDATES = (25, 50, 100, 200, 400)
RETURNS = (2.0, 5.0, 1.0, 8.0, 3.0, 7.0, 9.0, 4.0, 6.0, 10.0)
"""The guide's trajectories, as far as it lists them."""
ACTIONS = (3.0, 7.0, 1.0)
"""Its three returns of one state."""
VALUES = (3.0, 5.0, 8.0)
"""Its three action values."""


def write(out: Path, seed: int = 0, overwrite: bool = False) -> dict[str, Any]:
    """Run every experiment and write DIR/lab.json and DIR/curves.parquet; returns the former.

    Raises:
        ArtifactError: the directory exists (and not `overwrite`), or cannot be written.
    """
    artifact.refuse_existing(out, overwrite)
    removed = get_args(Removed)
    with (
        log.progress() as told,
        artifact.writing(out, KIND, {"updates": UPDATES}, seed=seed, overwrite=overwrite) as draft,
    ):
        breaks = []
        for k, name in enumerate(removed):
            breaks.append(lab.broken(name, UPDATES, seed))
            told(("ablations", k + 1, len(removed)))
        compared = lab.compare(seed=seed, progress=lambda done, total: told(("comparison", done, total)))
        document = {
            "ablations": [asdict(one) for one in breaks],
            "comparison": [asdict(row) for row in compared],
            **drawings(),
        }
        artifact.write_json(draft.path / LAB_FILE, document)
        curves = pa.Table.from_pandas(_curves(breaks), preserve_index=False)
        artifact.write_parquet(curves, draft.path / CURVES_FILE)
        draft.rows.update(curves=curves.num_rows, learners=len(compared))
    return artifact.read_json(out / LAB_FILE)  # type: ignore[no-any-return]


def drawings() -> dict[str, Any]:
    """What the guide draws without training anything, at its own numbers and over each slider's range."""
    value, q = textbook.gridworld(5, 0.9)
    errors, limit = textbook.overestimation(3.0, 0.99, 1000)
    tops = [float(percent) for percent in range(10, 101, 10)]
    kept = [textbook.filtered(np.array(RETURNS), percent) for percent in tops]
    alphas = [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0]
    taus = [0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999]
    stitched = {str(tau): _stitched(textbook.stitch(tau=tau)) for tau in taus}
    return {
        "gridworld": {"gamma": 0.9, "value": value.tolist(), "q": q.tolist(), "moves": list(textbook.MOVES)},
        "stitching": {"guide": _stitched(textbook.stitch(textbook.GUIDE, 0.5)), "by_tau": stitched},
        "overestimation": {"epsilon": 3.0, "gamma": 0.99, "error": errors.tolist(), "limit": limit},
        "exploited": asdict(textbook.exploited((5.0, 5.0, 5.0), 5.0, 3.0, 0.99)),
        "filter": [
            {"top_percent": top, "kept": mask.tolist(), "least": least, "mean": mean}
            for top, (mask, least, mean) in zip(tops, kept, strict=True)
        ],
        "temperature": [{"alpha": alpha, **_weighted(alpha)} for alpha in alphas],
        "expectile": [{"tau": tau, "value": textbook.expectile(np.array(VALUES), tau)} for tau in taus],
    }


def show(document: dict[str, Any], console: Console | None = None) -> None:
    """Print each ablation's two ends, and the method comparison."""
    out = console or wide(Console(highlight=False))
    for one in document["ablations"]:
        whole, broken = one["whole"], one["broken"]
        out.print(
            f"without {one['removed']}: {_reached(whole)} {_reached(broken)} "
            f"best {one['best']:g}, logged {one['logged']:.2f}"
        )
    table = Table(box=None, pad_edge=False)
    for column in ("learner", "stitches?", "risk, it is said", "stitching", "unseen", "queried", "excess", "return"):
        table.add_column(column)
    for row in document["comparison"]:
        said = row["said"]
        measured = (row[key] for key in ("stitching", "unseen", "queried", "excess", "achieved"))
        table.add_row(
            row["learner"], "yes" if said["stitches"] else "no", said["risk"], *(f"{m:.3g}" for m in measured)
        )
    out.print(table)


def _reached(curve: dict[str, Any]) -> str:
    believed = f" (believing in {max(curve['q_max']):.3g})" if curve["q_max"] else ""
    return f"{curve['label']} reaches {curve['value'][-1]:.2f}{believed},"


def _curves(breaks: list[Break]) -> pd.DataFrame:
    rows = [
        {"removed": one.removed, "learner": curve.label, "whole": curve is one.whole, "update": update, "value": value,
         "q_max": curve.q_max[k] if curve.q_max else np.nan}
        for one in breaks for curve in (one.whole, one.broken)
        for k, (update, value) in enumerate(zip(curve.update, curve.value, strict=True))
    ]  # fmt: skip
    return pd.DataFrame(rows)


def _stitched(found: textbook.Stitched) -> dict[str, Any]:
    q = [{"state": state, "action": action, "value": value} for (state, action), value in found.q.items()]
    return {**asdict(found), "q": q}


def _weighted(alpha: float) -> dict[str, Any]:
    found = textbook.weighted(np.array(ACTIONS), alpha)
    arrays = {"advantage": found.advantage, "raw": found.raw, "weight": found.weight}
    return {**{name: array.tolist() for name, array in arrays.items()}, "effective": found.effective}
