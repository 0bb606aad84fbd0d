"""Learners of dosing policies."""

from policy.base import LEARNERS, Policy, fit

__all__ = ["LEARNERS", "Policy", "fit"]
