"""What experiments need beside the stages: a base model of a size, another chat template, a part of the labels."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tutelage.errors import UserError

# A template that a server might use by mistake: the same roles, other words around them.
TEMPLATES = {
    "plain": "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}",
    "own": None,
}


def build(
    folder: Path, *, seed: int, model: str, size: str, tokens: int | None = None, good: float | None = None
) -> dict[str, Any]:
    """A base model of the world (`tutelage world build`); the one that the package ships is not built again.

    good: the share of the corpus' forum answers that hold what was asked for.
    """
    from tutelage.models import load_policy, resolve
    from tutelage.world.build import SHIPPED
    from tutelage.world.build import build as build_world

    if (size, seed, tokens) == SHIPPED and good is None:
        done: dict[str, Any] = {"checkpoint": str(resolve("world"))}
    else:
        done = build_world(size, folder / "model", seed, "auto", tokens, resume=True, good=good)
    count = sum(p.numel() for p in load_policy(done["checkpoint"]).model.parameters())
    return {"out": done["checkpoint"], "parameters": count, "loss": done.get("loss")}


def retemplate(folder: Path, *, seed: int, model: str, of: str, style: str = "plain") -> dict[str, Any]:
    """A checkpoint with the same weights and another chat template (style own: unchanged)."""
    if style not in TEMPLATES:
        raise UserError(
            f"no template is called {style!r}", where="retemplate", mend=f"use one of: {', '.join(TEMPLATES)}"
        )
    from tutelage.models import resolve

    source, target = resolve(of), folder / "model"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    template = TEMPLATES[style]
    if template is not None:
        (target / "chat_template.jinja").write_text(template, encoding="utf-8")
    return {"out": str(target)}


def select(folder: Path, *, seed: int, model: str, of: str, harmful: float) -> dict[str, Any]:
    """A part of the labels: all comparisons on harmful prompts, and of the others as many as make `harmful` their share."""
    if not 0 < harmful <= 1:
        raise UserError(
            f"{harmful} is no share", where="select, option harmful", mend="give a number above 0, at most 1"
        )
    rows = [json.loads(line) for line in Path(of).read_text(encoding="utf-8").splitlines()]
    kinds = {True: [r for r in rows if is_harmful(r)], False: [r for r in rows if not is_harmful(r)]}
    if not kinds[True]:
        raise UserError("has no harmful prompt", where=of, mend="label more prompts")
    others = min(len(kinds[False]), round(len(kinds[True]) * (1 - harmful) / harmful))
    kept = kinds[True] + random.Random(f"select {seed}").sample(kinds[False], others)
    out = folder / "comparisons.jsonl"
    out.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept), encoding="utf-8")
    return {"out": str(out), "comparisons": len(kept), "harmful": len(kinds[True])}


def is_harmful(row: dict[str, Any]) -> bool:
    """Whether a comparison is about one of the world's harmful requests, by the words of its prompt."""
    from tutelage.world.language import HARM

    words = row["messages"][-1]["content"].split()
    return any(_fits(template.split(), words) for template, _ in HARM)


def _fits(template: list[str], words: list[str]) -> bool:
    return len(template) == len(words) and all(t == w or "{" in t for t, w in zip(template, words, strict=True))


PREPARATIONS: dict[str, Callable[..., dict[str, Any]]] = {"build": build, "retemplate": retemplate, "select": select}
