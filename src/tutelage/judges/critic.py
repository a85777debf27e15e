"""A model that criticizes, revises and chooses by a constitution (Bai et al. 2022, arXiv 2212.08073)."""

import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from tutelage.algorithms.ai_feedback import both_orders_probability, clamped
from tutelage.constitutions import Constitution, Principle
from tutelage.constitutions.questions import (
    CONCLUDE,
    OPTIONS,
    THINK,
    choice_question,
    critique_turns,
    revision_turns,
)
from tutelage.judges.cache import Reply
from tutelage.judges.chats import Chat, ChatFailedError, TurnedDownError
from tutelage.judges.choices import Choice, choices
from tutelage.records import Message, Prompt

Problem = Literal["failed", "refused", "looped", "cut off", "empty", "no choice"]
REFUSES = re.compile(  # not "I can't find anything harmful in it", which is a critique
    r"^\W*(?:unfortunately,? )?(?:(?:i['’]?m|i am) (?:sorry|unable|not able|not comfortable)|sorry\b|i apologi[sz]e\b|as an ai\b"
    r"|i (?:can ?not|can['’]t|won['’]t|will not)(?! (?:find|see|identify|detect|spot)\b)|i (?:must|have to) (?:decline|refuse))",
    re.IGNORECASE,
)
THOUGHT = re.compile(
    r"^\s*<think>.*?</think>", re.DOTALL
)  # what a reasoning model says to itself is no part of its answer
LABEL = re.compile(r"^\s*(?:critique|revision|revised answer)\s*:\s*", re.IGNORECASE)
LOOP = 4  # a run of words that stands this often in a row


@dataclass(frozen=True)
class Said:
    """What the critic wrote, or why it cannot be used."""

    text: str
    problem: Problem | None = None


@dataclass(frozen=True)
class Verdict:
    """probability: that the first answer is the better one; None with a problem. logprobs: of the options, an order each."""

    probability: float | None
    logprobs: list[tuple[float, float]]
    reasoning: list[str]
    hard: bool = False  # the model gave no log-probabilities, only words
    problem: Problem | None = None


@dataclass
class Critic:
    """think: let it reason before it chooses; its labels are then clamped to [clamp, 1 - clamp]."""

    chat: Chat
    constitution: Constitution
    think: bool = False
    clamp: float = 0.4

    def draw(self, seed: int, *names: object) -> Principle:
        """The principle of one question, by the weights; always the same for the same names."""
        return self.constitution.draw(random.Random(repr((seed, names))))

    def criticize(self, asked: Sequence[tuple[Prompt, str, Principle]]) -> list[Said]:
        """The fault that the critic finds in each answer."""
        turns = [critique_turns(self.constitution, p.messages, answer, principle) for p, answer, principle in asked]
        return [_read(reply, refusal_is_one=True) for reply in self.chat.answers(turns)]

    def revise(self, asked: Sequence[tuple[Prompt, str, Principle]], critiques: Sequence[str]) -> list[Said]:
        """Each answer written anew. A revision may well refuse what the prompt asks."""
        turns = [
            revision_turns(critique_turns(self.constitution, p.messages, answer, principle), critique, principle)
            for (p, answer, principle), critique in zip(asked, critiques, strict=True)
        ]
        return [_read(reply, refusal_is_one=False) for reply in self.chat.answers(turns)]

    def compare(self, asked: Sequence[tuple[Prompt, str, str, Principle]]) -> list[Verdict]:
        """Which of two answers is better by a principle, each pair in both orders."""
        questions = [choice_question(p.messages, principle.choice, a, b) for p, a, b, principle in asked]
        questions += [choice_question(p.messages, principle.choice, b, a) for p, a, b, principle in asked]
        turns: list[list[Message]] = [[{"role": "user", "content": question}] for question in questions]
        thoughts = self._think(turns) if self.think else None
        if thoughts is not None:
            turns = [
                [*messages, {"role": "assistant", "content": said.text}, {"role": "user", "content": CONCLUDE}]
                for messages, said in zip(turns, thoughts, strict=True)
            ]
        chosen = choices(self.chat, turns, OPTIONS)
        count = len(asked)
        return [
            self._verdict((chosen[i], chosen[count + i]), [thoughts[i], thoughts[count + i]] if thoughts else [])
            for i in range(count)
        ]

    def _think(self, turns: Sequence[list[Message]]) -> list[Said]:
        asked: list[list[Message]] = [[{**t[0], "content": f"{t[0]['content']}\n\n{THINK}"}] for t in turns]
        return [_read(reply, refusal_is_one=True) for reply in self.chat.answers(asked)]

    def _verdict(self, orders: tuple[Choice, Choice], thoughts: list[Said]) -> Verdict:
        reasoning = [said.text for said in thoughts]
        problem = next((said.problem for said in thoughts if said.problem), None)
        first, second = orders[0].logprobs, orders[1].logprobs
        if problem or first is None or second is None:
            known = [pair for pair in (first, second) if pair is not None]
            return Verdict(None, known, reasoning, problem=problem or _no_choice(orders))
        probability = both_orders_probability(torch.tensor([first]).double(), torch.tensor([second]).double())
        if self.think:
            probability = clamped(probability, self.clamp)
        return Verdict(float(probability), [first, second], reasoning, any(one.said for one in orders))


def _no_choice(orders: Sequence[Choice]) -> Problem:
    """Why there is no verdict: a request that failed may be asked again, a critic that refuses will refuse again."""
    if any(one.failed for one in orders):
        return "failed"
    return "refused" if any(one.refused or REFUSES.match(one.words) for one in orders) else "no choice"


def _read(reply: Reply | ChatFailedError, *, refusal_is_one: bool) -> Said:
    if not isinstance(reply, Reply):
        return Said(str(reply), "refused" if isinstance(reply, TurnedDownError) and reply.filtered else "failed")
    text = LABEL.sub("", THOUGHT.sub("", reply)).strip()
    if not text:
        return Said(text, "empty")
    if loops(text):
        return Said(text, "looped")
    if reply.finish == "length":
        return Said(text, "cut off")
    if refusal_is_one and REFUSES.match(text):
        return Said(text, "refused")
    return Said(text)


def loops(text: str) -> bool:
    """Whether some run of one to twelve words comes LOOP times in a row, or a sentence LOOP times in all.

    Runs without a letter or digit are rules, tables and bullets, not words.
    """
    words = text.split()
    for size in range(1, 13):
        for start in range(len(words) - size * LOOP + 1):
            run = words[start : start + size]
            again = all(words[start + k * size : start + (k + 1) * size] == run for k in range(1, LOOP))
            if again and any(letter.isalnum() for word in run for letter in word):
                return True
    sentences = Counter(s for s in re.split(r"(?<=[.!?])\s+", text) if len(s.split()) > 2)
    return max(sentences.values(), default=0) >= LOOP
