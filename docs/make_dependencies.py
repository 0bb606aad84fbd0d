"""Writes what is known of the installed packages: their licences as a table, and pip-audit's findings where it has any.

python docs/make_dependencies.py AUDIT.json LICENCES.md
"""

import json
import sys
from collections import Counter
from importlib import metadata
from pathlib import Path

UNKNOWN = "not stated"
_LONGEST = 60


def main() -> int:
    """Print a summary; never fails, since it reports and does not judge."""
    audit, out = Path(sys.argv[1]), Path(sys.argv[2])
    found = {one.metadata["Name"]: one for one in metadata.distributions() if one.metadata["Name"]}
    rows = sorted((name, one.version, licence(one)) for name, one in found.items())
    lines = ["| package | version | licence |", "|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows)]
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{out}: licences of {len(rows)} packages")
    for name, count in Counter(row[2] for row in rows).most_common():
        print(f"  {count:>4}  {name}")
    print(weaknesses(audit))
    return 0


def licence(package: metadata.Distribution) -> str:
    """What a package says of its licence: the expression, else the classifiers, else the first line of the text."""
    expression = package.metadata.get("License-Expression")
    classifiers = [
        line.rpartition(" :: ")[2]
        for line in package.metadata.get_all("Classifier") or ()
        if line.startswith("License :: OSI Approved ::")
    ]
    text = (package.metadata.get("License") or "").strip().partition("\n")[0]
    return expression or ", ".join(classifiers) or text[:_LONGEST] or UNKNOWN


def weaknesses(audit: Path) -> str:
    """pip-audit's findings in a few lines, or that there are none to be had."""
    if not audit.is_file():
        return "known weaknesses: not asked (pip-audit needs the network)"
    packages = json.loads(audit.read_text(encoding="utf-8"))["dependencies"]
    wrong = [
        f"  {one['name']} {one['version']}: {', '.join(each['id'] for each in one['vulns'])}"
        for one in packages
        if one.get("vulns")
    ]
    return "\n".join([f"known weaknesses: in {len(wrong)} of {len(packages)} packages", *wrong])


if __name__ == "__main__":
    sys.exit(main())
