"""`tutelage score`: every step by a process reward model, whole answers by any reward model, from rows of any format."""

import json

import pytest

from tutelage.cli.main import main
from tutelage.configs import PRMConfig, RewardConfig, ScoreConfig
from tutelage.data.formats import write_jsonl
from tutelage.errors import UserError
from tutelage.judges.reward import reward_judge
from tutelage.models import load_step_model
from tutelage.records import Completion, StepLabel
from tutelage.stages import prm, reward, score
from tutelage.stages.step_scores import score_steps
from tutelage.world import reasoning

COMMON = {"dtype": "float32", "max_length": 160}
ASKED = reasoning.problems("train", 50)
SOLVED = [reasoning.right_steps(reasoning.problem_of(prompt)) for prompt in ASKED]
LABELED = [
    StepLabel(
        id=f"s-{p.id}", prompt_id=p.id, steps=[*s[:-1], end], labels=[1] * (len(s) - 1) + [label], outcome=label > 0
    )
    for p, s in zip(ASKED, SOLVED, strict=True)
    for label, end in [(1, s[-1]) if p.id < ASKED[25].id else (-1, "Answer: Nobody.")]
]


@pytest.fixture(scope="module")
def models(nano, tmp_path_factory):
    """A process, an outcome and a plain reward model, a step from new."""
    folder = tmp_path_factory.mktemp("models")
    write_jsonl(folder / "steps.jsonl", [*ASKED, *LABELED])
    options = {"model": str(nano), "max_steps": 2, "batch_size": 8, "learning_rate": 1e-3, **COMMON}
    for name, more in {"prm": {}, "orm": {"supervision": "outcome", "aggregation": "last"}}.items():
        prm.run(PRMConfig(**options, **more, data=str(folder / "steps.jsonl"), out=str(folder / name)))
    pairs = [{"prompt": f"Say {n}.", "chosen": f"Here is {n}.", "rejected": "No."} for n in range(40)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    reward.run(RewardConfig(**options, data=str(folder / "pairs.jsonl"), out=str(folder / "reward")))
    return folder


def scored(models, tmp_path, rows, name="prm", **more):
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = score.run(
        ScoreConfig(model=str(models / name), data=str(data), out=str(tmp_path / "scores.jsonl"), **{**COMMON, **more})
    )
    return done, [json.loads(line) for line in (tmp_path / "scores.jsonl").read_text().splitlines()]


def test_each_step_of_every_kind_of_row_has_the_models_score(models, tmp_path):
    prompt, steps = ASKED[0].messages, SOLVED[0]
    text = "\n".join(steps)
    expected = score_steps(load_step_model(models / "prm", "float32"), [(prompt, steps)], 160)[0]
    kinds = [
        {"prompt": prompt, "completions": steps},  # TRL's stepwise, nobody labeled it
        {"prompt": prompt, "completions": steps, "labels": [True] * len(steps)},
        {"prompt": prompt, "completion": text},
        {"messages": [*prompt, {"role": "assistant", "content": text}]},
        {"prompt": prompt, "completion": text, "label": False},
        ASKED[0].to_json(),
        Completion(id="c", prompt_id=ASKED[0].id, text=text).to_json(),
        LABELED[0].to_json() | {"steps": steps},
    ]
    done, rows = scored(models, tmp_path, kinds)
    assert (done["kind"], done["answers"], done["steps"], done["aggregation"]) == ("process", 7, 7 * len(steps), "min")
    for row in rows:
        assert row["messages"] == prompt and row["steps"] == steps
        assert row["step_scores"] == pytest.approx(expected, abs=1e-5)
        assert row["score"] == pytest.approx(min(expected), abs=1e-5)
    assert [("labels" in row) for row in rows] == [False, True, False, False, False, False, True]
    last = scored(models, tmp_path, kinds, aggregation="last")[1]
    assert [row["score"] for row in last] == pytest.approx([expected[-1]] * 7, abs=1e-5)
    product = scored(models, tmp_path, kinds[:1], aggregation="product")[1][0]["score"]
    whole = 1.0
    for one in expected:
        whole *= one
    assert product == pytest.approx(whole, abs=1e-5)


def test_labeled_steps_bring_a_card(models, tmp_path):
    done, _ = scored(models, tmp_path, [one.to_json() for one in (*ASKED, *LABELED)])
    assert done["card"]["solutions"] == 50 and 0 <= done["card"]["auc"] <= 1
    outcome, rows = scored(models, tmp_path, [one.to_json() for one in (*ASKED, *LABELED)], "orm")
    assert outcome["kind"] == "outcome" and outcome["card"]["steps"] == 50
    assert all("step_scores" not in row and 0 < row["score"] < 1 for row in rows)


def test_a_reward_model_scores_whole_answers(models, tmp_path):
    rows = [
        {"prompt": "Say 1.", "completions": ["Here is 1.", "No."]},  # two answers, where steps mean nothing
        {"prompt": "Say 2.", "chosen": "Here is 2.", "rejected": "No."},
        {"prompt": ASKED[0].messages, "completions": SOLVED[0], "labels": [1] * len(SOLVED[0])},
    ]
    done, found = scored(models, tmp_path, rows, "reward")
    assert (done["kind"], done["answers"]) == ("reward", 5) and "card" not in done
    texts = ["Here is 1.", "No.", "Here is 2.", "No.", "\n".join(SOLVED[0])]
    judge = reward_judge(str(models / "reward"), "float32")
    asked = [[{"role": "user", "content": f"Say {n}."}] for n in (1, 1, 2, 2)] + [ASKED[0].messages]
    assert [row["messages"] for row in found] == asked and [row["text"] for row in found] == texts
    prompts = [type(ASKED[0])(id="p", messages=one) for one in asked]
    assert [row["score"] for row in found] == pytest.approx(judge.scorer(prompts, texts), abs=1e-4)


def test_what_has_no_step_or_does_not_fit_is_left_out_and_counted(models, tmp_path):
    fits, empty = {"prompt": "Why?", "completion": "So."}, Completion(id="c", prompt_id=ASKED[0].id, text=" \n")
    long = {"prompt": "Why?", "completion": "So it is. " * 100}
    done, rows = scored(models, tmp_path, [fits, ASKED[0].to_json(), empty.to_json(), long])
    assert done["left_out"] == {"without a step": 1, "longer than max_length": 1} and len(rows) == 1
    done, rows = scored(models, tmp_path, [fits, long], "reward")
    assert done["left_out"] == {"longer than max_length": 1} and len(rows) == 1
    with pytest.raises(UserError, match="nothing can be scored: 1 longer than max_length"):
        scored(models, tmp_path, [long])


@pytest.mark.parametrize(
    ("mention", "row"),
    [
        ("row 1, field completions: a step is empty", {"prompt": "Why?", "completions": ["a", " "]}),
        ("row 1: has no step", {"prompt": "Why?", "completions": []}),
        ("row 1, field completions: is text, not a list", {"prompt": "Why?", "completions": "a"}),
        ("row 1, field labels: has 1 labels for 2 steps", {"prompt": "Why?", "completions": ["a", "b"], "labels": [1]}),
        (
            "row 1, field steps: the steps do not join to the solution: after 'a'",
            {"prompt": "Why?", "completions": ["a", "c"], "solution": "a\nb\nc"},
        ),
        ("row 1: its prompt 'q' is not in the data", LABELED[0].to_json() | {"prompt_id": "q"}),
        ("row 1: is plain text, no answer", {"text": "Once."}),
        ("data.jsonl: holds no answers", {"prompt": "Why?"}),
    ],
)
def test_faults_of_rows_are_said(models, tmp_path, mention, row):
    with pytest.raises(UserError) as found:
        scored(models, tmp_path, [row])
    assert mention in found.value.message and not (tmp_path / "scores.jsonl").exists()


def test_faults_of_options_are_said(models, nano, tmp_path):
    row = [{"prompt": "Why?", "completion": "So."}]
    with pytest.raises(UserError, match="option --model"):
        score.run(ScoreConfig(data="x.jsonl"))
    with pytest.raises(UserError, match="the world has no answers by itself"):
        score.run(ScoreConfig(model=str(models / "prm")))
    with pytest.raises(UserError, match="is not a reward model"):
        scored(models, tmp_path, row, nano)
    with pytest.raises(UserError, match="'min' is for a process reward model"):
        scored(models, tmp_path, row, "reward", aggregation="min")
    with pytest.raises(UserError, match="'min' cannot be made of an outcome reward model's score"):
        scored(models, tmp_path, row, "orm", aggregation="min")


def test_the_command_tells_the_first_steps(models, tmp_path, capsys):
    data, out = tmp_path / "one.jsonl", tmp_path / "scores.jsonl"
    data.write_text(json.dumps({"prompt": ASKED[0].messages, "completions": SOLVED[0]}) + "\n")
    words = ["score", "--model", str(models / "prm"), "--data", str(data), "--out", str(out), "--json"]
    with pytest.raises(SystemExit) as left:
        main(words)
    said = capsys.readouterr()
    found = json.loads(said.out.splitlines()[-1])
    assert left.value.code == 0 and found["answers"] == 1 and found["out"] == str(out)
    (row,) = (json.loads(line) for line in out.read_text().splitlines())
    for one, step in zip(row["step_scores"], SOLVED[0], strict=True):
        assert f"score:   {one:.3f}  {step}" in said.err
