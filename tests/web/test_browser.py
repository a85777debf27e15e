"""What only a browser can show: keys, drag, touch, lost networks, two tabs, no script, small screens.

Runs where Chromium and its driver are installed (`apt-get install chromium chromium-driver`).
"""

import time

from sqlalchemy import select

from tutelage.feedback import passwords, people, queue
from tutelage.feedback.imports import import_records
from tutelage.feedback.projects import create_project
from tutelage.feedback.ranking import LETTERS, parse_ranking
from tutelage.feedback.schema import Answer, Draft
from tutelage.feedback.store import COMMAND_LINE
from tutelage.records import Completion, Prompt

from .chromium import ActionChains, By, Keys, Select, violations
from .site import PASSWORD

PATHS = ("/", "/people", "/account", "/p/round-1/mine", "/projects/round-1", "/projects/round-1/items")
PATHS += tuple(f"/projects/round-1/{name}" for name in ("rounds", "jobs", "adjudicate", "screening"))
WANTED = "B > A = C > D"


def test_four_answers_with_a_tie_in_six_presses(page):
    page.open("/p/round-1/next")
    task = page.task()
    page.press("1", "1", "=", "2", "3")
    assert page.ranking() == WANTED and page.status() == "D third of 3"
    page.press(Keys.ENTER)
    stored, line = page.answer(task)
    assert line == WANTED and stored.effort["input"] == "keys" and stored.seconds < 30
    page.until(lambda: page.task() != task)


def test_the_same_by_drag_touch_select_and_typing(page):
    page.open("/p/round-1/next")
    lines = []
    for way in (by_drag, by_touch, by_select, by_typing):
        task = page.task()
        way(page)
        assert page.ranking() == WANTED, way.__name__
        page.submit()
        lines.append(page.answer(task)[1])
    assert lines == [WANTED] * 4


def centre(page, selector):
    return page.driver.execute_script(
        "const b = document.querySelector(arguments[0]).getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]",
        selector,
    )


def drops(page):
    """Chip and place to drop it, one after the other: onto the empty list, above, onto and below a row."""
    yield "A", lambda: centre(page, "#rows")
    yield "B", lambda: [centre(page, ".row")[0], centre(page, ".row")[1] - 22]
    yield "C", lambda: centre(page, ".row:nth-child(2)")
    yield "D", lambda: [centre(page, ".row:nth-child(2)")[0], centre(page, ".row:nth-child(2)")[1] + 22]


def by_drag(page):
    for letter, place in drops(page):
        x, y = place()
        chip = page.find(f"[data-chip={letter}]")
        cx, cy = centre(page, f"[data-chip={letter}]")
        chain = ActionChains(page.driver, duration=20).click_and_hold(chip)
        chain.move_by_offset(0, 10).move_by_offset(round(x - cx), round(y - cy - 10)).release().perform()


def by_touch(page):
    def touch(kind, *points):
        where = [{"x": x, "y": y} for x, y in points]
        page.driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": where})

    for letter, place in drops(page):
        target, (cx, cy) = place(), centre(page, f"[data-chip={letter}]")
        touch("touchStart", (cx, cy))
        touch("touchMove", (cx, cy + 10))
        touch("touchMove", tuple(target))
        touch("touchEnd")


def by_select(page):
    for letter, value in (("A", "1"), ("B", "1"), ("C", "=2"), ("D", "3")):
        page.find(f"#card-{letter} select option[value='{value}']").click()


def by_typing(page):
    page.press("r")
    page.find("#ranking").send_keys("b > a=c d")
    page.press(Keys.ESCAPE)


def test_a_digit_pushes_alt_arrows_move_and_z_restores(page):
    page.open("/p/round-1/next")
    page.press("1", "2", "1")
    assert page.ranking() == "C > A > B"
    page.press("a", "0")
    assert page.ranking() == "C > B" and page.status() == "A not ranked"
    page.press("z", "z")
    assert page.ranking() == "A > B"
    page.find("[data-chip=A]").click()
    for _ in range(2):
        ActionChains(page.driver).key_down(Keys.ALT).send_keys(Keys.ARROW_DOWN).key_up(Keys.ALT).perform()
    assert page.ranking() == "B > A"
    assert page.driver.execute_script("return document.activeElement.dataset.chip") == "A"
    page.press("w")
    task = page.task()
    page.submit()
    stored, line = page.answer(task)
    assert line == "B > A" and stored.payload["rest_below"] and stored.payload["ranks"].count(None) == 2


def test_untouched_is_refused_and_letters_in_text_are_text(page):
    page.open("/p/round-1/next")
    page.press(Keys.ENTER)
    page.until(lambda: page.driver.switch_to.active_element.get_attribute("id") == "summary")
    assert "Rank two answers or more" in page.find("#summary").text
    page.press("n", "1", "x", "a")
    assert page.find("#note").get_attribute("value") == "1xa" and page.ranking() == ""
    page.press(Keys.ESCAPE, "?")
    page.until(lambda: page.find("#keys[open]"))
    page.find("#keys-on").click()
    page.press(Keys.ESCAPE, "1")
    assert page.ranking() == ""  # single keys are off


def test_the_network_goes_in_mid_form_and_nothing_is_lost(page):
    page.open("/p/round-1/next")
    task = page.task()
    page.press("1")
    time.sleep(0.3)  # the next item is fetched ahead
    page.until(
        lambda: page.driver.execute_script(
            "return performance.getEntriesByType('resource').some(e => e.name.includes('after='))"
        )
    )
    page.network(True)
    page.press("1", "3", "4", Keys.ENTER)
    page.until(lambda: "1 answer waiting" in page.find("#strip").text)
    page.until(lambda: page.task() != task)  # goes on
    page.press("1", "2")
    page.network(False)
    _, line = page.answer(task)
    assert line == "B > A > C > D"
    page.until(lambda: "Sent 1 answer" in page.find("#strip").text)
    second = page.task()
    page.open(f"/t/{second}")
    page.until(lambda: page.ranking() == "A > B")  # the draft came back


def test_a_draft_reaches_the_server_and_survives_a_reload(page):
    page.open("/p/round-1/next")
    task = page.task()
    page.press("2", "1")

    def drafted():
        with page.store.read() as db:
            return db.get(Draft, (task, "ana"))

    assert page.until(drafted).payload["ranking"]
    page.driver.execute_script("localStorage.clear()")
    page.open(f"/t/{task}")
    page.until(lambda: page.ranking() == "B > A")


def test_a_second_tab_is_read_only_until_it_takes_over(page):
    page.open("/p/round-1/next")
    task, first = page.task(), page.driver.current_window_handle
    page.driver.switch_to.new_window("tab")
    second = page.driver.current_window_handle
    page.open(f"/t/{task}")
    page.until(lambda: "Open in another tab" in page.find("#strip").text)
    assert not page.find("#submit").is_enabled()
    page.find("#strip button").click()
    page.until(lambda: page.find("#submit").is_enabled())
    page.driver.switch_to.window(first)
    page.until(lambda: not page.find("#submit").is_enabled())
    page.driver.close()
    page.driver.switch_to.window(second)


def test_the_session_ends_and_one_signs_in_over_the_work(page):
    page.open("/p/round-1/next")
    task = page.task()
    page.driver.delete_cookie("tutelage_session")
    page.press("1", "2", "3", "4", Keys.ENTER)
    dialog = page.until(lambda: page.find("#sign-in[open]"))
    dialog.find_element(By.NAME, "name").send_keys("Ana")
    dialog.find_element(By.NAME, "password").send_keys("wrong password", Keys.ENTER)
    page.until(lambda: "wrong" in page.find("#sign-in-fault").text)
    field = dialog.find_element(By.NAME, "password")
    field.clear()
    field.send_keys(PASSWORD, Keys.ENTER)
    assert page.answer(task)[1] == "A > B > C > D"
    page.until(lambda: page.task() != task)


def test_the_write_page_shows_the_models_view_and_its_tokens(page):
    page.open("/p/texts/next")
    page.find("#answer").send_keys("The baker lives here.")
    page.until(lambda: "of 1024 with the prompt" in page.find("#tokens").text)
    page.find("#preview summary").click()
    page.until(lambda: "The baker lives here." in page.find("#preview pre").text)
    assert "Question" in page.find("#preview pre").text


def test_differences_to_any_other_card(page):
    page.open("/p/round-1/next")
    page.press("v")
    select = page.until(lambda: page.find("#card-A .against select"))
    assert select.get_attribute("value") == "D"
    Select(select).select_by_visible_text("C")
    page.until(lambda: "A against C" in page.find("#card-A .gone-text").text)
    assert page.ranking() == ""  # to compare is not to rank
    page.find("#card-A").click()
    page.press("v")
    page.until(lambda: not page.find("#card-A .gone-text").is_displayed())
    page.find("#card-C .differ").click()  # without a key
    page.until(lambda: "C against B" in page.find("#card-C .gone-text").text)


def test_writing_and_judging_steps_by_keys(page):
    page.open("/p/texts/next")
    task = page.task()
    page.press("A kind", " answer", " 1.")
    page.find("[data-act=add-turn]").click()
    page.press("And then?")
    page.find("[data-act=drop-turn]").click()
    page.find("[data-act=add-turn]").click()  # what was dropped comes back
    assert [one.get_attribute("value") for one in page.driver.find_elements("css selector", "#turns textarea")] == [
        "A kind answer 1.",
        "And then?",
        "",
    ]
    page.find("[data-act=drop-turn]").click()
    page.find("#turns textarea").click()
    ActionChains(page.driver).key_down(Keys.CONTROL).send_keys(Keys.ENTER).key_up(Keys.CONTROL).perform()
    page.until(lambda: page.find("main").get_attribute("data-task") != str(task))
    page.open("/p/proofs/next")
    task = page.task()
    page.find("[data-step='0'] .label-wrong").click()
    page.press("z")  # a click is taken back too, and the page stays
    page.until(lambda: page.run("return document.querySelector('#work input:checked') ? 'yes' : 'no'") == "no")
    assert page.task() == task
    page.press("j", "j", "u", Keys.ENTER)

    def labels():
        with page.store.read() as db:
            return db.scalars(select(Answer.payload).filter_by(task_id=task)).all()

    assert page.until(labels) == [{"labels": [1, 1, -1]}]


def test_nothing_scrolls_sideways_on_a_small_screen(page):
    metrics = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    zoomed = {"width": 350, "height": 225, "deviceScaleFactor": 4, "mobile": False}  # 1400 x 900 at 400 %
    try:
        for size in (metrics, zoomed):
            page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            for path in (*PATHS, "/p/round-1/next", "/p/texts/next"):
                page.open(path)
                width = page.driver.execute_script("return document.documentElement.scrollWidth")
                assert width <= size["width"], (path, width)
        page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        page.open("/p/round-1/next")
        task = page.task()
        for letter in "BACD":
            page.find(f"[data-tab={letter}]").click()
            page.find("[data-rank-here]").click()
        page.find("#phone-tabs [data-send]").click()
        assert page.answer(task)[1] == "B > A > C > D"
    finally:
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_axe_finds_nothing_on_any_page(page):
    with page.store.write() as db:
        forgotten = passwords.make_link(db, people.by_name(db, "Ana"), COMMAND_LINE)
    for path in (*PATHS, "/p/round-1/next", "/p/texts/next", "/p/proofs/next", f"/password/{forgotten}"):
        page.open(path)
        assert not violations(page.driver), path
    page.driver.execute_script("document.querySelector('main').append(new Image())")
    assert {rule for rule, *_ in violations(page.driver)} == {"image-alt"}  # it does look


def test_the_leads_figures_and_habits_are_quiet_and_fit_a_phone(page):
    with page.store.write() as db:
        project = create_project(db, "Figures", overlap=2)
        asked = [
            Prompt(id=f"p{i}", messages=[{"role": "user", "content": "?"}], category="a very long " * 6) for i in "ab"
        ]
        texts = ("a long answer", "short")
        drawn = [Completion(id=f"{p.id}-{k}", prompt_id=p.id, text=text) for p in asked for k, text in enumerate(texts)]
        import_records(db, project, asked, drawn)
        for name in ("bo", "cy"):
            people.add_person(db, name, "labeler", None, person_id=name)
            while (task := queue.lease_next(db, project, name)) is not None:
                queue.submit(db, f"{name}-{task.id:08}", task.id, name, "rank", {"ranks": [1, 2]})
    page.open("/projects/figures")
    assert page.find("svg.chart").is_displayed() and "prefers the longer answer" in page.find(".habits").text
    assert not violations(page.driver)
    metrics = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        assert page.driver.execute_script("return document.documentElement.scrollWidth") <= 390
    finally:
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_without_script_one_ranks_all_the_same(page):
    page.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        page.open("/p/round-1/next")
        task = page.task()
        page.find("#ranking").send_keys("d > b = a")
        page.find("#submit").click()
        page.until(lambda: page.task() != task)
    finally:
        page.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert parse_ranking(page.answer(task)[1], LETTERS[:4]) == [["D"], ["A", "B"]]
