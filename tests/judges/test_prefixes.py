"""The reward at each prefix of an answer: the model's own score of that prefix, and the text piece by piece."""

import pytest

from tutelage.data.templates import end_ids, render_completion
from tutelage.engine.packing import pack
from tutelage.judges.prefixes import pieces_of, prefix_scores
from tutelage.judges.reward import reward_judge
from tutelage.models import load_scalar, save_model
from tutelage.records import Prompt
from tutelage.stages.evaluated import add_prefixes

PROMPT = Prompt(id="p", messages=[{"role": "user", "content": "Which river runs here?"}])
TEXTS = ["The Thames.", "Größe 🙂, mill\n\nand  rope.", ""]


@pytest.fixture(scope="module")
def reward(nano, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rm")
    save_model(folder, load_scalar(nano, "float32", trained=False), {"role": "reward"}, verify=False)
    return reward_judge(str(folder), "float32")


def test_each_score_is_that_of_the_prefix_and_the_last_the_answers(reward):
    found = prefix_scores(reward.reward, [(PROMPT.messages, text) for text in TEXTS])
    assert [one.scores[-1] for one in found] == pytest.approx(reward.score_all([PROMPT] * 3, TEXTS), abs=1e-5)
    ids = render_completion(reward.reward.tokenizer, PROMPT.messages, TEXTS[0]).input_ids
    own = len(found[0].scores)
    for cut in range(1, own):
        (alone,) = reward.reward.scores(pack([ids[:-cut]])).tolist()
        assert found[0].scores[own - 1 - cut] == pytest.approx(alone, abs=1e-5)
    (short,) = prefix_scores(reward.reward, [(PROMPT.messages, TEXTS[1])], max_length=6)
    assert len(short.pieces) == len(short.scores) == 6  # of an answer that is longer, its end


def test_pieces_are_the_text_and_its_end(reward):
    tokenizer = reward.reward.tokenizer
    for text, one in zip(TEXTS, prefix_scores(reward.reward, [(PROMPT.messages, t) for t in TEXTS]), strict=True):
        assert one.ended == len(end_ids(tokenizer)) and "".join(one.pieces[: -one.ended]) == text
        assert "\ufffd" not in "".join(one.pieces)
        shown = one.shown()
        assert "".join(shown["pieces"]) == text and shown["pieces"][-1] == ""
        assert shown["scores"][-1] == pytest.approx(one.scores[-1], abs=1e-4)
    half = tokenizer("🙂", add_special_tokens=False)["input_ids"][:-1]
    assert len(pieces_of(tokenizer, half)) == len(half)


def test_every_shown_answer_gets_them(reward):
    samples = [{"answers": {"a": {"text": TEXTS[0]}, "b": {"text": TEXTS[1]}}}, {"answers": {"a": {"text": TEXTS[2]}}}]
    add_prefixes(samples, [PROMPT, PROMPT], reward.reward, 512)
    for row in samples:
        for answer in row["answers"].values():
            assert "".join(answer["by_prefix"]["pieces"]) == answer["text"]
    add_prefixes([], [], reward.reward, 512)
