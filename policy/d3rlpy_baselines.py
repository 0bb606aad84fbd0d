"""d3rlpy baselines: its discrete CQL, BCQ, double DQN and SAC, driven by this package's loop from contiguous arrays."""

import contextlib
import io
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from cohort.episodes import Episodes
from policy import batches, train
from policy.batches import Batch
from policy.networks import Network
from policy.served import NetworkPolicy
from policy.train import Session, TrainConfig

with contextlib.redirect_stderr(io.StringIO()):  # its gym dependency announces its own retirement on every import
    from d3rlpy.algos import DiscreteBCQConfig, DiscreteCQLConfig, DiscreteSACConfig, DoubleDQNConfig
    from d3rlpy.algos.qlearning.base import QLearningAlgoImplBase
    from d3rlpy.base import LearnableConfig
    from d3rlpy.models import VectorEncoderFactory
    from d3rlpy.optimizers import AdamFactory
    from d3rlpy.torch_utility import TorchMiniBatch

__all__ = [
    "BaselineConfig",
    "DiscreteBCQConfig",
    "DiscreteCQLConfig",
    "DiscreteSACConfig",
    "DoubleDQNConfig",
    "Driven",
    "common",
    "create",
    "fit",
    "network",
]


class BaselineConfig(TrainConfig):
    """What d3rlpy's learners share; its own defaults differ (copies every 8000 updates, rate 6.25e-5, batch 32)."""

    n_critics: int = Field(default=2, ge=1, le=4)
    target_update_interval: int = Field(default=200, ge=1)
    """Updates between hard copies into the target: the time constant of a moving average at rate 0.005."""


class FusedAdam(AdamFactory):  # type: ignore[misc]
    """d3rlpy's Adam, one fused kernel a step instead of a dozen small ones."""

    def create_optimizer(self, named_modules: Any, lr: float) -> torch.optim.Adam:
        """As the original's, with `fused`."""
        plain: torch.optim.Adam = super().create_optimizer(named_modules, lr)
        return torch.optim.Adam(plain.param_groups[0]["params"], lr=lr, betas=self.betas, eps=self.eps, fused=True)


class Driven:
    """One d3rlpy algorithm as the loop sees it: updates, and everything that training changes as tensors."""

    def __init__(self, impl: QLearningAlgoImplBase) -> None:
        self.impl = impl
        self.updates = 0
        modules = vars(impl.modules)
        self.modules = {name: part for name, part in modules.items() if isinstance(part, nn.Module)}
        self.optimisers = {name: part.optim for name, part in modules.items() if name.endswith("optim") and part}

    def update(self, batch: Batch, report: bool) -> dict[str, float]:
        """One of d3rlpy's updates."""
        losses = self.impl.update(self.minibatch(batch), self.updates)
        self.updates += 1
        if not report:
            return {}
        return {name.removesuffix("_loss"): float(value) for name, value in losses.items()}

    def minibatch(self, batch: Batch) -> TorchMiniBatch:
        """The same transitions in d3rlpy's form: float32, columns; the next state of an ended episode is zeros."""
        column = batch.reward.unsqueeze(1)
        unused = torch.zeros_like(column)
        return TorchMiniBatch(
            observations=batch.state,
            actions=batch.action.float(),
            rewards=column,
            next_observations=batch.next_state,
            next_actions=unused,
            returns_to_go=unused,
            terminals=1.0 - batch.alive.unsqueeze(1),
            intervals=torch.ones_like(column),
            device=str(batch.reward.device),
        )

    def td_loss(self, batch: Batch) -> float:
        """d3rlpy's own TD loss (Huber) without a step."""
        mini = self.minibatch(batch)
        with torch.no_grad():
            target = self.impl.compute_target(mini)
            return float(
                self.impl._q_func_forwarder.compute_error(
                    observations=mini.observations,
                    actions=mini.actions.long(),
                    rewards=mini.rewards,
                    target=target,
                    terminals=mini.terminals,
                    gamma=self.impl._gamma,
                )
            )

    def values(self, state: Float[Tensor, "b d"]) -> Float[Tensor, "b a"]:
        """The ensemble's minimum for all actions."""
        with torch.no_grad():
            q: Tensor = self.impl._q_func_forwarder.compute_expected_q(state, reduction="min")
        return q

    def tensors(self) -> dict[str, Tensor]:
        """Weights and optimiser states by name; live, not copies."""
        found = {f"{name}.{key}": t for name, module in self.modules.items() for key, t in module.state_dict().items()}
        for name, optimiser in self.optimisers.items():
            for i, parameter in enumerate(optimiser.param_groups[0]["params"]):
                found |= {f"{name}.{i}.{key}": t for key, t in optimiser.state[parameter].items()}
        return found | {"updates": torch.tensor(self.updates)}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `tensors` gave, bit for bit."""
        self.updates = int(tensors["updates"])
        for name, module in self.modules.items():
            module.load_state_dict(
                {k.removeprefix(f"{name}."): t for k, t in tensors.items() if k.startswith(f"{name}.")}
            )
        for name, optimiser in self.optimisers.items():
            for i, parameter in enumerate(optimiser.param_groups[0]["params"]):
                at = f"{name}.{i}."
                mine = {k.removeprefix(at): t for k, t in tensors.items() if k.startswith(at)}
                state = {key: t.clone().to(parameter.device) for key, t in mine.items()}
                if state:
                    optimiser.state[parameter] = state

    def snapshot(self) -> Tensor:
        """All weights as one vector, copied."""
        return nn.utils.parameters_to_vector([p.detach() for p in self._parameters()]).clone()

    def revert(self, snapshot: Tensor) -> None:
        """Put a snapshot's weights back."""
        parameters = self._parameters()
        nn.utils.vector_to_parameters(snapshot.to(parameters[0].device), parameters)

    def _parameters(self) -> list[nn.Parameter]:
        return [parameter for module in self.modules.values() for parameter in module.parameters()]


def common(config: BaselineConfig, prefixes: tuple[str, ...] = ("",)) -> dict[str, Any]:
    """Our options under d3rlpy's names; networks are named by prefix where it has several."""
    encoder, optimiser = VectorEncoderFactory(hidden_units=list(config.hidden)), FusedAdam()
    options: dict[str, Any] = {
        "batch_size": config.batch,
        "gamma": config.gamma,
        "n_critics": config.n_critics,
        "target_update_interval": config.target_update_interval,
    }
    for prefix in prefixes:
        options |= {
            f"{prefix}learning_rate": config.learning_rate,
            f"{prefix}encoder_factory": encoder,
            f"{prefix}optim_factory": optimiser,
        }
    return options


def create(algorithm: LearnableConfig, d: int, n_actions: int, seed: int, device: str, level: float = 0.0) -> Driven:
    """An untrained algorithm; d3rlpy draws its weights from torch's global generator, which is put back afterwards.

    Its values start at `level`, as those of this package's own learners do.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        algo = algorithm.create(device="cuda:0" if device == "cuda" else "cpu:0")
        algo.create_impl((d,), n_actions)
    if algo.impl is None:
        raise RuntimeError("d3rlpy built no implementation")
    driven = Driven(algo.impl)
    with torch.no_grad():
        for name in ("q_funcs", "targ_q_funcs"):
            for member in driven.modules[name].children():
                list(member.parameters())[-1].add_(level)  # the head's bias
    return driven


def fit(
    name: str,
    episodes: Episodes,
    config: BaselineConfig,
    algorithm: LearnableConfig,
    rule: Literal["greedy", "softmax"],
    seed: int,
    session: Session,
    actor: Callable[[Driven], nn.Module] | None = None,
    eps: float = 0.0,
    stops: bool = True,
) -> NetworkPolicy:
    """Train one of d3rlpy's algorithms and take its networks out.

    Args:
        actor: the module whose logits the policy serves or masks with, if there is one.
        eps: support threshold of a greedy policy, relative to the actor's likeliest action.
        stops: held-out patients' TD loss decides when to stop; the naive baselines train to the end.
    """
    prepared = batches.prepare(episodes, config.holdout, config.gamma, seed, session.device)
    with train.one_thread():
        level = train.level(prepared, config.gamma)
        driven = create(algorithm, prepared.fit.d, prepared.fit.n_actions, seed, session.device, level)
        task = train.Task(
            {"algorithm": driven},
            driven.update,
            lambda held: {"td": driven.td_loss(batches.everything(held))},
            {"td": ("algorithm",)} if stops else {},
            bootstraps=("td",),
            values=driven.values,
        )
        outcome = train.run(task, prepared, config, seed, session)
    return NetworkPolicy(
        learner=name,
        config=config.model_dump(mode="json"),
        rule=rule,
        scaler=prepared.scaler,
        features=episodes.features,
        n_actions=episodes.n_actions,
        actor=None if actor is None else network([actor(driven)]),
        critic=network(list(driven.impl.q_function)),
        eps=eps,
        reward_scale=prepared.reward_scale,
        curves=outcome.curves,
        notes=outcome.notes,
    )


def network(members: list[nn.Module]) -> Network:
    """The linear layers of equal d3rlpy modules, in order, as one stack."""
    layers = [[layer for layer in member.modules() if isinstance(layer, nn.Linear)] for member in members]
    weights = tuple(
        torch.stack([each[i].weight.detach().cpu().T for each in layers]).contiguous().numpy().copy()
        for i in range(len(layers[0]))
    )
    biases = tuple(
        torch.stack([each[i].bias.detach().cpu()[None] for each in layers]).numpy().copy()
        for i in range(len(layers[0]))
    )
    return Network(weights, biases)
