"""Summary: the short table that a run ends with, and the files to open."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from cohort import artifact


def show(run: Path, console: Console | None = None) -> None:
    """Print stays, patients, each policy's estimate or why it is withheld, the verdict, and what to open."""
    out = console or wide(Console(highlight=False))
    document = artifact.read_json(run / "ope" / "evaluation.json")
    out.print(_cohort_line(run, document["cohort"]))
    out.print(_estimates(document))
    verdict = document["verdict"]
    sentence = f"verdict on {verdict['policy']}: [bold]{verdict['verdict']}[/bold]{_because(verdict['binding'])}"
    out.print(sentence, soft_wrap=True)
    for name, path in (("report", "report/report.html"), ("numbers", "ope/evaluation.json"), ("costs", "run.json")):
        out.print(f"{name:<8} {run / path}", soft_wrap=True)
    out.print(f"{'page':<8} suture app {run}", soft_wrap=True)


def wide(console: Console) -> Console:
    """Where the output goes to a file, no terminal's width breaks the lines."""
    if not console.is_terminal:
        console.width = 140
    return console


def _cohort_line(run: Path, evaluated: dict[str, Any]) -> str:
    rows = artifact.read_manifest(run / "cohort")["rows"]
    return (
        f"{rows['stays']:,} stays of {rows['patients']:,} patients, {rows['decisions']:,} decisions; "
        f"evaluated on {evaluated['episodes']:,} stays of {evaluated['patients']:,} patients"
    )


def _estimates(document: dict[str, Any]) -> Table:
    """One row a policy: the primary estimator's value, or the reason for its absence; learned policies first."""
    primary, level = document["config"]["primary"], document["config"]["level"]
    table = Table("policy", f"return ({level:.0%} interval)", "effective stays", "", box=None, pad_edge=False)
    table.add_row("clinicians", *_cells(document["clinicians"]["estimate"]))
    for name, entry in sorted(document["policies"].items(), key=lambda item: item[1]["kind"] != "learned"):
        estimate = next((one for one in entry["estimates"] if one["estimator"] == primary), None)
        table.add_row(name, *(_cells(estimate) if estimate else ("not estimated", "", f"by {primary}")))
    return table


def _cells(estimate: dict[str, Any]) -> tuple[str, str, str]:
    ess = "" if estimate["ess"] is None else f"{estimate['ess']:.0f}"
    if estimate["withheld"] is not None:
        return "withheld", ess, estimate["withheld"].partition(": ")[2]
    return f"{estimate['value']:+.3f} ({estimate['low']:+.3f} to {estimate['high']:+.3f})", ess, ""


def _because(binding: dict[str, Any] | None) -> str:
    return f" ({binding['reason']})" if binding else ""
