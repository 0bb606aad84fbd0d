"""Access: who may enter the app, in which role, and what each role may see and do."""

from dataclasses import dataclass
from typing import Literal

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


def name_problem(name: str) -> str | None:
    """What is wrong with a name that somebody entered; None: nothing."""
    if not name.strip():
        return "Enter your name: the audit log records who saw what."
    return f"A name has at most {NAME_MOST} characters." if len(name.strip()) > NAME_MOST else None


def require_safe(settings: AppConfig) -> None:
    """Refuse to listen where others could enter without signing in.

    Raises:
        ConfigError: the address is not this machine's own and no sign-in is configured.
    """
    access = settings.access
    if access.address not in LOOPBACK and access.oidc is None:
        raise ConfigError(
            f"access.address: {access.address}: without access.oidc (OpenID Connect) the app answers on {LOCAL} only"
        )
    if access.oidc is not None and not access.roles:
        raise ConfigError("access.roles: empty, so that nobody could enter; list e-mail addresses with their roles")
