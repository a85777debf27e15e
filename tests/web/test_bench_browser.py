"""The compare, chat and lab pages in a real browser: what streams in, blind votes by key, no console error, small screens.

Models are scripted. Runs where Chromium and its driver are installed.
"""

import shutil
import threading

import pytest

from pretended_lab import pretended
from tutelage.feedback import Store
from tutelage.judges.cache import Reply
from tutelage.web import chat, create_app
from tutelage.workbench.bench import Workbench

from .chromium import browser, serving, violations, wait_until, webdriver
from .site import Browser

By = pytest.importorskip("selenium.webdriver.common.by").By
StaleElementReferenceException = pytest.importorskip("selenium.common.exceptions").StaleElementReferenceException


class Scripted:
    """Answers when `gate` is open; names of models never stand in its answers."""

    def __init__(self, spec, gate):
        self.spec, self.gate = spec, gate

    def answers(self, conversations, answered):
        self.gate.wait(60)
        replies = [
            Reply(f"{'Short' if self.spec.endswith('#a') else 'A longer answer'} to {c[0]['content']}")
            for c in conversations
        ]
        for i, reply in enumerate(replies):
            answered(i, reply)
        return replies


@pytest.fixture(scope="module")
def site(tmp_path_factory, empty_store):
    """(address, bench, gate, application)"""
    folder = tmp_path_factory.mktemp("bench")
    shutil.copy(empty_store, folder / "feedback.db")
    bench, gate = Workbench(folder / "runs"), threading.Event()
    bench.models.chat = lambda spec, **_: Scripted(spec, gate)
    app = create_app(Store.open(folder / "feedback.db"), local=True, workbench=bench)
    with serving(app, timeout_graceful_shutdown=1) as address:
        yield address, bench, gate, app
        gate.set()


@pytest.fixture(scope="module")
def driver():
    driver = browser("1300,900")
    yield driver
    driver.quit()


def until(check, seconds=60.0):
    return wait_until(check, seconds)


def narrow(driver, width):
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    return driver.execute_script("return document.documentElement.scrollWidth")


def test_a_blind_comparison_from_the_stream_to_the_ratings(site, driver):
    url, bench, gate, app = site
    form = Browser(app, "http://localhost:8000")
    form.get("/")
    fields = {
        "max_tokens": "16",
        "temperature": "0",
        "seed": "0",
        "blind": "1",
        "battery": "",
        "typed": "One?\nTwo?\nThree?",
    }
    made = form.form("/compare", more="alpha=openai:http://h/v1#a\nbeta=openai:http://h/v1#b", **fields)
    path = made.headers["location"]
    one = bench.comparison(path.rpartition("/")[2])

    driver.get(url + path)
    until(lambda: "may cost money" in driver.page_source)
    driver.find_element(By.CSS_SELECTOR, "#start button").click()
    until(lambda: "0 of 2 answers" in driver.find_element(By.ID, "row-0").text)
    driver.execute_script("document.querySelector('#row-0 a.open').click()")  # the stream may replace the row any time
    until(lambda: "opens when all are" in driver.find_element(By.ID, "opened").text)
    gate.set()
    # The row that was waited for opens by itself, both answers at once, and tells nothing else.
    until(lambda: len(driver.find_elements(By.CSS_SELECTOR, "#opened .answer")) == 2)
    shown = driver.find_element(By.ID, "opened").text
    assert "Short to One?" in shown and "words" not in shown and "alpha" not in shown and "beta" not in shown
    letters = {
        a.find_element(By.TAG_NAME, "h3").text: a.find_element(By.CSS_SELECTOR, ".text").text
        for a in driver.find_elements(By.CSS_SELECTOR, "#opened .answer")
    }
    long = "1" if letters["A"].startswith("A longer") else "2"
    webdriver.ActionChains(driver).send_keys(long).perform()
    until(lambda: one.votes)
    assert one.votes[0]["rated"] and one.votes[0]["ranks"] == [2, 1]
    # The row closes, the next one opens by itself.
    until(lambda: driver.find_element(By.CSS_SELECTOR, "#opened .reading").get_attribute("data-row") == "1")
    until(lambda: "was alpha" in driver.find_element(By.ID, "toast").get_attribute("textContent"))
    until(lambda: "words" in driver.find_element(By.ID, "row-0").text)
    webdriver.ActionChains(driver).send_keys("=").perform()
    until(lambda: len(one.votes) == 2)
    until(lambda: "People" in driver.find_element(By.ID, "ratings").text)
    assert one.votes[1]["ranks"] == [1, 1]

    driver.get(f"{url}{path}?open=0")  # the link opens what was read
    assert "Short to One?" in driver.find_element(By.ID, "opened").text
    assert driver.find_elements(By.CSS_SELECTOR, "#opened ins") and narrow(driver, 390) <= 390
    narrow(driver, 1300)


def test_two_models_chat_and_thumbs_are_kept(site, driver, monkeypatch):
    url, *_ = site

    def speak(models, spec, messages, sampling):
        yield {"text": "<b>Good"}
        yield {"text": f"<b>Good day</b>, {len(messages)}"}
        yield {"done": "stop"}

    monkeypatch.setattr(chat, "speak", speak)
    monkeypatch.setattr(
        chat, "weigh", lambda *_: {"kl": 2.5, "reward": 1.25, "tokens": 3, "reference": "its reference"}
    )
    driver.get(url + "/chat?a=world&b=world")
    driver.find_element(By.ID, "message").send_keys("Hello\n")
    until(lambda: len(driver.find_elements(By.CSS_SELECTOR, ".thumbs")) == 2)
    until(lambda: "KL 2.5 nats" in driver.find_elements(By.CSS_SELECTOR, ".facts")[1].text)
    assert [e.text for e in driver.find_elements(By.CSS_SELECTOR, ".turn-answer .text")] == ["<b>Good day</b>, 1"] * 2
    driver.find_elements(By.XPATH, "//button[text()='Bad']")[1].click()
    until(lambda: "Saved as a thumb down" in driver.find_elements(By.CSS_SELECTOR, ".thumbs")[1].text)
    driver.find_elements(By.XPATH, "//button[text()='Undo']")[0].click()
    until(lambda: len(driver.find_elements(By.XPATH, "//button[text()='Bad']")) == 2)
    assert narrow(driver, 390) <= 390
    narrow(driver, 1300)


def test_both_sides_answer_at_once_and_an_endpoint_can_be_one(site, driver, monkeypatch):
    """Neither model says its first word before the other was asked; the sides would wait for ever, one after the other."""
    url, *_ = site
    both, asked = threading.Barrier(2), []

    def speak(models, spec, messages, sampling):
        asked.append(spec)
        both.wait(30)
        yield {"text": f"I am {spec}"}
        yield {"done": "stop"}

    monkeypatch.setattr(chat, "speak", speak)
    monkeypatch.setattr(chat, "weigh", lambda *_: {"kl": None, "reward": None, "tokens": 3, "reference": ""})
    driver.get(url + "/chat?a=world")
    driver.find_element(By.ID, "other-model").send_keys("openai:http://h/v1#far\n")
    assert "far" in driver.current_url and driver.find_element(By.CSS_SELECTOR, "[data-side=b]").is_displayed()
    driver.find_element(By.ID, "message").send_keys("Who?\n")
    until(lambda: len(driver.find_elements(By.CSS_SELECTOR, ".thumbs")) == 2)
    said = [e.text for e in driver.find_elements(By.CSS_SELECTOR, ".turn-answer .text")]
    assert said == ["I am world", "I am openai:http://h/v1#far"] and set(asked) == {"world", "openai:http://h/v1#far"}
    assert narrow(driver, 390) <= 390
    narrow(driver, 1300)


def test_a_lesson_is_stopped_goes_on_and_leaves_a_page(site, driver, monkeypatch):
    url, *_ = site
    driver.get_log("browser")
    with pretended(monkeypatch) as commands:
        driver.get(url + "/lab/no-kl")
        driver.find_element(By.CSS_SELECTOR, "input[value=down]").click()
        driver.find_element(By.CSS_SELECTOR, ".actions .primary").click()
        until(lambda: driver.find_elements(By.CSS_SELECTOR, ".charts figure"))
        driver.find_element(By.CSS_SELECTOR, ".charts summary").click()
        shown = driver.find_element(By.ID, "attempt")
        until(lambda: is_gone(shown))  # fetched anew: what the reader opened is open, and in focus
        until(lambda: driver.execute_script("return document.activeElement.tagName") == "SUMMARY")
        assert driver.find_element(By.CSS_SELECTOR, ".charts details").get_attribute("open")
        assert not violations(driver) and narrow(driver, 390) <= 390
        narrow(driver, 1300)
        attempt = driver.current_url
        driver.get(url + "/lab")  # what runs can be found again
        assert driver.find_element(By.LINK_TEXT, "running").get_attribute("href") == attempt
        driver.get(attempt)
        driver.find_element(By.XPATH, "//button[text()='Stop after this step']").click()
        until(lambda: driver.find_element(By.CSS_SELECTOR, ".verdict .tag").text == "stopped")
        assert "is not done again" in driver.find_element(By.CSS_SELECTOR, ".verdict").text and not violations(driver)
        driver.find_element(By.XPATH, "//button[text()='Go on']").click()
        until(lambda: "Gold fell." in driver.find_element(By.ID, "attempt").text)
        assert len(commands) == 2 and commands[0] == commands[1]
    (csv,) = [a.get_attribute("download") for a in driver.find_elements(By.CSS_SELECTOR, ".charts a.csv")]
    assert csv == "no-kl-ppo-gold.csv" and driver.find_elements(By.CSS_SELECTOR, ".charts .band")
    assert not violations(driver) and narrow(driver, 390) <= 390
    narrow(driver, 1300)
    address = driver.find_element(By.LINK_TEXT, "Download page").get_attribute("href")
    driver.get(url + "/lab/no-kl")
    assert driver.find_element(By.CSS_SELECTOR, ".links .tag").text == "done" and not violations(driver)
    assert address.endswith("/lesson.html") and not driver.get_log("browser")


def is_gone(element):
    try:
        return not element.is_enabled()
    except StaleElementReferenceException:
        return True


def test_every_page_is_quiet_and_fits_a_phone(site, driver):
    url = site[0]
    driver.get_log("browser")
    for path in ("/compare", "/runs", "/lab", "/lab/no-kl", "/chat"):
        driver.get(url + path)
        assert narrow(driver, 390) <= 390, path
        assert driver.find_element(By.TAG_NAME, "h1").get_attribute("textContent").strip(), path
        assert not violations(driver), path
    assert not driver.get_log("browser")
