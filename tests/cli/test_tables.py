"""What the command says of constitutions and of reranking, out of a stage's summary."""

from tutelage.cli.stage import _tables


def test_principles_and_what_was_left_out():
    row = {"principle": "harm", "count": 3, "changed": 0.5}
    said = _tables({"left_out": {"refused": 2}, "principles": [row], "agreement_with_people": {"agreement": None}})
    assert said == ["left out: {'refused': 2}", "principle harm, count 3, changed 0.50"]
    assert _tables({"agreement_with_people": {"agreement": 0.75, "pairs": 8}}) == [
        "agrees with people on 0.750 of 8 pairs"
    ]


def test_reranking():
    share = {"value": 0.5, "ci95": [0.4, 0.6]}
    said = _tables({"stage": "rerank", "right_answer": share, "best_of_n": [{"n": 4, "majority": share, "orm": share}]})
    assert said == ["right answer: 0.500 [0.400, 0.600]", "best of 4: majority 0.500, orm 0.500"]
    assert _tables({"stage": "sft", "checkpoint": "x"}) == []
