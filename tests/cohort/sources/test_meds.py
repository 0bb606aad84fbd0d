"""MEDS: what codes mean, what is refused, and that both ways in agree."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cohort import build, concepts, config, sources, tables
from cohort.errors import ConfigError, InputError
from cohort.sources import doctor, meds, meds_export

IV, MEDS = sources.SourceConfig(kind="mimic_iv"), sources.SourceConfig(kind="meds")
STAY: list[tuple[object, ...]] = [
    (1, None, "GENDER//M", None, None),
    (1, "2090-01-01", "MEDS_BIRTH", None, None),
    (1, "2150-01-01 08:00", "HOSPITAL_ADMISSION//EMERGENCY", None, None),
    (1, "2150-01-01 12:00", "ICU_ADMISSION//MICU", None, None),
    (1, "2150-01-03 12:00", "ICU_DISCHARGE", None, None),
    (1, "2150-01-05 08:00", "HOSPITAL_DISCHARGE//HOME", None, None),
]


def events(*rows: tuple[object, ...]) -> pd.DataFrame:
    """Events without any of the optional ids."""
    frame = pd.DataFrame([*STAY, *rows], columns=["subject_id", "time", "code", "numeric_value", "text_value"])
    frame["time"] = pd.to_datetime(frame["time"], format="ISO8601").astype("datetime64[us]")
    return frame.astype({"numeric_value": "float64", "code": "str", "text_value": "str"})


def test_a_stay_is_read_without_any_ids() -> None:
    canonical, _ = meds.canonical({"data": events((1, "2150-01-02 09:00", "MEDS_DEATH", None, None))})
    stay = tables.check(canonical).stays.iloc[0]
    assert (stay["age_years"], stay["sex_male"], stay["care_unit"]) == (60, 1, "MICU")
    assert stay["died_in_hospital"]
    assert stay["stay_id"] == 1000


def test_measurements_infusions_and_outputs_are_read_from_their_codes() -> None:
    canonical, _ = meds.canonical({"data": events(
        (1, "2150-01-01 13:00", "LAB//220045//bpm", 80.0, None),
        (1, "2150-01-01 14:00", "LAB//50912//umol/L", 88.4, None),
        (1, "2150-01-01 15:00", "LAB//50821//mm Hg", 90.0, None),
        (1, "2150-01-01 15:00", "LAB//52033", None, "ART."),
        (1, "2150-01-01 16:00", "LAB//223900", 1.0, "No Response-ETT"),
        (1, "2150-01-01 13:00", "INFUSION_START//221906//mcg/kg/min", 0.1, None),
        (1, "2150-01-01 14:00", "INFUSION_END//221906//mg", 0.48, None),
        (1, "2150-01-01 13:00", "SUBJECT_FLUID_OUTPUT//226559//mL", 100.0, None),
        (1, "2150-01-01 13:00", "PROCEDURE//START//225792", None, None),
        (1, "2150-01-01 15:00", "PROCEDURE//END//225792", None, None),
        (1, "2150-01-01 13:00", "DIAGNOSIS//SNOMED//1", None, None),
    )})  # fmt: skip
    checked = tables.check(canonical)
    found = checked.observations.set_index("concept")["value"]
    assert found[["heart_rate", "creatinine", "pao2"]].tolist() == pytest.approx([80, 1, 90], rel=1e-3)
    assert np.isnan(found["gcs_verbal"])
    assert sorted(found["mechanical_ventilation"]) == [0, 1]
    assert checked.infusions[["drug", "normalised_rate"]].to_numpy().tolist() == [["norepinephrine", 0.1]]
    assert checked.outputs["volume_ml"].tolist() == [100]


def test_a_start_without_an_end_or_an_end_without_a_start_is_counted() -> None:
    canonical, counts = meds.canonical({"data": events(
        (1, "2150-01-01 13:00", "INFUSION_START//221906//mcg/kg/min", 0.1, None),
        (1, "2150-01-01 14:00", "INFUSION_END//221906//mg", 0.48, None),
        (1, "2150-01-01 15:00", "INFUSION_START//221906//mcg/kg/min", 0.1, None),
        (1, "2150-01-01 13:00", "PROCEDURE//START//225792", None, None),
        (1, "2150-02-01 15:00", "ICU_ADMISSION//MICU", None, None),
        (2, "2150-02-01 15:00", "ICU_DISCHARGE", None, None),
    )})  # fmt: skip
    assert (len(canonical.stays), len(canonical.infusions)) == (1, 1)
    assert counts == {
        ("icustays", "intime or outtime missing"): 2,
        ("inputevents", "drug: start or end missing"): 1,
        ("procedureevents", "ventilation: end not after start, or missing"): 1,
    }


def test_a_code_of_another_vocabulary_is_mapped_to_an_item_and_a_unit() -> None:
    rules = [rule.model_dump(by_alias=True) for rule in meds.code_map().rules]
    loinc = {"as": "measurement", "pattern": r"LOINC//2160-0$", "item": 50912, "unit": "mg/dL", "clock": "charted"}
    codes = config.parse({"rules": [*rules, loinc]}, meds.CodeMap, "codes")
    raw = meds.as_mimic_iv(events((1, "2150-01-01 14:00", "LOINC//2160-0", 1.0, None)), codes)
    row = raw["labevents"].iloc[0]
    assert (row["itemid"], row["valueuom"]) == (50912, "mg/dL")
    assert pd.isna(row["storetime"])


def test_a_code_that_two_rules_claim_for_different_ends_is_an_error() -> None:
    content = {"rules": [{"as": "measurement", "pattern": "LAB//1", "item": 1}, {"as": "output", "pattern": "LAB"}]}
    codes = config.parse(content, meds.CodeMap, "codes")
    with pytest.raises(InputError, match="2 rules claim the code 'LAB//1' for different ends"):
        meds.meaning("LAB//1", codes)
    assert meds.meaning("LAB//2", codes) == meds.Meaning(end="output")
    assert meds.meaning("OTHER", codes) is None


@pytest.mark.parametrize("rule", [{"as": "nothing", "pattern": "A"}, {"as": "birth", "pattern": "("}, {"as": "birth"}])
def test_a_rule_that_is_none_is_refused(rule: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"^codes: rules\.0"):
        config.parse({"rules": [rule]}, meds.CodeMap, "codes")


@pytest.fixture(scope="module")
def dataset(simulated: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same simulated stays in MIMIC-IV's layout and as MEDS."""
    out = tmp_path_factory.mktemp("meds")
    meds_export.export(simulated, out, IV)
    return simulated, out


def test_the_export_follows_the_standard(dataset: tuple[Path, Path]) -> None:
    files = sorted((dataset[1] / "data").rglob("*.parquet"))
    rows = pa.concat_tables([pq.read_table(path) for path in files])
    schema = {name: str(rows.schema.field(name).type) for name in ("subject_id", "time", "code", "numeric_value")}
    assert schema == {"subject_id": "int64", "time": "timestamp[us]", "code": "string", "numeric_value": "float"}
    frame = rows.select(["subject_id", "time", "code"]).to_pandas()
    assert (frame["subject_id"].diff().fillna(1) >= 0).all()
    same = frame["subject_id"].diff() == 0
    assert (frame["time"].diff()[same].dropna() >= pd.Timedelta(0)).all()
    codes = pq.read_table(dataset[1] / "metadata" / "codes.parquet")["code"].to_pylist()
    assert set(frame["code"]) == set(codes)


def test_both_ways_in_give_the_same_doses_and_almost_everywhere_the_same_state(
    dataset: tuple[Path, Path], tmp_path: Path
) -> None:
    made = []
    for root, config_ in zip(dataset, (IV, MEDS), strict=True):
        shards, out = tmp_path / config_.kind / "shards", tmp_path / config_.kind / "cohort"
        out.mkdir(parents=True)
        sources.ingest(root, shards, config_)
        build.build(shards, out, build.CohortConfig(), seed=1)
        made.append(pd.read_parquet(out / "trajectories.parquet"))
    first, second = made
    assert first[["stay_id", "step", "reward", "terminated"]].equals(
        second[["stay_id", "step", "reward", "terminated"]]
    )
    assert (first["action"] == second["action"]).all()
    for dose in ("fluid_ml", "vasopressor_ug_kg_min"):
        np.testing.assert_allclose(first[dose], second[dose], rtol=1e-6, atol=1e-6)
    names = list(concepts.load().state)
    known = [~frame[[f"{name}_imputed" for name in names]].to_numpy() for frame in made]
    both = known[0] & known[1]
    values = [frame[names].to_numpy(dtype=float) for frame in made]
    assert (known[0] == known[1]).mean() > 0.985
    assert np.isclose(*values, rtol=1e-5, atol=1e-5)[both].mean() > 0.985


def spoil(root: Path, out: Path, column: str, array: pa.Array) -> Path:
    rows = pq.read_table(root / "data" / "00000.parquet")
    rows = rows.set_column(rows.schema.get_field_index(column), column, array)
    (out / "data").mkdir(parents=True)
    pq.write_table(rows, out / "data" / "0.parquet")
    return out


@pytest.mark.parametrize(
    ("column", "fill", "message"),
    [
        ("time", "yesterday", "time: expected times without a zone in"),
        ("subject_id", "anna", "subject_id: expected whole numbers in"),
        ("numeric_value", "high", "numeric_value: expected numbers in"),
        ("code", "NOTHING//KNOWN", "icu: the table has no rows"),
    ],
)
def test_a_wrong_type_or_an_unknown_vocabulary_is_refused(
    dataset: tuple[Path, Path], tmp_path: Path, column: str, fill: str, message: str
) -> None:
    n = pq.read_metadata(dataset[1] / "data" / "00000.parquet").num_rows
    root = spoil(dataset[1], tmp_path / "spoilt", column, pa.array([fill] * n))
    with pytest.raises(InputError, match=re.escape(message)):
        sources.ingest(root, tmp_path / "out", MEDS)


def test_a_folder_without_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="required table data is missing"):
        sources.ingest(tmp_path, tmp_path / "out", MEDS)


def test_a_map_of_another_vocabulary_reads_the_same_stays(dataset: tuple[Path, Path], tmp_path: Path) -> None:
    """Every code is renamed, the map with them: the tables are the same to the last row."""
    rows = pq.read_table(dataset[1] / "data" / "00000.parquet")
    renamed = pa.array([f"HIS:{code}" for code in rows["code"].to_pylist()])
    root = spoil(dataset[1], tmp_path / "other", "code", renamed)
    text = (concepts.DIRECTORY / "meds.yaml").read_text().replace("pattern: '", "pattern: 'HIS:")
    (tmp_path / "codes.yaml").write_text(text)
    mine = sources.SourceConfig(kind="meds", codes=tmp_path / "codes.yaml")
    assert sources.ingest(root, tmp_path / "mine", mine) == sources.ingest(dataset[1], tmp_path / "theirs", MEDS)
    first, second = (tables.read(tmp_path / name / "shard-00000") for name in ("mine", "theirs"))
    for name in tables.SCHEMAS:
        pd.testing.assert_frame_equal(getattr(first, name), getattr(second, name))
    assert doctor.examine(root, mine).findings == doctor.examine(dataset[1], MEDS).findings


def test_a_map_that_claims_no_measurement_is_refused(dataset: tuple[Path, Path], tmp_path: Path) -> None:
    text = (concepts.DIRECTORY / "meds.yaml").read_text().replace("'LAB//", "'OTHER//").replace("KG$", "STONE$")
    (tmp_path / "codes.yaml").write_text(re.sub(r".*as: procedure.*\n", "", text))
    with pytest.raises(InputError, match="no row is a measurement"):
        sources.ingest(dataset[1], tmp_path / "out", sources.SourceConfig(kind="meds", codes=tmp_path / "codes.yaml"))


def test_a_map_for_tables_without_codes_and_one_that_is_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / "codes.yaml").write_text("rules: [{as: birth, pattern: A}]")
    with pytest.raises(ConfigError, match="only a MEDS dataset has them, kind is mimic_iv"):
        config.parse({"kind": "mimic_iv", "codes": str(tmp_path / "codes.yaml")}, sources.SourceConfig, "source")
    (tmp_path / "codes.yaml").write_text("rules: [{as: measurement, patern: A}]")
    with pytest.raises(ConfigError, match="patern: unknown key"):
        config.parse({"kind": "meds", "codes": str(tmp_path / "codes.yaml")}, sources.SourceConfig, "source")
