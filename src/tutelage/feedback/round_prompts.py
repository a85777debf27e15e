"""Which of a project's own prompts a round asks about."""

import hashlib
from collections import Counter

from sqlalchemy import select
from sqlalchemy.orm import Session as Db

from tutelage.configs.rounds import PROJECT
from tutelage.errors import UserError
from tutelage.feedback import schema
from tutelage.feedback.schema import Project, Round, Task
from tutelage.records import Prompt


def own_prompts(db: Db, project: Project) -> list[schema.Prompt]:
    """The prompts that were imported, those of the fewest rounds first and else in an order drawn from the seed.

    Prompts of gold and screening items stay out of it, and those that an earlier round brought from elsewhere.
    """
    tasks = db.execute(select(Task.prompt_id, Task.round, Task.is_gold).filter_by(project_id=project.id)).tuples().all()
    rounds = db.scalars(select(Round).filter_by(project_id=project.id))
    elsewhere = {row.number for row in rounds if row.settings.get("data") != PROJECT}
    imported = {name for name, number, gold in tasks if not number and not gold}
    left_out = {name for name, _, gold in tasks if gold}
    left_out |= {name for name, number, _ in tasks if number in elsewhere} - imported
    asked = Counter({name: 0 for name, _, _ in tasks})
    asked.update(name for name, number, _ in tasks if number and number not in elsewhere)

    def place(one: schema.Prompt) -> tuple[int, bytes]:
        drawn = hashlib.blake2b(f"{project.seed}\0{one.id}".encode(), digest_size=8).digest()
        return asked[one.id], drawn

    found = db.scalars(select(schema.Prompt).filter_by(project_id=project.id))
    return sorted((one for one in found if one.id not in left_out), key=place)


def chosen_prompts(db: Db, project: Project, count: int) -> list[Prompt]:
    """The first `count` of them as records; UserError where there is none."""
    found = own_prompts(db, project)[:count]
    if not found:
        raise UserError(
            "has no prompts of its own", where=f"project {project.id}", mend="import prompts, or ask those of the world"
        )
    fields = ("id", "messages", "category", "source", "user_id")
    return [Prompt(**{name: getattr(one, name) for name in fields}) for one in found]
