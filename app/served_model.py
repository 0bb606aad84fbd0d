"""Served model: a saved policy for MLflow's pyfunc, as code: its store keeps this file and the policy's, no pickle.

It answers with bare probabilities. Support, abstention and the verdict are `suture recommend`'s.
"""

from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

import policy.store
from cohort.errors import InputError

ARTIFACT = "policy"


class ServedPolicy(PythonModel):
    """States in clinical units in, a probability for each action out."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read the policy, its hashes checked."""
        self.policy = policy.store.load(context.artifacts[ARTIFACT])

    def predict(
        self,
        context: PythonModelContext,  # noqa: ARG002
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,  # noqa: ARG002
    ) -> pd.DataFrame:
        """A row for each state, a column for each action; rows sum to 1.

        Raises:
            InputError: a feature is missing, a column is none of them or no number, or a row holds NaN or infinity.
        """
        if not isinstance(model_input, pd.DataFrame):
            raise InputError(f"states: a {type(model_input).__name__}; expected a table with a column for each feature")
        features = list(self.policy.features)
        missing = [name for name in features if name not in model_input.columns]
        unknown = [name for name in model_input.columns if name not in features]
        if missing or unknown:
            named = f"column {missing[0]!r} is missing" if missing else f"column {str(unknown[0])[:40]!r} is no feature"
            raise InputError(f"states: {named} ({len(missing)} missing, {len(unknown)} unknown, of {len(features)})")
        for name in features:
            if not pd.api.types.is_numeric_dtype(model_input[name]):
                raise InputError(f"states: column {name!r} holds no numbers")
        probs = self.policy.probs(model_input[features].to_numpy(np.float32, na_value=np.nan))
        return pd.DataFrame(probs, index=model_input.index, columns=columns(self.policy.n_actions))


def columns(n_actions: int) -> list[str]:
    """The output's columns."""
    return [f"action_{a}" for a in range(n_actions)]


set_model(ServedPolicy())
