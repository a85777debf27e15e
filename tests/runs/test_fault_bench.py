"""benchmarks/faults.py goes on to its end, whatever an injection does, and counts it."""

import os
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import fault_training
import faults
from fault_training import NONE, ONE, Lost, Missed, Outcome, Skipped


@pytest.fixture
def bench(tmp_path):
    return faults.Bench(tmp_path)


def injected(bench, fault, times=3):
    count = faults.Count("a fault")
    faults.inject("kind", fault, bench, count, times, 0)
    return count


def in_turn(*deeds):
    """A fault that does one after another, the last again and again."""
    left = list(deeds)

    def fault(bench, out, draw):
        out.mkdir()
        deed = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(deed, BaseException):
            raise deed
        return deed(bench) if callable(deed) else deed

    return fault


DONE = Outcome(NONE, 2.0)


def test_what_is_lost_or_breaks_or_hangs_is_counted_and_the_others_follow(bench, monkeypatch, tmp_path):
    monkeypatch.setattr(faults, "LONGEST", 0.2)
    hangs = lambda bench: time.sleep(30)  # noqa: E731
    count = injected(bench, in_turn(Lost("two steps"), RuntimeError("odd"), hangs, DONE, Outcome(ONE, 4.0)), 5)
    assert count.lost == ["two steps", "RuntimeError: odd", "not over after 0.2 s"]
    assert count.recovered == {NONE: 1, ONE: 1} and count.row() == "| a fault | 5 | 1 | 1 | 3 | 4.0 | 4.0 |"
    assert not list(tmp_path.iterdir())


def test_a_moment_that_is_missed_is_drawn_again_earlier_and_is_no_loss(bench):
    paces = []
    count = injected(bench, in_turn(*[lambda bench: paces.append(bench.pace) or miss()] * 3, DONE), 2)
    assert (count.injected, count.short) == (2, 0) and paces == pytest.approx([1, 0.85, 0.85**2])
    never = injected(bench, in_turn(Missed()), 2)
    assert (never.injected, never.short, never.lost) == (0, 2, []) and "(2 more came too late)" in never.row()


def miss():
    raise Missed


def test_what_an_injection_began_ends_with_it(bench):
    def begin(bench):
        child = os.fork()
        if not child:
            time.sleep(60)
            os._exit(0)
        bench.children.add(child)
        begun.append(child)
        return DONE

    begun = []
    injected(bench, in_turn(begin), 2)
    for child in begun:
        with pytest.raises(ProcessLookupError):
            os.kill(child, 0)


def test_services_end_with_their_kind_and_with_an_injection_that_they_did_not_bear(bench):
    class Service:
        def __init__(self):
            made.append(self)
            self.closed = False

        def close(self):
            self.closed = True
            if len(made) == 2:
                raise OSError("no more")

    def use(bench):
        bench.services.setdefault("one", None) or bench.services.update(one=Service())
        return DONE

    def use_and_lose(bench):
        use(bench)
        raise Lost("gone")

    made = []
    count = injected(bench, in_turn(use, use_and_lose, use, use), 4)
    assert len(made) == 2 and all(one.closed for one in made) and not bench.services
    assert count.lost == ["gone", "one, at its end: OSError: no more"]


def test_the_number_in_all_is_reached_though_a_kind_cannot_be_had(monkeypatch, capsys, tmp_path):
    kinds = {"a": ("first", in_turn(DONE)), "b": ("second", in_turn(Skipped("no disk"))), "c": ("third", in_turn(DONE))}
    monkeypatch.setattr(faults, "TRAINING", kinds)
    monkeypatch.setattr(faults, "SERVICES", {})
    monkeypatch.setattr(faults, "CLUSTER", {"d": ("fourth", in_turn(DONE))})
    monkeypatch.setattr(faults, "missing", lambda: {"d": "Ray is not installed"})
    monkeypatch.setattr(sys, "argv", ["faults.py", "--count", "10", "--out", str(tmp_path / "table.md")])
    with pytest.raises(SystemExit) as end:
        faults.main()
    assert end.value.code == 0
    said = capsys.readouterr().out
    assert said.strip() == (tmp_path / "table.md").read_text().strip()
    assert "| first | 4 | 4 |" in said and "| third | 6 | 6 |" in said and "| all | 10 | 10 | 0 | 0 |" in said
    assert "| second | skipped: no disk |" in said and "| fourth | skipped: Ray is not installed |" in said


def test_every_fault_that_is_promised_is_there():
    """kill -9 of each role, SIGTERM, memory, disk, checkpoints, clocks, endpoints, PostgreSQL."""
    roles = {"kill", "kill-reward", "kill-ppo", "rank0", "rank1", "pages", "worker", "job"}
    roles |= {"ray-sampler", "ray-scorer", "ray-trainer"}
    others = {"term", "memory", "disk", "cut", "changed", "clock", "slow", "endpoint", "judge", "database"}
    assert roles | others <= (faults.TRAINING | faults.SERVICES | faults.CLUSTER).keys()


def test_a_child_leaves_though_it_cannot_say_why(tmp_path, monkeypatch):
    """Where it went on in its parent's place, it would take the parent's work away."""

    def broken(*_):
        raise MemoryError

    class Config:
        out = str(tmp_path / "run")

    child = os.fork()
    if not child:
        try:
            monkeypatch.setattr(fault_training, "print", broken, raising=False)
            monkeypatch.setattr(fault_training, "stage_function", broken)
            fault_training._train("sft", Config(), None)
        finally:
            os._exit(99)
    assert fault_training.ended(child) == 1
