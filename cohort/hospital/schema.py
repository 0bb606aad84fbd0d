"""Schema: the tables of MIMIC-IV's layout that the simulated hospital writes, and how their columns are made."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Int

TIME, WHOLE, REAL, TEXT = pa.timestamp("us"), pa.int64(), pa.float64(), pa.string()
"""What the columns are made of."""
_TIME, _DAY, _I, _F, _S = TIME, pa.date32(), WHOLE, REAL, TEXT
_EVENT = [("subject_id", _I), ("hadm_id", _I), ("stay_id", _I), ("caregiver_id", _I)]

SCHEMAS: dict[str, pa.Schema] = {
    "hosp/patients": pa.schema(
        [
            ("subject_id", _I), ("gender", _S), ("anchor_age", _I), ("anchor_year", _I), ("anchor_year_group", _S),
            ("dod", _DAY),
        ]
    ),
    "hosp/admissions": pa.schema(
        [
            ("subject_id", _I), ("hadm_id", _I), ("admittime", _TIME), ("dischtime", _TIME), ("deathtime", _TIME),
            ("admission_type", _S), ("admit_provider_id", _S), ("admission_location", _S), ("discharge_location", _S),
            ("insurance", _S), ("language", _S), ("marital_status", _S), ("race", _S), ("edregtime", _TIME),
            ("edouttime", _TIME), ("hospital_expire_flag", _I),
        ]
    ),
    "hosp/labevents": pa.schema(
        [
            ("labevent_id", _I), ("subject_id", _I), ("hadm_id", _I), ("specimen_id", _I), ("itemid", _I),
            ("order_provider_id", _S), ("charttime", _TIME), ("storetime", _TIME), ("value", _S), ("valuenum", _F),
            ("valueuom", _S), ("ref_range_lower", _F), ("ref_range_upper", _F), ("flag", _S), ("priority", _S),
            ("comments", _S),
        ]
    ),
    "hosp/microbiologyevents": pa.schema(
        [
            ("microevent_id", _I), ("subject_id", _I), ("hadm_id", _I), ("micro_specimen_id", _I),
            ("order_provider_id", _S), ("chartdate", _TIME), ("charttime", _TIME), ("spec_itemid", _I),
            ("spec_type_desc", _S), ("test_seq", _I), ("storedate", _TIME), ("storetime", _TIME), ("test_itemid", _I),
            ("test_name", _S), ("org_itemid", _I), ("org_name", _S), ("isolate_num", _I), ("quantity", _S),
            ("ab_itemid", _I), ("ab_name", _S), ("dilution_text", _S), ("dilution_comparison", _S),
            ("dilution_value", _F), ("interpretation", _S), ("comments", _S),
        ]
    ),
    "hosp/prescriptions": pa.schema(
        [
            ("subject_id", _I), ("hadm_id", _I), ("pharmacy_id", _I), ("poe_id", _S), ("poe_seq", _I),
            ("order_provider_id", _S), ("starttime", _TIME), ("stoptime", _TIME), ("drug_type", _S), ("drug", _S),
            ("formulary_drug_cd", _S), ("gsn", _S), ("ndc", _S), ("prod_strength", _S), ("form_rx", _S),
            ("dose_val_rx", _S), ("dose_unit_rx", _S), ("form_val_disp", _S), ("form_unit_disp", _S),
            ("doses_per_24_hrs", _F), ("route", _S),
        ]
    ),
    "hosp/diagnoses_icd": pa.schema(
        [("subject_id", _I), ("hadm_id", _I), ("seq_num", _I), ("icd_code", _S), ("icd_version", _I)]
    ),
    "hosp/d_labitems": pa.schema([("itemid", _I), ("label", _S), ("fluid", _S), ("category", _S)]),
    "icu/icustays": pa.schema(
        [
            ("subject_id", _I), ("hadm_id", _I), ("stay_id", _I), ("first_careunit", _S), ("last_careunit", _S),
            ("intime", _TIME), ("outtime", _TIME), ("los", _F),
        ]
    ),
    "icu/chartevents": pa.schema(
        [
            *_EVENT, ("charttime", _TIME), ("storetime", _TIME), ("itemid", _I), ("value", _S), ("valuenum", _F),
            ("valueuom", _S), ("warning", _I),
        ]
    ),
    "icu/outputevents": pa.schema(
        [*_EVENT, ("charttime", _TIME), ("storetime", _TIME), ("itemid", _I), ("value", _F), ("valueuom", _S)]
    ),
    "icu/inputevents": pa.schema(
        [
            *_EVENT, ("starttime", _TIME), ("endtime", _TIME), ("storetime", _TIME), ("itemid", _I), ("amount", _F),
            ("amountuom", _S), ("rate", _F), ("rateuom", _S), ("orderid", _I), ("linkorderid", _I),
            ("ordercategoryname", _S), ("secondaryordercategoryname", _S), ("ordercomponenttypedescription", _S),
            ("ordercategorydescription", _S), ("patientweight", _F), ("totalamount", _F), ("totalamountuom", _S),
            ("isopenbag", _I), ("continueinnextdept", _I), ("statusdescription", _S), ("originalamount", _F),
            ("originalrate", _F),
        ]
    ),
    "icu/procedureevents": pa.schema(
        [
            *_EVENT, ("starttime", _TIME), ("endtime", _TIME), ("storetime", _TIME), ("itemid", _I), ("value", _F),
            ("valueuom", _S), ("location", _S), ("locationcategory", _S), ("orderid", _I), ("linkorderid", _I),
            ("ordercategoryname", _S), ("ordercategorydescription", _S), ("patientweight", _F), ("isopenbag", _I),
            ("continueinnextdept", _I), ("statusdescription", _S), ("originalamount", _F), ("originalrate", _F),
        ]
    ),
    "icu/d_items": pa.schema(
        [
            ("itemid", _I), ("label", _S), ("abbreviation", _S), ("linksto", _S), ("category", _S), ("unitname", _S),
            ("param_type", _S), ("lownormalvalue", _F), ("highnormalvalue", _F),
        ]
    ),
}  # fmt: skip
"""Every table that is written, by path without extension, with MIMIC-IV's column names and types."""

Columns = dict[str, Any]
"""Column name -> values, for `table`."""


def table(name: str, columns: Columns) -> pa.Table:
    """Columns in the schema's order; those not given are null."""
    schema = coded(name)
    n = len(next(iter(columns.values())))
    arrays = []
    for field in schema:
        column = columns.get(field.name)
        if column is None:
            arrays.append(pa.nulls(n, field.type))
            continue
        array = column if isinstance(column, pa.Array) else pa.array(column)
        arrays.append(array if array.type == field.type else array.cast(field.type))
    return pa.Table.from_arrays(arrays, schema=schema)


def coded(name: str) -> pa.Schema:
    """The schema with its texts as codes, which are quicker to make and to write; readers see plain texts."""
    coded = pa.dictionary(pa.int32(), _S)
    return pa.schema([pa.field(field.name, coded if field.type == _S else field.type) for field in SCHEMAS[name]])


def words(words: Sequence[str | None], codes: Int[np.ndarray, "r"]) -> pa.DictionaryArray:
    """Codes as texts; -1 is null, and so is a code whose word is None. Words may be given twice."""
    known = {word: position for position, word in enumerate(dict.fromkeys(word for word in words if word is not None))}
    position = np.array([-1 if word is None else known[word] for word in words], np.int32)[codes]
    index = pa.array(position, mask=(codes < 0) | (position < 0))
    return pa.DictionaryArray.from_arrays(index, pa.array(list(known), _S))


def whole(values: np.ndarray, missing: Bool[np.ndarray, "r"]) -> pa.Array:
    return pa.array(values.astype(np.int64), _I, mask=missing)


def real(values: Float[np.ndarray, "r"]) -> pa.Array:
    return pa.array(values, _F, from_pandas=True)
