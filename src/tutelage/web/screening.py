"""The screening: where a labeler stands with it, and what a lead makes of it."""

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from tutelage.feedback import screening
from tutelage.feedback.projects import find_project
from tutelage.feedback.store import audit
from tutelage.web.access import EVERYBODY, LEADS, Denied, allow, text_field
from tutelage.web.lead import SAID, store_upload
from tutelage.web.pages import page

router = APIRouter()


@router.get("/p/{project_id}/screening")
@allow(*EVERYBODY)
def mine(request: Request, project_id: str) -> Response:
    person_id = request.state.person.id
    with request.app.state.store.read() as db:
        project = find_project(db, project_id)
        state = screening.screening_state(db, project, person_id)
        own = next((one for one in screening.results(db, project) if one.person_id == person_id), None)
        parts, worked = screening.parts(db, project, person_id), screening.examples(db, project)
    return page(request, "screening.html", project=project, state=state, own=own, parts=parts, worked=worked)


@router.get("/projects/{project_id}/screening")
@allow(*LEADS)
def everybody(request: Request, project_id: str, said: str = "") -> Response:
    with request.app.state.store.read() as db:
        project = find_project(db, project_id)
        people, parts = screening.results(db, project), screening.parts(db, project)
        worked = screening.examples(db, project)
    told = SAID.get(said, "")
    return page(request, "screened.html", project=project, people=people, parts=parts, worked=worked, said=told)


def _back(request: Request, project_id: str, said: str) -> Response:
    return RedirectResponse(f"{request.scope.get('root_path', '')}/projects/{project_id}/screening?said={said}", 303)


@router.post("/projects/{project_id}/screening-import")
@allow(*LEADS)
def upload(request: Request, project_id: str) -> Response:
    part = text_field(request, "part", 16)
    if part not in ("test", "example"):
        raise Denied(400, "Add items of the test, or worked examples.")
    done = store_upload(
        request, project_id, lambda db, project, path: screening.import_screening(db, project, path, part)
    )
    return _back(request, project_id, "imported" if done.tasks else "same")


@router.post("/projects/{project_id}/screening/{person_id}")
@allow(*LEADS)
def decide(request: Request, project_id: str, person_id: str) -> Response:
    """Let somebody in, or not, with the ratings of their texts."""
    sent, admit = request.state.sent, text_field(request, "admit", 1) == "1"
    scores = {k.removeprefix("score_"): v for k, v in sent.items() if k.startswith("score_") and v}
    if not all(task.isdecimal() and isinstance(v, str) and v.isdecimal() and len(v) == 1 for task, v in scores.items()):
        raise Denied(400, "A rating is from 1 to 7.")
    with request.app.state.store.write() as db:
        project = find_project(db, project_id)
        ratings = {task: int(v) for task, v in scores.items()}
        screening.decide(db, project, person_id, request.state.person.id, admit=admit, scores=ratings)
        audit(db, request.state.person.id, "admit" if admit else "decline", f"{project_id}: {person_id}")
    return _back(request, project_id, "saved")
