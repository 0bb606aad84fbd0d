"""Every learner has a configuration file that its own Config accepts."""

from importlib import import_module
from pathlib import Path

import pytest

from cohort import config
from policy import LEARNERS

DIRECTORY = Path(__file__).resolve().parents[2] / "configs" / "learners"


@pytest.mark.parametrize("name", LEARNERS)
def test_configuration_file_is_the_learners_defaults(name: str) -> None:
    options = import_module(LEARNERS[name]).Config
    loaded = config.load(DIRECTORY / f"{name}.yaml", options)
    default = options().model_dump()
    numbers = {key: value for key, value in loaded.model_dump().items() if isinstance(value, float)}
    assert numbers == pytest.approx({key: default[key] for key in numbers})
    assert {key: value for key, value in loaded.model_dump().items() if key not in numbers} == {
        key: value for key, value in default.items() if key not in numbers
    }


def test_there_is_no_file_without_a_learner() -> None:
    assert {file.stem for file in DIRECTORY.glob("*.yaml")} == set(LEARNERS)
