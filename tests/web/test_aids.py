"""Aids for many answers: rough piles, which are no answer, and a ranking from the quality that was given."""

import time

import pytest
from sqlalchemy import select

from tutelage.feedback.imports import import_records
from tutelage.feedback.projects import find_project
from tutelage.feedback.queue import set_priorities
from tutelage.feedback.schema import Answer, Draft
from tutelage.records import Completion, Prompt

from .chromium import Keys, violations


@pytest.fixture
def nine(page):
    """The first item of `round-1` is one of nine answers."""
    name = f"nine-{time.monotonic_ns()}"
    asked = [Prompt(id=name, messages=[{"role": "user", "content": "Which of nine?"}])]
    drawn = [Completion(id=f"{name}-{k}", prompt_id=name, text=f"Answer {k} of nine.") for k in range(9)]
    with page.store.write() as db:
        project = find_project(db, "round-1")
        import_records(db, project, asked, drawn)
        set_priorities(db, project, {name: 9.0})
    page.open("/p/round-1/next")
    yield page
    with page.store.write() as db:
        set_priorities(db, find_project(db, "round-1"), {name: -9.0})


def chips(page):
    return "".join(page.run("return [...document.querySelectorAll('#unranked .chip')].map(x => x.dataset.chip)"))


def test_rough_piles_first_then_ranks_good_ones_first(nine):
    page = nine
    page.find("[data-act=roughly]").click()
    assert page.status() == "Sort roughly: 1 good, 2 middle, 3 poor"
    page.press(*"3213213")
    assert page.ranking() == "" and page.status() == "G poor"  # piles rank nothing
    assert not violations(page.driver)
    page.find("[data-pile='1']").click()  # H
    page.press("1")
    assert page.status() == "Sorted: 4 good, 2 middle, 3 poor. Now rank, the good ones first."
    assert chips(page) == "CFHIBEADG"
    task = page.task()

    def drafted():
        with page.store.read() as db:
            return (draft := db.get(Draft, (task, "ana"))) and draft.payload.get("piles", {}).get("I")

    page.until(drafted)
    page.run("localStorage.clear()")
    page.open(f"/t/{task}")
    page.until(lambda: chips(page) == "CFHIBEADG")  # they come back with the draft
    page.press(Keys.ENTER)
    page.until(lambda: "Rank two answers or more" in page.find("#summary").text)  # and are no answer
    page.find("[data-chip=C]").click()
    page.press(*"12345")
    assert page.ranking() == "C > F > H > I > B"
    page.press("w")
    page.submit()
    stored, line = page.answer(task)
    assert line == "C > F > H > I > B" and stored.payload["rest_below"] and "piles" not in stored.payload


def test_quality_that_was_given_becomes_a_ranking_that_is_marked(page):
    page.open("/p/round-1/next")
    task = page.task()
    assert not page.find("[data-act=by-quality]").is_enabled()
    assert not page.driver.find_elements("css selector", "[data-act=roughly]")  # few answers need no piles
    for letter, quality in zip("abc", "565", strict=True):
        page.press(letter, "l", quality)
    page.find("[data-act=by-quality]").click()
    assert page.ranking() == "B > A = C" and "Ordered by quality" in page.status()
    page.press("z")
    assert page.ranking() == ""
    page.find("[data-act=by-quality]").click()
    page.submit()
    with page.store.read() as db:
        effort = db.scalar(select(Answer.effort).filter_by(task_id=task))
    assert page.answer(task)[1] == "B > A = C" and effort["prefilled"] == 2.0
