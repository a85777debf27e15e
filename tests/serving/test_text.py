"""Text as it comes equals text decoded at once; stop strings cut it; every token has its bytes."""

import random

import pytest

from tutelage.serving.text import Pieces, Text


def feed(tokenizer, tokens, stops=(), **more):
    """The pieces that were sent, and the text object."""
    text, sent = Text(tokenizer, stops, **more), []
    for token in tokens:
        stopped = text.push(token)
        sent.append(text.take())
        if stopped:
            break
    return [*sent, text.close()], text


def some_tokens(tokenizer, seed):
    rng = random.Random(seed)
    words = tokenizer("Where does the baker live? Grüße, 東京 🙂 – naïve.", add_special_tokens=False)["input_ids"]
    return [rng.choice(words) if rng.random() < 0.7 else rng.randrange(len(tokenizer)) for _ in range(60)]


@pytest.mark.parametrize("seed", range(20))
def test_pieces_join_to_the_whole(tokenizer, seed):
    tokens = some_tokens(tokenizer, seed)
    whole = tokenizer.decode(tokens, skip_special_tokens=False)
    sent, text = feed(tokenizer, tokens)
    assert "".join(sent) == text.whole == whole and text.covered() == len(tokens)
    lazy, at_once = feed(tokenizer, tokens, live=False)
    assert "".join(lazy[:-1]) == "" and at_once.whole == whole
    assert b"".join(map(Pieces(tokenizer).__getitem__, tokens)).decode("utf-8", "replace") == whole


def test_a_character_of_several_tokens_comes_whole(tokenizer):
    tokens = tokenizer("a🙂b", add_special_tokens=False)["input_ids"]
    sent, text = feed(tokenizer, tokens)
    assert len(tokens) == 6 and [s for s in sent if s] == ["a", "🙂", "b"] and text.ends == [1, 1, 1, 1, 2, 3]
    assert Pieces(tokenizer).name(tokens[1]) == "bytes:\\xf0" and Pieces(tokenizer).name(tokens[0]) == "a"


def test_stop_strings_cut_and_their_beginnings_are_held_back(tokenizer):
    tokens = [t for c in "one STOP two" for t in tokenizer(c, add_special_tokens=False)["input_ids"]]
    sent, text = feed(tokenizer, tokens, ["STOP", "xyz"])
    assert text.stopped and text.whole == "one " and "".join(sent) == "one " and text.covered() == 4
    assert "S" not in "".join(sent)
    sent, text = feed(tokenizer, tokens[:6], ["STOP"])  # "one ST": the end shows that it was none
    assert sent[-1] == "ST" and text.whole == "one ST" and not text.stopped
    sent, text = feed(tokenizer, tokens, ["two", "STOP"], live=False)
    assert text.whole == "one " and text.stopped


def test_the_words_before_decide_on_the_first_space():
    """A SentencePiece-like tokenizer writes a word's space only behind other words."""

    class Words:
        def decode(self, tokens, **_):
            return " ".join(f"w{token}" for token in tokens)

    assert feed(Words(), [1, 2])[1].whole == "w1 w2"
    sent, text = feed(Words(), [1, 2], context=[8, 9])
    assert "".join(sent) == text.whole == " w1 w2" and text.covered() == 2


def test_other_byte_alphabets():
    class Fallback:
        all_special_ids = (0,)

        def convert_ids_to_tokens(self, token):
            return ["</s>", "\u2581town", "<0xE2>"][token]

    pieces = Pieces(Fallback())
    assert [pieces[i] for i in range(3)] == [b"</s>", b" town", b"\xe2"]
