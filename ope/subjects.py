"""Subjects: whom an evaluation asks: the policies, the controls, and the main policy as its reader gets it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32

import policy.store
from cohort import build, features, trajectories
from cohort.workers import each
from ope import assessment, fqe
from ope import served as serving
from ope.assessment import Finding
from ope.fqe import Target
from ope.setting import Setting, Step
from policy import recommend
from policy.recommend import Bedside

CONTROLS = ("random", "zero_drug", "maximum_dose")
DRAWN, LIKELIEST = "served_drawn", "served_likeliest"
"""The main policy as its reader gets it: see `ope.served`."""


def findings(policies: Mapping[str, Path], setting: Setting, workers: int, done: Step) -> dict[str, Finding]:
    """What is found of each policy and control, in processes of their own where asked for."""
    subjects = dict(_every(policies, setting.episodes.n_actions))
    found = {}
    for name, finding in zip(
        subjects, each(partial(_assessed, setting), list(subjects.items()), workers, here=True), strict=True
    ):
        found[name] = finding
        done(len(found), len(subjects))
    return found


def served(
    path: Path, behaviour: Path | None, cohort_dir: Path, setting: Setting
) -> tuple[dict[str, Finding], Mapping[str, int]]:
    """The main policy as its reader gets it, with a dose drawn or the likeliest; where it is silent, as clinicians do.

    At the end of an episode that is cut off the policy answers unmasked.
    """
    if behaviour is None:
        return {}, {}
    own, episodes, decisions = policy.store.load(path), setting.episodes, setting.clinical.decisions
    reader = serving.Reader(
        known=recommend.support(build.episodes(cohort_dir, "train")),
        behaviour=policy.store.load(behaviour),
        age_h=_ages(cohort_dir, own.features),
        bedside=Bedside(decisions.cvp, decisions.balance_ml, decisions.previous_action),
    )
    found = serving.serve(own, reader, episodes, setting.behaviour)
    final = fqe.ask_final(episodes, own.probs)
    tables = {DRAWN: found.drawn, LIKELIEST: found.likeliest}
    return {name: assessment.assess(Target(rows, final), True, setting) for name, rows in tables.items()}, found.silent


def controls(n_actions: int) -> dict[str, Float32[np.ndarray, "a"]]:
    """The deliberately bad policies: the same probabilities in every state."""
    random, one_hot = np.full(n_actions, 1 / n_actions, np.float32), np.eye(n_actions, dtype=np.float32)
    return dict(zip(CONTROLS, (random, one_hot[0], one_hot[-1]), strict=True))


def constant(distribution: Float32[np.ndarray, "a"], state: Float[np.ndarray, "n d"]) -> Float32[np.ndarray, "n a"]:
    """A control's answers: the same probabilities in every state."""
    return np.broadcast_to(distribution, (len(state), len(distribution)))


def _assessed(setting: Setting, subject: tuple[str, Callable[[np.ndarray], np.ndarray]]) -> Finding:
    name, probabilities = subject
    return assessment.assess(fqe.ask(setting.episodes, probabilities), name not in CONTROLS, setting)


def _every(policies: Mapping[str, Path], n_actions: int) -> Iterator[tuple[str, Callable[[np.ndarray], np.ndarray]]]:
    """The policies, one in memory at a time, then the controls."""
    for name, path in policies.items():
        yield name, policy.store.load(path).probs
    for name, distribution in controls(n_actions).items():
        yield name, partial(constant, distribution)


def _ages(cohort_dir: Path, names: Sequence[str]) -> Float[np.ndarray, "n d"]:
    """Hours since each feature of the evaluated states was measured; NaN where imputed, 0 for what never ages."""
    aged = [name for name in names if name in features.MEASURED]
    table = trajectories.read(cohort_dir, [f"{name}_age_h" for name in aged], "evaluate")
    out = np.zeros((table.num_rows, len(names)))
    for name in aged:
        out[:, names.index(name)] = table[f"{name}_age_h"].to_numpy()
    return out
