"""Difference: two runs side by side: what changed in data, configuration, policy and numbers."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from app import reporting
from app.stage import Existing, Stage
from app.verification import FOREIGN
from cohort import artifact
from ope import page
from ope.evidence import EVALUATION, FLOW, canonical, gather
from ope.words import GATES, MEASURES, VERDICTS

COMPARISON = "comparison"
MEASURES_SHOWN = ("agreement", "unsupported", "fluid_shift_ml", "vasopressor_shift_ug_kg_min")


def write(run: Path, other: Path, existing: Existing) -> Path:
    """Make RUN/comparison: this run beside another one, as data and as a page; returns the page.

    Raises:
        ArtifactError: one of them has no finished evaluation, or a file differs from its manifest.
    """
    documents = {"this": gather(run), "other": gather(other)}

    def make(draft: artifact.Draft, _advance: object) -> None:
        (draft.path / f"{COMPARISON}.json").write_bytes(canonical(documents))
        (draft.path / f"{COMPARISON}.html").write_text(render(documents), encoding="utf-8")

    foreign = {f"{FOREIGN}{name}": digest for name, digest in documents["other"]["digests"].items()}
    inputs: dict[str, Path | str] = {"ope": run / "ope", "cohort": run / "cohort", **foreign}
    return reporting.made(run, Stage(COMPARISON, COMPARISON, {}, inputs, 0, make), existing)


def render(documents: Mapping[str, Mapping[str, Any]]) -> str:
    """The page: this run's values on the left, the other's on the right, equal ones left out of the configuration."""
    this, other = ({name: one["content"] for name, one in documents[key]["files"].items()} for key in ("this", "other"))
    content = {
        "names": [documents[key]["name"] for key in ("this", "other")],
        "verdicts": [_verdict(files[EVALUATION]) for files in (this, other)],
        "digests": _pairs(documents["this"]["digests"], documents["other"]["digests"]),
        "flow": _flow(this[FLOW], other[FLOW]),
        "settings": list(_settings(this, other)),
        "policies": _policies(this[EVALUATION], other[EVALUATION]),
        "code": _pairs(_code(this), _code(other)),
        "gate_texts": GATES,
    }
    return page.render("comparison.html.j2", content)


def _verdict(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    found = evaluation["verdict"]
    tone, word, _ = VERDICTS[found["verdict"]]
    return {"tone": tone, "word": word, **found}


def _pairs(this: Mapping[str, Any], other: Mapping[str, Any]) -> list[dict[str, Any]]:
    names = [*this, *(name for name in other if name not in this)]
    return [
        {"name": name, "this": this.get(name), "other": other.get(name), "same": this.get(name) == other.get(name)}
        for name in names
    ]


def _flow(this: Mapping[str, Any], other: Mapping[str, Any]) -> list[dict[str, Any]]:
    def of(flow: Mapping[str, Any]) -> dict[str, int]:
        last = flow["steps"][-1]
        splits = {f"patients to {name}": part["patients"] for name, part in flow["splits"].items()}
        return {"stays in the cohort": last["stays_kept"], "patients in the cohort": last["patients_kept"], **splits}

    return _pairs(of(this), of(other))


def _settings(this: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every setting that differs: stage, key, both values."""
    end = f"/{artifact.MANIFEST}"
    for name in sorted({name for name in (*this, *other) if name.endswith(end)}):
        mine, theirs = (dict(_leaves(files[name]["config"])) if name in files else {} for files in (this, other))
        for row in _pairs(mine, theirs):
            if not row["same"]:
                yield {**row, "stage": name.removesuffix(end)}


def _leaves(content: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield from _leaves(value, f"{at}.{key}" if at else str(key))
    else:
        yield at, content


def _policies(this: Mapping[str, Any], other: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each learned policy of either run: what is known of it in both."""
    names = [name for name, entry in this["policies"].items() if entry["kind"] == "learned"]
    names += [name for name, entry in other["policies"].items() if entry["kind"] == "learned" and name not in names]
    return [{"name": name, "rows": _numbers(name, this, other)} for name in names]


def _numbers(name: str, this: Mapping[str, Any], other: Mapping[str, Any]) -> list[dict[str, Any]]:
    mine, theirs = (_known(name, evaluation) for evaluation in (this, other))
    return _pairs(mine, theirs)


def _known(name: str, evaluation: Mapping[str, Any]) -> dict[str, str]:
    entry = evaluation["policies"].get(name)
    if entry is None:
        return {}
    overlap = entry["overlap"]
    failed = [GATES[gate["code"]].name for gate in entry["gates"] if not gate["passed"]]
    return {
        "verdict": entry["verdict"],
        "gates failed": "; ".join(failed) or "none",
        "effective sample": f"{page.count(overlap['ess'])} of {page.count(overlap['n_episodes'])} stays",
        **{f"return by {row['estimator']}": _shown(row) for row in entry["estimates"]},
        **{f"minus clinicians by {row['estimator']}": _shown(row) for row in entry["against"]["clinicians"]},
        **{MEASURES[key][0]: page.number(entry["divergence"]["overall"][key]["value"]) for key in MEASURES_SHOWN},
        **{f"hazard {one['name']} per 100": page.number(one["policy"]["value"], 2) for one in _told(entry["hazards"])},
    }


def _told(hazards: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [one for one in hazards if "policy" in one]


def _shown(row: Mapping[str, Any]) -> str:
    if row["withheld"] is not None:
        return f"withheld ({row['withheld'].partition(':')[0]})"
    return f"{page.signed(row['value'])} ({page.signed(row['low'])} to {page.signed(row['high'])})"


def _code(files: Mapping[str, Any]) -> dict[str, Any]:
    found = files[f"ope/{artifact.MANIFEST}"]["code"]
    return {
        "commit": found["commit"],
        "uncommitted changes": found["dirty"],
        "Python": found["python"],
        **found["packages"],
    }
