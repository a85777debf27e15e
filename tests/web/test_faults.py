"""A judge that answers nonsense, hangs, says 429 or 500 or half an answer, a model that does, a file that lacks prompts:

in `tutelage eval` and on the compare page each is counted and shown, nothing is dropped, and what failed is asked again.
"""

import json
import threading

import pytest

from stumbling import Stub
from tutelage.configs import EvalConfig
from tutelage.judges import chats
from tutelage.records import Prompt
from tutelage.stages import judged
from tutelage.stages.evaluate import run
from tutelage.web import create_app
from tutelage.workbench.bench import Workbench
from tutelage.workbench.comparisons import Comparison, Settings
from tutelage.workbench.filling import column

from .site import Browser

FAULTS = {"Question 1.": 429, "Question 2.": 500, "Question 3.": "half", "Question 4.": "slow"}
ONLY_THE_MODEL = {"Question 6.": 503}
QUESTIONS = [f"Question {i}." for i in range(12)]


def stumbling():
    """Model and judge behind one URL: each stumbles over FAULTS until it is healed, and the judge babbles on question 5."""
    released = threading.Event()

    def step(body):
        text = body["messages"][-1]["content"]
        judging = "[Answer A]" in text
        faults = FAULTS if judging else {**FAULTS, **ONLY_THE_MODEL}
        fault = next((fault for question, fault in faults.items() if question in text), None)
        if fault is not None and not (stub.judge_healed if judging else stub.healed):
            if fault == "slow":
                released.wait(2)  # longer than anybody waits
            return "too late" if fault == "slow" else fault
        if not judging:
            return f"said to {text}"
        if "Question 5." in text:
            return "hm"
        return "[[A]]" if "plain" in text.split("[Answer A]")[1].split("[End of answer A]")[0] else "[[B]]"

    stub = Stub()
    stub.healed = stub.judge_healed = False
    stub.released = released
    stub.script = [step] * 100_000
    return stub


@pytest.fixture
def far(monkeypatch):
    monkeypatch.setattr(chats.time, "sleep", lambda seconds: None)
    opened = chats.open_chat

    def impatient(spec, **options):
        return opened(spec, **options, **({"timeout": 0.15} if spec.startswith("openai:") else {}))

    monkeypatch.setattr(judged, "open_chat", impatient)
    monkeypatch.setattr("tutelage.workbench.models.open_chat", impatient)
    stub = stumbling()
    yield stub
    stub.released.set()
    stub.server.shutdown()
    stub.server.server_close()


@pytest.fixture
def plain(tmp_path):
    """A file of outputs that lacks the last two prompts."""
    path = tmp_path / "plain.jsonl"
    path.write_text("".join(json.dumps({"prompt": q, "output": f"a plain one to {q}"}) + "\n" for q in QUESTIONS[:-2]))
    return str(path)


def test_eval_counts_each_and_asks_again_for_what_failed_only(far, plain, tmp_path):
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps({"prompt": q}) + "\n" for q in QUESTIONS))
    spec = f"openai:{far.url}#m"
    config = EvalConfig(models=(f"far={spec}", f"file={plain}"), judge=(spec,), data=str(tmp_path / "prompts.jsonl"),
                        out=str(tmp_path / "out"), yes=True)  # fmt: skip
    first = run(config)
    (row,) = first["win_rates"]
    # The model fails on five, the file lacks two more; of the five pairs left one makes no sense.
    assert first["answers"]["far"]["unanswered"] == 5 and first["answers"]["file"]["unanswered"] == 2
    assert (row["missing"], row["unparsable"], row["failed"], row["judged"]) == (7, 1, 0, 4)
    assert row["win_rate"] == 1 and row["bounds"] == pytest.approx([4 / 5, 1])
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "1 lost (unparsable or failed)" in page and "<th>missing</th>" in page
    # The model is well again and the judge is not: what is missing is asked, and the judge fails on it in four ways.
    kept, far.healed = len(far.seen), True
    (row,) = run(config)["win_rates"]
    assert (row["missing"], row["unparsable"], row["failed"], row["judged"]) == (2, 1, 4, 5)
    asked = [body["messages"][-1]["content"] for _, _, body in far.seen[kept:]]
    assert all(
        any(q in text for q in (*FAULTS, *ONLY_THE_MODEL)) for text in asked
    )  # nothing that had an answer is asked twice
    far.judge_healed = True
    (row,) = run(config)["win_rates"]
    assert (row["missing"], row["unparsable"], row["failed"], row["judged"]) == (2, 1, 0, 9)


def test_the_compare_page_counts_each_and_run_asks_again_for_what_failed_only(store, far, plain, tmp_path):
    bench, spec = Workbench(tmp_path / "runs"), f"openai:{far.url}#m"
    local = Browser(create_app(store, local=True, workbench=bench), "http://localhost:8000")
    columns = [column("far", spec, tmp_path), column("file", plain, tmp_path)]
    prompts = [Prompt(id=f"q{i}", messages=[{"role": "user", "content": q}]) for i, q in enumerate(QUESTIONS)]
    made = Comparison.create(bench.comparisons, columns, prompts, Settings(judges=(spec,)))

    def fill():
        local.get("/")
        kept = len(far.seen)
        assert local.http.post(f"/compare/{made.id}/run", data={"csrf": local.csrf}).status_code == 303
        bench.fillings[made.id].thread.join(60)
        return local.get(f"/compare/{made.id}").text, [b["messages"][-1]["content"] for _, _, b in far.seen[kept:]]

    page, _ = fill()
    one = bench.comparison(made.id)
    assert "17 done, 0 cut off, 5 failed, 2 missing" in page and "file has no answer to 2 prompts: q10, q11" in page
    reasons = [one.cells[p, 0].reason for p in range(1, 5)]
    assert reasons[:2] == ["status 429", "status 500"] and "timed out" in reasons[3] and reasons[2]
    assert f"{spec}: 1 verdicts could not be read, 0 failed." in page and 'id="waiting">5<' in page
    # The model is well again, the judge is not.
    far.healed, far.judge_healed = True, False
    page, asked = fill()
    assert "22 done, 0 cut off, 0 failed, 2 missing" in page and 'id="waiting">4<' in page
    assert f"{spec}: 1 verdicts could not be read, 4 failed. They are in no rating; <i>Run</i> asks" in page
    assert all(any(q in text for q in (*FAULTS, *ONLY_THE_MODEL)) for text in asked)
    far.judge_healed = True
    page, asked = fill()
    assert f"{spec}: 1 verdicts could not be read, 0 failed. They are in no rating." in page and "9 verdicts" in page
    assert len(asked) == 8 and all(any(q in text for q in FAULTS) for text in asked)  # both orders of four pairs
    assert 'id="waiting">0<' in page
    assert Comparison.load(one.folder).lost() == one.lost() == {spec: {"unparsable": 1, "failed": 0}}
