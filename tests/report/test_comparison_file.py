"""A comparison as one file: the matrix, ratings with their data, answers side by side; nothing loaded, nothing run."""

import re

from tutelage.report import comparison
from tutelage.report.comparison import render_comparison, short_names

EVIL = "<img src=x onerror=alert(1)>"


def cell(model, kind="full", **more):
    return {"model": model, "state": "done", "class": kind, "words": 3, "reward": 1.25, "reason": "", "names_itself": False,
            "pieces": [("same", "It is "), ("gone", "so "), ("new", EVIL)],
            "by_prefix": {"pieces": ["It", " is"], "scores": [0.1, 0.9]}, **more}  # fmt: skip


def found(**more):
    rows = [
        {"id": f"p{i}", "category": "chat", "messages": [{"role": "user", "content": f"{EVIL} {i}?"}], "hidden": False,
         "cells": [cell("runs/sft", "refused"), cell("=ppo")], "verdicts": [("gold", "sft > ppo")], "votes": [("a > b", "names shown")]}
        for i in range(2)
    ]  # fmt: skip
    failed = {"state": "failed", "class": "", "words": 0, "reward": None, "reason": "status 500", "pieces": []}
    rows[1]["cells"][1] = cell("=ppo", **failed)
    rows.append({**rows[0], "id": "secret", "hidden": True, "cells": [], "verdicts": [], "votes": []})
    rate = {"rating": 1100.0, "ci95": [1000.0, 1200.0], "games": 4, "ties": 1, "length_controlled": None}
    even = {"rating": 1010.0, "ci95": [900.0, 1100.0]}
    return {
        "id": "ab" * 12, "exported": "2026-01-01 10:00 UTC",
        "columns": [{"name": n, "kind": "local", "identity": "ff", "kept": "reproducible"} for n in ("runs/sft", "=ppo")],
        "settings": [("temperature", 0.7), ("judges", "gold")], "counts": {"done": 3, "failed": 1, "cut": 0},
        "notes": ["2 votes are kept but not rated"],
        "ratings": [{"judge": "gold", "verdicts": 4, "sentence": "sft is ahead.", "rows": [{**rate, "model": "runs/sft", "length_controlled": even}, {**rate, "model": "=ppo"}]}],
        "rows": rows, **more,
    }  # fmt: skip


def test_the_page_has_the_matrix_the_ratings_and_every_answer():
    html = render_comparison(found())
    assert "<h1>2 models, 3 prompts</h1>" in html and "3 done, 1 failed" in html and "sft is ahead." in html
    assert html.count('href="#p-') == html.count('<article id="p-') == 3
    assert html.count("idden until you vote") == 2 and "status 500" in html and "2 votes are kept" in html
    assert "<del>so </del><ins>&lt;img" in html and "unrated: names shown" in html and "Reward, word by word" in html
    assert html.count('class="csv"') == 3 and html.count('class="says"') == 2
    assert "%27%3Dppo" in html  # in the CSV a name that a spreadsheet would run is quoted
    assert ">1200<" in html.replace(",", "") and "at equal length" in html


def test_nothing_is_loaded_and_what_was_written_stays_text():
    html = render_comparison(found())
    assert "<img" not in html and not re.search(r'(?:src|href)="(?!#|data:text/csv)', html)
    assert "default-src &#39;none&#39;" in html.split("</head>")[0]


def test_a_page_that_would_be_too_large_leaves_the_strips_out(monkeypatch):
    monkeypatch.setattr(comparison, "LIMIT", 1000)
    html = render_comparison(found())
    assert "Reward, word by word" not in html and "left out: the page would be too large" in html


def test_without_verdicts_and_answers_there_is_a_page_too():
    html = render_comparison(found(ratings=[], rows=found()["rows"][2:], notes=[], counts={"done": 0}))
    assert "No verdicts yet." in html and "0 done" in html and "Who answers" not in html


def test_names_lose_their_folders_where_they_stay_apart():
    assert short_names(["a/b/sft", "c/ppo"]) == {"a/b/sft": "sft", "c/ppo": "ppo"}
    assert short_names(["a/sft", "b/sft"]) == {"a/sft": "a/sft", "b/sft": "b/sft"}
