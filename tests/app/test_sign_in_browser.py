"""Signing in with OpenID Connect in a real browser, through a provider that this test runs: who enters, and who not."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app import access, settings
from app.audit_log import AuditLog, Entry
from tests import small_run
from tests.app import browsing, openid
from tests.app.openid import Provider

pytestmark = [*browsing.NEEDS_CHROMIUM, pytest.mark.slow]
NURSE = {"email": "A.Nurse@hospital.example", "email_verified": True, "name": "A. Nurse"}


@dataclass(frozen=True)
class Served:
    """The app behind the provider."""

    address: str
    provider: Provider
    run: Path
    told: Path
    log: Path
    """What the server wrote to its output."""

    def signed(self) -> list[Entry]:
        log = AuditLog(settings.place(self.run, settings.read(self.told).audit))
        found = log.entries(kind="sign_in")
        log.close()
        return found


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    run, folder = small_run.shared(tmp_path_factory.getbasetemp()), tmp_path_factory.mktemp("sign-in")
    told, state = folder / "app.yaml", folder / "state"
    with openid.provider() as known:
        (folder / "secrets.toml").write_text(openid.secrets_file(known, "http://127.0.0.1:{port}"))
        told.write_text(
            f"audit: {{url: 'sqlite:///{folder}/audit.db', head: {folder}/head, key: {folder}/key}}\n"
            f"access: {{oidc: {folder}/secrets.toml, "
            "roles: {a.nurse@hospital.example: clinician, q@hospital.example: auditor}}\n"
        )
        with browsing.served(run, told, state) as address:
            yield Served(address, known, run, told, state / "server.log")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with browsing.chromium() as started:
        yield started


@pytest.fixture(autouse=True)
def _fresh(served: Served) -> None:
    served.provider.asked.clear()
    served.provider.published = None


def sign_in(page: Any, served: Served, claims: dict[str, object]) -> None:
    served.provider.claims = claims
    page.goto(served.address)
    page.get_by_role("heading", name="Sign in", level=1).wait_for()
    assert page.get_by_label("Name").count() == 0
    page.get_by_role("button", name="Sign in").click()


@pytest.mark.parametrize(
    ("email", "role"), [("A.Nurse@hospital.example", "clinician"), ("q@hospital.example", "auditor")]
)
def test_who_is_listed_enters_with_their_role_and_leaves_and_no_secret_is_written_anywhere(
    browser: Any, served: Served, email: str, role: settings.Role
) -> None:
    with browsing.visiting(browser) as visit:
        page = visit.page
        sign_in(page, served, {**NURSE, "email": email})
        page.get_by_role("heading", name=access.PAGES[role][0], level=1).wait_for()
        assert page.get_by_text(f"{email}, {role}").is_visible()
        assert served.provider.paths() == [
            "/.well-known/openid-configuration",
            "/authorize",
            "/.well-known/openid-configuration",
            "/token",
            "/jwks",
        ]
        last = served.signed()[-1]
        assert (last.actor.name, last.actor.role, last.body) == (email, role, {"by": "OpenID Connect"})
        before = len(served.signed())
        page.reload()
        page.get_by_role("heading", name=access.PAGES[role][0], level=1).wait_for()
        assert len(served.signed()) == before + 1, "a new session is a new sign-in"
        page.get_by_role("button", name="Leave").click()
        page.get_by_role("heading", name="Sign in", level=1).wait_for()
        path, asked = served.provider.asked[-1]
        assert (path, asked["post_logout_redirect_uri"]) == ("/end_session", f"{served.address}/oauth2callback")
        page.reload()
        page.get_by_role("heading", name="Sign in", level=1).wait_for()
        assert {url.split("/")[2] for url in visit.requested if url.startswith("http")} == {
            served.address.split("/")[2],
            served.provider.address.split("/")[2],
        }
        assert not [told for told in visit.complaints if "Content Security Policy" in told], visit.complaints
        stored = page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])")
    written = served.log.read_text() + stored + str(served.signed())
    for secret in (openid.SECRET, "cookie-secret", *served.provider.given):
        assert secret not in written


@pytest.mark.parametrize(
    ("claims", "says"),
    [
        ({"email": "stranger@hospital.example"}, "no role is listed for the address"),
        ({"email": "a.nurse@hospital.example.evil"}, "no role is listed for the address"),
        ({"email_verified": False}, "the provider has not verified the address"),
        ({"iat": int(time.time()) - 13 * 3600}, "signed in more than 12 h ago"),
        ({"email": "<img src=x onerror=alert(1)>\u202e"}, "no role is listed for the address"),
    ],
)
def test_who_is_not_listed_not_verified_or_signed_in_long_ago_sees_nothing_and_is_logged(
    browser: Any, served: Served, claims: dict[str, object], says: str
) -> None:
    with browsing.visiting(browser) as visit:
        page = visit.page
        page.on("dialog", lambda dialog: pytest.fail(f"a dialog opened: {dialog.message}"))
        sign_in(page, served, {**NURSE, **claims})
        page.get_by_role("heading", name="You may not enter", level=1).wait_for()
        assert page.get_by_text(says).is_visible()
        assert page.get_by_role("radiogroup").count() == 0
        last = served.signed()[-1]
        assert (last.actor.name, last.actor.role, last.body["refused"]) == ({**NURSE, **claims}["email"], "none", says)
        page.get_by_role("button", name="Sign out").click()
        page.get_by_role("heading", name="Sign in", level=1).wait_for()


@pytest.mark.parametrize("wrong", ["key", "aud", "iss", "nonce", "exp"])
def test_a_token_of_another_key_audience_issuer_or_question_signs_nobody_in(
    browser: Any, served: Served, wrong: str
) -> None:
    before = len(served.signed())
    if wrong == "key":
        served.provider.published = openid.RSAKey.generate_key(2048, {"kid": "one", "use": "sig", "alg": "RS256"})
    value = int(time.time()) - 3600 if wrong == "exp" else "https://evil.example"
    with browsing.visiting(browser) as visit:
        page = visit.page
        sign_in(page, served, NURSE if wrong == "key" else {**NURSE, wrong: value})
        page.wait_for_timeout(1500)
        page.get_by_role("heading", name="Sign in", level=1).wait_for()
        assert "/token" in served.provider.paths()
        assert len(served.signed()) == before
    assert openid.SECRET not in served.log.read_text()
