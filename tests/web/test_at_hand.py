"""Five items are at hand: one goes on without a connection until as many answers wait, and none comes back."""

from sqlalchemy import select, update

from tutelage.feedback.schema import Answer, Assignment

from .chromium import Keys

AHEAD = 4


def leased(page):
    with page.store.read() as db:
        return list(db.scalars(select(Assignment.task_id).filter_by(state="leased").order_by(Assignment.id)))


def fetched(page):
    """Waits until four more items are leased and their pages are here."""
    page.until(lambda: len(leased(page)) == AHEAD + 1)
    count = "return performance.getEntriesByType('resource').filter(e => e.name.includes('after=')).length"
    page.until(lambda: page.run(count) >= AHEAD)


def rank(page):
    """Ranks two answers with the keys, and waits for another item or for the note that there is none."""
    task = page.task()
    page.press("1", "2", Keys.ENTER)
    page.until(lambda: page.task() != task or page.find("main > .note"))
    return task


def test_five_answers_without_a_connection_go_by_themselves_and_none_comes_back(page):
    page.open("/p/round-1/next")
    assert "Rank 1 of 14" in page.driver.title
    fetched(page)
    page.network(True)
    done = []
    for number in range(AHEAD + 1):
        assert f"Rank {number + 1} of 14" in page.driver.title
        done.append(rank(page))
    assert len(set(done)) == AHEAD + 1
    page.until(lambda: "no other item is at hand" in page.find("main").text)
    page.until(lambda: "5 answers waiting" in page.strip())
    page.network(False)
    page.until(lambda: page.driver.find_elements("css selector", "#work") and page.task() not in done)
    with page.store.read() as db:
        found = db.execute(select(Answer.task_id, Answer.supersedes).order_by(Answer.number)).all()
    assert [tuple(row) for row in found] == [(task, None) for task in done]
    assert "Rank 6 of 14" in page.driver.title


def test_what_was_lent_too_long_is_asked_for_again(page):
    page.open("/p/round-1/next")
    first = page.task()
    fetched(page)
    second = leased(page)[1]
    with page.store.write() as db:  # a labeler on another machine takes the second one when its lease is over
        db.execute(update(Assignment).where(Assignment.task_id == second).values(expires=1.0))
    page.run("const now = Date.now; Date.now = () => now() + 1801 * 1000")  # half an hour later
    page.press("1", "2", Keys.ENTER)
    page.until(lambda: page.task() != first)
    with page.store.read() as db:
        given = db.scalar(select(Assignment.expires).filter_by(task_id=page.task()))
    assert given > 1.0 and "ended" not in page.strip()


def test_a_correction_comes_back_to_the_item_that_was_left(page):
    page.open("/p/round-1/next")
    fetched(page)
    first = rank(page)
    left = page.task()
    page.press("z")
    page.until(lambda: page.task() == first)
    page.press("0", "1", Keys.ENTER)
    page.until(lambda: page.task() == left)
