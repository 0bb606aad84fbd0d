"""One update of IQL equals a plain autograd version started from the same weights."""

import numpy as np
import torch
from torch import Tensor, nn

from policy import batches, iql, train
from policy.iql import Config
from policy.networks import Mlp
from tests import probes

CONFIG = Config(hidden=(16, 16), batch=40, learning_rate=1e-2, tau=0.8, target_rate=0.1, n_critics=2)
ALPHA = 0.4


def _copied(net: Mlp, member: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for weight, bias in zip(net.weights, net.biases, strict=True):
        linear = nn.Linear(weight.shape[1], weight.shape[2])
        linear.weight.data = weight[member].T.clone()
        linear.bias.data = bias[member, 0].clone()
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _step(loss: Tensor, modules: list[nn.Module]) -> None:
    optimiser = torch.optim.Adam([p for module in modules for p in module.parameters()], lr=CONFIG.learning_rate)
    loss.backward()
    optimiser.step()


def test_one_update_equals_a_reference_given_copied_weights() -> None:
    prepared = batches.prepare(probes.clinic(), 0.0, CONFIG.gamma, 0)
    actor, pair = train.actor(prepared, CONFIG, 0), iql.critic(prepared, CONFIG, 0)
    value, policy = _copied(pair.value.net, 0), _copied(actor.net, 0)
    qs = [_copied(pair.q.net, member) for member in range(2)]
    targets = [_copied(pair.q.net, member) for member in range(2)]
    batch = batches.Sampler(prepared.fit, CONFIG.batch, 0).at(0)
    iql._update(actor, pair, batch, CONFIG, ALPHA, False)

    state, following, action = batch.state, batch.next_state, batch.action
    with torch.no_grad():
        target_q = torch.stack([target(state).gather(1, action)[:, 0] for target in targets]).amin(0)
    u = target_q - value(state)[:, 0]
    _step((torch.where(u < 0, 1 - CONFIG.tau, CONFIG.tau) * u**2).mean(), [value])
    with torch.no_grad():
        weight = torch.exp((target_q - value(state)[:, 0]) / ALPHA).clamp(max=100.0)
        y = batch.reward + CONFIG.gamma * batch.alive * value(following)[:, 0]
    log_prob = torch.log_softmax(policy(state), 1).gather(1, action)[:, 0]
    _step(-(weight / weight.sum() * log_prob).sum(), [policy])
    _step(sum(((q(state).gather(1, action)[:, 0] - y) ** 2).mean() for q in qs), list(qs))  # type: ignore[arg-type]

    fresh = torch.from_numpy(np.random.default_rng(1).normal(size=(9, 6)).astype(np.float32))
    with torch.no_grad():
        assert torch.allclose(pair.value.net.forward(fresh)[0], value(fresh), atol=1e-5)
        assert torch.allclose(actor.net.forward(fresh)[0], policy(fresh), atol=1e-5)
        for member, (q, target) in enumerate(zip(qs, targets, strict=True)):
            assert torch.allclose(pair.q.net.forward(fresh)[member], q(fresh), atol=1e-5)
            moved = 0.9 * target[0].weight + 0.1 * q[0].weight
            assert torch.allclose(pair.q.target_net.weights[0][member].T, moved, atol=1e-6)
