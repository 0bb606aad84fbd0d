"""Logs: the clinicians' decisions as episodes with their exact probabilities, uncharted, to grade estimators by."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Float

from cohort.episodes import Episodes
from cohort.grid import GridConfig
from cohort.hospital import clinicians, simulation
from cohort.hospital.clinicians import BINS, Reading
from cohort.hospital.population import Outcomes
from cohort.hospital.rollouts import stay_returns, window_rewards
from cohort.hospital.simulation import SHIFT_HOURS, Choice, HospitalConfig, Moment
from cohort.reward import RewardConfig

SEEN = tuple(field.name for field in fields(Reading) if field.name != "looks_ill")
"""Features of a log: all that clinicians look at, but what nobody charts."""
Answer = Callable[[Float[np.ndarray, "n d"]], Float[np.ndarray, "n a"]]
"""Probabilities of 5 * fluid + vasopressor in states of SEEN."""


@dataclass(frozen=True)
class Log:
    """The first hours of stays under the clinicians, a row a decision; every stay is in it and has its outcome."""

    episodes: Episodes
    behaviour: Float[np.ndarray, "n a"]
    """Exact: given what is read and the decisions of the shift so far, which tell something of the style on shift."""
    looks_ill: Float[np.ndarray, "n"]
    """What the clinicians saw and nobody charts; 0 where the hospital has no hidden confounder."""


def draw(n_stays: int, seed: int, config: HospitalConfig | None = None, grid: GridConfig | None = None) -> Log:
    """Let the clinicians treat `n_stays` and write down what they saw and did up to the horizon."""
    config, grid = config or HospitalConfig(), grid or GridConfig()
    parts, first = [], 0
    for shard in simulation.shards(n_stays, seed, config):
        log = _Clinicians(shard.n, grid.horizon_hours)
        outcomes = simulation.course(shard, log).outcomes
        parts.append(_episodes(log, outcomes, first, grid))
        first += shard.n
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    episodes = Episodes.from_arrays(
        columns["state"], columns["action"], columns["reward"], columns["episode"], np.ones(n_stays, bool),
        n_actions=BINS**2, features=SEEN,
    )  # fmt: skip
    return Log(episodes, columns["behaviour"], columns["looks_ill"])


def returns(
    answer: Answer | None, n_stays: int, seed: int, config: HospitalConfig | None = None, grid: GridConfig | None = None
) -> Float[np.ndarray, "n"]:
    """Each stay's undiscounted return where `answer` doses up to the horizon; None: the clinicians.

    The same seed and config are the same patients and luck, so that differences between policies are paired.
    """
    config, grid = config or HospitalConfig(), grid or GridConfig()

    def decide(moment: Moment) -> Choice:
        if answer is None or moment.hour >= grid.horizon_hours:
            return simulation.clinicians_decide(moment)
        action = clinicians.choose(answer(_state(moment.reading)), moment.uniform[1])
        return simulation.choice(action, moment.uniform)

    found = []
    for shard in simulation.shards(n_stays, seed, config):
        found.append(stay_returns(simulation.course(shard, decide).outcomes, grid, RewardConfig()))
    return np.concatenate(found)


def mixture(
    state: Float[np.ndarray, "n d"],
    shares: Float[np.ndarray, "s"] | None = None,
    looks_ill: Float[np.ndarray, "n"] | None = None,
) -> Float[np.ndarray, "n a"]:
    """What clinicians do in states of SEEN where styles have these shares (None: as they have) and patients look so."""
    columns = dict(zip(SEEN, np.asarray(state, np.float64).T, strict=True))
    columns |= {name: columns[name].astype(np.int64) for name in ("fluid", "vasopressor")}
    reading = Reading(**columns, looks_ill=np.zeros(len(state)) if looks_ill is None else looks_ill)
    every = clinicians.all_propensities(reading).reshape(len(state), -1, BINS**2)
    mixed: np.ndarray = np.einsum("s,nsa->na", clinicians.shares() if shares is None else shares, every)
    return mixed


class _Clinicians:
    """Decides as the clinicians do, keeping the state, the action and its exact probabilities."""

    def __init__(self, n_stays: int, horizon_hours: int) -> None:
        self._horizon = horizon_hours
        self._belief = np.tile(clinicians.shares(), (n_stays, 1))
        self.stay: list[np.ndarray] = []
        self.hour: list[np.ndarray] = []
        self.state: list[np.ndarray] = []
        self.action: list[np.ndarray] = []
        self.behaviour: list[np.ndarray] = []
        self.looks_ill: list[np.ndarray] = []

    def __call__(self, moment: Moment) -> Choice:
        made = simulation.clinicians_decide(moment)
        if moment.hour >= self._horizon:
            return made
        if moment.hour % SHIFT_HOURS == 0:
            self._belief[:] = clinicians.shares()
        rows, action = moment.rows, BINS * made.fluid + made.vasopressor
        every = clinicians.all_propensities(moment.reading).reshape(len(rows), -1, BINS**2)
        belief = self._belief[rows] / self._belief[rows].sum(axis=1, keepdims=True)
        self.behaviour.append(np.einsum("ns,nsa->na", belief, every))
        self._belief[rows] = belief * every[np.arange(len(rows)), :, action]
        self.stay.append(rows)
        self.hour.append(np.full(len(rows), moment.hour))
        self.state.append(_state(moment.reading))
        self.action.append(action)
        self.looks_ill.append(moment.reading.looks_ill)
        return made


def _state(reading: Reading) -> Float[np.ndarray, "n d"]:
    return np.column_stack([getattr(reading, name) for name in SEEN]).astype(np.float32)


def _episodes(log: _Clinicians, outcomes: Outcomes, first: int, grid: GridConfig) -> Mapping[str, np.ndarray]:
    stay, hour = np.concatenate(log.stay), np.concatenate(log.hour)
    order = np.lexsort((hour, stay))
    paid, owner, _ = window_rewards(outcomes, grid, RewardConfig())
    assert np.array_equal(owner, stay[order])
    kept = {name: np.concatenate(getattr(log, name))[order] for name in ("state", "action", "behaviour", "looks_ill")}
    return {"episode": first + owner, "reward": paid, **kept}
