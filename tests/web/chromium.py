"""A server in a thread, and Chromium without a window to open its pages with."""

import shutil
import threading
import time
from contextlib import contextmanager

import pytest
from sqlalchemy import select

from tutelage.feedback.ranking import groups_of, write_ranking
from tutelage.feedback.schema import Answer, Assignment

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
if not CHROMIUM or not DRIVER:
    pytest.skip("Chromium and chromedriver are not installed", allow_module_level=True)
webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
axe = pytest.importorskip("axe_core_python.selenium", reason="axe-core-python is not installed")
By = pytest.importorskip("selenium.webdriver.common.by").By
Select = pytest.importorskip("selenium.webdriver.support.ui").Select
ActionChains, Keys = webdriver.ActionChains, webdriver.Keys
# What the console says of requests that a test makes fail on purpose.
EXPECTED = ("ERR_INTERNET_DISCONNECTED", "ERR_NETWORK", "ERR_EMPTY_RESPONSE", "ERR_CONNECTION")
EXPECTED += tuple(f"status of {number}" for number in (401, 403, 409, 422, 503))


# What the pages wait before they save (1.5 s), try again (3 and 4 s) and ask about a lease (15 s): a quarter of it.
HURRY = """
for (const name of ["setTimeout", "setInterval"]) {
  const set = window[name].bind(window);
  window[name] = (work, wait, ...more) => set(work, [1500, 3000, 4000, 15000].includes(wait) ? wait / 4 : wait, ...more);
}
"""


@contextmanager
def serving(app, **options):
    """The address of an application."""
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", **options))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(5)


def browser(size, log=None):
    """A driver that keeps the console's messages. log: what else of the browser's it keeps."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        f"--window-size={size}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", log or {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": HURRY})
    return driver


# Dark, a page has other colors and nothing else: only the rules of these are run again.
RULES = {"light": {"resultTypes": ["violations"]}}
RULES["dark"] = {**RULES["light"], "runOnly": ["color-contrast", "link-in-text-block"]}


def violations(driver):
    """What axe-core finds on the open page, light and dark: rule, scheme, and the first element of each."""
    found = []
    for scheme, options in RULES.items():
        media = [{"name": "prefers-color-scheme", "value": scheme}]
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
        rules = (axe.Axe() if scheme == "light" else axe.Axe("")).run(driver, options=options)["violations"]
        found += [(rule["id"], scheme, rule["nodes"][0]["html"][:200]) for rule in rules]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    return found


def sign_in(driver, address, name, password):
    driver.get(address + "/login")
    driver.find_element(By.NAME, "name").send_keys(name)
    driver.find_element(By.NAME, "password").send_keys(password, Keys.ENTER)


def console(driver):
    """What the console said that no test expects."""
    lines = [line["message"] for line in driver.get_log("browser")]
    return [line for line in lines if not any(one in line for one in EXPECTED)]


def wait_until(check, seconds):
    """What `check` returns once it is true; an error of its own counts only when the time is over."""
    end = time.monotonic() + seconds
    while True:
        try:
            if value := check():
                return value
        except Exception:
            if time.monotonic() > end:
                raise
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.03)


class Page:
    def __init__(self, driver, site):
        self.driver, (self.url, self.store) = driver, site

    def open(self, path):
        self.driver.get(self.url + path)
        if not self.driver.execute_script("return document.styleSheets.length"):
            self.driver.get(self.url + path)  # the machine's network changed, and the browser dropped the style sheet
        return self

    def find(self, selector):
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def press(self, *keys):
        for key in keys:
            ActionChains(self.driver).send_keys(key).perform()

    def press_with(self, held, key):
        ActionChains(self.driver).key_down(held).send_keys(key).key_up(held).perform()

    def until(self, check, seconds=30.0):
        return wait_until(check, seconds)

    def ranking(self):
        return self.find("#ranking").get_attribute("value")

    def status(self):
        return self.find("#status").get_attribute("textContent")

    def task(self):
        return int(self.find("main").get_attribute("data-task"))

    def answer(self, task):
        """The stored ranking in the letters that were shown."""

        def stored():
            with self.store.read() as db:
                found = db.scalars(select(Answer).filter_by(task_id=task).order_by(Answer.number)).all()
                cards = db.scalar(select(Assignment.shown).filter_by(task_id=task))
            return (found, cards) if found else None

        found, shown = self.until(stored)
        assert len(found) == 1
        return found[0], write_ranking(groups_of(found[0].payload["ranks"], shown["cards"]))

    def submit(self):
        """Sends, and waits for the next item."""
        task = self.task()
        self.find("#submit").click()
        self.until(lambda: self.find("main").get_attribute("data-task") != str(task))

    def strip(self):
        return self.find("#strip").text

    def run(self, script, *values):
        return self.driver.execute_script(script, *values)

    def ahead(self):
        """Waits until the next item is at hand."""
        fetched = "return performance.getEntriesByType('resource').some(e => e.name.includes('after=%d'))"
        self.until(lambda: self.run(fetched % self.task()))
        time.sleep(0.1)

    def network(self, offline):
        self.driver.execute_cdp_cmd("Network.enable", {})
        conditions = {"offline": offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        self.driver.execute_cdp_cmd("Network.emulateNetworkConditions", conditions)
