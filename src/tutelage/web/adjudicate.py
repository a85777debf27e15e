"""The lead's page for items on which labelers differ: order first, then see, then settle."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from fastapi.responses import RedirectResponse, Response
from sqlalchemy import select
from sqlalchemy.orm import Session as Db

from tutelage.feedback import adjudication, schema
from tutelage.feedback.answers import AnswerError, groups_in
from tutelage.feedback.export import settlements
from tutelage.feedback.projects import find_project
from tutelage.feedback.queue import Refused
from tutelage.feedback.ranking import LETTERS, RankingError, groups_of, ranks_of, shown_cards, write_ranking
from tutelage.feedback.schema import Person, Project, Task
from tutelage.feedback.store import audit
from tutelage.web.access import LEADS, allow, text_field
from tutelage.web.pages import page

router = APIRouter(prefix="/projects/{project_id}/adjudicate")
Number = Annotated[int, Path(ge=1, le=2**53)]


@router.get("")
@allow(*LEADS)
def contested(request: Request, project_id: str) -> Response:
    with request.app.state.store.read() as db:
        project = find_project(db, project_id)
        rows, counts = adjudication.contested(db, project), adjudication.causes(db, project)
        done = [(one, _prompt(db, project, one.task_id)) for one in settlements(db, project).values()]
    return page(request, "contested.html", project=project, rows=rows, counts=counts, done=done, causes=CAUSES)


CAUSES = adjudication.CAUSES


def _prompt(db: Db, project: Project, task_id: int) -> str:
    task = db.get_one(Task, task_id)
    return db.get_one(schema.Prompt, (project.id, task.prompt_id)).messages[-1]["content"][:120]


def _item(db: Db, project: Project, task_id: int, person_id: str) -> tuple[Task, list[str], list[list[int]]]:
    """The item, its texts, and the cards in an order drawn for this lead."""
    task = db.get(Task, task_id)
    if task is None or task.project_id != project.id or task.kind != "rank" or task.is_gold:
        raise Refused("This item cannot be settled.")
    texts = [db.get_one(schema.Completion, (project.id, name)).text for name in task.completions]
    return task, texts, shown_cards(texts, project.seed, "settle", task.key, person_id)


@router.get("/{task_id}")
@allow(*LEADS)
def item(request: Request, project_id: str, task_id: Number) -> Response:
    return _page(request, project_id, task_id)


def _page(request: Request, project_id: str, task_id: int, fault: str = "") -> Response:
    person_id = request.state.person.id
    with request.app.state.store.read() as db:
        project = find_project(db, project_id)
        task, texts, cards = _item(db, project, task_id, person_id)
        prompt = db.get_one(schema.Prompt, (project.id, task.prompt_id))
        mine = adjudication.begun(db, project, task_id, person_id)
        last = settlements(db, project).get(task_id)
        found: list[dict[str, Any]] = []
        proposal = ""
        if mine is not None:  # only now what others said
            given = adjudication.votes(db, project, task_id)
            names = dict(db.execute(select(Person.id, Person.name)).tuples().all())
            found = adjudication.shown_votes(given, names if mine.cause else None)
            if given:
                proposal = write_ranking(groups_of(adjudication.proposed(db, project, given), cards))
        chosen = request.state.sent if fault else {}
        others = [row.task for row in adjudication.contested(db, project) if row.task != task_id] if mine else []
    for one in found:
        one["line"] = write_ranking(groups_of(one["ranks"], cards)) or "all bad"
    return page(
        request,
        "adjudicate.html",
        status=422 if fault else 200,
        project=project,
        task=task,
        prompt=prompt,
        cards=[(letter, texts[card[0]], len(card)) for letter, card in zip(LETTERS, cards, strict=False)],
        own=write_ranking(groups_of(mine.own, cards)) if mine else "",
        votes=found,
        consensus=proposal,
        settled=last if last is not None and mine is not None and mine.cause else None,
        decision=write_ranking(groups_of(last.ranks or [], cards)) if last else "",
        causes=CAUSES,
        fault=fault,
        chosen={name: value for name in ("cause", "note", "other") if isinstance(value := chosen.get(name, ""), str)},
        next=others[0] if others else None,
    )


@router.post("/{task_id}/order")
@allow(*LEADS)
def order(request: Request, project_id: str, task_id: Number) -> Response:
    """The lead's own order, before anything of others is shown."""
    person_id = request.state.person.id
    try:
        with request.app.state.store.write() as db:
            project = find_project(db, project_id)
            adjudication.order_first(db, project, task_id, person_id, _sent_ranks(request, db, project, task_id))
    except (RankingError, AnswerError) as error:
        return _page(request, project_id, task_id, f"{str(error).rstrip('.')}.")
    return _to(request, project_id, f"/{task_id}")


@router.post("/{task_id}/settle")
@allow(*LEADS)
def settle(request: Request, project_id: str, task_id: Number) -> Response:
    person_id, cause = request.state.person.id, text_field(request, "cause", 16)
    try:
        with request.app.state.store.write() as db:
            project = find_project(db, project_id)
            if text_field(request, "other", 60):  # an order that nobody gave
                request.state.sent["ranking"] = text_field(request, "other", 60)
            ranks, note = _sent_ranks(request, db, project, task_id), text_field(request, "note", 2000)
            adjudication.settle(db, project, task_id, person_id, ranks, cause, note)
            audit(db, person_id, "settle", f"{project_id}, item {task_id}: {cause}")
    except (RankingError, AnswerError, Refused) as error:
        return _page(request, project_id, task_id, f"{str(error).rstrip('.')}.")
    return _to(request, project_id, f"/{task_id}")


def _sent_ranks(request: Request, db: Db, project: Project, task_id: int) -> list[int | None]:
    """The order that the form holds, of two answers or more, as ranks of the item's completions."""
    _, _, cards = _item(db, project, task_id, request.state.person.id)
    groups = groups_in(request.state.sent, LETTERS[: len(cards)])
    if sum(map(len, groups)) < 2:
        raise RankingError("Rank two answers or more")
    return ranks_of(groups, cards)


def _to(request: Request, project_id: str, rest: str) -> Response:
    return RedirectResponse(f"{request.scope.get('root_path', '')}/projects/{project_id}/adjudicate{rest}", 303)
