"""Renders the templates; whatever people or models wrote is escaped text."""

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tutelage.web.markdown import markdown

HERE = Path(__file__).parent
templates = Environment(
    loader=FileSystemLoader(HERE / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
templates.filters["markdown"] = markdown


@cache
def version() -> str:
    """Changes with any static file, so that a browser never mixes old and new ones."""
    digest = hashlib.blake2b(digest_size=4)
    for file in sorted((HERE / "static").iterdir()):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def wants_json(request: Request) -> bool:
    """A script of ours says so; below /v1 a program asks, whatever it accepts."""
    path = request.url.path.removeprefix(request.scope.get("root_path", ""))
    return "application/json" in request.headers.get("accept", "") or path.startswith("/v1/")


def page(request: Request, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    state = request.state
    common = {
        "person": getattr(state, "person", None),
        "csrf": getattr(state, "csrf", ""),
        "root": request.scope.get("root_path", ""),
        "local": request.app.state.local,
        "bench": request.app.state.workbench is not None,
        "version": version(),
        "path": request.url.path,
    }
    return HTMLResponse(templates.get_template(template).render({**common, **values}), status)
