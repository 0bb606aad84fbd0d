"""Sweep: stacked critics are the single ones, and the rule selects without a value estimate."""

import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import policy
from cohort import workers
from cohort.episodes import Episodes
from cohort.errors import ArtifactError, ConfigError, InputError
from policy import batches, iql, lab, stack, sweep
from policy.advantage import AdvantageConfig
from policy.behaviour import BehaviourConfig
from policy.stack import StackConfig
from policy.sweep import Setting, SweepConfig
from policy.train import Session
from tests import probes

CRITIC = AdvantageConfig(hidden=(16,), batch=40, updates=40, evaluate_every=20, min_updates=0)
CLINICIANS = BehaviourConfig(**probes.CLINICIANS)
ROW = Setting("conservative_iql", 0.7, 0.1, None, 0.1, 0, 0.5, 0.1, "within bounds", 1.0, 0.1, 0.1, 5.0, 300.0, None)


def test_stacked_critics_equal_single_ones() -> None:
    ward = probes.clinic()
    stacked = stack.critics(ward, CRITIC, (0.5, 0.8), (3,))
    options = CRITIC.model_dump() | {"behaviour": probes.CLINICIANS, "eps": 0.01, "target_kl": 0.01}
    for (tau, _), critic in stacked.items():
        single = policy.fit("conservative_iql", ward, options | {"tau": tau}, seed=3)
        assert critic.q(ward.state) == pytest.approx(single.q(ward.state), abs=1e-4)
    assert not np.allclose(stacked[0.5, 3].q(ward.state), stacked[0.8, 3].q(ward.state), atol=1e-3)


def test_each_seed_of_a_stack_takes_the_step_it_takes_alone_on_its_part_of_the_draw() -> None:
    prepared = batches.prepare(probes.clinic(), 0.0, CRITIC.gamma, 3)
    config = StackConfig(**CRITIC.model_dump() | {"batch": 80}, taus=(0.6, 0.8), seeds=(3, 5))
    pair = stack._stacked(prepared, config)
    column = torch.tensor([[0.6], [0.8], [0.6], [0.8]])
    whole = batches.Sampler(prepared.fit, 80, 3).at(0)
    stack._task(pair, column, config).update(whole, False)
    for i, seed in enumerate((3, 5)):
        for j, tau in enumerate((0.6, 0.8)):
            alone = iql.critic(prepared, CRITIC, seed)
            own = batches.take(prepared.fit, whole.row[i * 40 : i * 40 + 40])
            stack._update(alone, own, torch.tensor([[tau]]), CRITIC, False)
            k = 2 * i + j
            for mine, theirs in zip(pair.value.net.weights, alone.value.net.weights, strict=True):
                assert torch.allclose(mine[k : k + 1], theirs, atol=1e-5)
            for mine, theirs in zip(pair.q.net.weights, alone.q.net.weights, strict=True):
                assert torch.allclose(mine[2 * k : 2 * k + 2], theirs, atol=1e-5)


def test_trainings_of_other_processes_give_the_same_rows() -> None:
    """What an engine is given and gives back goes through pickle; the episodes are read where they are needed."""

    def elsewhere(work: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
        sent = pickle.dumps(work)
        assert len(sent) < 10_000  # no episodes in it
        return (pickle.loads(pickle.dumps(pickle.loads(sent)(item))) for item in items)

    config = SweepConfig(
        learners=("conservative_iql", "iql"), taus=(0.6, 0.8), target_kls=(0.02,), seeds=(0, 1), critic=CRITIC,
        behaviour=CLINICIANS,
    )  # fmt: skip
    iql_too = {"iql": {"hidden": [16], "batch": 40, "updates": 40, "evaluate_every": 20, "min_updates": 0}}
    here = sweep.run(*_clinics(), config, iql_too)
    with workers.done_by(elsewhere):
        assert sweep.run(*_clinics(), config, iql_too, again=_clinics) == here
    assert [(row.learner, row.tau, row.seed) for row in here] == [
        *(("conservative_iql", tau, seed) for seed in (0, 1) for tau in (0.6, 0.8)), ("iql", None, 0), ("iql", None, 1)
    ]  # fmt: skip


def _clinics() -> tuple[Episodes, Episodes]:
    return probes.clinic(), probes.clinic(seed=1)


def test_every_setting_has_a_row_and_infeasible_ones_say_why() -> None:
    ward = probes.clinic()
    config = SweepConfig(taus=(0.6, 0.8), target_kls=(0.02, 50.0), critic=CRITIC, behaviour=CLINICIANS)
    rows = sweep.run(ward, probes.clinic(seed=1), config)
    assert [(row.tau, row.target_kl) for row in rows] == [(0.6, 0.02), (0.6, 50.0), (0.8, 0.02), (0.8, 50.0)]
    assert all(row.infeasible is None and row.ess is not None and 1 <= row.ess <= 120 for row in rows[::2])
    assert all("infeasible" in str(row.infeasible) and row.ess is None for row in rows[1::2])


def test_the_grid_is_learners_by_expectiles_by_seeds_by_masks_by_divergences_and_temperatures() -> None:
    config = SweepConfig(
        learners=("conservative_iql", "dqn"), taus=(0.6, 0.8), target_kls=(0.02,), temperatures=(5.0,), eps=(0.01, 0.1),
        seeds=(1, 2), critic=CRITIC, behaviour=CLINICIANS,
    )  # fmt: skip
    dqn = {"hidden": (16,), "batch": 40, "updates": 20}
    told: list[tuple[int, int]] = []
    rows = sweep.run(
        probes.clinic(), probes.clinic(seed=1), config, {"dqn": dqn}, progress=lambda *one: told.append(one)
    )
    frame = sweep.table(rows)
    assert len(frame) == (2 * 2 + 2) * 4
    assert told == [(k, 6) for k in range(1, 7)]
    assert frame.groupby("learner").size().to_dict() == {"conservative_iql": 16, "dqn": 8}
    own = frame[(frame.learner == "conservative_iql") & (frame.seed == 2) & (frame.tau == 0.8) & (frame.eps == 0.1)]
    assert own.temperature.tolist()[1:] == own.alpha.tolist()[1:] == [5.0]
    assert own.kl_masked.iloc[0] == pytest.approx(0.02, abs=0.01)
    assert own.supported_actions.iloc[0] < frame[frame.eps == 0.01].supported_actions.mean()
    again = sweep.run(probes.clinic(), probes.clinic(seed=1), config, {"dqn": dqn})
    assert again == rows


def test_a_sweep_goes_on_from_its_checkpoints_bit_for_bit_and_refuses_those_of_another(tmp_path: Path) -> None:
    class Interrupted(Exception):
        pass

    def stop(done: int, _total: int) -> None:
        if done == 1:
            raise Interrupted

    config = SweepConfig(taus=(0.6,), target_kls=(0.02,), seeds=(1, 2), critic=CRITIC, behaviour=CLINICIANS)
    ward, select, session = probes.clinic(), probes.clinic(seed=1), Session(checkpoint=tmp_path / "c.safetensors")
    whole = sweep.run(ward, select, config)
    with pytest.raises(Interrupted):
        sweep.run(ward, select, config, session=session, progress=stop)
    assert sweep.run(ward, select, config, session=session) == whole
    with pytest.raises(ArtifactError, match="another run"):
        sweep.run(ward, select, config.model_copy(update={"taus": (0.7,)}), session=session)


def test_effective_episodes_by_hand() -> None:
    episodes = probes.action_choice(1)[0]
    same = np.full((2, 2), 0.5)
    assert sweep.effective_episodes(episodes, same, same) == pytest.approx(2.0)
    assert sweep.effective_episodes(episodes, np.array([[0.9, 0.1]] * 2), same) == pytest.approx(1.0 / 0.82)


def test_rule_takes_the_largest_divergence_that_leaves_enough_episodes_in_every_seed() -> None:
    rows = [
        ROW,
        replace(ROW, target_kl=0.2, kl_behaviour=0.2, ess=250.0),
        replace(ROW, target_kl=0.5, kl_behaviour=0.5, ess=400.0),
        replace(ROW, target_kl=0.5, kl_behaviour=0.5, ess=100.0, seed=1),
        replace(ROW, target_kl=0.9, kl_behaviour=0.9, infeasible="no"),
        replace(ROW, target_kl=None, temperature=2.0, kl_behaviour=0.15),
    ]
    assert sweep.selected(rows, 200.0).target_kl == 0.2
    assert sweep.selected([*rows, replace(rows[-1], temperature=1.0, kl_behaviour=0.3)], 200.0).temperature == 1.0


def test_rule_takes_the_smaller_expectile_where_losses_hardly_differ() -> None:
    rows = [ROW, replace(ROW, tau=0.9, held_td=0.48), replace(ROW, tau=0.5, held_td=0.9)]
    assert sweep.selected(rows, 200.0).tau == 0.7


def test_no_setting_with_enough_episodes_is_refused_with_the_most_there_is() -> None:
    with pytest.raises(InputError, match="the most is 300"):
        sweep.selected([ROW], 500.0)
    found = sweep.selections([ROW, replace(ROW, learner="cql", tau=None, ess=600.0)], 500.0)
    assert "the most is 300" in str(found["conservative_iql"])
    assert found["cql"] == replace(ROW, learner="cql", tau=None, ess=600.0)


def test_a_critic_whose_values_exploded_gets_no_policy() -> None:
    ward = lab._untried()
    config = SweepConfig(learners=("dqn",), target_kls=(0.02,), behaviour=CLINICIANS)
    wild = {**lab.options("dqn", 400), **lab.UNGUARDED}
    (row,) = sweep.run(ward, ward, config, {"dqn": wild})
    assert (row.values, row.ess) == ("exploded", None)
    assert "exploded" in str(row.infeasible)


@pytest.mark.parametrize(
    ("options", "named"),
    [({"taus": (0.7, 0.7)}, "taus"), ({"taus": (1.0,)}, "taus"), ({"taus": (0.0,)}, "taus"),
     ({"target_kls": (0.0,)}, "target_kls"), ({"seeds": ()}, "seeds"), ({"learners": ("bc",)}, "learners"),
     ({"temprature": (1,)}, "temprature")],
)  # fmt: skip
def test_a_wrong_grid_is_refused_with_its_key(options: dict[str, object], named: str) -> None:
    from cohort.config import parse

    with pytest.raises(ConfigError, match=named):
        parse(options, SweepConfig, "sweep")


def test_a_grid_without_a_divergence_or_temperature_is_refused() -> None:
    with pytest.raises(ConfigError, match="both empty"):
        sweep.run(probes.clinic(), probes.clinic(), SweepConfig(target_kls=()))


def test_expectiles_given_twice_are_refused() -> None:
    with pytest.raises(ConfigError, match="taus"):
        stack.critics(probes.clinic(), CRITIC, (0.7, 0.7))


def test_trainings_are_the_clinicians_models_then_the_stack_then_each_others_seeds() -> None:
    seeds = (3, 1)
    models = [("evaluation", 3), ("behaviour", 3), ("behaviour", 1)]
    both = SweepConfig(learners=("iql", "conservative_iql", "dqn"), seeds=seeds)
    others = [("iql", 3), ("iql", 1), ("dqn", 3), ("dqn", 1)]
    assert sweep._trainings(both) == [*models, ("conservative_iql", 3), *others]
    assert sweep._trainings(both.model_copy(update={"learners": ("dqn",)})) == [*models, ("dqn", 3), ("dqn", 1)]


def test_each_training_has_a_checkpoint_of_its_own_name_and_its_own_seed(tmp_path: Path) -> None:
    dqn = {"hidden": (16,), "batch": 40, "updates": 20}
    config = SweepConfig(
        learners=("conservative_iql", "dqn"), taus=(0.6,), target_kls=(0.02,), seeds=(1, 2), critic=CRITIC,
        behaviour=CLINICIANS,
    )  # fmt: skip
    told: list[tuple[int, int]] = []
    rows = sweep.run(
        *_clinics(), config, {"dqn": dqn}, Session(checkpoint=tmp_path / "c.safetensors"),
        progress=lambda *one: told.append(one),
    )  # fmt: skip
    names = {"behaviour-1", "behaviour-2", "dqn-1", "dqn-2", "evaluation", "stack"}
    assert {path.stem.removeprefix("c-") for path in tmp_path.iterdir()} == names
    models = [path.read_bytes() for path in sorted(tmp_path.glob("*behaviour-*"))]
    assert models[0] != models[1]
    alone = SweepConfig(learners=("dqn",), taus=(0.6, 0.7), target_kls=(0.02,), behaviour=CLINICIANS, seeds=(2,))
    told.clear()
    (row,) = sweep.run(*_clinics(), alone, {"dqn": dqn}, progress=lambda *one: told.append(one))
    assert told == [(1, 1)]  # expectiles are the other learner's
    assert [one.kl_behaviour for one in rows if (one.learner, one.seed) == ("dqn", 2)] == [row.kl_behaviour]


def test_weights_are_by_the_evaluations_model_of_the_clinicians() -> None:
    config = SweepConfig(taus=(0.6,), target_kls=(0.02,), critic=CRITIC, behaviour=CLINICIANS)
    train, select = _clinics()
    seen: list[tuple[float | None, float]] = []
    sweep.run(
        train, select, config,
        seen=lambda row, probs, usual: seen.append((row.ess, sweep.effective_episodes(select, probs, usual))),
    )  # fmt: skip
    assert [ess for ess, _ in seen] == [by_hand for _, by_hand in seen]


def test_nothing_can_be_swept_where_every_stay_ended_alike() -> None:
    ward = probes.clinic()
    alike = replace(ward, reward=np.zeros_like(ward.reward))
    with pytest.raises(InputError, match="return"):
        sweep.run(alike, ward, SweepConfig(critic=CRITIC, behaviour=CLINICIANS))


def test_a_policy_that_never_does_what_was_done_leaves_no_episode() -> None:
    episodes = probes.action_choice(1)[0]
    never = np.array([[0.0, 1.0], [1.0, 0.0]])[episodes.action]
    assert sweep.effective_episodes(episodes, never, np.full((2, 2), 0.5)) == 0.0


def test_as_many_episodes_as_asked_for_are_enough_and_no_policy_at_all_leaves_none() -> None:
    assert sweep.selected([ROW], 300.0) == ROW
    with pytest.raises(InputError, match="the most is 0"):
        sweep.selected([replace(ROW, infeasible="no")], 1.0)
    unheld = replace(ROW, tau=0.9, held_td=None, held_expectile=None)
    assert sweep.selected([ROW, replace(unheld, seed=1), replace(unheld, held_td=0.9)], 1.0).tau == 0.7
