"""Who may enter, what the settings allow, and what the server answers to."""

import asyncio
import os
from pathlib import Path

import pytest
from starlette.types import Message, Receive, Scope, Send

from app import access, serve, server, settings
from app.settings import AccessConfig, AppConfig, AuditConfig
from cohort.errors import ConfigError


def test_a_role_is_found_by_the_address_alone_and_nobody_else_gets_one() -> None:
    known = AccessConfig(roles={"A@Hospital.org": "auditor"})
    assert access.role_of(known, " a@hospital.ORG ") == "auditor"
    for stranger in ("b@hospital.org", "", None, "a@hospital.org.evil"):
        assert access.role_of(known, stranger) is None


def test_a_name_is_asked_for_and_bounded() -> None:
    assert access.name_problem("Dr A") is None
    assert "Enter your name" in str(access.name_problem("  "))
    assert "at most 80" in str(access.name_problem("x" * 81))


def test_each_role_sees_its_own_pages_and_only_clinicians_answer() -> None:
    assert set(access.PAGES) == set(settings.ROLES)
    assert access.PAGES["auditor"] == ("Evaluation", "Audit log", "Lab")
    assert access.PAGES["clinician"] == ("Worklist", "Patient")
    assert not {"Evaluation", "Audit log"} & {*access.PAGES["data scientist"]}
    assert access.ANSWERS == "clinician"


@pytest.mark.parametrize("address", ["0.0.0.0", "10.0.0.5", "::"])
def test_without_a_sign_in_service_no_other_machine_is_answered(address: str, tmp_path: Path) -> None:
    told = tmp_path / "app.yaml"
    told.write_text(f"access: {{address: '{address}'}}\n")
    with pytest.raises(ConfigError, match=r"access\.oidc"):
        serve.serve(tmp_path, told_in=told)


SECRETS = {
    "redirect_uri": "https://suture.hospital.example/oauth2callback",
    "cookie_secret": "c" * 32,
    "client_id": "suture",
    "client_secret": "hunter2",
    "server_metadata_url": "https://login.hospital.example/.well-known/openid-configuration",
}


def sign_in(folder: Path, auth: dict[str, object]) -> AccessConfig:
    file = folder / "secrets.toml"
    file.write_text("\n".join(["[auth]", *(f"{key} = {value!r}" for key, value in auth.items())]))
    return AccessConfig(oidc=file, address="0.0.0.0", roles={"a@b": "clinician"})


def test_a_sign_in_service_needs_somebody_who_may_enter(tmp_path: Path) -> None:
    oidc = sign_in(tmp_path, SECRETS)
    with pytest.raises(ConfigError, match=r"access\.roles: empty"):
        access.require_safe(AppConfig(access=oidc.model_copy(update={"roles": {}})))
    access.require_safe(AppConfig(access=oidc))


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("client_secret", "", "auth.client_secret: missing"),
        ("client_id", 3, "auth.client_id: missing or no text"),
        ("cookie_secret", "short and secret", "auth.cookie_secret: needs 32"),
        (
            "redirect_uri",
            "https://suture.hospital.example/",
            "auth.redirect_uri: expected the app's address and /oauth",
        ),
        ("redirect_uri", "http://suture.hospital.example/oauth2callback", "auth.redirect_uri: expected https"),
        ("server_metadata_url", "http://login.hospital.example/", "auth.server_metadata_url: expected https"),
        ("server_metadata_url", "ftp://127.0.0.1/", "auth.server_metadata_url: expected https"),
    ],
)
def test_a_sign_in_that_cannot_work_or_would_be_heard_is_refused_without_a_secret(
    tmp_path: Path, key: str, value: object, says: str
) -> None:
    with pytest.raises(ConfigError) as error:
        access.require_safe(AppConfig(access=sign_in(tmp_path, SECRETS | {key: value})))
    assert says in str(error.value)
    for secret in (SECRETS["cookie_secret"], "short and secret", "https://suture.hospital.example/"):
        assert secret not in str(error.value)
    assert SECRETS["client_secret"] not in str(error.value)


def test_a_sign_in_file_that_is_missing_or_no_toml_is_one_line(tmp_path: Path) -> None:
    for text, says in (
        (None, "FileNotFoundError"),
        ("[auth", "TOMLDecodeError"),
        ("auth = 1", "no section"),
        ("", "no s"),
    ):
        file = tmp_path / "secrets.toml"
        if text is not None:
            file.write_text(text)
        with pytest.raises(ConfigError, match=says):
            access.require_safe(AppConfig(access=AccessConfig(oidc=file, roles={"a@b": "clinician"})))


def test_on_this_machine_a_provider_needs_no_certificate(tmp_path: Path) -> None:
    here = {"redirect_uri": "http://127.0.0.1:{port}/oauth2callback", "server_metadata_url": "http://localhost:9/x"}
    access.require_safe(AppConfig(access=sign_in(tmp_path, SECRETS | here)))


def test_a_sign_in_holds_so_long_and_needs_a_time() -> None:
    known = AccessConfig(roles={"a@b": "clinician"}, sign_in_hours=1.0)
    says = {"email": "a@b", "iat": 10_000.0}
    assert access.refusal(known, says, 10_000.0 + 3599) is None
    assert access.refusal(known, says, 10_000.0 + 3600) == "signed in more than 1 h ago"
    assert access.refusal(known, {"email": "a@b"}, 1.7e9) == "signed in more than 1 h ago"


def test_an_unknown_role_or_key_is_an_error_of_the_settings(tmp_path: Path) -> None:
    told = tmp_path / "app.yaml"
    for text, says in (("access: {roles: {a@b: boss}}", "roles"), ("colour: red", "colour: unknown key")):
        told.write_text(text)
        with pytest.raises(ConfigError, match=says):
            settings.read(told)
    assert settings.read(None) == AppConfig()


def test_the_log_lies_beside_the_run_and_its_head_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    place = settings.place(tmp_path / "runs" / "demo", AuditConfig())
    assert place.url == f"sqlite:///{tmp_path}/runs/demo-audit/audit.db"
    assert place.head.parent == place.key.parent == tmp_path / "state" / "suture"
    other = settings.place(tmp_path / "runs" / "other", AuditConfig())
    assert other.head != place.head
    named = settings.place(tmp_path, AuditConfig(url="postgresql+psycopg://u:secret@h/d", head=tmp_path / "h"))
    assert "secret" not in named.name
    assert named.head == tmp_path / "h"


def test_the_command_names_the_run_absolutely_and_carries_the_settings(tmp_path: Path) -> None:
    words = serve.command(Path("runs/demo"), 8502, tmp_path / "app.yaml")
    assert words[-1] == "8502"
    assert Path(words[-2]) == tmp_path / "app.yaml"
    assert Path(words[-3]).is_absolute()
    assert serve.command(Path("x"))[-2] == ""


def test_the_server_tells_nobody_shows_no_traceback_and_has_no_agent_api() -> None:
    assert server.OPTIONS["browser.gatherUsageStats"] is False
    assert server.OPTIONS["client.showErrorDetails"] == "none"
    assert server.OPTIONS["server.enableAgentApi"] is False
    assert "frame-ancestors 'none'" in server.POLICY
    assert "unsafe-eval" not in server.POLICY
    assert server.HEADERS["referrer-policy"] == "no-referrer"
    assert os.fspath(Path(server.__file__)).endswith("server.py")


@pytest.mark.parametrize(
    ("origin", "enters"),
    [
        ("http://127.0.0.1:8501", True),
        (None, True),
        ("http://evil.example", False),
        ("http://127.0.0.1:9999", False),
        ("http://localhost:8501", False),
        ("null", False),
        ("", False),
    ],
)
def test_what_a_page_of_another_origin_asks_for_is_refused(origin: str | None, enters: bool) -> None:
    sent: list[Message] = []
    reached: list[str] = []

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        reached.append(scope["type"])

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    headers = [(b"host", b"127.0.0.1:8501"), *([] if origin is None else [(b"origin", origin.encode())])]
    for kind in ("websocket", "http"):
        asyncio.run(server.SameOrigin(app)({"type": kind, "headers": headers}, receive, send))
    assert reached == (["websocket", "http"] if enters else [])
    assert [message.get("code") or message.get("status") for message in sent] == ([] if enters else [1008, 403, None])
