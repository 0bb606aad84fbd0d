"""Words: what a gate, a verdict, a policy, a measure and a hazard are called and mean to a reader."""

from collections.abc import Mapping
from dataclasses import dataclass

from ope import gates


@dataclass(frozen=True)
class GateText:
    """What a gate means to a reader."""

    name: str
    lifts: str


GATES: Mapping[str, GateText] = {
    "too_few_patients": GateText("Enough patients", "records of more patients"),
    "low_ess": GateText(
        "Enough effective sample", "more patients, or a policy that departs less from what clinicians do"
    ),
    "low_ess_share": GateText(
        "Effective sample as a share of the stays", "a policy that departs less from what clinicians do"
    ),
    "weight_share": GateText("No single patient dominates", "more patients whose care resembled the policy"),
    "mean_weight": GateText(
        "Weights average 1", "a better behaviour model, or a policy that departs less from what clinicians do"
    ),
    "unsupported": GateText(
        "Doses are ones that clinicians give", "a policy that keeps to the doses in the records: more data do not help"
    ),
    "behaviour_calibration": GateText(
        "The behaviour model is calibrated", "a better model of what clinicians do: more data of this kind do not help"
    ),
    "value_range": GateText("The value is possible", "mending the evaluation: such a number is a defect"),
    "disagreement": GateText("Weights and model agree", "more overlap, or a better model of the return"),
    "interval_coverage": GateText(
        "The estimator's intervals hold the truth in the twin", "more patients, or another estimator"
    ),
    "self_test": GateText("The estimators pass their self-test", "mending the evaluation"),
    "truncated": GateText("Every episode has its outcome", "records until the outcome, or a value for the last state"),
    "no_model": GateText("A value model was fitted", "fitting a value model for this policy too"),
    "no_estimate": GateText("The estimator applies", "an estimator that applies to this policy"),
    "undefined": GateText("The policy agrees with the clinicians somewhere", "a policy closer to what clinicians do"),
    "worse_than_clinicians": GateText(
        "Not worse than the clinicians", "another policy: the evidence is against this one"
    ),
    "includes_zero": GateText(
        "Better than the clinicians beyond chance", "more patients, or a policy with a larger benefit"
    ),
}
"""Gate's code -> its name and what would lift it."""

NOT_APPLICABLE = ("no_model", "no_estimate")
VERDICTS: Mapping[str, tuple[str, str, str]] = {
    gates.REFUSED: (
        "bad", "Refused",
        "The policy, or its evaluation, failed a test that more data of the same kind would not mend. "
        "It is not to be used, watched or compared further as it is.",
    ),
    gates.INSUFFICIENT: (
        "wait", "Insufficient evidence",
        "The records cannot say whether this policy is better or worse than what the clinicians did. "
        "That is a statement about the evidence, not about the policy.",
    ),
    gates.ELIGIBLE: (
        "good", "Eligible for silent (shadow) evaluation",
        "Every gate passed. The policy may be watched beside care without anyone seeing or acting on it. "
        "This is not a finding that it is safe or effective.",
    ),
}  # fmt: skip
"""The evaluation's verdict -> tone, word, and what it means."""

POLICIES: Mapping[str, str] = {
    "bc": "imitates the average clinician",
    "filtered_bc": "imitates the clinicians in the stays that ended best",
    "awr": "imitates clinicians, more so where a stay went better than expected",
    "awac": "advantage-weighted actor and critic: favours recorded doses that its own value model prefers",
    "iql": "implicit Q-learning: learns values from the records only, then favours the better recorded doses",
    "conservative_iql": "implicit Q-learning that keeps to doses clinicians give, at a stated distance from them",
    "cql": "conservative Q-learning: values of doses that were not given are pushed down",
    "bcq": "chooses the dose of highest value among those clinicians often give",
    "bear": "maximises value within a bounded distance from the clinicians' doses",
    "dqn": "deep Q-learning without any safeguard, a baseline that overestimates",
    "sac": "soft actor-critic without any safeguard, a baseline that overestimates",
    "dpo": "learned from clinicians' preferences between doses",
    "random": "control: every dose with the same probability",
    "zero_drug": "control: never any drug",
    "maximum_dose": "control: always the highest bin of both drugs",
}
"""Policy's name -> what it is, in a phrase."""
LAYOUTS = {"mimic_iv": "MIMIC-IV layout", "mimic_iii": "MIMIC-III layout", "meds": "MEDS layout"}
ESTIMATORS: Mapping[str, str] = {
    "clinicians": "mean of the records",
    "is": "importance sampling",
    "wis": "weighted importance sampling",
    "pdis": "per-decision importance sampling",
    "cwpdis": "consistent weighted per-decision importance sampling",
    "dm": "direct method: fitted Q evaluation (FQE)",
    "dr": "doubly robust",
    "wdr": "weighted doubly robust",
    "magic": "model and guided importance sampling combined",
}
MEASURES: Mapping[str, tuple[str, str]] = {
    "agreement": ("Probability of the dose that was given", "share"),
    "total_variation": ("Probability that would have to move to match the clinicians", "share"),
    "unsupported": ("Probability on doses that clinicians rarely give there", "share"),
    "kl": ("Kullback-Leibler divergence", "nats"),
    "fluid_transport": ("Distance in fluid bins", "bins"),
    "vasopressor_transport": ("Distance in vasopressor bins", "bins"),
    "transport": ("Distance on the grid of both drugs", "bins"),
    "fluid_shift_ml": ("Fluid, policy minus clinicians", "mL per window"),
    "vasopressor_shift_ug_kg_min": ("Vasopressor, policy minus clinicians", "µg/kg/min"),
}
"""Measure of divergence -> its name and unit."""
STRATA: Mapping[str, str] = {
    "sofa": "SOFA (points)", "lactate": "Lactate (mmol/L)", "map": "Mean arterial pressure (mmHg)",
    "age_years": "Age (years)", "sex_male": "Sex",
}  # fmt: skip
HAZARDS: Mapping[str, str] = {
    "A": "Mean pressure below 55, no vasopressor and at most 20 mL/h of fluid",
    "B": "Mean pressure above 95 and vasopressor above 0.65 µg/kg/min",
    "C": "Mean pressure and central venous pressure low, no fluid",
    "C_without_cvp": "The same, central venous pressure not charted",
    "D": "Fluid above 240 mL/h on top of a balance above 10 L, central venous pressure high",
    "D_without_cvp": "The same, central venous pressure not charted",
    "E": "Vasopressor changed by two bins or more from one window to the next",
    "hypotension_untreated": "Mean pressure below 65 and neither drug",
    "lactate_without_fluid": "Lactate above 2 mmol/L and no fluid",
}
"""A to D: Festor 2022; E: ours; the last two: Surviving Sepsis 2021."""
SPLITS = {"train": "to learn", "select": "to choose settings", "evaluate": "to evaluate, never seen before"}
SUBGROUPS: Mapping[str, str] = {
    "age": "Age: {}",
    "sex": "Sex: {}",
    "ethnicity": "Ethnicity: {}",
    "care_unit": "Unit: {}",
    "severity": "Highest SOFA: {}",
}
"""Feature of a subgroup -> how a group of it is named."""


@dataclass(frozen=True)
class Assumption:
    """What every number of a report rests on."""

    name: str
    meaning: str
    testable: str
    """`tested`, `in part` or `not testable`."""
    how: str
    """How it was tested here, or what stands in for a test."""
    section: str
    """Where that is told."""
    gates: tuple[str, ...] = ()
    """The gates whose results are the test's: it is passed where all are."""


ASSUMPTIONS = (
    Assumption(
        "Overlap", "Clinicians sometimes give the doses that the policy gives, to such patients.", "tested",
        "Effective sample size, largest weight, share of doses that clinicians rarely give.", "overlap",
        ("low_ess", "low_ess_share", "weight_share", "unsupported"),
    ),
    Assumption(
        "Calibrated model of the clinicians", "The probabilities that the weights divide by are right.", "tested",
        "Modelled against observed share of each dose, on patients that the model never saw.", "behaviour",
        ("behaviour_calibration",),
    ),
    Assumption(
        "Weights average 1", "What the reweighted patients add up to is the whole population.", "tested",
        "Mean importance weight.", "overlap", ("mean_weight",),
    ),
    Assumption(
        "Right arithmetic", "The estimators compute what they are said to.", "tested",
        "Problems with exact answers, solved again before every evaluation.", "trust", ("self_test",),
    ),
    Assumption(
        "Intervals of the stated width", "At this size an interval holds the truth as often as it says.", "in part",
        "Replays in a twin of the cohort, whose truth is known; the twin is simpler than patients are.", "trust",
    ),
    Assumption(
        "The state says enough", "What happens next depends on the state and the dose, not on what came before.",
        "in part",
        "The model of the clinicians also sees the dose before; weighted estimates do not need this, FQE does.",
        "behaviour",
    ),
    Assumption(
        "Values mean what they say", "Units, times and doses were charted as given.", "in part",
        "Implausible values, unknown units and impossible times are set aside and counted.", "data",
    ),
    Assumption(
        "Nothing changed over time", "Patients and care now are like those in the records.", "in part",
        "Drift between calendar thirds, on the quality page.", "data",
    ),
    Assumption(
        "No unrecorded confounding", "Everything that drove both the dose and the outcome was charted.",
        "not testable", "How strong a confounder would have to be to overturn the result.", "sensitivity",
    ),
    Assumption(
        "Consistency", "A dose given on the policy's advice would act as the same dose given by a clinician did.",
        "not testable", "Doses are medians of bins, drugs are added up by equivalents.", "doses",
    ),
    Assumption(
        "No interference", "Treating one patient by the policy would not change the care of another.",
        "not testable", "Nothing: the records hold one way of running the unit.", "limits",
    ),
)  # fmt: skip
"""In the order of how well they can be tested."""

CHANGES: tuple[tuple[str, str], ...] = (
    ("Wording, pictures and layout of the pages", "A new report of the same evaluation; digests of the stages stay."),
    (
        "More patients from the same source, same definitions",
        "The whole run again, under a new name; policies trained earlier are evaluated on patients they never saw.",
    ),
    (
        "A definition: hold times, dose bins, reward, horizon, inclusion",
        "The whole run again. Old and new are put side by side (suture report RUN --against OTHER).",
    ),
    (
        "The learner or one of its settings",
        "Training and evaluation again; the attempt counts in the selection audit. Nothing is chosen on the patients "
        "of the evaluation split: where that was done, a fresh split is needed.",
    ),
    (
        "A gate's threshold",
        "Before the evaluation only. Its hash is in this report; suture verify finds a threshold moved afterwards.",
    ),
    (
        "Another hospital, another unit, another charting system",
        "Evaluation again on that hospital's records before anything is said about it.",
    ),
    (
        "Drift: a feature moves by more than a quarter of a standard deviation between thirds of the calendar",
        "The model of the clinicians is fitted and checked again; where calibration fails, the verdict falls.",
    ),
)
"""What may change, and what has to be done again before the verdict holds."""

SECTIONS: Mapping[str, str] = {
    "verdict": "Verdict", "gates": "Gates", "what": "Intended use", "flow": "Patients", "data": "Data",
    "doses": "Doses", "estimand": "What is estimated", "assumptions": "Assumptions",
    "behaviour": "Model of the clinicians", "overlap": "Overlap", "estimates": "Estimates",
    "differences": "Differences", "controls": "Controls", "trust": "Trust in the estimators",
    "divergence": "What the policy does", "hazards": "Hazards", "subgroups": "Subgroups",
    "sensitivity": "Sensitivity", "tried": "What was tried", "decisions": "Five decisions", "changes": "Change plan",
    "limits": "Limits", "crosswalk": "Guidelines and law", "lineage": "Lineage", "glossary": "Glossary",
}  # fmt: skip
"""Anchor of a section -> its heading, in order."""
