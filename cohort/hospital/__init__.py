"""The simulated hospital: it writes MIMIC-IV tables, and it alone knows what other doses would have done."""

from cohort.hospital.rollouts import rollout
from cohort.hospital.simulation import HospitalConfig, simulate
from cohort.hospital.truth import Truth

__all__ = ["HospitalConfig", "Truth", "rollout", "simulate"]
