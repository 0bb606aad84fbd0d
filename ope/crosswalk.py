"""Crosswalk: what reporting guidelines and the law ask for, and where a report answers it or says why it cannot."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Item:
    """One thing asked for."""

    number: str
    asks: str
    answer: str
    """A section's anchor, or in words why the report cannot answer."""
    answered: bool = True
    """Whether `answer` is an anchor of the page."""


@dataclass(frozen=True)
class Table:
    """One guideline or law."""

    name: str
    source: str
    items: tuple[Item, ...]


def _open(number: str, asks: str, why: str) -> Item:
    return Item(number, asks, why, answered=False)


PROSPECTIVE = "No: nobody was treated and no clinician used it"
WITH_THE_HOLDER = "Outside the records: with whoever holds the data"

TRIPOD = Table(
    "TRIPOD+AI",
    "Collins and others, BMJ 2024. Written for prediction models; read here for a policy that recommends doses.",
    (
        Item("1", "Title says what was studied", "verdict"),
        Item("2", "Summary", "verdict"),
        Item("3", "Context, target population and users, known inequalities", "what"),
        Item("4", "Objective", "estimand"),
        Item("5", "Sources of data and their dates", "lineage"),
        Item("6", "Setting, eligibility, treatments received", "flow"),
        Item("7", "Preparation of the data", "data"),
        Item("8", "Outcome and when it is read", "estimand"),
        Item("9", "Predictors and when they are known", "data"),
        Item("10", "Size of the sample", "overlap"),
        Item("11", "Missing data", "data"),
        Item("12", "How the model was built and judged", "decisions"),
        Item("13", "Imbalance of the classes", "doses"),
        Item("14", "Fairness: what was done about it", "subgroups"),
        Item("15", "What the model puts out", "doses"),
        Item("16", "Differences between the data learned from and judged on", "flow"),
        _open("17", "Ethical approval", WITH_THE_HOLDER),
        _open("18", "Funding, interests, registration, data and code", WITH_THE_HOLDER),
        _open("19", "Involvement of patients and the public", "None in this run"),
        Item("20", "Participants: flow, characteristics", "flow"),
        Item("21", "How many were in each analysis", "flow"),
        Item("22", "The model, so that others can use it", "lineage"),
        Item("23", "Performance with intervals, and by group", "estimates"),
        Item("24", "Updating", "changes"),
        Item("25", "Interpretation", "verdict"),
        Item("26", "Limitations", "limits"),
        Item("27", "Usability: poor or missing input, and what users must know", "assumptions"),
    ),
)

DECIDE = Table(
    "DECIDE-AI",
    "Vasey and others, BMJ 2022. For early use at the bedside, which has not begun: what can be answered before it.",
    (
        Item("1", "Title", "verdict"),
        Item("2", "Intended use: condition, patients, users, place in care", "what"),
        Item("3", "Participants: how chosen", "flow"),
        Item("4", "The system: version, algorithm, training population, inputs, outputs", "lineage"),
        _open("5", "Setting and workflow of use", PROSPECTIVE),
        Item("6", "Safety and errors: how they are found", "hazards"),
        _open("7", "Human factors: methods", PROSPECTIVE),
        _open("8", "Ethics", WITH_THE_HOLDER),
        Item("9", "Participants: who they were", "flow"),
        _open("10", "Exposure and adherence in use", PROSPECTIVE),
        Item("11", "Changes made to the system during the study", "tried"),
        Item("12", "Agreement of human and computer", "divergence"),
        Item("13", "Safety and errors: what was found", "hazards"),
        _open("14", "Human factors: results", PROSPECTIVE),
        Item("15", "Whether the intended use is supported", "verdict"),
        Item("16", "Safety: what it means", "limits"),
        _open("17", "Availability of data and code", WITH_THE_HOLDER),
    ),
)

GOTTESMAN = Table(
    "Gottesman and others 2019",
    "Questions to ask of reinforcement learning in health care, Nature Medicine 2019.",
    (
        Item("1", "Does the policy see everything that the clinicians' decisions rested on?", "assumptions"),
        Item("2", "How large is the effective sample for this policy?", "overlap"),
        Item("3", "Would the policy behave sensibly in single cases?", "hazards"),
        Item("4", "Is the reward what one wants, and how does the result hang on it?", "estimand"),
        Item("5", "Was the same data used to choose and to judge?", "tried"),
        Item("6", "Do several estimators agree?", "estimates"),
        Item("7", "Is the model of the clinicians calibrated?", "behaviour"),
        Item("8", "Would obviously bad policies come out well?", "controls"),
        Item("9", "Does the result hold under other definitions?", "sensitivity"),
        Item("10", "Would clinicians recognise the doses?", "divergence"),
    ),
)

AI_ACT = Table(
    "EU AI Act, Articles 10 to 15",
    "Regulation (EU) 2024/1689. A research prototype is not placed on the market; the table says what evidence exists.",
    (
        Item("10", "Data governance: origin, preparation, gaps, bias", "data"),
        Item("11", "Technical documentation", "lineage"),
        Item("12", "Record-keeping", "lineage"),
        Item("13", "Transparency: purpose, accuracy, limits, for those who use it", "what"),
        Item("14", "Human oversight: who decides, and when the system stays silent", "what"),
        Item("15", "Accuracy, robustness and cybersecurity", "trust"),
    ),
)

TABLES = (TRIPOD, DECIDE, GOTTESMAN, AI_ACT)
