"""Behaviours of the labeling pages that the design lists: hostile texts, small screens, lost replies, time, looks."""

import re
import shutil
import time

import pytest
from sqlalchemy import select, update

from tutelage.feedback import Store, people, queue
from tutelage.feedback.imports import import_records
from tutelage.feedback.projects import find_project
from tutelage.feedback.queue import set_priorities
from tutelage.feedback.schema import Answer, Assignment
from tutelage.records import Completion, Prompt
from tutelage.web import create_app

from .chromium import Keys, Page, sign_in, violations
from .site import PASSWORD, fill

PHONE = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
ZOOMED = {"width": 350, "height": 225, "deviceScaleFactor": 4, "mobile": False}  # 1400 x 900 at 400 %


def add(page, name, texts, prompt="Which?"):
    """A prompt that comes first in `round-1`."""
    asked = [Prompt(id=name, messages=[{"role": "user", "content": prompt}])]
    drawn = [Completion(id=f"{name}-{k}", prompt_id=name, text=text) for k, text in enumerate(texts)]
    with page.store.write() as db:
        project = find_project(db, "round-1")
        import_records(db, project, asked, drawn)
        set_priorities(db, project, {name: 9.0})


def screen(page, size):
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def media(page, **features):
    values = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": values})


@pytest.fixture
def restored(page):
    yield
    page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    page.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    media(page)


def test_hostile_texts_are_text(page, restored):
    texts = [
        "<script>document.title = 'owned'</script><img src=x onerror=\"document.title='owned'\">",
        "مرحبا بالعالم، هذا نص طويل",
        "x" * 20_000,
        "👩‍👩‍👧‍👦 🇩🇪 z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢L̠ͨͧͩ͘G̴̻͈͍͔̹̑͗̎̅͛́Ǫ̵̹̻̝̳͂̌̌͘",
    ]
    add(page, "hostile", texts, "{{ 7 * 7 }} <b>bold</b>\u202e olleh")
    for size in (None, PHONE):
        if size:
            screen(page, size)
        page.open("/p/round-1/next")
        shown = page.run("return [...document.querySelectorAll('.card .text')].map(x => x.textContent)")
        assert sorted(shown) == sorted(texts) and "owned" not in page.driver.title
        assert "{{ 7 * 7 }} <b>bold</b>" in page.run("return document.querySelector('#prompt .text').textContent")
        width = page.run("return document.documentElement.scrollWidth")
        assert width <= (size or {"width": 1400})["width"]
    arabic = shown.index(texts[1])
    assert page.run(f"return getComputedStyle(document.querySelectorAll('.card .text')[{arabic}]).direction") == "rtl"
    chips = page.run("return [...document.querySelectorAll('.chip span')].map(x => x.textContent)")
    assert any("<script>" in chip for chip in chips)
    with page.store.write() as db:
        set_priorities(db, find_project(db, "round-1"), {"hostile": -9.0})


COVERED = """
const one = document.activeElement, box = one.getBoundingClientRect();
if (one === document.body || box.width < 2 || getComputedStyle(one).opacity === '0') return '';
const y = Math.min(box.bottom - 2, Math.max(box.top + 2, box.top + Math.min(box.height, 24) / 2));
const top = document.elementFromPoint(box.left + Math.min(box.width / 2, 40), y);
return top && (one.contains(top) || top.contains(one) || top.closest('label')?.contains(one)) ? '' : one.outerHTML.slice(0, 120) + ' under ' + (top ? top.outerHTML.slice(0, 80) : 'nothing');
"""


@pytest.mark.parametrize("size", [PHONE, ZOOMED], ids=["390", "400 %"])
def test_focus_is_never_covered_on_a_small_screen(page, restored, size):
    screen(page, size)
    for path in ("/p/round-1/next", "/p/texts/next", "/p/proofs/next"):
        page.open(path)
        for _ in range(24):
            page.press(Keys.TAB)
            assert page.run(COVERED) == "", path


def test_axe_is_clean_in_every_state_of_an_item(page, restored):
    page.open("/p/round-1/next")
    page.press(Keys.ENTER)  # the summary of faults
    page.until(lambda: page.find("#summary").is_displayed())
    page.press("1", "2", "a", "l", "m", "t")  # ranked, rating, marks, instructions
    assert not violations(page.driver)
    page.press("?")
    page.until(lambda: page.find("#keys[open]"))
    assert not violations(page.driver)
    page.press(Keys.ESCAPE)
    page.run("document.querySelector('#sign-in').showModal()")
    assert not violations(page.driver)


def test_the_theme_switches_and_forced_colors_and_still_motion_hold(page, restored):
    page.open("/p/round-1/next")
    colour = "return getComputedStyle(document.body).color"
    light = page.run(colour)
    page.find("[data-act=theme]").click()
    dark = page.run(colour)
    assert light != dark and page.find("[data-act=theme]").text == "Light"
    page.open("/p/texts/next")
    assert page.run(colour) == dark  # kept from page to page
    page.run("localStorage.clear()")
    media(page, prefers_color_scheme="dark")
    page.open("/p/round-1/next")
    assert page.run(colour) == dark
    media(page, prefers_reduced_motion="reduce")
    assert page.run("return getComputedStyle(document.querySelector('.chip')).transitionDuration") == "0s"
    media(page, forced_colors="active")
    page.press("b", "l", "6")
    current = "return getComputedStyle(document.querySelector('.card.current')).outlineStyle"
    chosen = "return getComputedStyle(document.querySelector('.quality input:checked + span')).outlineStyle"
    assert page.run(current) == page.run(chosen) == "solid"
    pressed = "const of = x => getComputedStyle(document.querySelector(x)).outlineStyle; return of('.chip[aria-pressed=true]')"
    assert page.run(pressed) == "solid"


def test_a_reload_without_connection_keeps_the_draft(page):
    page.open("/p/round-1/next")
    task = page.task()
    page.network(True)
    page.press("2", "1")
    page.until(lambda: "Your work is kept here" in page.strip())
    page.driver.refresh()
    page.network(False)
    page.open(f"/t/{task}")
    page.until(lambda: page.ranking() == "B > A")


def test_idle_and_hidden_time_are_not_counted(page):
    """The clock is ours: 100 s with keys, then 300 s without (120 of them count), then 50 s in another tab."""
    told = page.open("/p/round-1/next").driver.execute_async_script(
        """
        const done = arguments[0];
        import('/static/activity.js').then(({ Activity }) => {
          let now = 0, here = true;
          const one = new Activity(() => now);
          one.here = () => here;
          const wait = (seconds) => { for (let i = 0; i < seconds; i++) { now++; one.tick(); } };
          for (let i = 0; i < 10; i++) { wait(10); one.touched('keys'); }
          wait(300);
          one.tick(true);
          here = false;
          wait(50);
          done([one.active, one.effort()]);
        });
        """
    )
    assert told == [220, {"idle": 180, "away": 50, "input": "keys"}]


def test_the_seconds_of_an_item_outlive_a_reload(page):
    page.open("/p/round-1/next")
    task = page.task()
    page.press("1", "2")
    kept = f"const name = 'tutelage:ana:time:{task}'; const one = JSON.parse(localStorage.getItem(name)); "
    page.run("dispatchEvent(new Event('pagehide'))")
    page.until(lambda: page.run(kept + "return one?.active > 0 && one.moves === 2"))
    page.open("/")
    page.run(kept + "localStorage.setItem(name, JSON.stringify({ ...one, active: 40 }))")
    page.open(f"/t/{task}")
    page.until(page.ranking)
    with page.store.write() as db:
        db.execute(update(Assignment).where(Assignment.task_id == task).values(leased=time.time() - 100))
    page.submit()
    found = page.answer(task)[0]
    assert 40 <= found.seconds < 100 and found.effort["moves"] >= 2
    assert page.run(kept + "return one") is None


def test_time_in_another_tab_is_away(page):
    started = time.monotonic()
    page.open("/p/round-1/next")
    task, first = page.task(), page.driver.current_window_handle
    page.press("1", "2")
    page.driver.switch_to.new_window("tab")
    time.sleep(1.6)
    page.driver.close()
    page.driver.switch_to.window(first)
    page.find("#submit").click()
    page.until(lambda: page.task() != task)
    answer = page.answer(task)[0]
    assert answer.effort["away"] >= 1 and answer.seconds < time.monotonic() - started - 1.5


def test_without_script_one_writes_and_judges(page, restored):
    page.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    for project, act in (("texts", lambda: page.find("#answer").send_keys("Plain.")), ("proofs", lambda: wrong(page))):
        page.open(f"/p/{project}/next")
        number = int(re.search(r"/t/(\d+)", page.driver.current_url)[1])
        page.find("#submit").click()  # empty: refused, with the reason
        page.until(lambda: page.find("#summary").is_displayed())
        act()
        page.find("#submit").click()

        def stored():
            with page.store.read() as db:
                return db.scalars(select(Answer).filter_by(task_id=number)).all()

        (answer,) = page.until(stored)
        if project == "texts":
            assert answer.payload["messages"][-1]["content"] == "Plain."
        else:
            assert answer.payload["labels"] == [1, -1]


def wrong(page):
    for step, value in ((0, "1"), (1, "-1")):
        page.find(f"[name=step_{step}][value='{value}']").click()


class Killed:
    """Stores the answer, and cuts the connection before its reply: what a kill at that moment does."""

    def __init__(self, app):
        self.app, self.cut = app, False

    async def __call__(self, scope, receive, send):
        if not (self.cut and scope["type"] == "http" and scope["path"].endswith("/answer")):
            return await self.app(scope, receive, send)

        async def lost(message):
            return None

        await self.app(scope, receive, lost)
        send.__self__.transport.abort()


def test_a_reply_that_is_lost_stores_the_answer_once(chromium, page, tmp_path, empty_store):
    from .chromium import serving

    shutil.copy(empty_store, tmp_path / "feedback.db")
    store = Store.open(tmp_path / "feedback.db")
    fill(store)
    with store.write() as db:
        people.add_person(db, "Ana", "lead", PASSWORD, person_id="ana")
    killed = Killed(create_app(store))
    with serving(killed) as address:
        sign_in(chromium, address, "Ana", PASSWORD)
        there = Page(chromium, (address, store))
        there.open("/p/round-1/next")
        task = there.task()
        there.ahead()
        killed.cut = True
        there.press("1", "2", "3", "4", Keys.ENTER)
        there.until(lambda: there.task() != task and "1 answer waiting" in there.strip())
        assert there.answer(task)[1] == "A > B > C > D"  # it is there; the browser cannot know
        killed.cut = False
        there.until(lambda: "Sent 1 answer." in there.strip())
        assert there.answer(task)[1] == "A > B > C > D"  # and is one
        chromium.get("about:blank")
    sign_in(chromium, page.url, "Ana", PASSWORD)


def test_one_opens_all_open(page, restored):
    add(page, "long", [f"{'Many words of an answer. ' * 200}{k}" for k in range(4)])
    page.open("/p/round-1/next")
    heights = "return [...document.querySelectorAll('.card .body')].map(x => x.clientHeight)"
    folded = page.run(heights)
    assert len(set(folded)) == 1  # folded alike
    page.find("#card-C .open").click()
    opened = page.run(heights)
    assert all(after > before for after, before in zip(opened, folded, strict=True))
    assert {x.get_attribute("aria-expanded") for x in page.driver.find_elements("css selector", ".open")} == {"true"}
    page.press("o")
    assert page.run(heights) == folded
    with page.store.write() as db:
        set_priorities(db, find_project(db, "round-1"), {"long": -9.0})


def test_the_summary_takes_focus_and_a_chip_that_moves_keeps_it(page):
    page.open("/p/round-1/next")
    page.press(Keys.ENTER)
    page.until(lambda: page.run("return document.activeElement.id") == "summary")
    assert page.run("return document.querySelector('#summary a').hash") == "#field-ranking"
    page.press("a", *"1234")
    page.find("[data-chip=D]").click()
    told = []
    for _ in range(3):
        page.press_with(Keys.ALT, Keys.ARROW_UP)
        assert page.run("return document.activeElement.dataset.chip") == "D"
        told.append(page.status())
    assert page.ranking() == "D > A > B > C"
    assert told == ["D third of 4", "D second of 4", "D first of 4"]


def test_who_waits_for_the_next_item_is_told(page, monkeypatch):
    page.open("/p/texts/next")
    task = page.task()
    lease = queue.lease_next

    def slowly(*given, **options):
        time.sleep(1.5)
        return lease(*given, **options)

    monkeypatch.setattr(queue, "lease_next", slowly)
    page.run("import('/static/work.js').then(work => work.go('/p/texts/next'))")
    page.until(lambda: page.strip() == "Still fetching")
    page.until(lambda: page.strip() == "" and page.task() == task)
