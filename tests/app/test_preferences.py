"""DPO from a table of preferences, through the command line."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from cohort import artifact, build

Suture = Callable[..., Any]


def test_a_preference_table_trains_a_policy_whose_divergence_is_reported(
    suture: Suture, tiny_config: Path, tiny_run: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    episodes = build.episodes(run / "cohort", "train")
    table = pd.DataFrame(episodes.state, columns=list(episodes.features)).assign(chosen=5, rejected=0)
    table.to_parquet(tmp_path / "overrides.parquet")
    options = f"{{preferences: {tmp_path / 'overrides.parquet'}, updates: 200, behaviour: *quick}}"
    config = tmp_path / "config.yaml"
    config.write_text(tiny_config.read_text().replace("  iql: *quick", f"  iql: *quick\n  dpo: {options}"))
    assert suture("train", config, "--out", run, "--learner", "dpo").code == 0
    notes = artifact.read_manifest(run / "policy" / "dpo")["notes"]
    assert (notes["source"], notes["preferences"]) == ("table", len(table))
    assert notes["kl_reference"] > 1e-4
    assert "kept" in suture("train", config, "--out", run, "--learner", "dpo", "--resume").err
    table.assign(chosen=6).to_parquet(tmp_path / "overrides.parquet")
    again = suture("train", config, "--out", run, "--learner", "dpo", "--resume")
    assert (again.code, "preferences.sha256 was" in again.err) == (0, True)
    table.drop(columns="chosen").to_parquet(tmp_path / "overrides.parquet")
    refused = suture("train", config, "--out", run, "--learner", "dpo", "--overwrite")
    assert refused.code == 3
    assert refused.err.endswith("column 'chosen' is missing (1 in all)\n")
    assert artifact.read_manifest(run / "policy" / "dpo")["notes"]["preferences"] == len(table)
