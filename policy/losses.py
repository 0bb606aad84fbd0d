"""Losses: pure functions of network outputs, each with its gradient written out."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

Level = float | Float[Tensor, "k 1"]
"""One expectile for all, or one per stacked critic."""


def expectile(u: Float[Tensor, "*n"], tau: Level) -> Float[Tensor, "*n"]:
    """|tau - 1(u < 0)| u^2: u > 0 (prediction too low) costs tau, u < 0 costs 1 - tau (Kostrikov 2021, eq. 5)."""
    return _side(u, tau) * u * u


def expectile_gradient(u: Float[Tensor, "*n"], tau: Level) -> Float[Tensor, "*n"]:
    """Derivative of `expectile` with respect to the prediction v, where u = target - v."""
    return _side(u, tau) * u * -2.0


def chosen(values: Float[Tensor, "m b a"], action: Int[Tensor, "*g b 1"]) -> Float[Tensor, "m b"]:
    """The value of the logged action, for each member; actions are all members' or those of g equal groups of them."""
    return values.gather(2, _each(action, len(values))).squeeze(2)


def squared_error_gradient(
    values: Float[Tensor, "m b a"], action: Int[Tensor, "*g b 1"], target: Float[Tensor, "*b"]
) -> Float[Tensor, "m b a"]:
    """Gradient of the sum over members of mean (Q(s, a) - target)^2 with respect to all of Q(s, .).

    `target` is (b,) where all members share it, or (m, b).
    """
    index = _each(action, len(values))
    error = (values.gather(2, index).squeeze(2) - target) * (2.0 / action.shape[-2])
    return torch.zeros_like(values).scatter_(2, index, error.unsqueeze(2))


def weighted_nll(
    logits: Float[Tensor, "m b a"], action: Int[Tensor, "b 1"], weight: Float[Tensor, "b"]
) -> Float[Tensor, "m"]:
    """-sum of w log pi(a|s), the weights as given (they should sum to 1)."""
    return -(chosen(torch.log_softmax(logits, 2), action) * weight).sum(1)


def weighted_nll_gradient(
    logits: Float[Tensor, "m b a"], action: Int[Tensor, "b 1"], weight: Float[Tensor, "b"]
) -> Float[Tensor, "m b a"]:
    """Gradient of `weighted_nll` with respect to the logits: w (softmax - one-hot)."""
    index = action.expand(logits.shape[0], *action.shape)
    gradient = torch.softmax(logits, 2) * weight.view(1, -1, 1)
    return gradient.scatter_add_(2, index, (-weight).view(1, -1, 1).expand_as(index))


def advantage_weights(advantage: Float[Tensor, "b"], alpha: float, clip: float) -> Float[Tensor, "b"]:
    """exp(A / alpha), at most `clip`, normalised to sum to 1; alpha to infinity gives behaviour cloning."""
    weight = torch.exp(advantage / alpha).clamp(max=clip)
    return weight / weight.sum()


def _each(action: Int[Tensor, "*g b 1"], members: int) -> Int[Tensor, "m b 1"]:
    own = action if action.dim() == 2 else action.repeat_interleave(members // len(action), 0)
    return own.expand(members, *action.shape[-2:])


def _side(u: Float[Tensor, "*n"], tau: Level) -> Float[Tensor, "*n"]:
    return torch.where(u < 0, 1.0 - tau, tau)
