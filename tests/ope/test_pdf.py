"""The report on paper: pictures in print's colours, nothing fetched, and a line where a library or font is missing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cohort.errors import ArtifactError
from ope import pdf, plots
from ope.page import TEMPLATES

PICTURE = str(plots.intervals([plots.Interval("iql", 0.5, 0.25, 0.75)], "one row", "return"))
FONTS = '<!DOCTYPE fontconfig SYSTEM "fonts.dtd"><fontconfig><dir>{}</dir></fontconfig>'


def test_a_page_with_a_picture_becomes_a_pdf() -> None:
    content = pdf.printed(f"<html lang='en'><title>x</title><body><p>words</p>{PICTURE}</body></html>")
    assert content.startswith(b"%PDF-")
    assert len(content) > 5_000


def test_a_picture_brings_its_own_rules_in_the_colours_of_print() -> None:
    style = pdf._picture_style((TEMPLATES / "report.css").read_text())
    assert "var(" not in style
    assert ".point{fill: #005a8c;}" in style
    assert "{" not in style[:1]
    image = pdf._image(PICTURE, style)
    assert image.startswith('<img class="plot" width="720" ')
    assert 'alt="one row"' in image


def test_nothing_is_fetched_for_a_page() -> None:
    with pytest.raises(ArtifactError, match=r"asks for a file, and a report asks for none: .*https://example"):
        pdf.printed("<html lang='en'><title>x</title><body><img alt='x' src='https://example.org/x.png'></body></html>")


def test_without_any_font_it_is_one_line_and_not_the_end_of_the_process(tmp_path: Path) -> None:
    (tmp_path / "fonts.conf").write_text(FONTS.format(tmp_path / "none"))
    code = "from ope import pdf; pdf.printed('<p>x</p>')"
    environment = {**os.environ, "FONTCONFIG_FILE": str(tmp_path / "fonts.conf")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False, timeout=120
    )
    assert done.returncode == 1
    assert f"ArtifactError: PDF: no font is installed; {pdf.NEEDS}" in done.stderr
