"""The screening test that a labeler takes once (Ouyang et al. 2022, appendix B.1), and what came of it.

Its parts: rankings whose order is known, texts that are sensitive or not, and answers to write, which a lead rates
from 1 to 7. Worked examples come before it. The paper's soft cut-offs: 75 % agreement, a rating of 6.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session as Db

from tutelage.data.formats import read_rows
from tutelage.data.rows import items_of
from tutelage.errors import UserError
from tutelage.feedback import schema
from tutelage.feedback.schema import Admission, Answer, Person, Project, Task
from tutelage.records import Comparison, Completion, Prompt, Thumb

AGREEMENT, RATING = 0.75, 6  # the paper's cut-offs


@dataclass
class Text:
    """An answer that somebody wrote in the test."""

    task: int
    prompt: str
    answer: str
    score: int | None


@dataclass
class Result:
    """What a person did in the test: (share, pairs) of rankings, (share, texts) of flags, and their texts."""

    person_id: str
    name: str
    state: str
    answered: int
    skipped: int = 0
    ranking: tuple[float, int] | None = None
    flagging: tuple[float, int] | None = None
    texts: list[Text] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def rating(self) -> float | None:
        scores = [text.score for text in self.texts if text.score is not None]
        return sum(scores) / len(scores) if scores else None


def admission_of(db: Db, project_id: str, person_id: str) -> Admission | None:
    return db.get(Admission, (project_id, person_id))


def must_screen(db: Db, project: Project, person_id: str) -> bool:
    """Whether this person gets the test in place of items: a labeler who was not let in yet."""
    return screening_state(db, project, person_id) not in ("", "admitted")


def screening_state(db: Db, project: Project, person_id: str) -> str:
    """ "" where there is no test for this person, else new, open, handed in, admitted or declined."""
    if not project.screening:
        return ""
    person = db.get(Person, person_id)
    if person is None or person.role != "labeler":
        return ""
    found = admission_of(db, project.id, person_id)
    return "new" if found is None else found.state


def start_screening(db: Db, project: Project, person_id: str, now: float) -> Admission:
    found = admission_of(db, project.id, person_id)
    if found is None:
        found = Admission(project_id=project.id, person_id=person_id, state="open", started=now, scores={})
        db.add(found)
        db.flush()
    return found


def hand_in(db: Db, project: Project, person_id: str) -> None:
    """Once each item of the test is answered or skipped: no more changes, and a lead decides."""
    found = admission_of(db, project.id, person_id)
    tests = (
        select(func.count()).select_from(Task).where(Task.project_id == project.id, Task.is_gold, Task.part == "test")
    )
    done = tests.join(schema.Assignment).where(
        schema.Assignment.person_id == person_id, schema.Assignment.state != "leased"
    )
    if found is not None and found.state == "open" and (db.scalar(done) or 0) >= (db.scalar(tests) or 0) > 0:
        found.state, found.finished = "handed in", time.time()


def decide(db: Db, project: Project, person_id: str, by: str, *, admit: bool, scores: dict[str, int]) -> None:
    found = admission_of(db, project.id, person_id)
    if found is None or found.state == "open":
        raise UserError("has not handed in the screening", where=person_id, mend="wait for it")
    if any(not 1 <= score <= 7 for score in scores.values()):
        raise UserError("a rating is from 1 to 7", where="rating", mend="choose one of the seven")
    found.state = "admitted" if admit else "declined"
    found.scores = {**found.scores, **scores}
    found.decided, found.decided_by = time.time(), by


def import_screening(db: Db, project: Project, path: Path, part: str = "test") -> Any:
    """Rows with ranks (rank), with `sensitive` (flag), with a prompt alone (write); as examples: rows with ranks."""
    from tutelage.feedback.intake import Imported, add_completions, add_prompts, add_tasks, task_row

    done, prompts, texts, rows = Imported(where=str(path)), [], [], []
    for number, row in read_rows(path, done.faults):
        where = f"{path}, row {number}"
        try:
            prompt, drawn, kind, gold = _test(row, where)
            if part == "example" and kind != "rank":
                raise UserError("is no worked example", where=where, mend="give prompt, completions and ranks")
        except UserError as error:
            done.faults.append(error)
            continue
        prompts.append(prompt)
        texts += drawn
        rows.append(task_row(project, prompt.id, kind, [c.id for c in drawn], gold=gold, part=part))
    if not rows and not done.faults:
        raise UserError("is empty", where=str(path), mend="give a file with at least one row")
    known = add_prompts(db, project, prompts, done)
    add_completions(db, project, texts, known, done)
    add_tasks(db, project, rows, done)
    return done


def _test(row: dict[str, Any], where: str) -> tuple[Prompt, list[Completion], str, dict[str, Any]]:
    sensitive = row.pop("sensitive", None)
    if sensitive is None:
        items = items_of(row, where)
        found = next((item for item in items if isinstance(item, Comparison)), None)
        if found is not None and found.messages and found.completions:
            prompt = Prompt(id=found.prompt_id, messages=found.messages, category=found.category)
            pairs = zip(found.completion_ids, found.completions, strict=True)
            drawn = [Completion(id=name, prompt_id=prompt.id, text=text) for name, text in pairs]
            note = row.get("note") if isinstance(row.get("note"), str) else None
            return prompt, drawn, "rank", {"ranks": found.ranks, **({"note": note} if note else {})}
        asked = [item for item in items if isinstance(item, Prompt)]
        if len(asked) != 1 or len(items) != 1:
            raise UserError("is no item of a test", where=where, mend="give ranks, or `sensitive`, or a prompt alone")
        return asked[0], [], "demonstrate", {}
    items = items_of({**row, "label": bool(sensitive)}, where)
    thumb = items[-1]
    if not isinstance(sensitive, bool) or not isinstance(thumb, Thumb):
        raise UserError(
            "says not whether a text is sensitive", where=where, mend="give prompt, completion and sensitive: true"
        )
    prompt = Prompt(id=thumb.prompt_id, messages=thumb.messages)
    text = Completion(id=f"{thumb.id}-flag", prompt_id=prompt.id, text=thumb.completion)
    return prompt, [text], "flag", {"sensitive": sensitive}


def parts(db: Db, project: Project, person_id: str | None = None) -> dict[str, tuple[int, int]]:
    """(done by this person, all) items of each kind of the test."""
    tests = (Task.project_id == project.id, Task.is_gold, Task.part == "test")  # is_gold: as the index has it
    query = select(Task.kind, func.count()).where(*tests)
    total = dict(db.execute(query.group_by(Task.kind)).tuples().all())
    mine = query.join(schema.Assignment).where(
        schema.Assignment.person_id == person_id, schema.Assignment.state != "leased"
    )
    done = dict(db.execute(mine.group_by(Task.kind)).tuples().all())
    return {kind: (done.get(kind, 0), total.get(kind, 0)) for kind in ("rank", "flag", "demonstrate")}


def examples(db: Db, project: Project) -> list[dict[str, Any]]:
    """The worked examples: the prompt, the answers from best to worst with their rank, and texts and ranks as stored."""
    found = []
    query = select(Task).where(Task.project_id == project.id, Task.is_gold, Task.part == "example").order_by(Task.id)
    for task in db.scalars(query):
        prompt = db.get_one(schema.Prompt, (project.id, task.prompt_id))
        texts = [db.get_one(schema.Completion, (project.id, name)).text for name in task.completions]
        ranks = (task.gold or {})["ranks"]
        ranked = sorted(zip(ranks, texts, strict=True), key=lambda pair: pair[0] or 99)
        note = (task.gold or {}).get("note", "")
        found.append({"messages": prompt.messages, "answers": ranked, "note": note, "texts": texts, "ranks": ranks})
    return found


def results(db: Db, project: Project) -> list[Result]:
    """Everybody who began the test, those who wait for a decision first."""
    from tutelage.feedback.export import current_answers

    names = dict(db.execute(select(Person.id, Person.name)).tuples().all())
    order = {"handed in": 0, "open": 1, "admitted": 2, "declined": 3}
    found = []
    for admission in db.scalars(select(Admission).filter_by(project_id=project.id)):
        answers = list(current_answers(db, project, gold=True, part="test", person_id=admission.person_id))
        one = Result(admission.person_id, names[admission.person_id], admission.state, len(answers))
        _judge(db, one, answers, admission)
        found.append(one)
    return sorted(found, key=lambda one: (order[one.state], one.name.lower()))


def _judge(db: Db, one: Result, answers: Sequence[tuple[Answer, Task]], admission: Admission) -> None:
    right = pairs = alike = flags = 0
    for answer, task in answers:
        one.seconds += answer.seconds or 0.0
        if answer.kind == "skip":
            one.skipped += 1
        elif answer.kind == "flag":
            flags += 1
            alike += answer.payload["sensitive"] == (task.gold or {})["sensitive"]
        elif answer.kind == "rank":
            said, known = answer.payload["ranks"], (task.gold or {})["ranks"]
            more, all_ = pairs_alike(said, known)
            right, pairs = right + more, pairs + all_
        else:
            prompt = db.get_one(schema.Prompt, (task.project_id, task.prompt_id))
            text, asked = answer.payload["messages"][-1]["content"], prompt.messages[-1]["content"]
            one.texts.append(Text(task.id, asked, text, admission.scores.get(str(task.id))))
    one.ranking = (right / pairs, pairs) if pairs else None
    one.flagging = (alike / flags, flags) if flags else None


def pairs_alike(said: Sequence[int | None], known: Sequence[int | None]) -> tuple[int, int]:
    """Of the pairs that both rankings tell apart: (those that they order alike, all of them)."""
    right = pairs = 0
    for i, j in combinations(range(len(known)), 2):
        a, b, c, d = said[i], said[j], known[i], known[j]
        if a is None or b is None or c is None or d is None or a == b or c == d:
            continue
        pairs += 1
        right += (a < b) == (c < d)
    return right, pairs
