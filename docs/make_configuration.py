"""Writes docs/configuration.md: every key of a run's configuration, from the models that check it."""

import ast
import inspect
import textwrap
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from app.run import RunConfig
from app.settings import AppConfig
from cohort.config import Config
from policy.base import LEARNERS
from policy.train import TrainConfig

OUT = Path(__file__).with_name("configuration.md")
HEAD = """# Configuration

Every key of a run's YAML file with its default, what is allowed, and what it means. Unknown keys are errors, and so are
values out of range. `configs/demo.yaml` is an example with comments. This page is written by
`docs/make_configuration.py` from the models that check a configuration, so it cannot lag behind them.
"""

ALL = """Keys that every learner has; where a learner's own section repeats one, its default differs. Learners that fit
a model of the clinicians take its keys below `behaviour`, as a run does."""
APP = "Settings of `suture app RUN --settings FILE`, and of `verify`, `replay` and `feedback`; see `configs/app.yaml`."
MEANINGS = {
    "name": "What the run is called in the report and in MLflow.",
    "seed": "All randomness: the same seed and configuration give the same bytes.",
    "learners": "Learner to its options; the sections below list them.",
    "n_stays": "ICU stays to simulate.",
    "shard_stays": "Stays simulated at once; with the seed it decides which patients there are.",
    "groups": "Groups of similar states in the tabular twin.",
    "repeats": "Data sets drawn from the tabular twin.",
    "influential_cases": "How many of the most influential patients are listed.",
    "format": "How the tables are written.",
    "kind": "The layout of the tables.",
    "step_hours": "Hours between decisions.",
    "horizon_hours": "An episode ends here at the latest; a multiple of the step.",
    "survival": "Reward of a survivor, at the end of the episode.",
    "death": "Reward of a death, at the end of the episode.",
    "cost_per_icu_hour": "Taken off for every hour in intensive care.",
    "minimum_age": "Younger stays are left out (years).",
    "train": "Share of patients that train.",
    "select": "Share of patients that choose between settings; what is left evaluates.",
    "hidden": "Widths of the hidden layers.",
    "learning_rate": "Step size of the optimiser.",
    "batch": "Decisions per update.",
    "updates": "Updates, at most.",
    "gamma": "Discount per decision.",
    "evaluate_every": "Updates between two looks at the held-out patients.",
    "folds": "Parts of the patients; each is answered by models that were fitted on the others.",
    "members": "Networks whose values are averaged.",
    "level": "Of the intervals.",
    "n_bootstrap": "Resamples of patients behind an interval.",
    "estimators": "Which estimators run.",
    "target_rate": "How fast the target network follows.",
    "min_patients": "Fewer patients withhold every number.",
    "min_mean_weight": "A smaller mean importance weight withholds (it should be 1).",
    "max_mean_weight": "A larger mean importance weight withholds (it should be 1).",
    "n_critics": "Value networks; their minimum counts.",
    "top_percent": "Share of trajectories, by return, that is imitated.",
    "dual_rate": "Step size of the constraint's multiplier.",
}
"""Key's last part -> its meaning, where the model itself says nothing."""


def page() -> str:
    """The whole page."""
    shared = rows(TrainConfig)
    parts = [HEAD, section("A run", rows(RunConfig)), section("Every learner", shared, ALL)]
    for name, module in LEARNERS.items():
        own = [row for row in rows(import_module(module).Config) if row not in shared and "`behaviour." not in row]
        parts.append(section(f"learners.{name}", own, "" if own else "No further keys."))
    return "\n".join([*parts, section("The app", rows(AppConfig), APP)])


def section(title: str, listed: list[str], text: str = "") -> str:
    """A heading, a line of text, and a table where there are rows."""
    table = ["| key | default | allowed | meaning |", "|---|---|---|---|", *listed, ""] if listed else []
    return "\n".join([f"## {title}", "", *([text, ""] if text else []), *table])


def rows(model: type[Config]) -> list[str]:
    """The table's row of every key of a model, nested ones with dots."""
    return [f"| `{key}` | {default(field)} | {allowed(field)} | {meaning} |" for key, field, meaning in keys(model)]


def keys(model: type[Config], prefix: str = "") -> list[tuple[str, FieldInfo, str]]:
    """(key, field, meaning) of every leaf of a model."""
    said = docstrings(model)
    out = []
    for name, field in model.model_fields.items():
        nested = nested_model(field.annotation)
        if nested is None:
            out.append((prefix + name, field, said.get(name) or MEANINGS.get(name, "")))
        else:
            out += keys(nested, f"{prefix}{name}.")
    return out


def nested_model(annotation: Any) -> type[Config] | None:
    """The model that a field holds, if it holds one."""
    kinds = get_args(annotation) if get_origin(annotation) is UnionType else (annotation,)
    return next((kind for kind in kinds if inspect.isclass(kind) and issubclass(kind, Config)), None)


def docstrings(model: type[Config]) -> dict[str, str]:
    """What stands below each field of a model and of those it inherits from."""
    said: dict[str, str] = {}
    for kind in reversed(model.__mro__):
        if not issubclass(kind, Config) or kind is Config:
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, below in pairwise(body.body):
            text = below.value if isinstance(below, ast.Expr) else None
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Constant):
                said[ast.unparse(field.target)] = " ".join(str(text.value).split()).replace("|", "\\|")
    return said


def default(field: FieldInfo) -> str:
    """The default as YAML writes it."""
    if field.default is PydanticUndefined and field.default_factory is None:
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    return f"`{_plain(value)}`"


def allowed(field: FieldInfo) -> str:
    """The choices or the range, or the type."""
    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{_plain(choice)}`" for choice in get_args(field.annotation))
    signs = {Ge: "≥", Gt: ">", Le: "≤", Lt: "<"}
    limits = [
        f"{sign} {getattr(limit, kind.__name__.lower()):.10g}"
        for limit in field.metadata
        for kind, sign in signs.items()
        if isinstance(limit, kind)
    ]
    return ", ".join(limits) or _type_name(field.annotation)


def _plain(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, tuple | list):
        return f"[{', '.join(_plain(one) for one in value)}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_plain(one)}" for key, one in value.items()) + "}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _type_name(annotation: Any) -> str:
    names = {bool: "true or false", str: "text", int: "a whole number", float: "a number", Path: "a path"}
    kinds = get_args(annotation) if get_origin(annotation) is UnionType else (annotation,)
    return " or ".join(names[kind] if kind in names else "null" if kind is type(None) else "" for kind in kinds) or "–"


if __name__ == "__main__":
    OUT.write_text(page(), encoding="utf-8")
    print(f"wrote {OUT}")
