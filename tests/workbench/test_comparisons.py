"""A stored comparison: content addresses, blind votes, what is rated, what is exported; without any real model."""

import json
import random
import threading
from types import SimpleNamespace

import pytest

from tutelage.data.sources import load_data
from tutelage.errors import UserError
from tutelage.judges.cache import Reply
from tutelage.judges.chats import ChatFailedError
from tutelage.records import Prompt
from tutelage.workbench.comparisons import Column, Comparison, Settings, content_hash, dense
from tutelage.workbench.filling import Filling, cost

PROMPTS = [
    Prompt(id=f"p{i}", messages=[{"role": "user", "content": f"Question {i}?"}], category="chat") for i in range(6)
]
COLUMNS = [Column(name, f"/{name}", "local", f"hash-{name}") for name in ("base", "sft", "ppo")]


@pytest.fixture
def whole(tmp_path):
    """All rows answered; the answer of ppo to p5 names its vendor."""
    one = Comparison.create(tmp_path, COLUMNS, PROMPTS, Settings(blind=True))
    for p in range(6):
        for c, text in enumerate(("It rains.", "I cannot help with that.", f"Answer {p}.")):
            said = "I am ChatGPT." if (p, c) == (5, 2) else text
            one.put(p, c, state="done", text=said, date="2026-01-01")
    return one


def test_the_address_is_the_content(tmp_path):
    name = content_hash(COLUMNS, PROMPTS, Settings())
    assert name == content_hash(COLUMNS, PROMPTS, Settings())
    moved = [Column(c.name, "/elsewhere", c.kind, c.identity) for c in COLUMNS]
    assert name == content_hash(moved, PROMPTS, Settings())  # where a checkpoint lies does not matter
    other = [*COLUMNS[:2], Column("ppo", "/ppo", "local", "other weights")]
    changes = [(other, PROMPTS, Settings()), (COLUMNS, PROMPTS[1:], Settings()), (COLUMNS, PROMPTS, Settings(seed=1))]
    assert len({name, *(content_hash(*change) for change in changes)}) == 4


def test_it_opens_again_as_it_was(whole):
    whole.put(0, 1, state="failed", text="", reason="status 429")
    whole.vote("ana", 1, [1, 3, 2])
    again = Comparison.load(whole.folder)
    assert again.cells == whole.cells and again.votes == whole.votes and again.id == whole.id
    assert Comparison.create(whole.folder.parent, COLUMNS, PROMPTS, Settings(blind=True)).cells == whole.cells
    assert again.waiting(1) == [0] and again.counts()["failed"] == 1
    with open(whole.folder / "answers.jsonl", "a") as file:
        file.write('{"prompt": 0, "col')  # a kill in the middle of a write
    assert Comparison.load(whole.folder).cells == whole.cells


def test_only_the_first_blind_vote_is_rated(whole):
    assert not whole.revealed("ana", 0)
    assert whole.vote("ana", 0, [3, 2, 1])["rated"]
    assert whole.revealed("ana", 0) and not whole.revealed("bo", 0) and not whole.revealed("ana", 1)
    late = whole.vote("ana", 0, [1, 2, 3])
    assert not late["rated"] and late["why"] == "after the reveal"
    whole.reveal("bo", 0)
    assert not whole.vote("bo", 0, [1, 2, 3])["rated"]
    assert len(whole.games()["people"]) == 3 and whole.unrated() == 2  # a reveal is no vote


def test_votes_with_names_shown_are_never_rated(tmp_path):
    one = Comparison.create(tmp_path, COLUMNS[:2], PROMPTS[:1], Settings())
    one.put(0, 0, state="done", text="a")
    with pytest.raises(UserError, match="not complete"):
        one.vote("ana", 0, [1, 2])
    one.put(0, 1, state="failed", reason="timeout")
    assert one.vote("ana", 0, [1, None])["why"] == "names shown" and "people" not in one.games()


def test_an_answer_that_names_itself_is_out_of_the_rating(whole):
    assert whole.self_naming(5) == [2] and whole.self_naming(0) == []
    vote = whole.vote("ana", 5, [2, 3, 1])
    assert vote["rated"] and vote["self_naming"] == [2]
    (game,) = whole.games()["people"]
    assert (game.a, game.b, game.points) == ("base", "sft", 1.0)
    (record,) = whole.records()
    assert record.completion_ids == ["p5-base", "p5-sft"] and record.ranks == [1, 2]


def test_judges_are_never_pooled(whole):
    for p in range(6):
        whole.vote("ana", p, [3, 2, 1])
        for c, reward in enumerate((0.1, 0.9, 0.5)):
            whole.put(p, c, log="scores", reward=reward)
        whole.judge(p, 0, 1, "gold", points=1.0, flipped=False, problem=None)
        whole.judge(p, 0, 2, "gold", points=None, flipped=False, problem="unparsable")
    standings = whole.standings()
    assert {name: s["rows"][0]["model"] for name, s in standings.items()} == {
        "people": "ppo",
        "reward model": "sft",
        "gold": "base",
    }
    assert standings["gold"]["verdicts"] == 6  # what could not be read is no verdict
    assert standings["people"]["verdicts"] == 6 * 3 - 2


def test_standings_know_lengths_and_ties(tmp_path):
    prompts = [Prompt(id=f"q{i}", messages=[{"role": "user", "content": f"Q {i}?"}]) for i in range(30)]
    one, rng = Comparison.create(tmp_path, COLUMNS, prompts, Settings()), random.Random(0)
    for p in range(30):
        for c in range(3):
            one.put(p, c, state="done", text="x" * (10 + (7 * p + 11 * c) % 40))
            one.put(p, c, log="scores", reward=float(rng.randrange(3)))
    rows = one.standings()["reward model"]["rows"]
    assert sum(r["ties"] for r in rows) // 2 == sum(g.points == 0.5 for g in one.games()["reward model"]) > 0
    assert all(r["length_controlled"]["ci95"][0] <= r["length_controlled"]["rating"] for r in rows)


def test_votes_train_a_reward_model(whole, tmp_path):
    whole.vote("ana", 0, [3, 1, 1])
    whole.vote("bo", 0, [1, None, 2])
    path = tmp_path / "votes.jsonl"
    path.write_text("".join(json.dumps(r.to_json()) + "\n" for r in whole.records()))
    read = load_data(str(path)).comparisons
    assert [r.ranks for r in read] == [[2, 1, 1], [1, None, 2]]
    assert read[0].completions == ["It rains.", "I cannot help with that.", "Answer 0."] and read[0].labeler == "ana"


def test_dense_ranks():
    assert dense([4, None, 2, 4]) == [2, None, 1, 2] and dense([]) == []


@pytest.mark.parametrize("columns", [[], [*COLUMNS, COLUMNS[0]], COLUMNS * 4])
def test_what_cannot_be_compared_writes_nothing(columns, tmp_path):
    with pytest.raises(UserError):
        Comparison.create(tmp_path, columns, PROMPTS, Settings())
    assert not list(tmp_path.iterdir())


class Scripted:
    """A chat that fails on some prompts and counts what it is asked."""

    def __init__(self, failing=()):
        self.failing, self.asked = set(failing), []

    def answers(self, conversations, answered):
        found = []
        for i, messages in enumerate(conversations):
            text = messages[-1]["content"]
            self.asked.append(text)
            found.append(ChatFailedError("status 429") if text in self.failing else Reply(f"re {text}", "stop"))
            if isinstance(found[-1], Reply):
                answered(i, found[-1])
        return found


def models(chats):
    lock = threading.RLock()
    return SimpleNamespace(using=lambda spec: lock, loading=lock, chat=lambda spec, **_: chats[spec])


def test_filling_counts_failures_and_goes_on_where_it_stopped(tmp_path):
    outputs = tmp_path / "outputs.jsonl"
    outputs.write_text(json.dumps({"prompt": "Question 0?", "output": "from the file"}) + "\n")
    columns = [
        COLUMNS[0],
        Column("far", "openai:http://x/v1#m", "endpoint", "openai:http://x/v1#m"),
        Column("file", str(outputs), "outputs", "f"),
    ]
    one = Comparison.create(tmp_path, columns, PROMPTS, Settings())
    chats = {"/base": Scripted(), "openai:http://x/v1#m": Scripted(["Question 3?"])}
    Filling(one, models(chats)).thread.join(200)
    assert one.counts() == {"done": 12, "cut": 0, "failed": 1, "missing": 5, "queued": 0, "running": 0}
    assert one.cells[3, 1].reason == "status 429" and one.cells[0, 2].text == "from the file"
    again = Comparison.load(one.folder)
    chats["openai:http://x/v1#m"].failing.clear()
    Filling(again, models(chats)).thread.join(200)
    assert again.counts()["done"] == 13 and chats["openai:http://x/v1#m"].asked.count("Question 1?") == 1
    assert chats["/base"].asked == [f"Question {i}?" for i in range(6)]


def test_what_is_paid_for_is_said_before_and_only_what_is_left(tmp_path):
    far = Column("far", "anthropic:m", "endpoint", "anthropic:m")
    assert cost(Comparison.create(tmp_path, COLUMNS, PROMPTS, Settings(judges=("gold",)))) == []
    one = Comparison.create(tmp_path, [COLUMNS[0], far], PROMPTS, Settings(max_tokens=100, judges=("openai:j",)))
    assert cost(one) == [
        "anthropic:m: 6 prompts, at most 600 tokens of answers",
        "openai:j judges: 12 calls (both orders of 6 pairs)",
    ]
    for p in range(6):
        one.put(p, 0, state="done", text="a")
        one.put(p, 1, **({"state": "failed", "reason": "status 500"} if p == 5 else {"state": "done", "text": "b"}))
        if p < 4:
            one.judge(p, 0, 1, "openai:j", points=1.0, flipped=False, problem=None)
    one.judge(4, 0, 1, "openai:j", points=None, flipped=False, problem="unparsable")
    assert cost(one) == [
        "anthropic:m: 1 prompts, at most 100 tokens of answers",
        "openai:j judges: 2 calls (both orders of 1 pairs)",
    ]


def test_nothing_but_ties_is_said_to_be_that(tmp_path):
    one = Comparison.create(tmp_path, COLUMNS[:2], PROMPTS, Settings())
    for p in range(6):
        for c in range(2):
            one.put(p, c, state="done", text="same", reward=1.0)
    assert "all 6 verdicts on the two are ties" in one.standings()["reward model"]["sentence"]
