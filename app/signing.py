"""Signing: a statement of every file of a run and its hash, signed with an Ed25519 key, and its verification."""

import base64
import hashlib
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import rfc8785
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from app import verification
from app.run_directory import LOCK, or_artifact_error
from app.verification import SIGNATURE
from cohort import artifact
from cohort.errors import ArtifactError, InputError

SCHEMA = "suture-signature/1"
PUBLIC_ENDING = ".pub"


def make_key(path: Path) -> Path:
    """Write a new private key (readable by its owner only) and, beside it, the public one; returns that one's path.

    Raises:
        ArtifactError: a file is there already, or cannot be written.
    """
    public = path.with_name(path.name + PUBLIC_ENDING)
    for file in (path, public):
        if file.exists():
            raise ArtifactError(f"{file}: already exists; a key is never replaced")
    key = Ed25519PrivateKey.generate()
    with or_artifact_error(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as handle:
            handle.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return public


def sign(run: Path, key_file: Path) -> str:
    """Verify a run whole, then sign the hash of every file of it; returns the key's fingerprint.

    Raises:
        ArtifactError: the run does not verify, or the signature cannot be written.
        InputError: the file holds no Ed25519 private key.
    """
    key = _private(key_file)
    verification.check_all(run)
    statement: dict[str, Any] = {
        "schema": SCHEMA,
        "signed": datetime.now(UTC).isoformat(timespec="seconds"),
        "key": fingerprint(key.public_key()),
        "files": _files(run),
    }
    signature = base64.b64encode(key.sign(rfc8785.dumps(statement))).decode()
    draft = run / f".{SIGNATURE}.tmp-{os.getpid()}"
    try:
        with or_artifact_error(run / SIGNATURE):
            artifact.write_sealed(draft, {"statement": statement, "signature": signature})
            draft.replace(run / SIGNATURE)
    finally:
        draft.unlink(missing_ok=True)
    return str(statement["key"])


def check(run: Path, key_file: Path) -> dict[str, Any]:
    """Check a run's signature by a public key and every file by what was signed; returns the statement.

    Raises:
        ArtifactError: there is no signature, another key made it, it was changed, or a file is not what was signed.
        InputError: the file holds no Ed25519 public key.
    """
    key, file = _public(key_file), run / SIGNATURE
    if not file.is_file():
        raise ArtifactError(f"{file}: missing: the run is not signed; `suture sign {run} --key FILE` signs it")
    content = artifact.read_sealed(file)
    statement: dict[str, Any] = content.get("statement", {})
    if statement.get("schema") != SCHEMA:
        raise ArtifactError(f"{file}: schema {statement.get('schema')}, this Suture reads {SCHEMA}")
    if statement["key"] != fingerprint(key):
        raise ArtifactError(f"{file}: signed by key {statement['key'][:16]}, not by {key_file}")
    try:
        key.verify(base64.b64decode(content["signature"]), rfc8785.dumps(statement))
    except (InvalidSignature, ValueError) as error:
        raise ArtifactError(f"{file}: the signature is not that of key {statement['key'][:16]}: forged") from error
    _require_signed(run, statement["files"])
    return statement


def fingerprint(key: Ed25519PublicKey) -> str:
    """SHA-256 of a public key's 32 bytes."""
    return hashlib.sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()


def _require_signed(run: Path, signed: dict[str, str]) -> None:
    found = _files(run)
    for name in sorted({*signed, *found}):
        if name not in found:
            raise ArtifactError(f"{run / name}: signed but missing")
        if name not in signed:
            raise ArtifactError(f"{run / name}: written after the run was signed")
        if found[name] != signed[name]:
            raise ArtifactError(f"{run / name}: changed after the run was signed")


def _files(run: Path) -> dict[str, str]:
    """Every file of a run but the signature and the lock, and its hash."""
    files = sorted(path for path in run.rglob("*") if path.is_file() and path.name != LOCK)
    names = {str(path.relative_to(run)): path for path in files}
    return {name: artifact.hash_file(path) for name, path in names.items() if name != SIGNATURE}


def _private(path: Path) -> Ed25519PrivateKey:
    try:
        key = load_pem_private_key(_read(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:  # TypeError: it is encrypted
        raise InputError(f"{path}: no unencrypted private key in PEM; `suture keygen --out FILE` makes one") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise InputError(f"{path}: not an Ed25519 key")
    return key


def _public(path: Path) -> Ed25519PublicKey:
    try:
        key = load_pem_public_key(_read(path))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InputError(f"{path}: no public key in PEM; it lies beside the private one, as FILE.pub") from error
    if not isinstance(key, Ed25519PublicKey):
        raise InputError(f"{path}: not an Ed25519 key")
    return key


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or type(error).__name__}") from error
