"""The report: what it must say first, what it must never print, and that it needs nothing from anywhere."""

import hashlib
import html.parser
import json
import re
from base64 import b64encode
from pathlib import Path

import numpy as np
import pytest

from cohort import artifact
from cohort.errors import ArtifactError
from cohort.sources import SOURCES
from ope import assessment, divergence, gates, hazards, pictures, plots, report, words
from ope.estimates import ESTIMATORS
from ope.evaluation import CONTROLS
from ope.evidence import Evidence, gather
from ope.page import embedded, grouped, number
from policy.base import LEARNERS
from tests import small_run

VOID = {"meta", "br", "img", "input", "hr", "link"}


class Balance(html.parser.HTMLParser):
    """Raises where a tag is closed that is not the open one."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.ids += [given["id"]] if given.get("id") else []
        self.links += [given["href"]] if given.get("href") else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes another element"


def text_of(page: str) -> str:
    """What a reader sees, tags and style left out, white space joined."""
    body = re.sub(r"<(style|script|title)[^>]*>.*?</\1>", " ", page, flags=re.S)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


def rendered(run: Path) -> str:
    """The report's page."""
    return report.render(report.document(run))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_run.shared(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def page(run: Path) -> str:
    return rendered(run)


def test_the_verdict_and_its_binding_constraint_come_before_everything_else(page: str) -> None:
    text = text_of(page)
    verdict, binding = text.index("Insufficient evidence"), text.index("Binding constraint: Enough patients")
    assert verdict < binding < text.index("Patients evaluated") < text.index("The gates were fixed")


def test_it_says_that_it_is_not_for_clinical_use(page: str) -> None:
    assert text_of(page).count("Not for clinical use") >= 2


def test_the_page_loads_nothing_from_anywhere(page: str) -> None:
    assert not re.search(r"(?:src|href)\s*=\s*[\"']?(?:https?:)?//", page)
    assert "@import" not in page
    assert "url(http" not in page
    assert re.findall(r"<script([^>]*)>", page) == [' type="application/json" id="report-data"', ""]
    script = page.rsplit("<script>", 1)[1].split("</script>")[0]
    assert f"script-src 'sha256-{b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in page
    assert not re.search(r"fetch|XMLHttp|import\(|src=", script)


def test_every_element_is_closed_and_every_link_has_its_target(page: str) -> None:
    parser = Balance()
    parser.feed(page)
    assert parser.open == []
    assert len(parser.ids) == len(set(parser.ids))
    assert {link[1:] for link in parser.links if link != "quality.html"} <= set(parser.ids)


def test_a_document_that_has_a_number_that_it_withholds_is_refused(run: Path, tmp_path: Path) -> None:
    """The page holds its data whole: what may not be printed may not be in them either."""
    at = "policies/iql/estimates/1/"
    edit = {at + "value": 0.718281, at + "withheld": "low_ess: too few"}
    with pytest.raises(ArtifactError, match=r"evaluation\.json: holds a number that it says is withheld"):
        rendered(small_run.with_evaluation(run, tmp_path / "run", edit))


def test_every_estimate_is_printed_with_its_interval_where_nothing_withholds_it(run: Path, tmp_path: Path) -> None:
    at = "policies/iql/estimates/1/"
    edit = {at + "value": 0.718281, at + "low": 0.618281, at + "high": 0.818281, at + "withheld": None}
    text = text_of(rendered(small_run.with_evaluation(run, tmp_path / "run", edit)))
    assert "0.718 0.618 to 0.818" in text


def test_a_withheld_number_stands_with_its_reason_and_what_would_lift_it(page: str) -> None:
    assert re.search(
        r"withheld \d+ \d+ patients, at least 200 needed\. Lifted by records of more patients", text_of(page)
    )


@pytest.mark.parametrize(
    ("verdict", "word", "tone"),
    [
        (gates.REFUSED, "Refused", "bad"),
        (gates.INSUFFICIENT, "Insufficient evidence", "wait"),
        (gates.ELIGIBLE, "Eligible for silent (shadow) evaluation", "good"),
    ],
)
def test_each_verdict_has_its_word_and_its_tone(run: Path, tmp_path: Path, verdict: str, word: str, tone: str) -> None:
    page = rendered(small_run.with_evaluation(run, tmp_path / "run", {"verdict/verdict": verdict}))
    assert f'class="verdict {tone}"' in page
    text = text_of(page)
    assert text.index(f"Verdict {word} ") < text.index("Binding constraint")


def test_names_and_reasons_are_escaped(run: Path, tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)>"
    edit = {"verdict/binding/reason": evil, "policies/iql/estimates/0/withheld": f"low_ess: {evil}"}
    page = rendered(small_run.with_evaluation(run, tmp_path / evil.replace("/", ""), edit))
    assert "<img" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page


def test_a_changed_evaluation_is_not_reported(run: Path, tmp_path: Path) -> None:
    out = small_run.with_evaluation(run, tmp_path / "run", {})
    file = out / "ope" / "evaluation.json"
    file.write_text(file.read_text().replace('"seed": 0', '"seed": 1'))
    with pytest.raises(ArtifactError, match=r"evaluation\.json: its hash differs"):
        rendered(out)


def test_a_run_without_an_evaluation_is_one_line(run: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "cohort").symlink_to(run / "cohort")
    with pytest.raises(ArtifactError, match="ope: no manifest"):
        rendered(tmp_path / "run")


def test_the_flow_prints_every_step_and_the_splits_add_up(run: Path, page: str) -> None:
    flow, text = artifact.read_json(run / "cohort" / "flow.json"), text_of(page)
    for step in flow["steps"][1:]:
        assert f"{step['stays_lost']} left out: {step['reason']}" in text
    assert sum(part["stays"] for part in flow["splits"].values()) == flow["steps"][-1]["stays_kept"]


def test_the_lineage_prints_the_full_digest_of_every_stage(run: Path, page: str) -> None:
    for stage in ("cohort", "behaviour", "policy/bc", "policy/iql", "ope"):
        assert artifact.digest(run / stage) in page


def test_every_gate_that_the_evaluation_knows_is_explained() -> None:
    source = Path(gates.__file__).read_text()
    codes = set(re.findall(r'_(?:at_least|at_most|within)\(\s*"(\w+)"', source)) | set(
        re.findall(r'Gate\("(\w+)"', source)
    )
    assert codes | gates.NOT_FOR_WANT_OF_DATA <= set(words.GATES)


def test_rows_withheld_by_one_gate_share_a_row_and_others_do_not() -> None:
    rows = [
        {"estimator": "is", "withheld": "low_ess: x"},
        {"estimator": "wis", "withheld": None},
        {"estimator": "pdis", "withheld": "low_ess: x"},
        {"estimator": "cwpdis", "withheld": None},
        {"estimator": "dm", "withheld": "value_range: y"},
        {"estimator": "dr", "withheld": "value_range: z"},
    ]
    found = grouped(rows)
    assert [row["estimators"] for row in found] == [["is", "pdis"], ["wis"], ["cwpdis"], ["dm", "dr"]]
    assert found[0]["why"] == "x"
    assert "by different amounts" in found[3]["why"]


def test_a_small_cell_is_not_shown_and_a_large_one_is(run: Path, tmp_path: Path) -> None:
    at = "policies/iql/divergence/strata/0/"
    text = text_of(rendered(small_run.with_evaluation(run, tmp_path / "run", {at + "means": None})))
    assert "SOFA (points): below 5 not shown: too few patients" in text
    assert re.search(r"SOFA \(points\): below 5 \d+ \d+ \d+%", text_of(rendered(run)))


def test_the_dose_grids_hold_every_decision_that_is_in_a_cell_large_enough(run: Path) -> None:
    evidence = Evidence(gather(run))
    found = evidence.evaluation["policies"]["iql"]["divergence"]["shift"]
    kept = sum(sum(row) for row in found if row is not None)
    for _, picture in report.described(evidence)["grids"][:2]:
        shares = [int(text[:-1]) for text in re.findall(r">(\d+%)</text>", str(picture))]
        assert sum(shares) == pytest.approx(100 * kept, abs=13), "25 cells, each rounded to a point"


def test_sensitivity_is_withheld_with_the_estimate_it_examines_and_printed_with_it(run: Path, tmp_path: Path) -> None:
    assert "Withheld , because the estimate that it would examine is" in text_of(rendered(run))
    supporting = {
        "tipping_gamma": {"estimator": "wis", "largest": 100.0, "one_decision": 1.75, "every_step": 1.05},
        "influence": {"estimator": "wis", "flips_after": 7, "cases": []},
        "lower_bound": {"estimator": "is", "clip": 10.0, "level": 0.95, "value": -0.4321},
        "discounts": [{"gamma": 0.95, "estimator": "wis", "value": 0.0123, "low": -0.1, "high": 0.12}],
        "poorly_supported_gain": {"claimed": 0.1, "from_poorly_supported": 0.03, "share": 0.3},
    }
    edit = {"policies/iql/supporting": supporting, "policies/iql/supporting_withheld": None}
    text = text_of(rendered(small_run.with_evaluation(run, tmp_path / "run", edit)))
    for said in ("Γ = 1.75", "Patients it hangs on 7", "−0.432", "+0.012", "Gain from poorly supported doses 30%"):
        assert said in text


def test_decisions_whose_dose_was_partly_read_are_printed_with_the_file_they_come_from(
    run: Path, tmp_path: Path
) -> None:
    said = "with a dose of which only a part could be read"
    assert said not in text_of(rendered(small_run.with_evaluation(run, tmp_path / "none", {"cohort/dose_unknown": 0})))
    document = report.document(small_run.with_evaluation(run, tmp_path / "some", {"cohort/dose_unknown": 17}))
    assert f", 17 {said}" in text_of(report.render(document))
    found = [one for one in document["printed"] if one["field"] == "/cohort/dose_unknown"]
    assert [(one["file"], one["text"]) for one in found] == [("ope/evaluation.json", "17")]


@pytest.fixture(scope="module")
def lenient(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = small_run.with_evaluation(run, tmp_path_factory.mktemp("lenient") / "run", {})
    small_run.evaluated(out, small_run.LENIENT)
    return out


def test_every_number_of_a_real_evaluation_that_nothing_withholds_is_printed(lenient: Path) -> None:
    document, text = Evidence(gather(lenient)).evaluation, text_of(rendered(lenient))
    printed = [row for name in ("iql", "bc") for row in document["policies"][name]["estimates"] if not row["withheld"]]
    assert len(printed) >= 8
    for row in printed:
        assert f"{number(row['low'])} to {number(row['high'])}" in text
    supporting = document["policies"]["iql"]["supporting"]
    if supporting["tipping_gamma"]:
        assert f"Γ = {supporting['tipping_gamma']['every_step']:.2f}" in text
        assert number(supporting["lower_bound"]["value"]) in text


def test_a_part_of_the_sensitivity_may_be_withheld_alone(lenient: Path, tmp_path: Path) -> None:
    at = "policies/iql/supporting"
    edit = {f"{at}/{part}": None for part in ("tipping_gamma", "influence", "lower_bound", "discounts")}
    edit |= {"policies/iql/supporting_withheld": "low_ess: too little"}
    text = text_of(rendered(small_run.with_evaluation(lenient, tmp_path / "run", edit)))
    assert "The rest is withheld : Too little" in text
    assert "Γ =" not in text


def test_a_control_without_the_primary_estimator_is_drawn_by_wis() -> None:
    rows = [{"estimator": "wdr", "withheld": assessment.NO_MODEL}, {"estimator": "wis", "withheld": None}]
    assert pictures.row_for(rows, "wdr")["estimator"] == "wis"
    assert pictures.row_for(rows[1:], "wis")["estimator"] == "wis"


def test_ranks_and_joint_intervals_are_printed_where_there_are_any(run: Path, tmp_path: Path) -> None:
    ranks = {"estimator": "wis", "policies": ["iql", "clinicians"], "probability": [[0.75, 0.25], [0.25, 0.75]]}
    one = {"value": 0.1, "low": -0.21, "high": 0.31}
    edit = {"ranks": ranks, "simultaneous": {"iql": one, "bc": one}}
    text = text_of(rendered(small_run.with_evaluation(run, tmp_path / "run", edit)))
    assert "iql 75% 25%" in text
    assert "iql −0.210 to +0.310" in text
    assert "place 1" not in text_of(rendered(run)) or Evidence(gather(run)).evaluation["ranks"]


def test_the_five_decisions_are_answered_from_the_configuration_and_the_evidence(run: Path, lenient: Path) -> None:
    training = artifact.read_manifest(run / "policy" / "iql")["config"]
    text = text_of(rendered(run))
    assert f"τ = {training['tau']}" in text
    assert "Its difference to imitation is withheld: " in text
    assert "25 doses in all" in text
    assert "return per stay against imitation" in text_of(rendered(lenient))


def test_every_measure_and_hazard_of_the_evaluation_has_a_name() -> None:
    assert set(divergence.MEASURES) == set(words.MEASURES)
    assert set(divergence.STRATA) == set(words.STRATA)
    assert set(hazards.HAZARDS) == set(words.HAZARDS)
    assert {"clinicians", *ESTIMATORS} == set(words.ESTIMATORS)
    assert {*LEARNERS, *CONTROLS} == set(words.POLICIES)
    assert set(SOURCES) == set(words.LAYOUTS)


def test_a_certificate_that_was_not_made_is_said_not_to_be(run: Path, tmp_path: Path) -> None:
    assert "Calibration certificate: every estimator" in text_of(rendered(run))
    text = text_of(rendered(small_run.with_evaluation(run, tmp_path / "run", {"certificate": None})))
    assert "No calibration certificate was made" in text


def test_embedded_json_cannot_close_its_element() -> None:
    text = str(embedded(json.dumps({"a": "</script><b>&"})))
    assert not set("<>&") & set(text)
    assert json.loads(text) == {"a": "</script><b>&"}


def test_the_line_of_reference_crosses_no_words() -> None:
    one, withheld = plots.Interval("iql", 0.5, 0.25, 0.75), plots.Interval("bc", None, None, None, "too few")
    drawn = str(plots.intervals([one, withheld, one], "alt", "return", (0.4, "clinicians")))
    assert drawn.count('class="reference"') == 2
    assert "clinicians" in drawn


def test_a_plot_places_a_value_between_its_ticks_and_names_what_is_withheld() -> None:
    rows = [plots.Interval("iql", 0.5, 0.25, 0.75), plots.Interval("bc", None, None, None, "too few <patients>")]
    svg = str(plots.intervals(rows, "two rows", "return", (0.0, "none")))
    middle = float(re.search(r'<circle class="point" cx="([\d.]+)"', svg).group(1))
    low, high = (float(x) for x in re.findall(r'class="interval" x1="([\d.]+)" y1="41.0" x2="([\d.]+)"', svg)[0])
    assert middle == pytest.approx((low + high) / 2, abs=0.1)
    assert "withheld: too few &lt;patients&gt;" in svg
    assert 'role="img" aria-label="two rows"' in svg


def test_a_line_breaks_where_a_point_is_missing() -> None:
    series = [plots.Series("a", [0.0, 1.0, 2.0, 3.0], [1.0, None, 2.0, 3.0])]
    path = re.search(r'<path class="line s0" d="([^"]+)"', str(plots.lines(series, "alt", ("x", "y")))).group(1)
    assert path.count("M") == 2
    assert path.count("L") == 1


def test_a_heat_map_hatches_only_unsupported_cells() -> None:
    share = np.arange(4.0).reshape(2, 2) / 6
    hatched = np.array([[False, True], [False, False]])
    svg = str(plots.heat(share, "alt", ["f0", "f1"], ["v0", "v1"], ("fluid", "vasopressor"), hatched))
    assert svg.count('class="hatch"') == 1
    assert ">50%<" in svg


@pytest.mark.parametrize("values", [[0.0, 1.0], [-3.2, 7.9], [5.0, 5.0], [0.001, 0.0015], []])
def test_ticks_are_round_and_enclose_the_values(values: list[float]) -> None:
    ticks = plots._ticks(values)
    assert len(ticks) >= 2
    assert ticks[0] <= min(values, default=0.0)
    assert ticks[-1] >= max(values, default=1.0)
    assert np.allclose(np.diff(ticks), ticks[1] - ticks[0])
