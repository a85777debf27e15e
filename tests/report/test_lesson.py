"""A lesson as figures and as one file: every curve with a sentence, a table and a CSV; whatever models wrote is text."""

import csv
import io
import re
from urllib.parse import unquote

from tutelage.report.lesson import effects, figures, live_figures, measures, render_lesson


def points(golds, length=20.0):
    return [
        {"step": 4 * i, "gold": g, "proxy": float(i), "length": length * (1 + i), "kl": float(i),
         "ci95": {"gold": [g - 0.05, g + 0.05], "proxy": [i - 0.1, i + 0.1], "length": None, "kl": [i - 0.2, i + 0.2]}}
        for i, g in enumerate(golds)
    ]  # fmt: skip


def lesson(**more):
    return {
        "scenario": "no-kl", "title": "No KL penalty", "about": "Nothing holds it.", "said": "1 of 1 right", "fast": False,
        "measures": {"gold.change": -0.2}, "measures_ci95": {"gold.change": [-0.3, -0.1]},
        "mended": {"gold.change": 0.1}, "mended_ci95": {"gold.change": None},
        "effects": {"hacked": {"share": 0.97, "shown": True}, "other": {"share": None, "shown": None}},
        "explanation": ["Gold fell <by> 0.2."], "tripped": ["the gate"], "why_mend": ["a price on leaving"],
        "predictions": [{"id": "gold", "ask": "Gold?", "guess": "down", "came": "down", "right": True}],
        "curves": {"broken": {"ppo": points([0.5, 0.8, 0.3])}, "mended": {"ppo": points([0.5, 0.6, 0.7])}},
        "texts": [{"prompt_id": "p", "prompt": "<script>alert(1)</script>", "broken": "<b>bad</b>", "gold": 0.1, "mended": "", "mended_gold": 0.9}],
        "settings": {"ppo.kl_coef": 0.0}, "seeds": [0], "seconds": 90.0, **more,
    }  # fmt: skip


def tables(html):
    """The CSV files in a page."""
    found = re.findall(r'href="data:text/csv;charset=utf-8,([^"]+)"', html)
    return [list(csv.reader(io.StringIO(unquote(one)))) for one in found]


def test_each_curve_has_a_sentence_a_table_and_a_csv_with_its_interval():
    made = figures(lesson())
    assert len(made) == 4
    for figure in made:
        assert ('class="says"' in figure and "<table>" in figure and 'class="band"' in figure) or "Tokens" in figure
        ((head, *rows),) = tables(figure)
        assert head[:2] == ["run", "step"] and head[3:] == ["low", "high"] and len(rows) == 6
    gold = next(one for one in made if "Gold: the judge" in one)
    assert "broken 0.5 → 0.3; mended 0.5 → 0.7" in gold and "best at step 4: stop there" in gold
    assert tables(gold)[0][2] == ["broken", "4", "0.8", "0.75", "0.8500000000000001"]
    length = next(one for one in made if "Tokens" in one)
    assert "grew by 200 %" in length and tables(length)[0][1][3:] == ["", ""]


def test_a_run_that_ends_near_its_best_is_not_said_to_have_fallen():
    (gold, *_) = figures(lesson(curves={"broken": {"ppo": points([0.5, 0.62, 0.6])}, "mended": {}}))
    assert "does not end clearly below its best" in gold and "mended" not in gold


def test_a_lesson_of_an_earlier_version_has_no_intervals_and_is_drawn():
    bare = [{k: v for k, v in p.items() if k != "ci95"} for p in points([0.5, 0.3])]
    old = lesson(curves={"broken": {"ppo": bare}, "mended": {}}, mended=None)
    del old["measures_ci95"], old["about"]
    assert 'class="band"' not in "".join(figures(old))
    assert tables(measures(old)) == [[["measure", "broken", "low", "high"], ["gold.change", "-0.2", "", ""]]]
    assert "No KL penalty" in render_lesson(old)


def test_what_runs_is_drawn_with_its_data():
    (made,) = live_figures("no-kl-1", {"objective/kl": [(1.0, 0.0), (2.0, 3.5)]})
    assert "From 0 to 3.5 by step 2" in made and tables(made)[0] == [
        ["step", "objective/kl"],
        ["1.0", "0.0"],
        ["2.0", "3.5"],
    ]


def test_the_file_holds_all_and_escapes_what_models_wrote():
    html = render_lesson(lesson())
    assert (
        "<h1>No KL penalty</h1>" in html
        and "<b>1 of 1 right</b>" in html
        and "A guard spoke" in html
        and "A price on leaving." in html
    )
    assert "&lt;script&gt;alert(1)" in html and "<b>bad" not in html and "Gold fell &lt;by&gt; 0.2." in html
    assert len(tables(html)) == 5 and "default-src &#39;none&#39;" in html.split("</head>")[0]
    assert not re.search(r'(?:src|href)="(?!#|data:)', html)  # nothing is loaded from elsewhere
    assert effects(lesson()) == "“hacked” held on 97 % of the resamples of the held-out prompts."
    assert "toy size" in render_lesson(lesson(fast=True))
