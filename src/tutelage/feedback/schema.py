"""The tables of the store. Answers are appended and never changed: a correction supersedes an earlier answer."""

from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

ROLES = ("admin", "lead", "labeler")
TASKS = ("rank", "demonstrate", "steps")  # what projects ask for
KINDS = (*TASKS, "flag")  # flag: is this text sensitive? In screening tests only
ANSWERS_AS = ("text", "markdown")
RATINGS = {  # of which answers a project asks the quality, 1 to 7, besides their order
    "optional": "of those they like to",
    "all": "of each: rate, then rank",
    "ends": "of the best and the worst they rank",
    "none": "of none: they only rank",
}
Number = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts up only its own INTEGER


class Base(DeclarativeBase):
    type_annotation_map: ClassVar[dict[Any, Any]] = {dict[str, Any]: JSON, list[Any]: JSON}


class Person(Base):
    __tablename__ = "person"
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(String(80), unique=True)
    role: Mapped[str] = mapped_column(String(16))
    password: Mapped[str | None] = mapped_column(String(200))
    active: Mapped[bool] = mapped_column(default=True)
    created: Mapped[float]


class Session(Base):
    """A signed-in browser. Only a hash of the cookie is kept."""

    __tablename__ = "session"
    token: Mapped[str] = mapped_column(String(64), primary_key=True)
    person_id: Mapped[str] = mapped_column(ForeignKey("person.id"))
    csrf: Mapped[str] = mapped_column(String(64))
    created: Mapped[float]
    expires: Mapped[float]


class LoginFailure(Base):
    """Tries to sign in that failed. key: a hash of the name or of the address; until: when the next one may come."""

    __tablename__ = "login_failure"
    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    count: Mapped[int]
    until: Mapped[float]


class Invitation(Base):
    __tablename__ = "invitation"
    token: Mapped[str] = mapped_column(String(64), primary_key=True)
    role: Mapped[str] = mapped_column(String(16))
    invited_by: Mapped[str | None] = mapped_column(String(64))
    created: Mapped[float]
    expires: Mapped[float]
    used_by: Mapped[str | None] = mapped_column(String(64))


class PasswordLink(Base):
    """Lets one person set a new password, once. Only a hash of it is kept."""

    __tablename__ = "password_link"
    token: Mapped[str] = mapped_column(String(64), primary_key=True)
    person_id: Mapped[str] = mapped_column(ForeignKey("person.id"))
    made_by: Mapped[str] = mapped_column(String(64))
    created: Mapped[float]
    expires: Mapped[float]


class ApiToken(Base):
    """What a program shows in place of a cookie. Only a hash of it is kept; it may do what its scopes say."""

    __tablename__ = "api_token"
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    name: Mapped[str] = mapped_column(String(80))
    scopes: Mapped[list[Any]]
    person_id: Mapped[str] = mapped_column(ForeignKey("person.id"))
    created: Mapped[float]
    expires: Mapped[float | None]
    used: Mapped[float | None]
    revoked: Mapped[float | None]


class Project(Base):
    """`gold_every`: a gold item comes with each so many others that a person answers; 0 mixes none in.

    screening: labelers take a test first, and a lead lets them in. template, max_tokens: of the model that the Write
    page shows a conversation as, and the length beyond which training cuts it off. answers_as: text or markdown.
    rating: of which answers quality is asked (RATINGS).
    """

    __tablename__ = "project"
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(String(120))
    instructions: Mapped[str] = mapped_column(Text, default="")
    overlap: Mapped[int] = mapped_column(default=1)
    lease_seconds: Mapped[int] = mapped_column(default=1800)
    gold_every: Mapped[int] = mapped_column(default=0)
    paused: Mapped[bool] = mapped_column(default=False)
    screening: Mapped[bool] = mapped_column(default=False)
    template: Mapped[str] = mapped_column(Text, default="world")
    max_tokens: Mapped[int] = mapped_column(default=1024)
    answers_as: Mapped[str] = mapped_column(String(16), default="text")
    rating: Mapped[str] = mapped_column(String(16), default="optional")
    seed: Mapped[int] = mapped_column(default=0)
    created: Mapped[float]


class Prompt(Base):
    __tablename__ = "prompt"
    project_id: Mapped[str] = mapped_column(ForeignKey("project.id"), primary_key=True)
    id: Mapped[str] = mapped_column(String(128), primary_key=True)
    messages: Mapped[list[Any]]
    category: Mapped[str | None] = mapped_column(String(80))
    source: Mapped[str | None] = mapped_column(String(200))
    user_id: Mapped[str | None] = mapped_column(String(128))
    split: Mapped[str | None] = mapped_column(String(16))


class Completion(Base):
    __tablename__ = "completion"
    project_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    id: Mapped[str] = mapped_column(String(160), primary_key=True)
    prompt_id: Mapped[str] = mapped_column(String(128))
    text: Mapped[str] = mapped_column(Text)
    model: Mapped[str | None] = mapped_column(String(400))
    sampling: Mapped[dict[str, Any] | None]
    logprob_sum: Mapped[float | None]
    finish: Mapped[str] = mapped_column(String(16), default="stop")
    __table_args__ = (ForeignKeyConstraint(["project_id", "prompt_id"], ["prompt.project_id", "prompt.id"]),)


class Task(Base):
    """Something to answer `overlap` times, by as many people. `filled` counts the answers that fill the quota.

    completions: ids of what is ranked, or the one whose `steps` are judged. gold: the known answer, on gold items.
    part: "test" and "example" belong to the screening; its items count as gold ones and are never exported.
    """

    __tablename__ = "task"
    id: Mapped[int] = mapped_column(Number, primary_key=True, autoincrement=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("project.id"))
    prompt_id: Mapped[str] = mapped_column(String(128))
    kind: Mapped[str] = mapped_column(String(16))
    completions: Mapped[list[Any]]
    steps: Mapped[list[Any] | None]
    gold: Mapped[dict[str, Any] | None]
    is_gold: Mapped[bool] = mapped_column(default=False)
    behind: Mapped[float] = mapped_column(default=0.0)  # minus the priority: an index then has the queue's order
    overlap: Mapped[int] = mapped_column(default=1)
    filled: Mapped[int] = mapped_column(default=0)
    open: Mapped[bool] = mapped_column(default=True)
    key: Mapped[str] = mapped_column(String(64))
    part: Mapped[str] = mapped_column(String(16), default="")
    round: Mapped[int] = mapped_column(default=0)
    __table_args__ = (
        UniqueConstraint("project_id", "key"),
        Index("task_queue", "project_id", "is_gold", "open", "behind", "id"),
    )


class Assignment(Base):
    """That a person was given a task: at most once. `shown` is the order that the person sees."""

    __tablename__ = "assignment"
    id: Mapped[int] = mapped_column(Number, primary_key=True, autoincrement=True)
    task_id: Mapped[int] = mapped_column(ForeignKey("task.id"))
    person_id: Mapped[str] = mapped_column(ForeignKey("person.id"))
    state: Mapped[str] = mapped_column(String(16), default="leased")  # leased, answered, skipped
    shown: Mapped[dict[str, Any]]
    leased: Mapped[float]
    expires: Mapped[float]
    __table_args__ = (UniqueConstraint("task_id", "person_id"), Index("assignment_person", "person_id", "state"))


class Answer(Base):
    """What a person said: kind is rank, demonstrate, steps or skip. `extra` answers came when the quota was full."""

    __tablename__ = "answer"
    number: Mapped[int] = mapped_column(Number, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(64), unique=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("project.id"))
    task_id: Mapped[int] = mapped_column(ForeignKey("task.id"))
    person_id: Mapped[str] = mapped_column(ForeignKey("person.id"))
    kind: Mapped[str] = mapped_column(String(16))
    payload: Mapped[dict[str, Any]]
    shown: Mapped[dict[str, Any]]
    effort: Mapped[dict[str, Any]]
    seconds: Mapped[float | None]
    extra: Mapped[bool] = mapped_column(default=False)
    created: Mapped[float]
    supersedes: Mapped[str | None] = mapped_column(ForeignKey("answer.id"), unique=True)
    __table_args__ = (
        Index("answer_task", "task_id", "person_id"),
        Index("answer_person", "project_id", "person_id", "number"),
    )


class Draft(Base):
    """Unsent work. A draft that is written over another's revision is refused."""

    __tablename__ = "draft"
    task_id: Mapped[int] = mapped_column(ForeignKey("task.id"), primary_key=True)
    person_id: Mapped[str] = mapped_column(ForeignKey("person.id"), primary_key=True)
    revision: Mapped[int]
    payload: Mapped[dict[str, Any]]
    updated: Mapped[float]


class Admission(Base):
    """How far a person is with a project's screening: open, handed in, admitted or declined.

    scores: the lead's rating (1 to 7) of each text, by task.
    """

    __tablename__ = "admission"
    project_id: Mapped[str] = mapped_column(ForeignKey("project.id"), primary_key=True)
    person_id: Mapped[str] = mapped_column(ForeignKey("person.id"), primary_key=True)
    state: Mapped[str] = mapped_column(String(16))
    started: Mapped[float]
    finished: Mapped[float | None]
    scores: Mapped[dict[str, Any]]
    decided: Mapped[float | None]
    decided_by: Mapped[str | None] = mapped_column(String(64))


class Settlement(Base):
    """A lead's decision about an item. `own` is the order that the lead gave before seeing those of others.

    One row when the lead has ordered, without a cause, and another when it is settled; none is ever changed.
    """

    __tablename__ = "settlement"
    number: Mapped[int] = mapped_column(Number, primary_key=True, autoincrement=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("project.id"))
    task_id: Mapped[int] = mapped_column(ForeignKey("task.id"))
    person_id: Mapped[str] = mapped_column(ForeignKey("person.id"))
    own: Mapped[list[Any]]
    ordered: Mapped[float]
    ranks: Mapped[list[Any] | None]
    cause: Mapped[str | None] = mapped_column(String(16))
    note: Mapped[str] = mapped_column(Text, default="")
    settled: Mapped[float | None]
    __table_args__ = (Index("settlement_task", "project_id", "task_id", "number"),)


class Round(Base):
    """Samples → labels → training. state: sampling, labeling, training, done, failed or stopped.

    enough: train with the labels there are. A job does it: see `Job`.
    """

    __tablename__ = "round"
    project_id: Mapped[str] = mapped_column(ForeignKey("project.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    settings: Mapped[dict[str, Any]]
    state: Mapped[str] = mapped_column(String(16))
    enough: Mapped[bool] = mapped_column(default=False)
    folder: Mapped[str] = mapped_column(Text)
    said: Mapped[str] = mapped_column(Text, default="")
    result: Mapped[dict[str, Any]]
    created: Mapped[float]


class Job(Base):
    """Work that goes on behind the pages. kind: round, sample, label or quality; state: waiting, running, done, failed
    or stopped.

    folder, at: where its files lie, and where its commands start; a worker that has not got these leaves it alone.
    alone: of the jobs that wait or run, one may have this name; null in all others.
    until: when a running job's lease ends, or before which one that waits is not begun.
    """

    __tablename__ = "job"
    id: Mapped[int] = mapped_column(Number, primary_key=True, autoincrement=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("project.id"))
    kind: Mapped[str] = mapped_column(String(16))
    settings: Mapped[dict[str, Any]]
    folder: Mapped[str] = mapped_column(Text)
    at: Mapped[str] = mapped_column(Text)
    alone: Mapped[str | None] = mapped_column(String(100), unique=True)
    state: Mapped[str] = mapped_column(String(16))
    attempts: Mapped[int] = mapped_column(default=0)
    worker: Mapped[str] = mapped_column(String(120), default="")
    until: Mapped[float]
    said: Mapped[str] = mapped_column(Text, default="")
    result: Mapped[dict[str, Any]]
    created: Mapped[float]
    began: Mapped[float | None]
    ended: Mapped[float | None]
    __table_args__ = (Index("job_ready", "state", "until"), Index("job_project", "project_id", "id"))


class Figures(Base):
    """A project's quality figures as of the answer `number`, and the seconds that they took."""

    __tablename__ = "figures"
    project_id: Mapped[str] = mapped_column(ForeignKey("project.id"), primary_key=True)
    number: Mapped[int] = mapped_column(Number)
    found: Mapped[dict[str, Any]]
    took: Mapped[float]
    made: Mapped[float]


class Audit(Base):
    __tablename__ = "audit"
    id: Mapped[int] = mapped_column(Number, primary_key=True, autoincrement=True)
    created: Mapped[float]
    person_id: Mapped[str | None] = mapped_column(String(64))
    action: Mapped[str] = mapped_column(String(60))
    detail: Mapped[str] = mapped_column(Text, default="")
