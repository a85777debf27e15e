"""The labeler's pages: what to do next, rank, write, judge steps, and one's own answers."""

import re
import time
import uuid
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response
from sqlalchemy.orm import Session as Db

from tutelage.feedback import queue, screening
from tutelage.feedback.answers import (
    LONGEST_ANSWER,
    MOST_TURNS,
    SKIP_REASONS,
    AnswerError,
    checked,
    checked_effort,
)
from tutelage.feedback.preview import preview
from tutelage.feedback.projects import find_project
from tutelage.feedback.queue import Work
from tutelage.feedback.ranking import CATEGORIES, groups_of, write_ranking
from tutelage.feedback.schema import KINDS, Answer
from tutelage.feedback.statistics import my_projects
from tutelage.records import FLAGS
from tutelage.web.access import EVERYBODY, Denied, allow
from tutelage.web.differences import differences
from tutelage.web.pages import page, wants_json

router = APIRouter()
Number = Annotated[int, Path(ge=1, le=2**53)]
Items = Annotated[str, Query(pattern=r"^([0-9]{1,15}(,[0-9]{1,15}){0,19})?$")]  # numbers with commas between
EMPTY: dict[str, Any] = {  # what a form begins with, and of which types
    "ranking": "",
    "rest_below": False,
    "all_bad": False,
    "ratings": {},
    "flags": {},
    "category": "",
    "note": "",
    "answer": "",
    "turns": [],
    "labels": [],
    "sensitive": "",
    "piles": {},
    "prefilled": 0,
    "tied": [],
}
TITLES = {"rank": "Rank", "demonstrate": "Write", "steps": "Steps", "flag": "Sensitive?"}


@router.get("/")
@allow(*EVERYBODY)
def home(request: Request) -> Response:
    return _home(request)


def _home(request: Request, nothing: str = "", practise: str = "") -> Response:
    """practise: a project that has worked examples, where there is nothing to label now."""
    with request.app.state.store.read() as db:
        projects = my_projects(db, request.state.person.id)
    return page(request, "home.html", projects=projects, nothing=nothing, practise=practise)


@router.get("/p/{project_id}/next")
@allow(*EVERYBODY, scope="label")
def next_item(request: Request, project_id: str, besides: Items = "") -> Response:
    """Lease an item. With `besides` (the items worked on or at hand) another one is leased, to be at hand later."""
    with request.app.state.store.write() as db:
        project = find_project(db, project_id)
        task = queue.lease_next(db, project, request.state.person.id, besides=_numbers(besides))
        number = task.id if task is not None else None
        paused = project.paused
        worked = number is None and bool(screening.examples(db, project))
        screened = screening.must_screen(db, project, request.state.person.id)
        if screened and number is None and not besides:
            screening.hand_in(db, project, request.state.person.id)
    if wants_json(request):
        return JSONResponse({"task": number})
    if number is None and screened and not paused:
        return RedirectResponse(f"{request.scope.get('root_path', '')}/p/{project_id}/screening", 303)
    if number is None:
        return _home(request, "paused" if paused else "done", project_id if worked else "")
    return RedirectResponse(f"{request.scope.get('root_path', '')}/t/{number}", 303)


def _numbers(items: str) -> list[int]:
    return [int(number) for number in items.split(",") if number]


@router.get("/p/{project_id}/mine")
@allow(*EVERYBODY, scope="label")
def mine(request: Request, project_id: str) -> Response:
    """One's own answers, to look at and to correct."""
    with request.app.state.store.read() as db:
        project = find_project(db, project_id)
        answers = queue.history(db, project_id, request.state.person.id)
        rows = [_told(db, answer) for answer in answers]
    return page(request, "mine.html", project=project, rows=rows)


def _told(db: Db, answer: Answer) -> dict[str, Any]:
    work = queue.work_on(db, answer.task_id, answer.person_id)
    payload = answer.payload
    if answer.kind == "rank":
        told = write_ranking(groups_of(payload["ranks"], work.cards)) or "all bad"
    elif answer.kind == "skip":
        told = f"skipped: {SKIP_REASONS[payload['reason']]}"
    elif answer.kind == "flag":
        told = "sensitive" if payload["sensitive"] else "not sensitive"
    elif answer.kind == "steps":
        told = " ".join({1: "right", 0: "neutral", -1: "wrong"}[label] for label in payload["labels"])
    else:
        told = payload["messages"][-1]["content"][:120]
    when = time.strftime("%Y-%m-%d %H:%M", time.gmtime(answer.created))
    return {"task": answer.task_id, "prompt": work.prompt.messages[-1]["content"][:120], "told": told, "when": when}


@router.get("/t/{task_id}")
@allow(*EVERYBODY, scope="label")
def item(request: Request, task_id: Number, after: Items = "") -> Response:
    """The page of an item. With `after` it is fetched ahead, and tells how things stand once those are answered."""
    person_id = request.state.person.id
    with request.app.state.store.read() as db:
        work = queue.work_on(db, task_id, person_id)
        if wants_json(request):
            return JSONResponse(_as_json(request, work))
        mine = queue.answered(db, work.project.id, person_id)
        done, total = queue.my_count(db, work.project, person_id)
        worked = screening.examples(db, work.project)
    if first := [number for number in _numbers(after) if number not in mine]:
        return _item_page(request, work, mine, done + len(first), total, worked, before=first[-1])
    return _item_page(request, work, mine, done, total, worked)


def _item_page(
    request: Request,
    work: Work,
    mine: list[int],
    done: int,
    total: int,
    worked: list[dict[str, Any]],
    *,
    faults: dict[str, str] | None = None,
    sent: dict[str, Any] | None = None,
    before: int | None = None,
) -> Response:
    given = _start(work, sent)
    tasks = mine[::-1]
    here = tasks.index(work.task.id) if work.task.id in tasks else len(tasks)
    return page(
        request,
        f"{work.task.kind}.html",
        status=422 if faults else 200,
        work=work,
        title=("Screening: " if work.task.part == "test" else "") + TITLES[work.task.kind],
        worked=worked,
        done=done,
        total=total,
        given=given,
        start=EMPTY | given,
        faults=faults or {},
        earlier=before or (tasks[here - 1] if here > 0 else None),
        later=tasks[here + 1] if here + 1 < len(tasks) else None,
        flags=FLAGS,
        categories=CATEGORIES,
        reasons=SKIP_REASONS,
        ids={"answer": uuid.uuid4().hex, "skip": uuid.uuid4().hex},
        minutes=max(0, round((work.assignment.expires - time.time()) / 60)),
    )


def _start(work: Work, sent: dict[str, Any] | None) -> dict[str, Any]:
    """What the form begins with: what was just refused, a draft, the earlier answer, or nothing."""
    if sent is not None or work.draft is not None:
        found = sent if sent is not None else work.draft.payload if work.draft else {}
        return {name: value for name, value in found.items() if name in EMPTY and type(value) is type(EMPTY[name])}
    if work.answer is None or work.answer.kind == "skip":
        return {}
    payload = work.answer.payload
    if work.task.kind == "steps":
        return {"labels": payload["labels"]}
    if work.task.kind == "flag":
        return {"sensitive": str(int(payload["sensitive"]))}
    if work.task.kind == "demonstrate":
        return {"turns": [m["content"] for m in payload["messages"][len(work.prompt.messages) :]]}
    letters = list(zip(work.letters, work.cards, strict=True))
    kept: dict[str, Any] = {n: payload.get(n) or EMPTY[n] for n in ("rest_below", "all_bad", "category", "note")}
    for name in ("ratings", "flags"):
        if payload.get(name):
            kept[name] = {letter: v for letter, card in letters if (v := payload[name][card[0]])}
    return {"ranking": write_ranking(groups_of(payload["ranks"], work.cards)), **kept}


def _as_json(request: Request, work: Work) -> dict[str, Any]:
    """The item for a labeler that is a program: what the page shows and no more."""
    return {
        "task": work.task.id,
        "project": work.project.id,
        "kind": work.task.kind,
        "messages": work.prompt.messages,
        "answers": {letter: work.texts[card[0]] for letter, card in zip(work.letters, work.cards, strict=True)},
        "cut_off": [x for x, card in zip(work.letters, work.cards, strict=True) if work.finishes[card[0]] == "length"],
        "steps": work.task.steps,
        "rating": work.rating,
        "text": work.texts[0] if work.task.kind == "flag" else None,
        "csrf": request.state.csrf,
    }


@router.post("/t/{task_id}/answer")
@allow(*EVERYBODY, scope="label")
def answer(request: Request, task_id: Number) -> Response:
    """Store an answer: once for each id, whatever the network repeats. Form posts go on to the next item."""
    sent, person_id = request.state.sent, request.state.person.id
    answer_id = sent.get("id")
    if not isinstance(answer_id, str) or not re.fullmatch(r"[A-Za-z0-9_-]{8,64}", answer_id):
        raise Denied(400, "The answer has no number.")
    kind = sent.get("kind", "")
    if kind not in (*KINDS, "skip"):
        raise Denied(400, "The answer is of no known kind.")
    seconds = sent.get("seconds")
    seconds = float(seconds) if isinstance(seconds, int | float) and 0 <= seconds < 1e6 else None
    fields = _unfolded(sent)
    with request.app.state.store.write() as db:
        work = queue.work_on(db, task_id, person_id)
        project_id = work.project.id
        try:
            payload = checked(kind, fields, work)
        except AnswerError as error:
            if wants_json(request):
                return JSONResponse({"error": str(error), "faults": error.faults}, 422)
            mine = queue.answered(db, project_id, person_id)
            done, total = queue.my_count(db, work.project, person_id)
            worked = screening.examples(db, work.project)
            return _item_page(request, work, mine, done, total, worked, faults=error.faults, sent=fields)
        effort = checked_effort(sent.get("effort"))
        stored = queue.submit(
            db, answer_id, task_id, person_id, kind, payload, effort=effort, seconds=seconds, work=work
        )
        extra = stored.extra
    if wants_json(request):
        return JSONResponse({"stored": answer_id, "extra": extra})
    return RedirectResponse(f"{request.scope.get('root_path', '')}/p/{project_id}/next", 303)


def _unfolded(sent: dict[str, Any]) -> dict[str, Any]:
    """A form's `rating_A` and `flags_A[]` as the mappings that JSON sends."""
    fields = {k: v for k, v in sent.items() if not k.startswith(("rating_", "flags_"))}
    for name, folded in (("rating_", "ratings"), ("flags_", "flags")):
        if found := {k.removeprefix(name): v for k, v in sent.items() if k.startswith(name) and v}:
            numbers = {k: int(v) if str(v).isdecimal() and len(str(v)) == 1 else v for k, v in found.items()}
            fields.setdefault(folded, numbers)
    return fields


@router.post("/t/{task_id}/draft")
@allow(*EVERYBODY, scope="label")
def draft(request: Request, task_id: Number) -> Response:
    revision, payload = request.state.sent.get("revision"), request.state.sent.get("payload")
    if not isinstance(revision, int) or isinstance(revision, bool) or not isinstance(payload, dict):
        raise Denied(400, "A draft needs a revision and a payload.")
    if not 0 <= revision < 2**31:
        raise Denied(400, "The revision cannot be used.")
    with request.app.state.store.write() as db:
        new = queue.save_draft(db, task_id, request.state.person.id, revision, payload)
    return JSONResponse({"revision": new})


@router.post("/t/{task_id}/preview")
@allow(*EVERYBODY, scope="label")
def show_preview(request: Request, task_id: Number) -> Response:
    """The conversation with these turns as the model sees it, and how many tokens it has."""
    with request.app.state.store.read() as db:
        work = queue.work_on(db, task_id, request.state.person.id)
    turns = request.state.sent.get("turns")
    whole = isinstance(turns, list) and len(turns) <= MOST_TURNS and all(isinstance(turn, str) for turn in turns)
    if not whole or len(turns) % 2 == 0 or sum(map(len, turns)) > LONGEST_ANSWER:
        raise Denied(400, "A preview needs turns that end with an answer.")
    said = [{"role": "user" if i % 2 else "assistant", "content": turn} for i, turn in enumerate(turns)]
    found = preview(work.project.template, [*work.prompt.messages, *said])
    limit = work.project.max_tokens
    return JSONResponse({"text": found.text, "tokens": found.tokens, "answer": found.answer, "limit": limit})


@router.post("/t/{task_id}/lease")
@allow(*EVERYBODY, scope="label")
def lease(request: Request, task_id: Number) -> Response:
    with request.app.state.store.write() as db:
        return JSONResponse({"lease": queue.renew(db, task_id, request.state.person.id)})


@router.get("/t/{task_id}/differences/{a}/{b}")
@allow(*EVERYBODY, scope="label")
def show_differences(request: Request, task_id: Number, a: str, b: str) -> Response:
    """What card b says otherwise than card a, as marked text."""
    with request.app.state.store.read() as db:
        work = queue.work_on(db, task_id, request.state.person.id)
    if a not in work.letters or b not in work.letters or len(a + b) != 2:
        raise Denied(404, "There is no such answer.")
    texts = [work.texts[work.cards[work.letters.index(letter)][0]] for letter in (a, b)]
    return page(request, "differences.html", a=a, b=b, pieces=differences(*texts))
