"""The chat page: one model or two side by side, with the KL and the reward of each answer, and thumbs as data."""

import json
from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from tutelage.data.validation import check_messages
from tutelage.errors import UserError
from tutelage.web.access import LEADS, Denied, allow
from tutelage.web.compare import bench_of, may_type
from tutelage.web.pages import page
from tutelage.workbench.models import Found, is_endpoint, require_known, stages_of
from tutelage.workbench.talking import Sampling, speak, weigh

router = APIRouter(prefix="/chat")
LONGEST_ANSWER = 2048
STAGES = 8  # models that answer "which stage would say what"


@router.get("")
@allow(*LEADS)
def chat(request: Request, a: str = "", b: str = "") -> Response:
    """The models stand in the address, so that a link opens the same two."""
    found = bench_of(request).models.found()
    policies = [one for one in found if one.role == "policy"]
    names = {one.spec for one in policies}
    first = policies[1 if len(policies) > 1 else 0].spec  # what is served comes after the world's base
    if may_type(request):  # an endpoint stands in the address only
        typed = [spec for spec in dict.fromkeys((a, b)) if is_endpoint(spec) and spec.partition(":")[2]]
        policies += [Found(spec, spec, "endpoint") for spec in typed]
        names |= set(typed)
    return page(
        request,
        "chat.html",
        policies=policies,
        rewards=[one for one in found if one.role == "reward"],
        a=a if a in names else first,
        b=b if b in names else "",
        free=may_type(request),
    )


def _asked(request: Request) -> tuple[str, list[dict[str, str]]]:
    spec = request.state.sent.get("model")
    if not isinstance(spec, str):
        raise Denied(400, "Name a model.")
    require_known(spec, bench_of(request).models.found(), anything=may_type(request))
    return spec, check_messages(request.state.sent.get("messages"), "field messages")


def _number(request: Request, name: str, default: float, low: float, high: float) -> float:
    value = request.state.sent.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise Denied(400, f"The field {name} cannot be used.")
    return value


@router.post("/say")
@allow(*LEADS)
def say(request: Request) -> Response:
    """Server-sent events: {"text"} as it grows, {"done"}; {"error"} where it breaks off."""
    spec, turns = _asked(request)
    sampling = Sampling(
        int(_number(request, "max_tokens", 128, 1, LONGEST_ANSWER)),
        _number(request, "temperature", 0.7, 0, 2),
        int(_number(request, "seed", 0, 0, 2**31)),
    )
    models = bench_of(request).models

    def events() -> Iterator[str]:
        try:
            for event in speak(models, spec, turns, sampling):
                yield f"data: {json.dumps(event)}\n\n"
        except UserError as error:
            yield f"data: {json.dumps({'error': f'{error.what}; {error.mend}'})}\n\n"
        except Exception as error:  # out of memory, most likely: said on the page, not in a broken stream
            yield f"data: {json.dumps({'error': f'{type(error).__name__}: {error}'})}\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


@router.post("/weigh")
@allow(*LEADS)
def weighed(request: Request) -> Response:
    """The KL and the reward of an answer that is there."""
    spec, turns = _asked(request)
    text, reward = request.state.sent.get("text"), request.state.sent.get("reward", "")
    if not isinstance(text, str) or not isinstance(reward, str):
        raise Denied(400, "Send the answer's text.")
    if reward:
        require_known(reward, bench_of(request).models.found(), anything=may_type(request))
    ended = request.state.sent.get("finish") != "length"
    return JSONResponse(_finite(weigh(bench_of(request).models, spec, turns, text, reward, ended)))


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    return {k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}


@router.post("/stages")
@allow(*LEADS)
def stages(request: Request) -> Response:
    """What each stage behind a checkpoint, from the base on, and the others of its recipe would have said, greedily;
    with `other`, the stages behind both."""
    spec, turns = _asked(request)
    bench = bench_of(request)
    found, other = bench.models.found(), request.state.sent.get("other") or spec
    if not isinstance(other, str):
        raise Denied(400, "The field other cannot be used.")
    require_known(other, found, anything=may_type(request))
    behind = {one.spec: one for model in (spec, other) for one in stages_of(model, found)}
    # The two that were asked stand there, however many others there are.
    kept = {*[*behind][:STAGES], spec, other}
    said = []
    for one in (one for name, one in behind.items() if name in kept):
        text, done, failed = "", "", ""
        try:
            for event in speak(bench.models, one.spec, turns, Sampling(128, 0.0)):
                text, done = event.get("text", text), event.get("done", done)
        except UserError as error:  # a stage whose context is smaller, say; the others answer all the same
            failed = f"{error.what}; {error.mend}"
        said.append({"name": one.name, "text": text, "cut": done == "length", "failed": failed})
    return JSONResponse({"stages": said})
