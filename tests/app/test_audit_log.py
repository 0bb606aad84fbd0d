"""The audit log: every change of what was written is found, and nothing acknowledged is lost."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from app import audit_log
from app.audit_log import Actor, AuditError, AuditLog, Place
from tests.app import postgres

NURSE = Actor("A. Nurse", "clinician", "s1")
GOLDEN = Path(__file__).parents[1] / "golden" / "rfc8785.json"
MakePlace = Callable[[], Place]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres.server() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An empty place for a log."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/audit.db"
    else:
        admin = request.getfixturevalue("server")
        name = f"t{hashlib.sha256(str(tmp_path).encode()).hexdigest()[:12]}"
        run_sql(Place(admin, tmp_path, tmp_path), f"CREATE DATABASE {name}")
        url = admin.rpartition("/")[0] + f"/{name}"
    return Place(url, tmp_path / "outside" / "head", tmp_path / "keys" / "audit.key", timeout_s=20)


def run_sql(place: Place, *statements: str) -> None:
    engine = sa.create_engine(place.url, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)
    finally:
        engine.dispose()


def written(place: Place, n: int = 5) -> Place:
    log = AuditLog(place)
    for number in range(n):
        log.append("card", NURSE, {"number": number, "q": [0.1, None]}, card=f"card-{number}")
    log.close()
    return place


def unguarded(place: Place, *statements: str) -> None:
    """Change rows as somebody could who may drop the triggers and puts them back."""
    if place.url.startswith("sqlite"):
        triggers = audit_log._SQLITE_TRIGGERS
        drops = [f"DROP TRIGGER {name}" for name in triggers]
        run_sql(place, *drops, *statements, *triggers.values())
    else:
        off, on = (f"ALTER TABLE events {word} TRIGGER ALL" for word in ("DISABLE", "ENABLE"))
        run_sql(place, off, *statements, on)


def test_canonical_json_is_the_rfcs_own_example() -> None:
    for case in json.loads(GOLDEN.read_text(encoding="utf-8"))["cases"]:
        assert audit_log.canonical(json.loads(case["input"])).decode() == case["canonical"]


def test_what_is_no_json_is_never_logged() -> None:
    for wrong in (float("nan"), float("inf"), 2**53 + 1):
        with pytest.raises(AuditError, match="canonical"):
            audit_log.canonical({"x": wrong})


def test_entries_come_back_as_they_were_written_and_the_chain_verifies(place: Place) -> None:
    log = AuditLog(written(place))
    entries = log.entries()
    assert [entry.seq for entry in entries] == [1, 2, 3, 4, 5, 6]
    assert entries[0].kind == "opened"
    assert log.entries(card="card-3")[0].body == {"number": 3, "q": [0.1, None]}
    assert [entry.card for entry in log.entries(kind="card", last=2)] == ["card-3", "card-4"]
    assert entries[-1].actor == NURSE
    found = audit_log.check(place)
    assert (found.entries, found.head, found.hash) == (6, 6, entries[-1].hash)
    log.close()


def test_both_databases_keep_the_same_bytes(place: Place) -> None:
    body = {"drug": "fluid", "ml": 1e21, "small": 1e-7, "text": "\u202e<b>\u00e9 ' \\u0000"}
    log = AuditLog(place)
    last = log.append("response", NURSE, body, card="c")
    log.close()
    engine = sa.create_engine(place.url)
    with engine.connect() as connection:
        entry = connection.execute(sa.text("SELECT entry FROM events WHERE seq = 2")).scalar_one()
    engine.dispose()
    assert entry.startswith(
        '{"actor":{"name":"A. Nurse","role":"clinician","session":"s1"},"body":{"drug":"fluid","ml":1e+21,'
    )
    assert hashlib.sha256(entry.encode()).hexdigest() == last.hash
    assert last.body == body


def test_the_database_itself_refuses_to_change_or_delete(place: Place) -> None:
    written(place)
    for statement in (
        "UPDATE events SET entry = '{}' WHERE seq = 3",
        "DELETE FROM events",
        "INSERT OR REPLACE INTO events VALUES (3, 'card', NULL, NULL, '{}', 'x')" if "sqlite" in place.url
        else "TRUNCATE events",
    ):  # fmt: skip
        with pytest.raises(sa.exc.DBAPIError, match="append-only"):
            run_sql(place, statement)
    assert audit_log.check(place).entries == 6


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("UPDATE events SET entry = replace(entry, 'number', 'numbers') WHERE seq = 4", "entry 4: was changed"),
        ("UPDATE events SET card = 'card-0' WHERE seq = 4", "entry 4: a column was changed"),
        ("DELETE FROM events WHERE seq = 3", "entry 3: is missing"),
        ("DELETE FROM events WHERE seq >= 5", "ends at entry 4; the signed head knows 6"),
        ("DELETE FROM events", "ends at entry 0"),
    ],
)  # fmt: skip
def test_the_first_broken_link_is_named_even_where_the_triggers_were_put_back(
    place: Place, statement: str, says: str
) -> None:
    unguarded(written(place), statement)
    with pytest.raises(AuditError, match=says):
        audit_log.check(place)


def test_an_entry_rewritten_with_its_hash_breaks_the_next_link_and_at_the_end_the_head(place: Place) -> None:
    log = AuditLog(written(place))
    fourth, last = log.entries()[3], log.entries()[-1]
    log.close()
    for entry, says in ((fourth, "entry 5: does not follow"), (last, "entry 6: is not the one that the signed head")):
        content = rewritten(entry)
        digested = hashlib.sha256(content.encode()).hexdigest()
        quoted = content.replace("'", "''")
        unguarded(place, f"UPDATE events SET entry = '{quoted}', hash = '{digested}' WHERE seq = {entry.seq}")
        with pytest.raises(AuditError, match=says):
            audit_log.check(place)
        original = audit_log.canonical(as_content(entry)).decode().replace("'", "''")
        unguarded(place, f"UPDATE events SET entry = '{original}', hash = '{entry.hash}' WHERE seq = {entry.seq}")
    assert audit_log.check(place).entries == 6


def as_content(entry: audit_log.Entry, **changes: object) -> dict[str, object]:
    actor = {"name": entry.actor.name, "role": entry.actor.role, "session": entry.actor.session}
    own = {"id": entry.id, "time": entry.time, "kind": entry.kind, "actor": actor}
    own |= {"card": entry.card, "subject": entry.subject}
    return {**own, "body": entry.body, "seq": entry.seq, "previous": PREVIOUS[entry.seq], **changes}


PREVIOUS: dict[int, str] = {}


def rewritten(entry: audit_log.Entry) -> str:
    return audit_log.canonical(as_content(entry, body={"number": 99})).decode()


@pytest.fixture(autouse=True)
def _remember_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """What each entry said of the one before, for tests that forge entries."""
    real = audit_log._entry

    def remember(text: str, digested: str) -> audit_log.Entry:
        content = json.loads(text)
        PREVIOUS[content["seq"]] = content["previous"]
        return real(text, digested)

    monkeypatch.setattr(audit_log, "_entry", remember)


def test_a_dropped_or_disabled_trigger_is_found(place: Place) -> None:
    written(place)
    if "sqlite" in place.url:
        run_sql(place, "DROP TRIGGER events_no_delete")
        says = "events_no_delete, which forbids changes, is gone"
    else:
        run_sql(place, "ALTER TABLE events DISABLE TRIGGER events_no_change")
        says = "events_no_change, which forbids changes, is gone"
    with pytest.raises(AuditError, match=says):
        audit_log.check(place)


def test_a_trigger_that_does_nothing_any_more_is_found(place: Place) -> None:
    written(place)
    if "sqlite" in place.url:
        run_sql(
            place,
            "DROP TRIGGER events_no_delete",
            "CREATE TRIGGER events_no_delete BEFORE DELETE ON events BEGIN SELECT 1; END",
        )
    else:
        run_sql(
            place,
            "CREATE OR REPLACE FUNCTION events_refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END'",
        )
    with pytest.raises(AuditError, match="is changed"):
        audit_log.check(place)


def test_a_log_that_is_gone_is_told_from_one_that_never_was(tmp_path: Path) -> None:
    place = Place(f"sqlite:///{tmp_path}/audit.db", tmp_path / "head", tmp_path / "key")
    assert not audit_log.exists(place)
    written(place)
    for file in tmp_path.glob("audit.db*"):
        file.unlink()
    assert audit_log.exists(place)
    with pytest.raises(AuditError, match="is gone; its signed head knows 6"):
        audit_log.check(place)
    with pytest.raises(AuditError, match="nothing is added to such a log"):
        AuditLog(place)


def test_a_head_that_is_missing_forged_or_of_another_key_is_refused(tmp_path: Path) -> None:
    place = written(Place(f"sqlite:///{tmp_path}/audit.db", tmp_path / "head", tmp_path / "key"))
    whole = place.head.read_bytes()
    place.head.write_bytes(whole.replace(b'"seq":6', b'"seq":5'))
    with pytest.raises(AuditError, match="signature"):
        audit_log.check(place)
    place.head.write_text("nonsense")
    with pytest.raises(AuditError, match="not a signed head"):
        audit_log.check(place)
    place.head.unlink()
    for use in (audit_log.check, AuditLog):
        with pytest.raises(AuditError, match="signed head is missing"):
            use(place)
    place.head.write_bytes(whole)
    other = replace(place, key=tmp_path / "other")
    with pytest.raises(AuditError, match="signature"):
        AuditLog(other)


def test_the_key_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    place = written(Place(f"sqlite:///{tmp_path}/audit.db", tmp_path / "head", tmp_path / "keys" / "key"))
    assert place.key.stat().st_mode & 0o777 == 0o600
    assert b"PUBLIC" in place.key.with_name("key.pub").read_bytes()


def test_an_entry_beyond_the_head_was_never_acknowledged_and_is_no_break(place: Place) -> None:
    written(place)
    head = place.head.read_bytes()
    log = AuditLog(place)
    log.append("card", NURSE, {})
    log.close()
    place.head.write_bytes(head)
    found = audit_log.check(place)
    assert (found.entries, found.head) == (7, 6)


def test_a_locked_database_is_one_line_and_nothing_is_acknowledged(place: Place) -> None:
    log = AuditLog(replace(written(place), timeout_s=0.2))
    other = sa.create_engine(place.url, isolation_level=None if "sqlite" in place.url else "READ COMMITTED")
    with other.connect() as connection:
        if "sqlite" in place.url:
            connection.exec_driver_sql("BEGIN EXCLUSIVE")
        else:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({audit_log._LOCK})")
        with pytest.raises(AuditError, match=r"cannot be used: .*lock") as caught:
            log.append("card", NURSE, {"secret": "patient"})
        connection.rollback()
    assert "patient" not in str(caught.value)
    assert "\n" not in str(caught.value)
    log.append("card", NURSE, {})
    assert audit_log.check(place).entries == 7
    log.close()
    other.dispose()


def test_a_full_database_is_one_line_and_nothing_is_acknowledged(tmp_path: Path) -> None:
    place = written(Place(f"sqlite:///{tmp_path}/audit.db", tmp_path / "head", tmp_path / "key"))
    log = AuditLog(place)
    log.close()
    sa.event.listen(log._engine, "connect", lambda connection, _: connection.execute("PRAGMA max_page_count = 1"))
    with pytest.raises(AuditError, match="full"):
        log.append("card", NURSE, {"text": "x" * 20_000})
    assert audit_log.check(place).entries == audit_log.check(place).head
    log.close()


def test_a_disk_that_takes_no_head_acknowledges_nothing(tmp_path: Path) -> None:
    place = written(Place(f"sqlite:///{tmp_path}/audit.db", tmp_path / "heads" / "head", tmp_path / "key"))
    log = AuditLog(place)
    place.head.parent.rename(tmp_path / "away")
    place.head.parent.write_text("a file where the folder was")
    with pytest.raises(AuditError, match="cannot be used"):
        log.append("card", NURSE, {})
    log.close()


WRITER = """
import sys
from pathlib import Path
from app.audit_log import Actor, AuditLog, Place
url, head, key, name = sys.argv[1:]
log = AuditLog(Place(url, Path(head), Path(key), timeout_s=30))
number = 0
while True:
    entry = log.append("card", Actor(name, "clinician", name), {"number": number}, card=f"{name}-{number}")
    print(entry.seq, entry.hash, flush=True)
    number += 1
"""


@pytest.mark.slow
def test_eight_writers_with_kills_in_between_lose_nothing_acknowledged(place: Place, tmp_path: Path) -> None:
    outputs = [tmp_path / f"acknowledged-{number}" for number in range(8)]
    writers = []
    for number, output in enumerate(outputs):
        command = [sys.executable, "-c", WRITER, place.url, str(place.head), str(place.key), f"w{number}"]
        with output.open("w") as handle:
            writers.append(subprocess.Popen(command, stdout=handle, stderr=subprocess.DEVNULL))
    for number, writer in enumerate(writers):
        deadline = time.monotonic() + 90
        while len(outputs[number].read_text().splitlines()) < 5 + number and time.monotonic() < deadline:
            assert writer.poll() is None
            time.sleep(0.01)
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
    acknowledged = {}
    for output in outputs:
        lines = [line.split() for line in output.read_text().splitlines() if line.count(" ") == 1 and len(line) > 64]
        assert len(lines) >= 5
        acknowledged |= {int(seq): digested for seq, digested in lines}
    found = audit_log.check(place)
    log = AuditLog(place)
    stored = {entry.seq: entry.hash for entry in log.entries()}
    log.close()
    assert acknowledged.items() <= stored.items()
    assert found.head >= max(acknowledged)
    assert len(stored) == found.entries
