"""A store on SQLite, and the same on a private PostgreSQL where its programs are installed."""

import pytest

from tutelage.feedback.imports import import_records
from tutelage.feedback.projects import create_project
from tutelage.records import Completion, Prompt


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request, new_store):
    return new_store(request.param)


@pytest.fixture(scope="session")
def sampled():
    """Makes records as `tutelage sample` writes them."""
    return _sampled


def _sampled(prompts=3, answers=4):
    asked = [Prompt(id=f"p{i}", messages=[{"role": "user", "content": f"Question {i}?"}]) for i in range(prompts)]
    drawn = [
        Completion(id=f"p{i}-{k}", prompt_id=f"p{i}", text=f"Answer {k} to {i}", model="runs/sft")
        for i in range(prompts)
        for k in range(answers)
    ]
    return asked, drawn


@pytest.fixture
def project(store, sampled):
    """The name of a project of three rank tasks."""
    with store.write() as db:
        made = create_project(db, "Round 1", overlap=2)
        import_records(db, made, *sampled())
    return made.id
