"""Provenance: a value keeps its file and field through reading and printing; a page that prints another is found."""

import json

import pytest
import rfc8785

from cohort.errors import ArtifactError
from ope import page, provenance
from ope.provenance import Printed

FILES = {"ope/x.json": {"a": [1.25, {"b/c": 12345, "d~e": 0.00564}], "why": "low_ess: Few episodes", "none": None}}


def test_numbers_and_texts_know_their_file_and_their_pointer() -> None:
    found = provenance.traced(FILES["ope/x.json"], "ope/x.json")
    assert str(found["a"][1]["b/c"].origin) == "ope/x.json#/a/1/b~1c"
    assert found["a"][1]["d~e"].origin.field == "/a/1/d~0e"
    assert found["a"][0] == 1.25
    assert found["none"] is None
    assert json.loads(rfc8785.dumps(FILES["ope/x.json"])) == json.loads(json.dumps(found))


def test_every_origin_leads_back_to_its_value() -> None:
    found = provenance.traced(FILES["ope/x.json"], "ope/x.json")
    for value in (found["a"][0], found["a"][1]["b/c"], found["a"][1]["d~e"], found["why"]):
        assert provenance.at(FILES["ope/x.json"], value.origin.field) == value
    for field in ("/a/7", "/a/x", "/nothing", "/why/0/0"):
        with pytest.raises(KeyError):
            provenance.at(FILES["ope/x.json"], field)


def test_what_is_printed_is_read_back_with_its_origin() -> None:
    found = provenance.traced(FILES["ope/x.json"], "ope/x.json")
    text = "<p>" + provenance.marked(page.count(found["a"][1]["b/c"]), found["a"][1]["b/c"])
    text += " of " + provenance.marked(page.said(found["why"]), found["why"]) + "</p>"
    assert provenance.printed(text) == [
        Printed("ope/x.json", "/a/1/b~1c", "12,345"), Printed("ope/x.json", "/why", "Few episodes"),
    ]  # fmt: skip
    assert provenance.check(text, "page", FILES) == 2
    assert provenance.marked("5", 5) == "5", "what has no origin is printed without one"


@pytest.mark.parametrize(
    ("text", "value", "same"),
    [
        ("1.25", 1.25, True), ("1.3", 1.25, True), ("1.2", 1.25, True), ("1.24", 1.25, False), ("12,345", 12345, True),
        ("12,346", 12345, False), ("−0.50", -0.5, True), ("0.50", -0.5, False), ("+0.012", 0.0123, True),
        ("0.6%", 0.00564, True), ("0.5%", 0.00564, False), ("−1.2e-05", -1.21e-5, True), ("–", None, False),
        ("", 0.0, False), ("x", 0.0, False), ("few episodes", "low_ess: Few episodes", True), ("", "a", False),
        ("many episodes", "low_ess: Few episodes", False), ("1", True, True),
    ],
)  # fmt: skip
def test_a_text_agrees_with_a_value_to_the_digits_that_it_shows(text: str, value: object, same: bool) -> None:
    assert provenance.agrees(text, value) is same


@pytest.mark.parametrize(
    ("marked", "says"),
    [
        ('<data data-at="ope/x.json#/a/0">1.35</data>', "prints '1.35' where ope/x.json has another value at /a/0"),
        ('<data data-at="ope/x.json#/a/9">1</data>', "prints a value of ope/x.json, /a/9, which is not there"),
        ('<data data-at="ope/y.json#/a">1</data>', "prints a value of ope/y.json, /a, which is not there"),
    ],
)
def test_a_page_that_prints_something_else_is_named(marked: str, says: str) -> None:
    with pytest.raises(ArtifactError, match=says):
        provenance.check(marked, "page", FILES)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.00123456, "0.00123"),
        (12.3456, "12.3"),
        (1198.7, "1,199"),
        (-2140.0, "−2,140"),
        (0.0, "0"),
        (1e-7, "1e−07"),
        (999.6, "1,000"),
    ],
)
def test_figures_are_so_many_and_never_fewer_than_stand_before_the_point(value: float, text: str) -> None:
    assert page.figures(value) == text
    assert provenance.agrees(page.figures(value), value)
