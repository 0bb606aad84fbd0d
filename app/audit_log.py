"""Audit log: what was shown to whom and what they answered, append-only and hash-chained, in SQLite or PostgreSQL.

An entry is one JSON object in canonical form (RFC 8785). It holds its number and the hash of the entry before, and its
own hash is the SHA-256 of exactly those bytes, so that a changed, missing or moved entry breaks the chain. What the
chain cannot show, that its end was cut off or that all of it was written anew, a signed head shows that lies outside
the database: the number and hash of the last acknowledged entry with an Ed25519 signature. An entry is acknowledged
once it is committed and the head is on disk.
"""

import fcntl
import hashlib
import json
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import rfc8785
import sqlalchemy as sa
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from sqlalchemy.exc import SQLAlchemyError

from cohort.errors import ArtifactError

Kind = Literal["opened", "sign_in", "model", "intent", "card", "response"]
ZERO = "0" * 64
"""What stands for the hash before the first entry."""
_LOCK = 0x73757475
"""PostgreSQL's advisory lock that writers take in turn."""
_SQLITE_TRIGGERS = {
    f"events_no_{verb}": f"CREATE TRIGGER events_no_{verb} BEFORE {action} BEGIN "
    "SELECT RAISE(ABORT, 'the audit log is append-only'); END"
    for verb, action in {
        "update": "UPDATE ON events",
        "delete": "DELETE ON events",
        "replace": "INSERT ON events WHEN EXISTS (SELECT 1 FROM events WHERE seq = NEW.seq)",
    }.items()
}
_POSTGRES_BODY = "BEGIN RAISE EXCEPTION 'the audit log is append-only'; END"
_POSTGRES_TRIGGERS = {
    "events_no_change": "BEFORE DELETE OR UPDATE ON events FOR EACH ROW",
    "events_no_truncate": "BEFORE TRUNCATE ON events FOR EACH STATEMENT",
}
_events = sa.Table(
    "events",
    sa.MetaData(),
    sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("card", sa.Text, index=True),
    sa.Column("subject", sa.Text, index=True),
    sa.Column("entry", sa.Text, nullable=False),
    sa.Column("hash", sa.Text, nullable=False),
)


class AuditError(ArtifactError):
    """The audit log cannot be written, or is not what was written."""


@dataclass(frozen=True)
class Place:
    """Where a log is, and what vouches for it outside the database."""

    url: str
    """SQLAlchemy's: `sqlite:///FILE` or `postgresql+psycopg://...`."""
    head: Path
    """The signed head."""
    key: Path
    """Ed25519 private key (PEM), made at first use; its public half lies beside it as `.pub`."""
    timeout_s: float = 2.0
    """How long to wait for another writer."""

    @property
    def name(self) -> str:
        """The database without its password, for messages."""
        return sa.make_url(self.url).render_as_string(hide_password=True)


@dataclass(frozen=True)
class Actor:
    """Who did it, in which role, in which session of the app."""

    name: str
    role: str
    session: str


@dataclass(frozen=True)
class Entry:
    """One entry as it stands in the log."""

    seq: int
    id: str
    time: str
    """UTC, RFC 3339."""
    kind: Kind
    actor: Actor
    card: str | None
    """The card it is about."""
    subject: str | None
    """The decision it is about."""
    body: Mapping[str, Any]
    hash: str


@dataclass(frozen=True)
class Checked:
    """A log that passed."""

    entries: int
    head: int
    """Number of the entry that the signed head vouches for; later ones were never acknowledged."""
    hash: str


def canonical(content: Any) -> bytes:
    """RFC 8785's one form of a JSON value.

    Raises:
        AuditError: it holds NaN, infinity, an integer beyond 2^53, or what is no JSON.
    """
    try:
        return rfc8785.dumps(content)
    except rfc8785.CanonicalizationError as error:
        raise AuditError(f"audit log: an entry cannot be written as canonical JSON ({type(error).__name__})") from error


def digest(content: Any) -> str:
    """SHA-256 of a JSON value's canonical form, in hexadecimal."""
    return hashlib.sha256(canonical(content)).hexdigest()


class AuditLog:
    """An open log. Safe to use from several threads, and beside other processes."""

    def __init__(self, place: Place) -> None:
        """Open a log, made where there is none, and check its end against the signed head.

        Raises:
            AuditError: it cannot be opened or written, its head or key is missing, or its end is not the head's.
        """
        self.place = place
        with _or_audit_error(place):
            self._key = _private_key(place.key)
            self._engine = _engine(place)
            try:
                with _held(place.head.with_name(place.head.name + ".opening")):  # one begins a log, others wait
                    self._begin()
                with self._engine.connect() as connection:
                    _check_end(connection, place, _head(place, self._key.public_key()))
            except BaseException:
                self.close()
                raise

    def append(
        self,
        kind: Kind,
        actor: Actor,
        body: Mapping[str, Any],
        card: str | None = None,
        subject: str | None = None,
    ) -> Entry:
        """Write one entry; when this returns it is on disk, and its loss would be found.

        Raises:
            AuditError: the log is locked, full or gone: nothing is acknowledged.
        """
        content = {
            "id": str(uuid.uuid4()),
            "time": datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "kind": kind,
            "actor": {"name": actor.name, "role": actor.role, "session": actor.session},
            "card": card,
            "subject": subject,
            "body": body,
        }
        with _or_audit_error(self.place):
            with self._turn() as connection:
                last = connection.execute(_last()).first()
                seq, previous = (last.seq + 1, last.hash) if last else (1, ZERO)
                entry = canonical({**content, "seq": seq, "previous": previous}).decode()
                digested = hashlib.sha256(entry.encode()).hexdigest()
                connection.execute(
                    _events.insert().values(seq=seq, kind=kind, card=card, subject=subject, entry=entry, hash=digested)
                )
            self._vouch(seq, digested)
        return _entry(entry, digested)

    def entries(
        self,
        kind: Kind | None = None,
        card: str | None = None,
        subject: str | None = None,
        last: int | None = None,
    ) -> list[Entry]:
        """Entries in order: of one kind, about one card or decision, the last few, or all.

        Raises:
            AuditError: the log cannot be read.
        """
        query = sa.select(_events.c.entry, _events.c.hash).order_by(_events.c.seq.desc())
        for column, wanted in ((_events.c.kind, kind), (_events.c.card, card), (_events.c.subject, subject)):
            query = query if wanted is None else query.where(column == wanted)
        with _or_audit_error(self.place), self._engine.connect() as connection:
            rows = connection.execute(query if last is None else query.limit(last)).all()
        return [_entry(row.entry, row.hash) for row in reversed(rows)]

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()

    def _begin(self) -> None:
        with self._turn() as connection:
            _create(connection)
            last = connection.execute(_last()).first()
        if last is None and not self.place.head.exists():
            self.append("opened", Actor("suture", "system", "-"), {"log": str(uuid.uuid4())})
        elif last is not None and last.seq == 1:  # killed between its first entry and the head
            self._vouch(last.seq, last.hash)

    @contextmanager
    def _turn(self) -> Iterator[sa.Connection]:
        """A transaction in which no other writer is between reading the last entry and adding the next."""
        with self._engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                wait = int(self.place.timeout_s * 1000)
                connection.execute(sa.text(f"SET LOCAL lock_timeout = {wait}"))
                connection.execute(sa.text("SET LOCAL synchronous_commit = on"))
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
            yield connection

    def _vouch(self, seq: int, digested: str) -> None:
        """Move the signed head forward, never back, whichever writer comes last."""
        head = self.place.head
        with _held(head.with_name(head.name + ".lock")):
            if head.exists() and _head(self.place, self._key.public_key())["seq"] >= seq:
                return
            content = {"seq": seq, "hash": digested}
            signed = {**content, "signature": self._key.sign(canonical(content)).hex()}
            _replace(head, canonical(signed) + b"\n")


def check(place: Place) -> Checked:
    """Check every entry of a log, its triggers, and its end against the signed head. Changes nothing.

    Raises:
        AuditError: naming the first entry that is wrong, a trigger that is gone, or the entries that are missing.
    """
    head = _head(place, _public_key(place))
    if not _exists(place):
        raise AuditError(f"{place.name}: the audit log is gone; its signed head knows {head['seq']} entries")
    with _reading(place) as connection:
        _check_triggers(connection, place)
        query = sa.select(_events).order_by(_events.c.seq)
        seq, previous = 0, ZERO
        with connection.execution_options(yield_per=1000).execute(query) as rows:
            for row in rows:
                _check_link(row, seq + 1, previous, place)
                seq, previous = row.seq, row.hash
                if seq == head["seq"] and previous != head["hash"]:
                    raise AuditError(f"{place.name}: entry {seq}: is not the one that the signed head vouches for")
    if seq < head["seq"]:
        raise AuditError(f"{place.name}: ends at entry {seq}; the signed head knows {head['seq']}: the end was deleted")
    return Checked(seq, head["seq"], previous)


def exists(place: Place) -> bool:
    """Whether there is anything of this log: its database, or the head that knows of one."""
    return place.head.exists() or _exists(place)


def _check_link(row: Any, expected: int, previous: str, place: Place) -> None:
    if row.seq != expected:
        raise AuditError(f"{place.name}: entry {expected}: is missing (the next is {row.seq})")
    if hashlib.sha256(row.entry.encode()).hexdigest() != row.hash:
        raise AuditError(f"{place.name}: entry {row.seq}: was changed: its hash differs")
    content = json.loads(row.entry)
    if content["previous"] != previous:
        raise AuditError(f"{place.name}: entry {row.seq}: does not follow the entry before it")
    told = tuple(content[name] for name in ("seq", "kind", "card", "subject"))
    if told != (row.seq, row.kind, row.card, row.subject) or canonical(content) != row.entry.encode():
        raise AuditError(f"{place.name}: entry {row.seq}: a column was changed")


def _check_end(connection: sa.Connection, place: Place, head: Mapping[str, Any]) -> None:
    found = connection.execute(sa.select(_events.c.hash).where(_events.c.seq == head["seq"])).scalar()
    if found != head["hash"]:
        what = "lacks" if found is None else "holds another"
        raise AuditError(
            f"{place.name}: {what} entry {head['seq']}, which the signed head {place.head} vouches for; "
            "nothing is added to such a log"
        )


def _check_triggers(connection: sa.Connection, place: Place) -> None:
    for name, expected in _triggers(connection).items():
        if expected[0] != expected[1]:
            what = "changed" if expected[0] else "gone"
            raise AuditError(f"{place.name}: the trigger {name}, which forbids changes, is {what}")


def _triggers(connection: sa.Connection) -> dict[str, tuple[str | None, str]]:
    """Each trigger's name with its definition as found (None: none, or disabled) and as it should be."""
    if connection.dialect.name == "sqlite":
        rows = connection.execute(sa.text("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"))
        found = {row.name: row.sql for row in rows}
        return {name: (found.get(name), sql) for name, sql in _SQLITE_TRIGGERS.items()}
    rows = connection.execute(
        sa.text(
            "SELECT t.tgname, pg_get_triggerdef(t.oid) AS sql, p.prosrc FROM pg_trigger t JOIN pg_proc p "
            "ON p.oid = t.tgfoid WHERE t.tgrelid = 'events'::regclass AND t.tgenabled IN ('O', 'A')"
        )
    )
    found = {row.tgname: f"{row.sql.replace('public.', '')} AS {row.prosrc}" for row in rows}
    return {
        name: (found.get(name), f"CREATE TRIGGER {name} {when} EXECUTE FUNCTION events_refuse() AS {_POSTGRES_BODY}")
        for name, when in _POSTGRES_TRIGGERS.items()
    }


def _create(connection: sa.Connection) -> None:
    """The table and its triggers, where there is no table; triggers that are gone are never put back quietly."""
    if sa.inspect(connection).has_table(_events.name):
        return
    _events.create(connection)
    if connection.dialect.name == "sqlite":
        for statement in _SQLITE_TRIGGERS.values():
            connection.execute(sa.text(statement))
        return
    connection.execute(
        sa.text(f"CREATE FUNCTION events_refuse() RETURNS trigger LANGUAGE plpgsql AS $body${_POSTGRES_BODY}$body$")
    )
    for name, when in _POSTGRES_TRIGGERS.items():
        connection.execute(sa.text(f"CREATE TRIGGER {name} {when} EXECUTE FUNCTION events_refuse()"))


def _engine(place: Place, read_only: bool = False) -> sa.Engine:
    url = sa.make_url(place.url)
    if url.get_backend_name() == "postgresql":
        return sa.create_engine(url, connect_args={"connect_timeout": max(2, round(place.timeout_s))})
    if url.get_backend_name() != "sqlite" or not url.database:
        raise AuditError(f"{place.name}: audit: expected sqlite:///FILE or postgresql+psycopg://...")
    if not read_only:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(url, connect_args={"timeout": place.timeout_s})

    @sa.event.listens_for(engine, "connect")
    def _settle(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # the driver begins no transaction of its own
        if not read_only:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine


@contextmanager
def _reading(place: Place) -> Iterator[sa.Connection]:
    """A connection that changes nothing."""
    with _or_audit_error(place):
        engine = _engine(place, read_only=True)
        try:
            with engine.connect() as connection:
                yield connection
        finally:
            engine.dispose()


def _exists(place: Place) -> bool:
    url = sa.make_url(place.url)
    if url.get_backend_name() == "sqlite":
        return bool(url.database) and Path(str(url.database)).is_file()
    with _reading(place) as connection:
        return bool(sa.inspect(connection).has_table(_events.name))


def _last() -> "sa.Select[tuple[int, str]]":
    return sa.select(_events.c.seq, _events.c.hash).order_by(_events.c.seq.desc()).limit(1)


def _entry(text: str, digested: str) -> Entry:
    content = json.loads(text)
    actor = Actor(**content.pop("actor"))
    content.pop("previous")
    return Entry(actor=actor, hash=digested, **content)


def _head(place: Place, key: Ed25519PublicKey) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(place.head.read_bytes())
        signature = bytes.fromhex(content.pop("signature"))
        key.verify(signature, canonical(content))
    except FileNotFoundError:
        raise AuditError(
            f"{place.head}: the audit log's signed head is missing, so a deleted end cannot be told; "
            "put it back from a copy, or move the log away to begin a new one"
        ) from None
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise AuditError(f"{place.head}: not a signed head ({type(error).__name__})") from None
    except InvalidSignature:
        raise AuditError(f"{place.head}: the signature is not of the key {place.key}") from None
    return content


def _private_key(path: Path) -> Ed25519PrivateKey:
    """The key, made where there is none: readable by its owner alone, complete or not there at all."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        key = Ed25519PrivateKey.generate()
        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        draft = path.with_name(f".{path.name}.tmp-{uuid.uuid4().hex}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as handle:
            handle.write(secret)
        try:
            os.link(draft, path)  # fails where another process was first: then its key counts
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    try:
        loaded = load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError) as error:
        raise AuditError(f"{path}: not a private key that can be read ({type(error).__name__})") from None
    if not isinstance(loaded, Ed25519PrivateKey):
        raise AuditError(f"{path}: not an Ed25519 private key")
    public = path.with_name(path.name + ".pub")
    if not public.exists():
        _replace(public, loaded.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return loaded


def _public_key(place: Place) -> Ed25519PublicKey:
    path = place.key.with_name(place.key.name + ".pub")
    try:
        loaded = load_pem_public_key(path.read_bytes())
    except (OSError, ValueError) as error:
        raise AuditError(f"{path}: the audit log's public key cannot be read ({type(error).__name__})") from None
    if not isinstance(loaded, Ed25519PublicKey):
        raise AuditError(f"{path}: not an Ed25519 public key")
    return loaded


@contextmanager
def _held(path: Path) -> Iterator[None]:
    """A lock file, held; the system gives it back when the process ends, however it ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _replace(path: Path, content: bytes) -> None:
    draft = path.with_name(f".{path.name}.tmp-{uuid.uuid4().hex}")
    try:
        with draft.open("wb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        draft.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def _or_audit_error(place: Place) -> Iterator[None]:
    """Whatever the database or the disk says becomes one line without an entry's content."""
    try:
        yield
    except SQLAlchemyError as error:
        cause = str(getattr(error, "orig", None) or type(error).__name__).splitlines()[0]
        raise AuditError(f"{place.name}: the audit log cannot be used: {cause}") from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise AuditError(f"{error.filename or place.name}: the audit log cannot be used: {reason}") from None
    except ValueError as error:
        raise AuditError(f"{place.name}: the audit log cannot be used: {type(error).__name__}") from None
