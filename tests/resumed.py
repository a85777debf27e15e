"""A run that is cut and gone on with, beside one that was whole; the metrics that must be equal."""

import json

import pytest

from tutelage.stages.session import Session

TIMED = ("seconds", "time/rollout", "time/update")


def rows(run):
    """The metrics without what is timed."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in TIMED} for line in lines]


def resumes_with_the_same_numbers(monkeypatch, run, make, out):
    """`make(folder, **changes)` gives the configuration of a run, which is cut before its third step is written."""
    run(make(out / "whole"))
    done = Session.done

    def stop(self, step, *more):
        if step == 3:
            raise KeyboardInterrupt
        done(self, step, *more)

    monkeypatch.setattr(Session, "done", stop)
    with pytest.raises(KeyboardInterrupt):
        run(make(out / "cut"))
    assert len(rows(out / "cut")) == 2
    monkeypatch.setattr(Session, "done", done)
    run(make(out / "cut", resume=True))
    assert rows(out / "whole") == rows(out / "cut")
