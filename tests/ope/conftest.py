"""A small simulated cohort with two policies, made once, for the tests that need a whole cohort directory."""

import subprocess
import sys
from pathlib import Path

import pytest

MAKE = """
import sys
from pathlib import Path
import pyarrow as pa
import pyarrow.parquet as pq
import policy
from cohort import artifact, build, hospital, sources
from policy import behaviour, store

root = Path(sys.argv[1])
hospital.simulate(root / "tables", root / "truth", hospital.HospitalConfig(n_stays=150), 3)
infusions = root / "tables" / "icu" / "inputevents.parquet"
table = pq.read_table(infusions)
unit = table["rateuom"].to_pylist()
unit[::97] = ["drops/fortnight"] * len(unit[::97])
pq.write_table(table.set_column(table.column_names.index("rateuom"), "rateuom", pa.array(unit)), infusions)
with artifact.writing(root / "cohort", "cohort", {}, seed=3) as draft:
    sources.ingest(root / "tables", draft.path / "canonical", sources.SourceConfig(kind="mimic_iv"))
    build.build(draft.path / "canonical", draft.path, build.CohortConfig(), 3)
episodes = build.episodes(root / "cohort", "train")
for name in ("bc", "iql"):
    with artifact.writing(root / "policy" / name, "policy", {}, {"cohort": root / "cohort"}, 0) as draft:
        store.write(policy.fit(name, episodes, {"updates": 60, "hidden": [16], "min_updates": 0}, 0), draft.path)
with artifact.writing(root / "behaviour", "behaviour", {}, {"cohort": root / "cohort"}, 0) as draft:
    quick = behaviour.BehaviourConfig(updates=60, hidden=(16,), min_updates=0)
    store.write(behaviour.fit(episodes, quick, 0), draft.path)
"""


@pytest.fixture(scope="session")
def cohort_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """150 simulated stays, through the hospital's tables, some of whose doses have a unit that nobody knows.

    In a process of its own, without the tests' type checks.
    """
    root = tmp_path_factory.mktemp("ope")
    subprocess.run([sys.executable, "-c", MAKE, str(root)], check=True, cwd=Path(__file__).parents[2])
    return root / "cohort"


@pytest.fixture(scope="session")
def policies(cohort_dir: Path) -> dict[str, Path]:
    """Two saved policies of the cohort, hardly trained."""
    return {name: cohort_dir.parent / "policy" / name for name in ("bc", "iql")}


@pytest.fixture(scope="session")
def behaviour(cohort_dir: Path) -> Path:
    """What clinicians do in a state, as it stands beside a recommendation."""
    return cohort_dir.parent / "behaviour"
