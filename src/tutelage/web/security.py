"""What every request passes, before any page: allowed hosts, a limit on the body, and the answer's headers."""

import re
from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tutelage.web.pages import version

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
LOOPBACK = re.compile(r"^(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?$")
COOKIE = "tutelage_session"
BODY_LIMIT = 1_000_000
UPLOAD_LIMIT = 64_000_000


class TooLarge(Exception):
    pass


class Security:
    """Plain ASGI middleware. `loopback_only` refuses other host names (a page elsewhere cannot rebind a name to us)."""

    def __init__(self, app: ASGIApp, *, loopback_only: bool, uploads: Sequence[str] = ("/import", "-import")):
        self.app, self.loopback_only, self.uploads = app, loopback_only, tuple(uploads)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        limit = UPLOAD_LIMIT if scope["path"].endswith(self.uploads) else BODY_LIMIT
        started = False

        async def guarded_send(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message["headers"], *_headers(scope)]
            await send(message)

        if refusal := self._refusal(request, limit):
            await refusal(scope, receive, guarded_send)
            return
        try:
            await self.app(scope, _counted(receive, limit), guarded_send)
        except TooLarge:
            if not started:
                await PlainTextResponse("too large", 413)(scope, receive, guarded_send)

    def _refusal(self, request: Request, limit: int) -> PlainTextResponse | None:
        host = request.headers.get("host", "")
        if self.loopback_only and not LOOPBACK.match(host):
            return PlainTextResponse("unknown host", 421)
        length = request.headers.get("content-length", "0")
        if not length.isdecimal():
            return PlainTextResponse("bad content-length", 400)
        if int(length) > limit:
            return PlainTextResponse("too large", 413)
        if request.method not in ("GET", "HEAD"):
            # Browsers name the page that sends a form; programs, which name none, need the session's token anyway.
            origin = request.headers.get("origin")
            if origin is not None and origin.partition("://")[2] != host:
                return PlainTextResponse("sent from another site", 403)
            if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
                return PlainTextResponse("sent from another site", 403)
        return None


def _counted(receive: Receive, limit: int) -> Receive:
    total = 0

    async def counted() -> Message:
        nonlocal total
        message = await receive()
        total += len(message.get("body", b""))
        if total > limit:
            raise TooLarge
        return message

    return counted


def _kept(scope: Scope) -> bytes:
    """How long a browser may keep it: a page never, a file whose address names its content always."""
    if "/static/" not in scope["path"]:
        return b"no-store"
    # Modules import each other without a version in the address: browsers ask whether they changed.
    return b"max-age=31536000, immutable" if scope["query_string"] == b"v=" + version().encode() else b"no-cache"


def _headers(scope: Scope) -> list[tuple[bytes, bytes]]:
    headers = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
    headers.append((b"cache-control", _kept(scope)))
    cookie = scope.get("state", {}).get("set_cookie")
    if cookie is not None:
        secure = "; Secure" if scope["scheme"] == "https" else ""
        age = "; Max-Age=0" if not cookie else "; Max-Age=1209600"
        path = scope.get("root_path", "") or "/"
        value = f"{COOKIE}={cookie}; Path={path}; HttpOnly; SameSite=Lax{secure}{age}"
        headers.append((b"set-cookie", value.encode()))
    return headers
