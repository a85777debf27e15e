"""Process rewards end to end on a nano model: labels, training, reranking, step rewards in PPO."""

import dataclasses
import json

import pytest
import torch

from tutelage.configs import PPOConfig, PRMConfig, RejectionConfig, RerankConfig, SampleConfig, StepLabelConfig
from tutelage.data.formats import write_jsonl
from tutelage.data.sources import load_data
from tutelage.engine.sampling import Sample
from tutelage.errors import UserError
from tutelage.evaluation.step_card import auc, auc_interval, step_card
from tutelage.models import load_policy, load_step_model
from tutelage.records import Completion, StepLabel
from tutelage.stages import ppo, prm, rejection, rerank, sample, step_label, step_scores
from tutelage.stages.loading import on_policy_models
from tutelage.stages.step_scores import guarded_steps, process_rewards, score_steps
from tutelage.studies.measures import Cell
from tutelage.studies.schema import find, load_study
from tutelage.world import reasoning
from tutelage.world.facts import PEOPLE

COMMON = {"dtype": "float32", "max_length": 160}


@pytest.fixture(scope="module")
def solved(tmp_path_factory):
    """A file of problems with three solutions each: right, with a flaw, and without an answer."""
    path = tmp_path_factory.mktemp("solved") / "completions.jsonl"
    asked = reasoning.problems("train", 60)
    answers = []
    for prompt in asked:
        right = reasoning.right_steps(reasoning.problem_of(prompt))
        for number, steps in enumerate((right, ["1 + 1 = 3.", *right[1:-1], "Answer: 99."], right[:-1])):
            answers.append(Completion(id=f"{prompt.id}-{number}", prompt_id=prompt.id, text="\n".join(steps)))
    write_jsonl(path, [*asked, *answers])
    return path


@pytest.fixture(scope="module")
def labeled(solved):
    out = solved.with_name("steps.jsonl")
    done = step_label.run(StepLabelConfig(data=str(solved), out=str(out), by="world"))
    assert (done["solutions"], done["left_out"], done["right_answers"]) == (120, 60, 0.5)
    assert done["labels_right"] == done["first_errors_right"] == 1
    return out


@pytest.fixture(scope="module")
def models(nano, labeled):
    options = {
        "model": str(nano),
        "data": str(labeled),
        "max_steps": 25,
        "batch_size": 16,
        "learning_rate": 3e-3,
        **COMMON,
    }
    done = prm.run(PRMConfig(**options, out=str(labeled.parent / "prm")))
    assert done["card"]["solutions"] > 0 and 0 <= done["card"]["first_error_accuracy"] <= 1
    prm.run(PRMConfig(**options, out=str(labeled.parent / "orm"), supervision="outcome", aggregation="last"))
    return labeled.parent / "prm", labeled.parent / "orm"


def test_it_learns_and_loads_elsewhere_with_the_same_scores(models):
    from transformers import AutoModelForTokenClassification

    losses = [json.loads(line)["loss"] for line in (models[0] / "metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < 0.8 * losses[0]
    ours = load_step_model(models[0], "float32")
    plain = AutoModelForTokenClassification.from_pretrained(models[0] / "checkpoints/latest").eval()
    prompt = reasoning.problems("tune", 1)[0]
    steps = reasoning.right_steps(reasoning.problem_of(prompt))
    ids, ends = step_scores.render_steps(ours.tokenizer, prompt.messages, steps)
    theirs = plain(torch.tensor([ids])).logits[0, ends].softmax(-1)[:, 1].tolist()
    assert score_steps(ours, [(prompt.messages, steps)], 160)[0] == pytest.approx(theirs, abs=1e-4)
    other = [(p.messages, ["7 + 5 = 12."]) for p in reasoning.problems("tune", 3)]
    together = score_steps(ours, [*other, (prompt.messages, steps)], 160)
    assert together[-1] == pytest.approx(theirs, abs=1e-4)  # packing and sharing change nothing
    assert (ours.aggregation, ours.each_step) == ("min", True)
    assert not load_step_model(models[1], "float32").each_step


def test_what_is_supervised():
    label = StepLabel(
        id="s", prompt_id="p", steps=["a", "b", "c"], labels=[0, -1, 1], values=[0.5, 0.0, 0.25], outcome=True
    )
    assert prm.targets_of(label, PRMConfig()) == [(0, 1.0), (1, 0.0)]  # neutral is right; nothing after the error
    assert prm.targets_of(label, PRMConfig(supervision="all")) == [(0, 1.0), (1, 0.0), (2, 1.0)]
    assert prm.targets_of(label, PRMConfig(labels="soft")) == [(0, 0.5), (1, 0.0)]
    assert prm.targets_of(label, PRMConfig(supervision="outcome")) == [(2, 1.0)]
    bare = StepLabel(id="s", prompt_id="p", steps=["a"], labels=[1])
    with pytest.raises(UserError, match="field outcome"):
        prm.targets_of(bare, PRMConfig(supervision="outcome"))
    with pytest.raises(UserError, match="soft"):
        prm.targets_of(bare, PRMConfig(labels="soft"))


def test_labels_by_completions_are_shares_of_right_ones(nano, solved, tmp_path, monkeypatch):
    """Each completion is scripted: from a first step that is right 3 of 8 come to the answer, from a wrong one none."""
    by_text = {p.messages[0]["content"]: p for p in reasoning.problems("train", 60)}
    asked = []

    def scripted(model, prompts, seeds, params, ends):
        policy = load_policy(str(nano), "float32")
        found = []
        for ids, row in zip(prompts, seeds, strict=True):
            text = policy.tokenizer.decode(ids)
            prompt = by_text[text.split("<|end|>")[0].removeprefix("<|user|>")]
            good = "1 + 1 = 3." not in text
            said = [f"Answer: {prompt.answer}." if good and n < 3 else "Answer: 77." for n in range(len(row))]
            asked.append(len(row))
            found.append([Sample([*policy.tokenizer(s)["input_ids"], ends[0]], [], "stop") for s in said])
        return found

    monkeypatch.setattr(step_label, "sample", scripted)
    config = StepLabelConfig(
        model=str(nano), data=str(solved), out=str(tmp_path / "steps.jsonl"), completions=8, **COMMON
    )
    done = step_label.run(config)
    rows = load_data(str(tmp_path / "steps.jsonl")).steps
    right, flawed = (next(s for s in rows if s.id.endswith(end)) for end in ("-0", "-1"))
    assert right.values == [0.375] * (len(right.steps) - 1) + [1.0] and set(right.labels) == {1}
    assert set(flawed.values) == {0.0} and set(flawed.labels) == {-1} and not flawed.outcome
    assert done["labels_right"] == 1 and set(asked) == {8}
    count = len(asked)
    step_label.run(config)
    assert len(asked) == count  # what was completed before is not completed again
    rows = [json.loads(line) for line in solved.read_text().splitlines()]
    one = next(row for row in rows if row["id"].endswith("-0"))
    one["text"] = f"1 + 1 = 3.\n{one['text']}"  # sampled anew: the same id, other words
    again = tmp_path / "again.jsonl"
    again.write_text("".join(json.dumps(row) + "\n" for row in rows))
    step_label.run(dataclasses.replace(config, data=str(again)))
    assert len(asked) == count + len(one["text"].split("\n")) - 1
    found = next(s for s in load_data(str(tmp_path / "steps.jsonl")).steps if s.id == f"s-{one['id']}")
    assert len(found.values) == len(found.steps) and set(found.values[:-1]) == {0.0}


def test_reranking(models, solved, tmp_path):
    done = rerank.run(
        RerankConfig(data=str(solved), prm=str(models[0]), orm=str(models[1]), out=str(tmp_path / "r"), **COMMON)
    )
    assert done["right_answer"]["value"] == done["right_answer_and_steps"]["value"] == pytest.approx(1 / 3)
    one, two, three = done["best_of_n"]
    for name in ("majority", "prm-min", "prm-product", "prm-last", "orm", "any"):
        assert one[name]["value"] == pytest.approx(1 / 3, abs=0.06), name
    assert three["any"]["value"] == 1 and two["any"]["value"] == pytest.approx(2 / 3)
    assert three["majority"]["value"] == pytest.approx(0.5, abs=0.06)  # one right, one wrong, one without an answer
    # Here whoever has the right answer has right steps, so that both tables are the same.
    assert done["best_of_n_by_right_steps"] == done["best_of_n"]
    # Every number that the study of approaches takes of it is there.
    (rows,) = load_study(find("studies", "approaches")).tables.values()
    asked = [one for row in rows.values() for one in row.values() if one["stage"] == "rerank"]
    cell = Cell({}, {"rerank": done})
    assert len(asked) >= 8 and all(cell.measure(one) is not None for one in asked)
    assert done["first_errors"]["solutions"] == 180 and (tmp_path / "r" / "rerank.json").exists()


def test_a_right_answer_by_wrong_steps_is_solved_but_not_by_right_steps(tmp_path):
    prompt = next(p for p in reasoning.problems("report", 40) if len(reasoning.problem_of(p)["holders"]) > 2)
    right = reasoning.right_steps(reasoning.problem_of(prompt))
    wrong = [right[0].replace(" to ", " to Nobody, not to "), *right[1:]]
    texts = ["\n".join(right), "\n".join(wrong), "\n".join([*right[:-1], "Answer: Nobody."])]
    records = [Completion(id=str(i), prompt_id=prompt.id, text=text) for i, text in enumerate(texts)]
    write_jsonl(tmp_path / "three.jsonl", [prompt, *records])
    done = rerank.run(RerankConfig(data=str(tmp_path / "three.jsonl")))
    # Of three, the commonest answer is the right one, and one of the two solutions that have it has right steps.
    solved, by_steps = done["best_of_n"][-1], done["best_of_n_by_right_steps"][-1]
    assert (solved["n"], solved["majority"]["value"], by_steps["majority"]["value"]) == (3, 1.0, 0.5)
    assert done["best_of_n_by_right_steps"][0]["any"]["value"] == pytest.approx(1 / 3)
    assert done["best_of_n"][0]["any"]["value"] == pytest.approx(2 / 3)


def test_guards_against_what_would_please_the_model_alone(models):
    model = load_step_model(models[0], "float32")
    prompt = reasoning.problems("tune", 1)[0]
    right = reasoning.right_steps(reasoning.problem_of(prompt))
    texts = ["\n".join(right), "\n".join(right[:-1]), "\n".join([right[0], *right]), "", right[-1]]
    whole, unfinished, again, empty, alone = guarded_steps(model, [prompt.messages] * 5, texts, 160)
    assert len(whole) == len(right) and min(whole) > 0 and unfinished[-1] == 0 < unfinished[0]
    assert again[1] == 0 and empty == [0.0] and alone[0] > 0


def test_step_rewards_sum_to_nothing_and_stand_at_the_ends_of_steps(nano, models):
    model, policy = load_step_model(models[0], "float32"), load_policy(str(nano), "float32")
    prompt = reasoning.problems("tune", 1)[0]
    text = "\n".join(reasoning.right_steps(reasoning.problem_of(prompt)))
    ids = policy.tokenizer(text, add_special_tokens=False)["input_ids"]
    end = policy.tokenizer.eos_token_id
    samples = [Sample([*ids, end], [], "stop"), Sample(ids[:4], [], "length")]
    scores, rewards = process_rewards(model, policy, [prompt] * 2, samples, 160)
    first, second = rewards.split([len(ids) + 1, 4])
    assert float(first.sum()) == pytest.approx(0, abs=1e-6) == float(second.sum())
    breaks = [i for i, token in enumerate(ids) if "\n" in policy.tokenizer.decode([token])]
    assert set(first.nonzero()[:, 0].tolist()) <= {*breaks, len(ids) - 1, len(ids)}
    steps = guarded_steps(model, [prompt.messages], [text], 160)[0]
    assert float(first[breaks[0]]) == pytest.approx(steps[0] - 1, abs=1e-5)
    assert float(scores[0]) == pytest.approx(min(steps), abs=1e-5)
    outcome = load_step_model(models[1], "float32")
    assert not process_rewards(outcome, policy, [prompt] * 2, samples, 160)[1].any()


@pytest.mark.parametrize("which", [0, 1], ids=["steps", "outcome"])
def test_ppo_against_it(nano, models, tmp_path, which):
    config = PPOConfig(
        model=str(nano), reward_model=str(models[which]), data="world:reasoning", out=str(tmp_path / "ppo"), max_steps=2,
        batch_size=8, minibatch_size=4, max_new_tokens=10, eval_every=2, eval_prompts=4, force=True, **COMMON,
    )  # fmt: skip
    ppo.run(config)
    row = json.loads((tmp_path / "ppo" / "metrics.jsonl").read_text().splitlines()[0])
    assert abs(row["objective/kl"]) < 1e-4 and 0 <= row["objective/scores"] <= 1


def test_rejection_sampling_by_steps(nano, models, tmp_path, monkeypatch):
    monkeypatch.setattr(rejection, "_best", lambda c: c.texts[0] or None)  # it hardly ever ends by itself
    config = RejectionConfig(
        model=str(nano), reward_model=str(models[0]), data="world:reasoning", out=str(tmp_path / "r"), prompts=4, samples=2,
        max_steps=1, max_new_tokens=20, batch_size=2, force=True, **COMMON,
    )  # fmt: skip
    done = rejection.run(config)
    rows = [json.loads(line) for line in (tmp_path / "r/candidates.jsonl").read_text().splitlines()]
    model, asked = load_step_model(models[0], "float32"), {p.id: p for p in reasoning.problems("train", 100)}
    row = rows[0]
    steps = guarded_steps(model, [asked[row["prompt_id"]].messages] * 2, row["texts"], 160)
    assert row["scores"] == pytest.approx([min(one) for one in steps], abs=1e-4) and done["kept"] > 0
    with pytest.raises(UserError, match="--adapters"):
        on_policy_models(PPOConfig(model=str(nano), adapters=True, **COMMON), nano, models[0])


def test_faults_of_the_input_are_said(nano, solved, tmp_path):
    with pytest.raises(UserError, match="is not a process reward model"):
        rerank.run(RerankConfig(data=str(solved), prm=str(nano), **COMMON))
    rows = [json.loads(line) for line in solved.read_text().splitlines()]
    bare = tmp_path / "bare.jsonl"
    bare.write_text("".join(json.dumps({k: v for k, v in row.items() if k != "answer"}) + "\n" for row in rows))
    with pytest.raises(UserError, match="has no answer to check against"):
        step_label.run(StepLabelConfig(data=str(bare), out=str(tmp_path / "x.jsonl"), by="world"))
    step = {"schema": "tutelage.step_label/1", "id": "s", "prompt_id": "p", "steps": ["7 + 5 = 12.", "Answer: 12."]}
    asked = {"schema": "tutelage.prompt/1", "id": "p", "messages": [{"role": "user", "content": "How many?"}]}
    path = tmp_path / "steps.jsonl"

    def reading(**changes):
        path.write_text(f"{json.dumps(asked)}\n{json.dumps({**step, 'labels': [1, 1], **changes})}\n")
        return prm.run(PRMConfig(model=str(nano), data=str(path), out=str(tmp_path / "prm"), **COMMON))

    with pytest.raises(UserError, match=r"row 2, field steps: the steps do not join to the solution: after '7\+5=12.'"):
        reading(solution="7 + 5 = 12.\nThen 1 more.\nAnswer: 12.")
    with pytest.raises(UserError, match="1 labels for 2 steps"):
        reading(labels=[1])
    with pytest.raises(UserError, match="has 1 values for 2 steps"):
        reading(values=[0.5])
    with pytest.raises(UserError, match="'q' is not in the data"):
        reading(prompt_id="q")
    with pytest.raises(UserError, match="holds no labeled steps"):
        prm.run(PRMConfig(model=str(nano), data=str(solved), out=str(tmp_path / "prm"), **COMMON))
    assert not (tmp_path / "prm").exists()


def test_one_solution_to_a_problem_can_be_labeled_and_broken_files_are_named(tmp_path):
    prompt = reasoning.problems("train", 1)[0]
    steps = "\n".join(reasoning.right_steps(reasoning.problem_of(prompt)))
    path = tmp_path / "one.jsonl"
    write_jsonl(path, [prompt, Completion(id="a", prompt_id=prompt.id, text=steps)])
    done = step_label.run(StepLabelConfig(data=str(path), out=str(tmp_path / "steps.jsonl"), by="world"))
    assert done["solutions"] == 1 and done["right_steps"] == 1
    with pytest.raises(UserError, match="no prompt with two completions"):
        rerank.run(RerankConfig(data=str(path)))  # nothing to choose from
    write_jsonl(path, [prompt, Completion(id="a", prompt_id="other", text=steps)])
    with pytest.raises(UserError, match="completions of a prompt 'other' that it does not hold"):
        step_label.run(StepLabelConfig(data=str(path), out=str(tmp_path / "x.jsonl"), by="world"))
    row = {"schema": "tutelage.completion/1", "id": "a", "prompt_id": prompt.id}
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(UserError, match="row 1, field text: is missing"):
        step_label.run(StepLabelConfig(data=str(path), out=str(tmp_path / "x.jsonl"), by="world"))


def test_area_under_the_curve():
    assert auc([0.9, 0.4, 0.4, 0.1], [True, True, False, False]) == (1 + 1 + 0.5 + 1) / 4
    assert auc([0.3], [True]) is None and auc_interval([0.3, 0.2], [True, False]) is None
    low, high = auc_interval([0.9, 0.8, 0.3, 0.7, 0.2, 0.1], [True, True, True, False, False, False])
    assert low < 8 / 9 < high <= 1
    card = step_card([([0.9, 0.2, 0.9], [True, False, True], None), ([0.9, 0.4], [True, True], None)], each_step=True)
    assert card["steps"] == 4 and card["step_accuracy"] == 0.75 and card["first_error_accuracy"] == 0.5


def test_sampled_problems_carry_their_answers(nano, tmp_path):
    out = tmp_path / "c.jsonl"
    sample.run(
        SampleConfig(
            model=str(nano), data="world:reasoning", prompts=2, samples=2, max_new_tokens=4, out=str(out), **COMMON
        )
    )
    assert json.loads(out.read_text().splitlines()[0])["answer"] in PEOPLE
