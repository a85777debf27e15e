"""`tutelage chat --model CHECKPOINT`: several turns in the terminal; two models answer one after the other."""

import sys
from dataclasses import dataclass
from typing import Any

import tyro

from tutelage.errors import UserError


@dataclass(kw_only=True)
class ChatOptions:
    """Talk to a model. An empty line ends; `/new` begins a new conversation."""

    model: tuple[str, ...] = ("world",)
    """One checkpoint, or two to compare."""
    max_new_tokens: int = 128
    temperature: float = 0.7
    seed: int = 0


def main(verb: str, arguments: list[str]) -> None:
    options = tyro.cli(ChatOptions, prog="tutelage chat", args=arguments)
    if not 1 <= len(options.model) <= 2:
        raise UserError("takes one or two models", where="option --model", mend="give --model A or --model A B")
    from tutelage.models import load_policy

    policies = [load_policy(name) for name in options.model]
    histories: list[list[dict[str, str]]] = [[] for _ in policies]
    turn = 0
    while True:
        try:
            said = input("you: ").strip() if sys.stdin.isatty() else sys.stdin.readline().strip()
        except EOFError:
            return
        if not said:
            return
        if said == "/new":
            histories = [[] for _ in policies]
            continue
        for name, policy, history in zip(options.model, policies, histories, strict=True):
            history.append({"role": "user", "content": said})
            answer = _answer(name if len(policies) > 1 else "model", policy, history, options, turn)
            history.append({"role": "assistant", "content": answer})
        turn += 1


def _answer(name: str, policy: Any, history: list[dict[str, str]], options: ChatOptions, turn: int) -> str:
    from tutelage.data.templates import end_token_id, render_prompt
    from tutelage.engine.sampling import SamplingParams, row_seed, stream

    params = SamplingParams(options.max_new_tokens, 0, options.temperature)
    ids = render_prompt(policy.tokenizer, history)
    print(f"{name}: ", end="", flush=True)
    tokens: list[int] = []
    shown = ""
    for token in stream(policy, ids, params, [end_token_id(policy.tokenizer)], row_seed(options.seed, "chat", turn)):
        tokens.append(token)
        text = policy.tokenizer.decode(tokens)
        if not text.endswith("\ufffd"):  # a character may need several tokens
            print(text[len(shown) :], end="", flush=True)
            shown = text
    print()
    return shown
