"""Cards on a phone: a finger's swipe goes on to the next, and scrolling stays scrolling."""

import pytest

from tutelage.feedback.imports import import_records
from tutelage.feedback.projects import find_project
from tutelage.feedback.queue import set_priorities
from tutelage.records import Completion, Prompt

PHONE = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}


@pytest.fixture
def phone(page):
    """The page of an item with two long answers and two short ones, on a phone."""
    long = "\n\n".join(f"Sentence {k} of a long answer." for k in range(80))
    drawn = [Completion(id=f"s-{k}", prompt_id="s", text=f"{k} {long if k < 2 else 'short'}") for k in range(4)]
    with page.store.write() as db:
        project = find_project(db, "round-1")
        import_records(db, project, [Prompt(id="s", messages=[{"role": "user", "content": "Which?"}])], drawn)
        set_priorities(db, project, {"s": 9.0})
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
    page.driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
    page.open("/p/round-1/next")
    yield page
    page.driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})
    page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    with page.store.write() as db:
        set_priorities(db, find_project(db, "round-1"), {"s": -9.0})


def finger(page, across, down, start=None):
    """A touch on the card in hand, moved in six steps."""
    x, y = start or page.run(
        "const b = document.querySelector('.card.current .body').getBoundingClientRect();"
        "return [195, Math.min(b.top + 20, 600)]"
    )

    def touch(kind, *points):
        page.driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": list(points)})

    touch("touchStart", {"x": x, "y": y})
    for step in range(1, 7):
        touch("touchMove", {"x": x + across * step / 6, "y": y + down * step / 6})
    touch("touchEnd")


def here(page):
    shown = page.run(
        "return [...document.querySelectorAll('.card')].filter(x => x.offsetParent).map(x => x.dataset.letter)"
    )
    assert shown == [page.find("#phone-tabs [aria-pressed=true]").get_attribute("data-tab")]  # one card, and its tab
    return shown[0]


def test_a_swipe_goes_to_the_next_card_and_back(phone):
    for across, then in ((-60, "B"), (-120, "C"), (80, "B"), (-40, "B"), (60, "A"), (90, "A"), (-100, "B")):
        finger(phone, across, 10)
        assert here(phone) == then
    assert phone.run("return document.activeElement.id") == "card-B"
    for _ in range(3):
        finger(phone, -100, 0)
    assert here(phone) == "D"  # the last stays
    assert phone.ranking() == ""


def test_who_cannot_see_the_warning_is_told_above_the_bar(phone):
    for letter in "ABCD":
        phone.find(f"[data-tab={letter}]").click()
        phone.find("[data-rank-here]").click()
    phone.find("[data-tab=A]").click()
    phone.run("scrollTo(0, 0)")
    phone.find("#phone-tabs [data-send]").click()
    assert "was not on screen" in phone.find("#toast").text
    inside = "const a = document.querySelector('#toast').getBoundingClientRect(), b = document.querySelector('#phone-tabs').getBoundingClientRect(); return a.bottom <= b.top"
    assert phone.run(inside)


def test_up_and_down_a_finger_scrolls(phone):
    longest = "return [...document.querySelectorAll('.card')].find(x => x.querySelector('.text').textContent.length > 99).dataset.letter"
    letter = phone.run(longest)
    phone.find(f"[data-tab={letter}]").click()
    phone.find(".card.current .open").click()
    phone.run("scrollTo(0, 400)")
    finger(phone, -70, -200, (250, 500))
    phone.until(lambda: phone.run("return scrollY") > 500)
    assert here(phone) == letter
    other = next(x for x in "ABCD" if x != letter)
    for _ in range(3):  # to another one: it begins at its top
        if here(phone) != other:
            finger(phone, -100 if other > here(phone) else 100, 0, (195, 400))
    assert here(phone) == other
    top = phone.run("return document.querySelector('.card.current').getBoundingClientRect().top")
    assert 0 <= top < 300


def test_who_selects_text_or_moves_code_stays_on_the_card(phone):
    phone.run("getSelection().selectAllChildren(document.querySelector('#prompt .text'))")
    finger(phone, -120, 0)
    assert here(phone) == "A"
    phone.run(
        "getSelection().removeAllRanges();"
        "const pre = Object.assign(document.createElement('pre'), { textContent: 'x'.repeat(300) });"
        "pre.style.overflowX = 'auto'; document.querySelector('.card.current .body').prepend(pre)"
    )
    x, y = phone.run(
        "const b = document.querySelector('.card pre').getBoundingClientRect(); return [b.x + 150, b.y + 5]"
    )
    finger(phone, -120, 0, (x, y))
    phone.until(lambda: phone.run("return document.querySelector('.card pre').scrollLeft") > 50)
    assert here(phone) == "A"
    finger(phone, -120, 0, (x, y + 100))  # beside it
    assert here(phone) == "B"
