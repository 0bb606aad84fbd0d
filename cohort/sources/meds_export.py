"""MEDS export: a hospital in MIMIC-IV's layout written as a Medical Event Data Standard dataset (schema 0.4).

Monitor vitals are written at their charting time, all that is seen once stored (laboratory, GCS, urine) at the later of
charting and storing; rewritten infusions are left out. What MEDS cannot hold is in docs/decisions/meds.md.
"""

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from cohort import artifact, concepts
from cohort.pieces import Pieces
from cohort.sources import SourceConfig, items, measurements, mimic_iv, shards

SCHEMA = pa.schema(
    [
        pa.field("subject_id", pa.int64(), nullable=False),
        pa.field("time", pa.timestamp("us")),
        pa.field("code", pa.string(), nullable=False),
        pa.field("numeric_value", pa.float32()),
        pa.field("text_value", pa.large_string()),
        pa.field("hadm_id", pa.int64()),
        pa.field("icustay_id", pa.int64()),
        pa.field("order_id", pa.int64()),
        pa.field("link_order_id", pa.int64()),
    ]
)
VERSION = "0.4.1"
_IDS = ("hadm_id", "icustay_id", "order_id", "link_order_id")


def export(root: Path, out: Path, config: SourceConfig) -> int:
    """Write `out`/data/*.parquet and `out`/metadata; returns the number of events.

    Args:
        root: tables in MIMIC-IV's layout.
        out: an existing or new folder without data in it.
        config: how `root` is read.

    Raises:
        InputError: as `cohort.sources.ingest`.
    """
    codes: set[str] = set()
    written = 0
    out.mkdir(parents=True, exist_ok=True)
    folder = tempfile.TemporaryDirectory(dir=out)  # what is written about patients is never outside `out`
    with folder as scratch:
        spills, n_shards, _ = shards.spilt(root, Pieces(Path(scratch)), config, mimic_iv.TABLES)
        for shard in range(n_shards):
            rows = events(shards.raw_tables(spills, shard))
            table = pa.Table.from_pandas(rows, schema=SCHEMA, preserve_index=False)
            artifact.write_parquet(table, out / "data" / f"{shard:05d}.parquet")
            codes |= set(rows["code"].unique())
            written += len(rows)
    named = sorted(codes)
    metadata = {"code": named, "description": [None] * len(named), "parent_codes": [None] * len(named)}
    kinds = pa.schema([("code", pa.string()), ("description", pa.string()), ("parent_codes", pa.list_(pa.string()))])
    artifact.write_parquet(pa.table(metadata, schema=kinds), out / "metadata" / "codes.parquet")
    artifact.write_json(out / "metadata" / "dataset.json", {"etl_name": "suture", "meds_version": VERSION})
    return written


def events(raw: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """MIMIC-IV's tables of some patients as MEDS events, in order of patient and time."""
    subject = raw["icustays"].set_index("stay_id")["subject_id"]
    parts = [*_static(raw), *_charted(raw, subject), *_infusions(raw["inputevents"], subject), *_history(raw)]
    for part in parts:
        for name in ("numeric_value", "text_value", *_IDS):
            if name not in part:
                part[name] = np.nan if name == "numeric_value" else None
        for name in _IDS:
            part[name] = part[name].astype("Int64")
    whole: pd.DataFrame = pd.concat([part[SCHEMA.names] for part in parts if len(part)], ignore_index=True)
    whole = whole[whole["subject_id"].notna()]
    return whole.sort_values(["subject_id", "time", "code"], kind="stable", na_position="first", ignore_index=True)


def _static(raw: dict[str, pd.DataFrame]) -> list[pd.DataFrame]:
    patients, admissions, icu = raw["patients"], raw["admissions"], raw["icustays"]
    years = (patients["anchor_year"] - patients["anchor_age"]).astype(int).astype(str)
    died = admissions.dropna(subset="deathtime").groupby("subject_id")["deathtime"].first()
    death = patients["subject_id"].map(died).fillna(patients["dod"])
    of, admitted = patients["subject_id"], {"subject_id": admissions["subject_id"], "hadm_id": admissions["hadm_id"]}
    stayed = {name: icu[name] for name in ("subject_id", "hadm_id")} | {"icustay_id": icu["stay_id"]}
    race = "race" if "race" in admissions else "ethnicity"
    return [
        pd.DataFrame({"subject_id": of, "time": pd.to_datetime(years + "-01-01"), "code": "MEDS_BIRTH"}),
        pd.DataFrame({"subject_id": of, "time": pd.NaT, "code": "GENDER//" + patients["gender"].astype(str)}),
        pd.DataFrame({"subject_id": of, "time": death, "code": "MEDS_DEATH"})[death.notna().to_numpy()],
        pd.DataFrame({**admitted, "time": admissions["admittime"], "code": "HOSPITAL_ADMISSION"}),
        pd.DataFrame({**admitted, "time": admissions["dischtime"], "code": "HOSPITAL_DISCHARGE"}),
        pd.DataFrame({**admitted, "time": admissions["admittime"], "code": "RACE//" + admissions[race].astype(str)}),
        pd.DataFrame({**stayed, "time": icu["intime"], "code": "ICU_ADMISSION//" + icu["first_careunit"].astype(str)}),
        pd.DataFrame({**stayed, "time": icu["outtime"], "code": "ICU_DISCHARGE"}),
    ]


def _charted(raw: dict[str, pd.DataFrame], subject: "pd.Series[int]") -> list[pd.DataFrame]:
    """Measurements, urine and procedures."""
    chart, delays = raw["chartevents"], items.load("mimic_iv").assumed_delay_minutes
    parts = [
        _measured(chart, chart["stay_id"].map(subject), _monitored(chart["itemid"]), "LAB", delays.chart)
        .assign(icustay_id=chart["stay_id"])
    ]  # fmt: skip
    if "labevents" in raw:
        lab = raw["labevents"]
        gas = _gases(lab["itemid"])
        delay = pd.Series(np.where(gas, delays.gas, delays.lab), index=lab.index)
        parts.append(_measured(lab, lab["subject_id"], pd.Series(False, index=lab.index), "LAB", delay))
    if "outputevents" in raw:
        urine = raw["outputevents"].rename(columns={"value": "valuenum"}).assign(value=None)
        never = pd.Series(False, index=urine.index)
        made = _measured(urine, urine["stay_id"].map(subject), never, "SUBJECT_FLUID_OUTPUT", delays.output)
        parts.append(made.assign(icustay_id=urine["stay_id"]))
    if "procedureevents" in raw:
        done = raw["procedureevents"]
        shared = {"subject_id": done["stay_id"].map(subject), "icustay_id": done["stay_id"]}
        for edge, time in (("START", "starttime"), ("END", "endtime")):
            code = f"PROCEDURE//{edge}//" + done["itemid"].astype(str)
            parts.append(pd.DataFrame({**shared, "time": done[time], "code": code}))
    return parts


def _measured(
    rows: pd.DataFrame,
    subject: "pd.Series[int]",
    monitored: "pd.Series[bool]",
    kind: str,
    delay: "pd.Series[float] | int",
) -> pd.DataFrame:
    """Measurements at the time they were seen, the unit in the code."""
    assumed = rows["charttime"] + pd.to_timedelta(delay, unit="min")
    stored = rows["storetime"].fillna(assumed)
    seen = stored.where(stored > rows["charttime"], rows["charttime"])
    unit = "//" + rows["valueuom"].astype(object).fillna("").astype(str)
    return pd.DataFrame(
        {
            "subject_id": subject,
            "time": rows["charttime"].where(monitored, seen),
            "code": f"{kind}//" + rows["itemid"].astype(str) + unit.where(unit != "//", ""),
            "numeric_value": rows["valuenum"],
            "text_value": rows["value"].astype(object),
        }
    )


def _monitored(item: "pd.Series[int]") -> "pd.Series[bool]":
    """Whether a charted item is seen when charted."""
    chart = measurements.section(items.load("mimic_iv").chart)
    group = measurements.codes(chart.group_of, item.to_numpy(np.int64))
    charted = [concepts.load().measured[rule.concept].clock == "charted" for rule in chart.groups]
    return pd.Series(np.array([*charted, False])[group], index=item.index)


def _gases(item: "pd.Series[int]") -> np.ndarray:
    lab = measurements.section(items.load("mimic_iv").lab)
    specimen = items.load("mimic_iv").specimen.ids
    group = measurements.codes(lab.group_of, item.to_numpy(np.int64))
    return np.where(group >= 0, lab.gas[group], False) | np.isin(item, specimen)


def _infusions(rows: pd.DataFrame, subject: "pd.Series[int]") -> list[pd.DataFrame]:
    """Starts with their rate, ends with their amount, and the weight of each order."""
    rows = rows[rows["statusdescription"].astype(object) != "Rewritten"]
    shared = {
        "subject_id": rows["stay_id"].map(subject),
        "icustay_id": rows["stay_id"],
        "order_id": rows["orderid"],
        "link_order_id": rows["linkorderid"],
    }
    item = rows["itemid"].astype(str)

    def unit(name: str) -> "pd.Series[str]":
        said = "//" + rows[name].astype(object).fillna("").astype(str)
        return said.where(said != "//", "")

    start, end = "INFUSION_START//" + item + unit("rateuom"), "INFUSION_END//" + item + unit("amountuom")
    weights = pd.DataFrame({**shared, "time": rows["starttime"], "code": "SUBJECT_WEIGHT_AT_INFUSION//KG",
                            "numeric_value": rows["patientweight"]})  # fmt: skip
    return [
        pd.DataFrame({**shared, "time": rows["starttime"], "code": start, "numeric_value": rows["rate"]}),
        pd.DataFrame({**shared, "time": rows["endtime"], "code": end, "numeric_value": rows["amount"]}),
        weights[rows["patientweight"].notna()],
    ]


def _history(raw: dict[str, pd.DataFrame]) -> list[pd.DataFrame]:
    parts = []
    if "microbiologyevents" in raw:
        rows = raw["microbiologyevents"]
        time = rows["charttime"].fillna(rows["chartdate"])
        code = "MICROBIOLOGY//" + rows["spec_type_desc"].astype(str)
        parts.append(pd.DataFrame({"subject_id": rows["subject_id"], "time": time, "code": code}))
    if "prescriptions" in raw:
        rows = raw["prescriptions"]
        code = "MEDICATION//START//" + rows["drug"].astype(str)
        told = {"subject_id": rows["subject_id"], "time": rows["starttime"], "code": code}
        parts.append(pd.DataFrame({**told, "text_value": rows["route"].astype(object)}))
    if "diagnoses_icd" in raw:
        rows = raw["diagnoses_icd"]
        ended = rows["hadm_id"].map(raw["admissions"].set_index("hadm_id")["dischtime"])
        code = "DIAGNOSIS//ICD//" + rows["icd_version"].astype(str) + "//" + rows["icd_code"].astype(str)
        told = {"subject_id": rows["subject_id"], "hadm_id": rows["hadm_id"]}
        parts.append(pd.DataFrame({**told, "time": ended, "code": code}))
    return parts
