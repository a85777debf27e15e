"""Draw completions of prompts from a checkpoint, or a model behind an API, into a file of completion records.

Several processes draw a part of the prompts each: an answer hangs on its prompt's seed, so that the file is the same.
"""

import sys
import time
from pathlib import Path
from typing import Any

from tutelage.configs import SampleConfig
from tutelage.configs.measure import ENDPOINTS
from tutelage.data.formats import check_file, write_jsonl
from tutelage.data.sources import prompts
from tutelage.data.templates import end_token_id, render_prompts
from tutelage.engine import vllm
from tutelage.engine.distributed import from_main, joined, part
from tutelage.engine.packing import context_of
from tutelage.engine.sampling import Sample, SamplingParams, row_seed, sample
from tutelage.errors import UserError
from tutelage.models import Policy, load_policy
from tutelage.models.checkpoint import load_vllm
from tutelage.records import Completion, Prompt
from tutelage.runs import Progress

SAID = ("temperature", "top_p", "top_k", "min_p", "stop", "seed")  # options that each completion's record repeats


def run(config: SampleConfig) -> dict[str, Any]:
    """Sample; returns counts and the rate (without loading)."""
    out = Path(config.out or "runs/completions.jsonl").expanduser()
    check_file(out, config.data)
    if config.model.startswith(ENDPOINTS):
        return _from_endpoint(config, out)
    params = SamplingParams(
        config.max_new_tokens,
        config.min_new_tokens,
        config.temperature,
        config.top_p,
        config.top_k,
        config.min_p,
        config.stop,
    )
    if config.backend == "vllm":
        policy = load_vllm(config.model, config.dtype, config.max_length, params)
    else:
        policy = load_policy(config.model, config.dtype, device=config.device)
    asked = prompts(config.data, config.split, config.prompts, config.seed)

    started = time.perf_counter()
    with Progress(len(asked) * config.samples, out.stem, unit="answer") as bar:
        mine = list(part(asked))
        limits = (config.max_length, config.batch_size)
        drawn = draw(policy, mine, config.samples, params, config.seed, *limits, bar) if mine else []
        samples = joined(drawn)
    seconds = time.perf_counter() - started
    new_tokens = sum(len(s.tokens) for row in samples for s in row)

    records = [
        Completion(
            id=f"{prompt.id}-{number}",
            prompt_id=prompt.id,
            text=text_of(policy, one),
            model=config.model,
            sampling={name: getattr(config, name) for name in SAID},
            logprob_sum=round(sum(one.logprobs), 4) if one.logprobs else None,
            finish=one.finish,
        )
        for prompt, row in zip(asked, samples, strict=True)
        for number, one in enumerate(row)
    ]
    from_main(lambda: write_jsonl(out, [*asked, *records]))
    rate = new_tokens / seconds
    return {
        "stage": "sample",
        "out": str(out),
        "prompts": len(asked),
        "completions": len(records),
        "new_tokens": new_tokens,
        "seconds": round(seconds, 3),
        "tokens_per_second": round(rate, 1),
    }


def _from_endpoint(config: SampleConfig, out: Path) -> dict[str, Any]:
    """The same records of a model behind an API; a prompt that it left unanswered is left out, and counted."""
    from tutelage.judges.chats import ChatFailedError, open_chat

    chat = open_chat(config.model, max_tokens=config.max_new_tokens, temperature=config.temperature)
    asked = prompts(config.data, config.split, config.prompts, config.seed)
    places = [(prompt, number) for prompt in asked for number in range(config.samples)]
    print(f"sample: {chat.name} will be asked {len(places)} times", file=sys.stderr)
    started, done = time.perf_counter(), 0
    with Progress(len(places), out.stem, unit="answer") as bar:

        def answered(_: int, __: Any) -> None:
            nonlocal done
            done += 1
            bar.update(done)

        replies = chat.answers([prompt.messages for prompt, _ in places], answered)
    records = [
        Completion(
            id=f"{prompt.id}-{number}",
            prompt_id=prompt.id,
            text=str(reply),
            model=config.model,
            sampling={"temperature": config.temperature},
            finish=reply.finish,
        )
        for (prompt, number), reply in zip(places, replies, strict=True)
        if not isinstance(reply, ChatFailedError)
    ]
    failed = [str(reply) for reply in replies if isinstance(reply, ChatFailedError)]
    if not records:
        raise UserError(f"answers nothing ({failed[0]})", where=config.model, mend="is it up? check the URL")
    if failed:
        print(f"warning: {config.model} left {len(failed)} of {len(places)} answers: {failed[0]}", file=sys.stderr)
    write_jsonl(out, [*asked, *records])
    seconds = round(time.perf_counter() - started, 3)
    counts = {"prompts": len(asked), "completions": len(records), "failed": len(failed)}
    return {"stage": "sample", "out": str(out), **counts, "seconds": seconds}


def draw(
    policy: Policy,
    asked: list[Prompt],
    count: int,
    params: SamplingParams,
    seed: int,
    max_length: int,
    batch_size: int = 256,
    bar: Progress | None = None,
) -> list[list[Sample]]:
    """`count` samples for each prompt, seeded by (seed, prompt, number)."""
    ids = rendered_prompts(policy, asked, max_length)
    seeds = [[row_seed(seed, p.id, number) for number in range(count)] for p in asked]
    ends = [end_token_id(policy.tokenizer)]
    policy.activate()
    sampler: Any = vllm.sample if isinstance(policy.model, vllm.VLLM) else sample
    return sampler(
        policy.model,
        ids,
        seeds,
        params,
        ends,
        decode=policy.decode,
        batch_size=batch_size,
        progress=None if bar is None else (lambda done: bar.update(done)),
    )


def rendered_prompts(policy: Policy, asked: list[Prompt], max_length: int) -> list[list[int]]:
    """Token ids of each prompt; a UserError for one that leaves no room for an answer."""
    ids = render_prompts(policy.tokenizer, [p.messages for p in asked])
    context = _context(policy)
    for prompt, one in zip(asked, ids, strict=True):
        if context <= len(one) < max_length:
            what = f"prompt {prompt.id} has {len(one)} tokens, the model's context holds {context}"
            raise UserError(what, where="option --data (data)", mend="leave long prompts out")
        if len(one) >= max_length:
            raise UserError(
                f"prompt {prompt.id} has {len(one)} tokens",
                where="option --max-length (max_length)",
                mend="raise it, or leave long prompts out",
            )
    return ids


def fitting_prompts(policy: Policy, asked: list[Prompt], max_length: int) -> list[Prompt]:
    """The prompts that leave room for an answer (the paper drops long ones too); says how many do not.

    A UserError where none does.
    """
    room = min(max_length, _context(policy))
    rendered = render_prompts(policy.tokenizer, [p.messages for p in asked])
    fitting = [p for p, ids in zip(asked, rendered, strict=True) if len(ids) < room]
    if asked and not fitting:
        rendered_prompts(policy, asked[:1], max_length)
    if len(fitting) < len(asked):
        left_out = len(asked) - len(fitting)
        print(f"{left_out} of {len(asked)} prompts have {room} tokens or more: left out", file=sys.stderr)
    return fitting


def _context(policy: Policy) -> int:
    return 2**30 if isinstance(policy.model, vllm.VLLM) else context_of(policy.model)  # vLLM checks its own


def text_of(policy: Policy, one: Sample) -> str:
    """The answer's text, without its end token, and only what stands before a stop string."""
    return policy.decode(one.tokens[:-1] if one.finish == "stop" else one.tokens)[: one.cut]
