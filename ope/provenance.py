"""Provenance: numbers and sentences that know the file and field they were read from, and how a page prints them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any

from markupsafe import Markup

from cohort.errors import ArtifactError

MINUS, DASH = "−", "–"


@dataclass(frozen=True)
class Origin:
    """Where a value stands: a file of the run and the field in it (a JSON pointer, RFC 6901)."""

    file: str
    field: str

    def __str__(self) -> str:
        return f"{self.file}#{self.field}"


class Number(float):
    """A number with its origin."""

    origin: Origin


class Count(int):
    """A whole number with its origin."""

    origin: Origin


class Sentence(str):
    """A text with its origin."""

    origin: Origin


@dataclass(frozen=True)
class Printed:
    """One value as a page prints it."""

    file: str
    field: str
    text: str


def traced(content: Any, file: str, field: str = "") -> Any:
    """The same JSON value, its numbers and texts knowing where in `file` they stand."""
    if isinstance(content, Mapping):
        return {key: traced(value, file, f"{field}/{_escaped(key)}") for key, value in content.items()}
    if isinstance(content, list):
        return [traced(value, file, f"{field}/{index}") for index, value in enumerate(content)]
    kinds: dict[type, Any] = {float: Number, int: Count, str: Sentence}
    kind = kinds.get(type(content))
    if kind is None:
        return content
    found = kind(content)
    found.origin = Origin(file, field)
    return found


def marked(text: str, value: object) -> str:
    """The text as a page prints it, marked with the origin of its value where that is known."""
    origin = getattr(value, "origin", None)
    if origin is None:
        return text
    if isinstance(value, str):
        return Markup('<span data-at="{}">{}</span>').format(origin, text)
    return Markup('<data value="{}" data-at="{}">{}</data>').format(repr(value), origin, text)


def at(content: Any, field: str) -> Any:
    """The value at a JSON pointer.

    Raises:
        KeyError: there is none.
    """
    for part in field.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        try:
            content = content[int(key)] if isinstance(content, list) else content[key]
        except (IndexError, TypeError, ValueError):
            raise KeyError(field) from None
    return content


def printed(page: str) -> list[Printed]:
    """Every value that a page marks with its origin, in the order of reading."""
    reader = _Reader()
    reader.feed(page)
    reader.close()
    return reader.found


def check(page: str, name: str, files: Mapping[str, Any]) -> int:
    """Compare every marked value of a page with the files; returns how many there are.

    Args:
        page: HTML.
        name: what to call it.
        files: file -> its content, as the report holds it.

    Raises:
        ArtifactError: the page prints something else than its file holds, to the digits printed.
    """
    found = printed(page)
    for one in found:
        try:
            value = at(files[one.file], one.field)
        except KeyError:
            raise ArtifactError(f"{name}: prints a value of {one.file}, {one.field}, which is not there") from None
        if not agrees(one.text, value):
            raise ArtifactError(f"{name}: prints {one.text[:40]!r} where {one.file} has another value at {one.field}")
    return len(found)


def agrees(text: str, value: object) -> bool:
    """Whether a text is a value as printed: a number to the digits shown, a sentence or the end of one."""
    if isinstance(value, str):
        return text != "" and value.lower().endswith(text.lower())
    if not isinstance(value, int | float):
        return False
    plain = text.replace(MINUS, "-").replace(",", "").strip()
    scale = 100.0 if plain.endswith("%") else 1.0
    plain = plain.removesuffix("%")
    try:
        shown = float(plain)
    except ValueError:
        return False
    mantissa, _, exponent = plain.lower().partition("e")
    digits = len(mantissa.partition(".")[2]) - int(exponent or 0)
    return math.isclose(shown, value * scale, rel_tol=1e-12, abs_tol=0.5 * 10.0**-digits * (1 + 1e-9))


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[Printed] = []
        self._at: tuple[str, str] | None = None
        self._text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        where = dict(attrs).get("data-at")
        if where and tag in ("data", "span"):
            file, _, field = where.partition("#")
            self._at, self._text = (file, field), []

    def handle_data(self, data: str) -> None:
        self._text.append(data)

    def handle_endtag(self, tag: str) -> None:
        if self._at is not None and tag in ("data", "span"):
            self.found.append(Printed(*self._at, "".join(self._text)))
            self._at = None


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")
