"""Rounds of a project: begin one, watch it, go on."""

import time

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from tutelage.feedback import rounds
from tutelage.feedback.projects import find_project
from tutelage.feedback.round_prompts import PROJECT, chosen_prompts, own_prompts
from tutelage.feedback.rounds import RoundSettings
from tutelage.feedback.store import audit
from tutelage.web.access import LEADS, Denied, allow, decimal_field, list_field, number_field, text_field
from tutelage.web.models import RUNS, known_models, reward_models
from tutelage.web.pages import page

router = APIRouter(prefix="/projects/{project_id}/rounds")
OUT = RUNS / "rounds"
SOURCES = ("world", PROJECT)  # of prompts; files and folders are for the command line


@router.get("")
@allow(*LEADS)
def all_rounds(request: Request, project_id: str) -> Response:
    return _page(request, project_id, "rounds.html")


@router.get("/status")
@allow(*LEADS)
def status(request: Request, project_id: str) -> Response:
    """The part of the page that is fetched anew every few seconds."""
    return _page(request, project_id, "round.html")


def _page(request: Request, project_id: str, template: str) -> Response:
    with request.app.state.store.read() as db:
        project = find_project(db, project_id)
        found = rounds.standings(db, project, time.time())
        own = 0 if template == "round.html" else len(own_prompts(db, project))
    settings = found[0].settings if found else RoundSettings()
    policy = found[0].result.get("policy") if found else None
    scorers = reward_models()
    models = [model for model in known_models() if model not in scorers]
    chosen = policy or settings.model[0]
    return page(
        request,
        template,
        project=project,
        rounds=found,
        settings=settings,
        models=models if chosen in models else [*models, chosen],
        chosen=chosen,
        recipes=rounds.RECIPES,
        own=own,
        data=("world" if not own else settings.data if found and settings.data in SOURCES else PROJECT),
        scorers=scorers,
    )


@router.post("")
@allow(*LEADS)
def begin(request: Request, project_id: str) -> Response:
    """A lead chooses among the runs there are; addresses of endpoints and labelers are for administrators."""
    admin = request.state.person.role == "admin"
    models = [model for name in ("model", "second") if (model := text_field(request, name, 400))]
    endpoint, by = text_field(request, "endpoint", 400), text_field(request, "by", 400)
    if not set(models) <= {*known_models(), *_last_policy(request, project_id)}:
        raise Denied(400, "Choose one of the models in the list.")
    if (endpoint or (by and not by.startswith("world:"))) and not admin:
        raise Denied(403, "Only an administrator names an endpoint.")
    if endpoint and not endpoint.startswith(("openai:", "anthropic:")):
        raise Denied(400, "An endpoint is openai:URL#MODEL or anthropic:MODEL.")
    data = text_field(request, "data", 20)
    if data not in SOURCES:
        raise Denied(400, "Choose where the prompts come from.")
    ensemble = list_field(request, "ensemble")
    if not set(ensemble) <= set(reward_models()):
        raise Denied(400, "Choose reward models of the list.")
    recipe = text_field(request, "recipe", 40)
    if recipe not in rounds.RECIPES:
        raise Denied(400, "Choose what to train.")
    with request.app.state.store.write() as db:
        project = find_project(db, project_id)
        settings = RoundSettings(
            model=(*models, endpoint) if endpoint else tuple(models),
            base=models[0] if models else "",
            data=data,
            prompts=number_field(request, "prompts"),
            samples=number_field(request, "samples"),
            max_new_tokens=number_field(request, "max_new_tokens"),
            temperature=decimal_field(request, "temperature"),
            ensemble=tuple(ensemble),
            recipe=recipe,
            by=by,
        )
        if data == PROJECT:
            chosen_prompts(db, project, 1)  # refuses where there is none
        row = rounds.start_round(db, project, settings, OUT, waits=True)
        rounds.enqueue(db, row)
        audit(db, request.state.person.id, "start round", f"{project_id}: {row.number}")
    return _to(request, project_id)


def _last_policy(request: Request, project_id: str) -> list[str]:
    with request.app.state.store.read() as db:
        last = rounds.last_round(db, find_project(db, project_id))
    return [last.result["policy"]] if last is not None and last.result.get("policy") else []


@router.post("/state")
@allow(*LEADS)
def change(request: Request, project_id: str) -> Response:
    """Stop, continue, or train with the labels there are."""
    to = text_field(request, "to", 16)
    with request.app.state.store.write() as db:
        project = find_project(db, project_id)
        row = rounds.change_state(db, project, to)
        audit(db, request.state.person.id, f"round: {to}", f"{project_id}: {row.number}")
    return _to(request, project_id)


def _to(request: Request, project_id: str) -> Response:
    return RedirectResponse(f"{request.scope.get('root_path', '')}/projects/{project_id}/rounds", 303)
