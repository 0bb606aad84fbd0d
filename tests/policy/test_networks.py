"""Networks: the gradient written by hand is autograd's, and a frozen copy gives the same outputs."""

import numpy as np
import pytest
import torch

from policy.networks import Learned, Mlp


def _autograd(net: Mlp, x: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    weights = [w.clone().requires_grad_() for w in net.weights]
    biases = [b.clone().requires_grad_() for b in net.biases]
    hidden = x.expand(net.members, *x.shape[-2:])
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        hidden = torch.baddbmm(bias, hidden, weight)
        if layer + 1 < len(weights):
            hidden = torch.relu(hidden)
    hidden.backward(gradient)
    pairs = zip(weights, biases, strict=True)
    return torch.cat([part.grad.flatten() for pair in pairs for part in pair if part.grad is not None])


@pytest.mark.parametrize(("members", "shared"), [(1, True), (2, True), (3, False)])
def test_hand_written_gradient_equals_autograd(members: int, shared: bool) -> None:
    rng = np.random.default_rng(1)
    net = Mlp((5, 16, 16, 4), members, rng)
    shape = (9, 5) if shared else (members, 9, 5)
    x = torch.from_numpy(rng.normal(size=shape).astype(np.float32))
    gradient = torch.from_numpy(rng.normal(size=(members, 9, 4)).astype(np.float32))
    expected = _autograd(net, x, gradient)
    net.forward(x)
    net.backward(gradient)
    assert torch.allclose(net.grad, expected, atol=1e-5, rtol=1e-5)


def test_frozen_network_gives_the_same_outputs() -> None:
    rng = np.random.default_rng(2)
    net = Mlp((5, 16, 4), 2, rng)
    x = rng.normal(size=(7, 5)).astype(np.float32)
    assert np.allclose(net.freeze()(x), net.forward(torch.from_numpy(x)).numpy(), atol=1e-6)


def test_moving_average_goes_the_stated_share_of_the_way() -> None:
    learned = Learned(Mlp((2, 3), 1, np.random.default_rng(0)), 1e-3, with_target=True)
    learned.target_net.flat.zero_()
    learned.average(0.25)
    assert torch.equal(learned.target_net.flat, learned.net.flat * 0.25)


def test_restored_network_continues_bit_for_bit() -> None:
    def grown() -> Learned:
        return Learned(Mlp((2, 3), 1, np.random.default_rng(0)), 1e-2, with_target=True)

    first, second = grown(), grown()
    for _ in range(3):
        first.net.grad.fill_(0.5)
        first.step()
        first.average(0.1)
    second.restore({name: tensor.clone() for name, tensor in first.tensors().items()})
    for net in (first, second):
        net.net.grad.copy_(net.net.flat)
        net.step()
    assert torch.equal(first.net.flat, second.net.flat)
    assert torch.equal(first.target_net.flat, second.target_net.flat)


def test_an_adam_step_is_torchs_own_bit_for_bit() -> None:
    net = Mlp((3, 5, 2), 2, np.random.default_rng(0))
    learned, parameter = Learned(net, 1e-2), torch.nn.Parameter(net.flat.clone())
    plain = torch.optim.Adam([parameter], lr=1e-2, fused=True)
    for seed in range(3):
        net.grad.copy_(torch.from_numpy(np.random.default_rng(seed).normal(size=len(net.grad)).astype(np.float32)))
        parameter.grad = net.grad.clone()
        learned.step()
        plain.step()
    assert torch.equal(net.flat, parameter.detach())
