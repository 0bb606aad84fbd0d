"""Meds: a hospital in MIMIC-IV's layout, written as a MEDS dataset with a manifest."""

from pathlib import Path

from app.run import TABLES, digest_tables
from cohort import artifact
from cohort.errors import ArtifactError
from cohort.sources import SourceConfig, meds_export

KIND = "meds"


def write(root: Path, out: Path, overwrite: bool = False) -> int:
    """Export the tables under `root` to the dataset `out`, whole or not at all; returns the number of events.

    Raises:
        InputError: a table is missing, wrong or damaged.
        ArtifactError: `root` has a manifest that it does not match, or `out` exists (and not `overwrite`) or cannot be
            written.
    """
    if out.exists() and not overwrite:
        raise ArtifactError(f"{out}: already exists; use --overwrite to replace it")
    config = SourceConfig(kind="mimic_iv")
    made_here = (root / artifact.MANIFEST).is_file()
    if made_here:
        artifact.verify(root)
    inputs = {TABLES: root if made_here else digest_tables(root, config)}
    with artifact.writing(out, KIND, {"source": config.kind}, inputs, overwrite=overwrite) as draft:
        draft.rows["events"] = written = meds_export.export(root, draft.path, config)
    return written
