"""A small simulated cohort, made once for the tests that need a whole cohort directory."""

from pathlib import Path

import pytest

from cohort import artifact, build


@pytest.fixture(scope="session")
def cohort_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """150 simulated stays, through the hospital's tables."""
    from cohort import hospital, sources

    root = tmp_path_factory.mktemp("ope")
    hospital.simulate(root / "tables", root / "truth", hospital.HospitalConfig(n_stays=150), 3)
    with artifact.writing(root / "cohort", "cohort", {}, seed=3) as draft:
        sources.ingest(root / "tables", draft.path / "canonical", sources.SourceConfig(kind="mimic_iv"))
        build.build(draft.path / "canonical", draft.path, build.CohortConfig(), 3)
    return root / "cohort"


@pytest.fixture(scope="session")
def policies(cohort_dir: Path) -> dict[str, Path]:
    """Two saved policies of the cohort, hardly trained."""
    import policy
    from policy import store

    episodes, out = build.episodes(cohort_dir, "train"), {}
    for name in ("bc", "iql"):
        out[name] = cohort_dir.parent / "policy" / name
        with artifact.writing(out[name], "policy", {}, {"cohort": cohort_dir}, 0) as draft:
            store.write(policy.fit(name, episodes, {"updates": 60, "hidden": [16], "min_updates": 0}, 0), draft.path)
    return out
