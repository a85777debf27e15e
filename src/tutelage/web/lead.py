"""The lead's pages: projects, what goes in and out, how far labelers agree."""

import io
import json
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response
from sqlalchemy.orm import Session as Db

from tutelage.errors import UserError
from tutelage.feedback.adjudication import causes
from tutelage.feedback.export import export_folder
from tutelage.feedback.imports import import_file
from tutelage.feedback.intake import Imported
from tutelage.feedback.items import skip_reasons
from tutelage.feedback.projects import change_project, create_project, find_project
from tutelage.feedback.quality import LEAST, project_weights, read_rankings, soft_labels
from tutelage.feedback.queue import set_overlap
from tutelage.feedback.reading import BadRows
from tutelage.feedback.schema import RATINGS, Project
from tutelage.feedback.statistics import progress
from tutelage.feedback.store import audit
from tutelage.web.access import LEADS, Denied, allow, number_field, text_field, uploaded
from tutelage.web.do_next import SHOWN, next_steps, open_items
from tutelage.web.models import known_models
from tutelage.web.pages import page
from tutelage.web.quality import PAPER_AGREEMENT, agreement_charts

router = APIRouter()


def _to(request: Request, project_id: str, said: str = "") -> Response:
    query = f"?said={said}" if said else ""
    return RedirectResponse(f"{request.scope.get('root_path', '')}/projects/{project_id}{query}", 303)


@router.post("/projects")
@allow(*LEADS)
def make_project(request: Request) -> Response:
    with request.app.state.store.write() as db:
        project = create_project(db, text_field(request, "name", 120), overlap=number_field(request, "overlap"))
        audit(db, request.state.person.id, "make project", project.id)
        made = project.id
    return _to(request, made)


SAID = {"imported": "Imported.", "same": "All of it was here already.", "saved": "Saved."}


@router.get("/projects/{project_id}")
@allow(*LEADS)
def project_page(request: Request, project_id: str, said: str = "") -> Response:
    return _project(request, project_id, "project.html", SAID.get(said, ""))


@router.get("/projects/{project_id}/status")
@allow(*LEADS)
def project_status(request: Request, project_id: str) -> Response:
    """The part of the page that is fetched anew every few seconds."""
    return _project(request, project_id, "status.html", "")


def _project(request: Request, project_id: str, template: str, said: str) -> Response:
    found = request.app.state.figures.of(project_id)
    with request.app.state.store.read() as db:
        project = find_project(db, project_id)
        now = progress(db, project, time.time())
        lowest = open_items(db, project, found["lowest"])
        steps = next_steps(db, project, now, lowest, found["labelers"])
        shown: dict[str, Any] = {"progress": now, "settled": causes(db, project), "steps": steps}
        shown |= {"reasons": skip_reasons(db, project), "judged": found.get("steps")}  # none in figures of before
    return page(
        request,
        template,
        project=project,
        said=said,
        fault="",
        least=LEAST,
        paper=PAPER_AGREEMENT,
        models=known_models(),
        ratings=RATINGS,
        charts=agreement_charts(found),
        **found | shown | {"lowest": lowest[:SHOWN]},
    )


@router.post("/projects/{project_id}/settings")
@allow(*LEADS)
def settings(request: Request, project_id: str) -> Response:
    with request.app.state.store.write() as db:
        project = find_project(db, project_id)
        template = text_field(request, "template", 400) or project.template
        if template not in (*known_models(), project.template):
            raise Denied(400, "Choose one of the models in the list.")
        overlap = number_field(request, "overlap")
        change_project(
            project,
            template=template,
            answers_as=text_field(request, "answers_as", 16) or project.answers_as,
            rating=text_field(request, "rating", 16) or project.rating,
            max_tokens=number_field(request, "max_tokens")
            if "max_tokens" in request.state.sent
            else project.max_tokens,
            overlap=overlap,
            gold_every=number_field(request, "gold_every"),
            lease_seconds=60 * number_field(request, "lease_minutes"),
            instructions=text_field(request, "instructions", 20_000),
            screening=text_field(request, "screening", 1) == "1",
        )
        changed = set_overlap(db, project, overlap) if text_field(request, "overlap_all", 1) == "1" else 0
        audit(db, request.state.person.id, "change project", f"{project_id}{f': {changed} items' if changed else ''}")
    return _to(request, project_id, "saved")


@router.post("/projects/{project_id}/pause")
@allow(*LEADS)
def pause(request: Request, project_id: str) -> Response:
    with request.app.state.store.write() as db:
        project = find_project(db, project_id)
        change_project(project, paused=text_field(request, "paused", 1) == "1")
        audit(db, request.state.person.id, "pause" if project.paused else "resume", project_id)
    return _to(request, project_id)


def store_upload(request: Request, project_id: str, add: Callable[[Db, Project, Path], Imported]) -> Imported:
    """What `add` makes of an uploaded file; its name only says its kind, and no path of it is used."""
    file = uploaded(request, "file")
    name = (file.filename or "").lower()
    kinds = (".jsonl", ".jsonl.gz", ".json", ".parquet")
    kind = next((kind for kind in kinds if name.endswith(kind)), None)
    if kind is None:
        raise UserError("the file is of no known kind", mend=f"give {', '.join(kinds)}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"upload{kind}"
        path.write_bytes(file.file.read())
        try:
            with request.app.state.store.write() as db:
                done = add(db, find_project(db, project_id), path)
                audit(db, request.state.person.id, "import", f"{project_id}: {done.tasks} tasks")
        except BadRows as error:
            raise BadRows([_of_the_file(one, path) for one in error.faults], "the file") from error
        except UserError as error:
            raise _of_the_file(error, path) from error
    return done


def _of_the_file(error: UserError, path: Path) -> UserError:
    """The error without our folder in it."""
    said = [text.replace(str(path), "the file") for text in (error.what, error.where or "")]
    return UserError(said[0], where=said[1], mend=error.mend)


@router.post("/projects/{project_id}/import")
@allow(*LEADS)
def upload(request: Request, project_id: str) -> Response:
    """A file of prompts and completions, of gold items, or of answers that were given elsewhere."""
    tasks = text_field(request, "tasks", 16)
    gold, answers = tasks == "gold", tasks == "answers"
    kind = "rank" if gold or answers else tasks
    done = store_upload(
        request,
        project_id,
        lambda db, project, path: import_file(db, project, path, kind, gold=gold, answers=answers),
    )
    return _to(request, project_id, "imported" if done.tasks or done.answers or done.prompts else "same")


@router.get("/projects/{project_id}/export")
@allow(*LEADS, scope="export")
def download(request: Request, project_id: str, weights: bool = False, soft: bool = False) -> Response:
    """A folder that `tutelage reward --data` reads, zipped."""
    with tempfile.TemporaryDirectory() as folder, request.app.state.store.read() as db:
        project = find_project(db, project_id)
        given = project_weights(db, project) if weights else None
        labels = soft_labels(read_rankings(db, project)) if soft else None
        export_folder(db, project, Path(folder), given, labels)
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(Path(folder).rglob("*")):
                if file.is_file():
                    archive.write(file, Path(project.id) / file.relative_to(folder))
            if given is not None:
                archive.writestr(f"{project.id}/labels/weights.json", json.dumps(given, indent=2))
    with request.app.state.store.write() as db:
        audit(db, request.state.person.id, "export", project.id)
    name = f"{project.id}.zip"
    return Response(
        packed.getvalue(),
        media_type="application/zip",
        headers={"content-disposition": f'attachment; filename="{name}"'},
    )
