"""The HTTP side: OpenAI's routes for loaded checkpoints."""

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request as HTTPRequest
from starlette.responses import JSONResponse, Response, StreamingResponse

from tutelage.data.templates import end_token_id, render_prompt
from tutelage.engine.online import Row
from tutelage.engine.sampling import SamplingParams, row_seed
from tutelage.models import Policy
from tutelage.serving.protocol import APIError, ChatRequest, CompletionRequest, Request, validation_error
from tutelage.serving.responses import ChatAnswer, TextAnswer
from tutelage.serving.scheduler import Generation, Job, Scheduler
from tutelage.serving.text import Pieces, Text

CONTEXT_OF_THE_TEXT = 8  # prompt tokens that a continuation's text is decoded behind


@dataclass
class Served:
    """A loaded checkpoint under its name."""

    name: str
    policy: Policy
    batch_size: int = 64
    created: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        tokenizer = self.policy.tokenizer
        self.ends = sorted({end_token_id(tokenizer), *_stated_ends(self.policy)})
        self.pieces = Pieces(tokenizer)
        self.context = int(getattr(self.policy.model.config, "max_position_embeddings", 0) or 2048)
        self.vocabulary = self.policy.model.get_output_embeddings().weight.shape[0]
        self.scheduler = Scheduler(self.policy.model, self.ends, self.batch_size)

    def card(self) -> dict[str, Any]:
        return {"id": self.name, "object": "model", "created": self.created, "owned_by": "tutelage"}

    def room(self, prompt: Sequence[int], wanted: int | None) -> int:
        """How many tokens the answer may have; an APIError where prompt and answer do not fit."""
        free = self.context - len(prompt)
        if free < max(1 if wanted is None else 0, wanted or 0):
            asked = f" and asks for {wanted} more" if wanted else ""
            raise APIError(
                400,
                f"this model's context holds {self.context} tokens; the prompt has {len(prompt)}{asked}",
                param="max_tokens" if len(prompt) < self.context else None,
                code="context_length_exceeded",
            )
        return free if wanted is None else wanted

    def generation(
        self,
        index: int,
        prompt: list[int],
        asked: Request,
        number: int,
        params: SamplingParams,
        *,
        seed: int,
        **more: Any,
    ) -> Generation:
        """Choice `number` of a prompt; its randomness depends on the request's seed and that number only."""
        alternatives = more.pop("alternatives")
        context = more.pop("context", ())
        row = Row(prompt, params, row_seed(seed, "completion", number), alternatives, **more)
        live = bool(asked.stream) or alternatives is not None
        text = Text(self.policy.tokenizer, asked.stops, context, live=live, held=params.min_new_tokens)
        return Generation(index, row, text, frozenset(self.ends))


def _stated_ends(policy: Policy) -> list[int]:
    """End tokens that the tokenizer and the generation config name."""
    stated = getattr(getattr(policy.model, "generation_config", None), "eos_token_id", None)
    found = [policy.tokenizer.eos_token_id, *(stated if isinstance(stated, list) else [stated])]
    return [token for token in found if token is not None]


def make_app(models: Sequence[Served]) -> FastAPI:
    """The application; the schedulers start and stop with it."""
    by_name = {model.name: model for model in models}

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        for model in models:
            model.scheduler.start(asyncio.get_running_loop())
        yield
        for model in models:
            await asyncio.to_thread(model.scheduler.close)

    # FastAPI's own pages would fetch scripts from elsewhere.
    app = FastAPI(title="Tutelage", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url="/v1/openapi.json")
    app.add_exception_handler(APIError, _api_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _failure)

    def find(name: str) -> Served:
        if name not in by_name:
            message = f"The model `{name}` does not exist; this server has: {', '.join(by_name)}"
            raise APIError(404, message, param="model", code="model_not_found")
        return by_name[name]

    @app.get("/v1/models")
    async def list_models() -> dict[str, Any]:
        return {"object": "list", "data": [model.card() for model in models]}

    @app.get("/v1/models/{name:path}")
    async def show_model(name: str) -> dict[str, Any]:
        return find(name).card()

    @app.post("/v1/chat/completions", response_model=None)
    async def chat(asked: ChatRequest, http: HTTPRequest) -> Response:
        model = find(asked.model)
        return await _respond(model, http, asked, chat_answer(model, asked))

    @app.post("/v1/completions", response_model=None)
    async def complete(asked: CompletionRequest, http: HTTPRequest) -> Response:
        model = find(asked.model)
        return await _respond(model, http, asked, text_answer(model, asked))

    return app


def chat_answer(model: Served, asked: ChatRequest) -> ChatAnswer:
    """The choices of a chat request, not yet begun."""
    try:
        prompt = render_prompt(model.policy.tokenizer, [m.plain() for m in asked.messages])
    except Exception as error:  # a template may refuse an order of roles
        raise APIError(400, f"the model's chat template refuses these messages: {error}", param="messages") from error
    wanted = asked.max_completion_tokens or asked.max_tokens
    params = _params(asked, model.room(prompt, wanted))
    seed = _seed(asked)
    generations = [
        model.generation(i, prompt, asked, i, params, seed=seed, alternatives=asked.alternatives)
        for i in range(asked.n or 1)
    ]
    return ChatAnswer(model.name, model.pieces, generations, asked.include_usage)


def text_answer(model: Served, asked: CompletionRequest) -> TextAnswer:
    """The choices of a completion request, those of the first prompt first."""
    seed = _seed(asked)
    generations: list[Generation] = []
    echoed: list[str] = []
    if not asked.prompts:
        raise APIError(400, "give at least one prompt", param="prompt")
    for given in asked.prompts:
        prompt = model.policy.tokenizer(given)["input_ids"] if isinstance(given, str) else given
        if not prompt:
            raise APIError(400, "the prompt is empty", param="prompt")
        if max(prompt) >= model.vocabulary:
            raise APIError(400, f"token {max(prompt)} is not in the vocabulary of {model.vocabulary}", param="prompt")
        params = _params(asked, model.room(prompt, 16 if asked.max_tokens is None else asked.max_tokens))
        text = given if isinstance(given, str) else model.policy.tokenizer.decode(given)
        for number in range(asked.n or 1):
            generations.append(
                model.generation(
                    len(generations),
                    prompt,
                    asked,
                    number,
                    params,
                    seed=seed,
                    alternatives=asked.logprobs,
                    score_prompt=bool(asked.echo) and asked.logprobs is not None,
                    context=prompt[-CONTEXT_OF_THE_TEXT:],
                )
            )
            echoed.append(text)
    return TextAnswer(model.name, model.pieces, generations, asked.include_usage, echoed=echoed if asked.echo else None)


def _params(asked: Request, room: int) -> SamplingParams:
    """OpenAI lets top_p be 0: the likeliest token alone; vLLM lets top_k be -1: all of them."""
    temperature = 1.0 if asked.temperature is None else asked.temperature
    top_p = 1.0 if asked.top_p is None else max(asked.top_p, 1e-9)
    least = asked.min_tokens or 0
    if least > room:
        raise APIError(400, f"the answer may have {room} tokens, fewer than min_tokens", param="min_tokens")
    return SamplingParams(room, least, temperature, top_p, max(asked.top_k or 0, 0), asked.min_p or 0.0)


def _seed(asked: Request) -> int:
    return secrets.randbits(62) if asked.seed is None else asked.seed


async def _respond(model: Served, http: HTTPRequest, asked: Request, answer: ChatAnswer | TextAnswer) -> Response:
    job = Job(answer.generations, bool(asked.stream))
    model.scheduler.submit(job)
    if asked.stream:
        return StreamingResponse(_stream(model, job, answer), media_type="text/event-stream")
    gone = asyncio.ensure_future(_disconnected(http))
    came = asyncio.ensure_future(job.events.get())
    await asyncio.wait({gone, came}, return_when=asyncio.FIRST_COMPLETED)
    gone.cancel()
    if not came.done():
        came.cancel()
        model.scheduler.cancel(job)
        return Response(status_code=499)  # nobody reads it
    if (error := came.result()) is not None:
        raise APIError(500, f"the model failed: {error}")
    return JSONResponse(answer.whole())


async def _stream(model: Served, job: Job, answer: ChatAnswer | TextAnswer) -> AsyncIterator[str]:
    """Server-sent events; a client that leaves takes its rows out of the batch."""
    over = False
    try:
        opened = False
        while not over:
            event = await job.events.get()
            if isinstance(event, Exception):
                yield _event(APIError(500, f"the model failed: {event}").body())
                over = True
                continue
            # An echo's log-probabilities exist once the prompt was read, with the first part.
            chunks = [] if opened else answer.opening()
            opened = True
            if event is None:
                chunks += answer.closing()
                over = True
            else:
                chunks += answer.chunks(event)
            for chunk in chunks:
                yield _event(chunk)
        yield "data: [DONE]\n\n"
    finally:
        if not over:
            model.scheduler.cancel(job)


def _event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False, separators=(',', ':'))}\n\n"


async def _disconnected(http: HTTPRequest) -> None:
    while (await http.receive())["type"] != "http.disconnect":
        pass


async def _api_error(_: HTTPRequest, error: Exception) -> Response:
    assert isinstance(error, APIError)
    return JSONResponse(error.body(), status_code=error.status)


async def _invalid(http: HTTPRequest, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return await _api_error(http, validation_error(error.errors()))


async def _http_error(http: HTTPRequest, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"{error.detail}: {http.method} {http.url.path}"
    return JSONResponse(APIError(error.status_code, message).body(), status_code=error.status_code)


async def _failure(http: HTTPRequest, error: Exception) -> Response:
    return await _api_error(http, APIError(500, f"the server failed: {type(error).__name__}"))
