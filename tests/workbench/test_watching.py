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
from tutelage.runs.folder import Run
from tutelage.runs.lock import holder
from tutelage.runs.rollback import Rollback, note
from tutelage.workbench import watching
from tutelage.workbench.health import alarms, first_step, proxy_and_gold
from tutelage.workbench.watching import (
    curves,
    departures,
    differences,
    find_runs,
    last_words,
    lineage,
    metrics_table,
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


def test_a_run_that_broke_off_says_why_and_what_is_lost(tmp_path):
    folder = write_run(tmp_path, "b", [row(1), row(2), row(3)], "sft", max_steps=10)
    (folder / "checkpoints" / "step-2").mkdir(parents=True)
    assert (read_run(tmp_path, "b").state, read_run(tmp_path, "b").saved) == ("stopped", 2)
    run = Run(folder, "sft")
    run.note_failure(RuntimeError("out of memory"))
    failed = read_run(tmp_path, "b")
    assert (failed.state, failed.reason) == ("failed", "RuntimeError: out of memory") and failed.can_resume
    (folder / "resumed.log").write_text("sft  10%\rsft  20%\nerror: the data changed\n")
    assert last_words(failed) == ["sft  10%", "sft  20%", "error: the data changed"]
    note(folder, Rollback(3, 2, "loss is nan"))
    assert [(a["since"], a["message"]) for a in alarms(failed)] == [(3, "loss is nan; went back to step 2")]
    names, *rows = metrics_table(failed)
    assert names[:2] == ["step", "seconds"] and [r[0] for r in rows] == [1, 2, 3]


def test_a_running_run_is_known_by_its_lock_and_can_be_stopped(tmp_path):
    folder = write_run(tmp_path, "live", [row(1)], max_steps=10)
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
        assert run.state == "running" and not run.can_resume and run.left is None  # of one step no pace is known
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row(i, seconds=2 * i)) + "\n" for i in (1, 2, 3)))
        assert read_run(tmp_path, "live").left == pytest.approx(14)
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


def write_samples(folder, curve, prompts=4, said=lambda step: f"answer of {step}"):
    """curve: (step, KL, proxy, gold) means; each prompt's row has them as they are."""
    rows = [
        {
            "step": s,
            "prompt_id": f"p{i}",
            "text": said(s),
            "finish": "stop",
            "tokens": 9,
            "proxy": p,
            "kl": kl,
            "gold": g,
        }
        for s, kl, p, g in curve
        for i in range(prompts)
    ]
    (folder / "samples.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))


@pytest.mark.parametrize("stage", ["rloo", "grpo", "online-dpo"])
def test_stages_without_a_critic_alarm_too(tmp_path, stage):
    quiet = {"objective/kl": 0.5, "objective/kl_se": 0.1, "objective/entropy": 2.0, "response_length/clip_ratio": 0.0}
    rows = [{"step": i, "seconds": i, **quiet, "frac_reward_zero_std": 0.1} for i in range(1, 30)]
    rows[4] |= {"response_length/clip_ratio": 0.5}
    rows[-1] |= {"frac_reward_zero_std": 0.9, "objective/entropy": 0.01}
    write_run(tmp_path, "g", rows, stage)
    found = alarms(read_run(tmp_path, "g"))
    assert [(a["since"], a["now"]) for a in found] == [(5, False), (29, True), (29, True)]
    assert "cut off" in found[0]["message"] and "entropy" in found[1]["message"] and "90%" in found[2]["message"]
    write_run(tmp_path, "s", rows, "sft")
    assert alarms(read_run(tmp_path, "s")) == []


def test_proxy_up_gold_down_is_an_alarm_that_names_the_kl_and_what_changed(tmp_path):
    folder = write_run(tmp_path, "b", [row(i) for i in range(1, 41)], "rloo")
    said = {
        1: "a short word",
        10: "a short word",
        20: "I hope this helps",
        30: "I hope this helps",
        40: "I hope this helps",
    }
    turning = [(1, 0.0, 0.0, 1.0), (10, 3.0, 1.0, 2.0), (20, 6.0, 2.0, 1.6), (30, 9.0, 3.0, 1.2), (40, 12.0, 3.5, 1.0)]
    write_samples(folder, turning, said=said.get)
    (found,) = alarms(read_run(tmp_path, "b"))
    assert found["now"] and (found["since"], found["until"]) == (10, 40)
    assert found["message"].startswith("Proxy up, gold down since KL = 3.0: proxy 1.00 → 3.50, gold 2.00 → 1.00.")
    assert "“i hope this helps” (was 0%)" in found["message"] and "kl_coef" in found["message"]
    points = proxy_and_gold(read_run(tmp_path, "b"))
    assert [(p["step"], p["kl"], p["gold"]) for p in points] == [(s, kl, g) for s, kl, _, g in turning]
    write_samples(folder, [(s, kl, p, p) for s, kl, p, _ in turning])  # gold goes with the proxy
    assert alarms(read_run(tmp_path, "b")) == []


def test_the_gold_judge_reads_the_samples_of_the_world(tmp_path):
    from tutelage.world import gold, prompts

    folder = write_run(tmp_path, "w", [row(1)], "grpo", data="world", eval_prompts=3, seed=5)
    asked = prompts("tune", 3, 5)
    rows = [
        {"step": s, "prompt_id": p.id, "text": "I do not know.", "finish": "stop", "tokens": 4, "proxy": 1.0, "kl": 0.0}
        for s in (1, 2)
        for p in asked
    ]
    (folder / "samples.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    mean = sum(gold.score(p, "I do not know.", "stop").total for p in asked) / 3
    assert [p["gold"] for p in proxy_and_gold(read_run(tmp_path, "w"))] == pytest.approx([mean, mean])
    elsewhere = write_run(tmp_path, "o", [row(1)], "grpo", data="mine.jsonl")
    (elsewhere / "samples.jsonl").write_text((folder / "samples.jsonl").read_text())
    assert proxy_and_gold(read_run(tmp_path, "o")) == []  # nobody knows gold there


FIRST = {
    "objective/kl": 0.0,
    "objective/kl_k3": 0.0,
    "val/ratio": 1.0,
    "sampling/sampling_logp_difference/mean": 0.001,
    "val/num_eos_tokens": 5,
    "reward_std": 0.4,
}


def test_what_must_hold_at_the_first_step(tmp_path):
    write_run(tmp_path, "good", [{"step": 1, **FIRST}], "grpo")
    checks = first_step(read_run(tmp_path, "good"))
    assert [c.holds for c in checks] == [True] * 5 and "first KL is 0.000 nats" in checks[0].text
    broken = [
        ("objective/kl_k3", 0.8, "same checkpoint"),  # k1 may cancel out, k3 cannot
        ("val/ratio", 1.6, "other weights"),
        ("sampling/sampling_logp_difference/mean", 0.3, "template"),
        ("val/num_eos_tokens", 0, "end token"),
        ("reward_std", 0.0, "nothing to learn"),
    ]
    for place, (name, value, mention) in enumerate(broken):
        write_run(tmp_path, f"bad{place}", [{"step": 1, **FIRST, name: value}], "grpo")
        checks = first_step(read_run(tmp_path, f"bad{place}"))
        assert [i for i, c in enumerate(checks) if c.holds is False] == [place] and mention in checks[place].otherwise
    write_run(tmp_path, "old", [{"step": 1, "seconds": 1.0}], "ppo")  # logged by an older version: says so
    assert {c.holds for c in first_step(read_run(tmp_path, "old"))} == {None}
    write_run(tmp_path, "later", [{"step": 7, **FIRST}], "ppo")
    write_run(tmp_path, "sft", [{"step": 1, **FIRST}], "sft")
    assert first_step(read_run(tmp_path, "later")) == first_step(read_run(tmp_path, "sft")) == []


def test_two_runs_differ_in_these_options(tmp_path):
    write_run(tmp_path, "a", [], "ppo", out="a", seed=0, kl_coef=0.05, clip=0.2)
    write_run(tmp_path, "b", [], "rloo", out="b", seed=0, kl_coef=0.1, group_size=4)
    one, other = read_run(tmp_path, "a"), read_run(tmp_path, "b")
    assert differences(one, other) == [
        ("stage", "ppo", "rloo"),
        ("clip", 0.2, None),
        ("kl_coef", 0.05, 0.1),
        ("group_size", None, 4),
    ]
    assert differences(one, one) == []


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
    assert [(one.name, one.kind, one.run) for one in found] == [
        ("ppo", "model", "ppo"), ("sft", "model", "sft"), ("base", "model", None), ("world", "data", None),
    ]  # fmt: skip
    assert found[0].inputs == (("model", 1), ("data", 3)) and found[1].inputs == (("model", 2),)
    assert found[1].sha256 == "s" * 16 and lineage(read_run(tmp_path, "sft"), tmp_path)[0].name == "sft"


def test_a_lineage_names_each_thing_once_and_knows_a_judge(tmp_path):
    """sft -> reward -> ppo <- sft, all on the same data: four runs and files, no more."""
    for name in ("sft", "reward", "ppo"):
        write_run(tmp_path, name, [], name)

    def of(run, **inputs):
        described = {
            role: {"path": f"../{name}/c", "sha256": name * 8, "lineage": f"../{name}/lineage.json"}
            for role, name in inputs.items()
        }
        row = {"inputs": {**described, "data": {"name": "world"}}, "checkpoint": {"path": "c", "sha256": run * 8}}
        (tmp_path / run / "lineage.json").write_text(json.dumps(row))

    of("sft"), of("reward", model="sft"), of("ppo", model="sft", reward_model="reward")
    found = lineage(read_run(tmp_path, "ppo"), tmp_path)
    assert [(one.name, one.kind) for one in found] == [
        ("ppo", "model"), ("sft", "model"), ("world", "data"), ("reward", "judge"),
    ]  # fmt: skip
    assert found[0].inputs == (("model", 1), ("reward_model", 3), ("data", 2))
    write_run(tmp_path, "new", [], "ppo")
    assert lineage(read_run(tmp_path, "new"), tmp_path) == []
