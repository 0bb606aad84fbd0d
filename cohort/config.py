"""Config: the strict base of every configuration, and its loading from YAML."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from cohort.errors import ConfigError

_NAMED = 3
"""Further wrong keys that are named."""


class Config(BaseModel):
    """A closed, frozen, typed set of options: unknown keys, wrong types and NaN are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)


C = TypeVar("C", bound=Config)


def load(path: Path, model: type[C]) -> C:
    """Read a YAML file into `model`.

    Raises:
        ConfigError: the file is missing, is not YAML, has a key twice, or a key or value `model` does not allow.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({type(error).__name__})") from error
    try:
        content = yaml.load(text, Loader=_UniqueKeyLoader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {_one_line(error)}") from error
    except RecursionError:
        raise ConfigError(f"{path}: not a configuration: nested too deeply") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected a mapping of keys to values")
    return parse(content, model, name=str(path))


def parse(content: Mapping[str, Any], model: type[C], name: str) -> C:
    """Validate a mapping as `model`; `name` says in the error where it came from.

    Raises:
        ConfigError: naming the first wrong key, what was allowed, and the keys that are wrong besides.
    """
    try:
        return model.model_validate(dict(content))
    except ValidationError as error:
        found = error.errors(include_url=False)
        first = next(
            (one for one in found if one["type"] == "extra_forbidden"), found[0]
        )  # a misspelt key, not its lack
        keys = [".".join(str(part) for part in one["loc"]) or "(top)" for one in found]
        key = keys[found.index(first)]
        value = "" if first["type"] in {"missing", "extra_forbidden"} else f", got {first['input']!r:.60}"
        reason = "unknown key" if first["type"] == "extra_forbidden" else first["msg"]
        others = [one for one in dict.fromkeys(keys) if one != key]
        named = ", ".join(f"{one:.60}" for one in others[:_NAMED]) + (", ..." if len(others) > _NAMED else "")
        more = f" (and {len(others)} more: {named})" if others else ""
        raise ConfigError(f"{name}: {key}: {reason}{value}{more}") from None


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML's safe loader, refusing a key given twice (the last would silently win)."""


def _mapping(loader: _UniqueKeyLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    loader.flatten_mapping(node)
    pairs = loader.construct_pairs(node, deep=True)
    keys = [key for key, _ in pairs]
    for key in keys:
        if keys.count(key) > 1:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is given twice", node.start_mark)
    return dict(pairs)


_UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def _one_line(error: yaml.YAMLError) -> str:
    """What is wrong and where, without the parser's picture of the line."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem and error.problem_mark:
        return f"{error.problem} (line {error.problem_mark.line + 1}, column {error.problem_mark.column + 1})"
    return " ".join(str(error).split())
