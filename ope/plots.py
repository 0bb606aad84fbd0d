"""Plots: the report's pictures as inline SVG; CSS classes give them the colours of light, dark and print."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from markupsafe import Markup, escape

WIDTH = 720.0
_LABEL = 190.0  # room for the names on the left
_ROW = 30.0

Position = Callable[[float], float]
"""A value's place on an axis, in the picture's units."""


@dataclass(frozen=True)
class Interval:
    """One row of an interval plot; `value` None means the number is withheld."""

    label: str
    value: float | None
    low: float | None
    high: float | None
    note: str = ""
    """Printed where the number is withheld."""


@dataclass(frozen=True)
class Series:
    """One line of a line plot; points whose y is None are left out and break the line."""

    label: str
    x: Sequence[float]
    y: Sequence[float | None]


def intervals(rows: Sequence[Interval], alt: str, axis: str, reference: tuple[float, str] | None = None) -> Markup:
    """Points with their intervals on one horizontal axis, and a dashed reference line with its name.

    Args:
        rows: top to bottom.
        alt: the alternative text.
        axis: what the axis measures, with its unit.
        reference: (position, name) of a vertical line, as the clinicians' mean return or no difference.
    """
    ends = [end for row in rows for end in (row.value, row.low, row.high) if end is not None]
    ends += [reference[0]] if reference else []
    ticks = _ticks(ends)
    left, right = _LABEL, WIDTH - 24
    bottom = 26 + _ROW * len(rows)

    def x(value: float) -> float:
        return left + (value - ticks[0]) / (ticks[-1] - ticks[0]) * (right - left)

    parts = [_axis_x(ticks, x, 18, bottom, axis)]
    if reference:
        at = x(reference[0])
        bands = [26 + _ROW * index for index, row in enumerate(rows) if row.value is not None]  # never across words
        parts += [_segment("reference", at, top, at, top + _ROW) for top in bands]
        parts.append(_text(at, 11, reference[1], "middle", "small"))
    for index, row in enumerate(rows):
        parts.append(_interval(row, x, 26 + _ROW * (index + 0.5), left))
    return _svg(bottom + 42, alt, parts)


def _interval(row: Interval, x: Position, middle: float, left: float) -> str:
    name = _text(left - 12, middle + 4, row.label, "end")
    if row.value is None:
        return name + _text(
            left + 6, middle + 4, f"withheld: {row.note}" if row.note else "withheld", "start", "withheld"
        )
    point = f'<circle class="point" cx="{x(row.value):.1f}" cy="{middle:.1f}" r="4.5"/>'
    if row.low is None or row.high is None:
        return name + point
    low, high = x(row.low), x(row.high)
    bar = _segment("interval", low, middle, high, middle)
    caps = "".join(_segment("interval", end, middle - 5, end, middle + 5) for end in (low, high))
    return name + bar + caps + point


def lines(
    series: Sequence[Series],
    alt: str,
    axes: tuple[str, str],
    diagonal: bool = False,
    floor: tuple[float, str] | None = None,
    height: float = 280.0,
) -> Markup:
    """Lines with markers, each told apart by colour, dash and marker shape.

    Args:
        series: at most five.
        alt: the alternative text.
        axes: names of x and y with units.
        diagonal: draw y = x (calibration).
        floor: (y, name) of a horizontal reference, as a gate's limit.
        height: of the plot's area.
    """
    ys = [y for one in series for y in one.y if y is not None]
    ys += [floor[0]] if floor else []
    x_ticks, y_ticks = _ticks([x for one in series for x in one.x]), _ticks([*ys, 0.0])
    left, right, top, bottom = 66.0, WIDTH - 24, 22.0, 22 + height

    def x(value: float) -> float:
        return left + (value - x_ticks[0]) / (x_ticks[-1] - x_ticks[0]) * (right - left)

    def y(value: float) -> float:
        return bottom - (value - y_ticks[0]) / (y_ticks[-1] - y_ticks[0]) * (bottom - top)

    parts = [_axis_x(x_ticks, x, top, bottom, axes[0]), _axis_y(y_ticks, y, left, right, axes[1])]
    if diagonal:
        ends = max(x_ticks[0], y_ticks[0]), min(x_ticks[-1], y_ticks[-1])
        parts.append(_segment("reference", x(ends[0]), y(ends[0]), x(ends[1]), y(ends[1])))
    if floor:
        parts.append(_segment("reference", left, y(floor[0]), right, y(floor[0])))
        parts.append(_text(right, y(floor[0]) - 6, floor[1], "end", "small"))
    parts += [_line(one, number, x, y) for number, one in enumerate(series)]
    parts.append(_legend([one.label for one in series], left, bottom + 62))
    return _svg(bottom + 76, alt, parts)


def _line(one: Series, number: int, x: Position, y: Position) -> str:
    path, pen = [], "M"
    marks = []
    for at, value in zip(one.x, one.y, strict=True):
        if value is None:
            pen = "M"
            continue
        path.append(f"{pen}{x(at):.1f} {y(value):.1f}")
        marks.append(_mark(number, x(at), y(value)))
        pen = "L"
    return f'<path class="line s{number}" d="{" ".join(path)}"/>' + "".join(marks)


def _mark(number: int, x: float, y: float) -> str:
    shapes = (
        f'<circle class="mark m{number}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>',
        f'<rect class="mark m{number}" x="{x - 3.2:.1f}" y="{y - 3.2:.1f}" width="6.4" height="6.4"/>',
        f'<path class="mark m{number}" d="M{x:.1f} {y - 4.5:.1f}l4.5 8h-9z"/>',
        f'<path class="mark m{number}" d="M{x:.1f} {y - 4.8:.1f}l4.8 4.8l-4.8 4.8l-4.8 -4.8z"/>',
    )
    return shapes[number % len(shapes)]


def _legend(labels: Sequence[str], left: float, y: float) -> str:
    parts, x = [], left
    for number, label in enumerate(labels):
        parts.append(f'<line class="line s{number}" x1="{x:.1f}" x2="{x + 26:.1f}" y1="{y - 4:.1f}" y2="{y - 4:.1f}"/>')
        parts.append(_mark(number, x + 13, y - 4))
        parts.append(_text(x + 33, y, label, "start", "small"))
        x += 33 + 7.2 * len(label) + 24
    return "".join(parts)


def heat(
    share: Float[np.ndarray, "f v"],
    alt: str,
    rows: Sequence[str],
    columns: Sequence[str],
    axes: tuple[str, str],
    unsupported: Bool[np.ndarray, "f v"] | None = None,
    digits: int = 0,
) -> Markup:
    """A grid of doses shaded by a share (darker = more), each with its number; unsupported ones are hatched.

    Args:
        share: rows from the bottom up; the largest is darkest; NaN cells are left empty.
        alt: the alternative text.
        rows, columns: the bins' names.
        axes: names of the rows' and the columns' quantity.
        unsupported: cells without support.
        digits: decimals of a percentage.
    """
    left, top, wide, high = 78.0, 6.0, 56.0, 36.0
    largest = float(np.nanmax(share, initial=0.0)) or 1.0
    n_rows, n_columns = share.shape
    bottom = top + n_rows * high
    hatched = np.zeros(share.shape, bool) if unsupported is None else unsupported
    parts = [_text(left - 8, bottom - (row + 0.5) * high + 4, rows[row], "end", "small") for row in range(n_rows)]
    for (row, column), value in np.ndenumerate(share):
        if not np.isnan(value):
            box = left + column * wide, bottom - (row + 1) * high, wide, high
            parts.append(_cell(*box, value / largest, _share(float(value), digits), bool(hatched[row, column])))
    for column in range(n_columns):
        parts.append(_text(left + (column + 0.5) * wide, bottom + 16, columns[column], "middle", "small"))
    parts.append(_text(left + n_columns * wide / 2, bottom + 36, axes[1], "middle", "axis"))
    turn = (top + bottom) / 2
    parts.append(f'<g transform="rotate(-90 14 {turn:.1f})">{_text(14, turn, axes[0], "middle", "axis")}</g>')
    return _svg(bottom + 46, alt, parts, left + n_columns * wide + 4)


def _share(value: float, digits: int) -> str:
    least = 10.0 ** -(digits + 2)
    return "0" if value == 0 else f"<{least:.{digits}%}" if value < least / 2 else f"{value:.{digits}%}"


def _cell(x: float, y: float, wide: float, high: float, strength: float, label: str, hatched: bool) -> str:
    box = f'x="{x + 1:.1f}" y="{y + 1:.1f}" width="{wide - 2:.1f}" height="{high - 2:.1f}" rx="2"'
    fill = f'<rect class="cell" {box} fill-opacity="{0.06 + 0.84 * max(strength, 0.0):.3f}"/>'
    hatch = f'<rect class="hatch" {box} fill="url(#hatch)"/>' if hatched else ""
    tone = "on-dark" if strength > 0.55 and not hatched else "on-light"
    return fill + hatch + _text(x + wide / 2, y + high / 2 + 4, label, "middle", f"small {tone}")


def bar(share: float, alt: str) -> Markup:
    """A small bar for a table's cell; `share` of 1 fills it."""
    track = '<rect class="bar-track" width="96" height="10" rx="2"/>'
    fill = f'<rect class="bar-fill" width="{96 * min(max(share, 0.0), 1.0):.1f}" height="10" rx="2"/>'
    frame = f'<svg class="bar" viewBox="0 0 96 10" width="96" height="10" role="img" aria-label="{escape(alt)}">'
    return Markup(f"{frame}{track}{fill}</svg>")


def flow(steps: Sequence[tuple[str, tuple[str, str] | None]], alt: str) -> Markup:
    """Boxes from top to bottom, each with what is left; beside the arrow to a box, in a box of its own, what was lost.

    Args:
        steps: (what is left, (how many were lost before it, why)); None before the first.
        alt: the alternative text.
    """
    wide, high, gap, side = 340.0, 38.0, 62.0, 262.0
    middle, parts = 120.0, []
    for number, (left, lost) in enumerate(steps):
        top = 1 + number * (high + gap)
        if lost is not None:
            turn = top - gap / 2 - 3
            parts.append(_segment("arrow", middle, top - gap, middle, top - 7) + _arrow_head(middle, top))
            parts.append(_segment("arrow", middle, turn, side, turn))
            parts.append(_box(side, turn - 22, WIDTH - side - 1, 44, "box side"))
            parts.append(
                _text(side + 14, turn - 4, lost[0], "start") + _text(side + 14, turn + 14, lost[1], "start", "small")
            )
        parts.append(_box(1, top, wide, high, "box") + _text(15, top + high / 2 + 4.5, left, "start"))
    return _svg(len(steps) * (high + gap) - gap + 2, alt, parts)


def _box(x: float, y: float, wide: float, high: float, kind: str) -> str:
    return f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{high:.1f}" rx="5"/>'


def _arrow_head(x: float, y: float) -> str:
    return f'<path class="arrow-head" d="M{x - 5:.1f} {y - 8:.1f}h10l-5 7z"/>'


def columns(shares: Sequence[float], alt: str) -> Markup:
    """Narrow columns for a table's cell, one a window from the first to the last; `share` of 1 fills the height."""
    wide, high = 96 / max(len(shares), 1), 20.0
    parts = [
        f'<rect class="bar-fill" x="{index * wide:.2f}" y="{high * (1 - share):.2f}" '
        f'width="{wide * 0.86:.2f}" height="{high * share:.2f}"/>'
        for index, share in enumerate(shares)
    ]
    frame = f'<svg class="bar" viewBox="0 0 96 20" width="96" height="20" role="img" aria-label="{escape(alt)}">'
    track = f'<rect class="bar-track" width="96" height="{high:.0f}"/>'
    return Markup(f"{frame}{track}{''.join(parts)}</svg>")


def _ticks(values: Sequence[float], about: int = 5) -> list[float]:
    """Round tick positions that enclose the values; steps are 1, 2 or 5 times a power of ten."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 10) for index in range(first, last + 1)]


def _axis_x(ticks: Sequence[float], x: Position, top: float, bottom: float, name: str) -> str:
    parts = [
        _segment("grid", x(tick), top, x(tick), bottom) + _text(x(tick), bottom + 16, _plain(tick), "middle", "small")
        for tick in ticks
    ]
    return "".join(parts) + _text((x(ticks[0]) + x(ticks[-1])) / 2, bottom + 36, name, "middle", "axis")


def _axis_y(ticks: Sequence[float], y: Position, left: float, right: float, name: str) -> str:
    parts = [
        _segment("grid", left, y(tick), right, y(tick)) + _text(left - 8, y(tick) + 4, _plain(tick), "end", "small")
        for tick in ticks
    ]
    middle = (y(ticks[0]) + y(ticks[-1])) / 2
    return (
        "".join(parts) + f'<g transform="rotate(-90 14 {middle:.1f})">{_text(14, middle, name, "middle", "axis")}</g>'
    )


def _plain(tick: float) -> str:
    return f"{tick:g}".replace("-", "−")


def _segment(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, anchor: str, kind: str = "") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(height: float, alt: str, parts: Sequence[str], width: float = WIDTH) -> Markup:
    body = "".join(parts)
    return Markup(
        f'<svg class="plot" viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(alt)}">'
        f"<title>{escape(alt)}</title>{body}</svg>"
    )
