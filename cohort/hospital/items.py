"""Items: what the simulated hospital charts, by MIMIC-IV item id, with the labels and units the real tables carry."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Int

Table = Literal["chartevents", "labevents", "outputevents", "inputevents", "procedureevents"]
TABLES: tuple[Table, ...] = ("chartevents", "labevents", "outputevents", "inputevents", "procedureevents")


@dataclass(frozen=True)
class Item:
    """One row of d_items or d_labitems."""

    itemid: int
    label: str
    table: Table
    unit: str | None
    """As the rows carry it; None: the column is empty."""
    category: str
    decimals: int = 0
    """Digits after the point with which its values are written."""
    normal: tuple[float, float] | None = None
    """Reference range printed beside a laboratory value."""
    text: bool = False
    """True: the value is a text (with or without a number beside it)."""


def _chart(itemid: int, label: str, unit: str | None, category: str, decimals: int = 0) -> Item:
    return Item(itemid, label, "chartevents", unit, category, decimals)


def _note(itemid: int, label: str, category: str) -> Item:
    return Item(itemid, label, "chartevents", None, category, text=True)


def _lab(itemid: int, label: str, unit: str | None, category: str, decimals: int, low: float, high: float) -> Item:
    return Item(itemid, label, "labevents", unit, category, decimals, (low, high))


def _fluid(itemid: int, label: str, unit: str, category: str) -> Item:
    return Item(itemid, label, "inputevents", unit, category)


_VITAL, _BREATH, _NEURO, _GENERAL = "Routine Vital Signs", "Respiratory", "Neurological", "General"
_CHEMISTRY, _BLOOD, _GAS = "Chemistry", "Hematology", "Blood Gas"
_MEDICATION, _INTAKE, _PRODUCT = "Medications", "Fluids/Intake", "Blood Products/Colloids"

ITEMS: tuple[Item, ...] = (
    _chart(220045, "Heart Rate", "bpm", _VITAL),
    _chart(220050, "Arterial Blood Pressure systolic", "mmHg", _VITAL),
    _chart(220051, "Arterial Blood Pressure diastolic", "mmHg", _VITAL),
    _chart(220052, "Arterial Blood Pressure mean", "mmHg", _VITAL),
    _chart(220179, "Non Invasive Blood Pressure systolic", "mmHg", _VITAL),
    _chart(220180, "Non Invasive Blood Pressure diastolic", "mmHg", _VITAL),
    _chart(220181, "Non Invasive Blood Pressure mean", "mmHg", _VITAL),
    _chart(225309, "ART BP Systolic", "mmHg", _VITAL),
    _chart(225310, "ART BP Diastolic", "mmHg", _VITAL),
    _chart(225312, "ART BP Mean", "mmHg", _VITAL),
    _chart(220210, "Respiratory Rate", "insp/min", _BREATH),
    _chart(224690, "Respiratory Rate (Total)", "insp/min", _BREATH),
    _chart(220277, "O2 saturation pulseoxymetry", "%", _BREATH),
    _chart(223761, "Temperature Fahrenheit", "°F", _VITAL, 1),
    _chart(223762, "Temperature Celsius", "°C", _VITAL, 1),
    _chart(220074, "Central Venous Pressure", "mmHg", "Hemodynamics"),
    _note(220739, "GCS - Eye Opening", _NEURO),
    _note(223900, "GCS - Verbal Response", _NEURO),
    _note(223901, "GCS - Motor Response", _NEURO),
    _chart(223835, "Inspired O2 Fraction", None, _BREATH, 2),
    _chart(226512, "Admission Weight (Kg)", "kg", _GENERAL, 1),
    _chart(226531, "Admission Weight (lbs.)", None, _GENERAL, 1),
    _chart(224639, "Daily Weight", "kg", _GENERAL, 1),
    _chart(225664, "Glucose finger stick (range 70-100)", "mg/dL", "Labs"),
    _chart(220621, "Glucose (serum)", "mg/dL", "Labs"),
    _chart(226537, "Glucose (whole blood)", "mg/dL", "Labs"),
    _chart(220339, "PEEP set", "cmH2O", _BREATH),
    _chart(224700, "Total PEEP Level", "cmH2O", _BREATH),
    _chart(224684, "Tidal Volume (set)", "mL", _BREATH),
    _chart(224685, "Tidal Volume (observed)", "mL", _BREATH),
    _chart(224686, "Tidal Volume (spontaneous)", "mL", _BREATH),
    _chart(224687, "Minute Volume", "L/min", _BREATH, 1),
    _note(223849, "Ventilator Mode", _BREATH),
    _note(226732, "O2 Delivery Device(s)", _BREATH),
    _chart(223834, "O2 Flow", "L/min", _BREATH),
    _chart(227287, "O2 Flow (additional cannula)", "L/min", _BREATH),
    # What no feature reads, but every nurse writes.
    _note(220048, "Heart Rhythm", _VITAL),
    _chart(220046, "Heart rate Alarm - High", "bpm", "Alarms"),
    _chart(220047, "Heart Rate Alarm - Low", "bpm", "Alarms"),
    _chart(223769, "O2 Saturation Pulseoxymetry Alarm - High", "%", "Alarms"),
    _chart(223770, "O2 Saturation Pulseoxymetry Alarm - Low", "%", "Alarms"),
    _chart(223751, "Non-Invasive Blood Pressure Alarm - High", "mmHg", "Alarms"),
    _chart(223752, "Non-Invasive Blood Pressure Alarm - Low", "mmHg", "Alarms"),
    _chart(224161, "Resp Alarm - High", "insp/min", "Alarms"),
    _chart(224162, "Resp Alarm - Low", "insp/min", "Alarms"),
    _note(223791, "Pain Level", "Pain/Sedation"),
    _note(228096, "Richmond-RAS Scale", "Pain/Sedation"),
    _note(224093, "Position", "Treatments"),
    _note(224082, "Turn", "Treatments"),
    _note(223985, "Respiratory Effort", _BREATH),
    _note(223986, "LUL Lung Sounds", _BREATH),
    _note(223987, "RUL Lung Sounds", _BREATH),
    _note(223988, "LLL Lung Sounds", _BREATH),
    _note(223989, "RLL Lung Sounds", _BREATH),
    _note(224004, "Bowel Sounds", "GI/GU"),
    _note(223898, "Orientation", _NEURO),
    _note(224026, "Skin Color", "Skin - Assessment"),
    _note(224027, "Skin Temperature", "Skin - Assessment"),
    _note(223943, "Dorsal PedPulse R", "Cardiovascular (Pulses)"),
    _note(223948, "Dorsal PedPulse L", "Cardiovascular (Pulses)"),
    _note(224054, "Braden Sensory Perception", "Skin - Assessment"),
    _note(224055, "Braden Moisture", "Skin - Assessment"),
    _note(224056, "Braden Activity", "Skin - Assessment"),
    _note(224057, "Braden Mobility", "Skin - Assessment"),
    _note(224058, "Braden Nutrition", "Skin - Assessment"),
    _note(224059, "Braden Friction/Shear", "Skin - Assessment"),
    _note(224080, "Head of Bed", "Treatments"),
    _note(227121, "Side Rails", "Treatments"),
    # The laboratory.
    _lab(50971, "Potassium", "mEq/L", _CHEMISTRY, 1, 3.3, 5.1),
    _lab(50983, "Sodium", "mEq/L", _CHEMISTRY, 0, 133, 145),
    _lab(50902, "Chloride", "mEq/L", _CHEMISTRY, 0, 96, 108),
    _lab(50882, "Bicarbonate", "mEq/L", _CHEMISTRY, 0, 22, 32),
    _lab(51006, "Urea Nitrogen", "mg/dL", _CHEMISTRY, 0, 6, 20),
    _lab(50912, "Creatinine", "mg/dL", _CHEMISTRY, 1, 0.4, 1.1),
    _lab(50931, "Glucose", "mg/dL", _CHEMISTRY, 0, 70, 100),
    _lab(50960, "Magnesium", "mg/dL", _CHEMISTRY, 1, 1.6, 2.6),
    _lab(50893, "Calcium, Total", "mg/dL", _CHEMISTRY, 1, 8.4, 10.3),
    _lab(50868, "Anion Gap", "mEq/L", _CHEMISTRY, 0, 8, 20),
    _lab(50861, "Alanine Aminotransferase (ALT)", "IU/L", _CHEMISTRY, 0, 0, 40),
    _lab(50878, "Asparate Aminotransferase (AST)", "IU/L", _CHEMISTRY, 0, 0, 40),
    _lab(50885, "Bilirubin, Total", "mg/dL", _CHEMISTRY, 1, 0, 1.5),
    _lab(50862, "Albumin", "g/dL", _CHEMISTRY, 1, 3.5, 5.2),
    _lab(51222, "Hemoglobin", "g/dL", _BLOOD, 1, 12.0, 16.0),
    _lab(51221, "Hematocrit", "%", _BLOOD, 1, 36, 48),
    _lab(51301, "White Blood Cells", "K/uL", _BLOOD, 1, 4.0, 11.0),
    _lab(51265, "Platelet Count", "K/uL", _BLOOD, 0, 150, 440),
    _lab(51144, "Bands", "%", _BLOOD, 0, 0, 5),
    _lab(51274, "PT", "sec", _BLOOD, 1, 9.4, 12.5),
    _lab(51237, "INR(PT)", None, _BLOOD, 1, 0.9, 1.1),
    _lab(51275, "PTT", "sec", _BLOOD, 1, 25.0, 36.5),
    Item(52033, "Specimen Type", "labevents", None, _GAS, text=True),
    _lab(50820, "pH", "units", _GAS, 2, 7.35, 7.45),
    _lab(50821, "pO2", "mm Hg", _GAS, 0, 85, 105),
    _lab(50818, "pCO2", "mm Hg", _GAS, 0, 35, 45),
    _lab(50804, "Calculated Total CO2", "mEq/L", _GAS, 0, 21, 30),
    _lab(50802, "Base Excess", "mEq/L", _GAS, 0, -2, 2),
    _lab(50813, "Lactate", "mmol/L", _GAS, 1, 0.5, 2.0),
    _lab(50808, "Free Calcium", "mmol/L", _GAS, 2, 1.12, 1.32),
    _lab(50822, "Potassium, Whole Blood", "mEq/L", _GAS, 1, 3.3, 5.1),
    _lab(50824, "Sodium, Whole Blood", "mEq/L", _GAS, 0, 133, 145),
    _lab(50806, "Chloride, Whole Blood", "mEq/L", _GAS, 0, 96, 108),
    _lab(50809, "Glucose", "mg/dL", _GAS, 0, 70, 105),
    _lab(50811, "Hemoglobin", "g/dL", _GAS, 1, 12.0, 16.0),
    _lab(50803, "Calculated Bicarbonate, Whole Blood", "mEq/L", _GAS, 0, 22, 27),
    _lab(50816, "Oxygen", "%", _GAS, 0, 0, 100),
    # Urine.
    Item(226559, "Foley", "outputevents", "mL", "Output"),
    Item(226560, "Void", "outputevents", "mL", "Output"),
    Item(227488, "GU Irrigant Volume In", "outputevents", "mL", "Output"),
    Item(227489, "GU Irrigant/Urine Volume Out", "outputevents", "mL", "Output"),
    Item(226588, "Chest Tube #1", "outputevents", "mL", "Drains"),
    Item(226579, "Stool", "outputevents", "mL", "Output"),
    # What is infused.
    _fluid(221906, "Norepinephrine", "mg", _MEDICATION),
    _fluid(222315, "Vasopressin", "units", _MEDICATION),
    _fluid(221749, "Phenylephrine", "mg", _MEDICATION),
    _fluid(221662, "Dopamine", "mg", _MEDICATION),
    _fluid(221289, "Epinephrine", "mg", _MEDICATION),
    _fluid(225158, "NaCl 0.9%", "mL", _INTAKE),
    _fluid(225828, "LR", "mL", _INTAKE),
    _fluid(225943, "Solution", "mL", _INTAKE),
    _fluid(226089, "Piggyback", "mL", _INTAKE),
    _fluid(225168, "Packed Red Blood Cells", "mL", _PRODUCT),
    _fluid(220970, "Fresh Frozen Plasma", "mL", _PRODUCT),
    _fluid(225170, "Platelets", "mL", _PRODUCT),
    _fluid(225171, "Cryoprecipitate", "mL", _PRODUCT),
    _fluid(220864, "Albumin 5%", "mL", _PRODUCT),
    _fluid(220862, "Albumin 25%", "mL", _PRODUCT),
    _fluid(225825, "D5NS", "mL", _INTAKE),
    _fluid(225827, "D5LR", "mL", _INTAKE),
    _fluid(225823, "D5 1/2NS", "mL", _INTAKE),
    _fluid(225159, "NaCl 0.45%", "mL", _INTAKE),
    _fluid(225941, "D5 1/4NS", "mL", _INTAKE),
    _fluid(225161, "NaCl 3% (Hypertonic Saline)", "mL", _INTAKE),
    _fluid(220995, "Sodium Bicarbonate 8.4%", "mEq", _MEDICATION),
    _fluid(220949, "Dextrose 5%", "mL", _INTAKE),
    Item(225792, "Invasive Ventilation", "procedureevents", "min", "2-Ventilation"),
    Item(225794, "Non-invasive Ventilation", "procedureevents", "min", "2-Ventilation"),
)

INDEX: dict[int, int] = {item.itemid: position for position, item in enumerate(ITEMS)}
"""itemid -> position in ITEMS."""

DEVICES = (
    "None", "Nasal cannula", "Face tent", "Aerosol-cool", "Venti mask ", "High flow neb", "Non-rebreather",
    "Bipap mask ", "Endotracheal tube", "Tracheostomy tube",
)  # fmt: skip
MODES = (
    ("CMV/ASSIST/AutoFlow", 49), ("CPAP/PSV", 11), ("CMV/ASSIST", 2), ("MMV/PSV/AutoFlow", 51), ("PCV+Assist", 71),
)  # fmt: skip
"""Ventilator modes with the code number the real rows carry beside them."""
GCS_EYE = ("None", "To Pain", "To Speech", "Spontaneously")
GCS_VERBAL = ("No Response", "Incomprehensible sounds", "Inappropriate Words", "Confused", "Oriented")
GCS_MOTOR = (
    "No response", "Abnormal extension", "Abnormal Flexion", "Flex-withdraws", "Localizes Pain", "Obeys Commands",
)  # fmt: skip
UNTESTABLE = "No Response-ETT"
SPECIMENS = ("ART.", "VEN.", "MIX.")
UNPARSED = "___"
_NOTES = ("SR (Sinus Rhythm)", "ST (Sinus Tachycardia) ", "AF (Atrial Fibrillation)", "Clear", "Diminished",
    "Crackles", "Normal", "Present", "Warm", "Weak Palpable", "Supine", "Turned", "No Impairment",
    "Oriented x 3", " 0  Alert and calm", "30 Degrees", "Up x 2")  # fmt: skip
NOTES: tuple[str, ...] = _NOTES
"""Texts of items that no feature reads."""

TEXTS: tuple[str, ...] = tuple(
    dict.fromkeys(
        (
            *DEVICES, *(name for name, _ in MODES), *GCS_EYE, *GCS_VERBAL, *GCS_MOTOR, UNTESTABLE, *SPECIMENS,
            UNPARSED, *NOTES,
        )
    )
)  # fmt: skip
TEXT: dict[str, int] = {text: position for position, text in enumerate(TEXTS)}

FOREIGN_UNITS = ("mmol/L", "umol/L", "g/L", "mg/L")
"""Units that some rows carry in place of the laboratory's own (a planted fault)."""
RATE_UNITS = ("mcg/kg/min", "mcg/min", "mg/kg/min", "units/hour", "units/min", "mL/hour")
UNITS: tuple[str, ...] = tuple(
    dict.fromkeys([*(item.unit for item in ITEMS if item.unit is not None), *FOREIGN_UNITS, *RATE_UNITS, "ml"])
)
UNIT: dict[str, int] = {unit: position for position, unit in enumerate(UNITS)}

ITEM_ID: Int[np.ndarray, "i"] = np.array([item.itemid for item in ITEMS], np.int64)
ITEM_UNIT: Int[np.ndarray, "i"] = np.array([-1 if item.unit is None else UNIT[item.unit] for item in ITEMS], np.int16)
ITEM_TABLE: Int[np.ndarray, "i"] = np.array([TABLES.index(item.table) for item in ITEMS], np.int8)
ITEM_DECIMALS: Int[np.ndarray, "i"] = np.array([item.decimals for item in ITEMS], np.int8)
