"""View: everything that the pages show, computed without a browser. Pages only display what these functions return."""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from app import responses, study
from app.audit_log import Entry
from app.card import Card
from app.feature_names import NAMES
from app.study import HOUR, Study
from ope import gates
from policy import hazards, recommend

FIRST_DAY_H = 24.0
NOTICE = "Research prototype, not for clinical use"
MEASURED, CARRIED = "measured since the last decision", "carried forward"
GRID_KEY = "Each cell is a dose (the medians of the bins). Hatched and marked: Suture never recommends it, and why."
TIMELINE_KEY = (
    "Filled circle: measured since the decision before. Hollow diamond: carried forward from earlier. Nothing drawn: "
    "not known; the model then uses the training patients' median. Only what was known at this decision is shown."
)
VALUE_KEY = (
    "Value: the expected return by the policy's own value network (+1 for survival to the cohort's horizon, -1 for "
    "death, less a small cost per hour). The interval says how precisely the outcomes of similar patients pin it; it "
    "does not cover what nobody charted."
)
NO_VALUES = "This policy imitates and has no value network: it says how likely a dose is, not what it is worth."
SIGNALS = {
    feature: NAMES[feature]
    for feature in (
        "map", "heart_rate", "resp_rate", "spo2", "temperature_c", "gcs",
        "lactate", "creatinine", "bilirubin_total", "platelets", "pao2", "urine_output_step",
    )
}  # fmt: skip
"""What the timeline draws: feature -> its name for a reader."""
CASE_COLUMNS = {
    "age_years": "Age (years)",
    "sofa": "SOFA",
    "map": "MAP (mmHg)",
    "heart_rate": "Heart rate (1/min)",
    "lactate": "Lactate (mmol/L)",
    "creatinine": "Creatinine (mg/dL)",
}
"""What is told of a similar patient."""
DRUGS = {
    "fluid_ml": "IV fluid given (mL per window)",
    "vasopressor_ug_kg_min": "Vasopressor given (µg/kg/min norepinephrine equivalent)",
}
PRESSOR = "Vasopressor (µg/kg/min)"
_SORTS: dict[str, tuple[str, bool]] = {
    "sickest first (SOFA)": ("sofa", False),
    "lowest pressure first": ("map", True),
    "highest lactate first": ("lactate", False),
    "stay id": ("stay_id", True),
}
SORTS = tuple(_SORTS)
SHOW = ("all stays", "with a recommendation", "without one")
RECOMMENDS = "recommendation"
ASKED_AT_ONCE = 400
"""Rows that the policy is asked about at a time where the worklist is cut to what it recommends."""
LONGEST = 200
"""Characters of a text that somebody typed or charted which are shown."""
Tone = Literal["refused", "insufficient", "eligible"]


@dataclass(frozen=True)
class Filters:
    """What the worklist is cut to; None does not cut. A value that is not known passes no limit."""

    search: str = ""
    """Stays whose id begins with it."""
    units: tuple[str, ...] = ()
    sofa_least: float | None = None
    lactate_least: float | None = None
    map_most: float | None = None
    show: str = SHOW[0]


@dataclass(frozen=True)
class Banner:
    """What stands above every recommendation."""

    tone: Tone
    text: str


@dataclass(frozen=True)
class Table:
    """A small table as text."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    long: bool = False
    """Cells may hold long words, which then break anywhere."""


@dataclass(frozen=True)
class Grid:
    """A picture of the dose grid: a number in each cell, and what marks a cell that is never recommended."""

    title: str
    number: Float[np.ndarray, "f v"]
    text: tuple[tuple[str, ...], ...]
    mark: tuple[tuple[str, ...], ...]
    """Why not: "unsupported", "rule A", or nothing."""
    best: Bool[np.ndarray, "f v"]
    """What is recommended."""
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    axes: tuple[str, str]


def plain(text: object, most: int = LONGEST) -> str:
    """Text that somebody typed or charted, made harmless: one line, no hidden or direction-changing sign, cut short."""
    shown = "".join(
        f"⟨U+{ord(sign):04X}⟩" if unicodedata.category(sign) in {"Cf", "Cc", "Co", "Cs", "Zl", "Zp"} else sign
        for sign in str(text)[: most + 1]
    )
    return shown if len(shown) <= most else f"{shown[:most]}… (cut)"


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


def default_hour(hours: Sequence[float]) -> float:
    """The decision time that the page opens with: the last within the first day, when most has been measured."""
    return max((hour for hour in hours if hour <= FIRST_DAY_H), default=hours[0])


def units(decisions: pd.DataFrame) -> list[str]:
    """The care units that occur, in alphabetical order."""
    return sorted(decisions["unit"].unique())


def worklist(
    of: Study, hour: float, filters: Filters | None = None, sort: str = SORTS[0], most: int | None = None
) -> pd.DataFrame:
    """The stays with a decision at `hour` that pass the filters, one row each; missing values are sorted last.

    Where the policy must be asked about each row to tell, it is asked until `most` rows are found.
    """
    wanted = filters or Filters()
    rows: pd.DataFrame = of.decisions[of.decisions[HOUR] == hour]
    if wanted.search.strip():
        rows = rows[rows["stay_id"].astype(str).str.startswith(wanted.search.strip())]
    if wanted.units:
        rows = rows[rows["unit"].isin(wanted.units)]
    if wanted.sofa_least is not None:
        rows = rows[rows["sofa"] >= wanted.sofa_least]
    if wanted.lactate_least is not None:
        rows = rows[rows["lactate"] >= wanted.lactate_least]
    if wanted.map_most is not None:
        rows = rows[rows["map"] <= wanted.map_most]
    column, ascending = _SORTS[sort]
    rows = rows.sort_values([column, "stay_id"], ascending=[ascending, True], na_position="last", ignore_index=True)
    if wanted.show != SHOW[0]:
        rows = _recommended(of, rows, wanted.show == SHOW[1], most)
    return rows


def said(of: Study, rows: pd.DataFrame) -> list[str]:
    """What Suture has to say on each row: that it recommends, or by which gate it abstains."""
    words: dict[tuple[int, float], str] = _words(of)
    keys = [(int(stay), float(hour)) for stay, hour in zip(rows["stay_id"], rows[HOUR], strict=True)]
    new = np.array([key not in words for key in keys], bool)
    if new.any():
        state, ages, beside = study.asked(of, rows[new])
        found = recommend.recommend(of.policy, state, of.known, of.behaviour, ages, beside)
        shown = "no dose shown" if of.verdict == gates.REFUSED else RECOMMENDS
        missing = [key for key, unknown in zip(keys, new, strict=True) if unknown]
        words |= {
            key: shown if one.gate is None else f"abstains: {one.gate}" for key, one in zip(missing, found, strict=True)
        }
    return [words[key] for key in keys]


def worklist_columns(rows: pd.DataFrame, words: Sequence[str]) -> pd.DataFrame:
    """The worklist as shown: names and units for a reader; `words` from `said`."""
    return pd.DataFrame(
        {
            "Stay": rows["stay_id"].astype(str),
            "Suture": list(words),
            "Unit": [plain(unit, 60) for unit in rows["unit"]],
            "Age (years)": rows["age_years"].round(0),
            "Sex": [_sex(value) for value in rows["sex_male"]],
            "SOFA (points)": rows["sofa"],
            "MAP (mmHg)": rows["map"].round(0),
            "Heart rate (1/min)": rows["heart_rate"].round(0),
            "Lactate (mmol/L)": rows["lactate"].round(1),
        }
    )


def counted(found: int, listed: int, hour: float, all_asked: bool = True) -> str:
    """How many stays were found for the worklist and how many are listed; without `all_asked` there may be more."""
    many = f"{found:,}" if all_asked or found == listed else f"More than {listed:,}"
    text = f"{many} stays of the evaluation patients have such a decision at {hour:g} h"
    return text if found == listed else f"{text}; the first {listed:,} are listed"


def patient_text(rows: pd.DataFrame, hour: float) -> str:
    """Who the patient is, as plain text: what a record calls itself is never read as markdown."""
    now = rows[rows[HOUR] == hour].iloc[0]
    missing = int(now["sofa_missing"])
    without = f" ({missing} of 6 organ systems without a value, counted 0)" if missing else ""
    return (
        f"Stay {now['stay_id']}, {plain(now['unit'], 60)}; {now['age_years']:.0f} years, {_sex(now['sex_male'])}, "
        f"weight {_value(now['weight_kg'], 'kg', 0)}\n"
        f"Decision {hour:g} h after the start, {now['time']:%Y-%m-%d %H:%M}; "
        f"SOFA {_value(now['sofa'], 'points', 0)}{without}"
    )


def timeline(rows: pd.DataFrame, until: float, step_hours: float) -> pd.DataFrame:
    """What was known of a stay's signals at each decision up to `until`, measured and carried-forward values apart.

    Returns:
        Columns hour, signal, value, source (MEASURED: since the decision before; CARRIED: older, within its hold
        time). A value that was never measured or has expired has no row: an imputed value is not a measurement.
    """
    known = rows[rows[HOUR] <= until]
    frames = []
    for feature, name in SIGNALS.items():
        value = known[feature].to_numpy(np.float64)
        aged = f"{feature}_age_h"
        age = known[aged].to_numpy(np.float64) if aged in known else np.where(np.isnan(value), np.nan, 0.0)
        with np.errstate(invalid="ignore"):
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


def headline(card: Card) -> str:
    """What the card says, in a few words."""
    if card.output["recommendation"] is not None:
        return "Research output, not advice"
    return "No dose is shown" if not card.output["gates"][0]["passed"] else "Suture abstains"


def held(card: Card) -> tuple[tuple[str, str, str], ...]:
    """Every gate that is not passed: its name, the reason, and what would lift it."""
    return tuple(
        (one["gate"], f"{_sentence(one['reason'])}.", f"What would lift it: {one['lifts']}.")
        for one in card.output["gates"]
        if one["passed"] is False
    )


def dose_table(of: Study, card: Card, rows: pd.DataFrame) -> Table:
    """A row a drug: the dose of the window before, what is recommended, where anything is, and what clinicians gave.

    `rows` is the stay's course, as `study.course` gives it.
    """
    was, now, window = card.output["given"], card.output["recommendation"], of.dictionary.step_hours
    unsure = " (at least: part of it could not be read)" if was["partly_unknown"] else ""
    columns = {
        "Window before": _before(rows, card.hour),
        "Clinicians gave": tuple(
            f"{text}{unsure}" for text in _dose(was["fluid_ml"], was["vasopressor_ug_kg_min"], was["duration_h"])
        ),
    }
    if now is not None:
        advice = {"Recommended": _dose(now["fluid_ml"], now["vasopressor_ug_kg_min"], window)}
        columns = {"Window before": columns["Window before"], **advice, **columns}
    drugs = tuple(responses.DRUGS.values())
    return Table("Doses", ("Drug", *columns), tuple(zip(drugs, *columns.values(), strict=True)))


def facts(of: Study, card: Card) -> Table | None:
    """How sure, how many alike, what happened to them; of an abstention what similar patients show; None: nothing."""
    now, records = card.output["recommendation"], card.output["records"]
    if records is None:
        return None
    similar, died = records["similar"], records["died"]
    fate = f"{died} of the {similar} most similar training decisions were of patients who died ({died / similar:.0%})"
    rows = [("What happened to them", fate)]
    if now is not None:
        sure = NO_VALUES if now["value"] is None else f"Value {_interval(now)}; -1 is death, +1 survival"
        rows = [
            ("How sure", sure),
            ("How many alike", f"{now['support']} of the {now['similar']} most similar decisions used this dose"),
            *rows,
            (
                "How likely",
                f"the policy ({of.policy_name}) gives it with {now['probability']:.0%}, "
                f"clinicians in such states with {now['behaviour_probability']:.0%}",
            ),
        ]
    return Table("At a glance", ("Question", "Answer"), tuple(rows))


def equivalence(of: Study, card: Card) -> tuple[str, Table | None]:
    """The supported doses that cannot be told from the best, as a sentence and a table."""
    same, now = card.output["equivalent"], card.output["recommendation"]
    if now is None:
        return "", None
    if same is None:
        return f"{NO_VALUES} Doses cannot be told apart by value.", None
    inside = any(one["action"] == now["action"] for one in same)
    told = (
        f"{len(same)} supported doses cannot be told apart by their value"
        if len(same) > 1
        else "No other supported dose comes near the best one"
    )
    where = "the recommended dose is one of them" if inside else "the recommended dose is NOT one of them"
    window = of.dictionary.step_hours
    rows = tuple(
        (
            f"{one['fluid_ml']:,.0f}",
            f"{one['vasopressor_ug_kg_min']:.2f}",
            _interval(one),
            str(one["support"]),
            "recommended" if one["action"] == now["action"] else "",
        )
        for one in same
    )
    alike = f"Used in {now['similar']} similar decisions"
    head = (f"IV fluid (mL in {window:g} h)", PRESSOR, "Value (interval)", alike, "Policy's choice")
    return f"{told}; {where}.", Table("Doses of equal value", head, rows)


def grids(of: Study, card: Card) -> tuple[Grid, ...]:
    """The dose grid: how often clinicians gave each dose in similar states and, where a dose is shown, its value."""
    records, now = card.output["records"], card.output["recommendation"]
    if records is None:
        return ()
    marks = [
        f"rule {rule[0]}" if rule else "unsupported" if rare else ""
        for rule, rare in zip(records["blocked"], records["unsupported"], strict=True)
    ]
    share = np.array(records["count"], np.float64) / records["similar"]
    frequency = ["0" if s == 0 else "<1%" if s < 0.005 else f"{s:.0%}" for s in share]
    best = None if now is None else int(now["action"])
    out = [
        _grid(of, f"How often clinicians gave it in {records['similar']} similar states", share, frequency, marks, best)
    ]
    values = card.output["values"]
    if values is not None:
        number = np.array([np.nan if value is None else value for value in values], np.float64)
        text = ["-" if np.isnan(value) else f"{value:.2f}" for value in number]
        out.append(_grid(of, "What it is worth, by the policy's value network", number, text, marks, best))
    return tuple(out)


def rules(card: Card) -> str:
    """What the hazard rules say that mark a cell of the dose grid, in a line each; empty where none does."""
    records = card.output["records"]
    broken = sorted({rule for rule in records["blocked"] if rule}) if records else []
    return "\n".join(f"Rule {rule[0]}: {hazards.REASONS[rule]}." for rule in broken)


def cases(of: Study, card: Card) -> Table | None:
    """The nearest training patients, without identifiers or dates, and what happened to them."""
    records = card.output["records"]
    if records is None:
        return None
    known = [name for name in CASE_COLUMNS if records["cases"] and name in records["cases"][0]["state"]]
    rows = tuple(
        (
            "died" if one["died"] else "survived",
            *(_short(one["state"][name]) for name in known),
            f"{one['fluid_ml']:,.0f}",
            f"{one['vasopressor_ug_kg_min']:.2f}",
        )
        for one in records["cases"]
    )
    fluid = f"IV fluid (mL in {of.dictionary.step_hours:g} h)"
    head = ("Outcome", *(CASE_COLUMNS[name] for name in known), fluid, PRESSOR)
    return Table("The most similar training patients", head, rows)


def why(of: Study, card: Card) -> Table | None:
    """Which features moved the recommendation: the same question asked with each value at its typical one."""
    told, now = card.output["why"], card.output["recommendation"]
    if told is None:
        return None
    unit = "probability of this dose" if told["score"] == "probability" else "value of this dose"
    shape = ".0%" if told["score"] == "probability" else ".2f"
    rows = tuple(
        (
            feature_name(one["feature"]),
            f"{_short(one['value'])}{' (not measured)' if one['imputed'] else ''}",
            _short(one["typical"]),
            f"{told['before']:{shape}} → {one['score']:{shape}}",
            "the same dose" if one["action"] == now["action"] else dose_text(of, one["action"]),
        )
        for one in told["moved"]
    )
    head = ("Feature", "Value", "Typical", f"Then the {unit}", "Then recommended")
    return Table("What moved the recommendation", head, rows)


def change(of: Study, card: Card) -> str:
    """What single plausible change would change the dose, in a sentence."""
    if card.output["recommendation"] is None:
        return ""
    one = card.output["change"]
    if one is None:
        return "No single plausible change of one measured value would change the dose."
    return (
        f"The smallest single change that would change the dose: {feature_name(one['feature'])} "
        f"{_short(one['to'])} instead of {_short(one['value'])}; then {dose_text(of, one['action'])}."
    )


def measurements(card: Card) -> str:
    """What to measure next, in a sentence; empty where nothing would help."""
    found = [one for one in card.output["measure"] if one["changes"]]
    if not found:
        return "Everything that would change the dose was measured within 4 h." if card.output["measure"] else ""
    parts = [
        f"{feature_name(one['feature'])} ({_age(one['age_h'])}; "
        f"with {one['changes']:.0%} of similar patients' values the preferred dose would be another)"
        for one in found
    ]
    return f"Most informative next: {'; '.join(parts)}."


def answered(entries: Sequence[Entry]) -> Table | None:
    """Everybody's responses to one decision, in order."""
    if not entries:
        return None
    rows = tuple(
        (
            entry.time[:16].replace("T", " "),
            plain(entry.actor.name, 60),
            responses.DRUGS[entry.body["drug"]],
            response_text(entry.body),
            plain(entry.body["note"]),
        )
        for entry in entries
    )
    return Table("Responses to this decision", ("When (UTC)", "Who", "Drug", "Answer", "Note"), rows, long=True)


def response_text(body: Mapping[str, Any]) -> str:
    """One response in a few words."""
    unit = responses.UNITS[body["drug"]]
    detail = {
        "follow": "follow",
        "modify": f"modify to {body['value']:g} {unit}" if body["value"] is not None else "",
        "defer": f"defer, look again after {body['recheck_h']:g} h" if body["recheck_h"] is not None else "",
        "reject": f"reject: {responses.REASONS.get(str(body['reason']), '')}",
    }
    return detail[body["answer"]]


def log_table(entries: Sequence[Entry]) -> pd.DataFrame:
    """The log's last entries for the auditor, newest first."""
    rows = [
        {
            "Entry": entry.seq,
            "When (UTC)": entry.time[:19].replace("T", " "),
            "Kind": entry.kind,
            "Who": plain(entry.actor.name, 60),
            "Role": entry.actor.role,
            "Decision": entry.subject or "",
            "Card": entry.card or "",
            "What": plain(_what(entry), 100),
        }
        for entry in reversed(entries)
    ]
    return pd.DataFrame(rows, columns=["Entry", "When (UTC)", "Kind", "Who", "Role", "Decision", "Card", "What"])


def feature_name(feature: str) -> str:
    """A feature as a reader calls it, with its unit."""
    return NAMES.get(feature) or feature.replace("_", " ")


def dose_text(of: Study, action: int) -> str:
    """An action as text with units."""
    fluid, vasopressor = of.dictionary.dose(action)
    return f"{fluid:,.0f} mL in {of.dictionary.step_hours:g} h and {vasopressor:.2f} µg/kg/min"


def _recommended(of: Study, rows: pd.DataFrame, wanted: bool, most: int | None) -> pd.DataFrame:
    """The first `most` rows on which Suture recommends a dose; or, where that is not `wanted`, recommends none."""
    if of.verdict == gates.REFUSED:
        return rows.head(0) if wanted else rows
    found: list[pd.DataFrame] = [rows.head(0)]
    for start in range(0, len(rows), ASKED_AT_ONCE):
        part = rows.iloc[start : start + ASKED_AT_ONCE]
        recommends = np.array([word == RECOMMENDS for word in said(of, part)], bool)
        found.append(part[recommends == wanted])
        if most is not None and sum(map(len, found)) >= most:
            break
    return pd.concat(found, ignore_index=True)


@lru_cache(maxsize=2)
def _words(of: Study) -> dict[tuple[int, float], str]:  # noqa: ARG001
    """(stay, hour) -> what is said of it, as far as it was asked."""
    return {}


def _grid(
    of: Study, title: str, number: Float[np.ndarray, "a"], text: Sequence[str], marks: Sequence[str], best: int | None
) -> Grid:
    known = of.dictionary
    shape = len(known.fluid_medians_ml_h), known.n_vasopressor_bins
    fluid = tuple(f"{rate * known.step_hours:.0f}" for rate in known.fluid_medians_ml_h)
    pressor = tuple(f"{dose:.2f}" for dose in known.vasopressor_medians_ug_kg_min)
    axes = f"fluid, mL in {known.step_hours:g} h", "vasopressor, µg/kg/min"
    chosen = np.arange(number.size) == (-1 if best is None else best)
    width = shape[1]
    rows = [range(start, start + width) for start in range(0, number.size, width)]
    return Grid(
        title, number.reshape(shape), tuple(tuple(text[a] for a in row) for row in rows),
        tuple(tuple(marks[a] for a in row) for row in rows), chosen.reshape(shape), fluid, pressor, axes,
    )  # fmt: skip


def _what(entry: Entry) -> str:
    if entry.kind == "response":
        return f"{responses.DRUGS[entry.body['drug']]}: {response_text(entry.body)}"
    if entry.kind == "card":
        return "dose shown" if entry.body["output"]["recommendation"] is not None else "abstention shown"
    if entry.kind == "intent":
        return f"intends {entry.body['fluid']:g} mL and {entry.body['vasopressor']:g} µg/kg/min"
    if entry.kind == "model":
        return f"policy {entry.body['policy']} {entry.body['model']['policy'][:12]}, {entry.body['verdict']}"
    if entry.kind == "sign_in":
        return f"refused: {entry.body['refused']}" if "refused" in entry.body else str(entry.body["by"])
    return ""


def _before(rows: pd.DataFrame, hour: float) -> tuple[str, str]:
    """The dose of the window before a decision."""
    past = given(rows, hour).tail(1)
    if past.empty:
        return "none yet", "none yet"
    fluid, pressor, hours = (float(past[name].iloc[0]) for name in (*DRUGS, "end"))
    return _dose(fluid, pressor, hours - float(past["start"].iloc[0]))


def _dose(fluid_ml: float, vasopressor_ug_kg_min: float, hours: float) -> tuple[str, str]:
    """A dose of both drugs, with units."""
    rate = f"{fluid_ml:,.0f} mL in {hours:.3g} h ({fluid_ml / hours:,.0f} mL/h)"
    return rate, f"{vasopressor_ug_kg_min:.2f} µg/kg/min"


def _interval(one: Mapping[str, Any]) -> str:
    if one["low"] is None:
        return f"{one['value']:.2f} (no interval: no similar patient had the dose)"
    return f"{one['value']:.2f} ({one['low']:.2f} to {one['high']:.2f})"


def _sex(male: float) -> str:
    return "not recorded" if np.isnan(male) else "male" if male else "female"


def _value(value: float, unit: str, digits: int) -> str:
    return "not known" if np.isnan(value) else f"{value:.{digits}f} {unit}"


def _short(value: float | None) -> str:
    return "not known" if value is None else f"{value:.3g}"


def _age(hours: float | None) -> str:
    return "not known" if hours is None else f"{hours:.0f} h old"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
