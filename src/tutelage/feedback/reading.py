"""A file that is to be imported: all of its records with the row that each stands in, and every bad row."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tutelage.data.sources import read_contents
from tutelage.errors import UserError
from tutelage.records import Comparison, Completion, Demonstration, Prompt, Record, StepLabel, Thumb

Places = dict[tuple[str, str], str]  # (schema, id) of a record -> file and row


class BadRows(UserError):  # a kind of UserError, which is named so for the user's sake
    """Several faults of one file. `faults` has them all, each with its row."""

    def __init__(self, faults: Sequence[UserError], where: str):
        self.faults = list(faults)
        super().__init__(f"{len(self.faults)} faults, so that nothing was imported", where=where)

    @property
    def message(self) -> str:
        return "\n".join([super().message, *(f"  {told(one, self.where)}" for one in self.faults)])


def told(fault: UserError, path: str | None) -> str:
    """One line about a fault; the file's name stands above it already."""
    place = (fault.where or "").removeprefix(f"{path}, ")
    mend = f" ({fault.mend})" if fault.mend else ""
    return f"{place}: {fault.what}{mend}" if place else f"{fault.what}{mend}"


def refuse(faults: Sequence[UserError], where: str) -> None:
    """Raises where there is a fault: the one there is, or all of them."""
    if len(faults) == 1:
        raise faults[0]
    if faults:
        raise BadRows(faults, where)


@dataclass
class Read:
    """What a file holds. left_out: rows that teach nothing, with the reason."""

    prompts: list[Prompt] = field(default_factory=list)
    completions: list[Completion] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)
    solutions: list[StepLabel] = field(default_factory=list)
    faults: list[UserError] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    places: Places = field(default_factory=dict)

    def place(self, record: Record) -> str | None:
        return self.places.get((record.schema_name, record.id))


def read_file(path: Path) -> Read:
    """Records of our own, and rows of any format that `--data` takes, or of a prompt and answers without ranks."""
    found = Read()
    superseded: set[str] = set()
    for one in read_contents(str(path), unranked=True):
        found.faults += one.faults
        if one.too_degenerate:
            found.faults += one.degenerate
        else:
            found.left_out += [told(error, str(path)) for error in one.degenerate]
        for number, item in one.items:
            where = f"{one.path}, row {number}"
            if isinstance(item, str):
                what, mend = "is plain text, not a prompt", "give prompts, answers or rankings"
                found.faults.append(UserError(what, where=where, mend=mend))
                continue
            found.places.setdefault((item.schema_name, item.id), where)
            _take(found, item)
            if isinstance(item, Comparison) and item.supersedes:
                superseded.add(item.supersedes)
    found.comparisons = [one for one in found.comparisons if one.id not in superseded]
    _look_up(found)
    return found


def _take(found: Read, item: Record) -> None:
    if isinstance(item, Prompt):
        found.prompts.append(item)
    elif isinstance(item, Completion):
        found.completions.append(item)
    elif isinstance(item, Comparison):
        found.comparisons.append(item)
    elif isinstance(item, StepLabel):
        found.solutions.append(item)
        if item.messages:
            found.prompts.append(Prompt(id=item.prompt_id, messages=item.messages))
    elif isinstance(item, Demonstration | Thumb):
        messages = item.messages[:-1] if isinstance(item, Demonstration) else item.messages
        found.prompts.append(Prompt(id=item.prompt_id, messages=messages))


def _look_up(found: Read) -> None:
    """Texts of comparisons that name them by id only; prompts of those that carry them."""
    prompts = {one.id: one for one in found.prompts}
    texts = {one.id: one.text for one in found.completions}
    whole = []
    for one in found.comparisons:
        messages = one.messages or (prompts[one.prompt_id].messages if one.prompt_id in prompts else None)
        answers = one.completions
        if answers is None and all(name in texts for name in one.completion_ids):
            answers = [texts[name] for name in one.completion_ids]
        if messages is None or answers is None:
            what = f"its {'prompt' if messages is None else 'answers'} are named by id, and are not in the file"
            mend = "put the texts into the row, or their records into the file"
            found.faults.append(UserError(what, where=found.place(one), mend=mend))
            continue
        if one.prompt_id not in prompts:
            prompts[one.prompt_id] = Prompt(id=one.prompt_id, messages=messages, category=one.category)
            found.prompts.append(prompts[one.prompt_id])
        whole.append(replace(one, messages=messages, completions=answers))
    found.comparisons = whole
