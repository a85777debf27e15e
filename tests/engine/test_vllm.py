"""vLLM behind the sampler's interface: what it is asked for, what comes back, and (where installed) the same greedy text."""

import sys
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
