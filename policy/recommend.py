"""Recommend: what a bedside reader is shown: a dose with its support in the records, or an abstention and why."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Float32, Int
from pydantic import Field
from scipy import stats
from sklearn.neighbors import NearestNeighbors

from cohort import concepts
from cohort.config import Config
from cohort.episodes import Episodes
from cohort.errors import InputError
from cohort.scaler import Scaler
from cohort.scaler import fit as fit_scaler
from policy import hazards
from policy.base import Policy
from policy.batches import FEWEST_PATIENTS
from policy.served import NetworkPolicy

Gate = Literal["data freshness", "state density", "action support", "hazard rule"]


class RecommendConfig(Config):
    """When Suture keeps silent."""

    neighbours: int = Field(default=200, ge=10, le=10_000)
    """Similar training decisions looked at."""
    max_rows: int = Field(default=100_000, ge=100)
    """Training decisions kept for the search; more are thinned at random."""
    density_neighbours: int = Field(default=10, ge=1, le=100)
    """Which neighbour's distance says how familiar a state is."""
    density_quantile: float = Field(default=0.99, gt=0.5, lt=1)
    """A state is unfamiliar where its `density_neighbours`-th neighbour is farther than this share of patients'."""
    min_support: int = Field(default=10, ge=1)
    """Similar decisions that must have used the recommended dose."""
    min_probability: float = Field(default=0.01, ge=0, lt=1)
    """Least probability of the dose under the behaviour model."""
    fresh_features: tuple[str, ...] = ("map", "heart_rate")
    """Features without which nothing is recommended, where the states have them."""
    fresh_hours: float = Field(default=4.0, gt=0)
    """How old they may be."""
    max_imputed: float = Field(default=0.6, ge=0, le=1)
    """Largest share of features that may be imputed, of those whose age is tracked in any state."""
    level: float = Field(default=0.95, gt=0.5, lt=1)
    """Of a value's interval, and of what counts as distinguishable."""


@dataclass(frozen=True)
class Support:
    """The training decisions as a searchable index in scaled space."""

    scaler: Scaler
    index: NearestNeighbors
    action: Int[np.ndarray, "n"]
    n_actions: int
    limit: float
    """Distance beyond which a state is unfamiliar; minus infinity where too few patients trained to say."""
    config: RecommendConfig
    row: Int[np.ndarray, "n"]
    """Which of the episodes' rows each is."""
    state: Float32[np.ndarray, "n d"]
    patient: Int[np.ndarray, "n"]
    returned: Float[np.ndarray, "n"]
    """Discounted return from there; NaN where the episode was cut off, so that it is not known."""


@dataclass(frozen=True)
class Bedside:
    """What the hazard rules need beside the state, a value a state; NaN where it is not charted."""

    cvp: Float[np.ndarray, "m"]
    """Central venous pressure, mmHg."""
    balance_ml: Float[np.ndarray, "m"]
    """Fluid in less urine out since the anchor."""
    previous_action: Int[np.ndarray, "m"]
    """The dose of the window before; -1 where there is none."""


@dataclass(frozen=True)
class Evidence:
    """What the records say about every dose in one state."""

    probability: Float32[np.ndarray, "a"]
    """Under the policy."""
    usual: Float32[np.ndarray, "a"]
    """Under the model of what clinicians do."""
    count: Int[np.ndarray, "a"]
    """Of the most similar training decisions, how many used it."""
    near: Int[np.ndarray, "k"]
    """Those decisions, nearest first: positions in `Support`."""
    distance: Float[np.ndarray, "k"]
    supported: Bool[np.ndarray, "a"]
    """Enough similar decisions used it, and clinicians would."""
    hazard: tuple[str | None, ...]
    """The rule of `hazards.BLOCKING` that each dose would break."""


@dataclass(frozen=True)
class Failed:
    """A gate that the policy's likeliest dose does not pass."""

    gate: Gate
    reason: str
    lifts: str
    """What would lift it."""


@dataclass(frozen=True)
class Values:
    """What each dose is worth in one state, in reward units, by the policy's own value networks."""

    value: Float[np.ndarray, "a"]
    low: Float[np.ndarray, "a"]
    high: Float[np.ndarray, "a"]
    """NaN where no similar patient had the dose: there is nothing to measure its precision by."""
    equivalent: tuple[int, ...]
    """Supported doses that break no rule and cannot be told from the best of them, best first."""


@dataclass(frozen=True)
class Recommendation:
    """One state's recommendation; where `gate` is set Suture abstains and `action` and the doses are None."""

    action: int | None
    fluid_ml: float | None
    """mL in one full window: the bin's median; None without a dictionary."""
    vasopressor_ug_kg_min: float | None
    probability: float | None
    """Under the policy."""
    behaviour_probability: float | None
    """Of the policy's likeliest dose under the model of what clinicians do; shown with an abstention too."""
    support: int
    """Of the `neighbours` most similar training decisions, how many used that dose."""
    neighbours: int
    gate: Gate | None
    reason: str | None
    lifts: str | None
    """What would lift the abstention."""
    alternatives: tuple[tuple[int, float, int], ...]
    """The likeliest supported doses: (action, probability under the policy, support); none with an abstention."""


@dataclass(frozen=True)
class Look:
    """One state's recommendation and what stands behind it."""

    recommendation: Recommendation
    evidence: Evidence | None
    """None where the state cannot be read: nothing then is said about any dose."""
    failed: tuple[Failed, ...]
    """Every gate that is not passed; the first decides."""


def support(episodes: Episodes, config: RecommendConfig | None = None, seed: int = 0, gamma: float = 0.99) -> Support:
    """Index training decisions; `gamma` discounts their returns, as the policy's values are.

    The density limit comes from a tenth of the patients, who are searched for among the others. With fewer than
    `FEWEST_PATIENTS` no state is familiar: neighbours would be the patients themselves.
    """
    options = config or RecommendConfig()
    rng = np.random.default_rng([seed, 0x7375])
    patients = rng.permutation(np.unique(episodes.patient))
    few = len(patients) < FEWEST_PATIENTS
    probed_patients = patients[: 0 if few else max(2, len(patients) // 10)]
    probe = np.isin(episodes.patient, probed_patients)[episodes.episode]
    scaler = episodes.scaler if episodes.scaler is not None else fit_scaler(episodes.state)
    scaled = scaler.transform(episodes.state)
    kept, probed = _thin(np.flatnonzero(~probe), options.max_rows, rng), _thin(np.flatnonzero(probe), 2000, rng)
    count = min(options.neighbours, len(kept))
    index = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(scaled[kept])
    limit = -np.inf
    if not few:
        distance, _ = index.kneighbors(scaled[probed], n_neighbors=min(options.density_neighbours, count))
        limit = float(np.quantile(distance[:, -1], options.density_quantile))
    returned = np.where(episodes.terminated[episodes.episode], episodes.returns_to_go(gamma), np.nan)
    return Support(
        scaler, index, episodes.action[kept], episodes.n_actions, limit, options,
        kept, episodes.state[kept], episodes.patient[episodes.episode[kept]], returned[kept],
    )  # fmt: skip


def recommend(
    policy: NetworkPolicy,
    state: Float[np.ndarray, "m d"],
    known: Support,
    behaviour: Policy,
    age_h: Float[np.ndarray, "m d"] | None = None,
    bedside: Bedside | None = None,
) -> list[Recommendation]:
    """The likeliest dose of each state, or an abstention: an unreadable state abstains, nothing is raised for it.

    Args:
        policy: the policy to serve.
        state: states in their own units; NaN and infinity are allowed and abstain.
        known: the training decisions (`support`).
        behaviour: what clinicians do in a state.
        age_h: hours since each feature was measured; NaN where it is imputed, 0 for what never ages (age, sex).
            Without it a value that equals the dictionary's imputation counts as imputed and any other as fresh.
        bedside: what hazard rules need beside the state; without it the rules that need it are not asked.

    Raises:
        InputError: the wrong number of features.
    """
    if state.shape[1] != len(policy.features):
        raise InputError(f"state has {state.shape[1]} features, the policy was trained on {len(policy.features)}")
    return [one.recommendation for one in looks(policy, state, known, behaviour, age_h, bedside)]


def looks(
    policy: NetworkPolicy,
    state: Float[np.ndarray, "m d"],
    known: Support,
    behaviour: Policy,
    age_h: Float[np.ndarray, "m d"] | None = None,
    bedside: Bedside | None = None,
) -> list[Look]:
    """What stands behind the recommendation of each state; arguments and errors as in `recommend`."""
    if state.shape[1] != len(policy.features):
        raise InputError(f"state has {state.shape[1]} features, the policy was trained on {len(policy.features)}")
    readable = _readable(policy, state)
    ages = _imputed_ages(policy, state) if age_h is None else age_h
    found = evidence(policy, _filled(policy, state, readable), known, behaviour, ages, bedside)
    out = []
    for i, one in enumerate(found):
        stale = _stale(policy, ages[i], known.config) if readable[i] else _unreadable(policy, state[i])
        best = int(one.probability.argmax())
        failed = [] if stale is None else [Failed("data freshness", *stale)]
        if readable[i]:
            failed += _failed(one, best, known)
        out.append(Look(_decide(policy, one, best, failed), one if readable[i] else None, tuple(failed)))
    return out


def evidence(
    policy: NetworkPolicy,
    state: Float[np.ndarray, "m d"],
    known: Support,
    behaviour: Policy,
    age_h: Float[np.ndarray, "m d"],
    bedside: Bedside | None = None,
) -> list[Evidence]:
    """What the records say about every dose in each state; states must be readable, arguments as in `recommend`."""
    probs, usual = policy.probs(state), behaviour.probs(state)
    distance, rows = known.index.kneighbors(known.scaler.transform(state))
    broken = _broken_rules(policy, state, age_h, bedside)
    out = []
    for i in range(len(state)):
        count = np.bincount(known.action[rows[i]], minlength=known.n_actions)
        enough = (count >= known.config.min_support) & (usual[i] >= known.config.min_probability)
        out.append(Evidence(probs[i], usual[i], count, rows[i], distance[i], enough, broken[i]))
    return out


def values(policy: NetworkPolicy, state: Float[np.ndarray, "d"], known: Support, found: Evidence) -> Values | None:
    """What each dose is worth, with an interval, and which doses cannot be told from the best; None without values.

    A value is the policy's own, the ensemble's minimum. Its variance is that between the ensemble's members plus
    s^2 / n, where n counts the similar patients who had the dose and s^2 is the variance over similar patients of how
    far the return of each lay from the value of what was done. Two doses are told apart where their difference exceeds
    the normal quantile times its standard error. The interval says how precisely similar outcomes pin a value; it does
    not cover what nobody charted, and the evaluation's interval is the one to judge a policy by.
    """
    if policy.critic is None:
        return None
    members = policy.critic(policy.scaler.transform(state[None]))[:, 0].astype(np.float64) * policy.reward_scale
    value = members.min(axis=0)
    if not np.isfinite(members).all():
        return None
    spread = members.var(axis=0, ddof=1) if len(members) > 1 else np.zeros(known.n_actions)
    noise = _outcome_noise(policy, known, found.near)
    near_action, near_patient = known.action[found.near], known.patient[found.near]
    patients = np.array([len(np.unique(near_patient[near_action == a])) for a in range(known.n_actions)])
    with np.errstate(divide="ignore"):
        precision = np.where(patients > 0, noise / np.maximum(patients, 1), np.nan)
    z = float(stats.norm.ppf(0.5 + known.config.level / 2))
    half = z * np.sqrt(spread + precision)
    allowed = found.supported & np.array([rule is None for rule in found.hazard]) & np.isfinite(half)
    if not allowed.any():
        return Values(value, value - half, value + half, ())
    best = int(np.where(allowed, value, -np.inf).argmax())
    apart = members[:, best : best + 1] - members
    between = apart.var(axis=0, ddof=1) if len(members) > 1 else np.zeros(known.n_actions)
    same = allowed & (value[best] - value <= z * np.sqrt(between + precision + precision[best]))
    same[best] = True
    order = sorted(np.flatnonzero(same), key=lambda a: -value[a])
    return Values(value, value - half, value + half, tuple(int(a) for a in order))


def _outcome_noise(policy: NetworkPolicy, known: Support, near: Int[np.ndarray, "k"]) -> float:
    """Variance over similar patients of the mean distance between a return and the value of what was done; NaN: few."""
    q = policy.q(known.state[near])
    miss = known.returned[near] - q[np.arange(len(near)), known.action[near]]
    seen = np.isfinite(miss)
    patient, position = np.unique(known.patient[near][seen], return_inverse=True)
    if len(patient) < 2:
        return float("nan")
    return float((np.bincount(position, miss[seen]) / np.bincount(position)).var(ddof=1))


def _broken_rules(
    policy: NetworkPolicy,
    state: Float[np.ndarray, "m d"],
    age_h: Float[np.ndarray, "m d"],
    bedside: Bedside | None,
) -> list[tuple[str | None, ...]]:
    """For each state the first hazard rule that each dose would break; measured values alone count."""
    if policy.dictionary is None:
        return [(None,) * policy.n_actions] * len(state)
    measured = np.where(np.isnan(age_h), np.nan, state).astype(np.float64)
    nothing = np.full(len(state), np.nan)

    def column(name: str) -> Float[np.ndarray, "m"]:
        return measured[:, policy.features.index(name)] if name in policy.features else nothing

    cvp, balance = (nothing, nothing) if bedside is None else (bedside.cvp, bedside.balance_ml)
    previous = np.full(len(state), -1) if bedside is None else bedside.previous_action
    exposed = hazards.exposure(column("map"), cvp, column("lactate"), balance, previous)
    if bedside is None:  # not asked is not the same as not charted
        exposed[:, hazards.HAZARDS.index("C_without_cvp")] = False
    doses = np.array([policy.dictionary.dose(a) for a in range(policy.n_actions)])
    bins = policy.dictionary.n_vasopressor_bins
    out = []
    for i in range(len(state)):
        change = np.arange(policy.n_actions) % bins - (previous[i] % bins if previous[i] >= 0 else 0)
        broken = exposed[i] & hazards.harmful(doses[:, 0] / policy.dictionary.step_hours, doses[:, 1], change)
        broken = broken[:, : len(hazards.BLOCKING)]
        out.append(tuple(hazards.BLOCKING[int(row.argmax())] if row.any() else None for row in broken))
    return out


def _decide(policy: NetworkPolicy, found: Evidence, best: int, failed: Sequence[Failed]) -> Recommendation:
    held = failed[0] if failed else None
    shown = held is None or held.gate != "data freshness"
    fluid, pressor = policy.dictionary.dose(best) if policy.dictionary is not None and held is None else (None, None)
    offered = found.supported & np.array([rule is None for rule in found.hazard]) & (held is None)
    order = [a for a in np.argsort(-found.probability, kind="stable") if offered[a]][:3]
    return Recommendation(
        action=best if held is None else None,
        fluid_ml=fluid,
        vasopressor_ug_kg_min=pressor,
        probability=float(found.probability[best]) if held is None else None,
        behaviour_probability=float(found.usual[best]) if shown else None,
        support=int(found.count[best]) if shown else 0,
        neighbours=len(found.near) if shown else 0,
        gate=held.gate if held else None,
        reason=held.reason if held else None,
        lifts=held.lifts if held else None,
        alternatives=tuple((int(a), float(found.probability[a]), int(found.count[a])) for a in order),
    )


def _failed(found: Evidence, best: int, known: Support) -> list[Failed]:
    """The gates beside data freshness that the policy's likeliest dose does not pass, in their order."""
    config, far = known.config, found.distance[min(known.config.density_neighbours, len(found.distance)) - 1]
    failed = []
    if known.limit == -np.inf:
        trained = len(np.unique(known.patient))
        reason = f"{trained} patients trained the policy, too few to tell a familiar state (at least {FEWEST_PATIENTS})"
        failed.append(Failed("state density", reason, "a run on records of more patients"))
    elif far > known.limit:
        reason = f"no similar patients in the records (distance {far:.1f}, limit {known.limit:.1f})"
        lifts = "records of more patients like this one; check the charted values for an error"
        failed.append(Failed("state density", reason, lifts))
    if not np.isfinite(found.probability).all() or found.probability[best] <= 0:
        reason, lifts = "the policy prefers no dose over another", "a policy that was trained further"
        failed.append(Failed("action support", reason, lifts))
    elif not found.supported[best]:
        reason = (
            f"{found.count[best]} of {len(found.near)} similar decisions used this dose "
            f"(at least {config.min_support} needed) and clinicians would use it with probability "
            f"{found.usual[best]:.3f} (at least {config.min_probability:g} needed)"
        )
        failed.append(Failed("action support", reason, "records in which this dose was used in such states"))
    rule = found.hazard[best]
    if rule is not None:
        reason = f"rule {rule[0]} blocks the dose that the policy prefers: {hazards.REASONS[rule]}"
        failed.append(Failed("hazard rule", reason, "a change in the measured state that the rule is about"))
    return failed


def _filled(
    policy: NetworkPolicy, state: Float[np.ndarray, "m d"], readable: Bool[np.ndarray, "m"]
) -> Float[np.ndarray, "m d"]:
    """Unreadable states replaced by the average one, so that no policy ever sees NaN; they abstain whatever it says."""
    filled = np.where(readable[:, None], state, policy.scaler.mean).astype(np.float64)
    return np.where(np.isfinite(filled), filled, 0.0)


def _readable(policy: NetworkPolicy, state: Float[np.ndarray, "m d"]) -> Bool[np.ndarray, "m"]:
    with np.errstate(over="ignore"):
        finite = np.isfinite(state.astype(np.float32)).all(axis=1)
    constant = (state == state[:, :1]).all(axis=1) & (state.shape[1] > 1)
    logged = policy.scaler.log & (state <= -0.1)  # log(0.1 + x) does not exist there
    return np.asarray(finite & ~constant & ~logged.any(axis=1) & ~_impossible(policy, state).any(axis=1), bool)


def _impossible(policy: NetworkPolicy, state: Float[np.ndarray, "m d"]) -> Bool[np.ndarray, "m d"]:
    """Where a value lies outside the dictionary's range of its feature; features it does not know have none."""
    known = concepts.load().ranges
    low, high = np.array([known.get(name, (-np.inf, np.inf)) for name in policy.features]).T
    slack = 1e-5 * np.maximum(1.0, np.abs(state))  # float32 has rounded the range's own ends
    with np.errstate(invalid="ignore"):
        return np.asarray((state < low - slack) | (state > high + slack), bool)


def _unreadable(policy: NetworkPolicy, state: Float[np.ndarray, "d"]) -> tuple[str, str]:
    bad = int((~np.isfinite(state)).sum())
    if bad:
        return f"{bad} of {len(state)} features are NaN or infinite", "chart the missing values"
    if (state == state[0]).all():
        return "all features have the same value", "check the connection to the record"
    for column in np.flatnonzero(_impossible(policy, state[None])[0])[:1]:
        return f"{policy.features[column]} has an impossible value", f"check the charted {policy.features[column]}"
    return "a feature that cannot be negative is", "check the charted values"


def _imputed_ages(policy: NetworkPolicy, state: Float[np.ndarray, "m d"]) -> Float[np.ndarray, "m d"]:
    """Without known ages: NaN where a value is exactly the imputation's, 0 elsewhere."""
    if policy.dictionary is None:
        return np.zeros(state.shape)
    return np.where(state == policy.dictionary.imputation, np.nan, 0.0)


def _stale(policy: NetworkPolicy, age_h: Float[np.ndarray, "d"], config: RecommendConfig) -> tuple[str, str] | None:
    for name in config.fresh_features:
        if name in policy.features:
            age = age_h[policy.features.index(name)]
            if not age <= config.fresh_hours:
                since = "never measured or too old" if np.isnan(age) else f"{age:.1f} h old"
                return f"{name} is {since} (at most {config.fresh_hours:g} h)", f"measure {name}"
    imputed = float(np.isnan(age_h).mean())
    if imputed > config.max_imputed:
        return f"{imputed:.0%} of the features are imputed (at most {config.max_imputed:.0%})", "measure more features"
    return None


def _thin(rows: Int[np.ndarray, "n"], most: int, rng: np.random.Generator) -> Int[np.ndarray, "k"]:
    return rows if len(rows) <= most else np.sort(rng.choice(rows, most, replace=False))
