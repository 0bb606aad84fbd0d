"""Losses: hand-worked values, and gradients equal to autograd's."""

import math

import pytest
import torch

from policy import losses


@pytest.mark.parametrize(
    ("u", "tau", "expected"), [(2.0, 0.7, 2.8), (-2.0, 0.7, 1.2), (2.0, 0.5, 2.0), (0.0, 0.9, 0.0)]
)
def test_expectile_loss_by_hand(u: float, tau: float, expected: float) -> None:
    assert losses.expectile(torch.tensor([u]), tau).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("tau", "expected"), [(0.5, 16 / 3), (0.7, 80 / 13), (0.9, 80 / 11), (0.999, 8 / 1.001)])
def test_expectile_of_3_5_8_is_where_the_gradient_vanishes(tau: float, expected: float) -> None:
    q = torch.tensor([3.0, 5.0, 8.0], dtype=torch.float64)
    assert losses.expectile_gradient(q - expected, tau).sum().item() == pytest.approx(0.0, abs=1e-6)
    assert losses.expectile_gradient(q - (expected - 0.001), tau).sum().item() < 0
    assert losses.expectile_gradient(q - (expected + 0.001), tau).sum().item() > 0


def test_expectile_gradient_equals_autograd() -> None:
    v = torch.tensor([0.5, -1.0, 2.0], requires_grad=True)
    target = torch.tensor([1.0, -2.0, 2.5])
    losses.expectile(target - v, 0.8).sum().backward()
    assert v.grad is not None
    assert torch.allclose(losses.expectile_gradient(target - v.detach(), 0.8), v.grad)


def test_squared_error_gradient_equals_autograd() -> None:
    q = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    action, target = torch.tensor([[0], [2], [1], [1]]), torch.tensor([1.0, 0.0, -1.0, 2.0])
    ((losses.chosen(q, action) - target) ** 2).mean(1).sum().backward()
    assert q.grad is not None
    assert torch.allclose(losses.squared_error_gradient(q.detach(), action, target), q.grad, atol=1e-6)


def test_weighted_nll_gradient_equals_autograd() -> None:
    logits = torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    action, weight = torch.tensor([[0], [2], [1], [1]]), torch.tensor([0.1, 0.2, 0.3, 0.4])
    losses.weighted_nll(logits, action, weight).sum().backward()
    assert logits.grad is not None
    assert torch.allclose(losses.weighted_nll_gradient(logits.detach(), action, weight), logits.grad, atol=1e-6)


def test_nll_of_even_odds_is_log_of_the_number_of_actions() -> None:
    weight = torch.full((2,), 0.5)
    found = losses.weighted_nll(torch.zeros(1, 2, 25), torch.tensor([[3], [7]]), weight)
    assert found.item() == pytest.approx(math.log(25))


@pytest.mark.parametrize(("alpha", "expected"), [(1.0, (0.0179, 0.9797, 0.0024)), (5.0, (0.2567, 0.5713, 0.1720))])
def test_awr_weights_of_the_guide(alpha: float, expected: tuple[float, ...]) -> None:
    returns = torch.tensor([3.0, 7.0, 1.0])
    weight = losses.advantage_weights(returns - returns.mean(), alpha, clip=100.0)
    assert weight.tolist() == pytest.approx(expected, abs=5e-4)


def test_weights_are_clipped_before_they_are_normalised() -> None:
    weight = losses.advantage_weights(torch.tensor([50.0, 0.0]), 1.0, clip=100.0)
    assert weight.tolist() == pytest.approx([100 / 101, 1 / 101])


def test_a_huge_temperature_weighs_all_alike_bit_for_bit() -> None:
    weight = losses.advantage_weights(torch.linspace(-3, 3, 7), 1e9, clip=100.0)
    assert torch.equal(weight, torch.full((7,), 1.0 / 7))
