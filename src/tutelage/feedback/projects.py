"""A team's projects: made, found by name, changed."""

import re
import time
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session as Db

from tutelage.errors import UserError, did_you_mean
from tutelage.feedback import schema
from tutelage.feedback.schema import Project


def create_project(db: Db, name: str, **settings: Any) -> Project:
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60]
    if not slug:
        raise UserError("needs a letter or a digit", where="project name", mend="name it, for example, round-1")
    if db.get(Project, slug):
        raise UserError(f"there is a project {slug!r} already", where="project name", mend="use another name")
    project = Project(id=slug, name=name.strip()[:120], created=time.time())
    db.add(project)
    change_project(project, **settings)
    db.flush()
    return project


def find_project(db: Db, name: str) -> Project:
    project = db.get(Project, name) if name.isprintable() else None
    if project is None:
        known = list(db.scalars(select(Project.id)))
        raise UserError(
            f"there is no project {name!r}{did_you_mean(name, known)}",
            mend=f"use one of: {', '.join(known)}" if known else "make one first",
        )
    return project


def change_project(project: Project, **settings: Any) -> None:
    """Set columns of the project; numbers within their limits."""
    limits = {
        "overlap": (1, 50),
        "lease_seconds": (60, 86_400),
        "gold_every": (0, 1000),
        "max_tokens": (8, 1_000_000),
        "seed": (0, 2**31 - 1),
    }
    for name, value in settings.items():
        if name in limits and not limits[name][0] <= value <= limits[name][1]:
            low, high = limits[name]
            raise UserError(f"{value} cannot be used", where=name, mend=f"give a number from {low} to {high}")
        if name == "answers_as" and value not in schema.ANSWERS_AS:
            raise UserError(f"{value!r} cannot be used", where=name, mend=f"use {' or '.join(schema.ANSWERS_AS)}")
        if name == "rating" and value not in schema.RATINGS:
            raise UserError(f"{value!r} cannot be used", where=name, mend=f"use one of: {', '.join(schema.RATINGS)}")
        setattr(project, name, value)
