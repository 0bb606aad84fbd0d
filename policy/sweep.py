"""Sweep: learners over expectiles, seeds, divergences and masks; one critic serves every extraction from it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain, product
from typing import Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Float
from pydantic import Field, field_validator

from cohort import scaler as scaling
from cohort.config import Config
from cohort.episodes import Episodes
from cohort.errors import ConfigError, InputError
from cohort.workers import each
from policy import base, batches, behaviour, extraction
from policy.advantage import AdvantageConfig
from policy.behaviour import BehaviourConfig
from policy.served import NetworkPolicy
from policy.stack import critics, row_at
from policy.train import Session

MAIN: Literal["conservative_iql"] = "conservative_iql"
"""The learner whose critics are trained side by side, one for each expectile and seed."""
Swept = Literal["conservative_iql", "iql", "awac", "cql", "bcq", "bear", "dqn", "sac"]
RULE = (
    "For each learner: of the expectile with the least held-out loss, the setting of the largest divergence from the "
    "clinicians that leaves min_ess effective episodes on the select split in every seed. No value estimate enters, "
    "so that an optimistic critic cannot be chosen for its optimism; learners are not ranked here, since nothing that "
    "is read compares them."
)
"""How a setting is selected, in words."""
Progress = Callable[[int, int], None]
Seen = Callable[["Setting", np.ndarray, np.ndarray], None]
"""A setting that has a policy, its probabilities (n, n_actions) on the select split, and the clinicians' there."""
Again = Callable[[], tuple[Episodes, Episodes]]
"""Gives the training and the select split's episodes."""
EVALUATION, BEHAVIOUR = "evaluation", "behaviour"


class SweepConfig(Config):
    """The grid, and the rule that selects from it."""

    learners: tuple[Swept, ...] = Field(default=(MAIN,), min_length=1)
    """Whose values are extracted from; conservative_iql once for each of `taus`, others with the run's options."""
    taus: tuple[float, ...] = Field(default=(0.7, 0.9), min_length=1)
    """Expectiles of conservative_iql."""
    target_kls: tuple[float, ...] = (0.05, 0.1, 0.2, 0.5)
    """Divergences at which each critic is extracted from, in nats."""
    temperatures: tuple[float, ...] = ()
    """Temperatures at which it is extracted from besides, in reward units."""
    eps: tuple[float, ...] = Field(default=(0.1,), min_length=1)
    """Support masks, see learners.conservative_iql."""
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    """Each is a start, minibatches and a model of the clinicians of its own; held-out patients are the first's."""
    critic: AdvantageConfig = AdvantageConfig()
    """Of conservative_iql; its `tau` is replaced by each of `taus`."""
    behaviour: BehaviourConfig = BehaviourConfig()
    min_ess: float = Field(default=200.0, gt=0)
    """Effective number of select-split episodes that a selected setting must leave."""

    @field_validator("taus", "target_kls", "temperatures", "eps", "seeds", "learners")
    @classmethod
    def _different(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(set(value)) != len(value):
            raise ValueError("the same entry twice")
        return value

    @field_validator("taus")
    @classmethod
    def _inside(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 < tau < 1 for tau in value):
            raise ValueError("expectiles lie strictly between 0 and 1")
        return value

    @field_validator("target_kls", "temperatures")
    @classmethod
    def _positive(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(one <= 0 for one in value):
            raise ValueError("must be above 0")
        return value


@dataclass(frozen=True)
class Setting:
    """One row of the sweep's table; what a setting without a policy has not is None."""

    learner: str
    tau: float | None
    """None of learners without an expectile."""
    target_kl: float | None
    """None where the temperature was given."""
    temperature: float | None
    """Given, in reward units; None where it was solved for the divergence."""
    eps: float
    seed: int
    held_td: float | None
    """On held-out training patients; None where nothing was held out."""
    held_expectile: float | None
    values: str
    """The overestimation monitor's verdict on the critic's training, of a stack on its boldest critic's."""
    alpha: float | None = None
    """The temperature, solved or given."""
    kl_behaviour: float | None = None
    """Mean KL to the unmasked behaviour policy on the select split."""
    kl_masked: float | None = None
    """Mean KL to the masked and renormalised one there."""
    supported_actions: float | None = None
    """Mean number of actions within the mask there."""
    ess: float | None = None
    """Of the select split's episodes under the policy's importance weights."""
    infeasible: str | None = None
    """Why this setting has no policy."""


def run(
    train_episodes: Episodes,
    select: Episodes,
    config: SweepConfig,
    learners: Mapping[str, Config | Mapping[str, Any]] | None = None,
    session: Session | None = None,
    progress: Progress | None = None,
    seen: Seen | None = None,
    processes: int = 1,
    again: Again | None = None,
) -> list[Setting]:
    """Train every critic once, extract every setting from it, and measure each on the select split.

    Args:
        learners: options of learners other than conservative_iql; their defaults where not named.
        session: a checkpoint's place and the device; its own progress is not called.
        progress: called with (critics finished, critics in all).
        seen: called for each row that has a policy, for what else is measured of it; the rule reads none of that.
        processes: over the trainings, of this machine or of the engine in force (`cohort.workers`). The critics of
            conservative_iql are one training; models of the clinicians and each other learner's seeds are others.
        again: gives (train_episodes, select) anew where a training is another process's, so that they are not sent.

    Raises:
        ConfigError: no divergence and no temperature.
        InputError: all returns are equal.
    """
    batches.require_different_returns(train_episodes)
    if not config.target_kls and not config.temperatures:
        raise ConfigError("sweep: target_kls and temperatures are both empty")
    seeds = config.seeds
    episodes = _scaled(train_episodes)
    train = partial(_trained, again or (train_episodes, select), config, learners or {}, session or Session())
    trained = each(train, _trainings(config), processes)
    usual = next(trained)
    clinicians = {seed: next(trained) for seed in seeds}
    total = len(seeds) * (len(config.learners) + (len(config.taus) - 1) * (MAIN in config.learners))
    rows: list[Setting] = []
    for done, (learner, tau, seed, critic) in enumerate(chain.from_iterable(trained)):
        for row, probs in _extracted(learner, tau, seed, critic, clinicians[seed], episodes, select, usual, config):
            rows.append(row)
            if seen is not None and probs is not None:
                seen(row, probs, usual)
        if progress is not None:
            progress(done + 1, total)
    return rows


def selected(rows: Sequence[Setting], min_ess: float) -> Setting:
    """The written rule, `RULE`, for one learner's rows.

    Held-out TD plus expectile loss is averaged over seeds per expectile (the loss of an expectile nearer 0.5 is not
    comparable, so it decides only where losses differ by more than a tenth, else the smallest tau is taken). Then, of
    the settings whose ESS is at least `min_ess` in every seed, that of the largest mean KL to the clinicians.

    Raises:
        InputError: no setting leaves that many effective episodes.
    """
    groups: dict[tuple[Any, ...], list[Setting]] = {}
    for row in rows:
        groups.setdefault((row.tau, row.target_kl, row.temperature, row.eps), []).append(row)
    whole = [group for group in groups.values() if all(row.infeasible is None for row in group)]
    enough = [group for group in whole if min(_number(row.ess) for row in group) >= min_ess]
    if not enough:
        best = max((_number(row.ess) for group in whole for row in group), default=0.0)
        raise InputError(f"sweep: no setting leaves {min_ess:g} effective episodes; the most is {best:.0f}")
    losses = {group[0].tau: _mean_loss(rows, group[0].tau) for group in enough}
    least = min(losses.values())
    tau = min((tau for tau in losses if losses[tau] <= 1.1 * least), key=_number)
    chosen = [group for group in enough if group[0].tau == tau]
    return max(chosen, key=lambda group: float(np.mean([_number(row.kl_behaviour) for row in group])))[0]


def selections(rows: Sequence[Setting], min_ess: float) -> dict[str, Setting | str]:
    """Learner -> what the rule selects, or the reason why nothing."""
    found: dict[str, Setting | str] = {}
    for learner in dict.fromkeys(row.learner for row in rows):
        try:
            found[learner] = selected([row for row in rows if row.learner == learner], min_ess)
        except InputError as error:
            found[learner] = str(error)
    return found


def table(rows: Sequence[Setting]) -> pd.DataFrame:
    """The rows as a table, one column for each field."""
    frame = pd.DataFrame([asdict(row) for row in rows])
    texts = ["learner", "values", "infeasible"]
    numbers = [name for name in frame.columns if name not in {*texts, "seed"}]
    return frame.astype({**dict.fromkeys(numbers, "float64"), **dict.fromkeys(texts, "string")})


def effective_episodes(episodes: Episodes, probs: Float[np.ndarray, "n a"], usual: Float[np.ndarray, "n a"]) -> float:
    """(sum w)^2 / sum w^2 over episodes, w the product of the policy's over the clinicians' probabilities."""
    rows = np.arange(episodes.n)
    with np.errstate(divide="ignore"):
        log_ratio = np.log(probs[rows, episodes.action].astype(float)) - np.log(
            usual[rows, episodes.action].astype(float)
        )
    total = np.add.reduceat(log_ratio, episodes.start)
    if not np.isfinite(total).any():
        return 0.0
    weight = np.exp(total - total.max())
    return float(weight.sum() ** 2 / (weight**2).sum())


def _trainings(config: SweepConfig) -> list[tuple[str, int]]:
    """(what, seed) of every training, none of which needs another: the clinicians' models first."""
    models = [(EVALUATION, config.seeds[0]), *((BEHAVIOUR, seed) for seed in config.seeds)]
    others = [(learner, seed) for learner in config.learners if learner != MAIN for seed in config.seeds]
    return [*models, *([(MAIN, config.seeds[0])] if MAIN in config.learners else []), *others]


def _trained(
    given: tuple[Episodes, Episodes] | Again,
    config: SweepConfig,
    learners: Mapping[str, Config | Mapping[str, Any]],
    session: Session,
    training: tuple[str, int],
) -> Any:
    """Probabilities on the select split, a model of the clinicians, or a list of (learner, tau, seed, critic)."""
    what, seed = training
    train, select = given if isinstance(given, tuple) else given()
    episodes = _scaled(train)
    if what == EVALUATION:
        return behaviour.predict(episodes, select, config.behaviour, seed, session.named(what))
    own = session.named("stack" if what == MAIN else f"{what}-{seed}")
    if what == BEHAVIOUR:
        return behaviour.fit(episodes, config.behaviour, seed, own)
    if what == MAIN:
        stack = critics(episodes, config.critic, config.taus, config.seeds, own)
        return [(what, tau, one, critic) for (tau, one), critic in stack.items()]
    return [(what, None, seed, base.fit(what, episodes, learners.get(what), seed, session=own))]


def _scaled(episodes: Episodes) -> Episodes:
    return replace(episodes, scaler=episodes.scaler or scaling.fit(episodes.state))


def _held(critic: NetworkPolicy) -> tuple[float | None, float | None]:
    """Held-out TD and expectile loss of the weights that were kept."""
    if "held_td" in critic.notes:
        return critic.notes["held_td"], critic.notes["held_expectile"]
    at = critic.notes["best_at"]
    row = row_at(critic.curves, at.get("critic", at.get("td")))
    return row.get("held_td"), row.get("held_expectile")


def _extracted(
    learner: str,
    tau: float | None,
    seed: int,
    critic: NetworkPolicy,
    clinicians: NetworkPolicy,
    episodes: Episodes,
    select: Episodes,
    usual: Float[np.ndarray, "n a"],
    config: SweepConfig,
) -> Iterator[tuple[Setting, np.ndarray | None]]:
    """Every setting of one critic with its policy's probabilities on the select split; its networks are asked once."""
    known, q = clinicians.probs(episodes.state).astype(np.float64), critic.q(episodes.state)
    here, q_here = clinicians.probs(select.state).astype(np.float64), critic.q(select.state)
    values = str(critic.notes["overestimation"]["verdict"])
    wanted = [*((kl, None) for kl in config.target_kls), *((None, alpha) for alpha in config.temperatures)]
    for eps, (target_kl, given) in product(config.eps, wanted):
        row = Setting(learner, tau, target_kl, given, eps, seed, *_held(critic), values)
        if values == "exploded":
            yield replace(row, infeasible="its values exploded in training"), None
            continue
        try:
            alpha = given if target_kl is None else extraction.solve_alpha(known, q, eps, target_kl)
        except InputError as error:
            yield replace(row, infeasible=str(error)), None
            continue
        assert alpha is not None
        probs = extraction.tilt(here, q_here, eps, alpha)
        within = extraction.mask(here, eps)
        measured = replace(
            row,
            alpha=float(alpha),
            kl_behaviour=float(extraction.kl(probs.astype(np.float64), here).mean()),
            kl_masked=float(extraction.kl(probs.astype(np.float64), extraction.renormalised(here, eps)).mean()),
            supported_actions=float(within.sum(1).mean()),
            ess=effective_episodes(select, probs, usual),
        )
        yield measured, probs


def _mean_loss(rows: Sequence[Setting], tau: float | None) -> float:
    found = [_number(row.held_td) + _number(row.held_expectile) for row in rows if row.tau == tau and row.held_td]
    return float(np.mean(found)) if found else 0.0


def _number(value: float | None) -> float:
    return 0.0 if value is None else value
