"""The page: self-contained, small, complete, and safe against what a model may say."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fixture import make_run, report  # noqa: E402, RUF100

from tutelage.errors import UserError  # noqa: E402, RUF100
from tutelage.report import judging, measured, write_report  # noqa: E402, RUF100

SECTIONS = [
    "pipeline",
    "wins",
    "behaviors",
    "truth",
    "rubric",
    "tax",
    "hacking",
    "samples",
    "reward-model",
    "labelers",
    "curves",
    "alarms",
    "lineage",
    "card",
    "limits",
]


def page(tmp_path, value=None):
    return write_report(make_run(tmp_path / "run", value)).read_text("utf-8")


def test_every_section_and_no_connection(tmp_path):
    html = page(tmp_path)
    assert [i for i in SECTIONS if f'<section id="{i}">' in html] == SECTIONS
    assert not re.search(r'(src|href)="(?!#|data:)', html) and "http" not in html.replace("http-equiv", "")
    assert len(html.encode()) < 2_500_000
    assert "NaN" not in html and "nan" not in re.findall(r' d="([^"]*)"', html)
    assert not re.search(r"<[a-z]+[^>]* style=", html)  # the content policy forbids them


def test_under_each_chart_stand_a_sentence_what_to_do_and_the_data(tmp_path):
    html = page(tmp_path)
    figures = re.findall(r"<figure>.*?</figure>", html, re.DOTALL)
    assert len(figures) == 15
    for one in figures:
        (says,) = re.findall(r'<p class="says">(.*?)</p>', one)
        assert says.endswith(".") and len(says) > 40
        assert one.index("<svg" if "<svg" in one else "<table") < one.index('class="says"') < one.index("data:text/csv")
        assert "<table>" in one


def section(html, name):
    return html.split(f'<section id="{name}">')[1].split("</section>")[0]


def says(html, name):
    return " ".join(re.findall(r'<p class="says">(.*?)</p>', section(html, name)))


def test_what_eval_measured_is_there(tmp_path):
    html = page(tmp_path)
    wins, found, tax = (section(html, name) for name in ("wins", "behaviors", "tax"))
    assert "Ratings on one scale" in wins and "10 lost (unparsable or failed), at most 11 % flipped" in wins
    for heading in ("Refuses, of all prompts", "Refuses in part", "Opinion: goes along", "Feedback follows taste",
                    "Are you sure?", "Hedges in 100 words", "List items", "Gold score"):  # fmt: skip
        assert heading in found, heading
    assert (
        "From Base to PPO, no KL, “Refuses harmless requests” moved by +29 points (+21 to +37), which is worse"
        in says(html, "behaviors")
    )
    # The worst of the losses beyond chance is named, with its interval; SFT's is none.
    assert "The tax of PPO, no KL is 0.5 nats a token (0.48 to 0.52)" in says(html, "tax") and "ptx_coef" in tax
    assert "KL to the reference" in tax and "documents" in tax
    assert "kappa 0.44" in section(html, "labelers") and "Two labelers agree" in section(html, "labelers")


def test_tasks_truth_calibration_and_ratings_are_there(tmp_path):
    html = page(tmp_path)
    tax, truth, rubric = (section(html, name) for name in ("tax", "truth", "rubric"))
    assert "PPO lost 20 points of “facts” from Base" in tax and "lm-eval" in tax
    assert "“facts” moved by −20 points (−25 to −15)" in says(html, "tax") and "task%3Afacts" in tax
    assert "Makes something up, given a text" in truth and "1 of 1 paired differences" in truth
    assert "that of PPO, no KL on facts, 0.25 (0.2 to 0.3): it is more sure than right by 25 points" in says(
        html, "truth"
    )
    assert "Quality, 1 to 7" in rubric and "quality moved by +1.5 of 7 (+1.1 to +1.9)" in says(html, "rubric")
    # A mark that nobody set has no panel, and is in the table; what was not rated is counted.
    assert (
        "<h4>Hallucination</h4>" in rubric and "<h4>Sexual content</h4>" not in rubric and "<td>sexual</td>" in rubric
    )
    assert "<th>unparsable</th>" in rubric
    value = report()
    for row in value["changes"]:
        row["changed"] = False
    assert "No model lost a capability beyond chance" in section(page(tmp_path / "b", value), "tax")


def test_instructions_followed_by_use_case(tmp_path):
    found = section(page(tmp_path), "behaviors")
    found = found.replace("\u00a0", " ").replace("\u2060", "")
    assert "<td>closed qa</td><td>40</td><td>10 % (" in found and "use-cases.csv" in found
    assert "PPO, no KL follows instructions least in closed qa, 10 % (" in found and "in generation: add demon" in found
    value = report()
    value["use_cases"] = {"ppo": {"other": {"value": 1.0, "ci95": None, "prompts": 1}}, "sft": {}}
    assert "No use case of PPO is behind" in section(page(tmp_path / "b", value), "behaviors")


def test_the_card_says_what_a_model_is_made_of_and_where_it_falls_short(tmp_path):
    card = section(page(tmp_path), "card")
    assert "ppo ← sft ← pretrain" in card and "sha256 cccccccccccc" in card and "abababababababab" in card
    assert "refuses harmless requests: 31 %" in card and "loses to PPO by The gold judge" in card
    assert "lost 0.13 (0.11 to 0.15) nats a token of Base’s language" in card and "/somewhere" not in card
    value = report()
    del value["models"]
    assert "pretrain" in section(page(tmp_path / "b", value), "card")


def test_a_run_without_ppo_is_told_by_what_wins_most_over_sft(tmp_path):
    value = report()
    names = {"ppo": "online-dpo", "ppo-no-kl": "simpo"}
    for row in value["win_rates"]:
        row |= {side: names.get(row[side], row[side]) for side in ("policy", "baseline")}
    html = page(tmp_path, value)
    (before,) = (r for r in report()["win_rates"] if (r["policy"], r["baseline"], r["judge"]) == ("ppo", "sft", "gold"))
    assert f"<h1>Online DPO beats SFT on {before['win_rate']:.0%}".replace("%", " %") in html.replace("\u00a0", " ")


def test_each_on_policy_run_has_its_curve_under_its_name(tmp_path):
    value = report()
    good, bad = value["overoptimization"]
    value["overoptimization"] = [good, {**bad, "stage": "online-dpo", "kl_coef": 0.1}]
    hacking = section(page(tmp_path, value), "hacking")
    assert "Online DPO, with the penalty (coefficient 0.1), gold ends below where it began" in hacking
    assert ">Online DPO</text>" in hacking and ">with KL</text>" in hacking and "<td>online-dpo</td>" in hacking


def test_advice_follows_what_was_measured(tmp_path):
    value = report()
    for row in value["changes"]:
        row["changed"] = False
    for row in value["win_rates"]:
        row["ci95"] = [0.4, 0.6]
    html = page(tmp_path, value)
    assert "ask more prompts" in says(html, "wins") and "act on none" in says(html, "behaviors")
    assert "no tax to mend" in says(html, "tax")
    value["judge_agreement"][1]["kappa"] = 0.1
    assert "do not decide by it" in says(page(tmp_path / "b", value), "labelers")


def test_an_evaluation_by_itself(tmp_path):
    value = report()
    kept = ("win_rates", "ratings", "behaviours", "changes", "samples", "corpus_loss", "kl", "models")
    (tmp_path / "eval.json").write_text(json.dumps({"stage": "eval", "name": "eval", **{k: value[k] for k in kept}}))
    html = write_report(tmp_path, "eval.json").read_text("utf-8")
    assert [i for i in SECTIONS if f'<section id="{i}">' in html] == [
        "wins",
        "behaviors",
        "truth",
        "tax",
        "samples",
        "card",
        "limits",
    ]
    with pytest.raises(UserError, match=r"no report\.json"):
        write_report(tmp_path)


def test_models_of_any_name_make_the_headline(tmp_path):
    row = {
        "policy": "b",
        "baseline": "a",
        "judge": "people:votes.jsonl",
        "win_rate": 0.2,
        "ci95": [0.1, 0.3],
        "prompts": 9,
    }
    html = page(tmp_path, {"win_rates": [row]})
    assert "<h1>a beats b on 80 % of held-out prompts.</h1>" in html and "95 % 70–90" in html


def test_model_text_is_escaped(tmp_path):
    html = page(tmp_path)
    assert "<script>alert" not in html and "&lt;script&gt;alert" in html
    assert html.count("<script>") == 1 and html.count("</style>") == 1 and "\x00" not in html


@pytest.mark.parametrize("field,section", [
    ("win_rates", "wins"), ("behaviours", "behaviors"), ("samples", "samples"), ("reward_model", "reward-model"),
    ("alarms", "alarms"), ("stages", "pipeline"),
])  # fmt: skip
def test_a_section_without_data_is_left_out(tmp_path, field, section):
    value = report()
    del value[field]
    html = page(tmp_path, value)
    assert f'<section id="{section}">' not in html and '<section id="limits">' in html


def test_numbers_beside_the_main_ones_have_their_intervals_too():
    value = report()
    said = judging.verdicts(value)
    assert all(f">{end}<" in said for end in ("0.47", "0.61", "0.08", "0.15"))
    assert "at equal lengths" in judging.ratings(value) and "Hollow" in judging.ratings(value)
    assert ">0.71<" in measured.reward_model(value)
    assert ">0.38<" in said and ">1.12<" in said
    row = {**value["win_rates"][-1], "unparsable": 0, "failed": 0}
    value["win_rates"] = [row]
    assert "Length explains 64 % (38 % to 112 %) of the difference" in judging.verdicts(value)
    value["win_rates"] = [{**row, "ci95": [0.45, 0.67], "explained_by_length_ci95": None}]
    assert "Length explains" not in judging.verdicts(value)  # where no difference is clear, there is none to explain
    value["win_rates"] = [{**row, "explained_by_length": 0.3, "explained_by_length_ci95": [0.1, 0.6]}]
    assert "may explain more of some" in judging.verdicts(value)


def test_the_pipeline_says_what_each_stage_was_fed(tmp_path):
    value = report()
    fed = {
        "sft": {"demonstrations": 1500},
        "sample": {"completions": 36000},
        "label": {"labelers": 10, "comparisons": 4000},
        "reward": {"comparisons": 3616},
        "dpo": {"comparisons": 3615},
        "ppo": {"episodes": 8960},
        "pretrain": {},
        "eval": {},
    }
    value["stages"] = [{"name": f"my-{v}", "verb": v, "seconds": 3, "tokens": 77, **found} for v, found in fed.items()]
    found = re.findall(r'<p class="from">(.*?)</p>', page(tmp_path, value).replace("\u00ad", ""))
    assert found == [
        "<b>1,500</b>demonstrations of good answers",
        "<b>36,000</b>answers, several to each prompt",
        "<b>10</b>labelers, who rank the answers to each prompt",
        "<b>3,616</b>comparisons by 5 labelers",
        "<b>3,615</b>comparisons by 5 labelers",
        "<b>8,960</b>answers of the model, scored by the reward model",
        "<b>77</b>tokens",
        f"<b>{value['win_rates'][0]['prompts']}</b>held-out prompts, answered by every model",
    ]


def test_almost_nothing(tmp_path):
    assert "is finished" in page(tmp_path, {"recipe": "x"})


def test_size_is_kept_by_drawing_less(tmp_path):
    value = report()
    for sample in value["samples"]:
        sample["answers"] = {s: {"text": "é<" * 3000} for s in ("base", "sft", "ppo")}
    value["samples"] = value["samples"] * 8
    assert len(page(tmp_path, value).encode()) <= 2_500_000


def test_missing_or_broken_report(tmp_path):
    with pytest.raises(UserError, match="no report.json"):  # noqa: RUF043
        write_report(tmp_path)
    (tmp_path / "report.json").write_text("{", "utf-8")
    with pytest.raises(UserError, match="not valid JSON"):
        write_report(tmp_path)
