"""What a request may say: OpenAI's fields, checked; and the one error shape.

A field that would change the answer and that this server does not know is an error, never ignored.
"""

import json
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "presence_penalty": (0, None),
    "frequency_penalty": (0, None),
    "logit_bias": ({}, None),
    "response_format": ({"type": "text"}, None),
    "tools": ([], None),
    "tool_choice": ("none", "auto", None),
    "functions": ([], None),
    "suffix": ("", None),
    "modalities": (["text"], None),
}
"""Fields of OpenAI's that are not supported, with the values that ask for nothing."""
NO_MATTER = (
    "user",
    "metadata",
    "store",
    "service_tier",
    "parallel_tool_calls",
    "safety_identifier",
    "prompt_cache_key",
)
"""Fields that do not change the answer."""
OF_ANSWERS = ("annotations", "audio", "function_call", "tool_calls")
"""Fields of an answer's message that OpenAI's client hands back as null with the turn."""
BRANCHES = ("str", "int", "float")
"""Names that pydantic gives the branches of a union in an error's path."""

Stop = str | list[str] | None
Positive = Annotated[int, Field(ge=1)]


class APIError(Exception):
    """An answer in OpenAI's error shape."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None):
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code

    def body(self) -> dict[str, Any]:
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    include_usage: bool | None = False
    include_obfuscation: bool | None = False  # padding against traffic analysis; there is none here


class Request(BaseModel):
    """What both kinds of completion share."""

    model_config = ConfigDict(extra="forbid", strict=True)
    model: str
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = 1.0
    top_p: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = 1.0
    # These three are not OpenAI's; vLLM's server has them under the same names.
    top_k: Annotated[int, Field(ge=-1)] | None = 0
    min_p: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = 0.0
    min_tokens: Annotated[int, Field(ge=0)] | None = 0
    n: Annotated[int, Field(ge=1, le=128)] | None = 1
    stop: Stop = None
    seed: int | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None

    @model_validator(mode="before")
    @classmethod
    def _unsupported(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            raise ValueError("the body must be a JSON object")
        try:
            json.dumps(values, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise ValueError("a text holds half of a surrogate pair, which is no character") from error
        for name, neutral in NEUTRAL.items():
            if name in values and values[name] not in neutral:
                message = "{name} is not supported by this server; leave it out"
                raise PydanticCustomError("unsupported", message, {"name": name})
        ignored = (*NEUTRAL, *NO_MATTER)
        return {name: value for name, value in values.items() if name not in ignored}

    @field_validator("stop")
    @classmethod
    def _stops(cls, value: Stop) -> list[str]:
        stops = [value] if isinstance(value, str) else value or []
        if len(stops) > 16 or not all(stops):
            raise ValueError("give at most 16 strings, none of them empty")
        return stops

    @model_validator(mode="after")
    def _usage_of_a_stream(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options is only allowed when stream is true")
        return self

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def stops(self) -> list[str]:
        return list(self.stop or [])


class TextPart(BaseModel):
    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    """One turn. `name` and `refusal` may come back from an earlier answer; the template has no place for them."""

    model_config = ConfigDict(extra="forbid")
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    name: str | None = None
    refusal: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _as_it_came(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {name: value for name, value in values.items() if value is not None or name not in OF_ANSWERS}

    def plain(self) -> dict[str, str]:
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class ChatRequest(Request):
    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_tokens: Positive | None = None
    max_completion_tokens: Positive | None = None
    logprobs: bool | None = False
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    @model_validator(mode="after")
    def _logprobs_first(self) -> Self:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs is only allowed when logprobs is true")
        return self

    @property
    def alternatives(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None


class CompletionRequest(Request):
    prompt: str | list[str] | list[Annotated[int, Field(ge=0)]] | list[list[Annotated[int, Field(ge=0)]]]
    max_tokens: Annotated[int, Field(ge=0)] | None = 16
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    echo: bool | None = False
    best_of: int | None = None

    @model_validator(mode="after")
    def _no_search(self) -> Self:
        if self.best_of is not None and self.best_of != (self.n or 1):
            raise ValueError("best_of is not supported by this server; leave it out")
        return self

    @property
    def prompts(self) -> list[str] | list[list[int]]:
        """One or more prompts, each text or token ids."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if self.prompt and isinstance(self.prompt[0], int):
            return [self.prompt]
        return self.prompt  # type: ignore[return-value]


def validation_error(errors: Any) -> APIError:
    """Pydantic's findings as one APIError that names the first field."""
    start = _fields(errors[0])[:1]
    # Of a union's branches the one that got furthest is what was meant.
    first = max((one for one in errors if _fields(one)[:1] == start), key=lambda one: len(_fields(one)))
    path = _fields(first)
    param = ".".join(path) or None
    if first["type"] == "extra_forbidden":
        return APIError(400, f"Unrecognized request argument supplied: {path[-1]}", param=param)
    if first["type"] == "unsupported":
        return APIError(400, first["msg"], param=first["ctx"]["name"], code="unsupported_parameter")
    if param is None and first["type"] in ("missing", "model_attributes_type"):
        return APIError(400, "send a JSON object with Content-Type: application/json")
    if first["type"] == "missing":
        return APIError(400, f"you must provide a {param} parameter", param=param)
    if first["type"] == "json_invalid":
        return APIError(400, "could not parse the JSON body of the request")
    message = first["msg"].removeprefix("Value error, ")
    return APIError(400, f"{message} ({param})" if param else message, param=param, code="invalid_value")


def _fields(error: Any) -> list[str]:
    """Where an error is, by fields and indices: without the union's branches, which name themselves in the path."""
    path = [str(part) for part in error["loc"] if part != "body"]
    if error["type"] == "extra_forbidden":  # whatever a field is called that we do not know
        return [*(part for part in path[:-1] if _is_field(part)), path[-1]]
    return [part for part in path if _is_field(part)]


def _is_field(part: str) -> bool:
    return (part.isidentifier() and part not in BRANCHES) or part.isdigit()
