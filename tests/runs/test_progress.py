"""A bar on a terminal, a line now and then elsewhere, nothing when quiet; always on standard error."""

import json
import os
import pty
import subprocess
import sys

import pytest

from tutelage.runs import Progress
from tutelage.runs import progress as progress_module
from tutelage.runs.progress import clock


@pytest.fixture
def time(monkeypatch):
    """A clock that the test moves."""
    now = [1000.0]
    monkeypatch.setattr(progress_module.time, "perf_counter", lambda: now[0])
    monkeypatch.delenv("TUTELAGE_QUIET", raising=False)
    return now


def lines_of(capsys):
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()


def test_a_line_at_most_every_ten_seconds_and_one_at_the_end(time, capsys):
    with Progress(100, "sft") as bar:
        for step in range(1, 101):
            time[0] += 0.25
            bar.update(step, loss=2.0 / step)
    assert lines_of(capsys) == [
        "sft: 40 of 100, 4 step/s, 15 s left, loss 0.05",
        "sft: 80 of 100, 4 step/s, 5 s left, loss 0.025",
        "sft: 100 of 100, 4 step/s, 25 s, loss 0.02",
    ]


def test_slow_steps_are_counted_in_seconds_a_step(time, capsys):
    with Progress(500, "ppo", unit="iteration") as bar:
        time[0] += 30
        bar.update(1, score=0.123456, kl_coef=0.02)
    assert lines_of(capsys)[-1] == "ppo: 1 of 500, 30 s/iteration, 4:09:30 left, score 0.123  kl coef 0.02"


def test_a_resumed_run_counts_its_rate_from_where_it_began(time, capsys):
    with Progress(100, "sft", done=90) as bar:
        time[0] += 10
        bar.update(95)
    assert lines_of(capsys) == ["sft: 95 of 100, 2 s/step, 10 s left"]


def test_quiet(monkeypatch, capsys):
    monkeypatch.setenv("TUTELAGE_QUIET", "1")
    with Progress(1, "sft") as bar:
        bar.update(1)
    assert lines_of(capsys) == []


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (-3, "0 s"), (59.4, "59 s"), (59.6, "1:00"), (245, "4:05"), (3723, "1:02:03")]
)
def test_clock(seconds, text):
    assert clock(seconds) == text


PROGRAM = """
from tutelage.runs import Progress
for label in ("first", "second"):
    with Progress(3, label) as bar:
        for step in range(1, 4):
            bar.update(step, loss=0.5, kl=1.25)
print('{"json": 1}')
"""


def test_on_a_terminal_bars_follow_each_other_and_standard_output_stays_clean():
    main, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    environment.pop("TUTELAGE_QUIET", None)
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=terminal, env=environment
    )
    os.close(terminal)
    shown = b""
    while True:
        try:
            part = os.read(main, 4096)
        except OSError:  # Linux reports the closed terminal so
            break
        if not part:
            break
        shown += part
    os.close(main)
    assert process.stdout.read() == b'{"json": 1}\n'
    assert process.wait() == 0
    text = shown.decode()
    for part in ("first", "second", "3/3", "step/s", "loss 0.5  kl 1.25"):
        assert part in text
    assert "Traceback" not in text


def test_the_numbers_are_kept_in_a_file_for_another_process(tmp_path, monkeypatch, capsys):
    file = tmp_path / "progress.json"
    monkeypatch.setenv("TUTELAGE_PROGRESS", str(file))
    with Progress(40, "samples-0", done=10, unit="answer") as bar:
        assert json.loads(file.read_text())["done"] == 10  # told before the first one is finished
        bar.update(30)
    told = json.loads(file.read_text())
    assert told["seconds"] > 0 and {key: told[key] for key in ("label", "unit", "done", "total", "first")} == {
        "label": "samples-0",
        "unit": "answer",
        "done": 30,
        "total": 40,
        "first": 10,
    }
    assert [path.name for path in tmp_path.iterdir()] == ["progress.json"]
    monkeypatch.setenv("TUTELAGE_PROGRESS", str(tmp_path / "absent" / "progress.json"))
    with Progress(1, "sft") as bar:
        bar.update(1)  # what cannot be kept ends nothing
