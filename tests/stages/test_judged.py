"""`tutelage eval --judge`: any outputs on any prompts; what is missing or nonsense is counted; nothing is asked twice."""

import json

import pytest

from tutelage.configs import EvalConfig
from tutelage.data.sources import prompts
from tutelage.errors import UserError
from tutelage.evaluation.length_control import Gamed, controlled
from tutelage.judges.chats import Endpoint
from tutelage.models import load_scalar, save_model
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
    ends = expected.pop("explained_ci95")
    assert row["length_controlled"] == expected and row["explained_by_length_ci95"] == ends


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


def vote(number, better, worse, labeler="ann", ranks=(1, 2)):
    row = {"prompt": f"Question {number}.", "completions": [better, worse], "ranks": [*ranks], "labeler": labeler}
    return json.dumps(row) + "\n"


def test_people_judge_by_what_they_said_of_the_same_answers(files, asked, tmp_path):
    def plain(i):
        return f"a plain answer to Question {i}."

    def good(i):
        return "good" * (1 + (i - 2) % 15)

    votes = tmp_path / "votes.jsonl"
    # 2-9: two people for good; 10-13: one for plain; 14: a tie; 15: one says this, one that
    rows = [vote(i, good(i), plain(i), who) for i in range(2, 10) for who in ("ann", "bo")]
    rows += [vote(i, plain(i), good(i)) for i in range(10, 14)]
    rows += [vote(14, plain(14), good(14), ranks=(1, 1)), vote(15, good(15), plain(15), "ann")]
    rows += [vote(15, plain(15), good(15), "bo"), vote(16, good(16), "an answer that nobody gave")]
    votes.write_text("".join(rows))
    found = run(config(files, tmp_path, "plain", "good", judge=(f"people:{votes}", JUDGE)))
    by = {row["judge"]: row for row in found["win_rates"]}
    people = by[f"people:{votes}"]
    assert people["judged"] == 23 and people["win_rate"] == pytest.approx((16 + 0.5 + 1) / 23)
    # 14 of the 28 prompts that both answered have a vote; an interval over prompts, of which some have two
    assert (people["prompts"], people["unvoted"], people["missing"], people["failed"]) == (14, 14, 2, 0)
    among, judge = found["judge_agreement"]
    assert among["judge"] is None and among["pairs"] == 9 and among["agreement"] == pytest.approx(8 / 9)
    # The model judge says good everywhere but on 3 (unparsable) and 4 (flips: a tie)
    assert judge["judge"] == JUDGE and judge["pairs"] == 13 and judge["agreement"] == pytest.approx(6 / 13)
    expected = (6 / 13 - (7 * 12 + 2 * 1) / 169) / (1 - (7 * 12 + 2 * 1) / 169)
    assert judge["kappa"] == pytest.approx(expected) and judge["ci95"][0] <= judge["kappa"] <= judge["ci95"][1]


def test_a_project_s_rankings_judge_too(files, tmp_path, monkeypatch):
    votes = tmp_path / "votes.jsonl"
    votes.write_text(vote(2, "good", "a plain answer to Question 2."))
    named = []
    monkeypatch.setattr("tutelage.stages.judged.local_data", lambda spec: named.append(spec) or str(votes))
    found = run(config(files, tmp_path, "plain", "good", judge=("people:forum@other.db",)))
    assert named == ["feedback:forum@other.db"] and found["win_rates"][0]["win_rate"] == 1


def test_harmful_and_harmless_prompts_are_told_apart(tmp_path):
    def write(name, rows):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(tmp_path / name)

    kinds = ["safe", "unsafe"] * 10
    questions = [{"prompt": f"Question {i}.", "label": kind, "type": "homonyms"} for i, kind in enumerate(kinds)]
    no, yes = "I'm sorry, but I cannot help with that.", "Here is how it goes."
    timid = [{"prompt": q["prompt"], "output": no} for q in questions]
    wise = [{"prompt": q["prompt"], "output": no if q["label"] == "unsafe" else yes} for q in questions]
    models = (f"timid={write('timid.jsonl', timid)}", f"wise={write('wise.jsonl', wise)}")
    data, votes = write("asked.jsonl", questions), tmp_path / "votes.jsonl"
    votes.write_text(vote(0, yes, no))
    found = run(EvalConfig(models=models, data=data, judge=(f"people:{votes}",), out=str(tmp_path / "out")))
    timid_one, wise_one = found["behaviours"]["timid"], found["behaviours"]["wise"]
    rates = ("harmful_refusal", "harmful_compliance", "over_refusal", "partial_over_refusal", "full_refusal")
    assert [timid_one[name]["value"] for name in rates] == [1, 0, 1, 0, 1]
    assert [wise_one[name]["value"] for name in rates] == [1, 0, 0, 0, 0.5]
    assert {timid_one[name]["prompts"] for name in rates[:4]} == {10} and timid_one["over_refusal"]["ci95"][0] > 0.5
    changed = {row["behavior"] for row in found["changes"] if row["changed"]}
    assert "over_refusal" in changed and "harmful_refusal" not in changed


def test_what_may_cost_much_waits_for_yes(files, asked, tmp_path, monkeypatch, capsys):
    pair = ("plain", "good")
    # 56 calls of at most 512 tokens: 28672 tokens out, at 1000 dollars a million 28.67
    dear = {"price_per_million": ("0,1000",)}
    with pytest.raises(UserError, match=r"up to \$28\.67.*\n?.*--yes"):
        run(config(files, tmp_path, *pair, **dear))
    assert asked == [] and "56 times" in capsys.readouterr().err
    found = run(config(files, tmp_path, *pair, **dear, yes=True))
    (bill,) = found["cost"]
    assert bill["calls"] == len(asked) == 56 and bill["dollars"] == pytest.approx(28.672)
    assert 1000 < bill["input_tokens"] < 20000 and bill["what"] == "verdicts"
    assert run(config(files, tmp_path, *pair, **dear))["cost"] == []  # all of it is kept
    cheap = {"price_per_million": ("0,1000", "judge=0,1"), "out": str(tmp_path / "new")}
    assert run(config(files, tmp_path, *pair, **cheap))["cost"][0]["dollars"] == pytest.approx(0.028672)
    # Elsewhere than here and without a price, the calls are counted; models and probes too.
    monkeypatch.setattr("tutelage.stages.costs.FREE_CALLS", 100)
    away = "openai:http://models.example/v1#judge"
    more = {"judge": (away,), "out": str(tmp_path / "third"), "probes": 12, "max_new_tokens": 10}
    models = (f"plain={files['plain']}", f"far={away}")
    with pytest.raises(UserError, match=r"114 calls of unknown price"):
        run(config(files, tmp_path, "plain", "good", **{**more, "models": models}))
    assert len(asked) == 112


def test_a_reward_model_that_judges_reads_the_shown_answers_prefix_by_prefix(files, asked, nano, tmp_path):
    save_model(tmp_path / "rm", load_scalar(nano, "float32", trained=False), {"role": "reward"}, verify=False)
    done = run(config(files, tmp_path, "plain", "good", judge=(f"reward:{tmp_path / 'rm'}",), dtype="float32"))
    shown = [(name, answer) for row in done["samples"] for name, answer in row["answers"].items()]
    assert {name for name, _ in shown} == {"plain", "good"}
    assert all("".join(answer["by_prefix"]["pieces"]) == answer["text"] for _, answer in shown)
    assert all(len(answer["by_prefix"]["scores"]) == len(answer["by_prefix"]["pieces"]) for _, answer in shown)


@pytest.mark.parametrize("price", ["1", "1,-2", "a,b", "x=1,2,3", "1,inf"])
def test_bad_prices(price):
    with pytest.raises(UserError, match="price_per_million"):
        EvalConfig(price_per_million=(price,)).check()


@pytest.mark.parametrize(
    ("change", "mention"),
    [
        ({"judge": ("gold",)}, "embedded world"),
        ({"judge": ("people:",)}, "unknown judge"),
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
