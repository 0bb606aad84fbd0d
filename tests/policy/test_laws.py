"""Laws of the learners: tabular fixed points, one-step references, what is never asked, equal divergence, stopping."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import policy
from policy import awac, awr, batches, bc, bear, dpo, extraction, iql, losses, masked, train
from policy.behaviour import BehaviourConfig
from policy.masked import ExtractionConfig
from policy.networks import Learned, Mlp
from policy.train import TrainConfig
from tests import probes
from tests.policy.test_policies import tiny
from tests.policy.test_reference import _copied

CLINICIANS = BehaviourConfig(**probes.CLINICIANS)
SMALL = {"hidden": (16, 16), "batch": 40, "learning_rate": 1e-2}
VALUED = ("awac", "iql", "cql", "bcq", "bear", "dqn", "sac")


# Tabular fixed points, by the learners' own losses and gradients: a state of two logged actions, each leading on.
ACTION = torch.tensor([[0], [0], [0], [1], [0], [1]])
STATE = torch.tensor([0, 0, 0, 0, 1, 1])
FOLLOWING = torch.tensor([1, 1, 1, 2, 2, 2])
REWARD = torch.tensor([0.0, 0.0, 0.0, 1.0, 4.0, -2.0])
ALIVE = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0, 0.0])


def fixed_point(tau: float, scale: float = 1.0, gamma: float = 0.5) -> tuple[Tensor, Tensor]:
    """V (3,) and Q (3, 2) at which IQL's expectile gradient and its TD error vanish; row 2 of V is never asked."""
    value, q = torch.zeros(3, dtype=torch.float64), torch.zeros(3, 2, dtype=torch.float64)
    for _ in range(3000):
        chosen = losses.chosen(q[STATE][None], ACTION)[0]
        gradient = losses.expectile_gradient(chosen - value[STATE], tau)
        value = value - 0.1 * torch.zeros_like(value).index_add_(0, STATE, gradient)
        target = (REWARD * scale).double() + gamma * ALIVE * value[FOLLOWING]
        q[STATE, ACTION[:, 0]] = target
    return value, q


def test_at_tau_one_half_the_value_is_the_behaviours_own() -> None:
    """V(1) = (4 - 2) / 2; V(0) = three quarters of gamma V(1), one quarter of 1."""
    value, q = fixed_point(0.5)
    assert value[1] == pytest.approx(1.0, abs=1e-6)
    assert q[0].tolist() == pytest.approx([0.5, 1.0], abs=1e-6)
    assert value[0] == pytest.approx(0.75 * 0.5 + 0.25 * 1.0, abs=1e-6)


def test_values_rise_with_tau_towards_the_best_logged_action() -> None:
    values = torch.stack([fixed_point(tau)[0][:2] for tau in (0.3, 0.5, 0.7, 0.9, 0.99)])
    assert (values.diff(dim=0) > 0).all()
    assert values[-1].tolist() == pytest.approx([2.0, 4.0], rel=0.05)


def test_scaling_reward_and_alpha_together_changes_no_weight() -> None:
    weights = []
    for scale in (1.0, 7.3):
        value, q = fixed_point(0.8, scale)
        advantage = losses.chosen(q[STATE][None], ACTION)[0] - value[STATE]
        weights.append(losses.advantage_weights(advantage, 0.4 * scale, 1e6))
    assert torch.allclose(weights[0], weights[1], atol=1e-9)
    assert weights[0].max() > 2 * weights[0].min()


def test_iql_never_asks_the_value_of_an_action_outside_the_data() -> None:
    """Whatever the networks say of actions that no record has, V, Q's logged values and the policy's weights stay."""
    episodes = probes.action_choice()[0]
    wide = replace(episodes, n_actions=5)
    prepared, config = batches.prepare(wide, 0.0, 0.9, 0), iql.Config(**SMALL)
    found = []
    for unseen in (0.0, 1e6):
        actor, pair = train.actor(prepared, config, 0), iql.critic(prepared, config, 0)
        for net in (pair.q.net, pair.q.target_net):
            net.biases[-1][:, :, 2:] += unseen
        for update in range(5):
            iql._update(actor, pair, batches.Sampler(prepared.fit, 40, 0).at(update), config, 1.0, False)
        state = prepared.fit.states[:4]
        logged = pair.q.net.forward(state)[:, :, :2].clone()
        found.append((pair.value.net.flat.clone(), actor.net.flat.clone(), logged))
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


def stepped(loss: Tensor, modules: list[nn.Module]) -> None:
    optimiser = torch.optim.Adam([p for module in modules for p in module.parameters()], lr=SMALL["learning_rate"])
    loss.backward()
    optimiser.step()


def same(net: Mlp, modules: list[nn.Module], state: Tensor) -> None:
    """The gradient just followed (Adam's step would hide its scale), and the outputs after it."""
    with torch.no_grad():
        for member, module in enumerate(modules):
            layers = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
            for layer, own in zip(layers, net.weight_grads, strict=True):
                assert layer.weight.grad is not None
                assert torch.allclose(own[member].T, layer.weight.grad, atol=1e-5)
            assert torch.allclose(net.forward(state)[member], module(state), atol=1e-5)


def started(config: TrainConfig, target: bool = True) -> tuple[batches.Prepared, batches.Batch, Learned, Learned]:
    """Data, a minibatch, an actor and a twin critic."""
    prepared = batches.prepare(probes.clinic(), 0.0, config.gamma, 0)
    sizes = (prepared.fit.d, *config.hidden, prepared.fit.n_actions)
    q = (
        train.values("critic", sizes, 2, prepared, config, 0)
        if target
        else train.learned("critic", sizes, 2, config, 0, "cpu")
    )
    return prepared, batches.Sampler(prepared.fit, 40, 0).at(0), train.actor(prepared, config, 0), q


def test_one_update_of_bc_equals_a_reference() -> None:
    prepared, batch, actor, _ = started(bc.Config(**SMALL))
    net = _copied(actor.net, 0)
    bc.update(actor, batch, bc.mean_weight(batch), False)
    stepped(nn.functional.cross_entropy(net(batch.state), batch.action[:, 0]), [net])
    same(actor.net, [net], prepared.fit.states)


def test_one_update_of_awr_equals_a_reference() -> None:
    config = awr.Config(**SMALL, weight_clip=3.0)
    prepared, batch, actor, _ = started(config)
    value = train.values("value", (6, 16, 16, 1), 1, prepared, config, 0)
    v, pi = _copied(value.net, 0), _copied(actor.net, 0)
    returns = torch.from_numpy(prepared.episodes.returns_to_go(0.99).astype(np.float32))[batch.row]
    awr._update(actor, value, batch, returns, 0.5, config, False)
    stepped(((v(batch.state)[:, 0] - returns) ** 2).mean(), [v])
    with torch.no_grad():
        weight = torch.exp((returns - v(batch.state)[:, 0]) / 0.5).clamp(max=3.0)
    log_prob = torch.log_softmax(pi(batch.state), 1).gather(1, batch.action)[:, 0]
    stepped(-(weight / weight.sum() * log_prob).sum(), [pi])
    same(value.net, [v], prepared.fit.states)
    same(actor.net, [pi], prepared.fit.states)


def reference_td(batch: batches.Batch, pi: nn.Module, qs: list[nn.Module], targets: list[nn.Module]) -> None:
    """The twin critics' step towards r + gamma E_pi min target Q(s', .), the expectation over all actions."""
    with torch.no_grad():
        least = torch.stack([target(batch.next_state) for target in targets]).amin(0)
        y = batch.reward + 0.99 * batch.alive * (torch.softmax(pi(batch.next_state), 1) * least).sum(1)
    errors = [(q(batch.state).gather(1, batch.action)[:, 0] - y) ** 2 for q in qs]
    stepped(sum(error.mean() for error in errors), qs)  # type: ignore[arg-type]


def test_one_update_of_awac_equals_a_reference() -> None:
    config = awac.Config(**SMALL, target_rate=0.1)
    prepared, batch, actor, q = started(config)
    pi, qs, targets = _copied(actor.net, 0), [_copied(q.net, m) for m in (0, 1)], [_copied(q.net, m) for m in (0, 1)]
    awac._update(actor, q, batch, 0.5, config, False)
    reference_td(batch, pi, qs, targets)
    with torch.no_grad():
        least = torch.stack([one(batch.state) for one in qs]).amin(0)
        expected = (torch.softmax(pi(batch.state), 1) * least).sum(1)
        weight = torch.exp((least.gather(1, batch.action)[:, 0] - expected) / 0.5).clamp(max=config.weight_clip)
    log_prob = torch.log_softmax(pi(batch.state), 1).gather(1, batch.action)[:, 0]
    stepped(-(weight / weight.sum() * log_prob).sum(), [pi])
    same(q.net, qs, prepared.fit.states)
    same(actor.net, [pi], prepared.fit.states)


def test_one_update_of_bear_equals_a_reference() -> None:
    config = bear.Config(**SMALL, target_rate=0.1)
    prepared, batch, actor, q = started(config)
    pi, qs, targets = _copied(actor.net, 0), [_copied(q.net, m) for m in (0, 1)], [_copied(q.net, m) for m in (0, 1)]
    usual = torch.softmax(torch.from_numpy(np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)), 1)
    dual, similar = bear.Dual(), bear.kernel(4, 1.0)
    bear._update(actor, q, dual, batch, usual, similar, config, False)
    reference_td(batch, pi, qs, targets)
    with torch.no_grad():
        least = torch.stack([one(batch.state) for one in qs]).amin(0)
    probs = torch.softmax(pi(batch.state), 1)
    away = ((probs - usual) @ similar * (probs - usual)).sum(1)
    stepped((-(probs * least).sum(1) + 1.0 * away).mean(), [pi])  # the price starts at 1
    same(q.net, qs, prepared.fit.states)
    same(actor.net, [pi], prepared.fit.states)
    assert dual.price > 1.0


def test_one_update_of_dpo_equals_a_reference() -> None:
    config = dpo.Config(**SMALL, beta=0.3)
    prepared, batch, actor, _ = started(config)
    pi, rng = _copied(actor.net, 0), np.random.default_rng(0)
    rejected = torch.from_numpy((batch.action[:, 0].numpy() + rng.integers(1, 4, 40)) % 4)
    weight, apart = (torch.from_numpy(rng.random(40).astype(np.float32)) for _ in range(2))
    dpo._update(actor, batch, torch.stack([rejected.float(), weight, apart], 1), 0.3, False)
    log_prob = torch.log_softmax(pi(batch.state), 1)
    margin = log_prob.gather(1, batch.action)[:, 0] - log_prob.gather(1, rejected[:, None])[:, 0] - apart
    stepped(-(weight * nn.functional.logsigmoid(0.3 * margin)).sum() / weight.sum(), [pi])
    same(actor.net, [pi], prepared.fit.states)


@pytest.mark.parametrize("name", VALUED)
def test_every_critic_can_be_served_within_support_at_one_divergence(name: str) -> None:
    ward = probes.clinic()
    fitted = masked.masked(
        policy.fit(name, ward, tiny(name)), ward, ExtractionConfig(eps=0.05, target_kl=0.03), 0, CLINICIANS
    )
    usual = replace(fitted, rule="softmax").probs(ward.state).astype(np.float64)
    probs = fitted.probs(ward.state).astype(np.float64)
    within = extraction.mask(usual, 0.05)
    assert fitted.learner == f"{name}_masked"
    assert probs[~within].sum() == 0
    assert extraction.kl(probs, extraction.renormalised(usual, 0.05)).mean() == pytest.approx(0.03, rel=1e-3)


def test_conservative_iql_is_the_shared_masked_extraction_of_its_own_critic() -> None:
    ward = probes.clinic()
    options = {"eps": 0.05, "target_kl": 0.03}
    whole = policy.fit("conservative_iql", ward, tiny("conservative_iql") | options)
    again = masked.masked(whole, ward, ExtractionConfig(**options), 0, BehaviourConfig(**whole.config["behaviour"]))
    kept, _ = batches.split(ward, whole.config["holdout"], 0)
    assert extraction.kl(
        whole.probs(kept.state).astype(np.float64),
        extraction.renormalised(replace(whole, rule="softmax").probs(kept.state).astype(np.float64), 0.05),
    ).mean() == pytest.approx(0.03, rel=1e-3)
    assert again.alpha == pytest.approx(whole.alpha, rel=0.2)  # solved on all states, not on the training ones alone


def test_training_stops_when_held_out_patients_no_longer_gain_and_keeps_the_best_weights() -> None:
    ward = probes.clinic(patients=60)
    options = {
        "hidden": (64,),
        "batch": 32,
        "learning_rate": 1e-2,
        "evaluate_every": 20,
        "patience": 3,
        "min_updates": 0,
    }
    stopped = policy.fit("bc", ward, options | {"updates": 2000})
    losses_seen = [row["held_nll"] for row in stopped.curves]
    best = int(stopped.curves[int(np.argmin(losses_seen))]["update"])
    assert (stopped.notes["ended"], stopped.notes["best_at"]) == ("early", {"nll": best})
    assert stopped.notes["updates"] == best + 3 * 20
    assert np.array_equal(
        policy.fit("bc", ward, options | {"updates": best}).probs(ward.state), stopped.probs(ward.state)
    )


def test_a_critic_that_bootstraps_counts_only_once_values_have_travelled() -> None:
    ward = probes.clinic(patients=60)
    options = tiny("iql") | {"updates": 60, "evaluate_every": 10, "learning_rate": 1e-2, "patience": 100}
    early, late = (policy.fit("iql", ward, options | {"min_updates": least}) for least in (0, 60))
    assert (early.notes["best_at"]["critic"], late.notes["best_at"]["critic"]) == (10, 60)
    assert early.notes["best_at"]["nll"] == late.notes["best_at"]["nll"] == 20


@pytest.mark.parametrize("name", ["bc", "conservative_iql", "dqn"])
def test_the_same_seed_gives_the_same_policy_and_another_seed_another(name: str) -> None:
    ward = probes.clinic(patients=40)
    one, same_seed, other = (policy.fit(name, ward, tiny(name), seed=seed) for seed in (3, 3, 4))
    asked = one.probs if name != "dqn" else one.q
    again = same_seed.probs if name != "dqn" else same_seed.q
    different = other.probs if name != "dqn" else other.q
    assert np.array_equal(asked(ward.state), again(ward.state))
    assert not np.array_equal(asked(ward.state), different(ward.state))
