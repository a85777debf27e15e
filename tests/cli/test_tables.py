"""What the command says of constitutions and of reranking, out of a stage's summary; and of win rates."""

from tutelage.cli.stage import _evaluation, _tables


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


def test_every_number_of_a_win_rate_has_its_interval():
    row = {"policy": "a", "baseline": "b", "judge": "j", "win_rate": 0.7, "ci95": [0.6, 0.8], "flip_rate": 0.1}
    row |= {"flip_ci95": [0.05, 0.2], "length_controlled": {"win_rate": 0.6, "ci95": [0.5, 0.7]}}
    row |= {"explained_by_length": 0.5, "explained_by_length_ci95": [0.2, 0.9]}
    (said,) = _evaluation({"win_rates": [row]})
    assert said == (
        "a over b by j: 0.700 [0.600, 0.800]; 10% [5%, 20%] flipped with the order; 0.600 [0.500, 0.700] at equal lengths; "
        "length explains 50% [20%, 90%] of the difference"
    )
    (said,) = _evaluation({"win_rates": [{**row, "explained_by_length_ci95": None}]})
    assert said.endswith("the difference is too small to say what length explains of it") and "50%" not in said
