"""Server: the page's web server: what it answers to, and the headers that keep a browser from asking anybody else."""

import os
from pathlib import Path
from urllib.parse import urlsplit

import streamlit as st
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import settings
from app.access import require_safe
from app.settings import RUN_VARIABLE, SETTINGS_VARIABLE

OPTIONS = {
    "server.headless": True,  # asks no question in the terminal and opens no browser by itself
    "server.fileWatcherType": "none",
    "server.enableAgentApi": False,
    "server.enableStaticServing": False,
    "server.maxUploadSize": 1,
    "browser.gatherUsageStats": False,
    "client.toolbarMode": "viewer",
    "client.showErrorDetails": "none",  # a traceback may hold a patient's values
    "client.showErrorLinks": "false",
    "client.showSidebarNavigation": False,
    "runner.magicEnabled": False,
    "logger.level": "error",
    "theme.light.primaryColor": "#005a8c",
    "theme.dark.primaryColor": "#7cc4f0",
    "theme.headingFontWeights": [600],
    "theme.headingFontSizes": ["2rem", "1.25rem", "1.1rem"],
}
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self' 'unsafe-inline'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self'",
        "worker-src 'self' blob:",
        "manifest-src 'self'",
        "frame-ancestors 'none'",
        "form-action 'self'",
        "base-uri 'none'",
    )
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), clipboard-read=()",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


class WithHeaders:
    """Puts HEADERS on every answer; pages and data are stored by no cache."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                if not scope.get("path", "").startswith("/static/"):
                    headers["cache-control"] = "no-store"
            await send(message)

        await self.app(scope, receive, with_headers if scope["type"] == "http" else send)


class SameOrigin:
    """Refuses what a page of another origin asks for: any page may try that in the browser of somebody here.

    Streamlit itself would allow every page of this machine, and would ask a server outside for its own address first.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in {"http", "websocket"}:
            headers = Headers(scope=scope)
            origin = headers.get("origin")
            if origin is not None and urlsplit(origin).netloc != headers.get("host"):
                await _refuse(scope["type"], send)
                return
        await self.app(scope, receive, send)


async def _refuse(kind: str, send: Send) -> None:
    if kind == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    await send({"type": "http.response.start", "status": 403, "headers": []})
    await send({"type": "http.response.body"})


def serve(run: Path, told_in: Path | None, port: int) -> None:
    """Serve the pages of a run until interrupted.

    Raises:
        ConfigError: the settings are wrong, or would let others in without a sign-in.
    """
    told = settings.read(told_in)
    require_safe(told)
    os.environ[RUN_VARIABLE] = str(run.resolve())
    if told_in is not None:
        os.environ[SETTINGS_VARIABLE] = str(told_in.resolve())
    options = OPTIONS | {
        "server.address": told.access.address,
        "server.port": port,
        "server.allowedHosts": list(told.access.hosts),
    }
    if told.access.oidc is not None:
        options["secrets.files"] = [str(told.access.oidc)]
    known = Middleware(TrustedHostMiddleware, allowed_hosts=list(told.access.hosts))
    guards = [Middleware(WithHeaders), known, Middleware(SameOrigin)]
    st.App(Path(__file__).with_name("main.py"), middleware=guards).run(config=options)
