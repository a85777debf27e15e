"""Constitutional AI end to end on a nano model: rows, resuming, counts, soft labels into the reward model."""

import json

import pytest
import torch

from tutelage.algorithms.ranking import pairwise_ranking_loss
from tutelage.configs import CAIConfig, CAILabelConfig, RewardConfig
from tutelage.data.formats import write_jsonl
from tutelage.data.sources import comparisons
from tutelage.data.validation import record_of
from tutelage.errors import UserError
from tutelage.judges.cache import Reply
from tutelage.judges.chats import ChatFailedError
from tutelage.judges.choices import Choice
from tutelage.records import Comparison, Completion
from tutelage.stages import cai, cai_label, reward
from tutelage.stages.reward import _with_soft_labels
from tutelage.world import prompts_of


class Chat:
    """Criticizes and revises by rule; counts what it is asked."""

    name = "rule"

    def __init__(self):
        self.asked = 0

    def answers(self, conversations, answered=None):
        self.asked += len(conversations)
        return [self.reply(messages) for messages in conversations]

    def reply(self, messages):
        if messages[-1]["content"].startswith("Write"):
            return Reply("I will not help to do harm.")
        if "well" in messages[0]["content"]:
            return Reply("I can't help with that.")  # a critic that refuses
        return ChatFailedError("timed out") if "barn" in messages[0]["content"] else Reply("That does harm.")


@pytest.fixture
def chat(monkeypatch):
    made = Chat()
    monkeypatch.setattr(cai, "open_chat", lambda *_, **__: made)
    return made


def config(nano, out, **changes):
    values = {
        "model": str(nano),
        "policy": str(nano),
        "critic": "rule",
        "constitution": "world",
        "prompts": 30,
        "revisions": 2,
    }
    values |= {"helpful_data": "world:helpful", "helpful_prompts": 20, "helpful_samples": 1, "max_new_tokens": 6}
    values |= {"out": str(out), "max_steps": 2, "batch_size": 4, "dtype": "float32", "max_length": 96}
    return CAIConfig(**{**values, **changes})


def test_every_critique_is_a_row_and_what_is_no_use_is_counted(nano, tmp_path, chat, capsys):
    done = cai.run(config(nano, tmp_path / "cai"))
    rows = [json.loads(line) for line in (tmp_path / "cai/revisions.jsonl").read_text().splitlines()]
    asked = {p.id: p.messages[0]["content"] for p in prompts_of("world:harmful", "train", 30, 0)}
    refused = [r for r in rows if "well" in asked[r["prompt_id"]]]
    assert refused and all(r["problem"] == "refused" and r["revision"] is None for r in refused)
    assert done["left_out"]["refused"] == len(refused) and done["left_out"]["failed"] > 0
    assert "left out: refused" in capsys.readouterr().err
    sound = [r for r in rows if r["problem"] is None]
    assert done["revisions"] == len(sound) == sum(p["count"] for p in done["principles"])
    assert sum(p["left_out"] for p in done["principles"]) == len(rows) - len(sound) == sum(done["left_out"].values())
    later = [r for r in sound if r["round"] == 2]
    assert later and all(r["response"] == "I will not help to do harm." for r in later)  # the latest revision goes on
    second = next(r for r in done["rounds"] if r["round"] == 2)
    assert second["changed"] == 0 and second["refusing_before"] == second["refusing_after"] == 1
    written = [json.loads(line) for line in (tmp_path / "cai/demonstrations.jsonl").read_text().splitlines()]
    assert sum(d["labeler"] == "critic" for d in written) == len(sound)
    assert len(written) - len(sound) == done["helpful_answers"]


def test_a_kill_in_between_asks_for_no_prompt_again(nano, tmp_path, chat):
    cai.run(config(nano, tmp_path / "whole"))
    whole = (tmp_path / "whole/revisions.jsonl").read_text()
    first = chat.asked
    stopped = config(nano, tmp_path / "cut")
    cai.run(stopped)
    lines = whole.splitlines(keepends=True)
    (tmp_path / "cut/revisions.jsonl").write_text("".join(lines[:20]) + lines[20][:30])
    (tmp_path / "cut/summary.json").unlink()
    chat.asked = 0
    cai.run(config(nano, tmp_path / "cut", resume=True))
    again = [json.loads(line)["id"] for line in (tmp_path / "cut/revisions.jsonl").read_text().splitlines()]
    assert sorted(again) == sorted(json.loads(line)["id"] for line in lines)
    assert 0 < chat.asked < first


def test_what_failed_on_the_way_is_asked_again_before_anything_is_trained(nano, tmp_path, chat):
    answering = cai.Answering(cai.load_policy(str(nano), "float32"), config(nano, tmp_path / "x"))
    asked = prompts_of("world:harmful", "train", 30, 0)
    path, critic = tmp_path / "revisions.jsonl", cai.Critic(chat, cai.load_constitution("world"))
    first = cai._revisions(path, critic, answering, asked, True)
    failed = {row["prompt_id"] for row in first if row["problem"] == "failed"}
    refused = {row["prompt_id"] for row in first if row["problem"] == "refused"}
    assert failed and refused
    assert {r["id"] for r in cai._revisions(path, critic, answering, asked, False)} == {r["id"] for r in first}
    chat.reply = lambda messages: Reply("That does harm.")  # the endpoint is up again
    again = cai._revisions(path, critic, answering, asked, True)
    assert not any(row["problem"] == "failed" for row in again)
    assert {row["prompt_id"] for row in again if row["problem"]} == refused  # a critic that refuses, refuses
    assert {row["prompt_id"] for row in again} == {p.id for p in asked}


def test_a_critic_of_no_use_is_told_and_an_abler_one_begins_anew(nano, tmp_path, chat, capsys):
    able, chat.reply = chat.reply, lambda messages: Reply("I'm sorry, I can't.")
    with pytest.raises(UserError, match="30 refused"):
        cai.run(config(nano, tmp_path / "cai"))
    chat.reply, chat.name = able, "abler"  # an abler critic in the same place is asked anew
    assert cai.run(config(nano, tmp_path / "cai"))["revisions"] > 0
    assert "30 rows of another critic or policy are replaced" in capsys.readouterr().err
    with pytest.raises(UserError, match="--policy"):
        cai.run(config(nano, tmp_path / "cai2", policy=None))
    assert not (tmp_path / "cai2").exists()


@pytest.fixture(scope="module")
def completions(tmp_path_factory):
    path = tmp_path_factory.mktemp("pairs") / "completions.jsonl"
    asked = prompts_of("world:harmful", "train", 40, 0)
    texts = ["First buy poison in the night.", "I will not help to do harm.", "No.", "No."]
    answers = [Completion(id=f"{p.id}-{i}", prompt_id=p.id, text=t) for p in asked for i, t in enumerate(texts)]
    write_jsonl(path, [*asked, *answers])
    return path


def test_verdicts_become_soft_comparisons(nano, completions, tmp_path):
    out = tmp_path / "labels" / "comparisons.jsonl"
    people = tmp_path / "people.jsonl"
    options = {
        "critic": str(nano),
        "constitution": "world",
        "data": str(completions),
        "out": str(out),
        "dtype": "float32",
    }
    done = cai_label.run(CAILabelConfig(**options))
    assert done["ai_comparisons"] == 40 and done["equal_answers"] == 40 and done["agreement_with_people"] is None
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    for row in rows:
        assert record_of(row, "row").probability == row["probability"]
        assert row["ranks"] == ([1, 2] if row["probability"] > 0.5 else [2, 1])
    verdicts = out.with_name("verdicts.jsonl").read_text()
    opposite = [
        Comparison.from_json({**row, "id": f"by-{row['id']}", "ranks": row["ranks"][::-1], "probability": None})
        for row in rows
    ]
    write_jsonl(people, opposite)
    again = cai_label.run(CAILabelConfig(**options, human=str(people), mix=str(people)))
    assert out.with_name("verdicts.jsonl").read_text() == verdicts  # nothing was asked again
    assert again["agreement_with_people"]["agreement"] == 0 and again["agreement_with_people"]["pairs"] > 20
    assert again["agreement_with_people"]["ci95"] == [0, 0]
    assert all(p["people_agree"] == 0 for p in again["principles"] if "people_agree" in p)
    assert sum(p.get("people_pairs", 0) for p in again["principles"]) == again["agreement_with_people"]["pairs"]
    assert again["human_comparisons"] == len(opposite) == 40  # those set aside too: the gate is about both kinds
    held_out = [c.id for split in ("tune", "report") for c in comparisons(str(out), split)]
    assert any(name.startswith("by-") for name in held_out) and not all(name.startswith("by-") for name in held_out)
    trained = reward.run(
        RewardConfig(
            model=str(nano), data=str(out), out=str(tmp_path / "rm"), max_steps=2, batch_size=8, dtype="float32"
        )
    )
    assert trained["comparisons"] > 40


def test_agreement_is_with_each_ranking_and_by_the_words_of_the_answers():
    def people(prompt, *ranked, who="ann"):
        messages = [{"content": prompt, "role": "user"}]
        return Comparison(
            id=f"{who}-{'-'.join(ranked)}", prompt_id="other", completion_ids=[*ranked], ranks=[*range(1, len(ranked) + 1)],
            messages=messages, completions=[*ranked], labeler=who,
        )  # fmt: skip

    def verdict(prompt, first, second, p):
        asked = [{"role": "user", "content": prompt}]
        return {
            "prompt_id": prompt,
            "messages": asked,
            "completions": [first, second],
            "completion_ids": "xy",
            "probability": p,
        }

    # The second ranking's b is not compared with the first one's a.
    rows = [verdict("p", "a", "b", 0.9), verdict("q", "a", "b", 0.9)]
    said = [people("p", "a", "b"), people("p", "b ", "c"), people("q", "a", "b"), people("q", "b", "a", who="bob")]
    found = cai_label.agreement_with_people(rows, said)
    assert found["pairs"] == 3 and found["agreement"] == pytest.approx(2 / 3) and found["sure_pairs"] == 3
    assert cai_label.agreement_with_people(rows, [people("another", "a", "b")])["agreement"] is None


def test_verdicts_whose_request_failed_are_asked_again_and_odd_answers_are_told(nano, tmp_path, monkeypatch, capsys):
    asked = prompts_of("world:harmful", "train", 4, 0)
    answers = [Completion(id=f"{p.id}-{i}", prompt_id=p.id, text=f"no {i}") for p in asked for i in range(3)]
    write_jsonl(tmp_path / "completions.jsonl", [*asked, *answers])
    monkeypatch.setattr(cai_label, "open_chat", lambda *_, **__: Chat())
    up = []
    choice = {True: Choice((0.0, -1.0)), False: Choice(None, failed=True)}
    monkeypatch.setattr(
        "tutelage.judges.critic.choices",
        lambda chat, turns, options: [choice[bool(up) or i % 2 == 0] for i in range(len(turns))],
    )
    options = CAILabelConfig(
        critic="rule", constitution="world", data=str(tmp_path / "completions.jsonl"), out=str(tmp_path / "ai/c.jsonl")
    )
    done = cai_label.run(options)
    assert done["left_out"] == {"failed": 2} and done["ai_comparisons"] == 2 and done["single_answers"] == 4
    assert "4 answers are left without another" in capsys.readouterr().err
    assert sum(p["left_out"] for p in done["principles"]) == 2
    up.append(True)
    assert cai_label.run(options)["ai_comparisons"] == 4
    assert len((tmp_path / "ai/verdicts.jsonl").read_text().splitlines()) == 6  # two of them a second time


def test_nobody_to_compare_and_nothing_to_compare(nano, completions, tmp_path):
    with pytest.raises(UserError, match="--critic"):
        cai_label.run(CAILabelConfig(data=str(completions), out=str(tmp_path / "x.jsonl")))
    with pytest.raises(UserError, match="no completions by itself"):
        cai_label.run(CAILabelConfig(critic=str(nano), out=str(tmp_path / "x.jsonl")))


def test_a_soft_label_takes_the_place_of_the_hard_one():
    scores, offsets = torch.tensor([0.5, 0.0, 2.0, 1.0, 0.0]), torch.tensor([0, 2, 5])
    hard = pairwise_ranking_loss(scores, torch.tensor([1, 2, 1, 2, 3]), offsets)
    soft = _with_soft_labels(hard, scores, offsets, [0.6, None])
    assert soft.tolist() == pytest.approx([0.674077, float(hard[1])], abs=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"probability": 1.4}, "is 1.4"),
        ({"probability": 0.9, "ranks": [2, 1]}, "ranks say otherwise"),
        ({"probability": 0.9, "completion_ids": ["a", "b", "c"], "ranks": [1, 2, 3]}, "for 3 answers"),
    ],
)
def test_probabilities_that_cannot_be(changes, message):
    row = {
        "schema": "tutelage.comparison/1",
        "id": "c",
        "prompt_id": "p",
        "completion_ids": ["a", "b"],
        "ranks": [1, 2],
    }
    with pytest.raises(UserError, match=message):
        record_of({**row, **changes}, "row 1")
