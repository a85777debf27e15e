"""POST /v1/feedback: thumbs and edits of single answers into the store, from the chat page and from programs."""

import hmac
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from tutelage.data.validation import check_messages, check_text
from tutelage.errors import UserError
from tutelage.feedback.thumbs import give_feedback, undo_feedback
from tutelage.web.access import PUBLIC, Denied, allow, bearer

router = APIRouter(prefix="/v1/feedback")
LONGEST = 100_000  # characters


def _require_sender(request: Request) -> None:
    """A browser shows its session's token. A program on this machine needs none where nobody has an account: what a
    browser sends names its origin, and other sites' origins are refused before this."""
    if request.state.person is None:
        raise Denied(401, "Sign in first.")
    if bearer(request) is not None:  # a program's token, whose scope was looked at before
        return
    browser = "origin" in request.headers or "sec-fetch-site" in request.headers
    given = request.headers.get("x-csrf-token", "")
    right = hmac.compare_digest(given.encode(), request.state.csrf.encode())
    if not right and (browser or not request.app.state.local):
        raise Denied(403, "This form is out of date. Load the page again; your work is kept.")


@router.post("")
@allow(PUBLIC, scope="feedback")
def give(request: Request) -> Response:
    """{"messages", "completion", "thumb": "up" | "down" or "edit": text, "model"?, "id"?} → {"id"}. An edit may come
    without the completion that it betters."""
    _require_sender(request)
    sent: dict[str, Any] = request.state.sent
    unknown = sorted(sent.keys() - {"messages", "completion", "thumb", "edit", "model", "id"})
    if unknown:
        raise UserError("is not known", where=f"field {unknown[0]}", mend="see the page on feedback")
    turns = check_messages(sent.get("messages"), "field messages")
    if turns[-1]["role"] == "assistant":
        raise UserError("end with the assistant's turn", where="field messages", mend="put it into completion")
    if any("\x00" in turn["content"] for turn in turns):
        raise UserError("hold a character that cannot be stored (NUL)", where="field messages", mend="take it out")
    thumb, completion = sent.get("thumb"), _text(sent, "completion")
    if thumb not in (None, "up", "down"):
        raise UserError(f"is {thumb!r}", where="field thumb", mend="give up or down")
    if thumb is not None and completion is None:
        raise UserError("is missing", where="field completion", mend="give the answer that the thumb is for")
    with request.app.state.store.write() as db:
        stored = give_feedback(
            db,
            request.state.person.id,
            turns,
            completion or "",
            thumb=None if thumb is None else thumb == "up",
            edit=_text(sent, "edit"),
            model=_text(sent, "model", 400),
            id=_text(sent, "id", 64),
        )
    return JSONResponse({"id": stored})


@router.post("/{id}/undo")
@allow(PUBLIC, scope="feedback")
def undo(request: Request, id: str) -> Response:
    _require_sender(request)
    with request.app.state.store.write() as db:
        undo_feedback(db, request.state.person.id, id)
    return JSONResponse({"undone": id})


def _text(sent: dict[str, Any], name: str, longest: int = LONGEST) -> str | None:
    value = sent.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > longest or "\x00" in value:
        raise Denied(400, f"The field {name} cannot be used.")
    return check_text(value, f"field {name}")
