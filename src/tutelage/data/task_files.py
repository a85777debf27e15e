"""Files of capability tasks: rows of questions with options to choose from, or with a short answer to write."""

from pathlib import Path

from tutelage.data.formats import Row, read_rows
from tutelage.errors import UserError
from tutelage.records import Question

SHAPES = (
    "rows with question (or prompt), choices and answer (a place from 0, a letter or a choice), or with answer alone"
)


def read_questions(path: Path) -> list[Question]:
    """The questions of a file.

    `question` is put as `Question: …\\nAnswer:`; `prompt` (or `context`) is read as it stands. A choice follows after a
    space, unless it begins with white space or the text ends with some. Without `choices` the answer is to be written.
    """
    found = [_question(row, f"{path}, row {number}", number) for number, row in read_rows(path)]
    if not found:
        raise UserError("holds no questions", where=str(path), mend=f"give {SHAPES}")
    return found


def _question(row: Row, where: str, number: int) -> Question:
    text = row.get("prompt", row.get("context"))
    if text is None and isinstance(row.get("question"), str):
        text = f"Question: {row['question']}\nAnswer:"
    if not isinstance(text, str) or not text.strip():
        raise UserError(f"has no question (it has {', '.join(row)})", where=where, mend=f"give {SHAPES}")
    answer = row.get("answer", row.get("label"))
    choices = row.get("choices")
    if choices is None:
        if not isinstance(answer, str) or not answer.strip():
            raise UserError("has no answer", where=where, mend=f"give {SHAPES}")
        return Question(f"q-{number}", text, answer=answer)
    if not isinstance(choices, list) or len(choices) < 2 or not all(isinstance(c, str) and c for c in choices):
        raise UserError("has no two choices", where=f"{where}, field choices", mend="give a list of texts")
    if len(set(choices)) < len(choices):
        raise UserError("has the same choice twice", where=f"{where}, field choices", mend="give different ones")
    gap = "" if text[-1].isspace() else " "
    options = tuple(c if c[0].isspace() else gap + c for c in choices)
    return Question(f"q-{number}", text, options, _place(answer, choices, where))


def _place(answer: object, choices: list[str], where: str) -> int:
    """Which choice is right, by its place, its letter or its words."""
    if isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(choices):
        return answer
    if isinstance(answer, str):
        if answer in choices:
            return choices.index(answer)
        place = ord(answer.strip().upper()) - ord("A") if len(answer.strip()) == 1 else -1
        if 0 <= place < len(choices):
            return place
    mend = f"give a place from 0 to {len(choices) - 1}, its letter, or the words of a choice"
    raise UserError(f"{answer!r} is none of the {len(choices)} choices", where=f"{where}, field answer", mend=mend)
