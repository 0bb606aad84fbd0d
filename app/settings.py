"""Settings: what the app can be told beside the run it shows: what is asked, who may enter, where the log lies."""

import hashlib
import os
from pathlib import Path
from typing import Literal

import sqlalchemy as sa
from pydantic import Field

from app.audit_log import Place
from cohort.config import Config, load
from policy.recommend import RecommendConfig

Role = Literal["clinician", "auditor", "data scientist"]
ROLES: tuple[Role, ...] = ("clinician", "auditor", "data scientist")
LOCAL = "127.0.0.1"
RUN_VARIABLE, SETTINGS_VARIABLE = "SUTURE_RUN", "SUTURE_SETTINGS"
"""How the server tells the pages the run's directory and the settings' file."""


class AuditConfig(Config):
    """Where the audit log is, and what vouches for it."""

    url: str | None = None
    """`sqlite:///FILE` or `postgresql+psycopg://USER@HOST/DATABASE`; without it beside the run, RUN-audit/audit.db."""
    head: Path | None = None
    """The signed head. Keep it off the database's disk; without it in the user's own folder."""
    key: Path | None = None
    """The Ed25519 key that signs the head, made at first use; without it in the user's own folder."""
    timeout_s: float = Field(default=2.0, gt=0, le=60)
    """How long a card waits for another writer; after that it is not shown."""


class AccessConfig(Config):
    """Who may enter. Without `oidc` nobody outside this machine can, and each session says who it is."""

    oidc: Path | None = None
    """TOML file with an `[auth]` section for OpenID Connect."""
    roles: dict[str, Role] = Field(default_factory=dict)
    """E-mail address of a signed-in person to their role; who is not listed may not enter."""
    sign_in_hours: float = Field(default=12.0, gt=0, le=720)
    """How long a sign-in by `oidc` holds; without it a browser on the ward stays signed in for a month."""
    address: str = LOCAL
    """Where the server listens; anything but this machine needs `oidc`."""
    hosts: tuple[str, ...] = ("127.0.0.1", "localhost")
    """Host names that are answered; requests for any other are refused."""


class AppConfig(Config):
    """How `suture app` behaves."""

    commit_first: bool = False
    """Show a recommendation only after the clinician has stated a dose of their own."""
    recommend: RecommendConfig = RecommendConfig()
    audit: AuditConfig = AuditConfig()
    access: AccessConfig = AccessConfig()


def read(path: Path | None) -> AppConfig:
    """The settings of a YAML file; the defaults where none is named.

    Raises:
        ConfigError: naming the file, the first wrong key, and what is allowed there.
    """
    return AppConfig() if path is None else load(path, AppConfig)


def place(run: Path, settings: AuditConfig) -> Place:
    """Where the audit log of a run is."""
    url = settings.url or f"sqlite:///{run.resolve().parent / (run.resolve().name + '-audit') / 'audit.db'}"
    own = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "suture"
    name = hashlib.sha256(sa.make_url(url).render_as_string(hide_password=True).encode()).hexdigest()[:16]
    return Place(url, settings.head or own / f"{name}.head", settings.key or own / "audit.key", settings.timeout_s)
