"""Physiology: the hidden body of the simulated patients, moved hour by hour by illness, fluids and vasopressors."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from cohort.hospital.population import COMORBIDITIES, Population

N_NORMALS = 14
"""Standard normals that one hour of one patient takes."""
N_UNIFORMS = 6
"""Uniforms that one hour of one patient takes: ventilation, rhythm, death, discharge, minute of either, spare."""

_CONDITION = {row[0]: column for column, row in enumerate(COMORBIDITIES)}


@dataclass(frozen=True)
class Arrays:
    """A record of arrays over the same patients."""

    def take(self, rows: Int[np.ndarray, "k"]) -> Any:
        """The given patients only."""
        return type(self)(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    def put(self, rows: Int[np.ndarray, "k"], part: Any) -> None:
        """Write the given patients' values into this record, in place."""
        for field in fields(self):
            getattr(self, field.name)[rows] = getattr(part, field.name)


@dataclass(frozen=True)
class Traits(Arrays):
    """What a patient brings and keeps."""

    age_years: Float[np.ndarray, "n"]
    male: Bool[np.ndarray, "n"]
    weight_kg: Float[np.ndarray, "n"]
    reserve: Float[np.ndarray, "n"]
    """Contractility when well; 1 = healthy. Low: a flat Starling curve, so fluid raises pressure, not flow."""
    set_point: Float[np.ndarray, "n"]
    """Mean arterial pressure when well, mmHg."""
    chronic_kidney: Float[np.ndarray, "n"]
    """Filtration when well; 1 = healthy."""
    chronic_lung: Float[np.ndarray, "n"]
    """Share of the healthy P/F ratio."""
    liver: Float[np.ndarray, "n"]
    """Clearance when well; 1 = healthy."""
    frailty: Float[np.ndarray, "n"]
    """Age and comorbidity together, about 0 on average, SD about 1."""
    peak: Float[np.ndarray, "n"]
    """How strong the insult drives inflammation at its height."""
    peak_hour: Float[np.ndarray, "n"]
    clearance: Float[np.ndarray, "n"]
    """Decay of the insult per hour after its peak."""
    leak: Float[np.ndarray, "n"]
    """How leaky inflamed capillaries become; 1 = typical."""
    lung_share: Float[np.ndarray, "n"]
    """How much of the insult injures the lungs."""
    airway: Bool[np.ndarray, "n"]
    """True: arrives intubated (after an operation, or found unconscious)."""
    heart_rate: Float[np.ndarray, "n"]
    hemoglobin: Float[np.ndarray, "n"]
    platelets: Float[np.ndarray, "n"]
    wbc: Float[np.ndarray, "n"]
    glucose: Float[np.ndarray, "n"]
    albumin: Float[np.ndarray, "n"]


@dataclass(frozen=True)
class Latent(Arrays):
    """The hidden state of the patients at one hour."""

    inflammation: Float[np.ndarray, "n"]
    """0 = none, 1 = sepsis, above 2 = severe."""
    tone: Float[np.ndarray, "n"]
    """Vascular tone without drugs; 1 = normal."""
    volume_l: Float[np.ndarray, "n"]
    """Circulating volume above (positive) or below (negative) normal, litres."""
    tissue_l: Float[np.ndarray, "n"]
    """Excess interstitial water, litres."""
    lung_water: Float[np.ndarray, "n"]
    """Excess lung water; 1 halves the P/F ratio."""
    lung_injury: Float[np.ndarray, "n"]
    heart: Float[np.ndarray, "n"]
    """Contractility now; 1 = healthy."""
    kidney: Float[np.ndarray, "n"]
    """Filtration now; 1 = healthy."""
    tolerance: Float[np.ndarray, "n"]
    """Lost response to vasopressors, 0 to 1."""
    lactate: Float[np.ndarray, "n"]
    damage: Float[np.ndarray, "n"]
    """Organ damage that hypoperfusion, hypoxia and drugs have done; what kills."""
    limb: Float[np.ndarray, "n"]
    """Ischaemia of the limbs and the gut from vasoconstriction."""
    fibrillation: Float[np.ndarray, "n"]
    """1 = atrial fibrillation."""
    ventilated: Float[np.ndarray, "n"]
    """1 = invasive ventilation."""
    fio2: Float[np.ndarray, "n"]
    hemoglobin: Float[np.ndarray, "n"]
    creatinine: Float[np.ndarray, "n"]
    bun: Float[np.ndarray, "n"]
    bilirubin: Float[np.ndarray, "n"]
    platelets: Float[np.ndarray, "n"]
    albumin: Float[np.ndarray, "n"]
    sodium: Float[np.ndarray, "n"]
    chloride: Float[np.ndarray, "n"]
    potassium: Float[np.ndarray, "n"]
    glucose: Float[np.ndarray, "n"]
    wbc: Float[np.ndarray, "n"]
    brain: Float[np.ndarray, "n"]
    """Consciousness, 0 to 1, sedation aside."""
    stable_hours: Float[np.ndarray, "n"]
    """Hours without a vasopressor, a ventilator or a failing organ."""
    map_swing: Float[np.ndarray, "n"]
    rate_swing: Float[np.ndarray, "n"]
    breath_swing: Float[np.ndarray, "n"]


@dataclass(frozen=True)
class Signs(Arrays):
    """What the body shows at one hour under the doses that run."""

    map: Float[np.ndarray, "n"]
    heart_rate: Float[np.ndarray, "n"]
    cardiac_output: Float[np.ndarray, "n"]
    """Relative; 1 = normal."""
    resistance: Float[np.ndarray, "n"]
    """Relative; 1 = normal."""
    stroke: Float[np.ndarray, "n"]
    cvp: Float[np.ndarray, "n"]
    pao2_fio2: Float[np.ndarray, "n"]
    pao2: Float[np.ndarray, "n"]
    spo2: Float[np.ndarray, "n"]
    urine_ml_h: Float[np.ndarray, "n"]
    temperature_c: Float[np.ndarray, "n"]


@dataclass(frozen=True)
class Events:
    """What happened to the patients within one hour."""

    died: Bool[np.ndarray, "n"]
    discharged: Bool[np.ndarray, "n"]
    minute: Int[np.ndarray, "n"]
    """When in the hour, 1 to 59."""


def traits(population: Population, rng: np.random.Generator) -> Traits:
    """Draw what the patients bring."""
    n = population.n
    normal = rng.standard_normal((18, n))
    has = {name: population.condition[:, column].astype(np.float64) for name, column in _CONDITION.items()}
    age = (population.age_years - 64.5) / 16.5
    load = population.condition.sum(axis=1) - 3.3
    infected = population.infected
    insult = np.where(infected, 1.10 * np.exp(0.72 * normal[0]), 0.48 * np.exp(0.85 * normal[0]))
    frailty = 0.55 * age + 0.18 * load + 0.4 * has["metastatic_cancer"] + 0.45 * normal[1]
    reserve = 1.08 - 0.30 * has["congestive_heart_failure"] - 0.08 * has["valvular"] - 0.04 * age + 0.12 * normal[2]
    kidney = 1.0 - 0.45 * has["renal_failure"] - 0.05 * age + 0.08 * normal[3]
    anaemia = 0.7 * has["anaemia"] + 0.8 * has["renal_failure"] + 0.7 * has["liver_disease"]
    return Traits(
        age_years=population.age_years,
        male=population.sex_male,
        weight_kg=population.weight_kg,
        reserve=np.clip(reserve, 0.35, 1.35),
        set_point=93.0 + 5.0 * has["hypertension"] - 3.0 * has["liver_disease"] + 9.5 * normal[4],
        chronic_kidney=np.clip(kidney, 0.12, 1.2),
        chronic_lung=np.clip(1.0 - 0.22 * has["chronic_pulmonary"] + 0.08 * normal[5], 0.45, 1.1),
        liver=np.clip(1.0 - 0.5 * has["liver_disease"] + 0.06 * normal[6], 0.2, 1.2),
        frailty=frailty,
        peak=insult,
        peak_hour=-4.0 + 6.0 * np.abs(normal[7]),
        clearance=np.exp(0.85 * normal[8] - 0.10 * frailty) / 58.0,
        leak=np.exp(0.3 * normal[9]),
        lung_share=np.exp(0.6 * normal[10]) * np.where(infected, 1.0, 0.7),
        airway=rng.random(n) < np.where(infected, 0.20, 0.33),
        heart_rate=78.0 - 2.0 * age + 9.0 * normal[11],
        hemoglobin=np.clip(11.4 + 0.6 * population.sex_male - anaemia + 1.6 * normal[12], 6.5, 17.0),
        platelets=210.0 * np.exp(0.38 * normal[13] - 0.4 * has["liver_disease"]),
        wbc=8.2 * np.exp(0.32 * normal[14]),
        glucose=118.0 + 45.0 * np.maximum(has["diabetes"], has["diabetes_complicated"]) + 15.0 * normal[15],
        albumin=np.clip(3.5 - 0.5 * has["liver_disease"] - 0.5 * has["weight_loss"] + 0.35 * normal[16], 1.4, 4.8),
    )


def begin(traits: Traits, rng: np.random.Generator) -> Latent:
    """The patients at hour 0, some hours into their illness."""
    n = len(traits.peak)
    normal = rng.standard_normal((10, n))
    inflammation = traits.peak * np.where(traits.peak_hour > 0, np.exp(-traits.peak_hour / 14.0), 1.0)
    zero = np.zeros(n)
    damage = np.clip(0.20 * inflammation + 0.15 * np.maximum(traits.frailty, 0) + 0.2 * normal[0], 0, None)
    kidney = np.clip(traits.chronic_kidney * (1 - 0.15 * inflammation + 0.05 * normal[1]), 0.08, None)
    creatinine = np.where(traits.male, 1.0, 0.8) / kidney**0.9
    return Latent(
        inflammation=inflammation,
        tone=np.clip(1.0 - 0.36 * _saturating(inflammation), 0.3, 1.2),
        volume_l=np.clip(-0.35 * inflammation + 0.45 * normal[2], -2.0, 1.0),
        tissue_l=np.clip(0.8 + 1.0 * (1.1 - traits.reserve) * 3.0 + 0.8 * normal[3], 0, None),
        lung_water=np.clip(0.12 + 0.9 * (0.9 - traits.reserve) + 0.12 * normal[4], 0, 1.2),
        lung_injury=np.clip(0.22 * inflammation * traits.lung_share + 0.1, 0, 1.8),
        heart=traits.reserve * (1 - 0.10 * _saturating(inflammation)),
        kidney=kidney,
        tolerance=zero.copy(),
        lactate=1.1 * np.exp(0.25 * normal[5]) + 0.7 * inflammation,
        damage=damage,
        limb=zero.copy(),
        fibrillation=(normal[6] > 1.35).astype(np.float64),
        ventilated=traits.airway.astype(np.float64),
        fio2=np.where(traits.airway, 0.5, 0.3),
        hemoglobin=traits.hemoglobin.copy(),
        creatinine=creatinine,
        bun=16.0 * (creatinine / 0.9) ** 0.8 * np.exp(0.25 * normal[7]),
        bilirubin=0.6 * np.exp(0.45 * normal[8] + 1.1 * (1 - traits.liver) + 0.2 * inflammation),
        platelets=traits.platelets * (1 - 0.08 * np.minimum(inflammation, 3)),
        albumin=traits.albumin - 0.2 * np.minimum(inflammation, 3),
        sodium=138.5 + 3.8 * normal[9],
        chloride=103.5 + 3.8 * normal[9],
        potassium=4.1 + 0.5 * np.maximum(1 - kidney, 0) + 0.35 * normal[3],
        glucose=traits.glucose + 12.0 * np.minimum(inflammation, 3),
        wbc=traits.wbc * (1 + 0.45 * np.minimum(inflammation, 3)),
        brain=np.clip(1.0 - 0.10 * inflammation - 0.35 * (normal[7] > 1.5), 0.1, 1.0),
        stable_hours=zero.copy(),
        map_swing=zero.copy(),
        rate_swing=zero.copy(),
        breath_swing=zero.copy(),
    )


def circulation(latent: Latent, traits: Traits, vasopressor: Float[np.ndarray, "n"]) -> Signs:
    """Pressures, flow, gases and urine under a vasopressor (norepinephrine equivalent, ug/kg/min)."""
    effect = pressor_effect(latent, vasopressor)
    stressed = latent.volume_l + 0.25 * effect - 0.9 * (1 - latent.tone)
    # Frank and Starling: the curve of a weak heart is lower and flat from a smaller filling on.
    width = 1.45 * (0.35 + 0.65 * latent.heart)
    stroke = latent.heart * 1.336 * (1 - np.exp(-np.maximum(stressed + 2.0, 0.05) / width))
    effort = np.maximum(1 - stroke, 0) + 0.8 * np.maximum(1 - latent.tone, 0)
    fever = 0.55 * np.minimum(latent.inflammation, 3.0)
    rate = traits.heart_rate * (1 + 0.42 * np.tanh(1.1 * effort)) + 6.0 * fever + 22.0 * latent.fibrillation
    rate = rate + latent.rate_swing + 10.0 * np.maximum(vasopressor - 0.25, 0)
    resistance = latent.tone * (1 + 0.35 * np.maximum(1 - stroke, 0)) + effect
    burden = 1 + 0.45 * np.maximum(1.15 - latent.heart, 0) * np.maximum(resistance - 0.9, 0)
    filling = (rate / traits.heart_rate) ** 0.55 * (1 - 0.16 * latent.fibrillation)
    output = stroke / burden * filling
    pressure = traits.set_point * np.maximum(output * resistance, 0.01) ** 0.75 + latent.map_swing
    cvp = 5.0 + 3.6 * np.logaddexp(0, 1.4 * stressed + 1.2 * (1 - latent.heart)) + 2.0 * latent.ventilated
    ratio = 430.0 * traits.chronic_lung * np.exp(-0.70 * latent.lung_water - 0.62 * latent.lung_injury)
    ratio = np.clip(ratio * (1 + 0.08 * latent.ventilated), 45.0, 560.0)
    pao2 = ratio * latent.fio2
    perfusion = 1 / (1 + np.exp(-(pressure - 59.0) / 5.5))
    drive = 1 + 0.55 * np.tanh(latent.volume_l) + 0.25 * np.tanh(latent.tissue_l / 5)
    overload = np.clip(latent.lung_water - 0.35, 0, 1) + np.clip((latent.tissue_l - 4.0) / 4.0, 0, 1)
    relief = 70.0 * np.minimum(overload, 1.3) * (pressure > 66) * (vasopressor <= 0.05)  # diuretics
    urine = np.minimum(latent.kidney, 1.3) * (80.0 * perfusion * drive + relief)
    return Signs(
        map=np.clip(pressure, 18.0, 170.0),
        heart_rate=np.clip(rate, 32.0, 185.0),
        cardiac_output=output,
        resistance=resistance,
        stroke=stroke,
        cvp=np.clip(cvp, 0.0, 32.0),
        pao2_fio2=ratio,
        pao2=np.clip(pao2, 30.0, 480.0),
        spo2=saturation(pao2),
        urine_ml_h=urine,
        temperature_c=36.8 + 0.75 * fever + 0.03 * latent.rate_swing,
    )


def pressor_effect(latent: Latent, vasopressor: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """Resistance that a vasopressor adds (relative): it saturates, and tolerance and acidosis blunt it."""
    acid = np.clip((latent.lactate - 4.0) / 12.0, 0, 1)
    return 0.85 * vasopressor / (vasopressor + 0.16) * (1 - 0.5 * latent.tolerance) * (1 - 0.35 * acid)


def saturation(pao2: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """Arterial saturation in % from PaO2 in mmHg (Severinghaus 1979)."""
    cubed = np.maximum(pao2, 1.0) ** 3
    percent: np.ndarray = 100.0 / (23400.0 / (cubed + 150.0 * np.maximum(pao2, 1.0)) + 1.0)
    return percent


def injuries(signs: Signs, latent: Latent, traits: Traits, vasopressor: Float[np.ndarray, "n"]) -> dict[str, Any]:
    """What hurts now, each 0 when harmless: low pressure, low flow, vasoconstriction, hypoxia, congestion."""
    wanted = 65.0 + 0.3 * (traits.set_point - 80.0)
    oxygen = signs.cardiac_output * np.sqrt(latent.hemoglobin / 10.5) * signs.spo2 / 97.0
    return {
        "pressure": np.maximum(wanted - signs.map, 0) / 10.0,
        "flow": np.maximum(0.72 - oxygen, 0) / 0.25,
        "constriction": 0.8 * np.maximum(vasopressor - 0.22, 0) / 0.3
        + 1.2 * np.maximum(signs.resistance - 1.15, 0)
        + (vasopressor > 0) * np.maximum(signs.map - 100.0, 0) / 20.0,
        "hypoxia": np.maximum(93.0 - signs.spo2, 0) / 6.0 + np.maximum(210.0 - signs.pao2_fio2, 0) / 150.0,
        "congestion": np.maximum(signs.cvp - 12.0, 0) / 6.0,
    }


def step(
    latent: Latent,
    traits: Traits,
    signs: Signs,
    hour: int,
    fluid_ml_h: Float[np.ndarray, "n"],
    vasopressor: Float[np.ndarray, "n"],
    normal: Float[np.ndarray, "z n"],
    uniform: Float[np.ndarray, "u n"],
) -> Latent:
    """One hour on: `signs` are the circulation at the hour's start under these doses.

    Args:
        fluid_ml_h: tonicity-adjusted intravenous fluid, mL/h.
        vasopressor: norepinephrine equivalent, ug/kg/min.
        normal, uniform: this hour's draws, N_NORMALS and N_UNIFORMS rows.
    """
    hurt = injuries(signs, latent, traits, vasopressor)
    shock = hurt["pressure"] + 0.9 * hurt["flow"] + hurt["constriction"]
    water = _water(latent, traits, signs, fluid_ml_h)
    organs = _organs(latent, traits, hurt, shock, hour, vasopressor, normal)
    blood = _blood(latent, traits, shock, fluid_ml_h, normal)
    breath = _breath(latent, signs, organs, vasopressor, uniform)
    fresh = {
        "tolerance": latent.tolerance + 0.045 * (np.minimum(vasopressor / 0.35, 1) - latent.tolerance),
        "fibrillation": _rhythm(latent, traits, vasopressor, uniform),
        "stable_hours": _stable(latent, signs, vasopressor, breath["ventilated"]),
        "map_swing": 0.78 * latent.map_swing + 4.2 * normal[0],
        "rate_swing": 0.82 * latent.rate_swing + 4.0 * normal[1],
        "breath_swing": 0.8 * latent.breath_swing + 1.4 * normal[2],
    }
    return Latent(**water, **organs, **blood, **breath, **fresh)


def _water(latent: Latent, traits: Traits, signs: Signs, fluid_ml_h: np.ndarray) -> dict[str, np.ndarray]:
    leak = traits.leak * _saturating(latent.inflammation)
    # Crystalloid leaves the vessels within an hour or two; inflamed capillaries let more of it go.
    exchange = 0.14 * (latent.volume_l - 0.16 * latent.tissue_l) + 0.045 * leak * (latent.volume_l + 1.3)
    intake = 0.055 + fluid_ml_h / 1000.0  # enteral intake goes on
    # Dialysis takes off what failed kidneys cannot, once the pressure allows it.
    failed = (latent.kidney < 0.35) & (signs.map > 62)
    dialysis = np.where(failed, 0.12 * np.clip((latent.volume_l + 0.25 * latent.tissue_l - 1.0) / 1.5, 0, 1), 0.0)
    loss = signs.urine_ml_h / 1000.0 + dialysis + 0.035 + 0.02 * np.minimum(latent.inflammation, 3)
    volume = np.clip(latent.volume_l + intake - loss - exchange, -2.6, 4.0)
    filling = np.maximum(signs.cvp - 8.5, 0) / 6.0
    flood = (
        0.040 * filling
        + 0.070 * leak * np.maximum(latent.volume_l + 0.15, 0)
        + 0.004 * np.maximum(latent.tissue_l - 4, 0)
    )
    drain = 0.035 * latent.lung_water * (0.35 + 0.65 * np.minimum(latent.kidney, 1))
    return {
        "volume_l": volume,
        "tissue_l": np.maximum(latent.tissue_l + exchange, 0),
        "lung_water": np.clip(latent.lung_water + flood - drain, 0, 2.5),
    }


def _organs(
    latent: Latent,
    traits: Traits,
    hurt: dict[str, np.ndarray],
    shock: np.ndarray,
    hour: int,
    vasopressor: np.ndarray,
    normal: np.ndarray,
) -> dict[str, np.ndarray]:
    since = hour - traits.peak_hour
    source = traits.peak * np.where(since > 0, np.exp(-traits.clearance * np.maximum(since, 0)), np.exp(since / 14.0))
    drive = source + 0.10 * latent.damage + 0.05 * latent.limb  # a failing gut keeps inflammation going
    inflammation = np.maximum(latent.inflammation + 0.12 * (drive - latent.inflammation) + 0.03 * normal[3], 0)
    harm = 0.078 * shock + 0.036 * hurt["hypoxia"] + 0.020 * hurt["congestion"] + 0.010 * latent.limb
    fatigue = 1 - 0.16 * _saturating(inflammation) - 0.05 * np.minimum(latent.damage, 4) / 2
    strain = 0.25 * np.maximum(vasopressor - 0.3, 0)
    heal = traits.chronic_kidney * (1 - 0.12 * np.minimum(inflammation, 3))
    lactate_in = 0.30 + 0.55 * shock + 0.18 * np.minimum(inflammation, 3) + 1.1 * np.maximum(vasopressor - 0.25, 0)
    cleared = 0.27 * latent.lactate * traits.liver * (1 - 0.10 * np.minimum(latent.damage, 5))
    quiet = np.exp(-shock)
    return {
        "inflammation": inflammation,
        "tone": np.clip(
            latent.tone + 0.15 * (1.0 - 0.36 * _saturating(inflammation) - 0.03 * latent.damage - latent.tone),
            0.25,
            1.2,
        ),
        "lung_injury": np.clip(
            latent.lung_injury
            + 0.035 * (0.30 * inflammation * traits.lung_share + 0.05 + 0.07 * latent.damage - latent.lung_injury),
            0,
            2.2,
        ),
        "heart": np.clip(latent.heart + 0.10 * (traits.reserve * fatigue - latent.heart) - 0.02 * strain, 0.2, 1.4),
        "kidney": np.clip(
            latent.kidney
            + 0.012 * (heal - latent.kidney) * quiet
            - 0.014 * latent.kidney * (shock + 0.6 * hurt["congestion"]),
            0.04,
            1.3,
        ),
        "lactate": np.clip(latent.lactate + lactate_in - cleared + 0.05 * normal[4], 0.4, 24.0),
        "damage": np.clip(latent.damage * 0.985 + harm + 0.004 * normal[5] * np.sqrt(latent.damage + 0.05), 0, 12),
        "limb": np.maximum(latent.limb * 0.975 + 0.05 * hurt["constriction"], 0),
        "brain": np.clip(
            latent.brain
            + 0.06 * (1 - 0.12 * inflammation - 0.06 * latent.damage - latent.brain)
            - 0.01 * shock
            + 0.015 * normal[6],
            0.05,
            1.0,
        ),
    }


def _blood(
    latent: Latent, traits: Traits, shock: np.ndarray, fluid_ml_h: np.ndarray, normal: np.ndarray
) -> dict[str, np.ndarray]:
    male = np.where(traits.male, 1.0, 0.8)
    dilution = fluid_ml_h / 1000.0
    inflamed = np.minimum(latent.inflammation, 3)
    target_hb = traits.hemoglobin - 0.5 * latent.volume_l - 0.15 * latent.tissue_l
    return {
        "hemoglobin": np.clip(
            latent.hemoglobin
            + 0.10 * (target_hb - latent.hemoglobin)
            + 0.5 * (latent.hemoglobin < 7)
            + 0.05 * normal[7],
            5.0,
            18.5,
        ),
        "creatinine": latent.creatinine + 0.045 * (male / np.maximum(latent.kidney, 0.06) ** 0.9 - latent.creatinine),
        "bun": latent.bun + 0.03 * (16.0 * (male / np.maximum(latent.kidney, 0.06)) ** 0.8 - latent.bun),
        "bilirubin": latent.bilirubin
        + 0.02 * (0.6 * np.exp(1.1 * (1 - traits.liver) + 0.25 * np.minimum(latent.damage, 6)) - latent.bilirubin)
        + 0.008 * shock,
        "platelets": np.clip(
            latent.platelets
            + 0.02
            * (traits.platelets * np.exp(-0.10 * inflamed - 0.16 * np.minimum(latent.damage, 6)) - latent.platelets)
            + 1.5 * normal[8],
            5.0,
            900.0,
        ),
        "albumin": latent.albumin
        + 0.012 * (traits.albumin - 0.25 * inflamed - 0.06 * latent.tissue_l - latent.albumin),
        "sodium": latent.sodium + 0.015 * (139.0 - latent.sodium) + 0.6 * dilution + 0.25 * normal[9],
        "chloride": latent.chloride + 0.015 * (104.0 - latent.chloride) + 1.2 * dilution + 0.25 * normal[9],
        "potassium": latent.potassium
        + 0.05 * (3.95 + 0.55 * np.maximum(1 - latent.kidney, 0) + 0.04 * (latent.lactate - 1.5) - latent.potassium)
        + 0.04 * normal[10],
        "glucose": latent.glucose + 0.08 * (traits.glucose + 12 * inflamed - latent.glucose) + 6.0 * normal[11],
        "wbc": np.maximum(
            latent.wbc + 0.05 * (traits.wbc * (1 + 0.45 * inflamed) - latent.wbc) + 0.25 * normal[12], 0.2
        ),
    }


def _breath(
    latent: Latent,
    signs: Signs,
    organs: dict[str, np.ndarray],
    vasopressor: np.ndarray,
    uniform: np.ndarray,
) -> dict[str, np.ndarray]:
    """Oxygen and the ventilator, which the nurses and therapists set by rule and which no policy here decides."""
    on = latent.ventilated > 0.5
    need = np.clip(88.0 / signs.pao2_fio2, 0.21, 1.0)
    failing = (signs.pao2_fio2 < 130) | (organs["brain"] < 0.42) | (signs.spo2 < 86)
    able = (signs.pao2_fio2 > 185) & (organs["brain"] > 0.55) & (vasopressor < 0.12) & (latent.lactate < 4)
    starts = ~on & failing & (uniform[0] < 0.25)
    stops = on & able & (uniform[0] < 0.085)
    ventilated = np.where(starts, 1.0, np.where(stops, 0.0, latent.ventilated))
    generous = np.where(ventilated > 0, np.maximum(need, 0.40), need)
    return {"ventilated": ventilated, "fio2": np.clip(latent.fio2 + 0.5 * (generous - latent.fio2), 0.21, 1.0)}


def _rhythm(latent: Latent, traits: Traits, vasopressor: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    onset = (
        0.0015
        * np.exp(0.5 * (traits.age_years - 65) / 15)
        * (1 + 12.0 * np.maximum(vasopressor - 0.12, 0) / 0.3 + latent.inflammation)
    )
    converts = 0.03 * np.exp(-3.0 * vasopressor)
    fresh = (latent.fibrillation < 0.5) & (uniform[1] < onset)
    over = (latent.fibrillation > 0.5) & (uniform[1] < converts)
    return np.where(fresh, 1.0, np.where(over, 0.0, latent.fibrillation))


def _stable(latent: Latent, signs: Signs, vasopressor: np.ndarray, ventilated: np.ndarray) -> np.ndarray:
    calm = (vasopressor <= 0) & (ventilated < 0.5) & (signs.map > 58) & (signs.spo2 > 89) & (signs.pao2_fio2 > 140)
    calm &= (latent.lactate < 3.5) & (latent.inflammation < 1.2) & (latent.brain > 0.5)
    return np.where(calm, latent.stable_hours + 1, 0.0)


def death_hazard(latent: Latent, traits: Traits, signs: Signs) -> Float[np.ndarray, "n"]:
    """Deaths per hour: organ damage first, then what is about to stop the heart."""
    log_hazard = -11.2 + 1.55 * latent.damage + 0.45 * traits.frailty
    log_hazard = log_hazard + 0.9 * np.maximum(50.0 - signs.map, 0) / 8.0 + 0.8 * np.maximum(84.0 - signs.spo2, 0) / 6.0
    log_hazard = log_hazard + 0.15 * np.maximum(latent.lactate - 4.0, 0) + 0.4 * np.minimum(latent.limb, 3)
    hazard: np.ndarray = np.minimum(np.exp(log_hazard), 2.0)
    return hazard


def discharge_hazard(latent: Latent, hour_of_day: Float[np.ndarray, "n"], hour: int) -> Float[np.ndarray, "n"]:
    """Discharges from the ICU per hour: none before four stable hours, most in the afternoon."""
    waited = 1 / (1 + np.exp(-(latent.stable_hours - 12.0) / 5.0))
    daytime = np.where((hour_of_day >= 10) & (hour_of_day < 20), 1.7, 0.35)
    return np.where((latent.stable_hours >= 4) & (hour >= 6), 0.042 * waited * daytime, 0.0)


def ends(
    latent: Latent,
    traits: Traits,
    signs: Signs,
    hour: int,
    hour_of_day: Float[np.ndarray, "n"],
    uniform: Float[np.ndarray, "u n"],
) -> Events:
    """Who dies and who leaves within this hour."""
    died = uniform[2] < -np.expm1(-death_hazard(latent, traits, signs))
    discharged = ~died & (uniform[3] < -np.expm1(-discharge_hazard(latent, hour_of_day, hour)))
    return Events(died, discharged, 1 + np.floor(59.0 * uniform[4]).astype(np.int64))


def ward_death_probability(latent: Latent, traits: Traits) -> Float[np.ndarray, "n"]:
    """Probability of dying in hospital after leaving the ICU in this state."""
    return 1 / (1 + np.exp(5.2 - 1.35 * latent.damage - 0.65 * traits.frailty))


def year_death_probability(latent: Latent, traits: Traits) -> Float[np.ndarray, "n"]:
    """Probability of dying within a year of leaving the hospital alive."""
    return 1 / (1 + np.exp(2.0 - 0.5 * latent.damage - 0.8 * traits.frailty))


def severity(latent: Latent, signs: Signs, on_vasopressor: Bool[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """How ill a patient looks to those who order tests: 0 well to 1 dying."""
    sick = 0.10 + 0.35 * on_vasopressor + 0.20 * (latent.ventilated > 0.5) + 0.10 * np.minimum(latent.lactate / 4.0, 2)
    return np.clip(sick + 0.15 * np.clip((65.0 - signs.map) / 10.0, 0, 1), 0.0, 1.0)


def pulse_pressure(signs: Signs, traits: Traits) -> Float[np.ndarray, "n"]:
    """Systolic less diastolic pressure, mmHg: larger with the stroke and with stiff arteries."""
    return np.clip(22.0 + 34.0 * signs.stroke, 14.0, 110.0) * (1 + 0.006 * (traits.age_years - 65))


def values(latent: Latent, traits: Traits, signs: Signs) -> dict[str, np.ndarray]:
    """Every measurable quantity, noise-free, under the dictionary's names and in its units."""
    inflamed = np.minimum(latent.inflammation, 3.0)
    pulse = pulse_pressure(signs, traits)
    drive = (
        15.5
        + 3.0 * inflamed
        + 0.5 * np.maximum(latent.lactate - 2, 0)
        + 3.0 * np.clip((300 - signs.pao2_fio2) / 200, 0, 1)
    )
    rate = np.clip(drive + latent.breath_swing - 1.5 * latent.ventilated, 6.0, 50.0)
    bicarbonate = np.clip(25.5 - 0.95 * (latent.lactate - 1.2) - 3.5 * np.maximum(0.8 - latent.kidney, 0)
                          - 0.25 * (latent.chloride - 104.0), 5.0, 40.0)  # fmt: skip
    paco2 = np.clip(
        40.0 - 0.55 * (rate - 18.0) + 0.35 * (bicarbonate - 24.0) + 9.0 * (1 - traits.chronic_lung), 18.0, 90.0
    )
    gas_bicarbonate = bicarbonate + 0.3
    ph = np.clip(6.1 + np.log10(gas_bicarbonate / (0.0307 * paco2)), 6.82, 7.66)
    shock_liver = np.exp(0.55 * np.minimum(latent.damage, 6) + 0.8 * (1 - traits.liver))
    awake = latent.brain * np.where(latent.ventilated > 0.5, 0.62, 1.0)
    calcium = 9.0 - 0.8 * (3.8 - latent.albumin)
    inr = np.clip(1.1 + 0.9 * (1 - traits.liver) + 0.12 * np.minimum(latent.damage, 8) + 0.1 * inflamed, 0.8, 12.0)
    ideal = np.where(traits.male, 70.0, 58.0)
    return {
        "heart_rate": signs.heart_rate,
        "map": signs.map,
        "sbp": np.clip(signs.map + 0.62 * pulse, 30.0, 260.0),
        "dbp": np.clip(signs.map - 0.31 * pulse, 12.0, 150.0),
        "resp_rate": rate,
        "spo2": signs.spo2,
        "temperature_c": np.clip(signs.temperature_c, 33.0, 41.5),
        "gcs_eye": np.clip(np.round(1 + 3.0 * awake), 1, 4),
        "gcs_motor": np.clip(np.round(1 + 5.4 * np.sqrt(awake)), 1, 6),
        "gcs_verbal": np.where(latent.ventilated > 0.5, 1.0, np.clip(np.round(1 + 4.2 * latent.brain), 1, 5)),
        "fio2": latent.fio2,
        "cvp": signs.cvp,
        "peep": 5.0 + 5.0 * np.clip((250 - signs.pao2_fio2) / 150, 0, 1.6),
        "tidal_volume": 6.9 * ideal,
        "minute_volume": 6.9 * ideal * rate / 1000.0,
        "o2_flow": np.clip((latent.fio2 - 0.20) / 0.04, 0.0, 15.0),
        "potassium": np.clip(latent.potassium, 2.0, 8.5),
        "sodium": latent.sodium,
        "chloride": latent.chloride,
        "glucose": np.clip(latent.glucose, 40.0, 600.0),
        "bun": latent.bun,
        "creatinine": latent.creatinine,
        "magnesium": 2.05 + 0.25 * np.maximum(1 - latent.kidney, 0),
        "calcium": np.clip(calcium, 5.5, 12.0),
        "ionised_calcium": np.clip(1.17 - 0.03 * inflamed, 0.8, 1.5),
        "total_co2": bicarbonate + 1.2,
        "ast": np.clip(24.0 * shock_liver, 8.0, 9000.0),
        "alt": np.clip(21.0 * shock_liver ** 0.95, 6.0, 9000.0),
        "bilirubin_total": np.clip(latent.bilirubin, 0.15, 60.0),
        "albumin": np.clip(latent.albumin, 1.0, 5.2),
        "hemoglobin": latent.hemoglobin,
        "wbc": latent.wbc,
        "bands": np.clip(4.0 * latent.inflammation, 0.0, 45.0),
        "platelets": latent.platelets,
        "ptt": np.clip(29.0 + 8.0 * (inr - 1.1), 18.0, 150.0),
        "pt": 11.4 * inr,
        "inr": inr,
        "ph": ph,
        "pao2": signs.pao2,
        "paco2": paco2,
        "base_excess": np.clip(0.93 * (gas_bicarbonate - 24.4 + 14.8 * (ph - 7.4)), -28.0, 20.0),
        "bicarbonate": bicarbonate,
        "lactate": latent.lactate,
        "urine_ml_h": signs.urine_ml_h,
        "weight_kg": traits.weight_kg + latent.volume_l + latent.tissue_l,
    }  # fmt: skip


def _saturating(inflammation: np.ndarray) -> np.ndarray:
    saturated: np.ndarray = inflammation / (0.6 + 0.62 * inflammation)
    return saturated
