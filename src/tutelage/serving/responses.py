"""Answers in OpenAI's shapes: chat and text completions, whole or in pieces, with log-probabilities and usage."""

import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from tutelage.engine.online import Alternatives
from tutelage.serving.scheduler import Generation, Part
from tutelage.serving.text import Pieces, Text


@dataclass
class Answer:
    """What all pieces of one answer share, and how many tokens of each choice were reported."""

    model: str
    pieces: Pieces
    generations: list[Generation]
    with_usage: bool = False
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        self.reported = [0] * len(self.generations)

    def usage(self) -> dict[str, int]:
        """A prompt counts once however many choices it has."""
        prompts = {id(g.row.prompt): len(g.row.prompt) for g in self.generations}
        prompt, answer = sum(prompts.values()), sum(len(g.row.tokens) for g in self.generations)
        return {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}

    def news(self, part: Part) -> tuple[int, int]:
        """The range of tokens that this part is the first to report."""
        start, self.reported[part.index] = self.reported[part.index], part.tokens
        return start, part.tokens


class ChatAnswer(Answer):
    """`chat.completion` and `chat.completion.chunk`."""

    def whole(self) -> dict[str, Any]:
        choices = []
        for g in self.generations:
            message = {"role": "assistant", "content": g.text.whole, "refusal": None}
            logprobs = self._logprobs(g, 0, g.text.covered())
            choices.append({"index": g.index, "message": message, "logprobs": logprobs, "finish_reason": g.finish})
        return {**self._head("chat.completion"), "choices": choices, "usage": self.usage()}

    def opening(self) -> list[dict[str, Any]]:
        """The chunks that say who speaks."""
        delta = {"role": "assistant", "content": "", "refusal": None}
        return [self._chunk([self._choice(g.index, delta, None, None)]) for g in self.generations]

    def chunks(self, parts: list[Part]) -> list[dict[str, Any]]:
        found = []
        for part in parts:
            logprobs = self._logprobs(self.generations[part.index], *self.news(part))
            if part.text or (logprobs and logprobs["content"]):
                found.append(self._choice(part.index, {"content": part.text}, logprobs, None))
            if part.finish:
                found.append(self._choice(part.index, {}, None, part.finish))
        return [self._chunk([choice]) for choice in found]

    def closing(self) -> list[dict[str, Any]]:
        return [{**self._chunk([]), "usage": self.usage()}] if self.with_usage else []

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": f"chatcmpl-{self.id}", "object": kind, "created": self.created, "model": self.model}

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        usage: dict[str, Any] = {"usage": None} if self.with_usage else {}
        return {**self._head("chat.completion.chunk"), "choices": choices, **usage}

    def _choice(self, index: int, delta: Any, logprobs: Any, finish: str | None) -> dict[str, Any]:
        return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}

    def _logprobs(self, g: Generation, start: int, stop: int) -> dict[str, Any] | None:
        if g.row.alternatives is None:
            return None
        rows = zip(g.row.tokens[start:stop], g.row.logprobs[start:stop], g.row.tops[start:stop], strict=True)
        content = [
            {**self._entry(token, logprob), "top_logprobs": [self._entry(*one) for one in top]}
            for token, logprob, top in rows
        ]
        return {"content": content, "refusal": None}

    def _entry(self, token: int, logprob: float) -> dict[str, Any]:
        return {"token": self.pieces.text(token), "logprob": logprob, "bytes": list(self.pieces[token])}


@dataclass
class TextAnswer(Answer):
    """`text_completion`. Its log-probabilities cover the end token too, as scoring needs its place."""

    echoed: list[str] | None = None
    """For each choice the prompt's text, where it is to be repeated."""

    def whole(self) -> dict[str, Any]:
        choices = []
        for g in self.generations:
            stop = g.text.covered() + (len(g.row.tokens) > len(g.shown) and not g.text.stopped)
            text = (self.echoed[g.index] if self.echoed else "") + g.text.whole
            choices.append(self._choice(g.index, text, self._logprobs(g, 0, stop, prompt=True), g.finish))
        return {**self._head(), "choices": choices, "usage": self.usage()}

    def opening(self) -> list[dict[str, Any]]:
        if self.echoed is None:
            return []
        return [
            self._chunk([self._choice(g.index, self.echoed[g.index], self._logprobs(g, 0, 0, prompt=True), None)])
            for g in self.generations
        ]

    def chunks(self, parts: list[Part]) -> list[dict[str, Any]]:
        found = []
        for part in parts:
            g = self.generations[part.index]
            if part.finish and len(g.row.tokens) > len(g.shown) and not g.text.stopped:
                part.tokens += 1
            start, stop = self.news(part)
            logprobs = self._logprobs(g, start, stop) if stop > start else None
            found.append(self._choice(part.index, part.text, logprobs, part.finish))
        return [self._chunk([choice]) for choice in found]

    def closing(self) -> list[dict[str, Any]]:
        return [{**self._chunk([]), "usage": self.usage()}] if self.with_usage else []

    def _head(self) -> dict[str, Any]:
        return {"id": f"cmpl-{self.id}", "object": "text_completion", "created": self.created, "model": self.model}

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        usage: dict[str, Any] = {"usage": None} if self.with_usage else {}
        return {**self._head(), "choices": choices, **usage}

    def _choice(self, index: int, text: str, logprobs: Any, finish: str | None) -> dict[str, Any]:
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}

    def _logprobs(self, g: Generation, start: int, stop: int, *, prompt: bool = False) -> dict[str, Any] | None:
        """Tokens start … stop of the answer; with `prompt` those of an echoed prompt come first."""
        row = g.row
        if row.alternatives is None:
            return None
        tokens, logprobs = row.tokens[start:stop], [*row.logprobs[start:stop]]
        tops: list[Alternatives | None] = [*row.tops[start:stop]]
        begin = len(self.echoed[g.index]) if self.echoed else 0
        offsets = [begin + at for at in [0, *g.text.ends][start:stop]]
        if prompt and row.score_prompt:
            tokens = [*row.prompt, *tokens]
            logprobs = [None, *row.prompt_logprobs, *logprobs]  # type: ignore[list-item]
            tops = [None, *row.prompt_tops, *tops]
            offsets = [*self._prompt_offsets(g), *offsets]
        named = []
        for token, logprob, top in zip(tokens, logprobs, tops, strict=True):
            named.append(None if top is None else {self.pieces.name(t): p for t, p in [*top, (token, logprob)]})
        return {
            "tokens": [self.pieces.name(token) for token in tokens],
            "token_logprobs": logprobs,
            "top_logprobs": named,
            "text_offset": offsets,
        }

    def _prompt_offsets(self, g: Generation) -> list[int]:
        text = Text(g.text.tokenizer)
        for token in g.row.prompt:
            text.push(token)
        return [0, *text.ends[:-1]]
