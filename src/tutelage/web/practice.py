"""Practice on a project's worked examples: order the answers, then see our order and why. Nothing of it is kept."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response
from sqlalchemy.orm import Session as Db

from tutelage.feedback import screening
from tutelage.feedback.answers import AnswerError, groups_in
from tutelage.feedback.projects import find_project
from tutelage.feedback.ranking import LETTERS, RankingError, groups_of, ranks_of, shown_cards, write_ranking
from tutelage.feedback.schema import Project
from tutelage.web.access import EVERYBODY, Denied, allow
from tutelage.web.pages import page

router = APIRouter()
Number = Annotated[int, Path(ge=1, le=2**31)]


@router.get("/p/{project_id}/practise/{number}")
@allow(*EVERYBODY)
def example(request: Request, project_id: str, number: Number) -> Response:
    with request.app.state.store.read() as db:
        return page(request, "practise.html", **_shown(db, request, project_id, number))


@router.post("/p/{project_id}/practise/{number}")
@allow(*EVERYBODY)
def compare(request: Request, project_id: str, number: Number) -> Response:
    """The labeler's order beside ours: each two answers that both orders tell apart are a pair."""
    with request.app.state.store.read() as db:
        shown = _shown(db, request, project_id, number)
    ours, cards = shown["one"]["ranks"], shown["order"]
    try:
        own = ranks_of(groups_in(request.state.sent, LETTERS[: len(cards)]), cards)
        if sum(rank is not None for rank in own) < 2:
            raise RankingError("Rank two answers or more")
    except (RankingError, AnswerError) as error:
        return page(request, "practise.html", status=422, **shown | {"fault": f"{str(error).rstrip('.')}."})
    right, pairs = screening.pairs_alike(own, ours)
    lines = {name: write_ranking(groups_of(ranks, cards)) for name, ranks in (("own", own), ("ours", ours))}
    return page(request, "practise.html", **shown | lines | {"right": right, "pairs": pairs})


def _shown(db: Db, request: Request, project_id: str, number: int) -> dict[str, Any]:
    """What the page needs before an order was given; `order` are the places behind each letter, drawn for this person."""
    project: Project = find_project(db, project_id)
    found = screening.examples(db, project)
    if number > len(found):
        raise Denied(404, "There is no such example.")
    one = found[number - 1]
    order = shown_cards(one["texts"], project.seed, "practise", str(number), request.state.person.id)
    cards = [(letter, one["texts"][card[0]], len(card)) for letter, card in zip(LETTERS, order, strict=False)]
    state = screening.screening_state(db, project, request.state.person.id)
    empty = {"fault": "", "own": "", "ours": "", "right": 0, "pairs": 0}
    return empty | {
        "project": project,
        "number": number,
        "total": len(found),
        "one": one,
        "order": order,
        "cards": cards,
        "on": "screening" if state in ("new", "open") else "next",
    }
