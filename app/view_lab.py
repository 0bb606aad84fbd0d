"""ViewLab: the guide made interactive: each experiment's picture, and what it found in a sentence."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from markupsafe import escape

from app.lab import ACTIONS, RETURNS, VALUES
from app.view import Table
from cohort import artifact
from ope import plots
from ope.plots import Series
from policy import lab, textbook
from policy.textbook import Trajectory

MEASURED = Path(__file__).with_name("lab_measured.json")
"""What `suture lab` measured, kept so that a switch answers at once; docs/make_lab.py writes it."""


@dataclass(frozen=True)
class Experiment:
    """One counterpart of something in the guide."""

    title: str
    guide: str
    """What the guide has in its place, by chapter."""
    teaches: str


EXPERIMENTS: dict[str, Experiment] = {
    "gridworld": Experiment(
        "Values on a grid",
        "Chapter 1: hover over a gridworld to see V(s) and Q(s, a)",
        "V(s) is what a square is worth under the best play, Q(s, a) what each move from it is worth. Point at a "
        "square, or reach it with the Tab key, to see its four moves; V is always the largest of them. A smaller γ "
        "makes far rewards count less, so value fades faster with the distance from the goal.",
    ),
    "rounds": Experiment(
        "Online against offline",
        "Chapter 2: drawing of online and offline learning",
        "Who learns online tries new moves after every round, and gets better. Who learns offline has the log and "
        "nothing else: going over it again adds no knowledge. Only a wider log lifts the flat line, and a hospital "
        "cannot widen its log by trying doses on patients.",
    ),
    "stitching": Experiment(
        "Stitching",
        "Chapter 3: drawing of trajectories that TD joins",
        "No trajectory goes from s1 to the reward of 10, but two of them share s3. Monte Carlo gives s3 the mean of "
        "what followed; temporal differences with a high τ give it the best that followed, and carry that back to s1. "
        "Imitation copies the best whole trajectory from s1 and never finds the joined one.",
    ),
    "overestimation": Experiment(
        "Overestimation",
        "Chapter 4: press Run to watch Q-values explode",
        "One action in each state is in no record, and its value is guessed ε too high. Each backup believes the guess "
        "and adds its own, so the error grows towards ε/(1−γ). More training does not help: it is how the error grows.",
    ),
    "filter": Experiment(
        "Filtered imitation",
        "Chapter 5: slide k% to see which trajectories are imitated",
        "Keep the best k% of the trajectories and imitate those. A small k promises a better mean but leaves little to "
        "learn from; and even the best k% cannot beat the best trajectory that somebody lived through.",
    ),
    "temperature": Experiment(
        "Temperature",
        "Chapter 6: adjust α to see how weights concentrate",
        "Each logged action gets the weight exp(advantage/α). A large α treats all alike, which is imitation; a small "
        "α listens to the best action alone. The effective number of actions says how much evidence is left.",
    ),
    "expectile": Experiment(
        "Expectile",
        "Chapter 8: adjust τ to see V move from the mean to the maximum",
        "τ says how much more it costs to guess too low than too high. At 0.5 the answer is the mean, and the policy's "
        "values are the clinicians' own; towards 1 it nears the best value in the data, without asking about any "
        "action that nobody took.",
    ),
    "methods": Experiment(
        "Which method trades what",
        "Chapter 9: drawing of stitching against safety",
        "Every learner of Suture, trained on two small problems with a known answer. To the right: it can join pieces "
        "of trajectories. Upwards: it asks about actions that no record has. What is said of a method and what was "
        "measured stand side by side below, because they do not always agree.",
    ),
    "break": Experiment(
        "Break it",
        "Chapter 9: the Break-It Lab's three switches",
        "Switch a part off and see what it was for. Without conservatism the believed values leave what the rewards "
        "allow; without stitching the return stays at the best single trajectory; without advantage weights bad "
        "decisions are imitated like good ones.",
    ),
    "preferences": Experiment(
        "Preferences: RLHF and DPO",
        "Chapter 9: the parallel between offline RL and RLHF",
        "Somebody compared doses two at a time. DPO turns the comparisons into a policy that stays near its reference; "
        "AWR does the same with rewards. Given the rewards that explain the comparisons, both end at the same policy, "
        "and β is the same leash as α.",
    ),
}
"""Every control and drawing of the guide, in its order -> its counterpart here."""
EXERCISES: tuple[tuple[str, str], ...] = (
    ("Chapter 3: checkpoint, what goes wrong where TD asks about an action that nobody took", "Overestimation"),
    ("Chapter 4: derivation of the bound ε/(1−γ)", "Overestimation: the dashed line, which the error nears"),
    (
        "Chapter 6: derivation, AWR solves KL-constrained improvement",
        "Preferences: RLHF and DPO, where both end at one policy",
    ),
    ("Chapter 8: derivation, what the asymmetric loss converges to", "Expectile"),
    (
        "Chapter 8: implementation of IQL's three updates",
        "policy/iql.py; what it reaches is in Which method trades what",
    ),
    ("Chapter 8: quiz, what τ = 0.5 reduces to", "Expectile and Stitching at τ = 0.5: the mean, so nothing improves"),
    (
        "Chapter 9: design challenge, a treatment optimizer of 48 features, 25 doses and 50,000 stays",
        "Suture itself: configs/hospital.yaml, and the Evaluation page for what its answer is worth",
    ),
)
"""What the guide asks its reader to do -> where it can be done, or was."""


def mapping() -> Table:
    """Which element of the guide has which counterpart, in the guide's order."""
    rows = [*((one.guide, one.title) for one in EXPERIMENTS.values()), *EXERCISES]
    ordered = sorted(rows, key=lambda row: row[0].partition(":")[0])
    return Table("What of the guide is where", ("In the guide", "Here"), tuple(ordered))


def gridworld(gamma: float, step_reward: float) -> str:
    """The grid as a table; a cell shows V, and the four moves' Q when it is pointed at or focused."""
    value, q = textbook.gridworld(5, gamma, step_reward)
    squares = value.ravel()[:-1]  # the goal, which ends the game, is worth nothing from there on
    low, high = float(squares.min()), float(squares.max())
    rows = "".join(
        "<tr>" + "".join(_square(value, q, row, column, low, high) for column in range(len(value))) + "</tr>"
        for row in range(len(value))
    )
    caption = "<caption>V(s); the goal is the last square</caption>"
    return f'<style>{_WORLD}</style><table class="world">{caption}{rows}</table>'


def rounds(logged: int) -> tuple[str, str]:
    """Picture and sentence: returns by round with new data, and with `logged` episodes alone."""
    found = textbook.rounds(logged)
    at = [float(k + 1) for k in range(len(found.online))]
    series = [Series("online", at, found.online), Series("offline", at, [found.offline] * len(at))]
    alt = f"Online rises to {found.online[-1]:.2f}, offline stays at {found.offline:.2f}; the best is {found.best:.2f}"
    picture = plots.lines(series, alt, ("round", "return from the first square"), floor=(found.best, "best possible"))
    told = (
        f"After {len(at)} rounds: online {found.online[-1]:.2f} with {found.online_seen[-1]:.0f} of 100 moves seen, "
        f"offline {found.offline:.2f} with {found.offline_seen:.0f} "
        f"(means of 20 repetitions; the best is {found.best:.2f})."
    )
    return str(picture), told


def stitching(tau: float, third: bool) -> tuple[Table, str]:
    """Every state's value by Monte Carlo and by temporal differences, and the two ways from s1."""
    paths = textbook.STITCHING if third else textbook.GUIDE
    found = textbook.stitch(paths, tau)
    rows = tuple(
        (
            state,
            f"{found.monte_carlo[state]:.2f}",
            f"{found.temporal_difference[state]:.2f}",
            f"{found.best[state]:.2f}",
        )
        for state in found.monte_carlo
    )
    told = (
        f"Imitation goes {_way(found.cloned, paths)}; stitching goes {_way(found.stitched, paths)}. "
        f"V(s1) is {found.temporal_difference['s1']:.2f} by temporal differences with τ = {tau:g} and "
        f"{found.monte_carlo['s1']:.2f} by Monte Carlo; the best joined way returns {found.best['s1']:g}."
    )
    head = ("State", "Monte Carlo", f"Temporal difference, τ = {tau:g}", "Best joined way")
    return Table("What a state is worth", head, rows), told


def graph(third: bool, tau: float) -> str:
    """The stitching graph: logged steps in their trajectory's colour, the stitched way beside them."""
    paths = textbook.STITCHING if third else textbook.GUIDE
    found = textbook.stitch(paths, tau)
    place = {
        "s1": (60, 60), "s4": (60, 170), "s3": (230, 115), "s5": (400, 60), "s6": (400, 170), "s2": (230, 230),
        "end 0": (590, 60), "end 1": (590, 170), "end 2": (590, 230),
    }  # fmt: skip
    parts = []
    for number, path in enumerate(paths):
        way = (*path.states, f"end {number}")
        for one, other in pairwise(way):
            parts.append(_arrow(place[one], place[other], f"line s{number}"))
    for one, other in pairwise(found.stitched):
        parts.append(_arrow((place[one][0], place[one][1] + 7), (place[other][0], place[other][1] + 7), "line s3"))
    ends = {f"end {number}": f"reward {path.reward:g}" for number, path in enumerate(paths)}
    shown = [name for name in place if name in found.monte_carlo or name in ends]
    for name in shown:
        x, y = place[name]
        label = ends.get(name) or f"{name}: {found.temporal_difference[name]:.1f}"
        parts.append(f'<rect class="box" x="{x - 45}" y="{y - 17}" width="90" height="34" rx="6"/>')
        parts.append(f'<text x="{x}" y="{y + 4}" text-anchor="middle">{label}</text>')
    letters = [*(f"trajectory {'ABC'[number]}" for number in range(len(paths))), "stitched"]
    marks = [*range(len(paths)), 3]
    for k, (letter, mark) in enumerate(zip(letters, marks, strict=True)):
        parts.append(f'<line class="line s{mark}" x1="{20 + 160 * k}" x2="{50 + 160 * k}" y1="285" y2="285"/>')
        parts.append(f'<text class="small" x="{56 + 160 * k}" y="289">{letter}</text>')
    alt = f"Stitching graph; the stitched way is {', '.join(found.stitched)}"
    return _svg(680, 300, alt, parts)


def overestimation(epsilon: float, gamma: float, backups: int) -> tuple[str, str]:
    """Picture and sentence: the largest value error after each backup, and its limit."""
    errors, limit = textbook.overestimation(epsilon, gamma, max(backups, 1))
    shown = errors[: backups + 1]
    chosen = np.unique(np.linspace(0, len(shown) - 1, min(len(shown), 40)).astype(int))
    series = [Series("largest error", [float(k) for k in chosen], [float(shown[k]) for k in chosen])]
    if len(series[0].x) == 1:
        series = [Series("largest error", [0.0, 1.0], [float(shown[0]), None])]
    told = (
        f"After {backups} backups an error of {epsilon:g} has become {shown[-1]:.1f}; the limit ε/(1−γ) is {limit:.1f}."
    )
    name = f"ε/(1−γ) = {limit:.1f}"
    return str(plots.lines(series, told, ("backups", "largest error of a value"), floor=(limit, name))), told


def exploited(epsilon: float, gamma: float) -> str:
    """The guide's first steps, at this ε and γ: three logged actions worth 5, and one that was never tried."""
    found = textbook.exploited((5.0, 5.0, 5.0), 5.0, epsilon, gamma)
    picks = "picks the action nobody took" if found.chosen else "still picks a logged action"
    return (
        f"Logged actions are worth 5. The untried one is believed to be worth {found.estimate:g}, so a greedy policy "
        f"{picks}, and a backup adds {found.target:.2f} where {found.right_target:.2f} would be right."
    )


def filtered(top_percent: float) -> tuple[str, str]:
    """Picture and sentence: the guide's ten returns, those imitated dark."""
    returns = np.array(RETURNS)
    kept, least, mean = textbook.filtered(returns, top_percent)
    order = np.argsort(-returns, kind="stable")
    best = float(returns.max())
    told = (
        f"The best {top_percent:g}% are {int(kept.sum())} of {len(returns)} trajectories (return ≥ {least:g}); "
        f"imitating them promises {mean:.1f}, at most {best:g}, and uses {kept.mean():.0%} of the data."
    )
    bars = [(f"{returns[k]:g}", float(returns[k]), bool(kept[k])) for k in order]
    return _bars(bars, told, "return of each trajectory, the best first"), told


def temperature(alpha: float) -> tuple[str, str]:
    """Picture and sentence: AWR's weights of the guide's three returns."""
    returns = np.array(ACTIONS)
    found = textbook.weighted(returns, alpha)
    told = (
        f"At α = {alpha:g} the weights are "
        + ", ".join(f"{weight:.3f} (return {value:g})" for weight, value in zip(found.weight, returns, strict=True))
        + f"; as if {found.effective:.2f} of {len(returns)} actions were left."
    )
    bars = [(f"R = {value:g}", float(weight), True) for value, weight in zip(returns, found.weight, strict=True)]
    return _bars(bars, told, "weight in the imitation", 1.0), told


def expectile(tau: float) -> tuple[str, str]:
    """Picture and sentence: where V lies among the guide's three values."""
    values = np.array(VALUES)
    taus = [0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99]
    curve = Series("V by τ", taus, [textbook.expectile(values, one) for one in taus])
    found = textbook.expectile(values, tau)
    told = (
        f"Values {', '.join(f'{value:g}' for value in values)}: V = {found:.2f} at τ = {tau:g} "
        f"(mean {values.mean():.2f}, largest {values.max():g})."
    )
    picture = plots.lines(
        [curve, Series("chosen", [tau], [found])], told, ("τ", "V"), floor=(float(values.max()), "largest")
    )
    return str(picture), told


def methods() -> tuple[str, Table]:
    """Every learner's place between stitching and asking about unseen actions, and what is said beside it."""
    rows = measured()["comparison"]
    points = [(row["learner"], float(row["stitching"]), float(row["queried"])) for row in rows]
    alt = "; ".join(f"{name} stitches {100 * x:.0f}% and asks {100 * y:.0f}%" for name, x, y in points)
    table = Table(
        "What is said, and what was measured",
        (
            "Learner",
            "Said to stitch",
            "Reached on the graph",
            "Said risk",
            "Asked of unseen actions",
            "Values beyond the rewards",
            "Return where unseen actions harm",
        ),
        tuple(
            (
                row["learner"],
                "yes" if row["said"]["stitches"] else "no",
                f"{row['stitching']:.0%} of the best",
                row["said"]["risk"],
                f"{row['queried']:.1%}",
                f"{row['excess']:.2g} ranges",
                f"{row['achieved']:+.2f}",
            )
            for row in rows
        ),
    )
    return _scatter(
        points,
        alt,
        ("return on the stitching graph, share of the best", "asked of unseen actions"),
    ), table


def broken(removed: str, off: bool) -> tuple[str, str]:
    """Picture and sentence of one ablation: the whole method as it trains, and with `off` the broken one too."""
    one = next(row for row in measured()["ablations"] if row["removed"] == removed)
    curves = [one["whole"], *([one["broken"]] if off else [])]
    series = [Series(curve["label"], [float(at) for at in curve["update"]], curve["value"]) for curve in curves]
    told = f"{one['whole']['label']} reaches {one['whole']['value'][-1]:.2f}"
    if off:
        told += f"; without {removed} {one['broken']['label']} reaches {one['broken']['value'][-1]:.2f}"
    told += f". The best that the data allow is {one['best']:g}, the logged episodes' mean {one['logged']:.2f}."
    if off and one["broken"]["q_max"]:
        told += (
            f" It believes in values up to {max(one['broken']['q_max']):,.0f}, where the rewards allow {one['best']:g}."
        )
    picture = plots.lines(
        series, told, ("updates", "true return"), floor=(float(one["best"]), "best of the data"), height=200.0
    )
    return str(picture), told


def preferences(better_b: int, better_than_c: int, beta: float) -> tuple[Table, str]:
    """Three doses, a reference that prefers A, and ten comparisons of each neighbouring pair."""
    names, reference = ("dose A", "dose B", "dose C"), np.array([0.6, 0.3, 0.1])
    wins = np.zeros((3, 3))
    wins[1, 0], wins[0, 1] = better_b, 10 - better_b
    wins[1, 2], wins[2, 1] = better_than_c, 10 - better_than_c
    found = lab.preferred(wins, reference, beta)
    apart = float(np.abs(found.dpo - found.awr).max())
    rows = tuple(
        (name, f"{before:.0%}", f"{reward:+.2f}", f"{one:.1%}", f"{other:.1%}")
        for name, before, reward, one, other in zip(names, reference, found.reward, found.dpo, found.awr, strict=True)
    )
    head = ("Dose", "Reference", "Reward that explains the comparisons", "DPO", "AWR with these rewards, α = β")
    told = (
        f"β = {beta:g}: DPO gives dose B {found.dpo[1]:.0%}. "
        f"The two policies differ by at most {apart:.1e} in any probability."
    )
    return Table("One state, three doses", head, rows), told


@cache
def measured() -> dict[str, Any]:
    """What `suture lab` measured when this version was made."""
    content: dict[str, Any] = artifact.read_json(MEASURED)
    return content


_WORLD = """
.world { border-collapse: separate; border-spacing: 4px; table-layout: fixed; width: min(34rem, 100%); }
.world caption { text-align: left; font-size: .85rem; padding: .2rem 0; }
.world td { position: relative; height: 4.6rem; text-align: center; border-radius: 4px; }
.world td, .world .q { font-variant-numeric: tabular-nums; }
.world td .q { position: absolute; inset: 0; opacity: 0; font-size: .68rem; border-radius: 4px; }
.world td .q { background: #11304a; color: #fff; }
.world td:hover .q, .world td:focus .q { opacity: 1; }
.world td:focus { outline: 3px solid currentColor; outline-offset: 1px; }
.world .q i { position: absolute; font-style: normal; }
.world .q i:nth-child(1) { top: 4px; left: 0; right: 0; } .world .q i:nth-child(2) { right: 4px; top: 40%; }
.world .q i:nth-child(3) { bottom: 4px; left: 0; right: 0; } .world .q i:nth-child(4) { left: 4px; top: 40%; }
"""


def _square(
    value: Float[np.ndarray, "r c"], q: Float[np.ndarray, "r c 4"], row: int, column: int, low: float, high: float
) -> str:
    """A cell: low values orange, high ones blue, and the number, so that the colour is not needed."""
    if (row, column) == (len(value) - 1, len(value) - 1):
        return '<td style="background-color: rgba(27, 135, 201, .6)"><b>goal</b></td>'
    strength = 0.5 if high == low else (float(value[row, column]) - low) / (high - low)
    colour = (
        f"rgba(27, 135, 201, {0.5 * strength:.2f})"
        if strength > 0.5
        else f"rgba(213, 94, 0, {0.5 * (1 - strength):.2f})"
    )
    moves = "".join(f"<i>{name[0]} {q[row, column, k]:.2f}</i>" for k, name in enumerate(textbook.MOVES))
    told = ", ".join(f"{name} {q[row, column, k]:.3f}" for k, name in enumerate(textbook.MOVES))
    return (
        f'<td tabindex="0" style="background-color: {colour}" title="Q: {told}">{value[row, column]:.2f}'
        f'<span class="q">{moves}</span></td>'
    )


def _way(states: Sequence[str], paths: Sequence[Trajectory]) -> str:
    """States in order, the last by what it rewards."""
    ends = {f"end {number}": f"reward {path.reward:g}" for number, path in enumerate(paths)}
    return " → ".join(ends.get(state, state) for state in states)


def _arrow(start: tuple[float, float], end: tuple[float, float], kind: str) -> str:
    (x1, y1), (x2, y2) = start, end
    return f'<line class="{kind}" x1="{x1 + 45}" y1="{y1}" x2="{x2 - 47}" y2="{y2}"/>'


def _bars(bars: Sequence[tuple[str, float, bool]], alt: str, axis: str, top: float | None = None) -> str:
    """Upright bars with their numbers; those that do not count are pale and hatched by their outline."""
    largest = top or max(value for _, value, _ in bars)
    wide, parts = 640.0 / len(bars), []
    for k, (label, value, counts) in enumerate(bars):
        high, x = 170.0 * value / largest, 30 + k * wide
        parts.append(
            f'<rect class="{"cell" if counts else "box side"}" x="{x:.1f}" y="{190 - high:.1f}" '
            f'width="{wide * 0.8:.1f}" height="{high:.1f}" rx="2"/>'
        )
        parts.append(f'<text class="small" x="{x + wide * 0.4:.1f}" y="207" text-anchor="middle">{label}</text>')
    parts.append(f'<text class="axis" x="350" y="230" text-anchor="middle">{axis}</text>')
    return _svg(700, 240, alt, parts)


def _scatter(points: Sequence[tuple[str, float, float]], alt: str, axes: tuple[str, str]) -> str:
    """Named points, x from 0 to 1 and y from 0; the names of those that lie together are stacked."""
    together: dict[tuple[float, float], list[str]] = {}
    for name, x, y in points:
        together.setdefault((round(x, 2), round(y, 2)), []).append(name)
    largest = max(0.05, *(y for _, _, y in points)) * 1.1
    left, top, wide, high = 80.0, 20.0, 550.0, 240.0
    parts = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, y = left + tick * wide, top + (1 - tick) * high
        parts.append(f'<line class="grid" x1="{x}" x2="{x}" y1="{top}" y2="{top + high}"/>')
        parts.append(f'<line class="grid" x1="{left}" x2="{left + wide}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text class="small" x="{x}" y="{top + high + 16}" text-anchor="middle">{tick:.0%}</text>')
        label = f"{tick * largest:.1%}"
        parts.append(f'<text class="small" x="{left - 8}" y="{y + 4}" text-anchor="end">{label}</text>')
    for (x_value, y_value), names in together.items():
        x, y = left + min(x_value, 1.0) * wide, top + (1 - y_value / largest) * high
        parts.append(f'<circle class="mark m0" cx="{x:.1f}" cy="{y:.1f}" r="5"/>')
        anchor, at = ("end", x - 10) if x_value > 0.7 else ("start", x + 10)
        parts += [
            f'<text class="small" x="{at:.1f}" y="{y - 2 - 15 * k:.1f}" text-anchor="{anchor}">{name}</text>'
            for k, name in enumerate(names)
        ]
    parts.append(
        f'<text class="axis" x="{left + wide / 2}" y="{top + high + 38}" text-anchor="middle">{axes[0]}</text>'
    )
    middle = top + high / 2
    parts.append(
        f'<g transform="rotate(-90 16 {middle})"><text class="axis" x="16" y="{middle}" text-anchor="middle">{axes[1]}'
        "</text></g>"
    )
    return _svg(660, 310, alt, parts)


def _svg(wide: int, high: int, alt: str, parts: Sequence[str]) -> str:
    told = escape(alt)
    frame = f'<svg class="plot" viewBox="0 0 {wide} {high}" role="img" aria-label="{told}"><title>{told}</title>'
    return f"{frame}{''.join(parts)}</svg>"
