"""Simulated and AI labelers take items from the queue by the rules that hold for people."""

import random

import pytest

from tutelage.configs import LabelConfig
from tutelage.errors import UserError
from tutelage.feedback import Store
from tutelage.feedback.projects import create_project, find_project, import_gold, import_records
from tutelage.feedback.schema import Answer, Assignment, Person, Task
from tutelage.judges.rankers import PairRanker, ScoreRanker, open_rankers
from tutelage.judges.verdict import ScoringJudge, Verdict
from tutelage.records import Comparison, Completion, Prompt
from tutelage.stages.label import run


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
    from tutelage.feedback.screening import import_screening, results

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
