"""The multiverse: each variant is built from the same shards, and what it moves is measured."""

from pathlib import Path

import pytest

from cohort import artifact, config, multiverse, tables
from cohort.multiverse import MultiverseConfig
from tests.cohort import tiny

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    """Five variants of thirty random stays."""
    folder = tmp_path_factory.mktemp("multiverse")
    tables.write(tiny.random_tables(0, n_stays=30, rows=100), folder / "canonical" / "shard-00000")
    variants = {
        "same": {},
        "step_1h": {"grid": {"step_hours": 1}},
        "gcs": {"grid": {"gcs_rule": "last_testable"}},
        "dextrose": {"actions": {"include_d5w": True}},
        "dearer": {"reward": {"cost_per_icu_hour": 0.002}},
    }
    (folder / "out").mkdir()
    parsed = config.parse({"variants": variants}, MultiverseConfig, "multiverse")
    rows = multiverse.run(folder / "canonical", folder / "out", parsed, seed=0)
    assert artifact.read_json(folder / "out" / multiverse.FILE) == rows
    return {str(row["name"]): row for row in rows}


@pytest.mark.parametrize("name", ["base", "same"])
def test_the_same_definitions_move_nothing(table: dict[str, dict[str, object]], name: str) -> None:
    row = table[name]
    assert (row["state_moved"], row["action_moved"], row["sofa_moved"], row["return_change"]) == (0.0, 0.0, 0.0, 0.0)
    assert row["most_moved"] == {}
    assert row["shared"] == row["decisions"] == table["base"]["decisions"]


def test_each_variant_moves_what_it_defines_and_nothing_else(table: dict[str, dict[str, object]]) -> None:
    assert set(table["gcs"]["most_moved"]) <= {"gcs", "sofa"}  # type: ignore[call-overload]
    assert "gcs" in table["gcs"]["most_moved"]  # type: ignore[operator]
    assert table["gcs"]["action_moved"] == 0.0
    assert table["dextrose"]["state_moved"] == 0.0
    assert table["dextrose"]["action_moved"] > 0.0  # type: ignore[operator]
    assert table["dearer"]["return_change"] < 0.0  # type: ignore[operator]
    assert table["dearer"]["state_moved"] == 0.0


def test_actions_are_not_compared_between_steps_of_other_lengths(table: dict[str, dict[str, object]]) -> None:
    row = table["step_1h"]
    assert row["action_moved"] is None
    assert row["sofa_moved"] == 0.0
    assert row["shared"] == table["base"]["decisions"]
    assert row["decisions"] > row["shared"]  # type: ignore[operator]


def test_the_shipped_multiverse_is_allowed() -> None:
    shipped = config.load(ROOT / "configs" / "multiverse.yaml", MultiverseConfig)
    assert {"step_1h", "anchor_suspicion", "comorbidity_current"} <= set(shipped.variants)
