"""From conversations to tokens with the mask of what the assistant is to say: the one path for training and serving.

The text comes from the tokenizer's chat template, never from code of ours. Prompt and answer are
tokenized apart and joined, so that the tokens a policy is trained on are those it meets when it serves.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from jinja2 import TemplateError

from tutelage.errors import UserError
from tutelage.records import Message


@dataclass(frozen=True)
class Rendered:
    """input_ids of a conversation; loss_mask is True on what the assistant is to produce, end token included."""

    input_ids: list[int]
    loss_mask: list[bool]


def _templated(tokenizer: Any, messages: list[Any], *, add_generation_prompt: bool) -> Any:
    """The template's text of a conversation, or of each of many. Some templates refuse roles, or their order."""
    try:
        return tokenizer.apply_chat_template(messages, add_generation_prompt=add_generation_prompt, tokenize=False)
    except TemplateError as error:
        raise UserError(
            f"the model's chat template refuses a conversation ({error})",
            where="chat template",
            mend="give conversations in the roles and the order that it knows, or save the tokenizer with another template",
        ) from error


def prompt_text(tokenizer: Any, messages: Sequence[Message]) -> str:
    """The template's text up to where the assistant begins to speak."""
    return _templated(tokenizer, list(messages), add_generation_prompt=True)


def render_prompt(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """Token ids of a prompt, ready for the assistant's answer."""
    return render_prompts(tokenizer, [messages])[0]


def render_prompts(tokenizer: Any, conversations: Sequence[Sequence[Message]]) -> list[list[int]]:
    """Token ids of many prompts: in two calls in all, which take a small part of the time of two for each."""
    if not conversations:
        return []
    asked = [list(messages) for messages in conversations]
    texts = _templated(tokenizer, asked, add_generation_prompt=True)
    return tokenizer(texts, add_special_tokens=False)["input_ids"]


def end_of_turn(tokenizer: Any) -> str:
    """The text that the template puts behind an assistant's answer, up to and with its end token."""
    probe = "\u2603"
    asked = [{"role": "user", "content": "x"}]
    full = _templated(tokenizer, [*asked, {"role": "assistant", "content": probe}], add_generation_prompt=False)
    tail = full.rsplit(probe, 1)[1]
    specials = [t for t in tokenizer.all_special_tokens if t in tail]
    if not specials:
        raise UserError(
            "the chat template puts no end token behind an answer",
            mend="end the assistant's turn with the tokenizer's end token",
        )
    first = min(specials, key=tail.index)
    return tail[: tail.index(first) + len(first)]


_END_IDS: WeakKeyDictionary[Any, list[int]] = WeakKeyDictionary()


def end_ids(tokenizer: Any) -> list[int]:
    """Token ids of the end of an assistant's turn; the last is the end token."""
    if tokenizer not in _END_IDS:
        _END_IDS[tokenizer] = tokenizer(end_of_turn(tokenizer), add_special_tokens=False)["input_ids"]
    return _END_IDS[tokenizer]


def end_token_id(tokenizer: Any) -> int:
    """The token that ends an assistant's turn: a policy stops there."""
    return end_ids(tokenizer)[-1]


def render_completions(
    tokenizer: Any, messages: Sequence[Message], texts: Sequence[str], *, ended: bool = True
) -> list[Rendered]:
    """A prompt with each of its answers: the mask covers the answer and, unless it was cut off, its end token."""
    prompt = render_prompt(tokenizer, messages)
    end = end_ids(tokenizer) if ended else []
    answers = [ids + end for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]] if texts else []
    return [Rendered(prompt + ids, [False] * len(prompt) + [True] * len(ids)) for ids in answers]


def render_completion(tokenizer: Any, messages: Sequence[Message], text: str, *, ended: bool = True) -> Rendered:
    """A prompt with an answer to it."""
    return render_completions(tokenizer, messages, [text], ended=ended)[0]


def render(tokenizer: Any, messages: Sequence[Message]) -> Rendered:
    """A whole conversation: the mask covers every turn of the assistant."""
    ids: list[int] = []
    mask: list[bool] = []
    said = ""
    for number, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = prompt_text(tokenizer, messages[:number])
        if not before.startswith(said):
            raise UserError(
                "the chat template rewrites earlier turns, so that the loss mask is not defined",
                mend="train on single turns",
            )
        context = tokenizer(before[len(said) :], add_special_tokens=False)["input_ids"]
        answer = tokenizer(message["content"], add_special_tokens=False)["input_ids"] + end_ids(tokenizer)
        ids += context + answer
        mask += [False] * len(context) + [True] * len(answer)
        said = before + message["content"] + end_of_turn(tokenizer)
    if not ids:
        raise UserError("a conversation has no assistant turn", mend="end it with what the assistant should say")
    return Rendered(ids, mask)


def template_hash(tokenizer: Any) -> str:
    return hashlib.sha256(tokenizer.chat_template.encode()).hexdigest()[:16]


@dataclass
class Preflight:
    """What tokenization makes of the data, shown before a run trains on it."""

    template: str
    conversations: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    longest: int = 0
    truncated: int = 0
    end_tokens_trained: int = 0
    doubled_bos: int = 0
    same_when_serving: bool = True
    example: str = ""
    kept: list[Rendered] = field(default_factory=list)

    def lines(self) -> list[str]:
        return [
            f"{self.conversations} conversations, {self.tokens} tokens, {self.trained_tokens} carry loss, longest {self.longest}",
            f"cut at the maximum length: {self.truncated}; end token trained in {self.end_tokens_trained}; "
            f"doubled first token: {self.doubled_bos}; template {self.template}, "
            f"{'the same' if self.same_when_serving else 'NOT the same'} in training and serving",
            f"first one, trained part in ⟦ ⟧: {self.example}",
        ]


def preflight(
    tokenizer: Any, rendered: Sequence[Rendered], max_length: int, prompts: Sequence[Sequence[Message]] = ()
) -> Preflight:
    """Check and cut rendered conversations; raises a UserError for data that cannot train a policy that stops."""
    report = Preflight(template_hash(tokenizer))
    end, bos = end_token_id(tokenizer), tokenizer.bos_token_id
    for one in rendered:
        report.longest = max(report.longest, len(one.input_ids))
        if len(one.input_ids) > max_length:
            report.truncated += 1
            one = Rendered(one.input_ids[:max_length], one.loss_mask[:max_length])
        if not any(one.loss_mask):
            continue
        report.kept.append(one)
        report.tokens += len(one.input_ids)
        report.trained_tokens += sum(one.loss_mask)
        report.end_tokens_trained += any(t == end and m for t, m in zip(one.input_ids, one.loss_mask, strict=True))
        report.doubled_bos += bos is not None and bos != end and one.input_ids[:2] == [bos, bos]
    report.conversations = len(report.kept)
    if not report.kept:
        raise UserError(
            f"no answer fits into {max_length} tokens", where="option --max-length (max_length)", mend="raise it"
        )
    if not report.end_tokens_trained:
        raise UserError(
            "no end token would be trained: every answer is cut off",
            where="option --max-length (max_length)",
            mend="raise it",
        )
    if report.doubled_bos:
        raise UserError(
            "the template and the tokenizer both write the first token",
            where="chat template",
            mend="take it out of the template",
        )
    for messages, one in zip(prompts[:20], rendered, strict=False):
        prompt = render_prompt(tokenizer, messages)
        report.same_when_serving &= one.input_ids[: len(prompt)] == prompt
    report.example = _marked(tokenizer, report.kept[0])
    return report


def _marked(tokenizer: Any, one: Rendered) -> str:
    parts, last = [], False
    for token, trained in zip(one.input_ids, one.loss_mask, strict=True):
        if trained != last:
            parts.append("⟦" if trained else "⟧")
        parts.append(tokenizer.decode([token]))
        last = trained
    return "".join(parts) + ("⟧" if last else "")
