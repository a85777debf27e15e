"""What became of the chosen answers: judged by the run's own numbers, never by the fall alone."""

import pytest

from tutelage.evaluation.chosen import explain

DPO = {"stage": "dpo", "beta": 0.1, "logprob": "sum", "reference": None}


def rows(chosen, rejected, nll=(1.0, 1.0), accuracy=(), high=None, steps=20):
    """A run in which both implicit rewards go from 0 to these, evenly."""
    found = []
    for i in range(steps):
        part = i / (steps - 1)
        found.append({"step": i + 1, "rewards/chosen": chosen * part, "rewards/rejected": rejected * part})
        found[-1]["nll_loss"] = nll[0] + (nll[1] - nll[0]) * part
    for place, value in enumerate(accuracy):
        row = found[(place + 1) * steps // len(accuracy) - 1]
        row |= {"eval/rewards/accuracies": value, "eval/rewards/accuracies_high": high if high else value + 0.03}
    return found


def test_a_fall_smaller_than_the_margin_is_harmless_and_is_told_in_nats():
    found = explain(rows(-0.5, -2.0, accuracy=(0.6, 0.65)), DPO)
    assert found["verdict"] == "harmless" and "share most of their words" in found["why"] and not found["mend"]
    assert (
        "log-probability moved by -4.87" in found["here"] and "-19.47 nats an answer" in found["here"]
    )  # rewards / beta
    assert "65%" in found["here"]


@pytest.mark.parametrize(
    ("changes", "verdict", "said"),
    [
        ({"chosen": 0.3, "rejected": -0.4}, "rose", "did not fall"),
        ({"chosen": -2.0, "rejected": -2.5, "accuracy": (0.6, 0.65)}, "watch", "4.0 times the margin"),
        ({"chosen": -2.0, "rejected": -1.5}, "watch", "did not fall further"),
        ({"chosen": -0.5, "rejected": -2.0, "accuracy": (0.7, 0.55)}, "bad", "70% → 55%"),
        ({"chosen": -0.5, "rejected": -2.0, "accuracy": (0.7, 0.68)}, "harmless", "68%"),  # within its interval
        ({"chosen": -0.5, "rejected": -2.0, "nll": (1.0, 3.0)}, "bad", "less likely"),
    ],
)
def test_the_verdict_is_the_runs_own(changes, verdict, said):
    found = explain(rows(**changes), DPO)
    assert found["verdict"] == verdict and said in found["here"]
    assert bool(found["mend"]) == (verdict in ("watch", "bad"))


def test_win_rates_decide_where_they_are_clear():
    fell = rows(-2.0, -2.5, accuracy=(0.7, 0.5))
    assert explain(fell, DPO, {"rate": 0.65, "ci": (0.6, 0.7)})["verdict"] == "harmless"
    assert explain(rows(-0.5, -2.0), DPO, {"rate": 0.4, "ci": (0.35, 0.45)})["verdict"] == "bad"
    assert explain(fell, DPO, {"rate": 0.52, "ci": (0.45, 0.59)})["verdict"] == "bad"  # it says nothing: accuracy does


def test_what_can_be_done_is_what_the_stage_has():
    fell = rows(-2.0, -1.5)
    mends = {stage: explain(fell, {**DPO, "stage": stage})["mend"] for stage in ("dpo", "ipo", "kto", "orpo", "simpo")}
    assert "raise beta" in mends["dpo"] and "raise tau" in mends["ipo"] and "nll_coef" in mends["simpo"]
    assert "nll_coef" not in mends["kto"] + mends["orpo"] and "beta" not in mends["simpo"]
    assert "Thumbs" in explain(fell, {**DPO, "stage": "kto"})["why"]


def test_without_a_reference_the_start_is_where_the_run_began():
    shifted = [{**row, "rewards/chosen": row["rewards/chosen"] - 4.0} for row in rows(-1.0, -3.0)]
    found = explain(shifted, {"stage": "simpo", "beta": 2.0})
    assert found["chosen"] == pytest.approx(-1.0 * 18 / 19) and "nats a token" in found["here"]


def test_nothing_to_say_of_other_stages_or_one_step():
    assert explain([{"step": 1, "loss": 1.0}] * 5, {"stage": "sft"}) is None
    assert explain(rows(-1.0, -2.0)[:1], DPO) is None
