"""Unit doctor: what is proposed, what is not, and that only what a person accepts is used."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from cohort import config, sources, tables
from cohort.errors import ConfigError, InputError
from cohort.sources import doctor
from cohort.sources.review import Review

IV = sources.SourceConfig(kind="mimic_iv")
GLUCOSE = 225664


@pytest.mark.parametrize(
    ("concept", "factor", "centre", "proposed"),
    [
        ("creatinine", 88.4, 1.2, 1 / 88.4),
        ("glucose", 1 / 18.0156, 140, 18.0156),
        ("hemoglobin", 10, 10, 0.1),
        ("weight_kg", 2.2046, 80, 0.45359),
        ("lactate", 1.0, 2.0, 1.0),
    ],
)
def test_a_conversion_is_proposed_from_the_quantiles(
    concept: str, factor: float, centre: float, proposed: float
) -> None:
    rng = np.random.default_rng(0)
    known, strange = (centre * np.exp(0.2 * rng.standard_normal(500)) for _ in range(2))
    found = doctor.propose(concept, strange * factor, known)
    assert found is not None
    assert found.factor == pytest.approx(proposed, rel=1e-3)
    assert found.distance < 0.1


def test_fahrenheit_is_proposed_with_its_offset() -> None:
    rng = np.random.default_rng(0)
    known, strange = (37 + 0.5 * rng.standard_normal(500) for _ in range(2))
    found = doctor.propose("temperature_c", 1.8 * strange + 32, known)
    assert found is not None
    assert (found.factor, found.offset) == pytest.approx((1 / 1.8, -160 / 9))


@pytest.mark.parametrize("values", [np.full(500, 37.0), np.linspace(0, 1e6, 500), np.full(5, 1.2)])
def test_nothing_is_proposed_where_nothing_fits_or_little_is_known(values: np.ndarray) -> None:
    known = 1.2 * np.exp(0.2 * np.random.default_rng(0).standard_normal(500))
    assert doctor.propose("creatinine", values, known) is None
    assert doctor.propose("creatinine", known, None) is None


@pytest.fixture
def strange(simulated: Path, tmp_path: Path) -> Path:
    """The simulated tables, every other finger-stick glucose in a spelling of mmol/L that nobody knows."""
    root = Path(shutil.copytree(simulated, tmp_path / "tables"))
    path = root / "icu" / "chartevents.parquet"
    rows = pq.read_table(path)
    other = pc.and_(pc.equal(rows["itemid"], GLUCOSE), pa.array(np.arange(len(rows)) % 2 == 0))
    for column, values in (
        ("valueuom", pa.scalar("mmol per litre")),
        ("valuenum", pc.divide(rows["valuenum"], 18.0156)),
    ):
        spoilt = pc.if_else(other, values, rows[column])
        rows = rows.set_column(rows.schema.get_field_index(column), column, spoilt)
    pq.write_table(rows, path)
    return root


def glucose(out: Path) -> int:
    return int((tables.read(out / "shard-00000").observations["concept"] == "glucose").sum())


def test_an_unknown_unit_is_quarantined_until_a_person_accepts_the_proposal(strange: Path, tmp_path: Path) -> None:
    counts = sources.ingest(strange, tmp_path / "before", IV)
    found = doctor.examine(strange, IV)
    finding = found.findings[0]
    assert (finding.concept, finding.unit) == ("glucose", "mmol per litre")
    assert finding.rows == counts["chartevents", "glucose: unit not known"] > 20
    assert finding.proposal is not None
    assert finding.proposal.factor == pytest.approx(18.0156)

    path = tmp_path / "review.yaml"
    doctor.write(found, path)
    unread = sources.SourceConfig(kind="mimic_iv", review=path)
    assert sources.ingest(strange, tmp_path / "unread", unread) == counts

    path.write_text(path.read_text().replace("accept: false", "accept: true", 1))
    accepted = sources.SourceConfig(kind="mimic_iv", review=path)
    after = sources.ingest(strange, tmp_path / "after", accepted)
    assert after["chartevents", "glucose: unit not known"] == 0
    assert after["chartevents", "glucose: converted from another unit than usual"] == finding.rows
    assert glucose(tmp_path / "after") > glucose(tmp_path / "before")
    assert accepted.model_dump(mode="json")["review"]["findings"][0]["accept"] is True  # so it is in the manifest


def test_a_review_of_another_dataset_is_refused(strange: Path, simulated: Path, tmp_path: Path) -> None:
    found = doctor.examine(strange, IV)
    with pytest.raises(InputError, match="review: made of dataset"):
        sources.ingest(simulated, tmp_path / "out", sources.SourceConfig(kind="mimic_iv", review=found))


def test_accepting_where_nothing_is_proposed_is_refused() -> None:
    finding = {"table": "labevents", "concept": "ast", "unit": "?", "rows": 3, "accept": True}
    with pytest.raises(ConfigError, match="accepted, but nothing is proposed"):
        config.parse({"dataset": "x", "findings": [finding]}, Review, "review")


def test_the_doctor_finds_exactly_the_rows_that_are_quarantined(simulated: Path, tmp_path: Path) -> None:
    counts = sources.ingest(simulated, tmp_path / "out", IV)
    quarantined = sum(count for (_, reason), count in counts.items() if reason.endswith(": unit not known"))
    assert sum(finding.rows for finding in doctor.examine(simulated, IV).findings) == quarantined


def spoilt(simulated: Path, to: Path, table: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Path:
    """A copy of the simulated tables with one of them changed."""
    root = Path(shutil.copytree(simulated, to))
    path = root / "icu" / f"{table}.parquet"
    frame = change(pq.read_table(path).to_pandas())
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), path)
    return root


def strange_fluid(frame: pd.DataFrame) -> pd.DataFrame:
    """Every third crystalloid in centilitres."""
    row = (frame["itemid"] == 225158) & (frame.index % 3 == 0)
    return frame.assign(
        amount=frame["amount"].where(~row, frame["amount"] / 10), amountuom=frame["amountuom"].where(~row, "cl")
    )


def strange_urine(frame: pd.DataFrame) -> pd.DataFrame:
    """Every third volume in litres, in words."""
    row = pd.Series(frame.index % 3 == 0)
    return frame.assign(
        value=frame["value"].where(~row, frame["value"] / 1000), valueuom=frame["valueuom"].where(~row, "litres")
    )


def strange_drug(frame: pd.DataFrame) -> pd.DataFrame:
    """Every third rate of norepinephrine per minute, not per kg, in a spelling that nobody knows."""
    row = (frame["itemid"] == 221906) & (frame.index % 3 == 0)
    rate = frame["rate"] * frame["patientweight"]
    return frame.assign(rate=frame["rate"].where(~row, rate), rateuom=frame["rateuom"].where(~row, "gamma per minute"))


@pytest.mark.parametrize(
    ("table", "change", "concept", "unit", "factor", "like"),
    [
        ("inputevents", strange_fluid, "fluid", "cl", 10.0, "mL x 10"),
        ("outputevents", strange_urine, "urine", "litres", 1000.0, "L"),
        ("inputevents", strange_drug, "norepinephrine", "gamma per minute", 1.0, "mcg/min"),
    ],
)
def test_a_dose_s_unit_has_a_proposal_that_brings_back_what_was_charted(
    simulated: Path, tmp_path: Path, table: str, change: Callable[[pd.DataFrame], pd.DataFrame], concept: str,
    unit: str, factor: float, like: str, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(doctor, "MINIMUM_ROWS", 5)  # twelve stays have few rates of one drug
    root = spoilt(simulated, tmp_path / "tables", table, change)
    found = doctor.examine(root, IV)
    finding = next(one for one in found.findings if one.concept == concept)
    assert (finding.table, finding.unit) == (table, unit)
    assert finding.proposal is not None
    assert (finding.proposal.factor, finding.proposal.like) == (factor, like)
    quarantined = sources.ingest(root, tmp_path / "before", IV)
    kind = "drug" if concept == "norepinephrine" else concept
    assert quarantined[table, f"{kind}: unit not known"] <= finding.rows

    accepted = found.model_copy(
        update={"findings": tuple(one.model_copy(update={"accept": one is finding}) for one in found.findings)}
    )
    after = sources.ingest(root, tmp_path / "after", sources.SourceConfig(kind="mimic_iv", review=accepted))
    assert after[table, f"{kind}: unit not known"] == 0
    sources.ingest(simulated, tmp_path / "as-charted", IV)
    made, was = (tables.read(tmp_path / name / "shard-00000") for name in ("after", "as-charted"))
    rate = [part.infusions.sort_values(["stay_id", "start", "order_id"])["normalised_rate"] for part in (made, was)]
    np.testing.assert_allclose(rate[0], rate[1], rtol=1e-6)
    np.testing.assert_allclose(np.sort(made.outputs["volume_ml"]), np.sort(was.outputs["volume_ml"]), rtol=1e-6)


def test_a_rate_accepted_as_no_unit_is_refused(
    simulated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "MINIMUM_ROWS", 5)
    root = spoilt(simulated, tmp_path / "tables", "inputevents", strange_drug)
    found = doctor.examine(root, IV)
    rate = next(one for one in found.findings if one.concept == "norepinephrine")
    assert rate.proposal is not None
    bent = rate.proposal.model_copy(update={"like": "furlong"})
    wrong = found.model_copy(update={"findings": (rate.model_copy(update={"accept": True, "proposal": bent}),)})
    with pytest.raises(InputError, match="'furlong' is no rate of units"):
        sources.ingest(root, tmp_path / "out", sources.SourceConfig(kind="mimic_iv", review=wrong))
