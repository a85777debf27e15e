"""Active selection: what an ensemble of reward models is unsure about comes first in the queue."""

import math

import pytest

from tutelage.feedback import people, queue
from tutelage.feedback.imports import import_gold, import_records
from tutelage.feedback.projects import create_project, find_project
from tutelage.judges.verdict import ScoringJudge
from tutelage.records import Comparison, Completion, Prompt
from tutelage.stages import prioritize

# Two reward models: they agree on p0, differ on p1 by a little and on p2 as far as they can.
SCORES = {"one": {"p0": (2.0, 0.0), "p1": (1.0, 0.0), "p2": (5.0, 0.0)}}
SCORES["two"] = {"p0": (2.0, 0.0), "p1": (0.0, 0.0), "p2": (0.0, 5.0)}


@pytest.fixture
def judged(store, monkeypatch):
    """A project of three pairs, and a gold one; what the models were asked to score."""
    asked = [Prompt(id=f"p{i}", messages=[{"role": "user", "content": f"Question {i}?"}]) for i in range(3)]
    drawn = [Completion(id=f"p{i}-{k}", prompt_id=f"p{i}", text=f"p{i} {k}") for i in range(3) for k in range(2)]
    gold = Comparison(id="g", prompt_id="g", completion_ids=["g-0", "g-1"], ranks=[1, 2], messages=asked[0].messages)
    read = []

    def reward_judge(path):
        def scorer(prompts, answers):
            read.extend(answers)
            return [SCORES[path][text.split()[0]][int(text.split()[1])] for text in answers]

        return ScoringJudge(path, scorer)

    monkeypatch.setattr(prioritize, "reward_judge", reward_judge)
    with store.write() as db:
        project = create_project(db, "Round 1", overlap=2)
        import_records(db, project, asked, drawn)
        import_gold(db, project, [Comparison(**{**gold.__dict__, "completions": ["g 0", "g 1"]})])
        people.add_person(db, "Ana", "labeler", None, person_id="ana")
    return read


def test_pairs_on_which_the_ensemble_disagrees_come_first(store, judged):
    found = prioritize.ensemble_priorities(store, "round-1", ["one", "two"])
    assert sorted(found, key=found.get, reverse=True) == ["p2", "p1", "p0"]

    # the variance of two probabilities is the square of half their difference
    def chance(difference):
        return 1 / (1 + math.exp(-difference))

    assert found["p0"] == 0
    assert found["p1"] == pytest.approx(((chance(1) - chance(0)) / 2) ** 2, rel=1e-5)
    assert found["p2"] == pytest.approx(((chance(5) - chance(-5)) / 2) ** 2, rel=1e-5)
    assert not any(text.startswith("g") for text in judged)  # gold items keep their own order
    with store.write() as db:
        project = find_project(db, "round-1")
        queue.set_priorities(db, project, found)
        given = []
        for _ in range(3):
            task = queue.lease_next(db, project, "ana")
            given.append(task.prompt_id)
            queue.submit(db, f"ana-{task.id:08}", task.id, "ana", "rank", {"ranks": [1, 2]})
    assert given == ["p2", "p1", "p0"]


def test_what_is_answered_is_not_scored_again(store, judged):
    with store.write() as db:
        for task in db.query(queue.Task).filter_by(prompt_id="p2"):
            task.open = False
    assert set(prioritize.ensemble_priorities(store, "round-1", ["one", "two"])) == {"p0", "p1"}
    with store.write() as db:
        create_project(db, "Empty")
    assert prioritize.ensemble_priorities(store, "empty", ["one", "two"]) == {}


def test_the_most_uncertain_item_of_a_prompt_counts(store, judged):
    """A prompt of more than nine answers has several items."""
    SCORES["one"]["q"] = tuple(float(i % 2) for i in range(12))
    SCORES["two"]["q"] = (*SCORES["one"]["q"][:9], 9.0, -9.0, 9.0)
    asked = [Prompt(id="q", messages=[{"role": "user", "content": "Q?"}])]
    with store.write() as db:
        drawn = [Completion(id=f"q-{k}", prompt_id="q", text=f"q {k}") for k in range(12)]
        import_records(db, find_project(db, "round-1"), asked, drawn)
    assert prioritize.ensemble_priorities(store, "round-1", ["one", "two"])["q"] > 0
