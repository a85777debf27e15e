"""Simulated and AI labelers take items from the queue by the rules that hold for people."""

import random

import pytest

from tutelage.configs import LabelConfig
from tutelage.errors import UserError
from tutelage.feedback import Store
from tutelage.feedback.imports import import_gold, import_records
from tutelage.feedback.projects import create_project, find_project
from tutelage.feedback.schema import Answer, Assignment, Person, Task
from tutelage.feedback.screening import import_screening, results
from tutelage.judges.cache import Cache, Reply
from tutelage.judges.chat_labeler import ChatLabeler, parse_steps
from tutelage.judges.llm import LLMJudge
from tutelage.judges.rankers import PairRanker, ScoreRanker
from tutelage.judges.verdict import ScoringJudge, Verdict
from tutelage.records import Comparison, Completion, Prompt
from tutelage.stages.label import open_rankers, run
from tutelage.stages.label_queue import take_all


@pytest.fixture
def path(tmp_path):
    """A project of four items for three people each, and a gold item after every second."""
    from tutelage import world

    asked = world.prompts("train", 4, 0)
    texts = ["I do not know.", "It is so.", "It is so.", "What a question!"]
    drawn = [Completion(id=f"{p.id}-{k}", prompt_id=p.id, text=t) for p in asked for k, t in enumerate(texts)]
    gold = Comparison(
        id="g",
        prompt_id=asked[0].id,
        completion_ids=["g0", "g1"],
        ranks=[1, 2],
        messages=asked[0].messages,
        completions=["a", "b"],
    )
    store = Store.open(tmp_path / "feedback.db")
    with store.write() as db:
        project = create_project(db, "Loop", overlap=3, gold_every=2)
        import_records(db, project, asked, drawn)
        import_gold(db, project, [gold])
    store.close()
    return tmp_path / "feedback.db"


def test_the_queues_rules_hold_for_simulated_labelers(path):
    done = run(LabelConfig(by="world:fair", project="loop", store=str(path)))
    with Store.open(path).read() as db:
        answers, tasks = db.query(Answer).all(), {task.id: task for task in db.query(Task)}
        names = {person.id: person.name for person in db.query(Person)}
        assert all(person.password is None and person.role == "labeler" for person in db.query(Person))
    plain = [a for a in answers if not tasks[a.task_id].is_gold]
    assert len(plain) == 12 and done["comparisons"] == len(answers)
    assert all(task.filled == 3 for task in tasks.values() if not task.is_gold)
    assert len({(a.task_id, a.person_id) for a in answers}) == len(answers)  # no item twice to one labeler
    assert {names[a.person_id] for a in plain} <= {f"world:fair · fair-{i}" for i in range(10)}
    orders = {tuple(a.shown["order"]) for a in plain}
    assert len(orders) > 3 and all(a.shown["merged"] for a in plain)
    for answer in plain:
        assert answer.payload["ranks"][1] == answer.payload["ranks"][2]  # equal texts share a card
    again = run(LabelConfig(by="world:fair", project="loop", store=str(path)))
    assert (again["comparisons"], again["skipped"]) == (0, 0)


def test_what_is_not_of_the_world_its_labelers_pass_over(path):
    with Store.open(path).write() as db:
        asked = [Prompt(id="mine", messages=[{"role": "user", "content": "Who am I?"}])]
        drawn = [Completion(id=f"mine-{k}", prompt_id="mine", text=f"{k}") for k in range(2)]
        import_records(db, create_project(db, "Mine"), asked, drawn)
    done = run(LabelConfig(by="world:fair", project="mine", store=str(path)))
    assert (done["comparisons"], done["skipped"]) == (0, 10)


def test_screening_holds_for_programs_too(path, tmp_path):
    test = tmp_path / "test.jsonl"
    test.write_text('{"prompt": "Say.", "completion": "x", "sensitive": true}\n')
    with Store.open(path).write() as db:
        project = find_project(db, "loop")
        import_screening(db, project, test)
        project.screening = True
    done = run(LabelConfig(by="world:fair", project="loop", store=str(path)))
    assert done == {
        "stage": "label",
        "project": "loop",
        "comparisons": 0,
        "skipped": 10,
        "labelers": 10,
        "screened": 10,
    }
    with Store.open(path).read() as db:
        assert {one.state for one in results(db, find_project(db, "loop"))} == {"handed in"}
        assert db.query(Assignment).join(Task).filter(Task.part == "").count() == 0


def lengths(prompts, answers):
    return [float(len(answer)) for answer in answers]


class Longer:
    name = "longer"

    def compare_all(self, matches, progress=None):
        return [Verdict(None) if "?" in m.a + m.b else Verdict(1.0 if len(m.a) > len(m.b) else 0.0) for m in matches]

    def score_all(self, prompts, answers):
        return [None] * len(answers)


def test_rankings_of_judges():
    from tutelage import world

    prompt, texts = world.prompts("train", 1, 0)[0], ["aaa", "b", "cc", "b"]
    ranked = ScoreRanker("x", ScoringJudge("x", lengths)).rank(prompt, texts, ["stop"] * 4, random.Random(0))
    assert ranked == [1, 3, 2, 3]
    assert PairRanker("x", Longer()).rank(prompt, ["a", "ccc", "bb"], ["stop"] * 3, random.Random(0)) == [3, 1, 2]
    # what could not be judged orders nothing
    assert PairRanker("x", Longer()).rank(prompt, ["?", "??"], ["stop"] * 2, random.Random(0)) == [1, 1]


def test_labelers_that_there_are_not():
    with pytest.raises(UserError, match="unknown labeler"):
        open_rankers("people")


@pytest.fixture
def problems(tmp_path):
    """A store with a project of steps (a right solution, and one with a wrong second step) and one of answers to write."""
    from tutelage.world.reasoning import problem_of, problems, right_steps

    asked = problems("train", 2)
    right = right_steps(problem_of(asked[0]))
    texts = ["\n".join(right), "\n".join([right[0], "Nobody to nobody.", *right[2:]])]
    drawn = [Completion(id=f"s{i}", prompt_id=asked[0].id, text=text) for i, text in enumerate(texts)]
    store = Store.open(tmp_path / "feedback.db")
    with store.write() as db:
        import_records(db, create_project(db, "Proofs"), asked[:1], drawn, "steps")
        import_records(db, create_project(db, "Texts"), asked, [], "demonstrate")
    store.close()
    return tmp_path / "feedback.db", right


def payloads(path, project):
    with Store.open(path).read() as db:
        rows = db.query(Answer).filter_by(project_id=project).order_by(Answer.task_id, Answer.number).all()
        return [(row.kind, row.payload) for row in rows]


def test_the_worlds_labelers_rate_mark_judge_steps_and_write(path, problems):
    done = run(LabelConfig(by="world:fair", project="loop", store=str(path), rate=True))
    rows = [payload for kind, payload in payloads(path, "loop") if len(payload["ranks"]) == 4]
    assert len(rows) == 12 and done["skipped"] == 0
    for payload in rows:
        pairs = list(zip(payload["ranks"], payload["ratings"], strict=True))
        assert all(1 <= rating <= 7 for _, rating in pairs)
        assert all(a[1] >= b[1] for a in pairs for b in pairs if a[0] < b[0])  # never against the order
    assert any("fails_instruction" in marks for payload in rows for marks in payload["flags"])
    assert len({rating for payload in rows for rating in payload["ratings"]}) > 1
    where, right = problems
    done = run(LabelConfig(by="world:fair", project="proofs", store=str(where)))
    assert done["steps"] == 2 and done["comparisons"] == done["skipped"] == 0
    assert [payload["labels"] for _, payload in payloads(where, "proofs")] == [[1] * len(right), [1, -1]]
    assert run(LabelConfig(by="world:fair", project="texts", store=str(where)))["demonstrations"] == 2
    assert payloads(where, "texts")[0][1]["messages"][-1] == {"role": "assistant", "content": "\n".join(right)}


@pytest.mark.parametrize("rule", ["all", "ends"])
def test_what_a_project_asks_to_be_rated_programs_rate_or_skip(path, rule):
    with Store.open(path).write() as db:
        find_project(db, "loop").rating = rule
    done = take_all(LabelConfig(by="model:x", project="loop", store=str(path)), "loop", [_longest()])
    assert done["comparisons"] == 0 and done["skipped"] > 0  # it has no scale
    done = run(LabelConfig(by="world:fair", project="loop", store=str(path)))
    rows = [payload for kind, payload in payloads(path, "loop") if kind == "rank"]
    assert done["comparisons"] == len(rows) > 0 and all(all(payload["ratings"]) for payload in rows)


def _longest():
    return ScoreRanker("x", ScoringJudge("x", lengths))


class Scripted:
    """Says what stands behind the first phrase that a question holds."""

    name = "scripted"

    def __init__(self, script):
        self.script, self.asked = script, []

    def answers(self, conversations, answered=None):
        replies = []
        for place, messages in enumerate(conversations):
            question = messages[-1]["content"]
            self.asked.append(question)
            said = next(reply for phrase, reply in self.script if phrase in question)
            replies.append(said if isinstance(said, Reply) else Reply(said))
            if answered is not None:
                answered(place, replies[-1])
        return replies


def labeler(*script):
    return ChatLabeler("chat", LLMJudge(Scripted(script), Cache(None)))


def test_a_language_model_rates_marks_judges_steps_and_writes(path, problems):
    pairs = ("You compare", "[[C]]")
    one = labeler(
        pairs,
        ("I do not know", "Poor.\n[[2: fails_instruction, Hallucination]]"),
        ("You fill in a form", "Fine.\n[[6: none]]"),
    )
    done = take_all(LabelConfig(by="openai:x#y", project="loop", store=str(path), rate=True), "loop", [one])
    rows = [payload for _, payload in payloads(path, "loop") if len(payload["ranks"]) == 4]
    assert done["comparisons"] == len(rows) + 1 == 5
    assert rows[0]["ratings"] == [2, 6, 6, 6]
    assert rows[0]["flags"] == [["fails_instruction", "hallucination"], [], [], []]
    assert all("\nhallucination: " in q for q in one.judge.chat.asked if "You fill in a form" in q)
    where, right = problems
    steps = labeler(
        ("Nobody to nobody", "So [[1 right]] and\n[[2 wrong]]"),
        ("Check the steps", "\n".join(f"[[{i + 1} {'neutral' if i else 'right'}]]" for i in range(len(right)))),
    )
    take_all(LabelConfig(by="openai:x#y", project="proofs", store=str(where)), "proofs", [steps])
    assert [p["labels"] for _, p in payloads(where, "proofs")] == [[1] + [0] * (len(right) - 1), [1, -1]]
    writer = labeler(("Who has", "It is Ada."))
    take_all(LabelConfig(by="openai:x#y", project="texts", store=str(where)), "texts", [writer])
    assert payloads(where, "texts")[0][1]["messages"][-1]["content"] == "It is Ada."


def test_what_cannot_be_read_or_was_cut_off_is_skipped_with_the_reason(problems):
    where, _ = problems
    for project, one, said in (
        ("proofs", labeler(("Check the steps", "[[1 right]] and so on")), "No labels could be read off what it said."),
        ("texts", labeler(("Who has", Reply("It is", "length"))), "It gave no whole answer."),
        ("texts", ScoreRanker("x", ScoringJudge("x", lengths)), "This labeler does not write."),
    ):
        config = LabelConfig(by=f"openai:{said}#y", project=project, store=str(where))
        assert take_all(config, project, [one])["skipped"] == 2
        assert payloads(where, project)[-1] == ("skip", {"reason": "knowledge", "note": said})


@pytest.mark.parametrize(
    ("said", "labels"),
    [
        ("[[1 right]][[2 right]][[3 right]]", [1, 1, 1]),
        ("[[ 1 Right ]] [[2 WRONG]] [[3 right]]", [1, -1]),
        ("[[2 wrong]]", None),
        ("[[1 right]] [[3 wrong]]", None),
        ("all right", None),
    ],
)
def test_steps_as_they_are_said(said, labels):
    assert parse_steps(said, 3) == labels


def test_sensitive_texts_in_a_screening(path, tmp_path):
    test = tmp_path / "test.jsonl"
    test.write_text('{"prompt": "Say.", "completion": "x", "sensitive": true}\n')
    with Store.open(path).write() as db:
        project = find_project(db, "loop")
        import_screening(db, project, test)
        project.screening = True
    done = take_all(
        LabelConfig(by="openai:x#y", project="loop", store=str(path)), "loop", [labeler(("sens", "[[Yes]]"))]
    )
    assert done["flags"] == done["screened"] == 1
    with Store.open(path).read() as db:
        assert results(db, find_project(db, "loop"))[0].flagging == (1.0, 1)


def test_a_process_reward_model_judges_steps_and_ranks_nothing(problems, nano, tmp_path, path):
    from tutelage.models import load_step_model, save_model

    save_model(tmp_path / "prm", load_step_model(nano, trained=False), {"role": "prm"}, verify=False)
    where, right = problems
    by = f"model:{tmp_path / 'prm'}"
    assert run(LabelConfig(by=by, project="proofs", store=str(where)))["steps"] == 2
    for _, payload in payloads(where, "proofs"):
        assert payload["labels"] and -1 not in payload["labels"][:-1] and len(payload["labels"]) <= len(right)
    assert run(LabelConfig(by=by, project="loop", store=str(path)))["skipped"] == 5
    with pytest.raises(UserError, match="no scale from 1 to 7"):
        run(LabelConfig(by=by, project="loop", store=str(path), rate=True))
    with pytest.raises(UserError, match="cannot be used"):
        LabelConfig(rate=True).check()


def test_steps_that_were_judged_in_the_queue_train_a_process_reward_model(nano, tmp_path, monkeypatch):
    from tutelage.configs import PRMConfig
    from tutelage.data.sources import step_labels
    from tutelage.feedback import source
    from tutelage.named_data import local_data
    from tutelage.stages import prm
    from tutelage.world.reasoning import problem_of, problems, right_steps

    monkeypatch.setattr(source, "FOLDER", tmp_path / "data")
    asked = problems("train", 12)
    drawn = [
        Completion(id=f"{p.id}-{k}", prompt_id=p.id, text="\n".join([*first, *right_steps(problem_of(p))]))
        for p in asked
        for k, first in enumerate(([], ["Nobody to nobody."]))
    ]
    with Store.open(tmp_path / "feedback.db").write() as db:
        import_records(db, create_project(db, "Proofs"), asked, drawn, "steps")
    assert run(LabelConfig(by="world:fair", project="proofs", store=str(tmp_path / "feedback.db")))["steps"] == 24
    data = local_data(f"feedback:proofs@{tmp_path / 'feedback.db'}")
    found = step_labels(data, "train")
    assert found and all(one.messages and len(one.steps) == len(one.labels) for one in found)
    assert {one.labels[0] for one in found} == {1, -1}
    common = {"dtype": "float32", "max_length": 160, "max_steps": 2, "batch_size": 4}
    done = prm.run(PRMConfig(model=str(nano), data=data, out=str(tmp_path / "prm"), **common))
    assert done["card"]["solutions"] > 0
