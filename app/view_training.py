"""ViewTraining: learning curves and the overestimation monitor from MLflow, all learners compared, and the sweep."""

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from app import sweep, tracking
from app.run_directory import again
from app.study import Problem
from app.tracking import SETTING
from app.view import Table
from cohort import artifact
from cohort.errors import ArtifactError
from ope import evaluation, plots
from ope.pictures import row_for
from ope.plots import Series

Curves = Mapping[str, Sequence[tuple[float, float]]]
"""Measure -> (update, value) in order."""
HELD = ("held_nll", "held_td", "held_expectile", "held_mse")
COMPARED = (
    "Policy", "True return (± standard error)", "Estimate", "Interval or why withheld", "KL to clinicians (nats)",
    "Agreement", "Effective sample", "Held-out loss", "Its own values", "Verdict",
)  # fmt: skip


@dataclass(frozen=True)
class Monitored:
    """What a critic believed as it trained, against what the rewards allow."""

    picture: str
    told: str


def curves(run: Path) -> dict[str, Curves] | Problem:
    """Policy -> its curves as MLflow has them, of its newest run there; or what is missing and what makes it."""
    store = run / tracking.STORE
    if not store.is_file():
        told = f"{run} has no {tracking.STORE}: nothing of it was copied to MLflow, or the copy was removed."
        return Problem("There is no MLflow store", told, again(run))
    query = """
        SELECT metrics.key, metrics.step, metrics.value FROM metrics JOIN runs USING (run_uuid)
        WHERE metrics.key LIKE 'policy/%' AND NOT metrics.is_nan AND runs.lifecycle_stage = 'active'
        ORDER BY runs.start_time, metrics.step
    """
    try:
        with closing(sqlite3.connect(f"file:{store.resolve()}?mode=ro", uri=True)) as connection:
            rows = connection.execute(query).fetchall()
    except sqlite3.Error as error:
        return Problem("MLflow's store cannot be read", f"{store}: {type(error).__name__}", f"rm {store}\n{again(run)}")
    found: dict[str, dict[str, dict[float, float]]] = {}
    for key, step, value in rows:  # of two runs of one policy the newer stays
        policy, _, measure = str(key).removeprefix(tracking.POLICIES).rpartition("/")
        found.setdefault(policy, {}).setdefault(measure, {})[float(step)] = float(value)
    if not found:
        return Problem("MLflow's store has no learning curves", f"{store} names no policy's measures.", again(run))
    return {
        policy: {measure: sorted(points.items()) for measure, points in measures.items()}
        for policy, measures in found.items()
    }


def losses(name: str, found: Curves) -> str:
    """Training and held-out losses of one policy."""
    shown = [
        measure for measure in sorted(found) if measure.startswith(("train_", "held_")) and measure != "held_value_mean"
    ]
    kept = [measure for measure in shown if measure.endswith(("_nll", "_td"))][:4] or shown[:4]
    series = [_series(measure, found[measure]) for measure in kept]
    told = "; ".join(f"{one.label} ends at {one.y[-1]:.3g}" for one in series)
    return str(plots.lines(series, f"Losses of {name}: {told}", ("updates", "loss"), height=200.0))


def monitored(name: str, found: Curves, notes: Mapping[str, Any] | None) -> Monitored | None:
    """The monitor of one policy; None for a policy without values."""
    if not notes or "q_max" not in found:
        return None
    names = {"q_max": "largest Q", "q_best_mean": "mean best Q", "return_mean": "mean logged return"}
    series = [_series(label, found[measure]) for measure, label in names.items() if measure in found]
    high = float(notes["bound_high"])
    guess = f"; a guess that is {notes['epsilon']:.2g} too high in each backup would do it, by ε/(1−γ)"
    told = (
        f"{name}: {notes['verdict']}. The largest value it believed in is {notes['q_max']:.2f}; the rewards allow "
        f"{high:.2f}. In {notes['q_above']:.1%} of the states looked at the best value lay above that, at update "
        f"{notes['update']:g}{guess if notes['epsilon'] > 0 else ''}."
    )
    limit = (high, f"most that the rewards allow: {high:.2f}")
    return Monitored(str(plots.lines(series, told, ("updates", "value"), floor=limit, height=200.0)), told)


def notes(run: Path, name: str) -> Mapping[str, Any]:
    """What training noted of a policy; empty where it has no directory (a control)."""
    directory = run / "policy" / name
    if not directory.is_dir():
        return {}
    found: Mapping[str, Any] = artifact.read_manifest(directory)["notes"]
    return found


def compared(run: Path) -> tuple[Table, str] | Problem:
    """Every policy beside every other: what it returned where treated, what is estimated, how far it strays."""
    try:
        document = evaluation.read(run / "ope")
        names = list(document["policies"])
        rows = tuple(_compared(run, document, name) for name in names)
    except ArtifactError as error:
        return Problem("The learners cannot be compared", str(error), f"suture evaluate CONFIG --out {run} --overwrite")
    truths = document.get("rollouts")
    told = (
        f"True return: each policy treated {truths['stays']:,} simulated stays."
        if truths
        else "No true return: this run has no rollouts (they need the simulated hospital and `rollouts` in the "
        f"configuration; then suture run CONFIG --out {run} --resume)."
    )
    return Table("All policies", COMPARED, rows), f"{told} Estimates by {document['config']['primary']}."


def frontier(run: Path) -> tuple[tuple[str, ...], Table, str] | Problem:
    """The sweep: evidence and support left against distance from the clinicians, every setting, and the choice."""
    directory = run / sweep.SWEEP
    if not directory.is_dir():
        told = f"{run} has no {sweep.SWEEP}/: the settings of its learners were not tried side by side."
        return Problem("There is no sweep", told, f"suture sweep CONFIG --out {run}")
    try:
        artifact.verify(directory)
        rows = artifact.read_parquet(directory / sweep.TABLE_FILE).to_pandas()
        chosen = artifact.read_json(directory / sweep.SELECTED_FILE)
    except ArtifactError as error:
        return Problem("The sweep fails verification", str(error), f"suture sweep CONFIG --out {run} --overwrite")
    if "bound" not in chosen:
        told = f"{directory} was made by an older Suture: its settings have no lower bounds."
        return Problem("The sweep is of an older version", told, f"suture sweep CONFIG --out {run} --overwrite")
    known = chosen["bound"]["clinicians"]["value"]
    clinicians = None if known is None else (float(known), f"the clinicians' mean: {known:+.3f}")
    pictures = (
        _against(rows[rows["lower_bound"].notna()], chosen, "lower_bound", "worth at least", clinicians),
        _against(rows, chosen, "ess", "effective episodes left", (float(chosen["min_ess"]), "the rule needs as many")),
        _against(rows, chosen, "supported_actions", "doses within the mask, mean"),
    )
    told = f"{_selection(chosen)}\n{_bounds(rows, chosen['bound'])}"
    return tuple(one for one in pictures if one), _settings(rows, chosen), told


def _series(label: str, points: Sequence[tuple[float, float]]) -> Series:
    return Series(label, [update for update, _ in points], [value for _, value in points])


def _compared(run: Path, document: Mapping[str, Any], name: str) -> tuple[str, ...]:
    entry = document["policies"][name]
    truth = ((document.get("rollouts") or {}).get("truths") or {}).get(name)
    estimate = row_for(entry["estimates"], document["config"]["primary"])
    shown = estimate["withheld"] is None
    known = notes(run, name)
    overall = entry["divergence"]["overall"]
    return (
        name.replace("_", " "),
        f"{truth['value']:+.3f} (± {truth['error']:.3f})" if truth else "not known",
        f"{estimate['value']:+.3f}" if shown else "withheld",
        f"{estimate['low']:+.3f} to {estimate['high']:+.3f}" if shown else str(estimate["withheld"]).split(": ", 1)[-1],
        f"{overall['kl']['value']:.3f}" if overall["kl"]["value"] is not None else "infinite",
        f"{overall['agreement']['value']:.0%}",
        f"{entry['overlap']['ess']:.1f} of {entry['overlap']['n_episodes']}",
        _held(run, name),
        (known.get("overestimation") or {}).get("verdict", "none"),
        str(entry.get("verdict", "control")),
    )


def _held(run: Path, name: str) -> str:
    file = run / "policy" / name / "curves.json"
    if not file.is_file():
        return "none"
    last = artifact.read_json(artifact.verified(file.parent, file.name))[-1]
    return ", ".join(f"{key.removeprefix('held_')} {last[key]:.3g}" for key in HELD if key in last) or "none"


def _against(
    rows: pd.DataFrame, chosen: Mapping[str, Any], column: str, name: str, least: tuple[float, str] | None = None
) -> str:
    """Settings by their KL on the select split and another measure; what was selected stands beside; empty for none."""
    possible = rows[rows["infeasible"].isna()]
    series = [
        Series(str(learner), mine["kl_behaviour"].tolist(), mine[column].tolist())
        for learner, mine in list(possible.sort_values("kl_behaviour").groupby("learner"))[:4]
    ]
    picked = [row for row in possible.to_dict("records") if _is_selected(row, chosen)]
    if picked:
        series.append(Series("selected", [one["kl_behaviour"] for one in picked], [one[column] for one in picked]))
    if not series:
        return ""
    told = f"{name} against KL to the clinicians, of {len(possible)} settings" + "".join(
        f"; {one['learner']} selected at KL {one['kl_behaviour']:.3g} with {one[column]:.3g}" for one in picked
    )
    axes = ("KL to the clinicians on the select split (nats)", name)
    return str(plots.lines(series, told, axes, floor=least, height=220.0))


def _settings(rows: pd.DataFrame, chosen: Mapping[str, Any]) -> Table:
    """Every setting, those that have no policy with the reason."""
    head = (
        "Learner",
        "τ",
        "Target KL",
        "α given",
        "Mask ε",
        "Seed",
        "Held-out TD",
        "KL",
        "Supported actions",
        "Effective episodes",
        "Worth at least",
        "Note",
    )
    out = []
    for row in rows.astype(object).where(rows.notna(), None).to_dict("records"):
        mark = "selected" if _is_selected(row, chosen) else ""
        numbers = (row[key] for key in ("held_td", "kl_behaviour", "supported_actions", "ess"))
        told = ("–" if value is None else f"{value:.3g}" for value in numbers)
        named = ("–" if row[key] is None else f"{row[key]}" for key in SETTING)
        bound = "–" if row["infeasible"] else "withheld" if row["lower_bound"] is None else f"{row['lower_bound']:+.3f}"
        why = row["infeasible"] or (row["lower_bound_withheld"] or "").partition(": ")[2]
        out.append((*named, *told, bound, "; ".join(part for part in (mark, why) if part)))
    return Table("Every setting that was tried", head, tuple(out))


def _is_selected(row: Mapping[Any, Any], chosen: Mapping[str, Any]) -> bool:
    """Whether the rule chose this setting of its learner; its table has NaN or None where the choice has None."""
    one = chosen["selected"][row["learner"]]["setting"]
    return one is not None and all(row[key] == one[key] or (pd.isna(row[key]) and one[key] is None) for key in SETTING)


def _bounds(rows: pd.DataFrame, known: Mapping[str, Any]) -> str:
    """What the lower bounds are, and why some or all are withheld."""
    withheld = rows.loc[rows["infeasible"].isna(), "lower_bound_withheld"].dropna()
    told = (
        f"Worth at least: a lower bound of the return that holds with probability {known['level']:.0%} on the select "
        f"split ({known['estimator']}, weights clipped at {known['clip']:g}). The rule does not read it, and at such "
        "sizes it lies below the clinicians' mean for better policies too."
    )
    if withheld.empty:
        return told
    reason = withheld.str.partition(": ")[2].value_counts().index[0]
    return f"{told} Withheld for {len(withheld)} of {len(rows)} settings; most often: {reason}."


def _selection(chosen: Mapping[str, Any]) -> str:
    lines = [f"The rule, written before the sweep: {chosen['rule']}"]
    for learner, found in chosen["selected"].items():
        if not found["setting"]:
            lines.append(f"{learner}: nothing was selected; {found['reason']}.")
            continue
        options = ", ".join(f"{key} {value:g}" for key, value in found["options"].items())
        one = found["setting"]
        lines.append(
            f"{learner}: {options}. Of the settings with the better critic it is the one that moves furthest from the "
            f"clinicians (KL {one['kl_behaviour']:.3g}) and still leaves {one['ess']:.0f} effective episodes, where "
            f"{chosen['min_ess']:g} are needed; {one['supported_actions']:.1f} doses a state are within its mask."
        )
    return "\n".join(lines)
