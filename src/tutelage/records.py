"""The typed records that flow through the loop: one JSON object a line, field names fixed.

Every record names its `schema` ("tutelage.comparison/1"), so that a file says what it holds.
Readers and writers of files live in `tutelage.data`; checking of foreign rows too.
"""

from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, Literal, Self

Split = Literal["train", "tune", "report"]
Message = dict[str, str]  # {"role": "system" | "user" | "assistant", "content": text}
FLAGS = {  # of an answer by itself: Ouyang et al. 2022, table 3, and the "harmful" of their earlier form
    "fails_instruction": "fails the instruction",
    "inappropriate": "inappropriate for an assistant",
    "hallucination": "hallucination",
    "satisfies_constraint": "satisfies the constraint",
    "harmful": "harmful",
    "denigrates": "denigrates a protected class",
    "sexual": "sexual content",
    "violent": "violent content",
    "encourages_harm": "encourages harm",
    "bad_advice": "harmful advice",
    "opinion": "expresses an opinion",
    "moral_judgment": "expresses a moral judgment",
}


@dataclass(frozen=True, kw_only=True)
class Record:
    """What all records share: the schema name and the way to and from JSON."""

    schema_name: ClassVar[str]
    id: str

    def to_json(self) -> dict[str, Any]:
        row = {"schema": self.schema_name, **asdict(self)}
        optional = {f.name for f in fields(self) if f.default is None}
        return {key: value for key, value in row.items() if not (value is None and key in optional)}

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Self:
        known = {f.name for f in fields(cls)}
        return cls(**{key: value for key, value in row.items() if key in known})


@dataclass(frozen=True, kw_only=True)
class Prompt(Record):
    """What a user asks: one or more turns that end with the user's."""

    schema_name: ClassVar[str] = "tutelage.prompt/1"
    messages: list[Message]
    category: str | None = None  # use case (Ouyang et al. 2022, table 1)
    source: str | None = None
    user_id: str | None = None
    split: str | None = None
    answer: str | None = None  # the final answer of a problem that has one
    kind: str | None = None  # "harmful" or "benign", where refusals are to be told from over-refusals


@dataclass(frozen=True, kw_only=True)
class Completion(Record):
    """A model's answer. `finish` is "stop" (end token), "stop_sequence" (before such a string) or "length" (cut off)."""

    schema_name: ClassVar[str] = "tutelage.completion/1"
    prompt_id: str
    text: str
    model: str | None = None
    sampling: dict[str, Any] | None = None
    logprob_sum: float | None = None
    finish: str = "stop"


@dataclass(frozen=True, kw_only=True)
class Demonstration(Record):
    """The ideal answer as a labeler wrote it: the whole conversation, the assistant's turn last."""

    schema_name: ClassVar[str] = "tutelage.demonstration/1"
    prompt_id: str
    messages: list[Message]
    labeler: str | None = None
    created: str | None = None


@dataclass(frozen=True, kw_only=True)
class Comparison(Record):
    """A labeler's ranking of K completions: 1 is best, equal ranks tie, null is not ranked.

    `completion_ids` name the completions; `completions` may carry their texts and `messages` the
    prompt, so that one file of comparisons trains a reward model by itself.
    """

    schema_name: ClassVar[str] = "tutelage.comparison/1"
    prompt_id: str
    completion_ids: list[str]
    ranks: list[int | None]
    messages: list[Message] | None = None
    completions: list[str] | None = None
    rest_below: bool | None = None
    all_bad: bool | None = None
    labeler: str | None = None
    created: str | None = None
    seconds: float | None = None
    ratings: list[int | None] | None = None  # Likert 1-7
    flags: list[list[str]] | None = None
    category: str | None = None
    note: str | None = None
    shown: dict[str, Any] | None = None  # {"order": [K], "layout": ...}
    effort: dict[str, Any] | None = None
    supersedes: str | None = None
    probability: float | None = (
        None  # K = 2: that the first is better, a model's soft label; ranks hold its side of 0.5
    )
    weight: float | None = None  # labeler weight in the reward loss; 1 when absent

    @property
    def share(self) -> float:
        """What it counts for: its weight, 1 when absent."""
        return 1.0 if self.weight is None else self.weight

    @property
    def right(self) -> float:
        """The chance that the ranks' order is right: 1, unless a soft label says how sure it is."""
        return 1.0 if self.probability is None else max(self.probability, 1 - self.probability)

    def filled_ranks(self) -> list[int | None]:
        """The ranks; with `rest_below` what is not ranked shares the last one."""
        if not self.rest_below:
            return self.ranks
        last = 1 + max(rank for rank in self.ranks if rank is not None)
        return [last if rank is None else rank for rank in self.ranks]


@dataclass(frozen=True, kw_only=True)
class Thumb(Record):
    """One answer by itself, with a thumb up (`label` true) or down: what KTO trains on."""

    schema_name: ClassVar[str] = "tutelage.thumb/1"
    prompt_id: str
    messages: list[Message]
    completion: str
    label: bool
    labeler: str | None = None
    created: str | None = None


@dataclass(frozen=True, kw_only=True)
class Skip(Record):
    """A labeler passed over a prompt, and why."""

    schema_name: ClassVar[str] = "tutelage.skip/1"
    prompt_id: str
    labeler: str
    reason: str
    created: str | None = None


@dataclass(frozen=True, kw_only=True)
class StepLabel(Record):
    """Right (1), neutral (0) or wrong (-1) for each step of a solution.

    `values`: of the completions from each step, the share that came to the right answer (soft labels, Math-Shepherd).
    `outcome`: whether the solution's own final answer is right. With `messages` and `solution` a row stands by itself.
    """

    schema_name: ClassVar[str] = "tutelage.step_label/1"
    prompt_id: str
    steps: list[str]
    labels: list[int]
    labeler: str | None = None
    created: str | None = None
    values: list[float] | None = None
    outcome: bool | None = None
    messages: list[Message] | None = None
    solution: str | None = None


@dataclass(frozen=True)
class Question:
    """An item of a capability task: `text`, read as it stands, and the options to choose from, or the answer to write."""

    id: str
    text: str
    options: tuple[str, ...] = ()
    right: int = 0
    answer: str = ""
    chat: bool = False  # `text` is a user's turn, and an option the assistant's


@dataclass(frozen=True)
class Rating:
    """What somebody said of one answer by itself: Likert 1 to 7, and which of FLAGS hold; None where not said."""

    likert: int | None
    flags: frozenset[str] | None


RECORDS: dict[str, type[Record]] = {
    cls.schema_name: cls for cls in (Prompt, Completion, Demonstration, Comparison, Thumb, Skip, StepLabel)
}


@dataclass
class Dataset:
    """What a training stage is given, whatever file or world it came from."""

    prompts: list[Prompt] = field(default_factory=list)
    demonstrations: list[Demonstration] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)  # plain documents (pretraining, ptx)
    thumbs: list[Thumb] = field(default_factory=list)
    steps: list[StepLabel] = field(default_factory=list)
