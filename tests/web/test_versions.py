"""Work on one item in two places: the older version is never mixed in and never lost."""

from tutelage.feedback import queue
from tutelage.feedback.schema import Draft

from .chromium import violations

ELSEWHERE = {"ranking": "D > C", "note": "from the other machine"}


def overtaken(page):
    """A ranking that was made without a connection, while a newer draft came from another machine."""
    page.open("/p/round-1/next")
    task = page.task()
    page.network(True)
    page.press("2", "1")
    page.until(lambda: "Your work is kept here" in page.strip())
    with page.store.write() as db:
        queue.save_draft(db, task, "ana", 0, ELSEWHERE)
    page.network(False)
    page.until(lambda: "another tab" in page.strip())  # the next try to save it is refused
    page.find("#strip button").click()
    page.until(lambda: page.find("#other-version").is_displayed())
    return task


def drafted(page, task):
    with page.store.read() as db:
        return (draft := db.get(Draft, (task, "ana"))) and draft.payload["ranking"]


def test_both_versions_are_there_until_one_is_sent(page):
    task = overtaken(page)
    assert page.ranking() == "D > C" and page.find("#note").get_attribute("value") == ELSEWHERE["note"]
    assert "You worked on this item in two places" in page.strip() and not violations(page.driver)
    page.find("#other-version").click()
    assert page.ranking() == "B > A" and page.find("#note").get_attribute("value") == ""
    page.until(lambda: drafted(page, task) == "B > A")
    page.open(f"/t/{task}")
    page.until(lambda: page.find("#other-version").is_displayed())  # the one that was left is now the other one
    page.find("#other-version").click()
    assert page.ranking() == "D > C"
    page.until(lambda: drafted(page, task) == "D > C")
    page.submit()
    assert page.answer(task)[1] == "D > C"
    assert page.run("return Object.keys(localStorage).filter(x => x.includes('other:'))") == []


def test_it_can_be_put_away(page):
    task = overtaken(page)
    page.find("#strip button:last-child").click()
    assert not page.find("#other-version").is_displayed() and page.strip() == ""
    page.open(f"/t/{task}")
    page.until(lambda: page.ranking() == "D > C")
    assert not page.find("#other-version").is_displayed()


def test_a_second_tab_takes_over_what_the_first_had_not_saved(page):
    page.open("/p/round-1/next")
    task, first = page.task(), page.driver.current_window_handle
    page.driver.switch_to.new_window("tab")
    page.open(f"/t/{task}")
    page.until(lambda: "Open in another tab" in page.strip())
    second = page.driver.current_window_handle
    page.driver.switch_to.window(first)
    page.network(True)
    page.press("3", "1")  # kept in the browser only
    page.until(lambda: page.ranking() == "B > A")
    page.driver.switch_to.window(second)
    page.find("#strip button").click()
    page.until(lambda: page.find("#submit").is_enabled() and page.ranking() == "B > A")
    page.driver.switch_to.window(first)
    page.network(False)
    page.driver.close()
    page.driver.switch_to.window(second)


def test_signing_out_tells_of_the_other_version(page):
    overtaken(page)
    page.find("[data-act=sign-out] button").click()
    page.until(lambda: "Not sent: 1 other version. You are still signed in." in page.strip())
