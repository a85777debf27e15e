"""How a critic is asked: the conversations that it is shown, word for word."""

from collections.abc import Sequence

from tutelage.constitutions import Constitution, Principle
from tutelage.records import Message

OPTIONS = ("(A)", "(B)")
THINK = "Let's think step by step."
CONCLUDE = "So which is it, (A) or (B)?"
ALONE = "Answer with (A) or (B) alone."  # to an endpoint, which writes as it likes; a checkpoint is only read


def examples_of(constitution: Constitution) -> list[Message]:
    """The constitution's worked examples as turns that came before."""
    turns: list[Message] = []
    for one in constitution.examples:
        for asked, said in (
            ("prompt", "response"),
            ("critique_request", "critique"),
            ("revision_request", "revision"),
        ):
            turns += [{"role": "user", "content": one[asked]}, {"role": "assistant", "content": one[said]}]
    return turns


def critique_turns(
    constitution: Constitution, prompt: Sequence[Message], response: str, principle: Principle
) -> list[Message]:
    """Prompt, answer, and the request to find fault with it."""
    said: list[Message] = [{"role": "assistant", "content": response}, {"role": "user", "content": principle.critique}]
    return [*examples_of(constitution), *prompt, *said]


def revision_turns(asked: Sequence[Message], critique: str, principle: Principle) -> list[Message]:
    """What was asked before, the critique, and the request to write the answer anew."""
    return [*asked, {"role": "assistant", "content": critique}, {"role": "user", "content": principle.revision}]


def choice_question(prompt: Sequence[Message], question: str, a: str, b: str) -> str:
    """The conversation, the principle as a question, and the two answers."""
    plain = prompt[0]["content"] if len(prompt) == 1 else "\n".join(f"{m['role']}: {m['content']}" for m in prompt)
    return f"{plain}\n{question}\n{OPTIONS[0]} {a}\n{OPTIONS[1]} {b}"
