"""Every array annotation of the four packages is checked while the tests run."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

from jaxtyping import install_import_hook

# An int where a float is annotated is right (PEP 484's numeric tower, as mypy reads it).
CHECKER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
install_import_hook(["cohort", "policy", "ope", "app"], CHECKER)
