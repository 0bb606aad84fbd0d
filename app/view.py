"""View: everything that the page shows, computed without a browser. Pages only display what these functions return."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

import policy.store
from app import verification
from app.run import BEHAVIOUR, COHORT, EVALUATION_FILE, OPE, POLICY, TRAINING_SPLIT
from app.run_directory import RECORD
from cohort import artifact, bedside, build, dictionary, features, trajectories
from cohort.dictionary import Dictionary
from cohort.errors import ArtifactError, SutureError
from ope import gates
from policy import recommend
from policy.base import Policy
from policy.recommend import Recommendation, Support
from policy.served import NetworkPolicy

HOUR = "hours_since_start"
"""The column with the decision time, hours since the anchor."""
FIRST_DAY_H = 24.0
NOTICE = "Research prototype, not for clinical use"
MEASURED, CARRIED = "measured since the last decision", "carried forward"
GRID_KEY = (
    "Each cell is a dose (medians of the bins), a stronger colour is more often. Hatched: too few similar patients "
    "had it, or clinicians would hardly give it; Suture never recommends such a dose."
)
TIMELINE_KEY = (
    "Filled circle: measured since the decision before. Hollow diamond: carried forward from earlier. Nothing drawn: "
    "not known; the model then uses the training patients' median. Only what was known at this decision is shown."
)
SIGNALS = {
    "map": "Mean arterial pressure (mmHg)",
    "heart_rate": "Heart rate (1/min)",
    "lactate": "Lactate (mmol/L)",
    "creatinine": "Creatinine (mg/dL)",
    "spo2": "Oxygen saturation (%)",
    "gcs": "Glasgow coma scale (points)",
}
"""What the timeline draws: feature -> its name for a reader."""
DRUGS = {
    "fluid_ml": "IV fluid given (mL per window)",
    "vasopressor_ug_kg_min": "Vasopressor given (µg/kg/min norepinephrine equivalent)",
}
_SORTS: dict[str, tuple[str, bool]] = {
    "sickest first (SOFA)": ("sofa", False),
    "lowest pressure first": ("map", True),
    "highest lactate first": ("lactate", False),
    "stay id": ("stay_id", True),
}
SORTS = tuple(_SORTS)
SHOW = ("all stays", "with a recommendation", "without one")
RECOMMENDS = "recommendation"
Tone = Literal["refused", "insufficient", "eligible"]


@dataclass(frozen=True)
class Problem:
    """Why there is nothing to show, and what the reader can do."""

    title: str
    detail: str
    remedy: str


@dataclass(frozen=True)
class Study:
    """An opened run: its evaluation patients and what answers for them."""

    path: Path
    policy_name: str
    policy: NetworkPolicy
    behaviour: Policy
    known: Support
    dictionary: Dictionary
    decisions: pd.DataFrame
    """Every decision of the evaluation patients: states as at the bedside, imputed values missing, and doses."""
    verdict: str
    binding: str
    """Why the verdict is not better, in a sentence; empty where nothing binds."""

    @property
    def horizon_h(self) -> float:
        """End of the last possible decision window, hours since admission."""
        return float(self.decisions[HOUR].max() + self.dictionary.step_hours)


@dataclass(frozen=True)
class Banner:
    """What stands above every recommendation."""

    tone: Tone
    text: str


@dataclass(frozen=True)
class Grid:
    """A picture of the dose grid: a share in each cell, unsupported cells marked."""

    title: str
    share: Float[np.ndarray, "f v"]
    unsupported: Bool[np.ndarray, "f v"]
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    axes: tuple[str, str]


@dataclass(frozen=True)
class Dose:
    """One drug: what is recommended (None where no dose is shown) and what was given, as text with units."""

    drug: str
    recommended: str | None
    given: str


@dataclass(frozen=True)
class Card:
    """One decision: doses beside what the clinicians gave, or why none is recommended."""

    title: str
    doses: tuple[Dose, Dose]
    facts: tuple[tuple[str, str], ...]
    """Support and probability, as (name, text)."""
    abstention: tuple[str, str, str] | None
    """The gate's name, the reason, and what would lift it."""


def stamp(run: Path | None) -> tuple[tuple[str, int], ...]:
    """Which files of a run there are and when each was written: changes whenever the run should be opened anew."""
    if run is None or not run.is_dir():
        return ()
    files = [run / RECORD, *run.glob(f"*/{artifact.MANIFEST}"), *run.glob(f"*/*/{artifact.MANIFEST}")]
    return tuple(sorted((str(file), file.stat().st_mtime_ns) for file in files if file.is_file()))


def open_study(run: Path | None) -> Study | Problem:
    """Verify a run and load what the page needs, or say what is wrong with it and what to do."""
    if run is None or not (run / RECORD).is_file():
        where = "No run directory was named." if run is None else f"{run} is not the directory of a run."
        return Problem(
            "There is no run to show", where, "suture run configs/demo.yaml --out runs/demo\nsuture app runs/demo"
        )
    again = f"suture run CONFIG --out {run} --resume"
    missing = [part for part in (COHORT, BEHAVIOUR, POLICY, OPE) if not (run / part).is_dir()]
    if missing:
        detail = f"{run} has no {missing[0]}/ yet: it is still running, or it was interrupted."
        return Problem("This run is not finished", detail, again)
    try:
        verification.check(run)
    except ArtifactError as error:
        detail = f"{error}. Nothing of this run is shown, because it may not be what was evaluated."
        return Problem("This run fails verification", detail, f"suture verify {run}\n{again}")
    try:
        return _load(run)
    except SutureError as error:
        return Problem("This run cannot be shown", str(error), again)


def banner(verdict: str, binding: str) -> Banner:
    """The evaluation's verdict as it stands above every recommendation."""
    if verdict == gates.REFUSED:
        return Banner("refused", f"Evaluation: refused. No dose is shown for any patient. {binding}")
    if verdict == gates.ELIGIBLE:
        return Banner("eligible", f"Evaluation: {verdict}. What is shown is a research output; nobody is to act on it.")
    text = f"Evaluation: {verdict}. Doses below are research output that the records cannot vouch for. {binding}"
    return Banner("insufficient", text)


def decision_hours(decisions: pd.DataFrame) -> list[float]:
    """The decision times that occur, in hours since the anchor, ascending."""
    return [float(hour) for hour in np.unique(decisions[HOUR].to_numpy())]


def worklist(decisions: pd.DataFrame, hour: float, search: str = "", sort: str = SORTS[0]) -> pd.DataFrame:
    """The stays with a decision at `hour`, one row each.

    Args:
        decisions: the rows of the evaluation patients.
        hour: decision time in hours since the anchor.
        search: keeps the stays whose id begins with it.
        sort: one of SORTS; missing values come last.
    """
    rows: pd.DataFrame = decisions[decisions[HOUR] == hour]
    if search.strip():
        rows = rows[rows["stay_id"].astype(str).str.startswith(search.strip())]
    column, ascending = _SORTS[sort]
    rows = rows.sort_values([column, "stay_id"], ascending=[ascending, True], na_position="last", ignore_index=True)
    return rows


def said(study: Study, rows: pd.DataFrame) -> list[str]:
    """What Suture has to say on each row: that it recommends, or by which gate it abstains."""
    shown = "no dose shown" if study.verdict == gates.REFUSED else RECOMMENDS
    return [shown if one.gate is None else f"abstains: {one.gate}" for one in recommendations(study, rows)]


def filtered(rows: pd.DataFrame, words: Sequence[str], show: str) -> pd.DataFrame:
    """The rows with a recommendation, those without one, or all; `words` from `said`."""
    keep = [show == SHOW[0] or (word == RECOMMENDS) == (show == SHOW[1]) for word in words]
    return rows.assign(said=list(words))[keep].reset_index(drop=True)


def worklist_columns(rows: pd.DataFrame) -> pd.DataFrame:
    """The worklist as shown, from `filtered`: names and units for a reader."""
    return pd.DataFrame(
        {
            "Stay": rows["stay_id"].astype(str),
            "Age (years)": rows["age_years"].round(0),
            "Sex": [_sex(value) for value in rows["sex_male"]],
            "SOFA (points)": rows["sofa"],
            "MAP (mmHg)": rows["map"].round(0),
            "Heart rate (1/min)": rows["heart_rate"].round(0),
            "Lactate (mmol/L)": rows["lactate"].round(1),
            "Suture": rows["said"],
        }
    )


def counted(total: int, shown: int, hour: float) -> str:
    """How many stays the worklist has and how many of them are listed."""
    text = f"{total:,} stays of the evaluation patients have a decision at {hour:g} h"
    return text if shown == total else f"{text}; the first {shown:,} are listed"


def stay(decisions: pd.DataFrame, stay_id: int) -> pd.DataFrame:
    """All decisions of one stay, in time order."""
    rows: pd.DataFrame = decisions[decisions["stay_id"] == stay_id].sort_values("step").reset_index(drop=True)
    return rows


def default_hour(hours: Sequence[float]) -> float:
    """The decision time that the page opens with: the last within the first day, when most has been measured."""
    return max((hour for hour in hours if hour <= FIRST_DAY_H), default=hours[0])


def patient_text(rows: pd.DataFrame, hour: float) -> str:
    """Who the patient is, as plain text: what a record calls itself is never read as markdown."""
    now = rows[rows[HOUR] == hour].iloc[0]
    missing = int(now["sofa_missing"])
    without = f" ({missing} of 6 organ systems without a value, counted 0)" if missing else ""
    lines = [
        f"Stay {now['stay_id']}",
        f"{now['age_years']:.0f} years, {_sex(now['sex_male'])}, weight {_value(now['weight_kg'], 'kg', 0)}",
        f"Decision {hour:g} h after the start, {now['time']:%Y-%m-%d %H:%M}",
        f"SOFA {_value(now['sofa'], 'points', 0)}{without}",
    ]
    return "\n".join(lines)


def timeline(rows: pd.DataFrame, until: float, step_hours: float) -> pd.DataFrame:
    """What was known of a stay's signals at each decision up to `until`, measured and carried-forward values apart.

    Returns:
        Columns hour, signal, value, source (MEASURED: since the decision before; CARRIED: older, within its hold
        time). A value that was never measured or has expired has no row: an imputed value is not a measurement.
    """
    known = rows[rows[HOUR] <= until]
    frames = []
    for feature, name in SIGNALS.items():
        age, value = (known[column].to_numpy(np.float64) for column in (f"{feature}_age_h", feature))
        source = np.where(age <= step_hours, MEASURED, CARRIED)
        columns = {"hour": known[HOUR].to_numpy(np.float64), "signal": name, "value": value, "source": source}
        frames.append(pd.DataFrame(columns)[np.isfinite(age) & np.isfinite(value)])
    points: pd.DataFrame = pd.concat(frames, ignore_index=True)
    return points


def absent(points: pd.DataFrame, windows: pd.DataFrame) -> str:
    """What the timeline has nothing to draw of, in a sentence; empty where nothing is lacking."""
    lacking = [name for name in SIGNALS.values() if not (points["signal"] == name).any()]
    sentences = [f"Not measured so far: {', '.join(lacking)}."] if lacking else []
    return " ".join(sentences if len(windows) else [*sentences, "No dose yet: this is the first decision."])


def given(rows: pd.DataFrame, until: float) -> pd.DataFrame:
    """The doses given in the windows before `until`: start and end hour, and the columns of DRUGS."""
    past = rows[rows[HOUR] < until]
    start = past[HOUR].to_numpy(np.float64)
    doses = {drug: past[drug].to_numpy(np.float64) for drug in DRUGS}
    return pd.DataFrame({"start": start, "end": start + past["duration_h"].to_numpy(np.float64), **doses})


def recommendations(study: Study, rows: pd.DataFrame) -> list[Recommendation]:
    """What Suture recommends, or why it abstains, for each of `rows`."""
    if rows.empty:
        return []
    state = features.impute(rows[list(study.policy.features)].to_numpy(np.float64), study.dictionary.imputation)
    return recommend.recommend(study.policy, state, study.known, study.behaviour, ages(rows, study.policy.features))


def ages(rows: pd.DataFrame, names: Sequence[str]) -> Float[np.ndarray, "m d"]:
    """Hours since each feature was measured; NaN where it is not known, 0 for what is derived or never ages."""
    columns = []
    for name in names:
        value = rows[name].to_numpy(np.float64)
        derived = np.where(np.isnan(value), np.nan, 0.0)
        columns.append(rows[f"{name}_age_h"].to_numpy(np.float64) if name in features.MEASURED else derived)
    return np.stack(columns, axis=1)


def card(study: Study, rows: pd.DataFrame, hour: float) -> Card:
    """The decision of one stay at `hour`; a refused evaluation shows no dose, whatever the policy says."""
    now = rows[rows[HOUR] == hour]
    found = recommendations(study, now)[0]
    if found.gate is not None:
        held = (str(found.gate), _sentence(str(found.reason)), str(found.lifts))
        return Card("Suture abstains", _doses(study, now.iloc[0], None), _facts(study, found), held)
    if study.verdict == gates.REFUSED:
        held = (
            "evaluation",
            "The evaluation refused this policy, so no dose is shown",
            "a policy that passes the evaluation",
        )
        return Card("No dose is shown", _doses(study, now.iloc[0], None), (), held)
    return Card("Research output, not advice", _doses(study, now.iloc[0], found), _facts(study, found), None)


def grids(study: Study, rows: pd.DataFrame, hour: float) -> tuple[Grid, ...]:
    """The dose grid of one decision: what clinicians gave in similar states, and what the policy would give.

    The policy's grid is left out where no dose may be shown, the clinicians' where the state cannot be read.
    """
    now = rows[rows[HOUR] == hour]
    found = recommendations(study, now)[0]
    if found.gate == "data freshness":
        return ()
    state = features.impute(now[list(study.policy.features)].to_numpy(np.float64), study.dictionary.imputation)
    counts = similar_doses(study.known, state)[0]
    rare = (counts < study.known.config.min_support) | (
        study.behaviour.probs(state)[0] < study.known.config.min_probability
    )
    near = int(counts.sum())
    title = f"Doses in the {near} most similar training decisions"
    out = [_grid(study, title, counts / near, rare)]
    if found.gate is None and study.verdict != gates.REFUSED:
        out.append(_grid(study, f"What {study.policy_name} would give", study.policy.probs(state)[0], rare))
    return tuple(out)


def similar_doses(known: Support, state: Float[np.ndarray, "m d"]) -> Int[np.ndarray, "m a"]:
    """How many of the most similar training decisions used each dose."""
    _, rows = known.index.kneighbors(known.scaler.transform(state))
    return np.stack([np.bincount(known.action[near], minlength=known.n_actions) for near in rows])


def _grid(study: Study, title: str, share: Float[np.ndarray, "a"], rare: Bool[np.ndarray, "a"]) -> Grid:
    known = study.dictionary
    shape = len(known.fluid_medians_ml_h), known.n_vasopressor_bins
    fluid = tuple(f"{rate * known.step_hours:.0f}" for rate in known.fluid_medians_ml_h)
    pressor = tuple(f"{dose:.2f}" for dose in known.vasopressor_medians_ug_kg_min)
    axes = f"fluid, mL in {known.step_hours:g} h", "vasopressor, µg/kg/min"
    return Grid(title, share.reshape(shape).astype(np.float64), rare.reshape(shape), fluid, pressor, axes)


def dose_table(shown: Card) -> pd.DataFrame:
    """A card's doses as a small table, a row a drug."""
    given = pd.DataFrame({"Clinicians gave": {dose.drug: dose.given for dose in shown.doses}})
    if all(dose.recommended is None for dose in shown.doses):
        return given
    given.insert(0, "Recommended", [dose.recommended for dose in shown.doses])
    return given


def _doses(study: Study, was: "pd.Series[Any]", found: Recommendation | None) -> tuple[Dose, Dose]:
    fluid = pressor = None
    if found is not None and found.action is not None:
        volume, rate = study.dictionary.dose(found.action)
        fluid, pressor = f"{volume:,.0f} mL / {study.dictionary.step_hours:g} h", f"{rate:.2f} µg/kg/min"
    least = "at least " if was["dose_unknown"] else ""
    return (
        Dose("IV fluid", fluid, f"{least}{was['fluid_ml']:,.0f} mL / {was['duration_h']:.3g} h"),
        Dose("Vasopressor", pressor, f"{least}{was['vasopressor_ug_kg_min']:.2f} µg/kg/min"),
    )


def _facts(study: Study, found: Recommendation) -> tuple[tuple[str, str], ...]:
    facts = []
    if found.neighbours:
        share = f"{found.support} of the {found.neighbours} most similar training decisions used this dose"
        facts.append(("Support", share))
    if found.probability is not None:
        facts.append(("Policy", f"{study.policy_name} gives this dose a probability of {found.probability:.0%}"))
    if found.behaviour_probability is not None:
        facts.append(("Clinicians", f"would give it with a probability of {found.behaviour_probability:.0%}"))
    return tuple(facts)


def _load(run: Path) -> Study:
    verdict = artifact.read_json(run / OPE / EVALUATION_FILE)["verdict"]
    served = policy.store.load(run / POLICY / verdict["policy"])
    fitted = dictionary.load(run / COHORT / "dictionary.json")
    return Study(
        path=run,
        policy_name=verdict["policy"],
        policy=served,
        behaviour=policy.store.load(run / BEHAVIOUR),
        known=recommend.support(build.episodes(run / COHORT, TRAINING_SPLIT)),
        dictionary=fitted,
        decisions=_decisions(run / COHORT, fitted),
        verdict=verdict["verdict"],
        binding=f"The gate that decided it: {verdict['binding']['reason']}.",
    )


def _decisions(cohort: Path, fitted: Dictionary) -> pd.DataFrame:
    """The evaluation patients' decisions in order of stay and step, their states made anew from canonical tables.

    The trajectories say only which decisions there were and what was given: a state is built here as at any bedside.
    """
    columns = ["stay_id", "step", "time", "duration_h", *DRUGS, "dose_unknown"]
    decisions = trajectories.read(cohort, columns, split="evaluate").to_pandas()
    config = build.config_of(cohort)
    known, ages, missing = [], [], []
    for shard, stays in bedside.shards(cohort / "canonical", build.stays_of(cohort, "evaluate")):
        mine = decisions[decisions["stay_id"].isin(stays["stay_id"])]
        row = np.searchsorted(stays["stay_id"].to_numpy(), mine["stay_id"].to_numpy())
        hours, anchor = config.grid.hours, stays["anchor"].to_numpy()
        made = bedside.states(shard, anchor, hours, config.grid, fitted, config.actions)[row, mine["step"].to_numpy()]
        known.append(pd.DataFrame(made.known, mine.index, fitted.features))
        ages.append(pd.DataFrame(made.age_h, mine.index, [f"{name}_age_h" for name in features.MEASURED]))
        missing.append(pd.Series(made.sofa_missing, mine.index, name="sofa_missing"))
    joined: pd.DataFrame = pd.concat([decisions, *(pd.concat(parts) for parts in (known, ages, missing))], axis=1)
    return joined


def _sex(male: float) -> str:
    return "not recorded" if np.isnan(male) else "male" if male else "female"


def _value(value: float, unit: str, digits: int) -> str:
    return "not known" if np.isnan(value) else f"{value:.{digits}f} {unit}"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
