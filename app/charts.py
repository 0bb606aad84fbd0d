"""Charts: the pages' pictures and tables as HTML without a script: they follow the theme."""

import math
import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pandas as pd
from markupsafe import escape

from app import study, view
from app.study import HOUR, Study
from app.view import CARRIED, MEASURED, Grid, Table

STYLE = """<style>
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); gap: .6rem 1.2rem; }
.charts figure { margin: 0; } .charts figcaption { font-size: .82rem; font-weight: 600; }
.charts figcaption span { float: right; padding-left: .5rem; }
.plot { position: relative; height: 7.2rem; margin: .3rem 0 1.5rem 2.6rem;
  border-bottom: 1px solid rgba(128, 128, 128, .5); }
.plot i, .plot b, .plot u, .plot s, .plot em { position: absolute; font-style: normal; text-decoration: none; }
.plot em { left: 0; right: 0; border-top: 1px solid rgba(128, 128, 128, .22); height: 0; }
.plot em span { position: absolute; right: 100%; top: -.6em; padding-right: .35rem; font-size: .72rem;
  white-space: nowrap; }
.plot u { top: 100%; transform: translateX(-50%); font-size: .72rem; padding-top: .4rem; white-space: nowrap; }
.plot s { top: 0; bottom: 0; border-left: 1px dashed currentColor; opacity: .6; }
.plot i { width: .5rem; height: .5rem; margin: -.25rem 0 0 -.25rem; }
.plot i.measured { background: #1b87c9; border-radius: 50%; }
.plot i.carried { border: 2px solid #d5730a; transform: rotate(45deg); box-sizing: border-box; }
.plot b { bottom: 0; background: #1b87c9; border-right: 1px solid transparent; background-clip: padding-box; }
.wide { overflow-x: auto; }
.plain { border-collapse: collapse; width: 100%; font-size: .85rem; margin: .2rem 0 .8rem; }
.plain caption, .doses caption { text-align: left; font-weight: 600; font-size: .9rem; padding: .3rem 0; }
.plain th, .plain td { text-align: left; padding: .28rem .5rem; border-bottom: 1px solid rgba(128, 128, 128, .35);
  font-variant-numeric: tabular-nums; overflow-wrap: break-word; vertical-align: top; }
.wide .plain { font-size: .82rem; } .wide .plain th, .wide .plain td { padding: .28rem .35rem; }
@media (max-width: 40rem) { .plain th, .plain td, .wide .plain th, .wide .plain td { padding: .28rem .2rem; } }
.plain.long td { overflow-wrap: anywhere; }
.plain thead th { font-weight: 600; }
.doses { border-collapse: separate; border-spacing: 3px; width: 100%; font-size: .8rem; table-layout: fixed; }
.doses th { font-weight: 400; padding: .2rem .3rem; text-align: right; }
.doses thead th { text-align: center; } .doses thead tr:first-child th { font-weight: 600; }
.doses td { text-align: center; height: 2.5rem; border-radius: 3px; font-variant-numeric: tabular-nums;
  padding: .1rem; line-height: 1.15; overflow-wrap: anywhere; }
.doses td.held { background-image: repeating-linear-gradient(45deg, rgba(213, 94, 0, .32) 0 2px, transparent 2px 9px); }
.doses td.best { outline: 3px solid currentColor; outline-offset: -3px; font-weight: 700; }
.doses small { display: block; font-size: .66rem; }
</style>"""
_UNIT = re.compile(r"(?<=\d) (?=(?:mL|h)\b)")
_PARTED = {"unsupported": "unsup\u00adported", "recommended": "recom\u00admended"}
"""Where the marks of a narrow cell may break."""
_SCROLLED = 5
"""Columns from which a table may be too wide for a telephone: it can then be scrolled, with the keyboard too."""


@lru_cache(maxsize=64)
def course(of: Study, stay_id: int, hour: float) -> tuple[str, str]:
    """One stay's signals and doses up to a decision, and what there is nothing to draw of.

    Raises:
        ArtifactError: one of its tables differs from the manifest.
    """
    rows = study.course(of, stay_id)
    points, windows = view.timeline(rows, hour, of.dictionary.step_hours), view.given(rows, hour)
    horizon = float(rows[HOUR].max()) + of.dictionary.step_hours
    by_name = {str(name): part for name, part in points.groupby("signal", sort=False)}
    drawn = [signal(by_name[name], name, hour, horizon) for name in view.SIGNALS.values() if name in by_name]
    if len(windows):
        drawn += [doses(windows, drug, name, hour, horizon) for drug, name in view.DRUGS.items()]
    return panel(drawn) if drawn else "", view.absent(points, windows)


def signal(points: pd.DataFrame, name: str, now: float, horizon: float) -> str:
    """One signal up to now: measured values as filled circles, carried-forward ones as hollow diamonds.

    Args:
        points: rows of `view.timeline` of one signal.
        name: the signal's name, the figure's caption.
        now: the decision time, drawn as a dashed line.
        horizon: end of the time axis in hours.
    """
    value, hour = points["value"].to_numpy(np.float64), points["hour"].to_numpy(np.float64)
    ticks = _ticks(float(value.min()), float(value.max()))
    marks = "".join(
        f'<i class="{"measured" if source == MEASURED else "carried"}" '
        f'style="left:{_share(when, 0, horizon)};top:{_share(ticks[-1] - number, 0, ticks[-1] - ticks[0])}" '
        f'title="{escape(f"{when:g} h: {number:.3g}, {source}")}"></i>'
        for when, number, source in zip(hour, value, points["source"], strict=True)
    )
    measured, carried = (int((points["source"] == source).sum()) for source in (MEASURED, CARRIED))
    told = f"{name}, hours 0 to {now:g}: {measured} values measured, {carried} carried forward; last {value[-1]:.3g}"
    when = "now" if hour[-1] == now else f"at {hour[-1]:g} h"
    old = ", carried" if points["source"].iloc[-1] == CARRIED else ""
    return _figure((name, f"{value[-1]:.3g} {when}{old}"), told, marks, ticks, now, horizon)


def doses(windows: pd.DataFrame, column: str, name: str, now: float, horizon: float) -> str:
    """The doses of one drug in the windows before now, as bars as wide as their window."""
    value = windows[column].to_numpy(np.float64)
    ticks = _ticks(0.0, float(value.max(initial=0.0)))
    bars = "".join(
        f'<b style="left:{_share(start, 0, horizon)};width:{_share(end - start, 0, horizon)};'
        f'height:{_share(number, 0, ticks[-1])}" title="{escape(f"{start:g} to {end:g} h: {number:.3g}")}"></b>'
        for start, end, number in zip(windows["start"], windows["end"], value, strict=True)
        if number > 0
    )
    total = int((value > 0).sum())
    told = f"{name}: given in {total} of {len(windows)} windows before hour {now:g}"
    return _figure((name, f"{value[-1]:.3g} before"), told, bars, ticks, now, horizon)


def panel(figures: Sequence[str]) -> str:
    """Figures beside each other, as many in a row as fit."""
    return f'{STYLE}<div class="charts">{"".join(figures)}</div>'


def table(shown: Table) -> str:
    """A table of text; every cell is escaped."""
    head = "".join(f'<th scope="col">{_text(name)}</th>' for name in shown.head)
    body = "".join(
        "<tr>"
        + f'<th scope="row">{_text(row[0])}</th>'
        + "".join(f"<td>{_text(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in shown.rows
    )
    caption = f"<caption>{_text(shown.caption)}</caption>"
    kind = "plain long" if shown.long else "plain"
    inner = f'<table class="{kind}">{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    if len(shown.head) < _SCROLLED:
        return STYLE + inner
    return f'{STYLE}<div class="wide" role="region" tabindex="0" aria-label="{escape(shown.caption)}">{inner}</div>'


def grid(picture: Grid) -> str:
    """A dose grid as a table, the larger doses on top: shaded by its number; what is never recommended is hatched."""
    known = picture.number[np.isfinite(picture.number)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    head = "".join(f'<th scope="col">{_text(name)}</th>' for name in picture.columns)
    body = "".join(
        f'<tr><th scope="row">{_text(picture.rows[row])}</th>'
        + "".join(_cell(picture, row, column, low, high) for column in range(len(picture.columns)))
        + "</tr>"
        for row in reversed(range(len(picture.rows)))
    )
    axes = (
        f'<tr><th scope="col" rowspan="2">{_text(picture.axes[0])}</th>'
        f'<th scope="colgroup" colspan="{len(picture.columns)}">{_text(picture.axes[1])}</th></tr>'
    )
    inner = f"<thead>{axes}<tr>{head}</tr></thead><tbody>{body}</tbody>"
    return f'{STYLE}<table class="doses"><caption>{_text(picture.title)}</caption>{inner}</table>'


def _cell(picture: Grid, row: int, column: int, low: float, high: float) -> str:
    mark, number = picture.mark[row][column], float(picture.number[row, column])
    strength = 0.0 if not math.isfinite(number) or high == low else (number - low) / (high - low)
    kinds = [*(["held"] if mark else []), *(["best"] if picture.best[row, column] else [])]
    kind = f' class="{" ".join(kinds)}"' if kinds else ""
    word = mark or "recommended"
    note = f"<small>{_text(_PARTED.get(word, word))}</small>" if kinds else ""
    colour = f"rgba(27, 135, 201, {0.04 + 0.4 * strength:.3f})"
    return f'<td{kind} style="background-color: {colour}">{_text(picture.text[row][column])}{note}</td>'


def _figure(caption: tuple[str, str], told: str, inner: str, ticks: list[float], now: float, horizon: float) -> str:
    lines = "".join(
        f'<em style="top:{_share(ticks[-1] - tick, 0, ticks[-1] - ticks[0])}"><span>{tick:.4g}</span></em>'
        for tick in ticks
    )
    hours = range(0, int(horizon) + 1, 24 if horizon > 24 else 8)
    times = "".join(f'<u style="left:{_share(hour, 0, horizon)}">{hour:g} h</u>' for hour in hours)
    rule = f'<s style="left:{_share(now, 0, horizon)}"></s>'
    plot = f'<div class="plot" role="img" aria-label="{escape(told)}">{lines}{times}{rule}{inner}</div>'
    name, last = (escape(words) for words in caption)
    return f"<figure><figcaption>{name}<span>{last}</span></figcaption>{plot}</figure>"


def _text(words: str) -> str:
    """Escaped; a number stays on one line with its unit."""
    return str(escape(_UNIT.sub("\u00a0", words)))


def _share(value: float, low: float, high: float) -> str:
    return f"{100 * (value - low) / (high - low):.2f}%"


def _ticks(low: float, high: float) -> list[float]:
    """Three to five round numbers that enclose a range."""
    if high <= low:
        low, high = (low - 1.0, high + 1.0) if low else (0.0, 1.0)
    rough = (high - low) / 3
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 10) for number in range(first, last + 1)]
