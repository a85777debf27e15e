"""Two orders make one verdict; nonsense and silence are counted; nothing is asked twice."""

import pytest

from tutelage.judges.cache import Cache
from tutelage.judges.chats import ChatFailedError
from tutelage.judges.llm import LLMJudge, parse_label, parse_rating
from tutelage.judges.verdict import Match, ScoringJudge, Verdict, both_orders, compare, score
from tutelage.records import Prompt

PROMPT = Prompt(id="p", messages=[{"role": "user", "content": "Name a river. {b}"}])


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [
        ("A", "B", Verdict(1.0)),
        ("B", "A", Verdict(0.0)),
        ("tie", "tie", Verdict(0.5)),
        ("A", "A", Verdict(0.5, flipped=True)),  # the first place wins whoever stands there
        ("B", "B", Verdict(0.5, flipped=True)),
        ("A", "tie", Verdict(0.5, flipped=True)),
        ("A", None, Verdict(None, problem="unparsable")),
        (None, "B", Verdict(None, problem="unparsable")),
    ],
)
def test_both_orders(first, second, verdict):
    assert both_orders(first, second) == verdict


@pytest.mark.parametrize(
    ("said", "label"),
    [
        ("A is shorter.\n[[A]]", "A"),
        ("[[b]]", "B"),
        ("so it is a draw: [[C]]", "tie"),
        ("not [[A]], since it is wrong\n[[B]]", "B"),
        ("[[A]] or [[B]]", None),
        ("I cannot judge that.", None),
        ("", None),
        (" **B**. ", "B"),
        ("Tie", "tie"),
        ("[[D]]", None),
        ("A", "A"),
        ("Answer A is better", None),
    ],
)
def test_parse_label(said, label):
    assert parse_label(said) == label


def test_parse_rating():
    assert parse_rating("good\n[[7]]") == 7 and parse_rating("[[10/10]]") == 10
    assert parse_rating("[[11]]") is None and parse_rating("seven") is None


class Scripted:
    """Prefers the answer with the word "good", or whatever `says` returns for the two answers as shown."""

    name = "scripted"

    def __init__(self, says=None):
        self.says = says or (lambda a, b: "[[A]]" if "good" in a else "[[B]]" if "good" in b else "[[C]]")
        self.asked = []

    def answers(self, conversations, answered=None):
        from tutelage.judges.cache import Reply

        found = []
        for i, (message,) in enumerate(conversations):
            text = message["content"]
            self.asked.append(text)
            a = text.split("[Answer A]\n")[1].split("\n[End of answer A]")[0]
            b = text.split("[Answer B]\n")[1].split("\n[End of answer B]")[0]
            said = self.says(a, b)
            found.append(ChatFailedError("503") if said is None else Reply(said))
            if said is not None:
                answered(i, Reply(said))
        return found


def test_an_llm_judge_is_asked_in_both_orders_and_once(tmp_path):
    chat = Scripted()
    judge = LLMJudge(chat, Cache(tmp_path / "kept.jsonl"))
    matches = [Match(PROMPT, "good one", "bad"), Match(PROMPT, "bad", "good {a}"), Match(PROMPT, "x", "y")]
    assert judge.pending(matches)[0] == 6
    assert [v.points for v in judge.compare_all(matches)] == [1.0, 0.0, 0.5]
    assert len(chat.asked) == 6 and "good {a}" in chat.asked[1] and "Name a river. {b}" in chat.asked[0]
    assert compare(LLMJudge(chat, Cache(tmp_path / "kept.jsonl")), PROMPT, "bad", "good one") == Verdict(0.0)
    assert len(chat.asked) == 6 and judge.pending(matches) == (0, 0)


def test_position_bias_is_a_flip_and_silence_a_failure():
    first = LLMJudge(Scripted(lambda a, b: "[[A]]"), Cache(None))
    assert compare(first, PROMPT, "x", "y") == Verdict(0.5, flipped=True)
    chat = Scripted(lambda a, b: None if a == "x" else "hm")
    judge = LLMJudge(chat, Cache(None))
    assert compare(judge, PROMPT, "x", "y").problem == "failed"
    assert compare(judge, PROMPT, "z", "y").problem == "unparsable"
    chat.says = lambda a, b: "[[A]]" if a == "x" else "[[B]]"
    assert compare(judge, PROMPT, "x", "w") == Verdict(1.0)
    assert compare(judge, PROMPT, "x", "y").problem == "unparsable"  # only what had failed was asked again


def test_a_scoring_judge():
    judge = ScoringJudge("length", lambda prompts, answers: [float(len(a)) for a in answers])
    verdicts = judge.compare_all([Match(PROMPT, "xx", "y"), Match(PROMPT, "x", "y"), Match(PROMPT, "", "y")])
    assert [v.points for v in verdicts] == [1.0, 0.5, 0.0] and score(judge, PROMPT, "abc") == 3.0


def test_a_reward_model_judges(nano, tmp_path):
    from tutelage.judges.reward import reward_judge
    from tutelage.models import load_scalar, save_model

    fresh = load_scalar(nano, "float32", trained=False)
    save_model(tmp_path / "rm", fresh, {"role": "reward"}, verify=False)
    judge = reward_judge(str(tmp_path / "rm"), "float32")
    answers = ["The Thames.", "I do not know that river."]
    one, two = judge.score_all([PROMPT] * 2, answers)
    assert one != two and compare(judge, PROMPT, *answers).points == float(one > two)
