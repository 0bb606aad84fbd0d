"""Networks: stacks of equal MLPs, forward and backward written out, and what is left when training is over."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

ROWS_AT_ONCE = 65_536


@dataclass(frozen=True)
class Network:
    """A trained stack of `m` MLPs with ReLU between the layers; NumPy only."""

    weights: tuple[Float32[np.ndarray, "m _ _"], ...]
    biases: tuple[Float32[np.ndarray, "m 1 _"], ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Widths from the input to the output."""
        return (self.weights[0].shape[1], *(weight.shape[2] for weight in self.weights))

    def __call__(self, state: Float32[np.ndarray, "n d"]) -> Float32[np.ndarray, "m n o"]:
        """Outputs of every member for scaled states."""
        parts = [self._rows(state[at : at + ROWS_AT_ONCE]) for at in range(0, max(len(state), 1), ROWS_AT_ONCE)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def _rows(self, state: Float32[np.ndarray, "n d"]) -> Float32[np.ndarray, "m n o"]:
        hidden = state[None]
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            hidden = np.maximum(hidden @ weight + bias, 0.0)
        out: np.ndarray = hidden @ self.weights[-1] + self.biases[-1]
        return out


class Mlp:
    """`members` MLPs of one shape side by side, with ReLU between the layers and the gradient written out by hand.

    Parameters and gradients are two flat tensors, layer by layer, so that one fused optimiser step and one
    moving average serve all of them. Weights start uniform in +-1/sqrt(fan-in), as torch's linear layers do.
    """

    def __init__(self, sizes: Sequence[int], members: int, rng: np.random.Generator, device: str = "cpu") -> None:
        self.sizes, self.members, self.device = tuple(sizes), members, device
        shapes = [(members, i, o) for i, o in itertools.pairwise(sizes)]
        start = [
            rng.uniform(-1.0, 1.0, size=members * (i + 1) * o).astype(np.float32) / np.float32(np.sqrt(i))
            for _, i, o in shapes
        ]
        self.flat = torch.from_numpy(np.concatenate(start)).to(device)
        self.grad = torch.zeros_like(self.flat)
        self.weights, self.biases = _views(self.flat, shapes)
        self.weight_grads, self.bias_grads = _views(self.grad, shapes)
        self._buffers: dict[tuple[int, bool], list[Tensor]] = {}
        self._inputs: list[Tensor] = []
        self._below: dict[tuple[int, int], Tensor] = {}

    def forward(self, x: Float[Tensor, "*g b d"], keep: bool = True) -> Float[Tensor, "m b o"]:
        """Outputs for one batch shared by all members, or one for each group; valid until the next call of its kind.

        Args:
            x: (b, d), or (g, b, d) for g equal groups of members that lie one after the other.
            keep: the activations are needed by `backward`.
        """
        own = x if x.dim() == 2 else x.repeat_interleave(self.members // len(x), 0)
        hidden = own.expand(self.members, *x.shape[-2:])
        buffers = self._buffers_for(x.shape[-2], keep)
        inputs = [hidden]
        for weight, bias, out in zip(self.weights, self.biases, buffers, strict=True):
            torch.baddbmm(bias, hidden, weight, out=out)
            if out is not buffers[-1]:
                out.relu_()
            inputs.append(out)
            hidden = out
        if keep:
            self._inputs = inputs[:-1]
        return hidden

    def backward(self, gradient: Float[Tensor, "m b o"]) -> None:
        """Fill `grad` with the loss's gradient, given that with respect to the kept forward's outputs."""
        for layer in range(len(self.weights) - 1, -1, -1):
            hidden = self._inputs[layer]
            torch.bmm(hidden.transpose(1, 2), gradient, out=self.weight_grads[layer])
            torch.sum(gradient, dim=1, keepdim=True, out=self.bias_grads[layer])
            if layer:
                below = self._below_for(layer, hidden)
                torch.bmm(gradient, self.weights[layer].transpose(1, 2), out=below)
                torch.ops.aten.threshold_backward(below, hidden, 0, grad_input=below)
                gradient = below

    def load(self, network: Network) -> None:
        """Take over the weights of a network of the same shape."""
        for own, other in zip(self.weights + self.biases, network.weights + network.biases, strict=True):
            own.copy_(torch.from_numpy(other.copy()))

    def freeze(self) -> Network:
        """A copy of the weights for use without torch."""
        return Network(
            tuple(weight.detach().cpu().numpy().copy() for weight in self.weights),
            tuple(bias.detach().cpu().numpy().copy() for bias in self.biases),
        )

    def _below_for(self, layer: int, hidden: Float[Tensor, "m b h"]) -> Float[Tensor, "m b h"]:
        """Where the gradient that reaches a layer's inputs goes."""
        key = (layer, hidden.shape[1])
        if key not in self._below:
            if len(self._below) > 8:
                self._below.clear()
            self._below[key] = torch.empty_like(hidden)
        return self._below[key]

    def _buffers_for(self, rows: int, keep: bool) -> list[Tensor]:
        if (rows, keep) not in self._buffers:
            if len(self._buffers) > 8:
                self._buffers.clear()
            self._buffers[rows, keep] = [self.flat.new_empty(self.members, rows, o) for o in self.sizes[1:]]
        return self._buffers[rows, keep]


class Learned:
    """An Mlp with its Adam optimiser and, where asked for, a moving average of its weights."""

    def __init__(self, net: Mlp, learning_rate: float, with_target: bool = False) -> None:
        self.net, self.learning_rate = net, learning_rate
        self.moments = {
            "step": torch.zeros((), device=net.device),
            "exp_avg": torch.zeros_like(net.flat),
            "exp_avg_sq": torch.zeros_like(net.flat),
        }
        self.target = _twin(net) if with_target else None

    def step(self) -> None:
        """One Adam step along the gradient that `net.backward` left.

        The kernel of torch.optim.Adam(fused=True), bit for bit, without the optimiser's own 40 microseconds.
        """
        moments = self.moments
        moments["step"] += 1
        torch._fused_adam_(
            [self.net.flat], [self.net.grad], [moments["exp_avg"]], [moments["exp_avg_sq"]], [], [moments["step"]],
            lr=self.learning_rate, beta1=0.9, beta2=0.999, weight_decay=0.0, eps=1e-8, amsgrad=False, maximize=False,
        )  # fmt: skip

    @property
    def target_net(self) -> Mlp:
        """The moving average."""
        if self.target is None:
            raise ValueError("this network was made without a moving average")
        return self.target

    def average(self, rate: float) -> None:
        """Move the target's weights towards the net's: target += rate (net - target)."""
        self.target_net.flat.lerp_(self.net.flat, rate)

    def tensors(self) -> dict[str, Tensor]:
        """All that training changes, by name: weights, target, Adam's moments and step count; live, not copies."""
        found = {"weights": self.net.flat, **self.moments}
        return found | ({"target": self.target.flat} if self.target is not None else {})

    def snapshot(self) -> Tensor:
        """The net's weights, copied."""
        return self.net.flat.clone()

    def revert(self, snapshot: Tensor) -> None:
        """Put a snapshot's weights back; the target and the optimiser stay."""
        self.net.flat.copy_(snapshot)

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `tensors` gave, bit for bit."""
        self.net.flat.copy_(tensors["weights"])
        if self.target is not None:
            self.target.flat.copy_(tensors["target"])
        for name, moment in self.moments.items():
            moment.copy_(tensors[name])


def _twin(net: Mlp) -> Mlp:
    twin = Mlp(net.sizes, net.members, np.random.default_rng(0), net.device)
    twin.flat.copy_(net.flat)
    return twin


def _views(flat: Tensor, shapes: list[tuple[int, int, int]]) -> tuple[list[Tensor], list[Tensor]]:
    weights, biases, at = [], [], 0
    for m, i, o in shapes:
        weights.append(flat[at : at + m * i * o].view(m, i, o))
        at += m * i * o
        biases.append(flat[at : at + m * o].view(m, 1, o))
        at += m * o
    return weights, biases
