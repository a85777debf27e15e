"""The pages and the models' API on one port: addresses below /v1 are the API's, all others the pages'."""

import json

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from tutelage.feedback import Store, tokens
from tutelage.feedback.store import StoreUnavailable
from tutelage.web.access import bearer
from tutelage.web.app import create_app
from tutelage.workbench.bench import Workbench

FEEDBACK = "/v1/feedback/"  # goes into the store, and so to the pages


class OnePort:
    """ASGI application. Without `local`, the API asks for a token with the scope `models`, and the pages for accounts."""

    def __init__(self, api: ASGIApp, store: Store, *, local: bool, workbench: Workbench | None = None):
        self.api, self.store, self.local = api, store, local
        self.pages = create_app(store, local=local, workbench=workbench)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] == "lifespan":  # the pages have none
            await self.api(scope, receive, send)
        elif path == "/v1" or (path.startswith("/v1/") and not f"{path}/".startswith(FEEDBACK)):
            refusal = None if self.local else await run_in_threadpool(self._refusal, Request(scope))
            await (refusal or self.api)(scope, receive, send)
        else:
            await self.pages(scope, receive, send)

    def _refusal(self, request: Request) -> Response | None:
        try:
            with self.store.read() as db:
                found = tokens.find_token(db, bearer(request) or "")
            if found is None:
                return _error(401, "Give an API token: Authorization: Bearer tut_…", "invalid_api_key")
            if "models" not in found[0].scopes:
                return _error(403, "This token may not ask the models.", "insufficient_scope")
            if tokens.is_use_news(found[0]):
                with self.store.write() as db:
                    tokens.note_use(db, found[0].id)
        except StoreUnavailable as error:
            return _error(503, f"Tokens cannot be checked: {error}.", "unavailable")
        return None


def _error(status: int, message: str, code: str) -> Response:
    """In OpenAI's words, so that its clients show the message."""
    body = {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}
    return Response(json.dumps(body), status, {"www-authenticate": "Bearer"}, "application/json")
