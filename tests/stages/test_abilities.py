"""`tutelage eval --tasks` and `--rubric`: the world's tasks, files of questions, lm-eval by its command, raters."""

import json
import sys
import textwrap

import pytest
import torch
from transformers import AutoModelForCausalLM

from tutelage.configs import EvalConfig
from tutelage.data.sources import prompts
from tutelage.errors import UserError
from tutelage.judges.chats import Endpoint
from tutelage.models import load_policy
from tutelage.records import Question
from tutelage.stages import capability, evaluate
from tutelage.stages.capability import measure_tasks, own_tasks
from tutelage.stages.evaluate import run
from tutelage.stages.harness import read_scores, run_harness
from tutelage.world.tasks import USE_CASES


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(autouse=True)
def few(monkeypatch, little_text):
    monkeypatch.setattr(evaluate, "SUITES", dict.fromkeys(evaluate.SUITES, 4))
    monkeypatch.setattr(capability, "QUESTIONS", 12)


@pytest.fixture
def small(nano):
    return {"models": (f"a={nano}", "b=world"), "prompts": 8, "max_new_tokens": 6, "dtype": "float32"}


def test_the_worlds_tasks_are_paired_and_the_base_can_do_them(small, tmp_path):
    found = run(EvalConfig(**small, out=str(tmp_path)))
    by = found["behaviours"]
    # The shipped base knows its world; an untrained model guesses among four.
    for task in ("facts", "counting", "sorting"):
        entry = by["b"][f"task:{task}"]
        assert entry["value"] >= 0.75 and entry["ci95"][0] < entry["value"] <= entry["ci95"][1], task
    assert by["a"]["task:facts"]["value"] < 0.75 and by["a"]["task:facts"]["prompts"] == 12
    (row,) = (r for r in found["changes"] if r["behavior"] == "task:facts")
    assert (row["policy"], row["baseline"], row["prompts"]) == ("b", "a", 12)
    gap = by["b"]["task:facts"]["value"] - by["a"]["task:facts"]["value"]
    assert (
        row["difference"] == pytest.approx(gap) and row["ci95"][0] < gap < row["ci95"][1] and row["p"] <= row["p_holm"]
    )
    # Confidence is measured on the same facts as a user asks them.
    table = found["calibration"]["b"]["facts"]
    assert sum(b["questions"] for b in table["bins"]) == table["prompts"] == 12
    assert by["b"]["calibration_error:facts"]["value"] == table["value"]
    assert any(r["behavior"] == "brier:facts" for r in found["changes"])
    kinds = found["use_cases"]["b"]
    assert {*kinds} <= set(USE_CASES) - {"chat", "open_qa"} and {*kinds} & {
        "rewrite",
        "closed_qa",
        "summarization",
        "extract",
    }
    assert all(e["ci95"][0] <= e["value"] <= e["ci95"][1] and e["prompts"] for e in kinds.values())
    for name in ("closed_domain_hallucination",):
        assert by["b"][name]["prompts"] == 4
    assert found["rubric"]["gold"]["b"]["likert"]["prompts"] == 8
    assert {"rubric:gold/likert", "rubric:gold/hallucination"} <= {r["behavior"] for r in found["changes"]}
    page = (tmp_path / "report.html").read_text("utf-8")
    assert all(f'<section id="{name}">' in page for name in ("truth", "rubric", "tax")) and "Reliability, facts" in page


def test_log_probabilities_of_options_by_a_second_route(nano):
    policy = load_policy(str(nano), "float32")
    asked = Question("q", "Quiz: Where does Ada live? Answer:", (" Ada lives in Selby.", " Lamp."), 0)
    (_, chosen), *_ = capability._chosen(policy, [asked])
    sums, plain = [], AutoModelForCausalLM.from_pretrained(nano, dtype=torch.float32)
    for option in asked.options:
        ids = policy.tokenizer(asked.text + option, add_special_tokens=False)["input_ids"]
        start = len(policy.tokenizer(asked.text, add_special_tokens=False)["input_ids"])
        with torch.no_grad():
            logits = plain(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        sums.append(sum(float(logits[i - 1, ids[i]]) for i in range(start, len(ids))))
    shares = torch.tensor(sums, dtype=torch.float64).softmax(0)
    assert chosen.confidence == pytest.approx(float(shares.max()), abs=1e-4) and chosen.right == (shares[0] > shares[1])


def test_a_file_of_questions(small, tmp_path):
    path = tmp_path / "mine.jsonl"
    rows = [
        {"question": "Where does Ada live?", "choices": ["Selby", "Kelton"], "answer": "B"},
        {"prompt": "One two", "choices": [" three", " four"], "answer": 0},
        {"prompt": "Say it:", "answer": "it"},
        {"prompt": "lamp " * 600, "choices": ["a", "b"], "answer": "a"},
    ]
    config = EvalConfig(**small, tasks=(write(path, rows),))
    ((name, questions),) = own_tasks(config).items()
    assert name == "mine" and questions[0].text == "Question: Where does Ada live?\nAnswer:"
    assert questions[0].options == (" Selby", " Kelton") and questions[0].right == 1 and questions[2].answer == "it"
    found = measure_tasks(load_policy("world", "float32"), own_tasks(config), config)
    # The one that outgrows the context is left out; the others are counted, written ones too.
    assert found.rates["task:mine"]["prompts"] == 3 and set(found.outcomes["task:mine"]) == {"q-1", "q-2", "q-3"}
    assert found.calibration["mine"]["prompts"] == 2
    assert own_tasks(EvalConfig(**small, tasks=("none",))) == {}
    assert [*own_tasks(EvalConfig(**small, tasks=("world:sorting",)))] == ["sorting"]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"question": "Q", "choices": ["a"], "answer": 0}], "no two choices"),
        ([{"question": "Q", "choices": ["a", "a"], "answer": 0}], "same choice twice"),
        ([{"question": "Q", "choices": ["a", "b"], "answer": 2}], "2 is none of the 2 choices"),
        ([{"question": "Q", "choices": ["a", "b"]}], "None is none"),
        ([{"question": "Q"}], "has no answer"),
        ([{"text": "Q"}], "has no question"),
        ([], "mpty"),
    ],
)
def test_a_faulty_file_of_questions_names_its_row(rows, said, small, tmp_path):
    config = EvalConfig(**small, tasks=(write(tmp_path / "mine.jsonl", rows),))
    with pytest.raises(UserError) as error:
        own_tasks(config)
    assert said in error.value.message or "holds no questions" in error.value.message
    assert "mine.jsonl" in error.value.message


def test_tasks_that_do_not_exist_are_refused_before_anything_runs(small, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate, "load_policy", None)
    for spec, said in (
        ("world:fact", "did you mean facts"),
        (str(tmp_path / "no.jsonl"), "no such file"),
        (str(tmp_path / "no.yaml"), "no such file"),
    ):
        with pytest.raises(UserError, match=said):
            run(EvalConfig(**small, tasks=(spec,)))
    (tmp_path / "t.yaml").write_text("output_type: multiple_choice\n")
    with pytest.raises(UserError, match="names no task"):
        run(EvalConfig(**small, tasks=(str(tmp_path / "t.yaml"),)))
    with pytest.raises(UserError, match="belongs to --judge"):
        EvalConfig(**small, rubric=True).check()


def test_without_lm_eval_one_message_says_what_to_install(small, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError) as error:
        run(EvalConfig(**small, tasks=("hellaswag",)))
    assert (
        "lm-eval is not installed" in error.value.message and "pip install 'tutelage[lm-eval]'" in error.value.message
    )


# Stands in for lm-eval 0.4.13's command: the same words in, the same files out.
STAND_IN = """
import argparse, json, os, sys
from pathlib import Path
p = argparse.ArgumentParser()
for name in ("--model", "--model_args", "--tasks", "--include_path", "--output_path", "--device"):
    p.add_argument(name)
p.add_argument("--log_samples", action="store_true")
p.add_argument("--apply_chat_template", action="store_true")
o = p.parse_args()
if "bare" in o.tasks:
    sys.exit("ModuleNotFoundError: No module named 'accelerate'")
if "broken" in o.tasks:
    sys.exit("KeyError: 'broken' is no task")
out = Path(o.output_path) / "model"
out.mkdir(parents=True, exist_ok=True)
words = {"argv": sys.argv[1:], "offline": os.environ.get("HF_HUB_OFFLINE")}
(out / "words.json").write_text(json.dumps(words))
better = "world" in o.model_args or "base" in o.model_args
rows = [{"doc_id": i, "filter": "none", "metrics": ["acc"], "acc": float(i % 4 != 0 or better), "bleu": [1, 2]} for i in range(20)]
mean = sum(r["acc"] for r in rows) / 20
results = {o.tasks: {"alias": o.tasks, "acc,none": mean, "acc_stderr,none": 0.05, "bleu,none": 12.0, "bleu_stderr,none": 1.0, "sample_len": 20}}
(out / "results_2026-01-01T00-00-00.0.json").write_text(json.dumps({"results": results}))
(out / f"samples_{o.tasks}_2026-01-01T00-00-00.0.jsonl").write_text("".join(json.dumps(r) + "\\n" for r in rows))
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    package = tmp_path / "packages" / "lm_eval"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text(textwrap.dedent(STAND_IN))
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    monkeypatch.delitem(sys.modules, "lm_eval", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)


def test_lm_eval_is_driven_on_checkpoints_and_its_documents_are_paired(small, nano, stand_in, tmp_path):
    (tmp_path / "choice.yaml").write_text("task: choice\ndoc_to_text: !function utils.text\n")
    out = tmp_path / "out"
    found = run(EvalConfig(**small, tasks=(str(tmp_path / "choice.yaml"),), out=str(out)))
    a, b = (found["behaviours"][name] for name in "ab")
    assert a["lm-eval:choice/acc"]["value"] == 0.75 and a["lm-eval:choice/acc"]["prompts"] == 20
    assert b["lm-eval:choice/acc"]["value"] == 1 and b["lm-eval:choice/acc"]["ci95"][0] < 1  # Wilson's
    assert a["lm-eval:choice/bleu"]["ci95"] == pytest.approx([12 - 1.96, 12 + 1.96])
    (row,) = (r for r in found["changes"] if r["behavior"] == "lm-eval:choice/acc")
    assert row["difference"] == 0.25 and row["p"] == pytest.approx(2 / 2**5)
    assert not any(key.startswith("task:") for key in a)  # only what was asked for
    said = json.loads(next(out.rglob("lm-eval/a/**/words.json")).read_text())
    assert said["offline"] == "1" and "--log_samples" in said["argv"] and str(tmp_path) in said["argv"]
    assert f"pretrained={nano},dtype=float32" in said["argv"]
    # A task by name may need what the network has; then nothing keeps it away.
    run(EvalConfig(**small, tasks=("hellaswag",), out=str(tmp_path / "named")))
    assert json.loads(next((tmp_path / "named").rglob("words.json")).read_text())["offline"] is None
    for task, said, mend in (
        ("broken", "KeyError: 'broken'", "mend what it says"),
        ("bare", "No module", "pip install"),
    ):
        with pytest.raises(UserError, match=f"did not finish: .*{said}") as error:
            run_harness("world", [task], None, "float32", "cpu")
        assert error.value.mend.startswith(mend)


def test_lm_eval_asks_a_server_and_files_of_outputs_cannot_be_asked(small, stand_in, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Endpoint, "_post", lambda self, turns: {"choices": [{"message": {"content": "so"}}]})
    questions = [f"Question {i}." for i in range(6)]
    data = write(tmp_path / "prompts.jsonl", [{"prompt": q} for q in questions])
    outputs = write(tmp_path / "outputs.jsonl", [{"prompt": q, "output": "yes"} for q in questions])
    far = "openai:http://127.0.0.1:9/v1#base"
    more = {"judge": (far,), "tasks": ("written",), "data": data, "out": str(tmp_path / "out")}
    found = run(EvalConfig(models=(f"far={far}", f"file={outputs}", "near=world"), **more))
    assert found["behaviours"]["far"]["lm-eval:written/acc"]["value"] == 1
    assert (
        "lm-eval:written/acc" not in found["behaviours"]["file"]
        and "file of outputs: lm-eval left out" in capsys.readouterr().err
    )
    near, said = (
        json.loads(next((tmp_path / "out" / "lm-eval" / name).rglob("words.json")).read_text())["argv"]
        for name in ("near", "far")
    )
    assert "--apply_chat_template" in near  # the checkpoint reads what the endpoint reads
    assert "local-chat-completions" in said and "--apply_chat_template" in said
    assert any("base_url=http://127.0.0.1:9/v1/chat/completions" in word for word in said)
    # What no chat can do is refused before anything is asked.
    task = tmp_path / "choice.yaml"
    task.write_text("task: choice\noutput_type: multiple_choice\n")
    monkeypatch.setattr(Endpoint, "_post", None)
    with pytest.raises(UserError, match=r"needs log-probabilities of texts \(multiple_choice\), which no chat gives"):
        run(EvalConfig(models=(f"far={far}", "near=world"), **{**more, "tasks": (str(task),)}))


def test_scores_of_several_filters_are_told_apart(tmp_path):
    scores = {"exact_match,strict": 0.5, "exact_match_stderr,strict": 0.1, "exact_match,flexible": 1.0}
    rows = [
        {"doc_id": i, "filter": name, "exact_match": float(name == "flexible" or i % 2)}
        for i in range(4) for name in ("strict", "flexible")
    ]  # fmt: skip
    (tmp_path / "results_x.json").write_text(json.dumps({"results": {"gsm": scores}}))
    write(tmp_path / "samples_gsm_x.jsonl", rows)
    found = read_scores(tmp_path / "results_x.json")
    assert found.rates["lm-eval:gsm/exact_match,strict"]["value"] == 0.5
    assert found.outcomes["lm-eval:gsm/exact_match,strict"] == {"0": 0.0, "1": 1.0, "2": 0.0, "3": 1.0}
    assert sum(found.outcomes["lm-eval:gsm/exact_match,flexible"].values()) == 4


def test_a_judge_rates_each_answer_people_are_taken_over_and_what_fails_is_counted(tmp_path, monkeypatch):
    def post(self, turns):
        text = turns[0]["content"]
        if "You fill in a form" in text:
            said = "hm" if "Question 0." in text else "[[2: hallucination]]" if "bad answer" in text else "[[6: none]]"
        else:
            said = "[[A]]"
        return {"choices": [{"message": {"content": said}}]}

    monkeypatch.setattr(Endpoint, "_post", post)
    questions = [f"Question {i}." for i in range(8)]
    data = write(tmp_path / "prompts.jsonl", [{"prompt": q} for q in questions])
    files = {
        name: write(tmp_path / f"{name}.jsonl", [{"prompt": q, "output": f"{name} answer"} for q in questions])
        for name in ("good", "bad")
    }
    votes = write(
        tmp_path / "votes.jsonl",
        [{"prompt": q, "completions": ["good answer", "bad answer"], "ranks": [1, 2], "ratings": [7, 4],
          "flags": [[], ["opinion"]]} for q in questions[:5]],
    )  # fmt: skip
    llm, people = "openai:http://127.0.0.1:9/v1#j", f"people:{votes}"
    config = EvalConfig(
        models=tuple(f"{n}={p}" for n, p in files.items()),
        data=data,
        judge=(llm, people),
        rubric=True,
        out=str(tmp_path / "o"),
    )
    found = run(config)
    rated = found["rubric"][llm]
    assert rated["good"]["likert"]["value"] == 6 and rated["bad"]["hallucination"]["value"] == 1
    assert (
        rated["good"]["counts"] == {"failed": 0, "unparsable": 1, "unrated": 1}
        and rated["good"]["likert"]["prompts"] == 7
    )
    assert (
        found["rubric"][people]["bad"]["opinion"]["value"] == 1
        and found["rubric"][people]["good"]["likert"]["value"] == 7
    )
    assert found["rubric"][people]["good"]["counts"] == {"unrated": 3}
    change = {(r["behavior"], r["policy"]): r for r in found["changes"]}
    assert change[f"rubric:{llm}/hallucination", "bad"]["difference"] == 1
    assert change[f"rubric:{people}/likert", "bad"]["difference"] == -3
    assert {bill["what"]: bill["calls"] for bill in found["cost"]} == {"verdicts": 16, "ratings": 16}
    page = (tmp_path / "o" / "report.html").read_text("utf-8")
    assert page.count("Quality, 1 to 7") == 2 and "What could not be rated" in page
    # Without --rubric the model that judges pairs fills in no form.
    assert llm not in run(EvalConfig(**{**vars(config), "rubric": False}))["rubric"]


def test_with_judges_too_a_checkpoint_does_the_tasks_and_gold_checks_its_statements(nano, tmp_path, capsys):
    outputs = write(tmp_path / "outputs.jsonl", [{"prompt": p.messages[0]["content"], "output": "Lamp."}
                                                 for p in prompts("world", "report", 30, seed=77)[:30]])  # fmt: skip
    more = {"prompts": 30, "max_new_tokens": 6, "dtype": "float32", "judge": ("gold",), "out": str(tmp_path / "o")}
    found = run(EvalConfig(models=(f"a={nano}", f"f={outputs}"), tasks=("world:sorting",), **more))
    assert found["behaviours"]["a"]["task:sorting"]["prompts"] == 12 and "task:sorting" not in found["behaviours"]["f"]
    assert "f has no log-probabilities here: tasks sorting left out" in capsys.readouterr().err
    # A bare word is no statement on most prompts, and made up where the source lacks it.
    closed = found["behaviours"]["f"]["closed_domain_hallucination"]
    assert found["use_cases"]["f"]["generation"]["value"] == 0
    assert closed["value"] > 0.5 and found["rubric"]["gold"]["f"]["likert"]["prompts"] == 30
