"""Responses: what a clinician answers to a card, drug by drug, and what leaves the log for others to read."""

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from app import card, study
from app.audit_log import Entry
from app.study import HOUR, Study
from cohort import actions
from cohort.errors import ArtifactError, InputError

Drug = Literal["fluid", "vasopressor"]
Answer = Literal["follow", "modify", "defer", "reject"]
DRUGS: dict[Drug, str] = {"fluid": "IV fluid", "vasopressor": "Vasopressor"}
UNITS: dict[Drug, str] = {"fluid": "mL per window", "vasopressor": "µg/kg/min"}
LARGEST: dict[Drug, float] = {"fluid": 20_000.0, "vasopressor": 10.0}
"""A dose above is a slip of the keyboard (mL in a window; ug/kg/min)."""
ANSWERS: tuple[Answer, ...] = ("follow", "modify", "defer", "reject")
RECHECK_H = (0.5, 1.0, 2.0, 4.0)
NOTE_MOST = 2000
REASON_SYSTEM = "http://terminology.hl7.org/CodeSystem/non-adherence-reason-codes"
"""Of CDS Hooks 3.0.0-ballot."""
REASONS: dict[str, str] = {
    "cds-not-applicable": "PC CDS does not apply to patient",
    "patient-ineligible": "Patient does not meet eligibility for recommended action",
    "indication-order-exists": "Patient has indication/order for intended action",
    "action-completed": "Recommended action was already completed",
    "action-unsuccessful": "Recommended action was previously unsuccessful",
    "action-performed-no-adverse-effect": "Intended action was performed previously without adverse effect",
    "action-not-priority": "Recommended action is not relevant or a priority in current state of health",
    "cds-suboptimal-context": "PC CDS delivered in suboptimal context",
    "limited-time": "Could not address recommended action due to limited time",
    "wrong-time-workflow": "PC CDS delivered at wrong time in workflow or patient lifecycle",
    "inappropriate-recipient": "PC CDS delivered to inappropriate recipient/role",
    "need-more-info": "Could not address recommended action due to need for more information/pending results/pending "
    "consult",
    "recipient-disagrees-evidence": "Recipient disagrees with recommendation because of issues with the evidence",
    "does-not-align-latest-evidence": "Recommended action does not align with the latest evidence",
    "expert-contradicts": "Advice from expert contradicts the recommended action",
    "policy-contradicts": "Institutional policy/guideline contradicts the recommended action",
    "recipient-does-not-trust": "Recipient does not agree with or trust the recommended action",
    "recipient-concerns-outcomes": "Recipient has concerns regarding potential health outcomes",
    "risk-benefit-ratio": "Recipient assessment of risk/benefit ratio",
    "mitigate-risk-negative-outcome": "Action taken to mitigate risk of negative outcome",
    "likely-negative-health-outcomes": "Recommended action likely to have negative health outcomes",
    "patient-contraindication": "Patient has contraindication to recommended action",
    "does-not-align-preferences": "Recommendation does not align with patient preferences or values",
    "patient-refuses": "Patient refuses/declines (no context given)*",
    "not-convenient-feasible": "Recommendation is not convenient or feasible",
    "service-not-available": "Treatment or service is not practically available",
    "implementation-challenges": "Recommended action cannot be implemented due to technology/challenges",
    "comorbidity-disability": "Patient has co-morbidity or disability that hinders them from completing recommended "
    "action",
}
"""Code -> display of HL7's non-adherence reasons (CDS Hooks 3.0.0-ballot), those that can hold in intensive care: what
a patient at home decides (cost, transport, habits) is left out."""


@dataclass(frozen=True)
class Response:
    """One answer about one drug of one card."""

    drug: Drug
    answer: Answer
    value: float | None = None
    """The dose that will be given, where it was modified; in UNITS."""
    recheck_h: float | None = None
    """Hours after which to look again, where it was deferred."""
    reason: str | None = None
    """A code of REASONS, where it was rejected."""
    note: str = ""

    def body(self) -> dict[str, Any]:
        """As the audit log keeps it.

        Raises:
            InputError: what the answer needs is missing, or out of range.
        """
        if self.answer == "modify" and not (self.value is not None and 0 <= self.value <= LARGEST[self.drug]):
            raise InputError(f"{DRUGS[self.drug]}: enter the dose, 0 to {LARGEST[self.drug]:g} {UNITS[self.drug]}")
        if self.answer == "defer" and self.recheck_h not in RECHECK_H:
            raise InputError(f"{DRUGS[self.drug]}: choose when to look again")
        if self.answer == "reject" and self.reason not in REASONS:
            raise InputError(f"{DRUGS[self.drug]}: choose a reason")
        if len(self.note) > NOTE_MOST:
            raise InputError(f"{DRUGS[self.drug]}: the note has {len(self.note):,} characters, at most {NOTE_MOST:,}")
        return {
            "drug": self.drug,
            "answer": self.answer,
            "value": self.value if self.answer == "modify" else None,
            "recheck_h": self.recheck_h if self.answer == "defer" else None,
            "reason": self.reason if self.answer == "reject" else None,
            "note": self.note,
        }


def feedback(entries: Iterable[Entry]) -> dict[str, Any]:
    """Every response as CDS Hooks feedback: an accepted or overridden suggestion each, one suggestion a drug.

    A modified or deferred dose counts as overridden, as the specification knows no third outcome; `extension` says
    which it was.
    """
    return {"feedback": [_feedback(entry) for entry in entries if entry.kind == "response"]}


def preferences(of: Study, entries: list[Entry]) -> tuple[pd.DataFrame, dict[str, int]]:
    """What clinicians preferred to the doses recommended, as the table that `dpo` reads, and what was left out and why.

    A row a card: the recommended action is `rejected`; `chosen` is the dose as modified, or the one that the clinician
    had stated before seeing it. Of several answers about one drug the last counts. A card says nothing where both drugs
    were followed, deferred, or rejected without another dose, or where the other dose falls into the recommended bin.
    """
    cards = {entry.card: entry for entry in entries if entry.kind == "card"}
    intents = {(e.actor.session, e.subject): e.body for e in entries if e.kind == "intent"}
    answers: dict[str, dict[str, Mapping[str, Any]]] = {}
    for entry in entries:
        if entry.kind == "response" and entry.card in cards:
            answers.setdefault(str(entry.card), {})[entry.body["drug"]] = entry.body
    left_out = {"no other dose stated": 0, "the same bins": 0, "another model or patient": 0}
    rows = []
    for number, given in answers.items():
        shown = cards[number]
        chosen = _chosen(of, shown, given, intents.get((shown.actor.session, shown.subject)))
        rejected = shown.body["output"]["recommendation"]["action"]
        if chosen is None or chosen == rejected:
            left_out["no other dose stated" if chosen is None else "the same bins"] += 1
            continue
        try:
            again = card.replay(of, shown)
        except (ArtifactError, InputError):
            left_out["another model or patient"] += 1
            continue
        rows.append([*_state(of, again), chosen, rejected, 1.0])
    table = pd.DataFrame(rows, columns=[*of.policy.features, "chosen", "rejected", "weight"])
    return table.astype({"chosen": np.int64, "rejected": np.int64}), left_out


def _feedback(entry: Entry) -> dict[str, Any]:
    body = entry.body
    accepted = body["answer"] == "follow"
    told: dict[str, Any] = {
        "card": entry.card,
        "outcome": "accepted" if accepted else "overridden",
        "outcomeTimestamp": entry.time,
        "extension": {
            "suture.response": {name: body[name] for name in ("drug", "answer", "value", "recheck_h")},
        },
    }
    if accepted:
        told["acceptedSuggestions"] = [{"id": suggestion(str(entry.card), body["drug"])}]
        return told
    override: dict[str, Any] = {}
    if body["reason"] is not None:
        override["reason"] = {"code": body["reason"], "system": REASON_SYSTEM, "display": REASONS[body["reason"]]}
    if body["note"]:
        override["userComment"] = body["note"]
    return told | ({"overrideReason": override} if override else {})


def suggestion(number: str, drug: str) -> str:
    """The identifier of one drug's suggestion on a card."""
    return str(uuid.uuid5(uuid.UUID(number), drug))


def _chosen(
    of: Study, shown: Entry, given: Mapping[str, Mapping[str, Any]], intent: Mapping[str, Any] | None
) -> int | None:
    """The action that the clinician preferred; None where no other dose was stated."""
    was = shown.body["output"]["recommendation"]
    dose = {"fluid": was["fluid_ml"], "vasopressor": was["vasopressor_ug_kg_min"]}
    stated = False
    for drug, body in given.items():
        other = body["value"] if body["answer"] == "modify" else None
        if body["answer"] == "reject" and intent is not None:
            other = intent[drug]
        if other is not None:
            dose[drug], stated = other, True
    if not stated:
        return None
    fluid, vasopressor = np.array([dose["fluid"] / of.dictionary.step_hours]), np.array([dose["vasopressor"]])
    return int(actions.to_action(fluid, vasopressor, of.dictionary)[0])


def _state(of: Study, again: card.Card) -> np.ndarray:
    rows = study.course(of, again.stay_id)
    state, _, _ = study.asked(of, rows[rows[HOUR] == again.hour])
    return np.asarray(state[0])
