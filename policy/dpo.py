"""DPO (Rafailov et al. 2023): a policy moved from its reference by preferences between doses (overrides)."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import torch
from jaxtyping import Float, Int
from pydantic import Field, field_validator
from torch import Tensor

from cohort import artifact
from cohort.config import Config as Strict
from cohort.episodes import Episodes
from cohort.errors import InputError
from policy import batches, behaviour, extraction, store, train
from policy.batches import Batch, Data, Prepared
from policy.behaviour import BehaviourConfig
from policy.networks import Learned, Network
from policy.served import NetworkPolicy
from policy.train import Session, TrainConfig

STREAM = 0x64706F


class Source(Strict):
    """A file that a configuration names, and what was in it then."""

    file: str
    """Its path. A configuration gives it alone: `preferences: FILE` (Parquet or CSV: a column per feature, `chosen` and
    `rejected` actions, optionally `weight`; without it preferences are read off outcomes) or `reference: DIR` (a saved
    policy; without it the behaviour model)."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Of the file when the configuration was read: a changed one trains another policy."""


class Config(TrainConfig):
    """Where the preferences come from, and how far they may move the policy."""

    updates: int = Field(default=3_000, ge=1)
    evaluate_every: int = Field(default=100, ge=1)
    min_updates: int = Field(default=100, ge=0)
    beta: float = Field(default=0.1, gt=0)
    """How strongly the reference holds: large stays near it (the paper's 0.1)."""
    preferences: Source | None = None
    """Without a table preferences are read off outcomes: the logged dose is preferred to another that the reference
    might have given where the return from there is above average, the other way round where it is below, weighted by
    the distance."""
    reference: Source | None = None
    """A saved policy's directory; without it the behaviour model."""
    behaviour: BehaviourConfig = BehaviourConfig()

    @field_validator("preferences", "reference", mode="before")
    @classmethod
    def _hashed(cls, given: object) -> object:
        if not isinstance(given, str | Path):
            return given
        try:
            return {"file": str(given), "sha256": _hash(Path(given))}
        except OSError as error:
            raise ValueError(f"{given}: cannot be read ({type(error).__name__})") from None


@dataclass(frozen=True)
class Preferences:
    """Pairs of doses in states, one preferred."""

    state: Float[np.ndarray, "n d"]
    chosen: Int[np.ndarray, "n"]
    rejected: Int[np.ndarray, "n"]
    weight: Float[np.ndarray, "n"]


def fit(episodes: Episodes, config: Config, seed: int, session: Session) -> NetworkPolicy:
    """Start from the reference (distilled where it is not a network of its own) and follow the preferences.

    Raises:
        InputError: the preference table lacks a column, or holds states, actions or weights that cannot be used.
    """
    kept, _ = batches.split(episodes, config.holdout, seed)
    reference = (
        behaviour.fit(episodes, config.behaviour, seed, session.named("behaviour"))
        if config.reference is None
        else store.load(_unchanged(config.reference))
    )
    given = (
        from_outcomes(kept, reference, seed)
        if config.preferences is None
        else read(_unchanged(config.preferences), episodes.features, episodes.n_actions)
    )
    with train.one_thread():
        actor = _started(reference, kept, config, seed, session)
        prepared, extra, held_extra = _prepare(given, reference, kept, config, seed, session.device)
        task = train.Task(
            {"actor": actor},
            lambda batch, report: _update(actor, batch, extra[batch.row], config.beta, report),
            lambda held: _held_out(actor, held, held_extra, config.beta),
            {"preference": ("actor",)},
        )
        outcome = train.run(task, prepared, config, seed, session)
    policy = NetworkPolicy(
        learner="dpo",
        config=config.model_dump(mode="json"),
        rule="softmax",
        scaler=reference.scaler,
        features=episodes.features,
        n_actions=episodes.n_actions,
        actor=actor.net.freeze(),
        curves=outcome.curves,
    )
    moved = extraction.kl(policy.probs(kept.state).astype(float), reference.probs(kept.state).astype(float))
    notes = {
        **outcome.notes,
        "reference": reference.learner,
        "preferences": len(given.chosen),
        "preferences_outside_reference": _outside_reference(given, reference),
        "source": "outcomes" if config.preferences is None else "table",
        "kl_reference": float(moved[np.isfinite(moved)].mean()),
        "states_outside_reference": int((~np.isfinite(moved)).sum()),
    }
    return replace(policy, notes=notes)


def read(path: Path, features: tuple[str, ...], n_actions: int) -> Preferences:
    """Read and check a preference table.

    Raises:
        InputError: a column is missing, or rows hold NaN, an action out of range, chosen = rejected, or no weight.
    """
    table = _table(path)
    missing = [name for name in (*features, "chosen", "rejected") if name not in table.column_names]
    if missing:
        raise InputError(f"{path}: column {missing[0]!r} is missing ({len(missing)} in all)")
    state = np.stack([np.asarray(table[name], np.float64) for name in features], axis=1)
    chosen, rejected = (np.asarray(table[name]) for name in ("chosen", "rejected"))
    weight = np.asarray(table["weight"], np.float64) if "weight" in table.column_names else np.ones(len(state))
    if not len(state):
        raise InputError(f"{path}: no preferences")
    for name, bad in (
        ("features", ~np.isfinite(state).all(axis=1)),
        ("weight", ~(np.isfinite(weight) & (weight > 0))),
        ("chosen", _outside(chosen, n_actions)),
        ("rejected", _outside(rejected, n_actions)),
        ("rejected equals chosen", chosen == rejected),
    ):
        wrong = int(np.sum(bad))
        if wrong:
            raise InputError(f"{path}: {name}: {wrong} of {len(state)} rows cannot be used")
    return Preferences(state, chosen.astype(np.int64), rejected.astype(np.int64), weight)


def from_outcomes(episodes: Episodes, reference: NetworkPolicy, seed: int) -> Preferences:
    """Preferences from returns: logged doses against ones drawn from the reference without them.

    Raises:
        InputError: all returns are equal, so nothing is preferred.
    """
    batches.require_different_returns(episodes)
    returns = episodes.returns_to_go(1.0)
    surplus = returns - returns.mean()
    probs = reference.probs(episodes.state).astype(np.float64) + 1e-9
    probs[np.arange(episodes.n), episodes.action] = 0.0
    cumulative = np.cumsum(probs, axis=1)
    drawn = np.random.default_rng([seed, STREAM]).random((episodes.n, 1)) * cumulative[:, -1:]
    other = (cumulative < drawn).sum(axis=1)
    better = surplus > 0
    spread = float(np.abs(surplus).max()) or 1.0
    return Preferences(
        episodes.state,
        np.where(better, episodes.action, other),
        np.where(better, other, episodes.action),
        np.maximum(np.abs(surplus) / spread, 1e-6),
    )


def margin(
    logits: Float[Tensor, "b a"], chosen: Int[Tensor, "b"], rejected: Int[Tensor, "b"], reference: Float[Tensor, "b"]
) -> Float[Tensor, "b"]:
    """log pi/pi_ref (chosen) - log pi/pi_ref (rejected); `reference` is log pi_ref(chosen) - log pi_ref(rejected)."""
    pair = logits.gather(1, torch.stack([chosen, rejected], 1))
    return pair[:, 0] - pair[:, 1] - reference


def loss(margins: Float[Tensor, "b"], weight: Float[Tensor, "b"], beta: float) -> Float[Tensor, ""]:
    """Weighted mean of -log sigmoid(beta margin); positive margin: the policy agrees more than its reference."""
    return -(weight * torch.nn.functional.logsigmoid(beta * margins)).sum() / weight.sum()


def gradient(
    logits: Float[Tensor, "b a"],
    chosen: Int[Tensor, "b"],
    rejected: Int[Tensor, "b"],
    margins: Float[Tensor, "b"],
    weight: Float[Tensor, "b"],
    beta: float,
) -> Float[Tensor, "b a"]:
    """Gradient of `loss` with respect to the logits: chosen up, rejected down, the rest untouched."""
    pull = (beta * weight * torch.sigmoid(-beta * margins) / weight.sum()).unsqueeze(1)
    index = torch.stack([chosen, rejected], 1)
    return torch.zeros_like(logits).scatter_add_(1, index, torch.cat([-pull, pull], 1))


def _prepare(
    given: Preferences, reference: NetworkPolicy, episodes: Episodes, config: Config, seed: int, device: str
) -> tuple[Prepared, Float[Tensor, "n k"], Float[Tensor, "h k"]]:
    """Preferences as the loop's data; beside it per row: rejected action, weight, the reference's margin."""
    n = len(given.chosen)
    count = round(config.holdout * n) if n >= 100 else 0
    order = np.random.default_rng([seed, STREAM, 1]).permutation(n)
    log_reference = np.log(np.maximum(reference.probs(given.state).astype(np.float64), 1e-12))
    rows = np.arange(n)
    apart = log_reference[rows, given.chosen] - log_reference[rows, given.rejected]
    extra = np.stack([given.rejected, given.weight, apart], axis=1).astype(np.float32)
    scaled = reference.scaler.transform(given.state)

    def part(chosen_rows: Int[np.ndarray, "k"]) -> tuple[Data, Tensor]:
        k = len(chosen_rows)
        zeros = np.zeros((1, scaled.shape[1]), np.float32)
        states = torch.from_numpy(np.concatenate([scaled[chosen_rows], zeros])).to(device)
        action = torch.from_numpy(given.chosen[chosen_rows]).to(device)
        empty = states.new_zeros(k)
        data = Data(states, torch.full_like(action, k), action, empty, empty, reference.n_actions)
        return data, torch.from_numpy(extra[chosen_rows]).to(device)

    fit_data, fit_extra = part(order[count:])
    held, held_extra = part(order[:count])
    prepared = Prepared(episodes, None, reference.scaler, 1.0, fit_data, held if count else None, device)
    return prepared, fit_extra, held_extra


def _started(reference: NetworkPolicy, episodes: Episodes, config: Config, seed: int, session: Session) -> Learned:
    """An actor that gives the reference's probabilities."""
    if reference.rule == "softmax" and reference.actor is not None:
        actor = train.learned("actor", reference.actor.sizes, 1, config, seed, session.device)
        actor.net.load(_without_temperature(reference.actor, reference.temperature))
        return actor
    sizes = (len(reference.features), *config.hidden, reference.n_actions)
    actor = train.learned("actor", sizes, 1, config, seed, session.device)
    distil(actor, episodes, reference, config, seed)
    return Learned(actor.net, config.learning_rate)


def distil(actor: Learned, episodes: Episodes, reference: NetworkPolicy, config: Config, seed: int) -> None:
    """Fit the actor to a policy's probabilities by cross-entropy."""
    source = batches.data(episodes, reference.scaler, device=actor.net.device)
    wanted = torch.from_numpy(reference.probs(episodes.state)).to(actor.net.device)
    sampler = batches.Sampler(source, config.batch, seed)
    for update in range(config.updates):
        batch = sampler.at(update)
        probs = torch.softmax(actor.net.forward(batch.state), 2)
        actor.net.backward((probs - wanted[batch.row]) / len(batch.row))
        actor.step()


def _without_temperature(network: Network, temperature: float) -> Network:
    scale = np.float32(1.0 / temperature)
    return Network(
        (*network.weights[:-1], network.weights[-1] * scale), (*network.biases[:-1], network.biases[-1] * scale)
    )


def _update(actor: Learned, batch: Batch, extra: Float[Tensor, "b k"], beta: float, report: bool) -> dict[str, float]:
    chosen, rejected, weight = batch.action[:, 0], extra[:, 0].long(), extra[:, 1]
    logits = actor.net.forward(batch.state)[0]
    margins = margin(logits, chosen, rejected, extra[:, 2])
    found = {"preference": float(loss(margins, weight, beta))} if report else {}
    actor.net.backward(gradient(logits, chosen, rejected, margins, weight, beta).unsqueeze(0))
    actor.step()
    return found


def _held_out(actor: Learned, held: Data, extra: Float[Tensor, "h k"], beta: float) -> dict[str, float]:
    logits = actor.net.forward(held.states[: held.n], keep=False)[0]
    margins = margin(logits, held.action, extra[:, 0].long(), extra[:, 2])
    return {
        "preference": float(loss(margins, extra[:, 1], beta)),
        "agreement": float((extra[:, 1] * (margins > 0)).sum() / extra[:, 1].sum()),
    }


def _outside_reference(given: Preferences, reference: NetworkPolicy) -> int:
    """Pairs of which the reference gives one dose no probability; it counts as one in 10^12 there."""
    probs, rows = reference.probs(given.state), np.arange(len(given.chosen))
    return int(((probs[rows, given.chosen] == 0) | (probs[rows, given.rejected] == 0)).sum())


def _hash(path: Path) -> str:
    """Of a file, or of a saved policy by the description that names its weights' hash."""
    return artifact.hash_file(path / store.POLICY if path.is_dir() else path)


def _unchanged(source: Source) -> Path:
    path = Path(source.file)
    if not path.exists() or _hash(path) != source.sha256:
        raise InputError(f"{path}: missing, or not what it was when the configuration was read")
    return path


def _table(path: Path) -> pa.Table:
    if path.suffix == ".parquet":
        return artifact.read_parquet(path)
    try:
        table = pa.csv.read_csv(path)
        list(table.column_names)  # decoded here: a name need not be text
        return table
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as CSV ({type(error).__name__})") from error


def _outside(action: np.ndarray, n_actions: int) -> np.ndarray:
    if not np.issubdtype(action.dtype, np.integer):
        return np.ones(len(action), bool)
    return np.asarray((action < 0) | (action >= n_actions), bool)
