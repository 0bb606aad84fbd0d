"""Bench: run the benchmark scripts, one JSON object each, and say whether their claims hold."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from cohort.errors import ConfigError, SutureError

DIRECTORY = Path(__file__).resolve().parents[1] / "benchmarks"


def run(names: Sequence[str], quick: bool) -> bool:
    """Run benchmarks (all where none is named); each prints its JSON object, then a line for each claim.

    Returns:
        True where every claim held.

    Raises:
        ConfigError: a name is no benchmark.
        SutureError: the scripts are not there (an installation without its repository), or one ended without a result.
    """
    known = {path.stem: path for path in sorted(DIRECTORY.glob("*.py"))}
    if not known:
        raise SutureError(f"{DIRECTORY}: no benchmark scripts; they are in Suture's repository, not in its package")
    for name in names:
        if name not in known:
            raise ConfigError(f"benchmark {name!r} is unknown; known: {', '.join(known)}")
    return all([_run_one(known[name], quick) for name in names or known])


def _run_one(script: Path, quick: bool) -> bool:
    print(f"{script.stem} ...", file=sys.stderr, flush=True)
    done = subprocess.run(
        [sys.executable, str(script), *(["--quick"] if quick else [])], stdout=subprocess.PIPE, text=True
    )
    try:
        result = json.loads(done.stdout)
    except ValueError:
        raise SutureError(f"benchmark {script.stem}: ended with status {done.returncode} and no result") from None
    print(json.dumps(result, sort_keys=True), flush=True)
    for claim in result["claims"]:
        sign = "<=" if claim["better"] == "low" else ">="
        verdict = "holds" if claim["holds"] else "DOES NOT HOLD"
        print(f"  {claim['name']}: {claim['value']:g} ({sign} {claim['bar']:g}) {verdict}", file=sys.stderr)
    return done.returncode == 0 and all(claim["holds"] for claim in result["claims"])
