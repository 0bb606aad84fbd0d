"""Off-policy evaluation."""

from ope.estimates import Estimate, evaluate

__all__ = ["Estimate", "evaluate"]
