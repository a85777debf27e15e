import threading

import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.exc import DatabaseError

from tutelage.feedback.imports import import_gold, import_records
from tutelage.feedback.people import add_person
from tutelage.feedback.projects import change_project, find_project
from tutelage.feedback.queue import (
    Refused,
    gold_due,
    history,
    last_answer,
    lease_next,
    renew,
    save_draft,
    set_overlap,
    set_priorities,
    submit,
    work_on,
)
from tutelage.feedback.schema import Answer, Assignment, Person, Task
from tutelage.feedback.thumbs import feedback_project, give_feedback
from tutelage.records import Comparison

RANKS = {"ranks": [1, 2, 3, 4]}


def people(store, *names):
    with store.write() as db:
        return [add_person(db, name, "labeler", None, person_id=name).id for name in names]


def take(store, project, person, now=1000.0):
    with store.write() as db:
        task = lease_next(db, find_project(db, project), person, now)
        return task and task.id


def give(store, task, person, answer_id, payload=RANKS, kind="rank", now=1010.0):
    with store.write() as db:
        return submit(db, answer_id, task, person, kind, payload, seconds=5, now=now)


def test_overlap_answers_and_no_item_twice_to_one_person(store, project):
    people(store, "ana", "ben", "eve")
    for person in ("ana", "ben"):
        done = []
        while (task := take(store, project, person)) is not None:
            give(store, task, person, f"{person}-answer-{task}")
            done.append(task)
        assert len(done) == len(set(done)) == 3
    assert take(store, project, "eve") is None  # two answers each: full
    with store.read() as db:
        assert set(db.scalars(select(Task.filled))) == {2}
        assert not any(db.scalars(select(Task.open)))


def test_more_people_may_answer_the_items_that_are_there(store, project):
    people(store, "ana", "ben", "eve")
    for person in ("ana", "ben"):
        while (task := take(store, project, person)) is not None:
            give(store, task, person, f"{person}-answer-{task}")
    with store.write() as db:
        eve = db.get_one(Person, "eve")
        give_feedback(db, eve.id, [{"role": "user", "content": "Hm?"}], "So.", thumb=True, id="thumb-of-eve")
        found = find_project(db, project)
        assert set_overlap(db, found, 3) == 3 and set_overlap(db, found, 3) == 0
        assert set_overlap(db, feedback_project(db), 3) == 0  # nobody is asked about a chat
    assert take(store, project, "eve") is not None and take(store, project, "ana") is None
    with store.write() as db:
        set_overlap(db, find_project(db, project), 1)
    people(store, "uma")
    assert take(store, project, "uma") is None


def test_a_lease_holds_a_place_until_it_ends(store, project):
    people(store, "ana", "ben", "eve")
    first = take(store, project, "ana", 1000)
    assert take(store, project, "ana", 1001) == first  # the same until it is answered
    assert take(store, project, "ben", 1002) == first
    assert take(store, project, "eve", 1003) != first  # both places are held
    people(store, "dan")
    assert take(store, project, "dan", 1000 + 1800 + 1) == first  # ana's lease ended
    with store.write() as db:
        assert renew(db, first, "ana", 1000 + 1800 + 1.5) == "filled"  # ben's lease runs half a second more
    give(store, first, "dan", "answer-dan", now=2900)
    give(store, first, "ben", "answer-ben", now=2900)
    late = give(store, first, "ana", "answer-ana", now=2901)
    assert late.extra  # kept, but the quota was full
    with store.read() as db:
        assert db.get(Task, first).filled == 2


def test_a_lease_over_may_be_free_again(store, project):
    people(store, "ana")
    task = take(store, project, "ana", 1000)
    with store.write() as db:
        assert renew(db, task, "ana", 1100) == "kept"
        assert renew(db, task, "ana", 1100 + 1801) == "free"


def test_sending_twice_stores_once_and_corrections_supersede(store, project):
    people(store, "ana", "ben")
    task = take(store, project, "ana")
    one = give(store, task, "ana", "answer-0001")
    again = give(store, task, "ana", "answer-0001", {"ranks": [4, 3, 2, 1]})
    assert again.number == one.number and again.payload == RANKS
    second = give(store, task, "ana", "answer-0002", {"ranks": [2, 1, 3, 4]})
    assert second.supersedes == "answer-0001"
    with store.read() as db:
        assert db.scalar(select(func.count()).select_from(Answer)) == 2
        assert db.get(Task, task).filled == 1  # a correction fills no second place
        assert last_answer(db, task, "ana").id == "answer-0002"
        assert [a.id for a in history(db, project, "ana")] == ["answer-0002"]
    take(store, project, "ben")
    with pytest.raises(Refused):
        give(store, task, "ben", "answer-0001")


def test_answers_cannot_be_changed_or_deleted(store, project):
    people(store, "ana")
    give(store, take(store, project, "ana"), "ana", "answer-0001")
    for change in (update(Answer).values(seconds=1), text("DELETE FROM answer")):
        with pytest.raises(DatabaseError, match="append-only"), store.write() as db:
            db.execute(change)


def test_what_was_not_given_cannot_be_answered(store, project):
    people(store, "ana", "ben")
    task = take(store, project, "ana")
    with pytest.raises(Refused, match="not given to you"):
        give(store, task, "ben", "answer-0001")
    with pytest.raises(Refused, match="asks for rank"):
        give(store, task, "ana", "answer-0001", {"messages": []}, kind="demonstrate")


def test_a_skip_fills_no_place_and_may_be_taken_back(store, project):
    people(store, "ana")
    task = take(store, project, "ana")
    give(store, task, "ana", "skip-00001", {"reason": "unclear"}, kind="skip")
    assert take(store, project, "ana") != task
    with store.read() as db:
        assert db.get(Task, task).filled == 0
    give(store, task, "ana", "answer-0001")
    with store.read() as db:
        assert db.get(Task, task).filled == 1


def test_priorities_come_first_and_a_pause_stops_all(store, project):
    people(store, "ana")
    with store.write() as db:
        found = find_project(db, project)
        set_priorities(db, found, {"p2": 0.7})
        task = lease_next(db, found, "ana", 1000)
        assert task.prompt_id == "p2"
        change_project(found, paused=True)
        assert lease_next(db, found, "ana", 1000) is None


def test_gold_items_are_mixed_in_and_fill_no_quota(store, project):
    people(store, "ana")
    ids = ["g-0", "g-1"]
    message = [{"role": "user", "content": "Which?"}]
    gold = Comparison(id="g", prompt_id="g", completion_ids=ids, ranks=[1, 2], messages=message, completions=["x", "y"])
    with store.write() as db:
        found = find_project(db, project)
        change_project(found, gold_every=2)
        import_gold(db, found, [gold])
    kinds = []
    while (task := take(store, project, "ana")) is not None:
        with store.read() as db:
            kinds.append(db.get(Task, task).is_gold)
        give(store, task, "ana", f"answer-{task:04}")
    assert kinds in ([False, True, False, False], [False, False, True, False])
    with store.read() as db:
        found = find_project(db, project)
        places = [gold_due(found, f"person {number}", 1) for number in range(40)]
    assert set(places) == {3, 4}  # among the third and the fourth other item: nobody can count


def at_hand(store, project, person, most=20):
    """Takes as a browser does that fetches ahead: another one besides all that it has, until there is none."""
    held = [take(store, project, person)]
    while len(held) <= most:
        with store.write() as db:
            task = lease_next(db, find_project(db, project), person, 1000.0, besides=held)
        if task is None:
            return held
        held.append(task.id)
    return held


def test_several_are_at_hand_only_while_enough_is_left_for_everybody(store, project, sampled):
    people(store, "ana", "ben")
    assert len(at_hand(store, project, "ana")) == 2  # of three items: the next one, as ever
    with store.write() as db:
        import_records(db, find_project(db, project), *sampled(40))
        add_person(db, "Lea", "lead", "a long password")
    held = at_hand(store, project, "ana")
    assert len(set(held)) == len(held) == 11  # an upper limit, whatever is left
    with store.write() as db:
        for name in "cdefghijk":
            add_person(db, name, "labeler", "a long password", person_id=name)
    assert len(at_hand(store, project, "ben")) == 2  # ten people and 40 items: four each
    assert take(store, project, "ana") == held[0]


def test_a_gold_item_comes_as_often_with_items_at_hand(store, project, sampled):
    people(store, "ana")
    with store.write() as db:
        found = find_project(db, project)
        import_records(db, found, *sampled(30))
        change_project(found, gold_every=3)
        message = [{"role": "user", "content": "Which?"}]
        gold = [
            Comparison(
                id=f"g{i}",
                prompt_id=f"g{i}",
                completion_ids=[f"g{i}-0", f"g{i}-1"],
                ranks=[1, 2],
                messages=message,
                completions=["x", f"y{i}"],
            )
            for i in range(4)
        ]
        import_gold(db, found, gold)
    held, kinds = at_hand(store, project, "ana", 4), []
    for number in range(12):
        task = held.pop(0)
        with store.write() as db:
            kinds.append(db.get(Task, task).is_gold)
            ahead = lease_next(db, find_project(db, project), "ana", 1000.0, besides=[task, *held])
            held.append(ahead.id)
        give(store, task, "ana", f"answer-{number:04}")
    assert [sum(kinds[i : i + 4]) for i in (0, 4, 8)] == [1, 1, 1]


def test_a_stale_draft_never_overwrites_a_newer_one(store, project):
    people(store, "ana")
    task = take(store, project, "ana")
    with store.write() as db:
        assert save_draft(db, task, "ana", 0, {"ranking": "A"}) == 1
    with store.write() as db:
        assert save_draft(db, task, "ana", 1, {"ranking": "A > B"}) == 2
    with pytest.raises(Refused, match="another tab"), store.write() as db:
        save_draft(db, task, "ana", 1, {"ranking": "C"})
    with store.read() as db:
        assert work_on(db, task, "ana").draft.payload == {"ranking": "A > B"}
    give(store, task, "ana", "answer-0001")
    with store.read() as db:
        assert work_on(db, task, "ana").draft is None


def test_a_place_taken_between_the_search_and_the_lock_is_not_given_again(store, project, monkeypatch):
    people(store, "ana", "ben", "eve")
    with store.write() as db:
        found = db.scalar

        def scalar(query, *more):
            task = found(query, *more)
            if isinstance(task, Task) and query._for_update_arg is not None and not taken:
                for person in ("ben", "eve"):  # as if their transactions ended just before the lock was had
                    lease = {"shown": {}, "state": "leased", "leased": 1000, "expires": 2000}
                    db.add(Assignment(task_id=task.id, person_id=person, **lease))
                db.flush()
                taken.append(task.id)
            return task

        taken = []
        monkeypatch.setattr(db, "scalar", scalar)
        task = lease_next(db, find_project(db, project), "ana", 1001.0)
        assert len(taken) == 1 and task.id not in taken


def test_people_who_take_at_once_never_share_more_places_than_there_are(store, project, sampled):
    names = people(store, *(f"person{i}" for i in range(8)))
    with store.write() as db:
        import_records(db, find_project(db, project), *sampled(13))
    taken, lock = [], threading.Lock()

    def work(person):
        for _ in range(4):
            task = take(store, project, person)
            if task is not None:
                give(store, task, person, f"{person}-{task:05}")
                with lock:
                    taken.append((task, person))

    threads = [threading.Thread(target=work, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == len(set(taken)) == 2 * 13  # 3 + 10 items, two places each
    with store.read() as db:
        assert set(db.scalars(select(Task.filled))) == {2}
        assert not db.scalar(select(func.count()).select_from(Answer).where(Answer.extra))
        assert db.scalar(select(func.count()).select_from(Assignment)) == 26


@pytest.mark.parametrize("ids", ["one-answer", "answer-{}"])
def test_answers_of_one_person_that_come_at_once_count_once(store, project, ids):
    """From several tabs, or one that was sent again before its reply came."""
    people(store, "ana")
    for _ in range(3):
        task, start, failed = take(store, project, "ana"), threading.Barrier(6), []

        def send(number, task=task, start=start, failed=failed):
            start.wait()
            try:
                give(store, task, "ana", f"{task:05}-{ids.format(number)}")
            except Exception as error:
                failed.append(error)

        threads = [threading.Thread(target=send, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed
        with store.read() as db:
            answers = list(db.scalars(select(Answer).filter_by(task_id=task).order_by(Answer.number)))
            assert db.get_one(Task, task).filled == 1 and not any(one.extra for one in answers)
        assert [one.supersedes for one in answers] == [None, *(one.id for one in answers[:-1])]
        assert len(answers) == (6 if "{}" in ids else 1)
