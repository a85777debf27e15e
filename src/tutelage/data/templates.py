"""From messages to tokens: the one tokenization path, for training, scoring, sampling and serving.

Text comes from the tokenizer's chat template. The loss mask covers what the assistant has to produce: its
words and the end token, never the newline that some templates put after it. Where a template marks the
assistant's turn with `{% generation %}` the marks are used; elsewhere the span is derived by rendering the
conversation up to each assistant turn with the generation prompt, which must be a prefix of the whole.

Text is cut where each assistant turn begins and the pieces are tokenized apart, so that the tokens before a
turn are exactly those that a sampler is given. Tokenizers that treat a text's first word differently
(SentencePiece's dummy space) are detected; they tokenize the whole text, and character offsets give the mask.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal
from weakref import WeakKeyDictionary

from tutelage.errors import UserError
from tutelage.records import Message

Messages = Sequence[Message]
Span = tuple[int, int]  # [start, end) in characters

_PROBE: list[Message] = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello there."}]
_MARKER = re.compile(r"\{%-?\s*generation\s*-?%\}")


@dataclass(frozen=True)
class Rendered:
    """One tokenized conversation.

    input_ids: [T] token ids. loss_mask: [T], True on tokens that the assistant is to produce, end token included.
    """

    input_ids: list[int]
    loss_mask: list[bool]

    def __len__(self) -> int:
        return len(self.input_ids)

    @cached_property
    def trained(self) -> int:
        """The number of tokens under the mask."""
        return sum(self.loss_mask)

    @cached_property
    def prompt_length(self) -> int:
        """The number of tokens before the first one under the mask (all of them where there is none)."""
        return self.loss_mask.index(True) if self.trained else len(self.loss_mask)


@dataclass(frozen=True)
class Template:
    """What holds for a tokenizer and its chat template, found out once with a probe conversation.

    end_text, end_id: the token that closes the assistant's turn. marked: the template has `{% generation %}`.
    joins: tokenizing two texts apart gives the tokens of both together. header: what the template writes
    between the generation prompt and the assistant's words ("" in a sound one).
    """

    end_text: str
    end_id: int
    marked: bool
    joins: bool
    header: str


_templates: WeakKeyDictionary[Any, tuple[str, Template]] = WeakKeyDictionary()


def render(tokenizer: Any, messages: Messages) -> Rendered:
    """The whole conversation; every assistant turn is under the mask."""
    return render_many(tokenizer, [messages])[0]


def render_prompt(tokenizer: Any, messages: Messages) -> list[int]:
    """[T] what a model is given to answer: the messages and the generation prompt."""
    return render_prompts(tokenizer, [messages])[0]


def render_completion(tokenizer: Any, prompt_messages: Messages, text: str) -> Rendered:
    """A prompt and one answer: the mask covers the answer, and the sequence ends at its end token."""
    return render_completions(tokenizer, [(prompt_messages, text)])[0]


def render_many(tokenizer: Any, conversations: Sequence[Messages]) -> list[Rendered]:
    """`render` for many conversations, in one batch."""
    template = template_of(tokenizer)
    texts = _texts(tokenizer, conversations)
    if template.marked:
        spans = [_marked_spans(tokenizer, messages, template) for messages in conversations]
    else:
        spans = _derived_spans(tokenizer, template, conversations, texts)
    return _tokenize(tokenizer, template, texts, spans)


def render_prompts(tokenizer: Any, prompts: Sequence[Messages]) -> list[list[int]]:
    """`render_prompt` for many prompts, in one batch."""
    template_of(tokenizer)
    return [ids for ids, _ in _encode(tokenizer, _texts(tokenizer, prompts, for_generation=True))]


def render_completions(tokenizer: Any, pairs: Sequence[tuple[Messages, str]]) -> list[Rendered]:
    """`render_completion` for many (prompt messages, answer) pairs, in one batch."""
    template = template_of(tokenizer)
    conversations = [[*messages, {"role": "assistant", "content": text}] for messages, text in pairs]
    texts = _texts(tokenizer, conversations)
    prompts = _texts(tokenizer, [messages for messages, _ in pairs], for_generation=True)
    spans = []
    for number, (text, prompt, messages) in enumerate(zip(texts, prompts, conversations, strict=True)):
        span = _span(text, prompt, messages[-1]["content"], template.end_text, where=f"completion {number + 1}")
        texts[number] = text[: span[1]]
        spans.append([span])
    return _tokenize(tokenizer, template, texts, spans)


def end_token_id(tokenizer: Any) -> int:
    """The token that the template puts at the end of an assistant turn; a sampler stops at it."""
    return template_of(tokenizer).end_id


def template_hash(tokenizer: Any) -> str:
    """16 hexadecimal digits that change when the template, its special tokens or the vocabulary's size do."""
    if not getattr(tokenizer, "chat_template", None):
        raise _no_template(tokenizer)
    special = {name: str(token) for name, token in sorted(tokenizer.special_tokens_map.items())}
    text = json.dumps([template_source(tokenizer), special, len(tokenizer)], ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def truncate(rendered: Rendered, max_length: int, keep: Literal["start", "end"] = "start") -> Rendered | None:
    """At most max_length tokens, or None when nothing under the mask is left (the row is then dropped and counted).

    keep="start" cuts the last tokens (supervised training), keep="end" the first ones (an answer that is to
    be scored must keep its end token).
    """
    if len(rendered) <= max_length:
        cut = rendered
    elif keep == "start":
        cut = Rendered(rendered.input_ids[:max_length], rendered.loss_mask[:max_length])
    else:
        cut = Rendered(rendered.input_ids[-max_length:], rendered.loss_mask[-max_length:])
    return cut if cut.trained else None


def template_of(tokenizer: Any) -> Template:
    """The tokenizer's template, probed; raises UserError where training on it could not be exact."""
    if not getattr(tokenizer, "chat_template", None):
        raise _no_template(tokenizer)
    source = template_source(tokenizer)
    known = _templates.get(tokenizer)
    if known is None or known[0] != source:
        known = (source, _probe(tokenizer, source))
        _templates[tokenizer] = known
    return known[1]


def _probe(tokenizer: Any, source: str) -> Template:
    where = f"chat template of {_name(tokenizer)}"
    if not getattr(tokenizer, "is_fast", False):
        raise UserError(
            "the tokenizer gives no character offsets, so the loss mask cannot be exact",
            where=_name(tokenizer),
            mend="use the fast version of the tokenizer (a tokenizer.json)",
        )
    prompt = _texts(tokenizer, [_PROBE[:1]], for_generation=True)[0]
    text = _texts(tokenizer, [_PROBE])[0]
    answer = _PROBE[1]["content"]
    if not text.startswith(prompt) or answer not in text[len(prompt) :]:
        raise UserError(
            "a prompt rendered for generation is not the beginning of the same conversation with its answer",
            where=where,
            mend="use a template that renders a prompt alike with and without the answer after it",
        )
    at = text.index(answer, len(prompt))
    tail = text[at + len(answer) :]
    tokens = sorted((str(token) for token in tokenizer.added_tokens_decoder.values()), key=len, reverse=True)
    found = re.search("|".join(map(re.escape, tokens)), tail) if tokens else None
    if found is None:
        raise UserError(
            "an assistant turn does not end with a special token, so a model could never learn to stop",
            where=where,
            mend="let the template write the end-of-sequence token after the assistant's content",
        )
    end_text = found.group()
    apart, together = _encode(tokenizer, [prompt, answer]), _encode(tokenizer, [prompt + answer])
    template = Template(
        end_text=end_text,
        end_id=int(tokenizer.convert_tokens_to_ids(end_text)),
        marked=bool(_MARKER.search(source)),
        joins=apart[0][0] + apart[1][0] == together[0][0],
        header=text[len(prompt) : at],
    )
    if template.marked:
        _check_marks(tokenizer, template, (len(prompt), at + len(answer) + found.end()), where)
    return template


def _check_marks(tokenizer: Any, template: Template, derived: Span, where: str) -> None:
    marks = _marked_spans(tokenizer, _PROBE, template)
    if marks != [derived]:
        raise UserError(
            f"the {{% generation %}} block covers characters {marks} of a probe; a model has to produce {[derived]}",
            where=where,
            mend="let the block begin where the generation prompt ends, and end after the end token",
        )


def _texts(tokenizer: Any, conversations: Sequence[Messages], *, for_generation: bool = False) -> list[str]:
    """Rendered text of each conversation; equal conversations are rendered once."""
    keys = [tuple((m["role"], m["content"]) for m in messages) for messages in conversations]
    unique = list(dict.fromkeys(keys))
    for key in unique:
        if not key:
            raise UserError("a conversation has no message", mend="start it with a user turn")
    plain = [[{"role": role, "content": content} for role, content in key] for key in unique]
    options = {"tokenize": False, "add_generation_prompt": for_generation}
    try:
        texts = tokenizer.apply_chat_template(plain, **options) if plain else []
    except Exception:
        texts = [_one_text(tokenizer, messages, options) for messages in plain]
    by_key = dict(zip(unique, texts, strict=True))
    return [by_key[key] for key in keys]


def _one_text(tokenizer: Any, messages: list[Message], options: dict[str, Any]) -> str:
    try:
        return tokenizer.apply_chat_template(messages, **options)
    except Exception as error:
        roles = ", ".join(m["role"] for m in messages)
        raise UserError(
            f"the chat template refuses a conversation of {roles} ({error}): {messages[0]['content'][:60]!r}",
            where=_name(tokenizer),
            mend="change the roles of that row, or use a template that takes them",
        ) from error


def _marked_spans(tokenizer: Any, messages: Messages, template: Template) -> list[Span]:
    from transformers.utils.chat_template_utils import render_jinja_template

    rendered: Any = render_jinja_template(  # annotated as a string, but a pair of lists: texts and marks
        conversations=[list(messages)],
        chat_template=template_source(tokenizer),
        return_assistant_tokens_mask=True,
        **tokenizer.special_tokens_map,
    )
    texts, marks = rendered
    spans = []
    for start, end in marks[0]:
        # A block may close after the newline that follows the end token; nobody has to learn that one.
        last = texts[0].rfind(template.end_text, start, end)
        closed = last >= 0 and not texts[0][last + len(template.end_text) : end].strip()
        spans.append((start, last + len(template.end_text) if closed else end))
    return spans


def _derived_spans(
    tokenizer: Any, template: Template, conversations: Sequence[Messages], texts: Sequence[str]
) -> list[list[Span]]:
    turns = [
        (number, i)
        for number, messages in enumerate(conversations)
        for i, message in enumerate(messages)
        if message["role"] == "assistant"
    ]
    prompts = _texts(tokenizer, [conversations[number][:i] for number, i in turns], for_generation=True)
    spans: list[list[Span]] = [[] for _ in conversations]
    for (number, i), prompt in zip(turns, prompts, strict=True):
        where = f"conversation {number + 1}, turn {i + 1}"
        content = conversations[number][i]["content"]
        spans[number].append(_span(texts[number], prompt, content, template.end_text, where=where))
    return spans


def _span(text: str, prompt: str, content: str, end_text: str, *, where: str) -> Span:
    """Where the assistant's words and their end token stand in the text, after the prompt."""
    start = len(prompt)
    if not text.startswith(prompt):
        raise UserError(
            "the chat template renders the turns before an answer differently once the answer follows",
            where=where,
            mend="use a template with {% generation %} marks, or one that leaves earlier turns as they are",
        )
    words = content.strip()
    at = text.find(words, start)
    # Searching after the words keeps an end token that is quoted inside them from closing the turn early.
    close = text.find(end_text, at + len(words) if at >= 0 else start)
    if close < 0:
        raise UserError(
            f"the chat template does not write {end_text!r} after this answer", where=where, mend="check the template"
        )
    return start, close + len(end_text)


def _tokenize(
    tokenizer: Any, template: Template, texts: Sequence[str], spans: Sequence[Sequence[Span]]
) -> list[Rendered]:
    """Tokens and mask from texts and the spans to produce: cut into pieces, or whole where pieces do not join."""
    if not template.joins:
        return _tokenize_whole(tokenizer, texts, spans)
    pieces: list[str] = []
    for text, places in zip(texts, spans, strict=True):
        cuts = [0, *(start for start, _ in places), len(text)]
        pieces.extend(text[a:b] for a, b in pairwise(cuts))
    encoded = iter(_encode(tokenizer, pieces))
    out = []
    for places in spans:
        ids, mask = list((first := next(encoded))[0]), [False] * len(first[0])
        for start, end in places:
            more, begins = next(encoded)
            ids += more
            mask += [begin < end - start for begin in begins]
        out.append(Rendered(ids, mask))
    return out


def _tokenize_whole(tokenizer: Any, texts: Sequence[str], spans: Sequence[Sequence[Span]]) -> list[Rendered]:
    out = []
    for text, places, (ids, begins) in zip(texts, spans, _encode(tokenizer, texts), strict=True):
        ends = [*begins[1:], len(text)]
        for start, _ in places:
            if any(begin < start < end for begin, end in zip(begins, ends, strict=True)):
                raise UserError(
                    f"one token spans the prompt's end and the answer's beginning ({text[start - 5 : start + 5]!r})",
                    where=_name(tokenizer),
                    mend="let the template end the generation prompt with a special token or a space",
                )
        out.append(Rendered(list(ids), [any(a <= begin < b for a, b in places) for begin in begins]))
    return out


def _encode(tokenizer: Any, texts: Sequence[str]) -> list[tuple[list[int], list[int]]]:
    """(token ids, character at which each token begins) of each text; equal texts are tokenized once."""
    unique = [text for text in dict.fromkeys(texts) if text]
    found: dict[str, tuple[list[int], list[int]]] = {"": ([], [])}
    if unique:
        batch = tokenizer(
            unique, add_special_tokens=False, return_offsets_mapping=True, return_attention_mask=False, verbose=False
        )
        for text, ids, offsets in zip(unique, batch["input_ids"], batch["offset_mapping"], strict=True):
            found[text] = (ids, [begin for begin, _ in offsets])
    return [found[text] for text in texts]


def template_source(tokenizer: Any) -> str:
    """The Jinja source; a tokenizer may hold several templates by name, of which "default" is for chat."""
    source = tokenizer.chat_template
    if isinstance(source, dict):
        if "default" not in source:
            raise UserError(f"has several chat templates ({', '.join(source)}) and no default", where=_name(tokenizer))
        source = source["default"]
    return source


def _name(tokenizer: Any) -> str:
    return str(getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__)


def _no_template(tokenizer: Any) -> UserError:
    return UserError(
        "the tokenizer has no chat template",
        where=_name(tokenizer),
        mend="set tokenizer.chat_template (Jinja) and save the tokenizer again, or start from an instruct model",
    )


def without_mask(rendered: Rendered) -> Rendered:
    """Every token trained: for language-model training on the conversation's text."""
    return replace(rendered, loss_mask=[True] * len(rendered))
