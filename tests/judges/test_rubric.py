"""The form for one answer: what a language model says is parsed, kept and counted; what people said is found again."""

import json

import pytest

from tutelage.judges.cache import Cache, Reply
from tutelage.judges.chats import ChatFailedError
from tutelage.judges.llm import LLMJudge
from tutelage.judges.people import people_judge
from tutelage.judges.rubric import parse_rubric, rate_all
from tutelage.records import Prompt, Rating


@pytest.mark.parametrize(
    ("said", "rating"),
    [
        ("Fine.\n[[6: none]]", Rating(6, frozenset())),
        ("[[2: hallucination, Fails instruction]]", Rating(2, frozenset({"hallucination", "fails_instruction"}))),
        ("[[3]]", Rating(3, frozenset())),
        ("First [[5: none]], no: [[4: opinion; moral-judgment]]", Rating(4, frozenset({"opinion", "moral_judgment"}))),
        ("[[7/7: none]]", Rating(7, frozenset())),
        ("[[5: rude]]", None),
        ("[[8: none]]", None),
        ("A good answer.", None),
    ],
)
def test_a_form_is_read_or_it_is_none(said, rating):
    assert parse_rubric(said) == rating


class Scripted:
    name = "openai:here#m"

    def __init__(self):
        self.asked = []

    def answers(self, conversations, answered=None):
        found = []
        for place, (turn,) in enumerate(conversations):
            self.asked.append(turn["content"])
            if "fails" in turn["content"].split("[Answer]")[1].split("[End")[0]:
                found.append(ChatFailedError("status 500"))
                continue
            text = "nonsense" if "odd" in turn["content"].split("[Answer]")[1].split("[End")[0] else "[[5: opinion]]"
            found.append(Reply(text))
            answered(place, found[-1])
        return found


def test_what_failed_or_made_no_sense_is_counted_and_asked_again_or_not(tmp_path):
    prompts = [Prompt(id=str(i), messages=[{"role": "user", "content": f"Q{i}"}]) for i in range(4)]
    chat = Scripted()
    judge = LLMJudge(chat, Cache(tmp_path / "judgments.jsonl"))
    found, counts = rate_all(judge, prompts, ["fine", "odd", "fails", "[[7: none]] {a}"])
    assert [one and one.likert for one in found] == [5, None, None, 5] and counts == {"failed": 1, "unparsable": 1}
    # What stands in an answer is not filled in, and what was said is not asked again: only what failed.
    assert sum("[[7: none]] {a}" in text for text in chat.asked) == 1
    rate_all(LLMJudge(chat, Cache(tmp_path / "judgments.jsonl")), prompts, ["fine", "odd", "fails", "[[7: none]] {a}"])
    assert len(chat.asked) == 5


def test_people_who_gave_a_quality_or_marks_are_found_by_the_words(tmp_path):
    row = {"prompt": "Q", "completions": ["a", "b", "c"], "ranks": [1, 2, 3], "labeler": "x"}
    rows = [
        {**row, "ratings": [6, 3, None], "flags": [["opinion"], [], []]},
        {**row, "ratings": [4, None, None], "labeler": "y"},
        {**row, "labeler": "z"},
    ]
    (tmp_path / "votes.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    judge = people_judge(str(tmp_path / "votes.jsonl"), "people:votes")
    prompt = Prompt(id="p", messages=[{"role": "user", "content": "Q"}])
    # Who gave a quality and marked nothing says that no mark holds.
    assert judge.ratings(prompt, " a ") == [Rating(6, frozenset({"opinion"})), Rating(4, frozenset())]
    assert judge.ratings(prompt, "b") == [Rating(3, frozenset())]
    assert judge.ratings(prompt, "c") == [Rating(None, frozenset())] and judge.ratings(prompt, "d") == []
