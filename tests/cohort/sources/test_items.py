"""The id dictionaries: complete, closed, and every id in one place."""

import pytest

from cohort import concepts, config
from cohort.errors import ConfigError
from cohort.sources import items

CLINICAL = {
    "heart_rate": [220045], "sbp": [220050, 220179, 225309], "dbp": [220051, 220180, 225310],
    "map": [220052, 220181, 225312], "resp_rate": [220210, 224690], "spo2": [220277],
    "temperature_c": [223762, 223761], "gcs_eye": [220739], "gcs_verbal": [223900], "gcs_motor": [223901],
    "fio2": [223835, 50816], "weight_kg": [226512, 224639, 226531], "potassium": [50971, 50822],
    "sodium": [50983, 50824], "chloride": [50902, 50806], "glucose": [50931, 50809, 225664, 220621, 226537],
    "bun": [51006], "creatinine": [50912], "magnesium": [50960], "calcium": [50893], "ionised_calcium": [50808],
    "total_co2": [50804], "ast": [50878], "alt": [50861], "bilirubin_total": [50885], "albumin": [50862],
    "hemoglobin": [51222, 50811], "wbc": [51301, 51300, 51755], "platelets": [51265], "ptt": [51275], "pt": [51274],
    "inr": [51237], "ph": [50820], "pao2": [50821], "paco2": [50818], "base_excess": [50802], "lactate": [50813],
    "bicarbonate": [50882, 50803], "cvp": [220074], "bands": [51144], "o2_flow": [223834, 227582, 227287],
    "o2_device": [226732],
    "mechanical_ventilation": [220339, 224700, 224684, 224685, 224686, 224687, 223849, 229314],
}  # fmt: skip
CAREVUE = {
    "heart_rate": [211], "resp_rate": [618, 615], "spo2": [646], "sbp": [51, 455, 6701, 442],
    "dbp": [8368, 8441, 8555, 8440], "map": [52, 456, 6702, 443], "temperature_c": [678, 676], "gcs": [198],
    "gcs_eye": [184], "gcs_motor": [454], "gcs_verbal": [723], "fio2": [190, 3420, 3422], "o2_flow": [470, 471],
    "o2_device": [467], "weight_kg": [762, 763], "cvp": [113],
    "mechanical_ventilation": [720, 506, 682, 683, 684, 450, 640],
}  # fmt: skip


@pytest.mark.parametrize("source", ["mimic_iv", "mimic_iii"])
def test_every_id_is_mapped_once(source: str) -> None:
    ids = items.load(source).ids()
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(
    ("source", "expected"), [("mimic_iv", CLINICAL), ("mimic_iii", CLINICAL), ("mimic_iii", CAREVUE)]
)
def test_every_id_of_the_clinical_definitions_means_its_concept(source: str, expected: dict[str, list[int]]) -> None:
    loaded = items.load(source)
    found = {i: group.concept for group in (*loaded.chart, *loaded.lab) for i in group.ids}
    assert {i: found.get(i) for ids in expected.values() for i in ids} == {
        i: concept for concept, ids in expected.items() for i in ids
    }


def test_an_id_given_twice_is_refused() -> None:
    content = items.load("mimic_iv").model_dump()
    content["drugs"][0]["ids"] = (221906, 220045)
    with pytest.raises(ConfigError, match="item ids: 220045 is given twice"):
        config.parse(content, items.Items, "ids")


def test_a_concept_that_is_not_in_the_dictionary_is_refused() -> None:
    content = items.load("mimic_iv").model_dump()
    content["chart"][0]["concept"] = "pulse"
    with pytest.raises(ConfigError, match="concept 'pulse' is not in features"):
        config.parse(content, items.Items, "ids")


def test_a_declared_unit_without_a_conversion_is_refused() -> None:
    content = items.load("mimic_iv").model_dump()
    content["chart"][0]["unit"] = "furlong"
    with pytest.raises(ConfigError, match="furlong"):
        config.parse(content, items.Items, "ids")


def test_every_canonical_unit_is_understood_for_its_concept() -> None:
    odd = {"mechanical_ventilation", "o2_device"}
    for name, concept in concepts.load().measured.items():
        if name not in odd:
            spelt = {"ratio": "ratio", "pH": "pH"}.get(concept.unit, concept.unit)
            assert items.conversions()[name, items.spelling(spelt)][0] == 1.0, name


def test_every_vasopressor_of_the_equivalent_has_an_item() -> None:
    drugs = {group.drug for group in items.load("mimic_iv").drugs}
    assert set(concepts.load().norepinephrine_equivalent) | {"dobutamine"} == drugs
