"""A conversation as a model sees it, and its length in tokens; from a checkpoint's files, without torch."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tutelage.errors import UserError
from tutelage.records import Message

WORLD = Path(__file__).parents[1] / "world" / "base"


class _Generation(Extension):
    """`{% generation %}` marks what the assistant says, for loss masks; the text is rendered as it stands."""

    tags = {"generation"}  # noqa: RUF012 (jinja2 declares it so)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


@dataclass(frozen=True)
class Preview:
    """text: the rendered conversation. tokens: all of it; answer: what the last turn adds to the prompt."""

    text: str
    tokens: int
    answer: int


@dataclass(frozen=True)
class _Model:
    tokenizer: Any
    template: Any
    names: dict[str, str]  # bos_token and the like

    def render(self, messages: Sequence[Message], *, ask: bool) -> str:
        return self.template.render(messages=list(messages), add_generation_prompt=ask, **self.names)

    def count(self, text: str) -> int:
        return len(self.tokenizer.encode(text, add_special_tokens=False).ids)


def preview(model: str, messages: Sequence[Message]) -> Preview:
    """UserError where the model has no template, or the template refuses the conversation."""
    loaded = _load(model)
    try:
        text = loaded.render(messages, ask=False)
        asked = loaded.render(messages[:-1], ask=True)
    except TemplateError as error:
        raise UserError(f"the chat template refuses this ({error})", where=model) from error
    tokens = loaded.count(text)
    return Preview(text, tokens, max(0, tokens - loaded.count(asked)))


def checkpoint_folder(model: str) -> Path:
    """The folder with the tokenizer: the world's base, a run's last checkpoint, or a Hugging Face folder."""
    if model == "world":
        return WORLD
    folder = Path(model).expanduser()
    latest = folder / "checkpoints" / "latest"
    return latest if latest.exists() else folder


@lru_cache(maxsize=8)
def _load(model: str) -> _Model:
    from tokenizers import Tokenizer

    folder = checkpoint_folder(model)
    try:
        config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # no file, no JSON, or what `tokenizers` raises, which is Exception itself
        raise UserError(f"has no tokenizer ({error})", where=model, mend="choose another model") from error
    file = folder / "chat_template.jinja"
    source = file.read_text(encoding="utf-8") if file.is_file() else config.get("chat_template")
    if not isinstance(source, str):
        raise UserError("has no chat template", where=model, mend="choose a model that was trained to chat")
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.globals["raise_exception"] = _refuse
    names = {name: _text(config.get(name)) for name in ("bos_token", "eos_token", "pad_token", "unk_token")}
    try:
        template = environment.from_string(source)
    except TemplateError as error:
        raise UserError(f"has a chat template that cannot be read ({error})", where=model) from error
    return _Model(tokenizer, template, {k: v for k, v in names.items() if v is not None})


def _text(token: Any) -> str | None:
    return token.get("content") if isinstance(token, dict) else token


def _refuse(message: str) -> None:
    raise TemplateError(message)
