"""Active selection: the items on whose order an ensemble of reward models agrees least come first."""

from collections.abc import Sequence

import torch
from sqlalchemy import select

from tutelage.algorithms.uncertainty import preference_variance
from tutelage.feedback import Store, schema
from tutelage.feedback.projects import find_project
from tutelage.feedback.schema import Task
from tutelage.judges.reward import reward_judge
from tutelage.records import Prompt


def ensemble_priorities(store: Store, project_id: str, models: Sequence[str]) -> dict[str, float]:
    """For each prompt with an open item: the variance of the models' preference probabilities, the highest of its items."""
    with store.read() as db:
        project = find_project(db, project_id)
        query = select(Task).where(Task.project_id == project.id, Task.open, Task.is_gold.is_(False))
        tasks = list(db.scalars(query.where(Task.kind == "rank")))
        prompts = {p.id: p for p in db.scalars(select(schema.Prompt).filter_by(project_id=project.id))}
        rows = select(schema.Completion.id, schema.Completion.text).filter_by(project_id=project.id)
        texts: dict[str, str] = dict(db.execute(rows).tuples().all())
    asked = [Prompt(id=t.prompt_id, messages=prompts[t.prompt_id].messages) for t in tasks for _ in t.completions]
    answers = [texts[name] for task in tasks for name in task.completions]
    scores = torch.tensor([reward_judge(model).score_all(asked, answers) for model in models]) if tasks else None
    found: dict[str, float] = {}
    start = 0
    for task in tasks:
        assert scores is not None
        part = scores[:, start : start + len(task.completions)]
        start += len(task.completions)
        found[task.prompt_id] = max(found.get(task.prompt_id, 0.0), float(preference_variance(part)))
    return found
