"""The queue's counts and how long it may take yet."""

import numpy as np

from tutelage.feedback import people, queue
from tutelage.feedback.imports import import_gold, import_records
from tutelage.feedback.projects import create_project
from tutelage.feedback.quality import fleiss_kappa, krippendorff_alpha
from tutelage.feedback.statistics import my_projects, progress, quality, spent
from tutelage.feedback.step_agreement import step_agreement
from tutelage.records import Comparison, Completion, Prompt

DAY = 86_400.0
RANKS = {"ranks": [1, 2, 3, 4]}


def test_leases_that_run_and_that_ran_out_and_the_time_left(store, sampled):
    with store.write() as db:
        project = create_project(db, "Round 1", overlap=1)
        import_records(db, project, *sampled(prompts=90))
        for name in ("ana", "ben"):
            people.add_person(db, name, "labeler", None, person_id=name)

        def answer(person, day, kind="rank"):
            task = queue.lease_next(db, project, person, day * DAY)
            payload = RANKS if kind == "rank" else {"reason": "unclear"}
            queue.submit(db, f"{person}-{task.id:08}", task.id, person, kind, payload, now=day * DAY + 1)

        for number in range(29):
            answer("ana", 100 + number / 10)
        answer("ben", 103, "skip")
        assert progress(db, project, 103 * DAY + 2).seconds_left is None  # 29 answers tell too little
        answer("ana", 103)
        queue.lease_next(db, project, "ben", 103 * DAY)
        now = 103 * DAY + 100
        found = progress(db, project, now)
        assert (found.answers, found.needed, found.leased, found.expired, found.skipped) == (30, 90, 1, 0, 1)
        assert found.seconds_left == 60 * (now - 100 * DAY - 1) / 30  # 60 to go, ten a day: about six days
        assert round(found.seconds_left / DAY) == 6
        found = progress(db, project, 103 * DAY + 1801)
        assert (found.leased, found.expired) == (0, 1)
        assert progress(db, project, 111 * DAY).seconds_left is None  # nothing in the last week


def test_all_work_counts_for_pay_and_a_correction_for_its_item(store, sampled):
    asked = [{"role": "user", "content": "Gold?"}]
    texts = {"completion_ids": ["x", "y"], "completions": ["good", "bad"]}
    gold = Comparison(id="g", prompt_id="q", ranks=[1, 2], messages=asked, **texts)
    with store.write() as db:
        project = create_project(db, "Round 1", gold_every=1)
        import_records(db, project, *sampled())
        import_gold(db, project, [gold])
        people.add_person(db, "Ana", "labeler", None, person_id="ana")

        def answer(seconds, kind="rank", task=None):
            task = task or queue.lease_next(db, project, "ana", 1000.0)
            payload = {"reason": "unclear"} if kind == "skip" else {"ranks": [1, 2, 3, 4][: len(task.completions)]}
            name = f"answer-{task.id}-{seconds}"
            queue.submit(db, name, task.id, "ana", kind, payload, seconds=seconds, now=1100.0)
            return task

        first = answer(5)
        answer(4)  # the gold item
        answer(2, "skip")
        answer(3, task=first)
        found = spent(db, project)["ana"]
        assert (found.total, found.items[first.id], found.median) == (14.0, 8.0, 6.0)
        mine = my_projects(db, "ana")[0]
        assert (mine.total, mine.seconds) == (14.0, 6.0)
        row = quality(db, project)["labelers"][0]
        assert (row.total, row.seconds, row.answers, row.skips) == (14.0, 6.0, 1, 1)


def test_labelers_agree_on_steps(store):
    asked = [Prompt(id="q", messages=[{"role": "user", "content": "Sum?"}])]
    drawn = [Completion(id=f"s{i}", prompt_id="q", text="\n".join(f"{i} {k}" for k in range(4))) for i in range(3)]
    given = {"ana": ([1, 1, 1, 1], [1, 0, -1], [-1]), "ben": ([1, 1, 1, -1], [1, 1, -1], [1, -1])}
    with store.write() as db:
        project = create_project(db, "Proofs", overlap=2)
        import_records(db, project, asked, drawn, "steps")
        assert step_agreement(db, project) is None
        for name, labels in given.items():
            people.add_person(db, name, "labeler", None, person_id=name)
            for one in labels:
                task = queue.lease_next(db, project, name)
                queue.submit(db, f"{name}-{task.id:08}", task.id, name, "steps", {"labels": one})
        found = step_agreement(db, project)
        assert quality(db, project)["steps"] == found
    assert (found["solutions"], found["shared"], found["steps"]) == (3, 3, 8)
    assert found["pair_agreement"] == 5 / 8  # of eight steps that both labeled
    said = [[[a + 2 for a in x], [b + 2 for b in y]] for x, y in zip(*given.values(), strict=True)]
    padded = [[[*one, *[None] * (4 - len(one))] for one in pair] for pair in said]
    assert found["krippendorff_alpha"] == round(krippendorff_alpha(padded), 4)
    counts = [[[x, y].count(c) for c in (1, 2, 3)] for pair in said for x, y in zip(*pair, strict=False)]
    assert found["fleiss_kappa"] == round(fleiss_kappa(np.array(counts, dtype=float)), 4)
    low, high = found["pair_agreement_ci95"]
    assert low < 5 / 8 < high
