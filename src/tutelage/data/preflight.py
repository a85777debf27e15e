"""The check before a training run: what the model will see, and whether it can learn to stop from it.

Each line answers a fault that has wasted people's runs: an end token that is never trained, a BOS token twice,
another template in serving than in training, answers cut off in silence.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tutelage.data.templates import (
    Messages,
    Rendered,
    render_many,
    render_prompts,
    template_hash,
    template_of,
    template_source,
    truncate,
)
from tutelage.errors import UserError


@dataclass(frozen=True)
class Preflight:
    """What training on these conversations will see. `sample` shows one row with the trained part in ⟦…⟧."""

    conversations: int
    max_length: int
    end_token: str
    end_token_trained: int
    doubled_bos: int
    control_tokens_in_text: int
    template_hash: str
    expected_hash: str | None
    serving_differs: int
    serving_checked: int
    header: str
    dated: bool
    truncated: int
    dropped: int
    longest: int
    tokens: int
    trained_tokens: int
    sample: str

    @property
    def kept(self) -> int:
        return self.conversations - self.dropped

    def lines(self) -> list[str]:
        """The report, a line a check."""
        same = self.expected_hash in (None, self.template_hash)
        share = self.truncated / max(1, self.conversations)
        lines = [
            f"rows         {self.conversations:,} · {self.tokens:,} tokens, {self.trained_tokens:,} trained"
            f" · longest {self.longest:,}",
            f"end token    {self.end_token} trained in {self.end_token_trained:,} of {self.kept:,} kept rows",
            f"doubled BOS  {self.doubled_bos or 'none'}",
            f"template     {self.template_hash}{'' if same else f' (the model was trained with {self.expected_hash})'}",
            f"serving      prompt tokens equal in training and serving:"
            f" {self.serving_checked - self.serving_differs} of {self.serving_checked} checked",
            f"truncated    {self.truncated:,} ({share:.1%}) at {self.max_length:,} tokens, {self.dropped:,} dropped"
            " with nothing left to train on",
        ]
        if self.control_tokens_in_text:
            lines.append(f"warning      {self.control_tokens_in_text:,} rows hold control tokens in their text")
        if self.header:
            lines.append(f"warning      the model itself writes {self.header!r} before each answer")
        if self.dated:
            lines.append("warning      the template writes today's date into the prompt")
        return [*lines, f"sample       {self.sample}"]

    def raise_if_broken(self) -> None:
        """UserError for what would waste the run: nothing to train on, no end token, two BOS, another template."""
        fault: tuple[str, str] | None = None
        if self.conversations == 0:
            fault = ("there is nothing to train on", "give data with at least one conversation")
        elif self.dropped > self.conversations / 2:
            fault = (
                f"{self.dropped} of {self.conversations} rows have no answer left within {self.max_length} tokens",
                f"raise --max-length (the longest row has {self.longest} tokens)",
            )
        elif self.end_token_trained == 0:
            fault = (f"no row trains the end token {self.end_token}; the model would never stop", "raise --max-length")
        elif self.doubled_bos:
            fault = (f"{self.doubled_bos} rows begin with two BOS tokens", "take one out of the template or the text")
        elif self.serving_differs:
            fault = (f"{self.serving_differs} prompts get other tokens in serving", "use another chat template")
        elif self.expected_hash not in (None, self.template_hash):
            fault = (
                f"the chat template ({self.template_hash}) is not the model's own ({self.expected_hash})",
                "restore the tokenizer that was saved with the model",
            )
        if fault:
            raise UserError(fault[0], where="pre-flight check", mend=fault[1])


def preflight(
    tokenizer: Any,
    conversations: Sequence[Messages],
    max_length: int,
    *,
    expected_hash: str | None = None,
    serving_sample: int = 64,
) -> Preflight:
    """Render everything once and look at it before a training run. Conversations end with an assistant turn."""
    template = template_of(tokenizer)
    rendered = render_many(tokenizer, conversations)
    cut = [truncate(r, max_length) for r in rendered]
    kept = [r for r in cut if r is not None]
    bos = tokenizer.bos_token_id
    controls = [str(t) for t in tokenizer.added_tokens_decoder.values() if len(str(t)) > 1]
    pattern = re.compile("|".join(map(re.escape, controls)))
    shown = [messages for messages in conversations if messages[-1]["role"] == "assistant"][:serving_sample]
    prompts = render_prompts(tokenizer, [messages[:-1] for messages in shown])
    whole = render_many(tokenizer, shown)
    return Preflight(
        conversations=len(rendered),
        max_length=max_length,
        end_token=template.end_text,
        end_token_trained=sum(_trains(r, template.end_id) for r in kept),
        doubled_bos=sum(bos is not None and r.input_ids[:2] == [bos, bos] for r in rendered),
        control_tokens_in_text=sum(any(pattern.search(m["content"]) for m in row) for row in conversations),
        template_hash=template_hash(tokenizer),
        expected_hash=expected_hash,
        serving_differs=sum(r.input_ids[: len(p)] != p for r, p in zip(whole, prompts, strict=True)),
        serving_checked=len(shown),
        header=template.header if template.header.strip() else "",
        dated="strftime_now" in template_source(tokenizer),
        truncated=sum(len(r) > max_length for r in rendered),
        dropped=len(rendered) - len(kept),
        longest=max(map(len, rendered), default=0),
        tokens=sum(map(len, kept)),
        trained_tokens=sum(r.trained for r in kept),
        sample=show(tokenizer, min(kept, key=len)) if kept else "",
    )


def _trains(rendered: Rendered, token: int) -> bool:
    return any(masked and t == token for t, masked in zip(rendered.input_ids, rendered.loss_mask, strict=True))


def show(tokenizer: Any, rendered: Rendered) -> str:
    """The decoded tokens on one line, with what is trained in ⟦…⟧."""
    parts: list[str] = []
    run: list[int] = []
    masks = [*rendered.loss_mask, None]
    for i, token in enumerate(rendered.input_ids):
        run.append(token)
        if masks[i + 1] != masks[i]:
            text = tokenizer.decode(run, skip_special_tokens=False)
            parts.append(f"⟦{text}⟧" if masks[i] else text)
            run = []
    return "".join(parts).replace("\n", "⏎")
