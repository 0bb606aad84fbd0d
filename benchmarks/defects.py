"""Benchmark: every known defect of earlier pipelines, put into a copy of the code, makes a test fail."""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("cohort", "configs", "policy", "ope", "app", "tests", "pyproject.toml")
QUICK = 4


@dataclass(frozen=True)
class Defect:
    """A known defect: what it is, where right code becomes wrong code, and the tests that must notice."""

    name: str
    file: str
    right: str
    wrong: str
    tests: str
    """File under tests/cohort and a -k expression, by a colon."""


DEFECTS = (
    Defect("the dose of window t is in the state at t", "cohort/features.py", "int(hours[0]) - 1, 1, len(hours)",
           "int(hours[0]), 1, len(hours)", "test_features.py:past_doses"),
    Defect("values of the window after t are in the state at t", "cohort/grid.py", "available // HOUR_US + 1",
           "available // HOUR_US - 3", "test_leakage.py:normal-4"),
    Defect("bins and scalers are fitted on all patients", "cohort/fit.py", "train = order[trains[order]]",
           "train = order", "test_build.py:blind"),
    Defect("the split is by stay", "cohort/build.py", 'split.assign(stays["subject_id"]',
           'split.assign(stays["stay_id"]', "test_build.py:episodes_hold"),
    Defect("values are carried from one patient to another", "cohort/grid.py", "(slot * n_stays + events.stay)",
           "(slot * n_stays + 0 * events.stay)", "test_grid.py:across_stays"),
    Defect("values are filled in backwards", "cohort/grid.py", "visible_hour(events.available), hours)",
           "visible_hour(events.available) * 0, hours)", "test_grid.py:backwards"),
    Defect("windows are closed at both ends", "cohort/grid.py", "available // HOUR_US + 1",
           "-(-available // HOUR_US)", "test_grid.py:exactly"),
    Defect("a hold of 72 h for 14 h (the 144 h of a published pipeline is refused outright)",
           "configs/concepts/features.yaml",
           "potassium:         {unit: mmol/L,   range: [1, 15],      hold_hours: 14",
           "potassium:         {unit: mmol/L,   range: [1, 15],      hold_hours: 72", "test_grid.py:hold_times"),
    Defect("stays are left out for what happens later", "cohort/selection.py",
           'discharged - timed["anchor"] >= step', 'timed["end"] - timed["anchor"] >= step',
           "test_selection.py:first_window"),
    Defect("log(x + 6) for log(x + 0.6)", "cohort/scaler.py", "LOG_OFFSET = 0.1", "LOG_OFFSET = 6.0",
           "test_build.py:logarithm"),
    Defect("laboratory values are used before they were stored", "cohort/grid.py",
           'microseconds(observations["available"]', 'microseconds(observations["charted"]', "test_grid.py:stored"),
    Defect("a minority unit is dropped silently", "configs/concepts/units.yaml",
           "  - {concepts: [creatinine], spellings: [umol/L, \"µmol/L\"], factor: 0.011312}\n", "",
           "sources/test_measurements.py:laboratory_value"),
    Defect("vasopressin counts sixtyfold", "cohort/sources/doses.py", "np.where(fast, rate / 60, rate)", "rate",
           "sources/test_doses.py:above_a_fifth"),
    Defect("two item ids are fused into one", "configs/concepts/mimic_iii.yaml", "30180, 30006, 30007",
           "30180, 3000630007", "test_known_defects.py:"),
    Defect("a shorter last window looks like a smaller dose", "cohort/actions.py", "np.divide(equivalent, duration,",
           "np.divide(equivalent, step_hours,", "test_actions.py:partial"),
    Defect("a charted rate of 0 is a drug", "cohort/actions.py", "np.where(dose > 0, 1 + above, 0)", "1 + above",
           "test_actions.py:rate_of_zero"),
    Defect("a row without a rate stops a drug", "cohort/sources/mimic_iii.py",
           "told = np.flatnonzero((rated | stop) &", "told = np.flatnonzero((rated | stop | null) &",
           "sources/test_doses.py:next_row"),
)  # fmt: skip


def main() -> int:
    """Print one JSON object; exit code 1 where a defect goes unnoticed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"the first {QUICK} defects only")
    quick = parser.parse_args().quick
    chosen = DEFECTS[:QUICK] if quick else DEFECTS
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in COPIED:
            copied = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
            copied(ROOT / name, copy / name)
        claims = [
            {"name": defect.name, "value": int(caught(copy, defect)), "bar": 1, "better": "high"} for defect in chosen
        ]
    for claim in claims:
        claim["holds"] = claim["value"] == 1
    print(json.dumps({"benchmark": "defects", "quick": quick, "claims": claims}, indent=1))
    return 0 if all(claim["holds"] for claim in claims) else 1


def caught(copy: Path, defect: Defect) -> bool:
    """Whether the defect's tests pass without it and fail with it."""
    file = copy / defect.file
    right = file.read_text(encoding="utf-8")
    if defect.right not in right:
        raise SystemExit(f"{defect.file}: no longer holds what {defect.name!r} replaces")
    if tests_fail(copy, defect.tests):
        return False
    file.write_text(right.replace(defect.right, defect.wrong), encoding="utf-8")
    try:
        return tests_fail(copy, defect.tests)
    finally:
        file.write_text(right, encoding="utf-8")


def tests_fail(copy: Path, tests: str) -> bool:
    """Whether pytest reports a failed test; anything else that goes wrong ends the benchmark."""
    file, _, chosen = tests.partition(":")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        f"tests/cohort/{file}",
        "-k",
        chosen,
    ]
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
    if done.returncode not in (0, 1):
        raise SystemExit(f"{tests}: pytest ended with status {done.returncode}")
    return done.returncode == 1


if __name__ == "__main__":
    sys.exit(main())
