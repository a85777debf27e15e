"""The web app over a store: one FastAPI application, to serve by itself or to mount beside another."""

from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from tutelage.errors import UserError
from tutelage.feedback import Store
from tutelage.feedback.queue import Refused
from tutelage.feedback.reading import BadRows, told
from tutelage.feedback.store import StoreUnavailable
from tutelage.web import (
    account,
    adjudicate,
    chat,
    compare,
    critiques,
    items,
    jobs,
    lab,
    label,
    lead,
    practice,
    rounds,
    runs,
    screening,
    thumbs,
)
from tutelage.web.access import Denied, guard
from tutelage.web.pages import page, wants_json
from tutelage.web.quality import Figures
from tutelage.web.security import Security
from tutelage.workbench.bench import Workbench

PARTS = (label, lead, items, adjudicate, rounds, jobs, screening, practice, account, thumbs)
MODEL_PARTS = (compare, chat, runs, critiques, lab)
MOST_ROWS = 1000  # faults that a page lists
STATIC = Path(__file__).parent / "static"


def create_app(store: Store, *, local: bool = False, workbench: Workbench | None = None) -> FastAPI:
    """`local`: one person without an account, for a server that listens on loopback only.

    `workbench`: with one, the pages that run models are there too (compare, chat, runs, lab).
    """
    app = FastAPI(
        title="Tutelage feedback", docs_url=None, redoc_url=None, openapi_url=None, dependencies=[Depends(guard)]
    )
    app.state.store, app.state.local = store, local
    app.state.figures = Figures(store)
    app.state.workbench = workbench
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    for part in PARTS:
        app.include_router(part.router)
    if workbench is not None:
        for part in MODEL_PARTS:
            app.include_router(part.router)
    app.add_middleware(Security, loopback_only=local)
    app.add_exception_handler(Denied, _denied)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _not_found)
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(UserError, _user_error)
    app.add_exception_handler(StoreUnavailable, _unavailable)
    return app


def _reply(request: Request, status: int, message: str, **fields: Any) -> Response:
    if wants_json(request):
        return JSONResponse({"error": message, **fields}, status)
    return page(request, "error.html", status=status, message=message, rows=fields.get("rows", []), most=MOST_ROWS)


def _denied(request: Request, error: Any) -> Response:
    if error.status == 401 and not wants_json(request) and request.method == "GET":
        root = request.scope.get("root_path", "")
        return RedirectResponse(f"{root}/login?next={request.url.path.removeprefix(root)}", 303)
    return _reply(request, error.status, error.message)


def _http_error(request: Request, error: Any) -> Response:
    messages = {404: "There is no such page.", 405: "This address takes no such request."}
    return _reply(request, error.status_code, messages.get(error.status_code, str(error.detail)))


def _not_found(request: Request, error: Any) -> Response:
    return _reply(request, 404, "There is no such page.")


def _refused(request: Request, error: Any) -> Response:
    return _reply(request, 409, str(error))


def _user_error(request: Request, error: Any) -> Response:
    place = f"{error.where}: " if error.where else ""
    mend = f" Mend: {error.mend}." if error.mend else ""
    rows = [told(one, "the file") for one in error.faults] if isinstance(error, BadRows) else []
    return _reply(request, 422, f"{place}{error.what}.{mend}", **({"rows": rows} if rows else {}))


def _unavailable(request: Request, error: Any) -> Response:
    message = f"Not saved: {error}. Your draft is safe here. Tell the lead."
    if wants_json(request):
        return JSONResponse({"error": message}, 503)
    return HTMLResponse(f"<!doctype html><title>Not saved</title><p>{message}</p>", 503)
