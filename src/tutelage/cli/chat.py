"""`tutelage chat --model CHECKPOINT`: several turns in the terminal; two models answer side by side."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tutelage.cli.options import parse_words
from tutelage.configs.base import Dtype, invalid, require_device
from tutelage.errors import UserError

HELP = "/new begins a new conversation; an empty line, /quit or Ctrl-D ends"


@dataclass(kw_only=True, frozen=True)
class ChatOptions:
    """Talk to a model; name two (--model A --model B) to see them side by side."""

    model: tuple[str, ...] = ("world",)
    """A checkpoint: a Hugging Face folder, a run's folder, or `world`. One, or two to compare."""
    system: str | None = None
    """A system message before the conversation."""
    max_new_tokens: int = 128
    """Longest answer, in tokens."""
    temperature: float = 0.7
    """0 is greedy."""
    top_p: float = 1.0
    """Sample from the most likely tokens that hold this share."""
    seed: int = 0
    """The same seed and the same words give the same answers."""
    dtype: Dtype = "auto"
    """Compute type; `auto` is bfloat16 where the GPU or processor has it."""
    device: str = "auto"
    """Where models compute: cpu, cuda, cuda:N, or auto: a GPU if there is one."""

    def __post_init__(self) -> None:
        require_device(self.device)
        if not 1 <= len(self.model) <= 2:
            what = f"takes one or two models, not {len(self.model)}"
            raise UserError(what, where="option --model", mend="give --model A, or --model A --model B")
        if self.max_new_tokens < 1:
            raise invalid("max_new_tokens", self.max_new_tokens, "give a number above zero")
        if not self.temperature >= 0:
            raise invalid("temperature", self.temperature, "give zero or a number above it")
        if not 0 < self.top_p <= 1:
            raise invalid("top_p", self.top_p, "give a number above 0, at most 1")


@dataclass
class Talk:
    """One model and its side of the conversation."""

    name: str
    policy: Any
    options: ChatOptions
    messages: list[dict[str, str]] = field(default_factory=list)
    turns: int = 0

    def start(self) -> None:
        self.turns = 0
        self.messages = [{"role": "system", "content": self.options.system}] if self.options.system else []

    def fitting(self, said: str) -> list[int]:
        """Token ids of the conversation with what was just said; its oldest turns are forgotten where need be."""
        from tutelage.data.templates import render_prompt

        context = getattr(self.policy.model.config, "max_position_embeddings", None) or 2**20
        room, first = context - self.options.max_new_tokens, 1 if self.options.system else 0
        kept = [*self.messages, {"role": "user", "content": said}]
        prompt = render_prompt(self.policy.tokenizer, kept)
        while len(prompt) > room and len(kept) > first + 1:
            del kept[first : first + 2]
            prompt = render_prompt(self.policy.tokenizer, kept)
        if len(prompt) > room:
            what = f"that is {len(prompt)} tokens, more than the {room} that the model has room for"
            raise UserError(what, mend="say less, or give a smaller --max-new-tokens")
        self.messages = kept
        return prompt

    def answer(self, said: str) -> Iterator[str]:
        """The answer so far, at each token; the conversation keeps as much of it as was taken."""
        from tutelage.data.templates import end_token_id
        from tutelage.engine.sampling import SamplingParams, row_seed, stream

        tokenizer, o = self.policy.tokenizer, self.options
        prompt = self.fitting(said)
        params = SamplingParams(o.max_new_tokens, 0, o.temperature, o.top_p)
        tokens: list[int] = []
        shown = ""
        try:
            seed = row_seed(o.seed, "chat", self.turns)
            for token in stream(self.policy, prompt, params, [end_token_id(tokenizer)], seed):
                tokens.append(token)
                text = tokenizer.decode(tokens, skip_special_tokens=True)
                if not text.endswith("\ufffd"):  # a character may need several tokens
                    shown = text
                    yield shown
        finally:
            self.turns += 1
            self.messages.append({"role": "assistant", "content": shown})


def main(verb: str, arguments: list[str]) -> None:
    options = parse_words(ChatOptions, "chat", gather_models(arguments))
    from tutelage.models import load_policy

    policies = [load_policy(name, options.dtype, device=options.device) for name in options.model]
    named = zip(short_names(options.model), policies, strict=True)
    converse([Talk(name, policy, options) for name, policy in named], Console())


def gather_models(words: list[str]) -> list[str]:
    """`--model A --model B` means what `--model A B` does."""
    models: list[str] = []
    rest: list[str] = []
    taking = False
    for word in words:
        if word.startswith("--model="):
            models.append(word.partition("=")[2])
        elif word.startswith("-"):
            taking = word == "--model"
            rest += [] if taking else [word]
        else:
            (models if taking else rest).append(word)
    return [*(["--model", *models] if models else []), *rest]


def short_names(paths: tuple[str, ...]) -> list[str]:
    """The part of a path that says which model it is: `sft` of runs/quickstart/sft/checkpoints/latest."""
    common = {"checkpoints", "latest", "best", "model", ""}
    names = [([part for part in path.split("/") if part not in common] or [path])[-1] for path in paths]
    return names if len(set(names)) == len(names) else list(paths)


def converse(talks: list[Talk], console: Console) -> None:
    """Read what the user says, line by line, until the end."""
    for talk in talks:
        talk.start()
    if sys.stdin.isatty():
        console.print(HELP, style="dim", highlight=False)
    while said := ask():
        if said == "/new":
            for talk in talks:
                talk.start()
        elif said.startswith("/"):
            console.print(HELP, style="dim", highlight=False)
        else:
            reply(talks, said, console)


def ask() -> str | None:
    """The user's next line, or None at the end."""
    try:
        said = input("\nyou: " if sys.stdin.isatty() else "").strip()
    except (EOFError, KeyboardInterrupt):
        print()
        return None
    return None if said in ("/quit", "/exit") else said


def reply(talks: list[Talk], said: str, console: Console) -> None:
    """Stream the answer as it comes, or two in columns; Ctrl-C ends the answer, not the conversation."""
    try:
        if len(talks) == 2 and console.is_terminal:
            side_by_side(talks, said, console)
            return
        for talk in talks:
            one_answer(talk, said, console)
    except UserError as error:
        console.print(error.message, style="dim", highlight=False)
    except KeyboardInterrupt:
        console.print("…", style="dim")


def one_answer(talk: Talk, said: str, console: Console) -> None:
    out, written = console.file, 0
    out.write(f"{talk.name}: ")
    for shown in talk.answer(said):
        out.write(shown[written:])
        out.flush()
        written = len(shown)
    out.write("\n")
    out.flush()


def side_by_side(talks: list[Talk], said: str, console: Console) -> None:
    """Two answers grow in two columns, a token each in turn."""
    shown = ["", ""]
    growing: dict[int, Iterator[str]] = {i: talk.answer(said) for i, talk in enumerate(talks)}
    with Live(columns(talks, shown), console=console, refresh_per_second=12) as live:
        while growing:
            for i, answer in list(growing.items()):
                text = next(answer, None)
                if text is None:
                    del growing[i]
                else:
                    shown[i] = text
            live.update(columns(talks, shown))


def columns(talks: list[Talk], shown: list[str]) -> Table:
    table = Table(expand=True, box=None, padding=(0, 2, 0, 0))
    for talk in talks:
        table.add_column(talk.name, ratio=1, overflow="fold", header_style="bold")
    table.add_row(*(Text(text) for text in shown))
    return table
