"""Card: one decision as the app shows it, as a document: the same run and patient give the same bytes again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from app import audit_log, study
from app.audit_log import Entry
from app.study import HOUR, Study
from cohort.errors import ArtifactError, InputError
from ope.gates import REFUSED
from policy import explain, recommend
from policy.recommend import Evidence, Look, Values

EVALUATION = "evaluation"
"""The gate that stands above the others: a policy that the evaluation refused recommends nothing to anybody."""
CASES = 5
SHOWN = ("age_years", "sofa", "map", "heart_rate", "lactate", "creatinine")
"""What is told of a similar case, beside its dose and outcome: no identifier, no date."""
WHY_SHOWN = 6
_DIGITS = 6


@dataclass(frozen=True)
class Card:
    """What was shown for one decision, and everything it was made from."""

    stay_id: int
    hour: float
    input: str
    """Digest of what the policy was asked."""
    model: Mapping[str, str]
    config: Mapping[str, Any]
    output: Mapping[str, Any]
    """What is shown; JSON."""

    @property
    def subject(self) -> str:
        """Which decision it is about, as the audit log names it."""
        return f"{self.stay_id}@{self.hour:g}"

    def body(self) -> dict[str, Any]:
        """As the audit log keeps it."""
        return {
            "stay": str(self.stay_id),
            "hour": self.hour,
            "input": self.input,
            "model": dict(self.model),
            "config": dict(self.config),
            "output": dict(self.output),
        }


@lru_cache(maxsize=64)
def make(of: Study, stay_id: int, hour: float) -> Card:
    """The card of one decision.

    Raises:
        InputError: the stay has no decision at that hour, or is none of the run's evaluation patients.
        ArtifactError: a table differs from the manifest.
    """
    if not (of.stays["stay_id"] == stay_id).any():
        raise InputError("the stay is none of this run's evaluation patients")
    rows = study.course(of, stay_id)
    now = rows[rows[HOUR] == hour]
    if now.empty:
        raise InputError(f"the stay has no decision at {hour:g} h")
    state, ages, beside = study.asked(of, now)
    look = recommend.looks(of.policy, state, of.known, of.behaviour, ages, beside)[0]
    question = {
        "features": list(of.policy.features),
        "state": _numbers(state[0]),
        "age_h": _numbers(ages[0]),
        "cvp": _number(beside.cvp[0]),
        "balance_ml": _number(beside.balance_ml[0]),
        "previous_action": int(beside.previous_action[0]),
    }
    config = {"recommend": of.settings.recommend.model_dump(mode="json"), "commit_first": of.settings.commit_first}
    output = _output(of, now.iloc[0], state[0], ages[0], look)
    return Card(stay_id, hour, audit_log.digest(question), of.model, config, output)


def replay(of: Study, entry: Entry) -> Card:
    """Make a logged card again and compare it byte for byte.

    Raises:
        ArtifactError: the run is not the one that the card was made from, or the card differs.
    """
    logged = entry.body
    for name, digest in logged["model"].items():
        if of.model.get(name) != digest:
            raise ArtifactError(
                f"{of.path}: the card was made with another {name} ({digest[:12]}) than the run has "
                f"({of.model.get(name, 'none')[:12]})"
            )
    if logged["config"]["recommend"] != of.settings.recommend.model_dump(mode="json"):
        raise ArtifactError("the card was made with other settings (recommend); name their file with --settings")
    again = make(of, int(logged["stay"]), float(logged["hour"]))
    for name in ("input", "output"):
        if audit_log.canonical(again.body()[name]) != audit_log.canonical(logged[name]):
            raise ArtifactError(f"{of.path}: the card's {name} differs from what was logged")
    return again


def dose(of: Study, action: int) -> dict[str, float]:
    """An action as a reader sees it: mL in one window and ug/kg/min."""
    fluid, vasopressor = of.dictionary.dose(action)
    return {"fluid_ml": float(_number(fluid) or 0.0), "vasopressor_ug_kg_min": float(_number(vasopressor) or 0.0)}


def _output(of: Study, now: "pd.Series[Any]", state: np.ndarray, ages: np.ndarray, look: Look) -> dict[str, Any]:
    found, refused = look.recommendation, of.verdict == REFUSED
    output: dict[str, Any] = {
        "policy": of.policy_name,
        "verdict": of.verdict,
        "gates": _gates(look, refused),
        "given": {name: _number(now[name]) for name in (*study.DOSES, "duration_h")}
        | {"partly_unknown": bool(now["dose_unknown"])},
        "recommendation": None,
        "records": None if look.evidence is None else _records(of, look.evidence),
        "values": None,
        "equivalent": None,
        "why": None,
        "change": None,
        "measure": _measure(of, state, ages, look),
    }
    if refused or found.action is None or look.evidence is None:
        return output
    values = recommend.values(of.policy, state, of.known, look.evidence)
    return output | _advice(of, state, ages, look.evidence, found.action, values)


def _gates(look: Look, refused: bool) -> list[dict[str, Any]]:
    """Every gate with what it says: passed, failed with the reason and what would lift it, or not asked."""
    failed = {one.gate: one for one in look.failed}
    gates: list[dict[str, Any]] = []
    for name in ("data freshness", "state density", "action support", "hazard rule"):
        one = failed.get(name)
        asked = look.evidence is not None or name == "data freshness"
        gates.append(
            {
                "gate": name,
                "passed": None if not asked else one is None,
                "reason": one.reason if one else None,
                "lifts": one.lifts if one else None,
            }
        )
    reason, lifts = "the evaluation refused this policy", "a policy that passes the evaluation"
    told = {"reason": reason if refused else None, "lifts": lifts if refused else None}
    return [{"gate": EVALUATION, "passed": not refused, **told}, *gates]


def _records(of: Study, found: Evidence) -> dict[str, Any]:
    """What clinicians did in similar states; said with an abstention too."""
    return {
        "similar": len(found.near),
        "count": [int(n) for n in found.count],
        "usual": _numbers(found.usual),
        "unsupported": [not bool(one) for one in found.supported],
        "blocked": list(found.hazard),
        "died": int(of.died[of.known.row[found.near]].sum()),
        "cases": _cases(of, found),
    }


def _cases(of: Study, found: Evidence) -> list[dict[str, Any]]:
    """The nearest patients, one decision each."""
    cases: list[dict[str, Any]] = []
    seen: set[int] = set()
    for at, far in zip(found.near, found.distance, strict=True):
        patient = int(of.known.patient[at])
        if patient in seen:
            continue
        seen.add(patient)
        state = of.known.state[at]
        told = {name: _number(state[of.policy.features.index(name)]) for name in SHOWN if name in of.policy.features}
        cases.append(
            {
                "distance": _number(far),
                "state": told,
                **dose(of, int(of.known.action[at])),
                "died": bool(of.died[of.known.row[at]]),
            }
        )
        if len(cases) == CASES:
            break
    return cases


def _advice(
    of: Study, state: np.ndarray, ages: np.ndarray, found: Evidence, action: int, values: Values | None
) -> dict[str, Any]:
    before, moved = explain.moved(of.policy, state, action, of.dictionary.imputation)
    change = explain.smallest_change(of.policy, state, action, of.known, ~np.isnan(ages))
    return {
        "recommendation": {
            "action": action,
            **dose(of, action),
            "probability": _number(found.probability[action]),
            "behaviour_probability": _number(found.usual[action]),
            "support": int(found.count[action]),
            "similar": len(found.near),
            **_value(values, action),
        },
        "values": None if values is None else _numbers(values.value),
        "equivalent": None
        if values is None
        else [
            {"action": a, **dose(of, a), "support": int(found.count[a]), **_value(values, a)} for a in values.equivalent
        ],
        "why": {
            "score": "value" if of.policy.rule == "greedy" else "probability",
            "before": _number(before),
            "moved": [
                {
                    "feature": m.feature,
                    "value": _number(m.value),
                    "typical": _number(m.typical),
                    "imputed": bool(np.isnan(ages[of.policy.features.index(m.feature)])),
                    "score": _number(m.score),
                    "action": m.action,
                }
                for m in moved[:WHY_SHOWN]
            ],
        },
        "change": None
        if change is None
        else {
            "feature": change.feature,
            "value": _number(change.value),
            "to": _number(change.to),
            "action": change.action,
            **dose(of, change.action),
        },
    }


def _measure(of: Study, state: np.ndarray, ages: np.ndarray, look: Look) -> list[dict[str, Any]]:
    """What to measure next: what a freshness gate asks for, else what would most often change the dose."""
    if look.evidence is None:
        return []
    best = int(look.evidence.probability.argmax())
    found = explain.next_measurements(of.policy, state, best, of.known, look.evidence.near, ages)
    return [{"feature": m.feature, "age_h": _number(m.age_h), "changes": _number(m.changes)} for m in found[:3]]


def _value(values: Values | None, action: int) -> dict[str, float | None]:
    if values is None:
        return {"value": None, "low": None, "high": None}
    return {name: _number(getattr(values, name)[action]) for name in ("value", "low", "high")}


def _numbers(values: Sequence[float] | np.ndarray) -> list[float | None]:
    return [_number(value) for value in values]


def _number(value: Any) -> float | None:
    """A number with six significant digits; None where it is not known: JSON knows no NaN."""
    if value is None or not np.isfinite(value):
        return None
    return float(f"{float(value):.{_DIGITS}g}")
