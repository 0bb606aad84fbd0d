"""Behaviour: what clinicians do, as probabilities: one model for the policy's factor, another to evaluate it."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Int
from pydantic import Field
from scipy.optimize import minimize_scalar
from sklearn.calibration import calibration_curve

from cohort.episodes import Episodes
from cohort.errors import ConfigError, InputError
from cohort.scaler import Scaler
from cohort.scaler import fit as fit_scaler
from cohort.workers import each
from policy import batches, bc
from policy.served import NetworkPolicy, softmax
from policy.train import Session, TrainConfig, for_few

STREAM = 0x6265


class BehaviourConfig(TrainConfig):
    """The behaviour model's network, and the evaluation's folds and floor."""

    hidden: tuple[int, ...] = Field(default=(128, 128), min_length=1, max_length=6)
    learning_rate: float = Field(default=1e-3, gt=0, le=1)
    updates: int = Field(default=6_000, ge=1)
    evaluate_every: int = Field(default=100, ge=1)
    min_updates: int = Field(default=250, ge=0)
    folds: int = Field(default=5, ge=2, le=50)
    """Parts of the patients, each answered by a model fitted on the others; where there are fewer, one patient each."""
    members: int = Field(default=1, ge=1, le=32)
    """Networks whose probabilities the evaluation's model averages in each fold: less noise to divide by, more time."""
    floor: float = Field(default=1e-3, ge=0, lt=1)
    """Least probability of any action in the evaluation's model, by mixing with the uniform distribution."""


def fit(
    episodes: Episodes, config: BehaviourConfig | None = None, seed: int = 0, session: Session | None = None
) -> NetworkPolicy:
    """The policy's own factor: sees the state only, fitted on training patients, calibrated on held-out ones."""
    options = config or BehaviourConfig()
    policy = bc.imitate("behaviour", episodes, options, seed, session or Session())
    _, held = batches.split(episodes, options.holdout, seed)
    return policy if held is None else _calibrated(policy, held)


def cross_fit(
    episodes: Episodes,
    config: BehaviourConfig | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    workers: int = 1,
    read: Bool[np.ndarray, "n"] | None = None,
) -> Float32[np.ndarray, "n a"]:
    """The evaluation's model: each patient's probabilities come from a model fitted without them.

    It also sees the previous action (on a vasopressor the next window has one too in 89% of cases), is
    temperature-calibrated on patients held out within its own fold, the mean of `members` networks (calibrated once
    more by the other folds' answers), and mixes in `floor` for every action: p = (1 - n_actions floor) model + floor.

    Args:
        read: decisions whose dose is known whole; the others are answered for, but nothing is fitted to them.

    Raises:
        ConfigError: fewer patients than folds, or floors that sum to 1 or more.
    """
    options = config or BehaviourConfig()
    if options.floor * episodes.n_actions >= 1:
        raise ConfigError(f"behaviour floor {options.floor:g}: must be below 1/{episodes.n_actions}")
    patients = np.unique(episodes.patient)
    if len(patients) < options.folds:
        raise ConfigError(f"behaviour folds: {options.folds} folds, but only {len(patients)} patients")
    fold_of = np.random.default_rng([seed, STREAM]).permutation(len(patients)) % options.folds
    fold = fold_of[np.searchsorted(patients, episodes.patient)]
    seen = with_previous_action(episodes)
    out = np.empty((episodes.n, episodes.n_actions), np.float32)
    known = np.ones(episodes.n, bool) if read is None else read
    answers = each(partial(_answered, seen, known, fold, options, seed), range(options.folds), workers, here=True)
    for k, probs in enumerate(answers):
        out[(fold == k)[episodes.episode]] = probs
        if progress is not None:
            progress(k + 1, options.folds)
    if options.members > 1:
        out = _sharpened(out, episodes.action, fold[episodes.episode], known)
    return _floored(out, options.floor)


def _answered(
    seen: Episodes,
    read: Bool[np.ndarray, "n"],
    fold: Int[np.ndarray, "e"],
    config: BehaviourConfig,
    seed: int,
    k: int,
) -> Float32[np.ndarray, "m a"]:
    """The probabilities of one fold's decisions, by a model of the other folds."""
    others = _rows(seen, (fold != k)[seen.episode] & read)
    own, options = seen.state[(fold == k)[seen.episode]], for_few(config, others)
    models = (fit(others, options, seed + STREAM * member) for member in range(config.members))
    answers: Float32[np.ndarray, "m a"] = np.mean([model.probs(own) for model in models], axis=0)
    return answers


def _sharpened(
    probs: Float32[np.ndarray, "n a"],
    action: Int[np.ndarray, "n"],
    fold: Int[np.ndarray, "n"],
    known: Bool[np.ndarray, "n"],
) -> Float32[np.ndarray, "n a"]:
    """Calibrated again, each fold by the others' answers: a mean of calibrated networks is less sure than they are."""
    logits = np.log(np.maximum(probs, np.finfo(np.float32).tiny))
    out = np.empty_like(probs)
    for k in np.unique(fold):
        others, own = (fold != k) & known, fold == k
        out[own] = softmax(logits[own] / np.float32(temperature(logits[others], action[others])))
    return out


def predict(
    fitted_on: Episodes, others: Episodes, config: BehaviourConfig, seed: int = 0, session: Session | None = None
) -> Float32[np.ndarray, "n a"]:
    """`cross_fit`'s model for patients that are apart from those it is fitted on: one fit and no folds."""
    model = fit(with_previous_action(fitted_on), config, seed, session)
    return _floored(model.probs(with_previous_action(others).state), config.floor)


def with_previous_action(episodes: Episodes) -> Episodes:
    """The same episodes, states extended by the previous action (one column each; all 0 at the first step)."""
    previous = np.zeros((episodes.n, episodes.n_actions), np.float32)
    rows = np.flatnonzero(episodes.previous_action >= 0)
    previous[rows, episodes.previous_action[rows]] = 1.0
    last = np.zeros((episodes.n_episodes, episodes.n_actions), np.float32)
    last[np.arange(episodes.n_episodes), episodes.action[episodes.start + episodes.length - 1]] = 1.0
    base = episodes.scaler if episodes.scaler is not None else fit_scaler(episodes.state)
    extra = episodes.n_actions
    scaler = Scaler(
        np.r_[base.mean, np.zeros(extra)],
        np.r_[base.std, np.full(extra, 0.5)],
        np.r_[base.log, np.zeros(extra, bool)],
    )
    return Episodes.from_arrays(
        np.hstack([episodes.state, previous]), episodes.action, episodes.reward, episodes.episode,
        episodes.terminated,
        np.hstack([episodes.final_state, last]), episodes.n_actions, patient=episodes.patient,
        features=[*episodes.features, *(f"previous_action_{a}" for a in range(extra))], scaler=scaler,
    )  # fmt: skip


def reliability(
    probs: Float[np.ndarray, "n a"],
    action: Int[np.ndarray, "n"],
    bins: int = 10,
    smallest: int = 10,
    rows: Bool[np.ndarray, "n"] | None = None,
) -> list[dict[str, Any]]:
    """Per action: how often it was predicted and how often it was taken, over all rows or a subgroup of them.

    Returns:
        for each action `count` (times taken), `predicted` and `observed` (mean probability and rate), `error`
        (predicted - observed; positive = predicted too often) and `curve`: (mean predicted, observed rate) in
        quantile bins; empty where fewer than `smallest` rows took the action.
    """
    chosen = np.ones(len(action), bool) if rows is None else rows
    if not chosen.any():
        raise InputError("reliability: the subgroup is empty")
    found = []
    for a in range(probs.shape[1]):
        taken, predicted = action[chosen] == a, probs[chosen, a]
        curve: list[tuple[float, float]] = []
        if smallest <= taken.sum() < len(taken):
            observed_rate, mean = calibration_curve(
                taken, np.clip(predicted, 0.0, 1.0), n_bins=bins, strategy="quantile"
            )
            curve = [(float(m), float(o)) for m, o in zip(mean, observed_rate, strict=True)]
        found.append(
            {
                "action": a,
                "count": int(taken.sum()),
                "predicted": float(predicted.mean()),
                "observed": float(taken.mean()),
                "error": float(predicted.mean() - taken.mean()),
                "curve": curve,
            }
        )
    return found


def temperature(logits: Float[np.ndarray, "n a"], action: Int[np.ndarray, "n"]) -> float:
    """What logits are best divided by (least negative log-likelihood); above 1: the model was too sure."""

    def loss(log_temperature: float) -> float:
        scaled = logits.astype(np.float64) / np.exp(log_temperature)
        scaled -= scaled.max(axis=1, keepdims=True)
        return float((np.log(np.exp(scaled).sum(axis=1)) - scaled[np.arange(len(action)), action]).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-2.0, 2.0), method="bounded").x))


def _rows(episodes: Episodes, rows: Bool[np.ndarray, "n"]) -> Episodes:
    """Some decisions, for a model that takes each by itself: what comes next is not kept."""
    kept, episode = np.unique(episodes.episode[rows], return_inverse=True)
    return Episodes.from_arrays(
        episodes.state[rows], episodes.action[rows], episodes.reward[rows], episode, np.ones(len(kept), bool),
        n_actions=episodes.n_actions, patient=episodes.patient[kept], features=episodes.features,
        scaler=episodes.scaler,
    )  # fmt: skip


def _floored(probs: Float32[np.ndarray, "n a"], floor: float) -> Float32[np.ndarray, "n a"]:
    share = np.float32(1.0 - floor * probs.shape[1])
    return probs * share + np.float32(floor)


def _calibrated(policy: NetworkPolicy, held: Episodes) -> NetworkPolicy:
    if policy.actor is None:
        raise InputError("only a policy with an actor can be calibrated")
    logits = policy.actor(policy.scaler.transform(held.state))[0]
    return replace(policy, temperature=temperature(logits, held.action))
