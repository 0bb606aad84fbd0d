"""A small OpenID provider on this machine, for tests: discovery, authorization code with PKCE, keys, signing out."""

import base64
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey

CLIENT, SECRET = "suture-test", "client-secret-that-nobody-may-log"


@dataclass
class Provider:
    """What the provider says of whoever comes next, and what it was asked."""

    address: str
    claims: Mapping[str, object] = field(default_factory=dict)
    """Of the person who signs in next."""
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    """Path and parameters of each request, in order."""
    given: list[str] = field(default_factory=list)
    """Codes and tokens that were given out: no log may hold one."""
    key: Any = field(default_factory=lambda: RSAKey.generate_key(2048, {"kid": "one", "use": "sig", "alg": "RS256"}))
    """What signs; a test that exchanges it forges."""
    published: Any = None
    """What the provider says that it signs with; None: `key`."""
    waiting: dict[str, dict[str, str]] = field(default_factory=dict)
    """Code -> the authorization request."""

    def paths(self) -> list[str]:
        """The paths asked for, in order."""
        return [path for path, _ in self.asked]


@contextmanager
def provider() -> Iterator[Provider]:
    """A provider that answers until the block ends."""
    handler = type("Handler", (_Handler,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        handler.provider = Provider(f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield handler.provider
        finally:
            server.shutdown()
            thread.join()


def secrets_file(known: Provider, app: str) -> str:
    """The settings of a sign-in through it, for an app at the address `app`: Streamlit's [auth] section."""
    return "\n".join(
        (
            "[auth]",
            f'redirect_uri = "{app}/oauth2callback"',
            'cookie_secret = "cookie-secret-that-nobody-may-log-either"',
            f'client_id = "{CLIENT}"',
            f'client_secret = "{SECRET}"',
            f'server_metadata_url = "{known.address}/.well-known/openid-configuration"',
            "",
        )
    )


class _Handler(BaseHTTPRequestHandler):
    provider: ClassVar[Provider]

    def do_GET(self) -> None:
        path, query = self._asked(urlsplit(self.path).query)
        if path == "/.well-known/openid-configuration":
            self._json(self._discovery())
        elif path == "/jwks":
            published = self.provider.published or self.provider.key
            self._json({"keys": [published.as_dict(private=False)]})
        elif path == "/authorize":
            code = secrets.token_urlsafe(24)
            self.provider.waiting[code] = query
            self.provider.given.append(code)
            self._redirect(f"{query['redirect_uri']}?{urlencode({'code': code, 'state': query['state']})}")
        elif path == "/end_session":
            self._redirect(query["post_logout_redirect_uri"])
        else:
            self._json({"error": "not found"}, 404)

    def do_POST(self) -> None:
        length = int(self.headers.get("content-length", 0))
        _, form = self._asked(self.rfile.read(length).decode())
        asked = self.provider.waiting.pop(form.get("code", ""), None)
        if asked is None or not self._is_client() or not _proves(form.get("code_verifier", ""), asked):
            self._json({"error": "invalid_grant"}, 400)
            return
        now = int(time.time())
        claims = {
            "iss": self.provider.address, "aud": CLIENT, "sub": "1", "iat": now, "exp": now + 300,
            "nonce": asked["nonce"], **self.provider.claims,
        }  # fmt: skip
        token = jwt.encode({"alg": "RS256", "kid": "one"}, claims, self.provider.key)
        access = secrets.token_urlsafe(24)
        self.provider.given += [token, access]
        self._json({"access_token": access, "token_type": "Bearer", "expires_in": 300, "id_token": token})

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def _discovery(self) -> dict[str, object]:
        at = self.provider.address
        return {
            "issuer": at,
            "authorization_endpoint": f"{at}/authorize",
            "token_endpoint": f"{at}/token",
            "jwks_uri": f"{at}/jwks",
            "end_session_endpoint": f"{at}/end_session",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "code_challenge_methods_supported": ["S256"],
        }

    def _asked(self, query: str) -> tuple[str, dict[str, str]]:
        path, told = urlsplit(self.path).path, {name: values[0] for name, values in parse_qs(query).items()}
        self.provider.asked.append((path, told))
        return path, told

    def _is_client(self) -> bool:
        expected = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        return self.headers.get("authorization") == f"Basic {expected}"

    def _json(self, content: object, status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _redirect(self, where: str) -> None:
        self.send_response(302)
        self.send_header("location", where)
        self.send_header("content-length", "0")
        self.end_headers()


def _proves(verifier: str, asked: Mapping[str, str]) -> bool:
    """Whether who redeems the code is who asked for it (PKCE, S256)."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    return asked.get("code_challenge_method") == "S256" and asked.get("code_challenge") == digest
