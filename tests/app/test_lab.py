"""`suture lab` writes what its functions find, as JSON and a table of curves."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from app import lab
from cohort import artifact

Suture = Callable[..., Any]


def test_the_drawings_are_the_guides_at_its_own_numbers() -> None:
    found = lab.drawings()
    assert found["expectile"][4] == {"tau": 0.9, "value": pytest.approx(80 / 11)}
    assert found["temperature"][3]["weight"] == pytest.approx([0.018, 0.979, 0.002], abs=1e-3)
    assert found["filter"][0] == {"top_percent": 10.0, "kept": [False] * 9 + [True], "least": 10.0, "mean": 10.0}
    assert found["overestimation"]["error"][-1] == pytest.approx(300.0, rel=1e-3)
    assert np.array(found["gridworld"]["q"]).shape == (5, 5, 4)
    assert found["stitching"]["guide"]["temporal_difference"]["s1"] == 6.5
    assert {"state": "s3", "action": 1, "value": 10.0} in found["stitching"]["by_tau"]["0.9"]["q"]


@pytest.mark.slow
def test_the_lab_writes_its_curves_whole_or_not_at_all(suture: Suture, tmp_path: Path) -> None:
    out = tmp_path / "lab"
    done = suture("lab", "--out", out)
    assert done.code == 0, done.err
    assert "without conservatism: conservative_iql reaches" in done.out
    document = artifact.read_json(out / "lab.json")
    assert len(document["comparison"]) == 12
    curves = pd.read_parquet(out / "curves.parquet")
    assert curves.groupby("removed").size().to_dict() == dict.fromkeys(
        ("advantage weighting", "conservatism", "stitching"), 10
    )
    assert curves[(curves.learner == "dqn")].q_max.max() > 20
    artifact.verify(out)
    assert suture("lab", "--out", out).code == 4
