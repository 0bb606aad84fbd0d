"""The quality page: every lost stay is told, no small cell is, and the same cohort gives the same bytes."""

import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from cohort import artifact
from cohort.errors import ArtifactError
from ope import plots, quality_page
from tests import small_run
from tests.ope.test_report import Balance, text_of

GROUPS = ("overall", "survived", "died")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_run.shared(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def page(run: Path) -> str:
    return quality_page.render(run)


def counted(name: str, survived: int, died: int, known: tuple[int, int]) -> dict[str, Any]:
    """A row of Table 1 for a characteristic that a stay has or has not."""
    counts = dict(zip(GROUPS, (survived + died, survived, died), strict=True))
    sizes = dict(zip(GROUPS, (sum(known), *known), strict=True))
    cells = {group: {"count": counts[group], "share": counts[group] / sizes[group]} for group in GROUPS}
    return {"name": name, "missing": 0, "smd": 0.25, "known": sizes, **cells}


def test_the_flow_is_told_as_a_table_and_as_a_picture_with_its_text(run: Path, page: str) -> None:
    steps = artifact.read_json(run / "cohort" / "flow.json")["steps"]
    picture = re.search(r'<svg class="plot"[^>]*aria-label="(Cohort flow: [^"]+)"', page)
    assert picture is not None
    for step in steps[1:]:
        assert f"{step['stays_lost']:,} stays left out: {step['reason']}; {step['stays_kept']:,} stays" in picture[
            1
        ].replace("&#39;", "'")
        row = f"{step['reason']} {step['stays_in']} {step['stays_lost']} {step['stays_kept']} {step['patients_kept']}"
        assert row in text_of(page)


def test_the_picture_has_a_box_for_what_is_left_and_one_for_what_was_lost_at_every_step() -> None:
    picture = plots.flow(
        [("9 stays", None), ("7 stays", ("2 lost", "<young>")), ("7 stays", ("0 lost", "late"))], "flow"
    )
    assert picture.count('class="box"') == 3
    assert picture.count('class="box side"') == 2
    assert "&lt;young&gt;" in picture


@pytest.mark.parametrize("cells", [(40, 9, 50, 40), (40, 31, 50, 40), (9, 30, 50, 40), (3, 4, 50, 9)])
def test_a_small_cell_of_table_1_is_withheld_with_the_other_outcomes(cells: tuple[int, int, int, int]) -> None:
    survived, died, *known = cells
    row = counted("readmission", survived, died, (known[0], known[1]))
    (shown,) = quality_page.table_1({"rows": [row]})
    assert shown["survived"] is None
    assert shown["died"] is None
    assert shown["smd"] is None


def test_a_large_cell_of_table_1_is_shown() -> None:
    (shown,) = quality_page.table_1({"rows": [counted("readmission", 40, 10, (50, 40))]})
    assert (shown["survived"], shown["died"], shown["smd"]) == ("40 (80%)", "10 (25%)", 0.25)


def test_quartiles_of_few_stays_and_small_counts_of_missing_ones_are_withheld() -> None:
    row = {"name": "lactate", "missing": 9, "smd": 1.0, "known": {"overall": 69, "survived": 60, "died": 9}}
    (shown,) = quality_page.table_1({"rows": [{**row, **{group: [1.0, 2.0, 3.0] for group in GROUPS}}]})
    assert (shown["overall"], shown["survived"], shown["died"]) == ("2 (1 to 3)", None, None)
    assert shown["missing"] == "<10"


def test_the_page_holds_no_identifier(run: Path, page: str) -> None:
    stays = artifact.read_parquet(run / "cohort" / "stays.parquet", ["stay_id", "subject_id", "hadm_id"]).to_pandas()
    assert not {str(one) for one in stays.to_numpy().ravel()} & set(re.findall(r"\d+", page))


def test_every_feature_is_told_with_its_imputed_share(run: Path, page: str) -> None:
    text = text_of(page)
    for name, entry in artifact.read_json(run / "cohort" / "quality.json")["features"].items():
        assert re.search(
            rf"{quality_page.named(name)[0]} \S* ?{entry['coverage']:.0%} {1 - entry['coverage']:.0%}", text
        )


def test_what_the_source_counted_stands_beside_its_measurement(run: Path) -> None:
    quality = deepcopy(artifact.read_json(run / "cohort" / "quality.json"))
    reasons = {"out of range": 3, "unit not known": 4, "repeated row": 5, "converted from another unit than usual": 6}
    quality["source"] = [
        {"table": "labevents", "reason": f"lactate: {why}", "rows": n} for why, n in reasons.items()
    ]  # fmt: skip
    quality["source"].append({"table": "inputevents", "reason": "drug: unit not known", "rows": 7})
    rows = {row["name"]: row for row in quality_page.charted(quality)}
    lactate = rows["Lactate"]
    assert [lactate[key] for key in ("out_of_range", "quarantined", "repeated", "converted")] == [3, 4, 5, 6]
    assert "Drug" not in rows


def test_the_page_is_for_research_loads_nothing_and_closes_every_element(page: str) -> None:
    parser = Balance()
    parser.feed(page)
    assert parser.open == []
    assert {link[1:] for link in parser.links} <= set(parser.ids)
    assert text_of(page).count("Not for clinical use") >= 2
    assert not re.search(r"(?:src|href)\s*=\s*[\"']?(?:https?:)?//|<script|@import|url\(http", page)


def test_the_same_cohort_gives_the_same_bytes_in_another_directory(run: Path, page: str, tmp_path: Path) -> None:
    (tmp_path / "cohort").symlink_to(run / "cohort")
    assert quality_page.render(tmp_path) == page


def edited(run: Path, out: Path, file: str, edit: object) -> Path:
    """A run whose cohort is sealed again with one file replaced."""
    with artifact.writing(out / "cohort", "cohort", {}, seed=0) as draft:
        for name in quality_page.READ:
            artifact.write_json(draft.path / name, artifact.read_json(run / "cohort" / name) if name != file else edit)
    return out


def test_a_reason_of_the_source_is_escaped(run: Path, tmp_path: Path) -> None:
    quality = artifact.read_json(run / "cohort" / "quality.json")
    quality["source"] = [{"table": "labevents", "reason": "<img src=x>: out of range", "rows": 1}]
    page = quality_page.render(edited(run, tmp_path, "quality.json", quality))
    assert "<img" not in page
    assert "&lt;img src=x&gt;" in page


def test_a_cohort_without_the_sizes_of_its_cells_is_refused(run: Path, tmp_path: Path) -> None:
    baseline = artifact.read_json(run / "cohort" / "baseline.json")
    del baseline["rows"][0]["known"]
    with pytest.raises(ArtifactError, match=r"baseline\.json: rows: no field `known`"):
        quality_page.render(edited(run, tmp_path, "baseline.json", baseline))


def test_a_changed_file_is_not_printed(run: Path, tmp_path: Path) -> None:
    out = edited(run, tmp_path, "", None)
    file = out / "cohort" / "flow.json"
    file.write_text(file.read_text() + "\n")
    with pytest.raises(ArtifactError, match=r"flow\.json: its hash differs"):
        quality_page.render(out)


def test_what_was_planted_and_caught_is_told_where_the_truth_is_known(run: Path, page: str, tmp_path: Path) -> None:
    assert "can be told only where the truth is known" in page
    (tmp_path / "cohort").symlink_to(run / "cohort")
    rows = [{"kind": "pounds_as_kg", "unit_fault": True, "planted": 40, "caught": 30}]
    with artifact.writing(tmp_path / "rollouts", "rollouts", {}) as draft:
        artifact.write_json(draft.path / "detection.json", {"faults": rows})
    assert "pounds as kg (unit) 40 30 75.0% too few" in text_of(quality_page.render(tmp_path))
