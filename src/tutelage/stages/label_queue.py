"""Labelers that are programs take items of a project's queue by the rules that hold for people.

What a labeler can say it says: a Ranker ranks; some also rate and mark (`say`), judge steps, write, or tell what is
sensitive. What it cannot say it skips, with the reason.
"""

import os
import random
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.configs import LabelConfig
from tutelage.errors import UserError
from tutelage.feedback import Store, people, queue, screening
from tutelage.feedback.answers import AnswerError, checked
from tutelage.feedback.projects import find_project
from tutelage.feedback.queue import Work
from tutelage.feedback.ranking import must_rate
from tutelage.records import Prompt

COUNTED = {"demonstrate": "demonstrations", "steps": "steps", "flag": "flags"}  # named where there are any
SHARE_RIGHT = 0.5  # of a process reward model: a step is right above it


class CannotSay(Exception):
    """The labeler has no answer to this item; the message says why."""


@dataclass(frozen=True)
class StepScorer:
    """A process reward model: it labels steps, up to the first wrong one."""

    id: str
    model: Any
    max_length: int = 1024

    def judge_steps(self, prompt: Prompt, steps: list[str], rng: random.Random) -> list[int]:
        from tutelage.stages.step_scores import score_steps

        (scores,) = score_steps(self.model, [(prompt.messages, steps)], self.max_length)
        labels = [1 if score > SHARE_RIGHT else -1 for score in scores]
        return labels[: labels.index(-1) + 1] if -1 in labels else labels


def step_scorer(spec: str, device: str = "auto") -> StepScorer | None:
    """Of `model:CHECKPOINT`, where that is a process reward model."""
    kind, _, path = spec.partition(":")
    if kind != "model" or not path:
        return None
    from tutelage.models import is_step_model, load_step_model

    return StepScorer(Path(path).name, load_step_model(path, device=device)) if is_step_model(path) else None


def take_all(config: LabelConfig, name: str, labelers: Sequence[Any]) -> dict[str, Any]:
    """Each leases, answers and submits as a person does: its own order of cards, hidden checks and screening too."""
    if config.rate and not all(hasattr(one, "say") for one in labelers):
        what, mend = "has no scale from 1 to 7 to rate by", "rate by world:… or a language model"
        raise UserError(what, where=f"option --by (by), {config.by}", mend=mend)
    store = Store.open(config.store or os.environ.get("TUTELAGE_STORE", "feedback.db"), create=False)
    rng = random.Random(f"label {config.seed}")
    waiting: list[tuple[Any, str]] = []
    with store.write() as db:
        find_project(db, name)
        for labeler in labelers:
            waiting.append((labeler, people.program(db, f"{config.by} · {labeler.id}").id))
    done: Counter[str] = Counter()
    screened: set[str] = set()
    while waiting:
        labeler, person_id = waiting.pop(0)
        with store.write() as db:
            project = find_project(db, name)
            task = queue.lease_next(db, project, person_id)
            if task is None:
                if screening.must_screen(db, project, person_id):
                    screening.hand_in(db, project, person_id)
                    screened.add(labeler.id)
                continue
            work = queue.work_on(db, task.id, person_id)
        kind, payload = answer(labeler, work, rng, rate=config.rate)
        with store.write() as db:
            queue.submit(db, uuid.uuid4().hex, task.id, person_id, kind, payload)
        done[kind] += 1
        waiting.append((labeler, person_id))
    store.close()
    counts = {"comparisons": done["rank"], **{words: done[kind] for kind, words in COUNTED.items() if done[kind]}}
    counts |= {"skipped": done["skip"], "labelers": len(labelers), "screened": len(screened)}
    return {"stage": "label", "project": name, **counts}


def answer(labeler: Any, work: Work, rng: random.Random, *, rate: bool) -> tuple[str, dict[str, Any]]:
    """The kind of answer and its payload: what the item asks for, or a skip."""
    asked, kind = work.prompt, work.task.kind
    prompt = Prompt(id=asked.id, messages=asked.messages, category=asked.category, source=asked.source)
    try:
        if kind == "rank":
            return kind, _rank(labeler, prompt, work, rng, rate)
        found = {"steps": _steps, "demonstrate": _write, "flag": _flag}[kind](labeler, prompt, work, rng)
        return kind, checked(kind, found, work)
    except (CannotSay, AnswerError, ValueError) as error:  # ValueError: the world's labelers know the world only
        return "skip", {"reason": "knowledge", "note": str(error)}


def _able(labeler: Any, act: str, words: str) -> Any:
    if not hasattr(labeler, act):
        raise CannotSay(f"This labeler does not {words}.")
    return getattr(labeler, act)


def _rank(labeler: Any, prompt: Prompt, work: Work, rng: random.Random, rate: bool) -> dict[str, Any]:
    """What it says of the cards in the order in which they were shown to it; equal texts share a card."""
    shown = [card[0] for card in work.cards]
    texts, finishes = [work.texts[i] for i in shown], [work.finishes[i] for i in shown]
    ratings: list[int | None] = []
    flags: list[list[str]] = []
    if (rate or work.rating in ("all", "ends")) and work.rating != "none":
        said, ratings, flags = _able(labeler, "say", "rate from 1 to 7")(prompt, texts, finishes, rng)
        if not all(ratings[place] for place in must_rate(work.rating, said)):
            raise CannotSay("It gave no quality where the project asks for it.")
    else:
        said = _able(labeler, "rank", "rank")(prompt, texts, finishes, rng)
    return {
        "ranks": _by_place(work, said),
        "ratings": _by_place(work, ratings) if any(ratings) else None,
        "flags": _by_place(work, flags) if any(flags) else None,
        **{"rest_below": False, "all_bad": False, "category": None, "note": ""},
    }


def _by_place(work: Work, values: Sequence[Any]) -> list[Any]:
    """What was said of each card, for each completion on it."""
    places: list[Any] = [None] * len(work.texts)
    for card, value in zip(work.cards, values, strict=True):
        for place in card:
            places[place] = value
    return places


def _steps(labeler: Any, prompt: Prompt, work: Work, rng: random.Random) -> dict[str, Any]:
    labels = _able(labeler, "judge_steps", "judge steps")(prompt, list(work.task.steps or []), rng)
    if labels is None:
        raise CannotSay("No labels could be read off what it said.")
    return {"labels": labels}


def _write(labeler: Any, prompt: Prompt, work: Work, rng: random.Random) -> dict[str, Any]:
    text = _able(labeler, "write", "write")(prompt, rng)
    if text is None:
        raise CannotSay("It gave no whole answer.")
    return {"answer": text}


def _flag(labeler: Any, prompt: Prompt, work: Work, rng: random.Random) -> dict[str, Any]:
    sensitive = _able(labeler, "is_sensitive", "say what is sensitive")(prompt, work.texts[0])
    if sensitive is None:
        raise CannotSay("It did not say whether the text is sensitive.")
    return {"sensitive": "1" if sensitive else "0"}
