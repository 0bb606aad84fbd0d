"""The real demo: what must come out of it."""

import os
from pathlib import Path

import pytest

from cohort import sources, tables

DEMO = Path(
    os.environ.get("SUTURE_MIMIC_III_DEMO", Path(__file__).resolve().parents[4] / "shared" / "data" / "mimic-iii-demo")
)
pytestmark = pytest.mark.skipif(not DEMO.is_dir(), reason=f"no MIMIC-III demo at {DEMO}; set SUTURE_MIMIC_III_DEMO")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[tables.Tables, dict[tuple[str, str], int]]:
    out = tmp_path_factory.mktemp("demo")
    counts = sources.ingest(DEMO, out, sources.SourceConfig(kind="mimic_iii"))
    return tables.read(out / "shard-00000"), dict(counts)


def test_all_136_stays_come_in(demo: tuple[tables.Tables, object]) -> None:
    stays = demo[0].stays
    assert len(stays) == 136
    assert stays["charting"].value_counts().to_dict() == {"metavision": 77, "carevue": 59}
    assert stays["age_years"].max() == 91.4


def test_no_unit_of_the_demo_is_unknown(demo: tuple[object, dict[tuple[str, str], int]]) -> None:
    assert [key for key in demo[1] if "unit not known" in key[1]] == []


@pytest.mark.parametrize(
    ("concept", "low", "high"),
    [("heart_rate", 80, 95), ("map", 65, 85), ("temperature_c", 36, 38), ("fio2", 0.4, 0.6), ("creatinine", 0.8, 1.5),
     ("lactate", 1.5, 3.5), ("weight_kg", 65, 90), ("pao2", 80, 130), ("gcs_motor", 5, 6), ("inr", 1.1, 2)],
)  # fmt: skip
def test_the_median_of_a_concept_is_plausible(
    demo: tuple[tables.Tables, object], concept: str, low: float, high: float
) -> None:
    seen = demo[0].observations
    assert low <= seen[seen["concept"] == concept]["value"].median() <= high


def test_vasopressors_have_the_medians_that_clinicians_give(demo: tuple[tables.Tables, object]) -> None:
    given = demo[0].infusions
    median = given[given["normalised_rate"] > 0].groupby("drug", observed=True)["normalised_rate"].median()
    assert 0.05 < median["norepinephrine"] < 0.3
    assert 3 < median["dopamine"] < 10
    assert 0.03 < median["vasopressin"] < 0.05
    assert 0.5 < median["phenylephrine"] < 3
