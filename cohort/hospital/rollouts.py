"""Rollout: the true value of a policy, by letting it treat the simulated hospital's patients."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Bool, Float, Float32, Int
from pandas.api.types import union_categoricals

from cohort import features, tables
from cohort.actions import ActionConfig
from cohort.dictionary import Dictionary
from cohort.errors import ConfigError, InputError
from cohort.grid import GridConfig
from cohort.hospital import charting, clinicians, events, items, layout, simulation
from cohort.hospital.population import Outcomes
from cohort.hospital.simulation import Choice, HospitalConfig, Moment, Shard
from cohort.hospital.truth import Truth
from cohort.reward import RewardConfig, rewards
from cohort.sources import mimic_iv

_WEIGHTS = np.array([position for position, item in enumerate(items.ITEMS) if item.itemid in (226512, 224639, 226531)])


@runtime_checkable
class Policy(Protocol):
    """What a rollout asks of a policy."""

    def probs(self, state: Float32[np.ndarray, "n d"]) -> Float32[np.ndarray, "n a"]:
        """Probabilities of 5 * fluid + vasopressor; rows sum to 1."""
        ...


def rollout(
    policy: Policy | None,
    n_stays: int,
    seed: int,
    config: HospitalConfig | None = None,
    *,
    grid: GridConfig | None = None,
    reward: RewardConfig | None = None,
    given: ActionConfig | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Truth:
    """Let `policy` dose every stay over the horizon, the clinicians afterwards; None: the clinicians throughout.

    The policy sees the features it was fitted on (48, or with the doses before) and nothing else: they are made from
    the rows charted so far by the pipeline's own `canonical` and `states`, and imputed by its `dictionary`, where it
    has one (else by a healthy adult's values).
    An action is given as a dose drawn inside its bin, on the dictionary's edges where there are some.
    The same seed and config are the same patients and the same luck under every policy.

    Args:
        n_stays: stays to treat (instead of the config's).
        grid: step and horizon; the policy decides at each step's start while the patient is in the ICU.
        reward: what `mean_return` adds up, undiscounted.
        given: what counts as a dose, for policies that see the doses before.

    Raises:
        InputError: probabilities of the wrong shape, negative, NaN, or not summing to 1; or a policy fitted on other
            features.
        ConfigError: a step that is not the hospital's or the policy's, or an anchor that is not admission.
    """
    each = returns(policy, n_stays, seed, config, grid=grid, reward=reward, given=given, progress=progress)
    return _truth(each.value, each.alive)


@dataclass(frozen=True)
class Returns:
    """What became of every stay of a rollout; stay by stay the same patients with the same luck under every policy."""

    value: Float[np.ndarray, "n"]
    """Sum of the rewards, discounted per window."""
    alive: Bool[np.ndarray, "n"]
    """Left the hospital alive."""
    hours: Float[np.ndarray, "n"]
    """In the ICU."""


def returns(
    policy: Policy | None,
    n_stays: int,
    seed: int,
    config: HospitalConfig | None = None,
    *,
    grid: GridConfig | None = None,
    reward: RewardConfig | None = None,
    given: ActionConfig | None = None,
    gamma: float = 1.0,
    progress: Callable[[int, int], None] | None = None,
) -> Returns:
    """`rollout`, stay by stay, with a discount per decision; arguments and errors as there."""
    config, grid, reward = config or HospitalConfig(), grid or GridConfig(), reward or RewardConfig()
    if grid.step_hours != config.decision_hours or grid.anchor != "admission":
        raise ConfigError(
            f"rollout: grid of {grid.step_hours} h from {grid.anchor}, the hospital decides every "
            f"{config.decision_hours} h from admission"
        )
    parts: list[Returns] = []
    for shard in simulation.shards(n_stays, seed, config):
        end = _treated(shard, policy, grid, given).outcomes
        parts.append(Returns(stay_returns(end, grid, reward, gamma), ~end.died_in_hospital, end.out_hour))
        if progress is not None:
            progress(sum(len(part.value) for part in parts), n_stays)
    return Returns(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("value", "alive", "hours")))


def _treated(shard: Shard, policy: Policy | None, grid: GridConfig, given: ActionConfig | None) -> simulation.Course:
    if policy is None:
        return simulation.course(shard, simulation.clinicians_decide)
    return simulation.course(simulation.with_history(shard), PolicyDecides(policy, grid, given), grid.horizon_hours)


class PolicyDecides:
    """Doses by a policy that reads the record so far; after the horizon the clinicians take over."""

    def __init__(self, policy: Policy, grid: GridConfig, given: ActionConfig | None = None) -> None:
        self._policy, self._grid = policy, grid
        self._dictionary = _dictionary(policy, grid)
        sees_doses = self._dictionary is not None and self._dictionary.features != features.FEATURES
        self._chart = Chart(grid, (given or ActionConfig()).model_copy(update={"in_state": sees_doses}))

    def __call__(self, moment: Moment) -> Choice:
        """The policy's choice for every stay present."""
        if moment.hour >= self._grid.horizon_hours:
            return simulation.clinicians_decide(moment)
        value = self._chart.states(moment)
        filled = features.typical() if self._dictionary is None else self._dictionary.imputation
        probability = np.asarray(self._policy.probs(features.impute(value, filled)), np.float64)
        action = clinicians.choose(_checked(probability, len(value)), moment.uniform[1])
        if self._dictionary is None:
            return simulation.choice(action, moment.uniform)
        return simulation.choice(
            action, moment.uniform, self._dictionary.fluid_edges_ml_h, self._dictionary.vasopressor_edges_ug_kg_min
        )


class Chart:
    """The pipeline's view of a shard while it runs: the rows charted so far, in canonical form.

    Only rows that are new since the last moment are brought to canonical form, for a canonical row follows from raw
    rows of the same instant; but drips and ventilation are read anew, because their rows grow, and the weights with
    them, because doses are divided by them.
    """

    def __init__(self, grid: GridConfig, given: ActionConfig | None = None) -> None:
        self._grid, self._given = grid, given
        self._hours_read = 0
        self._observations = tables.empty("observations")
        self._outputs = tables.empty("outputs")

    def states(self, moment: Moment) -> Float[np.ndarray, "k d"]:
        """The features of the stays present at the moment; NaN is missing."""
        known = self.canonical(moment)
        stays = known.stays
        made = features.states(known, stays["intime"].to_numpy(), np.array([moment.hour]), self._grid, self._given)
        row = pd.Index(stays["stay_id"]).get_indexer(moment.shard.population.stay_id[moment.rows])
        value: np.ndarray = made.value[row, 0]
        return value

    def canonical(self, moment: Moment) -> tables.Tables:
        """Everything charted before the moment."""
        record = moment.record
        assert record is not None
        fresh = record.charted[self._hours_read :]
        weights = [events.take(part, np.isin(part.item, _WEIGHTS)) for part in record.charted[: self._hours_read]]
        part, _ = mimic_iv.canonical(raw_tables(moment.shard, replace(record, charted=[*weights, *fresh]), moment.hour))
        self._observations = _joined(self._observations, self._fresh(part.observations, part.stays, moment.hour))
        self._outputs = _joined(self._outputs, self._fresh(part.outputs, part.stays, moment.hour))
        self._hours_read = len(record.charted)
        return tables.Tables(part.stays, self._observations, part.infusions, self._outputs)

    def _fresh(self, rows: pd.DataFrame, stays: pd.DataFrame, hour: int) -> pd.DataFrame:
        """The rows of the hours since the last moment; earlier ones were read before."""
        position = pd.Index(stays["stay_id"]).get_indexer(rows["stay_id"])
        since = rows["charted"].to_numpy() - stays["intime"].to_numpy()[position]
        new = since < np.timedelta64(hour, "h")
        if self._hours_read:
            new &= since >= np.timedelta64(self._hours_read + charting.FIRST_HOUR, "h")
        fresh: pd.DataFrame = rows[new]
        return fresh


def raw_tables(shard: Shard, record: simulation.Record, hour: int) -> dict[str, pd.DataFrame]:
    """The rows charted so far as MIMIC-IV tables; how the stays will end is not in them."""
    still = _open_ended(shard)
    charted = simulation.charted_rows(record, np.full(shard.n, float(hour)))
    return frames(layout.tables(charted, shard.population, still, shard.number))


def stay_returns(
    outcomes: Outcomes, grid: GridConfig, reward: RewardConfig, gamma: float = 1.0
) -> Float[np.ndarray, "n"]:
    """Sum of the rewards of each stay's windows within the horizon, the outcome included, discounted per window."""
    each, stay, step = window_rewards(outcomes, grid, reward)
    return np.bincount(stay, weights=each * gamma**step, minlength=len(outcomes.out_hour))


def window_rewards(
    outcomes: Outcomes, grid: GridConfig, reward: RewardConfig
) -> tuple[Float[np.ndarray, "m"], Int[np.ndarray, "m"], Int[np.ndarray, "m"]]:
    """The reward of each window within the horizon, its stay and its step; stays in order.

    Raises:
        ConfigError: an outcome or a shaping term that the simulated hospital has no true value of.
    """
    if reward.outcome != "hospital" or reward.sofa_shaping or reward.lactate_shaping:
        raise ConfigError("rollout: only the hospital outcome without shaping has a true value here")
    inside = np.minimum(outcomes.out_hour, grid.horizon_hours)
    windows = np.maximum(np.ceil(inside / grid.step_hours), 1).astype(np.int64)
    stay = np.repeat(np.arange(len(windows)), windows)
    step = np.arange(len(stay)) - np.repeat(np.cumsum(windows) - windows, windows)
    duration = np.minimum(inside[stay] - step * grid.step_hours, grid.step_hours)
    each = rewards(
        duration,
        step == windows[stay] - 1,
        outcomes.died_in_hospital[stay],
        outcomes.out_hour[stay] - inside[stay],
        reward,
    )
    return each.astype(np.float64), stay, step


def _dictionary(policy: Policy, grid: GridConfig) -> Dictionary | None:
    """What the policy was fitted with, where it comes from a cohort."""
    fitted: Dictionary | None = getattr(policy, "dictionary", None)
    if fitted is None:
        return None
    if fitted.features not in (features.FEATURES, features.FEATURES + features.DOSES_BEFORE):
        raise InputError(
            f"policy: fitted on {len(fitted.features)} other features than the rollout's {len(features.FEATURES)}"
        )
    if fitted.step_hours != grid.step_hours:
        raise ConfigError(f"policy: fitted on steps of {fitted.step_hours:g} h, the rollout's are {grid.step_hours} h")
    return fitted


def _truth(returns: Float[np.ndarray, "n"], alive: Bool[np.ndarray, "n"]) -> Truth:
    n = len(returns)
    spread = [float(x.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan") for x in (returns, alive.astype(np.float64))]
    return Truth(float(returns.mean()), spread[0], float(alive.mean()), spread[1], n)


def _checked(probability: Float[np.ndarray, "n a"], n: int) -> Float[np.ndarray, "n a"]:
    wanted = (n, clinicians.BINS**2)
    if probability.shape != wanted:
        raise InputError(f"policy: probabilities of shape {probability.shape}, expected {wanted}")
    wrong = int((~(np.abs(probability.sum(axis=1) - 1) < 1e-3) | (probability < 0).any(axis=1)).sum())
    if wrong:
        raise InputError(f"policy: probabilities of {wrong} of {n} states are negative, NaN or do not sum to 1")
    return probability


def _open_ended(shard: Shard) -> Outcomes:
    """Outcomes that say nothing: every stay still runs."""
    n = shard.n
    never, no = np.full(n, np.datetime64("NaT", "us")), np.zeros(n, bool)
    left = shard.population.intime + simulation.LONGEST_ADMISSION  # before anybody returns
    return Outcomes(np.full(n, float(simulation.MAX_HOURS)), left, never, never, no, no)


def _joined(known: pd.DataFrame, fresh: pd.DataFrame) -> pd.DataFrame:
    """All rows; the vocabularies of text columns are united."""
    if not len(known) or not len(fresh):
        return fresh.reset_index(drop=True) if not len(known) else known
    columns = {}
    for name in known:
        if isinstance(known[name].dtype, pd.CategoricalDtype):
            columns[name] = pd.Series(union_categoricals([known[name], fresh[name]]))
        else:
            columns[name] = pd.concat([known[name], fresh[name]], ignore_index=True)
    return pd.DataFrame(columns)


def frames(raw: Mapping[str, pa.Table]) -> dict[str, pd.DataFrame]:
    """MIMIC-IV tables as the sources take them: by name, text as categories."""
    return {path.rpartition("/")[2]: _unique_words(table).to_pandas() for path, table in raw.items()}


def _unique_words(table: pa.Table) -> pa.Table:
    """Dictionary columns with every word once, as pandas wants them."""
    for position, column in enumerate(table.schema):
        if pa.types.is_dictionary(column.type):
            words = table.column(position).cast(column.type.value_type).dictionary_encode()
            table = table.set_column(position, column.name, words)
    return table
