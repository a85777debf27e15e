"""The loops without a critic on a nano model: where they start, that they climb, equal results however they are cut."""

import json

import pytest
import torch

from resumed import resumes_with_the_same_numbers, rows
from tutelage.configs import GRPOConfig, OnlineDPOConfig, RejectionConfig, RLOOConfig
from tutelage.engine.sampling import SamplingParams
from tutelage.errors import UserError
from tutelage.models import load_policy, load_scalar, save_model
from tutelage.stages import group_policy, rejection, rollout
from tutelage.stages.sample import draw
from tutelage.world import prompts

METHODS = [(RLOOConfig, {}), (GRPOConfig, {}), (GRPOConfig, {"loss": "dr-grpo"}), (OnlineDPOConfig, {})]


@pytest.fixture(scope="module")
def reward(nano, tmp_path_factory, little_text):
    folder = tmp_path_factory.mktemp("reward") / "model"
    torch.manual_seed(0)
    save_model(folder, load_scalar(nano, "float32", trained=False), {"role": "reward"}, verify=False)
    return folder


def make(cls, nano, reward, out, **changes):
    values = {
        "model": str(nano), "reward_model": str(reward), "out": str(out), "max_steps": 2, "batch_size": 16, "group_size": 4,
        "max_new_tokens": 6, "learning_rate": 3e-3, "warmup_steps": 0, "eval_every": 50, "eval_prompts": 4, "force": True,
        "seed": 3, "max_length": 96, "dtype": "float32", "save_every": 2,
    }  # fmt: skip
    return cls(**{**values, **changes})


@pytest.mark.parametrize(("cls", "changes"), METHODS)
def test_each_starts_on_policy_and_climbs(nano, reward, tmp_path, monkeypatch, cls, changes):
    """The reward is the share of tokens from the first half of the vocabulary: its mean must rise from about a half."""

    def score(model, policy, asked, samples, *rest, **more):
        half = policy.model.config.vocab_size // 2
        return torch.tensor([4 * sum(t < half for t in s.tokens) / len(s.tokens) for s in samples])

    monkeypatch.setattr(rollout, "score_answers", score)
    config = make(
        cls,
        nano,
        reward,
        tmp_path / "run",
        max_steps=16,
        learning_rate=2e-2,
        missing_eos_penalty=0.0,
        batch_size=48,
        **changes,
    )
    group_policy.run(config)
    found = rows(tmp_path / "run")
    first, last = found[0], found[-1]
    assert abs(first["objective/kl"]) < 1e-4 and abs(first["val/ratio"] - 1) < 1e-4
    assert last["objective/scores"] > first["objective/scores"] + 0.5
    if cls is OnlineDPOConfig:
        assert first["loss"] == pytest.approx(0.693147, abs=1e-4)
    if cls is GRPOConfig and not changes:  # advantages cancel within a group; Dr. GRPO weighs them by length
        assert first["loss"] == pytest.approx(0.0, abs=1e-4)


@pytest.mark.parametrize(("cls", "changes"), [METHODS[0], METHODS[3]])
def test_micro_batches_change_nothing(nano, reward, tmp_path, cls, changes):
    for name, micro in (("whole", 8192), ("cut", 100)):
        group_policy.run(make(cls, nano, reward, tmp_path / name, micro_tokens=micro, minibatch_size=8, **changes))
    first = [rows(tmp_path / name)[0] for name in ("whole", "cut")]
    assert all(first[0][k] == pytest.approx(first[1][k], rel=1e-3, abs=1e-4) for k in first[0])


def test_stopped_and_resumed_equals_uninterrupted(nano, reward, tmp_path, monkeypatch):
    resumes_with_the_same_numbers(
        monkeypatch,
        group_policy.run,
        lambda out, **more: make(RLOOConfig, nano, reward, out, max_steps=4, **more),
        tmp_path,
    )


def test_answers_to_one_prompt_are_scored_together_as_alone(nano, reward):
    policy, model = load_policy(nano, "float32"), load_scalar(reward, "float32")
    asked = prompts("train", 3)
    rows = draw(policy, asked, 4, SamplingParams(12), 1, 96)
    each = [prompt for prompt in asked for _ in range(4)]
    answers = [one for row in rows for one in row]
    together = rollout.score_answers(model, policy, each, answers, 96, 300)
    alone = torch.cat(
        [rollout.score_answers(model, policy, [p], [a], 96, 300) for p, a in zip(each, answers, strict=True)]
    )
    assert together.std() > 0 and torch.allclose(alone, together, atol=1e-5)


def test_a_group_of_equal_rewards_is_no_pair():
    config = OnlineDPOConfig(group_size=3, batch_size=9)
    some = rollout.Rollout(*[None] * 15)
    some.scores = torch.tensor([1.0, 3.0, 2.0, 5.0, 5.0, 5.0, 0.0, -1.0, -2.0])
    groups, _ = group_policy.comparison_within_groups(config, some)
    assert groups == [[1, 0], [6, 8]]


def test_group_sizes_must_fit(nano, reward, tmp_path):
    for changes in ({"batch_size": 10}, {"group_size": 1}, {"minibatch_size": 6}, {"minibatch_size": 32}):
        with pytest.raises(UserError, match="|".join(changes)):
            make(RLOOConfig, nano, reward, tmp_path / "run", **changes)
    with pytest.raises(UserError, match="gate"):
        group_policy.run(make(RLOOConfig, nano, reward, tmp_path / "run", force=False))
    with pytest.raises(UserError, match="max_length"):
        group_policy.run(make(RLOOConfig, nano, reward, tmp_path / "run", max_length=4))
    assert not (tmp_path / "run").exists()


def test_rejection_keeps_the_best_and_samples_once(nano, reward, tmp_path, monkeypatch):
    monkeypatch.setattr(rejection, "CHUNK", 4)
    options = {
        "model": str(nano), "reward_model": str(reward), "out": str(tmp_path / "run"), "samples": 4, "prompts": 10,
        "max_new_tokens": 40, "batch_size": 4, "learning_rate": 1e-3, "force": True, "max_length": 160, "dtype": "float32",
    }  # fmt: skip
    monkeypatch.setattr(rejection, "_best", lambda c: max(zip(c.scores, c.texts, strict=True))[1])
    done = rejection.run(RejectionConfig(**options))
    candidates = [json.loads(line) for line in (tmp_path / "run/candidates.jsonl").read_text().splitlines()]
    best = {c["prompt_id"]: max(zip(c["scores"], c["texts"], strict=True))[1] for c in candidates}
    kept = [json.loads(line) for line in (tmp_path / "run/demonstrations.jsonl").read_text().splitlines()]
    assert {d["prompt_id"]: d["messages"][-1]["content"] for d in kept} == best and done["kept"] == 10
    table = done["best_of_n"]
    mean = sum(sum(c["scores"]) for c in candidates) / 40
    assert [row["n"] for row in table] == [1, 2, 4] and table[0]["proxy"] == pytest.approx(mean)
    assert table[0]["proxy"] < table[1]["proxy"] < table[2]["proxy"] and table[0]["kl_upper_bound"] == 0

    # A candidate line that was cut off is sampled again, and no other.
    path = tmp_path / "run/candidates.jsonl"
    whole = path.read_text()
    path.write_text(whole[:-30])
    drawn = []
    draw = rejection.draw
    monkeypatch.setattr(
        rejection, "draw", lambda policy, some, *rest: drawn.append(len(some)) or draw(policy, some, *rest)
    )
    rejection.run(RejectionConfig(**options, resume=True))
    assert drawn == [1]
    strip = lambda text: [{**json.loads(line), "scores": 0} for line in text.splitlines()]  # noqa: E731
    assert strip(path.read_text()) == strip(whole)


def test_an_answer_that_was_cut_off_is_not_kept():
    cut = rejection.Candidates(["best", "good", "bad"], [False, True, True], [3.0, 2.0, 1.0])
    assert rejection._best(cut) == "good"
    assert rejection._best(rejection.Candidates(["best"], [False], [3.0])) is None


def test_fewer_prompts_than_a_batch_has_are_told_and_none_is_taken_twice(nano, reward, tmp_path, capsys):
    path = tmp_path / "one.jsonl"
    path.write_text('{"prompt": "Name two towns."}\n')
    config = make(RLOOConfig, nano, reward, tmp_path / "run", data=str(path))
    done = group_policy.run(config)
    assert "rloo: 1 prompts make 4 answers an iteration, not 16" in capsys.readouterr().err
    assert [row["episode"] for row in rows(tmp_path / "run")] == [4, 8] and done["episodes"] == 8


def test_after_answers_that_were_all_cut_off_the_folder_is_free_and_they_are_sampled_anew(
    nano, reward, tmp_path, capsys, monkeypatch
):
    options = {
        "model": str(nano), "reward_model": str(reward), "out": str(tmp_path / "run"), "samples": 2, "prompts": 4,
        "batch_size": 2, "max_steps": 1, "force": True, "max_length": 160, "dtype": "float32",
    }  # fmt: skip
    with pytest.raises(UserError, match="every answer was cut off"):
        rejection.run(RejectionConfig(**options, max_new_tokens=1))
    monkeypatch.setattr(rejection, "_best", lambda c: c.texts[0])
    assert rejection.run(RejectionConfig(**options, max_new_tokens=8))["kept"] == 4
    assert "4 candidates of other models or options are replaced" in capsys.readouterr().err
