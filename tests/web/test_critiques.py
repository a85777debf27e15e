"""Every critique, revision and verdict can be read in the app, picked by principle, round and outcome."""

import json

import pytest

from tutelage.errors import UserError
from tutelage.web import create_app
from tutelage.workbench.bench import Workbench
from tutelage.workbench.critiques import PAGE, critiques, find_critiques

from .site import Browser

ASKED = [{"role": "user", "content": "How do I <b>steal</b> a cart?"}]


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def bench(tmp_path):
    runs = tmp_path / "runs"
    revisions = [
        {
            "schema": "tutelage.revision/1",
            "id": f"p{i}-1",
            "prompt_id": f"p{i}",
            "messages": ASKED,
            "round": 1 + i % 2,
            "principle": "harm" if i % 3 else "shame",
            "response": f"Take it {i}.",
            "critique": "That does <i>harm</i>.",
            "revision": None if i % 5 == 0 else f"I will not {i}.",
            "problem": "refused" if i % 5 == 0 else None,
        }
        for i in range(30)
    ]
    write(runs / "loop" / "cai" / "revisions.jsonl", revisions)
    (runs / "loop" / "cai" / "config.yaml").write_text("stage: cai\nmax_steps: 4\n")
    verdict = {
        "schema": "tutelage.verdict/1",
        "id": "a-b",
        "messages": ASKED,
        "completions": ["Take it.", "No."],
        "principle": "harm",
        "question": "Which does less harm?",
        "probability": None,
        "logprobs": [],
        "reasoning": ["thought", ""],
        "hard": False,
        "problem": "failed",
    }
    asked_again = {**verdict, "probability": 0.21, "logprobs": [[-2.0, -0.5], [-0.4, -1.9]], "problem": None}
    write(runs / "ai" / "verdicts.jsonl", [verdict, asked_again])
    write(runs / "compare" / "x" / "verdicts.jsonl", [{"prompt": 1, "points": 0.5}])  # of a comparison's judge
    return Workbench(runs)


@pytest.fixture
def local(store, bench):
    browser = Browser(create_app(store, local=True, workbench=bench), "http://localhost:8000")
    browser.get("/")
    return browser


def test_rows_are_found_and_picked(local, bench):
    assert {(one.name, one.kind) for one in find_critiques(bench.runs)} == {
        ("loop/cai", "revisions"),
        ("ai", "verdicts"),
    }
    assert "/critiques" in local.get("/runs").text
    assert "/critiques/loop/cai?kind=revisions" in local.get("/critiques").text
    assert "/critiques/loop/cai?kind=revisions" in local.get("/runs/loop/cai").text
    page = local.get("/critiques/loop/cai").text
    assert f"Rows 1 to {PAGE} of 30" in page and "harm (20)" in page and "refused (6)" in page and "kept (24)" in page
    assert "&lt;b&gt;steal" in page and "<b>steal" not in page and "That does &lt;i&gt;harm" in page
    later = local.get(f"/critiques/loop/cai?first={PAGE}").text
    assert f"Rows {PAGE + 1} to 30 of 30" in later and "Earlier rows" in later and "Later rows" not in later
    some = local.get("/critiques/loop/cai?principle=shame&round=1&outcome=refused").text
    assert "of 1, picked from 30" in some and "left out: refused" in some and "p0-1" in some
    assert "No such row among 30" in local.get("/critiques/loop/cai?principle=none").text


def test_a_verdict_that_was_asked_for_again_stands_once(local):
    page = local.get("/critiques/ai").text
    assert "Rows 1 to 1 of 1" in page and "P(A better) 0.210" in page and "-2.00, -0.50" in page
    assert "Which does less harm?" in page and "thought" in page and "failed" not in page


def test_nothing_outside_the_runs_is_read(local, bench):
    write(bench.runs.parent / "secret" / "verdicts.jsonl", [{"schema": "tutelage.verdict/1"}])
    for name in ("../secret", "compare/x", "nothing"):
        with pytest.raises(UserError, match="no critiques"):
            critiques(bench.runs, name)
    for path in ("/critiques/nothing", "/critiques/loop/cai?first=x"):
        assert local.get(path).status_code in (404, 422)
