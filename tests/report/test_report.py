"""The page: self-contained, small, complete, and safe against what a model may say."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fixture import make_run, report  # noqa: E402, RUF100

from tutelage.errors import UserError  # noqa: E402, RUF100
from tutelage.report import write_report  # noqa: E402, RUF100

SECTIONS = [
    "pipeline",
    "wins",
    "behaviors",
    "hacking",
    "samples",
    "reward-model",
    "curves",
    "alarms",
    "lineage",
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
