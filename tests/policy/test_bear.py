"""BEAR: the distance between dose distributions is exact, and the policy pays for it."""

import numpy as np
import pytest
import torch

import policy
from policy import bear
from tests import probes


def test_distance_of_two_single_doses_by_hand() -> None:
    """MMD^2 of two point masses is k(a, a) + k(b, b) - 2 k(a, b) = 2 - 2 exp(-distance)."""
    one, other = torch.zeros(1, 25), torch.zeros(1, 25)
    one[0, 0], other[0, 7] = 1.0, 1.0  # fluid bin 0, pressor bin 0; fluid bin 1, pressor bin 2: three bins apart
    found = bear.mmd2(one, other, bear.kernel(25, 1.0))
    assert found.item() == pytest.approx(2 - 2 * np.exp(-3), rel=1e-5)


def test_other_action_sets_have_no_order() -> None:
    assert torch.equal(bear.kernel(7, 1.0), torch.eye(7))
    probs, usual = torch.tensor([[0.5, 0.5, 0.0]]), torch.tensor([[0.0, 0.5, 0.5]])
    assert bear.mmd2(probs, usual, bear.kernel(3, 1.0)).item() == pytest.approx(0.5)


def test_distance_from_itself_is_zero() -> None:
    probs = torch.softmax(torch.randn(6, 25, generator=torch.Generator().manual_seed(0)), 1)
    assert bear.mmd2(probs, probs, bear.kernel(25, 1.0)).abs().max() < 1e-7


def test_actor_gradient_equals_autograd() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 25, generator=generator).requires_grad_()
    q = torch.randn(5, 25, generator=generator)
    usual = torch.softmax(torch.randn(5, 25, generator=generator), 1)
    similar = bear.kernel(25, 1.0)
    probs = torch.softmax(logits, 1)
    (-(probs * q).sum(1) + 3.0 * bear.mmd2(probs, usual, similar)).mean().backward()
    assert logits.grad is not None
    assert torch.allclose(bear.actor_gradient(probs.detach(), q, usual, similar, 3.0), logits.grad, atol=1e-6)


def test_price_rises_while_the_policy_is_too_far_and_falls_when_it_is_near() -> None:
    dual = bear.Dual()
    dual.step(0.05, limit=0.01, rate=0.1)
    assert dual.price == pytest.approx(np.exp(0.1))
    dual.step(0.0, limit=0.01, rate=0.1)
    assert dual.price == pytest.approx(1.0)


def test_a_tight_limit_keeps_the_policy_near_the_clinicians() -> None:
    options = probes.small("bear") | {"updates": 300, "dual_rate": 0.1}
    loose, tight = (policy.fit("bear", probes.clinic(), options | {"eps": eps}).notes["mmd"] for eps in (0.6, 0.1))
    assert tight < 0.16
    assert loose > 2 * tight
