"""A project's items for a lead: find them, read what was written, see why some were skipped."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from tutelage.feedback.items import SHOWN, find_items
from tutelage.feedback.projects import find_project
from tutelage.web.access import LEADS, Denied, allow
from tutelage.web.pages import page

router = APIRouter()
Words = Annotated[str, Query(max_length=200)]
Page = Annotated[int, Query(ge=1, le=100_000)]


@router.get("/projects/{project_id}/items")
@allow(*LEADS)
def items(request: Request, project_id: str, show: str = "all", q: Words = "", at: Page = 1) -> Response:
    if show not in SHOWN or "\x00" in q:
        raise Denied(400, "Choose one of the lists.")
    with request.app.state.store.read() as db:
        project = find_project(db, project_id)
        found, more = find_items(db, project, show, q.strip(), at)
    return page(request, "items.html", project=project, items=found, more=more, lists=SHOWN, show=show, q=q, at=at)
