"""Runs read from their folders: state, curves, alarms, samples, lineage; and stopping the process that holds one."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import yaml

from tutelage.configs import SFTConfig, to_mapping
from tutelage.errors import UserError
from tutelage.workbench import watching
from tutelage.workbench.watching import (
    alarms,
    curves,
    departures,
    find_runs,
    holder,
    lineage,
    read_run,
    resume_run,
    samples,
    stop_run,
    thinned,
)


def write_run(root, name, rows, stage="ppo", summary=None, **config):
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"stage": stage, **config}))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if summary is not None:
        (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def row(step, **changes):
    quiet = {
        "step": step, "seconds": 1.0 * step, "objective/kl": 0.1 * step, "objective/kl_se": 0.1, "objective/entropy": 2.0,
        "objective/scores": 0.05 * step, "policy/clipfrac_avg": 0.1, "val/explained_variance": 0.5, "response_length/clip_ratio": 0.0,
    }  # fmt: skip
    return {**quiet, **changes}


def test_state_and_order(tmp_path):
    write_run(tmp_path, "a/sft", [{"step": 3, "loss": 1.0}], "sft", {"steps": 3})
    write_run(tmp_path, "b", [row(1), row(2)], max_steps=10)
    found = {run.name: run for run in find_runs(tmp_path)}
    assert found["a/sft"].state == "finished" and not found["a/sft"].can_resume
    assert (found["b"].state, found["b"].steps, found["b"].total) == ("stopped", 2, 10) and found["b"].can_resume
    (tmp_path / "b" / "metrics.jsonl").open("a").write('{"step": 3, "lo')  # being written
    assert read_run(tmp_path, "b").steps == 2
    for name in ("../b", "nothing", "a", "a/sft/../../b"):
        with pytest.raises(UserError, match="no such run"):
            read_run(tmp_path, name)


def test_a_running_run_is_known_by_its_lock_and_can_be_stopped(tmp_path):
    folder = write_run(tmp_path, "live", [row(1)])
    program = (
        "import fcntl, sys, time\n"
        f"lock = open({str(folder / '.lock')!r}, 'ab')\n"
        "fcntl.lockf(lock, fcntl.LOCK_EX)\nprint('held', flush=True)\ntime.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "held\n"
        assert holder(folder) == process.pid
        run = read_run(tmp_path, "live")
        assert run.state == "running" and not run.can_resume
        os.utime(folder / "metrics.jsonl", (time.time() - 900,) * 2)
        os.utime(folder / "config.yaml", (time.time() - 900,) * 2)
        assert read_run(tmp_path, "live").state == "stalled"
        with pytest.raises(UserError, match="is running"):
            resume_run(run)
        stop_run(run)
        assert process.wait(60) == -signal.SIGTERM
    finally:
        process.kill()
    assert holder(folder) is None and read_run(tmp_path, "live").state == "stopped"
    with pytest.raises(UserError, match="nobody"):
        stop_run(run)


def test_resuming_starts_the_same_verb_on_the_same_folder(tmp_path, monkeypatch):
    folder = write_run(tmp_path, "b", [row(1)], max_steps=10)
    started = []
    monkeypatch.setattr(watching.subprocess, "Popen", lambda words, **_: started.append(words))
    resume_run(read_run(tmp_path, "b"))
    assert started[0][1:] == [
        "-m",
        "tutelage",
        "ppo",
        "--config",
        str(folder / "config.yaml"),
        "--resume",
        "--out",
        str(folder),
    ]


def test_curves_say_whether_the_move_is_the_good_one(tmp_path):
    write_run(tmp_path, "b", [row(i) for i in range(1, 41)])
    found = {s.metric: s for s in curves(read_run(tmp_path, "b"))}
    assert next(iter(found)) == "objective/scores" and len(found["objective/kl"].points) == 40
    assert "rose" in found["objective/scores"].sentence and "as it should" in found["objective/scores"].sentence
    assert "stayed" in found["objective/entropy"].sentence and "seconds" not in found


def test_thinning_keeps_every_spike():
    points = [(float(i), 0.0) for i in range(10_000)]
    points[7777] = (7777.0, 99.0)
    points[1234] = (1234.0, -99.0)
    kept = thinned(points)
    assert len(kept) <= 400 and {points[7777], points[1234]} <= set(kept) and kept == sorted(kept)
    assert thinned(points[:300]) == points[:300]


def test_alarms_are_told_once_with_their_steps(tmp_path):
    rows = [row(i, **({"response_length/clip_ratio": 0.3 + 0.05 * i} if 3 <= i <= 5 else {})) for i in range(1, 7)]
    rows += [row(30, **{"val/explained_variance": -0.5})]
    write_run(tmp_path, "b", rows)
    cut, value = alarms(read_run(tmp_path, "b"))
    assert (cut["since"], cut["until"], cut["now"]) == (3, 5, False) and cut["message"].startswith("55%")
    assert value["now"] and "value model" in value["message"]


def test_samples_of_a_step_stand_beside_the_first(tmp_path):
    folder = write_run(tmp_path, "b", [row(1)])
    rows = [{"step": s, "prompt_id": p, "text": f"{p} {s}"} for s in (1, 5) for p in ("x", "y")]
    (folder / "samples.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    run = read_run(tmp_path, "b")
    steps, at, shown = samples(run)
    assert (steps, at) == ([1, 5], 5) and [(r["text"], r["first"]) for r in shown] == [("x 5", "x 1"), ("y 5", "y 1")]
    assert samples(run, 1)[1] == 1 and samples(run, 3)[1] == 5


def test_departures_come_first(tmp_path):
    config = to_mapping(SFTConfig(out="x", epochs=3))
    write_run(tmp_path, "s", [], "sft", **config)
    differing, same = departures(read_run(tmp_path, "s"))
    assert differing == [("epochs", 3, 16)] and ("dropout", 0.0) in same and "out" not in dict(same)


def test_lineage_goes_back_to_the_base(tmp_path):
    for name in ("sft", "ppo"):
        write_run(tmp_path, name, [], name)
    base = {
        "inputs": {"model": {"path": "../base", "sha256": "b" * 64}},
        "checkpoint": {"path": "c", "sha256": "s" * 64},
    }
    (tmp_path / "sft" / "lineage.json").write_text(json.dumps(base))
    last = {
        "inputs": {
            "model": {"path": "../sft/c", "sha256": "s" * 64, "lineage": "../sft/lineage.json"},
            "data": {"name": "world"},
        },
        "checkpoint": {"path": "c", "sha256": "p" * 64},
    }
    (tmp_path / "ppo" / "lineage.json").write_text(json.dumps(last))
    found = lineage(read_run(tmp_path, "ppo"), tmp_path)
    assert [one["run"] for one in found] == ["ppo", "sft"] and found[0]["inputs"][1]["name"] == "world"
    assert found[0]["inputs"][0]["sha256"] == found[1]["sha256"]
