"""Configuration files: closed, typed, and every error one line that names the key."""

from pathlib import Path

import pytest
from pydantic import Field

from cohort import config, features, grid
from cohort.build import CohortConfig
from cohort.errors import ConfigError


class Inner(config.Config):
    """A nested part."""

    share: float = Field(default=0.5, ge=0, le=1)


class Outer(config.Config):
    """A configuration."""

    seed: int = 0
    inner: Inner = Inner()


def loaded(tmp_path: Path, text: str) -> Outer:
    """`text` as a file, read."""
    file = tmp_path / "c.yaml"
    file.write_text(text)
    return config.load(file, Outer)


def test_a_file_is_read_with_defaults_for_what_it_leaves_out(tmp_path: Path) -> None:
    made = loaded(tmp_path, "inner: {share: 0.25}\n")
    assert (made.seed, made.inner.share) == (0, 0.25)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sed: 1\n", r"c\.yaml: sed: unknown key$"),
        ("inner: {shares: 1}\n", r"inner\.shares: unknown key$"),
        ("inner: {share: 2}\n", r"inner\.share: Input should be less than or equal to 1, got 2$"),
        ("inner: {share: .nan}\n", r"inner\.share: Input should be a finite number"),
        ("seed: one\nfoo: 1\n", r"foo: unknown key \(and 1 more: seed\)$"),
        ("a: 1\nb: 1\nc: 1\nd: 1\ne: 1\n", r"a: unknown key \(and 4 more: b, c, d, \.\.\.\)$"),
        ("seed: 1\nseed: 2\n", r"the key 'seed' is given twice"),
        ("inner:\n  share: 0.1\n  share: 0.2\n", r"the key 'share' is given twice"),
        ("- 1\n", r"expected a mapping"),
        ("", r"expected a mapping"),
        ("a: [1\n", r"c\.yaml: not valid YAML: expected .* \(line 2, column 1\)$"),
        ("seed: 1\n\tinner: 2\n", r"c\.yaml: not valid YAML: found character '\\t' .* \(line 2, column 1\)$"),
        ("a: \x07\n", r"c\.yaml: not valid YAML: .*special characters are not allowed"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        loaded(tmp_path, text)
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 2


def test_a_missing_file_and_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        config.load(tmp_path / "none.yaml", Outer)
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        config.load(tmp_path / "b.yaml", Outer)


def test_a_configuration_cannot_be_changed_once_made() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Outer().seed = 3  # type: ignore[misc]


def test_the_cohort_is_configurable_in_every_part_and_survives_a_round_trip() -> None:
    made = config.parse({"grid": {"step_hours": 1}, "split": {"train": 0.5}}, CohortConfig, "cohort")
    assert config.parse(made.model_dump(mode="json"), CohortConfig, "again") == made


def test_the_dictionary_holds_what_every_feature_needs() -> None:
    assert set(grid.columns()) >= set(features.MEASURED)
    assert len(features.MEASURED) == 37


def test_a_file_nested_beyond_reason_is_refused(tmp_path: Path) -> None:
    deep = tmp_path / "deep.yaml"
    deep.write_text("name: " + "[" * 20_000 + "]" * 20_000)
    with pytest.raises(ConfigError, match=r"deep\.yaml: not a configuration: nested too deeply"):
        config.load(deep, Outer)
