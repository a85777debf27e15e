"""Runs made in tests may only log registered metrics."""

import pytest

from tutelage.runs.folder import STRICT


@pytest.fixture(autouse=True)
def strict_metrics(monkeypatch):
    monkeypatch.setenv(STRICT, "1")
