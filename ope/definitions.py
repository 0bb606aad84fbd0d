"""Definitions: the same analysis under other defensible definitions, and how far its answer moves.

Reward, horizon, step length, drug equivalents, the coma scale's rule: each makes another cohort of the same patients,
in the same split, in which the main policy is trained and evaluated anew, through the same gates.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import policy
import policy.store
from cohort import artifact, build
from cohort.build import CohortConfig
from cohort.config import Config
from cohort.errors import InputError
from cohort.multiverse import BASE, MultiverseConfig
from ope import evaluation
from ope.setting import EvaluationConfig

COHORT, POLICY = "cohort", "policy"


def run(
    shards: Path,
    scratch: Path,
    definitions: MultiverseConfig,
    learner: tuple[str, Config],
    config: EvaluationConfig,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Repeat the analysis under the base and every variant; a row each.

    Discounts are kept per hour: with steps half as long, each step's is the square root.

    Args:
        shards: the canonical tables.
        scratch: a folder for one cohort and policy at a time; removed in the end.
        definitions: the base and the variants.
        learner: the main policy's, with its options.
        config: the evaluation's; its gates hold everywhere.
        seed: of everything.
        progress: called with (definitions done, definitions).

    Returns:
        for each: name, step_hours, horizon_hours, gamma, patients, decisions, ess, unsupported, clinicians, value and
        difference (estimates: the clinicians' return, the policy's and what it has more, by the primary estimator),
        verdict, binding, and `moved`, its difference less the base's (null where either is withheld).

    Raises:
        InputError: a definition leaves nobody to train or evaluate on.
    """
    built, rows = {BASE: definitions.base, **definitions.variants}, []
    for number, (name, defined) in enumerate(built.items(), start=1):
        try:
            found = _one(shards, scratch, defined, definitions.base, learner, config, seed)
        except InputError as error:
            raise InputError(f"definitions: {name}: {error}") from None
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        rows.append({"name": name, **found})
        if progress is not None:
            progress(number, len(built))
    base = rows[0]["difference"]["value"]
    for row in rows:
        value = row["difference"]["value"]
        row["moved"] = None if base is None or value is None else value - base
    return rows


def _one(
    shards: Path,
    scratch: Path,
    defined: CohortConfig,
    base: CohortConfig,
    learner: tuple[str, Config],
    config: EvaluationConfig,
    seed: int,
) -> dict[str, Any]:
    steps = defined.grid.step_hours / base.grid.step_hours
    name, options = learner
    if "gamma" in type(options).model_fields:
        options = options.model_copy(update={"gamma": options.model_dump()["gamma"] ** steps})
    cohort, made = scratch / COHORT, scratch / POLICY / name
    with artifact.writing(cohort, COHORT, {"cohort": defined.model_dump(mode="json")}, seed=seed) as draft:
        build.build(shards, draft.path, defined, seed)
    trained = policy.fit(name, build.episodes(cohort, "train"), options, seed)
    policy.store.save(trained, made, inputs={COHORT: cohort}, seed=seed)
    asked = config.model_copy(update={"gamma": config.gamma**steps, "main": name})
    document = evaluation.run(cohort, {name: made}, asked, seed)
    entry = document["policies"][name]
    primary = {key: _primary(each, config) for key, each in (
        ("value", entry["estimates"]), ("difference", entry["against"]["clinicians"])
    )}  # fmt: skip
    return {
        "step_hours": defined.grid.step_hours,
        "horizon_hours": defined.grid.horizon_hours,
        "gamma": asked.gamma,
        "patients": document["cohort"]["patients"],
        "decisions": document["cohort"]["decisions"],
        "ess": entry["overlap"]["ess"],
        "unsupported": entry["overlap"]["unsupported"],
        "clinicians": document["clinicians"]["estimate"],
        **primary,
        "verdict": entry["verdict"],
        "binding": entry["binding"],
    }


def _primary(estimates: list[dict[str, Any]], config: EvaluationConfig) -> dict[str, Any]:
    return next(one for one in estimates if one["estimator"] == config.primary)
