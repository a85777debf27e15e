"""One answer of a model, word by word, and afterwards what it cost: KL to its reference, and its reward."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tutelage.errors import UserError
from tutelage.judges.cache import Reply
from tutelage.judges.chats import ChatFailedError, Endpoint
from tutelage.judges.streaming import streamed
from tutelage.records import Message
from tutelage.workbench.models import Models, is_endpoint, reference_of

LEAST_ROOM = 8  # tokens that must be left for an answer


@dataclass(frozen=True)
class Sampling:
    max_tokens: int = 128
    temperature: float = 0.7
    seed: int = 0


def speak(models: Models, spec: str, messages: Sequence[Message], sampling: Sampling) -> Iterator[dict[str, Any]]:
    """{"text": so far} at each token, then {"done": how it ended}.

    A local model is held for one token at a time, never between two: two answers of one model take turns, those of
    two models grow side by side, and one whose reader left holds nothing.
    """
    if is_endpoint(spec):
        yield from _told(models, spec, messages, sampling)
        return
    from tutelage.data.templates import end_token_id, render_prompt
    from tutelage.engine.sampling import SamplingParams, row_seed, stream

    policy = models.policy(spec)
    tokenizer = policy.tokenizer
    prompt = render_prompt(tokenizer, [*messages])
    context = int(getattr(policy.model.config, "max_position_embeddings", 0) or 2048)
    room = min(sampling.max_tokens, context - len(prompt))
    if room < LEAST_ROOM:
        raise UserError(f"this model holds {context} tokens, and the conversation has {len(prompt)}", mend="begin anew")
    params = SamplingParams(room, 0, sampling.temperature)
    end = end_token_id(tokenizer)
    tokens: list[int] = []
    coming = stream(policy, prompt, params, [end], row_seed(sampling.seed, "chat", len(messages)))
    while True:
        with models.using(spec):
            token = next(coming, None)
        if token is None:
            break
        tokens.append(token)
        text = tokenizer.decode([t for t in tokens if t != end], skip_special_tokens=True)
        if not text.endswith("\ufffd"):  # a character may need several tokens
            yield {"text": text}
    yield {"done": "stop" if len(tokens) < room or tokens[-1] == end else "length"}


def _told(models: Models, spec: str, messages: Sequence[Message], sampling: Sampling) -> Iterator[dict[str, Any]]:
    """An endpoint's answer: as it comes where the API is OpenAI's, whole where it is not."""
    settings = {"max_tokens": sampling.max_tokens, "temperature": sampling.temperature, "seed": sampling.seed}
    chat = models.chat(spec, **settings)  # type: ignore[arg-type]
    try:
        if isinstance(chat, Endpoint) and chat.kind == "openai":
            text = ""
            for piece in streamed(chat, [*messages]):
                if isinstance(piece, Reply):
                    yield {"done": piece.finish}
                else:
                    text += piece
                    yield {"text": text}
            return
        (reply,) = chat.answers([[*messages]])
    except ChatFailedError as failure:
        raise UserError(f"did not answer ({failure})", where=spec, mend="try again") from failure
    if isinstance(reply, ChatFailedError):
        raise UserError(f"did not answer ({reply})", where=spec, mend="try again")
    yield {"text": str(reply)}
    yield {"done": reply.finish}


def weigh(
    models: Models, spec: str, messages: Sequence[Message], text: str, reward: str, ended: bool = True
) -> dict[str, Any]:
    """Tokens, KL to the reference (nats) and reward of an answer; what cannot be known is None.

    ended: whether the model ended the answer by itself.
    """
    local = not is_endpoint(spec)
    reference = reference_of(spec) if local else ""
    known = spec if reference else ""
    read = models.read(messages, text, policy=known, reference=reference, reward=reward, ended=ended)
    missing = "missing" if local else "none"
    return {
        "tokens": len(read.tokens) if read.tokens else None,
        "kl": sum(read.kl) if read.kl else None,
        "reference": "itself" if reference == spec else "its reference" if reference else missing,
        "reward": read.rewards[-1] if read.rewards else None,
    }
