"""Data by name: `world`, or a file or folder. Every stage reads through here.

Prompts of a file are split by a hash of their id unless the data declares splits (a field `split`, the splits of a
`datasets` folder, or files named train and test). Comparisons and demonstrations follow their prompt, so that
nothing held out is ever trained on.
"""

import hashlib
import itertools
import re
import sys
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from tutelage.data.foreign import Item, completion_id
from tutelage.data.formats import data_files, read_rows
from tutelage.data.preferences import taken_apart
from tutelage.data.rows import format_of, is_unranked, items_of
from tutelage.data.validation import DegenerateRow
from tutelage.errors import UserError
from tutelage.records import Comparison, Completion, Dataset, Demonstration, Prompt, Record, StepLabel, Thumb

# A file's prompts are split by a hash of their text; the shares in percent.
SPLITS = {"train": (0, 90), "tune": (90, 95), "report": (95, 100)}
ON_POLICY_PROMPTS = 4000  # that the batches of PPO, RLOO and the like are drawn from
CHUNK = 2000  # documents of the world that are made and tokenized at once
SPLIT_NAMES = {"valid": "tune", "validation": "tune", "dev": "tune", "test": "report", "eval": "report"}
# Degenerate rows are left out with a warning where the file is long and they are few; else they are errors.
DEGENERATE_SHARE, DEGENERATE_ROWS = 0.1, 100


@dataclass
class Contents:
    """What one file holds: items with their row, rows that teach nothing, rows that cannot be read."""

    path: str
    rows: int = 0
    items: list[tuple[int, Item]] = field(default_factory=list)
    formats: Counter[str] = field(default_factory=Counter)
    degenerate: list[UserError] = field(default_factory=list)
    faults: list[UserError] = field(default_factory=list)
    split: str | None = None

    @property
    def too_degenerate(self) -> bool:
        few = self.rows >= DEGENERATE_ROWS and len(self.degenerate) <= DEGENERATE_SHARE * self.rows
        return bool(self.degenerate) and not few


def read_contents(spec: str, *, unranked: bool = False) -> list[Contents]:
    """Every row of the files that `spec` names, the bad ones too. UserError only where there is no file.

    unranked: as in `items_of`.
    """
    files = data_files(spec)
    names = [_split_in(path, len(files)) for path in files]
    found = []
    for path, name in zip(files, names, strict=True):
        one = Contents(str(path), split=name if "train" in names else None)
        unreadable = 0
        try:
            for number, row in read_rows(path, one.faults):
                one.rows += 1
                where = f"{path}, row {number}"
                try:
                    one.items += [(number, item) for item in items_of(row, where, unranked=unranked)]
                    one.formats["unranked" if unranked and is_unranked(row) else format_of(row)] += 1
                except DegenerateRow as error:
                    one.degenerate.append(error)
                except UserError as error:
                    one.faults.append(error)
                    unreadable -= 1
            unreadable += len(one.faults)  # no rows to the reader, but rows
        except UserError as error:  # the rest of the file cannot be read
            one.faults.append(error)
        one.rows += max(unreadable, 0)
        if not one.rows and not one.faults:
            one.faults.append(UserError("is empty", where=str(path), mend="give a file with at least one row"))
        found.append(one)
    return found


def is_world(spec: str) -> bool:
    """Whether data is the embedded world's: `world`, or a part of it as in `world:helpful`."""
    return spec == "world" or spec.startswith("world:")


def load_data(spec: str, split: str = "train") -> Dataset:
    """The records of a file or folder in a split; prompts and demonstrations are derived from comparisons where absent."""
    return part(*read_whole(spec), split)


def read_whole(spec: str) -> tuple[Dataset, dict[str, str]]:
    """All records of a file or folder, and the splits that it declares for prompts."""
    return _whole(spec, tuple((str(p), p.stat().st_mtime_ns, p.stat().st_size) for p in data_files(spec)))


def part(whole: Dataset, declared: dict[str, str], split: str) -> Dataset:
    """The records whose prompt is in the split."""
    if len({p.id for p in whole.prompts}) < 40 and not declared:  # too few to set some aside
        return whole
    inside = {p.id for p in whole.prompts if split_of(p.id, declared) == split}
    return Dataset(
        [p for p in whole.prompts if p.id in inside],
        [d for d in whole.demonstrations if d.prompt_id in inside],
        [c for c in whole.comparisons if c.prompt_id in inside],
        whole.texts,
        [t for t in whole.thumbs if t.prompt_id in inside],
        [s for s in whole.steps if s.prompt_id in inside],
    )


def split_of(prompt_id: str, declared: dict[str, str]) -> str:
    """The split that a prompt is declared to be in, else the one of its hash."""
    if prompt_id in declared:
        return declared[prompt_id]
    place = int.from_bytes(hashlib.blake2b(prompt_id.encode(), digest_size=4).digest(), "little") % 100
    return next(name for name, (low, high) in SPLITS.items() if low <= place < high)


@lru_cache(maxsize=4)  # the splits of one file are asked for one after the other
def _whole(spec: str, stamps: tuple[tuple[str, int, int], ...]) -> tuple[Dataset, dict[str, str]]:
    contents = read_contents(spec)
    for one in contents:
        if one.faults or one.too_degenerate:
            raise (one.faults or one.degenerate)[0]
        if one.degenerate:
            print(f"warning: {left_out(one)}", file=sys.stderr)
    data, declared = assemble(contents)
    data.comparisons = [replace(one, ranks=one.filled_ranks()) for one in data.comparisons]
    return data, declared


def left_out(one: Contents) -> str:
    """One line about the rows of a file that teach nothing."""
    first = one.degenerate[0]
    count, rows = len(one.degenerate), one.rows
    return f"{Path(one.path).name}: {count} of {rows} rows left out, the first: {first.where}: {first.what}"


def assemble(contents: list[Contents]) -> tuple[Dataset, dict[str, str]]:
    """The dataset, and the splits that it declares: records joined by id, what was superseded left out."""
    data, records = Dataset(), unique_records(contents)
    completions = {r.id: r.text for _, r in records if isinstance(r, Completion)}
    prompts: dict[str, Prompt] = {r.id: r for _, r in records if isinstance(r, Prompt)}
    superseded = {r.supersedes for _, r in records if isinstance(r, Comparison)}
    for place, record in records:
        if isinstance(record, Comparison) and record.id not in superseded:
            data.comparisons.append(_with_texts(record, prompts, completions, place))
        elif isinstance(record, Thumb):
            data.thumbs.append(record)
        elif isinstance(record, Demonstration):
            data.demonstrations.append(record)
        elif isinstance(record, StepLabel):
            data.steps.append(record)
    data.texts = [item for one in contents for _, item in one.items if isinstance(item, str)]
    data.prompts = list(prompts.values())
    _derive(data)
    data.comparisons += _paired(data.thumbs)
    names = {p.id: SPLIT_NAMES.get(p.split or "", p.split) for p in data.prompts}
    for one in contents:
        if one.split:
            names |= {r.id: one.split for _, r in one.items if isinstance(r, Prompt)}
    declared = {key: name for key, name in names.items() if name in SPLITS}
    return data, declared if len(set(declared.values())) > 1 else {}


def unique_records(contents: list[Contents]) -> list[tuple[str, Record]]:
    """(file and row, record) in order: what stands twice under one id once; a row repeated in a foreign format stays."""
    kept: list[tuple[str, Record]] = []
    seen: dict[tuple[str, str], tuple[str, Record]] = {}
    copies: Counter[tuple[str, str]] = Counter()
    for one in contents:
        own = one.formats.keys() <= {"records"}
        for number, item in one.items:
            if isinstance(item, str):
                continue
            key, place = (item.schema_name, item.id), f"{one.path}, row {number}"
            if key not in seen:
                seen[key] = (place, item)
                kept.append((place, item))
            elif isinstance(item, Prompt) and item.messages == seen[key][1].messages:  # type: ignore[attr-defined]
                continue
            elif item != seen[key][1]:
                raise UserError(
                    f"the id {item.id!r} stands already in {seen[key][0]} with other content",
                    where=place,
                    mend="give each record an id of its own",
                )
            elif not own:
                copies[key] += 1
                kept.append((place, replace(item, id=f"{item.id}-{copies[key] + 1}")))
    return kept


def demonstrations(spec: str, count: int | None, seed: int) -> list[Demonstration]:
    """Demonstrations to fine-tune on (the world writes 600 unless told otherwise)."""
    if is_world(spec):
        from tutelage import world

        return world.demonstrations_of(spec, count or 600, seed)
    found = load_data(spec).demonstrations
    if not found:
        raise UserError(
            "holds no demonstrations", where=spec, mend="give rows with messages, prompt+completion, or comparisons"
        )
    return found[:count]


def prompts(spec: str, split: str | None, count: int | None, seed: int) -> list[Prompt]:
    """Prompts of a split, or of `all`: the world's, or a file's (without repeats).

    None: those that are asked for without more words, all of a file's and the world's for training.
    """
    split = split or ("train" if is_world(spec) else "all")
    if is_world(spec):
        from tutelage import world

        if split == "all":
            mend = "give train, tune or report"
            raise UserError("the world's prompts have no end", where="option --split (split)", mend=mend)
        return world.prompts_of(spec, split, count or 1000, seed)
    found = read_whole(spec)[0].prompts if split == "all" else load_data(spec, split).prompts
    if not found and read_whole(spec)[0].prompts:
        mend = "give more prompts, or declare the splits: a field split, or files named train, validation and test"
        raise UserError(f"has no prompt in its split {split!r}", where=spec, mend=mend)
    if not found:
        raise UserError("holds no prompts", where=spec, mend="give rows with prompt, messages or comparisons")
    return found[:count]


def comparisons(spec: str, split: str) -> list[Comparison]:
    """Comparisons with their texts."""
    found = load_data(spec, split).comparisons
    if not found and split == "train":
        raise UserError(
            "holds no comparisons", where=spec, mend="give rows with prompt, chosen, rejected, or completions and ranks"
        )
    return found


def step_labels(spec: str, split: str) -> list[StepLabel]:
    """Solutions with labeled steps, each with its prompt's messages."""
    data = load_data(spec, split)
    asked = {p.id: p.messages for p in data.prompts}
    found = [one if one.messages else replace(one, messages=asked.get(one.prompt_id)) for one in data.steps]
    if not found and split == "train":
        mend = "give rows with prompt, completions and labels, PRM800K's rows, or what tutelage step-label writes"
        raise UserError("holds no labeled steps", where=spec, mend=mend)
    for one in found:
        if one.messages is None:
            what, mend = f"prompt {one.prompt_id!r} is not in the data", "put the prompts into the same file or folder"
            raise UserError(what, where=f"{spec}, step label {one.id}", mend=mend)
    return found


def thumbs(spec: str, split: str) -> list[Thumb]:
    """Answers with a thumb up or down; where there are none, comparisons taken apart."""
    data = load_data(spec, split)
    found = data.thumbs or [thumb for one in data.comparisons for thumb in taken_apart(one)]
    if not found and split == "train":
        raise UserError(
            "holds no thumbs and no comparisons", where=spec, mend="give rows with prompt, completion and label"
        )
    return found


def load_texts(spec: str, tokens: int, tokenizer: Any, seed: int = 0) -> list[list[int]]:
    """Token ids of plain documents, about `tokens` of them all together."""
    if is_world(spec):
        from tutelage import world

        stream = world.texts_of(spec, seed)
        found: list[list[int]] = []
        total = 0
        while total < tokens:
            chunk = tokenizer(list(itertools.islice(stream, CHUNK)), add_special_tokens=False)["input_ids"]
            found += chunk
            total += sum(map(len, chunk))
        return found
    texts = load_data(spec).texts
    if not texts:
        raise UserError("holds no plain text", where=spec, mend="give a .txt file or rows with text")
    return tokenizer(texts, add_special_tokens=False)["input_ids"]


def data_hash(spec: str) -> str:
    """sha256 over the files of a data option (the world's is its name)."""
    if is_world(spec):
        return spec
    digest = hashlib.sha256()
    for path in data_files(spec):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _split_in(path: Path, files: int) -> str | None:
    """The split that a file of several is named for: `train-00000.parquet`, or the folder `test` of saved datasets."""
    for name in (path.name, path.parent.name) if files > 1 else ():
        word = re.split(r"[-_.]", name.lower())[0]
        if SPLIT_NAMES.get(word, word) in SPLITS:
            return SPLIT_NAMES.get(word, word)
    return None


def _with_texts(one: Comparison, prompts: dict[str, Prompt], completions: dict[str, str], place: str) -> Comparison:
    """The comparison with its prompt and its answers' texts, looked up by id where it has none."""
    messages, texts = one.messages, one.completions
    if messages is None and one.prompt_id in prompts:
        messages = prompts[one.prompt_id].messages
    if texts is None and all(i in completions for i in one.completion_ids):
        texts = [completions[i] for i in one.completion_ids]
    if messages is None or texts is None:
        name, value = ("prompt_id", one.prompt_id) if messages is None else ("completion_ids", one.completion_ids)
        raise UserError(
            f"{value!r} is not in the data",
            where=f"{place}, field {name}",
            mend="give the folder that holds prompts and completions too, or put the texts into the comparison",
        )
    return replace(one, messages=messages, completions=texts)


def _paired(thumbs: list[Thumb]) -> list[Comparison]:
    """One comparison of each prompt that has answers with thumbs up and down."""
    groups: dict[str, dict[str, Thumb]] = {}
    for one in thumbs:
        groups.setdefault(one.prompt_id, {})[one.completion] = one
    return [
        Comparison(
            id=f"r-{prompt_id}",
            prompt_id=prompt_id,
            completion_ids=[completion_id(prompt_id, text) for text in group],
            ranks=[1 if one.label else 2 for one in group.values()],
            messages=next(iter(group.values())).messages,
            completions=list(group),
        )
        for prompt_id, group in groups.items()
        if len({one.label for one in group.values()}) == 2
    ]


def _derive(data: Dataset) -> None:
    """Prompts and demonstrations out of comparisons and thumbs: the best answer shows what to write."""
    known = {p.id for p in data.prompts}
    for one in data.comparisons:
        if one.messages and one.prompt_id not in known:
            known.add(one.prompt_id)
            data.prompts.append(Prompt(id=one.prompt_id, messages=one.messages, category=one.category))
    for demonstration in data.demonstrations:
        if demonstration.prompt_id not in known:
            known.add(demonstration.prompt_id)
            data.prompts.append(Prompt(id=demonstration.prompt_id, messages=demonstration.messages[:-1]))
    for thumb in data.thumbs:
        if thumb.prompt_id not in known:
            known.add(thumb.prompt_id)
            data.prompts.append(Prompt(id=thumb.prompt_id, messages=thumb.messages))
    if not data.demonstrations:
        for comparison in data.comparisons:
            best = (comparison.completions or [])[comparison.ranks.index(1)]
            if best.strip() and not comparison.all_bad:
                messages = [*(comparison.messages or []), {"role": "assistant", "content": best}]
                data.demonstrations.append(
                    Demonstration(id=f"d-{comparison.id}", prompt_id=comparison.prompt_id, messages=messages)
                )
        for thumb in data.thumbs:
            if thumb.label:
                messages = [*thumb.messages, {"role": "assistant", "content": thumb.completion}]
                data.demonstrations.append(
                    Demonstration(id=f"d-{thumb.id}", prompt_id=thumb.prompt_id, messages=messages)
                )
