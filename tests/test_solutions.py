"""Solutions in steps: final answers, and where steps end among an answer's tokens."""

import pytest

from tutelage.solutions import final_answer, repeated, solves, split_steps, step_ends


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("16 - 3 = 13.\nAnswer: 13.", "13"),
        ("so 9 * 2 = <<9*2=18>>18\n#### 18", "18"),
        ("A: $1,200.50", "1200.5"),
        ("The answer is 7. No, the answer is -7.", "-7"),
        ("#### 18.00", "18"),
        ("7 + 5 = 12.", None),
        ("Ada to Karl.\nAnswer: Karl.", "Karl"),
        ("Answer: I do not know.", None),
    ],
)
def test_final_answers(text, answer):
    assert final_answer(text) == answer


@pytest.mark.parametrize("answer", ["1200", "1,200", "1200.0", "$1,200.", " 1200 ", "#### 1200"])
def test_an_answer_is_right_however_the_problem_writes_it(answer):
    assert solves("A: $1,200.00", answer) and not solves("A: 12", answer) and not solves("no answer", answer)


def test_words_and_what_has_no_answer():
    assert solves("Answer: Karl.", "Karl") and not solves("Answer: Karl.", "Ada") and not solves("A: 1", None)


def test_steps_and_their_ends():
    text = "\n7 + 5 = 12.\n\n  \n12 - 4 = 8.\nAnswer: 8."
    steps = split_steps(text)
    assert steps == ["7 + 5 = 12.", "12 - 4 = 8.", "Answer: 8."]
    assert repeated([*steps, steps[0]]) == [False, False, False, True]
    pieces = ["\n", "7", " +", " 5 = 12", ".\n\n", "  \n", "12 - 4 = 8.", "\nAn", "swer: 8."]
    assert step_ends(pieces) == [4, 7, 8] and len(steps) == 3
    assert step_ends(["7 + 5 = 12.", "\n"]) == [1] and step_ends([" ", "\n"]) == []
