"""vLLM behind the sampler's interface: what it is asked for, what comes back, and (where installed) the same greedy text."""

import os
import sys
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch

from tutelage.configs import SampleConfig
from tutelage.engine import vllm
from tutelage.engine.packing import pack
from tutelage.engine.sampling import SamplingParams, sample
from tutelage.errors import UserError
from tutelage.models import load_policy
from tutelage.models.checkpoint import load_vllm
from tutelage.stages.sample import run


class Engine:
    """Answers each request with the tokens 7, 8, end; remembers what it was asked."""

    def generate(self, prompts, options, use_tqdm):
        self.asked = list(zip(prompts, options, strict=True))
        entry = lambda p: SimpleNamespace(logprob=p)  # noqa: E731
        one = SimpleNamespace(
            token_ids=(7, 8), logprobs=[{7: entry(-1.0)}, {8: entry(-2.0)}], finish_reason="stop", stop_reason="b"
        )
        return [SimpleNamespace(outputs=[one]) for _ in prompts]


def test_every_parameter_is_handed_on_and_results_keep_their_places():
    params = SamplingParams(9, 2, 0.7, 0.9, 5, 0.1, ("b",))
    model = SimpleNamespace(engine=Engine(), params=lambda **more: more, reported="processed_logprobs")
    decode = lambda tokens: "".join({7: "xa", 8: "aby"}[t] for t in tokens)  # noqa: E731
    params = SamplingParams(9, 1, 0.7, 0.9, 5, 0.1, ("b",))
    found = vllm.sample(model, [[1, 2], [3]], [[10, 11], [12]], params, [4], decode=decode)
    assert [len(row) for row in found] == [2, 1]
    assert (found[0][0].tokens, found[0][0].logprobs) == ([7, 8], [-1.0, -2.0])
    assert (found[0][0].finish, found[0][0].cut) == ("stop_sequence", 3)
    assert [o["seed"] for _, o in model.engine.asked] == [10, 11, 12]
    prompt, options = model.engine.asked[2]
    assert prompt == {"prompt_token_ids": [3]} and options["stop_token_ids"] == [4] and options["stop"] == ["b"]
    assert [options[k] for k in ("max_tokens", "min_tokens", "temperature", "top_p", "top_k", "min_p")] == [
        9, 1, 0.7, 0.9, 5, 0.1,
    ]  # fmt: skip


def test_which_log_probabilities_are_of_the_whole_distribution():
    assert vllm.reported(SamplingParams(temperature=0.0)) == "raw_logprobs"
    assert vllm.reported(SamplingParams(top_p=0.5)) == "raw_logprobs"
    assert vllm.reported(SamplingParams(temperature=0.7)) == "processed_logprobs"
    assert vllm.reported(SamplingParams(temperature=0.7, top_k=3)) is None


def test_without_vllm_there_is_one_error_and_no_file(nano, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(UserError, match=r"--backend.*vLLM is not installed\n.*pip install vllm"):
        run(SampleConfig(model=str(nano), backend="vllm", out=str(tmp_path / "c.jsonl")))
    assert not (tmp_path / "c.jsonl").exists()


def test_weights_come_whole_and_the_older_ones_cache_is_forgotten():
    done = []
    embedding = type("ParallelLMHead", (), {})()
    embedding.quant_method = SimpleNamespace(process_weights_after_loading=lambda one: done.append(("pack", one)))
    model = SimpleNamespace(modules=lambda: [object(), embedding])
    engine = SimpleNamespace(
        collective_rpc=lambda method, kwargs: done.append((method, dict(kwargs["weights_iterator"]))),
        apply_model=lambda work: work(model),
        reset_prefix_cache=lambda: done.append("forgot") or True,
    )
    ours = vllm.VLLM.__new__(vllm.VLLM)
    ours.engine = engine
    ours.load({"a": 1, "b": 2})
    assert done == [("reload_weights", {"a": 1, "b": 2}), ("pack", embedding), "forgot"]
    engine.reset_prefix_cache = lambda: False
    with pytest.raises(RuntimeError, match="older weights"):
        ours.load({"a": 1})


def test_an_engine_beside_others_takes_its_share(monkeypatch):
    for name in ("VLLM_CPU_KVCACHE_SPACE", "VLLM_CPU_OMP_THREADS_BIND", "VLLM_ENABLE_V1_MULTIPROCESSING"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    assert vllm.beside_others(0.5) == {"gpu_memory_utilization": 0.45} and "VLLM_CPU_KVCACHE_SPACE" not in os.environ
    assert vllm.beside_others(0) == {"enforce_eager": True}
    assert os.environ["VLLM_CPU_KVCACHE_SPACE"] == "1" and os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"


@pytest.mark.skipif(not find_spec("vllm"), reason="weights go to vLLM, which the user installs")
def test_new_weights_reach_vllm_and_its_log_probabilities_are_theirs(monkeypatch):
    """The world's model has its input embedding as its output's too, which vLLM keeps a packed copy of."""
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    params, prompts = SamplingParams(12, min_new_tokens=12), [[2, 9, 3], [2, 40, 41, 42, 3]]
    ours, theirs = load_policy("world", "float32"), load_vllm("world", "float32", 300, params, gpus=0)
    long = {"prompt_token_ids": [3 + number % 90 for number in range(280)]}

    def cached() -> int:
        options = vllm._options(theirs.model, params, [1], 1)
        return theirs.model.engine.generate([long], options, use_tqdm=False)[0].num_cached_tokens

    torch.manual_seed(0)
    for change in (0.0, 0.02, 0.02):
        with torch.no_grad():
            for parameter in ours.model.parameters():
                parameter += change * torch.randn_like(parameter)
        theirs.model.load(ours.plain_weights())
        assert cached() == 0 < cached()  # computed anew with the new weights, then once for all that share it
        rows = vllm.sample(theirs.model, prompts, [[1], [2]], params, [1], decode=theirs.decode)
        for (one,), prompt in zip(rows, prompts, strict=True):
            truth = ours.logprobs(pack([prompt + one.tokens]), torch.arange(len(prompt), len(prompt) + 12))[0].detach()
            assert one.logprobs == pytest.approx(truth.tolist(), abs=1e-3)


def test_vllm_samples_as_we_do():
    pytest.importorskip("vllm", reason="the second sampler needs vLLM, which the user installs")
    params = SamplingParams(12, temperature=0.0)
    ours = load_policy("world", "float32")
    prompts = [[2, 9, 3], [2, 40, 41, 42, 3]]
    theirs = load_vllm("world", "float32", 64, params)
    greedy = vllm.sample(theirs.model, prompts, [[1], [2]], params, [1], decode=theirs.decode)
    assert [row[0].tokens for row in greedy] == [
        row[0].tokens for row in sample(ours.model, prompts, [[1], [2]], params, [1])
    ]
    drawn = SamplingParams(12, min_new_tokens=12)
    for row, prompt in zip(
        vllm.sample(theirs.model, prompts, [[1], [2]], drawn, [1], decode=theirs.decode), prompts, strict=True
    ):
        tokens = row[0].tokens
        assert len(tokens) == 12 and row[0].finish == "length"
        truth = ours.logprobs(pack([prompt + tokens]), torch.arange(len(prompt), len(prompt) + 12))[0].detach()
        assert row[0].logprobs == pytest.approx(truth.tolist(), abs=0.02)
