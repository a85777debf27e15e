"""One's own keys in place of the usual ones: chosen in the keys dialog, printed, refused where two would be one."""

import pytest

from .chromium import Keys, violations


@pytest.fixture
def dialog(page):
    page.open("/p/round-1/next")
    page.press("?")
    page.until(lambda: page.find("#keys[open]"))
    page.find("#own-keys summary").click()
    return page


def choose(page, **own):
    """Types one's own keys over the usual ones, and saves."""
    for usual, keys in own.items():
        field = page.find(f"#own-keys input[data-usual='{usual}']")
        field.clear()
        field.send_keys(keys)
    page.find("#own-keys .primary").click()


def printed(page, selector):
    return page.run("return document.querySelector(arguments[0]).textContent", selector)


def test_ones_own_keys_hold_and_are_printed(dialog):
    page = dialog
    choose(page, w="ü", x="w", abcdefghi="äbcdefghi")
    assert page.find("#own-keys-said").text == "Saved in this browser." and not violations(page.driver)
    assert printed(page, "table.keys tr:nth-child(1) th") == "ä … i"
    page.press(Keys.ESCAPE)
    assert [printed(page, f"label:has([name={name}]) kbd") for name in ("rest_below", "all_bad")] == ["ü", "w"]
    page.press(Keys.ENTER)
    page.until(lambda: "press w if all are bad" in page.find("#summary").text)
    page.press("c", "1", "a", "x")  # a and x have no use now
    assert page.status() == "C first of 1" and not page.find("[name=all_bad]").is_selected()
    page.press("ä", "2", "ü")
    assert page.ranking() == "C > A" and page.find("[name=rest_below]").is_selected()
    task = page.task()
    page.submit()
    assert page.answer(task)[0].payload["rest_below"]
    assert printed(page, "label:has([name=rest_below]) kbd") == "ü"  # the next item prints them too
    assert page.find("[data-act=undo]").get_attribute("aria-keyshortcuts") == "z"
    page.press("?")
    page.find("#usual-keys").click()  # in one press
    assert printed(page, "label:has([name=rest_below]) kbd") == "w"
    assert page.find("#own-keys-said").text == "The usual keys hold again."
    page.press(Keys.ESCAPE, "a", "1")
    assert page.ranking() == "A"


def test_a_key_cannot_mean_two_things(dialog):
    page = dialog
    choose(page, w="x")
    fault = page.find("#own-keys-fault")
    assert fault.text == "x is there already: “the rest are worse”. Choose another key."
    assert page.run("return document.activeElement.dataset.usual") == "x" and not violations(page.driver)
    choose(page, w="", x="x")
    assert fault.text == "“the rest are worse” needs one key, as one character each."
    choose(page, w="w", jk="jj")
    assert fault.text == "j is there already: twice in “next, previous card or step”. Choose another key."
    page.press(Keys.ESCAPE, "1", "w")  # nothing of it was kept
    assert page.find("[name=rest_below]").is_selected() and printed(page, "#keys-title") == "Keys"
    page.press("?")
    assert page.find("#own-keys input[data-usual=jk]").get_attribute("value") == "jk"


def test_digits_of_another_keyboard_and_hints(dialog):
    page = dialog
    choose(page, **{"123456789": "&é\"'(§è!ç"})
    page.press(Keys.ESCAPE)
    hint = "return getComputedStyle(document.querySelector('#rows'), '::after').content"
    assert page.run(hint) == '"Press & on the best answer, or drag it here."'
    page.press("&", "é")
    assert page.ranking() == "A > B"
    page.open("/p/proofs/next")
    assert printed(page, ".step kbd") == "&"
    page.press("s", "&")  # skipped, for the first reason
    page.until(lambda: page.driver.current_url.endswith("/next"))
