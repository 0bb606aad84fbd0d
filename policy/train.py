"""Training: the loop all learners share: seeds, early stopping on held-out patients, curves, checkpoints."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from cohort.config import Config
from cohort.episodes import Episodes
from cohort.errors import ArtifactError, ConfigError
from policy import monitor
from policy.batches import FEWEST_PATIENTS, Batch, Data, Prepared, Sampler
from policy.networks import Learned, Mlp

STREAMS = {"actor": 1, "value": 2, "critic": 3, "behaviour": 4}
"""One stream of random numbers per network: adding one to a learner does not change the others'."""

DEVICES = ("cpu", "cuda")
PASSES_OF_FEW = 100
"""Over the decisions of patients too few to hold any out; after so many a network knows a handful by heart."""
Progress = Callable[[int, int, Mapping[str, float]], None]


class CheckpointError(ArtifactError):
    """A checkpoint is damaged, or of another run."""


Curves = tuple[dict[str, float], ...]


class TrainConfig(Config):
    """What every learner that trains networks can be told."""

    hidden: tuple[int, ...] = Field(default=(256, 256), min_length=1, max_length=6)
    learning_rate: float = Field(default=3e-4, gt=0, le=1)
    batch: int = Field(default=256, ge=1, le=65536)
    updates: int = Field(default=10_000, ge=1)
    gamma: float = Field(default=0.99, ge=0, le=1)
    holdout: float = Field(default=0.1, ge=0, le=0.5)
    """Share of training patients whose losses decide when to stop; 0 trains all updates."""
    evaluate_every: int = Field(default=250, ge=1)
    min_updates: int = Field(default=500, ge=0)
    """No best critic before: values need time to travel along an episode through the moving average."""
    patience: int = Field(default=6, ge=1)
    """Evaluations without a new best after which training stops."""


AnyTrainConfig = TypeVar("AnyTrainConfig", bound=TrainConfig)


@dataclass(frozen=True)
class Session:
    """What a caller may add to a training run without changing its result."""

    progress: Progress | None = None
    """Called with (updates done, updates planned, latest losses)."""
    checkpoint: Path | None = None
    """File to write at every evaluation and to resume from where it exists."""
    device: str = "cpu"

    def named(self, stage: str) -> "Session":
        """The session of one stage of a training run: a checkpoint of its own."""
        file = self.checkpoint
        return self if file is None else replace(self, checkpoint=file.with_name(f"{file.stem}-{stage}{file.suffix}"))


@runtime_checkable
class Trained(Protocol):
    """What training changes: a network with its optimiser, or a whole algorithm."""

    def tensors(self) -> dict[str, Tensor]:
        """Everything by name, for a checkpoint."""
        ...

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put a checkpoint's tensors back, bit for bit."""
        ...

    def snapshot(self) -> Tensor:
        """The weights alone, copied."""
        ...

    def revert(self, snapshot: Tensor) -> None:
        """Put a snapshot's weights back."""
        ...


@dataclass(frozen=True)
class Task:
    """A learner as the loop sees it."""

    nets: Mapping[str, Trained]
    update: Callable[[Batch, bool], dict[str, float]]
    """One update; losses only where the flag asks for them (reading them costs time)."""
    held_out: Callable[[Data], dict[str, float]]
    """Losses on held-out transitions."""
    groups: Mapping[str, tuple[str, ...]]
    """Held-out loss -> the nets whose best weights it decides; training stops when no group improves any more."""
    bootstraps: tuple[str, ...] = ()
    """Groups whose best counts only from `min_updates` on."""
    values: monitor.Values | None = None
    """The values that targets are made of, of scaled states and in scaled units, for the overestimation monitor.

    Q of every action where a policy may ask for any of them; V alone where no unseen action is ever asked for.
    """


@dataclass
class _Progress:
    update: int = 0
    curves: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, float] = field(default_factory=dict)
    best_at: dict[str, int] = field(default_factory=dict)
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    exploded: bool = False


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread inside: matrices are too small for more, and results do not depend on the machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def for_few(config: AnyTrainConfig, episodes: Episodes) -> AnyTrainConfig:
    """The config with at most `PASSES_OF_FEW` passes where there are too few patients to stop training by; else itself.

    Its own behaviour model's likewise. Learners do not do this by themselves: on problems with a known answer a few
    trajectories are trained to the end.
    """
    if len(np.unique(episodes.patient)) >= FEWEST_PATIENTS:
        return config
    passes = max(1, PASSES_OF_FEW * episodes.n // config.batch)
    changed: dict[str, object] = {"updates": min(config.updates, passes)}
    own = getattr(config, "behaviour", None)
    if isinstance(own, TrainConfig):
        changed["behaviour"] = for_few(own, episodes)
    return config.model_copy(update=changed)


def require_device(name: str) -> None:
    """Raise ConfigError where networks cannot be trained on this device."""
    if name not in DEVICES:
        raise ConfigError(f"device {name!r} is unknown; known: {', '.join(DEVICES)}")
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device cuda: there is none here, or this torch is built without CUDA; device cpu is slower")


def learned(
    name: str,
    sizes: tuple[int, ...],
    members: int,
    config: TrainConfig,
    seed: int,
    device: str,
    target: bool = False,
) -> Learned:
    """A network called `name` (a key of STREAMS) with its optimiser, started from its stream of `seed`."""
    rng = np.random.default_rng([seed, STREAMS[name]])
    return Learned(Mlp(sizes, members, rng, device), config.learning_rate, target)


def values(
    name: str, sizes: tuple[int, ...], members: int, prepared: Prepared, config: TrainConfig, seed: int
) -> Learned:
    """An untrained value network with a moving average; its outputs start at the mean return.

    Values that start at 0 travel to the returns' level through the moving average in thousands of updates, in which a
    network learns its training patients by heart.
    """
    found = learned(name, sizes, members, config, seed, prepared.device, target=True)
    for net in (found.net, found.target_net):
        net.biases[-1] += level(prepared, config.gamma)
    return found


def level(prepared: Prepared, gamma: float) -> float:
    """Mean Monte Carlo return over training decisions, in scaled units: where value networks start."""
    return float(prepared.episodes.returns_to_go(gamma).mean()) / prepared.reward_scale


def actor(prepared: Prepared, config: TrainConfig, seed: int) -> Learned:
    """An untrained actor: states in, one logit per action out."""
    sizes = (prepared.fit.d, *config.hidden, prepared.fit.n_actions)
    return learned("actor", sizes, 1, config, seed, prepared.device)


@dataclass(frozen=True)
class Outcome:
    """What a training run leaves besides its weights."""

    curves: Curves
    """One row per evaluation: `update`, every loss by name (`train_...` on the latest minibatch, `held_...`
    on held-out patients), and the monitor's figures."""
    notes: dict[str, Any]
    """How many updates were done and why no more; the monitor's verdict."""


def run(task: Task, prepared: Prepared, config: TrainConfig, seed: int, session: Session) -> Outcome:
    """Train until all updates are done or held-out losses stop improving; leaves the best weights in the nets.

    Where the monitor finds exploded values training stops, and the notes' verdict says so.

    Raises:
        CheckpointError: the checkpoint is of another run (config, seed or data), or damaged.
    """
    identity = _identity(prepared.fit, config, seed)
    state = _Progress()
    if session.checkpoint is not None and session.checkpoint.exists():
        state = _read(session.checkpoint, identity, task.nets)
    sampler = Sampler(prepared.fit, config.batch, seed)
    watched = None if task.values is None else monitor.watch(prepared, config.gamma, seed)
    while state.update < config.updates and not _stopped(state, task, config):
        last = state.update + 1 == config.updates or (state.update + 1) % config.evaluate_every == 0
        losses = task.update(sampler.at(state.update), last)
        state.update += 1
        if last:
            _evaluate(task, prepared.held, losses, state, config)
            if task.values is not None and watched is not None:
                state.curves[-1] |= monitor.look(task.values, watched)
                state.exploded = monitor.exploded(state.curves[-1], watched)
            if session.checkpoint is not None:
                _write(session.checkpoint, identity, task.nets, state)
            if session.progress is not None:
                session.progress(state.update, config.updates, state.curves[-1])
    for name, weights in state.best_weights.items():
        task.nets[name].revert(weights)
    ended = "exploded" if state.exploded else "early" if state.update < config.updates else "complete"
    notes = {"updates": state.update, "ended": ended, "best_at": dict(state.best_at)}
    if watched is not None:
        served = max(
            (state.best_at[group] for group in task.bootstraps if group in state.best_at), default=state.update
        )
        notes["overestimation"] = monitor.summary(state.curves, watched, served)
    return Outcome(tuple(state.curves), notes)


def _evaluate(task: Task, held: Data | None, losses: dict[str, float], state: _Progress, config: TrainConfig) -> None:
    row = {"update": float(state.update), **{f"train_{name}": value for name, value in losses.items()}}
    if held is not None:
        held_losses = task.held_out(held)
        row |= {f"held_{name}": value for name, value in held_losses.items()}
        settled = state.update >= min(config.min_updates, config.updates)
        for group, nets in task.groups.items():
            if held_losses[group] < state.best.get(group, np.inf) and (settled or group not in task.bootstraps):
                state.best[group], state.best_at[group] = held_losses[group], state.update
                state.best_weights |= {name: task.nets[name].snapshot() for name in nets}
    state.curves.append(row)


def _stopped(state: _Progress, task: Task, config: TrainConfig) -> bool:
    waited = config.patience * config.evaluate_every
    if state.exploded:
        return True
    return bool(state.best_at) and all(
        group in state.best_at and state.update - state.best_at[group] >= waited for group in task.groups
    )


def _identity(fit: Data, config: TrainConfig, seed: int) -> str:
    content = hashlib.sha256(json.dumps([config.model_dump(mode="json"), type(config).__module__, seed]).encode())
    for array in (fit.states, fit.action, fit.reward, fit.alive):
        content.update(array.cpu().numpy().tobytes())
    return content.hexdigest()


def _write(path: Path, identity: str, nets: Mapping[str, Trained], state: _Progress) -> None:
    tensors = {f"{name}/{part}": t for name, net in nets.items() for part, t in net.tensors().items()}
    tensors |= {f"best/{name}": weights for name, weights in state.best_weights.items()}
    progress = {key: getattr(state, key) for key in ("update", "curves", "best", "best_at", "exploded")}
    draft = path.with_name(f".{path.name}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    live = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
    said = {"identity": identity, "progress": json.dumps(progress)}
    content = save(live, metadata={**said, "sha256": _hash(live, said)})
    draft.write_bytes(content)  # not by safetensors, whose error of a full disk is no OSError
    draft.replace(path)


def _hash(tensors: Mapping[str, Tensor], said: Mapping[str, str]) -> str:
    """Of a checkpoint's tensors and what is said of them: safetensors itself does not notice a flipped bit."""
    content = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    for name in sorted(tensors):
        content.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        content.update(tensors[name].contiguous().numpy().tobytes())
    return content.hexdigest()


def _read(path: Path, identity: str, nets: Mapping[str, Trained]) -> _Progress:
    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a readable checkpoint ({type(error).__name__})") from error
    if metadata.pop("sha256", None) != _hash(tensors, metadata):
        raise CheckpointError(f"{path}: its hash differs from its content: damaged after it was written")
    if metadata.get("identity") != identity:
        raise CheckpointError(f"{path}: a checkpoint of another run: its config, seed or training data differ")
    content: dict[str, Any] = json.loads(metadata["progress"])
    for name, net in nets.items():
        net.restore({part.partition("/")[2]: t for part, t in tensors.items() if part.startswith(f"{name}/")})
    best = {part.partition("/")[2]: t for part, t in tensors.items() if part.startswith("best/")}
    return _Progress(**content, best_weights=best)
