"""A lead settles, and a labeler practises, by keys alone."""

from sqlalchemy import select

from tutelage.feedback import people, queue
from tutelage.feedback.imports import import_records
from tutelage.feedback.intake import Imported, add_tasks, task_row
from tutelage.feedback.projects import create_project
from tutelage.feedback.schema import Settlement
from tutelage.records import Completion, Prompt

from .chromium import Keys, violations

VOTES = {"di": [1, 2, 3], "ed": [1, 3, 2], "flo": [3, 2, 1]}


def test_three_keys_adopt_an_order_and_say_why(page):
    with page.store.write() as db:
        project = create_project(db, "Contested", overlap=3)
        asked = [Prompt(id=f"p{i}", messages=[{"role": "user", "content": f"Question {i}?"}]) for i in range(2)]
        drawn = [Completion(id=f"{p.id}-{k}", prompt_id=p.id, text=f"{k} to {p.id}") for p in asked for k in "abc"]
        import_records(db, project, asked, drawn)
        for name, ranks in VOTES.items():
            people.add_person(db, name, "labeler", None, person_id=name)
            while (task := queue.lease_next(db, project, name)) is not None:
                queue.submit(db, f"{name}-{task.id:08}", task.id, name, "rank", {"ranks": ranks})
    page.open("/projects/contested/adjudicate")
    page.find("a.primary").click()
    page.press("r", *"CBA", Keys.ENTER)
    page.until(lambda: page.find("html.script #settle"))
    page.press("j")
    assert page.status().startswith("consensus: ")
    page.press("3")
    assert page.status() == "3 somebody slipped" and not violations(page.driver)
    page.press(Keys.ENTER)
    page.until(lambda: "Next item" in page.find("main").text)
    with page.store.read() as db:
        settled = db.scalar(select(Settlement).filter_by(project_id="contested", cause="slip"))
    assert settled.ranks == [1, 2, 3] and settled.note == ""
    assert not violations(page.driver)
    page.find("a.primary").click()
    page.press("r", *"ABC", Keys.ENTER)
    page.until(lambda: page.find("html.script #settle"))
    page.press("4", "r", *"CAB", Keys.ENTER)  # an order that nobody gave
    page.until(lambda: "Nothing else to settle" in page.find("main").text)
    assert "C > A > B" in page.find("main").text


def test_practice_goes_by_keys_and_is_quiet(page):
    with page.store.write() as db:
        project = create_project(db, "Taught")
        for number, prompt in enumerate(("Two and two?", "Three and three?")):
            answers = [str(4 + 2 * number), "5", "no idea"]
            messages = [{"role": "user", "content": prompt}]
            asked, ids = Prompt(id=f"w{number}", messages=messages), [f"w{number}-{k}" for k in range(3)]
            drawn = [Completion(id=i, prompt_id=asked.id, text=t) for i, t in zip(ids, answers, strict=True)]
            import_records(db, project, [asked], drawn, "prompts")
            gold = {"ranks": [1, 2, 3], "note": "It is right."}
            add_tasks(db, project, [task_row(project, asked.id, "rank", ids, gold=gold, part="example")], Imported("x"))
    page.open("/p/taught/practise/1")
    assert not violations(page.driver)
    page.press("r", *"ABC", Keys.ENTER)
    page.until(lambda: "of 3 pairs as we do" in page.find("main").text and page.find("html.script"))
    assert "It is right." in page.find("main").text and not violations(page.driver)
    page.press(Keys.ENTER)
    page.until(lambda: "2 of 2" in page.find("h1").text)
