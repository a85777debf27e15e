"""Something that answers conversations: a model behind a URL (OpenAI's or Anthropic's API), or a local checkpoint."""

import http.client
import json
import os
import random
import re
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

ATTEMPTS, LONGEST_PAUSE = 6, 30.0
PASSING = (408, 409, 425, 429, 500, 502, 503, 504, 529)  # statuses that another try may mend
HOPELESS = 8  # failures with no answer between them before we stop asking
OPENAI, ANTHROPIC = "https://api.openai.com/v1", "https://api.anthropic.com/v1"
KEYS = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY"}

# How providers word, in the body of a refusal of one request, that it did not pass a filter, or is too long.
TURNED_DOWN = (400, 403, 413, 422)
FILTERED = re.compile(r"content[ _-]?(?:filter|management|policy)|moderat|flagged|safety system", re.IGNORECASE)
TOO_LONG = re.compile(r"context[ _-]?(?:length|window|size)|maximum context|too long|too many tokens", re.IGNORECASE)

Answered = Callable[[int, Reply], None]


class ChatFailedError(Exception):
    """No answer after all attempts."""


class TurnedDownError(ChatFailedError):
    """The model is there, but will not take this one conversation. filtered: by its provider's filter, else it is too long."""

    def __init__(self, reason: str, *, filtered: bool):
        super().__init__(reason)
        self.filtered = filtered


class Chat(Protocol):
    """name: who answers, for cache keys. Failures are returned in the answer's place."""

    name: str

    def answers(
        self, conversations: Sequence[list[Message]], answered: Answered | None = None
    ) -> list[Reply | ChatFailedError]: ...


@dataclass
class Endpoint:
    """A model behind an HTTP API; retries what may pass, and several requests run at once."""

    kind: Literal["openai", "anthropic"]
    url: str
    model: str
    max_tokens: int = 512
    temperature: float = 0.0
    timeout: float = 120.0
    parallel: int = 8

    def __post_init__(self) -> None:
        self.url = self.url.rstrip("/")
        self.name = f"{self.kind}:{self.url}#{self.model}"
        self.key = os.environ.get(KEYS[self.kind], "")
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
                            good += 1
                            continue
                        failures += 1
                        if not good and failures >= HOPELESS:
                            raise UserError(
                                f"does not answer ({failure})", where=self.name, mend="is it up? check the URL"
                            ) from failure
                        continue
                    good += 1
                    found[i] = reply
                    if answered is not None:
                        answered(i, reply)
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
        return found

    def answer(self, messages: list[Message]) -> Reply:
        """One answer; ChatFailedError after the last attempt, or where this conversation alone is turned down; UserError for
        what no attempt will mend."""
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
        """The reply to a body, to be read and closed."""
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
        if finish in ("content_filter", "refusal"):
            raise TurnedDownError(f"{finish}: {text}", filtered=True)
        return Reply(text, "length" if finish in ("length", "max_tokens") else "stop")


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
            ChatFailedError(f"a prompt of {len(ids)} tokens leaves no room in a context of {room}") for ids in prompts
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
        return LocalChat(spec.removeprefix("local:"), **options)
    url, separator, model = rest.rpartition("#")
    if not model:
        raise UserError("names no model", where=spec, mend=f"write {kind}:URL#MODEL or {kind}:MODEL")
    if separator and not url.startswith(("http://", "https://")):
        raise UserError(f"{url!r} is no URL", where=spec, mend="begin it with http:// or https://")
    for local in ("dtype", "device", "seed"):
        options.pop(local, None)
    return Endpoint(kind, url or {"openai": OPENAI, "anthropic": ANTHROPIC}[kind], model, **options)  # type: ignore[arg-type]
