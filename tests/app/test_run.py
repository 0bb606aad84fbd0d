"""The pipeline: every stage on 60 stays, resumed, replaced, without the truth, and told apart by seed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app import run as pipeline
from app.run import Request, load_config
from app.stage import Existing, why_not_kept
from cohort import artifact
from cohort.errors import ArtifactError, ConfigError
from cohort.sources import SourceConfig

Suture = Callable[..., Any]
ROOT = Path(__file__).resolve().parents[2]
STAGES = ("tables", "cohort", "behaviour", "policy/bc", "policy/iql", "ope", "report")


def digests(run: Path) -> dict[str, str]:
    return {name: artifact.digest(run / name) for name in STAGES}


def kept(run: Path) -> dict[str, bool]:
    stages = json.loads((run / "run.json").read_text())["stages"]
    return {name: stages[name]["kept"] for name in STAGES}


@pytest.mark.parametrize("name", ["demo", "hospital", "mimic_iv", "mimic_iii"])
def test_each_shipped_configuration_is_valid(name: str) -> None:
    config = load_config(ROOT / "configs" / f"{name}.yaml")
    assert config.name == name
    assert config.evaluation.gamma == config.learners["iql"].gamma  # type: ignore[attr-defined]
    assert (config.hospital is None) == name.startswith("mimic")


def test_a_run_writes_every_stage_and_its_record(tiny_run: Path) -> None:
    record = json.loads((tiny_run / "run.json").read_text())
    assert record["finished"] is True
    assert record["seconds"] > 0
    for stage in STAGES:
        artifact.verify(tiny_run / stage)
        assert set(record["stages"][stage]) == {
            "seconds", "cpu_seconds", "peak_memory_mb", "rows", "kept", "why", "manifest",
        }  # fmt: skip
    assert record["stages"]["cohort"]["rows"]["stays"] <= 60
    html = (tiny_run / "report" / "report.html").read_text()
    assert "Not for clinical use" in html
    left = {path.name for path in tiny_run.iterdir()}
    assert left == {
        ".lock", "behaviour", "cohort", "mlartifacts", "mlflow.db", "ope", "policy", "report", "run.json", "tables",
        "truth",
    }  # fmt: skip


def test_every_stage_records_what_it_was_made_from(tiny_run: Path) -> None:
    def inputs(stage: str) -> dict[str, str]:
        found: dict[str, str] = artifact.read_manifest(tiny_run / stage)["inputs"]
        return found

    made = digests(tiny_run)
    assert inputs("cohort") == {"tables": made["tables"]}
    assert inputs("policy/iql") == {"cohort": made["cohort"]}
    assert inputs("ope") == {name: made[name] for name in ("cohort", "behaviour", "policy/bc", "policy/iql")}
    assert inputs("report") == {name: made[name] for name in ("cohort", "policy/bc", "policy/iql", "ope")}


def test_resuming_a_finished_run_keeps_every_stage(tiny_run: Path, tiny_config: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(tiny_run, copy)
    before = digests(copy)
    store = (copy / "mlflow.db").stat().st_mtime_ns
    pipeline.run(Request(load_config(tiny_config), copy, existing=Existing.KEEP))
    assert digests(copy) == before
    assert all(kept(copy).values())
    assert (copy / "mlflow.db").stat().st_mtime_ns == store


def test_resuming_makes_a_damaged_stage_and_nothing_else_again(
    tiny_run: Path, tiny_config: Path, tmp_path: Path, suture: Suture
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(tiny_run, copy)
    (copy / "policy" / "bc" / "weights.safetensors").write_bytes(b"damaged")
    done = suture("run", tiny_config, "--out", copy, "--resume")
    assert done.code == 0, done.err
    assert "policy/bc" in done.err
    assert "made again" in done.err
    assert "weights.safetensors: its hash differs" in done.err
    assert next(name for name, was in kept(copy).items() if not was) == "policy/bc"
    assert kept(copy)["cohort"]
    assert kept(copy)["policy/iql"]


def test_resuming_with_another_learner_option_says_which_and_trains_that_one_again(
    tiny_run: Path, tiny_config: Path, tmp_path: Path, suture: Suture
) -> None:
    copy, changed = tmp_path / "run", tmp_path / "changed.yaml"
    shutil.copytree(tiny_run, copy)
    changed.write_text(tiny_config.read_text().replace("iql: *quick", "iql: {hidden: [16], updates: 61}"))
    done = suture("run", changed, "--out", copy, "--resume")
    assert done.code == 0, done.err
    assert "its configuration changed" in done.err
    assert kept(copy)["policy/bc"]
    assert not kept(copy)["policy/iql"]
    assert not kept(copy)["ope"]


def test_an_existing_run_is_refused_and_left_byte_for_byte(tiny_run: Path, tiny_config: Path, suture: Suture) -> None:
    before = digests(tiny_run)
    record = (tiny_run / "run.json").read_bytes()
    done = suture("run", tiny_config, "--out", tiny_run)
    assert (done.code, done.err.count("\n")) == (4, 1)
    assert "already exists; use --resume" in done.err
    assert digests(tiny_run) == before
    assert (tiny_run / "run.json").read_bytes() == record


def test_the_same_seed_gives_the_same_cohort_and_weights_and_needs_no_truth(
    tiny_run: Path, tiny_config: Path, tmp_path: Path
) -> None:
    """Stage by stage from the tables alone: were the truth read anywhere, this would fail."""
    out = tmp_path / "run"
    out.mkdir()
    shutil.copytree(tiny_run / "tables", out / "tables")
    shutil.copy(tiny_run / "run.json", out / "run.json")
    request = Request(load_config(tiny_config), out)
    pipeline.alone(request, [pipeline.cohort_stage(request)])
    pipeline.alone(request, [pipeline.behaviour_stage(request), *pipeline.train_stages(request, ["bc"])])
    pipeline.alone(request, pipeline.train_stages(request, ["iql"]))
    pipeline.alone(request, [pipeline.evaluate_stage(request)])
    pipeline.alone(request, [pipeline.report_stage(request)])
    assert artifact.digest(out / "cohort") == artifact.digest(tiny_run / "cohort")
    for learner in ("bc", "iql"):
        weights = [run / "policy" / learner / "weights.safetensors" for run in (out, tiny_run)]
        assert weights[0].read_bytes() == weights[1].read_bytes()


def test_a_hospitals_own_tables_are_told_apart_by_their_bytes(
    tiny_run: Path, tiny_config: Path, tmp_path: Path
) -> None:
    """Copied tables without our manifest: the cohort's manifest holds one digest of the files that are read."""
    source = tmp_path / "source"
    shutil.copytree(tiny_run / "tables", source, ignore=shutil.ignore_patterns("manifest.json"))
    request = Request(load_config(tiny_config), tmp_path / "run", source=source)
    pipeline.alone(request, [pipeline.cohort_stage(request)])
    same = pipeline.cohort_stage(request).inputs["tables"]
    assert artifact.read_manifest(tmp_path / "run" / "cohort")["inputs"] == {"tables": same}
    (source / "notes.txt").write_text("not a table")
    assert pipeline.cohort_stage(request).inputs["tables"] == same
    table = next(source.rglob("icustays*"))
    table.write_bytes(table.read_bytes() + b"x")
    assert pipeline.cohort_stage(request).inputs["tables"] != same


def test_tables_in_folders_of_parts_are_told_apart_by_every_part(tiny_run: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(tiny_run / "tables", source, ignore=shutil.ignore_patterns("manifest.json"))
    (source / "icu" / "chartevents").mkdir()
    part = (source / "icu" / "chartevents.parquet").rename(source / "icu" / "chartevents" / "part-0.parquet")
    before = pipeline.digest_tables(source, SourceConfig(kind="mimic_iv"))
    assert pipeline.digest_tables(source, SourceConfig(kind="mimic_iv")) == before
    part.write_bytes(part.read_bytes() + b"x")
    changed = pipeline.digest_tables(source, SourceConfig(kind="mimic_iv"))
    assert changed != before
    part.with_name("part-1.parquet").write_bytes(b"more")
    assert pipeline.digest_tables(source, SourceConfig(kind="mimic_iv")) != changed


def test_a_meds_dataset_is_told_apart_by_every_file_below_its_data(tmp_path: Path) -> None:
    shard = tmp_path / "data" / "train" / "0.parquet"
    shard.parent.mkdir(parents=True)
    shard.write_bytes(b"events")
    before = pipeline.digest_tables(tmp_path, SourceConfig(kind="meds"))
    (tmp_path / "metadata").mkdir()
    (tmp_path / "metadata" / "codes.parquet").write_bytes(b"not read")
    assert pipeline.digest_tables(tmp_path, SourceConfig(kind="meds")) == before
    shard.write_bytes(b"others")
    assert pipeline.digest_tables(tmp_path, SourceConfig(kind="meds")) != before


@pytest.mark.slow
def test_replacing_a_run_removes_the_policies_that_it_no_longer_has(
    tiny_run: Path, tiny_config: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(tiny_run, copy)
    config = load_config(tiny_config)
    only = config.model_copy(update={"learners": {"bc": config.learners["bc"]}})
    pipeline.run(Request(only, copy, existing=Existing.REPLACE))
    assert [path.name for path in (copy / "policy").iterdir()] == ["bc"]


def test_a_configuration_without_a_hospital_needs_a_source(tmp_path: Path) -> None:
    config = load_config(ROOT / "configs" / "mimic_iii.yaml")
    with pytest.raises(ConfigError, match="--source DIR"):
        pipeline.run(Request(config, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_damaged_input_stops_the_stage_that_would_read_it(tiny_run: Path, tiny_config: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(tiny_run, copy)
    shutil.rmtree(copy / "ope")
    path = copy / "cohort" / "flow.json"
    path.write_text(path.read_text().replace("1", "2", 1))
    request = Request(load_config(tiny_config), copy)
    with pytest.raises(ArtifactError, match=r"flow\.json: its hash differs"):
        pipeline.alone(request, [pipeline.evaluate_stage(request)])
    assert not (copy / "ope").exists()


def test_training_begins_anew_where_its_checkpoint_is_damaged(
    tiny_run: Path, tiny_config: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    request = Request(load_config(tiny_config), tiny_run)
    stage = next(stage for stage in pipeline.train_stages(request) if stage.name == "policy/iql")
    draft, work = tmp_path / "draft", tmp_path / "work"
    for folder in (draft, work):
        folder.mkdir()
    (work / pipeline.CHECKPOINT_FILE).write_bytes(b"half a checkpoint")
    stage.make(artifact.Draft(draft, work), lambda _done, _total: None)
    assert "not a readable checkpoint" in capfd.readouterr().err
    weights = "weights.safetensors"
    assert (draft / weights).read_bytes() == (tiny_run / "policy" / "iql" / weights).read_bytes()


def test_a_report_from_before_a_sweep_is_made_again(tiny_run: Path, tiny_config: Path, tmp_path: Path) -> None:
    """The report tells of a sweep that is there; one that was made later, or again, is not in it."""
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    request = Request(load_config(tiny_config), run)
    assert why_not_kept(pipeline.report_stage(request), run) is None
    with artifact.writing(run / "sweep", "sweep", {}) as draft:
        artifact.write_json(draft.path / "selected.json", {})
    assert why_not_kept(pipeline.report_stage(request), run) == "its input changed: sweep"
