"""The sections of single methods: chosen answers, constitutions, steps, best of n."""

import yaml

from tutelage.report.methods import best_of_n, chosen, constitutional, process, sections
from tutelage.report.page import render

EVIL = "<script>alert(1)</script>"


def metrics(chosen_to, rejected_to, accuracy=0.6):
    return [
        {
            "step": i,
            "loss": 0.6,
            "rewards/chosen": chosen_to * i / 9,
            "rewards/rejected": rejected_to * i / 9,
            "logps/chosen": -20 + 10 * chosen_to * i / 9,
            "logps/rejected": -22 + 10 * rejected_to * i / 9,
            "nll_loss": 1.0,
            "eval/rewards/accuracies": accuracy,
        }
        for i in range(1, 10)
    ]


def texts(**options):
    return {"config.yaml": yaml.safe_dump({"beta": 0.1, "logprob": "sum", "reference": None, **options})}


def test_the_question_is_answered_beside_its_curve_from_the_runs_numbers():
    report = {
        "stages": [{"name": "sft"}, {"name": "dpo"}],
        "win_rates": [
            {"policy": "dpo", "baseline": "sft", "judge": "gold", "win_rate": 0.4, "ci95": [0.35, 0.45], "prompts": 400}
        ],
    }
    logs = {"dpo": metrics(-0.5, -2.0), "sft": [{"step": 1, "loss": 1.0}]}
    made = chosen(report, logs, {"dpo": texts(stage="dpo", model="runs/x/sft")}, 200)
    assert made.count("<figure>") == 1 and made.count("<svg") == 2 and "better" in made and "worse" in made
    assert "fell, and that is bad here" in made and "share most of their words" in made and "win 40%" in made
    without = chosen({}, logs, {"dpo": texts(stage="dpo")}, 200)  # no evaluation: by the accuracy and the margin
    assert "fell, and did no harm" in without and "harmless" in without


def test_a_constitution_is_told_by_principle_with_agreement():
    found = {
        "cai": {
            "prompts": 9,
            "revisions": 12,
            "left_out": {"refused": 6},
            "principles": [
                {"principle": "harm", "count": 12, "left_out": 2, "changed": 0.5, "refusing_after": 0.9},
                {"principle": EVIL, "count": 0, "left_out": 4},
            ],
            "rounds": [{"round": 1, "count": 12, "left_out": 6, "changed": 0.01}],
        },
        "ai-label": {
            "ai_comparisons": 40,
            "left_out": {},
            "principles": [{"principle": "harm", "count": 40, "left_out": 0, "sureness": 0.1, "orders_agree": 0.5}],
            "agreement_with_people": {"pairs": 40, "agreement": 0.55, "ci95": [0.45, 0.65], "sure_pairs": 0},
        },
    }
    made = constitutional({"constitutional": found})
    assert "12 revisions" in made and "Left out: 6 refused" in made and EVIL not in made and "&lt;script&gt;" in made
    assert "33 % of what it was asked is left out" in made
    assert "agrees with people on 55 %" in made and "not clearly better than chance" in made
    assert "By harm it is the letter that chooses" in made and "left out: nothing" in made.lower()


def test_steps_and_solutions():
    def share(value):
        return {"value": value, "ci95": [value - 0.1, value + 0.1]}

    ranked = {
        "prompts": 20,
        "right_answer": share(0.4),
        "right_answer_and_steps": share(0.3),
        "first_errors": {"first_error_accuracy": 0.7},
        "best_of_n": [
            {"n": n, "majority": share(0.5), "prm-min": share(0.5 + 0.02 * n), "any": share(0.9)} for n in (1, 4, 16)
        ],
    }
    ranked["best_of_n_by_right_steps"] = [
        {"n": n, "majority": share(0.3), "prm-min": share(0.3 + 0.02 * n), "any": share(0.7)} for n in (1, 4, 16)
    ]
    card = {"step_accuracy": 0.8, "auc": 0.9, "gate": "passed"}
    labels = {"solutions": 5, "steps": 20, "labels_right": 0.75}
    made = process({"process": {"cards": {"prm": card}, "rerank": {"rerank": ranked}, "labels": {"truth": labels}}})
    assert "steps: minimum chooses best: 82 % right answers; 90 % of the problems have one" in made
    assert "62 % right answers by right steps; 70 %" in made
    assert made.count("first wrong step is found in 70 %") == 1 and "passed" in made and "0.75" in made


def test_best_of_n_names_its_bound():
    rows = [{"n": n, "proxy": 0.1 * n, "kl_upper_bound": 0.2 * n} for n in (1, 2, 4)]
    made = best_of_n({"best_of_n": {"rejection": rows}})
    assert "upper bound" in made and "log n − (n − 1)/n" in made and "<svg" in made


def test_without_such_methods_there_is_no_section():
    assert all(not inner for _, _, inner in sections({}, {"sft": [{"step": 1, "loss": 1.0}]}, {}, 10))
    page = render({"name": "x"}, {"dpo": metrics(-0.5, -2.0)}, {"dpo": texts(stage="dpo")})
    assert 'id="chosen"' in page and "Why the chosen log-probability falls" in page
