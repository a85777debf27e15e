"""Something that answers conversations: a model behind a URL (OpenAI's or Anthropic's API), or a local checkpoint."""

import http.client
import io
import json
import os
import random
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from tutelage.errors import UserError
from tutelage.judges.cache import Reply
from tutelage.records import Message

CUT = ("length", "max_tokens", "model_context_window_exceeded")  # ways in which an answer breaks off
BARRED = ("content_filter", "refusal")  # and in which its provider's filter ends it
ATTEMPTS, LONGEST_PAUSE = 6, 30.0
PASSING = (408, 409, 425, 429, 500, 502, 503, 504, 529)  # statuses that another try may mend
HOPELESS = 8  # failures with no answer between them before we stop asking
OPENAI, ANTHROPIC = "https://api.openai.com/v1", "https://api.anthropic.com/v1"
KEYS = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY"}

OF_ONE = (400, 413, 422)  # statuses that may be the fault of one conversation alone
# How providers word, in the body of such a refusal (or of 403), that it did not pass a filter, or is too long.
TURNED_DOWN = (*OF_ONE, 403)
FILTERED = re.compile(r"content[ _-]?(?:filter|management|policy)|moderat|flagged|safety system", re.IGNORECASE)
TOO_LONG = re.compile(r"context[ _-]?(?:length|window|size)|maximum context|too long|too many tokens", re.IGNORECASE)

Answered = Callable[[int, Reply], None]


class ChatFailedError(Exception):
    """No answer after all attempts."""


class TurnedDownError(ChatFailedError):
    """The model is there, but will not take this one conversation; asking again would not help.

    filtered: by its provider's filter; else it is too long, or (where it is not clear) the request itself is at fault.
    """

    def __init__(self, reason: str, *, filtered: bool, clear: bool = True):
        super().__init__(reason)
        self.filtered, self.clear = filtered, clear


class Chat(Protocol):
    """name: who answers, for cache keys. Failures are returned in the answer's place."""

    name: str

    def answers(
        self, conversations: Sequence[list[Message]], answered: Answered | None = None
    ) -> list[Reply | ChatFailedError]: ...


@dataclass
class Endpoint:
    """A model behind an HTTP API; retries what may pass, and several requests run at once.

    any_temperature: a model that takes no temperature of ours (OpenAI's that reason) is asked at its own.
    answers_others: it is known to answer, so that what it refuses is the conversation's fault.
    refused: conversations that it turned down for reasons that are not clear.
    """

    kind: Literal["openai", "anthropic"]
    url: str
    model: str
    max_tokens: int = 512
    temperature: float = 0.0
    timeout: float = 120.0
    parallel: int = 8
    any_temperature: bool = False
    answers_others: bool = False
    refused: int = 0

    def __post_init__(self) -> None:
        self.url = self.url.rstrip("/")
        self.name = f"{self.kind}:{self.url}#{self.model}"
        self.key = os.environ.get(KEYS[self.kind], "")
        self.renamed: dict[str, str | None] = {}  # fields of a body, by what this model calls them; None: it has none
        if not self.key and self.url in (OPENAI, ANTHROPIC):
            raise UserError("needs a key", where=self.name, mend=f"set the environment variable {KEYS[self.kind]}")

    def answers(
        self, conversations: Sequence[list[Message]], answered: Answered | None = None
    ) -> list[Reply | ChatFailedError]:
        found: list[Reply | ChatFailedError] = [ChatFailedError("not asked")] * len(conversations)
        failures, good = 0, 0
        with ThreadPoolExecutor(self.parallel) as pool:
            waiting = {pool.submit(self.answer, messages): i for i, messages in enumerate(conversations)}
            try:
                for future in as_completed(waiting):
                    i = waiting[future]
                    try:
                        reply = future.result()
                    except ChatFailedError as failure:
                        found[i] = failure
                        if isinstance(failure, TurnedDownError):
                            self.refused += not failure.clear
                            if not self.answers_others and self.refused >= HOPELESS:
                                mend = "check the URL and the model"
                                raise UserError(str(failure), where=self.name, mend=mend) from failure
                            continue
                        failures += 1
                        if not good and failures >= HOPELESS:
                            raise UserError(
                                f"does not answer ({failure})", where=self.name, mend="is it up? check the URL"
                            ) from failure
                        continue
                    good += 1
                    self.answers_others = True
                    found[i] = reply
                    if answered is not None:
                        answered(i, reply)
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
        return found

    def answer(self, messages: list[Message]) -> Reply:
        """One answer; ChatFailedError after the last attempt, or where this conversation is turned down; UserError for
        what no attempt and no other conversation will mend."""
        reason = ""
        for attempt in range(ATTEMPTS):
            pause = min(2.0**attempt, LONGEST_PAUSE) * random.uniform(0.5, 1.0)
            try:
                return self._reply(self._post(messages))
            except urllib.error.HTTPError as error:
                reason = f"status {error.code}"
                said = error.read().decode("utf-8", "replace")[:300]
                if error.code in TURNED_DOWN and (FILTERED.search(said) or TOO_LONG.search(said)):
                    raise TurnedDownError(f"{reason} {said}", filtered=bool(FILTERED.search(said))) from error
                if error.code in OF_ONE:
                    raise TurnedDownError(f"refuses: {reason} {said}", filtered=False, clear=False) from error
                if error.code not in PASSING:
                    mend = f"check {KEYS[self.kind]}" if error.code in (401, 403) else "check the URL and the model"
                    raise UserError(f"refuses: {reason} {said}", where=self.name, mend=mend) from error
                pause = max(pause, _retry_after(error))
            except (OSError, http.client.HTTPException, ValueError, KeyError, IndexError, TypeError) as error:
                reason = f"{type(error).__name__}: {error}"  # unreachable, timed out, cut off or malformed
            if attempt + 1 < ATTEMPTS:
                time.sleep(pause)
        raise ChatFailedError(reason)

    def body(self, messages: list[Message]) -> dict[str, Any]:
        """What is sent."""
        body: dict[str, Any] = {"model": self.model, "max_tokens": self.max_tokens, "temperature": self.temperature}
        if self.kind == "openai":
            return {**body, "messages": messages}
        system = "\n\n".join(m["content"] for m in messages if m["role"] == "system")
        body["messages"] = [m for m in messages if m["role"] != "system"]
        return {**body, **({"system": system} if system else {})}

    def open(self, body: dict[str, Any]) -> Any:
        """The reply to a body, to be read and closed. Where the model says that it has no such field, without it."""
        while True:
            known = dict(self.renamed)
            names = ((known.get(name, name), value) for name, value in body.items())
            try:
                return self._send({name: value for name, value in names if name is not None})
            except urllib.error.HTTPError as error:
                said = error.read()
                if error.code == 400:
                    self._learn(said.decode("utf-8", "replace"))
                if known == self.renamed:
                    raise urllib.error.HTTPError(
                        error.url, error.code, error.msg, error.headers, io.BytesIO(said)
                    ) from None

    def _learn(self, said: str) -> None:
        """Take from a refusal another name of a field, or that the temperature is not ours to choose."""
        if "max_completion_tokens" in said:
            self.renamed["max_tokens"] = "max_completion_tokens"
        elif self.any_temperature and re.search(r"unsupported.{0,60}temperature", said, re.IGNORECASE | re.DOTALL):
            if "temperature" not in self.renamed:
                print(f"warning: {self.name} takes no temperature; it answers at its own", file=sys.stderr)
            self.renamed["temperature"] = None

    def _send(self, body: dict[str, Any]) -> Any:
        headers = {"Content-Type": "application/json"}
        if self.kind == "openai":
            path = "/chat/completions"
            headers["Authorization"] = f"Bearer {self.key or 'none'}"
        else:
            path = "/messages"
            headers |= {"x-api-key": self.key, "anthropic-version": "2023-06-01"}
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), headers)
        return urllib.request.urlopen(request, timeout=self.timeout)

    def _post(self, messages: list[Message]) -> Any:
        with self.open(self.body(messages)) as reply:
            return json.loads(reply.read())

    def _reply(self, body: Any) -> Reply:
        if self.kind == "openai":
            choice = body["choices"][0]
            message, finish = choice["message"], choice.get("finish_reason")
            text = message.get("content") or message.get("refusal") or ""
        else:
            text = "".join(block["text"] for block in body["content"] if block["type"] == "text")
            finish = body.get("stop_reason")
        if finish in BARRED:
            raise TurnedDownError(f"{finish}: {text}", filtered=True)
        return Reply(text, "length" if finish in CUT else "stop")


def _retry_after(error: urllib.error.HTTPError) -> float:
    try:
        return min(float(error.headers.get("Retry-After", 0)), 2 * LONGEST_PAUSE)
    except ValueError:  # a date
        return 0.0


@dataclass
class LocalChat:
    """A checkpoint on this machine. The answer depends on (seed, conversation), not on what else is asked."""

    path: str
    max_tokens: int = 512
    temperature: float = 0.0
    dtype: str = "auto"
    device: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        from tutelage.models import load_policy, resolve
        from tutelage.runs.lineage import folder_hash

        self.policy = load_policy(self.path, self.dtype, device=self.device)
        self.name = f"local:{folder_hash(resolve(self.path))[:16]}"

    def answers(
        self, conversations: Sequence[list[Message]], answered: Answered | None = None
    ) -> list[Reply | ChatFailedError]:
        from tutelage.data.templates import end_token_id, render_prompts
        from tutelage.engine.sampling import SamplingParams, row_seed, sample

        tokenizer, model = self.policy.tokenizer, self.policy.model
        prompts = render_prompts(tokenizer, conversations)
        room = int(getattr(model.config, "max_position_embeddings", 0) or 2048)
        fits = [i for i, ids in enumerate(prompts) if len(ids) + self.max_tokens <= room]
        seeds = [[row_seed(self.seed, json.dumps(conversations[i]), 0)] for i in fits]
        params = SamplingParams(self.max_tokens, 0, self.temperature)
        end = end_token_id(tokenizer)
        drawn = sample(model, [prompts[i] for i in fits], seeds, params, [end]) if fits else []
        found: list[Reply | ChatFailedError] = [
            ChatFailedError(
                f"a prompt of {len(ids)} tokens and an answer of up to {self.max_tokens} do not fit in {room}"
            )
            for ids in prompts
        ]
        for i, (one,) in zip(fits, drawn, strict=True):
            text = tokenizer.decode(one.tokens[:-1] if one.finish == "stop" else one.tokens)
            found[i] = reply = Reply(text, one.finish)
            if answered is not None:
                answered(i, reply)
        return found


def open_chat(spec: str, **options: Any) -> Chat:
    """`openai:URL#MODEL`, `openai:MODEL`, `anthropic:MODEL`, `anthropic:URL#MODEL`, or a checkpoint's folder."""
    kind, separator, rest = spec.partition(":")
    if not separator or kind not in KEYS:
        options.pop("any_temperature", None)
        return LocalChat(spec.removeprefix("local:"), **options)
    url, separator, model = rest.rpartition("#")
    if not model:
        raise UserError("names no model", where=spec, mend=f"write {kind}:URL#MODEL or {kind}:MODEL")
    if separator and not url.startswith(("http://", "https://")):
        raise UserError(f"{url!r} is no URL", where=spec, mend="begin it with http:// or https://")
    for local in ("dtype", "device", "seed"):
        options.pop(local, None)
    return Endpoint(kind, url or {"openai": OPENAI, "anthropic": ANTHROPIC}[kind], model, **options)  # type: ignore[arg-type]
