"""Keeps what `suture lab --out DIR` measured where the lab's pages read it: python docs/make_lab.py DIR."""

import json
import sys
from pathlib import Path

from app import lab, view_lab
from cohort import artifact


def main(directory: Path) -> None:
    """Write app/lab_measured.json from a finished lab directory, its hash checked first."""
    content = artifact.read_json(artifact.verified(directory, lab.LAB_FILE))
    manifest = artifact.read_manifest(directory)
    kept = {
        "made": {"command": "suture lab", "seed": manifest["seed"], "packages": manifest["code"]["packages"]},
        **{name: content[name] for name in ("ablations", "comparison")},
    }
    view_lab.MEASURED.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(f"wrote {view_lab.MEASURED}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python docs/make_lab.py DIR")
    main(Path(sys.argv[1]))
