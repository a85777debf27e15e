"""The lab page: predict, watch RLHF break, read why, see the mend beside it."""

import math
import re
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response
from markupsafe import Markup

from tutelage.errors import UserError
from tutelage.report.svg import Line, line_panel
from tutelage.studies.schema import Knob, all_scenarios
from tutelage.web.access import LEADS, allow, number_field, text_field
from tutelage.web.compare import bench_of, may_type
from tutelage.web.pages import page
from tutelage.workbench.lessons import Attempt, Lessons

router = APIRouter(prefix="/lab")
LABELS = {
    "gold": "Gold: the judge",
    "proxy": "Proxy: the reward model",
    "kl": "KL (nats an answer)",
    "length": "Tokens an answer",
}
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
    return RedirectResponse(f"{request.scope.get('root_path', '')}/lab/{name}/{attempt}", 303)


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


def _attempt(request: Request, name: str, attempt: str, template: str) -> Response:
    one, found = lessons(request).scenario(name), lessons(request).attempt(attempt)
    questions = {question.id: question.ask for question in one.predict}
    return page(request, template, one=one, attempt=found, charts=_charts(found), questions=questions)


def _charts(attempt: Attempt) -> list[tuple[str, Markup]]:
    """While it runs: the last stage's curves. Afterwards: broken (dashed) beside mended, against the steps."""
    if attempt.lesson is None:
        live = list(attempt.live.items())[:SHOWN]
        return [
            (metric, Markup(line_panel([Line("", points, "s-ppo", None)], metric, x_label="step", height=210)))
            for metric, points in live
        ]
    broken, mended = attempt.lesson["curves"]["broken"], attempt.lesson["curves"]["mended"]
    made = []
    for stage, points in broken.items():
        for key in [key for key in points[0] if key != "step"]:
            lines = [Line("broken", [(p["step"], p[key]) for p in points], "s-ppo", "triangle")]
            if stage in mended:
                lines.append(Line("mended", [(p["step"], p[key]) for p in mended[stage]], "s-ptx", "circle", dash=True))
            title = LABELS.get(key, key)
            made.append((title, Markup(line_panel(lines, title, x_label="step", height=220))))
    return made
