"""Defects of earlier pipelines that no other test would catch; benchmarks/defects.py puts each known one in."""

import pytest

from cohort.sources import items

METAVISION = {
    225158: 1, 225828: 1, 225943: 1, 226089: 1, 225168: 1, 220970: 1, 225170: 1, 225171: 1, 220864: 1, 225825: 1,
    225827: 1, 225823: 0.5, 225159: 0.5, 225941: 0.25, 225161: 3, 220862: 5, 220995: 6.66, 227533: 6.66, 228341: 8,
    227531: 2.75,
}  # fmt: skip
CAREVUE = {
    30018: 1, 30021: 1, 30060: 1, 30061: 1, 30159: 1, 30160: 1, 30190: 1, 30352: 1, 30063: 1, 40850: 1, 41491: 1,
    30015: 0.5, 30020: 0.5, 30353: 0.5, 30176: 0.25, 30143: 3, 30030: 6.66, 30009: 5, 30012: 1,
    30001: 1, 30004: 1, 30179: 1, 30005: 1, 30180: 1, 30006: 1, 30007: 1, 30094: 1,
}  # fmt: skip


@pytest.mark.parametrize("source", ["mimic_iv", "mimic_iii"])
def test_no_item_id_is_two_ids_run_together(source: str) -> None:
    """30006 and 30061 were once written as 3000630061, so that both fluids were lost."""
    assert max(items.load(source).ids()) < 1_000_000


@pytest.mark.parametrize("source", ["mimic_iv", "mimic_iii"])
def test_every_fluid_of_metavision_has_its_tonicity(source: str) -> None:
    factors = {i: fluid.factor for fluid in items.load(source).fluids for i in fluid.ids}
    assert {i: factors.get(i) for i in METAVISION} == METAVISION


def test_every_fluid_of_carevue_has_its_tonicity() -> None:
    carevue = items.load("mimic_iii").carevue
    assert carevue is not None
    factors = {i: fluid.factor for fluid in carevue.fluids for i in fluid.ids}
    assert {i: factors.get(i) for i in CAREVUE} == CAREVUE
