"""What a stage is given: `load_data` turns a file, a folder or the embedded world into a Dataset.

Prompts of a file are split by a hash of their text: 90 % train, 5 % tune, 5 % report, the same in every file and
on every machine. Comparisons and demonstrations follow their prompt, so that nothing held out is ever trained on.
"""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from tutelage.data.foreign import Item, completion_id, items_of, prompt_id
from tutelage.data.formats import data_files, read_rows
from tutelage.data.validation import DegenerateRow
from tutelage.errors import UserError, did_you_mean
from tutelage.records import Comparison, Completion, Dataset, Demonstration, Message, Prompt, Record

Split = Literal["train", "tune", "report", "all"]
Kind = Literal["prompts", "demonstrations", "comparisons", "texts"]

SHARES = {"train": 0.90, "tune": 0.05, "report": 0.05}
SMALLEST_SPLIT = 20
"""Fewer prompts than this are not split: all of them are train."""
DEGENERATE_SHARE = 0.05
DEGENERATE_ROWS = 100
"""In a file of at least this many rows, degenerate ones below the share are dropped with a warning."""
WORLD_PROMPTS = 4096
WORLD_DEMONSTRATIONS = 4096
WORLD_DOCUMENTS = 4096

log = logging.getLogger("tutelage.data")


@dataclass
class FileContent:
    """What one file holds, each item with its row, and the degenerate rows that were dropped."""

    path: str
    rows: int = 0
    items: list[tuple[int, Item]] = field(default_factory=list)
    dropped: list[DegenerateRow] = field(default_factory=list)


def load_data(
    spec: str | Path, split: Split = "train", limit: int | None = None, *, needs: Sequence[Kind] | Kind = ()
) -> Dataset:
    """The data that `spec` names: "world", "world:tastes=length,seed=3", a file, or a folder of files.

    limit: at most so many of each kind. needs: kinds without which the stage cannot run (UserError if there are
    none); of the world only these are made. split="all" gives everything.
    """
    kinds = (needs,) if isinstance(needs, str) else tuple(needs)
    if is_world(spec):
        dataset = _world(str(spec), split, limit, kinds)
    else:
        dataset = _part(_everything(str(spec)), split)
        dataset = Dataset(
            dataset.prompts[:limit], dataset.demonstrations[:limit], dataset.comparisons[:limit], dataset.texts[:limit]
        )
    for kind in kinds:
        if not getattr(dataset, kind):
            found = {k: len(v) for k, v in vars(dataset).items() if v}
            holds = ", ".join(f"{count} {name}" for name, count in found.items()) or "nothing for it"
            raise UserError(f"holds no {kind} (in {split}: {holds})", where=str(spec), mend=_MENDS[kind])
    return dataset


_MENDS = {
    "prompts": "give rows with `prompt` or `messages`",
    "demonstrations": "give rows with `messages`, or with `prompt` and `completion`",
    "comparisons": "give rows with `chosen` and `rejected`, or with `prompt`, `completions` and `ranks`",
    "texts": "give a .txt file or rows with `text`",
}


def is_world(spec: str | Path) -> bool:
    """Whether the spec names the embedded world."""
    return str(spec) == "world" or str(spec).startswith("world:")


def world_options(spec: str) -> dict[str, str]:
    """The options after "world:", such as {"tastes": "length"}."""
    known = ["tastes", "seed"]
    options: dict[str, str] = {}
    for part in filter(None, spec.partition(":")[2].split(",")):
        name, equals, value = part.partition("=")
        if name not in known or not equals:
            raise UserError(
                f"{part!r} is not an option of the world{did_you_mean(name, known)}",
                where=spec,
                mend="write world:tastes=length",
            )
        options[name] = value
    if not options.get("seed", "0").isdigit():
        raise UserError(f"the seed {options['seed']!r} is not a whole number", where=spec, mend="write world:seed=3")
    return options


def split_of(messages: Sequence[Message]) -> Literal["train", "tune", "report"]:
    """The split of a prompt, by a hash of its text."""
    return _split_of_text("\n".join(f"{m['role']}: {m['content']}" for m in messages))


def dataset_hash(spec: str | Path) -> str:
    """16 hexadecimal digits of what `spec` names: the files' bytes, or the world's code and options."""
    digest = hashlib.sha256()
    if is_world(spec):
        import tutelage.world

        digest.update(str(spec).encode())
        files = sorted(Path(tutelage.world.__file__).parent.rglob("*.py"))
    else:
        files = data_files(spec)
    for file in files:
        with open(file, "rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]


def read_file(path: str | Path) -> FileContent:
    """The records and documents of one file, each row checked; degenerate rows dropped by the policy above."""
    content = FileContent(str(path))
    for number, row in read_rows(path):
        content.rows += 1
        try:
            content.items += [(number, item) for item in items_of(row, f"{path}, row {number}")]
        except DegenerateRow as error:
            content.dropped.append(error)
    if content.rows == 0:
        raise UserError("is empty", where=str(path), mend="give a file with at least one row")
    if content.dropped:
        few = len(content.dropped) < DEGENERATE_SHARE * content.rows and content.rows >= DEGENERATE_ROWS
        if not few:
            raise content.dropped[0]
        log.warning("%s", dropped_line(content))
    return content


def dropped_line(content: FileContent) -> str:
    """One line that counts the dropped rows by reason and names one of them."""
    reasons: dict[str, int] = {}
    for error in content.dropped:
        reasons[error.what] = reasons.get(error.what, 0) + 1
    listed = ", ".join(f"{count}× {reason}" for reason, count in reasons.items())
    first = (content.dropped[0].where or "").removeprefix(f"{content.path}, ")
    return f"{content.path}: {len(content.dropped)} of {content.rows} rows dropped ({listed}; the first is {first})"


def _everything(spec: str) -> Dataset:
    stamps = tuple((str(f), f.stat().st_mtime_ns, f.stat().st_size) for f in data_files(spec))
    return _load_files(stamps)


@lru_cache(maxsize=4)  # the splits of one file are loaded one after the other
def _load_files(stamps: tuple[tuple[str, int, int], ...]) -> Dataset:
    records: dict[tuple[str, str], Record] = {}
    places: dict[tuple[str, str], str] = {}
    texts: list[str] = []
    for path, _, _ in stamps:
        for number, item in read_file(path).items:
            if isinstance(item, str):
                texts.append(item)
                continue
            key, place = (item.schema_name, item.id), f"{path}, row {number}"
            if key in records and not _same(records[key], item):
                raise UserError(
                    f"the id {item.id!r} stands already in {places[key]} with other content",
                    where=place,
                    mend="give each record an id of its own",
                )
            if key not in records:
                records[key], places[key] = item, place
    return _assemble(records, places, texts)


def _same(one: Record, other: Record) -> bool:
    """Equal, or one prompt met with other remarks (its category or source)."""
    if isinstance(one, Prompt) and isinstance(other, Prompt):
        return one.messages == other.messages
    return one == other


def _assemble(records: dict[tuple[str, str], Record], places: dict[tuple[str, str], str], texts: list[str]) -> Dataset:
    """Join records by id, leave out what was superseded, and derive what the data implies."""
    of_kind = {name: [r for r in records.values() if isinstance(r, cls)] for name, cls in _CLASSES.items()}
    prompts: dict[str, Prompt] = {p.id: p for p in of_kind["prompt"]}
    completions = {c.id: c for c in of_kind["completion"]}
    superseded = {c.supersedes for c in of_kind["comparison"]}
    comparisons = []
    for comparison in of_kind["comparison"]:
        if comparison.id not in superseded:
            place = places[comparison.schema_name, comparison.id]
            comparisons.append(_with_texts(comparison, prompts, completions, place))
    demonstrations: list[Demonstration] = of_kind["demonstration"]
    for one in comparisons:
        assert one.messages is not None
        prompts.setdefault(one.prompt_id, Prompt(id=one.prompt_id, messages=one.messages, category=one.category))
    for demo in demonstrations:
        prompts.setdefault(demo.prompt_id, Prompt(id=demo.prompt_id, messages=demo.messages[:-1]))
    if not demonstrations:
        demonstrations = [best for one in comparisons if (best := _best(one)) is not None]
    ranked = [c for c in comparisons if len(c.completion_ids) > 1] + _paired(comparisons)
    return Dataset(list(prompts.values()), demonstrations, ranked, texts)


_CLASSES: dict[str, Any] = {
    "prompt": Prompt,
    "completion": Completion,
    "comparison": Comparison,
    "demonstration": Demonstration,
}


def _with_texts(
    comparison: Comparison, prompts: dict[str, Prompt], completions: dict[str, Completion], place: str
) -> Comparison:
    """The comparison with its prompt's messages and its completions' texts, looked up by id where it has none."""
    messages, texts = comparison.messages, comparison.completions
    if messages is None:
        if comparison.prompt_id not in prompts:
            raise UserError(
                f"the prompt {comparison.prompt_id!r} is not in the data",
                where=f"{place}, field prompt_id",
                mend="give the folder that holds the prompts too, or put `messages` into the comparison",
            )
        messages = prompts[comparison.prompt_id].messages
    if texts is None:
        missing = [i for i in comparison.completion_ids if i not in completions]
        if missing:
            raise UserError(
                f"the completion {missing[0]!r} is not in the data",
                where=f"{place}, field completion_ids",
                mend="give the folder that holds the completions too, or put `completions` into the comparison",
            )
        texts = [completions[i].text for i in comparison.completion_ids]
    return replace(comparison, messages=messages, completions=texts)


def _best(comparison: Comparison) -> Demonstration | None:
    """The best completion as a demonstration; None where all are bad or the best is empty."""
    assert comparison.messages is not None and comparison.completions is not None
    text = comparison.completions[comparison.ranks.index(1)]
    if comparison.all_bad or not text.strip():
        return None
    messages = [*comparison.messages, {"role": "assistant", "content": text}]
    return Demonstration(
        id=f"d-{comparison.id}", prompt_id=comparison.prompt_id, messages=messages, labeler=comparison.labeler
    )


def _paired(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """One comparison a prompt from its single good and bad completions (rows with `label`)."""
    groups: dict[str, list[Comparison]] = {}
    for one in comparisons:
        if len(one.completion_ids) == 1:
            groups.setdefault(one.prompt_id, []).append(one)
    out = []
    for prompt, group in groups.items():
        if len({one.all_bad for one in group}) == 2:
            texts = [one.completions[0] for one in group if one.completions]
            out.append(
                Comparison(
                    id=f"r-{prompt}",
                    prompt_id=prompt,
                    completion_ids=[completion_id(prompt, text) for text in texts],
                    ranks=[2 if one.all_bad else 1 for one in group],
                    messages=group[0].messages,
                    completions=texts,
                )
            )
    return out


def _part(whole: Dataset, split: Split) -> Dataset:
    if split == "all":
        return whole
    if split not in SHARES:
        raise UserError(
            f"there is no split {split!r}{did_you_mean(split, list(SHARES))}", mend="use train, tune or report"
        )
    small = len({prompt_id(p.messages) for p in whole.prompts}) < SMALLEST_SPLIT
    belongs = {}
    for prompt in whole.prompts:
        declared = prompt.split if prompt.split in SHARES else None
        belongs[prompt.id] = declared or ("train" if small else split_of(prompt.messages))
    few_texts = len(whole.texts) < SMALLEST_SPLIT
    return Dataset(
        [p for p in whole.prompts if belongs[p.id] == split],
        [d for d in whole.demonstrations if belongs[d.prompt_id] == split],
        [c for c in whole.comparisons if belongs[c.prompt_id] == split],
        [t for t in whole.texts if ("train" if few_texts else _split_of_text(t)) == split],
    )


def _split_of_text(text: str) -> Literal["train", "tune", "report"]:
    share = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64
    if share < SHARES["train"]:
        return "train"
    return "tune" if share < SHARES["train"] + SHARES["tune"] else "report"


def _world(spec: str, split: Split, limit: int | None, kinds: Sequence[Kind]) -> Dataset:
    """Prompts of a split of the world; demonstrations and documents belong to train."""
    from tutelage import world
    from tutelage.world.corpus import documents

    seed = int(world_options(spec).get("seed", "0"))
    wanted = set(kinds or ("prompts", "demonstrations", "texts"))
    dataset = Dataset()
    if "prompts" in wanted:
        names: tuple[str, ...] = ("train", "tune", "report") if split == "all" else (split,)
        dataset.prompts = [p for name in names for p in world.prompts(name, limit or WORLD_PROMPTS, seed=seed)]
    if split in ("train", "all"):
        if "demonstrations" in wanted:
            dataset.demonstrations = world.demonstrations(limit or WORLD_DEMONSTRATIONS, seed=seed)
        if "texts" in wanted:
            dataset.texts = list(islice(documents(seed), limit or WORLD_DOCUMENTS))
    if "comparisons" in wanted:
        raise UserError(
            "holds no comparisons until its prompts are answered and labeled",
            where=spec,
            mend="run `tutelage sample` and `tutelage label --by world:fair`, and give the file they write",
        )
    return dataset


def describe(dataset: Dataset) -> str:
    """The counts in a phrase: "1,629 prompts, 1,629 comparisons"."""
    counts = {name: len(value) for name, value in vars(dataset).items() if value}
    return ", ".join(f"{count:,} {name}" for name, count in counts.items()) or "nothing"


def content_key(messages: Sequence[Message]) -> str:
    """A text that is equal for equal prompts, for finding duplicates and leaks."""
    return json.dumps([[m["role"], " ".join(m["content"].split())] for m in messages], ensure_ascii=False)
