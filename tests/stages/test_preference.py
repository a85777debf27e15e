"""The preference loop on a nano model: what each loss starts from, equal results however it is cut, resuming, input."""

import json
import math
import os
import signal
import time

import pytest
import torch

from resumed import resumes_with_the_same_numbers, rows
from tutelage.configs import DPOConfig, IPOConfig, KTOConfig, ORPOConfig, SimPOConfig
from tutelage.data.preferences import render_answer
from tutelage.errors import UserError
from tutelage.models import load_policy
from tutelage.stages import preference, reference

COLORS = ("red", "blue", "green", "white")


@pytest.fixture(scope="module")
def rankings(tmp_path_factory):
    """Sixty rankings of three answers; the order follows from the answer alone, so that it can be learnt."""
    path = tmp_path_factory.mktemp("data") / "rankings.jsonl"
    rows = [
        {"prompt": f"Name {i}.", "completions": [f"A {c} hat.", f"No {c}.", f"Go {c} away now."], "ranks": ranks}
        for i in range(60)
        for c, ranks in [(COLORS[i % 4], [[1, 2, 3], [1, 2, 2]][i % 5 == 0])]
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def make(cls, nano, data, out, **changes):
    values = {
        "model": str(nano), "data": str(data), "out": str(out), "max_steps": 2, "batch_size": 8, "learning_rate": 1e-3,
        "max_length": 96, "dtype": "float32", "seed": 3, "eval_every": 2, "save_every": 2, "warmup": 0.0,
    }  # fmt: skip
    return cls(**{**values, **changes})


STARTS = [
    (DPOConfig, {}, math.log(2)),
    (DPOConfig, {"loss": "cdpo", "label_smoothing": 0.1}, math.log(2)),
    (DPOConfig, {"loss": "robust", "label_smoothing": 0.1}, math.log(2)),
    (DPOConfig, {"logprob": "mean"}, math.log(2)),
    (IPOConfig, {"tau": 0.1}, 25.0),
    (KTOConfig, {}, 0.5),
]


@pytest.mark.parametrize(("cls", "changes", "start"), STARTS)
def test_with_a_reference_the_first_loss_is_known(nano, rankings, tmp_path, cls, changes, start):
    """Policy and reference are equal: every log-ratio is 0."""
    preference.run(make(cls, nano, rankings, tmp_path / "run", max_steps=1, eval_comparisons=0, **changes))
    first = rows(tmp_path / "run")[0]
    assert first["loss"] == pytest.approx(start, abs=1e-4)
    assert first["rewards/margins"] == pytest.approx(0.0, abs=1e-4) and first["grad_norm"] > 1e-3


def test_rankings_start_at_the_log_of_their_orders(nano, rankings, tmp_path):
    """K! orders are equally likely: 3! without ties; where two tie one of them takes part, 2!."""
    changes = {"loss": "plackett-luce", "max_steps": 1, "batch_size": 60, "eval_comparisons": 0}
    config = make(DPOConfig, nano, rankings, tmp_path / "run", **changes)
    done = preference.run(config)
    found = rows(tmp_path / "run")[0]["loss"]
    tied = sum(r["ranks"] == [1, 2, 2] for r in trained_rows(rankings, done["comparisons"]))
    share = tied / done["comparisons"]
    assert found == pytest.approx(share * math.log(2) + (1 - share) * math.log(6), abs=1e-4)


def test_a_soft_label_in_a_file_is_learned_from_as_soft(nano, tmp_path):
    """Its first step is that of the same pair in both orders, weighted by the chances; twice the mean weight of 1/2."""
    pairs = [({"probability": 0.3}, 1.0, [[2, 1]]), ({}, 0.3, [[1, 2]]), ({}, 0.7, [[2, 1]])]
    made = []
    for number in range(8):
        prompt, texts = f"Name {number}.", ["A red hat.", f"Go {number} away now."]
        common = {"schema": "tutelage.comparison/1", "prompt_id": f"p{number}", "completion_ids": ["a", "b"]}
        common |= {"messages": [{"role": "user", "content": prompt}], "completions": texts}
        made.append([{**common, "id": f"c{number}{w}", "ranks": r, "weight": w, **more} for more, w, (r,) in pairs])
    grads = []
    for name, chosen in (("soft", [row[:1] for row in made]), ("both", [row[1:] for row in made])):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(one) + "\n" for row in chosen for one in row))
        config = make(DPOConfig, nano, path, tmp_path / name, max_steps=1, batch_size=8 * len(chosen[0]))
        preference.run(config)
        grads.append(rows(tmp_path / name)[0]["grad_norm"] * len(chosen[0]))
    assert grads[0] == pytest.approx(grads[1], rel=1e-3)


def trained_rows(path, count):
    from tutelage.data.sources import comparisons

    found = comparisons(str(path), "train")
    assert len(found) == count
    return [{"ranks": list(c.ranks)} for c in found]


@pytest.mark.parametrize("cls", [DPOConfig, KTOConfig, ORPOConfig, SimPOConfig])
def test_micro_batches_change_nothing(nano, rankings, tmp_path, cls):
    for name, micro in (("whole", 8192), ("cut", 64)):
        preference.run(make(cls, nano, rankings, tmp_path / name, micro_tokens=micro))
    for whole, cut in zip(rows(tmp_path / "whole"), rows(tmp_path / "cut"), strict=True):
        if whole["step"] == 1:  # every log-ratio is rounding: who is above whom says nothing
            whole["rewards/accuracies"] = cut["rewards/accuracies"] = 0.5
        assert whole == pytest.approx(cut, rel=1e-3, abs=1e-4)


def test_it_learns_and_says_how_well_with_an_interval(nano, rankings, tmp_path):
    done = preference.run(make(DPOConfig, nano, rankings, tmp_path / "run", max_steps=12, nll_coef=0.1))
    last = rows(tmp_path / "run")[-1]
    assert last["rewards/margins"] > 0.1 and last["rewards/accuracies"] > 0.8
    held_out = done["held_out"]
    assert held_out["rewards/accuracies"] > 0.7 and held_out["prompts"] > 1
    assert last["eval/rewards/accuracies_low"] <= held_out["rewards/accuracies"] <= last["eval/rewards/accuracies_high"]


def test_answers_logprobs_are_those_of_plain_transformers(nano):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    policy = load_policy(nano, "float32")
    rendered = [
        render_answer(policy.tokenizer, [{"role": "user", "content": p}], a, 96)
        for p, a in (("Name a town.", "Oakton."), ("Name two.", "Selby and Oakton, I think."))
    ]
    sums, tokens, _ = reference.answer_logprobs(policy, rendered)
    plain, tokenizer = AutoModelForCausalLM.from_pretrained(nano), AutoTokenizer.from_pretrained(nano)
    for one, total, count in zip(rendered, sums.detach().tolist(), tokens.tolist(), strict=True):
        ids = torch.tensor([one.input_ids])
        logprobs = plain(ids).logits.detach()[0, :-1].log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]
        answer = torch.tensor(one.loss_mask[1:])
        assert total == pytest.approx(float(logprobs[answer].sum()), abs=1e-3) and count == int(answer.sum())
        assert one.input_ids[-1] == tokenizer.eos_token_id or one.loss_mask[-1]


def test_reference_is_computed_once_and_goes_on_after_a_cut(nano, tmp_path, monkeypatch):
    monkeypatch.setattr(reference, "CHUNK", 2)
    policy = load_policy(nano, "float32")
    answers = [
        render_answer(policy.tokenizer, [{"role": "user", "content": f"Say {i}."}], f"It is {i}.", 96) for i in range(5)
    ]
    calls = []

    def load():
        calls.append(1)
        return policy

    def values():
        return reference.reference_logprobs(tmp_path, nano, load, answers, "float32", 8192)

    whole = values()
    assert whole == pytest.approx(reference.frozen_logprobs(policy, answers, 8192), abs=1e-4)
    assert values() == whole and len(calls) == 1
    path = tmp_path / "reference.jsonl"
    path.write_text(path.read_text()[:-20])  # killed while the last chunk was written
    assert values() == whole and len(calls) == 2
    path.write_text(path.read_text().replace("float32", "bfloat16", 1))  # another arithmetic: nothing is taken over
    assert values() == whole and len(calls) == 3


def test_killed_and_resumed_equals_uninterrupted(nano, rankings, tmp_path):
    def config(out, **more):
        return make(DPOConfig, nano, rankings, tmp_path / out, max_steps=8, save_every=2, **more)

    preference.run(config("whole"))
    log = tmp_path / "killed" / "metrics.jsonl"
    child = os.fork()
    if child == 0:
        preference.run(config("killed"))
        os._exit(0)
    while os.waitpid(child, os.WNOHANG) == (0, 0) and not (log.exists() and log.read_text().count("\n") >= 5):
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    preference.run(config("killed", resume=True))
    assert rows(tmp_path / "whole") == rows(tmp_path / "killed")


def test_stopped_before_the_end_kto_goes_on_with_the_same_numbers(nano, rankings, tmp_path, monkeypatch):
    resumes_with_the_same_numbers(
        monkeypatch,
        preference.run,
        lambda out, **more: make(KTOConfig, nano, rankings, out, max_steps=4, **more),
        tmp_path,
    )


def test_thumbs_alone_train_and_are_measured(nano, tmp_path):
    path = tmp_path / "thumbs.jsonl"
    lines = [{"prompt": f"Say {i}.", "completion": ["Yes.", "No way."][i % 2], "label": i % 2 == 0} for i in range(80)]
    path.write_text("".join(json.dumps(row) + "\n" for row in lines))
    done = preference.run(make(KTOConfig, nano, path, tmp_path / "run", max_steps=8))
    assert done["held_out"]["rewards/accuracies"] > 0.7 and rows(tmp_path / "run")[-1]["kl"] >= 0


def test_bad_input_is_one_error_and_nothing_is_written(nano, tmp_path):
    def refused(cls, text, match):
        path = tmp_path / "data.jsonl"
        path.write_text(text)
        with pytest.raises(UserError, match=match):
            preference.run(make(cls, nano, path, tmp_path / "run"))
        assert not (tmp_path / "run").exists()

    tie = json.dumps({"prompt": "Say it.", "completions": ["a", "b"], "ranks": [1, 1]}) + "\n"
    refused(DPOConfig, tie, "better than another")
    thumb = json.dumps({"prompt": "Say it.", "completion": "a", "label": True}) + "\n"
    refused(DPOConfig, thumb, "no comparisons")
    refused(KTOConfig, thumb, "one prompt only")
    refused(KTOConfig, thumb.replace("true", '"up"'), "field label.*is 'up'")
    refused(KTOConfig, json.dumps({"completion": "a", "label": True}), "no prompt")
    with pytest.raises(UserError, match="world has no comparisons"):
        preference.run(make(DPOConfig, nano, "world", tmp_path / "run"))
    for changes in ({"loss": "cdpo"}, {"label_smoothing": 0.1}, {"loss": "robust", "label_smoothing": 0.5}):
        with pytest.raises(UserError, match="label_smoothing"):
            make(DPOConfig, nano, "x", tmp_path / "run", **changes)
