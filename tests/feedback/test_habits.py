"""Habits are found where they were put, and not where they were not; contradictions by hand."""

import random
from types import SimpleNamespace

import pytest

from tutelage.feedback import people, queue
from tutelage.feedback.habits import contradictions, first_shown, habits, has_circle, longer_preferred
from tutelage.feedback.imports import import_records
from tutelage.feedback.projects import create_project, find_project
from tutelage.records import Completion, Prompt


def test_first_shown_by_hand():
    order = {"order": [2, 0, 1]}
    assert first_shown([2, 3, 1], order) == (True, 1 / 3)
    assert first_shown([1, 2, 1], order) == (True, 2 / 3)  # two tie as best: either would do
    assert first_shown([1, 2, None], order) == (False, 1 / 3)
    assert first_shown([1, 1, 1], order) is None and first_shown([None] * 3, order) is None
    # equal texts 1 and 2 lie on one card: two cards
    assert first_shown([2, 1, 1], {"order": [1, 2, 0], "merged": [[1, 2]]}) == (True, 1 / 2)


def test_longer_by_hand():
    assert longer_preferred([1, 2, 3], [30, 20, 10]) == [3, 3]
    assert longer_preferred([1, 2, 2], [10, 20, 20]) == [0, 2]  # a tie prefers nothing
    assert longer_preferred([1, 2, None], [10, 10, 50]) == [0, 0]  # equal length, and one that is not ranked


def test_circles():
    assert not has_circle({("a", "b"), ("b", "c"), ("a", "c"), ("d", "c")})
    assert has_circle({("a", "b"), ("b", "c"), ("c", "a"), ("d", "a")})
    assert not has_circle(set())


def said(item, ranks, names, ratings=None, prompt="p"):
    answer = SimpleNamespace(person_id="ana", payload={"ranks": ranks, "ratings": ratings})
    return answer, SimpleNamespace(id=item, prompt_id=prompt, completions=names)


def test_contradictions_by_hand():
    texts = {"x1": "X", "x2": "X", "y1": "Y", "y2": "Y", "z1": "Z", "z2": "Z"}
    both_ways = [said(1, [1, 2], ["x1", "y1"]), said(2, [2, 1], ["x2", "y2"])]
    assert vars(contradictions(both_ways, texts)["ana"]) | {"rated": 0} == {
        "repeats": 1, "reversed": 1, "circles": 0, "rated": 0, "unlike": 0
    }  # fmt: skip
    circle = [said(1, [1, 2], ["x1", "y1"]), said(2, [1, 2], ["y2", "z1"]), said(3, [1, 2], ["z2", "x2"])]
    found = contradictions(circle, texts)["ana"]
    assert (found.repeats, found.reversed, found.circles) == (0, 0, 1)
    assert found.circles == 1 and contradictions(circle, {})["ana"].circles == 0
    apart = [said(1, [1, 2], ["x1", "y1"]), said(2, [2, 1], ["x2", "y2"], prompt="other")]
    assert contradictions(apart, texts)["ana"].repeats == 0  # the same words after another prompt
    rated = [
        said(1, [1, 2], ["x1", "y1"], [3, 6]),
        said(2, [1, 2], ["x1", "y1"], [6, 6]),
        said(3, [1, 2], "ab", [5, None]),
    ]
    found = contradictions(rated, texts)["ana"]
    assert (found.rated, found.unlike) == (2, 1)


@pytest.fixture
def labeled(store):
    """100 items by three people: Fay takes the first card, Lou the longest answer, Nat answers by chance."""
    rng = random.Random(3)
    asked = [Prompt(id=f"p{i}", messages=[{"role": "user", "content": f"{i}?"}]) for i in range(100)]
    drawn = [Completion(id=f"p{i}-{k}", prompt_id=f"p{i}", text="word " * rng.randint(1, 50) + f"{i}{k}") for i in range(100) for k in range(3)]  # fmt: skip
    with store.write() as db:
        project = create_project(db, "Round 1", overlap=3)
        import_records(db, project, asked, drawn)
        for name in ("fay", "lou", "nat"):
            people.add_person(db, name.title(), "labeler", None, person_id=name)
            while (task := queue.lease_next(db, project, name)) is not None:
                work = queue.work_on(db, task.id, name)
                places = [card[0] for card in work.cards]
                lengths = {place: len(work.texts[place]) for place in places}
                if name == "lou":
                    places.sort(key=lambda place: -lengths[place])
                elif name == "nat" or rng.random() < 0.4:
                    rng.shuffle(places)
                queue.submit(
                    db,
                    f"{name}-{task.id:08}",
                    task.id,
                    name,
                    "rank",
                    {"ranks": [places.index(p) + 1 for p in range(3)]},
                )
    return store


def test_habits_are_found_where_they_are(labeled):
    with labeled.read() as db:
        everybody, found = habits(db, find_project(db, "round-1"))
    fay, lou, nat = (found[name] for name in ("fay", "lou", "nat"))
    assert (
        fay.first_shown.share.value > 0.6
        and fay.first_shown.p < 1e-6
        and fay.first_shown.chance == pytest.approx(1 / 3)
    )
    assert (
        lou.longer.share.value == 1.0 and lou.longer.share.n > 280 and lou.longer.others == pytest.approx(0.5, abs=0.1)
    )
    assert fay.differs and lou.differs
    assert not nat.first_shown.differs and nat.first_shown.p > 0.05
    # of all together, Lou's taste shows: (1 + 1/2 + 1/2) / 3
    assert everybody.longer.share.value == pytest.approx(2 / 3, abs=0.05) and everybody.longer.others is None
    assert any(words.startswith("prefers the longer answer in 100 % of") for words in lou.words())
    assert "by chance 33 %, p < 0.001" in fay.words()[0]
    assert lou.to_json()["longer_preferred"]["share"] == 1.0
