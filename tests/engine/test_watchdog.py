"""A process that makes no progress ends with its rank, phase and stack; one that does is left alone."""

import os
import subprocess
import sys
import time

import torch

from forked import run_on
from tutelage.engine import distributed
from tutelage.engine.watchdog import Watchdog, beat, phase
from tutelage.errors import UserError
from tutelage.processes import alone

STALL = """
import sys, time
from pathlib import Path
from tutelage.engine.watchdog import Watchdog, phase, beat

def stuck_in_the_data():
    time.sleep(60)

dog = Watchdog(Path(sys.argv[1]), 1.5)
dog.step = 7
dog.start()
for _ in range(20):  # longer than the limit, but with progress
    time.sleep(0.1)
    beat()
print("was patient", flush=True)
with phase("reading"):
    stuck_in_the_data()
"""


def test_a_stall_ends_with_rank_phase_and_stack(tmp_path):
    environment = {**os.environ, "RANK": "1", "WORLD_SIZE": "3"}
    done = subprocess.run(
        [sys.executable, "-c", STALL, tmp_path], capture_output=True, text=True, env=environment, timeout=50
    )
    assert done.returncode == 1 and done.stdout == "was patient\n"
    assert "stalled: rank 1, step 7, reading: no progress for" in done.stderr
    assert "stuck_in_the_data" in done.stderr and "rank 2 has left nothing" in done.stderr


WAIT = """
import json, sys, threading, time
from pathlib import Path
from tutelage.engine.watchdog import FOLDER, WAITING, Watchdog, phase

folder = Path(sys.argv[1]) / FOLDER
folder.mkdir()
end = time.monotonic() + 1.6  # far longer than the limit

def main_process():
    while time.monotonic() < end:
        said = {"step": 3, "phase": "labels", "silent": 0.1, "time": time.time()}
        (folder / "0.new").write_text(json.dumps(said))
        (folder / "0.new").replace(folder / "0")
        time.sleep(0.05)

threading.Thread(target=main_process, daemon=True).start()
Watchdog(folder.parent, 0.5).start()
with phase(WAITING):
    time.sleep(max(0, end - time.monotonic()))
    print("waited", flush=True)
    time.sleep(30)
"""


def test_who_waits_for_one_that_works_waits_and_no_longer(tmp_path):
    environment = {**os.environ, "RANK": "1", "WORLD_SIZE": "2"}
    done = subprocess.run(
        [sys.executable, "-c", WAIT, tmp_path], capture_output=True, text=True, env=environment, timeout=25
    )
    assert done.returncode == 1 and done.stdout == "waited\n"
    assert "stalled: rank 1, step 0, waiting for the other processes" in done.stderr
    assert "rank 0: step 3, labels, no progress for" in done.stderr


def test_a_process_that_works_alone_still_says_what_it_does(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with alone():
        Watchdog(tmp_path, 60.0)._report(0.0)
    assert (tmp_path / ".heartbeats" / "0").exists()


def test_it_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    dog = Watchdog(tmp_path, 60.0)  # so long that a busy machine does not end the tests
    dog.tick = 0.02
    said = tmp_path / ".heartbeats" / "0"
    dog.start()
    with phase("sampling"):
        until = time.monotonic() + 20
        while not (said.exists() and '"phase": "sampling"' in said.read_text()) and time.monotonic() < until:
            time.sleep(0.02)
            beat()
        assert '"phase": "sampling"' in said.read_text()
    dog.stop()
    assert not list(tmp_path.iterdir())


def differ():
    rank = distributed.rank()
    shapes = {"layer.weight": ((2, 2 + rank), 1), "head": (1,)}
    messages = []
    for values in ({"seed": 1, "learning_rate": 1e-5 * (1 + (rank == 2))}, shapes, {"same": torch.float32}):
        try:
            distributed.require_equal("sft", values)
            messages.append("")
        except UserError as error:
            messages.append(error.message)
    return messages


def test_processes_that_differ_are_told_before_they_train(tmp_path):
    for messages in run_on(3, tmp_path, differ):
        assert "rank 2 has learning_rate = 2e-05, rank 0 has 1e-05" in messages[0]
        assert "rank 1 has layer.weight = ((2, 3), 1), rank 0 has ((2, 2), 1)" in messages[1]
        assert messages[2] == ""
