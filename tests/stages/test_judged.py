"""`tutelage eval --judge`: any outputs on any prompts; what is missing or nonsense is counted; nothing is asked twice."""

import json

import pytest

from tutelage.configs import EvalConfig
from tutelage.data.sources import prompts
from tutelage.errors import UserError
from tutelage.evaluation.length_control import Gamed, controlled
from tutelage.judges.chats import Endpoint
from tutelage.stages.evaluate import run

JUDGE = "openai:http://127.0.0.1:9/v1#judge"


@pytest.fixture
def asked(monkeypatch):
    """Stands in for the judge behind the URL: likes the word "good"; twice it does not."""
    seen = []

    def post(self, messages):
        text = messages[0]["content"]
        seen.append(text)
        a = text.split("[Answer A]\n")[1].split("\n[End of answer A]")[0]
        said = "[[A]]" if "good" in a or "Question 4." in text else "[[B]]"
        return {"choices": [{"message": {"content": "hm" if "Question 3." in text else said}}]}

    monkeypatch.setattr(Endpoint, "_post", post)
    return seen


@pytest.fixture
def files(tmp_path):
    def write(name, rows):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(tmp_path / name)

    questions = [f"Question {i}." for i in range(30)]
    return {
        "data": write("prompts.jsonl", [{"prompt": q} for q in questions]),
        "plain": write("plain.jsonl", [{"prompt": q, "output": f"a plain answer to {q}"} for q in questions]),
        "good": write(
            "good.jsonl", [{"prompt": q, "output": "good" * (1 + i % 15)} for i, q in enumerate(questions[2:])]
        ),
        "other": write("other.jsonl", [{"prompt": q, "output": "another"} for q in questions]),
    }


def config(files, tmp_path, *names, **more):
    models = tuple(f"{name}={files[name]}" for name in names)
    return EvalConfig(
        **{"models": models, "data": files["data"], "judge": (JUDGE,), "out": str(tmp_path / "out"), **more}
    )


def test_outputs_are_judged_in_both_orders_and_everything_is_counted(files, asked, tmp_path):
    found = run(config(files, tmp_path, "plain", "good"))
    (row,) = found["win_rates"]
    assert (row["policy"], row["baseline"], row["judge"]) == ("good", "plain", JUDGE)
    # 28 of 30 answered both; one verdict unparsable; one flips, which ties; 26 wins
    assert (row["missing"], row["unparsable"], row["failed"], row["judged"], row["ties"]) == (2, 1, 0, 27, 1)
    assert row["win_rate"] == pytest.approx(26.5 / 27) and row["flip_rate"] == pytest.approx(1 / 27)
    assert row["ci95"][0] < row["win_rate"] < row["ci95"][1] and 0 < row["detectable"] < 0.5
    assert row["length_controlled"]["win_rate"] > 0.9
    assert found["answers"]["good"]["unanswered"] == 2 and len(asked) == 56
    assert json.loads((tmp_path / "out" / "eval.json").read_text())["win_rates"] == found["win_rates"]


def test_a_third_model_asks_for_its_own_pairs_only(files, asked, tmp_path):
    run(config(files, tmp_path, "plain", "good"))
    asked.clear()
    assert run(config(files, tmp_path, "plain", "good"))["win_rates"][0]["judged"] == 27 and asked == []
    found = run(config(files, tmp_path, "plain", "good", "other"))
    assert len(found["win_rates"]) == 3 and len(asked) == 60 + 56
    (table,) = found["ratings"].values()
    assert table[0]["model"] == "good" and {row["model"] for row in table} == {"plain", "good", "other"}
    rows = {row["model"]: row for row in table}
    # Each judged prompt is played in two orders, and one that flips is a tie of that pair, not half a win.
    flips = sum(row["ties"] for row in found["win_rates"])
    assert sum(row["ties"] for row in table) == 2 * flips > 0
    assert json.loads((tmp_path / "out" / "eval.json").read_text())["ratings"][JUDGE][0]["model"] == "good"
    assert rows["good"]["ci95"][0] < rows["good"]["rating"] < rows["good"]["ci95"][1]


def length_rows(gamed=True, prompts=30):
    rows = [{"instruction": f"Question {i}.", "instruction_difficulty": (i % 7) / 3 - 1} for i in range(prompts)]
    if gamed:
        for i, row in enumerate(rows * 2):
            row = {**row, "preference": float(i % 3 == 0), "std_delta_len": 1.0 if i % 2 else -1.0}
            rows.append(row)
    return rows


def test_length_data_makes_it_alpaca_evals_rate(files, asked, tmp_path):
    (tmp_path / "length.jsonl").write_text("".join(json.dumps(row) + "\n" for row in length_rows()))
    more = {"length_data": str(tmp_path / "length.jsonl")}
    (row,) = run(config(files, tmp_path, "plain", "good", **more))["win_rates"]
    plain = run(config(files, tmp_path, "plain", "good"))["win_rates"][0]["length_controlled"]
    assert row["length_controlled"]["phi"] != plain["phi"] and row["length_controlled"]["raw"] == plain["raw"]
    # The very rate of its answers (the judge's verdict on prompt 4 flips, that on 3 cannot be read, 0 and 1 are missing).
    order = [int(p.messages[0]["content"][9:-1]) for p in prompts(files["data"], "report", 400, 77)]
    judged = [i for i in order if i not in (0, 1, 3)]
    gamed = [(r["preference"], r["std_delta_len"], r["instruction_difficulty"]) for r in length_rows()[30:]]
    expected = controlled(
        [0.5 if i == 4 else 1.0 for i in judged],
        [4 * (1 + (i - 2) % 15) for i in judged],
        [len(f"a plain answer to Question {i}.") for i in judged],
        [(i % 7) / 3 - 1 for i in judged],
        Gamed(*zip(*gamed, strict=True)),
    )
    assert row["length_controlled"] == expected


@pytest.mark.parametrize(
    ("rows", "mention"),
    [
        (length_rows(prompts=28), "no difficulty for 2 of 30 prompts"),
        ([{"prompt": "Question 1."}], "no number instruction_difficulty"),
        ([{"prompt": "Q", "difficulty": 1, "preference": 2.0, "std_delta_len": 0.1}], "preference of 2"),
        ([{"prompt": "Q", "difficulty": 1, "preference": 1.0}], "no number std_delta_len"),
    ],
)
def test_length_data_that_lacks_something(files, asked, tmp_path, rows, mention):
    (tmp_path / "length.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match=mention):
        run(config(files, tmp_path, "plain", "good", length_data=str(tmp_path / "length.jsonl")))
    assert asked == []  # known before anything is paid for
    with pytest.raises(UserError, match="judge"):
        config(files, tmp_path, "plain", "good", length_data="x", judge=()).check()


def test_a_checkpoint_against_its_own_outputs_by_gold(nano, tmp_path):
    from tutelage.configs import SampleConfig
    from tutelage.stages import sample

    out = tmp_path / "sampled.jsonl"
    sample.run(SampleConfig(model=str(nano), split="report", prompts=400, max_new_tokens=8, out=str(out), seed=77))
    both = (f"file={out}", f"model={nano}")
    more = {"models": both, "judge": ("gold",), "prompts": 12, "max_new_tokens": 8, "out": str(tmp_path / "o")}
    found = run(EvalConfig(**more))
    assert found["win_rates"][0]["judge"] == "gold" and found["win_rates"][0]["prompts"] == 12
    again = run(EvalConfig(**more))
    assert again["samples"] == found["samples"]


@pytest.mark.parametrize(
    ("change", "mention"),
    [
        ({"judge": ("gold",)}, "embedded world"),
        ({"judge": ("oracle",)}, "unknown judge"),
        ({"judge": ("reward:nowhere",)}, "nowhere"),
        ({"models": ("a=nowhere",)}, "two models"),
        ({"models": ("a=nowhere", "b=nowhere")}, "nowhere"),
    ],
)
def test_bad_options(files, asked, tmp_path, change, mention):
    with pytest.raises(UserError, match=mention):
        run(config(files, tmp_path, "plain", "good", **change))
    assert not (tmp_path / "out").exists()
