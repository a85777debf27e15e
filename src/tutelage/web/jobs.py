"""A project's jobs: what waits, runs, failed; begin labelers or fresh answers; stop, and try again."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response
from sqlalchemy.orm import Session as Db

from tutelage.feedback import jobs, rounds
from tutelage.feedback.projects import find_project
from tutelage.feedback.round_prompts import PROJECT, chosen_prompts, own_prompts
from tutelage.feedback.rounds import RoundSettings
from tutelage.feedback.schema import Job, Project
from tutelage.feedback.steps import LOG, tail
from tutelage.feedback.store import audit
from tutelage.web.access import LEADS, Denied, allow, decimal_field, number_field, text_field
from tutelage.web.models import RUNS, known_models, reward_models
from tutelage.web.pages import page

router = APIRouter(prefix="/projects/{project_id}/jobs")
OUT = RUNS / "jobs"
PANELS = ("world:fair", "world:careless")


@dataclass(frozen=True)
class Shown:
    """A job as the page tells it. can: the button that it has."""

    job: Job
    about: str
    standing: str
    log: str
    can: str


@router.get("")
@allow(*LEADS)
def all_jobs(request: Request, project_id: str) -> Response:
    return _page(request, project_id, "jobs.html")


@router.get("/status")
@allow(*LEADS)
def status(request: Request, project_id: str) -> Response:
    """The part of the page that is fetched anew every few seconds."""
    return _page(request, project_id, "job_list.html")


def _page(request: Request, project_id: str, template: str) -> Response:
    with request.app.state.store.read() as db:
        project = find_project(db, project_id)
        now = jobs.moment(db)
        found = [_shown(row, now) for row in jobs.listed(db, project_id)]
        own = len(own_prompts(db, project)) if template == "jobs.html" else 0
    scorers = reward_models()
    models = [model for model in known_models() if model not in scorers]
    labelers = [*PANELS, *(f"model:{spec}" for spec in scorers)]
    return page(
        request,
        template,
        project=project,
        jobs=found,
        own=own,
        models=models,
        labelers=labelers,
        settings=RoundSettings(),
        attempts=jobs.ATTEMPTS,
    )


def _shown(row: Job, now: float) -> Shown:
    can = "stop" if row.state in jobs.OPEN else "again" if row.state in ("failed", "stopped") else ""
    log = tail(Path(row.folder) / LOG) if row.folder and row.state == "failed" else ""
    about = jobs.KINDS.get(row.kind, row.kind)
    return Shown(
        row, f"{about} ({row.settings['by']})" if "by" in row.settings else about, jobs.standing(row, now), log, can
    )


@router.post("")
@allow(*LEADS)
def begin(request: Request, project_id: str) -> Response:
    """A lead chooses labelers and models among those there are; endpoints are for administrators, as in rounds."""
    kind = text_field(request, "kind", 16)
    if kind == "label":
        settings = {"by": _labelers(request)}
    elif kind == "sample":
        settings = _sampling(request)
    else:
        raise Denied(400, "Choose what to begin.")
    with request.app.state.store.write() as db:
        project = find_project(db, project_id)
        if kind == "sample":
            chosen_prompts(db, project, 1)  # refuses where there is none
        _put(db, request, project, kind, settings)
    return _to(request, project_id)


def _put(db: Db, request: Request, project: Project, kind: str, settings: dict[str, Any]) -> None:
    row = jobs.put(db, kind, project.id, settings, folder=OUT.resolve() / project.id / kind)
    if row is not None:  # its own folder: the number is known now
        folder = Path(row.folder) / str(row.id)
        folder.mkdir(parents=True, exist_ok=True)
        row.folder = str(folder)
        audit(db, request.state.person.id, "start job", f"{project.id}: {row.id}, {jobs.KINDS[kind]}")


def _labelers(request: Request) -> str:
    by = text_field(request, "by", 400)
    endpoint = by.startswith(("openai:", "anthropic:"))
    if endpoint and request.state.person.role != "admin":
        raise Denied(403, "Only an administrator names an endpoint.")
    if not endpoint and by not in PANELS and by.removeprefix("model:") not in reward_models():
        raise Denied(400, "Choose labelers of the list.")
    return by


def _sampling(request: Request) -> dict[str, Any]:
    model, endpoint = text_field(request, "model", 400), text_field(request, "endpoint", 400)
    if endpoint and request.state.person.role != "admin":
        raise Denied(403, "Only an administrator names an endpoint.")
    if endpoint and not endpoint.startswith(("openai:", "anthropic:")):
        raise Denied(400, "An endpoint is openai:URL#MODEL or anthropic:MODEL.")
    if not endpoint and model not in known_models():
        raise Denied(400, "Choose one of the models in the list.")
    model = endpoint or model
    wanted: dict[str, Any] = {name: number_field(request, name) for name in ("prompts", "samples", "max_new_tokens")}
    wanted["temperature"] = decimal_field(request, "temperature")
    RoundSettings(model=(model,), data=PROJECT, **wanted)  # the same limits
    return {"model": model, **wanted}


@router.post("/{job_id}")
@allow(*LEADS)
def change(request: Request, project_id: str, job_id: int) -> Response:
    """Stop a job, or begin one again that failed or was stopped."""
    to = text_field(request, "to", 16)
    if to not in ("stop", "again"):
        raise Denied(400, "A job can be stopped, or begun again.")
    with request.app.state.store.write() as db:
        project = find_project(db, project_id)
        row = jobs.job_of(db, job_id, project.id)
        rounds.change_job(db, row, to)
        audit(db, request.state.person.id, f"job: {to}", f"{project_id}: {row.id}")
    return _to(request, project_id)


def _to(request: Request, project_id: str) -> Response:
    return RedirectResponse(f"{request.scope.get('root_path', '')}/projects/{project_id}/jobs", 303)
