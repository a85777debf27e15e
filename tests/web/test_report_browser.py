"""A report of full size, opened from the disk with the network off: small, quick, and silent."""

import importlib.util
import json
from pathlib import Path

import pytest

from tutelage.report import write_report

from .chromium import browser, wait_until

MOST_BYTES, MOST_MS = 2_500_000, 1000
WORDS = [
    "The",
    "mill",
    "of",
    "Aldermere",
    "stands",
    "on",
    "the",
    "river",
    "north",
    "of",
    "the",
    "town,",
    "and",
    "a",
    "rope",
    "is",
    "sold",
    "there",
    "each",
    "spring.",
]
FACETS = dict.fromkeys(("task", "correct", "tone", "brief", "well_formed", "harmless", "honest"), 0.9)


def _fixture():
    path = Path(__file__).parents[1] / "report" / "fixture.py"
    spec = importlib.util.spec_from_file_location("report_fixture", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _long_answer(place):
    """160 pieces, at each of which the reward goes somewhere."""
    pieces = [f" {WORDS[(place + i * i) % len(WORDS)]}" for i in range(160)]
    scores = [((place + 7 * i) % 13) / 4 - 1.5 for i in range(161)]
    return {"text": "".join(pieces), "tokens": 161, "gold": 0.7, "proxy": scores[-1], "facets": FACETS,
            "by_prefix": {"pieces": [*pieces, ""], "scores": scores}}  # fmt: skip


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """More of everything than a recipe leaves: 24 prompts with six long answers, 3000 steps of four stages."""
    made = _fixture()
    value = made.report()
    models = ["base", "sft", "ppo", "ppo-ptx", "ppo-no-kl", "dpo"]
    value["samples"] = [
        {"prompt_id": f"p{p}", "category": "generation", "prompt": " ".join(WORDS * 3),
         "answers": {name: _long_answer(p + i) for i, name in enumerate(models)}}
        for p in range(24)
    ]  # fmt: skip
    folder = made.make_run(tmp_path_factory.mktemp("full") / "run", value)
    names = ("loss", "grad_norm", "objective/kl", "objective/scores", "policy/clipfrac_avg", "policy/entropy_avg",
             "loss/value_avg", "response_length/mean", "val/explained_variance", "eval/scores", "eval/kl", "entropy")  # fmt: skip
    rows = [{"step": i, **{name: (i % (17 + k)) / 9 for k, name in enumerate(names)}} for i in range(3000)]
    for stage in ("sft", "reward", "ppo", "ppo-no-kl"):
        (folder / stage).mkdir(exist_ok=True)
        (folder / stage / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return write_report(folder)


def _requests(driver):
    """The addresses of every request since the last look."""
    said = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    return [one["params"]["request"]["url"] for one in said if one["method"] == "Network.requestWillBeSent"]


def test_it_opens_in_under_a_second_and_asks_nobody(full):
    assert 1_000_000 < full.stat().st_size <= MOST_BYTES
    driver = browser("1280,1000", log={"browser": "ALL", "performance": "ALL"})
    try:
        driver.execute_cdp_cmd("Network.enable", {})
        offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
        driver.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
        took = []
        for _ in range(6):  # the best of three, or of six where other programs use the machine
            if len(took) >= 3 and min(took) < MOST_MS:
                break
            driver.get(full.as_uri())
            took.append(driver.execute_script("return performance.getEntriesByType('navigation')[0].loadEventEnd"))
        asked = _requests(driver)
        assert asked and {url.partition(":")[0] for url in asked} <= {"file", "data"}
        assert driver.execute_script("return performance.getEntriesByType('resource').length") == 0
        assert 0 < min(took) < MOST_MS, took
        assert [entry["message"] for entry in driver.get_log("browser")] == []
        assert driver.execute_script("return document.querySelectorAll('.one.on .rw').length") == 6
        # What was laid out late is where its link says.
        driver.execute_script("document.documentElement.style.scrollBehavior = 'auto'")
        wait_until(lambda: driver.execute_script("return document.documentElement.classList.contains('all')"), 10)
        for name in ("samples", "behaviors", "curves"):
            top = (
                "location.hash = arguments[0]; return document.getElementById(arguments[0]).getBoundingClientRect().top"
            )
            assert abs(driver.execute_script(top, name)) < 2, name
        for width in (1280, 390):
            driver.set_window_size(width, 900)
            assert driver.execute_script("return document.documentElement.scrollWidth <= innerWidth"), width
    finally:
        driver.quit()
