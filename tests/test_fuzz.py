"""Fuzzing: whatever bytes a reader is given, it answers or says in one line what is wrong: soon, in little memory."""

import resource
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import policy
import policy.store
from app import recommendation
from app.run import load_config
from cohort import artifact, pieces
from cohort.errors import SutureError
from cohort.sources import files, mimic_iv
from policy import dpo
from tests import probes

ROOT = Path(__file__).resolve().parents[1]
MEMORY_MB = 1500
"""What reading a few kilobytes may take at most, whatever they say of themselves."""
CHART = next(table for table in mimic_iv.TABLES if table.name == "chartevents")
FEATURES = ("age_years", "lactate")
Read = Callable[[Path], Any]
Edit = tuple[str, float, bytes]
EDITS = st.lists(
    st.tuples(
        st.sampled_from(("flip", "cut", "drop", "insert", "repeat")),
        st.floats(0, 1),
        st.one_of(
            st.binary(min_size=1, max_size=8),
            st.sampled_from(
                [b"\x00", b"\n", b'"', b",", b"NaN", b"1e999", b"-9223372036854775809", b"\xff\xfe", b": ["]
            ),
        ),
    ),
    min_size=1,
    max_size=4,
)


def chart() -> pd.DataFrame:
    """A few chart rows."""
    rows = 6
    time = pd.Timestamp("2150-01-01") + pd.to_timedelta(np.arange(rows), unit="h")
    return pd.DataFrame(
        {
            "subject_id": np.arange(rows) + 10, "hadm_id": np.arange(rows) + 20, "stay_id": np.arange(rows) + 30,
            "charttime": time, "storetime": time, "itemid": 220045, "value": "80", "valuenum": 80.0, "valueuom": "bpm",
        }
    )  # fmt: skip


def preferences() -> pd.DataFrame:
    return pd.DataFrame({"age_years": [60.0, 61.0], "lactate": [1.0, 2.0], "chosen": [1, 2], "rejected": [3, 4]})


def csv(frame: pd.DataFrame) -> bytes:
    return frame.to_csv(index=False).encode()


def parquet(frame: pd.DataFrame) -> bytes:
    sink = pa.BufferOutputStream()
    table = pa.Table.from_pandas(frame, preserve_index=False)
    times = [pa.field(f.name, pa.timestamp("us") if pa.types.is_timestamp(f.type) else f.type) for f in table.schema]
    pq.write_table(table.cast(pa.schema(times)), sink, write_page_checksum=True)
    return bytes(sink.getvalue())


def manifest() -> bytes:
    content = {
        "version": artifact.VERSION, "kind": "cohort", "config": {}, "inputs": {}, "seed": 1, "rows": {}, "notes": {},
        "files": {}, "code": {}, "created": "2026-01-01",
    }  # fmt: skip
    return artifact._text(artifact._sealed(content)).encode()


def all_batches(path: Path) -> None:
    for _ in files.batches(CHART, [path]):
        pass


def beside(read: Callable[[Path], Any], path: Path) -> Any:
    return read(path.parent)


read_preferences = partial(dpo.read, features=FEATURES, n_actions=25)
CASES: dict[str, tuple[str, Callable[[], bytes], Read]] = {
    "configuration": ("run.yaml", lambda: (ROOT / "configs" / "demo.yaml").read_bytes(), load_config),
    "raw csv": ("chartevents.csv", lambda: csv(chart()), all_batches),
    "raw parquet": ("chartevents.parquet", lambda: parquet(chart()), all_batches),
    "our parquet": ("x.parquet", lambda: parquet(chart()), artifact.read_parquet),
    "manifest": (artifact.MANIFEST, manifest, partial(beside, artifact.read_manifest)),
    "states csv": ("states.csv", lambda: csv(preferences()), recommendation.read_states),
    "states parquet": ("states.parquet", lambda: parquet(preferences()), recommendation.read_states),
    "preferences csv": ("p.csv", lambda: csv(preferences()), read_preferences),
    "preferences parquet": ("p.parquet", lambda: parquet(preferences()), read_preferences),
    "a piece's note": (pieces.NOTE, lambda: b'{"note": [1, []], "files": {}}', partial(beside, pieces._read)),
}  # fmt: skip


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    """No more address space than there is now and MEMORY_MB."""
    if not Path("/proc/self/statm").exists():
        pytest.skip("no /proc on this system: memory cannot be bounded")
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size + (MEMORY_MB << 20), limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, limits)


def edited(content: bytes, edits: list[Edit]) -> bytes:
    """The bytes after each edit in turn, at a share of their length."""
    for kind, share, given_bytes in edits:
        at = int(share * max(len(content) - 1, 0))
        if kind == "flip" and content:
            content = content[:at] + bytes([content[at] ^ given_bytes[0]]) + content[at + 1 :]
        elif kind == "cut":
            content = content[:at]
        elif kind == "drop":
            content = content[:at] + content[at + len(given_bytes) :]
        elif kind == "insert":
            content = content[:at] + given_bytes + content[at:]
        else:
            content = content[:at] + content[at : at + 40] * 50 + content[at:]
    return content


def answers_or_explains(read: Read, path: Path, content: bytes) -> None:
    path.write_bytes(content)
    said = ""
    try:
        read(path)
    except SutureError as error:
        said = str(error)
    assert "\n" not in said
    assert not said or path.name in said or path.parent.name in said


@pytest.mark.parametrize("name", CASES)
def test_a_reader_answers_or_says_in_one_line_what_is_wrong(name: str, tmp_path: Path) -> None:
    file, base, read = CASES[name]
    whole = base()
    read_whole = tmp_path / file
    read_whole.write_bytes(whole)
    read(read_whole)

    @settings(max_examples=60, deadline=5000, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.one_of(EDITS.map(partial(edited, whole)), st.binary(max_size=200)))
    def fuzz(content: bytes) -> None:
        answers_or_explains(read, tmp_path / file, content)

    fuzz()


@pytest.mark.parametrize("file", [policy.store.WEIGHTS, policy.store.POLICY, policy.store.CURVES])
def test_a_policy_whose_files_were_changed_is_refused_or_the_same(file: str, tmp_path: Path) -> None:
    trained = policy.fit("bc", probes.clinic(), {"hidden": (4,), "updates": 2, "evaluate_every": 2, "min_updates": 0})
    policy.store.write(trained, tmp_path)
    whole = (tmp_path / file).read_bytes()

    @settings(max_examples=40, deadline=5000, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.one_of(EDITS.map(partial(edited, whole)), st.binary(max_size=200)))
    def fuzz(content: bytes) -> None:
        answers_or_explains(lambda path: policy.store.load(path.parent), tmp_path / file, content)

    fuzz()
