"""The whole of it in a browser: a lead makes a project, a labeler joins, passes and labels, a round trains on it.

Two browsers. What the round's steps do is real (a nano model answers, simulated labelers rank, a reward model is
trained); they run in this process, because starting Python and its libraries three times takes longer than all of it.
"""

import json
import re
import shutil

import pytest
from sqlalchemy import select

from tutelage.cli.main import main
from tutelage.data.formats import write_jsonl
from tutelage.feedback import jobs_run, rounds, rounds_run, steps
from tutelage.feedback.projects import find_project
from tutelage.feedback.schema import Answer
from tutelage.records import Completion, Prompt

from .chromium import ActionChains, By, Keys, Page, Select, browser, console

WORDS = ("one", "two")


def asked(name, text):
    return Prompt(id=name, messages=[{"role": "user", "content": text}])


WRITE = [asked("sky", "Why is the sky blue?")]
PROOF = [
    asked("sum", "2 + 3 * 4?"),
    Completion(id="sum-0", prompt_id="sum", text="3 * 4 = 12\n2 + 12 = 14\nSo it is 41."),
]
RANK = [asked(word, f"Say {word}.") for word in WORDS]
RANK += [Completion(id=f"{word}-{k}", prompt_id=word, text=f"{word} {k}") for word in WORDS for k in range(4)]
TEST = [
    {"prompt": "Best color?", "completions": ["red", "green", "blue"], "ranks": [1, 2, 3]},
    {"prompt": "Say it.", "completion": "a slur", "sensitive": True},
    {"prompt": "Why do people die?"},
]
ROUND = {"data": "world", "prompts": "16", "samples": "2"}


class Person(Page):
    def click(self, selector):
        """Clicks, and waits for the page that follows."""
        self.run("window.before = true")
        self.find(selector).click()
        self.until(
            lambda: not self.run("return window.before") and self.run("return document.readyState") == "complete"
        )

    def button(self, text):
        self.run("window.before = true")
        next(one for one in self.driver.find_elements(By.CSS_SELECTOR, "button") if one.text == text).click()
        self.until(
            lambda: not self.run("return window.before") and self.run("return document.readyState") == "complete"
        )

    def fill(self, **fields):
        for name, value in fields.items():
            field = self.find(f"main [name={name}]")
            if field.tag_name == "select":
                next(one for one in Select(field).options if one.get_attribute("value") == value).click()
            else:
                field.clear()
                field.send_keys(value)

    def upload(self, form, path, **fields):
        self.find(f"form[action$='{form}'] [type=file]").send_keys(str(path))
        for name, value in fields.items():
            Select(self.find(f"form[action$='{form}'] [name={name}]")).select_by_value(value)
        self.click(f"form[action$='{form}'] button.primary")
        assert "Imported." in self.text()

    def text(self):
        return self.find("main").text

    def send(self, *keys):
        """Keys that end with the answer sent, and the item that follows."""
        before = self.find("main").get_attribute("data-task")
        self.press(*keys)
        self.until(lambda: self.find("main").get_attribute("data-task") != before)

    def order(self, key):
        """The keys that place the cards by `key` of their texts: each digit inserts."""
        placed, keys = [], []
        for text in self.driver.find_elements(By.CSS_SELECTOR, ".card .text"):
            value = key(text.text)
            placed = sorted([*placed, value])
            keys.append(str(placed.index(value) + 1))
        return keys


@pytest.fixture
def files(tmp_path):
    def file(name, rows):
        write_jsonl(tmp_path / name, rows)
        return tmp_path / name

    return file


@pytest.fixture
def lead(page, site):
    return Person(page.driver, site)


@pytest.fixture
def labeler(site):
    driver = browser("1400,900")
    yield Person(driver, site)
    assert console(driver) == []
    driver.quit()


@pytest.fixture
def started(monkeypatch, tmp_path, nano, lead):
    """A folder with a run of a nano model, and a worker whose steps run in threads of this process."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(nano, "runs/nano/checkpoints/latest")

    def command(self, *words):
        monkeypatch.setenv("TUTELAGE_STORE", steps.environment(self.store)["TUTELAGE_STORE"])
        with pytest.raises(SystemExit) as end:
            main(list(words))
        assert end.value.code == 0, words

    monkeypatch.setattr(rounds_run.Runner, "command", command)
    with jobs_run.working(lead.store):
        yield


def test_from_a_project_to_a_reward_model(lead, labeler, files, started):
    make_project(lead, files)
    lead.open("/people")
    lead.button("Make a link")
    join(labeler, lead.find("#link").get_attribute("value"))
    screened(labeler)
    admit(lead)
    label(labeler)
    judge(lead)
    adjudicate(lead)
    run_round(lead)


def make_project(lead, files):
    lead.open("/")
    lead.fill(name="Story", overlap="1")
    lead.click(".make .primary")
    lead.upload("/import", files("write.jsonl", WRITE), tasks="demonstrate")
    lead.upload("/import", files("proof.jsonl", PROOF), tasks="steps")
    settings = "form[action$='/settings']"
    lead.find(f"{settings} [name=overlap]").clear()
    lead.find(f"{settings} [name=overlap]").send_keys("2")
    lead.find(f"{settings} [name=screening]").click()
    lead.click(f"{settings} .primary")
    lead.upload("/import", files("rank.jsonl", RANK), tasks="rank")
    lead.open("/projects/story/screening")
    (tests := files("test.jsonl", [])).write_text("\n".join(map(json.dumps, TEST)))
    lead.upload("/screening-import", tests, part="test")


def join(labeler, link):
    labeler.driver.get(link)
    labeler.fill(name="Bea", password="a long password")
    labeler.button("Make my account")
    assert "Bea" in labeler.find("header").text


def screened(labeler):
    labeler.open("/p/story/screening")
    labeler.click("main a.primary")
    labeler.send(*labeler.order(["red", "green", "blue"].index), Keys.ENTER)
    labeler.send("1", Keys.ENTER)
    labeler.press("All that lives ends.")
    labeler.find("#submit").click()
    labeler.until(lambda: "Handed in" in labeler.text())
    assert "100 % of 3 pairs" in labeler.text() and "1 of 1 texts" in labeler.text()


def admit(lead):
    lead.open("/projects/story/screening")
    assert "All that lives ends." in lead.text()
    lead.find("[name^=score_][value='6']").click()
    lead.button("Let Bea label")


def label(labeler):
    labeler.open("/p/story/next")
    labeler.press("Because its light", " is scattered.")
    send = ActionChains(labeler.driver).key_down(Keys.CONTROL).send_keys(Keys.ENTER).key_up(Keys.CONTROL)
    first = labeler.task()
    send.perform()
    labeler.until(lambda: labeler.task() != first and labeler.find(".steps"))
    labeler.send("j", "j", "u", Keys.ENTER)  # right, right, wrong
    task = labeler.task()
    labeler.send("1", "1", "=", "2", "3", Keys.ENTER)  # six presses
    with labeler.store.read() as db:
        ranks = db.scalar(select(Answer.payload).filter_by(task_id=task))["ranks"]
        written = db.scalars(select(Answer.payload).filter_by(kind="steps")).one()
    assert sorted(ranks) == [1, 2, 2, 3] and written == {"labels": [1, 1, -1]}
    labeler.press(*labeler.order(str), Keys.ENTER)
    labeler.until(lambda: "Nothing to label now" in labeler.text())


def judge(lead):
    """The lead ranks as well: the second item the other way round."""
    lead.open("/p/story/next")
    lead.send("1", "2", "3", "4", Keys.ENTER)
    lead.press(*lead.order(lambda text: -int(text[-1])), Keys.ENTER)
    lead.until(lambda: "Nothing to label now" in lead.text())
    lead.open("/projects/story")
    lead.until(lambda: "Two labelers order" in lead.text())
    assert "of 2 items" in lead.text() and "Bea" in lead.text()


def adjudicate(lead):
    lead.open("/projects/story/adjudicate")
    lead.click("main a.primary")
    lead.fill(ranking="A > B > C = D")
    lead.click("form .primary")
    assert "consensus" in lead.text() and "P1" in lead.text() and "Bea" not in lead.text()
    lead.find("[name=cause][value=slip]").click()
    lead.button("Settle")
    assert "Settled: A > B > C = D" in lead.text() and "Bea" in lead.text()


def run_round(lead):
    lead.open("/projects/story")
    lead.find("form[action$='/settings'] [name=screening]").click()  # the simulated labelers take no test
    lead.click("form[action$='/settings'] .primary")
    lead.open("/projects/story/rounds")
    lead.fill(model="runs/nano", by="world:fair", **ROUND)
    lead.button("Start round 1")
    lead.until(lambda: "models answer" in lead.text() or "training" in lead.text() or "labels" in lead.text())
    lead.until(lambda: "The reward model orders" in lead.text(), 60)  # the page fetches its state by itself
    told = re.search(r"orders ([\d.]+) % of held-out pairs as labelers do .*trained on (\d+) comparisons", lead.text())
    with lead.store.read() as db:
        row = rounds.last_round(db, find_project(db, "story"))
        assert row.result["accuracy"] == pytest.approx(float(told[1]) / 100, abs=0.001)
    assert int(told[2]) == 2 * 16 + 3  # the round's, and the story's own four, of which one decision replaces two
