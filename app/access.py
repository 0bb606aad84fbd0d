"""Access: who may enter the app, in which role, and what each role may see and do."""

import importlib.util
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from app.audit_log import Actor
from app.settings import LOCAL, AccessConfig, AppConfig, Role
from cohort.errors import ConfigError

Page = Literal["Worklist", "Patient", "Evaluation", "Audit log", "Cohort", "One stay", "Training", "Lab", "Exports"]
PAGES: dict[Role, tuple[Page, ...]] = {
    "clinician": ("Worklist", "Patient"),
    "auditor": ("Evaluation", "Audit log", "Lab"),
    "data scientist": ("Worklist", "Patient", "Cohort", "One stay", "Training", "Lab", "Exports"),
}
ANSWERS: Role = "clinician"
"""The role that may answer a card."""
LOOPBACK = (LOCAL, "localhost", "::1")
NAME_MOST = 80
CALLBACK = "/oauth2callback"
"""Where Streamlit expects the provider to send a browser back to."""
COOKIE_SECRET_LEAST = 32
"""Characters; the secret signs the cookie that says who is signed in."""
_NEEDED = ("redirect_uri", "cookie_secret", "client_id", "client_secret", "server_metadata_url")


@dataclass(frozen=True)
class Visitor:
    """Who is here."""

    name: str
    role: Role
    session: str

    @property
    def actor(self) -> Actor:
        """As the audit log names them."""
        return Actor(self.name, self.role, self.session)


def role_of(access: AccessConfig, email: str | None) -> Role | None:
    """The role of a signed-in person; None: not listed, so not let in. Letter case does not matter."""
    listed = {address.casefold(): role for address, role in access.roles.items()}
    return listed.get((email or "").strip().casefold())


def refusal(access: AccessConfig, claims: Mapping[str, Any], now: float) -> str | None:
    """Why a signed-in person may not enter, as the audit log says it; None: they may.

    Args:
        access: who is listed, and how long a sign-in holds.
        claims: what the provider says of the person.
        now: seconds since 1970.
    """
    if not now - float(claims.get("iat", 0.0)) < access.sign_in_hours * 3600:
        return f"signed in more than {access.sign_in_hours:g} h ago"
    if not claims.get("email_verified", True):
        return "the provider has not verified the address"
    return "no role is listed for the address" if role_of(access, claims.get("email")) is None else None


def name_problem(name: str) -> str | None:
    """What is wrong with a name that somebody entered; None: nothing."""
    if not name.strip():
        return "Enter your name: the audit log records who saw what."
    return f"A name has at most {NAME_MOST} characters." if len(name.strip()) > NAME_MOST else None


def require_safe(settings: AppConfig) -> None:
    """Refuse to listen where others could enter without signing in.

    Raises:
        ConfigError: the address is not this machine's own and no sign-in is configured, or what is configured cannot
            work or would send names and codes over the network in the clear.
    """
    access = settings.access
    if access.address not in LOOPBACK and access.oidc is None:
        raise ConfigError(
            f"access.address: {access.address}: without access.oidc (OpenID Connect) the app answers on {LOCAL} only"
        )
    if access.oidc is None:
        return
    if not access.roles:
        raise ConfigError("access.roles: empty, so that nobody could enter; list e-mail addresses with their roles")
    _require_provider(access.oidc)


def _require_provider(file: Path) -> None:
    """Refuse a description of the sign-in service that cannot work; no secret is in what is said."""
    for package in ("authlib", "httpx2"):
        if importlib.util.find_spec(package) is None:
            raise ConfigError(f'access.oidc: needs the package {package}: pip install -e ".[oidc]"')
    try:
        told = tomllib.loads(file.read_text(encoding="utf-8")).get("auth")
    except (OSError, ValueError) as error:
        raise ConfigError(f"access.oidc: {file}: cannot be read as TOML ({type(error).__name__})") from None
    if not isinstance(told, dict):
        raise ConfigError(f"access.oidc: {file}: has no section [auth]")
    for key in _NEEDED:
        if not isinstance(told.get(key), str) or not told[key]:
            raise ConfigError(f"access.oidc: {file}: auth.{key}: missing or no text")
    if len(told["cookie_secret"]) < COOKIE_SECRET_LEAST:
        raise ConfigError(f"access.oidc: {file}: auth.cookie_secret: needs {COOKIE_SECRET_LEAST} characters or more")
    if not told["redirect_uri"].endswith(CALLBACK):
        raise ConfigError(f"access.oidc: {file}: auth.redirect_uri: expected the app's address and {CALLBACK}")
    for key in ("redirect_uri", "server_metadata_url"):
        place = urlsplit(told[key].replace("{port}", "0"))
        if place.scheme != "https" and not (place.scheme == "http" and place.hostname in LOOPBACK):
            raise ConfigError(f"access.oidc: {file}: auth.{key}: expected https, as it is not on this machine")
