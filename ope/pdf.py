"""Pdf: a page on paper, by WeasyPrint, with nothing fetched from anywhere."""

import base64
import logging
import re
import warnings

from cohort.errors import ArtifactError
from ope.page import TEMPLATES

NEEDS = "apt-get install libpango-1.0-0 libpangoft2-1.0-0 libharfbuzz-subset0 fonts-dejavu-core"
"""What Debian calls the libraries and a font that printing needs."""
_PICTURE = re.compile(r'<svg class="(?:plot|bar)".*?</svg>', re.S)
_HATCH = (
    '<defs><pattern id="hatch" width="7" height="7" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<line class="hatch-line" x1="0" y1="0" x2="0" y2="7"/></pattern></defs>'
)


def printed(page: str) -> bytes:
    """The PDF of a page.

    Raises:
        ArtifactError: a library or every font is missing, or the page asks for a file.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # it warns of what is refused below
            import weasyprint
            from weasyprint.urls import FatalURLFetchingError, URLFetcher

            _require_font()
    except (ImportError, OSError) as error:  # OSError: the library behind it cannot be loaded
        raise ArtifactError(f"PDF: a library is missing ({_first_line(error)}); {NEEDS}") from error
    logging.getLogger("weasyprint").setLevel(logging.CRITICAL)
    style = _picture_style((TEMPLATES / "report.css").read_text(encoding="utf-8"))
    body = _PICTURE.sub(lambda found: _image(found.group(), style), page)
    body = re.sub(r"<script.*?</script>", "", body, flags=re.S)
    fetcher = URLFetcher(allowed_protocols=["data"], fail_on_errors=True)
    html = weasyprint.HTML(string=body, url_fetcher=fetcher)
    try:
        content: bytes = html.write_pdf(pdf_identifier=b"suture", pdf_tags=True)
    except FatalURLFetchingError as error:
        raise ArtifactError(f"PDF: the page asks for a file, and a report asks for none: {error}") from error
    return content


def _require_font() -> None:
    """Ask Pango for any font: without one it ends the whole process."""
    from weasyprint.text.ffi import ffi, pango, pangoft2

    fonts = ffi.cast("PangoFontMap *", pangoft2.pango_ft2_font_map_new())
    wanted = pango.pango_font_description_new()
    pango.pango_font_description_set_family(wanted, b"sans-serif")
    if pango.pango_font_map_load_font(fonts, pango.pango_font_map_create_context(fonts), wanted) == ffi.NULL:
        raise ArtifactError(f"PDF: no font is installed; {NEEDS}")


def _image(picture: str, style: str) -> str:
    """An inline picture as an image of its own: WeasyPrint does not style SVG by the page's style sheet."""
    width, height = re.search(r'viewBox="0 0 (\d+) (\d+)"', picture).groups()  # type: ignore[union-attr]
    alt = re.search(r'aria-label="([^"]*)"', picture).group(1)  # type: ignore[union-attr]
    kind = "bar" if picture.startswith('<svg class="bar"') else "plot"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
    inside = picture.replace("<svg ", head, 1).replace(">", f"><style>{style}</style>{_HATCH}", 1)
    inside = re.sub(r' width="\d+" height="\d+" role', " role", inside, count=1)
    data = base64.b64encode(inside.encode()).decode()
    return f'<img class="{kind}" width="{width}" height="{height}" alt="{alt}" src="data:image/svg+xml;base64,{data}">'


def _picture_style(css: str) -> str:
    """The rules for pictures, in the colours of print, as an SVG takes them."""
    roots = re.findall(r":root\s*\{([^}]*)\}", css)
    colours = {
        name: value for root in (roots[0], roots[-1]) for name, value in re.findall(r"--([\w-]+):\s*([^;]+);", root)
    }
    rules = re.findall(r"(\.plot [\w. -]+|\.bar-[\w-]+) *\{([^}]*)\}", css)
    text = "".join(f"{selector.replace('.plot ', '').strip()}{{{body.strip()}}}" for selector, body in rules)
    return re.sub(r"var\(--([\w-]+)\)", lambda found: colours[found.group(1)], text)


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0][:120]
