"""The lab page: predict, watch RLHF break, read why, see the mend beside it."""

import math
import re
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response
from markupsafe import Markup

from tutelage.errors import UserError
from tutelage.report.lesson import effects, figures, live_figures, measures, render_lesson
from tutelage.studies.schema import Knob, all_scenarios
from tutelage.web.access import LEADS, allow, number_field, text_field
from tutelage.web.compare import bench_of, may_type
from tutelage.web.pages import page
from tutelage.workbench.lessons import Attempt, Lessons

router = APIRouter(prefix="/lab")
SHOWN = 3  # live charts at most


def lessons(request: Request) -> Lessons:
    return bench_of(request).lessons


@router.get("")
@allow(*LEADS)
def all_lessons(request: Request) -> Response:
    found = [(one, lessons(request).attempts(one.scenario)) for one in all_scenarios()]
    return page(request, "lab.html", lessons=found)


@router.get("/{name}")
@allow(*LEADS)
def lesson(request: Request, name: str) -> Response:
    one = lessons(request).scenario(name)
    return page(request, "lesson.html", one=one, attempts=lessons(request).attempts(name), all=all_scenarios())


@router.post("/{name}")
@allow(*LEADS)
def start(request: Request, name: str) -> Response:
    """Guesses lock here; what is left blank is not scored."""
    one = lessons(request).scenario(name)
    guesses: dict[str, Any] = {}
    for question in one.predict:
        given = text_field(request, f"guess-{question.id}", 20)
        if given:
            guesses[question.id] = given if question.kind == "direction" else _number(given)
    knobs: dict[str, Any] = {}
    for key, knob in one.knobs.items():
        given = text_field(request, f"knob-{key}", 80)
        if given:
            knobs[key] = _turned(key, knob, given, anything=may_type(request))
    sure = text_field(request, "sure", 3)
    attempt = lessons(request).start(
        one, guesses, int(_number(sure)) if sure and guesses else None, knobs, number_field(request, "seeds")
    )
    return _to(request, name, attempt)


def _turned(key: str, knob: Knob, given: str, *, anything: bool) -> Any:
    """What a knob was turned to. In words, who may not name any model or address (`anything`) names what the world has:
    labelers of another kind would be sent this machine's keys, or run code."""
    where = f"knob {key}"
    if isinstance(knob.value, int | float):
        value = _number(given)
        if isinstance(knob.value, int) and value != int(value):
            raise UserError(f"{given!r} is not whole", where=where, mend="give a whole number")
        return type(knob.value)(value)
    if not anything and not re.fullmatch(r"[A-Za-z0-9_-]+|world:[A-Za-z0-9_.,:=-]*", given):
        raise UserError(f"{given!r} is not of the world", where=where, mend=f"write it like {knob.value}")
    return given


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{text!r} is no number", mend="write, for example, 0.5")
    return value


@router.get("/{name}/{attempt}")
@allow(*LEADS)
def attempt_page(request: Request, name: str, attempt: str) -> Response:
    return _attempt(request, name, attempt, "attempt.html")


@router.get("/{name}/{attempt}/live")
@allow(*LEADS)
def attempt_live(request: Request, name: str, attempt: str) -> Response:
    return _attempt(request, name, attempt, "attempt_live.html")


@router.post("/{name}/{attempt}/stop")
@allow(*LEADS)
def stop(request: Request, name: str, attempt: str) -> Response:
    lessons(request).stop(_found(request, name, attempt).name)
    return _to(request, name, attempt)


@router.post("/{name}/{attempt}/resume")
@allow(*LEADS)
def resume(request: Request, name: str, attempt: str) -> Response:
    lessons(request).resume(_found(request, name, attempt).name)
    return _to(request, name, attempt)


@router.get("/{name}/{attempt}/lesson.html")
@allow(*LEADS)
def download(request: Request, name: str, attempt: str) -> Response:
    """The whole attempt as one file that opens without a connection."""
    found = _found(request, name, attempt)
    if found.lesson is None:
        raise UserError(f"the attempt is {found.state}", mend="wait until it is done")
    head = {"content-disposition": f'attachment; filename="{attempt}.html"'}
    return Response(render_lesson(found.lesson), media_type="text/html", headers=head)


def _to(request: Request, name: str, attempt: str) -> Response:
    return RedirectResponse(f"{request.scope.get('root_path', '')}/lab/{name}/{attempt}", 303)


def _found(request: Request, name: str, attempt: str) -> Attempt:
    one, found = lessons(request).scenario(name), lessons(request).attempt(attempt)
    if not re.fullmatch(rf"{re.escape(one.scenario)}-[\d-]+", attempt):
        raise UserError("there is no such attempt at this lesson", mend="look at its list")
    return found


def _attempt(request: Request, name: str, attempt: str, template: str) -> Response:
    one, found = lessons(request).scenario(name), _found(request, name, attempt)
    questions = {question.id: question.ask for question in one.predict}
    lesson = found.lesson
    drawn = live_figures(attempt, dict(list(found.live.items())[:SHOWN])) if lesson is None else figures(lesson)
    return page(
        request,
        template,
        one=one,
        attempt=found,
        charts=[Markup(chart) for chart in drawn],  # escaped piece by piece in report.lesson
        numbers=Markup(measures(lesson)) if lesson is not None else "",
        held=effects(lesson) if lesson is not None else "",
        questions=questions,
    )
