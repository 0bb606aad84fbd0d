"""Entries: what an evaluation's document says of each policy, of the policy as served, and of all together."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ope import assessment, interval, samples
from ope import gates as gating
from ope.assessment import CLINICIANS, Finding
from ope.estimates import Estimate, shown
from ope.gates import Gate
from ope.interval import Interval
from ope.setting import EvaluationConfig, Setting
from ope.subjects import CONTROLS
from ope.twin import Certificate

BASELINE = "bc"


def entries(
    findings: Mapping[str, Finding], clinicians: Finding, certificate: Certificate | None, setting: Setting
) -> dict[str, dict[str, Any]]:
    """Every policy's and control's part of the document."""
    judged = {
        name: assessment.judged(finding, assessment.coverage_of(name, certificate), setting)
        for name, finding in findings.items()
    }
    own = assessment.judged(clinicians, {}, setting)[0]
    found: dict[str, dict[str, Any]] = {}
    for name, finding in findings.items():
        against = {CLINICIANS: _differences(finding, judged[name], clinicians, [own], CLINICIANS, setting)}
        if BASELINE in findings and name != BASELINE:
            other = (findings[BASELINE], judged[BASELINE], BASELINE)
            against[BASELINE] = _differences(finding, judged[name], *other, setting)
        found[name] = _entry(name, finding, judged[name], against, setting)
    return found


def as_served(
    main: str,
    served: Mapping[str, Finding],
    silent: Mapping[str, int],
    clinicians: Finding,
    certificate: Certificate | None,
    setting: Setting,
) -> dict[str, Any] | None:
    """The `served` part of the document; None where the policy as served is not known."""
    if not served:
        return None
    own, ways = assessment.judged(clinicians, {}, setting)[0], {}
    for name, finding in served.items():
        judged = assessment.judged(finding, assessment.coverage_of(name, certificate), setting)
        against = {CLINICIANS: _differences(finding, judged, clinicians, [own], CLINICIANS, setting)}
        described = {"divergence": (finding.described or {})["divergence"]["overall"]}
        ways[name] = {"overlap": finding.overlap, "gates": finding.gates, "estimates": judged, "against": against}
        ways[name] |= described | _verdict(finding, against[CLINICIANS], setting.config)
    return {"policy": main, "decisions": setting.episodes.n, "silent": silent, "ways": ways}


def together(
    findings: Mapping[str, Finding], clinicians: Finding, entries: Mapping[str, Any], setting: Setting
) -> dict[str, Any]:
    """Rank probabilities and simultaneous intervals of the differences, over the policies whose primary is shown."""
    primary = setting.config.primary
    shown_names = [
        name for name, entry in entries.items()
        if any(one.estimator == primary and one.withheld is None for one in entry["against"][CLINICIANS])
    ]  # fmt: skip
    if not shown_names:
        return {"ranks": None, "simultaneous": None}
    own = [findings[name].samples[primary] for name in shown_names]
    base = clinicians.samples[CLINICIANS]
    ranks = interval.rank_probabilities(np.stack([one.replicates for one in [*own, base]], axis=1))
    at_once = samples.simultaneous([samples.less(one, base) for one in own], setting.config.level)
    return {
        "ranks": {"estimator": primary, "policies": [*shown_names, CLINICIANS], "probability": ranks.tolist()},
        "simultaneous": dict(zip(shown_names, at_once, strict=True)),
    }


def _entry(
    name: str,
    finding: Finding,
    judged: Sequence[Estimate],
    against: Mapping[str, Sequence[Estimate]],
    setting: Setting,
) -> dict[str, Any]:
    config = setting.config
    spread = float(setting.episodes.returns_to_go(config.gamma)[setting.episodes.start].std())
    ess = finding.overlap.ess
    entry = {
        "kind": "control" if name in CONTROLS else "learned",
        "overlap": finding.overlap,
        "gates": finding.gates,
        "estimates": judged,
        "against": against,
        "minimum_detectable": interval.minimum_detectable(spread, ess, config.level) if ess > 0 else None,
        **(finding.described or {}),
    }
    if name in CONTROLS:
        return entry
    withheld = {one.estimator: one.withheld for one in judged}
    reason, weighted = withheld[config.primary], withheld.get("wis", "no_estimate: wis is not among the estimators")
    hidden = assessment.WEIGHTED if weighted else ()
    supporting = {key: None if key in hidden else part for key, part in (finding.supporting or {}).items()}
    entry["supporting"] = supporting if reason is None else None
    entry["supporting_withheld"] = reason or weighted
    return entry | _verdict(finding, against[CLINICIANS], config)


def _differences(
    one: Finding,
    judged: Sequence[Estimate],
    other: Finding,
    other_judged: Sequence[Estimate],
    against: str,
    setting: Setting,
) -> list[Estimate]:
    """`one` minus `other`, resample by resample; withheld where either is."""
    other_reasons = {estimate.estimator: estimate.withheld for estimate in other_judged}
    out = []
    for estimate in judged:
        name = estimate.estimator if against != CLINICIANS else CLINICIANS
        mine, theirs = one.samples.get(estimate.estimator), other.samples.get(name)
        found = assessment.UNKNOWN
        if mine is not None and theirs is not None:
            found = assessment.difference(mine, theirs, estimate.level, setting.allowed)
        reason = estimate.withheld or (other_reasons[name] and f"{against}: {other_reasons[name]}")
        out.append(shown(estimate.estimator, found, estimate.level, one.overlap, reason))
    return out


def _verdict(finding: Finding, differences: Sequence[Estimate], config: EvaluationConfig) -> dict[str, Any]:
    primary = next(one for one in differences if one.estimator == config.primary)
    gates, found = list(finding.gates), None
    if primary.withheld is not None and all(gate.passed for gate in gates):
        code, _, reason = primary.withheld.partition(": ")
        gates.append(Gate(code, 0.0, "", False, reason, -1.0))
    elif primary.value is not None and primary.low is not None and primary.high is not None:
        found = Interval(primary.value, primary.low, primary.high)
    decided, binding = gating.decide(gates, found)
    return {"verdict": decided, "binding": binding}
