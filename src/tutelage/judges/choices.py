"""Log-probabilities of the options of a multiple-choice question: of a local checkpoint, or of an endpoint's tokens."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tutelage.constitutions.questions import ALONE
from tutelage.data.batches import token_budget_batches
from tutelage.data.templates import render_prompt
from tutelage.engine.packing import pack
from tutelage.judges.cache import Reply
from tutelage.judges.chats import Chat, Endpoint, LocalChat, TurnedDownError
from tutelage.records import Message

TOKENS_AT_ONCE = 16384
CERTAIN = 20.0  # log-odds of a choice that was only said, by a model that gives no log-probabilities
LIKELY = 0.1  # together, of the letters where none was said: less is the tail of an answer about something else
BRACKETED = re.compile(r"\(\s*([AB])\s*(?:\)|$)")
PLAIN = re.compile(  # "B", "B)", "Answer B …", "it is B.", but not "A better one"
    r"^\W*([AB])(?=\W*$|\s*[).:,*])|\b(?i:answer|option|response|choice)\W+([AB])\b|\bis\W+([AB])\b(?!\s+[a-z])"
)


@dataclass(frozen=True)
class Choice:
    """logprobs: of options (A) and (B); None where the model chose neither. said: read off words, not log-probs.

    words: what it said where it chose neither; failed: it gave no answer at all; refused: its provider's filter did.
    """

    logprobs: tuple[float, float] | None
    said: bool = False
    words: str = ""
    failed: bool = False
    refused: bool = False


def choices(chat: Chat, conversations: Sequence[list[Message]], options: tuple[str, str]) -> list[Choice]:
    """What the model answers to each question, of two options that differ in their letter."""
    if isinstance(chat, LocalChat):
        return _local(chat, conversations, options)
    if isinstance(chat, Endpoint):
        fields = {f: getattr(chat, f) for f in ("kind", "url", "model", "timeout", "parallel")}
        choosing = _ChoosingEndpoint(**fields, max_tokens=8)
        replies = choosing.answers([_asked_for_a_letter(messages) for messages in conversations])
        return [_parse(reply) for reply in replies]
    raise TypeError(f"cannot ask a {type(chat).__name__} for log-probabilities")


def _asked_for_a_letter(messages: list[Message]) -> list[Message]:
    last = messages[-1]
    return [*messages[:-1], {**last, "content": f"{last['content']}\n\n{ALONE}"}]


@torch.no_grad()
def _local(chat: LocalChat, conversations: Sequence[list[Message]], options: tuple[str, str]) -> list[Choice]:
    tokenizer, model = chat.policy.tokenizer, chat.policy.model
    ends = [tokenizer(option, add_special_tokens=False)["input_ids"] for option in options]
    room = int(getattr(model.config, "max_position_embeddings", 0) or 2048)
    rows, owners = [], []
    for number, messages in enumerate(conversations):
        prompt = render_prompt(tokenizer, messages)
        for place, end in enumerate(ends):
            if len(prompt) + len(end) <= room:
                rows.append((prompt + end, len(end)))
                owners.append((number, place))
    found = torch.full((len(conversations), 2), float("nan"))
    model.eval()
    for micro in token_budget_batches([len(ids) for ids, _ in rows], TOKENS_AT_ONCE):
        packed = pack([rows[i][0] for i in micro], share=True)
        tails = [
            torch.arange(int(end) - rows[i][1], int(end)) for i, end in zip(micro, packed.offsets[1:], strict=True)
        ]
        logprobs, _ = chat.policy.logprobs(packed, torch.cat(tails))
        for i, part in zip(micro, logprobs.split([len(t) for t in tails]), strict=True):
            found[owners[i]] = part.sum()
    return [Choice(None, failed=True) if math.isnan(a) else Choice((a, b)) for a, b in found.tolist()]


class _ChoosingEndpoint(Endpoint):
    """Asks for the log-probabilities of the first tokens, and gives them in the place of the text."""

    has_logprobs = True  # until the endpoint says otherwise

    def answer(self, messages: list[Message]) -> Reply:
        """An endpoint that refuses to give log-probabilities is asked without them: its words make hard labels."""
        try:
            return super().answer(messages)
        except TurnedDownError as error:
            if "logprob" not in str(error).lower():
                raise
        self.has_logprobs = False
        return super().answer(messages)

    def body(self, messages: list[Message]) -> dict[str, Any]:
        asked = self.kind == "openai" and self.has_logprobs
        return {**super().body(messages), **({"logprobs": True, "top_logprobs": 20} if asked else {})}

    def _reply(self, body: Any) -> Reply:
        plain = super()._reply(body)
        if self.kind == "openai":
            pair = _of_positions((body["choices"][0].get("logprobs") or {}).get("content") or [])
            if pair is not None:
                return Reply(json.dumps({"logprobs": pair}), plain.finish)
        return Reply(json.dumps({"text": str(plain)}), plain.finish)


def _of_positions(positions: list[dict[str, Any]]) -> tuple[float, float] | None:
    """Log-probabilities of A and B at the token that says the letter; None where the model says neither.

    A critic that refuses has letters among its first token's alternatives too. So where no letter was said they count only if
    they are likely, and not where the word that was said is the article.
    """
    tokens = [str(position.get("token", "")) for position in positions]
    chosen = said_letter("".join(tokens))
    if chosen is not None:
        place = next(i for i in range(len(tokens)) if len("".join(tokens[: i + 1])) > chosen[1])
        return _letters(positions[place].get("top_logprobs") or [])
    if not tokens or _bare(tokens[0]) in ("A", "B"):
        return None
    pair = _letters(positions[0].get("top_logprobs") or [])
    return pair if pair is not None and math.exp(pair[0]) + math.exp(pair[1]) >= LIKELY else None


def said_letter(text: str) -> tuple[str, int] | None:
    """The one option that words name, with the place of its letter: in brackets, or else by itself."""
    for pattern in (BRACKETED, PLAIN):
        found: dict[str, int] = {}
        for match in pattern.finditer(text):
            group = next(i for i in range(1, pattern.groups + 1) if match[i])
            found.setdefault(match[group], match.start(group))
        if found:
            return next(iter(found.items())) if len(found) == 1 else None
    return None


def _bare(token: str) -> str:
    return token.strip(" ().:*\n")


def _letters(tops: list[dict[str, Any]]) -> tuple[float, float] | None:
    """Log-probabilities of A and B among the likeliest tokens of one place; what is not listed gets the least of them."""
    sums: dict[str, float] = {}
    for top in tops:
        letter = _bare(str(top["token"]))
        if letter in ("A", "B"):
            sums[letter] = sums.get(letter, 0.0) + math.exp(float(top["logprob"]))
    if not sums:
        return None
    least = min(math.exp(float(top["logprob"])) for top in tops)
    a, b = (math.log(max(sums.get(letter, least), 1e-12)) for letter in "AB")
    return a, b


def _parse(reply: Any) -> Choice:
    if not isinstance(reply, Reply):
        refused = isinstance(reply, TurnedDownError) and reply.filtered
        return Choice(None, words=str(reply), failed=not refused, refused=refused)
    held = json.loads(reply)
    if "logprobs" in held:
        a, b = held["logprobs"]
        return Choice((a, b))
    chosen = said_letter(held["text"])
    if chosen is None:
        return Choice(None, words=held["text"])
    return Choice((0.0, -CERTAIN) if chosen[0] == "A" else (-CERTAIN, 0.0), said=True)
