"""The evidence of a run: a changed number on its page is found, a signature vouches for it, and the verdict decides."""

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app import reproduction, verification
from app import run as pipeline
from app.run_directory import opened
from cohort import artifact
from cohort.errors import InputError
from cohort.sources import SourceConfig
from ope import gates, pdf

Suture = Callable[..., Any]


def sealed_again(stage: Path) -> None:
    """What somebody does who edits a stage and knows how its hashes are made."""
    manifest = artifact.read_sealed(stage / "manifest.json")
    manifest["files"] = {name: artifact.hash_file(stage / name) for name in manifest["files"]}
    artifact.write_sealed(stage / "manifest.json", manifest)
    with opened(stage.parent):
        pass


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of a finished run with its report."""
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


def edited(file: Path, pattern: str, replacement: str) -> None:
    text = file.read_text()
    changed = re.sub(pattern, replacement, text, count=1)
    assert changed != text
    file.write_text(changed)


def test_verify_counts_every_value_that_the_report_prints(suture: Suture, tiny_run: Path) -> None:
    done = suture("verify", tiny_run)
    assert done.code == 0, done.err
    printed = json.loads((tiny_run / "report" / "report.json").read_text())["printed"]
    assert len(printed) > 300
    assert f"{len(printed)} printed values, each as in the file that it names" in done.out


def test_a_changed_number_on_the_page_is_found_even_where_every_hash_was_made_again(suture: Suture, run: Path) -> None:
    page = run / "report" / "report.html"
    edited(page, r'(<data [^>]*data-at="ope/evaluation.json#/cohort/patients">)\d+', r"\g<1>9999")
    sealed_again(run / "report")
    done = suture("verify", run)
    assert (done.code, done.err.count("\n")) == (4, 1)
    assert "report.html: prints '9999' where ope/evaluation.json has another value at /cohort/patients" in done.err


def test_a_changed_label_of_a_picture_is_found_by_making_the_page_again(suture: Suture, run: Path) -> None:
    edited(run / "report" / "report.html", r'(<text class="small"[^>]*>)\d+(</text>)', r"\g<1>77\g<2>")
    sealed_again(run / "report")
    done = suture("verify", run)
    assert (done.code, done.err.count("\n")) == (4, 1)
    assert "report.html: differs from what report.json makes, at" in done.err


def test_a_report_of_another_evaluation_than_the_one_beside_it_is_found(suture: Suture, run: Path) -> None:
    edited(run / "ope" / "evaluation.json", r'("minimum_detectable": )[\d.]+', r"\g<1>0.001")
    sealed_again(run / "ope")
    done = suture("verify", run)
    assert (done.code, done.err.count("\n")) == (4, 1)
    assert "made from another" in done.err


def test_a_signed_run_verifies_by_the_public_key(suture: Suture, run: Path, tmp_path: Path) -> None:
    key = tmp_path / "key"
    assert suture("keygen", "--out", key).code == 0
    assert key.stat().st_mode & 0o077 == 0
    assert suture("sign", run, "--key", key).code == 0
    done = suture("verify", run, "--public-key", tmp_path / "key.pub")
    assert done.code == 0, done.err
    assert re.search(r"signature +\d+ files, signed ", done.out)


@pytest.fixture
def signed(suture: Suture, run: Path, tmp_path: Path) -> Path:
    suture("keygen", "--out", tmp_path / "key")
    assert suture("sign", run, "--key", tmp_path / "key").code == 0
    return run


def test_another_key_a_forged_signature_and_a_later_change_are_each_one_line(
    suture: Suture, signed: Path, tmp_path: Path
) -> None:
    suture("keygen", "--out", tmp_path / "other")
    public, file = tmp_path / "key.pub", signed / "signature.json"
    done = suture("verify", signed, "--public-key", tmp_path / "other.pub")
    assert (done.code, done.err.count("\n")) == (4, 1)
    assert "signature.json: signed by key" in done.err
    content = artifact.read_sealed(file)
    forged = {**content, "statement": {**content["statement"], "signed": "2001-01-01T00:00:00+00:00"}}
    artifact.write_sealed(file, forged)
    assert "forged" in suture("verify", signed, "--public-key", public).err
    artifact.write_sealed(file, content)
    with opened(signed) as directory:
        directory.update(note="later")
    assert "run.json: changed after the run was signed" in suture("verify", signed, "--public-key", public).err


@pytest.mark.parametrize(
    ("content", "says"), [(None, "cannot be read"), (b"nonsense", "no public key in PEM"), ("private", "no public key")]
)
def test_what_is_no_public_key_is_one_line(
    suture: Suture, signed: Path, tmp_path: Path, content: object, says: str
) -> None:
    file = tmp_path / "given"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else (tmp_path / "key").read_bytes())
    done = suture("verify", signed, "--public-key", file)
    assert (done.code, done.err.count("\n")) == (3, 1)
    assert says in done.err


def test_an_unsigned_run_and_a_key_that_is_there_are_one_line(suture: Suture, run: Path, tmp_path: Path) -> None:
    suture("keygen", "--out", tmp_path / "key")
    again = suture("keygen", "--out", tmp_path / "key")
    assert (again.code, again.err.count("\n")) == (4, 1)
    assert "a key is never replaced" in again.err
    done = suture("verify", run, "--public-key", tmp_path / "key.pub")
    assert (done.code, "the run is not signed" in done.err) == (4, True)
    wrong = suture("sign", run, "--key", tmp_path / "key.pub")
    assert (wrong.code, "no unencrypted private key in PEM" in wrong.err) == (3, True)
    assert not (run / "signature.json").exists()


def test_a_damaged_run_is_not_signed(suture: Suture, run: Path, tmp_path: Path) -> None:
    suture("keygen", "--out", tmp_path / "key")
    (run / "cohort" / "flow.json").write_text("{}")
    done = suture("sign", run, "--key", tmp_path / "key")
    assert (done.code, "cohort/flow.json: its hash differs" in done.err) == (4, True)
    assert not (run / "signature.json").exists()


def test_promotion_is_refused_unless_the_verdict_allows_it(suture: Suture, run: Path) -> None:
    done = suture("promote", run, "--by", "A. Auditor", "--reason", "shadow evaluation")
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert "iql is not promoted: the verdict is 'insufficient evidence'" in done.err
    assert "promotions" not in verification.read_record(run)
    assert suture("promote", run, "--by", " ", "--reason", "x").code == 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:The ``noload``")  # MLflow's libraries, of each other
def test_promotion_sets_the_alias_and_records_who_and_why(suture: Suture, run: Path) -> None:
    from mlflow import MlflowClient

    evaluation = run / "ope" / "evaluation.json"
    document = artifact.read_json(evaluation)
    document["verdict"]["verdict"] = gates.ELIGIBLE
    artifact.write_json(evaluation, document)
    sealed_again(run / "ope")
    assert suture("report", run, "--overwrite", "--no-pdf").code == 0
    done = suture("promote", run, "--by", "A. Auditor", "--reason", "shadow evaluation")
    assert done.code == 0, done.err
    (entry,) = verification.read_record(run)["promotions"]
    assert (entry["by"], entry["reason"], entry["policy"]) == ("A. Auditor", "shadow evaluation", "iql")
    client = MlflowClient(tracking_uri=f"sqlite:///{run / 'mlflow.db'}")
    version = client.get_model_version_by_alias("tiny-iql", "champion")
    assert (version.tags["champion.by"], version.tags["champion.reason"]) == ("A. Auditor", "shadow evaluation")
    assert suture("verify", run).code == 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:The ``noload``")
def test_gates_and_the_certificate_are_measures_of_the_mlflow_run(tiny_run: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{tiny_run / 'mlflow.db'}")
    (found,) = client.search_runs([client.get_experiment_by_name("suture").experiment_id])
    assert found.data.metrics["gate/iql/too_few_patients/passed"] == 0
    assert 0 <= found.data.metrics["certificate/iql/wis/coverage"] <= 1
    stored = {one.path for one in client.list_artifacts(found.info.run_id, "report")}
    assert {"report/report.json", "report/report.html", "report/model_card.md"} <= stored
    assert all(not model.aliases for model in client.search_registered_models())


def test_a_run_without_an_evaluation_has_no_report_and_leaves_none_behind(suture: Suture, run: Path) -> None:
    shutil.rmtree(run / "report")
    shutil.rmtree(run / "ope")
    done = suture("report", run)
    assert (done.code, done.err.count("\n")) == (4, 1)
    assert f"{run / 'ope'}: no manifest.json" in done.err
    assert not (run / "report").exists()


def test_a_report_that_is_there_is_refused_and_made_again_where_asked(suture: Suture, run: Path) -> None:
    before = (run / "report" / "report.json").read_bytes()
    assert "already exists" in suture("report", run).err
    done = suture("report", run, "--overwrite", "--no-pdf")
    assert done.code == 0, done.err
    assert json.loads((run / "report" / "report.json").read_bytes())["printed"] == json.loads(before)["printed"]
    assert not (run / "report" / "report.pdf").exists()
    assert verification.read_record(run)["finished"] is True


def test_a_manifest_of_another_version_is_one_line(suture: Suture, run: Path) -> None:
    manifest = artifact.read_sealed(run / "ope" / "manifest.json")
    artifact.write_sealed(run / "ope" / "manifest.json", {**manifest, "version": 1})
    for command in ("verify", "report", "reproduce"):
        done = suture(command, run)
        assert (done.code, done.err.count("\n")) == (4, 1)
        assert "ope/manifest.json: version 1, this Suture reads version 2" in done.err


def test_without_the_library_a_demanded_pdf_leaves_no_report_and_an_undemanded_one_says_so(
    suture: Suture, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(run / "report")
    monkeypatch.setitem(sys.modules, "weasyprint", None)
    done = suture("report", run, "--pdf")
    assert (done.code, done.err.count("\n")) == (4, 1)
    assert f"PDF: a library is missing (import of weasyprint halted; None in sys.modules); {pdf.NEEDS}" in done.err
    assert not (run / "report").exists()
    done = suture("report", run)
    assert done.code == 0, done.err
    assert "without a PDF: PDF: a library is missing" in done.err
    assert (run / "report" / "report.html").is_file()


def test_two_runs_side_by_side_say_what_changed(suture: Suture, run: Path, tiny_run: Path) -> None:
    manifest = artifact.read_sealed(run / "policy" / "iql" / "manifest.json")
    assert manifest["config"]["tau"] != 0.9
    done = suture("report", run, "--against", tiny_run)
    assert done.code == 0, done.err
    page = (run / "comparison" / "comparison.html").read_text()
    assert "Every setting is the same." in page
    assert "differs</b>" not in page
    assert suture("verify", run).code == 0


def test_tables_outside_the_run_are_compared_byte_for_byte(suture: Suture, run: Path, tmp_path: Path) -> None:
    """As a run on a hospital's own tables: the simulated ones are moved out, and their digest is recorded."""
    source = Path(shutil.copytree(run / "tables", tmp_path / "source", ignore=shutil.ignore_patterns("manifest.json")))
    done = suture("verify", run, "--source", source)
    assert (done.code, "holds its own tables" in done.err) == (3, True)
    shutil.rmtree(run / "tables")
    shutil.rmtree(run / "truth")
    manifest = artifact.read_sealed(run / "cohort" / "manifest.json")
    digest = pipeline.digest_tables(source, SourceConfig(kind="mimic_iv"))
    artifact.write_sealed(run / "cohort" / "manifest.json", {**manifest, "inputs": {"tables": digest}})
    reproduction.require_same_tables(run, source)
    file = next(source.rglob("patients.*"))
    file.write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(InputError, match=r"not the tables that .* was made from \(their digest differs\)"):
        reproduction.require_same_tables(run, source)


@pytest.mark.slow
def test_a_run_made_again_from_its_manifests_has_the_same_digests(suture: Suture, tiny_run: Path) -> None:
    before = sorted(tiny_run.parent.iterdir())
    done = suture("reproduce", tiny_run)
    assert done.code == 0, done.out + done.err
    assert "reproduced: every stage has the same digest, and the report prints the same values" in done.out
    assert sorted(tiny_run.parent.iterdir()) == before
