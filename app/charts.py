"""Charts: the page's pictures as Altair specifications, without Streamlit."""

import altair as alt
import pandas as pd
from markupsafe import escape

from app import view
from app.view import CARRIED, MEASURED

Chart = alt.LayerChart | alt.FacetChart
_GRID_STYLE = """<style>
.doses { border-collapse: separate; border-spacing: 3px; width: 100%; font-size: .8rem; }
.doses td { font-variant-numeric: tabular-nums; }
.doses caption { text-align: left; font-weight: 600; font-size: .95rem; padding-bottom: .4rem; }
.doses th { font-weight: 400; opacity: .75; padding: .2rem .3rem; text-align: right; white-space: nowrap; }
.doses thead th { text-align: center; } .doses thead tr:first-child th { font-weight: 600; }
.doses td { text-align: center; height: 2rem; border-radius: 3px; width: 17%; }
.doses td.rare { background-image: repeating-linear-gradient(45deg, #d55e0088 0 2px, transparent 2px 8px); }
</style>"""
_BLUE, _ORANGE, _GREY = "#1b87c9", "#d55e00", "#8a929d"


def signal(points: pd.DataFrame, name: str, now: float, horizon: float) -> Chart:
    """One signal up to now: measured values as filled circles, carried-forward ones as hollow diamonds.

    Args:
        points: rows of `view.timeline` of one signal.
        name: the signal's name, the chart's title.
        now: the decision time, drawn as a dashed line.
        horizon: end of the time axis in hours.
    """
    base = alt.Chart(points).encode(
        x=_hours("hour", horizon),
        y=alt.Y(
            "value:Q", title=None, scale=alt.Scale(zero=False, nice=True), axis=alt.Axis(tickCount=4, format=".3~g")
        ),
        tooltip=[alt.Tooltip("hour:Q"), alt.Tooltip("value:Q", format=".3~g"), alt.Tooltip("source:N")],
    )
    layers = [base.mark_line(color=_GREY, strokeWidth=1), _now(now)]
    measured, carried = (points[points["source"] == source] for source in (MEASURED, CARRIED))
    if len(measured):
        layers.append(
            base.mark_point(shape="circle", size=50, filled=True, color=_BLUE, opacity=1).properties(data=measured)
        )
    if len(carried):
        hollow = base.mark_point(shape="diamond", size=60, filled=False, color=_ORANGE, strokeWidth=1.8, opacity=1)
        layers.append(hollow.properties(data=carried))
    told = f"{len(measured)} values measured, {len(carried)} carried forward"
    return _framed(alt.layer(*layers), name, f"{name}, hours 0 to {now:g}: {told}")


def doses(windows: pd.DataFrame, column: str, name: str, now: float, horizon: float) -> Chart:
    """The doses of one drug in the windows before now, as bars as wide as their window."""
    bars = (
        alt.Chart(windows)
        .mark_rect(color=_BLUE)
        .encode(
            x=_hours("start", horizon),
            x2="end:Q",
            y=alt.Y(f"{column}:Q", title=None, axis=alt.Axis(tickCount=4, format=".3~g"), scale=alt.Scale(domainMin=0)),
            y2=alt.datum(0),
            tooltip=[alt.Tooltip("start:Q"), alt.Tooltip("end:Q"), alt.Tooltip(f"{column}:Q", format=".3~g")],
        )
    )
    total = int((windows[column] > 0).sum())
    return _framed(
        alt.layer(bars, _now(now)), name, f"{name}: given in {total} of {len(windows)} windows before hour {now:g}"
    )


def grid(picture: view.Grid) -> str:
    """A dose grid as an HTML table, the larger doses on top: shaded by share, unsupported doses hatched and named."""
    largest = float(picture.share.max()) or 1.0
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in picture.columns)
    body = "".join(
        f'<tr><th scope="row">{escape(picture.rows[row])}</th>'
        + "".join(
            _cell(float(picture.share[row, column]), largest, bool(picture.unsupported[row, column]))
            for column in range(len(picture.columns))
        )
        + "</tr>"
        for row in reversed(range(len(picture.rows)))
    )
    axes = (
        f'<tr><th scope="col">{escape(picture.axes[0])}</th>'
        f'<th scope="colgroup" colspan="{len(picture.columns)}">{escape(picture.axes[1])}</th></tr>'
    )
    table = f"<thead>{axes}<tr><td></td>{head}</tr></thead><tbody>{body}</tbody>"
    return f'{_GRID_STYLE}<table class="doses"><caption>{escape(picture.title)}</caption>{table}</table>'


def _cell(share: float, largest: float, rare: bool) -> str:
    kind, why = (' class="rare"', ' title="unsupported"') if rare else ("", "")
    text = "0" if share == 0 else "&lt;1%" if share < 0.005 else f"{share:.0%}"
    return (
        f'<td{kind}{why} style="background-color: rgba(27, 135, 201, {0.05 + 0.6 * share / largest:.3f})">{text}</td>'
    )


def _hours(column: str, horizon: float) -> alt.X:
    scale = alt.Scale(domain=[0, horizon], nice=False)
    axis = alt.Axis(
        title=None, values=[float(hour) for hour in range(0, int(horizon) + 1, 12)], labelExpr="datum.value + ' h'"
    )
    return alt.X(f"{column}:Q", scale=scale, axis=axis)


def _now(hour: float) -> alt.Chart:
    rule: alt.Chart = (
        alt.Chart(pd.DataFrame({"hour": [hour]})).mark_rule(strokeDash=[5, 4], color=_GREY).encode(x="hour:Q")
    )
    return rule


def _framed(chart: Chart, name: str, description: str) -> Chart:
    framed: Chart = chart.properties(
        title=alt.TitleParams(name, anchor="start", fontSize=13), height=170, description=description
    )
    return framed
