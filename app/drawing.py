"""Drawing: the report's sections and pictures in a page of the app, which may hold HTML but no SVG and no script."""

import re
from functools import cache
from urllib.parse import quote

from markupsafe import Markup

from ope.page import TEMPLATES

_PICTURE = re.compile(r"<svg .*?</svg>", re.DOTALL)
_HEADING = re.compile(r'<h2 id="([a-z0-9-]+)">')
_HATCH = (
    '<defs><pattern id="hatch" width="7" height="7" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<line class="hatch-line" x1="0" y1="0" x2="0" y2="7"/></pattern></defs>'
)
_BAR = (
    "<style>.bar-track{fill:#8884}.bar-fill{fill:#0072b2}"
    "@media(prefers-color-scheme:dark){.bar-fill{fill:#56b4e9}}</style>"
)
WIDE = 600
"""Pictures this wide are not shrunk to a telephone: their letters would be too small; they are moved sideways."""
FIRST = "verdict"
"""What stands before the first heading, from the verdict on."""


def picture(svg: str) -> str:
    """A plot as an image that holds its own style; its spoken name becomes the alternative text."""
    opening = svg[: svg.index(">")]
    told = re.search(r'aria-label="([^"]*)"', opening)
    size = re.search(r'width="\d+" height="\d+"', opening)
    small = 'class="bar"' in opening
    across = re.search(r'viewBox="0 0 (\d+)', opening)
    kind = "bar" if small else "drawn wide" if across and int(across.group(1)) >= WIDE else "drawn"
    drawn = svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    style = _BAR if small else _style()
    drawn = drawn.replace(">", f">{style}{_HATCH if '#hatch' in svg else ''}", 1)
    return (
        f'<img class="{kind}" alt="{told.group(1) if told else ""}" '
        f'{size.group(0) if size else ""} src="data:image/svg+xml,{quote(drawn)}">'
    )


def figure(svg: str, caption: str = "") -> str:
    """A plot with a caption, styled as in the report."""
    told = Markup("<figcaption>{}</figcaption>").format(caption) if caption else ""
    return within(f"<figure>{svg}{told}</figure>")


def within(fragment: str) -> str:
    """A piece of the report's HTML for `st.html`: its style reaches nothing else, and plots become images."""
    body = _PICTURE.sub(lambda found: picture(found.group(0)), fragment)
    body = body.replace("<figure>", '<figure tabindex="0">')  # the keyboard moves what is wider than the screen
    body = re.sub(r'<a href="(?!#)[^"]*">(.*?)</a>', r"\1", body, flags=re.DOTALL)  # files beside the report
    return f'<style>{sheet()}</style><div class="report">{re.sub(" data-at=", " title=", body)}</div>'


def parts(page: str) -> dict[str, str]:
    """The sections of a report's page by their anchors, in order; `FIRST` is what stands before the first heading."""
    main = page[page.index("<main>") + len("<main>") : page.rindex("</main>")]
    main = re.sub(r"<footer>.*?</footer>", "", main, flags=re.DOTALL)
    pieces = _HEADING.split(main)
    first = pieces[0][max(pieces[0].find('<section id="verdict"'), 0) :]
    found = {FIRST: first.partition('<div class="reading">')[0]}
    for anchor, body in zip(pieces[1::2], pieces[2::2], strict=True):
        found[anchor] = f'<h2 id="{anchor}">{body}'
    return found


@cache
def sheet() -> str:
    """The report's style sheet, kept inside `.report`; the page's own width and paper are the app's."""
    text = _source().replace(":root", "&").replace("\nbody {", "\n& {").replace("\n  body {", "\n  & {")
    own = (
        ".report { background: none; color: inherit; font-family: inherit; font-size: .95rem; } "
        ".report h2 { border-top: 0; margin: 1.2rem 0 .5rem; padding: 0; font-family: inherit; font-size: 1.4rem; } "
        ".report h3, .report .verdict .word { font-family: inherit; } .report dl { padding-left: 0; } "
        ".report img.drawn { display: block; width: 100%; max-width: 46rem; } "
        ".report figure { overflow-x: auto; } @media (max-width: 640px) { .report img.wide { min-width: 34rem; } } "
        ".report [title] { cursor: help; }"
    )
    return f".report {{ {text} }} {own}"


@cache
def _style() -> str:
    """What a plot needs of the report's style: the colours of light, dark and print, and the marks."""
    text = _source()
    colours = re.findall(r"^:root \{.*?^\}", text, flags=re.DOTALL | re.MULTILINE)[0]
    dark = re.findall(r"^@media \(prefers-color-scheme: dark\) \{.*?^\}", text, flags=re.DOTALL | re.MULTILINE)[0]
    marks = [line for line in text.splitlines() if line.startswith((".plot ", ".bar "))]
    return f"<style>{colours}{dark}{''.join(marks)}</style>"


@cache
def _source() -> str:
    return (TEMPLATES / "report.css").read_text(encoding="utf-8")
