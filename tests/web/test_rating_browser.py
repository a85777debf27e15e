"""The rules of rating in a browser: rate, then rank; the best and the worst; none."""

import pytest

from .chromium import Keys, violations
from .test_rating_rule import rule


@pytest.fixture
def asking(page):
    """The page of an item of a project with this rule."""

    def opened(name):
        rule(page.store, name)
        page.open("/p/round-1/next")
        return page.task()

    yield opened
    rule(page.store, "optional")


def here(page):
    return page.find(".card.current").get_attribute("data-letter")


def test_rate_then_rank_begins_with_the_order_by_quality(page, asking):
    task = asking("all")
    empty = "return getComputedStyle(document.querySelector('#rows'), '::after').content"
    assert page.run(empty) == '"Rate each answer first, 1 to 7 (7 is best)."'
    page.press("8", "3", "6", "3", "1")
    assert page.ranking() == "B > A = C > D" and here(page) == "A"
    assert page.status() == "Ordered by quality: B > A = C > D. Now part the ties, or keep them."
    assert page.find(".row .by-quality").text == "equal quality" and not violations(page.driver)
    page.until(lambda: page.find("#saved").text.startswith("Saved"))
    page.run("localStorage.clear()")
    page.open(f"/t/{task}")
    assert page.find(".row .by-quality").text == "equal quality"  # the draft knows it too
    page.press("d", "1")  # digits rank now
    assert page.ranking() == "D > B > A = C"
    page.press(Keys.ENTER)
    assert "You gave D 1 and B 6 but put D above" in page.find("#fault-ranking").text
    page.press("z", Keys.ENTER)
    stored, line = page.answer(task)
    assert line == "B > A = C > D" and sorted(stored.payload["ratings"]) == [1, 3, 3, 6]
    assert (stored.effort["prefilled"], stored.effort["prefilled_ties"], stored.effort["contradictions"]) == (1, 1, 1)


def test_a_tie_that_is_parted_is_no_longer_marked(page, asking):
    task = asking("all")
    for letter, value in zip("ABCD", "7557", strict=True):
        page.run(f"document.querySelector('[name=rating_{letter}][value=\"{value}\"]').click()")
    assert page.ranking() == "A = D > B = C"
    page.press("d", "2", Keys.ENTER)
    stored, line = page.answer(task)
    assert line == "A > D > B = C" and stored.effort["prefilled_ties"] == 1


def test_the_page_goes_to_the_answer_that_lacks_its_quality(page, asking):
    task = asking("ends")
    page.press("1", "2", "3", "4", Keys.ENTER)
    page.until(lambda: page.find("#summary").is_displayed())
    assert page.find("#summary li").text == page.find("#fault-ratings").text == "Rate the quality, 1 to 7, of A, D."
    assert here(page) == "A" and "rating" in page.find("#card-A").get_attribute("class")
    page.press("6", "2")
    assert here(page) == "D"
    page.press(Keys.ENTER)
    stored, _ = page.answer(task)
    assert sorted(v for v in stored.payload["ratings"] if v) == [2, 6]


def test_where_nothing_is_rated_nothing_asks(page, asking):
    asking("none")
    assert not page.find("#card-A .quality").is_displayed() and not page.find("[data-act=by-quality]").is_displayed()
    page.press("l", "3")
    assert page.ranking() == "A"  # a rank, not a rating
