"""Page: how every page is printed: one style, one notice, and numbers that say where they come from."""

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ope import provenance
from ope.words import GATES

TEMPLATES = Path(__file__).with_name("templates")
NOTICE = "Research prototype. Not for clinical use."


def render(template: str, content: Mapping[str, Any]) -> str:
    """A page from a template, with the style and the notice that every page carries; what it prints is escaped."""
    environment = _environment(autoescape=True, finalize=_traced_number)
    environment.filters.update({name: partial(_printed, form) for name, form in FORMS.items()})
    style = Markup((TEMPLATES / "report.css").read_text(encoding="utf-8"))
    return environment.get_template(template).render(style=style, notice=NOTICE, **content)


def plain(template: str, content: Mapping[str, Any]) -> str:
    """A text from a template, without any marks."""
    return _environment(autoescape=False).get_template(template).render(notice=NOTICE, **content)


def _environment(**options: Any) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, **options
    )
    environment.filters.update(FORMS)
    environment.filters.update({f"{name}_text": form for name, form in FORMS.items()})
    environment.filters.update(short=short, grouped=grouped)
    return environment


def number(value: float | None, digits: int = 3) -> str:
    """A number for a reader; a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def signed(value: float | None, digits: int = 3) -> str:
    """A difference, its sign always written."""
    return "–" if value is None else f"{value:+.{digits}f}".replace("-", "−")


def percent(share: float | None, digits: int = 0) -> str:
    """A share of 1 as a percentage."""
    return "–" if share is None else f"{100 * share:.{digits}f}%".replace("-", "−")


def change(share: float | None, digits: int = 0) -> str:
    """A difference of two shares as a percentage, its sign always written."""
    return "–" if share is None else f"{100 * share:+.{digits}f}%".replace("-", "−")


def count(value: float | None) -> str:
    """A count with separators for thousands."""
    return "–" if value is None else f"{value:,.0f}"


def figures(value: float | None, digits: int = 3) -> str:
    """A number with so many figures; all of those before the point."""
    if value is None:
        return "–"
    whole = 10.0**digits - 0.5 <= abs(value) < 1e15
    return (f"{value:,.0f}" if whole else f"{value:.{digits}g}").replace("-", "−")


def said(text: str) -> str:
    """A reason as the beginning of a sentence, without its code."""
    words = text.split(": ", 1)[-1]
    return words[:1].upper() + words[1:]


def short(digest: str) -> str:
    """The beginning of a hash, enough to compare by eye; the full one stands in the lineage."""
    return digest[:12]


def _printed(form: Callable[..., str], value: object, *options: int) -> str:
    return provenance.marked(form(value, *options), value)


def _traced_number(value: object) -> object:
    """What is printed without a filter: a number that knows its origin says so."""
    if isinstance(value, provenance.Number | provenance.Count):
        return provenance.marked(figures(value, 12), value)
    return value


def script(file: str) -> dict[str, str]:
    """A page's own script and the hash that lets this one run and no other."""
    text = (TEMPLATES / file).read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return {"script": Markup(text), "script_hash": digest}


def grouped(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Estimates for a table: those that one gate withholds share a row, their names joined, with `why` in words."""
    out: list[dict[str, Any]] = []
    for row in rows:
        code, _, why = (row["withheld"] or "").partition(": ")
        alike = next((one for one in out if code and one["code"] == code), None)
        if alike is None:
            out.append({**row, "estimators": [row["estimator"]], "code": code, "why": why})
            continue
        alike["estimators"].append(row["estimator"])
        if alike["why"] != why:
            alike["why"] = f"gate “{GATES[code].name if code in GATES else code}” failed for each, by different amounts"
    return out


def embedded(text: str) -> Markup:
    """JSON that is safe inside a script element: no `<`, `>` or `&` is left as it is."""
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


FORMS: Mapping[str, Callable[..., str]] = {
    "number": number, "signed": signed, "percent": percent, "change": change, "count": count, "figures": figures,
    "said": said,
}  # fmt: skip
"""A template's filter -> how it prints a value; with `_text` behind the name it prints without a mark."""
