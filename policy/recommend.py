"""Recommend: what a bedside reader is shown: a dose with its support in the records, or an abstention and why."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Float32, Int
from pydantic import Field
from sklearn.neighbors import NearestNeighbors

from cohort import concepts
from cohort.config import Config
from cohort.episodes import Episodes
from cohort.errors import InputError
from cohort.scaler import Scaler
from cohort.scaler import fit as fit_scaler
from policy.base import Policy
from policy.served import NetworkPolicy

Gate = Literal["data freshness", "state density", "action support"]


class RecommendConfig(Config):
    """When Suture keeps silent."""

    neighbours: int = Field(default=200, ge=10, le=10_000)
    """Similar training decisions looked at."""
    max_rows: int = Field(default=100_000, ge=100)
    """Training decisions kept for the search; more are thinned at random."""
    density_neighbours: int = Field(default=10, ge=1, le=100)
    density_quantile: float = Field(default=0.99, gt=0.5, lt=1)
    """A state is unfamiliar where its `density_neighbours`-th neighbour is farther than this share of patients'."""
    min_support: int = Field(default=10, ge=1)
    """Similar decisions that must have used the recommended dose."""
    min_probability: float = Field(default=0.01, ge=0, lt=1)
    """Least probability of the dose under the behaviour model."""
    fresh_features: tuple[str, ...] = ("map", "heart_rate")
    """Features without which nothing is recommended, where the states have them."""
    fresh_hours: float = Field(default=4.0, gt=0)
    max_imputed: float = Field(default=0.6, ge=0, le=1)
    """Largest share of features that may be imputed, of those whose age is tracked in any state."""


@dataclass(frozen=True)
class Support:
    """The training decisions as a searchable index in scaled space."""

    scaler: Scaler
    index: NearestNeighbors
    action: Int[np.ndarray, "n"]
    n_actions: int
    limit: float
    """Distance beyond which a state is unfamiliar."""
    config: RecommendConfig


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


def support(episodes: Episodes, config: RecommendConfig | None = None, seed: int = 0) -> Support:
    """Index training decisions.

    The density limit comes from a tenth of the patients, who are searched for among the others.

    Raises:
        InputError: fewer than 20 patients: neighbours would be the patients themselves.
    """
    options = config or RecommendConfig()
    rng = np.random.default_rng([seed, 0x7375])
    patients = rng.permutation(np.unique(episodes.patient))
    if len(patients) < 20:
        raise InputError(f"support: {len(patients)} patients, at least 20 are needed")
    probe = np.isin(episodes.patient, patients[: max(2, len(patients) // 10)])[episodes.episode]
    scaler = episodes.scaler if episodes.scaler is not None else fit_scaler(episodes.state)
    scaled = scaler.transform(episodes.state)
    kept, probed = _thin(np.flatnonzero(~probe), options.max_rows, rng), _thin(np.flatnonzero(probe), 2000, rng)
    count = min(options.neighbours, len(kept))
    index = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(scaled[kept])
    nth = min(options.density_neighbours, count)
    distance, _ = index.kneighbors(scaled[probed], n_neighbors=nth)
    limit = float(np.quantile(distance[:, -1], options.density_quantile))
    return Support(scaler, index, episodes.action[kept], episodes.n_actions, limit, options)


def recommend(
    policy: NetworkPolicy,
    state: Float[np.ndarray, "m d"],
    known: Support,
    behaviour: Policy,
    age_h: Float[np.ndarray, "m d"] | None = None,
) -> list[Recommendation]:
    """The likeliest dose of each state, or an abstention: an unreadable state abstains, nothing is raised for it.

    Args:
        policy: the policy to serve.
        state: states in their own units; NaN and infinity are allowed and abstain.
        known: the training decisions (`support`).
        behaviour: what clinicians do in a state.
        age_h: hours since each feature was measured; NaN where it is imputed, 0 for what never ages (age, sex).
            Without it a value that equals the dictionary's imputation counts as imputed and any other as fresh.

    Raises:
        InputError: the wrong number of features.
    """
    if state.shape[1] != len(policy.features):
        raise InputError(f"state has {state.shape[1]} features, the policy was trained on {len(policy.features)}")
    readable = _readable(policy, state)
    filled = np.where(readable[:, None], state, policy.scaler.mean).astype(np.float64)
    filled = np.where(np.isfinite(filled), filled, 0.0)
    probs, usual = policy.probs(filled), behaviour.probs(filled)
    distance, rows = known.index.kneighbors(known.scaler.transform(filled))
    counts = np.stack([np.bincount(known.action[near], minlength=known.n_actions) for near in rows])
    out = []
    for i in range(len(state)):
        ages = None if age_h is None else age_h[i]
        ages = _imputed_ages(policy, state[i]) if ages is None else ages
        stale = _stale(policy, ages, known.config) if readable[i] else _unreadable(policy, state[i])
        out.append(_one(policy, probs[i], usual[i], counts[i], distance[i], known, stale))
    return out


def _one(
    policy: NetworkPolicy,
    probs: Float32[np.ndarray, "a"],
    usual: Float32[np.ndarray, "a"],
    counts: Int[np.ndarray, "a"],
    distance: Float[np.ndarray, "k"],
    known: Support,
    stale: tuple[str, str] | None,
) -> Recommendation:
    best, config = int(probs.argmax()), known.config
    held: tuple[Gate, str, str] | None = None
    far = distance[min(config.density_neighbours, len(distance)) - 1]
    if stale is not None:
        held = ("data freshness", *stale)
    elif far > known.limit:
        held = (
            "state density",
            f"no similar patients in the records (distance {far:.1f}, limit {known.limit:.1f})",
            "records of more patients like this one; check the charted values for an error",
        )
    elif counts[best] < config.min_support or usual[best] < config.min_probability:
        held = (
            "action support",
            f"{counts[best]} of {len(distance)} similar decisions used this dose "
            f"(at least {config.min_support} needed) and clinicians would use it with probability {usual[best]:.3f} "
            f"(at least {config.min_probability:g} needed)",
            "records in which this dose was used in such states",
        )
    shown = stale is None
    fluid, pressor = policy.dictionary.dose(best) if policy.dictionary is not None and held is None else (None, None)
    supported = (counts >= config.min_support) & (usual >= config.min_probability) & (held is None)
    order = [a for a in np.argsort(-probs, kind="stable") if supported[a]][:3]
    return Recommendation(
        action=best if held is None else None,
        fluid_ml=fluid,
        vasopressor_ug_kg_min=pressor,
        probability=float(probs[best]) if held is None else None,
        behaviour_probability=float(usual[best]) if shown else None,
        support=int(counts[best]) if shown else 0,
        neighbours=len(distance) if shown else 0,
        gate=held[0] if held else None,
        reason=held[1] if held else None,
        lifts=held[2] if held else None,
        alternatives=tuple((int(a), float(probs[a]), int(counts[a])) for a in order),
    )


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


def _imputed_ages(policy: NetworkPolicy, state: Float[np.ndarray, "d"]) -> Float[np.ndarray, "d"]:
    """Without known ages: NaN where a value is exactly the imputation's, 0 elsewhere."""
    if policy.dictionary is None:
        return np.zeros(len(state))
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
