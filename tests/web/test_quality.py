"""Figures that take long are made beside the page, which shows the last ones until then."""

import threading
import time

from tutelage.web import quality as module
from tutelage.web.quality import Figures

from . import site


def test_a_page_waits_for_quick_figures_and_not_for_slow_ones(store, monkeypatch):
    site.fill(store)
    asked, may_end = [], threading.Event()
    may_end.set()

    def counted(db, project):
        asked.append(project.id)
        may_end.wait(10)
        return {"count": len(asked)}

    numbers = iter(range(100))  # an answer came before each look
    monkeypatch.setattr(module, "quality", counted)
    monkeypatch.setattr(module, "last_number", lambda db, project: next(numbers))
    figures = Figures(store)
    assert [figures.of("round-1")["count"] for _ in range(2)] == [1, 2]  # quick: anew each time
    monkeypatch.setattr(module, "AT_ONCE", 0.0)
    monkeypatch.setattr(module, "SHARE", 0)
    may_end.clear()
    assert [figures.of("round-1")["count"] for _ in range(3)] == [2, 2, 2]  # slow: the last ones, one thread beside
    may_end.set()
    until = time.monotonic() + 10
    while figures._known["round-1"].found["count"] < 3 and time.monotonic() < until:
        time.sleep(0.01)
    assert len(asked) == 3 and figures.of("round-1")["count"] == 3


def test_the_same_answers_are_not_counted_again(store, monkeypatch):
    site.fill(store)
    asked = []
    monkeypatch.setattr(module, "quality", lambda db, project: asked.append(1) or {})
    figures = Figures(store)
    figures.of("round-1"), figures.of("round-1")
    assert len(asked) == 1
