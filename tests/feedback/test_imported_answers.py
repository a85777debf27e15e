"""Rankings that labelers made elsewhere become their answers here, once, with all that was said."""

import json

import pytest
from sqlalchemy import select

from tutelage.errors import UserError
from tutelage.feedback import people, queue
from tutelage.feedback.export import current_answers, export_records
from tutelage.feedback.imports import import_file
from tutelage.feedback.projects import create_project, find_project
from tutelage.feedback.quality import agreement, read_rankings
from tutelage.feedback.schema import Answer, Person, Task
from tutelage.feedback.statistics import quality

ROW = {"prompt": "Why?", "completions": ["a", "b", "c"]}


@pytest.fixture
def bring(store, tmp_path):
    """Imports rows as answers into a project of two answers an item."""
    with store.write() as db:
        create_project(db, "Round 1", overlap=2)

    def bring(*rows, **options):
        (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
        with store.write() as db:
            project = find_project(db, "round-1")
            return import_file(db, project, tmp_path / "rows.jsonl", answers=True, **options)

    return bring


def given(store):
    with store.read() as db:
        names = {one.id: one.name for one in db.scalars(select(Person))}
        found = current_answers(db, find_project(db, "round-1"))
        return {names[answer.person_id]: answer.payload["ranks"] for answer, _ in found}


def test_each_labelers_ranking_is_their_answer_and_the_same_file_adds_nothing(store, bring):
    rows = [ROW | {"ranks": [1, 2, 3], "labeler": "Ana"}, ROW | {"ranks": [1, 1, 2], "labeler": "Ben"}]
    first, again = bring(*rows), bring(*rows)
    assert (first.tasks, first.answers, again.tasks, again.answers) == (1, 2, 0, 0)
    assert given(store) == {"Ana": [1, 2, 3], "Ben": [1, 1, 2]}
    with store.write() as db:
        project = find_project(db, "round-1")
        task = db.scalar(select(Task))
        assert (task.filled, task.open) == (2, False)  # the item has its answers: nobody is asked again
        assert people.check_password(db, "Ana", "") is None
        people.add_person(db, "Cem", "labeler", None, person_id="cem")
        assert queue.lease_next(db, project, "cem") is None
        found = quality(db, project)  # 2 of 3 pairs are ordered by both
        assert found["agreement"]["pairs"] == 2 and [one.name for one in found["labelers"]] == ["Ana", "Ben"]
        assert all(one.habits.first_shown is None for one in found["labelers"])  # what was shown first is not known


def test_completions_in_another_order_are_the_same_item(store, bring):
    bring(ROW | {"ranks": [1, 2, 3], "labeler": "Ana"})
    other = {"prompt": "Why?", "completions": ["c", "a", "b"], "ranks": [3, 1, 2], "labeler": "Ben"}
    done = bring(other | {"flags": [["harmful"], [], []], "ratings": [1, 7, 4], "seconds": 30.5})
    assert (done.tasks, done.answers) == (0, 1)
    assert given(store) == {"Ana": [1, 2, 3], "Ben": [1, 2, 3]}
    with store.read() as db:
        answer = db.scalar(select(Answer).order_by(Answer.number.desc()).limit(1))
        assert answer.payload["flags"] == [[], [], ["harmful"]] and answer.payload["ratings"] == [7, 4, 1]
        assert answer.seconds == 30.5


def test_another_ranking_by_the_same_labeler_supersedes_the_first(store, bring):
    bring(ROW | {"ranks": [1, 2, 3], "labeler": "Ana", "created": "2024-05-01T10:00:00+00:00"})
    assert bring(ROW | {"ranks": [3, 2, 1], "labeler": "ana"}).answers == 1  # names of people have no case
    assert given(store) == {"Ana": [3, 2, 1]}
    with store.read() as db:
        first, second = db.scalars(select(Answer).order_by(Answer.number))
        assert second.supersedes == first.id and first.created == 1714557600
        task = db.scalar(select(Task))
        assert (task.filled, task.open) == (1, True)
    more = [ROW | {"ranks": [1, 2, 3], "labeler": name} for name in ("Ben", "Cem")]
    bring(*more)
    with store.read() as db:
        assert [one.extra for one in db.scalars(select(Answer).order_by(Answer.number))] == [False, False, False, True]


def test_pairs_without_names_are_whose_the_option_says(store, bring):
    pair = {"prompt": "Why?", "chosen": "a", "rejected": "b"}
    with pytest.raises(UserError, match="names no labeler"):
        bring(pair)
    assert bring(pair, labeler="Vendor").answers == 1 and given(store) == {"Vendor": [1, 2]}
    arena = {
        "conversation_a": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "x"}],
        "conversation_b": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "y"}],
        "winner": "model_b",
        "judge": "arena_user_7",
    }
    assert bring(arena).answers == 1 and given(store)["arena_user_7"] == [1, 2]


def test_bad_rows_are_all_told_and_nothing_is_stored(store, bring):
    with store.write() as db:
        people.add_person(db, "Mira", "lead", "a long password")
    many = [str(i) for i in range(10)]
    with pytest.raises(UserError) as caught:
        bring(
            ROW | {"ranks": [1, 2, 3], "labeler": "Ana"},
            ROW | {"ranks": [1, 2], "labeler": "Ana"},
            ROW | {"ranks": [1, 2, 3], "labeler": "Mira"},  # a person's own account says nothing by file
            ROW | {"ranks": [2, 1, 3], "labeler": "<b>"},
            {"prompt": "p", "completions": many, "ranks": [*range(1, 11)], "labeler": "Ana"},
            ROW,
        )
    message = caught.value.message
    for number, reason in ((2, "has 2 entries for 3"), (3, "a person's account"), (4, "1 to 80"), (5, "ranks 10")):
        assert f"row {number}, field" in message and reason in message
    with store.read() as db:
        assert db.scalar(select(Answer)) is None and db.scalar(select(Person).filter_by(name="Ana")) is None
    with pytest.raises(UserError, match="holds no comparisons"):
        bring(ROW)


def test_what_one_store_exports_another_takes_in_whole(store, project, tmp_path):
    """Ranks, marks, notes, what was shown: all of it, under the same labelers."""
    from tutelage.data.formats import write_jsonl

    with store.write() as db:
        found = find_project(db, project)
        for name in ("ana", "ben"):
            people.add_person(db, name, "labeler", None, person_id=name)
            for k in range(3):
                task = queue.lease_next(db, found, name)
                ranks = [None, 1, 2, 2] if k else [None] * 4
                flags = [["harmful"], [], [], []]
                payload = {"ranks": ranks, "rest_below": k == 1, "all_bad": not k, "flags": flags, "note": f"n {k}"}
                payload |= {"ratings": [1, 2, 3, None], "category": "chat"}
                queue.submit(db, f"{name}-{task.id:08}", task.id, name, "rank", payload, seconds=0.0)
        before = export_records(db, found)
        create_project(db, "Copy", overlap=2)
    write_jsonl(tmp_path / "out.jsonl", before.comparisons)
    with store.write() as db:
        copy = find_project(db, "copy")
        assert import_file(db, copy, tmp_path / "out.jsonl", answers=True).answers == 4
        after = export_records(db, copy)

        def told(one):
            row = {key: value for key, value in one.to_json().items() if key not in ("id", "created")}
            if row["shown"]:
                row["shown"].pop("merged", None)
            return json.dumps(row, sort_keys=True)

        assert sorted(map(told, after.comparisons)) == sorted(map(told, before.comparisons))
        ours, theirs = (agreement(read_rankings(db, p)) for p in (found, copy))
        assert ours["pairs"] == theirs["pairs"] and ours["pair_agreement"] == theirs["pair_agreement"] == 1
